"""Near duplicates and contaminated pairs, in shards of their own: both texts side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from tracekit.viewer.run_data import Material
from tracekit.viewer.scripts import write_script

SHARD_PAIRS = 200

#: label: what the right side is. left, right: texts, or for traces the numbers of two rows.
_PAIR = ["kind", "label", "score", "left_id", "right_id", "left", "right", "ngram"]


def write_pairs(folder: Path, material: Material) -> dict[str, Any]:
    """Write `pairs-0.js` …; returns what the list of pairs shows: kind, score, both names, in columns."""
    pairs = pl.concat([_contaminated(material), _problems(material), _traces(material)])
    for shard, start in enumerate(range(0, pairs.height, SHARD_PAIRS)):
        write_script(folder, f"pairs-{shard}", pairs[start : start + SHARD_PAIRS].rows())
    return {
        "kind": pairs["kind"].to_list(),
        "score": pairs["score"].round(4).to_list(),
        "left": pairs["left_id"].to_list(),
        "label": pairs["label"].to_list(),
        "preview": pairs["preview"].to_list(),
        "shard": SHARD_PAIRS,
    }


def _contaminated(material: Material) -> pl.DataFrame:
    return _pairs(
        material.contamination,
        kind=pl.lit("contamination"),
        label=pl.col("benchmark"),
        score=pl.col("shared").cast(pl.Float64),
        left_id=pl.col("problem_id"),
        right_id=pl.lit(""),
        left=pl.col("problem"),
        right=pl.col("benchmark_problem"),
        ngram=pl.col("ngram"),
    )


def _problems(material: Material) -> pl.DataFrame:
    texts = material.problems.select("problem_id", "problem")
    pairs = material.duplicates.filter(pl.col("kind") == "problem").join(
        texts, left_on="left", right_on="problem_id", how="inner", maintain_order="left"
    )
    pairs = pairs.join(
        texts, left_on="right", right_on="problem_id", how="inner", maintain_order="left", suffix="_right"
    )
    return _pairs(
        pairs,
        kind=pl.lit("problem"),
        label=pl.col("right"),
        score=pl.col("jaccard"),
        left_id=pl.col("left"),
        right_id=pl.col("right"),
        left=pl.col("problem"),
        right=pl.col("problem_right"),
        ngram=pl.lit(""),
    )


def _traces(material: Material) -> pl.DataFrame:
    """Responses lie in their own shards: a pair of them names two rows."""
    rows = material.rows.select("row_id", "author").with_row_index("row")
    pairs = material.duplicates.filter(pl.col("kind") == "trace")
    for side in ("left", "right"):
        pairs = pairs.join(
            rows.rename({"row": f"{side}_row", "author": f"{side}_author"}),
            left_on=side,
            right_on="row_id",
            how="inner",
            maintain_order="left",
        )
    return _pairs(
        pairs,
        kind=pl.lit("trace"),
        label=pl.col("right"),
        score=pl.col("jaccard"),
        left_id=pl.col("left"),
        right_id=pl.col("right"),
        left=pl.col("left_row").cast(pl.String),
        right=pl.col("right_row").cast(pl.String),
        ngram=pl.lit(""),
    ).with_columns(preview=pairs.select(pl.format("{} and {}", "left_author", "right_author")).to_series())


def _pairs(frame: pl.DataFrame, **columns: pl.Expr) -> pl.DataFrame:
    preview = columns["left"].str.slice(0, 160).str.replace_all(r"\s+", " ")
    return frame.select(*(columns[name].alias(name) for name in _PAIR), preview=preview)
