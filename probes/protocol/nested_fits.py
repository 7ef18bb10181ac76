"""One cell's fits: states of one layer × the targets of one feature → held-out decisions.

One Gram matrix per outer split, its scaler fitted on that split's training rows, shared by the inner folds,
all costs, all label vectors and all bootstrap draws. The scaler sees no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from probes.protocol.regularisation import FURTHEST, Choice, Limits, choose, next_strengths
from probes.statistics.auc import fold_auc
from probes.statistics.folds import FoldError, Split, Splits
from probes.svm.dual import Fit, decisions
from probes.svm.hinge import solve_batch
from probes.svm.least_squares import cross_validate, refit

Floats = NDArray[np.floating]

#: Ridges of the least-squares statistic, in units of the Gram's mean diagonal. Wide enough that neither the observed
#: labels nor their permutations choose an end because the grid is short: below 1e-5 a fit interpolates.
RIDGES = (1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0, 10.0, 100.0)


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


def linear_factor(states: Floats, train: NDArray[np.bool_]) -> Floats:
    """(n, d) standardised states F with F Fᵀ their `linear_gram`: what least squares takes in its place."""
    z = standardise(states, train)
    return z / np.sqrt(max((z[train] ** 2).sum(1).mean(), 1e-12))


def least_squares_grams(states: Floats, splits: Splits) -> list[Floats]:
    """What least squares reads of states (n, d) in each outer split: factors (n, d) where 3 d < n, else Grams."""
    of_split = linear_factor if 3 * states.shape[1] < len(states) else linear_gram
    return [of_split(states, split.train) for split in splits.splits]


def rbf_gram(linear: Floats, gamma: float) -> Floats:
    """exp(-gamma ‖a - b‖² / 2) from a linear Gram of mean diagonal 1: gamma 1 is the scale of a random pair.

    linear: (n, n), or its factor (n, d).
    """
    if linear.shape[1] < len(linear):
        linear = linear @ linear.T
    square = linear.diagonal()
    distance = np.maximum(square[:, None] + square[None] - 2 * linear, 0)
    return np.exp(-0.5 * gamma * distance)


# ---------------------------------------------------------------- hinge


@dataclass(frozen=True)
class NestedFit:
    """Nested fits of one cell, by hinge loss or least squares.

    held_out: (targets, n) decisions of each row from the fits that did not see its problem. costs: (outer,
    targets) chosen C, or ridge. gammas: (outer, targets) chosen, 1 for the linear kernel. degenerate: share of the
    outer fits with no free support vector. largest_gap: their largest KKT gap. edges: (outer, targets) -1 or +1
    where held-out AUC still rises at that end of the path, 0 where it has stopped. tried: lowest and highest strength
    of the path. wanted: the same of the path that would do, where a fit is at an edge. inner: (outer, targets) the
    inner folds' score of what was chosen: AUC, or minus the squared error for real labels.
    """

    held_out: Floats
    costs: Floats
    gammas: Floats
    degenerate: float
    largest_gap: float
    edges: NDArray[np.int64]
    tried: tuple[float, float]
    wanted: tuple[float, float] | None = None
    inner: Floats = field(default_factory=lambda: np.empty((0, 0)))


def fit_hinge(
    grams: Sequence[Floats],
    targets: Floats,
    splits: Splits,
    costs: Sequence[float],
    gammas: Sequence[float] = (),
    limits: Limits | None = None,
    device: str | None = None,
) -> NestedFit:
    """Choose C (and gamma, where given: RBF on the linear Grams) on inner folds, fit, and score what is held out.

    grams: one (n, n) linear Gram for each outer split. targets: (c, n) of -1/+1. limits: how far the path of C is
    followed beyond `costs` while held-out AUC rises; None leaves the grid as it is.
    """
    held_out = np.full(targets.shape, np.nan)
    chosen = np.zeros((len(grams), len(targets)))
    widths, edges = np.ones(chosen.shape), np.zeros(chosen.shape, np.int64)
    fits, paths, inner = [], [], []
    for k, (linear, split) in enumerate(zip(grams, splits.splits)):
        candidates = [(gamma, rbf_gram(linear, gamma)) for gamma in gammas] or [(1.0, linear)]
        path = [_HingePath(gram, targets, split, device).follow(costs, limits) for _, gram in candidates]
        best = np.stack([one.best for one in path]).argmax(0)  # which gamma, the first of equals
        for t, width in enumerate(best):
            chosen[k, t], edges[k, t] = path[width].chosen[t], path[width].choice.edge[t]
        boxes = chosen[k][:, None] * balance(targets, split.train) * split.train
        fit, score = _fit_by_gamma(candidates, best, targets, boxes, device)
        widths[k] = [candidates[w][0] for w in best]
        held_out[:, ~split.train] = score[:, ~split.train]
        fits.append(fit)
        paths += path
        inner.append(np.stack([one.best for one in path]).max(0))
    return NestedFit(
        held_out=held_out,
        costs=chosen,
        gammas=widths,
        degenerate=float(np.mean([fit.degenerate.mean() for fit in fits])),
        largest_gap=float(max(fit.kkt_gap.max() for fit in fits)),
        edges=edges,
        tried=(min(p.strengths[0] for p in paths), max(p.strengths[-1] for p in paths)),
        wanted=_wanted(paths) if limits is not None and edges.any() else None,
        inner=np.stack(inner),
    )


@dataclass
class _HingePath:
    """Inner-fold AUC of one split and kernel along C.

    strengths: sorted. scores: (strengths, targets), NaN where one was not tried.
    """

    gram: Floats
    targets: Floats
    split: Split
    device: str | None = None
    strengths: Floats = field(default_factory=lambda: np.empty(0))
    scores: Floats = field(default_factory=lambda: np.empty((0, 0)))

    def follow(self, costs: Sequence[float], limits: Limits | None) -> _HingePath:
        """Score the grid, then go a decade further at each end where AUC still rises."""
        if not len(self.strengths):
            self.strengths = np.sort(np.asarray(costs, dtype=np.float64))
            self.scores = _inner_scores(self.gram, self.targets, self.split, self.strengths, self.device)
        while limits is not None and (further := next_strengths(self.strengths, self.choice, limits)):
            for strength, rising in further:
                self._add(strength, rising)
        return self

    def _add(self, strength: float, rising: NDArray[np.int64]) -> None:
        row = np.full(len(self.targets), np.nan)
        row[rising] = _inner_scores(self.gram, self.targets[rising], self.split, [strength], self.device)[0]
        order = np.argsort([*self.strengths, strength])
        self.strengths = np.append(self.strengths, strength)[order]
        self.scores = np.vstack([self.scores, row])[order]

    @property
    def choice(self) -> Choice:
        return choose(self.scores)

    @property
    def chosen(self) -> Floats:
        """(targets,) chosen C."""
        return self.strengths[self.choice.at]

    @property
    def best(self) -> Floats:
        """(targets,) inner AUC of the chosen C."""
        return np.take_along_axis(self.scores, self.choice.at[None], 0)[0]


def _wanted(paths: Sequence[_HingePath]) -> tuple[float, float]:
    """The grid that would do: lowest and highest C of the paths, followed as far as they rise."""
    for path in paths:
        path.follow((), Limits(*FURTHEST))
    return float(min(p.strengths[0] for p in paths)), float(max(p.strengths[-1] for p in paths))


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


def _inner_scores(
    gram: Floats, targets: Floats, split: Split, costs: Sequence[float] | Floats, device: str | None = None
) -> Floats:
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
        fit = solve_batch(gram, batch, boxes.reshape(batch.shape), device=device)
        score = decisions(gram[test], fit).reshape(len(costs), len(able), -1)
        held_out[np.ix_(np.arange(len(costs)), able, np.flatnonzero(test))] = score
        used[np.ix_(able, np.flatnonzero(test))] = True
    scores = np.full((len(costs), len(targets)), 0.5)
    for t in range(len(targets)):
        folds = np.where(used[t], split.inner, -1)
        scores[:, t] = np.nan_to_num(fold_auc(held_out[:, t], targets[t][None], folds), nan=0.5)
    return scores


def _fit_by_gamma(
    candidates: Sequence[tuple[float, Floats]],
    width: np.ndarray,
    targets: Floats,
    boxes: Floats,
    device: str | None = None,
) -> tuple[Fit, Floats]:
    """The fits of all targets, each on its own gamma's Gram."""
    parts = []
    score = np.empty(targets.shape)
    for w in np.unique(width):
        own = np.flatnonzero(width == w)
        fit = solve_batch(candidates[w][1], targets[own], boxes[own], device=device)
        score[own] = decisions(candidates[w][1], fit)
        parts.append((own, fit))
    order = np.argsort(np.concatenate([own for own, _ in parts]))
    joined = {
        name: np.concatenate([getattr(fit, name) for _, fit in parts])[order]
        for name in ("alpha", "bias", "kkt_gap", "iterations", "degenerate")
    }
    return Fit(**joined), score


