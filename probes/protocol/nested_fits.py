"""One cell's fits: states of one layer × the targets of one feature → held-out decisions.

One Gram matrix per outer split, its scaler fitted on that split's training rows, shared by the inner folds,
all costs, all label vectors and all bootstrap draws. The scaler sees no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.statistics.auc import fold_auc
from probes.statistics.folds import FoldError, Split, Splits
from probes.svm.dual import Fit, decisions
from probes.svm.hinge import solve_batch
from probes.svm.least_squares import cross_validate

Floats = NDArray[np.floating]

#: Ridges of the least-squares statistic, in units of the Gram's mean diagonal.
RIDGES = (0.01, 0.1, 1.0, 10.0, 100.0)


def standardise(states: Floats, train: NDArray[np.bool_]) -> Floats:
    """(n, d) float64 with mean 0 and variance 1 over the training rows; constant columns become 0."""
    states = np.asarray(states, dtype=np.float64)
    mean, spread = states[train].mean(0), states[train].std(0)
    return (states - mean) / np.where(spread > 1e-12, spread, np.inf)


def linear_gram(states: Floats, train: NDArray[np.bool_]) -> Floats:
    """(n, n) Gram of standardised states, centred and of mean diagonal 1 on the training rows."""
    z = standardise(states, train)
    gram = z @ z.T
    return gram / max(gram.diagonal()[train].mean(), 1e-12)


def rbf_gram(linear: Floats, gamma: float) -> Floats:
    """exp(-gamma ‖a - b‖² / 2) from a linear Gram of mean diagonal 1: gamma 1 is the scale of a random pair."""
    square = linear.diagonal()
    distance = np.maximum(square[:, None] + square[None] - 2 * linear, 0)
    return np.exp(-0.5 * gamma * distance)


# ---------------------------------------------------------------- hinge


@dataclass(frozen=True)
class NestedFit:
    """Nested fits of one cell, by hinge loss or least squares.

    held_out: (targets, n) decisions of each row from the fits that did not see its problem. costs: (outer,
    targets) chosen C, or ridge. gammas: (outer, targets) chosen, 1 for the linear kernel. degenerate: share of the
    outer fits with no free support vector. largest_gap: their largest KKT gap.
    """

    held_out: Floats
    costs: Floats
    gammas: Floats
    degenerate: float
    largest_gap: float


def fit_hinge(
    grams: Sequence[Floats], targets: Floats, splits: Splits, costs: Sequence[float], gammas: Sequence[float] = ()
) -> NestedFit:
    """Choose C (and gamma, where given: RBF on the linear Grams) on inner folds, fit, and score what is held out.

    grams: one (n, n) linear Gram for each outer split. targets: (c, n) of -1/+1.
    """
    held_out = np.full(targets.shape, np.nan)
    chosen = np.zeros((len(grams), len(targets)))
    widths = np.ones((len(grams), len(targets)))
    fits = []
    for k, (linear, split) in enumerate(zip(grams, splits.splits)):
        candidates = [(gamma, rbf_gram(linear, gamma)) for gamma in gammas] or [(1.0, linear)]
        scores = np.stack([_inner_scores(gram, targets, split, costs) for _, gram in candidates])
        best = scores.reshape(-1, len(targets)).argmax(0)  # (gamma, C) pairs, the first of equals
        width, cost = np.unravel_index(best, scores.shape[:2])
        chosen[k] = np.asarray(costs)[cost]
        boxes = chosen[k][:, None] * balance(targets, split.train) * split.train
        fit, score = _fit_by_gamma(candidates, width, targets, boxes)
        widths[k] = [candidates[w][0] for w in width]
        held_out[:, ~split.train] = score[:, ~split.train]
        fits.append(fit)
    return NestedFit(
        held_out=held_out,
        costs=chosen,
        gammas=widths,
        degenerate=float(np.mean([fit.degenerate.mean() for fit in fits])),
        largest_gap=float(max(fit.kkt_gap.max() for fit in fits)),
    )


def balance(targets: Floats, train: NDArray[np.bool_]) -> Floats:
    """(c, n) class weights n / (2 n_class) over the training rows. Raises FoldError where a class is missing."""
    positive = ((targets > 0) & train).sum(1)
    total = train.sum()
    for k in np.flatnonzero((positive == 0) | (positive == total)):
        raise FoldError(
            f"target {k}: the {total} training rows of a fold hold {positive[k]} of class +1; "
            "too few problems show the rarer class: add traces, lower the folds, or drop the class."
        )
    return np.where(targets > 0, total / (2 * positive)[:, None], total / (2 * (total - positive))[:, None])


def _inner_scores(gram: Floats, targets: Floats, split: Split, costs: Sequence[float]) -> Floats:
    """(costs, targets) AUC over the inner folds; folds whose training rows lack a class are passed over."""
    held_out = np.full((len(costs), *targets.shape), 0.0)
    used = np.full((len(targets), targets.shape[1]), False)
    for fold in range(split.inner.max() + 1):
        train = split.train & (split.inner != fold)
        test = split.inner == fold
        positive = ((targets > 0) & train).sum(1)
        able = np.flatnonzero((positive > 0) & (positive < train.sum()))
        if not len(able):
            continue
        boxes = np.asarray(costs)[:, None, None] * (balance(targets[able], train) * train)[None]
        batch = np.broadcast_to(targets[able], boxes.shape).reshape(-1, targets.shape[1])
        fit = solve_batch(gram, batch, boxes.reshape(batch.shape))
        score = decisions(gram[test], fit).reshape(len(costs), len(able), -1)
        held_out[np.ix_(np.arange(len(costs)), able, np.flatnonzero(test))] = score
        used[np.ix_(able, np.flatnonzero(test))] = True
    scores = np.full((len(costs), len(targets)), 0.5)
    for t in range(len(targets)):
        folds = np.where(used[t], split.inner, -1)
        scores[:, t] = np.nan_to_num(fold_auc(held_out[:, t], targets[t][None], folds), nan=0.5)
    return scores


def _fit_by_gamma(
    candidates: Sequence[tuple[float, Floats]], width: np.ndarray, targets: Floats, boxes: Floats
) -> tuple[Fit, Floats]:
    """The fits of all targets, each on its own gamma's Gram."""
    parts = []
    score = np.empty(targets.shape)
    for w in np.unique(width):
        own = np.flatnonzero(width == w)
        fit = solve_batch(candidates[w][1], targets[own], boxes[own])
        score[own] = decisions(candidates[w][1], fit)
        parts.append((own, fit))
    order = np.argsort(np.concatenate([own for own, _ in parts]))
    joined = {
        name: np.concatenate([getattr(fit, name) for _, fit in parts])[order]
        for name in ("alpha", "bias", "kkt_gap", "iterations", "degenerate")
    }
    return Fit(**joined), score


