"""Numbers and expressions: exact, modulo a prime, at random points, and by sympy."""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import partial
from typing import Any

from evaluators.comparison.canonical import is_infinite
from evaluators.comparison.constants import compare_families, has_constant, without_constant
from evaluators.comparison.error_bounds import surely_differ
from evaluators.comparison.ladder import Ladder
from evaluators.comparison.numeric import (
    DIGITS,
    OutOfBudget,
    Rational,
    Undefined,
    digits_needed,
    exact,
    fresh_budget,
    point_of,
    value_at,
)
from evaluators.comparison.other_readings import other_readings
from evaluators.comparison.residues import residue
from evaluators.comparison.sampling import (
    digits_at,
    hides,
    mixed_point,
    orthants,
    show_number,
    special_points,
    witness_at,
    witness_of_numbers,
    witness_of_values,
)
from evaluators.comparison.truth_tables import compare_tables, is_logic
from evaluators.parsing.tree import (
    IMAGINARY,
    PI,
    DeadlineExceeded,
    Node,
    TooLarge,
    Unreadable,
    contains,
    substitute,
    symbols,
    to_json,
    walk,
)

_ROUNDING = ("floor", "ceil")
_COUNTS = frozenset("nmkjlNMK")
_DISCRETE = frozenset(("sum", "product", "factorial", "factorial2", "binomial", "floor", "ceil", "mod", "gcd", "lcm"))
_WRITTEN = frozenset(("dec", "deg"))  # what equals more than its own value
_SCALAR = frozenset(
    ["dummy", "num", "dec", "sym", "const", "add", "mul", "pow", "root", "fn", "percent", "deg", "base"]
)
_DUMMIES = frozenset("klmnjpqrstKNMZ")
_TINY = 1e-25
_HUGE = 1e8
_STABLE = 1e-6
_DOUBLE_DIGITS = 16  # fewer are compared as rounded decimals

MAX_SYMBOLIC_PARTS = 150  # nodes of both sides
MAX_SYMBOLIC_POWER = 100
MAX_SYMBOLIC_BITS = 512
MAX_BOUND = 4  # sums, products, integrals and limits of both sides
_KINKED = frozenset(("abs", "max", "min", "floor", "ceil", "sign", "mod"))
_BOUND = frozenset(("sum", "product", "integral", "limit"))
_OF_COMPLEX = ("conjugate", "Re", "Im", "arg")
_COMPLEX_LETTERS = frozenset("zw")
_PARTS = (" real", " imaginary")
_warming = False


