"""What a study does, job by job: the graph, and the rooms that each job calls."""

from __future__ import annotations

from collections.abc import Callable

from tracekit.core.runs import Progress
from tracekit.study.jobs import Job
from tracekit.study.paths import measures_folder, model_folder
from tracekit.study.rungs import rung_jobs
from tracekit.study.settings import BASE, StudySettings
from tracekit.study.steps.evaluation import evaluate_run
from tracekit.study.steps.generated_data import make_pairs, roll_out
from tracekit.study.steps.probing import extract_run_states, probe_runs
from tracekit.study.steps.rung_runs import perform_rung_job
from tracekit.study.steps.training import train_arm, train_base
from tracekit.study.tasks import task_of
from tracekit.study.tasks.embedded import EmbeddedWorld

#: Stages in the order in which their ready jobs are taken: what others wait for first, and the one long job of
#: probing before the many of evaluation.
STAGES = ("world", "curate", "pretrain", "pairs", "train", "rollouts", "states", "probe", "explore", "evaluate")


def jobs_of(settings: StudySettings) -> list[Job]:
    """The graph of a study. Its order is the order in which ready jobs are taken."""
    if settings.rungs:
        return rung_jobs(settings)
    task = task_of(settings)
    jobs = [Job(task.first, "world"), Job("curate", "curate", (task.first,))]
    asked = settings.probing.own_rollouts if settings.probed() else ()
    own = [f"rollouts-{settings.run_name(arm, settings.seeds_of(arm)[0])}" for arm in asked]
    for name in own:
        jobs.append(Job(name, "rollouts", (f"train-{name.removeprefix('rollouts-')}",)))
    for arm, seed in settings.runs():
        run = settings.run_name(arm, seed)
        trained = f"train-{run}"
        if arm == BASE:
            jobs += task.base_jobs(seed)
        else:
            start = settings.run_name(settings.arms[arm].start, seed)
            needs = ["curate", f"train-{start}"]
            if settings.arms[arm].recipe.get("method") == "dpo":
                needs.append(f"pairs-{start}")
                jobs.append(Job(f"pairs-{start}", "pairs", ("curate", f"train-{start}")))
            jobs.append(Job(trained, "train", tuple(needs)))
        jobs.append(Job(f"evaluate-{run}", "evaluate", (trained,)))
        jobs.append(Job(f"tokens-{run}", "explore", (trained, f"train-{settings.run_name(BASE, seed)}")))
        if arm in settings.probed():
            jobs.append(Job(f"states-{run}", "states", (trained, *own)))
    if settings.probed():
        jobs.append(Job("probe", "probe", tuple(job.name for job in jobs if job.stage == "states")))
    return sorted({job.name: job for job in jobs}.values(), key=lambda job: STAGES.index(job.stage))


def perform(settings: StudySettings, job: Job, progress: Progress) -> None:
    """Do one job. Done again after a kill it goes on from its own files."""
    kind, _, run = job.name.partition("-")
    if settings.rungs:
        perform_rung_job(settings, job, progress)
    elif not run:
        _WHOLE[kind](settings, progress)
    else:
        arm, _, seed = run.rpartition("-")
        _OF_RUN[kind](settings, arm, int(seed), progress)


# ---------------------------------------------------------------- the jobs


def _make_problems(settings: StudySettings, progress: Progress) -> None:
    task_of(settings).make_problems(progress)


def _curate(settings: StudySettings, progress: Progress) -> None:
    task_of(settings).curate(progress)


def _corpus(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    EmbeddedWorld(settings).make_corpus(seed)


def _train(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    if arm == BASE:
        task_of(settings).make_base(seed, lambda attempt: train_base(settings, seed, attempt, progress))
    else:
        train_arm(settings, arm, seed, progress)


def _tokens(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    from tracekit.study.steps.exploration import measure_teacher_tokens

    measure_teacher_tokens(
        model_folder(settings, arm, seed),
        model_folder(settings, BASE, seed),
        *task_of(settings).taught(),
        measures_folder(settings, arm, seed),
    )


def _states(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    extract_run_states(settings, arm, seed, progress)


def _probe(settings: StudySettings, progress: Progress) -> None:
    probe_runs(settings, progress)


_WHOLE: dict[str, Callable[[StudySettings, Progress], None]] = {
    "world": _make_problems,
    "sets": _make_problems,
    "curate": _curate,
    "probe": _probe,
}
_OF_RUN: dict[str, Callable[[StudySettings, str, int, Progress], None]] = {
    "corpus": _corpus,
    "train": _train,
    "pairs": make_pairs,
    "rollouts": roll_out,
    "evaluate": evaluate_run,
    "tokens": _tokens,
    "states": _states,
}
