"""Least-squares fits for sweeps: one Gram matrix, thousands of label vectors, nested choice of the ridge for each.

A ridge fit with a free intercept is a linear smoother ŷ = H y, and what a fold G held out would have been
predicted by the other folds is y_G - (I - H_GG)⁻¹ (y - ŷ)_G, exactly (the block form of PRESS, Allen 1974).
H does not depend on the labels: every permutation is a column of one matrix product.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from probes.auc import fold_auc
from probes.fits import Split, Splits, rbf_gram

Floats = NDArray[np.floating]


def sweep_auc(grams: Sequence[Floats], labels: Floats, splits: Splits, ridges: Sequence[float]) -> Floats:
    """(m,) held-out AUC of m label vectors, (m, n), each with its own ridge chosen on the inner folds."""
    held_out = np.empty(labels.shape)
    for gram, split in zip(grams, splits.splits):
        held_out[:, ~split.train] = nested_decisions(gram, labels, split, ridges)[0]
    return fold_auc(held_out, labels, splits.outer)


def fit_least_squares(
    grams: Sequence[Floats], targets: Floats, splits: Splits, ridges: Sequence[float], gammas: Sequence[float] = ()
) -> tuple[Floats, Floats]:
    """Held-out decisions (c, n) and chosen ridges (outer, c); with gammas, each target on its best RBF kernel.

    For real-valued targets this is kernel ridge regression, exact.
    """
    held_out = np.empty(targets.shape)
    chosen = np.empty((len(grams), len(targets)))
    for k, (linear, split) in enumerate(zip(grams, splits.splits)):
        candidates = [rbf_gram(linear, gamma) for gamma in gammas] or [linear]
        tried = [nested_decisions(gram, targets, split, ridges) for gram in candidates]
        best = np.argmin([errors for _, _, errors in tried], axis=0)
        for t, winner in enumerate(best):
            held_out[t, ~split.train] = tried[winner][0][t]
            chosen[k, t] = ridges[tried[winner][1][t]]
    return held_out, chosen


def nested_decisions(
    gram: Floats, labels: Floats, split: Split, ridges: Sequence[float]
) -> tuple[Floats, NDArray[np.int64], Floats]:
    """Decisions of the held-out rows, (m, held out), the index of each label vector's ridge and its error, (m,) each.

    The ridge is the one with the least squared error over the inner folds.
    """
    train, test = np.flatnonzero(split.train), np.flatnonzero(~split.train)
    inner = split.inner[train]
    y = labels[:, train].T
    middle = gram[np.ix_(train, train)].mean(0)
    centred = gram[np.ix_(train, train)] - middle - middle[:, None] + middle.mean()
    values, vectors = np.linalg.eigh(centred)
    values = values.clip(0)
    across = gram[np.ix_(test, train)]
    across = (across - across.mean(1, keepdims=True) - middle + middle.mean()) @ vectors
    rotated = vectors.T @ y
    errors, scores = [], []
    for ridge in ridges:
        residuals = _held_out_residuals(vectors, values / (values + ridge), inner) @ y
        errors.append((residuals**2).sum(0))
        scores.append((across / (values + ridge)) @ rotated + y.mean(0))
    chosen = np.argmin(errors, axis=0)
    return np.take_along_axis(np.stack(scores), chosen[None, None], 0)[0].T, chosen, np.min(errors, axis=0)


def _held_out_residuals(vectors: Floats, shrink: Floats, folds: NDArray[np.int64]) -> Floats:
    """(n, n) matrix that turns labels into held-out residuals."""
    n = len(vectors)
    residual = np.eye(n) - (vectors * shrink) @ vectors.T - 1 / n
    for fold in range(folds.max() + 1):
        inside = np.flatnonzero(folds == fold)
        residual[inside] = np.linalg.solve(residual[np.ix_(inside, inside)], residual[inside])
    return residual


def refit_least_squares(
    grams: Sequence[Floats], targets: Floats, splits: Splits, ridges: Floats, draws: Floats
) -> Floats:
    """(draws, targets) AUC of weighted ridge refits on bootstrap draws, the ridge as chosen on the data as they stand.

    ridges: (outer, targets) values. draws: (draws, n) multiplicities: a row drawn twice weighs twice.
    """
    count, _ = draws.shape
    score = np.empty((count, *targets.shape))
    usable = np.ones((count, len(targets)), bool)
    for k, (gram, split) in enumerate(zip(grams, splits.splits)):
        features = _features(gram)
        design = np.hstack([features, np.ones((len(features), 1))])
        weight = draws * split.train
        normal = np.stack([(design * w[:, None]).T @ design for w in weight])
        for t, target in enumerate(targets):
            penalty = np.full(design.shape[1], ridges[k, t])
            penalty[-1] = 1e-9  # the intercept is free
            moment = (weight * target) @ design
            beta = np.linalg.solve(normal + np.diag(penalty), moment[:, :, None])[:, :, 0]
            score[:, t] = np.where(split.train, score[:, t], beta @ design.T)
            positive = (weight * (target > 0)).sum(1)
            usable[:, t] &= (positive > 0) & (positive < weight.sum(1))
    auc = np.stack([fold_auc(score[:, t], targets[t][None], splits.outer, draws) for t in range(len(targets))], 1)
    return np.where(usable, auc, np.nan)


def _features(gram: Floats) -> Floats:
    """(n, rank) with features @ features.T = gram."""
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * 1e-9
    return vectors[:, kept] * np.sqrt(values[kept])