class Scalars(Ladder):
    """Compares single values."""

    __slots__ = ()

    def scalars(self, a: Node, b: Node) -> bool | None:
        """Two values, by the cheapest tier that can tell."""
        infinite = (is_infinite(a), is_infinite(b))
        if any(infinite):
            return infinite[0] == infinite[1] or self.differ("Infinity lies on one side only")
        left, right = exact(a), exact(b)
        if left is not None and right is not None:
            self.reach(1)
            same = self.rationals(a, left, b, right)
            return same or self.differ(partial(witness_of_numbers, left, right))
        if {a.op, b.op} == {"percent", "deg"}:
            return self.differ("One is a percentage, the other an angle")
        if a.op == "percent" or b.op == "percent":
            return self.percentages(a, b)
        self.reach(3)
        if a.op not in _WRITTEN and b.op not in _WRITTEN and surely_differ(a, b):
            return self.differ(partial(witness_at, a, b, {}))
        if a.op == "deg" or b.op == "deg":
            return self.degrees(a, b)
        if a.op == "dec" or b.op == "dec":
            written, other = (a, b) if a.op == "dec" else (b, a)
            return self.rounded(written, other)
        return self.expressions(a, b)

    def rationals(self, a: Node, left: Rational, b: Node, right: Rational) -> bool:
        """Two exact values, of which one may be a decimal or percentage."""
        if left == right:
            return True
        if a.op == "percent" or b.op == "percent":
            scaled = left * 100 == right if a.op == "percent" else right * 100 == left
            if scaled and self.policy.percent_as_number and a.op != b.op:
                return True
            a, b = shifted(a), shifted(b)
        if a.op == "dec" and b.op == "dec":
            coarse, fine = (a, right) if a.value[1] < b.value[1] else (b, left)
            return a.value[1] != b.value[1] and shows(coarse, fine, self.policy.significant_digits + 2)
        if a.op == "dec" and Fraction(right).denominator != 1:
            return shows(a, right, self.policy.significant_digits)
        if b.op == "dec" and Fraction(left).denominator != 1:
            return shows(b, left, self.policy.significant_digits)
        return False

    def percentages(self, a: Node, b: Node) -> bool | None:
        """A percentage against an irrational value."""
        if a.op == b.op:
            return self.scalars(a.args[0], b.args[0])
        inside, other = (a.args[0], b) if a.op == "percent" else (b.args[0], a)
        same = self.scalars(Node("mul", (inside, Node("num", (), Fraction(1, 100)))), other)
        if same or not self.policy.percent_as_number:
            return same
        return self.scalars(inside, other)

    def degrees(self, a: Node, b: Node) -> bool | None:
        """An angle in degrees against an angle in degrees, radians, or a bare number."""
        if a.op == b.op:
            return self.scalars(a.args[0], b.args[0])
        inside, other = (a.args[0], b) if a.op == "deg" else (b.args[0], a)
        if self.policy.unit_on_one_side and self.equal(inside, other):
            return True
        return self.expressions(a, b)

    def rounded(self, written: Node, other: Node) -> bool | None:
        """A decimal against an exact value that is no rational."""
        if symbols(other):
            return self.differ(f"One is a number, the other depends on {min(symbols(other))}")
        if self.at_points(written, other, frozenset()):
            return True
        value = value_at(other, {}, DIGITS + abs(written.value[1]))
        if abs(value.imag) > abs(value) * 10 ** (-DIGITS + 10):
            return self.differ(f"The values are {show_number(exact(written))} and {show_number(value)}")
        return shows(written, value.real, self.policy.significant_digits)

    def expressions(self, a: Node, b: Node) -> bool | None:
        """Two expressions: modulo a prime where both are rational functions, else at random points."""
        self.reach(3)
        if is_logic(a) or is_logic(b):
            return self.decided(*compare_tables(a, b))
        names = symbols(a) | symbols(b)
        pair = residue(a, 0), residue(b, 0)
        if None not in pair:
            same: bool | None = pair[0] == pair[1] and residue(a, 1) == residue(b, 1)
            if not same:
                same = self.differ(partial(some_witness, a, b, names))
        elif names and contains_function(a, b, *_OF_COMPLEX) and (complex_pair := with_complex_letters(a, b)):
            return self.expressions(*complex_pair)
        else:
            same = self.at_points(a, b, names)
        if not same and names:
            if same_family(a, b):
                return True
            if "..." in names:
                return None  # what the dots leave out is not known
            families = compare_families(a, b, self.question)
            if families is not None:
                return self.decided(*families)
            if has_constant(a) and has_constant(b):
                return self.expressions(without_constant(a), without_constant(b))
            kept = self.witness
            if any(self.expressions(*pair) for pair in other_readings(a, b)):
                return True
            self.witness = kept
        if same is False and (has_plain_log(a) or has_plain_log(b)):
            return self.expressions(in_tens(a), in_tens(b))  # log is to base e or 10
        if same is None and self.too_large is not None:
            raise self.too_large  # sympy would take longer than we did, not less
        if same is None and self.policy.symbolic:
            return self.symbolically(a, b)
        return same

    def at_points(self, a: Node, b: Node, names: frozenset[str]) -> bool | None:
        """Whether two expressions agree to 40 digits, or more where their numbers are long, at points of every kind."""
        self.too_large = None
        first = point_of(names, 0, "positive")
        if surely_differ(a, b, first):
            return self.differ(partial(witness_at, a, b, first))
        if self.policy.symbolic and not _warming:
            begin_warming()
        digits = digits_needed(a, b)
        if not names:
            return self.constants(a, b, digits)
        if is_discrete(a) or is_discrete(b):
            same = self.agree_at([point_of(names, index, "integer") for index in range(6)], a, b, digits, 3)
            if same and has_kink(a, b):
                same = self.agree_at(whole_points(names, a, b), a, b, digits)
                same = None if same and self.too_large is not None else same
            if not same or names <= _COUNTS or not contains_function(a, b, *_ROUNDING):
                return same
        positive = self.agree_at([point_of(names, index, "positive") for index in range(6)], a, b, digits, 3)
        if positive is False:
            return False
        signed = [point_of(names, index, "negative") for index in range(3)]
        signed += orthants(names)
        negative = self.agree_at(signed, a, b, digits, len(signed))
        if negative is False or self.agree_at(special_points(names, a, b), a, b, digits) is False:
            return False
        if isinstance(self.too_large, OutOfBudget) or (self.too_large is not None and has_kink(a, b)):
            return None  # what could not be looked at may differ
        return positive or negative

    def constants(self, a: Node, b: Node, digits: int) -> bool | None:
        """Two values without variables."""
        try:
            if hides(a, b):
                digits = digits_at(a, b, {}, digits)
            same = same_at(a, b, {}, DIGITS)
            same = same_at(a, b, {}, digits) if same and digits != DIGITS else same
        except (TooLarge, Undefined):
            raise
        except Unreadable:
            return None
        return self.decided(same, partial(witness_at, a, b, {}))

    def agree_at(
        self, points: Iterable[dict[str, Rational]], a: Node, b: Node, digits: int, enough: int = 1000
    ) -> bool | None:
        """Whether both are equal at the points where both are real, or at all where neither is real anywhere."""
        real, complex_ = 0, 0
        steep = hides(a, b)
        for point in points:
            try:
                needed = digits_at(a, b, point, digits) if steep else digits
                left, right = value_at(a, point, needed), value_at(b, point, needed)
                if abs(left) > _HUGE:  # a kink of size 1 beside 10**96 shows at 136 digits
                    needed += int(_context_log(left))
                    left, right = value_at(a, point, needed), value_at(b, point, needed)
                same = close(left, right, needed) or same_at(a, b, point, needed)
            except TooLarge as error:
                self.too_large = error
                continue
            except Unreadable:
                continue
            if same is None:
                continue
            if not same and ((left.imag == 0 and right.imag == 0) or point_is_positive(point)):
                return self.differ(partial(witness_at, a, b, point))
            if left.imag != 0 or right.imag != 0:
                complex_ += same
                continue
            real += 1
            if real == enough:
                return True
        return True if real or complex_ >= 2 else None

    def symbolically(self, a: Node, b: Node) -> bool | None:
        """Whether sympy finds two expressions equal, in its worker."""
        from evaluators.workers.pool import ask_symbolic

        if not (is_scalar(a) and is_scalar(b)):
            return None
        check_symbolic_size(a, b)
        self.reach(4)
        if self.seconds_left < 1e-3:
            raise DeadlineExceeded("the budget of the comparison is used up")
        same, used = ask_symbolic(to_json(a), to_json(b), self.seconds_left)
        self.seconds_left -= used
        return self.differ("The difference simplifies to something that is not zero") if same is False else same


