"""The protocol: states of several models on identical traces → effects with intervals and verdicts.

The primary estimand is Δ = AUC(A) - AUC(B), held out, linear, averaged over the layer band and over training
seeds. (It is δ(A) - δ(B) with δ(arm) = AUC(arm) - AUC(base): with one shared base the base cancels.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from probes.protocol.cells import CellKey, Probed, held_out_decisions, linear_auc, measure_cell
from probes.protocol.effects import effect_table
from probes.protocol.estimands import auc, choose_estimands, value
from probes.protocol.feature_plan import FeaturePlan, plan_feature
from probes.protocol.features import Feature, FeatureError, find_feature
from probes.protocol.generalisation import GENERALISATION, generalisation_rows
from probes.protocol.geometry import compare_to_base, decision_slice
from probes.protocol.known_answers import known_answer_rows
from probes.protocol.result import ProbeResult, cell_table, control_table, decodability_table, power_table
from probes.protocol.settings import ProtocolSettings
from probes.protocol.trace_sources import Crossed, Source, group_by_text, probe_source, source_effects, source_table
from probes.states.alignment import Aligned, align, open_models
from probes.states.extract import States
from tracekit.core.runs import Progress, no_progress, versions

#: Schema of the table of controls whose answer is known.
KNOWN_ANSWERS = {
    "feature": pl.String,
    "control": pl.String,
    "strength": pl.Float64,
    "effect": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "reads": pl.String,
    "expected": pl.String,
    "as_expected": pl.Boolean,
}

#: Columns of the text's features that say where a row stands: step, token, share of the response.
STANDING = slice(-5, -2)


def run_protocol(
    source: Source,
    settings: ProtocolSettings,
    *,
    others: Sequence[Source] = (),
    progress: Progress = no_progress,
) -> ProbeResult:
    """Run everything on a neutral source of traces; `others` (own rollouts) fill the arm × source matrix.

    The registered estimand is Δ = AUC(A) − AUC(B) of linear probes on problems held out, with an interval over training
    seeds and problems and Holm's correction over one family.

    Parameters
    ----------
    source : Source
        Traces that no arm wrote, with every model's states on them.
    settings : ProtocolSettings
        What was decided beforehand.
    others : sequence of Source
        Traces of other authors with every model's states on them; a source that bears a model's name holds that model's
        own rollouts. Binary features keep the neutral source's share of positive rows there.
    progress : callable
        Called as progress(stage, done, total, note).

    Returns
    -------
    ProbeResult
        Tables, settings and notes; `write_report` makes a page of it.

    Raises
    ------
    StatesError, FeatureError, FoldError
        All ValueError: where states are absent or of models that cannot be compared, a feature is unknown or of one
        class, or too few problems show the rarer class.

    Examples
    --------
    docs/probing.md runs the whole way from checkpoints:

    >>> result = run_protocol(Source("teacher", traces, steps, states), settings)  # doctest: +SKIP
    >>> result.tables["effects"].select("feature", "a", "b", "effect", "verdict")  # doctest: +SKIP
    """
    models = open_models(source.states)
    if settings.base not in models:
        raise FeatureError(f"no model is named {settings.base!r}; models: {', '.join(models)}. Set `base`.")
    choose_estimands(settings.estimands, settings.estimand)  # an unknown name is refused before a state is read
    band = choose_band(models, settings)
    contrasts = choose_contrasts(list(models), settings)
    group_of = group_by_text(source.traces)
    probed: dict[str, Probed] = {}
    shapes, planes, known, elsewhere, identical = [], [], [], [], True
    crossed: list[Crossed] = []
    for name in settings.features:
        feature = find_feature(name, source.traces, source.steps)
        aligned = align(models, feature.at(settings.position))
        identical &= aligned.identical
        # The matrices are small and the solver has threads of its own: BLAS threads inside them cost 5 to 30 times
        # the time on a busy machine, and another sum order with every thread count.
        with threadpool_limits(1):
            probed[name] = probe_feature(aligned, feature, source, group_of, band, settings, progress)
            shapes += geometry_rows(aligned, probed[name], settings)
            planes += slice_rows(aligned, probed[name], band, settings)
            elsewhere += generalisation_rows(aligned, probed[name], band)
            known += known_answer_rows(aligned, probed[name], band, settings)
            share = probed[name].plan.positive_share
            crossed += [probe_source(other, feature, share, band, settings, progress) for other in others]
    effects = effect_table(probed, contrasts, band, settings)
    tables = {
        "effects": effects,
        "cells": cell_table(probed, settings),
        "decodability": decodability_table(probed, settings),
        "controls": control_table(probed, band, settings),
        "known_answers": pl.DataFrame(known, schema=KNOWN_ANSWERS, infer_schema_length=None),
        "power": power_table(probed, settings),
        "sources": source_table(source.name, probed, crossed, band),
        "source_effects": source_effects(crossed, contrasts, band, settings),
        "geometry": pl.DataFrame(shapes, infer_schema_length=None),
        "generalisation": pl.DataFrame(elsewhere, schema=GENERALISATION),
        "slices": pl.DataFrame(planes, infer_schema_length=None),
    }
    about = {
        "source": source.name,
        "band": list(band),
        "models": {m: len(s) for m, s in models.items()},
        "problems": source.traces["problem_id"].n_unique(),
        "groups": len(set(group_of.values())),
        "traces": len(source.traces),
        "identical_tokens": identical,
        "versions": versions(),
    }
    return ProbeResult(settings, tables, _notes(identical, tables, settings), about)


# ---------------------------------------------------------------- what is compared


def choose_band(models: Mapping[str, Sequence[States]], settings: ProtocolSettings) -> tuple[int, ...]:
    """The layers of the primary estimand: as set, or those from half to three quarters of the depth."""
    states = next(iter(models.values()))[0]
    layers = set.intersection(*(set(s.layers) for seeds in models.values() for s in seeds))
    wanted = settings.band or tuple(
        range(round(states.depth / 2), max(3 * states.depth // 4, round(states.depth / 2)) + 1)
    )
    absent = [layer for layer in wanted if layer not in layers]
    if absent:
        raise FeatureError(f"band {list(wanted)}: layers {absent} were not extracted; states have {sorted(layers)}.")
    return tuple(wanted)


def choose_contrasts(models: Sequence[str], settings: ProtocolSettings) -> list[tuple[str, str]]:
    """Pairs (A, B) as set, or every arm against the base and every later arm against every earlier one."""
    for pair in settings.contrasts:
        unknown = [name for name in pair if name not in models]
        if unknown:
            raise FeatureError(f"contrast {pair}: no model {unknown[0]!r}; models: {', '.join(models)}.")
    if settings.contrasts:
        return list(settings.contrasts)
    arms = [m for m in models if m not in (settings.base, settings.untrained)]
    if not arms:
        raise FeatureError(f"models are {', '.join(models)}: nothing to compare {settings.base} with. Add an arm.")
    return [(a, settings.base) for a in arms] + [(b, a) for i, a in enumerate(arms) for b in arms[i + 1 :]]


# ---------------------------------------------------------------- one feature


def probe_feature(
    aligned: Aligned,
    feature: Feature,
    source: Source,
    group_of: dict[str, int],
    band: tuple[int, ...],
    settings: ProtocolSettings,
    progress: Progress,
) -> Probed:
    """Plan the feature, then measure every model, seed and layer."""
    plan = plan_feature(aligned, feature, source.traces, source.steps, group_of, settings)
    text, place = text_matrices(aligned, plan, settings)
    if plan.binary:
        plan = replace(plan, baseline=held_out_decisions(text, plan))
    surface = surface_matrix(aligned, plan, settings)
    work = [(m, s, layer) for m, seeds in aligned.states.items() for s in range(len(seeds)) for layer in aligned.layers]
    cells = {}
    for done, (model, seed, layer) in enumerate(work):
        progress(f"probe {feature.name}", done, len(work), f"{model}, seed {seed}, layer {layer}")
        states = aligned.layer(model, seed, layer, plan.rows)
        key = CellKey(model, seed, layer)
        cells[model, seed, layer] = measure_cell(states, plan, settings, key, in_band=layer in band, surface=surface)
    progress(f"probe {feature.name}", len(work), len(work), "")
    alone = [value(auc, held_out_decisions(x, plan), plan.scored_rows()) for x in (text, place)]
    return Probed(plan, cells, linear_auc(surface, plan, settings), text=alone[0], position=alone[1])


def text_matrices(aligned: Aligned, plan: FeaturePlan, settings: ProtocolSettings) -> tuple[np.ndarray, np.ndarray]:
    """What the text tells of the rows (n, k), and the place in the trace alone (n, m): each step, token, share."""
    states = aligned.states[settings.base][0]
    text = np.asarray(states.surface()[aligned.rows[settings.base, 0][plan.rows]], dtype=np.float64)
    steps = (plan.strata[:, None] == np.unique(plan.strata)).astype(np.float64)
    return text, np.hstack([steps, text[:, STANDING]])


def surface_matrix(aligned: Aligned, plan: FeaturePlan, settings: ProtocolSettings) -> np.ndarray:
    """(n, k) what the text tells of the rows, with the base's log-probability where it was extracted."""
    rows = aligned.rows[settings.base, 0][plan.rows]
    surface, _ = text_matrices(aligned, plan, settings)
    log_prob = aligned.states[settings.base][0].index["log_prob"].gather(rows)
    if log_prob.null_count() == 0:
        surface = np.hstack([surface, log_prob.to_numpy()[:, None]])
    return surface


