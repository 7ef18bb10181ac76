"""Polynomials and rational functions of one variable over the rationals, and their real roots.

A polynomial is a tuple of fractions, lowest degree first, without leading zeros: () is zero.
"""

from __future__ import annotations

import math
from fractions import Fraction
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple

from evaluators.comparison.numeric import TooLarge, exact, value_at
from evaluators.parsing.tree import Node, Unreadable, symbols

Poly = tuple[Fraction, ...]
MAX_DEGREE = 24
MAX_COEFFICIENT_BITS = 4096
ROOT_DIGITS = 60  # digits to which an irrational root is known
_HALF = Fraction(1, 2)
_ONE: Poly = (Fraction(1),)


class Ratio(NamedTuple):
    """A rational function: numerator and denominator."""

    top: Poly
    bottom: Poly


def trimmed(coefficients: list[Fraction]) -> Poly:
    """Return a polynomial without leading zeros. Raises TooLarge."""
    while coefficients and not coefficients[-1]:
        coefficients.pop()
    if len(coefficients) > MAX_DEGREE + 1:
        raise TooLarge(f"a polynomial here has a degree over {MAX_DEGREE}")
    if any(c.numerator.bit_length() + c.denominator.bit_length() > MAX_COEFFICIENT_BITS for c in coefficients):
        raise TooLarge("a coefficient here is too long")
    return tuple(coefficients)


def plus(a: Poly, b: Poly, sign: int = 1) -> Poly:
    """Return a + sign * b."""
    size = max(len(a), len(b))
    zero = Fraction(0)
    return trimmed(
        [(a[i] if i < len(a) else zero) + sign * (b[i] if i < len(b) else zero) for i in range(size)],
    )


def times(a: Poly, b: Poly) -> Poly:
    """Return the product."""
    if len(a) + len(b) > MAX_DEGREE + 2:
        raise TooLarge(f"a polynomial here has a degree over {MAX_DEGREE}")
    result = [Fraction(0)] * max(len(a) + len(b) - 1, 0)
    for i, one in enumerate(a):
        for j, two in enumerate(b):
            result[i + j] += one * two
    return trimmed(result)


def divided(a: Poly, b: Poly) -> tuple[Poly, Poly]:
    """Return quotient and remainder."""
    rest, quotient = list(a), [Fraction(0)] * max(len(a) - len(b) + 1, 0)
    while len(rest) >= len(b):
        factor = rest[-1] / b[-1]
        shift = len(rest) - len(b)
        quotient[shift] = factor
        for place, value in enumerate(b):
            rest[shift + place] -= factor * value
        rest.pop()
    return trimmed(quotient), trimmed(rest)


def common(a: Poly, b: Poly) -> Poly:
    """Return the monic greatest common divisor."""
    while b:
        a, b = b, divided(a, b)[1]
    return tuple(c / a[-1] for c in a) if a else a


def squarefree(poly: Poly) -> Poly:
    """Return the monic polynomial with the same roots, each once."""
    if len(poly) < 2:
        return _ONE if poly else poly
    slope = tuple(power * c for power, c in enumerate(poly))[1:]
    plain = divided(poly, common(poly, slope))[0]
    return tuple(c / plain[-1] for c in plain)


def at(poly: Poly, x: Fraction) -> Fraction:
    """Return the value at a point."""
    return reduce(lambda total, c: total * x + c, reversed(poly), Fraction(0))


def square_root(poly: Poly) -> Poly | None:
    """Return the polynomial whose square this is, None where there is none."""
    if not poly:
        return poly
    lead = exact(Node("root", (Node("num", (), poly[-1]), Node("num", (), 2))))
    if lead is None or len(poly) % 2 == 0:
        return None
    half = len(poly) // 2
    root = [Fraction(0)] * half + [Fraction(lead)]
    for place in range(half - 1, -1, -1):
        known = sum(
            (root[i] * root[place + half - i] for i in range(place + 1, half + 1) if 0 <= place + half - i <= half),
            Fraction(0),
        )
        root[place] = (poly[place + half] - known) / (2 * root[half])
    return tuple(root) if times(tuple(root), tuple(root)) == poly else None


