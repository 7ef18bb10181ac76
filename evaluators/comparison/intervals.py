"""Order on the real line: sort, merge and intersect stretches whose ends are numbers."""

from __future__ import annotations

from functools import cmp_to_key
from typing import Any, NamedTuple

from evaluators.comparison.numeric import DIGITS, exact, value_at
from evaluators.parsing.tree import INFINITY, Node, Unreadable, negate

_NEAR = 1e-30

MINUS_INFINITY = negate(INFINITY)


class Piece(NamedTuple):
    """A stretch of the real line; a point where low is high and both are closed."""

    low: Node
    high: Node
    low_closed: bool
    high_closed: bool


def is_infinite(node: Node) -> int:
    """1 for infinity, -1 for minus infinity, else 0."""
    if node == INFINITY:
        return 1
    return -1 if node == MINUS_INFINITY else 0


def real(node: Node) -> Any:
    """The place of an end on the line, exact where it can be; None where it is no real number."""
    infinite = is_infinite(node)
    if infinite:
        return infinite * float("inf")
    try:
        value = exact(node)
        if value is None:
            value = value_at(node, {}, DIGITS)
    except Unreadable:
        return None
    return None if getattr(value, "imag", 0) != 0 else getattr(value, "real", value)


def _compare(left: Any, right: Any) -> int:
    """-1, 0 or 1; irrational ends within 1e-30 of each other are one."""
    if left == right:
        return 0
    if isinstance(left, float) or isinstance(right, float):
        return -1 if float(left) < float(right) else 1
    difference = left - right if not _mixed(left, right) else _float_difference(left, right)
    return 0 if abs(difference) < _NEAR else (-1 if difference < 0 else 1)


def _mixed(left: Any, right: Any) -> bool:
    return hasattr(left, "denominator") != hasattr(right, "denominator")


def _float_difference(left: Any, right: Any) -> Any:
    if hasattr(left, "denominator"):
        return left.numerator - right * left.denominator
    return left * right.denominator - right.numerator


def merge(pieces: list[Piece]) -> list[Piece] | None:
    """The same set as sorted stretches with gaps between them; None where an end is no real number."""
    placed = [(real(piece.low), real(piece.high), piece) for piece in pieces]
    if any(low is None or high is None for low, high, _ in placed):
        return None
    placed = [item for item in placed if _holds_something(item)]
    placed.sort(key=cmp_to_key(_by_low_end))
    merged: list[tuple[Any, Any, Piece]] = []
    for low, high, piece in placed:
        if merged:
            last_low, last_high, last = merged[-1]
            gap = _compare(last_high, low)
            if gap > 0 or (gap == 0 and (last.high_closed or piece.low_closed)):
                further = _compare(high, last_high)
                if further > 0:
                    merged[-1] = (last_low, high, Piece(last.low, piece.high, last.low_closed, piece.high_closed))
                elif further == 0 and piece.high_closed:
                    merged[-1] = (last_low, last_high, last._replace(high_closed=True))
                continue
        merged.append((low, high, piece))
    return [piece for _, _, piece in merged]


def _by_low_end(one: tuple[Any, Any, Piece], two: tuple[Any, Any, Piece]) -> int:
    return _compare(one[0], two[0]) or two[2].low_closed - one[2].low_closed


def _holds_something(item: tuple[Any, Any, Piece]) -> bool:
    low, high, piece = item
    order = _compare(low, high)
    return order < 0 or (order == 0 and piece.low_closed and piece.high_closed)


def meet(left: list[Piece], right: list[Piece]) -> list[Piece] | None:
    """The intersection of two sets; None where an end is no real number."""
    result = []
    for one in left:
        for two in right:
            ends = [real(node) for node in (one.low, two.low, one.high, two.high)]
            if any(end is None for end in ends):
                return None
            lows, highs = _compare(ends[0], ends[1]), _compare(ends[2], ends[3])
            low, low_closed = (one.low, one.low_closed) if lows > 0 else (two.low, two.low_closed)
            high, high_closed = (one.high, one.high_closed) if highs < 0 else (two.high, two.high_closed)
            result.append(
                Piece(
                    low,
                    high,
                    low_closed if lows else one.low_closed and two.low_closed,
                    high_closed if highs else one.high_closed and two.high_closed,
                )
            )
    return merge(result)