def refit_hinge(
    grams: Sequence[Floats],
    targets: Floats,
    splits: Splits,
    costs: Floats,
    draws: Floats,
    device: str | None = None,
) -> Floats:
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
            fit = solve_batch(
                gram, np.broadcast_to(target, (len(able), rows)), boxes[able], tolerance=1e-2, device=device
            )
            score[np.ix_(able, np.asarray([t]), test)] = decisions(gram[test], fit)[:, None]
    return score


# ---------------------------------------------------------------- least squares


def fit_least_squares(
    grams: Sequence[Floats],
    targets: Floats,
    splits: Splits,
    ridges: Sequence[float],
    gammas: Sequence[float] = (),
    limits: Limits | None = None,
) -> NestedFit:
    """Choose the ridge (and gamma, where given) on inner folds, fit in closed form, and score what is held out.

    Arguments as of `fit_hinge`; targets may be real: the fit is then kernel ridge regression, exact, its ridge
    chosen by squared error.
    """
    kernels = [[rbf_gram(gram, gamma) for gram in grams] for gamma in gammas] or [list(grams)]
    paths = [_ridge_path(kernel, targets, splits, ridges, limits) for kernel in kernels]
    best = np.stack([path.best for path in paths]).argmax(0)  # (c, outer): which gamma
    held_out, chosen = np.empty(targets.shape), np.empty(best.shape)
    edges = np.zeros(best.shape, np.int64)
    for k, split in enumerate(splits.splits):
        for t in range(len(targets)):
            path = paths[best[t, k]]
            held_out[t, ~split.train] = path.decisions[t, ~split.train]
            chosen[t, k], edges[t, k] = path.chosen[t, k], path.edges[t, k]
    widths = np.asarray(gammas or (1.0,))[best]
    tried = (min(p.ridges[0] for p in paths), max(p.ridges[-1] for p in paths))
    wanted = None
    if limits is not None and edges.any():
        far = [_ridge_path(kernel, targets, splits, p.ridges, Limits(*FURTHEST)) for kernel, p in zip(kernels, paths)]
        wanted = (min(p.ridges[0] for p in far), max(p.ridges[-1] for p in far))
    inner = np.stack([path.best for path in paths]).max(0)
    return NestedFit(held_out, chosen.T, widths.T, 0.0, 0.0, edges.T, tried, wanted, inner.T)


