"""Lines in parametric form: (1, 3) + t(2, -1), whatever its letter and wherever it starts."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

from evaluators.comparison.numeric import exact
from evaluators.comparison.sampling import show_number
from evaluators.parsing.tree import Node, Unreadable, substitute, symbols

PARAMETERS = frozenset(("t", "s", "u", "k", "r", "lambda", "mu"))


class Line(NamedTuple):
    """start + parameter * direction, coordinate by coordinate, in exact numbers."""

    start: tuple[Fraction, ...]
    direction: tuple[Fraction, ...]


def line_of(cells: Sequence[Node]) -> Line | None:
    """Return the line that coordinates linear in one parameter describe; None for other coordinates."""
    names = frozenset().union(*map(symbols, cells))
    if len(cells) < 2 or len(names) != 1 or not names <= PARAMETERS:
        return None
    (name,) = names
    points = [_at(cells, name, count) for count in (0, 1, 3)]
    if any(point is None for point in points):
        return None
    start, one, three = (point or () for point in points)
    direction = tuple(after - before for before, after in zip(start, one))
    linear = all(far - before == 3 * slope for before, far, slope in zip(start, three, direction))
    return Line(start, direction) if linear and any(direction) else None


def _at(cells: Sequence[Node], name: str, count: int) -> tuple[Fraction, ...] | None:
    try:
        values = [exact(substitute(cell, name, Node("num", (), count))) for cell in cells]
    except Unreadable:
        return None
    return None if None in values else tuple(Fraction(value) for value in values if value is not None)


def compare_lines(a: Sequence[Node], b: Sequence[Node]) -> tuple[bool, str] | None:
    """Return whether two lines are the same, with a point of the first that is not on the second as the witness.

    None where one of them is no line with rational coordinates.
    """
    one, two = line_of(a), line_of(b)
    if one is None or two is None or len(one.start) != len(two.start):
        return None
    for point in (one.start, tuple(start + slope for start, slope in zip(*one))):
        if not _lies_on(point, two):
            return False, f"The point ({', '.join(map(show_number, point))}) lies on one line alone"
    return True, ""


def _lies_on(point: tuple[Fraction, ...], line: Line) -> bool:
    """Whether a point is start + t direction: its offset from the start is parallel to the direction."""
    offset = tuple(value - start for value, start in zip(point, line.start))
    place = next(place for place, slope in enumerate(line.direction) if slope)
    share = offset[place] / line.direction[place]
    return all(part == share * slope for part, slope in zip(offset, line.direction))
