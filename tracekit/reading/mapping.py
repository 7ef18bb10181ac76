"""Columns mapped by hand: `--map response=reply.choices[0].text`.

name             a column, or a key of an object
a.b              key b of object a
a[0], a[-1]      one place of a list
a[*]             every place of a list: several responses of one problem
messages[user]   the text of the last turn of a role
a + b            two columns, joined by an empty line
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.reading.records import Record, Sample, Unreadable, gold_text
from tracekit.reading.turns import read_turn, without_channels, written

_PART = re.compile(r"\.?(?P<key>[^.\[\]]+)|\[(?P<place>-?\d+)\]|\[(?P<all>\*)\]|\[(?P<role>[a-z]+)\]")


def is_path(column: str) -> bool:
    """Whether a mapped column goes into nested values or joins columns."""
    return any(sign in column for sign in ".[+")


def values_at(row: Mapping[str, Any], path: str) -> list[Any]:
    """The values that a path names in a row; none where it leads nowhere.

    >>> values_at({"reply": {"choices": [{"text": "4"}, {"text": "5"}]}}, "reply.choices[*].text")
    ['4', '5']
    """
    if path in row:  # a column may itself have a dot in its name
        return [row[path]]
    found: list[Any] = [row]
    for part in _PART.finditer(path):
        found = [inner for value in found for inner in _step(value, part)]
    return [value for value in found if value is not None]


def _step(value: Any, part: re.Match[str]) -> Sequence[Any]:
    if part["key"] is not None:
        return [value[part["key"]]] if isinstance(value, Mapping) and part["key"] in value else []
    if not isinstance(value, list):
        return []
    if part["all"]:
        return value
    if part["role"]:
        turns = [read_turn(turn) for turn in value if isinstance(turn, Mapping)]
        return [written(turn) for turn in turns if turn.role == part["role"]][-1:]
    place = int(part["place"])
    return [value[place]] if -len(value) <= place < len(value) else []


def mapped_record(row: Mapping[str, Any], columns: Mapping[str, str]) -> Record:
    """Read a row by paths. Raises Unreadable where the problem is missing or a text is none."""
    problem = "\n\n".join(_texts(row, columns["problem"], "problem"))
    if not problem.strip():
        raise Unreadable("the problem is empty")
    golds = [value for path in _joined(columns.get("gold", "")) for value in values_at(row, path)]
    author = "".join(_texts(row, columns["author"], "author")[:1]) if "author" in columns else ""
    return Record(
        problem,
        gold_text(golds) if golds else "",
        tuple(Sample(without_channels(text), author) for text in _responses(row, columns) if text.strip()),
        "".join(_texts(row, columns["kind"], "kind")[:1]) if "kind" in columns else "",
        None,
        dict(columns),
    )


def _responses(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    path = columns.get("response")
    if path is None:
        return []
    joined = _joined(path)
    texts = [_texts(row, one, "response") for one in joined]
    if len(joined) == 1:
        return texts[0]
    return ["\n\n".join(parts) for parts in zip(*texts)]


def _texts(row: Mapping[str, Any], path: str, name: str) -> list[str]:
    found = []
    for value in (value for one in _joined(path) for value in values_at(row, one)):
        parts = value if isinstance(value, list) and all(isinstance(one, str) for one in value) else [value]
        for part in parts:
            if isinstance(part, list | Mapping):
                raise Unreadable(f"{name} ← {path} is {type(part).__name__}, not text")
            found.append(str(part))
    return found


def _joined(path: str) -> list[str]:
    return [part.strip() for part in path.split("+") if part.strip()]
