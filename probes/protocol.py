"""The protocol: states of several models on identical traces → effects with intervals and verdicts.

The primary estimand is Δ = AUC(A) - AUC(B), held out, linear, averaged over the layer band and over training
seeds. (It is δ(A) - δ(B) with δ(arm) = AUC(arm) - AUC(base): with one shared base the base cancels.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from probes.alignment import Aligned, align, open_models
from probes.equivalence import Effect, crossed_effect, holm
from probes.features import Feature, FeatureError, find_feature
from probes.folds import group_problems
from probes.measure import Cell, FeaturePlan, measure_cell, plan_feature, surface_auc
from probes.permutation import permutation_p
from probes.power import Plan, plan, problems_needed
from probes.settings import ProtocolSettings
from probes.states import States
from tracekit.runs import Progress, no_progress, versions


@dataclass(frozen=True)
class Source:
    """Traces of one author and what every model's states on them are.

    name: who wrote the traces. traces: problem_id, trace_id, problem, response and what the features need.
    steps: STEPS. states: model → one folder of states for each training seed.
    """

    name: str
    traces: pl.DataFrame
    steps: pl.DataFrame
    states: Mapping[str, Sequence[Path]]


@dataclass(frozen=True)
class ProbeResult:
    """All that the protocol found, as tables, and what it was found under.

    tables: "effects", "cells", "decodability", "controls", "power", "sources", "geometry", "slices".
    notes: what a reader has to know before believing a number.
    """

    settings: ProtocolSettings
    tables: dict[str, pl.DataFrame]
    notes: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Probed:
    """One feature's plan and cells."""

    plan: FeaturePlan
    cells: dict[tuple[str, int, int], Cell]
    surface: float | None


def run_protocol(
    source: Source,
    settings: ProtocolSettings,
    *,
    others: Sequence[Source] = (),
    progress: Progress = no_progress,
) -> ProbeResult:
    """Run everything on a neutral source of traces; `others` (own rollouts) fill the arm × source matrix.

    Raises StatesError, FeatureError, FoldError (all ValueError) where the input cannot be probed.
    """
    models = open_models(source.states)
    if settings.base not in models:
        raise FeatureError(f"no model is named {settings.base!r}; models: {', '.join(models)}. Set `base`.")
    band = choose_band(models, settings)
    group_of = group_by_text(source.traces)
    probed: dict[str, _Probed] = {}
    identical = True
    for name in settings.features:
        feature = find_feature(name, source.traces, source.steps)
        aligned = align(models, settings.position or feature.position)
        identical &= aligned.identical
        probed[name] = _probe(aligned, feature, source, group_of, band, settings, progress)
    contrasts = choose_contrasts(list(models), settings)
    seeds = _seeds(models)
    effects = effect_table(probed, contrasts, seeds, band, settings)
    tables = {
        "effects": effects,
        "cells": _cell_table(probed),
        "decodability": _decodability_table(probed, settings),
        "controls": _control_table(probed, band, settings),
        "power": _power_table(probed, settings),
    }
    about = {
        "source": source.name,
        "band": list(band),
        "models": {m: len(s) for m, s in models.items()},
        "problems": source.traces["problem_id"].n_unique(),
        "traces": len(source.traces),
        "identical_tokens": identical,
        "versions": versions(),
    }
    return ProbeResult(settings, tables, _notes(seeds, identical, effects), about)


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
    return [(a, settings.base) for a in arms] + [(b, a) for i, a in enumerate(arms) for b in arms[i + 1 :]]


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


def _seeds(models: Mapping[str, Sequence[States]]) -> int:
    counts = {name: len(seeds) for name, seeds in models.items()}
    most = max(counts.values())
    odd = {name: count for name, count in counts.items() if count not in (1, most)}
    if odd:
        raise FeatureError(f"models have {counts} seeds; each needs {most}, or 1 that is shared by all.")
    return most


# ---------------------------------------------------------------- one feature


def _probe(
    aligned: Aligned,
    feature: Feature,
    source: Source,
    group_of: dict[str, int],
    band: tuple[int, ...],
    settings: ProtocolSettings,
    progress: Progress,
) -> _Probed:
    planned = plan_feature(aligned, feature, source.traces, source.steps, group_of, settings)
    surface = surface_matrix(aligned, planned, settings)
    work = [(m, s, layer) for m, seeds in aligned.states.items() for s in range(len(seeds)) for layer in aligned.layers]
    cells = {}
    for done, (model, seed, layer) in enumerate(work):
        progress(f"probe {feature.name}", done, len(work), f"{model}, seed {seed}, layer {layer}")
        cells[model, seed, layer] = measure_cell(
            aligned.layer(model, seed, layer, planned.rows),
            planned,
            settings,
            model=model,
            seed=seed,
            layer=layer,
            in_band=layer in band,
            surface=surface,
        )
    progress(f"probe {feature.name}", len(work), len(work), "")
    return _Probed(planned, cells, surface_auc(surface, planned, settings))


