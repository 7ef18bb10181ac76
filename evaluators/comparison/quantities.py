"""Quantities with units, times of day and ratios."""

from __future__ import annotations

from fractions import Fraction

from evaluators.comparison.canonical import COLLECTIONS
from evaluators.comparison.ladder import Ladder
from evaluators.comparison.numeric import exact
from evaluators.parsing.count_nouns import COUNTED
from evaluators.parsing.grammar import summed
from evaluators.parsing.tree import Node, substitute, symbols
from evaluators.parsing.unit_table import VARIABLE_LIKE
from evaluators.parsing.units import Unit, counted, parse_unit

_ANGULAR = frozenset(("degree", "celsius", "fahrenheit"))  # what a bare degree sign may stand for
_SCALES = {  # kelvins a degree, and kelvins at zero
    "kelvin": (Fraction(1), Fraction(0)),
    "celsius": (Fraction(1), Fraction(27315, 100)),
    "fahrenheit": (Fraction(5, 9), Fraction(45967, 180)),
}
INTEGERS = frozenset("klmnjt")  # letters that stand for any integer


class Measures(Ladder):
    """Compares what is measured."""

    __slots__ = ()

    def quantities(self, a: Node, b: Node) -> bool | None:
        """Two values of which one at least has a unit."""
        self.reach(1)
        a, b = as_quantity(a), as_quantity(b)
        if a.op == b.op:
            return self.measured(a, b)
        quantity, other = (a, b) if a.op == "quantity" else (b, a)
        dimension = dict(quantity.value.dimension)
        if dimension == {"degree": 1}:  # 150 degrees as an angle, which may be given in radians
            return self.equal(Node("deg", (quantity.args[0],)), other)
        if other.op == "deg":
            if set(dimension) <= _ANGULAR:
                return self.equal(quantity.args[0], other.args[0])
            if set(dimension) == {"radian"}:
                return self.expressions(quantity.args[0], other)
            return self.differ(f"One is an angle, the other is in {_named(quantity.value)}")
        if other.op == "clock":
            return self.differ(f"One is a time of day, the other is in {_named(quantity.value)}")
        if other.op in ("percent", "base", "ratio"):
            return None if counted(quantity.value) else self.differ(f"One alone is in {_named(quantity.value)}")
        if not self.policy.unit_on_one_side:
            return None
        same = self.equal(quantity.args[0], other)
        return same if self.may_count(quantity.value) or same is False else None

    def may_count(self, unit: Unit) -> bool:
        """Whether each word behind a number is a unit, a common noun, or a word of the question or the gold."""
        return all(word in COUNTED or word in self.question for word in counted(unit))

    def measured(self, a: Node, b: Node) -> bool | None:
        """Two quantities, converted where they measure the same."""
        one, two = a.value, b.value
        if _is_temperature(one) and _is_temperature(two) and one != two:
            return self.temperatures(a, b)
        if one.dimension != two.dimension:
            return self.units_apart(a, b)
        if one.factor == two.factor:
            return self.equal(a.args[0], b.args[0])
        ratio = Node("num", (), one.factor / two.factor)
        scaled = exact(a.args[0])
        left = Node("mul", (a.args[0], ratio)) if scaled is None else Node("num", (), scaled * ratio.value)
        return self.equal(left, b.args[0])

    def units_apart(self, a: Node, b: Node) -> bool | None:
        """Two quantities of different dimensions: known units differ, other words may mean the same."""
        mine, other = set(counted(a.value)), set(counted(b.value))
        if not mine and not other:
            return self.differ(f"One is in {_named(a.value)}, the other in {_named(b.value)}")
        same = self.equal(a.args[0], b.args[0])
        if same and (mine <= other or other <= mine) and self.may_count(a.value) and self.may_count(b.value):
            return True if bool(mine) == bool(other) or not _known(a.value) | _known(b.value) else None
        return same and None

    def temperatures(self, a: Node, b: Node) -> bool | None:
        """Two temperatures on different scales, in the scale of the one that is no whole number."""
        if a.args[0].op == "dec" and b.args[0].op != "dec":
            a, b = b, a
        kelvins = _on_scale(a.args[0], *_SCALES[a.value.dimension[0][0]])
        slope, start = _SCALES[b.value.dimension[0][0]]
        there = Node("mul", (Node("add", (kelvins, Node("num", (), -start))), Node("num", (), 1 / slope)))
        value = exact(there)
        return self.equal(there if value is None else Node("num", (), value), b.args[0])

    def classes(self, a: Node, b: Node) -> bool | None:
        """Residue classes, such as 1 (mod 3), and a class against a residue."""
        self.reach(1)
        if a.op == b.op:
            same = self.all([(a.args[1], b.args[1])])
            return self.decided(congruent(a.args[0], b.args[0], a.args[1]), "The residues differ") if same else same
        known, other = (a, b) if a.op == "class" else (b, a)
        start = progression(other, known.args[1])
        if start is None:
            return None if symbols(other) else self.differ("The class has infinitely many members, the other is one")
        return self.decided(congruent(start, *known.args), "The residues differ")

    def clocks(self, a: Node, b: Node) -> bool | None:
        """Times of day and ratios; `2:30` may be either."""
        self.reach(1)
        if a.op == b.op == "clock":
            return self.decided(same_time(a.value, b.value), "The times differ")
        if (a.op == "clock" and b.op != "ratio" and a.value[1]) or (b.op == "clock" and a.op != "ratio" and b.value[1]):
            return self.differ("One is a time of day, the other a number")
        left, right = as_ratio(a), as_ratio(b)
        if left.op == right.op == "ratio":
            if len(left.args) != len(right.args):
                return self.differ(f"One ratio has {len(left.args)} terms, the other {len(right.args)}")
            first, other = left.args[0], right.args[0]
            pairs = [
                (Node("mul", (one, other)), Node("mul", (two, first)))
                for one, two in zip(left.args[1:], right.args[1:])
            ]
            return self.all(pairs)
        ratio, value = (left, right) if left.op == "ratio" else (right, left)
        if len(ratio.args) != 2 or value.op in COLLECTIONS:
            return None
        return self.equal(Node("mul", (ratio.args[0], Node("pow", (ratio.args[1], Node("num", (), -1))))), value)


