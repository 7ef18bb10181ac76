"""How often the protocol errs: simulated nulls, simulated differences, seeds fixed beforehand.

    python benchmarks/calibration.py --out FOLDER [--simulations 1000] [--section nulls]
    python benchmarks/calibration.py --out FOLDER --report

Labels are clustered within problems (intraclass correlation 0.6), and so are states. Every simulation runs the
package's own folds, Gram matrices, permutations, refits and intervals; the fits are least squares in closed form.
"""

from __future__ import annotations

import argparse
import platform
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import scipy
from scipy import stats

from probes.protocol.nested_fits import fit_least_squares, linear_gram
from probes.statistics.auc import fold_auc
from probes.statistics.bootstrap import SCORED_DRAWS, draw_problems, score_draws
from probes.statistics.equivalence import Effect, crossed_effect
from probes.statistics.folds import Splits, make_splits
from probes.statistics.permutation import permutation_p, permute_blocks
from probes.svm.least_squares import cross_validate, refit

SEED = 20260214  # fixed before the first simulation
FRESH = 20261125  # first used once the test of equivalence stood as it stands
ICC = 0.6
STRENGTHS = (0.2, 0.4, 0.6)
RIDGES = (1.0, 10.0, 100.0)
RESULTS = Path(__file__).parent / "results" / "calibration.md"
PROBLEMS, SEEDS = 40, 5  # of the paired comparison


def clustered_labels(rng: np.random.Generator, problems: np.ndarray) -> np.ndarray:
    """-1/+1 with intraclass correlation ICC: a row takes its problem's coin with probability √ICC, else its own."""
    coin = rng.choice((-1.0, 1.0), problems.max() + 1)
    own = rng.choice((-1.0, 1.0), len(problems))
    return np.where(rng.random(len(problems)) < ICC**0.5, coin[problems], own)


def clustered_noise(rng: np.random.Generator, problems: np.ndarray, width: int, share: float = ICC) -> np.ndarray:
    """(n, width) of variance 1, `share` of it the problem's."""
    of_problem = rng.standard_normal((problems.max() + 1, width))[problems]
    return share**0.5 * of_problem + (1 - share) ** 0.5 * rng.standard_normal((len(problems), width))


def layers_of(rng: np.random.Generator, problems: np.ndarray, layers: int, width: int) -> list[np.ndarray]:
    """States of consecutive layers, each sharing 80 % of its variance with the one before."""
    states = [clustered_noise(rng, problems, width)]
    while len(states) < layers:
        states.append(0.8**0.5 * states[-1] + 0.2**0.5 * clustered_noise(rng, problems, width))
    return states


def lengths(rng: np.random.Generator, count: int) -> np.ndarray:
    """(n,) problem of each row; problems have 3 to 5 rows."""
    return np.repeat(np.arange(count), rng.integers(3, 6, count))


# ---------------------------------------------------------------- permutation test


def swept(states: np.ndarray, labels: np.ndarray, splits: Splits) -> np.ndarray:
    """(m,) held-out AUC of every label vector, its ridge chosen on the inner folds."""
    grams = [linear_gram(states, s.train) for s in splits.splits]
    found = cross_validate(grams, labels, splits, RIDGES, score="squared_error")
    return fold_auc(found.decisions, labels, splits.outer)


def permutation_test(
    index: int, strength: float, *, problems: int = 50, layers: int = 4, width: int = 16, draws: int = 199
) -> float:
    """p of the maximum over layers in one simulation; `strength` of the label in one direction of two layers."""
    rng = np.random.default_rng([SEED, 1, index])
    of_row = lengths(rng, problems)
    labels = clustered_labels(rng, of_row)
    states = layers_of(rng, of_row, layers, width)
    for layer in (2, 3):
        states[layer][:, 0] += strength * labels
    splits = make_splits(of_row, labels[None], 5, 3, index)
    taken = permute_blocks(of_row, draws, index)
    stacked = np.concatenate([labels[None], labels[taken]])
    auc = [swept(x, stacked, splits) for x in states]
    best = np.max(auc, axis=0)
    return permutation_p(best[0], best[1:])


def naive(index: int, *, problems: int = 50, width: int = 16, draws: int = 199) -> float:
    """The usual way on one layer of the same null: rows split at random, labels shuffled row by row."""
    rng = np.random.default_rng([SEED, 1, index])
    of_row = lengths(rng, problems)
    labels = clustered_labels(rng, of_row)
    states = layers_of(rng, of_row, 1, width)[0]
    rows = np.arange(len(of_row))
    splits = make_splits(rows, labels[None], 5, 3, index)
    shuffled = np.stack([rng.permutation(labels) for _ in range(draws)])
    auc = swept(states, np.concatenate([labels[None], shuffled]), splits)
    return permutation_p(auc[0], auc[1:])


