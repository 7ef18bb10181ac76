"""What a study does, job by job: the graph, and the rooms that each job calls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from tracekit.config import build_settings
from tracekit.runs import Progress
from tracekit.study.jobs import Job
from tracekit.study.materials import (
    corpus_file,
    curate_traces,
    curated,
    curated_file,
    make_corpus,
    make_pairs,
    make_world,
    roll_out,
    text_file,
)
from tracekit.study.places import (
    measures_folder,
    model_folder,
    pairs_folder,
    probing_sources,
    probing_traces,
    states_folder,
)
from tracekit.study.settings import BASE, StudySettings

#: Stages in the order in which their ready jobs are taken: what others wait for first, and the one long job of
#: probing before the many of evaluation.
STAGES = ("world", "curate", "pretrain", "pairs", "train", "rollouts", "states", "probe", "explore", "evaluate")


def jobs_of(settings: StudySettings) -> list[Job]:
    """The graph of a study. Its order is the order in which ready jobs are taken."""
    jobs = [Job("world", "world"), Job("curate", "curate", ("world",))]
    asked = settings.probing.own_rollouts if settings.probed() else ()
    own = [f"rollouts-{arm}-{settings.seeds_of(arm)[0]}" for arm in asked]
    for name in own:
        jobs.append(Job(name, "rollouts", (f"train-{name.removeprefix('rollouts-')}",)))
    for arm, seed in settings.runs():
        run = f"{arm}-{seed}"
        trained = f"train-{run}"
        if arm == BASE:
            jobs.append(Job(f"corpus-{run}", "world"))
            jobs.append(Job(trained, "pretrain", ("world", f"corpus-{run}")))
        else:
            start = f"{settings.arms[arm].start}-{seed}"
            needs = ["curate", f"train-{start}"]
            if settings.arms[arm].recipe.get("method") == "dpo":
                needs.append(f"pairs-{start}")
                jobs.append(Job(f"pairs-{start}", "pairs", ("curate", f"train-{start}")))
            jobs.append(Job(trained, "train", tuple(needs)))
        jobs.append(Job(f"evaluate-{run}", "evaluate", (trained,)))
        jobs.append(Job(f"tokens-{run}", "explore", (trained, f"train-{BASE}-{seed}")))
        if arm in settings.probed():
            jobs.append(Job(f"states-{run}", "states", (trained, *own)))
    if settings.probed():
        jobs.append(Job("probe", "probe", tuple(job.name for job in jobs if job.stage == "states")))
    return sorted({job.name: job for job in jobs}.values(), key=lambda job: STAGES.index(job.stage))


def perform(settings: StudySettings, job: Job, progress: Progress) -> None:
    """Do one job. Done again after a kill it goes on from its own files."""
    kind, _, run = job.name.partition("-")
    if not run:
        _WHOLE[kind](settings, progress)
    else:
        arm, _, seed = run.rpartition("-")
        _OF_RUN[kind](settings, arm, int(seed), progress)


# ---------------------------------------------------------------- the jobs


def _train(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from trainer.train import train

    if arm == BASE:
        _pretrain(settings, seed, progress)
    else:
        train(train_settings(settings, arm, seed), progress=progress)


def _pretrain(settings: StudySettings, seed: int, progress: Progress) -> None:
    """Train a base until it has the skill: where it has not formed, anew and twice as long.

    When the skill forms differs between seeds by hundreds of steps. The failed ones stay beside, as base-SEED-failed-1;
    their number says which attempt this is, so that a killed job goes on with its own.
    """
    from tracekit.study.skill import measure_skill
    from trainer.train import train

    folder = model_folder(settings, BASE, seed).parent
    for attempt in range(settings.base_attempts):
        failed = folder.with_name(f"{folder.name}-failed-{attempt + 1}")
        if failed.exists():
            continue
        train(train_settings(settings, BASE, seed, attempt), progress=progress)
        skill = measure_skill(folder / "final", settings.world, settings.seed, measures_folder(settings, BASE, seed))
        if skill["least"] >= settings.gates.skill or attempt + 1 == settings.base_attempts:
            return
        folder.rename(failed)


def train_settings(settings: StudySettings, arm: str, seed: int, attempt: int = 0) -> Any:
    """The TrainSettings of an arm's run: the study's shared recipe, the arm's laid over it, the paths.

    attempt: of a base; each takes twice the steps, or epochs, of the one before.
    """
    from trainer.config import TrainSettings

    world = settings.output / "world"
    paths: dict[str, Any] = {"output": model_folder(settings, arm, seed).parent, "seed": seed, "threads": 1}
    own: dict[str, Any]
    if arm == BASE:
        own = {"new_model": {"tokenizer": world / "tokenizer"}, "data": {"curated": corpus_file(settings, seed)}}
        tree = lay_over(settings.base, own)
        if attempt:
            length = "steps" if "steps" in settings.base else "epochs"  # a recipe has one of them, or one epoch
            tree[length] = settings.base.get(length, 1) * 2**attempt
    else:
        tree = lay_over(settings.recipe, settings.arms[arm].recipe)
        start = settings.arms[arm].start
        own = {
            "model": str(model_folder(settings, start, seed)),
            "data": _tables(settings, str(tree.get("method")), start, seed),
        }
        tree = lay_over(tree, own)
    return build_settings(TrainSettings, tree | paths, f"arm {arm}")


def _tables(settings: StudySettings, method: str, start: str, seed: int) -> dict[str, Path]:
    """The tables that a method reads."""
    if method in ("pretrain", "cpt"):
        return {"text": text_file(settings)}
    if method == "dpo":
        return {"curated": pairs_folder(settings, start, seed) / "pairs.parquet"}
    return {"curated": curated_file(settings), "problems": settings.output / "world" / "train" / "problems.parquet"}


def lay_over(tree: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`tree` with `changes` laid over it, table by table."""
    merged = dict(tree)
    for key, value in changes.items():
        below = merged.get(key)
        merged[key] = lay_over(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def _evaluate(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from tracekit.study.measure import evaluate_run

    evaluate_run(settings, arm, seed, progress)


def _tokens(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from tracekit.study.exploration import measure_teacher_tokens

    measure_teacher_tokens(
        model_folder(settings, arm, seed),
        model_folder(settings, BASE, seed),
        curated(settings),
        measures_folder(settings, arm, seed),
    )


def _states(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from probes.states import Reading, extract_states

    reading = Reading(positions=(settings.probing.position,), log_probs=arm == BASE)
    for source in probing_sources(settings):
        traces, steps = probing_traces(settings, source)
        folder = states_folder(settings, source, arm, seed)
        extract_states(model_folder(settings, arm, seed), traces, steps, folder, reading, progress=progress)


def _probe(settings: StudySettings, progress: Progress) -> None:
    from tracekit.study.probing import probe_runs

    probe_runs(settings, progress)


_WHOLE: dict[str, Callable[[StudySettings, Progress], None]] = {
    "world": make_world,
    "curate": curate_traces,
    "probe": _probe,
}
_OF_RUN: dict[str, Callable[[StudySettings, str, int, Progress], None]] = {
    "corpus": make_corpus,
    "train": _train,
    "pairs": make_pairs,
    "rollouts": roll_out,
    "evaluate": _evaluate,
    "tokens": _tokens,
    "states": _states,
}
