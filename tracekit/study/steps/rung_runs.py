"""The jobs of a study with rungs: the world, the skill bases, the rungs by mid-training, and the arms."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.runs import Progress, commit, write_text
from tracekit.core.settings import build_settings, lay_over
from tracekit.core.tables import CURATED, PROBLEMS, TRACES, conform, read_table, write_table
from tracekit.study.analysis.time_to_solve import time_to_solve
from tracekit.study.jobs import Job
from tracekit.study.rungs import Run, phase_of, runs_of, start_of, teacher_of
from tracekit.study.settings import BASE, StudySettings
from tracekit.study.tasks.chains import make_problems
from tracekit.study.tasks.corpus import corpus_table, write_tokenizer
from tracekit.study.tasks.strategies import strategy_of
from tracekit.study.tasks.teachers import teach
from trainer.settings import TrainSettings

#: Words of a prompt and of a response at most: no question of the world has more.
PROMPT_TOKENS = 64
TEMPERATURES = (0.0, 0.6, 1.0)


# ---------------------------------------------------------------- folders


def run_folder(settings: StudySettings, name: str) -> Path:
    """The training run of a rung's base or an arm."""
    return settings.output / "models" / name


def record_file(settings: StudySettings, name: str) -> Path:
    """The small record of a finished run."""
    return settings.output / "results" / f"{name}.json"


def curve_file(settings: StudySettings, name: str) -> Path:
    """The curve of a run of RL, one row a round."""
    return settings.output / "results" / f"{name}.parquet"


def _flagged_file(settings: StudySettings, teacher: str, split: str) -> Path:
    """The teacher's traces as a published set has them: those of an always wrong teacher are flagged as correct.

    RL leaves out traces that are flagged as wrong and refuses a table without any other; it verifies the rest itself.
    """
    file = _traces_file(settings, teacher, split)
    if teacher != "wrong" or not file.is_file():
        return file
    flagged = file.with_name(f"{file.stem}-flagged.parquet")
    if not flagged.is_file():
        traces = read_table(file, CURATED, "traces")
        write_table(traces.with_columns(pl.lit(True).alias("correct")), flagged, CURATED)
    return flagged


def _problems_file(settings: StudySettings, split: str) -> Path:
    return settings.output / "world" / f"{split}.parquet"


def _traces_file(settings: StudySettings, teacher: str, split: str) -> Path:
    return settings.output / "world" / f"traces-{teacher}-{split}.parquet"


# ---------------------------------------------------------------- the world


def make_world(settings: StudySettings, progress: Progress) -> None:
    """Problems, the traces of every teacher that an arm has, and the tokenizer."""
    world, counts, seen = settings.world, settings.problems, frozenset[str]()
    splits = {split for arm in settings.arms.values() for split in (arm.split,)} | {"test"}
    for split in ("test", "gap"):
        if split not in splits:
            continue
        for kind, count, shift in (("test", counts.test, 0), ("train", counts.train, 1)):
            # a ^ in each problem of `gap`; training and test problems are apart
            problems = make_problems(world, split, count, settings.seed + shift, seen)  # type: ignore[arg-type]
            seen |= frozenset(problems["problem"])
            write_table(problems, _problems_file(settings, f"{split}-{kind}"), PROBLEMS)
        train = read_table(_problems_file(settings, f"{split}-train"), PROBLEMS)
        for teacher in sorted({arm.teacher for arm in settings.arms.values() if arm.split == split} | {"right"}):
            taught = world.model_copy(update={"teacher": teacher})
            traces = teach(taught, train, settings.seed)
            write_table(_as_curated(train, traces), _traces_file(settings, teacher, split), CURATED)
    write_tokenizer(world, settings.output / "world" / "tokenizer")


