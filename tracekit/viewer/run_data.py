"""What a page shows, read from run folders: one narrow row a trace, side tables, and the texts as a stream.

A curation and a training run become the same rows, so that a teacher's traces stand beside a student's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as parquet

from tracekit.core.runs import read_json
from tracekit.core.tables import (
    COMPLETIONS,
    CURATED,
    LEDGER,
    PROBLEMS,
    STEPS,
    TRACES,
    VERDICTS,
    Schema,
    conform,
    read_any_table,
    read_table,
)
from tracekit.curation.ledger import fates

#: One row a trace or completion, without its text.
ROWS: Schema = {
    "row_id": pl.String,  # trace_id; for completions model/step or temperature/sample/problem
    "problem_id": pl.String,
    "author": pl.String,
    "teacher": pl.Boolean,  # False for what a trained model sampled itself
    "outcome": pl.String,  # of the deciding verifier; null where there is none
    "prediction": pl.String,
    "token_count": pl.Int32,
    "status": pl.String,  # "kept", "rejected side" (of a pair), "dropped"; null where nobody decided
    "stage": pl.String,  # that dropped it
    "rule": pl.String,
    "step": pl.Int32,  # optimizer step; null outside training
    "sample": pl.Int32,
    "reward": pl.Float32,
    "advantage": pl.Float32,
}

#: The side tables of a curation, as far as the page reads them.
DUPLICATES: Schema = {"kind": pl.String, "left": pl.String, "right": pl.String, "jaccard": pl.Float64}
CONTAMINATION: Schema = {
    "problem_id": pl.String,
    "benchmark": pl.String,
    "problem": pl.String,
    "benchmark_problem": pl.String,
    "shared": pl.Int64,
    "ngram": pl.String,
}
DISAGREEMENTS: Schema = {"trace_id": pl.String, "ours": pl.String, "other": pl.String, "other_says": pl.String}

#: A probe's probability at the token that ends at `character` of a response: what `tracekit probe apply` writes.
SCORES: Schema = {"trace_id": pl.String, "character": pl.Int32, "probability": pl.Float64}

#: Responses read from disk at a time.
_BATCH = 1024


class ViewError(ValueError):
    """A folder cannot be shown: the message says what it holds and what was looked for."""


@dataclass(frozen=True)
class Material:
    """rows: ROWS. problems: PROBLEMS. files: Parquet files whose `response` columns follow `rows` in order.

    verdicts, steps, ledger, duplicates, contamination, disagreements: as a curation writes them; empty where
    there are none. scores: of an applied probe. funnel: the curation's funnel.json.
    """

    rows: pl.DataFrame
    problems: pl.DataFrame
    files: tuple[Path, ...]
    verdicts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=VERDICTS))
    steps: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=STEPS))
    ledger: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=LEDGER))
    duplicates: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DUPLICATES))
    contamination: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=CONTAMINATION))
    disagreements: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=DISAGREEMENTS))
    scores: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=SCORES))
    funnel: dict[str, Any] = field(default_factory=dict)

    def responses(self) -> Iterator[list[str]]:
        """The texts in the order of `rows`, some at a time."""
        for file in self.files:
            for batch in parquet.ParquetFile(file).iter_batches(_BATCH, columns=["response"]):
                yield [text or "" for text in batch.column(0).to_pylist()]


def read_material(run: Path) -> Material:
    """The rows of one run folder. Raises ViewError where it holds neither traces nor completions."""
    completions = completion_files(run)
    if (run / "traces.parquet").is_file():
        return _curation(run)
    if completions:
        return _completions(run, completions)
    inside = ", ".join(sorted(path.name for path in run.iterdir())[:12]) if run.is_dir() else "no such folder"
    raise ViewError(
        f"{run} is nothing to read: expected traces.parquet with problems.parquet (a curation or a collection), or "
        f"completions.parquet or completions/*.parquet (training, evaluation); found {inside or 'nothing'}."
    )


def completion_files(run: Path) -> list[Path]:
    """completions.parquet and completions/*.parquet, in order of name."""
    single = run / "completions.parquet"
    return [single] * single.is_file() + sorted((run / "completions").glob("*.parquet"))


def join_materials(parts: list[Material]) -> Material:
    """Several runs on one page; a problem that occurs in more than one is the same problem."""
    if len(parts) == 1:
        return parts[0]

    def together(name: str) -> pl.DataFrame:
        return pl.concat([getattr(part, name) for part in parts])

    return Material(
        rows=together("rows"),
        problems=together("problems").unique("problem_id", keep="first", maintain_order=True),
        files=tuple(file for part in parts for file in part.files),
        verdicts=together("verdicts"),
        steps=together("steps"),
        ledger=together("ledger"),
        duplicates=together("duplicates"),
        contamination=together("contamination"),
        disagreements=together("disagreements"),
        scores=together("scores"),
        funnel=next((part.funnel for part in parts if part.funnel), {}),
    )


def _curation(run: Path) -> Material:
    problems = read_table(run / "problems.parquet", PROBLEMS)
    narrow = ["trace_id", "problem_id", "author", "token_count"]
    traces = read_table(run / "traces.parquet", TRACES, columns=narrow)
    verdicts = _optional(run / "verdicts.parquet", VERDICTS)
    rows = traces.drop("token_count").rename({"trace_id": "row_id"}).with_columns(teacher=pl.lit(True))
    first = verdicts.unique("trace_id", keep="first", maintain_order=True).select("trace_id", "outcome", "prediction")
    # The order of rows is the order of responses on disk: every join here keeps it.
    rows = rows.join(first, left_on="row_id", right_on="trace_id", how="left", maintain_order="left")
    rows = _with_fates(run, rows)
    rows = rows.with_columns(token_count=_token_counts(run, traces))
    return Material(
        rows=conform(rows, ROWS, "rows"),
        problems=problems,
        files=(run / "traces.parquet",),
        verdicts=verdicts,
        steps=_optional(run / "steps.parquet", STEPS),
        ledger=_optional(run / "ledger.parquet", LEDGER),
        duplicates=_optional(run / "duplicates.parquet", DUPLICATES),
        contamination=_optional(run / "contamination.parquet", CONTAMINATION),
        disagreements=_optional(run / "disagreements.parquet", DISAGREEMENTS),
        scores=_scores(run / "scores.parquet"),
        funnel=read_json(run / "funnel.json") if (run / "funnel.json").exists() else {},
    )


def _with_fates(run: Path, rows: pl.DataFrame) -> pl.DataFrame:
    if not ((run / "ledger.parquet").is_file() and (run / "curated.parquet").is_file()):
        return rows  # collected and not yet curated: nobody decided
    wrong = read_table(run / "curated.parquet", CURATED, columns=("trace_id", "correct")).filter(~pl.col("correct"))
    status = (
        pl.when(~pl.col("kept"))
        .then(pl.lit("dropped"))
        .when(pl.col("trace_id").is_in(wrong["trace_id"].implode()))
        .then(pl.lit("rejected side"))
        .otherwise(pl.lit("kept"))
    )
    told = fates(run).select("trace_id", "stage", "rule", status=status)
    return rows.join(told, left_on="row_id", right_on="trace_id", how="left", maintain_order="left")


def _token_counts(run: Path, traces: pl.DataFrame) -> pl.Series:
    """As the curation measured them, else as the traces carry them."""
    if not (run / "measures.parquet").is_file():
        return traces["token_count"]
    measured: Schema = {"trace_id": pl.String, "token_count": traces.schema["token_count"]}
    measures = read_any_table(run / "measures.parquet", "measures", columns=tuple(measured))
    measures = conform(measures, measured, f"measures ({run / 'measures.parquet'})")
    counted = traces.select("trace_id").join(measures, on="trace_id", how="left", maintain_order="left")
    return counted["token_count"]


def _completions(run: Path, files: list[Path]) -> Material:
    try:
        table = pl.concat(
            [pl.read_parquet(file, columns=[c for c in COMPLETIONS if c != "response"]) for file in files]
        )
    except pl.exceptions.PolarsError as error:
        raise ViewError(f"{run}: its completions are not readable as the completions table: {error}") from error
    name = pl.format(
        "{}/{}/{}/{}",
        pl.col("model").fill_null(""),
        pl.coalesce(pl.col("step").cast(pl.String), pl.format("t{}", "temperature"), pl.lit("-")),
        pl.col("sample").cast(pl.String).fill_null("-"),
        "problem_id",
    )
    rows = table.with_columns(row_id=name, teacher=~pl.col("on_policy").fill_null(True))
    rows = rows.with_columns(author=pl.when("teacher").then(pl.lit("teacher")).otherwise("model"))
    repeated = pl.int_range(pl.len()).over("row_id")
    rows = rows.with_columns(
        row_id=pl.when(repeated == 0).then("row_id").otherwise(pl.format("{}/{}", "row_id", repeated))
    )
    verdicts = rows.select(
        trace_id="row_id", outcome="outcome", prediction="prediction", gold="gold", verifier=pl.lit("reward")
    ).filter(pl.col("outcome").is_not_null())
    problems = table.unique("problem_id", keep="first", maintain_order=True).select("problem_id", "problem", "gold")
    return Material(
        rows=conform(rows, ROWS, "rows"),
        problems=conform(problems.with_columns(source=pl.lit(run.name)), PROBLEMS, "problems"),
        files=tuple(files),
        verdicts=conform(verdicts, VERDICTS, "verdicts"),
    )


def _scores(path: Path) -> pl.DataFrame:
    """Of the rows of an applied probe, those of the response: one a token, where several rows end there the last."""
    if not path.is_file():
        return pl.DataFrame(schema=SCORES)
    rows = pl.read_parquet(path)
    if absent := [column for column in SCORES if column not in rows.columns]:
        raise ViewError(f"{path} has no column {', '.join(absent)}; expected what `tracekit probe apply` writes.")
    rows = conform(rows, SCORES, "scores").filter(pl.col("character") > 0)
    return rows.unique(["trace_id", "character"], keep="last", maintain_order=True).sort("trace_id", "character")


def _optional(path: Path, schema: Schema) -> pl.DataFrame:
    return read_table(path, schema) if path.is_file() else pl.DataFrame(schema=schema)
