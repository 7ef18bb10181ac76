"""What a language pack holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Language:
    """Regular expressions and words of one language; an empty pattern is a rule that the language does not have.

    letters: a character class that only this language's script has; "" where it shares the Latin letters.
    keywords: lower-case words without one of which `answer` cannot match; a search for them is cheap.
    answer: announces an answer, which follows it.
    denied_before, denied_after: deny the value behind or before them. doubted_before: offer it as a guess.
    hedge: words that offer several values.
    copula: ends a sentence behind its value and is no part of it.
    question: words of a question or a denial that may not stand in what is dropped behind a number.
    percent: word for per cent. multipliers: words that multiply the number before them.
    units: words of units, with the unit as LaTeX text. counters: characters that count things, as in 3页.
    decimal_comma: whether 3,5 is a decimal.
    """

    name: str
    letters: str = ""
    keywords: tuple[str, ...] = ()
    answer: str = ""
    denied_before: str = ""
    denied_after: str = ""
    doubted_before: str = ""
    hedge: str = ""
    copula: str = ""
    question: str = ""
    percent: str = ""
    multipliers: Mapping[str, int] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    counters: str = ""
    decimal_comma: bool = False
