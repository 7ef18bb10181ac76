"""Held-out information in bits: V-information by a calibrated probe, and the prequential code length.

AUC saturates at 1 and its null is not ½ where position or text tell something. Bits have a zero and add up:

    I_V(states → Y | text) = H_V(Y | text) − H_V(Y | text, states)

(Xu et al. 2020; Hewitt et al. 2021), with H_V the mean held-out log-loss, in bits, of a logistic map of the probe's
held-out decisions. The map of one fold is fitted on the other folds, so no row helps to calibrate itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

_STEPS = 12
#: Penalty of the slopes of standardised decisions, a normal prior of standard deviation 1/√0.1: keeps the map finite
#: where decisions separate the classes without an error.
_SLOPE_PENALTY = 0.1
_FURTHEST = 30.0  # logits of a fit under way


def _surest(count: float) -> float:
    """The largest logit that n rows support: a chance of 1/(2n). Beyond it one wrong row would cost all the bits."""
    return float(np.log(max(2 * count - 1, 1.0)))


def logistic_maps(inputs: Floats, positive: NDArray[np.bool_], weights: Floats) -> Floats:
    """Coefficients (b, k + 1), the intercept last, of b weighted logistic regressions, by Newton's method.

    inputs: (b, n, k) standardised decisions. positive: (n,). weights: (b, n), 0 for rows left out.
    """
    design = np.concatenate([inputs, np.ones((*inputs.shape[:2], 1))], axis=2)
    count = design.shape[2]
    penalty = np.diag([_SLOPE_PENALTY] * (count - 1) + [1e-6])
    beta = np.zeros((len(design), count))
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-np.clip(np.einsum("bnk,bk->bn", design, beta), -_FURTHEST, _FURTHEST)))
        slope = np.einsum("bnk,bn->bk", design, weights * (positive - chance)) - beta @ penalty
        weighted = design * (weights * np.maximum(chance * (1 - chance), 1e-6))[:, :, None]
        curve = weighted.transpose(0, 2, 1) @ design + penalty
        step = np.linalg.solve(curve, slope[:, :, None])[:, :, 0]
        beta = beta + np.clip(step, -4, 4)
    return beta


def held_out_bits(inputs: Floats, target: Floats, folds: NDArray[np.int64], weights: Floats) -> Floats:
    """(b, n) log-loss of each row in bits, by logistic maps fitted on the other folds.

    inputs: (b, n, k) held-out decisions; k = 0 gives the loss of the class share. target: (n,) of -1/+1.
    weights: (b, n) multiplicities of the rows that the maps are fitted on.
    """
    positive = target > 0
    loss, scaled = np.empty(inputs.shape[:2]), _scaled_by_fold(inputs, folds, weights)
    for fold in np.unique(folds):
        test = folds == fold
        fitted = weights * ~test
        beta = logistic_maps(scaled, positive, fitted)
        logits = np.einsum("bnk,bk->bn", scaled[:, test], beta[:, :-1]) + beta[:, -1:]
        most = _surest(float((~test).sum()))
        signed = np.clip(np.where(positive[test], logits, -logits), -most, most)
        loss[:, test] = np.log1p(np.exp(-signed)) / np.log(2)
    return loss


def _scaled_by_fold(inputs: Floats, folds: NDArray[np.int64], weights: Floats) -> Floats:
    """Decisions of mean 0 and variance 1 in each fold: those of two folds come from two fits and share no scale.

    One fold's ridge may be a thousand times the other's. No label is seen. A decision that is constant becomes 0.
    """
    scaled = np.empty(inputs.shape)
    for fold in np.unique(folds):
        inside = folds == fold
        part, weight = inputs[:, inside], weights[:, inside, None]
        total = np.maximum(weight.sum(1, keepdims=True), 1e-12)
        middle = (part * weight).sum(1, keepdims=True) / total
        spread = np.sqrt(((part - middle) ** 2 * weight).sum(1, keepdims=True) / total)
        size = np.abs(part).max(1, keepdims=True, initial=0.0)
        scaled[:, inside] = (part - middle) / np.where(spread > 1e-9 * size + 1e-300, spread, np.inf)
    return scaled


def information_above(
    decisions: Floats, baseline: Floats | None, target: Floats, folds: NDArray[np.int64], weights: Floats
) -> Floats:
    """(b, n) bits that each row gains when decisions (b, n) are read beside the baseline's (n,).

    The mean over rows is the V-information above the baseline; a probe that knows nothing more has about 0 or a
    little less, because the wider map has more to fit. weights: as of `held_out_bits`.
    """
    known = np.empty((*decisions.shape, 0)) if baseline is None else _broadcast(baseline, decisions)
    without = held_out_bits(known, target, folds, weights)
    return without - held_out_bits(np.concatenate([known, decisions[:, :, None]], 2), target, folds, weights)


def _broadcast(baseline: Floats, decisions: Floats) -> Floats:
    return np.broadcast_to(baseline, decisions.shape)[:, :, None]


def prequential_bits(gram: Floats, target: Floats, groups: np.ndarray, ridge: float, parts: int = 5) -> float:
    """Bits a row that the probe saves over coding labels by their share, each part coded by the parts before it.

    The online code of Voita & Titov (2020): groups are dealt into parts of doubling size, the first is coded by the
    class share, and each later one by a least-squares probe with a logistic map, both fitted on all earlier parts.
    gram: (n, n), target: (n,) of -1/+1, ridge in the Gram's units.
    """
    from probes.svm.least_squares import bordered_inverse, held_out_operator

    part = _deal(groups, parts)
    saved, positive = 0.0, target > 0
    for number in range(1, parts):
        seen, coded = part < number, part == number
        share = np.clip(positive[seen].mean(), 0.5 / seen.sum(), 1 - 0.5 / seen.sum())
        plain = -np.log2(np.where(positive[coded], share, 1 - share))
        if len(np.unique(target[seen])) < 2 or len(np.unique(groups[seen])) < 3:
            continue  # the probe cannot be fitted yet: both codes are the share's
        inverse = bordered_inverse(gram[np.ix_(seen, seen)], ridge)
        _, own = np.unique(groups[seen], return_inverse=True)
        inside = held_out_operator(inverse, own) @ target[seen]
        centred = gram[np.ix_(coded, seen)] - gram[np.ix_(seen, seen)].mean(0)
        outside = centred @ (inverse @ target[seen]) + target[seen].mean()
        scale = (inside.mean(), max(inside.std(), 1e-12))
        z_in, z_out = (inside - scale[0]) / scale[1], (outside - scale[0]) / scale[1]
        beta = logistic_maps(z_in[None, :, None], positive[seen], np.ones((1, int(seen.sum()))))[0]
        most = _surest(float(seen.sum()))
        logits = np.clip(z_out * beta[0] + beta[1], -most, most)
        saved += float((plain - np.log1p(np.exp(np.where(positive[coded], -logits, logits))) / np.log(2)).sum())
    return saved / len(target)


def _deal(groups: np.ndarray, parts: int) -> NDArray[np.int64]:
    """(n,) part of each row, whole groups at random, each part about twice as large as the one before."""
    names, of_row = np.unique(groups, return_inverse=True)
    order = np.random.default_rng(0).permutation(len(names))
    edges = len(names) * (2.0 ** np.arange(1, parts) - 1) / (2.0**parts - 1)
    place = np.empty(len(names), np.int64)
    place[order] = np.searchsorted(edges, np.arange(len(names)), side="right")
    return place[of_row]