def real_roots(poly: Poly) -> list[Fraction]:
    """Return the real roots in order: exact where rational, otherwise to 60 digits."""
    plain = squarefree(poly)
    if len(plain) < 2:
        return []
    if len(plain) == 2:
        return [-plain[0]]
    if len(plain) == 3:
        return _quadratic_roots(*plain[:2])
    import mpmath

    context = mpmath.MPContext()
    context.dps = ROOT_DIGITS + 20
    coefficients = [context.mpf(c.numerator) / c.denominator for c in reversed(plain)]
    try:
        found = context.polyroots(coefficients, maxsteps=150, extraprec=400)
    except context.NoConvergence:
        raise TooLarge("the roots of a polynomial here are too close together") from None
    near = [Fraction(str(root.real)) for root in found if abs(root.imag) < abs(root) * 1e-12 + 1e-30]
    return sorted(root for root in (_confirmed(plain, value) for value in near) if root is not None)


def _quadratic_roots(constant: Fraction, linear: Fraction) -> list[Fraction]:
    """The real roots of x**2 + linear * x + constant, which has no double root."""
    under = linear * linear / 4 - constant
    if under < 0:
        return []
    top, bottom = math.isqrt(under.numerator), math.isqrt(under.denominator)
    if top * top == under.numerator and bottom * bottom == under.denominator:
        root = Fraction(top, bottom)
    else:
        shift = 10 ** (ROOT_DIGITS + 20)
        root = Fraction(math.isqrt(under.numerator * under.denominator * shift * shift), under.denominator * shift)
    return [-linear / 2 - root, -linear / 2 + root]


def _confirmed(plain: Poly, value: Fraction) -> Fraction | None:
    """The root beside a value, None where the polynomial, which has single roots only, keeps its sign there."""
    simple = value.limit_denominator(10**12)
    if not at(plain, simple):
        return simple
    step = (abs(value) + 1) / 10**ROOT_DIGITS
    return value if (at(plain, value - step) < 0) != (at(plain, value + step) < 0) else None


def constant_ratio(value: Fraction | int) -> Ratio:
    """Return a constant as a rational function."""
    return Ratio((Fraction(value),) if value else (), _ONE)


def branch(node: Node, name: str, place: Fraction) -> Ratio | None:
    """Return the rational function that a tree is near a point; None where it is none.

    Absolute values, signs, maxima, minima and roots of squares take the branch that holds at the point.
    """
    op = node.op
    if op == "sym":
        return Ratio((Fraction(0), Fraction(1)), _ONE) if node.value == name else None
    if not symbols(node):
        return _constant(node)
    if op in ("add", "mul"):
        parts = [branch(arg, name, place) for arg in node.args]
        if None in parts:
            return None
        return reduce(_sum if op == "add" else _product, parts)  # type: ignore[arg-type]
    if op == "percent":
        inside = branch(node.args[0], name, place)
        return None if inside is None else _product(inside, constant_ratio(Fraction(1, 100)))
    if op == "pow":
        return _power_branch(node, name, place)
    if op == "root" and node.args[1] == Node("num", (), 2):
        return _root_branch(branch(node.args[0], name, place), place)
    if op == "fn":
        return _function_branch(node, name, place)
    return None


def constant_value(node: Node) -> Fraction | None:
    """Return the real value of a tree without variables: exact where rational, else to 80 digits; None without one."""
    try:
        value = exact(node)
        if value is None:
            number = value_at(node, {}, ROOT_DIGITS + 20)
            value = Fraction(str(number.real)) if number.imag == 0 else None
    except Unreadable:
        return None
    return None if value is None else Fraction(value)


def _constant(node: Node) -> Ratio | None:
    value = constant_value(node)
    return None if value is None else constant_ratio(value)


def _sum(a: Ratio, b: Ratio) -> Ratio:
    if a.bottom == b.bottom:
        return Ratio(plus(a.top, b.top), a.bottom)
    return Ratio(plus(times(a.top, b.bottom), times(b.top, a.bottom)), times(a.bottom, b.bottom))


def _product(a: Ratio, b: Ratio) -> Ratio:
    return Ratio(times(a.top, b.top), times(a.bottom, b.bottom))


