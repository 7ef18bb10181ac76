"""Systems of linear equations with rational coefficients, compared exactly by their reduced forms."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from evaluators.comparison.numeric import exact
from evaluators.comparison.sampling import mixed_point
from evaluators.parsing.tree import Node, Unreadable, negate, substitute

Row = list[Fraction]  # coefficients of the variables, then minus the constant


def linear_rows(equations: Sequence[Node], names: list[str]) -> list[Row] | None:
    """Return the rows of a system, None where an equation is not linear over the rationals."""
    rows = []
    for equation in equations:
        if equation.op != "rel" or equation.value != ("=",):
            return None
        row = _row(Node("add", (equation.args[0], negate(equation.args[1]))), names)
        if row is None:
            return None
        rows.append(row)
    return rows


def _row(difference: Node, names: list[str]) -> Row | None:
    start = _value(difference, dict.fromkeys(names, Fraction(0)))
    if start is None:
        return None
    row = []
    for name in names:
        step = _value(difference, {other: Fraction(int(other == name)) for other in names})
        if step is None:
            return None
        row.append(step - start)
    for index in range(3):
        point = {name: Fraction(value) for name, value in mixed_point(frozenset(names), index).items()}
        expected = start + sum(slope * point[name] for slope, name in zip(row, names))
        if _value(difference, point) != expected:
            return None
    return [*row, -start]


def _value(node: Node, point: dict[str, Fraction]) -> Fraction | None:
    for name, value in point.items():
        node = substitute(node, name, Node("num", (), value))
    try:
        value = exact(node)  # type: ignore[assignment]
    except Unreadable:
        return None
    return None if value is None else Fraction(value)


def reduced(rows: list[Row]) -> list[Row] | None:
    """Return the reduced row echelon form without zero rows, None where the system has no solution."""
    rows = [list(row) for row in rows]
    done = 0
    for column in range(len(rows[0]) - 1):
        pivot = next((place for place in range(done, len(rows)) if rows[place][column]), None)
        if pivot is None:
            continue
        rows[done], rows[pivot] = rows[pivot], rows[done]
        rows[done] = [value / rows[done][column] for value in rows[done]]
        for place, row in enumerate(rows):
            if place != done and row[column]:
                rows[place] = [value - row[column] * lead for value, lead in zip(row, rows[done])]
        done += 1
    if any(row[-1] for row in rows[done:]):
        return None
    return rows[:done]


def solutions(rows: list[Row], names: list[str]) -> list[dict[str, Fraction]]:
    """Return some solutions of a reduced system: its free variables take values of both signs."""
    found = []
    for index in range(3):
        point = {name: Fraction(value) for name, value in mixed_point(frozenset(names), index).items()}
        for row in rows:
            lead = next(place for place, value in enumerate(row) if value)
            rest = sum(value * point[name] for value, name in zip(row[lead + 1 : -1], names[lead + 1 :]))
            point[names[lead]] = row[-1] - rest
        found.append(point)
    return found
