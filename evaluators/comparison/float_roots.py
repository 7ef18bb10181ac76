"""Zeros of a function of one variable by floating point: places to look at, never a proof that there are no others."""

from __future__ import annotations

import cmath
import math
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from typing import Any

from evaluators.comparison.numeric import value_at
from evaluators.comparison.polynomials import ROOT_DIGITS, breakpoints_of_parts
from evaluators.parsing.tree import Node, Unreadable

_GRID = [place / 8 for place in range(-80, 81)] + [sign * 2.0**power for sign in (-1, 1) for power in range(4, 20)]
_MAX_ROOTS = 12
_STEPS = 60

_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "sin": cmath.sin, "cos": cmath.cos, "tan": cmath.tan, "exp": cmath.exp, "ln": cmath.log, "log": cmath.log,
    "lg": cmath.log10, "lb": lambda value: cmath.log(value, 2), "abs": abs, "sinh": cmath.sinh, "cosh": cmath.cosh,
    "tanh": cmath.tanh, "asin": cmath.asin, "acos": cmath.acos, "atan": cmath.atan,
}  # fmt: skip
_CONSTANTS = {"pi": math.pi, "e": math.e, "i": 1j}


def float_roots(node: Node, name: str) -> list[Fraction]:
    """Return some real zeros of a tree, to 60 digits, and the breakpoints of its parts."""
    found: list[Fraction] = list(breakpoints_of_parts(node, name))[:_MAX_ROOTS]
    values = [(place, _real(node, name, place)) for place in sorted(_GRID)]
    for (low, left), (high, right) in pairwise(values):
        if left is None or right is None or len(found) > 2 * _MAX_ROOTS:
            continue
        if left == 0:
            found.append(Fraction(low))
        elif left * right < 0:
            root = _refined(node, name, Fraction(low), Fraction(high))
            if root is not None:
                found.append(root)
    return found


def _refined(node: Node, name: str, low: Fraction, high: Fraction) -> Fraction | None:
    """The zero between two places of different sign, by secant steps; None where they do not settle."""
    import mpmath

    context = mpmath.MPContext()
    context.dps = ROOT_DIGITS + 10

    def function(place: Any) -> Any:
        return context.mpf(value_at(node, {name: Fraction(str(place.real))}, ROOT_DIGITS + 10).real)

    try:
        ends = (context.mpf(low.numerator) / low.denominator, context.mpf(high.numerator) / high.denominator)
        root = context.findroot(function, ends, solver="anderson", tol=context.mpf(10) ** (-2 * ROOT_DIGITS))
    except (Unreadable, ValueError, ZeroDivisionError):
        return None
    return Fraction(str(root))


def _real(node: Node, name: str, place: float) -> float | None:
    try:
        value = _value(node, name, place)
    except (ArithmeticError, ValueError, KeyError, TypeError):
        return None
    value = complex(value)
    return value.real if abs(value.imag) < 1e-9 * max(1, abs(value.real)) and math.isfinite(value.real) else None


def _value(node: Node, name: str, place: float) -> complex:
    op = node.op
    if op in ("num", "dec"):
        return float(node.value) if op == "num" else node.value[0] / 10.0 ** node.value[1]
    if op == "sym":
        return {name: place}[node.value]
    if op == "const":
        return _CONSTANTS[node.value]
    args = [_value(arg, name, place) for arg in node.args]
    if op == "add":
        return sum(args)
    if op == "mul":
        return math.prod(args)
    if op == "pow":
        return args[0] ** args[1]
    if op == "root":
        return args[0] ** (1 / args[1])
    if op == "fn" and len(args) == 1:
        return _FUNCTIONS[node.value](args[0])
    raise KeyError(op)