def _is_temperature(unit: Unit) -> bool:
    return len(unit.dimension) == 1 and unit.dimension[0][0] in _SCALES and unit.dimension[0][1] == 1


def _on_scale(value: Node, slope: Fraction, start: Fraction) -> Node:
    return Node("add", (Node("mul", (value, Node("num", (), slope))), Node("num", (), start)))


def _known(unit: Unit) -> set[str]:
    return {base for base, _ in unit.dimension} - {f"a {word}" for word in counted(unit)}


def _named(unit: Unit) -> str:
    return " ".join(base if size == 1 else f"{base}^{size}" for base, size in unit.dimension) or "pure numbers"


def as_quantity(node: Node) -> Node:
    """`2 h` read as two times h, as two hours, where the other side has a unit."""
    if node.op != "mul" or node.args[-1].op != "sym" or node.args[-1].value not in VARIABLE_LIKE:
        return node
    rest = node.args[:-1]
    if any(symbols(arg) for arg in rest):
        return node
    return Node("quantity", (rest[0] if len(rest) == 1 else Node("mul", rest),), parse_unit(node.args[-1].value))


def progression(node: Node, modulus: Node) -> Node | None:
    """The first term of an expression such as 5k + 2 whose step is the modulus; None for anything else."""
    letters = symbols(node)
    if len(letters) != 1 or not letters <= INTEGERS:
        return None
    (letter,) = letters
    terms = [exact(substitute(node, letter, Node("num", (), count))) for count in (0, 1, 2, 5)]
    step = exact(modulus)
    if step is None or any(term is None for term in terms):
        return None
    first = terms[0]
    turns = [term - first for term in terms[1:]]  # type: ignore[operator]
    return Node("num", (), first) if turns in ([step, 2 * step, 5 * step], [-step, -2 * step, -5 * step]) else None


def congruent(a: Node, b: Node, modulus: Node) -> bool | None:
    """Whether two integers differ by a multiple of a third; None where one of them is no known integer."""
    values = [exact(node) for node in (a, b, modulus)]
    if any(value is None or Fraction(value).denominator != 1 for value in values) or not values[2]:
        return None if a != b else True
    return (values[0] - values[1]) % values[2] == 0  # type: ignore[operator]


def together(node: Node) -> Node | None:
    """`3 hours and 30 minutes` as one quantity, None for other lists."""
    if node.op != "list" or node.value != "and" or any(arg.op != "quantity" for arg in node.args):
        return None
    whole = node.args[0]
    for part in node.args[1:]:
        if part.value.dimension != whole.value.dimension or part.value.factor >= whole.value.factor:
            return None
        whole = Node("quantity", (summed(whole, part),), whole.value)
    return whole


def same_time(a: tuple[str, str], b: tuple[str, str]) -> bool:
    """Two times of day; one without am or pm is either, or the hour of a 24-hour clock."""

    def minutes(value: tuple[str, str], half: str) -> int:
        count = int(value[0]) % (24 * 60)
        if half and count < 13 * 60:
            count = count % (12 * 60) + (12 * 60 if half == "p" else 0)
        return count

    if a[1] or b[1]:
        one, two = minutes(a, a[1]), minutes(b, b[1])
        if a[1] and b[1]:
            return one == two
        return one == two or minutes(a, a[1] or b[1]) == minutes(b, b[1] or a[1])
    return int(a[0]) == int(b[0])


def as_ratio(node: Node) -> Node:
    """A time of day read as a ratio."""
    if node.op != "clock":
        return node
    hours, minutes = divmod(int(node.value[0]), 60)
    return Node("ratio", (Node("num", (), hours), Node("num", (), minutes)))
