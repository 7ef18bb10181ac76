"""Candidates: what the rules of extraction propose."""

from __future__ import annotations

from typing import NamedTuple


class Extracted(NamedTuple):
    """text: the answer as written; rule: what found it, such as "box"."""

    text: str
    rule: str