def surface_matrix(aligned: Aligned, planned: FeaturePlan, settings: ProtocolSettings) -> np.ndarray:
    """(n, k) what the text tells of the rows, with the base's log-probability where it was extracted."""
    states = aligned.states[settings.base][0]
    rows = aligned.rows[settings.base, 0][planned.rows]
    surface = np.asarray(states.surface()[rows], dtype=np.float64)
    log_prob = states.index["log_prob"].gather(rows)
    if log_prob.null_count() == 0:
        surface = np.hstack([surface, log_prob.to_numpy()[:, None]])
    return surface


# ---------------------------------------------------------------- effects


def effect_table(
    probed: Mapping[str, _Probed],
    contrasts: Sequence[tuple[str, str]],
    seeds: int,
    band: Sequence[int],
    settings: ProtocolSettings,
) -> pl.DataFrame:
    """One row a (estimand, contrast, feature): the effect, its interval, tests and verdict.

    Estimands: "delta" (linear AUC), "gamma" (RBF - linear), "gain" (with surface features beside the states).
    """
    rows = []
    for estimand in ("delta", "gamma", "gain"):
        for a, b in contrasts:
            family = []
            for name, one in probed.items():
                effect = contrast(one, a, b, seeds, band, estimand)
                family.append((name, one, effect))
            different = holm(np.asarray([e.p_different() for *_, e in family]))
            same = holm(np.asarray([e.p_equivalent(settings.margin) for *_, e in family]))
            for (name, one, effect), p, q in zip(family, different, same):
                rows.append(_effect_row(name, one, effect, (a, b), estimand, (p, q), band, settings))
    return pl.DataFrame(rows)


def contrast(one: _Probed, a: str, b: str, seeds: int, band: Sequence[int], estimand: str) -> Effect:
    """The effect of A against B on one feature."""
    pairs = [(_in_band(one, a, seed, band, estimand), _in_band(one, b, seed, band, estimand)) for seed in range(seeds)]
    if _seeds_of(one, a) == _seeds_of(one, b) == 1:
        pairs = pairs[:1]
    differences = np.asarray([x[0] - y[0] for x, y in pairs])
    draws = np.stack([x[1] - y[1] for x, y in pairs], axis=1)
    return crossed_effect(differences, draws, len(np.unique(one.plan.groups)))


def _seeds_of(one: _Probed, model: str) -> int:
    return 1 + max(seed for name, seed, _ in one.cells if name == model)


def _in_band(one: _Probed, model: str, seed: int, band: Sequence[int], estimand: str) -> tuple[float, np.ndarray]:
    """(statistic, its draws), mean over the band; a model of one seed stands for every seed."""
    seed = min(seed, _seeds_of(one, model) - 1)
    cells = [one.cells[model, seed, layer] for layer in band]
    statistics = {
        "delta": lambda c: (c.statistics["linear"], c.draws["linear"]),
        "gamma": lambda c: (c.statistics["rbf"] - c.statistics["linear"], c.draws["rbf"] - c.draws["linear"]),
        "gain": lambda c: (c.statistics["with_surface"], c.draws["with_surface"]),
    }
    found = [statistics[estimand](c) for c in cells]
    return float(np.mean([f[0] for f in found])), np.mean([f[1] for f in found], axis=0)


def _effect_row(
    name: str,
    one: _Probed,
    effect: Effect,
    pair: tuple[str, str],
    estimand: str,
    p: tuple[float, float],
    band: Sequence[int],
    settings: ProtocolSettings,
) -> dict[str, Any]:
    low, high = effect.interval(settings.alpha)
    base = np.mean([one.cells[settings.base, 0, layer].auc for layer in band])
    verdict, why, needed = judge(one, effect, p, float(base), pair, band, settings)
    return {
        "estimand": estimand,
        "a": pair[0],
        "b": pair[1],
        "feature": name,
        "effect": effect.estimate,
        "low": low,
        "high": high,
        "p": effect.p_different(),
        "p_holm": p[0],
        "p_equivalent": effect.p_equivalent(settings.margin),
        "p_equivalent_holm": p[1],
        "verdict": verdict,
        "why": why,
        "base_auc": float(base),
        "seeds": effect.seeds,
        "problems": effect.problems,
        "swappable_blocks": one.plan.swappable,
        "se_seeds": effect.seed_variance**0.5,
        "se_problems": effect.problem_variance**0.5,
        "problems_needed": needed,
    }


