"""What the study says: each claim a row with its estimand, effect, interval and verdict.

The claims stand in claims.toml. Nothing is called different on one seed; where a gate failed all are withheld.
A question is a family: its p-values are adjusted by Holm. What they would be over the whole table stands beside, for
who reads the study as one. What is linearly separable has the verdicts of the probing protocol, and its correction.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from probes.statistics.holm import holm
from tracekit.core.settings import read_toml
from tracekit.study.analysis.results import GREEDY, Gate, passed, sampled_of, solved_all
from tracekit.study.analysis.statistics import ALPHA, ByProblem, Difference, difference, difference_of_runs
from tracekit.study.settings import BASE, TEACHER, StudySettings
from tracekit.study.steps.evaluation import DEEP

#: What the study asks; a claim's `question` is a key.
QUESTIONS = {
    1: "Where is the exploration? Does a model trained with teacher traces still search its own space?",
    2: "Is it imitation, transfer, or off-policy RL?",
    3: "Is zero-RL bounded by its base?",
    4: "Does LUFFY beat SFT then RL, and at which cost?",
    5: "Is temperature for majority voting or only for sampling?",
    6: "Does imitation or RL change which reasoning features are linearly separable?",
}

SUPPORTED, REFUTED, INCONCLUSIVE, WITHHELD = "supported", "refuted", "inconclusive", "withheld"
ONE_SEED = "one seed speaks of these checkpoints only"
CLAIMS = Path(__file__).with_name("claims.toml")
AT_ONE = "temperature 1"  # how claims and estimands name the temperature of samples; a study may have another


@dataclass(frozen=True, slots=True)
class Evidence:
    """What claims are measured on: the study's settings and its tables (see `tracekit.study.analysis.results`)."""

    settings: StudySettings
    curves: pl.DataFrame
    explored: pl.DataFrame
    costs: pl.DataFrame
    teacher_tokens: pl.DataFrame
    effects: pl.DataFrame | None = None  # of the probing protocol; None where nothing was probed


@dataclass(frozen=True, slots=True)
class Measure:
    """What can be compared between two arms, or told of one, so that 0 says "no difference".

    shown: from the measure's own scale to what a reader sees, in `unit`. margin: differences within ± it count as
    none; None: where no such bound was fixed beforehand.
    """

    estimand: str
    unit: str
    of: Callable[[Evidence, str, str | None], Difference]
    shown: Callable[[float], float] = float
    margin: float | None = None


def claims_table(evidence: Evidence, gates: list[Gate]) -> pl.DataFrame:
    """Every claim whose arms and measurements this study has: question, claim, estimand, unit, effect, low, high,
    p (Holm within the question), p_table (Holm over all questions but the sixth), seeds, problems, published,
    verdict, why, headline."""
    claims = [claim for claim in read_toml(CLAIMS)["claim"] if _is_measured(claim, evidence)]
    of_probes = [claim for claim in claims if claim["measure"] == PROBED]
    compared = [claim for claim in claims if claim["measure"] != PROBED]
    found = [MEASURES[c["measure"]].of(evidence, c["a"], c.get("b")) for c in compared]
    questions = np.array([claim["question"] for claim in compared])
    different = np.array([d.p for d in found])
    same = np.array([d.p_equivalent(MEASURES[c["measure"]].margin) for c, d in zip(compared, found)])
    adjusted = zip(_holm_within(different, questions), _holm_within(same, questions), holm(different))
    failed = ", ".join(gate.name for gate in gates if not gate.passed)
    rows = [
        {**_row(evidence.settings, claim, effect, (float(p), float(q)), failed), "p_table": float(over_all)}
        for claim, effect, (p, q, over_all) in zip(compared, found, adjusted)
    ]
    if evidence.effects is not None:
        rows += [row for claim in of_probes for row in _probed_rows(claim, evidence.effects, failed)]
    return pl.DataFrame(rows, infer_schema_length=None).sort("question", maintain_order=True)


def _holm_within(p: np.ndarray, families: np.ndarray) -> np.ndarray:
    """Holm's correction within each family of tests."""
    adjusted = np.full(len(p), np.nan)
    for family in np.unique(families):
        adjusted[families == family] = holm(p[families == family])
    return adjusted


def _is_measured(claim: dict[str, Any], evidence: Evidence) -> bool:
    settings, arms = evidence.settings, {claim["a"], claim.get("b", claim["a"])}
    if claim["measure"] == "deep_pass":
        return bool(settings.evaluation.deep_samples) and arms <= set(settings.evaluation.deep_arms)
    if claim["measure"].endswith("_shifted") and not settings.shifted:
        return False
    if (TEACHER in arms or claim["measure"] == "off_teacher") and TEACHER not in evidence.explored["arm"]:
        return False  # what departing from its own ways means for the teacher is not known
    return arms <= {BASE, TEACHER, *settings.arms}


