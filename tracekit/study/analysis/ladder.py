"""The ladder: the chance that a run is solved against the pass rate of its base.

    P(not solved) = exp(-c_arm · n · p)

n: rollouts of the budget, p: the base's pass rate. Where one right rollout in n starts a run, P(none) = (1 - p)^n, so
c = 1: a complementary log-log curve with slope 1 in log(n p). An arm that needs fewer right rollouts of its base has a
larger c. Its half-way point lies at n p = ln 2 / c, and the shift between two arms is log10 of the ratio of their c,
in decades. With the slope fixed the likelihood has one maximum, and a finite one unless an arm solved none or all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy import optimize, stats

from tracekit.study.analysis.exact import Estimate

FARTHEST = 12.0  # decades: bounds beyond are told as infinite


@dataclass(frozen=True, slots=True)
class Cell:
    """A run: its base (the unit that is resampled), expected right rollouts n·p of the base, and its outcome."""

    base: int
    expected: float
    solved: bool


def log_likelihood(cells: Sequence[Cell], log10_c: float) -> float:
    """Of an arm's outcomes under its curve."""
    rates = np.array([cell.expected for cell in cells]) * 10.0**log10_c
    solved = np.array([cell.solved for cell in cells])
    with np.errstate(divide="ignore"):
        return float(np.where(solved, np.log(-np.expm1(-rates)), -rates).sum())


def half_way(cells: Sequence[Cell], alpha: float = 0.05) -> Estimate:
    """log10 of the expected right rollouts at which half of the runs are solved, with its profile interval.

    Infinite where none or all were solved; p is that of c = 1: one right rollout starts a run.
    """
    best = _best(cells)
    half = math.log10(math.log(2.0))
    drop = float(stats.chi2.isf(alpha, 1)) / 2
    top = log_likelihood(cells, min(max(best, -FARTHEST), FARTHEST))

    def excess(log10_c: float) -> float:
        return top - log_likelihood(cells, log10_c) - drop

    low, high = _bounds(excess, best)
    p = float(stats.chi2.sf(max(0.0, 2 * (top - log_likelihood(cells, 0.0))), 1))
    return Estimate(half - best, half - high, half - low, p, len(cells))


def half_way_p(cells: Sequence[Cell], bound: float) -> float:
    """One-sided p of a half-way point on the other side of `bound` (log10 of right rollouts), by likelihood ratio."""
    best = min(max(_best(cells), -FARTHEST), FARTHEST)
    drop = log_likelihood(cells, best) - log_likelihood(cells, math.log10(math.log(2.0)) - bound)
    return float(stats.chi2.sf(max(0.0, 2 * drop), 1)) / 2


def shift(first: Sequence[Cell], second: Sequence[Cell], alpha: float = 0.05) -> Estimate:
    """How many decades the second arm's half-way point lies below the first's: log10(c_second ÷ c_first).

    Interval by profile likelihood; p by exchanging the arms' outcomes within bases, all patterns, of the difference in
    runs solved. Cells are paired: the same bases and expected rollouts in both.
    """
    best = [_best(cells) for cells in (first, second)]
    top = sum(log_likelihood(c, min(max(b, -FARTHEST), FARTHEST)) for c, b in zip((first, second), best))
    drop = float(stats.chi2.isf(alpha, 1)) / 2

    def excess(decades: float) -> float:
        def cost(log10_c: float) -> float:
            return -log_likelihood(first, log10_c) - log_likelihood(second, log10_c + decades)

        grid = np.linspace(-FARTHEST, FARTHEST, 97)
        start = grid[int(np.argmin([cost(x) for x in grid]))]
        fitted = optimize.minimize_scalar(cost, bounds=(start - 0.5, start + 0.5), method="bounded")
        return top + float(fitted.fun) - drop

    value = best[1] - best[0] if all(map(math.isfinite, best)) else _direction(best)
    low, high = _bounds(excess, value)
    return Estimate(value, low, high, exchange_p(first, second), len(first))


def _direction(best: Sequence[float]) -> float:
    """+∞ or -∞ where only one arm's curve is determined or they lie at opposite ends; NaN where both at the same."""
    first, second = best
    return float("nan") if first == second else math.copysign(float("inf"), second - first)


def exchange_p(first: Sequence[Cell], second: Sequence[Cell]) -> float:
    """Two-sided exact p of "the arms' names could be exchanged within a base"."""
    bases = sorted({cell.base for cell in first})
    by_base = [
        sum(cell.solved for cell in second if cell.base == base)
        - sum(cell.solved for cell in first if cell.base == base)
        for base in bases
    ]
    observed = abs(sum(by_base))
    patterns = [abs(sum(s * d for s, d in zip(signs, by_base))) for signs in product((1, -1), repeat=len(by_base))]
    return sum(value >= observed for value in patterns) / len(patterns)


def _best(cells: Sequence[Cell]) -> float:
    """log10 c of the highest likelihood; ±∞ where every run, or none, was solved."""
    if all(cell.solved for cell in cells):
        return float("inf")
    if not any(cell.solved for cell in cells):
        return float("-inf")
    grid = np.linspace(-FARTHEST, FARTHEST, 481)
    start = float(grid[int(np.argmax([log_likelihood(cells, x) for x in grid]))])
    found = optimize.minimize_scalar(
        lambda x: -log_likelihood(cells, x), bounds=(start - 0.1, start + 0.1), method="bounded"
    )
    return float(found.x)


def _bounds(excess: Callable[[float], float], value: float) -> tuple[float, float]:
    """Where `excess` crosses 0 on either side of the value; infinite where it never does within FARTHEST."""
    if math.isnan(value):
        return float("-inf"), float("inf")
    inside = min(max(value, -FARTHEST), FARTHEST)
    bounds = []
    for outside in (-FARTHEST, FARTHEST):
        if excess(outside) <= 0 or inside == outside:
            bounds.append(math.copysign(float("inf"), outside))
        else:
            bounds.append(float(optimize.brentq(excess, *sorted((inside, outside)), xtol=1e-4)))
    return bounds[0], bounds[1]
