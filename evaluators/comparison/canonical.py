"""Sets of real numbers, relations, matrices and plus-minus, brought to one form before they are compared."""

from __future__ import annotations

from itertools import product

from evaluators.comparison.intervals import MINUS_INFINITY, Piece, is_infinite, meet, merge
from evaluators.comparison.matrices import determinant_of, matrix_value
from evaluators.parsing.tree import EMPTY_SET, INFINITY, Node, Unreadable, contains, negate, substitute, symbols

MAX_CHOICES = 64
MAX_WIDTH = 16  # components of a tuple that is added or multiplied
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "=": "=", "!=": "!="}
_REAL_LINE = frozenset(("R", "Re"))
UNKNOWN = Node("sym", (), "?")
COLLECTIONS = frozenset(
    ("list", "tuple", "set", "interval", "union", "inter", "minus", "matrix", "row", "builder", "cases")
)


def expand_plus_minus(node: Node) -> tuple[Node, ...]:
    """Every value that a tree with ± stands for. Signs of ± and ∓ go together where both are there."""
    count = _count(node, "pm")
    linked = contains(node, "mp")
    if count > 6:
        raise Unreadable("found more than six signs ±")
    choices = (
        [(True,) * max(count, 1), (False,) * max(count, 1)] if linked else list(product((True, False), repeat=count))
    )
    values: list[Node] = []
    for choice in choices:
        signs = list(choice)
        values.append(_choose(node, signs, choice[0]))
    return tuple(dict.fromkeys(values))


def _count(node: Node, op: str) -> int:
    return (node.op == op) + sum(_count(arg, op) for arg in node.args)


def _choose(node: Node, signs: list[bool], first: bool) -> Node:
    if node.op == "pm":
        sign = signs.pop(0)
        inside = _choose(node.args[0], signs, first)
        return inside if sign else negate(inside)
    if node.op == "mp":
        inside = _choose(node.args[0], signs, first)
        return negate(inside) if first else inside
    if not node.args:
        return node
    return Node(node.op, tuple(_choose(arg, signs, first) for arg in node.args), node.value)


def is_variable(node: Node) -> bool:
    """A variable alone, or a function applied to variables: what an equation can define."""
    if node.op == "fn" and node.value == "abs":
        inside = node.args[0].args if node.args[0].op == "mul" else node.args
        return all(
            part.op == "sym" and (part.value.isupper() or part.value[:3] == "vec") for part in inside
        )  # |S| = 4 counts
    return node.op == "sym" or (node.op == "fn" and str(node.value).endswith("()"))


def pieces(node: Node) -> tuple[str, list[Piece]] | None:
    """The real set that a tree names, with the name of its variable ("" where none); None where it names none."""
    op = node.op
    if op == "interval":
        low, high = node.args
        return "", [
            Piece(
                low, high, node.value[0] == "[" and not is_infinite(low), node.value[1] == "]" and not is_infinite(high)
            )
        ]
    if op == "tuple" and len(node.args) == 2 and node.value == "(":
        return "", [Piece(*node.args, False, False)]
    if op == "set":
        return "", [Piece(arg, arg, True, True) for arg in node.args]
    if op == "const" and node.value in _REAL_LINE:
        return "", [Piece(MINUS_INFINITY, INFINITY, False, False)]
    if op == "union":
        return _united([pieces(arg) for arg in node.args])
    if op == "list" and node.value == "or":
        united = _united([pieces(arg) or _root(arg) for arg in node.args])
        return united if united is None or all(arg.op == "rel" for arg in node.args) or _apart(united[1]) else None
    if op == "minus":
        return _without(*node.args)
    if op == "inter":
        return _met([pieces(arg) for arg in node.args])
    if op == "list" and node.value in ("and", ","):
        if any(arg.op != "rel" for arg in node.args):
            return None
        parts = [pieces(arg) for arg in node.args]
        met = _met(parts)
        return _united(parts) if node.value == "," and met is not None and not met[1] else met
    if op == "builder":
        variable, *within = node.args[0].args if node.args[0].op == "rel" else (node.args[0],)
        if any(line.op != "const" or line.value not in _REAL_LINE for line in within):
            return None  # {x in Z : x > 2}
        found = pieces(node.args[1])
        return ("", found[1]) if found is not None and variable.op == "sym" and found[0] == variable.value else None
    return _solved(node) if op == "rel" else None


def _root(node: Node) -> tuple[str, list[Piece]] | None:
    """`x = 1` as the point that it adds to other alternatives."""
    if node.op != "rel" or node.value != ("=",) or node.args[0].op != "sym" or symbols(node.args[1]):
        return None
    return node.args[0].value, [Piece(node.args[1], node.args[1], True, True)]


def _united(parts: list[tuple[str, list[Piece]] | None]) -> tuple[str, list[Piece]] | None:
    names = {part[0] for part in parts if part is not None}
    if any(part is None for part in parts) or len(names) != 1:
        return None
    return names.pop(), [piece for part in parts if part is not None for piece in part[1]]


