"""The ladder: text, exact rational, structure, numeric, symbolic; the cheapest tier that can decide does.

Every comparison here is symmetric: `equal(a, b)` is `equal(b, a)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from evaluators.numeric import (
    DIGITS,
    PRIME,
    Rational,
    Undefined,
    digits_needed,
    exact,
    fresh_budget,
    point_of,
    residue,
    surely_differ,
    value_at,
)
from evaluators.order import merge
from evaluators.parse import summed
from evaluators.structure import (
    COLLECTIONS,
    UNKNOWN,
    elements,
    expand_plus_minus,
    is_infinite,
    is_variable,
    pieces,
    rows,
    determinant,
    scaled,
    vector,
)
from evaluators.tree import MINUS_ONE, PI, Node, TooLarge, Unreadable, contains, negate, symbols, to_json, walk
from evaluators.units import VARIABLE_LIKE, parse_unit
from evaluators.verdict import Policy

TIERS = ("text", "rational", "structure", "numeric", "symbolic")
MAX_ELEMENTS = 400
MAX_STEPS = 2000  # pairs of parts looked at in one comparison
_MEASURED = frozenset(("quantity", "percent", "deg", "clock", "ratio", "base"))
_ROUNDING = ("floor", "ceil")
_COUNTS = frozenset("nmkjlNMK")
_DISCRETE = frozenset(("sum", "product", "factorial", "factorial2", "binomial", "floor", "ceil", "mod", "gcd", "lcm"))
_WRITTEN = frozenset(("dec", "deg"))  # what equals more than its own value
_TRIGONOMETRY = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))
_LOOSE = Policy(significant_digits=1, symbolic=False)
_SCALAR = frozenset("dummy num dec sym const add mul pow root fn percent deg base".split())
_ORDERED = frozenset(("<", ">", "<=", ">="))


class Comparison:
    """One comparison of two trees; `tier` names the most expensive tier it came to."""

    __slots__ = ("policy", "relating", "steps", "tier")

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.tier = 0
        self.steps = 0
        self.relating = 0
        fresh_budget()

    @property
    def method(self) -> str:
        return TIERS[self.tier]

    def reach(self, tier: int) -> None:
        self.tier = max(self.tier, tier)

    def equal(self, a: Node, b: Node) -> bool | None:
        """Whether two answers are the same; None where no tier can tell."""
        if a == b:
            return True
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise TooLarge("the comparison takes too many steps")
        a, b = scaled(a), scaled(b)
        ops = (a.op, b.op)
        if "text" in ops:
            return self.texts(a, b)
        if "choice" in ops:
            return self.choices(a, b)
        if has_relations(a) or has_relations(b):
            return self.relations(a, b)
        if "list" in ops and "mul" in ops and all(is_letter(part) for node in (a, b) for part in node.args):
            return set(a.args) == set(b.args)  # A, B, C as ABC
        if "quantity" in ops and not (COLLECTIONS & {*ops}):
            return self.quantities(a, b)
        if "clock" in ops or "ratio" in ops:
            return self.clocks(a, b)
        if contains(a, "pm", "mp") or contains(b, "pm", "mp"):
            self.reach(2)
            return self.unordered(elements(a), elements(b), distinct=True)
        if COLLECTIONS & {*ops} or self.is_line(a) or self.is_line(b):
            return self.collections(a, b)
        return self.scalars(a, b)

    def is_line(self, node: Node) -> bool:
        return node.op == "const" and len(node.value) == 1 and node.value.isupper()

    def all(self, pairs: Sequence[tuple[Node, Node]]) -> bool | None:
        """Whether every pair is equal; False decides before None."""
        found: bool | None = True
        for a, b in pairs:
            same = self.equal(a, b)
            if same is False:
                return False
            if same is None:
                found = None
        return found

    # Words.

    def texts(self, a: Node, b: Node) -> bool | None:
        """Words against words; letters that make a word also against a product of letters."""
        if a.op == b.op:
            return a.value == b.value
        word, other = (a, b) if a.op == "text" else (b, a)
        return self.equal(word.args[0], other) if word.args else False

    def choices(self, a: Node, b: Node) -> bool | None:
        """A letter against a letter, with or without what it labels; a labelled answer also against the answer."""
        self.reach(0)
        if a.op == b.op:
            if a.value != b.value:
                return False
            return self.equal(a.args[0], b.args[0]) if a.args and b.args else True
        letter, other = (a, b) if a.op == "choice" else (b, a)
        if letter.args:
            return self.equal(letter.args[0], other)
        if other.op == "sym" or other.op == "const":
            return str(other.value).upper() == letter.value
        return False

    # Numbers and expressions.

    def scalars(self, a: Node, b: Node) -> bool | None:
        infinite = (is_infinite(a), is_infinite(b))
        if any(infinite):
            return infinite[0] == infinite[1]
        left, right = exact(a), exact(b)
        if left is not None and right is not None:
            self.reach(1)
            return self.rationals(a, left, b, right)
        if a.op == "percent" or b.op == "percent":
            return self.percentages(a, b)
        self.reach(3)
        if a.op not in _WRITTEN and b.op not in _WRITTEN and surely_differ(a, b):
            return False
        if a.op == "deg" or b.op == "deg":
            return self.degrees(a, b)
        if a.op == "dec" or b.op == "dec":
            written, other = (a, b) if a.op == "dec" else (b, a)
            return self.rounded(written, other)
        return self.expressions(a, b)

    def rationals(self, a: Node, left: Rational, b: Node, right: Rational) -> bool:
        if left == right:
            return True
        if a.op == "percent" or b.op == "percent":
            if self.policy.percent_as_number and a.op != b.op:
                if (left * 100 == right) if a.op == "percent" else (right * 100 == left):
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
        if a.op == b.op:
            return self.scalars(a.args[0], b.args[0])
        inside, other = (a.args[0], b) if a.op == "percent" else (b.args[0], a)
        same = self.scalars(Node("mul", (inside, Node("num", (), Fraction(1, 100)))), other)
        if same or not self.policy.percent_as_number:
            return same
        return self.scalars(inside, other)

    def degrees(self, a: Node, b: Node) -> bool | None:
        if a.op == b.op:
            return self.scalars(a.args[0], b.args[0])
        inside, other = (a.args[0], b) if a.op == "deg" else (b.args[0], a)
        if self.policy.unit_on_one_side and self.equal(inside, other):
            return True
        return self.expressions(a, b)

    def rounded(self, written: Node, other: Node) -> bool | None:
        """A decimal against an exact value that is no rational."""
        if symbols(other):
            return False if not symbols(written) else None
        if self.at_points(written, other, frozenset()):
            return True
        value = value_at(other, {}, DIGITS + abs(written.value[1]))
        if abs(value.imag) > abs(value) * 10 ** (-DIGITS + 10):
            return False
        return shows(written, value.real, self.policy.significant_digits)

    def expressions(self, a: Node, b: Node) -> bool | None:
        """Two expressions: modulo a prime where both are rational functions, else at random points."""
        self.reach(3)
        names = symbols(a) | symbols(b)
        pair = residue(a, 0), residue(b, 0)
        if None not in pair:
            same: bool | None = pair[0] == pair[1] and residue(a, 1) == residue(b, 1)
        else:
            same = self.at_points(a, b, names)
        if not same and names and same_family(a, b):
            return True
        if same is False and (has_plain_log(a) or has_plain_log(b)):
            return self.expressions(in_tens(a), in_tens(b))  # log is to base e or 10
        if same is None and self.policy.symbolic:
            return self.symbolically(a, b)
        return same

    def at_points(self, a: Node, b: Node, names: frozenset[str]) -> bool | None:
        digits = digits_needed(a, b)
        if not names:
            try:
                return agree(a, b, {}, DIGITS) and agree(a, b, {}, digits)
            except (TooLarge, Undefined):
                raise
            except Unreadable:
                return None
        if is_discrete(a) or is_discrete(b):
            same = self.agree_at([point_of(names, index, "integer") for index in range(6)], a, b, digits, 3)
            if not same or names <= _COUNTS or not contains_function(a, b, *_ROUNDING):
                return same
        positive = self.agree_at([point_of(names, index, "positive") for index in range(6)], a, b, digits, 3)
        if positive is False:
            return False
        negative = self.agree_at([point_of(names, index, "negative") for index in range(3)], a, b, digits, 2)
        return False if negative is False else positive or negative

    def agree_at(self, points: list[dict[str, Rational]], a: Node, b: Node, digits: int, enough: int) -> bool | None:
        """Whether both are equal at the points where both are real, or at all where neither is real anywhere."""
        real, complex_ = 0, 0
        for point in points:
            try:
                left, right = value_at(a, point, digits), value_at(b, point, digits)
            except TooLarge:
                return None
            except Unreadable:
                continue
            if left.imag != 0 or right.imag != 0:
                complex_ += close(left, right, digits)
                if point_is_positive(point) and not close(left, right, digits):
                    return False
                continue
            if not close(left, right, digits):
                return False
            real += 1
            if real == enough:
                return True
        return True if real or complex_ >= 2 else None

    def symbolically(self, a: Node, b: Node) -> bool | None:
        from evaluators.deadline import run_symbolic

        if not (is_scalar(a) and is_scalar(b)):
            return None
        self.reach(4)
        return run_symbolic(to_json(a), to_json(b), self.policy.deadline_seconds)

    # Measured values.

    def quantities(self, a: Node, b: Node) -> bool | None:
        self.reach(1)
        a, b = as_quantity(a), as_quantity(b)
        if a.op == b.op:
            one, two = a.value, b.value
            if one.dimension != two.dimension:
                return False
            if one.factor == two.factor:
                return self.equal(a.args[0], b.args[0])
            ratio = Node("num", (), one.factor / two.factor)
            scaled = exact(a.args[0])
            left = Node("mul", (a.args[0], ratio)) if scaled is None else Node("num", (), scaled * ratio.value)
            return self.equal(left, b.args[0])
        measured, other = (a, b) if a.op == "quantity" else (b, a)
        dimension = dict(measured.value.dimension)
        if other.op == "deg":
            return set(dimension) in ({"degree"}, {"celsius"}, {"fahrenheit"}) and self.equal(
                measured.args[0], other.args[0]
            )
        if dimension == {"radian": 1}:
            return self.equal(measured.args[0], other)
        if other.op in ("percent", "clock", "base", "ratio"):
            return False
        return self.policy.unit_on_one_side and self.equal(measured.args[0], other)

    def clocks(self, a: Node, b: Node) -> bool | None:
        self.reach(1)
        if a.op == b.op == "clock":
            return same_time(a.value, b.value)
        if a.op == "clock" and b.op != "ratio" and a.value[1] or b.op == "clock" and a.op != "ratio" and b.value[1]:
            return False
        left, right = as_ratio(a), as_ratio(b)
        if left.op == right.op == "ratio":
            if len(left.args) != len(right.args):
                return False
            first, other = left.args[0], right.args[0]
            pairs = [
                (Node("mul", (one, other)), Node("mul", (two, first)))
                for one, two in zip(left.args[1:], right.args[1:])
            ]
            return self.all(pairs)
        ratio, value = (left, right) if left.op == "ratio" else (right, left)
        if len(ratio.args) != 2 or value.op in COLLECTIONS:
            return False
        return self.equal(Node("mul", (ratio.args[0], Node("pow", (ratio.args[1], Node("num", (), -1))))), value)

    # Collections.

    def collections(self, a: Node, b: Node) -> bool | None:
        self.reach(2)
        matrices = rows(a), rows(b)
        if matrices[0] is not None and matrices[1] is not None:
            return self.matrices(matrices[0], matrices[1])
        if a.op == b.op == "cases":
            return self.unordered(rows_of(a), rows_of(b), distinct=False)
        if a.op == b.op == "row":
            return len(a.args) == len(b.args) and self.all(list(zip(a.args, b.args)))
        if a.op == b.op == "interval" or (a.op == b.op == "tuple"):
            if a.op == "interval" and a.value != b.value and not any(is_infinite(end) for end in (*a.args, *b.args)):
                return False
            if a.op == "tuple" or not any(is_infinite(end) for end in a.args):
                return len(a.args) == len(b.args) and self.all(list(zip(a.args, b.args)))
        regions = self.regions(a, b)
        if regions is not None:
            return regions
        if "quantity" in (a.op, b.op):
            several, other = (a, b) if b.op == "quantity" else (b, a)
            whole = together(several)
            if whole is not None:
                return self.equal(whole, other)
        vectors = vector(a), vector(b)
        if vectors[0] is not None and vectors[1] is not None and "matrix" in (a.op, b.op):
            return len(vectors[0]) == len(vectors[1]) and self.all(list(zip(vectors[0], vectors[1])))
        return self.members(a, b)

    def members(self, a: Node, b: Node) -> bool | None:
        """Lists, sets and tuples against each other."""
        ops = {a.op, b.op}
        if ops <= {"list", "set"} or (
            len(ops) == 2 and ops & {"list", "set"} and not ops & {"tuple", "interval", "matrix"}
        ):
            if ops & {"union", "inter", "minus", "builder", "cases"}:
                return False
            return self.unordered(elements(a), elements(b), distinct=ops != {"list"})
        if ops == {"list", "tuple"} or ops == {"list", "matrix"} or ops == {"list", "interval"}:
            bare, ordered = (a, b) if a.op == "list" else (b, a)
            cells = ordered.args if ordered.op == "interval" and ordered.value in ("()",) else vector(ordered)
            if cells is None or bare.value == "or":
                return False
            return len(bare.args) == len(cells) and self.all(list(zip(bare.args, cells)))
        if "matrix" in ops:
            matrix, other = (a, b) if a.op == "matrix" else (b, a)
            value = determinant(matrix)
            return False if value is None else self.equal(value, other)
        if "tuple" in ops or "set" in ops:
            single, other = (a, b) if a.op in ("tuple", "set") else (b, a)
            return len(single.args) == 1 and other.op not in COLLECTIONS and self.equal(single.args[0], other)
        return False

    def matrices(self, a: tuple[tuple[Node, ...], ...], b: tuple[tuple[Node, ...], ...]) -> bool | None:
        if len(a) != len(b) or len(a[0]) != len(b[0]):
            return False
        return self.all([(one, two) for left, right in zip(a, b) for one, two in zip(left, right)])

    def regions(self, a: Node, b: Node) -> bool | None:
        """Two sets of real numbers as stretches of the line; None where one is no such set."""
        if not (
            {a.op, b.op} & {"interval", "union", "inter", "minus", "builder", "const", "rel"}
            or "and" in (a.value, b.value)
        ):
            return None
        left, right = pieces(a), pieces(b)
        if left is None or right is None:
            return None
        if left[0] and right[0] and left[0] != right[0]:
            return False
        one, two = merge(left[1]), merge(right[1])
        if one is None or two is None:
            one, two = left[1], right[1]
        if len(one) != len(two):
            return False
        for mine, other in zip(one, two):
            if mine.low_closed != other.low_closed or mine.high_closed != other.high_closed:
                return False
        return self.all(
            [pair for mine, other in zip(one, two) for pair in ((mine.low, other.low), (mine.high, other.high))]
        )

    def unordered(self, a: Sequence[Node], b: Sequence[Node], distinct: bool) -> bool | None:
        """Each element of one matched by its own element of the other."""
        self.reach(2)
        if distinct:
            a, b = self.without_repetition(a), self.without_repetition(b)
        if len(a) != len(b):
            return False
        if len(a) > MAX_ELEMENTS:
            return None
        rest = list(b)
        unknown = False
        for one in a:
            if one in rest:
                rest.remove(one)
                continue
            for place, two in enumerate(rest):
                same = self.equal(one, two)
                if same:
                    del rest[place]
                    break
                unknown = unknown or same is None
            else:
                return None if unknown else False
        return True

    def without_repetition(self, nodes: Sequence[Node]) -> list[Node]:
        kept: list[Node] = []
        for node in dict.fromkeys(nodes):
            if len(nodes) > 40 or not any(self.equal(node, other) for other in kept):
                kept.append(node)
        return kept

    # Relations.

    def relations(self, a: Node, b: Node) -> bool | None:
        self.reach(2)
        self.relating += 1
        if self.relating > 200:
            raise TooLarge("the comparison takes too many steps")
        a, b = componentwise(drop_unknown(a)), componentwise(drop_unknown(b))
        if not has_relations(a) and not has_relations(b):
            return self.equal(a, b)
        regions = self.regions(a, b) if self.names_region(a) or self.names_region(b) else None
        if regions is not None:
            return regions
        if a.op == b.op == "rel":
            return self.two_relations(a, b)
        if a.op == "rel" or b.op == "rel":
            relation, other = (a, b) if a.op == "rel" else (b, a)
            if has_relations(other):
                return self.is_solved(relation) and self.unordered_relations(relation, other)
            value = self.answered(relation)
            return False if value is None else self.equal(value, other)
        return self.lists_of_relations(a, b)

    def names_region(self, node: Node) -> bool:
        return any(
            part.op == "rel" and (part.value[0] in _ORDERED or part.value[0] in ("in", "!=")) for part in walk(node)
        )

    def is_solved(self, node: Node) -> bool:
        return node.op == "rel" and node.value[0] in ("=", "in") and is_variable(node.args[0])

    def unordered_relations(self, relation: Node, other: Node) -> bool | None:
        return self.unordered(elements(self.spread(relation)), elements(self.spread(other)), distinct=True)

    def answered(self, node: Node) -> Node | None:
        """The value that an equation or chain answers: the right side of `x = 5`; None for `3 = 5`."""
        signs = set(node.value)
        if node.value == ("in",) and node.args[0].op == "sym":
            return node.args[1]
        if not signs <= {"=", "~", "=="}:
            return None
        sides = [side for side in node.args if not is_variable(side)]
        named = len(sides) < len(node.args)
        if not sides:
            return node.args[-1]
        if len(node.args) - len(sides) > 1 and len(sides) == 1 and not is_variable(node.args[0]):
            return None
        variables = {name for side in node.args if is_variable(side) for name in symbols(side)}
        if (
            named
            and len(sides) == 1
            and any(side.op == "sym" and side.value in symbols(sides[0]) for side in node.args)
        ):
            return None
        if symbols(sides[0]) and not symbols(sides[-1]) and (named or len(sides) > 2 or is_unknown(sides[0])):
            sides = [side for side in sides if not symbols(side)]  # AB = 3 + 4 = 7 answers 7
            variables |= symbols(node)
        best = next((side for side in reversed(sides) if not contains(side, "dec")), sides[-1])
        for side in sides:
            if side is not best and not self.consistent(side, best):
                return None
        if not named and symbols(best) - variables:
            return None
        return best

    def consistent(self, a: Node, b: Node) -> bool:
        """Whether two sides of a chain have the same value, up to the digits that a decimal shows."""
        try:
            if self.equal(a, b) is not False:
                return True
            loose = Comparison(_LOOSE)
            return loose.equal(a, b) is True
        except Unreadable:
            return False

    def two_relations(self, a: Node, b: Node) -> bool | None:
        if self.is_definition(a) and self.is_definition(b):
            if self.same_name(a, b):
                return self.equal(self.value_of(a), self.value_of(b))
            return False
        values = self.answered(a), self.answered(b)
        if len(a.value) > 1 or len(b.value) > 1:
            if values[0] is not None and values[1] is not None:
                return self.equal(values[0], values[1])
            return a.value == b.value and self.all(list(zip(a.args, b.args)))
        sign, other = a.value[0], b.value[0]
        if sign in ("=", "==", "~") and other in ("=", "==", "~"):
            return self.same_equation(a, b)
        if sign in _ORDERED and other in _ORDERED:
            return self.same_inequality(a, b)
        if sign != other:
            return False
        if sign == "!=":
            return self.same_equation(a, b)
        return self.all(list(zip(a.args, b.args)))

    def is_definition(self, node: Node) -> bool:
        """`x = a` with x not in a."""
        if node.value != ("=",):
            return False
        left, right = node.args
        if not is_variable(left) and is_variable(right):
            left, right = right, left
        return (
            is_variable(left) and not (left.op == "sym" and left.value in symbols(right)) and not (is_variable(right))
        )

    def value_of(self, node: Node) -> Node:
        left, right = node.args
        return right if is_variable(left) else left

    def same_name(self, a: Node, b: Node) -> bool:
        names = [side for node in (a, b) for side in node.args if is_variable(side)]
        if names[0] == names[1]:
            return True
        applied = [name for name in names if name.op == "fn"]
        plain = [name for name in names if name.op == "sym"]
        if len(applied) != 1 or contains(applied[0], "num"):
            return False
        return plain[0].value in ("y", applied[0].value[:-2])

    def same_equation(self, a: Node, b: Node) -> bool | None:
        """Two equations whose sides' differences are in a constant ratio."""
        left, right = difference(a), difference(b)
        names = symbols(left) | symbols(right)
        if not names or symbols(left) != symbols(right):
            return False
        ratio = self.ratio(left, right, names)
        return False if ratio is None else True

    def same_inequality(self, a: Node, b: Node) -> bool | None:
        if ("=" in a.value[0]) != ("=" in b.value[0]):
            return False
        left, right = difference(a), difference(b)
        if a.value[0][0] != "<":
            left = negate(left)
        if b.value[0][0] != "<":
            right = negate(right)
        names = symbols(left) | symbols(right)
        ratio = self.ratio(left, right, names) if names and symbols(left) == symbols(right) else None
        return ratio is not None and ratio > 0

    def ratio(self, a: Node, b: Node, names: frozenset[str]) -> float | None:
        """The constant that one expression is of the other, None where there is none."""
        self.reach(3)
        modular = [(residue(a, point), residue(b, point)) for point in range(3)]
        if all(one and two for one, two in modular):
            first, second = modular[0]
            if any((one * second - two * first) % PRIME for one, two in modular):  # type: ignore[operator]
                return None
        ratios = []
        for index in range(8):
            point = point_of(names, index, "positive")
            try:
                left, right = value_at(a, point, DIGITS), value_at(b, point, DIGITS)
            except Unreadable:
                continue
            if right == 0 or left == 0:
                continue
            ratios.append(left / right)
        if len(ratios) < 2 or not all(close(ratio, ratios[0], DIGITS) for ratio in ratios) or ratios[0].imag != 0:
            return None
        return float(ratios[0].real)

    def spread(self, node: Node) -> Node:
        """`x = 1, 2` and `x = 1 or 2` as `x = 1, x = 2`."""
        if node.op == "rel" and node.value == ("=",) and is_variable(node.args[0]):
            return Node(
                "list", tuple(Node("rel", (node.args[0], value), ("=",)) for value in elements(node.args[1])), "or"
            )
        if node.op != "list" or not node.args:
            return node
        members: list[Node] = []
        name: Node | None = None
        for arg in node.args:
            if self.is_solved(arg):
                name = arg.args[0]
                members.extend(Node("rel", (name, value), arg.value) for value in elements(arg.args[1]))
            elif arg.op == "rel" or name is None:
                members.append(arg)
            else:
                members.extend(Node("rel", (name, value), ("=",)) for value in elements(arg))
        return Node("list", tuple(members), node.value)

    def lists_of_relations(self, a: Node, b: Node) -> bool | None:
        """`x = 1, y = 2` against itself in any order, against (1, 2), or `x = 1, x = 2` against {1, 2}."""
        a, b = self.spread(a), self.spread(b)
        if a.op == b.op and has_relations(a) and has_relations(b):
            return self.unordered(a.args, b.args, distinct=False)
        related, other = (a, b) if has_relations(a) else (b, a)
        if related.op in ("tuple", "set", "interval"):
            related = Node("list", related.args, ",")
        if not all(self.is_solved(arg) for arg in related.args if arg.op == "rel"):
            return False
        names = [arg.args[0] if arg.op == "rel" else None for arg in related.args]
        values = tuple(arg.args[1] if arg.op == "rel" else arg for arg in related.args)
        roots = {str(name.value).split("_")[0] for name in names if name is not None and name.op == "sym"}
        if len(set(names)) == 1 or (len(roots) == 1 and None not in names and other.op != "tuple"):
            return self.equal(Node("list", values, related.value), other)
        if other.op == "tuple" or other.op == "list":
            given = [value for _, value in sorted(zip(map(str, names), values), key=lambda pair: pair[0])]
            same = len(values) == len(other.args) and self.all(list(zip(values, other.args)))
            return same or (len(given) == len(other.args) and self.all(list(zip(given, other.args))))
        return False


