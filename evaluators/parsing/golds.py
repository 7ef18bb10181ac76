"""Golds as data sets write them: a unit noted in parentheses, several acceptable golds in one field."""

from __future__ import annotations

import json
import re
from typing import Any

from evaluators.parsing.read_answer import Answer, read_answer
from evaluators.parsing.tree import Node
from evaluators.parsing.units import parse_unit

_NOTED = re.compile(
    r"^([-+$\d.][-+$\d.,:/ ]{0,80}?)\s{0,9}\(\s*([A-Za-z%][A-Za-z%.,/' -]{0,60}?)\s*\)\.?$"
)  # 9 (apples)
_SEVERAL = re.compile(r"\)\s*[,;]\s*(?=[-+$\d.])")  # 6 (red); 7 (blue)
_HALF_OF_DAY = re.compile(r"[ap]\.?\s*m\.?", re.IGNORECASE)
_PERCENT = frozenset(("%", "percent", "percents", "per cent"))
MAX_ALTERNATIVES = 64


def read_gold_text(text: str) -> Answer:
    """Return a gold as read: `9 (apples)` is nine apples, `9:15 (a.m.)` a time of day."""
    text = text.strip()
    if text[-1:] not in (")", ".") or "(" not in text or "\\" in text:
        return read_answer(text)
    if _SEVERAL.search(text):
        parts = [read_gold_text(part) for part in _SEVERAL.sub(")\0", text).split("\0")]
        trees = tuple(part.tree for part in parts)
        if None not in trees and all(_NOTED.match(part.source) for part in parts):
            return Answer(text, text, Node("list", trees, ","), "")
    match = _NOTED.match(text)
    if match is None:
        return read_answer(text)
    value, note = match[1].strip(), match[2].strip()
    if _HALF_OF_DAY.fullmatch(note):
        return read_answer(f"{value} {note}")
    number = read_answer(value)
    if number.tree is None or number.tree.op == "text":
        return read_answer(text)
    if note.lower() in _PERCENT:
        return Answer(text, number.key, Node("percent", (number.tree,)), "")
    unit = None if number.tree.op in ("quantity", "clock", "ratio") else parse_unit(note)
    return Answer(text, number.key, number.tree if unit is None else Node("quantity", (number.tree,), unit), "")


def acceptable_golds(gold: Any) -> list[Any] | None:
    """Return the members of a list of golds, each of which is a right answer; None where there is a single gold.

    A list may be written as JSON text: `["0.5", "1/2"]`. Brackets around bare numbers are an interval or vector.
    """
    if isinstance(gold, str):
        if gold[:1] != "[" or gold[-1:] != "]" or '"' not in gold:
            return None
        try:
            gold = json.loads(gold)
        except (ValueError, RecursionError):
            return None
        if not all(isinstance(member, str) for member in gold):
            return None
    elif not isinstance(gold, (list, tuple)):
        return None
    return list(gold) if 0 < len(gold) <= MAX_ALTERNATIVES else None
