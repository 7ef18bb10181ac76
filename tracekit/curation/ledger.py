"""The ledger: every decision about every row, with what was measured and what it was held against.

Nothing in it is changed or removed. A row that is taken back in is a further decision, not a deletion.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.runs import RunError, read_json
from tracekit.core.tables import CURATED, LEDGER, PROBLEMS, TRACES, read_table

KEEP, DROP = "keep", "drop"


class LedgerError(ValueError):
    """A run or a row cannot be found: the message says where it was looked for."""


def decide(
    rows: pl.DataFrame,
    *,
    stage: str,
    rule: str,
    version: str,
    threshold: str,
    keep: pl.Expr,
    reason: pl.Expr,
    measured: pl.Expr,
) -> pl.DataFrame:
    """LEDGER rows for `rows` (row_id and what the expressions read). A null `keep` is a keep: nothing was measured.

    reason: why a dropped row is dropped; kept rows say "".
    """
    kept = keep.fill_null(True)
    return rows.select(
        "row_id",
        stage=pl.lit(stage),
        rule=pl.lit(rule),
        rule_version=pl.lit(version),
        measured=measured.cast(pl.String).fill_null("unknown"),
        threshold=pl.lit(threshold),
        verdict=pl.when(kept).then(pl.lit(KEEP)).otherwise(pl.lit(DROP)),
        reason=pl.when(kept).then(pl.lit("")).otherwise(reason),
    )


def dropped(decisions: pl.DataFrame) -> pl.Series:
    """Ids of the rows that one of these decisions drops."""
    return decisions.filter(pl.col("verdict") == DROP)["row_id"].unique()


def why(run: Path, row_id: str) -> pl.DataFrame:
    """Return every decision about a trace and its problem, in the order they were made.

    Parameters
    ----------
    run : Path
        A run folder of `curate`.
    row_id : str
        A trace's or a problem's id, or a prefix of one id alone.

    Returns
    -------
    polars.DataFrame
        LEDGER: one row a decision, with rule, threshold, measured value, verdict and reason.

    Raises
    ------
    LedgerError
        Where the folder holds no ledger, or no row, or more than one, has such an id.

    Examples
    --------
    >>> from tracekit import CURATED, CurateSettings, curate, load_settings, read_table, why
    >>> source = 'sources=[{path="traces.jsonl", map={problem="question", gold="answer", response="generation"}}]'
    >>> run = curate(load_settings(CurateSettings, overrides=[source, "output=runs/docs"]))
    >>> trace = read_table(run / "curated.parquet", CURATED)["trace_id"][0]
    >>> set(why(run, trace)["verdict"])
    {'keep'}
    """
    trace, problem = find(run, row_id)
    ids = [i for i in (trace, problem) if i is not None]
    return read_table(run / "ledger.parquet", LEDGER).filter(pl.col("row_id").is_in(ids))


def fates(run: Path) -> pl.DataFrame:
    """trace_id, problem_id, kept, and for what is out the stage, rule and reason of the first drop."""
    traces = read_table(run / "traces.parquet", TRACES, columns=("trace_id", "problem_id"))
    curated = read_table(run / "curated.parquet", CURATED, columns=("trace_id",))["trace_id"]
    kept = curated.filter(~curated.is_in(_rejected(run).implode()))
    drops = read_table(run / "ledger.parquet", LEDGER).filter(pl.col("verdict") == DROP)
    first = drops.unique("row_id", keep="first", maintain_order=True)
    first = first.select("row_id", "stage", "rule", "measured", "reason")
    fate = traces.with_columns(pl.col("trace_id").is_in(kept.implode()).alias("kept"))
    by_trace = fate.join(first, left_on="trace_id", right_on="row_id", how="left", maintain_order="left")
    by_problem = fate.join(first, left_on="problem_id", right_on="row_id", how="left", maintain_order="left")
    told = [
        pl.when(~pl.col("kept")).then(pl.coalesce(pl.col(c), by_problem[c])).alias(c)
        for c in ("stage", "rule", "measured", "reason")
    ]
    return by_trace.with_columns(told)


def _rejected(run: Path) -> pl.Series:
    """Traces that stand in curated.parquet as the rejected side of a pair alone, and so are not kept."""
    pairs = run / "pairs.parquet"
    if not pairs.is_file():
        return pl.Series("rejected", [], pl.String)
    return read_table(pairs, {"rejected": pl.String})["rejected"]


def diff(run_a: Path, run_b: Path) -> pl.DataFrame:
    """Return the traces that are in one run's curated set and not in the other's.

    Parameters
    ----------
    run_a, run_b : Path
        Run folders of `curate`.

    Returns
    -------
    polars.DataFrame
        trace_id, problem_id, and in the columns a and b "in", "out: REASON (STAGE)", or "absent" where the run did not
        read the trace.

    Raises
    ------
    TableError
        Where a folder holds no finished curation.

    Examples
    --------
    >>> from tracekit import CurateSettings, curate, diff, load_settings
    >>> source = 'sources=[{path="traces.jsonl", map={problem="question", gold="answer", response="generation"}}]'
    >>> loose = ["output=runs/loose", "filters.outcomes=off"]
    >>> a = curate(load_settings(CurateSettings, overrides=[source, "output=runs/docs"]))
    >>> b = curate(load_settings(CurateSettings, overrides=[source, *loose]))
    >>> diff(a, b)["a"].to_list()
    ['out: not verified as correct (filter)', 'out: not verified as correct (filter)']
    """
    a, b = fates(run_a), fates(run_b)
    both = a.join(b, on="trace_id", how="full", suffix="_b", coalesce=True, maintain_order="left_right")
    changed = both.filter(pl.col("kept").fill_null(False) != pl.col("kept_b").fill_null(False))
    return changed.select(
        "trace_id",
        pl.coalesce("problem_id", "problem_id_b").alias("problem_id"),
        _told("", "a"),
        _told("_b", "b"),
    )


def _told(suffix: str, name: str) -> pl.Expr:
    kept = pl.col(f"kept{suffix}")
    reason = pl.format("out: {} ({})", pl.col(f"reason{suffix}"), pl.col(f"stage{suffix}"))
    return pl.when(kept).then(pl.lit("in")).when(kept.is_null()).then(pl.lit("absent")).otherwise(reason).alias(name)


def find(run: Path, row_id: str) -> tuple[str | None, str]:
    """(trace_id, problem_id) that begin with `row_id`; the trace is None where it names a problem."""
    if not (run / "ledger.parquet").is_file():
        raise LedgerError(f"{run} is no finished curation: it holds no ledger.parquet. Run `tracekit curate` first.")
    traces = read_table(run / "traces.parquet", TRACES, columns=("trace_id", "problem_id"))
    found = traces.filter(pl.col("trace_id").str.starts_with(row_id))
    if found.height == 1:
        return found["trace_id"][0], found["problem_id"][0]
    problems = read_table(run / "problems.parquet", PROBLEMS).filter(pl.col("problem_id").str.starts_with(row_id))
    of_problem = problems.select("problem_id")
    if found.height == 0 and of_problem.height == 1:
        return None, of_problem["problem_id"][0]
    many = found.height + of_problem.height
    raise LedgerError(
        f"{row_id} names {many} rows of {run}; " + ("give more digits." if many else "no trace or problem begins so.")
    )


def read_funnel(run: Path) -> dict[str, Any]:
    """The funnel of a finished curation. Raises RunError where it is absent, damaged or of an earlier release."""
    path = run / "funnel.json"
    found = read_json(path)
    for key, kind in (("funnel", list), ("by_author", dict), ("partitions", list)):
        if not isinstance(found.get(key), kind):
            raise RunError(f"{path} has no {key}: it is damaged or of an earlier release; run tracekit curate again.")
    whole = all(isinstance(one, dict) and {"curated", "pairs"} <= one.keys() for one in found["partitions"])
    if not whole or not all(isinstance(one, dict) and "stage" in one for one in found["funnel"]):
        raise RunError(f"{path} is damaged; run tracekit curate again.")
    return found
