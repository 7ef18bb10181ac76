"""How often the protocol errs: simulated nulls, simulated differences, seeds fixed beforehand.

    python benchmarks/calibration.py [--simulations 1000] [--section nulls|power|naive|intervals] [--write]

Labels are clustered within problems (intraclass correlation 0.6), and so are states. Every simulation runs the
package's own folds, Gram matrices, permutations, refits and intervals; the fits are least squares in closed form.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from scipy import stats

from probes.auc import fold_auc
from probes.bootstrap import SCORED_DRAWS, draw_problems, score_draws
from probes.equivalence import Effect, crossed_effect
from probes.fits import linear_gram, make_splits
from probes.permutation import permutation_p, permute_blocks
from probes.sweeps import fit_least_squares, refit_least_squares, sweep_auc

SEED = 20260214  # fixed before the first simulation
ICC = 0.6
RIDGES = (1.0, 10.0, 100.0)
RESULTS = Path(__file__).parent / "results"


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
    auc = [sweep_auc([linear_gram(x, s.train) for s in splits.splits], stacked, splits, RIDGES) for x in states]
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
    auc = sweep_auc(
        [linear_gram(states, s.train) for s in splits.splits], np.concatenate([labels[None], shuffled]), splits, RIDGES
    )
    return permutation_p(auc[0], auc[1:])


# ---------------------------------------------------------------- interval and equivalence


def compared(
    index: int,
    *,
    problems: int = 60,
    seeds: int = 5,
    width: int = 12,
    draws: int = 80,
    gain: float,
    seed_noise: float,
    own_noise: float,
) -> tuple[float, float, float]:
    """(Δ, variance between seeds, variance over problems) of one simulated comparison of two arms.

    Both arms see the same rows: common states, plus what each run adds (clustered by problem), plus the label in
    one direction with a strength that differs by arm (`gain`) and by training seed (`seed_noise`).
    """
    rng = np.random.default_rng([SEED, 2, index])
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
            held_out, ridges, _ = fit_least_squares(grams, labels[None], splits, (3.0, 30.0))
            value[arm, seed] = fold_auc(held_out, labels[None], splits.outer)[0]
            refits = refit_least_squares(grams, labels[None], splits, ridges, fitted)
            spread[arm, seed] = score_draws(refits, labels[None], splits.outer, fitted, scored)
    effect = crossed_effect(value[1] - value[0], (spread[1] - spread[0]).transpose(1, 0, 2), problems)
    return effect.estimate, effect.seed_variance, effect.problem_variance


SCENARIOS = {
    "seeds and problems": {"gain": 0.045, "seed_noise": 0.03, "own_noise": 0.3},
    "seeds dominate": {"gain": 0.045, "seed_noise": 0.08, "own_noise": 0.15},
    "problems dominate": {"gain": 0.045, "seed_noise": 0.0, "own_noise": 0.3},
}


def judged(found: np.ndarray, seeds: int, problems: int) -> dict[str, float]:
    """Coverage of the mean over simulations, and size of the equivalence test with the margin at that mean."""
    truth = float(found[:, 0].mean())
    effects = [Effect(*row, seeds, problems) for row in found]
    covered = [low <= truth <= high for low, high in (e.interval() for e in effects)]
    equivalent = [e.p_equivalent(abs(truth)) < 0.05 for e in effects]
    centred = [Effect(e.estimate - truth, e.seed_variance, e.problem_variance, seeds, problems) for e in effects]
    able = [e.p_equivalent(abs(truth)) < 0.05 for e in centred]
    rejected = [e.p_different() < 0.05 for e in centred]
    return {
        "truth": truth,
        "spread": float(found[:, 0].std(ddof=1)),
        "expected": float(np.sqrt(found[:, 1:].sum(1).mean())),
        "coverage": float(np.mean(covered)),
        "size": float(np.mean(equivalent)),
        "equivalence_power": float(np.mean(able)),
        "false_changes": float(np.mean(rejected)),
    }


# ---------------------------------------------------------------- report


def interval(successes: int, total: int) -> str:
    """95 % Clopper-Pearson interval of a share, in per cent."""
    low = stats.beta.ppf(0.025, successes, total - successes + 1) if successes else 0.0
    high = stats.beta.ppf(0.975, successes + 1, total - successes) if successes < total else 1.0
    return f"{100 * low:.1f} … {100 * high:.1f}"


def share(p: list[float]) -> dict[str, object]:
    rejected = int(np.sum(np.asarray(p) <= 0.05))
    return {"rejected": rejected, "of": len(p), "rate": rejected / len(p), "interval": interval(rejected, len(p))}


def run(section: str, simulations: int, scenarios: list[str]) -> dict[str, object]:
    started = time.perf_counter()
    found: dict[str, object]
    if section == "nulls":
        found = share([permutation_test(i, 0.0) for i in range(simulations)])
    elif section == "power":
        found = {str(s): share([permutation_test(i, s) for i in range(simulations // 10)]) for s in (0.2, 0.4, 0.6)}
    elif section == "naive":
        found = share([naive(i) for i in range(simulations // 4)])
    else:
        found = {}
        for name in scenarios:
            rows = np.asarray([compared(i, **SCENARIOS[name]) for i in range(simulations)])
            found[name] = {**judged(rows, 5, 60), "of": simulations}
            print(name, found[name], flush=True)
    return {"section": section, "found": found, "seconds": time.perf_counter() - started}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--simulations", type=int, default=1000)
    parser.add_argument("--section", choices=("nulls", "power", "naive", "intervals"), action="append")
    parser.add_argument("--scenario", choices=tuple(SCENARIOS), action="append", help="of the section intervals")
    parser.add_argument("--out", type=Path, help="folder for one JSON file a section")
    arguments = parser.parse_args()
    for section in arguments.section or ("nulls", "power", "naive", "intervals"):
        record = run(section, arguments.simulations, arguments.scenario or list(SCENARIOS))
        print(json.dumps(record, indent=2, ensure_ascii=False), flush=True)
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            (arguments.out / f"{section}.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