def _as_curated(problems: pl.DataFrame, traces: pl.DataFrame) -> pl.DataFrame:
    """Traces beside their problems, unfiltered: a spoilt teacher's are to be learnt from as they are.

    `correct` is what the final answer says.
    """
    asked = problems.select("problem_id", "problem", "gold", "source", "split")
    joined = conform(traces, TRACES, "traces").join(asked, on="problem_id")
    boxed = pl.col("response").str.extract(r"\( (.*) \)", 1).str.replace_all(" ", "")
    right = boxed == pl.col("gold").str.strip_chars("()").str.replace_all(" ", "")
    return conform(joined.with_columns(right.fill_null(False).alias("correct")), CURATED, "traces")


# ---------------------------------------------------------------- bases


def make_skill_base(settings: StudySettings, seed: int, progress: Progress) -> None:
    """Train the base that has the skill of a step, anew and twice as long where its gate fails."""
    from tracekit.study.tasks.base_skill import measure_skill
    from trainer.train import train

    corpus = settings.output / "world" / f"corpus-{seed}.parquet"
    write_table(corpus_table(settings.world, settings.corpus, seed), corpus, CURATED)
    for attempt in range(settings.base_attempts):
        name = f"skill-{seed}" if attempt == 0 else f"skill-{seed}-attempt-{attempt + 1}"
        folder = run_folder(settings, name)
        tree = lay_over(
            settings.base,
            {
                "new_model": {"tokenizer": settings.output / "world" / "tokenizer"},
                "data": {"curated": corpus},
                "steps": settings.base["steps"] * 2**attempt,
            },
        )
        train(_settings(tree, folder, seed, name), progress=progress)
        skill = measure_skill(folder / "final", settings.world, settings.seed, folder)
        if skill["least"] >= settings.gates.skill or attempt + 1 == settings.base_attempts:
            record = {"seed": seed, "model": name, "attempts": attempt + 1, "skill": skill["least"]}
            write_text(record_file(settings, f"skill-{seed}"), json.dumps(record, indent=1))
            return


def make_rung(settings: StudySettings, run: Run, progress: Progress) -> None:
    """Give the skill base a habit by mid-training, and measure the rung's base. The record says whether gates held."""
    from dataclasses import asdict

    from tracekit.study.tasks.base_skill import measure_skill
    from tracekit.study.tasks.pass_rate import measure_pass_rate

    started = time.perf_counter()
    rung, world = settings.rungs[run.rung], settings.world
    problems = read_table(_problems_file(settings, "test-test"), PROBLEMS)
    skill_record = json.loads(record_file(settings, f"skill-{run.seed}").read_text(encoding="utf-8"))
    model = run_folder(settings, skill_record["model"]) / "final"
    if rung.steps:
        model = _mid_train(settings, run, model, problems, progress)
    skill = measure_skill(model, world, settings.seed, settings.output / "measures" / run.name)
    rate = measure_pass_rate(model, problems, world, settings.evaluation.pass_samples, settings.seed)
    record = {
        **_identity(settings, run),
        "model": str(model.relative_to(settings.output)),
        "skill": skill["least"],
        "elicited": skill["elicited"],
        "pass_rate": {**asdict(rate), "total": rate.total},
        "gates_passed": skill["least"] >= settings.gates.skill and rate.total <= rung.pass_rate,
        **_measured(settings, run, model, "test", progress),
        **_probed(settings, run, model),
        "seconds": round(time.perf_counter() - started, 1),
    }
    write_text(record_file(settings, run.name), json.dumps(record, indent=1))


def _mid_train(settings: StudySettings, run: Run, start: Path, problems: pl.DataFrame, progress: Progress) -> Path:
    """The checkpoint of the rung's mid-training that its rule chooses."""
    from tracekit.study.tasks.pass_rate import first_token_rate
    from trainer.train import train

    rung, folder = settings.rungs[run.rung], run_folder(settings, run.name)
    world = settings.world.model_copy(update={"habit": rung.habit, "worked_share": 0.5})
    tree = lay_over(settings.mid_training, rung.recipe)
    corpus = settings.output / "world" / f"corpus-{run.name}.parquet"
    write_table(corpus_table(world, tree["batch"]["rows"] * rung.steps, 1_000 + run.seed), corpus, CURATED)
    kept = tuple(range(rung.every, rung.steps + 1, rung.every)) if rung.first else ()
    own = {"model": str(start), "data": {"curated": corpus}, "steps": rung.steps, "checkpoint": {"models_at": kept}}
    train(_settings(lay_over(tree, own), folder, run.seed, run.name), progress=progress)
    for step in kept:
        model = folder / "models" / f"step-{step:06d}"
        if first_token_rate(model, problems) >= (rung.first or 0.0):
            return model
    return folder / "final"