def _context_log(value: Any) -> float:
    """The decimal digits before the point of a large number."""
    return float(value.context.mag(value)) / 3.32 + 1


def has_kink(*nodes: Node) -> bool:
    """Whether a tree may be one expression here and another elsewhere, as |x - 100| is."""
    for part in (part for node in nodes for part in walk(node)):
        if part.op == "fn" and part.value in _KINKED:
            return True
        rooted = part.op == "pow" and part.args[1].op == "num" and Fraction(part.args[1].value).denominator > 1
        if (part.op == "root" or rooted) and any(inner.op == "pow" and symbols(inner) for inner in walk(part.args[0])):
            return True
    return False


def whole_points(names: frozenset[str], a: Node, b: Node) -> list[dict[str, Rational]]:
    """Positive whole points beside the breakpoints of two trees."""
    points: list[dict[str, Rational]] = [
        {name: max(round(value), 1) for name, value in p.items()} for p in special_points(names, a, b)
    ]
    return [dict(items) for items in dict.fromkeys(tuple(sorted(point.items())) for point in points)][:30]


def with_complex_letters(a: Node, b: Node) -> tuple[Node, Node] | None:
    """Both trees with z as x + iy: letters that name complex numbers, where conjugates and real parts are taken."""
    pair = (a, b)
    for name in sorted(symbols(a) | symbols(b)):
        if name[0] in _COMPLEX_LETTERS and not name.endswith(_PARTS):
            real, imaginary = (Node("sym", (), name + part) for part in _PARTS)
            value = Node("add", (real, Node("mul", (IMAGINARY, imaginary))))
            pair = (substitute(pair[0], name, value), substitute(pair[1], name, value))
    return None if pair == (a, b) else pair