def _met(parts: list[tuple[str, list[Piece]] | None]) -> tuple[str, list[Piece]] | None:
    names = {part[0] for part in parts if part is not None}
    if any(part is None for part in parts) or len(names) != 1:
        return None
    first, *rest = [part[1] for part in parts if part is not None]
    for other in rest:
        met = meet(first, other)
        if met is None:
            return None
        first = met
    return names.pop(), first


def _apart(parts: list[Piece]) -> bool:
    """Whether stretches have gaps between them: overlapping alternatives are a hedge, no set."""
    merged = merge(parts)
    return merged is None or len(merged) == len(parts)


def _without(whole: Node, removed: Node) -> tuple[str, list[Piece]] | None:
    left, right = pieces(whole), pieces(removed)
    if left is None or right is None:
        return None
    return _met([left, *((left[0], _complement(piece)) for piece in right[1])])


def _complement(piece: Piece) -> list[Piece]:
    """The line without one stretch."""
    rest = [] if is_infinite(piece.low) else [Piece(MINUS_INFINITY, piece.low, False, not piece.low_closed)]
    return rest if is_infinite(piece.high) else [*rest, Piece(piece.high, INFINITY, not piece.high_closed, False)]


def _excluding(points: tuple[Node, ...]) -> Node:
    """The real line without some points, as an intersection of punctured lines."""
    lines = tuple(
        Node("union", (Node("interval", (MINUS_INFINITY, point), "()"), Node("interval", (point, INFINITY), "()")))
        for point in points
    )
    return lines[0] if len(lines) == 1 else Node("inter", lines)


def _solved(node: Node) -> tuple[str, list[Piece]] | None:
    """The set of an inequality or chain whose variable stands alone on a side."""
    sides, signs = node.args, node.value
    if len(signs) == 1:
        left, right = sides
        sign = signs[0]
        if sign in ("in", "notin"):
            inside = pieces(right) if left.op == "sym" else None
            if inside is None or sign == "notin":
                return None
            return left.value, inside[1]
        if sign not in _FLIPPED:
            return None
        if right.op in ("sym", "fn") and left.op not in ("sym", "fn"):
            left, right, sign = right, left, _FLIPPED[sign]
        if left.op == "fn" and left.value == "abs":
            return _within(left.args[0], right, sign)
        if left.op != "sym" or left.value in symbols(right) or sign == "=":
            return None
        if sign == "!=":
            found = pieces(_excluding((right,)))
            return None if found is None else (left.value, found[1])
        if sign in ("<", "<="):
            return left.value, [Piece(MINUS_INFINITY, right, False, sign == "<=" and not is_infinite(right))]
        return left.value, [Piece(right, INFINITY, sign == ">=" and not is_infinite(right), False)]
    if len(signs) == 2 and sides[1].op == "sym":
        low, variable, high = sides
        first, second = signs
        if first in (">", ">=") and second in (">", ">="):
            low, high, first, second = high, low, _FLIPPED[second], _FLIPPED[first]
        if first not in ("<", "<=") or second not in ("<", "<="):
            return None
        return variable.value, [
            Piece(low, high, first == "<=" and not is_infinite(low), second == "<=" and not is_infinite(high))
        ]
    return None


def _within(inside: Node, radius: Node, sign: str) -> tuple[str, list[Piece]] | None:
    """The set of |x - a| < r and its like."""
    parts = inside.args if inside.op == "add" else (inside,)
    if (
        parts[0].op != "sym"
        or any(symbols(part) for part in parts[1:])
        or symbols(radius)
        or sign not in ("<", "<=", ">", ">=")
    ):
        return None
    middle = negate(Node("add", parts[1:])) if parts[1:] else Node("num", (), 0)
    low, high = Node("add", (middle, negate(radius))), Node("add", (middle, radius))
    closed = sign in ("<=", ">=")
    if sign[0] == "<":
        return parts[0].value, [Piece(low, high, closed, closed)]
    return parts[0].value, [Piece(MINUS_INFINITY, low, False, closed), Piece(high, INFINITY, closed, False)]


def plain_form(node: Node) -> Node:
    """A tree in the form that is compared: determinants and radians as numbers, multiples of a matrix as a matrix."""
    if node.op == "mul":
        if len(node.args) == 2 and node.args[0].op == "num" and node.args[1].op == "tuple":
            return vector_sum(node) or node
        return matrix_value(node) if contains(node, "matrix") else node
    if node.op == "add" and any(arg.op in ("tuple", "mul", "matrix") for arg in node.args):
        return vector_sum(node) or (matrix_value(node) if contains(node, "matrix") else node)
    if node.op == "pow" and node.args[0].op in ("matrix", "tuple", "interval"):
        return matrix_value(node)
    if node.op == "fn" and node.args and node.args[0].op == "matrix" and node.value in ("det", "abs"):
        return determinant(Node("matrix", node.args[0].args, "vmatrix")) or node
    if node.op == "matrix" and node.value == "vmatrix":
        return determinant(node) or node
    return members_of_builder(node) if node.op == "builder" else node


