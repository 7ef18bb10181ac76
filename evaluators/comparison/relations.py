"""Equations, inequalities and systems of them."""

from __future__ import annotations

from itertools import chain
from typing import Any

from evaluators.comparison.canonical import elements, is_variable, vector
from evaluators.comparison.definitions import (
    as_sequence,
    componentwise,
    coordinates,
    derivative_name,
    difference,
    drop_unknown,
    has_relations,
    in_letter_of,
    is_unknown,
    name_of,
    numbered_roots,
    renamed,
)
from evaluators.comparison.expressions import close
from evaluators.comparison.ladder import Ladder
from evaluators.comparison.lines import compare_lines
from evaluators.comparison.numeric import DIGITS, Rational, Undefined, point_of, value_at
from evaluators.comparison.quantities import congruent
from evaluators.comparison.residues import PRIME, residue
from evaluators.comparison.sampling import orthants, special_points
from evaluators.comparison.solution_sets import COMPLEX, compare_sets
from evaluators.parsing.tree import Node, TooLarge, Unreadable, contains, negate, substitute, symbols, walk
from evaluators.verdict import Policy

MAX_SET_COMPARISONS = 3  # of one comparison: each may take some 60 ms
_LOOSE = Policy(significant_digits=1, symbolic=False)
_ORDERED = frozenset(("<", ">", "<=", ">="))


