"""How often the probing estimands err: AUC, AUC at one place in the trace, and bits above the text; with their power.

    python benchmarks/probe_estimands.py --simulations 400 --jobs 16 --out FOLDER

Every simulation compares two arms on five training seeds with the package's own folds, converged least-squares fits,
bootstrap refits and intervals. Labels are clustered within problems and depend on the place in the trace, which the
states know too: what position alone gives is not ½. Writes estimands.md into FOLDER.
"""

from __future__ import annotations

import argparse
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from scipy import stats
from threadpoolctl import threadpool_limits

from probes.protocol.estimands import ESTIMANDS, Rows, over_draws, value
from probes.protocol.nested_fits import Hinge, LeastSquares, Probe, linear_gram
from probes.statistics.bootstrap import SCORED_DRAWS, draw_problems
from probes.statistics.equivalence import Effect, crossed_effect
from probes.statistics.folds import make_splits

SEED = 20261128
NAMES = ("delta", "stratified", "bits")
SEEDS = 5


@dataclass(frozen=True)
class Design:
    """A simulated comparison. gain: strength of the label in arm 1 beyond arm 0's; strength: of both."""

    name: str
    gain: float
    problems: int = 40
    strength: float = 0.5
    seed_noise: float = 0.03
    own_noise: float = 0.3
    draws: int = 60
    hinge: bool = False


DESIGNS = (
    Design("no difference", 0.0),
    Design("a difference", 0.06),
    Design("no difference, seeds vary more", 0.0, seed_noise=0.08, own_noise=0.15),
    Design("150 problems, no difference", 0.0, problems=150, seed_noise=0.02, own_noise=0.15),
    Design("150 problems, Δ about .03", 0.06, problems=150, seed_noise=0.02, own_noise=0.15),
    Design("150 problems, Δ about .03, hinge", 0.06, problems=150, seed_noise=0.02, own_noise=0.15, hinge=True),
)


def compare(index: int, design: Design) -> list[tuple[float, ...]]:
    """(estimate, variance over seeds, over problems, interaction) of each estimand, and arm 0's AUC."""
    with threadpool_limits(1):
        return _compare(index, design)


def _compare(index: int, design: Design) -> list[tuple[float, ...]]:
    rng = np.random.default_rng([SEED, DESIGNS.index(design), index])
    of_row, place = np.repeat(np.arange(design.problems), 4), np.tile(np.arange(4), design.problems)
    odds = 0.8 * (place - 1.5) + rng.standard_normal(design.problems)[of_row]
    labels = np.where(rng.random(len(of_row)) < 1 / (1 + np.exp(-odds)), 1.0, -1.0)
    common = _noise(rng, of_row, 12)
    common[:, 0] += design.strength * labels
    common[:, 1] += place  # the states know the place
    splits = make_splits(of_row, labels[None], 5, 3, index)
    fitted = draw_problems(of_row, splits.outer, design.draws, index)
    scored = draw_problems(of_row, splits.outer, SCORED_DRAWS, index + 10**6)
    text = (place[:, None] == np.arange(4)).astype(float)
    baseline = LeastSquares().fit([linear_gram(text, s.train) for s in splits.splits], labels[None], splits).held_out
    rows = Rows(labels[None], splits.outer, place, baseline)
    probe: Probe = Hinge() if design.hinge else LeastSquares()
    found = [
        [
            _measure(_states(rng, of_row, common, labels, arm, design), probe, splits, rows, fitted, scored)
            for _ in range(SEEDS)
        ]
        for arm in (0, 1)
    ]
    effects = []
    for name in NAMES:
        values = np.array([[seed[0][name] for seed in arm] for arm in found])
        draws = np.array([[seed[1][name] for seed in arm] for arm in found])
        effect = crossed_effect(values[1] - values[0], (draws[1] - draws[0]).transpose(1, 0, 2), design.problems)
        parts = (effect.estimate, effect.seed_variance, effect.problem_variance, effect.interaction_variance)
        effects.append((*parts, float(values[0].mean())))
    return effects