def _power_branch(node: Node, name: str, place: Fraction) -> Ratio | None:
    exponent: Any = exact(node.args[1])
    if exponent is None:
        return None
    base = branch(node.args[0], name, place)
    if exponent == _HALF:
        return _root_branch(base, place)
    if base is None or Fraction(exponent).denominator != 1 or abs(exponent) > MAX_DEGREE:
        return None
    if exponent < 0:
        if not base.top:
            return None
        base = Ratio(base.bottom, base.top)
    power = constant_ratio(1)
    for _ in range(abs(int(exponent))):
        power = _product(power, base)
    return power


def _root_branch(inside: Ratio | None, place: Fraction) -> Ratio | None:
    if inside is None:
        return None
    top, bottom = square_root(inside.top), square_root(inside.bottom)
    if top is None or bottom is None or not at(bottom, place):
        return None
    return Ratio(top, bottom) if at(top, place) / at(bottom, place) >= 0 else Ratio(plus((), top, -1), bottom)


def _sign(ratio: Ratio, place: Fraction) -> int:
    value = at(ratio.top, place) * at(ratio.bottom, place)
    return (value > 0) - (value < 0)


def _function_branch(node: Node, name: str, place: Fraction) -> Ratio | None:
    if node.value not in ("abs", "sign", "max", "min"):
        return None
    parts = [branch(arg, name, place) for arg in node.args]
    if not parts or any(part is None or not at(part.bottom, place) for part in parts):
        return None
    first: Any = parts[0]
    if node.value == "sign":
        return constant_ratio(_sign(first, place))
    if node.value == "abs":
        return first if _sign(first, place) >= 0 else Ratio(plus((), first.top, -1), first.bottom)
    chosen = max if node.value == "max" else min
    return chosen(parts, key=lambda part: at(part.top, place) / at(part.bottom, place))  # type: ignore[union-attr]


_KINKS = frozenset(("abs", "sign", "max", "min"))


def breakpoints(node: Node, name: str) -> list[Fraction] | None:
    """Return every point where a piecewise rational tree may change its branch or has a pole, and more.

    None where the tree is not piecewise rational, or a part is too large.
    """
    try:
        points = _breakpoints(node, name)
        if any(branch(node, name, place) is None for place in between(points)):
            return None
        return points
    except Unreadable:
        return None


def zeros(node: Node, name: str) -> list[Fraction] | None:
    """Return the breakpoints of a piecewise rational tree and the zeros of all its branches; None as there."""
    try:
        points = _breakpoints(node, name)
        found = set(points)
        for place in between(points):
            ratio = branch(node, name, place)
            if ratio is None:
                return None
            found.update(real_roots(ratio.top))
        return sorted(found)
    except Unreadable:
        return None


def between(points: list[Fraction]) -> list[Fraction]:
    """Return a point in every stretch that sorted points cut the line into."""
    if not points:
        return [Fraction(1, 3)]
    inside = [(low + high) / 2 for low, high in pairwise(points)]
    return [points[0] - 1, *inside, points[-1] + 1]


def breakpoints_of_parts(node: Node, name: str) -> list[Fraction]:
    """Return the breakpoints of those parts of a tree that are piecewise rational."""
    try:
        return _breakpoints(node, name)
    except Unreadable:
        return []


def _breakpoints(node: Node, name: str) -> list[Fraction]:
    found: set[Fraction] = set()
    for arg in node.args:
        if name in symbols(arg):
            found.update(_breakpoints(arg, name))
    for inside in _watched(node):
        if name not in symbols(inside):
            continue
        for place in between(sorted(found)):
            ratio = branch(inside, name, place)
            if ratio is not None:
                found.update(real_roots(ratio.top))
                found.update(real_roots(ratio.bottom))
        if len(found) > 60:
            raise TooLarge("the comparison has too many breakpoints")
    return sorted(found)


def _watched(node: Node) -> list[Node]:
    """The parts of a node whose zeros divide its branches."""
    if node.op == "fn" and node.value in ("abs", "sign", "ln", "log", "lg", "lb", "floor", "ceil"):
        return [node.args[0]]
    if node.op == "fn" and node.value in _KINKS:
        return [Node("add", (one, _minus(two))) for i, one in enumerate(node.args) for two in node.args[i + 1 :]]
    if node.op == "root":
        return [node.args[0]]
    if node.op == "pow":
        return [arg for arg in node.args if symbols(arg)]
    if node.op == "fn":
        return [arg for arg in node.args if symbols(arg)]
    return []


def _minus(node: Node) -> Node:
    return Node("mul", (Node("num", (), -1), node))