def members_of_builder(node: Node) -> Node:
    """{2k : k in {1, 2, 3}} as {2, 4, 6}."""
    if node.op != "builder" or node.args[1].op != "rel" or node.args[1].value != ("in",):
        return node
    letter, given = node.args[1].args
    if letter.op != "sym" or given.op != "set" or len(given.args) > MAX_CHOICES:
        return node
    return Node("set", tuple(substitute(node.args[0], letter.value, member) for member in given.args))


def family(node: Node) -> Node:
    """{2k : k is an integer} as 2k, whose letter stands for any integer."""
    if node.op != "builder" or node.args[1].op != "rel" or node.args[1].value != ("in",):
        return node
    letter, of = node.args[1].args
    return node.args[0] if letter.op == "sym" and of.op == "const" and letter.value in symbols(node.args[0]) else node


def determinant(node: Node) -> Node | None:
    """The determinant that a vmatrix of two to five rows stands for."""
    cells = tuple(row.args for row in node.args)
    return determinant_of(cells) if node.value == "vmatrix" and 2 <= len(cells) == len(cells[0]) else None


def rows(node: Node) -> tuple[tuple[Node, ...], ...] | None:
    """Rows of a matrix in any notation, or None."""
    if node.op == "matrix":
        return tuple(row.args for row in node.args)
    if (
        node.op in ("tuple", "interval", "list")
        and node.args
        and all(
            arg.op in ("tuple", "interval") and len(arg.args) == len(node.args[0].args) and _is_row(arg)
            for arg in node.args
        )
    ) and _is_row(node):
        return tuple(arg.args for arg in node.args)
    return None


def _is_row(node: Node) -> bool:
    return node.value in ("[", "[]")


def vector(node: Node) -> tuple[Node, ...] | None:
    """Components of a tuple, or of a matrix with one row or column; None for anything else."""
    if node.op == "tuple":
        return node.args
    if node.op == "interval" and node.value == "[]":
        return node.args
    if node.op == "matrix":
        cells = [row.args for row in node.args]
        if len(cells) == 1:
            return cells[0]
        if len(cells[0]) == 1:
            return tuple(row[0] for row in cells)
    return None


def vector_sum(node: Node) -> Node | None:
    """(1, 2) + t(3, 4) as (1 + 3t, 2 + 4t); None for a sum of anything but multiples of tuples."""
    summands: list[tuple[Node, ...]] = []
    for term in node.args if node.op == "add" else (node,):
        tuples = [term] if term.op == "tuple" else [part for part in term.args if part.op == "tuple"]
        if len(tuples) != 1 or term.op not in ("tuple", "mul") or len(tuples[0].args) > MAX_WIDTH:
            return None
        factors = tuple(part for part in term.args if part.op != "tuple") if term.op == "mul" else ()
        summands.append(tuple(Node("mul", (*factors, part)) if factors else part for part in tuples[0].args))
    if len({len(summand) for summand in summands}) != 1:
        return None
    return Node("tuple", tuple(Node("add", parts) if len(parts) > 1 else parts[0] for parts in zip(*summands)), "(")


def unnamed(node: Node) -> Node:
    """A point with its name before it, such as P(1, 2), as the point."""
    if node.op == "mul" and len(node.args) == 2 and node.args[1].op == "tuple" and node.args[0].op == "sym":
        return node.args[1] if node.args[0].value[:1].isupper() else node
    if node.op == "fn" and len(node.args) > 1 and (node.value == "binomial" or node.value[0].isupper()):
        return Node("tuple", node.args, "(")
    return node


_UNIT_VECTORS = ("hat i", "hat j", "hat k")


def components(node: Node, size: int) -> tuple[Node, ...] | None:
    """The coefficients of i, j and k in a sum of multiples of unit vectors; None for anything else."""
    found: dict[str, Node] = {}
    for term in node.args if node.op == "add" else (node,):
        factors = term.args if term.op == "mul" else (term,)
        names = [factor.value for factor in factors if factor.op == "sym" and factor.value in _UNIT_VECTORS]
        rest = tuple(factor for factor in factors if factor.op != "sym" or factor.value not in _UNIT_VECTORS)
        if len(names) != 1 or names[0] in found or any(name in symbols(part) for part in rest for name in names):
            return None
        found[names[0]] = rest[0] if len(rest) == 1 else Node("mul", rest) if rest else Node("num", (), 1)
    if size < 3 and "hat k" in found:
        return None
    return tuple(found.get(name, Node("num", (), 0)) for name in _UNIT_VECTORS[:size])


def elements(node: Node) -> tuple[Node, ...]:
    """Members of a bare list or set, with ± written out and `x =` taken off the first."""
    members: list[Node] = []
    items = node.args if node.op in ("list", "set") else (node,)
    for item in items:
        members.extend(expand_plus_minus(item) if contains(item, "pm", "mp") else (item,))
    return tuple(members)


__all__ = [
    "COLLECTIONS",
    "EMPTY_SET",
    "UNKNOWN",
    "Piece",
    "elements",
    "expand_plus_minus",
    "is_variable",
    "pieces",
    "rows",
    "vector",
]