def begin_warming() -> None:
    """Let a symbolic worker start in the background, before a first case needs it: its start takes half a second."""
    global _warming
    _warming = True
    from evaluators.workers import pool as deadline

    try:
        deadline.warm_up(count=1)
    except OSError as error:  # said again, and loudly, by the first case that needs a worker
        deadline.logger.warning("no symbolic worker could be started ahead of need: %s", error)


def check_symbolic_size(*nodes: Node) -> None:
    """Refuse what sympy would only run into its deadline with. Raises TooLarge."""
    nested = 0
    for count, part in enumerate((part for node in nodes for part in walk(node)), start=1):
        if part.op == "num" and Fraction(part.value).numerator.bit_length() > MAX_SYMBOLIC_BITS:
            raise TooLarge("a number here has more than 512 bits")
        if part.op == "pow" and part.args[1].op == "num" and abs(part.args[1].value) > MAX_SYMBOLIC_POWER:
            raise TooLarge(f"a power here is over {MAX_SYMBOLIC_POWER}")
        nested += part.op == "fn" and part.value in _BOUND
        if count > MAX_SYMBOLIC_PARTS or nested > MAX_BOUND:
            raise TooLarge("the comparison has too many parts for the symbolic tier")


def some_witness(a: Node, b: Node, names: frozenset[str]) -> str:
    """A point at which two different rational functions differ; the residues where no value can be computed."""
    fresh_budget()
    for index in range(3):
        found = witness_of_values(a, b, mixed_point(names, index) if names else {})
        if found is not None:
            return found
    return "The values differ modulo the prime 2**127 - 1"


def is_scalar(node: Node) -> bool:
    """Whether sympy has a counterpart for all of a tree."""
    return all(part.op in _SCALAR for part in walk(node))


def shows(written: Node, value: Rational, digits: int) -> bool:
    """Whether a decimal is a value rounded, or from one digit more cut off, and shows enough digits."""
    mantissa, places, shown = written.value
    if shown >= _DOUBLE_DIGITS and is_double(mantissa, places, value):
        return True
    if shown < digits or (places > 0 and mantissa % 10**places == 0):  # 22.0 is the integer 22
        return False
    scaled = value * 10**places if places >= 0 else value / 10**-places
    off = abs(scaled - mantissa)
    if off * 2 <= 1:
        return True
    return shown > digits and off < 1 and abs(scaled) > abs(mantissa)


def is_double(mantissa: int, places: int, value: Any) -> bool:
    """Whether a decimal is a double as Python prints it, and the one nearest to a value or its neighbour.

    1.4142135623730951 is what Python prints for the root of 2, whose 16th decimal is 0.
    """
    printed = float(Fraction(mantissa) / Fraction(10) ** places)
    shortest = Fraction(repr(printed)) == Fraction(mantissa) / Fraction(10) ** places
    return shortest and abs(float(value) - printed) <= math.ulp(printed)


def close(left: Any, right: Any, digits: int) -> bool:
    """Whether two numbers agree to all but the last ten digits."""
    difference = abs(left - right)
    if difference == 0:
        return True
    size = max(abs(left), abs(right), 1e-300)
    return bool(difference < size * type(size)(10) ** (10 - digits))


