"""Columns mapped by hand: `--map response=reply.choices[0].text`.

name             a column, or a key of an object
a.b              key b of object a
a[0], a[-1]      one place of a list
a[*]             every place of a list: several responses of one problem
messages[user]   the text of the last turn of a role
a + b            two columns, joined by an empty line

`thought=COLUMN` goes before the response in a think block. Where `problem` is mapped, nothing else is read than what is
mapped; without it, the rest is read by the names of its columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tracekit.reading.records import Record, Sample, gold_text, read_record, without_responses
from tracekit.reading.replies import Unreadable
from tracekit.reading.turns import join_thought, read_turn, without_channels, written

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
        return [] if row[path] is None else [row[path]]
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
    """Read a row by paths. Where no problem is mapped, what is not mapped is read by the names of its columns.

    Raises Unreadable where the problem is missing or a text is none.
    """
    if "problem" not in columns:
        return _partly_mapped(row, columns)
    problem = "\n\n".join(_texts(row, columns["problem"], "problem"))
    if not problem.strip():
        raise Unreadable("the problem is empty")
    return Record(
        problem,
        _gold(row, columns),
        _samples(row, columns),
        kind=_text(row, columns, "kind"),
        level=_level(row, columns),
        system=_text(row, columns, "system"),
        read=dict(columns),
    )


def _text(row: Mapping[str, Any], columns: Mapping[str, str], name: str) -> str:
    return "".join(_texts(row, columns[name], name)[:1]) if name in columns else ""


def _level(row: Mapping[str, Any], columns: Mapping[str, str]) -> float | None:
    number = re.search(r"\d+(?:\.\d+)?", _text(row, columns, "level"))  # "Level 5"
    return None if number is None else float(number.group())


def _samples(row: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[Sample, ...]:
    """The mapped responses, with the flags and the reasons of their end that are mapped beside them."""
    texts, author = _responses(row, columns), _text(row, columns, "author")
    flags = [flag if isinstance(flag, bool) else None for flag in _beside(row, columns, "flagged_correct", len(texts))]
    ends = [str(end or "") for end in _beside(row, columns, "finish_reason", len(texts))]
    parts = zip(texts, flags, ends, strict=True)
    return tuple(Sample(without_channels(text), author, flag, end) for text, flag, end in parts)


def _beside(row: Mapping[str, Any], columns: Mapping[str, str], name: str, count: int) -> list[Any]:
    """A value for each response; nulls where there are not as many, for none may be shifted."""
    values = [value for path in _joined(columns.get(name, "")) for value in values_at(row, path)]
    if len(values) == 1:
        values = values[0] if isinstance(values[0], list) else values * count
    return values if len(values) == count else [None] * count


def _partly_mapped(row: Mapping[str, Any], columns: Mapping[str, str]) -> Record:
    named = {re.split(r"[.\[]", path)[0] for column in columns.values() for path in _joined(column)}
    rest = {name: value for name, value in row.items() if name not in named}
    record = read_record(rest if "response" not in columns else without_responses(rest))
    author, samples = _text(row, columns, "author"), record.samples
    if "response" in columns:
        samples = _samples(row, columns)
    else:
        flags = _beside(row, columns, "flagged_correct", len(samples))
        ends = _beside(row, columns, "finish_reason", len(samples))
        samples = tuple(
            replace(one, flagged=flag if isinstance(flag, bool) else one.flagged, ended=str(end or "") or one.ended)
            for one, flag, end in zip(samples, flags, ends, strict=True)
        )
    if "thought" in columns and "response" not in columns:
        thought = "\n\n".join(_texts(row, columns["thought"], "thought"))
        samples = tuple(replace(sample, response=join_thought(thought, sample.response)) for sample in samples)
    return replace(
        record,
        gold=_gold(row, columns) if "gold" in columns else record.gold,
        samples=samples if not author else tuple(replace(sample, author=author) for sample in samples),
        kind=_text(row, columns, "kind") or record.kind,
        level=_level(row, columns) if "level" in columns else record.level,
        system=_text(row, columns, "system") or record.system,
        read={**record.read, **columns},
    )


def _gold(row: Mapping[str, Any], columns: Mapping[str, str]) -> str:
    golds = [value for path in _joined(columns.get("gold", "")) for value in values_at(row, path)]
    return gold_text(golds) if golds else ""


def _responses(row: Mapping[str, Any], columns: Mapping[str, str]) -> list[str]:
    """The responses of a row, each with its thought before it; a thought alone stays open."""
    path = columns.get("response")
    if path is None:
        return []
    joined = _joined(path)
    texts = [_texts(row, one, "response") for one in joined]
    responses = texts[0] if len(joined) == 1 else ["\n\n".join(parts) for parts in zip(*texts)]
    thoughts = _texts(row, columns["thought"], "thought") if "thought" in columns else []
    if not thoughts:
        return responses
    if len(thoughts) not in (1, len(responses)):
        raise Unreadable(f"{len(thoughts)} thoughts for {len(responses)} responses")
    pairs = zip(thoughts if len(thoughts) > 1 else thoughts * len(responses), responses, strict=True)
    return [join_thought(thought, response) for thought, response in pairs]


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
