"""Effects between arms: differences paired by problem and seed, with an interval that covers both."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from probes.statistics.equivalence import Effect

ALPHA = 0.05

#: One measure of a checkpoint: problem_id → value.
ByProblem = dict[str, float]


@dataclass(frozen=True, slots=True)
class Difference:
    """A - B. seeds: replicates it rests on; with one seed it speaks of two checkpoints, not of two methods.

    effect: what it varies with, where it was measured problem by problem.
    """

    estimate: float
    low: float
    high: float
    p: float
    seeds: int
    problems: int
    effect: Effect | None = None

    def p_equivalent(self, margin: float | None) -> float:
        """p of "it lies outside ±margin" (two one-sided tests); NaN where no margin is given or nothing was paired."""
        if margin is None or self.effect is None:
            return float("nan")
        if _never_varies(self.effect):
            return chance_unseen(margin - abs(self.estimate), self.estimate, self.problems)
        return self.effect.p_equivalent(margin)


def difference(a: dict[int, ByProblem], b: dict[int, ByProblem]) -> Difference:
    """The mean paired difference of a measure in [0, 1], over the seeds and problems that both have.

    a, b: seed → problem → value. Seeds and problems are crossed random effects (`probes.statistics.equivalence`):
    the same
    problems meet every seed. Where the difference is the same for every problem and seed there is no spread to go by:
    interval and p then say what so many problems could have missed (`chance_unseen`). Raises ValueError where nothing
    is shared.
    """
    effect = paired_effect(a, b)
    low, high, p = *effect.interval(ALPHA), effect.p_different()
    if _never_varies(effect):
        half = most_unseen(effect.estimate, effect.problems)
        low, high = effect.estimate - half, effect.estimate + half
        p = min(1.0, 2 * chance_unseen(abs(effect.estimate), effect.estimate, effect.problems))
    return Difference(effect.estimate, low, high, p, effect.seeds, effect.problems, effect)


def chance_unseen(shift: float, shown: float, problems: int) -> float:
    """The chance that each of so many problems shows the same difference although the mean is `shift` away from it.

    Differences lie in [-1, 1], so a mean away by `shift` takes a share of shift / (1 + |shown|) of problems that show
    another: none of n does by (1 - share)ⁿ, the argument of the rule of three (Hanley & Lippman-Hand 1983). 1 for no
    shift, 0 for one that is not possible.
    """
    return (1.0 - min(max(shift, 0.0) / (1.0 + abs(shown)), 1.0)) ** problems


def most_unseen(shown: float, problems: int, alpha: float = ALPHA) -> float:
    """The largest shift to either side that `chance_unseen` leaves a chance of alpha / 2."""
    return (1.0 + abs(shown)) * (1.0 - math.pow(alpha / 2, 1.0 / problems))


def _never_varies(effect: Effect) -> bool:
    return effect.seed_variance == effect.problem_variance == 0.0


def paired_effect(a: dict[int, ByProblem], b: dict[int, ByProblem]) -> Effect:
    """The effect behind `difference`: mean, variance over seeds and over problems.

    The model is that of `probes.statistics.equivalence`.
    """
    seeds = sorted(a.keys() & b.keys())
    if not seeds:
        raise ValueError(f"no seed is shared: {sorted(a)} and {sorted(b)}.")
    problems = sorted(set.intersection(*(set(a[s]) & set(b[s]) for s in seeds)))
    if not problems:
        raise ValueError("no problem is shared by both arms on every seed.")
    paired = np.array([[a[s][p] - b[s][p] for p in problems] for s in seeds])  # (seeds, problems)
    estimate, count = float(paired.mean()), len(problems)
    if count < 2:
        return Effect(estimate, 0.0, float("inf"), 0.0, len(seeds), count)
    of_mean = float(paired.mean(0).var(ddof=1)) / count  # a mean over problems: its variance needs no bootstrap
    if len(seeds) == 1:
        return Effect(estimate, 0.0, of_mean, 0.0, 1, count)
    of_one = float(paired.var(1, ddof=1).mean()) / count
    # σ²_seed×problem / S: in the spread between seeds already
    crossed = min(max(of_one - of_mean, 0.0) / (len(seeds) - 1), of_mean)
    spread = float(paired.mean(1).var(ddof=1)) / len(seeds)
    return Effect(estimate, spread, of_mean - crossed, crossed, len(seeds), count)


def interval_of(values: dict[int, ByProblem]) -> tuple[float, float, float]:
    """(mean, low, high) of one arm's measure over seeds and problems; a share is kept within [0, 1] by the caller."""
    zero = {s: dict.fromkeys(found, 0.0) for s, found in values.items()}
    found = difference(values, zero)
    return found.estimate, found.low, found.high


def upper_bound_of_none(samples: int, alpha: float = ALPHA) -> float:
    """The highest rate that 0 right of `samples` leaves possible (exact, one-sided): 0.3 % for 1,024."""
    return 1.0 - math.pow(alpha, 1.0 / samples) if samples else 1.0


def difference_of_runs(a: dict[int, float], b: dict[int, float] | None = None) -> Difference:
    """A - B, or A alone, of a measure that has one value a run: mean and t interval over seeds.

    Bounds and p are NaN with fewer than two seeds. Where every seed gives the same value there is no spread to make
    an interval of: bounds are NaN, and p is that of n equal signs, 2^(1-n), or 1 for a value of 0.
    """
    from scipy import stats

    nan = float("nan")
    seeds = sorted(a if b is None else a.keys() & b.keys())
    values = np.array([a[s] - (0.0 if b is None else b[s]) for s in seeds], dtype=np.float64)
    if len(values) < 2:
        return Difference(float(values[0]) if len(values) else nan, nan, nan, nan, len(values), 0)
    mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(len(values))
    if error == 0.0:
        return Difference(mean, nan, nan, 1.0 if mean == 0.0 else 2.0 ** (1 - len(values)), len(values), 0)
    half = float(stats.t.isf(ALPHA / 2, len(values) - 1)) * error
    p = float(2 * stats.t.sf(abs(mean) / error, len(values) - 1))
    return Difference(mean, mean - half, mean + half, p, len(values), 0)
