"""How many real zeros a function can have: what makes a list of verified solutions complete.

Strictly monotone functions have one at most. A sum of exponentials c_i b_i^x has no more than its coefficients, in the
order of the bases, have changes of sign (Descartes' rule, which holds for real exponents as for whole ones).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from typing import Any

from evaluators.comparison.numeric import value_at
from evaluators.parsing.tree import Node, Unreadable, substitute, symbols

MAX_TERMS = 12
_RISING = frozenset(("exp", "sinh", "tanh", "asinh", "atan", "ln", "lg", "lb", "log", "asin"))
_FALLING = frozenset(("acos",))
_DIGITS = 30
_TINY = 1e-20


def most_zeros(node: Node, name: str) -> int | None:
    """Return a bound on the real zeros of a tree in one variable where one is known, else None."""
    try:
        if direction(node, name) in (1, -1):
            return 1
        return _sign_changes(node, name)
    except Unreadable:
        return None


def direction(node: Node, name: str) -> int | None:
    """Return 1 for strictly rising, -1 for strictly falling, 0 for constant, None where that is not known.

    The tree's real domain must be an interval for this to bound zeros; every rule here keeps it one.
    """
    if name not in symbols(node):
        return 0
    if node.op == "sym":
        return 1
    if node.op == "add":
        ways = {direction(arg, name) for arg in node.args} - {0}
        return ways.pop() if len(ways) == 1 else None
    if node.op == "mul":
        varying = [arg for arg in node.args if name in symbols(arg)]
        rest = tuple(arg for arg in node.args if name not in symbols(arg))
        inner = direction(varying[0], name) if len(varying) == 1 else None
        return None if inner is None else inner * _sign(Node("mul", rest))
    if node.op == "root":
        return direction(node.args[0], name) if name not in symbols(node.args[1]) else None
    if node.op == "pow":
        return _of_power(node.args[0], node.args[1], name)
    if node.op == "fn" and node.value in _RISING | _FALLING:
        inner = direction(node.args[0], name)
        if len(node.args) > 1:
            base = _value(node.args[1]) if name not in symbols(node.args[1]) else 0
            inner = inner if base > 1 else -inner if inner is not None and 0 < base < 1 else None
        return None if inner is None else inner * (1 if node.value in _RISING else -1)
    return None


def _of_power(base: Node, exponent: Node, name: str) -> int | None:
    if name not in symbols(exponent):
        odd = exponent.op == "num" and Fraction(exponent.value).numerator % 2 == 1 and exponent.value > 0
        return direction(base, name) if odd and Fraction(exponent.value).denominator % 2 == 1 else None
    inner = direction(exponent, name)
    if name in symbols(base) or inner is None:
        return None
    size = _value(base)
    return inner if size > 1 else -inner if 0 < size < 1 else None


def _value(node: Node) -> Any:
    value = value_at(node, {}, _DIGITS)
    if value.imag != 0:
        raise Unreadable("is not real")
    return value.real


def _sign(node: Node) -> int:
    if not node.args:
        return 1
    value = _value(node)
    return (value > 0) - (value < 0)


# Sums of exponentials.


def _sign_changes(node: Node, name: str) -> int | None:
    terms: dict[float, list[Node]] = {}
    for term in _terms(node):
        rate, coefficient = _exponential(term, name)
        near = next((known for known in terms if abs(known - rate) < 1e-12), rate)
        terms.setdefault(near, []).append(coefficient)
    if len(terms) > MAX_TERMS:
        return None
    values = [_value(Node("add", tuple(terms[rate]))) for rate in sorted(terms)]
    signs = [value > 0 for value in values if abs(value) > 1e-20]
    return sum(one != two for one, two in pairwise(signs)) if signs else None


def _terms(node: Node) -> Iterator[Node]:
    if node.op == "add":
        for arg in node.args:
            yield from _terms(arg)
    else:
        yield node


def _exponential(term: Node, name: str) -> tuple[float, Node]:
    """A term as (rate, coefficient): coefficient * e^(rate x). Raises Unreadable for another term."""
    rate, coefficient = 0.0, []
    for factor in term.args if term.op == "mul" else (term,):
        if name not in symbols(factor):
            coefficient.append(factor)
            continue
        exponent, base = _power_of(factor)
        slope, start = _line(exponent, name)
        rate += float(slope) * math.log(float(_value(base)))
        if start != 0:
            coefficient.append(Node("pow", (base, Node("num", (), start))))
    return rate, Node("mul", tuple(coefficient)) if coefficient else Node("num", (), 1)


def _power_of(factor: Node) -> tuple[Node, Node]:
    """Exponent and positive base of a factor such as 2^x, (2^x)^2 or exp(x)."""
    if factor.op == "fn" and factor.value == "exp":
        return factor.args[0], Node("const", (), "e")
    if factor.op != "pow" or (symbols(factor.args[0]) and symbols(factor.args[1])):
        raise Unreadable("is no exponential")
    base, exponent = factor.args
    if symbols(base):
        inner, base = _power_of(base)
        exponent = Node("mul", (inner, exponent))
    if _value(base) <= 0:
        raise Unreadable("is no exponential")
    return exponent, base


def _line(node: Node, name: str) -> tuple[Fraction, Fraction]:
    """Slope and start of a tree that is linear in the variable. Raises Unreadable for another."""
    values = [value_at(node, {name: count}, _DIGITS) for count in (0, 1, 3)]
    slope, start = values[1] - values[0], values[0]
    if abs(values[2] - start - 3 * slope) > 1e-20 or any(value.imag != 0 for value in values):
        raise Unreadable("is no straight line")
    return Fraction(str(slope.real)), Fraction(str(start.real))


# What bounds the set on which a relation holds.


def bounded_by(difference: Node, name: str, constants: tuple[Node, ...], only_zeros: bool) -> bool:
    """Whether all places where a relation changes are among some constants.

    difference: left side minus right side. only_zeros: True for an equation, which holds at the zeros alone; an
    inequality also changes at the ends of the domain, so there the difference must be defined everywhere.
    """
    roots: list[Any] = []
    for constant in constants:
        value = _value(constant)
        if all(abs(value - root) > _TINY * (1 + abs(value)) for root in roots) and _vanishes(
            difference, name, constant
        ):
            roots.append(value)
    return most_zeros(difference, name) == len(roots) and (only_zeros or _is_entire(difference, name))


def _vanishes(node: Node, name: str, constant: Node) -> bool:
    """Whether a tree is zero at a constant: its value shrinks with the precision that it is computed to."""
    at = substitute(node, name, constant)
    try:
        return all(abs(value_at(at, {}, digits)) < 10.0 ** (10 - digits) for digits in (40, 90))
    except Unreadable:
        return False


def _is_entire(node: Node, name: str) -> bool:
    """Whether a tree has a value at every real number: sums, products and exponentials of the variable."""
    if name not in symbols(node) or node.op == "sym":
        return True
    if node.op == "pow" and name in symbols(node.args[1]):
        return _is_entire(node.args[1], name)
    if node.op == "pow":
        whole = node.args[1].op == "num" and node.args[1].value in range(1, 100)
        return whole and _is_entire(node.args[0], name)
    return node.op in ("add", "mul") and all(_is_entire(arg, name) for arg in node.args)
