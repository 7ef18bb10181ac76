"""Least-squares fits of the protocol: sweeps of label vectors, headline fits of real labels, weighted refits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import lapack

from probes.auc import fold_auc
from probes.fits import Splits, rbf_gram
from probes.least_squares import CrossValidation, cross_validate

Floats = NDArray[np.floating]


def sweep_auc(grams: Sequence[Floats], labels: Floats, splits: Splits, ridges: Sequence[float]) -> Floats:
    """(m,) held-out AUC of m label vectors, (m, n), each with its own ridge chosen on the inner folds."""
    return fold_auc(_nested(grams, labels, splits, ridges).decisions, labels, splits.outer)


def fit_least_squares(
    grams: Sequence[Floats], targets: Floats, splits: Splits, ridges: Sequence[float], gammas: Sequence[float] = ()
) -> tuple[Floats, Floats, Floats]:
    """Held-out decisions (c, n), chosen ridges and gammas (outer, c); with gammas, each target on its best RBF kernel.

    For real-valued targets this is kernel ridge regression, exact.
    """
    kernels = [[rbf_gram(gram, gamma) for gram in grams] for gamma in gammas] or [list(grams)]
    tried = [_nested(kernel, targets, splits, ridges) for kernel in kernels]
    scores = np.stack([one.inner_scores.max(2) for one in tried])  # (gammas, c, outer)
    best = scores.argmax(0)
    decisions = np.empty(targets.shape)
    for k in range(len(grams)):
        test = splits.outer == k
        for t in range(len(targets)):
            decisions[t, test] = tried[best[t, k]].decisions[t, test]
    chosen = np.take_along_axis(np.stack([one.ridges for one in tried]), best[None], 0)[0]
    widths = np.asarray(gammas or (1.0,))[best]
    return decisions, chosen.T, widths.T


def _nested(grams: Sequence[Floats], labels: Floats, splits: Splits, ridges: Sequence[float]) -> CrossValidation:
    inner = np.stack([split.inner for split in splits.splits])
    # Squared error, not AUC: it needs no sort of every label vector and chooses the same ridges within noise.
    return cross_validate(grams, labels, splits.outer, ridges, inner=inner, score="squared_error")


def refit_least_squares(
    grams: Sequence[Floats], targets: Floats, splits: Splits, ridges: Floats, draws: Floats
) -> Floats:
    """(draws, targets, n) held-out decisions of weighted ridge refits, the ridge as chosen on the data as they stand.

    ridges: (outer, targets) values. draws: (draws, n) multiplicities: a row drawn twice weighs twice.
    """
    score = np.empty((len(draws), *targets.shape))
    for k, (gram, split) in enumerate(zip(grams, splits.splits)):
        features = _features(gram)
        design = np.hstack([features, np.ones((len(features), 1))])
        weight = draws * split.train
        normal = _weighted_products(design, weight)
        for t, target in enumerate(targets):
            penalty = np.full(design.shape[1], ridges[k, t])
            penalty[-1] = 1e-9  # the intercept is free
            moment = (weight * target) @ design
            beta = np.linalg.solve(normal + np.diag(penalty), moment[:, :, None])[:, :, 0]
            score[:, t, ~split.train] = beta @ design[~split.train].T
    return score


def _weighted_products(design: Floats, weight: Floats) -> Floats:
    """(draws, r, r) designᵀ diag(w) design; one matrix product for narrow designs, one a draw for wide ones."""
    n, r = design.shape
    if r > 64:
        return np.stack([(design * w[:, None]).T @ design for w in weight])
    outer = (design[:, :, None] * design[:, None, :]).reshape(n, r * r)
    return (weight @ outer).reshape(-1, r, r)


def _features(gram: Floats) -> Floats:
    """(n, rank) with features @ features.T = gram: a pivoted Cholesky factor, cheap where the rank is low."""
    factor, pivots, rank, _ = lapack.dpstrf(
        np.asarray(gram, dtype=np.float64), tol=1e-9 * gram.diagonal().max(), lower=1
    )
    features = np.empty((len(gram), rank))
    features[pivots - 1] = np.tril(factor)[:, :rank]
    return features
