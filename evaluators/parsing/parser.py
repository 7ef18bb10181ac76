"""A Pratt parser: tokens of LaTeX or plain text to an expression tree.

The parser reads what a person reads: a missing closing brace, `\\frac12`, `\\sqrt2` and `2^10` mean what they look
like. Its recursion is bounded by MAX_DEPTH, so no input can exhaust the stack.
"""

from __future__ import annotations

from collections.abc import Callable

from evaluators.parsing.brackets import Brackets
from evaluators.parsing.functions import Functions
from evaluators.parsing.grammar import (
    ACCENTS,
    APPLIED,
    BINDERS,
    BINOMIALS,
    CLOSERS,
    DEGREE,
    DIVIDE,
    EMPTY,
    FRACTIONS,
    KEYWORDS,
    LIST,
    MONEY,
    OPENERS,
    OVER,
    PAIRS,
    POWER,
    PRIME,
    PRODUCT,
    QUANTITY,
    RELATION,
    SEPARATORS,
    SET_SIGNS,
    SETLIKE,
    SUM,
    TEXT,
    TIMES,
    UNARY,
    UNION,
    add,
    alternatives,
    divide,
    multiply,
    text_separator,
)
from evaluators.parsing.operands import Operands
from evaluators.parsing.operators import Operators
from evaluators.parsing.token_stream import MAX_DEPTH
from evaluators.parsing.tokens import FUNCTIONS, GREEK, RELATIONS, tokenize
from evaluators.parsing.tree import EMPTY_SET, MINUS_ONE, Node, TooLarge, Unreadable, negate
from evaluators.parsing.units import parse_unit


def parse(text: str) -> Node:
    """The tree of a cleaned answer. Raises Unreadable, or TooLarge where it is too deep or too long."""
    parser = Parser(tokenize(text))
    node = parser.sequence()
    if parser.at < len(parser.tokens):
        rest = parser.tokens[parser.at :]
        if any(token != "}" for token in rest):
            raise Unreadable(f"cannot read on at {parser.tokens[parser.at]!r}")
    return node