def is_scalar(node: Node) -> bool:
    return all(part.op in _SCALAR for part in walk(node))


def shows(written: Node, value: Rational, digits: int) -> bool:
    """Whether a decimal is a value rounded, or from one digit more cut off, and shows enough digits."""
    mantissa, places, shown = written.value
    if shown < digits or (places > 0 and mantissa % 10**places == 0):  # 22.0 is the integer 22
        return False
    scaled = value * 10**places if places >= 0 else value / 10**-places
    off = abs(scaled - mantissa)
    if off * 2 <= 1:
        return True
    return shown > digits and off < 1 and abs(scaled) > abs(mantissa)


def close(left: object, right: object, digits: int) -> bool:
    """Whether two numbers agree to all but the last ten digits."""
    difference = abs(left - right)  # type: ignore[operator]
    if difference == 0:
        return True
    size = max(abs(left), abs(right), 1e-300)  # type: ignore[call-overload,arg-type]
    return bool(difference < size * type(size)(10) ** (10 - digits))


def agree(a: Node, b: Node, point: dict[str, Rational], digits: int) -> bool:
    """Whether two constants agree to so many digits."""
    return close_or_zero(value_at(a, point, digits + 15), value_at(b, point, digits + 15), digits)


def close_or_zero(left: object, right: object, digits: int) -> bool:
    return close(left, right, digits) or max(abs(left), abs(right)) < 10.0 ** (-digits)  # type: ignore[call-overload]


