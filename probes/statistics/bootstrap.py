"""Bootstrap over problems, refitted: whole problems drawn with replacement, every copy kept in its problem's fold.

A cross-validated AUC is a sum over pairs (a problem that was fitted, a problem that is scored). A resampled problem
moves both sums at once, and what belongs to the pair alone is counted twice: on simulated data the plain variance
came out 1.5 to 1.8 times the true one (the upward bias that Efron & Stein 1981 prove of the jackknife). So every
refit is also scored on a few draws of its own for the scored side; the interaction of the two is that part, and is
taken off once.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from probes.statistics.auc import fold_auc

Floats = NDArray[np.floating]

#: Draws of the scored side that each refit is also scored on.
SCORED_DRAWS = 10


def draw_problems(groups: np.ndarray, folds: np.ndarray, draws: int, seed: int | np.random.SeedSequence) -> Floats:
    """(draws, n) multiplicity of each row: that of its problem; each fold keeps its number of problems.

    groups: (n,) problem of each row. folds: (n,) outer fold of each row, the same within a problem.
    """
    names, first, of_row = np.unique(groups, return_index=True, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = np.zeros((draws, len(names)))
    for fold in np.unique(folds):
        inside = np.flatnonzero(folds[first] == fold)
        counts[:, inside] = rng.multinomial(len(inside), np.full(len(inside), 1 / len(inside)), size=draws)
    return counts[:, of_row]


def score_draws(scores: Floats, targets: Floats, folds: np.ndarray, fitted: Floats, scored: Floats) -> Floats:
    """(draws, 1 + scored draws) AUC of every refit, mean over targets: on its own draw, then on each of `scored`.

    scores: (draws, c, n) held-out decisions of the refits, NaN where one could not be fitted. targets: (c, n).
    fitted: (draws, n) and scored: (k, n) multiplicities.
    """
    count, number, n = len(fitted), len(scored), scores.shape[2]
    weights = np.concatenate([fitted[:, None], np.broadcast_to(scored, (count, number, n))], axis=1).reshape(-1, n)
    auc = np.zeros((count, 1 + number))
    for t, target in enumerate(targets):
        decisions = np.repeat(scores[:, t], 1 + number, axis=0)
        usable = np.isfinite(decisions).all(1)
        found = np.full(len(decisions), np.nan)
        found[usable] = fold_auc(decisions[usable], target[None], folds, weights[usable])
        auc += found.reshape(count, -1)
    return auc / len(targets)


def variance(auc: Floats) -> float:
    """Variance over problems from `score_draws`' (draws, 1 + k): of the own draws, less the interaction once.

    Not below half of the plain one: were all of it interaction, it would be counted exactly twice.
    """
    plain = float(auc[:, 0].var(ddof=1))
    crossed = auc[:, 1:]
    if not crossed.shape[1]:
        return plain
    left = crossed - crossed.mean(0) - crossed.mean(1, keepdims=True) + crossed.mean()
    interaction = float((left**2).sum()) / ((crossed.shape[0] - 1) * max(crossed.shape[1] - 1, 1))
    return max(plain - interaction, plain / 2)