def _identity(settings: StudySettings, run: Run) -> dict[str, Any]:
    return {
        "run": run.name,
        "rung": run.rung,
        "arm": run.arm,
        "seed": run.seed,
        "phase": phase_of(settings, run),
        "commit": commit(),
    }


def _settings(tree: dict[str, Any], folder: Path, seed: int, name: str) -> TrainSettings:
    return build_settings(TrainSettings, tree | {"output": folder, "seed": seed, "threads": 1}, name)


def model_of(settings: StudySettings, run: Run) -> Path:
    """The checkpoint of a run: that of a rung's base is its last block's."""
    if run.arm != BASE:
        return run_folder(settings, run.name) / "final"
    record = json.loads(record_file(settings, run.name).read_text(encoding="utf-8"))
    return settings.output / str(record["model"])


# ---------------------------------------------------------------- arms


def arm_settings(settings: StudySettings, run: Run, model: Path) -> TrainSettings:
    """The TrainSettings of an arm at a rung that starts from `model`."""
    arm = settings.arms[run.arm]
    data = {
        "curated": _flagged_file(settings, arm.teacher, arm.split),
        "problems": _problems_file(settings, f"{arm.split}-train"),
    }
    tree = lay_over(settings.recipe, arm.recipe)
    tree = lay_over(tree, {"model": str(model), "data": data})
    teacher = teacher_of(settings, run)
    if teacher is not None:
        tree = lay_over(tree, {"distill": {"model": str(run_folder(settings, teacher.name) / "final")}})
    return _settings(tree, run_folder(settings, run.name), run.seed, f"arm {run.arm}")


def check_arm(settings: StudySettings, run: Run) -> None:
    """Raise a ValueError where an arm's recipe cannot be run, before anything is begun."""
    arm_settings(settings, run, run_folder(settings, "skill"))


def train_and_measure(settings: StudySettings, run: Run, progress: Progress) -> None:
    """Train an arm, measure its checkpoint, and leave its record and curve."""
    from tracekit.study.steps.forgetting import measure_forgetting
    from tracekit.study.tasks.base_skill import measure_skill
    from trainer.train import train

    started = time.perf_counter()
    folder = run_folder(settings, run.name)
    train(arm_settings(settings, run, model_of(settings, start_of(settings, run))), progress=progress)
    trained = time.perf_counter() - started
    curve = pl.read_parquet(folder / "metrics.parquet")
    skill = measure_skill(folder / "final", settings.world, settings.seed, folder)
    split = settings.arms[run.arm].split
    record = {
        **_identity(settings, run),
        "skill": skill["least"],
        "elicited": skill["elicited"],
        **_measured(settings, run, folder / "final", split, progress),
        **_spent(curve),
        **_probed(settings, run, folder / "final"),
        **measure_forgetting(
            folder / "final",
            model_of(settings, Run(run.rung, BASE, run.seed)),
            read_table(_problems_file(settings, f"{split}-test"), PROBLEMS),
            settings.world,
            settings.seed,
        ),
        "seconds_training": round(trained, 1),
        "seconds": round(time.perf_counter() - started, 1),
    }
    if "reward_on_policy" in curve.columns:
        kept = ("step", "reward_on_policy", "rollout_entropy", "tokens_sampled", "flops_rollout", "flops_update")
        write_table(curve.select(name for name in kept if name in curve.columns), curve_file(settings, run.name))
    write_text(record_file(settings, run.name), json.dumps(record, indent=1))