def refit_hinge(grams: Sequence[Floats], targets: Floats, splits: Splits, costs: Floats, draws: Floats) -> Floats:
    """(draws, targets, n) held-out decisions of refits on bootstrap draws, C as chosen on the data as they stand.

    draws: (draws, n) multiplicities: a row drawn twice is a box twice as high. NaN where a draw leaves a fold's
    training rows with one class.
    """
    rows = draws.shape[1]
    score = np.full((len(draws), *targets.shape), np.nan)
    for k, (gram, split) in enumerate(zip(grams, splits.splits)):
        weight = draws * split.train
        test = np.flatnonzero(~split.train)
        for t, target in enumerate(targets):
            positive = (weight * (target > 0)).sum(1)
            total = weight.sum(1)
            able = np.flatnonzero((positive > 0) & (positive < total))
            heavy = (total / (2 * positive.clip(1)))[:, None]
            light = (total / (2 * (total - positive).clip(1)))[:, None]
            boxes = costs[k, t] * weight * np.where(target > 0, heavy, light)
            fit = solve_batch(gram, np.broadcast_to(target, (len(able), rows)), boxes[able], tolerance=1e-2)
            score[np.ix_(able, np.asarray([t]), test)] = decisions(gram[test], fit)[:, None]
    return score


# ---------------------------------------------------------------- least squares


def fit_least_squares(
    grams: Sequence[Floats], targets: Floats, splits: Splits, ridges: Sequence[float], gammas: Sequence[float] = ()
) -> NestedFit:
    """Choose the ridge (and gamma, where given) on inner folds, fit in closed form, and score what is held out.

    Arguments as of `fit_hinge`; targets may be real: the fit is then kernel ridge regression, exact.
    """
    kernels = [[rbf_gram(gram, gamma) for gram in grams] for gamma in gammas] or [list(grams)]
    # Squared error, not AUC: it needs no sort of every label vector and chooses the same ridges within noise.
    tried = [cross_validate(kernel, targets, splits, ridges, score="squared_error") for kernel in kernels]
    best = np.stack([one.inner_scores.max(2) for one in tried]).argmax(0)  # (c, outer): which gamma
    held_out = np.empty(targets.shape)
    for k, split in enumerate(splits.splits):
        for t in range(len(targets)):
            held_out[t, ~split.train] = tried[best[t, k]].decisions[t, ~split.train]
    chosen = np.take_along_axis(np.stack([one.ridges for one in tried]), best[None], 0)[0]
    widths = np.asarray(gammas or (1.0,))[best]
    return NestedFit(held_out, chosen.T, widths.T, degenerate=0.0, largest_gap=0.0)
