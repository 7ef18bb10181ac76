"""`tracekit study`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, Literal

from tracekit.cli.app import GATE_FAILED
from tracekit.cli.arguments import print_json, recipe_and_settings
from tracekit.core.progress import draw_progress
from tracekit.core.settings import SettingsError, load_settings
from tracekit.study.grid import PHASE, run_grid
from tracekit.study.preregistration import registered_by
from tracekit.study.run import QUICK, QUICK_REGISTRATION, run_study
from tracekit.study.settings import StudySettings


def command_study(
    recipe: Path | None = None,
    *overrides: str,
    output: Path | None = None,
    dry_run: bool = False,
    hardware: str | None = None,
    json: bool = False,
    launcher: Literal["local", "slurm"] = "local",
) -> None:
    """Run a study: world, curation, base, arms, evaluation, probes, report.

    Without a recipe: the quick study, four bases, two cells and three arms with registered claims, about 15 minutes
    on two cores. Killed, the same command goes on. Ends with code 3 where a gate failed.

    With --dry-run nothing is made or trained: the jobs are counted, hours and memory of each arm told by formula. What
    that assumes can be set: work.response_tokens=3000, hardware.devices=16.

    Example: tracekit study studies/luffy.toml seeds='[0, 1]' output=runs/luffy

    Parameters
    ----------
    recipe
        A TOML file; its keys are those of StudySettings.
    overrides
        key=value or key.sub=value, laid over the recipe.
    output
        The study's folder; the same as output=FOLDER.
    dry_run
        Plan, and print the plan.
    hardware
        For the dry run: a100, h100, h800, h200 (8 of them unless hardware.devices says otherwise) or core.
    json
        Print one JSON object: the report, gates, claims and what was measured on each arm; with --dry-run the plan.
    launcher
        local: workers are processes of this machine. slurm: print a batch script for an array of `workers` tasks and
        submit it; words that begin with sbatch= are further options of it, such as sbatch=--gres=gpu:1. When the array
        has ended, the same command without it writes the report.
    """
    if recipe is not None and str(recipe) == "register":
        _register(overrides, json)
        return
    recipe, overrides = recipe_and_settings(recipe, overrides, "tracekit.study", output)
    options = [word.removeprefix("sbatch=") for word in overrides if word.startswith("sbatch=")]
    overrides = tuple(word for word in overrides if not word.startswith("sbatch="))
    if options and launcher != "slurm":
        raise SettingsError(f"sbatch={options[0]} belongs to --launcher slurm.")
    assumed = [word for word in overrides if word.startswith(("work.", "hardware."))]
    if not dry_run and assumed:
        raise SettingsError(f"{assumed[0]}: what is assumed of a run belongs to --dry-run.")
    settings = load_settings(StudySettings, recipe or QUICK, [word for word in overrides if word not in assumed])
    if dry_run:
        _print_plan(settings, assumed, hardware, json)
        return
    if settings.grid:
        with draw_progress() as progress:
            run_grid(recipe or QUICK, overrides, settings.grid, progress=progress)
        if json:
            print_json({"phase_diagram": settings.output / PHASE})
        else:
            print(f"phase diagram: {settings.output / PHASE}")
        return
    if recipe is None:
        settings = registered_by(settings, QUICK_REGISTRATION)
    elif settings.registration is not None and not settings.registration.exists():
        beside = recipe.with_name(settings.registration.name)  # where recipes come with an installed package
        settings = settings.model_copy(update={"registration": beside}) if beside.exists() else settings
    if launcher == "slurm":
        _submit(settings, options)
        return
    with draw_progress() as progress:
        result = run_study(settings, progress=progress)
    if json:
        print_json({"output": settings.output, **result})
    else:
        _print_result(settings, result)
    if not all(gate["passed"] for gate in result["gates"]):
        sys.exit(GATE_FAILED)


def _print_result(settings: StudySettings, result: dict[str, Any]) -> None:
    if settings.rungs:
        _print_claims(result)
    else:
        _print_accuracies(settings, result)
    _print_gates(settings, result)


def _submit(settings: StudySettings, options: list[str]) -> None:
    """Print the array of workers and submit it, unless the study is done."""
    from tracekit.study.launchers import slurm_script, submit
    from tracekit.study.run import prepare_study
    from tracekit.study.tasks import task_of

    board = prepare_study(settings)
    if board.all_done():
        print("every job is done; the command without --launcher writes the report.")
        return
    script = slurm_script(settings.output, settings.workers, options, task_of(settings).environment)
    print(script)
    path, answer = submit(settings.output, script)
    print(answer or f"no sbatch on this machine; submit it elsewhere with: sbatch {path}")


def _register(words: tuple[str, ...], json: bool) -> None:
    """`tracekit study register RECIPE`: write the registration that the recipe names."""
    from tracekit.study.preregistration import register

    recipe, overrides = (Path(words[0]), words[1:]) if words else (None, ())
    if recipe is None:
        raise SettingsError("register which study? Expected: tracekit study register RECIPE.")
    settings = load_settings(StudySettings, recipe, list(overrides))
    if not settings.rungs or settings.registration is None:
        raise SettingsError(f"{recipe} has no rungs, or names no registration; expected registration = PATH.")
    found = register(settings, settings.registration)
    if json:
        print_json({"registration": settings.registration, "claims": len(found["claims"]), "sha256": found["hash"]})
        return
    print(f"registered {len(found['claims'])} claims on {found['bases']} bases: {settings.registration}")
    print(f"SHA-256 {found['hash']}")


def _print_plan(settings: StudySettings, assumed: list[str], hardware: str | None, json: bool) -> None:
    from rich.console import Console

    from tracekit.study.plan import plan_study, plan_table, told

    console, plan = Console(), plan_study(settings, assumed, hardware)
    if json:
        print_json(plan)
        return
    console.print(plan_table(settings, plan))
    for line in told(plan):
        console.print(line, markup=False, highlight=False)


def _print_claims(result: dict[str, Any]) -> None:
    """The findings of a study with rungs: its sentences, then each claim with its conclusion."""
    from rich.console import Console
    from rich.table import Table

    from tracekit.study.report.answers import conclusion_of
    from tracekit.study.report.rung_report import interval_of

    console = Console()
    for sentence in result["sentences"]:
        console.print(f"- {sentence}", markup=False, highlight=False)
    table = Table(title=result["registration"], title_justify="left")
    for column in ("claim", "conclusion", "estimate [95 %]", "p"):
        table.add_column(column, justify="left")
    for row in result["claims"]:
        table.add_row(f"{row['id']} {row['claim']}", conclusion_of(row), interval_of(row), f"{row['p_holm']:.3g}")
    console.print(table)


def _print_accuracies(settings: StudySettings, result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="greedy accuracy / pass@k / maj@k, %", title_justify="left")
    splits = list(next(iter(result["arms"].values())))
    for column in ("arm", *splits):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm, by_split in result["arms"].items():
        cells = []
        for split, found in by_split.items():
            k = settings.samples_of(split)
            shown = [found[key] for key in ("greedy", f"pass@{k}", f"majority@{k}") if key in found]
            cells.append(" / ".join(f"{100 * one['value']:.0f}" for one in shown))
        table.add_row(arm, *cells)
    console.print(table)


def _print_gates(settings: StudySettings, result: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    for gate in result["gates"]:
        word = "passed" if gate["passed"] else "FAILED"
        console.print(f"{word}  {gate['name']}: {gate['value']:.3g}, {gate['needs']} {gate['threshold']:g}")
    console.print(f"report: {settings.output / 'report.html'}", markup=False, highlight=False)
