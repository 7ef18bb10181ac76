"""Rows that become several or need another: all exchanges of a conversation, results beside their requests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from tracekit.reading.files import SourceError, Table, parse_lines, unpacked_pieces
from tracekit.reading.names import CONVERSATION
from tracekit.reading.records import Record, read_record
from tracekit.reading.turns import Turn, read_turn

Row = Mapping[str, Any]


def read_exchanges(row: Row) -> Iterator[Record]:
    """One record for each question of a conversation that was answered, what was said before it in the problem.

    The gold of the row is that of the last exchange. A row without a conversation of several exchanges is one record.

    >>> turns = [{"role": "user", "content": "2 + 2?"}, {"role": "assistant", "content": "4"},
    ...          {"role": "user", "content": "And plus 1?"}, {"role": "assistant", "content": "5"}]
    >>> [record.problem for record in read_exchanges({"messages": turns, "answer": "5"})]
    ['2 + 2?', 'User: 2 + 2?\\n\\nAssistant: 4\\n\\nUser: And plus 1?']
    """
    name = next((own for own in row if own.lower() in CONVERSATION and _is_conversation(row[own])), None)
    ends = [] if name is None else _ends([read_turn(turn) for turn in row[name]])
    if name is None or len(ends) < 2:
        yield read_record(row)
        return
    for end in ends:
        last = end == ends[-1]
        # What follows the last answer, a question that was answered in another column, belongs to the last exchange.
        turns = row[name] if last else row[name][:end]
        record = read_record({**row, name: turns})
        before = [read_turn(turn) for turn in row[name][: ends[ends.index(end) - 1]]] if end != ends[0] else []
        problem = _transcript(before) + (f"User: {record.problem}" if before else record.problem)
        yield replace(record, problem=problem, gold=record.gold if last else "")


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def _ends(turns: list[Turn]) -> list[int]:
    """Behind the last turn of each answer."""
    wrote = [turn.role in ("assistant", "tool") for turn in turns]
    asked = [turn.role == "user" for turn in turns]
    ends = [place + 1 for place in range(len(turns)) if wrote[place] and (place + 1 == len(turns) or asked[place + 1])]
    return [end for end in ends if any(asked[:end])]


def _transcript(turns: list[Turn]) -> str:
    """Earlier turns as text, without their thoughts, as chat templates leave them out."""
    named = {"user": "User", "assistant": "Assistant", "tool": "Tool"}
    return "".join(f"{named[turn.role]}: {turn.text}\n\n" for turn in turns if turn.role in named)


def read_requests(path: Path) -> dict[str, Any]:
    """Return custom_id → body of a batch's requests, JSON lines as of OpenAI's batch API. Raises SourceError."""
    if not path.is_file():
        raise SourceError(f"{path} does not exist; expected the requests of a batch as JSON lines.")
    found = parse_lines(b"".join(unpacked_pieces(path)))
    requests = {
        str(row["custom_id"]): row["body"]
        for row in found.rows
        if row.get("custom_id") is not None and isinstance(row.get("body"), Mapping)
    }
    if not requests:
        raise SourceError(f"{path} holds no requests; expected lines with custom_id and body.")
    return requests


def with_requests(table: Table, requests: Mapping[str, Any], where: str) -> Table:
    """Put the request of the same custom_id beside each result of a batch. Raises SourceError without that column."""
    if "custom_id" not in table.frame.columns:
        raise SourceError(f"{where} has no column custom_id, by which results are joined with their requests.")
    bodies = [requests.get(str(one)) for one in table.frame["custom_id"]]
    return replace(table, frame=table.frame.with_columns(pl.Series("request", bodies, dtype=pl.Object)))