class Relations(Ladder):
    """Compares relations, and a relation with what it answers."""

    __slots__ = ()

    def relations(self, a: Node, b: Node) -> bool | None:
        """Two answers of which one at least has a relation in it."""
        self.reach(2)
        self.relating += 1
        if self.relating > 200:
            raise TooLarge("the comparison takes too many steps")
        a, b = componentwise(drop_unknown(a)), componentwise(drop_unknown(b))
        if not has_relations(a) and not has_relations(b):
            return self.equal(a, b)
        regions = self.regions(a, b) if self.names_region(a) or self.names_region(b) else None
        if regions:
            return True
        if regions is False:
            return self.sets(a, b) and None  # a false that rests on the form of an end is no proof
        if a.op == b.op == "rel":
            return self.two_relations(a, b)
        if a.op == "rel" or b.op == "rel":
            relation, other = (a, b) if a.op == "rel" else (b, a)
            if has_relations(other):
                same = self.is_solved(relation) and self.unordered_relations(relation, other)
                return same or self.sets(relation, other)
            value = self.answered(relation)
            return self.unsolved(relation, other) if value is None else self.equal(value, other)
        return self.lists_of_relations(a, b)

    def sets(self, a: Node, b: Node) -> bool | None:
        """Two relations, systems or sets as sets of points."""
        self.set_comparisons += 1
        if self.set_comparisons > MAX_SET_COMPARISONS:
            return None
        self.reach(3)
        found = compare_sets(self.spread(a), self.spread(b))
        if found.same is False:
            return self.differ(found.witness[:1].upper() + found.witness[1:])
        return None if found.witness == COMPLEX and "complex" in self.question else found.same

    def unsolved(self, relation: Node, other: Node) -> bool | None:
        """A relation that names no value, against a value or set.

        An equation that has the right roots does not answer with them: "solve x + 3 = 8" is not solved by saying so.
        """
        same = self.sets(relation, other)
        if same and not self.names_region(relation):
            return None
        return same

    def names_region(self, node: Node) -> bool:
        """Whether a tree has an inequality or membership in it."""
        return any(
            part.op == "rel" and (part.value[0] in _ORDERED or part.value[0] in ("in", "!=")) for part in walk(node)
        )

    def is_solved(self, node: Node) -> bool:
        """Whether a relation names its variable: `x = 5`."""
        return node.op == "rel" and node.value[0] in ("=", "in", "==") and is_variable(node.args[0])

    def unordered_relations(self, relation: Node, other: Node) -> bool | None:
        """A relation against a list of them, in any order."""
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
            identity = len(sides) > 1 and all(side is best or self.equal(side, best) is True for side in sides)
            return best if identity else None
        return best

    def consistent(self, a: Node, b: Node) -> bool:
        """Whether two sides of a chain have the same value, up to the digits that a decimal shows."""
        if (a.op == "class") != (b.op == "class"):  # 2^10 = 2 (mod 7)
            residue, number = (a, b) if a.op == "class" else (b, a)
            return congruent(residue.args[0], number, residue.args[1]) is not False
        try:
            if self.equal(a, b) is not False:
                return True
            loose = type(self)(_LOOSE)
            return loose.equal(a, b) is True
        except Unreadable:
            return False

    def two_relations(self, a: Node, b: Node) -> bool | None:
        """A relation against a relation."""
        a, b = as_sequence(a), as_sequence(b)
        if self.is_definition(a) and self.is_definition(b):
            b = renamed(b, a)
            if self.same_name(a, b):
                one, two = self.value_of(a), self.value_of(b)
                same = self.equal(one, two)
                other = in_letter_of(one, two) if same is False else None
                return same if other is None else self.equal(one, other)
            mine, yours = name_of(a), name_of(b)
            if not (
                mine.op == yours.op == "sym" and mine in walk(self.value_of(b)) and yours in walk(self.value_of(a))
            ):
                return self.sets(a, b)
        values = self.answered(a), self.answered(b)
        if len(a.value) > 1 or len(b.value) > 1:
            if values[0] is not None and values[1] is not None:
                return self.equal(values[0], values[1])
            if a.value == b.value and self.all(list(zip(a.args, b.args))):
                return True
            return self.sets(a, b)
        sign, other = a.value[0], b.value[0]
        if a.args[-1].op == b.args[-1].op == "class":
            return self.all(list(zip(a.args, b.args)))
        if "class" in (a.args[-1].op, b.args[-1].op) and a.args[0] == b.args[0]:
            return self.classes(a.args[-1], b.args[-1])  # n = 5k + 2
        if sign in ("=", "==", "~") and other in ("=", "==", "~"):
            return self.same_equation(a, b)
        if sign in _ORDERED and other in _ORDERED:
            return self.same_inequality(a, b)
        if sign == other == "!=":
            return self.same_equation(a, b)
        if sign != other:
            return self.sets(a, b)
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
        """What a definition defines its variable to be."""
        left, right = node.args
        return right if is_variable(left) else left

    def same_name(self, a: Node, b: Node) -> bool:
        """Whether two definitions define the same; f(x) is y, and is f."""
        names = [side for node in (a, b) for side in node.args if is_variable(side)]
        if names[0] == names[1]:
            return True
        if names[0].op == names[1].op == "sym":
            mine, yours = (derivative_name(name.value).removeprefix("vec ") for name in names)
            partial = {"dot 1:{}:{}".format(*name.value.split("_")) for name in names if name.value.count("_") == 1}
            return mine == yours or bool(partial & {name.value for name in names})  # f_x is the derivative by x
        applied = [name for name in names if name.op == "fn"]
        plain = [name for name in names if name.op == "sym"]
        if len(applied) != 1 or contains(applied[0], "num"):
            return False
        return plain[0].value in ("y", applied[0].value[:-2])

    def same_equation(self, a: Node, b: Node) -> bool | None:
        """Two equations whose sides' differences are in a constant ratio."""
        if contains(a, "pm", "mp") or contains(b, "pm", "mp"):
            if self.is_definition(a) and self.is_definition(b) and self.same_name(a, b):
                return self.equal(self.value_of(a), self.value_of(b))
            return self.sets(a, b)
        left, right = difference(a), difference(b)
        names = symbols(left) | symbols(right)
        if not names or symbols(left) != symbols(right):
            return self.sets(a, b)
        ratio = self.ratio(left, right, names)
        return ratio is not None or self.solves(a, right) or self.solves(b, left) or self.sets(a, b)

    def solves(self, definition: Node, equation: Node) -> bool:
        """Whether `P = nRT/V` is `PV - nRT` solved for P.

        The equation must be linear in the letter, and its coefficient a product of letters at whose zeros the
        definition has no value: y = 2 does not solve xy = 2x.
        """
        if not self.is_definition(definition) or name_of(definition).op != "sym":
            return False
        name, value = name_of(definition).value, self.value_of(definition)
        others = (symbols(equation) | symbols(value)) - {name}
        for point in (*(point_of(others, index, "positive") for index in range(3)), *orthants(others)):
            try:
                found = value_at(value, point, DIGITS)
                start, slope, far, back = (
                    value_at(substitute(equation, name, Node("num", (), count)), point, DIGITS)
                    for count in (0, 1, 3, -700)
                )
                rise = slope - start
                if rise == 0 or not close(far - start, 3 * rise, DIGITS) or not close(-start, found * rise, DIGITS):
                    return False
                if not close(back - start, -700 * rise, DIGITS):
                    return False
                for letter in point:
                    if not self.scales(equation, value, name, letter, point):
                        return False
            except Unreadable:
                return False
        return True

    def scales(self, equation: Node, value: Node, name: str, letter: str, point: dict[str, Rational]) -> bool:
        """Whether the coefficient of a name has a letter as a factor only where the value has no value at its zero."""

        def coefficient(at: Rational) -> Any:
            one, none = (substitute(equation, name, Node("num", (), count)) for count in (1, 0))
            return value_at(one, {**point, letter: at}, DIGITS) - value_at(none, {**point, letter: at}, DIGITS)

        power = coefficient(2 * point[letter]) / coefficient(point[letter])
        if close(power, 1, DIGITS):
            return True
        if not any(close(power, 2**size, DIGITS) for size in (1, 2, 3)):
            return False
        try:
            value_at(value, {**point, letter: 0}, DIGITS)
        except Undefined:
            return True
        return False

    def same_inequality(self, a: Node, b: Node) -> bool | None:
        """Two inequalities whose differences are in a constant positive ratio."""
        if ("=" in a.value[0]) != ("=" in b.value[0]):
            return self.sets(a, b)
        left, right = difference(a), difference(b)
        if a.value[0][0] != "<":
            left = negate(left)
        if b.value[0][0] != "<":
            right = negate(right)
        names = symbols(left) | symbols(right)
        ratio = self.ratio(left, right, names) if names and symbols(left) == symbols(right) else None
        return True if ratio is not None and ratio > 0 else self.sets(a, b)

    def ratio(self, a: Node, b: Node, names: frozenset[str]) -> float | None:
        """The constant that one expression is of the other, None where there is none."""
        self.reach(3)
        modular = [(residue(a, point), residue(b, point)) for point in range(3)]
        if all(one and two for one, two in modular):
            first, second = modular[0]
            if any((one * second - two * first) % PRIME for one, two in modular):  # type: ignore[operator]
                return None
        points = [point_of(names, index, "positive") for index in range(6)]
        points += [point_of(names, index, "negative") for index in range(2)]
        points += orthants(names)
        found = None
        seen = 0
        for point in chain(points, () if None not in modular[0] else special_points(names, a, b)):
            try:
                left, right = value_at(a, point, DIGITS), value_at(b, point, DIGITS)
            except Undefined:
                continue
            if left.imag != 0 or right.imag != 0:
                continue
            zero = [abs(value) < 1e-25 for value in (left, right)]
            if zero[0] != zero[1]:
                return None
            if zero[0]:
                continue
            found = left / right if found is None else found
            if not close(left / right, found, DIGITS):
                return None
            seen += 1
        return None if found is None or seen < 2 else float(found)

    def spread(self, node: Node) -> Node:
        """`x = 1, 2` and `x = 1 or 2` as `x = 1, x = 2`."""
        if node.op == "rel" and node.value == ("=",) and is_variable(node.args[0]):
            return Node(
                "list", tuple(Node("rel", (node.args[0], value), ("=",)) for value in elements(node.args[1])), "or"
            )
        if node.op == "rel" and node.value == ("in",) and node.args[1].op == "set":
            return self.spread(Node("rel", node.args, ("=",)))
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

    def parametric_lines(self, a: Node, b: Node) -> bool | None:
        """`x = 1 + 2t, y = 3 - t` and another such system as lines; None where one is none."""
        one, two = coordinates(a), coordinates(b)
        if one is None or two is None or one.keys() != two.keys():
            return None
        lines = compare_lines(list(one.values()), [two[name] for name in one])
        return None if lines is None else self.decided(*lines)

    def lists_of_relations(self, a: Node, b: Node) -> bool | None:
        """`x = 1, y = 2` against itself in any order, against (1, 2), or `x = 1, x = 2` against {1, 2}."""
        a, b = self.spread(a), self.spread(b)
        if a.op == b.op and has_relations(a) and has_relations(b):
            lines = self.parametric_lines(a, b)
            if lines is not None:
                return lines
            numbered = numbered_roots(a, b), numbered_roots(b, a)
            if numbered != (a.args, b.args) and self.unordered(*numbered, distinct=False):
                return True
            same = self.sets(a, b)
            return True if same is None and self.unordered(a.args, b.args, distinct=False) else same
        related, other = (a, b) if has_relations(a) else (b, a)
        if related.value == "or" and all(arg.op == "list" for arg in related.args):
            return self.unordered(related.args, elements(other), distinct=True)
        if related.op in ("tuple", "set", "interval"):
            related = Node("list", related.args, ",")
        if not all(self.is_solved(arg) for arg in related.args if arg.op == "rel"):
            return self.unsolved(a, b)
        names = [arg.args[0] if arg.op == "rel" else None for arg in related.args]
        values = tuple(arg.args[1] if arg.op == "rel" else arg for arg in related.args)
        roots = {str(name.value).split("_")[0] for name in names if name is not None and name.op == "sym"}
        if len(set(names)) == 1 or (len(roots) == 1 and None not in names and other.op != "tuple"):
            return self.equal(Node("list", values, related.value), other)
        column = vector(other) if other.op == "matrix" else None
        if column is not None:
            other = Node("tuple", column, "(")
        if other.op == "tuple" or other.op == "list":
            given = [value for _, value in sorted(zip(map(str, names), values), key=lambda pair: pair[0])]
            same = len(values) == len(other.args) and self.in_order(values, other.args)
            return same or (len(given) == len(other.args) and self.in_order(given, other.args))
        return self.sets(a, b)
