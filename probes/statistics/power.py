"""How much data an answer takes: before any fit from the labels alone, afterwards from what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from probes.statistics.equivalence import Effect


@dataclass(frozen=True)
class Plan:
    """What can be said before a state is looked at.

    problems: there are. standard_error: expected of a paired difference of AUCs. detectable: the least difference
    found with the asked power. needed: problems for `target` to be found, or ruled out, with it.
    """

    problems: int
    intraclass: float
    design_effect: float
    standard_error: float
    detectable: float
    needed: int


def plan(
    targets: np.ndarray,
    groups: np.ndarray,
    *,
    target: float,
    alpha: float = 0.05,
    power: float = 0.8,
    auc: float = 0.8,
    shared: float = 0.5,
) -> Plan:
    """Power from labels and groups alone.

    targets: (n,) of -1/+1. The error of one AUC is Hanley & McNeil's (1982) at `auc`, on rows ÷ design effect
    1 + (m - 1) ICC; two models on identical inputs share the `shared` part of their errors. Both numbers are
    assumptions, told in the report; the plan after the fits uses none.
    """
    names, sizes = np.unique(groups, return_counts=True)
    correlation = intraclass(targets, groups)
    mean_size = float((sizes**2).sum() / sizes.sum())
    effect = 1 + (mean_size - 1) * max(correlation, 0.0)
    positive = max(int((targets > 0).sum()), 1) / effect
    negative = max(int((targets <= 0).sum()), 1) / effect
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = auc * (1 - auc) + (positive - 1) * (q1 - auc**2) + (negative - 1) * (q2 - auc**2)
    error = math.sqrt(2 * (1 - shared) * max(variance, 0.0) / (positive * negative))
    reach = _reach(alpha, power)
    needed = math.ceil(len(names) * (reach * error / target) ** 2)
    return Plan(len(names), correlation, effect, error, reach * error, needed)


def problems_needed(effect: Effect, margin: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Problems at which this estimate, were it the truth, would be told from 0 or shown to lie inside ±margin.

    alpha: level after the correction for the family. None where no number of problems is enough (the seeds alone
    vary too much), where so many are there already, or where nothing is known.
    """
    if not np.isfinite(effect.problem_variance + effect.interaction_variance):
        return None
    low, high = effect.problems, effect.problems * 1_000_000
    if not _answers(effect, high, margin, alpha, power) or _answers(effect, low, margin, alpha, power):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _answers(effect, middle, margin, alpha, power) else (middle, high)
    return high


def smallest_detectable(effect: Effect, alpha: float = 0.05, power: float = 0.8) -> float:
    """The least difference that a design with this effect's errors finds with this power at level alpha."""
    return effect.half_width(alpha) + effect.half_width(2 * (1 - power))


def power_of(effect: Effect, difference: float, alpha: float = 0.05) -> float:
    """Chance that a design with this effect's errors finds a true difference of this size (> 0) at level alpha."""
    return 1 - replace(effect, estimate=difference - effect.half_width(alpha)).p_above(0.0)


def _answers(effect: Effect, problems: int, margin: float, alpha: float, power: float) -> bool:
    """Whether either test would come out with this power; the seeds' part stays as it is."""
    share = effect.problems / problems
    grown = replace(effect, problem_variance=effect.problem_variance * share, problems=problems)
    both = replace(grown, problem_variance=(effect.problem_variance + effect.interaction_variance) * share)
    found = abs(effect.estimate) >= smallest_detectable(grown, alpha, power)
    return found or abs(effect.estimate) + smallest_detectable(both, 2 * alpha, power) <= margin


def _reach(alpha: float, power: float) -> float:
    """Standard errors between nothing and what is found with this power at level alpha (two-sided)."""
    return float(stats.norm.isf(alpha / 2) + stats.norm.isf(1 - power))


def intraclass(targets: np.ndarray, groups: np.ndarray) -> float:
    """One-way ANOVA estimate of the intraclass correlation of labels within problems, in [-1, 1]."""
    names, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    n, k = len(targets), len(names)
    if k < 2 or n == k:
        return 0.0
    means = np.bincount(of_row, targets, k) / sizes
    between = float((sizes * (means - targets.mean()) ** 2).sum()) / (k - 1)
    within = float(((targets - means[of_row]) ** 2).sum()) / (n - k)
    size = (n - (sizes**2).sum() / n) / (k - 1)
    total = between + (size - 1) * within
    return 0.0 if total == 0 else float(np.clip((between - within) / total, -1, 1))
