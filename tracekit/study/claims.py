"""What the study says: each claim a row with its estimand, effect, interval and verdict.

The claims stand in claims.toml. Nothing is called different on one seed; where a gate failed all are withheld.
P-values are adjusted over the whole table by Holm.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from probes.equivalence import holm
from tracekit.config import read_toml
from tracekit.study.places import completions_of
from tracekit.study.results import GREEDY, SAMPLED, Gate, passed, solved
from tracekit.study.settings import BASE, IN_DISTRIBUTION, SPLITS, StudySettings
from tracekit.study.statistics import ALPHA, ByProblem, Difference, difference, difference_of_runs

SUPPORTED, REFUTED, INCONCLUSIVE, WITHHELD = "supported", "refuted", "inconclusive", "withheld"
SHIFTED = tuple(split for split in SPLITS if split != IN_DISTRIBUTION)
CLAIMS = Path(__file__).with_name("claims.toml")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What claims are measured on."""

    settings: StudySettings
    curves: pl.DataFrame
    explored: pl.DataFrame


@dataclass(frozen=True, slots=True)
class Measure:
    """What can be compared between two arms, or told of one. A unit of "points": percentage points."""

    estimand: str
    unit: str
    of: Callable[[Evidence, str, str | None], Difference]


def claims_table(evidence: Evidence, gates: list[Gate]) -> pl.DataFrame:
    """Every claim whose arms this study has: question, claim, estimand, unit, effect, low, high, p (Holm), seeds,
    problems, published, verdict, why."""
    arms = {BASE, *evidence.settings.arms}
    claims = [c for c in read_toml(CLAIMS)["claim"] if {c["a"], c.get("b", c["a"])} <= arms]
    found = [MEASURES[c["measure"]].of(evidence, c["a"], c.get("b")) for c in claims]
    adjusted = holm(np.array([d.p for d in found]))
    failed = ", ".join(gate.name for gate in gates if not gate.passed)
    return pl.DataFrame(
        [_row(claim, effect, float(p), failed) for claim, effect, p in zip(claims, found, adjusted)],
        infer_schema_length=None,
    )


def _row(claim: dict[str, Any], found: Difference, p: float, failed: str) -> dict[str, Any]:
    measure = MEASURES[claim["measure"]]
    scale = 100.0 if measure.unit == "points" else 1.0
    verdict, why = _judge(claim["expected"], found, p, failed)
    return {
        "question": claim["question"],
        "claim": claim["text"],
        "estimand": f"{measure.estimand}: {claim['a']}" + (f" - {claim['b']}" if "b" in claim else ""),
        "unit": measure.unit,
        "effect": found.estimate * scale,
        "low": found.low * scale,
        "high": found.high * scale,
        "p": p,
        "seeds": found.seeds,
        "problems": found.problems,
        "published": claim.get("published", ""),
        "verdict": verdict,
        "why": why,
    }


def _judge(expected: str, found: Difference, p: float, failed: str) -> tuple[str, str]:
    if failed:
        return WITHHELD, f"gate failed: {failed}"
    if found.seeds < 2:
        return INCONCLUSIVE, "one seed speaks of these checkpoints only"
    if not p < ALPHA:
        return INCONCLUSIVE, "the interval over seeds and problems does not exclude 0"
    return (SUPPORTED if (found.estimate > 0) == (expected == "+") else REFUTED), ""


# ---------------------------------------------------------------- measures


def _greedy(splits: tuple[str, ...]) -> Callable[[Evidence, str, str | None], Difference]:
    def of(evidence: Evidence, a: str, b: str | None) -> Difference:
        assert b is not None
        return difference(_solved_greedily(evidence, a, splits), _solved_greedily(evidence, b, splits))

    return of


def _solved_greedily(evidence: Evidence, arm: str, splits: tuple[str, ...]) -> dict[int, ByProblem]:
    settings = evidence.settings
    return {
        seed: {p: v for split in splits for p, v in solved(settings, arm, seed, split, GREEDY).items()}
        for seed in settings.seeds_of(arm)
    }


def _pass(most: bool) -> Callable[[Evidence, str, str | None], Difference]:
    def of(evidence: Evidence, a: str, b: str | None) -> Difference:
        assert b is not None
        settings = evidence.settings
        k = settings.evaluation.samples if most else 1
        first, second = (
            {s: passed(settings, arm, s, IN_DISTRIBUTION, k) for s in settings.seeds_of(arm)} for arm in (a, b)
        )
        return difference(first, second)

    return of


def _vote_gain(evidence: Evidence, a: str, b: str | None) -> Difference:
    votes = {seed: _votes(evidence.settings, a, seed) for seed in evidence.settings.seeds_of(a)}
    return difference(votes, _solved_greedily(evidence, a, (IN_DISTRIBUTION,)))


def _votes(settings: StudySettings, arm: str, seed: int) -> ByProblem:
    """Problem → whether the answer that most samples give is right; a tie earns the share that is right."""
    completions = completions_of(settings, arm, seed, IN_DISTRIBUTION).filter(pl.col("temperature") == SAMPLED)
    answers = completions.drop_nulls("prediction").group_by("problem_id", "prediction")
    counted = answers.agg(pl.len().alias("votes"), pl.col("reward").first())
    top = counted.filter(pl.col("votes") == pl.col("votes").max().over("problem_id"))
    shares = dict(top.group_by("problem_id").agg(pl.col("reward").mean()).iter_rows())
    return {problem: shares.get(problem, 0.0) for problem in completions["problem_id"].unique()}


def _explored(metric: str) -> Callable[[Evidence, str, str | None], Difference]:
    def of(evidence: Evidence, a: str, b: str | None) -> Difference:
        def values(arm: str) -> dict[int, float]:
            own = evidence.explored.filter(pl.col("arm") == arm)
            return dict(own.select("seed", metric).drop_nulls().iter_rows())

        return difference_of_runs(values(a), values(b) if b else None)

    return of


def _late_entropy(evidence: Evidence, a: str, b: str | None) -> Difference:
    curves = evidence.curves
    late = curves.filter(pl.col("step") > 0.9 * pl.col("step").max().over("arm", "seed"))
    means = late.group_by("arm", "seed").agg(pl.col("rollout_entropy").mean())

    def values(arm: str) -> dict[int, float]:
        return dict(means.filter(pl.col("arm") == arm).select("seed", "rollout_entropy").iter_rows())

    return difference_of_runs(values(a), values(b) if b else None)


MEASURES = {
    "greedy": Measure("greedy accuracy, in distribution", "points", _greedy((IN_DISTRIBUTION,))),
    "greedy_shifted": Measure("greedy accuracy, mean of the shifted sets", "points", _greedy(SHIFTED)),
    "pass_1": Measure("pass@1, in distribution", "points", _pass(most=False)),
    "pass_most": Measure("pass@k at the most samples, in distribution", "points", _pass(most=True)),
    "vote_gain": Measure("maj@k less greedy accuracy, in distribution", "points", _vote_gain),
    "off_teacher": Measure("share of right samples off the teacher's path", "share", _explored("off_teacher")),
    "paths": Measure("distinct right paths of a problem", "paths", _explored("paths")),
    "kept": Measure("share of the base's solved problems that stay solved", "share", _explored("kept")),
    "late_entropy": Measure("rollout entropy in the last tenth of training", "nats", _late_entropy),
}
