"""Functions defined by cases, compared by what they are at points and at the ends of their cases."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from evaluators.comparison.collections_ import rows_of
from evaluators.comparison.ladder import Ladder
from evaluators.comparison.numeric import DIGITS, Rational, exact, value_at
from evaluators.comparison.sampling import show_point
from evaluators.parsing.tree import Node, TooLarge, Unreadable, symbols, walk

_OTHERWISE = frozenset(("otherwise", "else", "elsewhere"))
_PARITY = {"even": 0, "odd": 1}
_STEPS = (
    Fraction(0),
    Fraction(1, 7),
    Fraction(-1, 7),
    Fraction(19, 11),
    Fraction(-19, 11),
    Fraction(83, 3),
    Fraction(-83, 3),
)
_ENDS = 6  # ends of cases looked at
_ENOUGH = 5  # points at which both are defined


class Piecewise(Ladder):
    """Compares functions defined by cases, with each other and with expressions."""

    __slots__ = ()

    def piecewise(self, a: Node, b: Node) -> bool | None:
        """Whether both are the same at every point looked at; case by case where no point can be looked at."""
        self.reach(2)
        if a.op == b.op and self.unordered(rows_of(a), rows_of(b), distinct=False):
            return True
        names = symbols(a) | symbols(b)
        if len(names) != 1:
            return None
        self.reach(3)
        (name,) = names
        defined = 0
        for place in _places(a, b):
            try:
                same = _same_at(a, b, {name: place})
            except TooLarge:
                raise
            except Unreadable:
                return None
            if same is False:
                return self.differ(f"At {show_point({name: place})} the values differ, or one has none")
            defined += same is True
        return True if defined >= _ENOUGH else None


def _places(a: Node, b: Node) -> list[Rational]:
    """Points at, beside and far from the ends of the cases; integers where a case is of even or odd numbers."""
    conditions = [row.args[1] for node in (a, b) if node.op == "cases" for row in rows_of(node) if len(row.args) > 1]
    parts = [part for condition in conditions for part in walk(condition)]
    if any(part.op == "class" or (part.op == "text" and part.value.split()[-1] in _PARITY) for part in parts):
        return list(range(1, 9))
    ends: list[Rational] = [0]
    for condition in conditions:
        for side in condition.args if condition.op == "rel" else ():
            value = None if symbols(side) else exact(side)
            if value is not None and value not in ends:
                ends.append(value)
    return [end + step for end in ends[:_ENDS] for step in _STEPS]


def _same_at(a: Node, b: Node, point: dict[str, Rational]) -> bool | None:
    """Whether both have the same value at a point, None where neither has one."""
    chosen = _case_at(a, point), _case_at(b, point)
    if chosen[0] is None or chosen[1] is None:
        return None if chosen[0] is chosen[1] else False
    left, right = value_at(chosen[0], point, DIGITS), value_at(chosen[1], point, DIGITS)
    return bool(abs(left - right) <= max(1, abs(left)) * 10.0 ** (10 - DIGITS))


def _case_at(node: Node, point: dict[str, Rational]) -> Node | None:
    """The expression that applies at a point."""
    if node.op != "cases":
        return node
    for row in rows_of(node):
        if len(row.args) == 1 or _holds(row.args[1], point):
            return row.args[0]
    return None


def _holds(condition: Node, point: dict[str, Rational]) -> bool:
    """Whether a condition holds at a point. Raises Unreadable for what is no condition on numbers."""
    if condition.op == "text":
        if condition.value in _OTHERWISE:
            return True
        named = condition.value.split()
        if len(named) == 2 and named[0] in point and named[1] in _PARITY:
            return point[named[0]] % 2 == _PARITY[named[1]]
    if condition.op == "list" and condition.args:
        every = [_holds(part, point) for part in condition.args]
        return any(every) if condition.value == "or" else all(every)
    if condition.op == "rel":
        if condition.args[-1].op == "class":
            residue, modulus = (value_at(part, point, DIGITS) for part in condition.args[-1].args)
            return bool((value_at(condition.args[0], point, DIGITS) - residue) % modulus == 0)
        values = [value_at(side, point, DIGITS).real for side in condition.args]
        return all(_ordered(left, sign, right) for left, sign, right in zip(values, condition.value, values[1:]))
    raise Unreadable("found a case whose condition is not on numbers")


def _ordered(left: Any, sign: str, right: Any) -> bool:
    near = abs(left - right) <= max(1, abs(left)) * 10.0 ** (10 - DIGITS)
    if sign in ("=", "!="):
        return bool(near == (sign == "="))
    if sign not in ("<", ">", "<=", ">="):
        raise Unreadable(f"found a case with the condition {sign!r}")
    if near:
        return "=" in sign
    return bool(left < right) if sign[0] == "<" else bool(left > right)
