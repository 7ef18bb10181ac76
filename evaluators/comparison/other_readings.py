"""Other readings of two expressions that differ as written: a notation that only the other side makes clear.

Each takes both trees and returns the pair to compare in their place, None where it does not apply. They are looked at
only after two expressions with variables were found to differ.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

from evaluators.comparison.numeric import value_at
from evaluators.parsing.tree import IMAGINARY, Node, Unreadable, contains, replaced, substitute, symbols, walk

Pair = tuple[Node, Node]
_CHOSEN = re.compile(r"C_\{?(\w+)\}?")
_UNIT_LETTERS = frozenset(("j", "k"))
MIN_DIGITS = 3  # significant digits with which a decimal coefficient may stand for an exact one


def other_readings(a: Node, b: Node) -> Iterator[Pair]:
    """Yield the pairs of trees that the two may stand for as well."""
    for reading in _READINGS:
        pair = reading(a, b)
        if pair is not None and pair != (a, b):
            yield pair


def engineers_unit(a: Node, b: Node) -> Pair | None:
    """3 + 4j as 3 + 4i, where the other side is a complex number without letters."""
    for one, two, swapped in ((a, b, False), (b, a, True)):
        if symbols(one) == {"j"} and not symbols(two) and contains(two, "const") and IMAGINARY not in walk(one):
            read = replaced(one, Node("sym", (), "j"), IMAGINARY)
            return (two, read) if swapped else (read, two)
    return None


def unit_vectors(a: Node, b: Node) -> Pair | None:
    r"""7i + 3j as 7\hat{i} + 3\hat{j}, where the other side writes unit vectors."""
    for one, two, swapped in ((a, b, False), (b, a, True)):
        if symbols(one) & _UNIT_LETTERS and any(name.startswith("hat ") for name in symbols(two)):
            read = with_unit_vectors(one)
            return (two, read) if swapped else (read, two)
    return None


def with_unit_vectors(node: Node) -> Node:
    """Return a tree whose i, j and k are unit vectors."""
    node = replaced(node, IMAGINARY, Node("sym", (), "hat i"))
    for letter in sorted(_UNIT_LETTERS):
        node = substitute(node, letter, Node("sym", (), f"hat {letter}"))
    return node


def combinations(a: Node, b: Node) -> Pair | None:
    """C_n^k as a binomial coefficient, where the other side has one."""
    counts = [any(part.op == "fn" and part.value == "binomial" for part in walk(node)) for node in (a, b)]
    if counts[0] == counts[1]:
        return None
    return (a, _with_combinations(b)) if counts[0] else (_with_combinations(a), b)


def _with_combinations(node: Node) -> Node:
    if node.op == "pow" and node.args[0].op == "sym" and (match := _CHOSEN.fullmatch(node.args[0].value)):
        size = Node("num", (), int(match[1])) if match[1].isdigit() else Node("sym", (), match[1])
        return Node("fn", (size, node.args[1]), "binomial")
    return Node(node.op, tuple(map(_with_combinations, node.args)), node.value)


def real_powers(a: Node, b: Node) -> Pair | None:
    """x^{1/3} as the real cube root, defined for negative numbers too, as in calculus."""
    return _with_real_powers(a), _with_real_powers(b)


def _with_real_powers(node: Node) -> Node:
    args = tuple(map(_with_real_powers, node.args))
    if node.op == "pow" and node.args[1].op == "num" and symbols(node.args[0]):
        exponent = Fraction(node.args[1].value)
        if exponent.denominator > 1 and exponent.denominator % 2:
            root = Node("root", (args[0], Node("num", (), exponent.denominator)))
            return root if exponent.numerator == 1 else Node("pow", (root, Node("num", (), exponent.numerator)))
    return Node(node.op, args, node.value)


def rounded_coefficients(a: Node, b: Node) -> Pair | None:
    """0.667x as 2x/3: a decimal among letters stands for a constant of the other side that it shows, as one alone does.

    Both sides must have letters, and one alone the decimal.
    """
    if not (symbols(a) and symbols(b)):
        return None
    decimals = [[part for part in walk(node) if part.op == "dec" and part.value[2] >= MIN_DIGITS] for node in (a, b)]
    if bool(decimals[0]) == bool(decimals[1]):
        return None
    rounded, exact_side = (a, b) if decimals[0] else (b, a)
    values = list(_constants(exact_side))
    for part in dict.fromkeys(decimals[0] or decimals[1]):
        shown = next((node for node, value in values if _shows(part, value)), None)
        if shown is not None:
            rounded = replaced(rounded, part, shown)
    return (rounded, b) if decimals[0] else (a, rounded)


def _constants(node: Node) -> Iterator[tuple[Node, Fraction]]:
    """Yield the real constants in a tree, also products of the constant factors of a term, with their values."""
    for part in walk(node):
        candidates = [part]
        if part.op == "mul":
            factors = tuple(factor for factor in part.args if not symbols(factor))
            candidates = [Node("mul", factors)] if factors else []
        for candidate in candidates:
            if symbols(candidate) or candidate.op == "dummy":
                continue
            try:
                value = value_at(candidate, {}, 30)
            except Unreadable:
                continue
            if value.imag == 0:
                yield candidate, Fraction(str(value.real))
                yield Node("mul", (Node("num", (), -1), candidate)), -Fraction(str(value.real))


def _shows(decimal: Node, value: Fraction) -> bool:
    """Whether a decimal is a value to all of its digits, rounded or cut off."""
    mantissa, places, digits = decimal.value
    off = abs(value * Fraction(10) ** places - mantissa)
    return off * 2 <= 1 if digits < 5 else off < 1


_READINGS: tuple[Callable[[Node, Node], Pair | None], ...] = (
    engineers_unit,
    unit_vectors,
    combinations,
    real_powers,
    rounded_coefficients,
)
