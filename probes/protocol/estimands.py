"""What is estimated of a cell: a name, a statistic of held-out decisions, and the same on bootstrap draws.

An estimand is one function of decisions and weights. With weights of 1 it gives the value, with the multiplicities of
a draw that draw's. `register` adds another, from a user's own file too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from probes.statistics.auc import fold_auc
from probes.statistics.information import information_above

Floats = NDArray[np.floating]
Fitted = Literal["linear", "least_squares", "rbf", "with_surface"]


@dataclass(frozen=True)
class Rows:
    """What a statistic knows of the rows beside the decisions.

    targets: (c, n). folds: (n,) outer fold, over which no two rows are compared. strata: (n,) place in the trace.
    baseline: (c, n) held-out decisions from position and text alone; None where they were not fitted.
    """

    targets: Floats
    folds: NDArray[np.int64]
    strata: NDArray[np.int64]
    baseline: Floats | None = None

    @property
    def binary(self) -> bool:
        """Whether every target is -1/+1."""
        return bool(np.isin(self.targets, (-1.0, 1.0)).all())


#: decisions (b, c, n) and weights (b, k, n) → the statistic (b, k) of each fit under each weighting.
Statistic = Callable[[Floats, Floats, Rows], Floats]


@dataclass(frozen=True)
class Estimand:
    """A registered estimand. of: the fit it is read from; less: one whose statistic is taken off. unit: of the value.

    binary: whether it needs labels of -1/+1.
    """

    name: str
    title: str
    statistic: Statistic
    of: Fitted = "linear"
    less: Fitted | None = None
    unit: str = "AUC"
    binary: bool = False


#: Every estimand by name, in the order of the tables.
ESTIMANDS: dict[str, Estimand] = {}


def register(estimand: Estimand) -> Estimand:
    """Add an estimand. Raises ValueError where the name is taken."""
    if estimand.name in ESTIMANDS:
        raise ValueError(f"estimand {estimand.name} is registered already; choose another name.")
    ESTIMANDS[estimand.name] = estimand
    return estimand


def choose_estimands(names: Sequence[str] | None, primary: str) -> dict[str, Estimand]:
    """The estimands of these names and the primary one, in the order of registration; None: all. Raises ValueError."""
    wanted = list(ESTIMANDS) if names is None else [*names, primary]
    unknown = [name for name in (*wanted, primary) if name not in ESTIMANDS]
    if unknown:
        raise ValueError(f"estimand {unknown[0]!r} is not registered; registered: {', '.join(ESTIMANDS)}.")
    return {name: one for name, one in ESTIMANDS.items() if name in wanted}


def value(statistic: Statistic, held_out: Floats, rows: Rows) -> float:
    """The statistic of held-out decisions (c, n), every row weighing 1."""
    return float(statistic(held_out[None], np.ones((1, 1, held_out.shape[1])), rows)[0, 0])


def over_draws(statistic: Statistic, scores: Floats, rows: Rows, fitted: Floats, scored: Floats) -> Floats:
    """(draws, 1 + k) statistic of every refit: on its own draw, then on each of `scored`.

    scores: (draws, c, n), NaN where a draw could not be fitted. fitted: (draws, n), scored: (k, n) multiplicities.
    """
    shape = (len(fitted), *scored.shape)
    weights = np.concatenate([fitted[:, None], np.broadcast_to(scored, shape)], axis=1)
    found = np.full(weights.shape[:2], np.nan)
    usable = np.isfinite(scores).all((1, 2))
    if usable.any():
        found[usable] = statistic(scores[usable], weights[usable], rows)
    return found


# ---------------------------------------------------------------- statistics


def auc(decisions: Floats, weights: Floats, rows: Rows) -> Floats:
    """Share of pairs inside a fold that decisions put in order, mean over targets."""
    return _pairs(decisions, weights, rows.targets, rows.folds)


def stratified_auc(decisions: Floats, weights: Floats, rows: Rows) -> Floats:
    """The same over pairs at one place in the trace: ½ for a probe that knows the place alone."""
    _, place = np.unique(rows.strata, return_inverse=True)
    return _pairs(decisions, weights, rows.targets, rows.folds * (place.max() + 1) + place)


def bits(decisions: Floats, weights: Floats, rows: Rows) -> Floats:
    """V-information of the decisions above the baseline's, in bits a row, mean over targets."""
    total = np.zeros(weights.shape[:2])
    mass = np.maximum(weights.sum(2), 1e-12)
    for t, target in enumerate(rows.targets):
        baseline = None if rows.baseline is None else rows.baseline[t]
        gained = information_above(decisions[:, t], baseline, target, rows.folds, weights[:, 0])
        total += np.einsum("bkn,bn->bk", weights, gained) / mass
    return total / len(rows.targets)


def _pairs(decisions: Floats, weights: Floats, targets: Floats, folds: NDArray[np.int64]) -> Floats:
    count, number, n = weights.shape
    flat, total = weights.reshape(-1, n), np.zeros((count, number))
    for t, target in enumerate(targets):
        repeated = np.repeat(decisions[:, t], number, axis=0)
        total += fold_auc(repeated, target[None], folds, flat).reshape(count, number)
    return total / len(targets)


register(Estimand("delta", "linear AUC", auc))
register(Estimand("stratified", "linear AUC among rows at one place in the trace", stratified_auc))
register(Estimand("bits", "information above position and text", bits, unit="bit", binary=True))
register(Estimand("least_squares", "linear AUC by least squares, beside a hinge headline", auc, of="least_squares"))
register(Estimand("gamma", "RBF less linear AUC", auc, of="rbf", less="linear"))
register(Estimand("gain", "AUC with the text's features beside the states", auc, of="with_surface"))
