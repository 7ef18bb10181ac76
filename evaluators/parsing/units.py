"""Units of measurement: their names, what they measure, and how they convert."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from evaluators.parsing.normalize import number_word
from evaluators.parsing.unit_table import (
    COMPOUND,
    MULTIPLIERS,
    PREFIX_WORDS,
    PREFIXABLE,
    PREFIXES,
    UNITS,
    VARIABLE_LIKE,
    Dimension,
)


class Unit(NamedTuple):
    """dimension: sorted (base, exponent) pairs; factor: how many of the base units one of these is."""

    dimension: Dimension
    factor: Fraction


_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_AFTER = {"squared": 2, "cubed": 3}
_PLAIN_WORDS = frozenset(name for name in UNITS if name not in VARIABLE_LIKE) | frozenset(COMPOUND) | frozenset(_POWERS)
_WRAPPER = re.compile(
    r"\\(?:text|mathrm|mbox|hbox|textrm|textbf|mathbf|operatorname|rm|mathit|textit|textup)\b|[{}~]|\\[,;:! ]"
)
_PIECE = re.compile(r"([A-Za-z°$€£¥₹\-]+)(?:\s*\^\s*\(?([+-]?\d+)\)?|(\d)\b)?|([/*])|(\S)")
_LETTERS = re.compile(r"[A-Za-z]{2,}")
_DEGREES_OF = re.compile(r"\bdegrees? ([CF])(?:elsius|ahrenheit)?\b", re.IGNORECASE)
_MINUS = re.compile(r"- +(?=\d)")
# What is said of a number and does not measure it: `5 more` is not 5, and neither is `negative 5`.
_SAID_OF_NUMBERS = """
or and not if then is are was were the no yes none true false even odd only all where for with than left right when
both either undefined infinity pi more less fewer negative minus plus positive factorial wrong incorrect maybe
possibly perhaps probably about approximately nearly almost under over least most between greater smaller
"""
_NOT_UNITS = frozenset(_SAID_OF_NUMBERS.split())
UNKNOWN_WORD = "a "  # before a word that names no known unit


def plain_text(text: str) -> str:
    """Return the words of a unit without the commands around them."""
    return " ".join(_WRAPPER.sub(" ", text).split())


def is_unit_word(word: str) -> bool:
    """Whether a word of plain text names a unit, and no variable."""
    return (
        word in _PLAIN_WORDS
        or (len(word) > 3 and word.lower().rstrip("s") in _PLAIN_WORDS)
        or _singular(word) in _PLAIN_WORDS
        or (len(word) > 3 and _singular(word.lower()) in MULTIPLIERS)
    )


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


def _named(word: str) -> tuple[Dimension, Fraction] | str:
    for form in (word, word.rstrip("."), _singular(word), "", word.lower(), _singular(word.lower())):
        if not form and (prefixed := _prefixed(word)) is not None:
            return prefixed  # mM is no mm
        if form in COMPOUND:
            return COMPOUND[form]
        if form in UNITS:
            return UNITS[form]
    return ((UNKNOWN_WORD + _singular(word.lower()), 1),), Fraction(1)


def _prefixed(word: str) -> tuple[Dimension, Fraction] | None:
    """A unit with a prefix of the SI, as a symbol or a word."""
    for prefixes, units, form in ((PREFIXES, PREFIXABLE, word), (PREFIX_WORDS, UNITS, _singular(word.lower()))):
        for prefix, power in prefixes.items():
            rest = form[len(prefix) :]
            if form.startswith(prefix) and rest in units and (prefixes is PREFIXES or len(rest) > 3):
                dimension, factor = UNITS[rest]
                return dimension, factor * Fraction(10) ** power
    return None


def content_words(text: str) -> frozenset[str]:
    """Return the words of a text in the singular, as `Unit` names what is counted."""
    return frozenset(_singular(word.lower()) for word in _LETTERS.findall(text))


def counted(unit: Unit) -> list[str]:
    """Return the words of a unit that name no known unit, in the singular."""
    return [base[len(UNKNOWN_WORD) :] for base, _ in unit.dimension if base.startswith(UNKNOWN_WORD)]


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    """The unit that a text names, None where it names none.

    Unknown words become units of their own, marked as such: what they say of the number is for the comparison.
    """
    if len(text) > 80:
        return None
    plain = _WRAPPER.sub(" ", text).replace(r"\cdot", "*").replace(r"\times", "*").replace("·", "*")
    plain = (
        plain.replace(r"\circ", "°")
        .replace("^ ° ", " °")
        .replace("^ °", "°")
        .replace("^°", "°")
        .replace("° C", "°C")
        .replace("° F", "°F")
    )
    plain = _DEGREES_OF.sub(r"°\1", plain)
    plain = plain.replace("\\$", "$").replace("\\", " ")
    plain = _MINUS.sub("-", plain)
    powers: dict[str, int] = {}
    factor = Fraction(1)
    sign, next_power, words = 1, 1, 0
    last: tuple[Dimension, Fraction] | None = None
    for word, exponent, digit, operator, stray in _PIECE.findall(plain):
        if stray in ("(", ")", ".", ","):
            continue
        if stray:
            return None
        if operator:
            sign = -1 if operator == "/" else sign
            continue
        lowered = word.lower()
        if lowered in _NOT_UNITS or (lowered not in UNITS and number_word(lowered) is not None):
            return None
        if lowered in ("per", "a", "an", "each") and (words or lowered == "per"):
            sign = -1
            continue
        if lowered in ("of", "in", "the") and words:
            break
        if lowered in _POWERS:
            next_power = _POWERS[lowered]
            continue
        if lowered in _POWERS_AFTER:
            if last is None:
                return None  # 5 squared
            named: tuple[Dimension, Fraction] | str = last
            power = (_POWERS_AFTER[lowered] - 1) * sign
        else:
            named = _named(word)
            power = int(exponent or digit or 1) * next_power * sign
            next_power = 1
            words += 1
        if isinstance(named, str):
            inner = parse_unit(named)
            assert inner is not None
            named = inner.dimension, inner.factor
        if abs(power) > 12:
            return None
        for base, size in named[0]:
            powers[base] = powers.get(base, 0) + size * power
        factor *= named[1] ** power
        last = named
    if not words or words > 6:
        return None
    dimension = tuple(sorted((base, size) for base, size in powers.items() if size))
    return Unit(_with_kelvin(dimension), factor)


def _with_kelvin(dimension: Dimension) -> Dimension:
    """Degrees Celsius within another unit, as in J/(kg °C), are differences: kelvins."""
    if len(dimension) == 1 or all(base != "celsius" for base, _ in dimension):
        return dimension
    sizes = dict(dimension)
    sizes["kelvin"] = sizes.pop("celsius") + sizes.get("kelvin", 0)
    return tuple(sorted((base, size) for base, size in sizes.items() if size))
