"""Sums, products, multiples and powers of matrices, worked out entry by entry."""

from __future__ import annotations

from functools import reduce

from evaluators.parsing.tree import Node

Rows = tuple[tuple[Node, ...], ...]
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
    if node.op == "pow" and node.args[1].op == "num" and node.args[1].value in range(1, MAX_POWER + 1):
        return _product((node.args[0],) * node.args[1].value)
    return None


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
