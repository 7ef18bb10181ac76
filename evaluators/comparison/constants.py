"""Constants of integration: `y = C_1 e^x + C_2 e^{-x}` is a family of functions, whatever its constants are called."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from evaluators.comparison.numeric import DIGITS, value_at
from evaluators.comparison.sampling import mixed_point
from evaluators.parsing.tree import Node, Unreadable, symbols, walk

MAX_CONSTANTS = 3
_CONSTANT = re.compile(r"[CcKk]_\{?\d\}?|[CcK]")
_NUMBERED = re.compile(r"[A-Za-z]_\{?\d\}?")
_OF_INTEGRATION = frozenset(("integral", "integrate", "antiderivative", "indefinite", "differential", "integration"))
_TINY = 1e-20


class Family(NamedTuple):
    """start + sum of constant * function, each function as its values at the same points."""

    start: list[Any]
    functions: list[list[Any]]


def compare_families(a: Node, b: Node, words: frozenset[str]) -> tuple[bool | None, str] | None:
    """Compare two trees as families of functions; None where they do not read as families.

    words: of the question and the gold. Constants of one name on both sides are those of integration only where the
    question is about integrals or differential equations, or where they are numbered: m c^2 is not 2 m c^2.
    """
    names = constants_of(a, b)
    if names is None:
        return None
    mine, yours = names
    numbered = len(mine) > 1 and any(all(map(_NUMBERED.fullmatch, side)) for side in names)
    stated = numbered or bool(words & _OF_INTEGRATION) or {"general", "solution"} <= words
    others = frozenset(symbols(a) - set(mine))
    if all(map(str.isupper, others)):
        return None  # the letters of a segment, as AC
    points = [mixed_point(others, index) for index in range(3, 3 + 2 * len(mine) + 4)] if others else []
    if len(points) <= len(mine):
        return None
    one, two = _family(a, mine, points), _family(b, yours, points)
    if one is None or two is None:
        return (None, "") if stated else None
    if not (_spans(one, two) and _spans(two, one)):
        return (False, "No constants make one family of functions the other") if stated else None
    if stated or (_is_added(one) and _is_added(two)):
        return True, ""
    return None if mine == yours else (None, "")


def _is_added(family: Family) -> bool:
    """Whether the only constant is a summand: x^2 + C."""
    return len(family.functions) == 1 and all(
        abs(slope - family.functions[0][0]) < _TINY for slope in family.functions[0]
    )


def constants_of(a: Node, b: Node) -> tuple[list[str], list[str]] | None:
    """Return the letters of each side that are constants of integration; None where there are none.

    One side must use a name such as C or C_1; what the other has in its place may be called anything.
    """
    for one, two, swapped in ((a, b, False), (b, a, True)):
        mine = sorted(name for name in symbols(one) if _CONSTANT.fullmatch(name))
        yours = sorted(symbols(two) - (symbols(one) - set(mine)))
        if mine and len(mine) == len(yours) <= MAX_CONSTANTS:
            return (yours, mine) if swapped else (mine, yours)
    return None


def _family(node: Node, constants: Sequence[str], points: Sequence[dict[str, Any]]) -> Family | None:
    """The family of a tree that is linear in its constants; None for another tree."""
    unit: dict[str, Any] = dict.fromkeys(constants, 0)
    try:
        start = [value_at(node, {**point, **unit}, DIGITS) for point in points]
        functions = []
        for name in constants:
            one = [value_at(node, {**point, **unit, name: 1}, DIGITS) for point in points]
            five = [value_at(node, {**point, **unit, name: 5}, DIGITS) for point in points]
            slopes = [after - before for after, before in zip(one, start)]
            if any(abs(far - before - 5 * slope) > _TINY for far, before, slope in zip(five, start, slopes)):
                return None
            functions.append(slopes)
        together = [value_at(node, {**point, **dict.fromkeys(constants, 1)}, DIGITS) for point in points]
    except Unreadable:
        return None
    for place, value in enumerate(together):
        if abs(value - start[place] - sum(function[place] for function in functions)) > _TINY:
            return None
    return Family(start, functions)


def _spans(one: Family, two: Family) -> bool:
    """Whether constants of one family give every member of the other."""
    difference = [left - right for left, right in zip(two.start, one.start)]
    return all(_in_span(target, one.functions) for target in (*two.functions, difference))


def _in_span(target: list[Any], functions: list[list[Any]]) -> bool:
    """Whether values are a combination of those of some functions, by elimination."""
    rest, rows = list(target), [list(function) for function in functions]
    for number, row in enumerate(rows):
        pivot = max(range(len(row)), key=lambda place: abs(row[place]))
        if abs(row[pivot]) < _TINY:
            continue
        for other in (*rows[number + 1 :], rest):
            share = other[pivot] / row[pivot]
            for place in range(len(other)):
                other[place] = other[place] - share * row[place]
    return all(abs(value) < _TINY * 10**5 for value in rest)


_ADDED = frozenset(("C", "c", "C_0", "C_1", "c_1"))


def has_constant(node: Node) -> bool:
    """Whether a constant of integration is added to the rest of the tree, and stands nowhere else in it."""
    letters = [part.value for part in walk(node) if part.op == "sym" and part.value in _ADDED]
    return node.op == "add" and len(letters) == 1 and Node("sym", (), letters[0]) in node.args


def without_constant(node: Node) -> Node:
    """The tree without its constant of integration."""
    return Node("add", tuple(part for part in node.args if part.op != "sym" or part.value not in _ADDED))
