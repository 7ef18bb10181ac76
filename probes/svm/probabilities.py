"""Class probabilities from decision values: Platt's sigmoid per pair of classes, coupled over the pairs."""

from __future__ import annotations

from itertools import combinations

import numpy as np

from probes.svm.dual import Floats

_STEPS = 50
_COUPLING_STEPS = 100


def fit_sigmoid(decisions: Floats, positive: np.ndarray, weights: Floats) -> tuple[float, float]:
    """(slope, offset) of P(positive) = 1 / (1 + exp(-(slope · decision + offset))).

    Newton's method on Platt's smoothed targets (Lin, Lin & Weng 2007). weights: (n,), 0 for rows left out.
    """
    high, low = float(weights[positive].sum()), float(weights[~positive].sum())
    target = np.where(positive, (high + 1) / (high + 2), 1 / (low + 2))
    slope, offset = 0.0, float(np.log((high + 1) / (low + 1)))
    for _ in range(_STEPS):
        logits = np.clip(slope * decisions + offset, -30, 30)
        chance = 1 / (1 + np.exp(-logits))
        curve = weights * np.maximum(chance * (1 - chance), 1e-12)
        pull = weights * (target - chance)
        gradient = np.array([(pull * decisions).sum(), pull.sum()])
        hessian = np.array(
            [[(curve * decisions**2).sum(), (curve * decisions).sum()], [(curve * decisions).sum(), curve.sum()]]
        )
        step = np.linalg.solve(hessian + 1e-12 * np.eye(2) * max(np.trace(hessian), 1.0), gradient)
        slope, offset = slope + float(step[0]), offset + float(step[1])
        if np.abs(step).max() < 1e-10:
            break
    return slope, offset


def couple(pairs: Floats, classes: int) -> Floats:
    """(n, classes) probabilities from P(second of the pair | pair), (n, pairs), pairs as (0, 1), (0, 2), ….

    The second method of Wu, Lin & Weng (2004): the p that least violates r_ji p_i = r_ij p_j.
    """
    if classes == 2:
        return np.column_stack([1 - pairs[:, 0], pairs[:, 0]])
    wins = np.zeros((len(pairs), classes, classes))
    for k, (i, j) in enumerate(combinations(range(classes), 2)):
        wins[:, j, i], wins[:, i, j] = pairs[:, k], 1 - pairs[:, k]
    q = -wins * wins.transpose(0, 2, 1)
    index = np.arange(classes)
    q[:, index, index] = (wins**2).sum(1)
    p = np.full((len(pairs), classes), 1 / classes)
    for _ in range(_COUPLING_STEPS):
        for t in range(classes):
            product = np.einsum("nij,nj->ni", q, p)
            whole = np.einsum("ni,ni->n", p, product)
            step = (whole - product[:, t]) / q[:, t, t]
            p[:, t] += step
            p /= (1 + step)[:, None]
    return np.clip(p, 0, None) / np.clip(p, 0, None).sum(1, keepdims=True)
