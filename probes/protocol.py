"""The protocol: states of several models on identical traces → effects with intervals and verdicts.

The primary estimand is Δ = AUC(A) - AUC(B), held out, linear, averaged over the layer band and over training
seeds. (It is δ(A) - δ(B) with δ(arm) = AUC(arm) - AUC(base): with one shared base the base cancels.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from probes.alignment import Aligned, align, open_models
from probes.effects import effect_table
from probes.features import Feature, FeatureError, find_feature
from probes.folds import FoldError, group_problems
from probes.geometry import compare_to_base, decision_slice
from probes.measure import FeaturePlan, Probed, linear_auc, measure_cell, plan_feature
from probes.result import ProbeResult, cell_table, control_table, decodability_table, power_table
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
    contrasts = choose_contrasts(list(models), settings)
    group_of = group_by_text(source.traces)
    probed: dict[str, Probed] = {}
    shapes, planes, matrix, identical = [], [], [], True
    for name in settings.features:
        feature = find_feature(name, source.traces, source.steps)
        aligned = align(models, settings.position or feature.position)
        identical &= aligned.identical
        # The matrices are small and the solver has threads of its own: BLAS threads inside them cost 5 to 30 times
        # the time on a busy machine, and another sum order with every thread count.
        with threadpool_limits(1):
            probed[name] = probe_feature(aligned, feature, source, group_of, band, settings, progress)
            shapes += geometry_rows(aligned, probed[name], settings)
            planes += slice_rows(aligned, probed[name], band, settings)
            matrix += source_rows(feature, source, probed[name], others, band, settings)
    effects = effect_table(probed, contrasts, band, settings)
    tables = {
        "effects": effects,
        "cells": cell_table(probed),
        "decodability": decodability_table(probed, settings),
        "controls": control_table(probed, band, settings),
        "power": power_table(probed, settings),
        "sources": pl.DataFrame(matrix, infer_schema_length=None),
        "geometry": pl.DataFrame(shapes, infer_schema_length=None),
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
    return Probed(planned, cells, linear_auc(surface, planned, settings)[0])


def surface_matrix(aligned: Aligned, planned: FeaturePlan, settings: ProtocolSettings) -> np.ndarray:
    """(n, k) what the text tells of the rows, with the base's log-probability where it was extracted."""
    states = aligned.states[settings.base][0]
    rows = aligned.rows[settings.base, 0][planned.rows]
    surface = np.asarray(states.surface()[rows], dtype=np.float64)
    log_prob = states.index["log_prob"].gather(rows)
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


def _most_balanced(planned: FeaturePlan) -> tuple[int, np.ndarray]:
    number = int(np.argmin(np.abs(planned.targets.mean(1))))
    return number, planned.targets[number]


def source_rows(
    feature: Feature,
    neutral: Source,
    one: Probed,
    others: Sequence[Source],
    band: Sequence[int],
    settings: ProtocolSettings,
) -> list[dict[str, Any]]:
    """The arm × source matrix of one feature: AUC in the band; other sources matched in prevalence to the neutral."""
    share = one.plan.positive_share
    rows = []
    for model in dict.fromkeys(m for m, *_ in one.cells):
        own = [c for (m, _, layer), c in one.cells.items() if m == model and layer in band]
        auc, low, high = (float(np.mean([getattr(c, k) for c in own])) for k in ("auc", "low", "high"))
        rows.append(_source_row(feature, neutral.name, model, (auc, low, high), len(one.plan.rows), share, ""))
    for source in others:
        models = open_models(source.states)
        aligned = align(models, settings.position or feature.position)
        try:
            planned = plan_feature(
                aligned, feature, source.traces, source.steps, group_by_text(source.traces), settings, share
            )
            for model, seeds in models.items():
                every = [
                    linear_auc(aligned.layer(model, seed, layer, planned.rows), planned, settings)
                    for seed in range(len(seeds))
                    for layer in band
                ]
                auc, low, high = np.mean(every, axis=0).tolist()
                size, reached = len(planned.rows), planned.positive_share
                rows.append(_source_row(feature, source.name, model, (auc, low, high), size, reached, ""))
        except (FeatureError, FoldError) as reason:  # a model that is never wrong has no wrong steps to find
            rows += [_source_row(feature, source.name, m, (None,) * 3, 0, None, str(reason)) for m in models]
    return rows


def _source_row(
    feature: Feature,
    source: str,
    model: str,
    auc: tuple[float | None, ...],
    rows: int,
    share: float | None,
    why_not: str,
) -> dict[str, Any]:
    return {
        "feature": feature.name,
        "source": source,
        "model": model,
        "auc": auc[0],
        "low": auc[1],
        "high": auc[2],
        "rows": rows,
        "positive_share": share,
        "why_not": why_not,
    }


def _notes(identical: bool, tables: Mapping[str, pl.DataFrame], settings: ProtocolSettings) -> tuple[str, ...]:
    notes = ["With one base shared by all arms, δ(A) - δ(B) is AUC(A) - AUC(B)."]
    single = tables["effects"].filter(pl.col("seeds") == 1).select("a", "b").unique(maintain_order=True).rows()
    if single:
        pairs = ", ".join(f"{a} against {b}" for a, b in single)
        notes.append(f"One checkpoint an arm ({pairs}): speaks of these checkpoints only, not of the methods.")
    if not identical:
        notes.append("Tokenizers differ: rows are compared where they end at the same character.")
    for row in tables["power"].iter_rows(named=True):
        if row["swappable_blocks"] < settings.least_blocks:
            notes.append(
                f"{row['feature']}: {row['swappable_blocks']} swappable blocks, fewer than {settings.least_blocks}: "
                f"inconclusive, about {row['problems_needed']} problems needed."
            )
        elif row["problems_needed"] > row["problems"]:
            notes.append(
                f"{row['feature']}: {row['problems']} problems can show a difference of {row['detectable']:.3f}; for "
                f"±{settings.margin} about {row['problems_needed']} problems are needed (assumed before any fit)."
            )
    return tuple(notes)
