"""The expression tree that the parser builds: immutable nodes, compared by value.

Operations (`op`), with `args` and `value`:

    num      value: int or Fraction, exact as written
    dec      value: (mantissa, places, digits): a decimal as written, mantissa / 10**places, digits significant
    sym      value: name of a variable                    const    value: "pi", "e", "i", "oo"
    add mul  args: two or more                            pow      args: base, exponent
    root     args: radicand, degree                       fn       value: name; args: its arguments
    pm mp    args: one; plus or minus it                  percent deg   args: one
    list     args: bare comma list, unordered             tuple    args: in round brackets; value: "(" or "["
    set      args: unordered, without repetition          interval args: low, high; value: such as "[)"
    union inter minus   args: two or more sets            rel      args: n + 1 sides; value: n relation signs
    matrix   args: rows; each row a "row" node            cases    args: alternating value and condition
    quantity args: one; value: a Unit                     base     value: (digits, base)
    ratio    args: two or more sides of `a:b`             clock    value: (minutes, "am", "pm" or "")
    dummy    value: depth of a bound variable: the index of a sum, the variable of an integral or limit
    class    args: residue, modulus: 1 (mod 3)
    text     value: normalised words                      choice   value: letter; args: what follows it, if anything
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, NamedTuple

from evaluators.parsing.units import Unit


class Node(NamedTuple):
    """One node: `op` says what it is, `args` are its children, `value` what is not a child."""

    op: str
    args: tuple[Any, ...] = ()  # of Node; mypy has no recursive named tuples
    value: Any = None


class Unreadable(ValueError):
    """The text is no answer this grammar knows."""


class TooLarge(Unreadable):
    """The answer is longer, deeper or greater than what is evaluated."""


class DeadlineExceeded(RuntimeError):
    """A computation passed its limit of time or memory. The worker that ran it is gone, another stands in."""


MINUS_ONE = Node("num", (), -1)
ONE = Node("num", (), 1)
TWO = Node("num", (), 2)
TEN = Node("num", (), 10)
PI = Node("const", (), "pi")
IMAGINARY = Node("const", (), "i")
INFINITY = Node("const", (), "oo")
EMPTY_SET = Node("set")


def number(value: int | Fraction) -> Node:
    """An exact number."""
    return Node("num", (), value)


def negate(node: Node) -> Node:
    """The node times -1, folded into a number."""
    if node.op == "num":
        return Node("num", (), -node.value)
    if node.op == "dec":
        mantissa, places, digits = node.value
        return Node("dec", (), (-mantissa, places, digits))
    if node.op in ("quantity", "percent", "deg"):
        return Node(node.op, (negate(node.args[0]),), node.value)
    if node.op == "mul":
        return Node("mul", (MINUS_ONE, *node.args))
    return Node("mul", (MINUS_ONE, node))


def inverse(node: Node) -> Node:
    """One over the node."""
    return Node("pow", (node, MINUS_ONE))


def walk(node: Node) -> Iterator[Node]:
    """The node and everything under it."""
    stack = [node]
    while stack:
        top = stack.pop()
        yield top
        stack.extend(top.args)


_NO_NAMES: frozenset[str] = frozenset()


def symbols(node: Node) -> frozenset[str]:
    """Names of the variables in the tree."""
    if not node.args:
        return frozenset((node.value,)) if node.op == "sym" else _NO_NAMES
    found = set()
    stack = [node]
    while stack:
        top = stack.pop()
        if top.args:
            stack.extend(top.args)
        elif top.op == "sym":
            found.add(top.value)
    return frozenset(found)


def substitute(node: Node, name: str, other: Node) -> Node:
    """The tree with another in place of a variable."""
    return replaced(node, Node("sym", (), name), other)


def replaced(node: Node, old: Node, new: Node) -> Node:
    """The tree with one leaf in place of another."""
    if not node.args:
        return new if node == old else node
    return Node(node.op, tuple(replaced(arg, old, new) for arg in node.args), node.value)


def contains(node: Node, *ops: str) -> bool:
    """Whether any node of the tree is one of these operations."""
    if node.op in ops:
        return True
    stack = list(node.args)
    while stack:
        top = stack.pop()
        if top.op in ops:
            return True
        if top.args:
            stack.extend(top.args)
    return False


def check_depth(node: Node, levels: int) -> None:
    """Refuse a tree of more levels. Raises TooLarge."""
    level = [node]
    for _ in range(levels):
        level = [arg for part in level for arg in part.args]
        if not level:
            return
    raise TooLarge(f"the expression is nested deeper than {levels}")


def to_json(node: Node) -> list[Any]:
    """The tree as lists, strings and integers, for another process."""
    value = node.value
    if isinstance(value, Fraction):
        value = {"fraction": [str(value.numerator), str(value.denominator)]}
    elif isinstance(value, int):
        value = {"integer": str(value)}
    elif isinstance(value, Unit):
        value = {"unit": [list(pair) for pair in value.dimension], "factor": str(value.factor)}
    elif isinstance(value, tuple):
        value = {"tuple": [{"integer": str(part)} if isinstance(part, int) else part for part in value]}
    return [node.op, [to_json(arg) for arg in node.args], value]


def from_json(data: list[Any]) -> Node:
    """The tree that `to_json` wrote. Raises ValueError for anything else."""
    if not (isinstance(data, list) and len(data) == 3 and isinstance(data[0], str)):
        raise ValueError(f"found {type(data).__name__}, expected [op, args, value] as to_json writes it")
    op, args, value = data
    if isinstance(value, dict):
        if "fraction" in value:
            value = Fraction(int(value["fraction"][0]), int(value["fraction"][1]))
        elif "integer" in value:
            value = int(value["integer"])
        elif "unit" in value:
            value = Unit(tuple((base, size) for base, size in value["unit"]), Fraction(value["factor"]))
        else:
            value = tuple(int(part["integer"]) if isinstance(part, dict) else part for part in value["tuple"])
    return Node(op, tuple(from_json(arg) for arg in args), value)
