"""Exact tests and intervals for few runs whose outcomes are solved or not, or times with censoring.

Differences are paired by base. The sign-flip test is exact where a pair's difference is symmetric about 0 under the
null hypothesis, as it is where the arms' names could be exchanged within a base. Its smallest two-sided p of n pairs is
2^(1-n): 0.0078 for 8. Intervals hold the values that the test does not reject.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
from scipy import stats

MOST_ENUMERATED = 16  # pairs whose sign patterns are enumerated: 65,536
TOLERANCE = 1e-9  # relative: sums that are equal but for rounding count as equal
_INFINITY = float("inf")


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval and the p of the null hypothesis that it was tested against."""

    value: float
    low: float
    high: float
    p: float
    count: int


def clopper_pearson(successes: int, count: int, alpha: float = 0.05) -> tuple[float, float]:
    """The exact interval of a share (Clopper & Pearson 1934)."""
    low = 0.0 if successes == 0 else float(stats.beta.ppf(alpha / 2, successes, count - successes + 1))
    high = 1.0 if successes == count else float(stats.beta.isf(alpha / 2, successes + 1, count - successes))
    return low, high


def fisher(first: tuple[int, int], second: tuple[int, int], alternative: str = "two-sided") -> float:
    """p of equal shares, each given as (successes, count), by Fisher's exact test.

    alternative: two-sided, greater (the first share is larger) or less.
    """
    table = [[successes, count - successes] for successes, count in (first, second)]
    return float(stats.fisher_exact(table, alternative=alternative)[1])


def mcnemar(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Two-sided exact p of equal shares of paired outcomes: a binomial test of the discordant pairs."""
    only_first = sum(a and not b for a, b in zip(first, second, strict=True))
    only_second = sum(b and not a for a, b in zip(first, second, strict=True))
    discordant = only_first + only_second
    return float(stats.binomtest(only_first, discordant).pvalue) if discordant else 1.0


def discordant(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """One-sided exact p of "the first is right no more often than the second", paired: McNemar's test."""
    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    only_first, only_second = int((a & ~b).sum()), int((b & ~a).sum())
    return float(stats.binom.sf(only_first - 1, only_first + only_second, 0.5))


def rank_sum(first: npt.ArrayLike, second: npt.ArrayLike) -> float:
    """One-sided exact p of "the first is no larger", by all exchanges of values between two samples (Wilcoxon 1945).

    Ties have mid-ranks. Of 4 against 4 values its smallest p is 1/70.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    ranks = stats.rankdata(np.concatenate([a, b]))
    sums = [sum(chosen) for chosen in combinations(ranks, len(a))]
    observed = ranks[: len(a)].sum()
    return sum(total >= observed - TOLERANCE for total in sums) / len(sums)


def rank_ratio(first: npt.ArrayLike, second: npt.ArrayLike, alpha: float = 0.05) -> Estimate:
    """Ratio of two samples of positive values by ranks: the median of all ratios (Hodges & Lehmann 1963).

    The interval holds the ratios r at which the two-sided rank-sum test does not reject that `first` and r·`second`
    are alike; p is one-sided, of a ratio of at most 1.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    ratios = np.sort((a[:, None] / b[None, :]).ravel())

    def p_of(ratio: float) -> float:
        return min(1.0, 2 * min(rank_sum(a, ratio * b), rank_sum(ratio * b, a)))

    kept = [ratio for ratio in ratios if p_of(float(ratio)) > alpha]
    low, high = (kept[0], kept[-1]) if kept else (ratios[0], ratios[-1])
    if p_of(float(ratios[0]) / 2) > alpha:
        low, high = 0.0, _INFINITY  # too few values to reject any ratio
    return Estimate(float(np.median(ratios)), float(low), float(high), rank_sum(a, b), len(a))


def sign_flip(differences: npt.ArrayLike, alternative: str = "two-sided") -> float:
    """p of "differences are symmetric about 0", over all sign patterns; the statistic is the mean.

    alternative: two-sided, greater (the mean is above 0) or less.
    """
    values = np.atleast_1d(np.asarray(differences, dtype=np.float64))
    if not 1 <= len(values) <= MOST_ENUMERATED:
        raise ValueError(f"sign_flip enumerates 1 to {MOST_ENUMERATED} pairs; {len(values)} were given.")
    sums = _patterns(len(values)) @ values
    slack = TOLERANCE * max(float(np.abs(values).sum()), 1e-300)
    observed = float(values.sum())
    if alternative == "greater":
        return float((sums >= observed - slack).mean())
    if alternative == "less":
        return float((sums <= observed + slack).mean())
    return float((np.abs(sums) >= abs(observed) - slack).mean())


def _patterns(count: int) -> np.ndarray:
    """All patterns of signs: (2^count, count)."""
    bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
    return 1.0 - 2.0 * bits


def mean_difference(differences: npt.ArrayLike, alpha: float = 0.05) -> Estimate:
    """The mean of paired differences, the shifts that the sign-flip test does not reject, and its p against 0."""
    values = np.asarray(differences, dtype=np.float64)
    mean, reach = float(values.mean()), float(np.ptp(values)) + 1e-12
    low = _edge(lambda shift: sign_flip(values - shift), mean, mean - 4 * reach, alpha)
    high = _edge(lambda shift: sign_flip(values - shift), mean, mean + 4 * reach, alpha)
    return Estimate(mean, low, high, sign_flip(values), len(values))


def equivalence(differences: npt.ArrayLike, margin: float) -> float:
    """p of "the mean difference lies outside ±margin": the larger of two one-sided sign-flip tests (TOST)."""
    values = np.asarray(differences, dtype=np.float64)
    return max(sign_flip(values + margin, "greater"), sign_flip(values - margin, "less"))


def ratio_of_means(first: npt.ArrayLike, second: npt.ArrayLike, alpha: float = 0.05) -> Estimate:
    """mean(first) ÷ mean(second) of paired positive values, with Fieller's interval by sign flips.

    A ratio r is kept where the sign-flip test does not reject that first - r·second has mean 0. Of restricted times
    (min(time, budget)) this is the ratio of restricted means. p: of a ratio of 1.
    """
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    ratio = float(a.mean() / b.mean())
    low = _edge(lambda r: sign_flip(a - r * b), ratio, 0.0, alpha)
    high = _edge(lambda r: sign_flip(a - r * b), ratio, 1e3 * ratio, alpha)
    return Estimate(ratio, low, high, sign_flip(a - b), len(a))


def _edge(p_of: Callable[[float], float], inside: float, outside: float, alpha: float) -> float:
    """The value farthest from `inside` towards `outside` that is not rejected, by bisection; ±∞ where none is."""
    if p_of(outside) > alpha:
        return math.copysign(_INFINITY, outside - inside) if outside else 0.0
    for _ in range(60):
        middle = (inside + outside) / 2
        if p_of(middle) > alpha:
            inside = middle
        else:
            outside = middle
    return inside
