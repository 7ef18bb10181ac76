"""Time to solve: the first round from which a run's on-policy reward stays above one half, censored at the budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tracekit.study.analysis.exact import Estimate, ratio_of_means

WINDOW = 5  # rounds whose mean reward must reach the threshold
THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Time:
    """Rounds (or tokens, or FLOPs) until solved; where `solved` is False the run was stopped at this value."""

    value: float
    solved: bool


def time_to_solve(rewards: Sequence[float], cost: Sequence[float] | None = None) -> Time:
    """The first round whose window of rewards has a mean of one half or more; `cost`: what each round has spent.

    Without `cost` the unit is rounds, the window's last one. A run that never gets there is censored at its budget.
    """
    values = np.asarray(rewards, dtype=np.float64)
    spent = np.ones(len(values)) if cost is None else np.asarray(cost, dtype=np.float64)
    total = np.cumsum(spent)
    if len(values) >= WINDOW:
        means = np.convolve(values, np.full(WINDOW, 1.0 / WINDOW), mode="valid")
        reached = np.flatnonzero(means >= THRESHOLD - 1e-12)
        if len(reached):
            return Time(float(total[reached[0] + WINDOW - 1]), True)
    return Time(float(total[-1]) if len(total) else 0.0, False)


def restricted_ratio(first: Sequence[Time], second: Sequence[Time], budget: float, alpha: float = 0.05) -> Estimate:
    """Ratio of the restricted mean times (Royston & Parmar 2013), min(time, budget), paired by base."""
    a, b = ([min(time.value if time.solved else budget, budget) for time in times] for times in (first, second))
    return ratio_of_means(a, b, alpha)
