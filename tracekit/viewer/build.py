"""Run folders → a folder of scripts that a browser opens from disk.

The index holds what lists, filters and plots need, in columns; texts lie in shards of about a megabyte that
the page loads when a trace is opened.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core import pages
from tracekit.core.folders import check_replaceable, replace_folder
from tracekit.core.runs import Progress, no_progress
from tracekit.core.tables import STEP_KINDS
from tracekit.text.segment import segment, split_response
from tracekit.viewer.index import index_of
from tracekit.viewer.pairs import write_pairs
from tracekit.viewer.run_data import Material, ViewError, join_materials, read_material
from tracekit.viewer.scripts import write_script

PAGE = Path(__file__).parent / "page"
#: The colours that every page shares.
TOKENS = Path(pages.__file__).with_name("tokens.css")

#: A shard ends with the row that passes either: small enough to load between two frames' worth of patience.
SHARD_CHARACTERS, SHARD_ROWS = 1_000_000, 512


def copy_page(folder: Path) -> None:
    """Copy the page's own files, which read `data/` beside them, into `folder`."""
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    shutil.copy(TOKENS, folder)


def build_view(*runs: str | Path, out: str | Path | None = None, progress: Progress = no_progress) -> Path:
    """Write the page of one or more run folders.

    Runs that are shown together share their problems, so that a student's rollouts stand beside the teacher's trace.

    Parameters
    ----------
    *runs : str or Path
        Folders of `curate`, `train`, `evaluate` or `probe apply`.
    out : str or Path, optional
        Folder of the page; None: RUN/view of the first run. A folder that holds anything but an earlier page is never
        replaced.
    progress : callable, optional
        Called as progress(stage, done, total, note).

    Returns
    -------
    Path
        The page's index.html.

    Raises
    ------
    ViewError
        Where a folder holds no run.
    FolderError
        Where `out` holds other files.
    TableError
        Where a table of a run is damaged.

    Examples
    --------
    >>> from tracekit import CurateSettings, build_view, curate, load_settings
    >>> source = 'sources=[{path="traces.jsonl", map={problem="question", gold="answer", response="generation"}}]'
    >>> run = curate(load_settings(CurateSettings, overrides=[source, "output=runs/docs"]))
    >>> build_view(run).name
    'index.html'
    """
    if not runs:
        raise ViewError("no run to show; name a run folder.")
    folders = [Path(run) for run in runs]
    final = Path(out) if out is not None else folders[0] / "view"
    check_replaceable(final, "view")
    material = join_materials([read_material(folder) for folder in folders])
    title = ", ".join(folder.resolve().name for folder in folders)
    with replace_folder(final, "view") as folder:
        copy_page(folder)
        _write_data(folder / "data", material, title, progress)
    return final / "index.html"


def _write_data(folder: Path, material: Material, title: str, progress: Progress) -> None:
    folder.mkdir()
    starts: list[int] = []
    characters: list[int] = []
    flaws: list[int] = []
    sides = _Sides(material)
    for start, texts in _shards(material):
        write_script(folder, f"traces-{len(starts)}", sides.shard(start, texts, flaws))
        starts.append(start)
        characters += map(len, texts)
        progress("view", start + len(texts), material.rows.height, "")
    if len(characters) != material.rows.height:
        raise ViewError(f"{title}: {material.rows.height} rows but {len(characters)} texts; write the tables again.")
    pairs = write_pairs(folder, material)
    write_script(folder, "index", index_of(material, title, starts, characters, flaws, pairs))


def _shards(material: Material) -> Iterator[tuple[int, list[str]]]:
    """(first row, its responses), cut by size."""
    start, texts, size = 0, [], 0
    for batch in material.responses():
        for text in batch:
            texts.append(text)
            size += len(text)
            if size >= SHARD_CHARACTERS or len(texts) >= SHARD_ROWS:
                yield start, texts
                start, texts, size = start + len(texts), [], 0
    if texts:
        yield start, texts


