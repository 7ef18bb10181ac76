"""Traces, steps and labels for the commands that probe: from files, or from the folder of a run."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from probes.protocol.trace_sources import rollouts_as_traces
from tracekit.core.tables import COMPLETIONS, STEPS, TableError, read_any_table, read_table
from tracekit.text.segment import segment_traces

#: What a run folder may hold, the first that there is.
_TRACES = ("curated.parquet", "traces.parquet", "completions.parquet")
_NEEDED = ("problem_id", "trace_id", "problem", "response")


def read_source(path: Path, steps: Path | None) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Traces and their steps: as given, as they stand beside the traces, or segmented and tagged by rules.

    path: a Parquet file, or the folder of a curation or an evaluation. Raises TableError.
    """
    file = _traces_file(path)
    traces = read_traces(file)
    if steps is not None:
        return traces, read_table(steps, STEPS)
    beside = file.parent / "steps.parquet"
    if beside.is_file():
        own = read_table(beside, STEPS).filter(pl.col("trace_id").is_in(traces["trace_id"].implode()))
        if set(own["trace_id"]) >= set(traces["trace_id"]):
            return traces, own
    return traces, segment_traces(traces)


def _traces_file(path: Path) -> Path:
    if not path.is_dir():
        return path
    for name in _TRACES:
        if (path / name).is_file():
            return path / name
    raise TableError(f"{path} holds none of {', '.join(_TRACES)}; name the file of the traces.")


def read_traces(path: Path) -> pl.DataFrame:
    """Traces with their problems: any Parquet with the four columns, or COMPLETIONS.

    Problems and verdicts that stand beside the file are joined where their columns are absent. Raises TableError.
    """
    if not path.is_file():
        raise TableError(f"{path} does not exist; expected traces as Parquet.")
    frame = read_any_table(path)
    if "trace_id" not in frame.columns and set(COMPLETIONS) <= set(frame.columns):
        return rollouts_as_traces(frame)
    frame = _with_neighbours(frame, path.parent)
    absent = [c for c in _NEEDED if c not in frame.columns]
    if absent:
        raise TableError(f"{path} has no column {', '.join(absent)}; a curated set has all four.")
    for column in _NEEDED:
        if frame.schema[column] != pl.String:
            raise TableError(f"{path}: {column} is {frame.schema[column]}; expected text (String).")
        if missing := frame[column].null_count():
            raise TableError(f"{path}: {column} is null in {missing} of {len(frame)} rows; drop those rows.")
    if doubled := int(frame["trace_id"].is_duplicated().sum()):
        raise TableError(f"{path}: trace_id repeats in {doubled} rows; keep one row a trace.")
    return frame


def _with_neighbours(frame: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """The traces with `problem` from problems.parquet and `correct` from verdicts.parquet of their folder."""
    problems, verdicts = folder / "problems.parquet", folder / "verdicts.parquet"
    if "problem" not in frame.columns and "problem_id" in frame.columns and problems.is_file():
        frame = frame.join(read_any_table(problems).select("problem_id", "problem"), on="problem_id", how="left")
    if "correct" not in frame.columns and "trace_id" in frame.columns and verdicts.is_file():
        known = pl.col("outcome").is_in(["correct", "wrong", "no_answer"])  # the rest is "don't know"
        right = (
            read_any_table(verdicts)
            .filter(pl.col("verifier") == "evaluators")
            .select("trace_id", correct=pl.when(known).then(pl.col("outcome") == "correct"))
            .unique("trace_id", keep="first", maintain_order=True)
        )
        frame = frame.join(right, on="trace_id", how="left", maintain_order="left")
    return frame