def _row(
    settings: StudySettings, claim: dict[str, Any], found: Difference, p: tuple[float, float], failed: str
) -> dict[str, Any]:
    measure, warm = MEASURES[claim["measure"]], f"temperature {settings.temperature:g}"
    verdict, why = _judge(claim["expected"], found, p, measure, failed)
    return {
        "question": claim["question"],
        "claim": claim["text"].replace(AT_ONE, warm),
        "estimand": f"{measure.estimand.replace(AT_ONE, warm)}: {claim['a']}"
        + (f" - {claim['b']}" if "b" in claim else ""),
        "unit": measure.unit,
        "effect": measure.shown(found.estimate),
        "low": measure.shown(found.low),
        "high": measure.shown(found.high),
        "p": p[0],
        "seeds": found.seeds,
        "problems": found.problems,
        "published": claim.get("published", ""),
        "verdict": verdict,
        "why": why,
        "headline": claim.get("headline", False),
    }


def _judge(expected: str, found: Difference, p: tuple[float, float], measure: Measure, failed: str) -> tuple[str, str]:
    """(verdict, why). p: of no difference, and of a difference beyond the measure's margin; both by Holm."""
    if failed:
        return WITHHELD, f"gate failed: {failed}"
    if found.seeds < 2:
        return INCONCLUSIVE, ONE_SEED
    chance = "p < 0.001" if p[1] < 0.001 else f"p = {p[1]:.2g}"
    margin = f"±{measure.shown(measure.margin or 0.0):g} {measure.unit} ({chance})"
    if p[0] < ALPHA:
        verdict = SUPPORTED if (found.estimate > 0) == (expected == "+") else REFUTED
        return verdict, f"but within {margin}" if p[1] < ALPHA else ""
    if p[1] < ALPHA:
        return REFUTED, f"the same within {margin}"
    return INCONCLUSIVE, ""


def _probed_rows(claim: dict[str, Any], effects: pl.DataFrame, failed: str) -> list[dict[str, Any]]:
    """One row a feature. The claim is that something changes: refuted where the protocol finds no change."""
    wanted = (pl.col("estimand") == "delta") & (pl.col("a") == claim["a"]) & (pl.col("b") == claim["b"])
    said = {"changed": SUPPORTED, "equivalent": REFUTED}
    rows = []
    for found in effects.filter(wanted).iter_rows(named=True):
        verdict = said.get(found["verdict"], INCONCLUSIVE)
        why = found["why"].rpartition("; ")[2]  # what p says already is not said again
        if found["seeds"] < 2 and verdict != INCONCLUSIVE:
            verdict, why = INCONCLUSIVE, ONE_SEED
        if failed:
            verdict, why = WITHHELD, f"gate failed: {failed}"
        rows.append(
            {
                "question": claim["question"],
                "claim": f"{claim['text']}: {found['feature']}",
                "estimand": f"Δ of held-out linear AUC: {claim['a']} - {claim['b']}",
                "unit": "AUC",
                "effect": found["effect"],
                "low": found["low"],
                "high": found["high"],
                "p": found["p_holm"],
                "p_table": None,
                "seeds": found["seeds"],
                "problems": found["problems"],
                "published": claim.get("published", ""),
                "verdict": verdict,
                "why": why,
                "headline": claim.get("headline", False),
            }
        )
    return rows


# ---------------------------------------------------------------- measures


def _solved(warm: bool, shifted: bool) -> Callable[[Evidence, str, str | None], Difference]:
    """Accuracy, greedy or sampled, in distribution or out of it."""

    def of(evidence: Evidence, a: str, b: str | None) -> Difference:
        assert b is not None
        splits = evidence.settings.shifted if shifted else evidence.settings.in_distribution
        first, second = (_by_seed(evidence.settings, arm, splits, warm) for arm in (a, b))
        return difference(first, second)

    return of


def _by_seed(settings: StudySettings, arm: str, splits: tuple[str, ...], warm: bool) -> dict[int, ByProblem]:
    temperature = settings.temperature if warm else GREEDY
    return {seed: solved_all(settings, arm, seed, splits, temperature) for seed in settings.seeds_of(arm)}


def _of_runs(settings: StudySettings, arm: str, splits: tuple[str, ...], warm: bool) -> dict[int, ByProblem]:
    """Of an arm by itself: a given base is one checkpoint, however many seeds it is compared at."""
    found = _by_seed(settings, arm, splits, warm)
    return {seed: found[seed] for seed in settings.run_seeds(arm)}


