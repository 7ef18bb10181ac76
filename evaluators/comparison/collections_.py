"""Lists, sets, tuples, intervals and matrices, element by element."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.comparison.canonical import (
    COLLECTIONS,
    components,
    elements,
    is_infinite,
    pieces,
    rows,
    unnamed,
    vector,
)
from evaluators.comparison.intervals import merge
from evaluators.comparison.ladder import Ladder
from evaluators.comparison.quantities import together
from evaluators.parsing.tree import Node

MAX_ELEMENTS = 400


class Collected(Ladder):
    """Compares collections."""

    __slots__ = ()

    def collections(self, a: Node, b: Node) -> bool | None:
        """Two answers of which one at least is a collection."""
        self.reach(2)
        a, b = (unnamed(a), b) if b.op == "tuple" else (a, unnamed(b)) if a.op == "tuple" else (a, b)
        matrices = rows(a), rows(b)
        if (a.value == "vmatrix") != (b.value == "vmatrix"):
            return None  # a determinant that was not worked out
        if matrices[0] is not None and matrices[1] is not None:
            return self.matrices(matrices[0], matrices[1])
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
        if (vectors[0] is None) != (vectors[1] is None):
            cells, other = (vectors[0], b) if vectors[0] is not None else (vectors[1], a)
            coefficients = components(other, len(cells)) if cells is not None and len(cells) in (2, 3) else None
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
                return False
            return self.unordered(elements(a), elements(b), distinct=ops != {"list"})
        if ops == {"list", "tuple"} or ops == {"list", "matrix"} or ops == {"list", "interval"}:
            bare, ordered = (a, b) if a.op == "list" else (b, a)
            cells = ordered.args if ordered.op == "interval" and ordered.value in ("()",) else vector(ordered)
            if cells is None or bare.value == "or":
                return False
            return len(bare.args) == len(cells) and self.all(list(zip(bare.args, cells)))
        if "tuple" in ops or "set" in ops:
            single, other = (a, b) if a.op in ("tuple", "set") else (b, a)
            return len(single.args) == 1 and other.op not in COLLECTIONS and self.equal(single.args[0], other)
        return False

    def matrices(self, a: tuple[tuple[Node, ...], ...], b: tuple[tuple[Node, ...], ...]) -> bool | None:
        """Two matrices, entry by entry."""
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
        """The elements that differ from each other."""
        kept: list[Node] = []
        for node in dict.fromkeys(nodes):
            if len(nodes) > 40 or not any(self.equal(node, other) for other in kept):
                kept.append(node)
        return kept


def rows_of(cases: Node) -> list[Node]:
    """Value and condition of each case."""
    return [Node("row", cases.args[place : place + 2]) for place in range(0, len(cases.args), 2)]
