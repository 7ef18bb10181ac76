"""The registered claims of the sealed study, each a test fixed before the first job, and their four conclusions.

    yes · no: the opposite · no difference (within ±x) · open

A claim is about pairs by base. Its p is exact (`exact.py`), or of the ladder; Holm's correction is within a question
over the claims that were registered, whether their runs are finished or not (one not finished counts as p = 1).
What is open says so: too few runs are no difference.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from probes.statistics.holm import holm
from tracekit.study.analysis.exact import (
    clopper_pearson,
    equivalence,
    fisher,
    mean_difference,
    sign_flip,
)
from tracekit.study.analysis.ladder import Cell, half_way, half_way_p, shift
from tracekit.study.analysis.time_to_solve import Time, restricted_ratio
from tracekit.study.settings import BASE, StudySettings

ALPHA = 0.05
MARGIN = 0.02  # accuracies within ±2 points count as the same
SOLVED = 0.5  # a run is solved if its greedy accuracy on the test problems is at least this

Z_95, Z_POWER = 1.960, 0.842  # normal quantiles: of a 95 % interval, of a power of .8
MOST_BASES = 1_000  # more are no plan

YES, OPPOSITE, SAME, OPEN = "yes", "no: the opposite", "no difference", "open"
Conclusion = str


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of a claim's test. p: of no effect. p_same: of an effect outside the margin, where it has one."""

    estimate: float
    low: float
    high: float
    p: float
    count: int
    holds: bool  # the estimate lies on the claim's side
    opposite: bool  # the estimate lies on the side that falsifies it
    p_same: float = 1.0
    note: str = ""
    margin: float | None = None  # within which it counts as no difference; None: the claim has none
    null: float = 0.0  # the value of no effect: 1 of a ratio


@dataclass(frozen=True, slots=True)
class Claim:
    """A registered claim. `runs`: the (rung, arm) that its test reads, on every base."""

    id: str
    question: str
    text: str
    falsified: str
    test: str
    runs: tuple[tuple[str, str], ...]
    of: Callable[[Records], Outcome]
    unit: str = ""


class Records:
    """The records of finished runs: (rung, arm, seed) → record."""

    def __init__(self, settings: StudySettings, records: Sequence[dict[str, Any]]) -> None:
        self.settings = settings
        self.by_run = {(r["rung"], r["arm"], r["seed"]): r for r in records if "rung" in r}

    def seeds(self, runs: Sequence[tuple[str, str]]) -> list[int]:
        """The bases on which all of these runs are finished and their rungs' gates held."""
        return [
            seed
            for seed in self.settings.seeds
            if all(
                (rung, arm, seed) in self.by_run and self.by_run.get((rung, BASE, seed), {}).get("gates_passed")
                for rung, arm in runs
            )
        ]

    def excluded(self, runs: Sequence[tuple[str, str]]) -> list[int]:
        """The bases on which a gate of one of these rungs failed."""
        rungs = {rung for rung, _ in runs}
        return [
            seed
            for seed in self.settings.seeds
            if any(self.by_run.get((rung, BASE, seed), {}).get("gates_passed") is False for rung in rungs)
        ]

    def value(self, rung: str, arm: str, seed: int, *keys: str) -> Any:
        """One entry of a record."""
        found: Any = self.by_run[rung, arm, seed]
        for key in keys:
            found = found[key]
        return found

    def solved(self, rung: str, arm: str, seed: int) -> bool:
        """Whether a run is solved."""
        return bool(self.value(rung, arm, seed, "greedy") >= SOLVED)

    def time(self, rung: str, arm: str, seed: int) -> Time:
        """Rounds until a run of RL was solved."""
        return Time(**self.value(rung, arm, seed, "rounds_to_solve"))

    def cells(self, arm: str, rungs: Sequence[str], seeds: Sequence[int]) -> list[Cell]:
        """The runs of an arm on the ladder: right rollouts that the base would have given in the arm's budget."""
        cells = []
        for rung in rungs:
            for seed in seeds:
                rate = self.value(rung, BASE, seed, "pass_rate", "total")
                expected = max(rate, 1e-12) * rollouts_of(self.settings, arm)
                cells.append(Cell(seed, expected, self.solved(rung, arm, seed)))
        return cells


def rollouts_of(settings: StudySettings, arm: str) -> int:
    """Rollouts of an arm's whole budget."""
    tree = settings.recipe | settings.arms[arm].recipe
    rollout = settings.recipe.get("rollout", {}) | settings.arms[arm].recipe.get("rollout", {})
    return int(tree["steps"]) * int(rollout["prompts"]) * int(rollout["group_size"])


def read_records(settings: StudySettings, folder: Path) -> Records:
    """The records in a folder."""
    return Records(settings, [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))])


# ---------------------------------------------------------------- tests


