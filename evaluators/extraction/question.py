"""What a response copies from its question, which answers nothing."""

from __future__ import annotations

import re
from functools import lru_cache

MIN_SENTENCE = 20  # characters of a sentence whose copy is told from a coincidence
_SENTENCE_END = re.compile(r"(?<=[.?!:])\s+|\n+")
_STATED = re.compile(r"answer|####|\\boxed", re.IGNORECASE)  # worked examples in the prompt: "So the answer is 12."
_OPTION = re.compile(r"\(?[A-J][).:]")  # (B) a circle: an answer in the words of the question


def without_question(text: str, question: str) -> str:
    """Return a response without the copies of its question, of the whole or of whole sentences.

    >>> without_question("Simplify $\\sqrt{242}$. It is 11.", "Simplify $\\sqrt{242}$.").strip()
    'It is 11.'
    """
    for part in copies(question):
        if part in text:
            text = text.replace(part, " ")
    return text


def blanked(text: str, question: str) -> str:
    """Return a response with spaces in place of the copies of its question, so that places stay."""
    for part in copies(question):
        text = text.replace(part, " " * len(part))
    return text


@lru_cache(maxsize=4096)
def copies(question: str) -> tuple[str, ...]:
    """What is no answer where a response repeats it: the question, and each of its sentences."""
    whole = question.strip()
    return (whole, *sentences(question)) if len(whole) >= MIN_SENTENCE // 2 else sentences(question)


@lru_cache(maxsize=4096)
def sentences(question: str) -> tuple[str, ...]:
    """The sentences of a question that are long enough, and neither options nor answers of worked examples."""
    parts = (part.strip() for part in _SENTENCE_END.split(question))
    return tuple(
        part
        for part in parts
        if len(part) >= MIN_SENTENCE and " " in part and not _OPTION.match(part) and not _STATED.search(part)
    )
