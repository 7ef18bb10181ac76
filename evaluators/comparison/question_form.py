"""What a question asks for: a percentage, a number of some unit, digits in a base, the letter of an option."""

from __future__ import annotations

import re
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache

from evaluators.parsing.read_answer import Answer
from evaluators.parsing.tree import Node
from evaluators.parsing.units import Unit, counted, parse_unit
from evaluators.verdict import Policy

MAX_PROMPT = 20_000  # characters of a question that are looked at, from its end
_GIVEN_PERCENT = re.compile(r"(?<![\d.,])\d[\d.,]*\}?\$?\s*(?:\\?%|per ?cent\b|percent\b)", re.IGNORECASE)
_PERCENT = re.compile(r"%|\bper ?cent|\bpercent", re.IGNORECASE)
_SHARE = re.compile(r"\b(?:probability|chance|fraction|decimal)\b", re.IGNORECASE)
_HOW_MANY = re.compile(
    r"\bhow many ((?:square |cubic )?[a-z]+)|\bin (?!how\b)((?:square |cubic )?[a-z]{3,})", re.IGNORECASE
)
_BASE = re.compile(r"\b(?:base|binary|octal|hexadecimal|ternary)\b", re.IGNORECASE)
_FORMULA = re.compile(r"\$[^$]{1,500}\$|\\\([^$]{1,500}?\\\)")
_FIRST = re.compile(r"(?:^|[\s(*{])\(?A[).:]")
_SECOND = re.compile(r"(?:^|[\s(*{])\(?B[).:]")


@lru_cache(maxsize=4096)
def asks_percent(prompt: str) -> bool:
    """Whether a question speaks of a percentage that it does not give: "What percent of 50 is 6?"."""
    return _PERCENT.search(_GIVEN_PERCENT.sub(" ", prompt[-MAX_PROMPT:])) is not None


@lru_cache(maxsize=4096)
def asked_unit(prompt: str) -> Unit | None:
    """Return the only unit in which a question asks for a number: years in "In how many years will he be 40?"."""
    units = set()
    for match in _HOW_MANY.finditer(prompt[-MAX_PROMPT:]):
        unit = parse_unit(match[1] or match[2])
        if unit is not None and unit.dimension and not counted(unit):
            units.add(unit)
    return units.pop() if len(units) == 1 else None


@lru_cache(maxsize=4096)
def offers_options(prompt: str) -> bool:
    """Whether a question has options (A) and (B)."""
    return _FIRST.search(prompt) is not None and _SECOND.search(prompt) is not None


def _has_percent(text: str) -> bool:
    return "%" in text or ("er" in text.lower() and _PERCENT.search(text) is not None)


def policy_for(policy: Policy, gold: str, prediction: str, prompt: str) -> Policy:
    r"""Return the policy with `percent_as_number` off where the question says what a bare number means.

    42 and 42 % are taken for the same where the question asks for a percentage. Where it does not, `42\%` is 0.42 and
    does not answer 42; a gold of 42 % still accepts 42, the sign left out, unless a probability, fraction or decimal
    is asked for.
    """
    with_sign = [_has_percent(text) for text in (gold, prediction)]
    if with_sign[0] == with_sign[1] or not policy.percent_as_number or asks_percent(prompt):
        return policy
    if with_sign[0] and not _SHARE.search(prompt):
        return policy
    return replace(policy, percent_as_number=False)


def gold_for_question(gold: Node, prediction: Answer, prompt: str) -> Node:
    """Return a bare gold with the unit that the question asks for, where the prediction has one of that dimension.

    Digits that are to be in a base are read so where the prediction leaves the base out: 1010 for 1010_2.
    """
    tree = prediction.tree
    assert tree is not None
    if gold.op in ("num", "dec") and tree.op in ("quantity", "deg"):
        unit = asked_unit(prompt)
        if unit is None:
            return gold
        if unit.dimension == (("degree", 1),):
            return Node("deg", (gold,))
        same = tree.op == "quantity" and tree.value.dimension == unit.dimension
        return Node("quantity", (gold,), Unit(unit.dimension, Fraction(unit.factor))) if same else gold
    if gold.op == "base" and tree.op == "num" and prediction.key == gold.value[0] and _BASE.search(prompt):
        return tree
    return gold


def as_option(prediction: Answer, gold: Node, prompt: str) -> Node | None:
    """Return `b` and `(b)` as the option B, where the question has options and no variable of that name.

    gold: the letter of an option, or this does not apply.
    """
    tree = prediction.tree
    if gold.op not in ("choice", "sym") or len(str(gold.value)) != 1 or not str(gold.value).isupper() or tree is None:
        return None
    if tree.op not in ("sym", "const") or len(str(tree.value)) != 1 or not str(tree.value).islower():
        return None
    letter = str(tree.value)
    variable = any(re.search(rf"(?<![a-zA-Z\\]){letter}(?![a-zA-Z])", formula) for formula in _FORMULA.findall(prompt))
    return Node("choice", (), letter.upper()) if offers_options(prompt) and not variable else None