def _noise(rng: np.random.Generator, of_row: np.ndarray, width: int) -> np.ndarray:
    return 0.6 * rng.standard_normal((of_row.max() + 1, width))[of_row] + 0.8 * rng.standard_normal(
        (len(of_row), width)
    )


def _states(rng, of_row, common, labels, arm, design):  # type: ignore[no-untyped-def]
    states = common + design.own_noise * _noise(rng, of_row, common.shape[1])
    states[:, 0] += (design.gain * arm + design.seed_noise * rng.standard_normal()) * labels
    return states


def _measure(states, probe, splits, rows, fitted, scored):  # type: ignore[no-untyped-def]
    grams = [linear_gram(states, s.train) for s in splits.splits]
    fit = probe.fit(grams, rows.targets, splits)
    scores = probe.refit(grams, rows.targets, splits, fit.costs, fitted)
    values = {n: value(ESTIMANDS[n].statistic, fit.held_out, rows) for n in NAMES}
    return values, {n: over_draws(ESTIMANDS[n].statistic, scores, rows, fitted, scored) for n in NAMES}


def summary(design: Design, found: np.ndarray) -> list[str]:
    """One line an estimand: truth, spread against standard error, coverage, size, power."""
    lines = []
    for k, name in enumerate(NAMES):
        rows = found[:, k]
        truth = 0.0 if design.gain == 0 else float(rows[:, 0].mean())
        effects = [Effect(*row[:4], SEEDS, design.problems) for row in rows]
        error = float(np.sqrt(rows[:, 1:3].sum(1).mean()))
        covered = np.mean([low <= truth <= high for low, high in (e.interval() for e in effects)])
        different = [e.p_different() for e in effects]
        at_margin = [replace(e, estimate=e.estimate - truth + 0.04).p_equivalent(0.04) < 0.05 for e in effects]
        lines.append(
            f"| {design.name} | {name} | {rows[:, 4].mean():.3f} | {rows[:, 0].mean():+.4f} | "
            f"{rows[:, 0].std(ddof=1):.4f} / {error:.4f} | {_share(covered, len(rows))} | "
            f"{_share(np.mean(np.less(different, 0.05)), len(rows))} | "
            f"{_share(np.mean(np.less(different, 0.05 / 3)), len(rows))} | {_share(np.mean(at_margin), len(rows))} | "
            f"{len(rows)} |"
        )
    return lines


def _share(share: float, count: int) -> str:
    """Per cent with its 95 % Clopper-Pearson interval."""
    hits = round(float(share) * count)
    low = stats.beta.ppf(0.025, hits, count - hits + 1) if hits else 0.0
    high = stats.beta.ppf(0.975, hits + 1, count - hits) if hits < count else 1.0
    return f"{100 * hits / count:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


HEADER = (
    "# Estimands of the probing protocol, simulated",
    "",
    f"Seed {SEED}; two arms, {SEEDS} training seeds, four rows a problem, fits converged in their regularisation. "
    "Shares in per cent with 95 % intervals. TOST size: a true difference exactly at the margin of 0.04.",
    "",
    "| design | estimand | arm 0 | Δ | spread / standard error | coverage | p < .05 | p < .05/3 | TOST size | of |",
    "|---|---|---|---|---|---|---|---|---|---|",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=200, help="of each design; a quarter for hinge")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--design", action="append", choices=[d.name for d in DESIGNS])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = list(HEADER)
    with ProcessPoolExecutor(arguments.jobs) as pool:
        for design in DESIGNS:
            if arguments.design and design.name not in arguments.design:
                continue
            count = arguments.simulations // (4 if design.hinge else 1)
            found = np.array(list(pool.map(partial(compare, design=design), range(count), chunksize=4)))
            lines += summary(design, found)
            (arguments.out / "estimands.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
            print(lines[-3:], flush=True)


if __name__ == "__main__":
    main()
