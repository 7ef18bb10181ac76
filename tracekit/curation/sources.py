"""The first stage: every source is read once, into problems and into traces that lie by partition."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.ids import file_digest
from tracekit.core.runs import Progress, write_text
from tracekit.core.tables import PROBLEMS, STEPS, TRACES, empty
from tracekit.curation.operator_files import load_operators
from tracekit.curation.partitions import Partition, Spill, write_partitions
from tracekit.curation.settings import CurateSettings
from tracekit.curation.stage_cache import Stages
from tracekit.curation.streams import table_writer
from tracekit.reading.readers import DETAILS, LOST, Part, SourceError, SourceSettings, iterate_source, source_files

#: Raised when this stage's code changes what it writes.
VERSION = 8
#: Problems collected before those that were read twice are dropped.
_COMPACT = 100_000


def source_stage(settings: CurateSettings, stages: Stages, progress: Progress) -> Path:
    """problems, traces, details, given_steps and lost (.parquet), reading.json and partitions.json.

    The traces lie by partition, and within one in the order of the sources.
    """

    def make(folder: Path) -> None:
        (folder / "spill").mkdir()
        spill, problems, readings = Spill(folder / "spill"), _Problems(), dict[str, Any]()
        with table_writer(folder / "lost.parquet", LOST) as lost:
            for source in settings.sources:
                for part in iterate_source(source, settings.data):
                    lost.write(part.lost)
                    readings.setdefault(source.path, part.reading())
                    problems.add(part.problems)
                    beside = part.details.unique("trace_id")
                    traces = part.traces.join(beside, on="trace_id", how="left", maintain_order="left")
                    spill.add(part.problems, traces, part.steps)
                    progress("sources", spill.rows, 0, part.where)
        write_text(folder / "reading.json", json.dumps(readings, ensure_ascii=False, indent=1))
        unique, same = merge_shared(problems.unique())
        unique.write_parquet(folder / "problems.parquet")
        if not spill.rows:
            raise SourceError(
                f"the sources hold {unique.height:,} problems and no responses; collect them (tracekit collect "
                "problems=FILE), or name their column with --map response=COLUMN."
            )
        write_partitions(_write_traces(spill, same, folder), folder)
        shutil.rmtree(folder / "spill")

    inputs: dict[str, Any] = {"version": VERSION}
    inputs["sources"] = [source_inputs(source, settings.data) for source in settings.sources]
    if own_formats := load_operators(settings.operators).format_digests():
        inputs["formats"] = own_formats
    return stages.build("sources", inputs, make)


def _write_traces(spill: Spill, same: pl.DataFrame, folder: Path) -> list[Partition]:
    partitions: list[Partition] = []
    with (
        table_writer(folder / "traces.parquet", TRACES) as written,
        table_writer(folder / "details.parquet", DETAILS, row_group=100_000) as details,
        table_writer(folder / "given_steps.parquet", STEPS) as given,
    ):
        for traces, steps, size in spill.partitions():
            starts = written.rows, given.rows
            written.write(_with_shared_ids(traces, same))
            details.write(traces)
            given.write(steps)
            partitions.append(
                Partition(len(partitions), starts[0], written.rows, starts[1], given.rows, size),
            )
    return partitions


def _with_shared_ids(traces: pl.DataFrame, same: pl.DataFrame) -> pl.DataFrame:
    """Traces under the ids of the problems that stand for theirs. Raises SourceError where a trace was read twice."""
    ids = traces["trace_id"]
    if ids.n_unique() < len(ids):
        twice = ids.filter(ids.is_duplicated())[0]
        raise SourceError(f"trace {twice} is read from two sources; name each file in one source, or name them apart.")
    if not same.height:
        return traces
    named = traces.join(same, on="problem_id", how="left", maintain_order="left")
    return named.with_columns(pl.coalesce("first", "problem_id").alias("problem_id")).drop("first")


class _Problems:
    """The problems read so far, each once."""

    def __init__(self) -> None:
        self._parts = [empty(PROBLEMS)]
        self._rows = 0

    def add(self, problems: pl.DataFrame) -> None:
        self._parts.append(problems)
        self._rows += problems.height
        if self._rows > 2 * self._parts[0].height + _COMPACT:
            self.unique()

    def unique(self) -> pl.DataFrame:
        """Each problem as it was first read, in that order."""
        self._parts = [pl.concat(self._parts).unique("problem_id", keep="first", maintain_order=True)]
        self._rows = self._parts[0].height
        return self._parts[0]


def merge_shared(problems: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Problems with those merged that two sources share; and problem_id → `first`, the id that stands for it.

    The same text with the same gold and split is one problem: two teachers' traces of it stand side by side, and none
    is lost as the trace of a duplicate problem.
    """
    first = problems.with_columns(first=pl.col("problem_id").first().over("problem", "gold", "split"))
    again = first.filter(pl.col("first") != pl.col("problem_id"))
    return first.filter(pl.col("first") == pl.col("problem_id")).drop("first"), again.select("problem_id", "first")


def source_inputs(source: SourceSettings, data: Path) -> dict[str, Any]:
    """What decides the rows of a source: its settings and the digests of its files."""
    asked = [data / source.requests] if source.requests else []
    files = [(file.name, file_digest(file)) for file in (*files_of(source, data), *asked)]
    return {**source.model_dump(mode="json", exclude={"licence"}), "files": files}


def files_of(source: SourceSettings, data: Path) -> list[Path]:
    """The files a source is made of; none for a hub name."""
    path = data / source.path
    own = [path / f"{name}.parquet" for name in ("problems", "traces", "steps")]
    return [f for f in own if f.is_file()] if own[0].is_file() else source_files(source, data)


__all__ = ["Part", "files_of", "merge_shared", "source_inputs", "source_stage"]
