r"""Boxes: the one reader of `\boxed{…}`, `\fbox{…}` and `\framebox{…}` of the whole product."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from evaluators.extraction.doubt import CORRECTION

LAST = 200_000  # characters at the end in which boxes are looked for
MAX_BOX = 20_000  # characters in a box
MAX_BOXES = 40  # boxes looked at, from the last


class Box(NamedTuple):
    """A box: what it holds, and its span in the text, command and braces included."""

    content: str
    start: int
    end: int


_NEXT_ITEM = re.compile(
    r"[\s$.,;]{0,9}(?:\\[\])])?\s{0,9}\n[ \t]{0,9}(?:\d{1,2}[.)]|[-*•]|\([a-z\d]\))[\s$]{0,9}(?:\\[\[(])?\s{0,9}"
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\$|$)|\n\s*\n|\\\]")
_CONSEQUENCE = re.compile(
    r"=|\\(?:implies|Rightarrow|to|rightarrow|approx)\b|⇒|→|\b(?:so|therefore|thus|hence|then|which|giv(?:es|ing)|"
    r"means|because|since|final|get|finally|total|is|are|answer)\b",
    re.IGNORECASE,
)
_NO_LIST = re.compile(r"[+#~|@%^*/]{2,}|\+")  # \boxed{35 cm} ++++++ \boxed{4}
_NAMED = re.compile(r"\$|\b[a-zA-Z](?:_\w|\([a-z]\))?\s?(?:=|is\b)")
_BOX = re.compile(
    r"\\(?:boxed|box|fbox|framebox)\s{0,3}(?=\{)|\\(?:boxed|fbox)\s{1,3}(?=[^\s{])|\\boxed(?=[^\sa-zA-Z{])"
)
_BOX_NAMES = (r"\box", r"\fbox", r"\framebox")  # \box{A}: some models shorten \boxed
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_UNBRACED = re.compile(r"\$|\\?[^\s$,;]{1,200}")
_UNCLOSED = re.compile(r"[^\n$]{1,200}")


def last_box(text: str) -> str | None:
    r"""Return the content of the last box that can be read; None where there is none.

    A box needs no braces (`\boxed 5`); one whose brace is missing ends with its formula or line.

    >>> last_box(r"\boxed{1}, no: \fbox{\frac{1}{2}}")
    '\\frac{1}{2}'
    """
    return next((box.content for box in boxes_from_end(text[-LAST:])), None)


def boxes_from_end(text: str) -> Iterator[Box]:
    """Yield the readable boxes from the last to the first; of boxes in one another, the innermost."""
    names = [name for name in _BOX_NAMES if name in text]
    end = inner = len(text)
    for _ in range(MAX_BOXES if names else 0):
        start = max(text.rfind(name, 0, end) for name in names)
        if start < 0:
            return
        end = start
        read = box_content(text, start)
        if read is None or read[1] > inner:  # unreadable, or around the box just read
            continue
        inner = start
        yield Box(read[0].strip(), start, read[1])


def box_content(text: str, start: int) -> tuple[str, int] | None:
    """What a box holds and where it ends; None where nothing can be told."""
    match = _BOX.match(text, start)
    if match is None:
        return None
    at = match.end()
    if text[at] != "{":
        bare = _UNBRACED.match(text, at)
        return (bare[0].rstrip(".$"), bare.end()) if bare and bare[0] != "$" else None
    level = 0
    stop = min(len(text), at + MAX_BOX)
    for brace in _BRACE.finditer(text, at, stop):
        if brace[0] == "{":
            level += 1
        elif brace[0] == "}":
            level -= 1
            if not level:
                return text[at + 1 : brace.start()], brace.end()
    return unclosed(text, at + 1, stop)


def unclosed(text: str, start: int, stop: int) -> tuple[str, int] | None:
    """A box whose brace is missing ends with its formula or line, if that is short."""
    line = _UNCLOSED.match(text, start, stop)
    if line is None:
        return None
    content = line[0].split(r"\]")[0].split(r"\)")[0]
    return content.rstrip(" ."), start + len(content)


def belong_together(between: str) -> bool:
    """Whether two boxes with this text between them are one answer."""
    if _NEXT_ITEM.fullmatch(between):
        return True
    if _NO_LIST.search(between):
        return False
    if (
        len(between) > 200
        or _SENTENCE_END.search(between)
        or "\n" in between.strip(" \n")
        or CORRECTION.search(between)
    ):
        return False
    return not _CONSEQUENCE.search(_NAMED.sub(" ", between)) and "\n\n" not in between