# ---------------------------------------------------------------- interval and equivalence


def compared(
    index: int,
    rng_seed: int,
    *,
    problems: int = PROBLEMS,
    seeds: int = SEEDS,
    width: int = 12,
    draws: int = 60,
    gain: float,
    seed_noise: float,
    own_noise: float,
) -> tuple[float, float, float, float]:
    """(Δ, variance between seeds, over problems, of their interaction) of one simulated comparison of two arms.

    Both arms see the same rows: common states, plus what each run adds (clustered by problem), plus the label in
    one direction with a strength that differs by arm (`gain`) and by training seed (`seed_noise`).
    """
    rng = np.random.default_rng([rng_seed, 2, index])
    of_row = np.repeat(np.arange(problems), 4)
    labels = clustered_labels(rng, of_row)
    common = clustered_noise(rng, of_row, width)
    common[:, 0] += 0.5 * labels
    splits = make_splits(of_row, labels[None], 5, 3, index)
    fitted = draw_problems(of_row, splits.outer, draws, index)
    scored = draw_problems(of_row, splits.outer, SCORED_DRAWS, index + 10**6)
    value, spread = np.zeros((2, seeds)), np.zeros((2, seeds, draws, 1 + SCORED_DRAWS))
    for arm in range(2):
        for seed in range(seeds):
            states = common + own_noise * clustered_noise(rng, of_row, width)
            states[:, 0] += (gain * arm + seed_noise * rng.standard_normal()) * labels
            grams = [linear_gram(states, s.train) for s in splits.splits]
            fit = fit_least_squares(grams, labels[None], splits, (3.0, 30.0))
            value[arm, seed] = fold_auc(fit.held_out, labels[None], splits.outer)[0]
            refits = refit(grams, labels[None], splits, fit.costs, fitted)
            spread[arm, seed] = score_draws(refits, labels[None], splits.outer, fitted, scored)
    effect = crossed_effect(value[1] - value[0], (spread[1] - spread[0]).transpose(1, 0, 2), problems)
    return effect.estimate, effect.seed_variance, effect.problem_variance, effect.interaction_variance


SCENARIOS = {
    "seeds and problems": {"gain": 0.045, "seed_noise": 0.03, "own_noise": 0.3},
    "seeds dominate": {"gain": 0.045, "seed_noise": 0.08, "own_noise": 0.15},
    "problems dominate": {"gain": 0.045, "seed_noise": 0.0, "own_noise": 0.3},
}


def judged(found: np.ndarray) -> dict[str, float]:
    """Coverage of the mean over simulations, and size of the equivalence test with the margin at that mean."""
    truth = float(found[:, 0].mean())
    effects = [Effect(*row, SEEDS, PROBLEMS) for row in found]
    centred = [_moved(e, -truth) for e in effects]
    return {
        "truth": truth,
        "spread": float(found[:, 0].std(ddof=1)),
        "expected": float(np.sqrt(found[:, 1:3].sum(1).mean())),
        "covered": int(np.sum([low <= truth <= high for low, high in (e.interval() for e in effects)])),
        "too_low": int(np.sum([e.p_above(0.0) > 0.95 for e in centred])),
        "too_high": int(np.sum([e.p_above(0.0) < 0.05 for e in centred])),
        "equivalent": int(np.sum([e.p_equivalent(abs(truth)) < 0.05 for e in effects])),
        "equivalent_at_3": int(np.sum([e.p_equivalent(3 * abs(truth)) < 0.05 for e in centred])),
        "size_at_3": int(np.sum([_moved(e, 3 * truth).p_equivalent(3 * abs(truth)) < 0.05 for e in centred])),
        "of": len(found),
    }


def _moved(effect: Effect, by: float) -> Effect:
    return replace(effect, estimate=effect.estimate + by)


# ---------------------------------------------------------------- report


def interval(successes: int, total: int) -> str:
    """95 % Clopper-Pearson interval of a share, in per cent."""
    low = stats.beta.ppf(0.025, successes, total - successes + 1) if successes else 0.0
    high = stats.beta.ppf(0.975, successes + 1, total - successes) if successes < total else 1.0
    return f"{100 * low:.1f} … {100 * high:.1f}"


def run(section: str, rng_seed: int, first: int, simulations: int, out: Path) -> None:
    """Simulations first … first + simulations - 1 of a section; what was found goes into `out`, every 20."""
    tests = {"nulls": lambda i: permutation_test(i, 0.0), "naive": naive}
    tests |= {f"power {strength}": partial(permutation_test, strength=strength) for strength in STRENGTHS}
    one = tests.get(section) or (lambda i: compared(i, rng_seed, **SCENARIOS[section]))
    found = []
    name = f"{section}, seed {rng_seed}" if section in SCENARIOS else section
    for i in range(first, first + simulations):
        found.append(one(i))
        if len(found) % 20 == 0 or len(found) == simulations:
            np.save(out / f"{name}-{first}.npy", np.asarray(found))


