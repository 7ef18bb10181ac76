"""Size and coverage of the study's exact statistics, at its 8 bases and on bimodal outcomes.

    python benchmarks/study_calibration.py [--simulations 2000]

A run is solved with some chance (accuracy about 0.95) or not (about 0.02); times are exponential, censored at the
budget. Size: share of simulations without an effect whose p is at most 0.05. Coverage: share of 95 % intervals with
the truth in them. The last line is the t interval that the first study used.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from tracekit.study.analysis.exact import fisher, mcnemar, mean_difference, sign_flip
from tracekit.study.analysis.ladder import Cell, half_way, shift
from tracekit.study.analysis.time_to_solve import Time, restricted_ratio

BASES, BUDGET = 8, 100.0
RUNGS = (0.02, 0.3, 3.0, 30.0)  # expected right rollouts of a base in the budget

Draw = Callable[[np.random.Generator], float]


def accuracies(rng: np.random.Generator, chance: float, count: int = BASES) -> np.ndarray:
    """Accuracies of runs of which each is solved with this chance."""
    solved = rng.random(count) < chance
    return np.where(solved, rng.normal(0.95, 0.02, count), rng.normal(0.02, 0.01, count))


def times(rng: np.random.Generator, mean: float) -> list[Time]:
    """Censored times to solve."""
    return [Time(min(float(t), BUDGET), bool(t < BUDGET)) for t in rng.exponential(mean, BASES)]


def restricted(mean: float) -> float:
    """The mean of min(time, budget) of an exponential time."""
    return mean * (1 - math.exp(-BUDGET / mean))


def ladder(rng: np.random.Generator, c: float) -> list[Cell]:
    """A base's run at each rung."""
    return [Cell(b, rate, bool(rng.random() < 1 - math.exp(-c * rate))) for rate in RUNGS for b in range(BASES)]


def size_of_flips(rng: np.random.Generator, chance: float) -> float:
    return float(sign_flip(accuracies(rng, chance) - accuracies(rng, chance)) <= 0.05)


def size_of_fisher(rng: np.random.Generator, chance: float) -> float:
    a, b = (int((rng.random(BASES) < chance).sum()) for _ in range(2))
    return float(fisher((a, BASES), (b, BASES)) <= 0.05)


def size_of_mcnemar(rng: np.random.Generator, chance: float) -> float:
    return float(mcnemar(list(rng.random(BASES) < chance), list(rng.random(BASES) < chance)) <= 0.05)


def cover_difference(rng: np.random.Generator, first: float, second: float) -> float:
    found = mean_difference(accuracies(rng, first) - accuracies(rng, second))
    return float(found.low <= 0.93 * (first - second) <= found.high)


def cover_t(rng: np.random.Generator, first: float, second: float) -> float:
    values = accuracies(rng, first) - accuracies(rng, second)
    half = stats.t.isf(0.025, BASES - 1) * values.std(ddof=1) / math.sqrt(BASES)
    return float(abs(values.mean() - 0.93 * (first - second)) <= half)


def cover_ratio(rng: np.random.Generator, first: float, second: float) -> float:
    found = restricted_ratio(times(rng, first), times(rng, second), BUDGET)
    return float(found.low <= restricted(first) / restricted(second) <= found.high)


def cover_half_way(rng: np.random.Generator, c: float) -> float:
    found = half_way(ladder(rng, c))
    return float(found.low <= math.log10(math.log(2) / c) <= found.high)


def cover_shift(rng: np.random.Generator, decades: float) -> float:
    found = shift(ladder(rng, 0.5), ladder(rng, 0.5 * 10**decades))
    return float(found.low <= decades <= found.high)


SHARES: dict[str, tuple[float, Draw]] = {
    "size, sign flips, solved with 0.5": (1.0, lambda rng: size_of_flips(rng, 0.5)),
    "size, sign flips, solved with 0.8": (1.0, lambda rng: size_of_flips(rng, 0.8)),
    "size, Fisher, solved with 0.5": (1.0, lambda rng: size_of_fisher(rng, 0.5)),
    "size, McNemar, solved with 0.5": (1.0, lambda rng: size_of_mcnemar(rng, 0.5)),
    "coverage, difference, 0.8 and 0.8": (0.5, lambda rng: cover_difference(rng, 0.8, 0.8)),
    "coverage, difference, 0.8 and 0.4": (0.5, lambda rng: cover_difference(rng, 0.8, 0.4)),
    "coverage, difference, 0.95 and 0.5": (0.5, lambda rng: cover_difference(rng, 0.95, 0.5)),
    "coverage, restricted ratio, 40 and 40 rounds": (0.5, lambda rng: cover_ratio(rng, 40, 40)),
    "coverage, restricted ratio, 120 and 40 rounds": (0.5, lambda rng: cover_ratio(rng, 120, 40)),
    "coverage, half-way point": (0.5, lambda rng: cover_half_way(rng, 0.7)),
    "coverage, shift of 0 decades": (0.2, lambda rng: cover_shift(rng, 0.0)),
    "coverage, shift of 1 decade": (0.2, lambda rng: cover_shift(rng, 1.0)),
    "coverage of the t interval, 0.95 and 0.5": (1.0, lambda rng: cover_t(rng, 0.95, 0.5)),
}


def main(simulations: int) -> None:
    """Print one line a statistic: its share, with the standard error of the simulation."""
    for name, (part, draw) in SHARES.items():
        rng, count = np.random.default_rng(0), max(1, int(part * simulations))
        share = float(np.mean([draw(rng) for _ in range(count)]))
        error = math.sqrt(max(share * (1 - share), 1e-9) / count)
        print(f"{name:48s} {share:6.3f} ± {error:.3f}  ({count} simulations)", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=2000)
    main(parser.parse_args().simulations)
