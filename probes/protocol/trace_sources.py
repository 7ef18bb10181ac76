"""The crossed design: every model on the traces of every author, and what changes with the author.

The main claim stands on one neutral source that no arm wrote. Second come the arms' own rollouts: there a model reads
what it would write itself, so that a difference may lie in the texts as well as in the states. On each source all
models read identical tokens, and a binary feature keeps the neutral source's share of positive rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from probes.protocol.cells import CellKey, Probed, measure_linear
from probes.protocol.effects import contrast, shared_models
from probes.protocol.feature_plan import plan_feature
from probes.protocol.features import Feature, FeatureError, find_feature
from probes.protocol.settings import ProtocolSettings
from probes.states.alignment import align, open_models
from probes.statistics.equivalence import Effect
from probes.statistics.folds import FoldError, group_problems
from probes.statistics.holm import holm
from tracekit.core.ids import content_id
from tracekit.core.runs import Progress

#: The source of the rows that compare each model on its own rollouts.
OWN = "own rollouts"


@dataclass(frozen=True)
class Source:
    """Traces of one author and what every model's states on them are.

    Attributes
    ----------
    name : str
        Who wrote the traces; a model's name where they are its rollouts.
    traces : DataFrame
        problem_id, trace_id, problem, response, and the columns that features are read from; one row a trace.
    steps : DataFrame
        STEPS of those traces.
    states : mapping of str to sequence of Path
        Model → one folder of `extract_states` for each training seed.

    Examples
    --------
    >>> import polars as pl
    >>> from probes import Source
    >>> Source("teacher", pl.DataFrame(), pl.DataFrame(), {"base": [], "sft": []}).name
    'teacher'
    """

    name: str
    traces: pl.DataFrame
    steps: pl.DataFrame
    states: Mapping[str, Sequence[Path]]


def rollouts_as_traces(completions: pl.DataFrame) -> pl.DataFrame:
    """COMPLETIONS of one policy, its seeds pooled if there are several, as the traces of a source.

    correct: by the verifier's outcome, null where it could not tell. Completions without a word are left out.
    """
    said = completions.filter(pl.col("response").str.strip_chars() != "")
    known = pl.col("outcome").is_in(
        ["correct", "wrong", "restated", "no_answer"]
    )  # the rest of evaluators.Outcome is "don't know"
    number = pl.int_range(pl.len()).over("problem_id")
    ids = [
        content_id("rollout", problem, str(k), response)
        for problem, k, response in said.select("problem_id", number.alias("k"), "response").iter_rows()
    ]
    return said.select(
        pl.Series("trace_id", ids, pl.String),
        "problem_id",
        "problem",
        "response",
        correct=pl.when(known).then(pl.col("outcome") == "correct"),
    )


@dataclass(frozen=True)
class Crossed:
    """One feature on one other source. probed is None where it could not be: `why_not` says the reason."""

    feature: str
    source: str
    models: tuple[str, ...]
    probed: Probed | None
    why_not: str = ""


def group_by_text(traces: pl.DataFrame) -> dict[str, int]:
    """problem_id → group; near-identical problem texts share one. A column `group` of traces overrules the text."""
    if "group" in traces.columns:
        pairs = traces.select("problem_id", "group").unique()
        doubled = pairs["problem_id"].is_duplicated().sum()
        if doubled:
            raise FeatureError(f"traces.group names two groups for {doubled // 2} problems; give each problem one.")
        names = {g: k for k, g in enumerate(pairs["group"].unique().sort())}
        return {p: names[g] for p, g in pairs.iter_rows()}
    problems = traces.select("problem_id", "problem").unique("problem_id", maintain_order=True)
    return dict(zip(problems["problem_id"], group_problems(problems["problem"].to_list()).tolist()))


def probe_source(
    source: Source,
    feature: Feature,
    share: float | None,
    band: Sequence[int],
    settings: ProtocolSettings,
    progress: Progress,
) -> Crossed:
    """Linear SVMs of every model in the band on one source, with refits for intervals.

    share: of positive rows to match, None where the feature is not binary. What cannot be probed there (a model that
    is never wrong has no wrong steps to find) is said, not raised.
    """
    models = open_models(source.states)
    names = tuple(models)
    try:
        own = find_feature(feature.name, source.traces, source.steps)
        aligned = align(models, feature.at(settings.position))
        groups = group_by_text(source.traces)
        plan = plan_feature(aligned, own, source.traces, source.steps, groups, settings, share)
        cells = {}
        work = [(m, s, layer) for m, seeds in models.items() for s in range(len(seeds)) for layer in band]
        for done, (model, seed, layer) in enumerate(work):
            progress(f"probe {feature.name} on {source.name}", done, len(work), f"{model}, seed {seed}, layer {layer}")
            states = aligned.layer(model, seed, layer, plan.rows)
            cells[model, seed, layer] = measure_linear(states, plan, settings, CellKey(model, seed, layer))
        progress(f"probe {feature.name} on {source.name}", len(work), len(work), "")
    except (FeatureError, FoldError) as reason:
        return Crossed(feature.name, source.name, names, None, str(reason))
    return Crossed(feature.name, source.name, names, Probed(plan, cells, None))


def source_table(
    neutral: str, probed: Mapping[str, Probed], crossed: Sequence[Crossed], band: Sequence[int]
) -> pl.DataFrame:
    """The arm × source matrix: one row a (feature, source, model), AUC in the band with its interval."""
    rows: list[dict[str, Any]] = []
    for name, one in probed.items():
        rows += _matrix_rows(name, neutral, one, band)
        for other in (c for c in crossed if c.feature == name):
            if other.probed is not None:
                rows += _matrix_rows(name, other.source, other.probed, band)
            else:
                unknown: dict[str, Any] = dict.fromkeys(("auc", "low", "high", "positive_share"))
                about: dict[str, Any] = {"rows": 0, "problems": 0, "why_not": other.why_not}
                rows += [{"feature": name, "source": other.source, "model": m} | unknown | about for m in other.models]
    return pl.DataFrame(rows, schema=_MATRIX)


_MATRIX = {
    "feature": pl.String,
    "source": pl.String,
    "model": pl.String,
    "auc": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "rows": pl.Int64,
    "problems": pl.Int64,
    "positive_share": pl.Float64,
    "why_not": pl.String,
}


def _matrix_rows(feature: str, source: str, one: Probed, band: Sequence[int]) -> list[dict[str, Any]]:
    about: dict[str, Any] = {
        "rows": len(one.plan.rows),
        "problems": one.plan.problems,
        "positive_share": one.plan.positive_share,
        "why_not": "",
    }
    rows: list[dict[str, Any]] = []
    for model in dict.fromkeys(m for m, *_ in one.cells):
        cells = [c for (m, _, layer), c in one.cells.items() if m == model and layer in band]
        numbers: dict[str, Any] = {k: sum(getattr(c, k) for c in cells) / len(cells) for k in ("auc", "low", "high")}
        rows.append({"feature": feature, "source": source, "model": model} | numbers | about)
    return rows


def source_effects(
    crossed: Sequence[Crossed],
    contrasts: Sequence[tuple[str, str]],
    band: Sequence[int],
    settings: ProtocolSettings,
) -> pl.DataFrame:
    """Δ of every contrast on every other source, and of each model on its own rollouts; Holm over all rows.

    On one source models read identical tokens and Δ is paired. On their own rollouts (source "own rollouts", where
    both models are sources) the rows differ: the two are resampled apart, which is too wide rather than too narrow
    where the problems are the same.
    """
    known = {(c.feature, c.source): c.probed for c in crossed if c.probed is not None}
    features = list(dict.fromkeys(c.feature for c in crossed))
    found: list[tuple[str, str, tuple[str, str], Effect]] = []
    for source in [*dict.fromkeys(c.source for c in crossed), OWN]:
        for a, b in contrasts:
            for name in features:
                pair = (
                    known.get((name, a if source == OWN else source)),
                    known.get((name, b if source == OWN else source)),
                )
                if pair[0] is None or pair[1] is None or not (pair[0].has(a) and pair[1].has(b)):
                    continue
                shared = shared_models(settings)
                effect = contrast(pair[0], a, b, band, settings.estimand, shared=shared, of_b=pair[1])
                found.append((name, source, (a, b), effect))
    return pl.DataFrame(_effect_rows(found, settings), schema=_EFFECTS)


_EFFECTS = {
    "feature": pl.String,
    "source": pl.String,
    "a": pl.String,
    "b": pl.String,
    "effect": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "p_holm": pl.Float64,
    "p_equivalent_holm": pl.Float64,
    "seeds": pl.Int64,
    "problems": pl.Int64,
}


def _effect_rows(
    found: Sequence[tuple[str, str, tuple[str, str], Effect]], settings: ProtocolSettings
) -> list[dict[str, Any]]:
    """Rows of all sources: one family for Holm's correction."""
    different = holm(np.asarray([effect.p_different() for *_, effect in found]))
    same = holm(np.asarray([effect.p_equivalent(settings.margin) for *_, effect in found]))
    rows: list[dict[str, Any]] = []
    for (name, source, (a, b), effect), p, q in zip(found, different, same):
        low, high = effect.interval(settings.alpha)
        about: dict[str, Any] = {"feature": name, "source": source, "a": a, "b": b, "effect": effect.estimate}
        tests = {"low": low, "high": high, "p_holm": p, "p_equivalent_holm": q}
        rows.append(about | tests | {"seeds": effect.seeds, "problems": effect.problems})
    return rows