def more_solved(rung: str, first: str, second: str) -> Callable[[Records], Outcome]:
    """Fisher's exact test of runs solved; the estimate is the difference in shares, first less second."""

    def of(records: Records) -> Outcome:
        seeds = records.seeds([(rung, first), (rung, second)])
        a, b = (sum(records.solved(rung, arm, s) for s in seeds) for arm in (first, second))
        n = max(len(seeds), 1)
        (low_a, high_a), (low_b, high_b) = clopper_pearson(a, n), clopper_pearson(b, n)
        note = f"{first} {a} of {len(seeds)} [{low_a:.2f}, {high_a:.2f}], {second} {b} [{low_b:.2f}, {high_b:.2f}]"
        p = fisher((a, len(seeds)), (b, len(seeds))) if seeds else 1.0
        estimate = (a - b) / n
        # Newcombe's hybrid interval (1998) from the two exact ones
        low = estimate - math.hypot(a / n - low_a, high_b - b / n)
        high = estimate + math.hypot(high_a - a / n, b / n - low_b)
        return Outcome(estimate, low, high, p, len(seeds), a > b, b > a or b >= 4, note=note)

    return of


def half_way_at_one(arm: str, rungs: Sequence[str], factor: float) -> Callable[[Records], Outcome]:
    """Whether the half-way point lies within `factor` of one expected right rollout; the estimate is its log10.

    p: of a half-way point outside that range, or, where the estimate lies outside, of one within half a decade.
    """

    def of(records: Records) -> Outcome:
        seeds = records.seeds([(rung, arm) for rung in rungs])
        cells = records.cells(arm, rungs, seeds)
        if not cells:
            return nothing()
        found, reach = half_way(cells), math.log10(factor)
        inside = abs(found.value) < reach
        bounds = (-reach, reach) if inside else (math.copysign(0.5, found.value),)
        p = max(half_way_p(cells, bound) for bound in bounds)
        return Outcome(found.value, found.low, found.high, p, len(seeds), inside, abs(found.value) > 0.5)

    return of


def shifted(first: str, second: str, rungs: Sequence[str], least: float) -> Callable[[Records], Outcome]:
    """The shift of the half-way point, in decades; holds where its interval lies above 0 and the shift is `least`."""

    def of(records: Records) -> Outcome:
        seeds = records.seeds([(rung, arm) for rung in rungs for arm in (first, second)])
        if not seeds:
            return nothing()
        found = shift(records.cells(first, rungs, seeds), records.cells(second, rungs, seeds))
        return Outcome(
            found.value,
            found.low,
            found.high,
            found.p,
            len(seeds),
            found.value >= least and found.low > 0,
            found.high < 0,
        )

    return of


def slower(rung_a: str, first: str, rung_b: str, second: str) -> Callable[[Records], Outcome]:
    """Ratio of restricted mean rounds to solve, first ÷ second, paired by base; holds where it is above 1."""

    def of(records: Records) -> Outcome:
        seeds = records.seeds([(rung_a, first), (rung_b, second)])
        if not seeds:
            return nothing()
        a = [records.time(rung_a, first, s) for s in seeds]
        b = [records.time(rung_b, second, s) for s in seeds]
        budget = min(int(records.settings.recipe["steps"]), *(_steps(records, arm) for arm in (first, second)))
        found = restricted_ratio(a, b, budget)
        censored = sum(not t.solved for t in a), sum(not t.solved for t in b)
        note = f"censored at {budget} rounds: {censored[0]} and {censored[1]} of {len(seeds)}"
        return Outcome(
            found.value,
            found.low,
            found.high,
            found.p,
            len(seeds),
            found.value > 1,
            found.value < 1,
            note=note,
            null=1.0,
        )

    return of


def _steps(records: Records, arm: str) -> int:
    return int((records.settings.recipe | records.settings.arms[arm].recipe)["steps"])


Measure = Callable[[Records, int], float]


def compared(
    runs: Sequence[tuple[str, str]], measure: Measure, sign: int = 1, margin: float | None = None
) -> Callable[[Records], Outcome]:
    """The mean over bases of a paired quantity, by sign flips; `sign` is the side on which the claim holds."""

    def of(records: Records) -> Outcome:
        seeds = records.seeds(runs)
        if not seeds:
            return nothing()
        values = [measure(records, seed) for seed in seeds]
        found = mean_difference(values)
        return Outcome(
            found.value,
            found.low,
            found.high,
            found.p,
            len(seeds),
            sign * found.value > 0,
            sign * found.value < 0,
            equivalence(values, margin) if margin else 1.0,
            margin=margin,
        )

    return of


def not_worse(
    runs: Sequence[tuple[str, str]], measure: Measure, margin: float = MARGIN
) -> Callable[[Records], Outcome]:
    """Non-inferiority: the mean lies above -margin. The opposite: it lies below -margin."""

    def of(records: Records) -> Outcome:
        seeds = records.seeds(runs)
        if not seeds:
            return nothing()
        values = np.array([measure(records, seed) for seed in seeds])
        found = mean_difference(values)
        above, below = sign_flip(values + margin, "greater"), sign_flip(values + margin, "less")
        p = min(1.0, 2 * min(above, below))
        return Outcome(found.value, found.low, found.high, p, len(seeds), above <= below, below < above, null=-margin)

    return of


