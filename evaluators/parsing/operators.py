r"""Accents, evaluation bars, and the forms that a computer algebra system prints: `Integral(x, (x, 0, 1))`."""

from __future__ import annotations

from collections.abc import Callable

from evaluators.parsing.derivatives import derivative
from evaluators.parsing.functions import bound
from evaluators.parsing.grammar import is_segment
from evaluators.parsing.token_stream import Cursor
from evaluators.parsing.tree import Node, Unreadable, negate, substitute, symbols

_COMPLEX = ("z", "w")  # letters whose bar is a conjugate; that of others is a mean or a name


class Operators(Cursor):
    """Reads what stands around an operand or is written as a call."""

    __slots__ = ()

    def accent(self, token: str) -> Node:
        r"""A bar, arrow or hat over letters, in braces or over the next letter alone: `\bar z`, `\hat\imath`."""
        start = self.at
        if self.peek() == "{":
            inside = self.group()
            letters = "".join(part.lstrip("\\") for part in self.tokens[start + 1 : self.at - 1])
        else:
            letters = self.peek().lstrip("\\")
            self.at += 1
            inside = Node("sym", (), letters)
        letters = {"imath": "i", "jmath": "j"}.get(letters, letters)
        name = token[1:]
        if name in ("overline", "bar"):
            if len(letters) == 2 and is_segment(inside):
                return inside  # a segment's length, as AB
            if letters[:1] in _COMPLEX or inside.op != "sym":
                return Node("fn", (inside,), "conjugate")
            name = "bar"
        return self.symbol(f"{_ARROWS.get(name, name)} {letters}")

    def evaluated(self, node: Node) -> Node:
        r"""What a bar behind an expression makes of it: `x^2 |_{x=3}` is 9, `x^2 |_1^2` is 3."""
        self.at += self.peek() == "|"
        low = high = None
        while self.peek() in ("_", "^"):
            sign, self.at = self.peek(), self.at + 1
            part = self.group() if self.peek() == "{" else self.fraction_part()
            low, high = (part, high) if sign == "_" else (low, part)
        if low is not None and low.op == "rel" and low.value == ("=",) and low.args[0].op == "sym":
            name, low = low.args[0].value, low.args[1]
        elif len(names := symbols(node)) == 1:
            (name,) = names
        else:
            raise Unreadable("found a bar that does not say which variable it sets")
        if low is None or low.op == "rel":
            raise Unreadable("found a bar without its value")
        below = substitute(node, name, low)
        return below if high is None else Node("add", (substitute(node, name, high), negate(below)))

    def program_form(self, name: str) -> Node:
        """A call as sympy prints it, such as `Eq(x, 3)` or `Sum(1/n**2, (n, 1, oo))`."""
        arguments = self.arguments()
        try:
            return PROGRAM_FORMS[name](arguments)
        except (IndexError, ValueError) as error:
            if isinstance(error, Unreadable):
                raise
            raise Unreadable(f"found {name} with {len(arguments)} arguments") from None


_ARROWS = {"overrightarrow": "vec", "widehat": "hat", "widetilde": "tilde"}


def _letter(node: Node) -> str:
    if node.op == "const" and node.value == "i":
        return "i"
    if node.op != "sym":
        raise Unreadable("found a bound variable that is no letter")
    return str(node.value)


def _bound(name: str) -> Callable[[tuple[Node, ...]], Node]:
    def build(args: tuple[Node, ...]) -> Node:
        body, where = args
        variable, *bounds = where.args if where.op == "tuple" else (where,)
        if len(bounds) != 2 and (bounds or name != "integral"):
            raise Unreadable(f"found a {name} without its bounds")
        return bound(name, body, _letter(variable), tuple(bounds))

    return build


def _limit(args: tuple[Node, ...]) -> Node:
    return bound("limit", args[0], _letter(args[1]), (args[2],))


def _derivative(args: tuple[Node, ...]) -> Node:
    body, where, *more = args
    name, *order = where.args if where.op == "tuple" else (where, *more)
    size = order[0].value if order and order[0].op == "num" else 1
    if order and order[0].op != "num":
        raise Unreadable("found a derivative with respect to several variables")
    return derivative(body, _letter(name), int(size))


def _related(sign: str) -> Callable[[tuple[Node, ...]], Node]:
    return lambda args: Node("rel", (args[0], args[1]), (sign,))


def _interval(ends: str) -> Callable[[tuple[Node, ...]], Node]:
    def build(args: tuple[Node, ...]) -> Node:
        if len(args) != 2:
            raise Unreadable("found an interval that says which ends are open")
        return Node("interval", args, ends)

    return build


PROGRAM_FORMS: dict[str, Callable[[tuple[Node, ...]], Node]] = {
    "Integral": _bound("integral"),
    "Sum": _bound("sum"),
    "Product": _bound("product"),
    "Limit": _limit,
    "Derivative": _derivative,
    "Eq": _related("="),
    "Ne": _related("!="),
    "Lt": _related("<"),
    "Le": _related("<="),
    "Gt": _related(">"),
    "Ge": _related(">="),
    "Interval": _interval("[]"),
    "Intervalopen": _interval("()"),
    "IntervalLopen": _interval("(]"),
    "IntervalRopen": _interval("[)"),
    "Union": lambda args: Node("union", args),
    "Intersection": lambda args: Node("inter", args),
    "Complement": lambda args: Node("minus", args),
    "FiniteSet": lambda args: Node("set", args),
    "Or": lambda args: Node("list", args, "or"),
    "And": lambda args: Node("list", args, "and"),
    "Pow": lambda args: Node("pow", (args[0], args[1])),
}