def same_at(a: Node, b: Node, point: dict[str, Rational], digits: int) -> bool | None:
    """Whether two values agree at a point; None where rounding alone decides.

    A difference that is nothing but rounding shrinks with the precision; one that is there does not. So zero is
    recognised whatever the size of the terms that cancel in it.
    """
    off = abs(value_at(a, point, digits + 15) - value_at(b, point, digits + 15))
    if off == 0:
        return True
    again = abs(value_at(a, point, 2 * digits + 15) - value_at(b, point, 2 * digits + 15))
    if again <= off * type(off)(10) ** (-digits // 2):
        return True
    return False if abs(off - again) <= off * _STABLE else None  # beside a pole a value may be nothing but rounding


def point_is_positive(point: dict[str, Rational]) -> bool:
    """Whether every variable is positive at a point."""
    return all(value > 0 for value in point.values())


def is_discrete(node: Node) -> bool:
    """Whether the tree counts: factorials, floors, and powers of a negative number."""
    for part in walk(node):
        if part.op == "fn" and part.value in _DISCRETE:
            return True
        if part.op == "pow" and symbols(part.args[1]) and not symbols(part.args[0]):
            base = part.args[0]
            if (base.op == "num" and base.value < 0) or (
                base.op == "mul" and base.args[0].op == "num" and base.args[0].value < 0
            ):
                return True
    return False


def same_family(a: Node, b: Node) -> bool:
    """Whether two arithmetic progressions such as 2πk and 2πn hold the same numbers.

    One letter of each must be able to stand for any integer: it multiplies an angle, and occurs nowhere else.
    """
    one, two = symbols(a), symbols(b)
    if not (contains(a, "const", "deg") and contains(b, "const", "deg")):
        return False
    mine, yours = one & _DUMMIES, two & _DUMMIES
    if len(mine) != 1 or len(yours) != 1 or one - mine != two - yours:
        return False
    try:
        first, second = _progression(a, *mine), _progression(b, *yours)
    except Unreadable:
        return False
    if first is None or second is None or first[1] == 0:
        return False
    step = second[1] / first[1]
    shift = (second[0] - first[0]) / first[1]
    return bool(abs(abs(step) - 1) < _TINY and near_integer(shift))


def near_integer(value: Any) -> bool:
    """Whether a number is an integer to 25 digits."""
    return bool(abs(value) < 1e12 and abs(value - round(value.real)) < _TINY)


def _progression(node: Node, letter: str) -> tuple[Any, Any] | None:
    """First term and step where the tree is linear in a letter and its step an angle; else None."""
    point = point_of(symbols(node) - {letter}, 0, "positive")
    terms = [value_at(node, {**point, letter: count}, DIGITS) for count in (0, 1, 2, 7)]
    step = terms[1] - terms[0]
    linear = abs(terms[2] - terms[0] - 2 * step) < _TINY and abs(terms[3] - terms[0] - 7 * step) < _TINY
    other = point_of(symbols(node) - {letter}, 1, "positive")
    steady = value_at(node, {**other, letter: 1}, DIGITS) - value_at(node, {**other, letter: 0}, DIGITS)
    turns = step / value_at(PI, {}, DIGITS) * 360
    return (terms[0], step) if linear and near_integer(turns) and abs(steady - step) < _TINY else None


def has_plain_log(node: Node) -> bool:
    """Whether a tree has a logarithm of no stated base."""
    return any(part.op == "fn" and part.value == "log" and len(part.args) == 1 for part in walk(node))


def in_tens(node: Node) -> Node:
    """The tree with logarithms of no stated base to base 10."""
    if not node.args:
        return node
    name = "lg" if node.op == "fn" and node.value == "log" and len(node.args) == 1 else node.value
    return Node(node.op, tuple(map(in_tens, node.args)), name)


def shifted(node: Node) -> Node:
    """A percentage of a decimal as the decimal that it is."""
    if node.op == "percent" and node.args[0].op == "dec":
        mantissa, places, digits = node.args[0].value
        return Node("dec", (), (mantissa, places + 2, digits))
    return node


def contains_function(a: Node, b: Node, *names: str) -> bool:
    """Whether one of two trees has one of these functions."""
    return any(part.op == "fn" and part.value in names for node in (a, b) for part in walk(node))
