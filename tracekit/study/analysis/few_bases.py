"""Tests of claims on four bases, where a sign-flip test cannot go below 1/16: one-sided, and exact.

Fisher's test and the rank-sum test take the runs of two arms as independent samples; 4 against 4 can reach 1/70. The
arms share their bases. Where a base helps or hinders both alike the tests are conservative, and the p of the paired
sign-flip test stands in the note. A probing claim is about each base: its p is the largest of the bases' own exact
tests over problems, so that it holds on all of them or not at all (intersection-union test, Berger 1982).

A claim and its opposite are each tested at 5 %.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from tracekit.study.analysis.exact import clopper_pearson, discordant, fisher, rank_ratio, rank_sum, sign_flip
from tracekit.study.analysis.registered import Outcome, Records, nothing

RunKey = tuple[str, str]  # rung, arm


def solves_more(first: RunKey, second: RunKey) -> Callable[[Records], Outcome]:
    """Fisher's exact test of bases solved, one-sided: `first` solves more than `second`."""

    def of(records: Records) -> Outcome:
        seeds = records.seeds([first, second])
        if not seeds:
            return nothing()
        n = len(seeds)
        solved = [[records.solved(*key, seed) for seed in seeds] for key in (first, second)]
        a, b = (sum(flags) for flags in solved)
        (low_a, high_a), (low_b, high_b) = clopper_pearson(a, n), clopper_pearson(b, n)
        side = "greater" if a >= b else "less"
        paired = sign_flip([float(x) - float(y) for x, y in zip(*solved)], side)
        note = (
            f"{a} of {n} [{low_a:.2f}, {high_a:.2f}] against {b} of {n} [{low_b:.2f}, {high_b:.2f}]; "
            f"sign flips by base: p = {paired:.3g}"
        )
        low = (a - b) / n - math.hypot(a / n - low_a, high_b - b / n)  # Newcombe's hybrid interval (1998)
        high = (a - b) / n + math.hypot(high_a - a / n, b / n - low_b)
        return Outcome((a - b) / n, low, high, fisher((a, n), (b, n), side), n, a > b, b > a, note=note)

    return of


def takes_longer(first: RunKey, second: RunKey) -> Callable[[Records], Outcome]:
    """Rank-sum test of rounds to solve, one-sided: `first` takes more. A run not solved counts as its budget."""

    def of(records: Records) -> Outcome:
        seeds = records.seeds([first, second])
        if not seeds:
            return nothing()
        times = [[records.time(*key, seed) for seed in seeds] for key in (first, second)]
        a, b = ([time.value for time in part] for part in times)
        ratio, opposite = rank_ratio(a, b), rank_sum(b, a)
        longer = ratio.p <= opposite
        paired = sign_flip(np.subtract(a, b), "greater" if longer else "less")
        censored = [sum(not time.solved for time in part) for part in times]
        note = f"not solved: {censored[0]} and {censored[1]} of {len(seeds)}; sign flips by base: p = {paired:.3g}"
        p = min(ratio.p, opposite)
        return Outcome(ratio.value, ratio.low, ratio.high, p, len(seeds), longer, not longer, note=note, null=1.0)

    return of


def reads_better(first: RunKey, second: RunKey | None = None, margin: float = 0.02) -> Callable[[Records], Outcome]:
    """Held-out problems whose feature a probe reads right: from `first`'s states against `second`'s.

    second: None for a probe of the token itself in place of another model's states. The p is the largest over bases of
    McNemar's exact one-sided test over problems. The estimate is the mean difference in accuracy, its interval by t
    over problems, for these bases. p_same: the largest over bases of two one-sided t tests within `margin`.
    """

    def of(records: Records) -> Outcome:
        seeds = records.seeds([first] if second is None else [first, second])
        if not seeds:
            return nothing()
        pairs = [_read_right(records, first, second, seed) for seed in seeds]
        better = max(discordant(a, b) for a, b in pairs)
        worse = max(discordant(b, a) for a, b in pairs)
        differences = [a.astype(float) - b for a, b in pairs]
        same = max(same_within(d, margin) for d in differences)
        by_problem = np.mean(differences, axis=0)
        value, count = float(by_problem.mean()), len(by_problem)
        reach = float(stats.t.isf(0.025, count - 1) * by_problem.std(ddof=1) / math.sqrt(count))
        shares = ", ".join(f"{a.mean():.3f} against {b.mean():.3f}" for a, b in pairs)
        p, note = min(better, worse), f"read right, by base: {shares}"
        return Outcome(
            value, value - reach, value + reach, p, len(seeds), better <= worse, worse < better, same, note, margin
        )

    return of


def _read_right(records: Records, first: RunKey, second: RunKey | None, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Of each held-out problem whether it is read right; the same problems in both."""
    other, key = (first, "text_right") if second is None else (second, "right")
    return _flags(records.value(*first, seed, "probe", "right")), _flags(records.value(*other, seed, "probe", key))


def _flags(text: str) -> np.ndarray:
    """Booleans of a string of zeros and ones."""
    return np.array([sign == "1" for sign in text])


def same_within(differences: np.ndarray, margin: float) -> float:
    """p of "the mean lies outside ±margin", by two one-sided t tests.

    Where no problem differs there is no spread: then (1 - margin)^n, the chance that a share `margin` of problems shows
    in none of n.
    """
    count, spread = len(differences), float(differences.std(ddof=1))
    if spread == 0:
        return float((1 - margin) ** count) if differences[0] == 0 else 1.0
    error = spread / math.sqrt(count)
    above = stats.t.sf((differences.mean() + margin) / error, count - 1)
    below = stats.t.cdf((differences.mean() - margin) / error, count - 1)
    return float(max(above, below))
