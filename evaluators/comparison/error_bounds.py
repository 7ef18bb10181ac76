"""Floating point with a bound on its error: enough to tell most unequal values apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from evaluators.parsing.tree import Node

_EPSILON = 4e-16  # a little over the rounding error of a double
_NOWHERE: dict[str, Any] = {}

Estimate = tuple[complex, float]  # a value, and a bound on the modulus of its error


def estimate(node: Node, point: Mapping[str, Any] = _NOWHERE) -> Estimate | None:
    """The value at a point and a bound on its error, None where floats cannot tell."""
    try:
        found = _estimate(node, point)
    except (OverflowError, ZeroDivisionError, ValueError):
        return None
    return found if found is not None and math.isfinite(abs(found[0])) and math.isfinite(found[1]) else None


def _estimate(node: Node, point: Mapping[str, Any]) -> Estimate | None:
    op = node.op
    if op == "num":
        value = float(node.value)
        return value, abs(value) * _EPSILON
    if op == "dec":
        value = float(Fraction(node.value[0]) / Fraction(10) ** node.value[1])
        return value, abs(value) * _EPSILON
    if op == "base":
        value = float(int(node.value[0], node.value[1]))
        return value, abs(value) * _EPSILON
    if op == "sym":
        value = float(point[node.value]) if node.value in point else math.nan
        return None if math.isnan(value) else (value, abs(value) * _EPSILON)
    if op == "const":
        return _CONSTANTS.get(node.value)
    if op not in _COMBINED and not (op == "fn" and node.value in _SMOOTH):
        return None
    parts = []
    for arg in node.args:
        part = _estimate(arg, point)
        if part is None:
            return None
        parts.append(part)
    return _apply(node.value, *parts) if op == "fn" else _combine(op, parts)


_CONSTANTS: dict[str, Estimate] = {"pi": (math.pi, 1e-15), "e": (math.e, 1e-15), "i": (1j, 0.0)}
_COMBINED = frozenset(("add", "mul", "pow", "root", "percent", "deg"))
_SMOOTH = frozenset(("sin", "cos", "ln"))


def _apply(name: str, part: Estimate, *more: Estimate) -> Estimate | None:
    """A sine, cosine or natural logarithm of a real value that is known well."""
    value, error = part
    if more or isinstance(value, complex) or error > 1e-9 * abs(value) or abs(value) > 1e6:
        return None
    if name == "ln":
        return (math.log(value), 1.1 * error / value + _EPSILON * (1 + abs(math.log(value)))) if value > 0 else None
    return (math.sin(value) if name == "sin" else math.cos(value)), error + _EPSILON


def _combine(op: str, parts: list[Estimate]) -> Estimate | None:
    if op == "add":
        total = sum(value for value, _ in parts)
        return total, sum(error + abs(value) * _EPSILON * len(parts) for value, error in parts)
    if op == "mul":
        product, error = parts[0]
        for factor, wrong in parts[1:]:
            error = abs(product) * wrong + abs(factor) * error + error * wrong + 4 * abs(product * factor) * _EPSILON
            product *= factor
        return product, error
    if op == "percent" or op == "deg":
        scale = 0.01 if op == "percent" else math.pi / 180
        return parts[0][0] * scale, parts[0][1] * scale + abs(parts[0][0]) * _EPSILON
    (base, wrong), (exponent, off) = parts
    if isinstance(base, complex) or isinstance(exponent, complex):
        return None
    if op == "root":
        exponent, off = 1 / exponent, off / exponent**2 * 1.1 + _EPSILON
    if base <= 0 or wrong * 1000 > base or abs(exponent) > 1000 or off > 1e-9:
        return None
    value = base**exponent
    relative = abs(exponent) * wrong / base * 1.1 + abs(math.log(base)) * off + _EPSILON * (1 + abs(exponent))
    return value, abs(value) * relative


def surely_differ(a: Node, b: Node, point: Mapping[str, Any] = _NOWHERE) -> bool:
    """Whether two values differ by more than their floats can be wrong."""
    left = estimate(a, point)
    right = estimate(b, point) if left is not None else None
    if left is None or right is None:
        return False
    return abs(left[0] - right[0]) > 100 * (left[1] + right[1])
