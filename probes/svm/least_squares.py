"""Least-squares SVMs in closed form: grouped cross-validation of thousands of label vectors as matrix products.

The least-squares SVM (Suykens & Vandewalle 1999; kernel ridge regression with a free intercept) solves

    [[K + λI, 1], [1ᵀ, 0]] [a; b] = [y; 0],    f(x) = k(x)ᵀ a + b.

Let P be the n × n block of that matrix's inverse: a = P y. Then the decisions of a group G by the fit that did not
see it are exactly y_G - P_GG⁻¹ (P y)_G (An, Liu & Venkatesh 2007, with the intercept), and the P of the rows without
G is P_TT - P_TG P_GG⁻¹ P_GT. Neither knows the labels: held-out decisions are one matrix H applied to every label
vector, every permutation and every real-valued target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, lapack

from probes.statistics.auc import fold_auc
from probes.statistics.folds import Splits
from probes.svm.dual import Floats, ProblemError

Score = Literal["auc", "accuracy", "squared_error"]


@dataclass(frozen=True)
class CrossValidation:
    """Nested cross-validation of m label vectors on n rows.

    decisions: (m, n) held-out decisions, each by an outer fit with the ridge of its own inner folds.
    ridges: (m, folds) the chosen ridge. inner_scores: (m, folds, ridges) what it was chosen by, larger is better.
    """

    decisions: Floats
    ridges: Floats
    inner_scores: Floats


def fit(gram: Floats, targets: Floats, ridge: float) -> tuple[Floats, Floats]:
    """Dual weights (m, n) and intercepts (m,) of the least-squares fits of targets (m, n) on one Gram (n, n)."""
    gram, targets = _check(gram, targets)
    if gram.shape[1] < len(gram):
        gram = gram @ gram.T
    factor = cho_factor(gram + ridge * np.eye(len(gram)), lower=True)
    ones = cho_solve(factor, np.ones(len(gram)))
    weights = cho_solve(factor, targets.T).T
    intercepts = weights.sum(1) / ones.sum()
    return weights - intercepts[:, None] * ones, intercepts


def fit_direction(features: Floats, target: Floats, ridge: float) -> tuple[Floats, float]:
    """Weights (d,) and intercept of one least-squares fit on features (n, d): f(x) = x @ weights + intercept.

    target: (n,). Solved in the smaller of n and d dimensions; the intercept is free.
    """
    mean, level = features.mean(0), float(target.mean())
    z, y = features - mean, target - level
    if z.shape[1] <= len(z):
        weights = np.linalg.solve(z.T @ z + ridge * np.eye(z.shape[1]), z.T @ y)
    else:
        weights = z.T @ np.linalg.solve(z @ z.T + ridge * np.eye(len(z)), y)
    return weights, level - float(mean @ weights)


def bordered_inverse(gram: Floats, ridge: float) -> Floats:
    """P (n, n): the inverse of [[K + λI, 1], [1ᵀ, 0]] without its last row and column. O(n³), once for all labels."""
    shifted = np.array(gram, dtype=np.float64, order="F")
    shifted[np.diag_indices_from(shifted)] += ridge
    factor, failed = lapack.dpotrf(shifted, lower=1, overwrite_a=1)
    if failed:
        raise ProblemError(
            f"gram + {ridge:g} I is not positive definite at row {failed - 1}; use a larger ridge or a valid kernel."
        )
    inverse, _ = lapack.dpotri(factor, lower=1, overwrite_c=1)
    inverse = np.tril(inverse) + np.tril(inverse, -1).T
    ones = inverse.sum(1)
    return inverse - np.outer(ones, ones / ones.sum())


def held_out_operator(inverse: Floats, folds: NDArray[np.int64]) -> Floats:
    """H (n, n) with H y the held-out decisions of every fold, from P of all rows; folds: (n,) ints."""
    operator = np.empty_like(inverse)
    for fold in np.unique(folds):
        rows = np.flatnonzero(folds == fold)
        operator[rows] = -_solve(inverse[np.ix_(rows, rows)], inverse[rows])
    operator[np.diag_indices_from(operator)] += 1
    return operator


def without(inverse: Floats, rows: NDArray[np.bool_]) -> Floats:
    """P of the rows that remain when `rows` (n,) bool leave, from P of all: a Schur complement, no new inverse."""
    out, stay = np.flatnonzero(rows), np.flatnonzero(~rows)
    across = inverse[np.ix_(out, stay)]
    return inverse[np.ix_(stay, stay)] - across.T @ _solve(inverse[np.ix_(out, out)], across)


def cross_validate(
    gram: Floats | Sequence[Floats],
    labels: Floats,
    splits: Splits,
    ridges: Sequence[float],
    *,
    score: Score = "auc",
    choose: Callable[[Floats], NDArray[np.int64]] | None = None,
) -> CrossValidation:
    """Nested cross-validation of every label vector at once; each decision equals that of a refit.

    gram: (n, n), or one (n, n) for each outer split, in order, where the scaler is fitted per outer split. A factor
        F (n, r), r < n, stands for the Gram F Fᵀ: what narrow states need not be multiplied out for.
    labels: (m, n), -1/+1 or real-valued targets.
    splits: outer and inner folds, grouped, from `probes.statistics.folds.make_splits`.
    ridges: λ > 0 in the Gram's units; one is taken as it is, several are chosen between for each label vector.
    score: what a ridge is chosen by: AUC within inner folds, accuracy of the sign, or minus the squared error.
    choose: inner scores (m, ridges) of one outer fold → (m,) index of the ridge; None: the largest score, the first
        of equals.
    Raises ProblemError.
    """
    grams: list[Floats] = [np.asarray(gram)] if np.ndim(gram[0]) == 1 else list(gram)
    _, labels = _check(grams[0], labels)
    _check_design(labels, splits, len(grams), ridges)
    factors = _narrow_factors(grams)
    if factors is None:
        parts = _by_inverses(grams, labels, splits, ridges, score)
    else:
        parts = _by_factors(factors, labels, splits, ridges, score)
    result, scores = np.empty(labels.shape), np.zeros((len(labels), len(splits.splits), len(ridges)))
    chosen = np.zeros(scores.shape[:2])
    for k, (fold, (candidates, scores[:, k])) in enumerate(zip(splits.splits, parts)):
        best = scores[:, k].argmax(1) if choose is None else choose(scores[:, k])
        chosen[:, k] = np.asarray(ridges)[best]
        result[:, ~fold.train] = candidates[best, np.arange(len(labels))]
    return CrossValidation(result, chosen, scores)


#: Of one outer split: (ridges, m, test rows) decisions, and (m, ridges) inner scores (0 where one ridge is given).
_Part = tuple[Floats, Floats]


def _by_inverses(
    grams: Sequence[Floats], labels: Floats, splits: Splits, ridges: Sequence[float], score: Score
) -> Iterator[_Part]:
    """Each outer split from the inverses of its Gram (n, n): O(n³) a ridge, whatever the states' width."""
    shared = {r: bordered_inverse(np.asarray(grams[0]), r) for r in ridges} if len(grams) == 1 else {}
    for k, fold in enumerate(splits.splits):
        test, train = ~fold.train, np.flatnonzero(fold.train)
        split, y, inner = np.asarray(grams[k % len(grams)], dtype=np.float64), labels[:, train], fold.inner[train]
        candidates = np.empty((len(ridges), len(labels), int(test.sum())))
        scores = np.zeros((len(labels), len(ridges)))
        for r, ridge in enumerate(ridges):
            inverse = without(shared[ridge], test) if shared else bordered_inverse(split[np.ix_(train, train)], ridge)
            across = split[np.ix_(test, train)] - split[np.ix_(train, train)].mean(0)
            candidates[r] = y @ (across @ inverse).T + y.mean(1, keepdims=True)
            if len(ridges) > 1:
                scores[:, r] = _score(y @ held_out_operator(inverse, inner).T, y, inner, score)
        yield candidates, scores


