"""What a study does, job by job: the graph, and the rooms that each job calls."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import polars as pl

from tracekit import world as worlds
from tracekit.config import build_settings
from tracekit.runs import Progress
from tracekit.study.jobs import Job
from tracekit.study.places import (
    PROBE_SPLIT,
    measures_folder,
    model_folder,
    probing_traces,
    problems_of,
    states_folder,
)
from tracekit.study.settings import BASE, SPLITS, StudySettings
from tracekit.tables import CURATED, PROBLEMS, STEPS, TRACES, read_table, write_table

#: Wrong steps among the probing traces: a step's correctness can only be probed where both kinds occur.
PROBE_ERRORS = 0.5


def jobs_of(settings: StudySettings) -> list[Job]:
    """The graph of a study. Its order is the order in which ready jobs are taken."""
    jobs = [Job("world", "world"), Job("curate", "curate", ("world",))]
    for arm, seed in settings.runs():
        run = f"{arm}-{seed}"
        if arm == BASE:
            jobs.append(Job(f"train-{run}", "pretrain", ("world",)))
            jobs.append(Job(f"skill-{run}", "evaluate", (f"train-{run}",)))
        else:
            start = f"train-{settings.arms[arm].start}-{seed}"
            jobs.append(Job(f"train-{run}", "train", ("curate", start)))
        jobs.append(Job(f"evaluate-{run}", "evaluate", (f"train-{run}",)))
        jobs.append(Job(f"tokens-{run}", "explore", (f"train-{run}", f"train-{BASE}-{seed}")))
        jobs.append(Job(f"states-{run}", "states", (f"train-{run}",)))
    # Long work first: whatever order the arms stand in, a training that others wait for is taken before a measure.
    jobs.sort(key=lambda job: ("world", "curate", "pretrain", "train").index(job.stage) if job.stage in _FIRST else 9)
    every = tuple(job.name for job in jobs if job.stage == "states")
    return [*jobs, Job("probe", "probe", (*every, *(f"evaluate-{BASE}-{seed}" for seed in settings.seeds)))]


_FIRST = ("world", "curate", "pretrain", "train")


def perform(settings: StudySettings, job: Job, progress: Progress) -> None:
    """Do one job. Done again after a kill it goes on from its own files."""
    kind, _, run = job.name.partition("-")
    arm, _, seed = run.rpartition("-")
    if not run:
        _WHOLE[kind](settings, progress)
    else:
        _OF_RUN[kind](settings, arm, int(seed), progress)


# ---------------------------------------------------------------- the jobs


def _make_world(settings: StudySettings, progress: Progress) -> None:
    folder, world, counts = settings.output / "world", settings.world, settings.problems
    seen: frozenset[str] = frozenset()
    for split in ("train", *SPLITS, PROBE_SPLIT):
        shape: Any = "test" if split == PROBE_SPLIT else split
        # 1,000,003: probing problems are drawn from the test distribution under a seed that no test set has
        problems = worlds.make_problems(
            world, shape, getattr(counts, split), settings.seed + (1_000_003 if split == PROBE_SPLIT else 0), seen
        )
        seen |= frozenset(problems["problem"])
        write_table(problems, folder / split / "problems.parquet", PROBLEMS)
    teacher = worlds.teach(world, problems_of(settings, "train"), settings.seed)
    _write_traces(settings, "train", teacher, world)
    # of test problems nobody learns: they say which way the teacher would have gone
    _write_traces(settings, "test", worlds.teach(world, problems_of(settings, "test"), settings.seed), world)
    fallible = world.model_copy(update={"teacher_errors": PROBE_ERRORS})
    each = settings.probing.traces_per_problem
    _write_traces(
        settings, PROBE_SPLIT, worlds.teach(fallible, problems_of(settings, PROBE_SPLIT), settings.seed, each), world
    )
    for number, seed in enumerate(settings.seeds):
        progress("corpus", number, len(settings.seeds))
        write_table(worlds.corpus_table(world, settings.corpus, seed), folder / f"corpus-{seed}.parquet", CURATED)
    worlds.write_tokenizer(world, folder / "tokenizer")


def _write_traces(settings: StudySettings, split: str, traces: pl.DataFrame, world: worlds.World) -> None:
    folder = settings.output / "world" / split
    write_table(traces, folder / "traces.parquet", TRACES)
    steps = worlds.label_steps(problems_of(settings, split), traces, world)
    write_table(steps, folder / "steps.parquet", STEPS)


def _curate(settings: StudySettings, progress: Progress) -> None:
    from tracekit.curate import CurateSettings, curate

    tree = {"sources": [str(settings.output / "world" / "train")], "output": settings.output / "curation"}
    curate(build_settings(CurateSettings, tree, "curation"), progress=progress)


def _train(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from trainer.train import train

    train(train_settings(settings, arm, seed), progress=progress)


def train_settings(settings: StudySettings, arm: str, seed: int) -> Any:
    """The TrainSettings of an arm's run: the study's shared recipe, the arm's laid over it, the paths."""
    from trainer.config import TrainSettings

    world = settings.output / "world"
    paths: dict[str, Any] = {"output": model_folder(settings, arm, seed).parent, "seed": seed, "threads": 1}
    own: dict[str, Any]
    if arm == BASE:
        own = {"new_model": {"tokenizer": world / "tokenizer"}, "data": {"curated": world / f"corpus-{seed}.parquet"}}
        tree = lay_over(settings.base, own)
    else:
        start = settings.arms[arm].start
        own = {
            "model": str(model_folder(settings, start, seed)),
            "data": {
                "curated": settings.output / "curation" / "curated.parquet",
                "problems": world / "train" / "problems.parquet",
            },
        }
        tree = lay_over(lay_over(settings.recipe, settings.arms[arm].recipe), own)
    return build_settings(TrainSettings, tree | paths, f"arm {arm}")


def lay_over(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tree` with `changes` laid over it, table by table."""
    merged = dict(tree)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = lay_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _skill(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from tracekit.study.skill import measure_skill

    measure_skill(
        model_folder(settings, arm, seed), settings.world, settings.seed, measures_folder(settings, arm, seed)
    )


def _evaluate(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from tracekit.study.measure import evaluate_run

    evaluate_run(settings, arm, seed, progress)


def _tokens(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from tracekit.study.exploration import measure_teacher_tokens

    curated = read_table(settings.output / "curation" / "curated.parquet", CURATED)
    measure_teacher_tokens(
        model_folder(settings, arm, seed),
        model_folder(settings, BASE, seed),
        curated,
        measures_folder(settings, arm, seed),
    )


def _states(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from probes.states import Reading, extract_states

    traces, steps = probing_traces(settings)
    reading = Reading(positions=(settings.probing.position,), log_probs=arm == BASE)
    extract_states(
        model_folder(settings, arm, seed), traces, steps, states_folder(settings, arm, seed), reading, progress=progress
    )


def _probe(settings: StudySettings, progress: Progress) -> None:
    from tracekit.study.probing import probe_runs

    probe_runs(settings, progress)


_WHOLE: dict[str, Callable[[StudySettings, Progress], None]] = {
    "world": _make_world,
    "curate": _curate,
    "probe": _probe,
}
_OF_RUN: dict[str, Callable[[StudySettings, str, int, Progress], None]] = {
    "train": _train,
    "skill": _skill,
    "evaluate": _evaluate,
    "tokens": _tokens,
    "states": _states,
}
