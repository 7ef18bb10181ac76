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
    whole = question.strip()
    if len(whole) >= MIN_SENTENCE // 2 and whole in text:
        text = text.replace(whole, " ")
    for sentence in sentences(question):
        if sentence in text:
            text = text.replace(sentence, " ")
    return text


def blanked(text: str, question: str) -> str:
    """Return a response with spaces in place of the copies of its question, so that places stay."""
    for part in (question.strip(), *sentences(question)):
        if len(part) >= MIN_SENTENCE // 2:
            text = text.replace(part, " " * len(part))
    return text


@lru_cache(maxsize=4096)
def sentences(question: str) -> tuple[str, ...]:
    """The sentences of a question that are long enough, and neither options nor answers of worked examples."""
    parts = (part.strip() for part in _SENTENCE_END.split(question))
    return tuple(
        part
        for part in parts
        if len(part) >= MIN_SENTENCE and " " in part and not _OPTION.match(part) and not _STATED.search(part)
    )