def _by_factors(
    factors: Sequence[Floats], labels: Floats, splits: Splits, ridges: Sequence[float], score: Score
) -> Iterator[_Part]:
    """The same from factors F (n, r) with F Fᵀ the Gram: one eigendecomposition a training set."""
    for k, fold in enumerate(splits.splits):
        features, train = factors[k % len(factors)], np.flatnonzero(fold.train)
        scores = np.zeros((len(labels), len(ridges)))
        if len(ridges) > 1:
            inner, y = fold.inner[train], labels[:, train]
            held_out = np.empty((len(ridges), *y.shape))
            for part in np.unique(inner):
                test = inner == part
                held_out[:, :, test] = _decide(features[train], y, ~test, test, ridges)
            scores = np.stack([_score(one, y, inner, score) for one in held_out], 1)
        yield _decide(features, labels, fold.train, ~fold.train, ridges), scores


def _decide(
    features: Floats, labels: Floats, train: NDArray[np.bool_], test: NDArray[np.bool_], ridges: Sequence[float]
) -> Floats:
    """(ridges, m, test rows) decisions of the fits on the training rows; features (n, r), labels (m, n)."""
    mean, y = features[train].mean(0), labels[:, train]
    centred, level = features[train] - mean, y.mean(1, keepdims=True)
    values, vectors = np.linalg.eigh(centred.T @ centred)
    moments = (y - level) @ (centred @ vectors)
    rotated = ((features[test] - mean) @ vectors).T
    return np.stack([(moments / (values.clip(0) + ridge)) @ rotated + level for ridge in ridges])


