r"""Derivatives of expression trees, for `\frac{d}{dx} x^2` and its like."""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from evaluators.parsing.tree import MINUS_ONE, ONE, TWO, Node, TooLarge, Unreadable, negate, symbols, walk

ZERO = Node("num", (), 0)
MAX_ORDER = 6
MAX_PARTS = 1000


def derivative(node: Node, name: str, order: int = 1) -> Node:
    """Return the derivative of a tree with respect to a variable. Raises Unreadable where no rule applies.

    >>> derivative(Node("pow", (Node("sym", (), "x"), TWO)), "x").args[0].value
    2
    """
    if not 1 <= order <= MAX_ORDER:
        raise Unreadable(f"cannot differentiate {order} times")
    for _ in range(order):
        node = _derivative(node, name)
        if sum(1 for _ in islice(walk(node), MAX_PARTS + 1)) > MAX_PARTS:
            raise TooLarge(f"a derivative here has more than {MAX_PARTS} parts")
    return node


def _derivative(node: Node, name: str) -> Node:
    if node.op == "sym":
        return ONE if node.value == name else ZERO
    if name not in symbols(node):
        return ZERO
    if node.op == "add":
        return _sum(tuple(_derivative(arg, name) for arg in node.args))
    if node.op == "mul":
        return _sum(
            tuple(
                _product((*node.args[:place], _derivative(arg, name), *node.args[place + 1 :]))
                for place, arg in enumerate(node.args)
            )
        )
    if node.op == "pow":
        return _of_power(node, name)
    if node.op == "root":
        radicand, degree = node.args
        return _of_power(Node("pow", (radicand, Node("pow", (degree, MINUS_ONE)))), name)
    if node.op == "fn" and len(node.args) == 1 and node.value in _OUTER:
        inside = node.args[0]
        return _product((_OUTER[node.value](inside), _derivative(inside, name)))
    if node.op == "fn" and node.value == "log" and len(node.args) == 2:
        top, bottom = (Node("fn", (arg,), "ln") for arg in node.args)
        return _derivative(_product((top, _inverse(bottom))), name)
    raise Unreadable(f"cannot differentiate a {node.value if node.op == 'fn' else node.op}")


def _of_power(node: Node, name: str) -> Node:
    """u^v: v u^(v-1) u' where v is constant, u^v (v' ln u + v u'/u) else."""
    base, exponent = node.args
    if name not in symbols(exponent):
        lower = Node("num", (), exponent.value - 1) if exponent.op == "num" else _sum((exponent, MINUS_ONE))
        return _product((exponent, Node("pow", (base, lower)), _derivative(base, name)))
    growth = _product((_derivative(exponent, name), Node("fn", (base,), "ln")))
    change = _product((exponent, _derivative(base, name), _inverse(base)))
    return _product((node, _sum((growth, change))))


def _sum(terms: tuple[Node, ...]) -> Node:
    kept = tuple(term for term in terms if term != ZERO)
    return kept[0] if len(kept) == 1 else Node("add", kept) if kept else ZERO


def _product(factors: tuple[Node, ...]) -> Node:
    if ZERO in factors:
        return ZERO
    kept = tuple(factor for factor in factors if factor != ONE)
    return kept[0] if len(kept) == 1 else Node("mul", kept) if kept else ONE


def _inverse(node: Node) -> Node:
    return Node("pow", (node, MINUS_ONE))


def _fn(name: str, node: Node) -> Node:
    return Node("fn", (node,), name)


def _square(node: Node) -> Node:
    return Node("pow", (node, TWO))


def _one_over_root(node: Node) -> Node:
    return _inverse(Node("root", (node, TWO)))


# The derivative of each function at its argument.
_OUTER: dict[str, Callable[[Node], Node]] = {
    "sin": lambda x: _fn("cos", x),
    "cos": lambda x: negate(_fn("sin", x)),
    "tan": lambda x: _square(_fn("sec", x)),
    "cot": lambda x: negate(_square(_fn("csc", x))),
    "sec": lambda x: _product((_fn("sec", x), _fn("tan", x))),
    "csc": lambda x: negate(_product((_fn("csc", x), _fn("cot", x)))),
    "sinh": lambda x: _fn("cosh", x),
    "cosh": lambda x: _fn("sinh", x),
    "tanh": lambda x: _square(_fn("sech", x)),
    "ln": _inverse,
    "log": _inverse,
    "exp": lambda x: _fn("exp", x),
    "asin": lambda x: _one_over_root(_sum((ONE, negate(_square(x))))),
    "acos": lambda x: negate(_one_over_root(_sum((ONE, negate(_square(x)))))),
    "atan": lambda x: _inverse(_sum((ONE, _square(x)))),
    "acot": lambda x: negate(_inverse(_sum((ONE, _square(x))))),
    "asinh": lambda x: _one_over_root(_sum((_square(x), ONE))),
    "acosh": lambda x: _one_over_root(_sum((_square(x), MINUS_ONE))),
    "atanh": lambda x: _inverse(_sum((ONE, negate(_square(x))))),
    "abs": lambda x: _product((x, _inverse(_fn("abs", x)))),
}
