"""Intervals over seeds and problems, tests of "no change", and correction for many features.

A difference of AUCs varies with the training seed and with the problems that happen to be probed, and the two
are crossed: every seed meets the same problems. With d_s the difference at seed s,

    Var(mean d) = σ²_seed/S + σ²_problem + σ²_seed×problem/S

The variance of d_s between seeds estimates the first and third together; the bootstrap over problems, the same
draws for every seed, the second and third together. The interval counts the third once: what the bootstrap shows of
it is taken off. That difference of two estimates is noisy (0 in about half of the simulations), and differences of
AUCs are skewed: where an estimate comes out small, so does its standard error, so that more than 5 % of one-sided
5 % bounds lie on the wrong side, and fewer on the other. A false "no change" is just that error, and so the test of
equivalence leaves the third term in both: the variance of resampling seeds and problems alike, which is known to be
at least the true one (Owen 2007, the pigeonhole bootstrap).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import optimize, stats

from probes.statistics.bootstrap import variance


@dataclass(frozen=True)
class Effect:
    """A paired difference with what it varies with.

    estimate: mean over seeds. seed_variance: of the mean, from the spread between seeds, on seeds - 1 degrees of
    freedom; 0 with one seed. problem_variance: of the mean, shared by the seeds. interaction_variance: of the mean,
    what the seeds' differences vary with the problems each on its own; part of seed_variance already. seeds,
    problems: how many.
    """

    estimate: float
    seed_variance: float
    problem_variance: float
    interaction_variance: float
    seeds: int
    problems: int

    def half_width(self, alpha: float) -> float:
        """Half of the (1 - alpha) interval: t on seeds - 1 for the seeds' part, t on problems - 1 for the problems'.

        Each part keeps its own quantile, so few seeds do not widen what they have no part in (Cochran's rule for
        two variances: coverage is at least nominal).
        """
        wide = self.seed_variance * stats.t.isf(alpha / 2, self.seeds - 1) ** 2 if self.seeds > 1 else 0.0
        return float(np.sqrt(wide + self.problem_variance * stats.t.isf(alpha / 2, max(self.problems - 1, 1)) ** 2))

    def interval(self, alpha: float = 0.05) -> tuple[float, float]:
        """(low, high)."""
        half = self.half_width(alpha)
        return self.estimate - half, self.estimate + half

    def p_above(self, bound: float) -> float:
        """One-sided p of "the difference is at most `bound`"."""
        distance = self.estimate - bound
        if not np.isfinite(self.seed_variance + self.problem_variance):
            return 0.5  # nothing is known
        if self.seed_variance == self.problem_variance == 0:
            return float((1 - np.sign(distance)) / 2)  # known exactly
        # The one-sided test at level a rejects where half_width(2a) < distance: monotone in a.
        away = abs(distance)
        low, high = 1e-12, 0.5 - 1e-12
        if self.half_width(2 * low) <= away:
            tail = low
        elif self.half_width(2 * high) >= away:
            tail = high
        else:
            tail = float(optimize.brentq(lambda a: self.half_width(2 * a) - away, low, high, xtol=1e-13))
        return tail if distance > 0 else 1 - tail

    def p_different(self) -> float:
        """Two-sided p of "no difference"."""
        above = self.p_above(0.0)
        return min(1.0, 2 * min(above, 1 - above))

    def p_equivalent(self, margin: float) -> float:
        """p of two one-sided tests (Schuirmann 1987): small where the difference lies inside ±margin.

        The interaction of seeds and problems is counted with both (see the module).
        """
        above = replace(self, problem_variance=self.problem_variance + self.interaction_variance)
        return max(above.p_above(-margin), replace(above, estimate=-self.estimate).p_above(-margin))


def crossed_effect(differences: np.ndarray, draws: np.ndarray, problems: int) -> Effect:
    """The effect of per-seed differences (S,) and their draws over problems (draws, S, 1 + k), paired over seeds.

    draws: as `bootstrap.score_draws` has them; those that could not be refitted are NaN and left out.
    """
    seeds = len(differences)
    draws = draws[np.isfinite(draws).all((1, 2))]
    if len(draws) < 2:
        return Effect(float(np.mean(differences)), 0.0, float("inf"), 0.0, seeds, problems)
    of_mean = variance(draws.mean(1))
    if seeds == 1:
        return Effect(float(differences[0]), 0.0, of_mean, 0.0, 1, problems)
    of_one = float(np.mean([variance(draws[:, seed]) for seed in range(seeds)]))
    crossed = min(max(of_one - of_mean, 0.0) / (seeds - 1), of_mean)  # σ²_seed×problem / S
    return Effect(
        estimate=float(np.mean(differences)),
        seed_variance=float(np.var(differences, ddof=1)) / seeds,
        problem_variance=of_mean - crossed,
        interaction_variance=crossed,
        seeds=seeds,
        problems=problems,
    )
