"""Tables of a known layout → the long form: one row a (problem, trace); rows that were lost, with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tracekit.reading.columns import misfit, typed
from tracekit.reading.exchanges import read_exchanges
from tracekit.reading.formats import LAYOUTS, LONG, Layout, LayoutError
from tracekit.reading.mapping import mapped_record
from tracekit.reading.names import NAMES_A_THOUGHT
from tracekit.reading.records import Record, Sample, gold_text, read_record, unread_texts, worked_golds
from tracekit.reading.replies import Unreadable
from tracekit.reading.turns import without_channels


@dataclass(frozen=True)
class Long:
    """A table in the long form, the rows that were lost on the way, and what was read from where."""

    rows: pl.DataFrame
    lost: tuple[tuple[int, str], ...] = ()
    read: Mapping[str, str] = field(default_factory=dict)


def to_long(frame: pl.DataFrame, layout: Layout, where: str, first: int = 0, turns: str = "last") -> Long:
    """Rows in the long form, and the rows that were lost.

    first: number of the frame's first row in its file. turns: "last", or "all" exchanges of a conversation.

    Raises LayoutError naming the column that cannot be read and its first bad row.
    """
    absent = [column for column in layout.columns if column not in frame.columns]
    if absent:
        raise LayoutError(
            f"{where} has no column {absent[0]}, which the layout {layout.name} needs; "
            f"it has {', '.join(frame.columns)}."
        )
    fault = misfit(frame, layout.types, first)
    if fault:
        raise LayoutError(
            f"{where}, {fault} in the layout {layout.name}. Name another layout, or map by hand with --map."
        )
    frame = typed(frame, layout.types)
    if layout.read is None and layout.by_record:
        return _by_record(frame, layout, where, first, turns)
    taken = {ours: frame[theirs] for ours, theirs in layout.fields.items() if theirs in frame.columns}
    long = layout.read(frame).with_columns(**taken) if layout.read else pl.DataFrame(taken)
    if "row" not in long.columns:  # a reader that makes several rows of one says which row each came from
        long = long.with_row_index("row")
    long = long.with_columns(pl.col("row") + first)
    columns = [_typed(long, name, dtype, where) for name, dtype in LONG.items()]
    read = {ours: theirs for ours, theirs in layout.fields.items() if theirs in frame.columns}
    return _checked(long.select("row", *columns), layout, where, (), read or {"layout": layout.name})


def _checked(
    long: pl.DataFrame, layout: Layout, where: str, lost: Sequence[tuple[int, str]], read: Mapping[str, str]
) -> Long:
    """Fill what may be missing, and set aside the rows without a problem."""
    long = long.with_columns(
        pl.col("author").replace("", None).fill_null(layout.author or "unknown"),
        pl.col("gold").fill_null(""),
        pl.col("kind").fill_null(""),
    )
    if long["gold"].str.starts_with('["').any():  # Skywork-OR1's golds: ["56"]
        long = long.with_columns(pl.col("gold").map_elements(gold_text, return_dtype=pl.String))
    if long.select(pl.col("response").str.contains("<|channel|>", literal=True).any()).item():
        long = long.with_columns(pl.col("response").map_elements(without_channels, return_dtype=pl.String))
    blank = pl.col("problem").is_null() | (pl.col("problem").str.strip_chars() == "")
    empty = [(int(row), "the problem is empty") for row in long.filter(blank)["row"].unique(maintain_order=True)]
    long = long.filter(~blank)
    empty += _without_response(long)
    if not long.height and (lost or empty):
        row, reason = (*lost, *empty)[0]
        raise LayoutError(f"{where}, row {row + 1}: {reason}; no row can be read. Map by hand: --map problem=COLUMN.")
    return Long(long.drop("row"), (*lost, *empty), read)


def _without_response(long: pl.DataFrame) -> list[tuple[int, str]]:
    """Rows with an empty response in a table that has others; their problems stay."""
    blank = pl.col("response").is_null() | (pl.col("response").str.strip_chars() == "")
    counts = long.group_by("row", maintain_order=True).agg(pl.len(), blank.sum().alias("empty"))
    if not long.height or counts["empty"].sum() == long.height:
        return []  # a table of problems
    return [
        (int(row), "the response is empty" if total == 1 else f"{empty} of {total} responses are empty")
        for row, total, empty in counts.filter(pl.col("empty") > 0).iter_rows()
    ]


def _by_record(frame: pl.DataFrame, layout: Layout, where: str, first: int, turns: str) -> Long:
    """Read row by row. Raises LayoutError where long text would be left out of rows that seem to have no response."""
    rows = frame.to_dicts()
    records, lost = [], []
    scored: set[tuple[str, str]] = set()
    for number, row in enumerate(rows, start=first):
        try:
            _refuse_second_filter(row, scored)
            records += [(number, record) for record in _records(row, layout, turns)]
        except Unreadable as error:
            lost.append((number, str(error)))
    if not records:
        known = ", ".join(one.name for one in LAYOUTS)
        raise LayoutError(
            f"{where}, row {lost[0][0] + 1}: {lost[0][1]}; no row can be read. It has the columns "
            f"{', '.join(frame.columns)}, which are in no known layout ({known}), and none is a problem. "
            "Map by hand: --map problem=COLUMN gold=COLUMN response=COLUMN."
        )
    found = [record for _, record in records]
    read = {ours: theirs for record in reversed(found) for ours, theirs in record.read.items()}
    if left := _asked(rows, found, layout):
        shown = ", ".join(f"{ours} ← {theirs}" for ours, theirs in read.items())
        raise LayoutError(
            f"{where}: columns {', '.join(frame.columns)}: read as {shown}, without {', '.join(left)}? "
            f"{_way_out(left[0], read)}"
        )
    if not layout.fields and (column := worked_golds(found)):
        raise LayoutError(
            f"{where}: columns {', '.join(frame.columns)}: is {column} the gold or a worked solution? It is long. Say "
            f"--map response={column}, or --map gold={column}."
        )
    long = [
        (
            *(number, record.problem, record.gold, sample.response, sample.author, sample.flagged),
            *(record.kind, record.level, record.system or None, sample.ended or None),
        )
        for number, record in records
        for sample in record.samples or (Sample(""),)
    ]
    schema = {"row": pl.UInt32, **LONG}
    table = pl.DataFrame(long, schema=schema, orient="row")
    return _checked(table.with_columns(pl.col("response").replace("", None)), layout, where, lost, read)


def _records(row: Mapping[str, Any], layout: Layout, turns: str) -> list[Record]:
    if layout.fields:
        return [mapped_record(row, layout.fields)]
    return list(read_exchanges(row)) if turns == "all" else [read_record(row)]


def _asked(rows: Sequence[Mapping[str, Any]], records: Sequence[Record], layout: Layout) -> list[str]:
    """Columns that a person is asked about; none where a format is named, known by its columns, or mapped by hand."""
    if layout.fields or layout.author:
        return []
    return unread_texts(rows[:1000], records[:1000])


def _way_out(column: str, read: Mapping[str, str]) -> str:
    """What to write where a column was left out: what it seems to be, and what it is where that is wrong."""
    spelled = {
        ours: theirs.replace(" (last user turn)", "[user]").replace(" (what follows it)", "[assistant]")
        for ours, theirs in read.items()
    }
    named = {ours: theirs.partition(" (")[0] for ours, theirs in spelled.items() if ours in (*LONG, "thought")}
    role = "response" if "response" not in named else "thought" if NAMES_A_THOUGHT.search(column) else "gold"
    as_is = " ".join(f"{ours}={theirs}" for ours, theirs in named.items() if " " not in theirs)
    return f"Say --map {role}={column}; to leave it out, --map {as_is or 'problem=COLUMN'}."


def _refuse_second_filter(row: Mapping[str, Any], scored: set[tuple[str, str]]) -> None:
    """lm-eval writes a document once for each filter of its answers: the same responses again."""
    if "resps" in row and "doc_id" in row and "filter" in row:
        key = (str(row["doc_id"]), str([row.get("doc"), row.get("arguments"), row["resps"]]))
        if key in scored:
            raise Unreadable(f"the same responses as above, scored by the filter {row['filter']}")
        scored.add(key)


def _typed(long: pl.DataFrame, name: str, dtype: pl.DataType | type[pl.DataType], where: str) -> pl.Expr:
    if name not in long.columns or long.schema[name] == pl.Null:
        return pl.lit(None, dtype=dtype).alias(name)
    found = long.schema[name]
    if found == dtype:
        return pl.col(name)
    # Golds, levels and flags come as numbers too; a problem or a response that is no text is a fault.
    castable = found.is_numeric() or found == pl.Boolean or (found == pl.String and dtype == pl.Float32)
    if name in ("problem", "response") or not castable:
        row = long.filter(pl.col(name).is_not_null())["row"]
        first = f", row {row[0] + 1}" if len(row) else ""
        raise LayoutError(f"{where}{first}: {name} is {found}; expected {dtype}. Map another column or convert it.")
    if found == pl.String:
        return pl.col(name).str.extract(r"(\d+(?:\.\d+)?)").cast(dtype)
    return pl.col(name).cast(dtype)
