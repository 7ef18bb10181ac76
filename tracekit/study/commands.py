"""`tracekit study`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tracekit.cli import GATE_FAILED
from tracekit.config import load_settings
from tracekit.progress import draw_progress
from tracekit.study.grid import PHASE, run_grid
from tracekit.study.run import QUICK, run_study
from tracekit.study.settings import StudySettings


def command_study(recipe: Path | None = None, *overrides: str) -> None:
    """Run a study: world, curation, base, arms, evaluation, probes, report.

    Without a recipe: the quick study, one seed and three arms, under ten minutes on two cores. Killed, the same
    command goes on. Ends with code 3 where a gate failed.

    Example: tracekit study studies/luffy.toml seeds='[0, 1]' output=runs/luffy

    Parameters
    ----------
    recipe
        A TOML file; its keys are those of StudySettings.
    overrides
        key=value or key.sub=value, laid over the recipe.
    """
    if recipe is not None and "=" in str(recipe) and not recipe.exists():  # `tracekit study output=…`
        recipe, overrides = None, (str(recipe), *overrides)
    settings = load_settings(StudySettings, recipe or QUICK, overrides)
    if settings.grid:
        with draw_progress() as progress:
            run_grid(recipe or QUICK, overrides, settings.grid, progress=progress)
        print(f"phase diagram: {settings.output / PHASE}")
        return
    with draw_progress() as progress:
        result = run_study(settings, progress=progress)
    _print(settings, result)
    if not all(gate["passed"] for gate in result["gates"]):
        sys.exit(GATE_FAILED)


def _print(settings: StudySettings, result: dict[str, Any]) -> None:
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
    for gate in result["gates"]:
        word = "passed" if gate["passed"] else "FAILED"
        console.print(f"{word}  {gate['name']}: {gate['value']:.3f}, {gate['needs']} {gate['threshold']:g}")
    console.print(f"report: {settings.output / 'report.html'}", markup=False, highlight=False)