def collect(out: Path, section: str) -> np.ndarray:
    """What all runs of a section have found so far, each simulation once."""
    parts = {int(path.stem.rsplit("-", 1)[1]): np.load(path) for path in out.glob(f"{section}-*.npy")}
    known: dict[int, np.ndarray] = {}
    for start, rows in parts.items():
        known |= {start + k: row for k, row in enumerate(rows)}
    return np.asarray([known[i] for i in sorted(known)])


def report(out: Path) -> str:
    """Markdown of everything in `out`."""
    lines = [
        "# Calibration",
        "",
        f"Simulated with seed {SEED}, fixed before the first run; labels and states clustered within problems "
        f"(intraclass correlation {ICC}). Brackets: 95 % Monte Carlo interval (Clopper-Pearson).",
        "",
        "## Permutation test at 5 %: 50 problems of 3 to 5 rows, 4 layers, largest AUC over layers, 199 permutations",
        "",
        "| | rejected | of | per cent |",
        "|---|---|---|---|",
    ]
    names = {"nulls": "true null, family-wise over layers (goal ≤ 6.4 %)"}
    names |= {f"power {s}": f"power: label of strength {s} in two layers" for s in STRENGTHS}
    names |= {"naive": "the same null, one layer, ungrouped folds and rows shuffled"}
    for section, name in names.items():
        p = collect(out, section)
        if len(p):
            lines.append(f"| {name} | {_share(int((p <= 0.05).sum()), len(p))} |")
    lines += [
        "",
        f"## Paired difference Δ of two arms: {SEEDS} training seeds, {PROBLEMS} problems of 4 rows",
        "",
        "Truth is the mean of Δ over simulations. Size is measured with the margin exactly at the truth, and at three "
        "times it, where the test has power; power: the same with no difference. Too low, too high: one-sided 5 % "
        "bounds of the interval on the wrong side of the truth; they are not alike, because a small estimate comes "
        f"with a small standard error. Seed {FRESH} was first used once the test stood as it stands.",
        "",
        "| variance from | seed | Δ | standard error, true / estimated | coverage of the 95 % interval (goal 93–97) "
        "| too low / too high | TOST size (goal ≤ 5) | TOST size at margin 3 Δ | TOST power at margin 3 Δ | of |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for section in SCENARIOS:
        for rng_seed in (SEED, FRESH):
            rows = collect(out, f"{section}, seed {rng_seed}")
            if not len(rows):
                continue
            j, n = judged(rows), len(rows)
            tests = [_percent(int(j[k]), n) for k in ("equivalent", "size_at_3", "equivalent_at_3")]
            cells = [
                f"{j['truth']:+.4f}",
                f"{j['spread']:.4f} / {j['expected']:.4f}",
                _percent(int(j["covered"]), n),
                f"{100 * j['too_low'] / n:.1f} / {100 * j['too_high'] / n:.1f}",
                *tests,
            ]
            lines.append(f"| {section} | {rng_seed} | {' | '.join(cells)} | {n} |")
    lines += [
        "",
        f"`python benchmarks/calibration.py --out FOLDER`, the same with `--seed {FRESH}` and a `--section` for each "
        "line of the second table, then `--report`; "
        f"numpy {np.__version__}, scipy {scipy.__version__}, Python {platform.python_version()}, one thread.",
        "",
    ]
    return "\n".join(lines)


def _share(successes: int, total: int) -> str:
    return f"{successes} | {total} | {_percent(successes, total)}"


def _percent(successes: int, total: int) -> str:
    return f"{100 * successes / total:.1f} [{interval(successes, total)}]"


def main() -> None:
    sections = ("nulls", *(f"power {s}" for s in STRENGTHS), "naive", *SCENARIOS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000, help="a tenth of it for power, a quarter for naive")
    parser.add_argument("--first", type=int, default=0, help="number of the first simulation")
    parser.add_argument("--seed", type=int, default=SEED, help="of the random numbers of the paired comparison")
    parser.add_argument("--section", choices=sections, action="append")
    parser.add_argument("--out", type=Path, required=True, help="folder of what was found; runs of parts add up there")
    parser.add_argument("--report", action="store_true", help="write benchmarks/results/calibration.md from it")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.report:
        RESULTS.write_text(report(arguments.out), encoding="utf-8")
        print(RESULTS.read_text(encoding="utf-8"))
        return
    for section in arguments.section or sections:
        part = 10 if section.startswith("power") else 4 if section == "naive" else 1
        run(section, arguments.seed, arguments.first, arguments.simulations // part, arguments.out)


if __name__ == "__main__":
    main()
