"""The forms of definitions and systems: what an equation defines, and systems that differ in their writing alone."""

from __future__ import annotations

import re

from evaluators.comparison.canonical import UNKNOWN, elements, is_variable
from evaluators.comparison.quantities import INTEGERS
from evaluators.parsing.tree import MINUS_ONE, Node, contains, negate, substitute, symbols

_TRIGONOMETRY = frozenset(("sin", "cos", "tan", "cot", "sec", "csc"))


def coordinates(node: Node) -> dict[Node, Node] | None:
    """The values of x, y and z in a system that defines each once; None for another."""
    if any(arg.op != "rel" or arg.value != ("=",) or arg.args[0].op != "sym" for arg in node.args):
        return None
    values = {arg.args[0]: arg.args[1] for arg in node.args}
    return values if len(values) == len(node.args) > 1 else None


def has_relations(node: Node) -> bool:
    """A relation, or a collection with one in it."""
    return node.op == "rel" or (node.op in ("list", "tuple", "set") and any(map(has_relations, node.args)))


def is_unknown(node: Node) -> bool:
    """A sum, product or quotient of variables alone, such as a + b: what a problem asks for."""
    if node.op in ("add", "ratio"):
        return all(map(is_unknown, node.args))
    if node.op == "mul":
        return all(part == MINUS_ONE or is_unknown(part) for part in node.args)
    if node.op == "pow":
        return node.args[1] == MINUS_ONE and is_unknown(node.args[0])
    return node.op == "sym" or (node.op == "fn" and node.value in _TRIGONOMETRY and all(map(is_unknown, node.args)))


def difference(node: Node) -> Node:
    """Left side minus right side."""
    left, right = node.args[0], node.args[-1]
    return Node("add", (left, negate(right)))


def drop_unknown(node: Node) -> Node:
    """`= 5` and `≈ 5` answer 5."""
    if node.op == "rel" and node.args[0] == UNKNOWN and node.value[0] in ("=", "~"):
        return node.args[1] if len(node.args) == 2 else Node("rel", node.args[1:], node.value[1:])
    return node


def componentwise(node: Node) -> Node:
    """`(x, y) = (1, 2)` as `x = 1, y = 2`."""
    if node.op == "rel" and node.value == ("!=",) and contains(node.args[1], "pm"):
        node = Node("list", (node,), ",")
    if node.op == "list" and node.args and node.args[0].op == "rel":
        return _each_without_names(node)
    if node.op == "rel" and node.value == ("=",) and node.args[0].op in ("tuple", "list"):
        names, values = node.args
        if values.op in ("tuple", "list") and len(names.args) == len(values.args) and all(map(is_variable, names.args)):
            return Node("list", tuple(Node("rel", pair, ("=",)) for pair in zip(names.args, values.args)), ",")
        if all(map(is_variable, names.args)):
            return values
    return node


def _each_without_names(node: Node) -> Node:
    """`(a, b) = (1, 2), (3, 4)` as the two points; `n = 1, 3 (mod 8)` with the modulus at each."""
    names = node.args[0].args[0]
    if node.args[0].value == ("!=",) and all(arg.op != "rel" for arg in node.args[1:]):  # x is neither 2 nor -2
        excluded = elements(Node("list", (node.args[0].args[1], *node.args[1:])))
        return Node("list", tuple(Node("rel", (names, value), ("!=",)) for value in excluded), "and")
    if names.op == "tuple" and all(map(is_variable, names.args)):
        values = [arg.args[1] if arg.op == "rel" and arg.args[0] == names else arg for arg in node.args]
        if all(value.op == "tuple" and len(value.args) == len(names.args) for value in values):
            return Node("list", tuple(values), node.value)
    last = node.args[-1].args[-1] if node.args[-1].op == "rel" else node.args[-1]
    if last.op == "class" and node.args[0].value == ("==",):
        return Node("list", tuple(_with_modulus(arg, last.args[1]) for arg in node.args), node.value)
    return node


def _with_modulus(node: Node, modulus: Node) -> Node:
    if node.op == "rel":
        return Node("rel", (*node.args[:-1], _with_modulus(node.args[-1], modulus)), node.value)
    return node if node.op == "class" else Node("class", (node, modulus))


def renamed(node: Node, like: Node) -> Node:
    """The definition of f(t) with the argument of another definition, of f(x)."""
    mine, other = node.args[0], like.args[0]
    if mine.op != "fn" or other.op != "fn" or mine.value != other.value or len(mine.args) != len(other.args):
        return node
    if any(arg.op != "sym" for arg in (*mine.args, *other.args)) or len(set(other.args)) < len(other.args):
        return node
    names = [arg.value for arg in mine.args]
    if (symbols(node.args[1]) - set(names)) & {arg.value for arg in other.args}:
        return node
    for place, name in enumerate(names):
        node = substitute(node, name, Node("sym", (), f"argument {place}"))
    for place, arg in enumerate(other.args):
        node = substitute(node, f"argument {place}", arg)
    return node


_TERM = re.compile(r"([A-Za-z])_\{?([nkmijr])\}?")


def as_sequence(node: Node) -> Node:
    """`a_n = 3n - 1` as the definition of a function of n."""
    left, *rest = node.args
    match = _TERM.fullmatch(left.value) if left.op == "sym" and node.value == ("=",) else None
    if match is None or match[2] not in symbols(rest[0]):
        return node
    return Node("rel", (Node("fn", (Node("sym", (), match[2]),), f"{match[1]}()"), *rest), node.value)


_DERIVATIVE = re.compile(r"dot (\d):(.+):\w")


def derivative_name(name: str) -> str:
    """dy/dx as y'."""
    match = _DERIVATIVE.fullmatch(name)
    return name if match is None else match[2] + "'" * int(match[1])


def name_of(node: Node) -> Node:
    """What a definition defines."""
    left, right = node.args
    return left if is_variable(left) else right


def numbered_roots(node: Node, like: Node) -> tuple[Node, ...]:
    """x_1 = 1, x_2 = 4 as x = 1, x = 4, which another list calls them."""
    names = {arg.args[0].value for arg in like.args if arg.op == "rel" and arg.args[0].op == "sym"}
    if len(names) != 1 or any(arg.op != "rel" or arg.args[0].op != "sym" for arg in node.args):
        return node.args
    (name,) = names
    if any(arg.args[0].value.partition("_")[0] != name for arg in node.args):
        return node.args
    return tuple(Node("rel", (Node("sym", (), name), *arg.args[1:]), arg.value) for arg in node.args)


def in_letter_of(like: Node, node: Node) -> Node | None:
    """4m + 1 as 4k + 1 where each has one letter that can stand for any integer; None where they differ in more."""
    mine, other = symbols(like) - symbols(node), symbols(node) - symbols(like)
    if len(mine) != 1 or len(other) != 1 or not mine | other <= INTEGERS:
        return None
    (name,), (wanted,) = other, mine
    return substitute(node, name, Node("sym", (), wanted))