# ---------------------------------------------------------------- beside the effects


def geometry_rows(aligned: Aligned, one: Probed, settings: ProtocolSettings) -> list[dict[str, Any]]:
    """Geometry of every cell against the base, on the feature's most balanced class; none for real labels."""
    if not one.plan.binary:
        return []
    number, target = _most_balanced(one.plan)
    rows = []
    for layer in aligned.layers:
        base = aligned.layer(settings.base, 0, layer, one.plan.rows)
        for (model, seed, at), cell in one.cells.items():
            if at != layer:
                continue
            states = aligned.layer(model, seed, layer, one.plan.rows)
            cost = float(cell.costs[number]) if settings.fit == "hinge" else 1.0
            found = compare_to_base(states, base, target, one.plan.repeats[0], one.plan.groups, cost)
            rows.append(
                {"feature": one.plan.feature.name, "model": model, "seed": seed, "layer": layer, **asdict(found)}
            )
    return rows


def slice_rows(aligned: Aligned, one: Probed, band: Sequence[int], settings: ProtocolSettings) -> list[dict[str, Any]]:
    """A plane through the states of each model's first seed, at the first layer of the band."""
    if not one.plan.binary:
        return []
    number, target = _most_balanced(one.plan)
    rows = []
    for model in aligned.states:
        states = aligned.layer(model, 0, band[0], one.plan.rows)
        cell = one.cells[model, 0, band[0]]
        cost = float(cell.costs[number]) if settings.fit == "hinge" else 1.0
        plane = decision_slice(states, target, one.plan.repeats[0], cost)
        rows += [
            {
                "feature": one.plan.feature.name,
                "model": model,
                "layer": band[0],
                "label": one.plan.label_names[number][int(y > 0)],
                "positive": bool(y > 0),
                "decision": float(x),
                "across": float(z),
                "role": ("held out", "training", "support vector")[role],
            }
            for x, z, role, y in zip(*plane, target)
        ]
    return rows


