"""Where to look: points at which two trees would differ if they differ anywhere.

Random points in every orthant do not see a kink at 10**9 or a bump at 0. The points here are taken from the trees:
zeros of every argument, poles, breakpoints, both sides of each, and beyond the last; in several variables along lines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from itertools import islice, product
from typing import Any
from zlib import crc32

from evaluators.comparison.error_bounds import estimate
from evaluators.comparison.numeric import DIGITS, Rational, fresh_budget, value_at
from evaluators.comparison.polynomials import between, breakpoints_of_parts
from evaluators.parsing.tree import Node, TooLarge, Unreadable, contains, substitute, symbols, walk

MAX_HIDDEN_DIGITS = 1500  # digits behind which a term of a sum may hide
_MAX_SPECIAL = 48  # points taken from the trees
_SATURATING = frozenset(("tanh", "coth", "sech", "csch", "erf"))
_GROWING = _SATURATING | {"exp", "sinh", "cosh", "gamma", "factorial"}
_LOG2_10 = 3.3219280948873626


def hides(*nodes: Node) -> bool:
    """Return whether a tree has functions so steep that a term may vanish beside another: e^{-1000x^2}, tanh 50."""
    return any(
        (part.op == "fn" and part.value in _GROWING)
        or (part.op == "pow" and (symbols(part.args[1]) or contains(part.args[1], "fn", "const", "root", "pow", "dec")))
        for node in nodes
        for part in walk(node)
    )


def hidden_digits(node: Node, point: Mapping[str, Any]) -> int:
    """Return the digits beyond 40 that show every term at a point. Raises TooLarge past 1,500."""
    total = 0.0
    for part in walk(node):
        if part.op == "fn" and part.value in _GROWING:
            argument = abs(value_at(part.args[0], point, 15))
            power = 2 if part.value == "erf" else 1
            total += float(min(argument, 10**6)) ** power / 1.15
        elif part.op == "pow" and (symbols(part) or contains(part, "fn", "const", "root", "dec")):
            value = value_at(part, point, 15)
            total += abs(math.log2(abs(value))) / _LOG2_10 if 1e-300 < abs(value) < 1e300 else _magnitude(value)
        if total > MAX_HIDDEN_DIGITS:
            raise TooLarge("a term here is too small beside another")
    return int(total)


def _magnitude(value: Any) -> float:
    if value == 0:
        return 0.0
    return abs(float(value.context.mag(value))) / _LOG2_10


def digits_at(a: Node, b: Node, point: Mapping[str, Any], digits: int) -> int:
    """Return the digits that a comparison at a point needs, at least so many."""
    return digits + hidden_digits(a, point) + hidden_digits(b, point)


def mixed_point(names: frozenset[str], index: int) -> dict[str, Rational]:
    """Return values of moderate size for the index-th point, whose bits say which of the names are negative.

    Indices from 0 to 2**n - 1 so meet every orthant of n variables.
    """
    point: dict[str, Rational] = {}
    for rank, name in enumerate(sorted(names)):
        noise = crc32(f"{name}@{index}".encode("utf-8", "backslashreplace"))
        point[name] = Fraction(noise % 9973 + 311, 4001) * (-1 if index >> rank & 1 else 1)
    return point


def orthants(names: frozenset[str]) -> list[dict[str, Rational]]:
    """Return a point in every orthant, of the first three variables where there are more."""
    return [mixed_point(names, index) for index in range(2 ** min(len(names), 3))]


def special_points(names: frozenset[str], a: Node, b: Node) -> Iterator[dict[str, Rational]]:
    """Yield points at, beside and beyond the breakpoints of two trees, along lines parallel to the axes and others."""
    grid: dict[str, list[Fraction]] = {}
    for base, direction in _lines(names):
        lined = [_on_line(node, base, direction) for node in (a, b)]
        places = sorted({place for node in lined for place in breakpoints_of_parts(node, "t")})
        beside = [place + step for place in places for step in (Fraction(1, 10**6), Fraction(-1, 10**6))]
        for place in (*between(places), *places, *beside)[: _MAX_SPECIAL if len(names) == 1 else _MAX_SPECIAL // 2]:
            yield {name: base[name] + place * direction[name] for name in names}
        moving = [name for name in names if direction[name]]
        if len(moving) == 1 and places:
            grid[moving[0]] = between(places)[:7]
    if len(grid) > 1:  # boxes that no line above meets
        rest = mixed_point(names, 60)
        for corner in islice(product(*grid.values()), _MAX_SPECIAL):
            yield {**rest, **dict(zip(grid, corner))}


def _lines(names: frozenset[str]) -> Iterator[tuple[dict[str, Fraction], dict[str, Fraction]]]:
    """Yield base points and directions: the axis of a single variable; each axis and two slanted lines of several."""
    spread = sorted(names)
    if len(spread) == 1:
        yield {spread[0]: Fraction(0)}, {spread[0]: Fraction(1)}
        return
    for index, name in enumerate(spread[:4]):
        base = {other: Fraction(value) for other, value in mixed_point(names, 40 + index).items()}
        base[name] = Fraction(0)
        yield base, {other: Fraction(int(other == name)) for other in spread}
    origin = {name: Fraction(0) for name in spread}
    yield origin, {name: Fraction(value) for name, value in mixed_point(names, 50).items()}


def _on_line(node: Node, base: Mapping[str, Fraction], direction: Mapping[str, Fraction]) -> Node:
    """Return the tree along a line, as one of t."""
    t = Node("sym", (), "t")
    names = sorted(base)
    for place, name in enumerate(names):
        node = substitute(node, name, Node("sym", (), f"line {place}"))
    for place, name in enumerate(names):
        start, step = Node("num", (), base[name]), Node("num", (), direction[name])
        moved = start if not direction[name] else Node("add", (start, Node("mul", (step, t))))
        node = substitute(node, f"line {place}", moved)
    return node


def show_point(point: Mapping[str, Any]) -> str:
    """Return a point as text: `x = 1/2, y = -3`."""
    return ", ".join(f"{name} = {show_number(value)}" for name, value in sorted(point.items()))


def show_number(value: Any) -> str:
    """Return a number as text, long ones to eight digits."""
    if getattr(value, "denominator", None) == 1:
        return str(value) if abs(value) < 10**15 else f"{_float(value):.8g}"
    if isinstance(value, Fraction):
        return str(value) if value.denominator < 10**6 and abs(value.numerator) < 10**12 else f"{_float(value):.8g}"
    if getattr(value, "imag", 0) != 0:
        return f"{show_number(value.real)}{'+' if value.imag >= 0 else '-'}{show_number(abs(value.imag))}i"
    return str(value.context.nstr(value.real, 8)) if hasattr(value, "context") else f"{value:.8g}"


def _float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf


def witness_of_values(a: Node, b: Node, point: Mapping[str, Any]) -> str | None:
    """Return a sentence that names a point and the two values there, None where one cannot be computed."""
    near = estimate(a, point), estimate(b, point)
    try:
        if near[0] is not None and near[1] is not None and near[0][0] != near[1][0]:
            left, right = near[0][0], near[1][0]  # floats do where they differ: the values are only shown
        else:
            left, right = value_at(a, point, DIGITS), value_at(b, point, DIGITS)
    except Unreadable:
        return None
    place = f"At {show_point(point)} the values are " if point else "The values are "
    return f"{place}{show_number(left)} and {show_number(right)}"


def witness_at(a: Node, b: Node, point: Mapping[str, Any]) -> str:
    """Return the witness of a difference that is proved at a point, whether or not the two values can be shown."""
    fresh_budget()
    return witness_of_values(a, b, point) or "The values differ"


def witness_of_numbers(left: Rational, right: Rational) -> str:
    """Return the witness of two exact values that differ."""
    return f"The values are {show_number(left)} and {show_number(right)}"
