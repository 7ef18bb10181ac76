"""Sums, products, multiples and powers of matrices, worked out entry by entry."""

from __future__ import annotations

from functools import reduce

from evaluators.parsing.tree import MINUS_ONE, ONE, Node, negate, symbols

Rows = tuple[tuple[Node, ...], ...]
ZERO = Node("num", (), 0)
_TRANSPOSED = tuple(Node("sym", (), name) for name in ("T", "t", "top", "intercal"))
_IDENTITIES = frozenset(("I", "E"))
MAX_DETERMINANT = 5
MAX_SIZE = 6  # rows or columns of a product
MAX_POWER = 4


def matrix_value(node: Node) -> Node:
    """Return the matrix that a sum, product, multiple or small power of matrices is; else the tree as it is."""
    rows = _rows(node)
    if rows is None or node.op == "matrix":
        return node
    return Node("matrix", tuple(Node("row", row) for row in rows), "pmatrix")


def _rows(node: Node) -> Rows | None:
    if node.op == "matrix":
        return None if node.value == "vmatrix" else tuple(row.args for row in node.args)
    if node.op == "add":
        terms = [_rows(arg) for arg in node.args]
        return None if None in terms else reduce(_sum, terms)  # type: ignore[arg-type]
    if node.op == "mul":
        return _product(node.args)
    if node.op == "pow":
        return _power(*node.args)
    return None


def _power(base: Node, exponent: Node) -> Rows | None:
    """A small power, the inverse or the transpose; of a vector in a line only the transpose."""
    rows = (base.args,) if base.op == "tuple" or base.value == "[]" else _rows(base)
    if rows is None:
        return None
    if exponent in _TRANSPOSED:
        return tuple(zip(*rows))
    if base.op != "matrix" or exponent.op != "num":
        return None
    if exponent == MINUS_ONE:
        return _inverse(rows)
    return _product((base,) * exponent.value) if exponent.value in range(1, MAX_POWER + 1) else None


def _inverse(rows: Rows) -> Rows | None:
    """The inverse of a matrix of two or three rows: cofactors over the determinant."""
    size = len(rows)
    whole = determinant_of(rows) if size == len(rows[0]) and size in (2, 3) else None
    if whole is None:
        return None
    share = Node("pow", (whole, MINUS_ONE))
    return tuple(
        tuple(Node("mul", (_cofactor(rows, column, row), share)) for column in range(size)) for row in range(size)
    )


def _cofactor(rows: Rows, row: int, column: int) -> Node:
    smaller = tuple(cells[:column] + cells[column + 1 :] for place, cells in enumerate(rows) if place != row)
    value = determinant_of(smaller)
    assert value is not None
    return value if (row + column) % 2 == 0 else negate(value)


def determinant_of(rows: Rows) -> Node | None:
    """Return the determinant of square rows, expanded along the first; None beyond five rows."""
    if len(rows) == 1:
        return rows[0][0]
    if len(rows) > MAX_DETERMINANT:
        return None
    terms = tuple(Node("mul", (cell, _cofactor(rows, 0, place))) for place, cell in enumerate(rows[0]))
    return Node("add", terms)


def identity_multiple(node: Node, size: int) -> Node | None:
    """Return 2I as a matrix of so many rows; None where the tree is no multiple of the identity."""
    factors = node.args if node.op == "mul" else (node,)
    names = [
        factor for factor in factors if factor.op == "sym" and factor.value in (*_IDENTITIES, f"I_{size}", f"E_{size}")
    ]
    rest = tuple(factor for factor in factors if factor not in names)
    if len(names) != 1 or any(symbols(factor) & _IDENTITIES for factor in rest):
        return None
    scale = Node("mul", rest) if rest else ONE
    lines = (Node("row", tuple(scale if row == column else ZERO for column in range(size))) for row in range(size))
    return Node("matrix", tuple(lines), "pmatrix")


def _sum(a: Rows | None, b: Rows | None) -> Rows | None:
    if a is None or b is None or len(a) != len(b) or len(a[0]) != len(b[0]):
        return None
    return tuple(tuple(Node("add", pair) for pair in zip(one, two)) for one, two in zip(a, b))


def _product(factors: tuple[Node, ...]) -> Rows | None:
    numbers = tuple(factor for factor in factors if _rows(factor) is None)
    matrices = [rows for factor in factors if (rows := _rows(factor)) is not None]
    if not matrices or any(number.op in ("matrix", "tuple", "list", "set") for number in numbers):
        return None
    whole: Rows | None = reduce(_times, matrices)  # type: ignore[arg-type]
    if whole is None or not numbers:
        return whole
    return tuple(tuple(Node("mul", (*numbers, cell)) for cell in row) for row in whole)


def _times(a: Rows | None, b: Rows | None) -> Rows | None:
    if a is None or b is None or len(a[0]) != len(b) or max(len(a), len(b), len(b[0])) > MAX_SIZE:
        return None
    columns = tuple(zip(*b))
    return tuple(
        tuple(Node("add", tuple(Node("mul", pair) for pair in zip(row, column))) for column in columns) for row in a
    )