def point_is_positive(point: dict[str, Rational]) -> bool:
    return all(value > 0 for value in point.values())


def is_discrete(node: Node) -> bool:
    """Whether the tree counts: factorials, floors, and powers of a negative number."""
    for part in walk(node):
        if part.op == "fn" and part.value in _DISCRETE:
            return True
        if part.op == "pow" and symbols(part.args[1]) and not symbols(part.args[0]):
            base = part.args[0]
            if (
                base.op == "num"
                and base.value < 0
                or base.op == "mul"
                and base.args[0].op == "num"
                and base.args[0].value < 0
            ):
                return True
    return False


_DUMMIES = frozenset("klmnjpqrstKNMZ")


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


_TINY = 1e-25


def near_integer(value: Any) -> bool:
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


def rows_of(cases: Node) -> list[Node]:
    """Value and condition of each case."""
    return [Node("row", cases.args[place : place + 2]) for place in range(0, len(cases.args), 2)]


def as_quantity(node: Node) -> Node:
    """`2 h` read as two times h, as two hours, where the other side has a unit."""
    if node.op != "mul" or node.args[-1].op != "sym" or node.args[-1].value not in VARIABLE_LIKE:
        return node
    rest = node.args[:-1]
    if any(symbols(arg) for arg in rest):
        return node
    return Node("quantity", (rest[0] if len(rest) == 1 else Node("mul", rest),), parse_unit(node.args[-1].value))


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


