"""Named functions with their arguments; sums, integrals and limits."""

from __future__ import annotations

from evaluators.parsing.grammar import (
    BINDERS,
    DEGREE,
    DIFFERENTIAL,
    DIVIDE,
    FUNCTION,
    INVERSES,
    PLAIN_FUNCTIONS,
    POWER,
    SET_SIGNS,
    SUM,
    TIMES,
    add,
    divide,
    multiply,
)
from evaluators.parsing.token_stream import Cursor
from evaluators.parsing.tokens import FUNCTIONS, RELATIONS
from evaluators.parsing.tree import IMAGINARY, MINUS_ONE, Node, Unreadable, replaced, substitute, walk

_CLOSING = {"(": ")", "{": "}", "[": "]", r"\{": r"\}"}  # \max\{a, b\}


class Functions(Cursor):
    """Reads functions and what binds a variable."""

    __slots__ = ()

    def function(self, name: str) -> Node:
        """A named function with its power, base and argument: sin^2 x, log_2 8, ln|x|."""
        base: Node | None = None
        power: Node | None = None
        for _ in range(2):
            if self.peek() == "_" and base is None:
                self.at += 1
                base = self.group() if self.peek() == "{" else self.fraction_part()
            elif self.peek() in ("^", "**") and power is None:
                self.at += 1
                power = self.group() if self.peek() == "{" else self.expression(POWER)
        arguments = self.arguments()
        if power is not None and power == MINUS_ONE and name in INVERSES:
            node = Node("fn", arguments, INVERSES[name])
            power = None
        elif name == "log" and base is not None:
            node = Node("fn", (*arguments, base), "log")
        else:
            node = Node("fn", arguments, name)
        if name == "cis":
            turn = Node("fn", arguments, "sin")
            node = add(Node("fn", arguments, "cos"), multiply(Node("const", (), "i"), turn))
        return node if power is None else Node("pow", (node, power))

    def arguments(self) -> tuple[Node, ...]:
        """What a function is applied to, in brackets or without."""
        token = self.peek()
        if token in _CLOSING:
            self.at += 1
            inside = self.sequence()
            self.close(_CLOSING[token])
            return inside.args if inside.op == "list" else (inside,)
        return (self.expression(FUNCTION) if token == "-" else self.juxtaposed(),)

    def juxtaposed(self) -> Node:
        """The argument of a function without brackets: factors without signs, as in sin 2x."""
        left = self.expression(FUNCTION)
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            name = token.lstrip("\\")
            if name in FUNCTIONS or token in ("(", "[", "|") or token[-1:] == "}" or name in PLAIN_FUNCTIONS:
                break
            if (
                token in DEGREE
                or token in RELATIONS
                or token in TIMES
                or token in DIVIDE
                or token in (r"\%", r"\pm", r"\mp")
            ):
                break
            if token in SET_SIGNS or not self.starts_operand(left, token) or self.unit_ahead(left, token):
                break
            left = multiply(left, self.expression(FUNCTION))
        return left

    def plain_function(self, name: str) -> Node:
        """A function known in plain text alone: sqrt(2), binomial(n, k)."""
        if name == "sqrt":
            return self.root()
        if name == "cbrt":
            return Node("root", (self.argument_of_root(), Node("num", (), 3)))
        arguments = self.arguments()
        if name == "root" and len(arguments) == 2:
            return Node("root", arguments)
        if name in ("pow", "Pow") and len(arguments) == 2:
            return Node("pow", arguments)
        if name in ("frac", "Rational", "Fraction") and len(arguments) == 2:
            return divide(*arguments)
        if name in ("Matrix", "matrix", "vector", "Tuple", "tuple", "array") and len(arguments) == 1:
            return arguments[0]
        return Node("fn", arguments, {"factorial": "factorial", "C": "binomial", "binom": "binomial"}.get(name, name))

    def binder(self, name: str) -> Node:
        """A sum, product, integral or limit, with its bound variable numbered by depth."""
        low: Node | None = None
        high: Node | None = None
        for _ in range(2):
            if self.peek() == "_" and low is None:
                self.at += 1
                low = self.group() if self.peek() == "{" else self.fraction_part()
            elif self.peek() == "^" and high is None:
                self.at += 1
                high = self.group() if self.peek() == "{" else self.fraction_part()
        if name == "int":
            body, variable = self.integrand()
            bounds: tuple[Node, ...] = () if low is None or high is None else (low, high)
        else:
            if low is not None and low.op == "rel" and low.args[0] == IMAGINARY:
                low = Node("rel", (Node("sym", (), "i"), *low.args[1:]), low.value)
            if low is None or low.op != "rel" or low.args[0].op != "sym" or (name == "lim") != (low.value[0] == "->"):
                raise Unreadable(f"found \\{name} without its bounds")
            body, variable = self.expression(SUM), low.args[0].value
            if variable == "i":
                body = replaced(body, IMAGINARY, low.args[0])
            bounds = (low.args[1],) if name == "lim" else (low.args[1], high) if high is not None else ()
            if not bounds:
                raise Unreadable(f"found \\{name} without its bounds")
        dummy = Node("dummy", (), str(sum(part.op == "dummy" for part in walk(body))))
        return Node("fn", (substitute(body, variable, dummy), dummy, *bounds), BINDERS[name])

    def integrand(self) -> tuple[Node, str]:
        """What stands before the differential, and the variable of it."""
        for place in range(self.at, len(self.tokens)):
            match = DIFFERENTIAL.fullmatch(self.tokens[place])
            variable = (match[1] or match[2]) if match else None
            size = 1
            if not variable and (match or self.tokens[place] == "d"):
                variable, size = (self.tokens[place + 1 : place + 2] or [""])[0], 2
            if variable and variable.isalpha() and len(variable) == 1:
                inner = type(self)(self.tokens[self.at : place] or ["1"])
                inner.depth = self.depth
                body = inner.sequence()
                if inner.at < len(inner.tokens):
                    raise Unreadable("cannot read the integrand")
                self.at = place + size
                return body, variable
        raise Unreadable("found an integral without its differential")