def _narrow_factors(grams: Sequence[Floats]) -> list[Floats] | None:
    """A factor (n, r) of every Gram; None where r is a third of n or more, or a Gram is not positive semidefinite."""
    factors = []
    for gram in grams:
        if gram.shape[1] < len(gram):
            factors.append(gram)
            continue
        factor = _features(gram, 1e-13)
        if 3 * factor.shape[1] >= len(factor) or np.abs(factor @ factor.T - gram).max() > 1e-10 * np.abs(gram).max():
            return None
        factors.append(factor)
    return factors


def refit(grams: Sequence[Floats], targets: Floats, splits: Splits, ridges: Floats, draws: Floats) -> Floats:
    """(draws, targets, n) held-out decisions of weighted refits, the ridge as chosen on the data as they stand.

    grams: (n, n) or factor (n, r) of each outer split. targets: (c, n). ridges: (outer, c) values. draws: (draws, n)
    multiplicities: a row drawn twice weighs twice.
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
        drawn = [np.flatnonzero(w) for w in weight]  # about half: what is held out or not drawn weighs nothing
        return np.stack([(design[k] * w[k, None]).T @ design[k] for k, w in zip(drawn, weight)])
    outer = (design[:, :, None] * design[:, None, :]).reshape(n, r * r)
    return (weight @ outer).reshape(-1, r, r)


def _features(gram: Floats, tolerance: float = 1e-9) -> Floats:
    """(n, rank) with features @ features.T = gram: a pivoted Cholesky factor, cheap where the rank is low.

    A gram that is such a factor already comes back as it is.
    """
    if gram.shape[1] < len(gram):
        return gram
    factor, pivots, rank, _ = lapack.dpstrf(
        np.asarray(gram, dtype=np.float64), tol=tolerance * gram.diagonal().max(), lower=1
    )
    features = np.empty((len(gram), rank))
    features[pivots - 1] = np.tril(factor[:, :rank])
    return features


def _score(decisions: Floats, labels: Floats, folds: NDArray[np.int64], score: Score) -> Floats:
    if score == "auc":
        return np.nan_to_num(fold_auc(decisions, labels, folds), nan=0.5)
    if score == "accuracy":
        return ((decisions > 0) == (labels > 0)).mean(1)
    return -((decisions - labels) ** 2).mean(1)


def _solve(block: Floats, right: Floats) -> Floats:
    """block⁻¹ right for a symmetric positive definite block of P."""
    return cho_solve(cho_factor(block, lower=True), right)


def _check(gram: Floats, labels: Floats) -> tuple[Floats, Floats]:
    gram, labels = np.asarray(gram, dtype=np.float64), np.atleast_2d(np.asarray(labels, dtype=np.float64))
    if gram.ndim != 2 or gram.shape[0] < gram.shape[1]:
        raise ProblemError(f"gram is {gram.shape}; expected (n, n), or a factor of fewer columns.")
    if labels.shape[1] != len(gram):
        raise ProblemError(f"labels is {labels.shape}; expected (label vectors, {len(gram)}): one vector a row.")
    for name, values in (("gram", gram), ("labels", labels)):
        bad = ~np.isfinite(values)
        if bad.any():
            raise ProblemError(
                f"{name} has {bad.sum()} NaN or infinite values, the first in row {np.flatnonzero(bad.any(1))[0]}; "
                "drop those rows or fix the states."
            )
    return gram, labels


def _check_design(labels: Floats, splits: Splits, grams: int, ridges: Sequence[float]) -> None:
    if splits.outer.shape != labels.shape[1:]:
        raise ProblemError(f"splits are of {len(splits.outer)} rows; the labels have {labels.shape[1]}.")
    if grams not in (1, len(splits.splits)):
        raise ProblemError(f"{grams} Gram matrices for {len(splits.splits)} outer folds; give one, or one for each.")
    if not len(ridges) or min(ridges) <= 0:
        raise ProblemError(f"ridges are {list(ridges)}; expected one or more positive values.")