def has_relations(node: Node) -> bool:
    """A relation, or a collection with one in it."""
    return node.op == "rel" or (node.op in ("list", "tuple", "set") and any(map(has_relations, node.args)))


def has_plain_log(node: Node) -> bool:
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


def is_letter(node: Node) -> bool:
    return node.op == "sym" and node.value in "ABCDEFGHIJ"


def is_unknown(node: Node) -> bool:
    """A sum, product or quotient of variables alone, such as a + b: what a problem asks for."""
    return all(
        part.op in ("sym", "add", "mul")
        or part == MINUS_ONE
        or (part.op == "fn" and part.value in _TRIGONOMETRY)
        or (part.op == "pow" and part.args[1] == MINUS_ONE)
        for part in walk(node)
    )


def contains_function(a: Node, b: Node, *names: str) -> bool:
    return any(part.op == "fn" and part.value in names for node in (a, b) for part in walk(node))


def difference(node: Node) -> Node:
    left, right = node.args[0], node.args[-1]
    return Node("add", (left, negate(right)))


def drop_unknown(node: Node) -> Node:
    """`= 5` and `≈ 5` answer 5."""
    if node.op == "rel" and node.args[0] == UNKNOWN and node.value[0] in ("=", "~"):
        return node.args[1] if len(node.args) == 2 else Node("rel", node.args[1:], node.value[1:])
    return node


def componentwise(node: Node) -> Node:
    """`(x, y) = (1, 2)` as `x = 1, y = 2`."""
    if node.op == "rel" and node.value == ("=",) and node.args[0].op in ("tuple", "list"):
        names, values = node.args
        if values.op in ("tuple", "list") and len(names.args) == len(values.args) and all(map(is_variable, names.args)):
            return Node("list", tuple(Node("rel", pair, ("=",)) for pair in zip(names.args, values.args)), ",")
        if all(map(is_variable, names.args)):
            return values
    return node


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
    if node.op != "clock":
        return node
    hours, minutes = divmod(int(node.value[0]), 60)
    return Node("ratio", (Node("num", (), hours), Node("num", (), minutes)))


Equal = Callable[[Node, Node], bool | None]
__all__ = ["Comparison", "expand_plus_minus", "shows"]