def _pass_most(evidence: Evidence, a: str, b: str | None) -> Difference:
    assert b is not None
    settings = evidence.settings

    def most(arm: str, seed: int) -> ByProblem:
        return {
            problem: value
            for split in settings.repeated
            for problem, value in passed(settings, arm, seed, split, settings.samples_of(split)).items()
        }

    first, second = ({s: most(arm, s) for s in settings.seeds_of(arm)} for arm in (a, b))
    return difference(first, second)


def _deep_pass(evidence: Evidence, a: str, b: str | None) -> Difference:
    assert b is not None
    settings = evidence.settings
    k = settings.evaluation.deep_samples
    first, second = ({s: passed(settings, arm, s, DEEP, k) for s in settings.seeds_of(arm)} for arm in (a, b))
    return difference(first, second)


def _sampled_loss(evidence: Evidence, a: str, b: str | None) -> Difference:
    settings = evidence.settings
    warm, greedy = (_of_runs(settings, a, settings.in_distribution, warm) for warm in (True, False))
    return difference(warm, greedy)


def _vote_gain(evidence: Evidence, a: str, b: str | None) -> Difference:
    settings = evidence.settings
    votes = {seed: _votes(settings, a, seed) for seed in settings.run_seeds(a)}
    return difference(votes, _of_runs(settings, a, settings.repeated, warm=False))


def _votes(settings: StudySettings, arm: str, seed: int) -> ByProblem:
    """Problem → whether the answer that most samples give is right; a tie earns the share that is right."""
    completions = pl.concat(sampled_of(settings, arm, seed, split) for split in settings.repeated)
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


def _rare_tokens(evidence: Evidence, a: str, b: str | None) -> Difference:
    rare = evidence.teacher_tokens.filter(pl.col("rank_low") >= RARE_RANK, pl.col("tokens") > 0)
    mean = (pl.col("probability") * pl.col("tokens")).sum() / pl.col("tokens").sum()
    means = rare.group_by("arm", "seed").agg(mean.alias("probability"))

    def values(arm: str) -> dict[int, float]:
        return dict(means.filter(pl.col("arm") == arm).select("seed", "probability").iter_rows())

    return difference_of_runs(values(a), values(b) if b else None)


def _log_flops(evidence: Evidence, a: str, b: str | None) -> Difference:
    def values(arm: str) -> dict[int, float]:
        own = evidence.costs.filter(pl.col("arm") == arm)
        return {seed: math.log(flops) for seed, flops in own.select("seed", "flops").iter_rows()}

    return difference_of_runs(values(a), values(b) if b else None)


#: Differences of accuracy within ± two points count as none.
MARGIN = 0.02


def _points(value: float) -> float:
    return 100.0 * value


#: Teacher tokens from this rank of the base on are those that it would seldom write.
RARE_RANK = 3

#: The measure whose rows and verdicts are the probing protocol's.
PROBED = "separable"

MEASURES = {
    "greedy": Measure(
        "greedy accuracy, in distribution", "points", _solved(warm=False, shifted=False), _points, MARGIN
    ),
    "greedy_shifted": Measure(
        "greedy accuracy, mean of the shifted sets", "points", _solved(warm=False, shifted=True), _points, MARGIN
    ),
    "sampled": Measure(
        "accuracy at temperature 1, in distribution", "points", _solved(warm=True, shifted=False), _points, MARGIN
    ),
    "sampled_shifted": Measure(
        "accuracy at temperature 1, shifted sets", "points", _solved(warm=True, shifted=True), _points, MARGIN
    ),
    "pass_most": Measure("pass@k at the most samples, in distribution", "points", _pass_most, _points, MARGIN),
    "deep_pass": Measure("pass@k of the deep set at the most samples", "points", _deep_pass, _points, MARGIN),
    "vote_gain": Measure("maj@k less greedy accuracy, in distribution", "points", _vote_gain, _points, MARGIN),
    "sampled_loss": Measure("accuracy at temperature 1 less greedy accuracy", "points", _sampled_loss, _points, MARGIN),
    "off_teacher": Measure("share of right samples off the teacher's path", "share", _explored("off_teacher")),
    "off_base": Measure("share of right samples on no right path of the base", "share", _explored("off_base")),
    "paths": Measure("distinct right paths of a problem", "paths", _explored("paths")),
    "kept": Measure("share of the base's solved problems that stay solved", "share", _explored("kept")),
    "verification": Measure("verification steps a sample", "steps", _explored("verification")),
    "backtracking": Measure("backtracking steps a sample", "steps", _explored("backtracking")),
    "late_entropy": Measure("rollout entropy in the last tenth of training", "nats", _late_entropy),
    "rare_tokens": Measure(
        f"probability of teacher tokens that the base ranks {RARE_RANK} or later", "probability", _rare_tokens
    ),
    "flops": Measure("floating-point operations of training", "×", _log_flops, math.exp),
}