def judge(
    one: _Probed,
    effect: Effect,
    p: tuple[float, float],
    base: float,
    pair: tuple[str, str],
    band: Sequence[int],
    settings: ProtocolSettings,
) -> tuple[str, str, int | None]:
    """(verdict, why, problems needed). An effect inside the margin is equivalent even where it is not zero."""
    needed = problems_needed(effect, settings.margin, settings.alpha, settings.power)
    own = [c for (m, _, layer), c in one.cells.items() if m in pair and layer in band]
    if base > settings.saturated:
        return "saturated", f"the base's AUC is {base:.3f}, above {settings.saturated}: nothing is left to gain", None
    if one.plan.swappable < settings.least_blocks:
        return "inconclusive", f"{one.plan.swappable} swappable blocks, {settings.least_blocks} needed", needed
    if max(c.degenerate for c in own) > settings.degenerate:
        return "inconclusive", f"{max(c.degenerate for c in own):.0%} of the fits are degenerate", needed
    if p[1] < settings.alpha:
        return "equivalent", f"inside ±{settings.margin} (TOST, Holm p = {p[1]:.2g})", None
    if p[0] < settings.alpha:
        return "changed", f"differs from 0 (Holm p = {p[0]:.2g})", None
    more = "more seeds" if needed is None else f"{needed} problems"
    return "inconclusive", f"neither different from 0 nor inside ±{settings.margin}; {more} needed", needed


# ---------------------------------------------------------------- tables


def _cell_table(probed: Mapping[str, _Probed]) -> pl.DataFrame:
    return pl.DataFrame(
        [
            {
                "feature": name,
                "model": c.model,
                "seed": c.seed,
                "layer": c.layer,
                "auc": c.auc,
                "low": c.low,
                "high": c.high,
                "null_mean": float(np.mean(c.null)),
                "null_95": float(np.quantile(c.null, 0.95)),
                "swept": c.swept,
                "rbf": c.statistics.get("rbf"),
                "with_surface": c.statistics.get("with_surface"),
                "degenerate": c.degenerate,
                "kkt_gap": c.largest_gap,
            }
            for name, one in probed.items()
            for c in one.cells.values()
        ]
    )


def _decodability_table(probed: Mapping[str, _Probed], settings: ProtocolSettings) -> pl.DataFrame:
    """Is the feature there at all? Maximum over layers, the same permutation across layers; Holm over features."""
    rows = []
    for name, one in probed.items():
        for model, seed in sorted({(m, s) for m, s, _ in one.cells}):
            layers = [c for (m, s, _), c in one.cells.items() if (m, s) == (model, seed)]
            observed = max(c.swept for c in layers)
            null = np.max([c.null for c in layers], axis=0)
            p = permutation_p(observed, null)
            rows.append({"feature": name, "model": model, "seed": seed, "best_auc": observed, "p": p})
    frame = pl.DataFrame(rows)
    parts = [
        part.with_columns(p_holm=pl.Series(holm(part["p"].to_numpy())))
        for part in frame.partition_by("model", "seed", maintain_order=True)
    ]
    return pl.concat(parts).with_columns(permutations=pl.lit(settings.permutations))


def _control_table(probed: Mapping[str, _Probed], band: Sequence[int], settings: ProtocolSettings) -> pl.DataFrame:
    """AUC in the band beside what each control reaches."""
    rows = []
    for name, one in probed.items():
        for model in dict.fromkeys(m for m, *_ in one.cells):
            cells = [c for (m, _, layer), c in one.cells.items() if m == model and layer in band]
            swept = float(np.mean([c.swept for c in cells]))
            token = float(np.mean([c.token_control for c in cells]))
            rows.append(
                {
                    "feature": name,
                    "model": model,
                    "auc": float(np.mean([c.auc for c in cells])),
                    "surface_alone": one.surface,
                    "with_surface": _mean(c.statistics.get("with_surface") for c in cells),
                    "random_token_labels": token,
                    "selectivity": swept - token,
                    "shuffled_labels": float(np.mean([c.null.mean() for c in cells])),
                    "untrained_control": model == settings.untrained,
                }
            )
    return pl.DataFrame(rows)


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def _power_table(probed: Mapping[str, _Probed], settings: ProtocolSettings) -> pl.DataFrame:
    rows = []
    for name, one in probed.items():
        before: Plan = plan(
            one.plan.targets[0] if one.plan.binary else np.sign(one.plan.targets[0]),
            one.plan.groups,
            target=settings.margin,
            alpha=settings.alpha,
            power=settings.power,
        )
        rows.append(
            {
                "feature": name,
                "rows": len(one.plan.rows),
                "problems": before.problems,
                "swappable_blocks": one.plan.swappable,
                "intraclass": before.intraclass,
                "design_effect": before.design_effect,
                "detectable": before.detectable,
                "problems_needed": before.needed,
                "classes": ", ".join(one.plan.labels.classes),
                "task": one.plan.labels.task,
                "position": one.plan.feature.position,
            }
        )
    return pl.DataFrame(rows)


def _notes(seeds: int, identical: bool, effects: pl.DataFrame) -> tuple[str, ...]:
    notes = ["With one base shared by all arms, δ(A) - δ(B) is AUC(A) - AUC(B)."]
    if seeds == 1:
        notes.append("One checkpoint an arm: every statement speaks of these checkpoints only, not of the methods.")
    if not identical:
        notes.append("Tokenizers differ: rows are compared where they end at the same character.")
    few = effects.filter(pl.col("why").str.contains("swappable"))["feature"].unique().to_list()
    if few:
        notes.append(f"Too few swappable blocks for any answer: {', '.join(sorted(few))}.")
    return tuple(notes)