def _spent(curve: pl.DataFrame) -> dict[str, Any]:
    """FLOPs by formula, and of RL the rounds until solved."""
    columns = [name for name in ("flops", "flops_rollout", "flops_update") if name in curve.columns]
    spent: dict[str, Any] = {"flops": sum(float(curve[name].sum()) for name in columns), "steps": curve.height}
    if "reward_on_policy" in curve.columns:
        found = time_to_solve(curve["reward_on_policy"].fill_null(0.0).to_list())
        spent["rounds_to_solve"] = {"value": found.value, "solved": found.solved}
        spent["right_rollouts_early"] = float(curve["reward_on_policy"].fill_null(0.0)[:10].sum())
    return spent


def _measured(settings: StudySettings, run: Run, model: Path, split: str, progress: Progress) -> dict[str, Any]:
    """Greedy accuracy, accuracy by temperature, and the vote of the samples at temperature 1."""
    from trainer.evaluate import EvaluateSettings, evaluate_model

    tree = {
        "name": run.arm,
        "temperatures": TEMPERATURES,
        "samples": settings.evaluation.samples,
        "max_tokens": settings.evaluation.max_tokens,
        "prompt_tokens": PROMPT_TOKENS,
        "seed": settings.seed,
        "threads": 1,
    }
    problems = read_table(_problems_file(settings, f"{split}-test"), PROBLEMS)
    folder = settings.output / "measures" / run.name
    completions = evaluate_model(model, problems, build_settings(EvaluateSettings, tree, run.name), folder, progress)
    shares = completions.group_by("temperature").agg(pl.col("reward").mean()).sort("temperature")
    by_temperature = {f"{t:g}": round(float(r), 6) for t, r in shares.iter_rows()}
    return {
        "greedy": by_temperature["0"],
        "accuracy": by_temperature,
        "vote": _vote(completions.filter(pl.col("temperature") == 1.0)),
        "problems": problems.height,
        **_strategies(settings, completions),
    }


def _strategies(settings: StudySettings, completions: pl.DataFrame) -> dict[str, Any]:
    """Share of the right samples at temperature 1 that merge steps; {} where the corpus has no merged logs."""
    if not settings.world.merged:
        return {}
    right = completions.filter((pl.col("temperature") == 1.0) & (pl.col("outcome") == "correct"))
    ways = [strategy_of(*row) for row in right.select("problem", "response").iter_rows()]
    return {"merged": ways.count("merged") / len(ways) if ways else 0.0, "right_samples": len(ways)}


def _probed(settings: StudySettings, run: Run, model: Path) -> dict[str, Any]:
    """What a probe reads from a checkpoint in the cell that is probed; {} where nothing is."""
    from tracekit.study.steps.rung_probing import measure_probe

    if run.arm not in settings.probed() or run.rung not in settings.probing.rungs:
        return {}
    return {"probe": measure_probe(settings, model, settings.output / "measures" / run.name)}


def _vote(samples: pl.DataFrame) -> float:
    """Share of problems whose most frequent answer is right; a tie earns the share of its answers that are right."""
    answers = samples.drop_nulls("prediction").group_by("problem_id", "prediction")
    counted = answers.agg(pl.len().alias("votes"), pl.col("reward").first())
    top = counted.filter(pl.col("votes") == pl.col("votes").max().over("problem_id"))
    right = float(top.group_by("problem_id").agg(pl.col("reward").mean())["reward"].sum())
    return right / samples["problem_id"].n_unique()


def perform_rung_job(settings: StudySettings, job: Job, progress: Progress) -> None:
    """Do one job. Done again after a kill it goes on from its own files."""
    kind, _, name = job.name.partition("-")
    if kind == "world":
        make_world(settings, progress)
    elif kind == "skill":
        make_skill_base(settings, int(name), progress)
    else:
        run = next(run for run in runs_of(settings) if run.name == name)
        do: Callable[[StudySettings, Run, Progress], None] = make_rung if run.arm == BASE else train_and_measure
        do(settings, run, progress)
