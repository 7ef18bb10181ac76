r"""Formulae of propositional logic: letters joined by `\neg`, `\land`, `\lor`, `\to` and their like."""

from __future__ import annotations

import re

from evaluators.parsing.tree import Node, TooLarge, Unreadable

_SIGNS = {
    **dict.fromkeys((r"\neg", r"\lnot", "~"), "not"),
    **dict.fromkeys((r"\land", r"\wedge"), "and"),
    **dict.fromkeys((r"\lor", r"\vee"), "or"),
    **dict.fromkeys((r"\oplus",), "xor"),
    **dict.fromkeys((r"\to", r"\rightarrow", r"\implies", r"\Rightarrow", r"\supset", "->", "=>"), "implies"),
    **dict.fromkeys((r"\leftrightarrow", r"\iff", r"\Leftrightarrow", "<->", "<=>"), "iff"),
}
_COMMANDS = "|".join(sorted((sign[1:] for sign in _SIGNS if sign[0] == "\\"), key=len, reverse=True))
_SKIPPED = r"\\(?:(?:left|right|quad)(?![a-zA-Z])|[,;:! ])"
_TOKEN = re.compile(rf"{_SKIPPED}|(\\(?:{_COMMANDS})(?![a-zA-Z])|<->|<=>|->|=>|~|[()\[\]]|[A-Za-z](?![A-Za-z]))|\s")
_FORMULA = re.compile(rf"(?:{_TOKEN.pattern})+")
_STRENGTH = {"iff": 1, "implies": 2, "xor": 3, "or": 3, "and": 4}
_CLOSED_BY = {"(": ")", "[": "]"}
LOGIC = "logic "  # before the name of a connective
MAX_DEPTH = 40


def read_logic(text: str) -> Node | None:
    """Return the tree of a formula of propositional logic; None for text that is none.

    >>> read_logic(r"p \\to q").value
    'logic implies'
    """
    if not _FORMULA.fullmatch(text):
        return None
    tokens = [match[1] for match in _TOKEN.finditer(text) if match[1]]
    if not any(token in _SIGNS for token in tokens):
        return None
    try:
        node, rest = _formula(tokens, 0, 0)
    except TooLarge:
        raise
    except Unreadable:
        return None
    return None if rest else node


def _formula(tokens: list[str], strength: int, depth: int) -> tuple[Node, list[str]]:
    """A formula whose connectives bind more tightly than `strength`, and the tokens behind it."""
    left, tokens = _operand(tokens, depth)
    while tokens and (name := _SIGNS.get(tokens[0], "")) and _STRENGTH.get(name, 0) > strength:
        below = _STRENGTH[name] - (name == "implies")  # p -> q -> r is p -> (q -> r)
        right, tokens = _formula(tokens[1:], below, depth + 1)
        left = Node("fn", (left, right), LOGIC + name)
    return left, tokens


def _operand(tokens: list[str], depth: int) -> tuple[Node, list[str]]:
    if depth > MAX_DEPTH:
        raise TooLarge(f"nested deeper than {MAX_DEPTH}")
    if not tokens:
        raise Unreadable("ends where a formula is expected")
    token, rest = tokens[0], tokens[1:]
    if _SIGNS.get(token) == "not":
        inside, rest = _operand(rest, depth + 1)
        return Node("fn", (inside,), LOGIC + "not"), rest
    if token in _CLOSED_BY:
        inside, rest = _formula(rest, 0, depth + 1)
        if rest[:1] != [_CLOSED_BY[token]]:
            raise Unreadable(f"found {token!r} without its {_CLOSED_BY[token]!r}")
        return inside, rest[1:]
    if token.isalpha():
        return Node("sym", (), token), rest
    raise Unreadable(f"cannot read {token!r}")
