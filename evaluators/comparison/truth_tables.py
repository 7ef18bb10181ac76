"""Formulae of logic and expressions of sets, compared by their truth tables.

A formula is a function of its letters; a set expression says, for each of the sets, whether an element of it belongs.
Both are decided by the at most 64 rows of one table.
"""

from __future__ import annotations

from itertools import product

from evaluators.parsing.logic import LOGIC
from evaluators.parsing.tree import Node, Unreadable, walk

MAX_LETTERS = 6
_SETS = frozenset(("union", "inter", "minus"))
_COMPLEMENTS = frozenset(("c", "C", "complement"))


def is_logic(node: Node) -> bool:
    """Whether a tree is a connective of propositional logic."""
    return node.op == "fn" and str(node.value).startswith(LOGIC)


def is_set_expression(node: Node) -> bool:
    """Whether a tree joins sets that are only named: A ∪ B."""
    return node.op in _SETS and all(_is_joined(arg) for arg in node.args)


def _is_joined(node: Node) -> bool:
    return _named(node) is not None or (node.op in _SETS and all(map(_is_joined, node.args)))


def _named(node: Node) -> tuple[str, bool] | None:
    """The letter of a set, and whether it is the set itself or its complement; None for anything else."""
    if node.op == "pow" and node.args[0].op == node.args[1].op == "sym" and node.args[1].value in _COMPLEMENTS:
        return str(node.args[0].value), False
    if node.op != "sym":
        return None
    name = str(node.value)
    for mark in ("bar ", "overline "):
        if name.startswith(mark):
            return name[len(mark) :], False
    return (name[:-1], False) if name.endswith("'") else (name, True)


def letters(node: Node) -> frozenset[str]:
    """Names in a formula or set expression, complements under the name of their set."""
    found = set()
    for part in walk(node):
        named = _named(part)
        if named is not None and named[0] not in _COMPLEMENTS:
            found.add(named[0])
    return frozenset(found)


def compare_tables(a: Node, b: Node) -> tuple[bool | None, str]:
    """Return whether two trees have the same table, and the row in which they differ as the witness."""
    names = sorted(letters(a) | letters(b))
    if len(names) > MAX_LETTERS or (
        letters(a) != letters(b) and not (letters(a) <= letters(b) or letters(b) <= letters(a))
    ):
        return None, ""
    for row in product((True, False), repeat=len(names)):
        point = dict(zip(names, row))
        if holds(a, point) != holds(b, point):
            values = ", ".join(f"{name} {'true' if value else 'false'}" for name, value in point.items())
            return False, f"They differ where {values}"
    return True, ""


def holds(node: Node, point: dict[str, bool]) -> bool:
    """Return the truth of a formula, or whether an element belongs to a set. Raises Unreadable for other trees."""
    named = _named(node)
    if named is not None:
        return point[named[0]] == named[1]
    name = node.op if node.op in _SETS else str(node.value).removeprefix(LOGIC) if is_logic(node) else ""
    if name == "not":
        return not holds(node.args[0], point)
    if name not in _TABLES:
        raise Unreadable("is no formula")
    first, *others = (holds(arg, point) for arg in node.args)
    for other in others:
        first = _TABLES[name](first, other)
    return first


_TABLES = {
    "and": lambda p, q: p and q,
    "or": lambda p, q: p or q,
    "xor": lambda p, q: p != q,
    "implies": lambda p, q: not p or q,
    "iff": lambda p, q: p == q,
    "union": lambda p, q: p or q,
    "inter": lambda p, q: p and q,
    "minus": lambda p, q: p and not q,
}
