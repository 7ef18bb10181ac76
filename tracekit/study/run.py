"""Run a study to its report: the one door of this package."""

from __future__ import annotations

import itertools
import json
import os
from pathlib import Path
from typing import Any

from tracekit.core.runs import RUN_FILE, Progress, no_progress, start_run
from tracekit.core.settings import SettingsError, build_settings
from tracekit.study.jobs import Board, lead
from tracekit.study.pipeline import jobs_of
from tracekit.study.preregistration import begin_registered, check_registration
from tracekit.study.report.report import write_study_report, write_views
from tracekit.study.report.rung_report import write_rung_report
from tracekit.study.rungs import runs_of
from tracekit.study.settings import StudySettings
from tracekit.study.steps.rung_runs import check_arm
from tracekit.study.steps.training import train_settings
from tracekit.study.tasks import task_of

#: The recipe of `tracekit study` without one.
QUICK = Path(__file__).with_name("quick.toml")
QUICK_REGISTRATION = Path(__file__).with_name("quick.prereg.json")

#: What a study writes in its folder, by name: the folders of `tracekit.study.paths`, its jobs and its report.
WRITES = (
    *("run-*.json", "jobs", "world", "data", "curation", "pairs", "models", "measures", "rollouts", "states", "probe"),
    *(
        "views",
        "results",
        "figures",
        "result.json",
        "report.html",
        "report.md",
        "solved.svg",
        "claims.tex",
        "prereg*.json",
    ),
)

INSTALL_SECONDS = "TRACEKIT_INSTALL_SECONDS"  # set by `make study`


def run_study(settings: StudySettings, *, progress: Progress = no_progress) -> dict[str, Any]:
    """Do every job of a study that is not done yet, and write the report.

    After a kill the same call continues. A finished study may grow: with more seeds, more arms, or arms on more seeds
    only what is new is run.

    Parameters
    ----------
    settings : StudySettings
        A recipe; `load_settings` reads one.
    progress : callable, optional
        Called as progress(stage, done, total, note).

    Returns
    -------
    dict
        The content of result.json.

    Raises
    ------
    RunError
        Where the folder holds a study of other settings.
    JobError
        Where a job failed; its log is named.
    RegistrationError
        Where the recipe's registration is of another study.

    Examples
    --------
    >>> from tracekit import StudySettings, load_settings, run_study
    >>> settings = load_settings(StudySettings, overrides=["seeds=[0, 1]"])
    >>> result = run_study(settings)  # doctest: +SKIP
    """
    board = prepare_study(settings)
    if not board.all_done():
        lead(settings.output, board, settings.workers, task_of(settings).environment, progress)
    if settings.rungs:
        return write_rung_report(settings, board.records())
    installed = os.environ.get(INSTALL_SECONDS)
    write_views(settings, progress)
    progress("report", 0, 1)
    result = write_study_report(settings, board.records(), float(installed) if installed else None)
    progress("report", 1, 1)
    return result


def prepare_study(settings: StudySettings) -> Board:
    """Check the settings, lay the run's folder and its board of jobs; raises as `run_study` does."""
    check_study(settings)
    check_registration(settings)
    recorded = settings.model_copy(update={"workers": 1, "output": Path()})  # neither decides a number
    _keep_what_it_grew_from(settings.output / RUN_FILE, recorded)
    folder = start_run(settings.output, recorded, seed=settings.seed, writes=WRITES)
    board = Board(folder, jobs_of(settings))
    board.reopen_outgrown()
    begin_registered(settings, started=bool(board.records()))
    return board


def check_study(settings: StudySettings) -> None:
    """Raise a ValueError where settings or files of this machine cannot carry the study, before anything is begun."""
    task_of(settings).check()
    if settings.rungs:
        for run in runs_of(settings):
            if run.arm in settings.arms:
                check_arm(settings, run)
        return
    for arm in (name for name, one in settings.arms.items() if one.model is None):
        for seed in settings.run_seeds(arm)[:1]:
            train_settings(settings, arm, seed)


def _keep_what_it_grew_from(path: Path, settings: StudySettings) -> None:
    """Lay the record of a smaller study beside, as run-1.json and so on, so that the larger one can begin.

    So too that of the same study by an older release, which did not know every setting.
    """
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))["settings"]
        found = build_settings(StudySettings, recorded, str(path))
    except (FileNotFoundError, json.JSONDecodeError, SettingsError):  # new, or for `start_run` to tell what is wrong
        return
    if recorded != settings.model_dump(mode="json") and settings.grows(found):
        earlier = itertools.count(1)
        path.rename(next(p for number in earlier if not (p := path.with_stem(f"{path.stem}-{number}")).exists()))
