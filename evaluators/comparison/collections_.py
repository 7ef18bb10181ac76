"""Lists, sets, tuples, intervals and matrices, element by element."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.comparison.canonical import (
    COLLECTIONS,
    components,
    elements,
    pieces,
    rows,
    unnamed,
    vector,
)
from evaluators.comparison.intervals import is_infinite, merge
from evaluators.comparison.ladder import Ladder
from evaluators.comparison.lines import compare_lines
from evaluators.comparison.matrices import identity_multiple
from evaluators.comparison.numeric import value_at
from evaluators.comparison.other_readings import with_unit_vectors
from evaluators.comparison.quantities import together
from evaluators.comparison.sampling import show_number
from evaluators.comparison.solution_sets import compare_sets
from evaluators.comparison.truth_tables import compare_tables, is_set_expression
from evaluators.parsing.tree import Node, Unreadable, contains, symbols

MAX_ELEMENTS = 400


class Collected(Ladder):
    """Compares collections."""

    __slots__ = ()

    def collections(self, a: Node, b: Node) -> bool | None:
        """Two answers of which one at least is a collection."""
        self.reach(2)
        a, b = (unnamed(a), b) if b.op == "tuple" else (a, unnamed(b)) if a.op == "tuple" else (a, b)
        if is_set_expression(a) and is_set_expression(b):
            return self.decided(*compare_tables(a, b))
        if a.op == b.op == "builder" and a.args[0] == b.args[0] and a.args[0].op == "tuple":
            return self.equal(a.args[1], b.args[1])  # {(x, y) : ...}
        matrices = rows(a), rows(b)
        if (matrices[0] is None) != (matrices[1] is None):
            known, other = (a, b) if matrices[0] is not None else (b, a)
            scaled = identity_multiple(other, len(known.args))
            if scaled is not None:
                return self.collections(known, scaled)
        if (a.value == "vmatrix") != (b.value == "vmatrix"):
            return None  # a determinant that was not worked out
        if matrices[0] is not None and matrices[1] is not None:
            return self.matrices(matrices[0], matrices[1])
        if a.op == b.op == "row":
            return self.in_order(a.args, b.args)
        if a.op == b.op == "interval" or (a.op == b.op == "tuple"):
            if a.op == "interval" and a.value != b.value and not any(is_infinite(end) for end in (*a.args, *b.args)):
                return self.differ("An end belongs to one interval and not to the other")
            if a.op == "tuple" or not any(is_infinite(end) for end in a.args):
                return self.in_order(a.args, b.args)
        regions = self.regions(a, b)
        if regions is not None:
            return regions or self.point_apart(a, b)
        several, other = (b, a) if b.op == "list" else (a, b)
        whole = together(several) if other.op not in COLLECTIONS else None
        if whole is not None:
            return self.equal(whole, other)
        vectors = vector(a), vector(b)
        if vectors[0] is not None and vectors[1] is not None and "matrix" in (a.op, b.op):
            return self.in_order(vectors[0], vectors[1])
        if (vectors[0] is None) != (vectors[1] is None):
            cells, other = (vectors[0], b) if vectors[0] is not None else (vectors[1], a)
            coefficients = None
            if cells is not None and len(cells) in (2, 3):
                coefficients = components(other, len(cells)) or components(with_unit_vectors(other), len(cells))
            if cells is not None and coefficients is not None:
                return self.all(list(zip(cells, coefficients)))
        return self.members(a, b)

    def members(self, a: Node, b: Node) -> bool | None:
        """Lists, sets and tuples against each other."""
        ops = {a.op, b.op}
        if ops <= {"list", "set"} or (
            len(ops) == 2 and ops & {"list", "set"} and not ops & {"tuple", "interval", "matrix"}
        ):
            if ops & {"union", "inter", "minus", "builder", "cases"}:
                return self.point_apart(a, b)
            return self.unordered(elements(a), elements(b), distinct=ops != {"list"})
        if ops == {"list", "tuple"} or ops == {"list", "matrix"} or ops == {"list", "interval"}:
            bare, ordered = (a, b) if a.op == "list" else (b, a)
            if ordered.op == "interval":
                return None  # [1, 2] may be an interval, a vector or the list of a program
            cells = vector(ordered)
            if cells is None or bare.value == "or":
                return self.kinds_differ(a, b)
            return self.in_order(bare.args, cells)
        if "tuple" in ops or "set" in ops:
            single, other = (a, b) if a.op in ("tuple", "set") else (b, a)
            if len(single.args) == 1 and other.op not in COLLECTIONS:
                return self.equal(single.args[0], other)
            if ops == {"tuple", "set"}:
                points, point = (a, b) if a.op == "set" else (b, a)
                if len(points.args) == 1 and points.args[0].op == "tuple":
                    return self.equal(points.args[0], point)  # the only solution of a system
        return self.kinds_differ(a, b)

    def in_order(self, a: Sequence[Node], b: Sequence[Node]) -> bool | None:
        """Two rows of values, place by place; with a parameter in them, as lines."""
        if len(a) != len(b):
            return self.differ(f"One has {len(a)} components, the other {len(b)}")
        lines = compare_lines(a, b)
        return self.all(list(zip(a, b))) if lines is None else self.decided(*lines)

    def kinds_differ(self, a: Node, b: Node) -> bool | None:
        """Return False where two answers are of kinds that have no member in common; None for other kinds."""
        kinds = {_KINDS.get(node.op, "") for node in (a, b)}
        if "" in kinds or len(kinds) == 1:
            return self.point_apart(a, b)
        return self.differ(f"One is a {_KINDS[a.op]}, the other a {_KINDS[b.op]}")

    def point_apart(self, a: Node, b: Node) -> bool | None:
        """Return False where a number lies in one set alone, else None."""
        if symbols(a) | symbols(b) and not (contains(a, "builder") or contains(b, "builder")):
            return None
        found = compare_sets(a, b)
        return self.differ(found.witness.replace("number =", "The number")) if found.same is False else None

    def matrices(self, a: tuple[tuple[Node, ...], ...], b: tuple[tuple[Node, ...], ...]) -> bool | None:
        """Two matrices, entry by entry."""
        if len(a) != len(b) or len(a[0]) != len(b[0]):
            return self.differ(f"One has {len(a)} x {len(a[0])} entries, the other {len(b)} x {len(b[0])}")
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
            return None  # b > a and a < b
        one, two = merge(left[1]), merge(right[1])
        if one is None or two is None:
            one, two = left[1], right[1]
        if len(one) != len(two):
            return False  # whoever asks looks for a witness
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
            return self.differ(f"One has {len(a)} members, the other {len(b)}") if distinct else self.left_over(a, b)
        if len(a) > MAX_ELEMENTS:
            return None
        rest = list(b)
        unknown = False
        for one in a:
            if one in rest:
                rest.remove(one)
                continue
            for place, two in enumerate(rest):
                same = self.equal(one, two) if (one.op == "set") == (two.op == "set") else False  # {1} is not 1
                if same:
                    del rest[place]
                    break
                unknown = unknown or same is None
            else:
                return None if unknown else self.differ(f"{shown(one)} is a member of one and not of the other")
        return True

    def left_over(self, a: Sequence[Node], b: Sequence[Node]) -> bool | None:
        """Return False where the longer of two lists has a member that the shorter has not, else None."""
        longer, shorter = (a, b) if len(a) > len(b) else (b, a)
        if len(longer) > MAX_ELEMENTS // 10:
            return None
        for one in longer:
            if one not in shorter and all(self.equal(one, two) is False for two in shorter):
                return self.differ(f"{shown(one)} is a member of one and not of the other")
        return None

    def without_repetition(self, nodes: Sequence[Node]) -> list[Node]:
        """The elements that differ from each other."""
        kept: list[Node] = []
        for node in dict.fromkeys(nodes):
            if len(nodes) > 40 or not any(self.equal(node, other) for other in kept):
                kept.append(node)
        return kept


_KINDS = {
    **dict.fromkeys(("num", "dec", "root", "percent", "base"), "number"),
    **dict.fromkeys(("tuple", "matrix"), "vector or matrix"),
    **dict.fromkeys(("interval", "union"), "region"),
    "set": "set",
    "cases": "function",
}


def shown(node: Node) -> str:
    """Return a member as text: its value where it has one."""
    if symbols(node):
        return "An expression"
    try:
        return show_number(value_at(node, {}, 15))
    except Unreadable:
        return f"A {_KINDS.get(node.op, 'value')}"


def rows_of(cases: Node) -> list[Node]:
    """Value and condition of each case."""
    return [Node("row", cases.args[place : place + 2]) for place in range(0, len(cases.args), 2)]
