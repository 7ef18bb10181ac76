"""The measures of one text in plain Python: what a map function of the peers calls."""

from __future__ import annotations

import hashlib
import re

_BOX = re.compile(r"(?s).*\\(?:boxed|fbox)\{((?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*)\}")
_OPENING = ("<think>", "<thinking>", "<|begin_of_thought|>", "<reasoning>")
_CLOSING = ("</think>", "</thinking>", "<|end_of_thought|>", "</reasoning>")


def measure_one(text: str) -> dict[str, object]:
    """The same seven measures in Python, as one would write them for a map function."""
    lines, box = text.split("\n"), _BOX.match(text[-600:])
    return {
        "characters": len(text),
        "think_opened": any(tag in text for tag in _OPENING),
        "think_closed": any(tag in text for tag in _CLOSING),
        "boxed": box.group(1) if box else None,
        "response_hash": hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
        "repeated_lines": 1 - len(set(lines)) / len(lines),
        "tail_repeats": text.count(text[-40:]),
    }