class _Sides:
    """What belongs to a row besides its text, by row number."""

    def __init__(self, material: Material) -> None:
        ids = material.rows.select("row_id").with_row_index("row")
        self._problem_of = material.rows["problem_id"].to_list()
        self._row_ids = material.rows["row_id"].to_list()
        self._has_steps = set(material.steps["trace_id"].unique().to_list())
        self._steps = _Grouped(
            _numbered(material.steps, "trace_id", ids).select("row", "start", "end", "kind", "correct")
        )
        self._verdicts = _Grouped(
            _numbered(material.verdicts, "trace_id", ids).select(
                "row", "verifier", "verifier_version", "outcome", "prediction", "gold", "method", "reason", "seconds"
            )
        )
        self._scores = _Grouped(_numbered(material.scores, "trace_id", ids).select("row", "character", "probability"))
        told = ["row", "stage", "rule", "measured", "threshold", "verdict", "reason"]
        self._decisions = _Grouped(_numbered(material.ledger, "row_id", ids).select(told))
        problem_ids = material.problems.select("problem_id").with_row_index("row")
        by_problem = material.ledger.join(problem_ids, left_on="row_id", right_on="problem_id", how="inner")
        self._problem_decisions = _Grouped(by_problem.sort("row", maintain_order=True).select(told))
        self._problems = material.problems.select("problem", "gold", "kind", "level")
        self._problem_row = dict(zip(problem_ids["problem_id"], problem_ids["row"], strict=True))

    def shard(self, start: int, texts: list[str], flaws: list[int]) -> dict[str, Any]:
        """The script of rows `start` …; appends each row's flaws (bits: 1 wrong calculation, 2 think block open)."""
        rows = range(start, start + len(texts))
        traces = []
        for row, text in zip(rows, texts, strict=True):
            parts = split_response(text)
            steps = self._steps_of(row, text)
            flaws.append((any(step[3] == 0 for step in steps)) | (not parts.closed) << 1)
            scores = [(end, round(1000 * p)) for end, p in self._scores.of(row)]
            traces.append(
                {
                    "text": text,
                    "think": parts.think,
                    "answer": parts.answer,
                    "steps": [value for step in steps for value in step],
                    "verdicts": self._verdicts.of(row),
                    "decisions": self._decisions.of(row),
                    **({"probe": [value for score in scores for value in score]} if scores else {}),
                }
            )
        named = dict.fromkeys(self._problem_of[row] for row in rows)
        return {
            "traces": traces,
            "problems": {name: self._problem(name) for name in named if name in self._problem_row},
        }

    def _steps_of(self, row: int, text: str) -> list[tuple[int, int, int, int]]:
        if self._row_ids[row] in self._has_steps:
            found = [(start, end, kind, correct) for start, end, kind, correct in self._steps.of(row)]
        else:
            found = [(step.start, step.end, step.kind, step.correct) for step in segment(text)]
        return [
            (s, e, STEP_KINDS.index(kind), -1 if correct is None else int(correct)) for s, e, kind, correct in found
        ]

    def _problem(self, name: str) -> list[Any]:
        row = self._problem_row[name]
        return [*self._problems.row(row), self._problem_decisions.of(row)]


class _Grouped:
    """A table sorted by `row`, cut into the rows' parts."""

    def __init__(self, frame: pl.DataFrame) -> None:
        counts = frame.group_by("row", maintain_order=True).len()
        ends = counts["len"].cum_sum()
        self._span = dict(zip(counts["row"], zip(ends - counts["len"], ends, strict=True), strict=True))
        self._frame = frame.drop("row")

    def of(self, row: int) -> list[tuple[Any, ...]]:
        start, end = self._span.get(row, (0, 0))
        return self._frame[start:end].rows() if end > start else []


def _numbered(frame: pl.DataFrame, key: str, ids: pl.DataFrame) -> pl.DataFrame:
    joined = frame.join(ids, left_on=key, right_on="row_id", how="inner", maintain_order="left")
    return joined.sort("row", maintain_order=True)
