"""Floating point with a bound on its error: enough to tell most unequal constants apart."""

from __future__ import annotations

import math
from fractions import Fraction

from evaluators.tree import Node

_EPSILON = 4e-16  # a little over the rounding error of a double


def estimate(node: Node) -> tuple[float, float] | None:
    """A real constant's value and a bound on its error, None where floats cannot tell."""
    try:
        found = _estimate(node)
    except (OverflowError, ZeroDivisionError, ValueError):
        return None
    return found if found is not None and math.isfinite(found[0]) and math.isfinite(found[1]) else None


def _estimate(node: Node) -> tuple[float, float] | None:
    op = node.op
    if op == "num":
        value = float(node.value)
        return value, abs(value) * _EPSILON
    if op == "dec":
        value = float(Fraction(node.value[0]) / Fraction(10) ** node.value[1])
        return value, abs(value) * _EPSILON
    if op == "const" and node.value in ("pi", "e"):
        return (math.pi if node.value == "pi" else math.e), 1e-15
    if op not in ("add", "mul", "pow", "root", "percent", "deg"):
        return None
    parts = [_estimate(arg) for arg in node.args]
    if None in parts:
        return None
    return _combine(op, parts)  # type: ignore[arg-type]


def _combine(op: str, parts: list[tuple[float, float]]) -> tuple[float, float] | None:
    if op == "add":
        total = sum(value for value, _ in parts)
        return total, sum(error + abs(value) * _EPSILON * len(parts) for value, error in parts)
    if op == "mul":
        value, error = 1.0, 0.0
        for factor, wrong in parts:
            error = abs(value) * wrong + abs(factor) * error + error * wrong + abs(value * factor) * _EPSILON
            value *= factor
        return value, error
    if op == "percent" or op == "deg":
        scale = 0.01 if op == "percent" else math.pi / 180
        return parts[0][0] * scale, parts[0][1] * scale + abs(parts[0][0]) * _EPSILON
    (base, wrong), (exponent, off) = parts
    if op == "root":
        exponent, off = 1 / exponent, _EPSILON
    if base <= 0 or wrong * 1000 > base or abs(exponent) > 1000 or off > 1e-9:
        return None
    value = base**exponent
    relative = abs(exponent) * wrong / base * 1.1 + abs(math.log(base)) * off + _EPSILON * (1 + abs(exponent))
    return value, abs(value) * relative


def surely_differ(a: Node, b: Node) -> bool:
    """Whether two constants differ by more than their floats can be wrong."""
    left = estimate(a)
    right = estimate(b) if left is not None else None
    if left is None or right is None:
        return False
    return abs(left[0] - right[0]) > 100 * (left[1] + right[1])