def unchanged(
    runs: Sequence[tuple[str, str]], first: tuple[str, str], second: tuple[str, str], margin: float
) -> Callable[[Records], Outcome]:
    """Equivalence of rounds to solve (censored at the budget), first less second; its p is that of the two tests."""

    def of(records: Records) -> Outcome:
        seeds = records.seeds(runs)
        if not seeds:
            return nothing()
        values = [records.time(*first, s).value - records.time(*second, s).value for s in seeds]
        found, p = mean_difference(values), equivalence(values, margin)
        more = sign_flip([value - margin for value in values], "greater")
        p, inside = (p, True) if p <= more else (more, False)
        return Outcome(found.value, found.low, found.high, p, len(seeds), inside, not inside)

    return of


def nothing() -> Outcome:
    """The outcome of a claim none of whose runs is finished."""
    nan = float("nan")
    return Outcome(nan, nan, nan, 1.0, 0, False, False, note="no run is finished")


def accuracy(rung: str, arm: str, *keys: str) -> Measure:
    """An accuracy of a run: ("greedy",), ("vote",), or ("accuracy", "0.6")."""
    return lambda records, seed: float(records.value(rung, arm, seed, *keys))


def less(a: Measure, b: Measure) -> Measure:
    """a - b."""
    return lambda records, seed: a(records, seed) - b(records, seed)


def correlation(rung: str, arms: Sequence[str], threshold: float) -> Measure:
    """Fisher's z of the correlation over arms of log KL(base ‖ arm) and the loss on `!`, less that of `threshold`."""

    def of(records: Records, seed: int) -> float:
        kl = [math.log(max(records.value(rung, arm, seed, "kl"), 1e-9)) for arm in arms]
        loss = [math.log(max(records.value(rung, arm, seed, "loss_reversed"), 1e-9)) for arm in arms]
        r = float(np.corrcoef(kl, loss)[0, 1])
        return math.atanh(min(max(r, -0.999), 0.999)) - math.atanh(threshold)

    return of


# ---------------------------------------------------------------- the table


def judge(outcome: Outcome, p: float, p_same: float, complete: bool) -> Conclusion:
    """The conclusion from p and p_same, both after Holm; open until every planned base is finished."""
    if not complete:
        return OPEN
    if p <= ALPHA and outcome.holds:
        return YES
    if p <= ALPHA and outcome.opposite:
        return OPPOSITE
    return SAME if p_same <= ALPHA else OPEN


def _holm_within(questions: Sequence[str], p: Sequence[float]) -> np.ndarray:
    """Holm's correction within each question.

    Of 8 pairs no sign-flip test can have a p below 0.0078, so that a correction over many claims would decide none.
    """
    adjusted, values = np.ones(len(p)), np.asarray(p, dtype=np.float64)
    for question in set(questions):
        own = np.array([other == question for other in questions])
        adjusted[own] = holm(values[own])
    return adjusted


def conclude(claims: Sequence[Claim], records: Records, least_bases: int) -> list[dict[str, Any]]:
    """One row a claim: id, question, text, estimate, interval, p, Holm's p, bases, conclusion, note.

    Complete is a claim whose runs are finished on every base whose gates held, and on at least `least_bases`.
    """
    outcomes = [claim.of(records) for claim in claims]
    planned = len(records.settings.seeds)
    excluded = [len(records.excluded(claim.runs)) for claim in claims]
    complete = [o.count + out == planned and o.count >= least_bases for o, out in zip(outcomes, excluded)]
    questions = [claim.question for claim in claims]
    adjusted = _holm_within(questions, [o.p if done else 1.0 for o, done in zip(outcomes, complete)])
    same = _holm_within(questions, [o.p_same if done else 1.0 for o, done in zip(outcomes, complete)])
    rows = []
    for claim, outcome, out, done, p, q in zip(claims, outcomes, excluded, complete, adjusted, same):
        rows.append(
            {
                "id": claim.id,
                "question": claim.question,
                "claim": claim.text,
                "falsified": claim.falsified,
                "test": claim.test,
                "unit": claim.unit,
                **{k: v for k, v in asdict(outcome).items() if k in ("estimate", "low", "high", "p", "note", "margin")},
                "p_holm": float(p),
                "bases": outcome.count,
                "excluded": out,
                "planned": planned,
                "conclusion": judge(outcome, float(p), float(q), done),
                "bases_needed": bases_needed(outcome) if done else None,
            }
        )
    return rows


def bases_needed(outcome: Outcome) -> int | None:
    """Bases at which a test at 5 % would find the estimate in four of five studies, as the interval shrinks with √n.

    None where the interval has no end, or the estimate lies at no effect: then no number of bases decides a difference.
    """
    values = [outcome.estimate, outcome.low, outcome.high, outcome.null]
    if outcome.null == 1.0:  # a ratio: its interval is symmetric in logarithms
        values = [math.log(value) if value > 0 else -math.inf for value in values]
    estimate, low, high, null = values
    distance, error = abs(estimate - null), (high - low) / (2 * Z_95)
    if not all(map(math.isfinite, values)) or distance == 0:
        return None
    needed = math.ceil(outcome.count * ((Z_95 + Z_POWER) * error / distance) ** 2)
    return max(needed, outcome.count + 1) if needed <= MOST_BASES else None
