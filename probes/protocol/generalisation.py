"""Where else a probe works: fitted at one step, layer or model, and tested at another, on problems held out.

Rows are trained place, columns tested place. A direction that works everywhere is one code; a matrix that is high on
its diagonal alone says that the feature is held differently at each place.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from probes.protocol.cells import Probed
from probes.protocol.feature_plan import FeaturePlan
from probes.states.alignment import Aligned
from probes.statistics.auc import fold_auc
from probes.statistics.folds import Splits
from probes.svm.least_squares import fit_direction

Floats = NDArray[np.floating]

#: Rows of the rarer class below which a step is left out.
LEAST_ROWS = 10
#: Ridge in units of the mean squared norm: one for all places, so that rows compare.
RIDGE = 0.01

#: Schema of the table.
GENERALISATION = {
    "feature": pl.String,
    "across": pl.String,
    "model": pl.String,
    "trained": pl.String,
    "tested": pl.String,
    "auc": pl.Float64,
}


@dataclass(frozen=True)
class Place:
    """States (n, d) of all rows of a plan at one place, and which of the rows (n,) belong to it."""

    name: str
    states: Floats
    rows: NDArray[np.bool_]


def generalise(places: Sequence[Place], target: Floats, splits: Splits, ridge: float = RIDGE) -> Floats:
    """(k, k) AUC of the least-squares probe fitted at place i (row) and tested at place j, on held-out problems.

    target: (n,) of -1/+1. The scaler is the trained place's. NaN where a place of other width is read.
    """
    table = np.full((len(places), len(places)), np.nan)
    for i, trained in enumerate(places):
        decisions = [np.zeros(len(target)) for _ in places]
        for split in splits.splits:
            direction, bias = _fit(trained, target, split.train, ridge)
            for j, tested in enumerate(places):
                if tested.states.shape[1] == len(direction):
                    decisions[j][~split.train] = tested.states[~split.train] @ direction + bias
        for j, tested in enumerate(places):
            if tested.states.shape[1] == trained.states.shape[1]:
                folds = np.where(tested.rows, splits.outer, -1)
                table[i, j] = fold_auc(decisions[j][None], target[None], folds)[0]
    return table


def _fit(place: Place, target: Floats, train: NDArray[np.bool_], ridge: float) -> tuple[Floats, float]:
    """(direction (d,), bias) in the space of the states, from the training rows of the place."""
    x, y = place.states[train & place.rows].astype(np.float64), target[train & place.rows]
    spread = x.std(0)
    spread = np.where(spread > 1e-12, spread, np.inf)
    z = x / spread
    scale = max(float(z.var(0).sum()), 1e-12)  # the mean squared norm of the centred rows
    weights, bias = fit_direction(z, y, ridge * scale)
    return weights / spread, bias


def generalisation_rows(aligned: Aligned, one: Probed, band: Sequence[int]) -> list[dict[str, Any]]:
    """Matrices over steps and over layers of each model's first seed, and over models; none for real labels."""
    if not one.plan.binary:
        return []
    plan, target = one.plan, one.plan.targets[int(np.argmin(np.abs(one.plan.targets.mean(1))))]
    rows = []
    for across, model, places in _designs(aligned, plan, target, band):
        if len(places) < 2:
            continue
        table = generalise(places, target, plan.repeats[0])
        names = [place.name for place in places]
        rows += [
            {"feature": plan.feature.name, "across": across, "model": model, "trained": a, "tested": b, "auc": auc}
            for a, line in zip(names, table.tolist())
            for b, auc in zip(names, line)
        ]
    return rows


def _designs(
    aligned: Aligned, plan: FeaturePlan, target: Floats, band: Sequence[int]
) -> Iterator[tuple[str, str, list[Place]]]:
    """(what varies, model, places) of every matrix."""
    everywhere = np.ones(len(plan.rows), dtype=np.bool_)
    for model in aligned.states:
        states = {layer: aligned.layer(model, 0, layer, plan.rows) for layer in {*aligned.layers, band[0]}}
        steps = [(step, plan.strata == step) for step in np.unique(plan.strata)]
        kept = [(step, rows) for step, rows in steps if _rarer(target[rows]) >= LEAST_ROWS]
        yield "step", model, [Place(f"step {step + 1}", states[band[0]], rows) for step, rows in kept]
        yield "layer", model, [Place(f"layer {layer}", states[layer], everywhere) for layer in aligned.layers]
    at = [Place(m, aligned.layer(m, 0, band[0], plan.rows), everywhere) for m in aligned.states]
    yield "model", "", at


def _rarer(target: Floats) -> int:
    return int(min((target > 0).sum(), (target <= 0).sum()))
