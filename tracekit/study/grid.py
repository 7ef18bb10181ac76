"""The phase diagram: one study at each point of a grid of settings, and which method goes where.

    [grid]
    "world.habit" = [0.001, 0.003, 0.01, 0.03, 0.1]
    "recipe.rollout.group_size" = [4, 8]

Each point is a study in a folder of its own, resumable like any other; finished points are never repeated.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.folders import claim_folder
from tracekit.core.pages.html_page import Page
from tracekit.core.runs import Progress, no_progress, write_text
from tracekit.core.settings import SettingsError, load_settings
from tracekit.core.tables import write_table
from tracekit.study.report import figures
from tracekit.study.run import run_study
from tracekit.study.settings import StudySettings

#: What a point of the grid tells of an arm: its name there, its key in result.json.
SHOWN = {"greedy accuracy": "greedy", "accuracy at temperature 1": "pass@1"}

PHASE, PHASE_DATA, PHASE_CLAIMS = "phase.html", "phase.parquet", "phase_claims.parquet"


def points_of(grid: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """Every combination of the grid's values: key → value."""
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise SettingsError(f"grid.{key} is {values!r}; expected a list of at least one value.")
    return [dict(zip(grid, combination)) for combination in itertools.product(*grid.values())]


def run_grid(
    recipe: Path, overrides: Sequence[str], grid: Mapping[str, Sequence[Any]], *, progress: Progress = no_progress
) -> pl.DataFrame:
    """Run the study of every point, write two tables and the page beside them, return the first table.

    phase.parquet: the grid's keys, arm, metric ("greedy accuracy", "accuracy at temperature 1"; in distribution, with
    the set's name where there are several), value, low, high, seeds, gates_passed. phase_claims.parquet: the grid's
    keys and the columns of a study's claims.
    """
    rows: list[dict[str, Any]] = []
    claims: list[dict[str, Any]] = []
    points = points_of(grid)
    output = load_settings(StudySettings, recipe, [*overrides, "grid={}"]).output
    claim_folder(output, "grid of studies", (PHASE, PHASE_DATA, PHASE_CLAIMS, "phase.md"))
    for done, point in enumerate(points):
        progress("grid", done, len(points), _name(point))
        laid = [f"{key}={json.dumps(value)}" for key, value in point.items()]
        folder = json.dumps(str(output / _name(point)))
        settings = load_settings(StudySettings, recipe, [*overrides, "grid={}", *laid, f"output={folder}"])
        result = run_study(settings, progress=progress)
        passed = all(gate["passed"] for gate in result["gates"])
        for arm, measured in result["arms"].items():
            for metric, key in SHOWN.items():
                for split in settings.in_distribution:
                    named = metric if len(settings.in_distribution) == 1 else f"{metric}, {split}"
                    rows.append({**point, "arm": arm, "metric": named, **measured[split][key], "gates_passed": passed})
        claims += [{**point, **claim} for claim in result["claims"]]
    progress("grid", len(points), len(points))
    table, said = pl.DataFrame(rows), pl.DataFrame(claims, infer_schema_length=None)
    write_table(table, output / PHASE_DATA)
    write_table(said, output / PHASE_CLAIMS)
    page = _page(table, said, list(grid))
    write_text(output / PHASE, page.render())
    write_text(output / "phase.md", page.render_markdown())
    return table


def _name(point: dict[str, Any]) -> str:
    return "_".join(f"{key.rpartition('.')[2]}-{value}" for key, value in point.items())


def _page(table: pl.DataFrame, claims: pl.DataFrame, keys: list[str]) -> Page:
    failed = table.filter(~pl.col("gates_passed")).select(keys).unique().height
    lead = "Accuracy in distribution of each arm, at each point of the grid."
    lead += f" At {failed} points a gate failed: nothing is concluded there." if failed else ""
    page = Page("The phase diagram: which method goes where", lead)
    page.section("Accuracy over the grid")
    page.figure(f"Accuracy against {keys[0]}, 95 % intervals.", PHASE_DATA, figures.phase_figure, table, keys[0])
    page.table(table)
    page.section("Claims at each point")
    page.text("Each point is a study of its own, with its own gates and its own correction by Holm.")
    page.table(claims.select(*keys, "claim", "effect", "low", "high", "unit", "p", "seeds", "verdict"), digits=2)
    return page