@dataclass(frozen=True)
class _RidgePath:
    """One kernel's closed-form path. decisions: (c, n) held out. best, chosen, edges: (c, outer). ridges: sorted."""

    decisions: Floats
    best: Floats
    chosen: Floats
    edges: NDArray[np.int64]
    ridges: tuple[float, ...]


def _ridge_path(
    grams: Sequence[Floats], targets: Floats, splits: Splits, ridges: Sequence[float], limits: Limits | None
) -> _RidgePath:
    """Fit along the ridges, a decade further at each end where the inner score still rises."""
    binary = bool(np.isin(targets, (-1.0, 1.0)).all())
    grid = tuple(sorted(ridges))
    while True:
        edges: list[Choice] = []

        def pick(scores: Floats, edges: list[Choice] = edges) -> NDArray[np.int64]:
            """The largest ridge within a thousandth of the best: the simplest fit that does."""
            gain = scores if binary else scores / np.maximum(-scores.max(1, keepdims=True), 1e-12)
            edges.append(choose(gain.T, simplest_first=False))
            return edges[-1].at

        found = cross_validate(grams, targets, splits, grid, score="auc" if binary else "squared_error", choose=pick)
        edge = np.stack([choice.edge for choice in edges], 1) if edges else np.zeros(found.ridges.shape, np.int64)
        flat = np.stack([choice.flat for choice in edges]) if edges else np.zeros(edge.shape, np.bool_)
        whole = Choice(np.zeros(edge.size, np.int64), edge.ravel(), flat.ravel())
        further = next_strengths(np.asarray(grid), whole, limits) if limits is not None else []
        if not further:
            at = np.searchsorted(grid, found.ridges)
            best = np.take_along_axis(found.inner_scores, at[:, :, None], 2)[:, :, 0]
            return _RidgePath(found.decisions, best, found.ridges, edge, grid)
        grid = tuple(sorted([*grid, *(strength for strength, _ in further)]))


