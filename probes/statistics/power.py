"""How much data an answer takes: before any fit from the labels alone, afterwards from what was measured."""

from __future__ import annotations

import math
from dataclasses import dataclass

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


def problems_needed(effect: Effect, target: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """Problems at which `target` would be found (or ruled out) with this power, the seeds' part unchanged.

    None where the seeds alone vary too much: no number of problems is enough.
    """
    spread = stats.t.isf(alpha / 2, effect.seeds - 1) + stats.norm.isf(1 - power) if effect.seeds > 1 else 0.0
    left = target**2 - effect.seed_variance * spread**2
    of_problems = effect.problem_variance + effect.interaction_variance  # as the test of equivalence counts it
    if left <= 0 or not np.isfinite(of_problems):
        return None
    return math.ceil(effect.problems * of_problems * _reach(alpha, power) ** 2 / left)


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
