"""Held-out AUC within folds, weighted, and its form for real-valued labels.

Decisions of two folds come from two fits and share no scale: only pairs inside a fold are compared, so that the
AUC of pooled folds does not fall below one half under a true null.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

Floats = NDArray[np.floating]


def fold_auc(decisions: Floats, targets: Floats, folds: NDArray[np.int64], weights: Floats | None = None) -> Floats:
    """(m,) share of pairs (one row above the other by target, both in one fold) that decisions put in order.

    decisions, targets: (m, n); targets may be -1/+1 (the AUC, ties half) or real (concordance). folds: (n,),
    negative for rows left out. weights: (m, n), multiplicities of a bootstrap draw; a pair counts by the product.
    NaN where a row of the batch has no pair.
    """
    decisions = np.ascontiguousarray(decisions, dtype=np.float64)
    targets = np.ascontiguousarray(np.broadcast_to(targets, decisions.shape), dtype=np.float64)
    weights = np.ones_like(decisions) if weights is None else np.broadcast_to(weights, decisions.shape)
    weights = np.ascontiguousarray(weights, dtype=np.float64)
    rows = [np.flatnonzero(folds == fold) for fold in np.unique(folds[folds >= 0])]
    binary = bool(np.isin(targets, (-1.0, 1.0)).all())
    good, pairs = np.zeros(len(decisions)), np.zeros(len(decisions))
    for inside in rows:
        count = _ordered_binary if binary else _ordered_real
        got, all_ = count(decisions[:, inside], targets[:, inside], weights[:, inside])
        good += got
        pairs += all_
    return np.divide(good, pairs, out=np.full(len(good), np.nan), where=pairs > 0)


@njit(cache=True)
def _ordered_binary(decisions, targets, weights):  # type: ignore[no-untyped-def]
    m, n = decisions.shape
    good, pairs = np.zeros(m), np.zeros(m)
    for k in range(m):
        order = np.argsort(decisions[k])
        below, above, right, start = 0.0, 0.0, 0.0, 0
        while start < n:
            stop, tied_low, tied_high = start, 0.0, 0.0
            while stop < n and decisions[k, order[stop]] == decisions[k, order[start]]:
                if targets[k, order[stop]] > 0:
                    tied_high += weights[k, order[stop]]
                else:
                    tied_low += weights[k, order[stop]]
                stop += 1
            right += tied_high * (below + 0.5 * tied_low)
            below += tied_low
            above += tied_high
            start = stop
        good[k], pairs[k] = right, below * above
    return good, pairs


@njit(cache=True)
def _ordered_real(decisions, targets, weights):  # type: ignore[no-untyped-def]
    m, n = decisions.shape
    good, pairs = np.zeros(m), np.zeros(m)
    for k in range(m):
        for i in range(n):
            for j in range(i):
                apart = targets[k, i] - targets[k, j]
                if apart == 0.0:
                    continue
                weight = weights[k, i] * weights[k, j]
                turn = (decisions[k, i] - decisions[k, j]) * apart
                pairs[k] += weight
                good[k] += weight if turn > 0 else 0.5 * weight if turn == 0 else 0.0
    return good, pairs
