"""Named functions with their arguments; sums, integrals and limits."""

from __future__ import annotations

from evaluators.parsing.derivatives import derivative
from evaluators.parsing.grammar import (
    BINDERS,
    DEGREE,
    DIFFERENTIAL,
    DIVIDE,
    FRACTIONS,
    FUNCTION,
    INVERSES,
    PLAIN_FUNCTIONS,
    POWER,
    PRODUCT,
    SET_SIGNS,
    SUM,
    TIMES,
    add,
    divide,
    multiply,
)
from evaluators.parsing.token_stream import Cursor
from evaluators.parsing.tokens import FUNCTIONS, RELATIONS
from evaluators.parsing.tree import IMAGINARY, MINUS_ONE, ONE, Node, Unreadable, replaced, substitute, symbols, walk

_DEPENDENT = frozenset("yuvwfg")  # letters that are functions of the variable more often than constants
_SIDES = (("+", ["^", "{", "+", "}"]), ("-", ["^", "{", "-", "}"]), ("+", ["^", "+"]), ("-", ["^", "-"]), ("+", ["+"]),
          ("-", ["-"]))  # fmt: skip
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
        if name == "mod" and len(arguments) != 2:
            raise Unreadable("found a modulus without its number")
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
        if name == "root" and len(arguments) == 1 and self.peek() in _CLOSING:
            return Node("root", (*self.arguments(), *arguments))  # root(3)(x)
        if name == "root" and len(arguments) == 2:
            return Node("root", arguments)
        if name in ("pow", "Pow") and len(arguments) == 2:
            return Node("pow", arguments)
        if name in ("frac", "Rational", "Fraction") and len(arguments) == 2:
            return divide(*arguments)
        if name == "C" and len(arguments) == 1:
            return multiply(Node("sym", (), "C"), arguments[0])
        if name in ("Matrix", "matrix", "vector", "Tuple", "tuple", "array") and len(arguments) == 1:
            return arguments[0]
        return Node("fn", arguments, {"factorial": "factorial", "C": "binomial", "binom": "binomial"}.get(name, name))

    def derivative(self) -> Node:
        r"""The derivative of what follows `\frac{d}{dx}`, which `notations` writes as an operator."""
        order, name, kind = self.subscript().split(":")
        body = self.expression(PRODUCT)
        if kind == "total" and symbols(body) & _DEPENDENT - {name}:
            raise Unreadable("found the derivative of a function that is not known")
        if body.op == "sym" and body.value != name:
            return Node("sym", (), f"dot {order}:{body.value}:{name}")
        return derivative(body, name, int(order))

    def binder(self, name: str) -> Node:
        """A sum, product, integral or limit, with its bound variable numbered by depth."""
        low: Node | None = None
        high: Node | None = None
        side = self.side_of_limit() if name == "lim" else ()
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
            bounds = (low.args[1], *side) if name == "lim" else (low.args[1], high) if high is not None else ()
            if not bounds:
                raise Unreadable(f"found \\{name} without its bounds")
        return bound(BINDERS[name], body, variable, bounds)

    def side_of_limit(self) -> tuple[Node, ...]:
        r"""The sign behind the point of `\lim_{x \to 0^+}`, taken out of the tokens."""
        end = self.closing_brace(self.at + 1) if self.tokens[self.at : self.at + 2] == ["_", "{"] else 0
        inside = self.tokens[self.at + 2 : end]
        for sign, tail in _SIDES:
            if inside[-len(tail) :] == tail:
                del self.tokens[end - len(tail) : end]
                return (ONE if sign == "+" else MINUS_ONE,)
        return ()

    def closing_brace(self, start: int) -> int:
        """The place of the brace that closes the one at `start`; the end of the tokens where none does."""
        level = 0
        for place in range(start, len(self.tokens)):
            level += (self.tokens[place] == "{") - (self.tokens[place] == "}")
            if not level:
                return place
        return len(self.tokens)

    def integrand(self) -> tuple[Node, str]:
        """What stands before the differential, and the variable of it."""
        if self.peek() == "{" and self.closing_brace(self.at) == len(self.tokens) - 1:
            self.at += 1  # \int{x^2 dx}
        self.split_differentials()
        inner_integrals = 0
        for place in range(self.at, len(self.tokens)):
            inner_integrals += self.tokens[place] == r"\int"
            match = DIFFERENTIAL.fullmatch(self.tokens[place])
            variable = (match[1] or match[2]) if match else None
            size = 1
            if not variable and (match or self.tokens[place] == "d"):
                variable, size = (self.tokens[place + 1 : place + 2] or [""])[0], 2
            if variable and variable.isalpha() and len(variable) == 1:
                if inner_integrals:
                    inner_integrals -= 1
                    continue
                place = self.behind_fraction(place, size)
                inner = type(self)(self.tokens[self.at : place] or ["1"])
                inner.depth = self.depth
                body = inner.sequence()
                if inner.at < len(inner.tokens):
                    raise Unreadable("cannot read the integrand")
                self.at = place + size
                return body, variable
        raise Unreadable("found an integral without its differential")

    def split_differentials(self) -> None:
        """`xdx` and `dxdy` as two words each."""
        parts: list[str] = []
        for token in self.tokens[self.at :]:
            glued = token.isascii() and token.isalpha() and len(token) > 2 and token[-2] == "d"
            parts += [token[:-2], token[-2:]] if glued and token not in FUNCTIONS else [token]
        self.tokens[self.at :] = parts

    def behind_fraction(self, place: int, size: int) -> int:
        r"""The place of a differential, moved out of a numerator: `\frac{dx}{x}` as `\frac{1}{x} dx`."""
        opening = next((at for at in range(place, self.at - 1, -1) if self.tokens[at] in ("{", "}")), 0)
        if self.tokens[opening] != "{" or self.tokens[opening - 1] not in FRACTIONS:
            return place
        if self.tokens[place + size : place + size + 1] != ["}"]:
            return place
        differential = self.tokens[place : place + size]
        self.tokens[place : place + size] = ["1"] if place == opening + 1 else []
        below = place + 1 + (place == opening + 1)
        end = self.closing_brace(below) if self.tokens[below : below + 1] == ["{"] else below
        self.tokens[end + 1 : end + 1] = differential
        return end + 1


def bound(name: str, body: Node, variable: str, bounds: tuple[Node, ...]) -> Node:
    """A sum, product, integral or limit of a body, its variable numbered by depth."""
    dummy = Node("dummy", (), str(sum(part.op == "dummy" for part in walk(body))))
    return Node("fn", (substitute(body, variable, dummy), dummy, *bounds), name)