# ---------------------------------------------------------------- one protocol for both


class Probe(Protocol):
    """A way of fitting a cell: nested with its strength chosen, and again on bootstrap draws.

    `strength` names what is chosen along the path, C or the ridge. A third loss enters by having these.
    """

    @property
    def strength(self) -> str:
        """Name of what is chosen along the path."""
        ...

    def fit(self, grams: Sequence[Floats], targets: Floats, splits: Splits, gammas: Sequence[float] = ()) -> NestedFit:
        """Nested fits, the path followed until the inner folds' AUC stops rising."""
        ...

    def refit(
        self, grams: Sequence[Floats], targets: Floats, splits: Splits, strengths: Floats, draws: Floats
    ) -> Floats:
        """(draws, targets, n) held-out decisions of weighted refits, strengths as chosen."""
        ...


@dataclass(frozen=True)
class Hinge:
    """Soft-margin SVMs. costs: where the path of C begins. device: torch's name of an accelerator, for ADMM."""

    costs: tuple[float, ...] = (0.01, 0.1, 1.0, 10.0)
    limits: Limits | None = field(default_factory=Limits)
    device: str | None = None
    strength: str = "C"

    def fit(self, grams: Sequence[Floats], targets: Floats, splits: Splits, gammas: Sequence[float] = ()) -> NestedFit:
        """See `fit_hinge`."""
        return fit_hinge(grams, targets, splits, self.costs, gammas, self.limits, self.device)

    def refit(
        self, grams: Sequence[Floats], targets: Floats, splits: Splits, strengths: Floats, draws: Floats
    ) -> Floats:
        """See `refit_hinge`."""
        return refit_hinge(grams, targets, splits, strengths, draws, self.device)


@dataclass(frozen=True)
class LeastSquares:
    """Least-squares SVMs and ridge regression, in closed form. ridges: where the path begins."""

    ridges: tuple[float, ...] = RIDGES
    limits: Limits | None = field(default_factory=Limits)
    strength: str = "ridge"

    def fit(self, grams: Sequence[Floats], targets: Floats, splits: Splits, gammas: Sequence[float] = ()) -> NestedFit:
        """See `fit_least_squares`."""
        return fit_least_squares(grams, targets, splits, self.ridges, gammas, self.limits)

    def refit(
        self, grams: Sequence[Floats], targets: Floats, splits: Splits, strengths: Floats, draws: Floats
    ) -> Floats:
        """See `probes.svm.least_squares.refit`."""
        return refit(grams, targets, splits, strengths, draws)


def choose_probe(
    fit: Literal["hinge", "least_squares"],
    *,
    binary: bool,
    costs: tuple[float, ...],
    limits: Limits,
    device: str | None = None,
) -> Probe:
    """The probe of a feature: hinge where every target is -1/+1 and it is asked for, least squares otherwise."""
    if binary and fit == "hinge":
        return Hinge(costs, limits, device)
    start = tuple(r for r in RIDGES if limits.low <= r <= limits.high)
    return LeastSquares(start or (limits.low, limits.high), limits)