def _most_balanced(plan: FeaturePlan) -> tuple[int, np.ndarray]:
    number = int(np.argmin(np.abs(plan.targets.mean(1))))
    return number, plan.targets[number]


def _notes(identical: bool, tables: Mapping[str, pl.DataFrame], settings: ProtocolSettings) -> tuple[str, ...]:
    one_base = tables["cells"].filter(pl.col("model") == settings.base)["seed"].n_unique() == 1
    shared = "With one base shared by all arms" if one_base else "With the same base for all arms of a seed"
    notes = [f"{shared}, δ(A) - δ(B) is AUC(A) - AUC(B)."]
    single = tables["effects"].filter(pl.col("seeds") == 1).select("a", "b").unique(maintain_order=True).rows()
    if single:
        pairs = ", ".join(f"{a} against {b}" for a, b in single)
        notes.append(f"One checkpoint an arm ({pairs}): speaks of these checkpoints only, not of the methods.")
    if not tables["source_effects"].is_empty():
        notes.append(
            "The verdicts stand on the neutral source alone. On own rollouts a difference may lie in what the models "
            "write as well as in their states."
        )
    for row in tables["controls"].filter(pl.col("model") == settings.base).iter_rows(named=True):
        if row["surface_alone"] is not None and row["surface_alone"] >= row["auc"]:
            notes.append(
                f"{row['feature']}: the text alone (tokens, position, length, log-probability) reaches an AUC of "
                f"{row['surface_alone']:.2f}, the base's states {row['auc']:.2f}: separability need not mean that a "
                "model works the feature out."
            )
    for row in tables["known_answers"].filter(~pl.col("as_expected")).iter_rows(named=True):
        strength = "" if row["strength"] is None else f" at {row['strength']:g} standard deviations"
        notes.append(
            f"{row['feature']}: the control {row['control']}{strength} reads {row['reads']}, expected "
            f"{row['expected']} (Δ {row['effect']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}])."
        )
    if not identical:
        notes.append("Tokenizers differ: rows are compared where they end at the same character.")
    for row in tables["power"].iter_rows(named=True):
        if row["swappable_blocks"] < settings.least_blocks:
            notes.append(
                f"{row['feature']}: {row['swappable_blocks']} swappable blocks, fewer than {settings.least_blocks}: "
                "nothing is concluded."
            )
    return tuple(notes)
