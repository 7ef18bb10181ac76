"""The index of a page: columns that lists, filters and plots read, strings as numbers into short lists."""

from __future__ import annotations

from typing import Any

import polars as pl

from tracekit.core.tables import STEP_KINDS
from tracekit.viewer.run_data import Material

#: Characters of a problem that a list shows and the quick search reads.
PREVIEW = 200


def index_of(
    material: Material, title: str, starts: list[int], characters: list[int], flaws: list[int], pairs: dict[str, Any]
) -> dict[str, Any]:
    """Everything the page needs before a trace is opened.

    starts: first row of each shard. characters, flaws: one a row. pairs: what `write_pairs` returned.
    A code of -1 says that the row has no such value.
    """
    problems, rows = _problems(material), material.rows
    place = problems.select("problem_id").with_row_index("place")
    problem = rows.join(place, on="problem_id", how="left", maintain_order="left")["place"]
    coded = {name: _coded(rows[name]) for name in ("author", "outcome", "status")}
    drop = rows.select(
        pl.when(pl.col("status") == "dropped").then(
            pl.format("{}: {}", pl.col("stage").fill_null("?"), pl.col("rule").fill_null("?"))
        )
    ).to_series()
    coded["drop"] = _coded(drop)
    return {
        "title": title,
        "stepKinds": STEP_KINDS,
        "shards": starts,
        "names": {name: names for name, (names, _) in coded.items()},
        "problems": {
            "id": problems["problem_id"].to_list(),
            "preview": problems["preview"].to_list(),
            "source": _coded(problems["source"])[1],
            "sources": _coded(problems["source"])[0],
        },
        "rows": {
            **{name: codes for name, (_, codes) in coded.items()},
            "id": rows["row_id"].to_list(),
            "problem": problem.fill_null(-1).cast(pl.Int64).to_list(),
            "prediction": rows["prediction"].fill_null("").str.slice(0, 80).to_list(),
            "teacher": rows["teacher"].cast(pl.Int8).to_list(),
            "tokens": rows["token_count"].fill_null(-1).to_list(),
            "characters": characters,
            "flags": _flags(material, flaws),
            **_training(rows),
        },
        "funnel": material.funnel,
        "disagreements": _disagreements(material),
        "pairs": pairs,
    }


def _problems(material: Material) -> pl.DataFrame:
    """Known problems, then ids that only rows name: a row without its problem is shown, not lost."""
    known = material.problems.select("problem_id", "problem", pl.col("source").fill_null(""))
    missing = material.rows.join(known, on="problem_id", how="anti").select("problem_id").unique(maintain_order=True)
    if missing.height:
        absent = missing.with_columns(problem=pl.lit("(not in problems.parquet)"), source=pl.lit(""))
        known = pl.concat([known, absent])
    preview = pl.col("problem").fill_null("").str.slice(0, 2 * PREVIEW).str.replace_all(r"\s+", " ")
    return known.with_columns(preview=preview.str.slice(0, PREVIEW))


def _coded(values: pl.Series) -> tuple[list[str], list[int]]:
    """(distinct values, most frequent first; the index of each row's value, -1 for null)."""
    counts = values.drop_nulls().value_counts(sort=True)
    names = counts[values.name].to_list()
    codes = values.replace_strict(names, list(range(len(names))), default=-1, return_dtype=pl.Int32)
    return names, codes.fill_null(-1).to_list()


def _training(rows: pl.DataFrame) -> dict[str, list[Any]]:
    """Columns of a training run alone: left out where every value is null."""
    columns = {}
    for name in ("step", "sample", "reward", "advantage"):
        if rows[name].null_count() < rows.height:
            values = rows[name]
            columns[name] = (values.fill_nan(None).round(4) if values.dtype.is_float() else values).to_list()
    return columns


def _flags(material: Material, flaws: list[int]) -> list[int]:
    """Bits a row: 1 wrong calculation, 2 think block open, 4 verifiers disagree, 8 duplicate, 16 contaminated."""
    pairs = material.duplicates
    of_traces, of_problems = (pairs.filter(pl.col("kind") == kind) for kind in ("trace", "problem"))
    contaminated = material.contamination["problem_id"].unique()
    either = pl.col("row_id").is_in(pl.concat([of_traces["left"], of_traces["right"]]).unique().implode())
    problem = pl.col("problem_id").is_in(pl.concat([of_problems["left"], of_problems["right"]]).unique().implode())
    return material.rows.select(
        pl.Series("flaws", flaws, dtype=pl.Int32)
        + pl.col("row_id").is_in(material.disagreements["trace_id"].unique().implode()) * 4
        + (either | problem) * 8
        + pl.col("problem_id").is_in(contaminated.implode()) * 16
    )["flaws"].to_list()


def _disagreements(material: Material) -> list[dict[str, Any]]:
    """How often which other verifier said what against ours."""
    counted = material.disagreements.group_by("other", "ours", "other_says").agg(count=pl.len())
    return counted.sort("count", "other", descending=[True, False]).to_dicts()