class Parser(Operands, Brackets, Functions, Operators):
    """Reads lists, relations and operators by their binding power."""

    __slots__ = ()

    def sequence(self) -> Node:
        """Elements with separators between them; a single element is itself."""
        items: list[Node] = []
        signs: list[str] = []  # before each item but the first
        joined = sign = ""
        while True:
            token = self.peek()
            if not token or token in CLOSERS or token == r"\mid" or token.startswith(r"\end"):
                break
            separator = self.separator()
            if separator:
                if items and (separator != "," or not joined):
                    joined = separator
                sign = separator if separator != "," or not sign else sign
                continue
            if items and not joined:
                raise Unreadable(f"cannot read on at {token!r}")
            if len(items) and self.just_closed():
                raise Unreadable(f"cannot read on at {token!r}")
            if items:
                signs.append(sign)
            sign = ""
            items.append(self.expression(LIST))
        if not items:
            raise Unreadable("found nothing to read")
        if sign == "or":
            raise Unreadable("ends where an alternative is expected")
        if "or" in signs and ("," in signs or "and" in signs):
            systems = alternatives(items, signs)
            if systems is not None:
                return systems
        return items[0] if len(items) == 1 else Node("list", tuple(items), joined)

    def just_closed(self) -> bool:
        """Whether no separator stands before the cursor."""
        before = self.tokens[self.at - 1]
        return before not in SEPARATORS and not (before.startswith("\\") and text_separator(before))

    def separator(self) -> str:
        """Step over a separator and name it; "" where there is none."""
        token = self.peek()
        sign = SEPARATORS.get(token) or (text_separator(token) if token[:1] == "\\" and token[-1:] == "}" else "")
        if sign:
            self.at += 1
        return sign

    def relation(self, left: Node) -> Node:
        """A chain of relations, such as 1 < x < 2, from its second side on."""
        sides, signs = [left], []
        while (token := self.peek()) in RELATIONS:
            self.at += 1
            signs.append(RELATIONS[token])
            sides.append(self.expression(RELATION + 1))
            if signs[-1] == "==" and sides[-1].op == "fn" and sides[-1].value == "mod":
                sides[-1] = Node("class", sides[-1].args)
        return Node("rel", tuple(sides), tuple(signs))

    def expression(self, power: int) -> Node:
        """An expression whose operators bind tighter than `power`."""
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise TooLarge(f"nested deeper than {MAX_DEPTH}")
        left = self.operand()
        tokens = self.tokens
        while self.at < len(tokens):
            token = tokens[self.at]
            if token == "+" or token == "-":
                if power >= SUM:
                    break
                self.at += 1
                if left.op == "const" and token == "-" and self.peek() == r"\{":
                    left = Node("minus", (left, self.expression(SUM)))  # R - {0}
                    continue
                right = self.expression(SUM)
                left = add(left, right if token == "+" else negate(right))
            elif token == "^" or token == "**":
                if power > POWER:
                    break
                self.at += 1
                left = self.exponent(left)
            elif token in TIMES:
                if power >= PRODUCT:
                    break
                self.at += 1
                left = multiply(left, self.expression(PRODUCT + 1))
            elif token in DIVIDE:
                if power >= PRODUCT:
                    break
                self.at += 1
                left = divide(left, self.expression(PRODUCT + 1))
            else:
                follow = self.follow(left, token, power)
                if follow is None:
                    break
                left = follow
        self.depth -= 1
        return left

    def follow(self, left: Node, token: str, power: int) -> Node | None:
        """What a rarer token makes of the expression before it; None where the expression ends."""
        if token in RELATIONS or (token == "in" and left.op == "sym"):
            if power >= RELATION + 1:
                return None
            if token == "in":
                self.tokens[self.at] = r"\in"
            return self.relation(left)
        if token == "|" and not self.bars and self.tokens[self.at + 1 : self.at + 2] == ["_"]:
            return None if power >= QUANTITY else self.evaluated(left)
        if token == "!":
            self.wrap()
            if self.accept("!"):
                return Node("fn", (left,), "factorial2")
            return Node("fn", (left,), "factorial")
        if token == r"\%" or token == "%":
            self.wrap()
            return Node("percent", (left,))
        if token in DEGREE:
            self.wrap()
            return self.degrees(left)
        if token == r"\pm" or token == r"\mp" or token == "+-":
            if power >= SUM:
                return None
            self.at += 1
            return add(left, Node("pm" if token != r"\mp" else "mp", (self.expression(SUM),)))
        if token in SET_SIGNS or (token in ("U", "union") and left.op in SETLIKE):
            if power >= UNION:
                return None
            self.wrap()
            return Node(SET_SIGNS.get(token, "union"), (left, self.expression(UNION)))
        if token == ":":
            if power >= QUANTITY:
                return None
            self.at += 1
            right = self.expression(QUANTITY)
            return Node("ratio", (*left.args, right) if left.op == "ratio" else (left, right))
        if token in OVER:
            if power >= QUANTITY:
                return None
            self.wrap()
            right = self.expression(QUANTITY)
            return divide(left, right) if token == r"\over" else Node("fn", (left, right), "binomial")
        if token in (r"\pmod", r"\bmod", r"\mod", "mod"):
            if power >= QUANTITY:
                return None
            self.wrap()
            modulus = self.expression(QUANTITY)
            return Node("class", (left, modulus)) if token == r"\pmod" else Node("fn", (left, modulus), "mod")
        if token in MONEY and left.op in ("num", "dec"):
            self.at += 1
            return Node("quantity", (left,), parse_unit(MONEY[token]))
        if left.op == "quantity" and token[0].isdigit():
            return self.compound(left)
        if self.unit_ahead(left, token):
            return self.unit(left) if power < QUANTITY else None
        if self.starts_operand(left, token) and power < PRODUCT + 1:
            return multiply(left, self.expression(PRODUCT + 1))
        return None

    def starts_operand(self, left: Node, token: str) -> bool:
        """Whether the token begins a factor: multiplication without a sign."""
        char = token[0]
        if char.isdigit() or char == ".":
            return left.op not in ("num", "dec")
        if char.isalpha():
            return token not in KEYWORDS
        if token == "|":
            return not self.bars
        if token in OPENERS:
            return token != "[" or left.op not in ("tuple", "interval", "set", "list")
        if char == "\\":
            return not (
                token in SEPARATORS
                or text_separator(token)
                or token in CLOSERS
                or token in OVER
                or token == r"\mid"
                or token.startswith(r"\end")
            )
        return False

    def exponent(self, base: Node) -> Node:
        """The power, degrees or prime behind a caret."""
        self.at -= 1
        self.wrap()
        token = self.peek()
        if token in DEGREE:
            self.at += 1
            return self.degrees(base)
        if token in PRIME or (token == "{" and self.tokens[self.at + 1 : self.at + 2] == [r"\prime"]):
            start = self.at
            while self.peek() in PRIME or self.peek() in ("{", "}"):
                self.at += 1
            if base.op != "sym":
                return Node("fn", (base,), "prime")
            return self.symbol(base.value + "'" * sum(token in PRIME for token in self.tokens[start : self.at]))
        if token == "{":
            if self.tokens[self.at + 1 : self.at + 3] in ([r"\circ", "}"], [r"\degree", "}"]):
                self.at += 3
                return self.degrees(base)
            exponent = self.group()
        else:
            exponent = self.expression(POWER)
        if base.op == "sym" and base.value in APPLIED and exponent == MINUS_ONE and self.peek() == "(":
            return Node("fn", self.arguments(), f"{base.value}^-1()")
        return Node("pow", (base, exponent))

    def operand(self) -> Node:
        """A value with nothing before it: number, word, command, bracket or sign."""
        if self.at >= len(self.tokens):
            raise Unreadable("ends where a value is expected")
        token = self.tokens[self.at]
        char = token[0]
        self.at += 1
        if char.isdigit() or (char == "." and len(token) > 1):
            return self.numeral(token)
        if char.isalpha():
            return self.word(token)
        if char == "\\":
            return self.command(token)
        if token == "-":
            return negate(self.expression(UNARY))
        if token == "+":
            if self.peek() == "-" or self.peek() == "/":
                self.at += self.peek() == "/"
                self.accept("-")
                return Node("pm", (self.expression(UNARY),))
            return self.expression(UNARY)
        if token in ("(", "[", "]"):
            return self.bracket(token)
        if token == "{":
            self.at -= 1
            return self.group()
        if token == "|":
            return self.absolute()
        if token in MONEY:
            return self.money(MONEY[token])
        if token in ("=", "<", ">", "<=", ">="):
            return Node("rel", (Node("sym", (), "?"), self.expression(RELATION)), (RELATIONS[token],))
        raise Unreadable(f"cannot read {token!r}")

    def command(self, token: str) -> Node:
        """A LaTeX command and what it takes."""
        reader = _COMMANDS.get(token)
        if reader is not None:
            return reader(self)
        if token in FRACTIONS:
            fraction = divide(self.fraction_part(), self.fraction_part())
            return multiply(fraction, self.operand()) if self.peek()[:1].isdigit() else fraction
        if token in BINOMIALS:
            return Node("fn", (self.fraction_part(), self.fraction_part()), "binomial")
        name = token[1:]
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name])
        if name in ("pi", "infty", "infin", "e", "i", "imath"):
            return Node("const", (), {"infty": "oo", "infin": "oo", "imath": "i"}.get(name, name))
        if name in BINDERS:
            return self.binder(name)
        if name in ("angle", "triangle", "measuredangle", "overarc"):
            return self.figure(name)
        if name in GREEK:
            return self.symbol(name)
        if name in ("ldots", "dots", "cdots", "dotsc"):
            return Node("sym", (), "...")
        if token in EMPTY:
            return EMPTY_SET
        if token in PAIRS:
            closer, function = PAIRS[token]
            inside = self.sequence()
            self.close(closer)
            return Node("fn", (inside,), function)
        if token in MONEY:
            return self.money(MONEY[token])
        if token in RELATIONS:
            return Node("rel", (Node("sym", (), "?"), self.expression(RELATION)), (RELATIONS[token],))
        if token in ACCENTS:
            return self.accent(token)
        match = TEXT.fullmatch(token)
        if match is None:
            raise Unreadable(f"cannot read {token!r}")
        return self.wording(match[1], match[2])


_COMMANDS: dict[str, Callable[[Parser], Node]] = {
    r"\sqrt": Parser.root,
    r"\derivative": Parser.derivative,
    r"\{": Parser.braces,
    r"\lbrace": Parser.braces,
    r"\langle": Parser.angle,
    r"\lbrack": lambda parser: parser.bracket("["),
    r"\pm": lambda parser: Node("pm", (parser.expression(UNARY),)),
    r"\mp": lambda parser: Node("mp", (parser.expression(UNARY),)),
    r"\|": lambda parser: parser.norm(r"\|"),
    r"\vert": lambda parser: parser.norm(r"\vert"),
    r"\lVert": lambda parser: parser.norm(r"\rVert"),
}
