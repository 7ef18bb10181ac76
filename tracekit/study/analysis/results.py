"""All measurements of a study, read from its folder into tables and one plain record: `result.json`."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from evaluators.batch import verify_batch
from evaluators.metrics import pass_probability
from tracekit.study.analysis.statistics import ByProblem, difference_of_runs, interval_of
from tracekit.study.paths import completions_of, measures_folder, model_folder, problems_of
from tracekit.study.settings import BASE, TEACHER, StudySettings
from tracekit.study.steps.evaluation import DEEP, SWEEP, summary_of
from tracekit.study.steps.exploration import path_metrics, path_table
from tracekit.study.tasks import task_of
from tracekit.study.tasks.task import Task

GREEDY = 0.0  # a temperature


@dataclass(frozen=True, slots=True)
class Gate:
    """A condition of the conclusions. `needs`: "at least" or "at most"."""

    name: str
    value: float
    needs: str
    threshold: float

    @property
    def passed(self) -> bool:
        """Whether the value is on the right side."""
        return self.value >= self.threshold if self.needs == "at least" else self.value <= self.threshold


def gates_of(settings: StudySettings) -> list[Gate]:
    """The gates that the task has and the settings ask for, worst seed each."""
    gates, skill = [], task_of(settings).skill()
    if skill is not None:
        least = float(skill["least"].min())  # type: ignore[arg-type]
        gates.append(Gate("base has every atomic skill", least, "at least", settings.gates.skill))
    if "sft" in settings.arms and settings.gates.imitation:
        splits = settings.in_distribution
        learnt = min(_mean(solved_all(settings, "sft", s, splits, GREEDY)) for s in settings.seeds_of("sft"))
        gates.append(Gate("SFT learns the traces", learnt, "at least", settings.gates.imitation))
    gates.append(Gate("a guess scores nothing", guess_rate(settings), "at most", settings.gates.guess))
    return gates


def guess_rate(settings: StudySettings) -> float:
    """What the commonest gold of the training problems scores on the in-distribution ones.

    The best constant of the very set it is scored on would be picked by luck: three of 128 share a gold by chance.
    """
    commonest = problems_of(settings, "train")["gold"].value_counts().sort("count", "gold", descending=True)["gold"][0]
    asked = pl.concat(problems_of(settings, split)["gold"] for split in settings.in_distribution)
    return float((asked == commonest).mean())  # type: ignore[arg-type]


def _mean(values: ByProblem) -> float:
    return math.fsum(values.values()) / len(values)


def solved(settings: StudySettings, arm: str, seed: int, split: str, temperature: float) -> ByProblem:
    """Problem → share of its samples that are right, at a temperature."""
    completions = _at(completions_of(settings, arm, seed, split), temperature)
    known = completions.drop_nulls("reward")
    rows = known.group_by("problem_id", maintain_order=True).agg(pl.col("reward").mean())
    return dict(rows.iter_rows())


def solved_all(settings: StudySettings, arm: str, seed: int, splits: Sequence[str], temperature: float) -> ByProblem:
    """The same over several splits, every problem alike."""
    return {p: v for split in splits for p, v in solved(settings, arm, seed, split, temperature).items()}


def sampled_of(settings: StudySettings, arm: str, seed: int, split: str) -> pl.DataFrame:
    """COMPLETIONS of a split at the temperature of samples."""
    return _at(completions_of(settings, arm, seed, split), settings.temperature)


def _at(completions: pl.DataFrame, temperature: float) -> pl.DataFrame:
    # compared as it is stored: 0.6 as Float32 is not 0.6
    return completions.filter(pl.col("temperature") == pl.lit(temperature, pl.Float32))


def passed(settings: StudySettings, arm: str, seed: int, split: str, k: int) -> ByProblem:
    """Problem → unbiased pass@k at the temperature of samples."""
    completions = sampled_of(settings, arm, seed, split)
    rows = (
        completions.drop_nulls("reward")
        .group_by("problem_id", maintain_order=True)
        .agg(pl.len(), pl.col("reward").sum())
    )
    return {p: pass_probability(n, int(right), k) for p, n, right in rows.iter_rows() if n >= k}


def arm_metrics(settings: StudySettings) -> pl.DataFrame:
    """arm, split, metric ("greedy", "pass", "majority"), k, value, low, high, seeds: over seeds and problems."""
    rows = []
    for arm in (BASE, *settings.arms):
        seeds = settings.run_seeds(arm)
        for split in settings.splits:
            summaries = [summary_of(measures_folder(settings, arm, seed) / split) for seed in seeds]
            measures = summaries[0].select("metric", "k").unique(maintain_order=True)
            for metric, k in measures.iter_rows():
                rows.append(_row(settings, arm, split, metric, k, seeds, summaries))
    return pl.DataFrame(rows)


def _row(
    settings: StudySettings,
    arm: str,
    split: str,
    metric: str,
    k: int,
    seeds: tuple[int, ...],
    summaries: list[pl.DataFrame],
) -> dict[str, Any]:
    if metric == "majority":  # a vote has no value of its own for each sample: the mean of the seeds' summaries
        found = [s.filter((pl.col("metric") == metric) & (pl.col("k") == k)) for s in summaries]
        value, low, high = (sum(f[c][0] for f in found) / len(found) for c in ("value", "low", "high"))
    elif metric == "greedy":
        value, low, high = interval_of({s: solved(settings, arm, s, split, GREEDY) for s in seeds})
    else:
        value, low, high = interval_of({s: passed(settings, arm, s, split, k) for s in seeds})
    low, high = max(low, 0.0), min(high, 1.0)
    return {"arm": arm, "split": split, "metric": metric, "k": k, "value": value, "low": low, "high": high,
            "seeds": len(seeds)}  # fmt: skip


def training_curves(settings: StudySettings) -> pl.DataFrame:
    """arm, seed, and every logged metric of the arms trained by RL, a row a round."""
    frames = []
    for arm, seed in settings.runs():
        path = model_folder(settings, arm, seed).parent / "metrics.parquet"
        if path.exists():
            frames.append(pl.read_parquet(path).with_columns(pl.lit(arm).alias("arm"), pl.lit(seed).alias("seed")))
    return pl.concat(frames, how="diagonal_relaxed")


def cost_table(settings: StudySettings, curves: pl.DataFrame, jobs: dict[str, dict[str, Any]]) -> pl.DataFrame:
    """arm, seed, tokens_sampled, tokens_trained, tokens_teacher, flops, seconds, peak_bytes of each training run.

    What an arm's start has cost is in it, but for the base's own pre-training. Seconds are those that the loops logged:
    a job that went on after a kill, or read again what was trained, has fewer.
    """
    own = {(row["arm"], row["seed"]): row for row in _own_costs(curves).iter_rows(named=True)}
    rows = []
    for arm, seed in settings.runs():
        chain = [own[name, seed] for name in _lineage(settings, arm)]
        trained = [jobs.get(f"train-{name}-{seed}", {}) for name in _lineage(settings, arm)]
        rows.append(
            {
                "arm": arm,
                "seed": seed,
                **{column: sum(row[column] for row in chain) for column in COSTS},
                "peak_bytes": max((job.get("peak_bytes", 0) for job in trained), default=0),
            }
        )
    return pl.DataFrame(rows)


def cost_summary(costs: pl.DataFrame, metrics: pl.DataFrame) -> pl.DataFrame:
    """Each arm's costs, mean over seeds: tokens, operations in 10^12, seconds, peak memory in MB, and its greedy
    accuracy (mean of the splits, in points) for each 10^12 operations."""
    greedy = metrics.filter(pl.col("metric") == "greedy").group_by("arm").agg(points=100 * pl.col("value").mean())
    spent = costs.group_by("arm", maintain_order=True).agg(
        pl.len().alias("seeds"),
        pl.col("tokens_sampled", "tokens_trained", "tokens_teacher").mean().round().cast(pl.Int64),
        (pl.col("flops").mean() / 1e12).alias("teraflops"),
        pl.col("seconds").mean().round(1),
        (pl.col("peak_bytes").max() / 1e6).round().cast(pl.Int64).alias("peak_mb"),
    )
    joined = spent.join(greedy, on="arm", maintain_order="left")
    return joined.with_columns((pl.col("points") / pl.col("teraflops")).alias("points_per_teraflop")).drop("points")


#: What a training run spends: tokens sampled by the policy, tokens that went forward and backward, teacher
#: tokens among these, floating-point operations by formula (trainer.planning.flops), seconds of the loop by the clock.
COSTS = ("tokens_sampled", "tokens_trained", "tokens_teacher", "flops", "seconds")
#: The stages that RL's loop times, verifying in the rollout; a supervised loop times its steps whole.
STAGES = ("replay", "rollout", "log_probs", "update", "weights")


def _own_costs(curves: pl.DataFrame) -> pl.DataFrame:
    """arm, seed and COSTS of each run by itself. Supervised runs log `tokens` (a teacher's), `flops`, `seconds`."""
    stages = [f"seconds_{stage}" for stage in STAGES]
    logged = [
        "tokens_sampled", "tokens_trained", "tokens_teacher", "tokens", "flops", "flops_rollout", "flops_update",
        "seconds", *stages,
    ]  # fmt: skip
    absent = [pl.lit(0.0).alias(name) for name in logged if name not in curves.columns]
    summed = curves.with_columns(absent).group_by("arm", "seed").agg(pl.col(name).sum() for name in logged)
    return summed.select(
        "arm",
        "seed",
        "tokens_sampled",
        pl.col("tokens_trained") + pl.col("tokens"),
        pl.col("tokens_teacher") + pl.col("tokens"),
        pl.col("flops") + pl.col("flops_rollout") + pl.col("flops_update"),
        pl.sum_horizontal("seconds", *stages),
    )


def _lineage(settings: StudySettings, arm: str) -> list[str]:
    """The arm and those it starts from, the base left out unless it is asked for itself and was trained."""
    if arm == BASE:
        return [] if settings.data is not None else [BASE]  # a given base has cost nothing here
    if settings.arms[arm].model is not None:
        return []  # what a published checkpoint has cost is not known here
    start = settings.arms[arm].start
    return [arm] if start == BASE else [arm, *_lineage(settings, start)]


def exploration_table(settings: StudySettings) -> pl.DataFrame:
    """arm, seed and the path metrics on the in-distribution problems that are sampled often enough.

    The teacher is a row of its own where it can be asked: other traces of its hand, as many as the arms have samples.
    An arm departs from the teacher's ways only where it does so more often than the teacher itself.
    """
    task = task_of(settings)
    written = task.teacher_traces()
    teacher, fresh = (None, None) if written is None else (_path_table_of(t, settings, task) for t in written)
    rows = []
    for seed in settings.seeds:
        tables = {
            arm: path_table(
                pl.concat(sampled_of(settings, arm, seed, split) for split in settings.repeated), task.path_of
            )
            for arm in (BASE, *settings.arms)
            if seed in settings.seeds_of(arm)
        }
        if fresh is not None:
            tables[TEACHER] = fresh
        for arm, own in tables.items():
            rows.append({"arm": arm, "seed": seed, **path_metrics(own, tables[BASE], teacher)})
    table = pl.DataFrame(rows, infer_schema_length=None)
    return table.with_columns(pl.exclude("arm", "seed").cast(pl.Float64))  # what no run has is a number too


def _path_table_of(traces: pl.DataFrame, settings: StudySettings, task: Task) -> pl.DataFrame:
    problems = pl.concat(problems_of(settings, split) for split in settings.repeated)
    asked = traces.join(problems, on="problem_id", maintain_order="left")
    judged = verify_batch(asked["response"].to_list(), asked["gold"].to_list())
    table = asked.with_columns(
        pl.int_range(pl.len(), dtype=pl.Int32).over("problem_id").alias("sample"),
        pl.Series("reward", [float(verdict.correct) for verdict in judged], pl.Float32),
    )
    return path_table(table, task.path_of)


def teacher_tokens(settings: StudySettings) -> pl.DataFrame:
    """arm, seed, rank_low, rank_high, tokens, probability, log_prob."""
    frames = [
        pl.read_parquet(measures_folder(settings, arm, seed) / "teacher_tokens.parquet").with_columns(
            pl.lit(arm).alias("arm"), pl.lit(seed).alias("seed")
        )
        for arm, seed in settings.runs()
    ]
    return pl.concat(frames)


def deep_curves(settings: StudySettings) -> pl.DataFrame | None:
    """arm, k, value, low, high of the deep set's pass@k, k the powers of two; None where none was sampled."""
    evaluation = settings.evaluation
    arms = [arm for arm in evaluation.deep_arms if arm in (BASE, *settings.arms)]
    if not evaluation.deep_samples or not arms:
        return None
    rows = []
    for arm in arms:
        for power in range(evaluation.deep_samples.bit_length()):
            k = 1 << power
            if k <= evaluation.deep_samples:
                curves = {s: passed(settings, arm, s, DEEP, k) for s in settings.run_seeds(arm)}
                value, low, high = interval_of(curves)
                rows.append({"arm": arm, "k": k, "value": value, "low": max(low, 0.0), "high": min(high, 1.0)})
    return pl.DataFrame(rows)


def deep_unsolved(settings: StudySettings) -> pl.DataFrame | None:
    """arm, seed, problems, unsolved_by_base, of_these_solved, lost: of the deep set; None where none was sampled.

    A problem with no right one of `deep_samples` may still have a small chance: `upper_bound_of_none` says how small.
    """
    evaluation = settings.evaluation
    arms = [arm for arm in evaluation.deep_arms if arm in settings.arms]
    if not evaluation.deep_samples or BASE not in evaluation.deep_arms:
        return None
    rows = []
    for arm in arms:
        for seed in settings.seeds_of(arm):
            base, own = (_ever_solved(settings, name, seed) for name in (BASE, arm))
            unsolved = {problem for problem, right in base.items() if not right}
            rows.append(
                {
                    "arm": arm,
                    "seed": seed,
                    "problems": len(base),
                    "unsolved_by_base": len(unsolved),
                    "of_these_solved": sum(own[problem] for problem in unsolved),
                    "lost": sum(right and not own[problem] for problem, right in base.items()),
                }
            )
    return pl.DataFrame(rows) if rows else None


def _ever_solved(settings: StudySettings, arm: str, seed: int) -> dict[str, bool]:
    found = completions_of(settings, arm, seed, DEEP).group_by("problem_id").agg((pl.col("reward") == 1).any())
    return dict(found.iter_rows())


def temperature_curves(settings: StudySettings) -> pl.DataFrame | None:
    """arm, seed and the sweep's summary; None where the study sweeps no temperature."""
    if not settings.evaluation.temperatures:
        return None
    return pl.concat(
        summary_of(measures_folder(settings, arm, seed) / SWEEP).with_columns(
            pl.lit(arm).alias("arm"), pl.lit(seed).alias("seed")
        )
        for arm, seed in settings.runs()
    )


def crossings(sweep: pl.DataFrame, arms: Sequence[str]) -> pl.DataFrame:
    """Pairs of arms that change places over the temperatures: metric, k, a, b, and where each is the better one.

    Better: the 95 % interval over seeds (t, paired) of the summaries' difference excludes 0; no correction.
    """
    rows = []
    for (metric, k), part in sweep.group_by("metric", "k", maintain_order=True):
        for a, b in itertools.combinations(arms, 2):
            better: dict[str, list[str]] = {a: [], b: []}
            for temperature in part["temperature"].unique().sort():
                here = part.filter(pl.col("temperature") == temperature)
                found = difference_of_runs(*(_by_seed(here, arm) for arm in (a, b)))
                if found.low > 0 or found.high < 0:
                    better[a if found.low > 0 else b].append(f"{temperature:.1f}")
            if better[a] and better[b]:
                rows.append((metric, k, a, b, ", ".join(better[a]), ", ".join(better[b])))
    columns = ["metric", "k", "a", "b", "a better at", "b better at"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def _by_seed(part: pl.DataFrame, arm: str) -> dict[int, float]:
    return dict(part.filter(pl.col("arm") == arm).select("seed", "value").iter_rows())


def read_probe(folder: Path, table: str) -> pl.DataFrame:
    """A table of the probing result."""
    return pl.read_parquet(folder / "probe" / "tables" / f"{table}.parquet")
