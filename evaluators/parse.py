"""A Pratt parser: tokens of LaTeX or plain text to an expression tree.

The parser reads what a person reads: a missing closing brace, `\\frac12`, `\\sqrt2` and `2^10` mean what they look like.
Its recursion is bounded by MAX_DEPTH, so no input can exhaust the stack.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from fractions import Fraction

from evaluators.tokens import CONSTANTS, FUNCTIONS, GREEK, RELATIONS, tokenize
from evaluators.tree import EMPTY_SET, MINUS_ONE, Node, TooLarge, Unreadable, inverse, negate, substitute, symbols, walk
from evaluators.units import VARIABLE_LIKE, Unit, is_unit_word, parse_unit

MAX_DEPTH = 60
MAX_WRAPS = 150
MAX_DIGITS = 1000  # of one number
MAX_SHIFT = 2000  # powers of ten in scientific notation

# Binding powers, loosest first.
LIST, RELATION, QUANTITY, UNION, SUM, PRODUCT, UNARY, FUNCTION, POWER = range(0, 90, 10)

_FRACTIONS = frozenset((r"\frac", r"\dfrac", r"\tfrac", r"\cfrac", r"\sfrac", r"\nicefrac", r"\rfrac"))
_BINOMIALS = frozenset((r"\binom", r"\dbinom", r"\tbinom"))
_TIMES = frozenset(("*", r"\cdot", r"\times", r"\ast", r"\star", r"\bullet"))
_DIVIDE = frozenset(("/", r"\div"))
_OVER = frozenset((r"\over", r"\choose", r"\atop"))
_SET_SIGNS = {r"\cup": "union", r"\bigcup": "union", r"\cap": "inter", r"\setminus": "minus", r"\backslash": "minus"}
_PRIME = frozenset(("'", r"\prime"))
_ACCENTS = frozenset(
    (
        r"\overline",
        r"\overrightarrow",
        r"\widehat",
        r"\widetilde",
        r"\underline",
        r"\vec",
        r"\hat",
        r"\bar",
        r"\dot",
        r"\ddot",
    )
)
_EMPTY = frozenset((r"\emptyset", r"\varnothing"))
_SEPARATORS = {",": ",", ";": ",", "or": "or", "and": "and", r"\lor": "or", r"\vee": "or", r"\land": "and",
               r"\wedge": "and", "&": ",", "\\\\": ","}  # fmt: skip
_TEXT_SEPARATORS = {"or": "or", "and": "and", ",": ",", "": ",", ", and": "and", ", or": "or", ";": ",", "&": "and"}
_CLOSERS = frozenset(
    (")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil", r"\rvert", r"\rVert", r"\rbrace", r"\rbrack")
)
_PAIRS = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceil"), r"\lvert": (r"\rvert", "abs")}
_MONEY = {
    r"\$": "dollar",
    "$": "dollar",
    "€": "euro",
    r"\euro": "euro",
    "£": "£",
    r"\pounds": "£",
    "₹": "rupee",
    "¥": "yen",
}
_LEVEL_OF_OPENER = frozenset(
    ("(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil", r"\lvert", r"\lbrace", r"\lbrack")
)
_TEXT = re.compile(r"\\([a-zA-Z]+)\*?\s*\{([^{}]*)\}", re.DOTALL)
_APPLIED = frozenset("fghFGHPQTpqu")  # letters read as functions before a bracket
_DEGREE = (r"\circ", r"\degree")
_NO_ARGUMENT_BREAK = frozenset(("+", "-", "=", "/", ",", ")", "]"))
_KEYWORDS = frozenset(("or", "and", "in", "U", "union", "to", "mod", "choose"))
_BINDERS = {"sum": "sum", "prod": "product", "int": "integral", "lim": "limit"}
_DIFFERENTIAL = re.compile(r"d([a-zA-Z])|\\(?:mathrm|text)\s*\{\s*d\s*([a-zA-Z]?)\s*\}")
_ENGLISH = frozenset("is the we of it so do not if for are was yes has can all how why you she his her but its".split())


def parse(text: str) -> Node:
    """The tree of a cleaned answer. Raises Unreadable, or TooLarge where it is too deep or too long."""
    parser = _Parser(tokenize(text))
    node = parser.sequence()
    if parser.at < len(parser.tokens):
        rest = parser.tokens[parser.at :]
        if any(token != "}" for token in rest):
            raise Unreadable(f"cannot read on at {parser.tokens[parser.at]!r}")
    return node


class _Parser:
    """A cursor over tokens. Every method reads one construct and moves the cursor behind it."""

    __slots__ = ("at", "bars", "depth", "tokens", "wraps")

    def __init__(self, tokens: list[str]) -> None:
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0  # absolute values now open
        self.wraps = 0  # postfix operators read, which deepen the tree without recursion

    # The cursor.

    def peek(self) -> str:
        return self.tokens[self.at] if self.at < len(self.tokens) else ""

    def accept(self, token: str) -> bool:
        if self.at < len(self.tokens) and self.tokens[self.at] == token:
            self.at += 1
            return True
        return False

    def close(self, *closers: str) -> str:
        """Step over a closing bracket. A missing `}` or `)` at the very end is forgiven."""
        token = self.peek()
        if token in closers:
            self.at += 1
            return token
        if not token and closers[0] in (")", "}"):
            return closers[0]
        raise Unreadable(f"found {token or 'the end'!r}, expected {closers[0]!r}")

    # Lists and relations.

    def sequence(self) -> Node:
        """Elements with separators between them; a single element is itself."""
        items: list[Node] = []
        joined = ""
        while True:
            token = self.peek()
            if not token or token in _CLOSERS or token == r"\mid" or token.startswith(r"\end"):
                break
            sign = self.separator()
            if sign:
                if items and (sign != "," or not joined):
                    joined = sign
                continue
            if items and not joined:
                raise Unreadable(f"cannot read on at {token!r}")
            if len(items) and self.just_closed():
                raise Unreadable(f"cannot read on at {token!r}")
            items.append(self.expression(LIST))
        if not items:
            raise Unreadable("found nothing to read")
        return items[0] if len(items) == 1 else Node("list", tuple(items), joined)

    def just_closed(self) -> bool:
        """Whether no separator stands before the cursor."""
        before = self.tokens[self.at - 1]
        return before not in _SEPARATORS and not (before.startswith("\\") and _text_separator(before))

    def separator(self) -> str:
        """Step over a separator and name it; "" where there is none."""
        token = self.peek()
        sign = _SEPARATORS.get(token) or (_text_separator(token) if token[:1] == "\\" and token[-1:] == "}" else "")
        if sign:
            self.at += 1
        return sign

    def relation(self, left: Node) -> Node:
        sides, signs = [left], []
        while (token := self.peek()) in RELATIONS:
            self.at += 1
            signs.append(RELATIONS[token])
            sides.append(self.expression(RELATION + 1))
        return Node("rel", tuple(sides), tuple(signs))

    # Expressions.

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
                left = _add(left, right if token == "+" else negate(right))
            elif token == "^" or token == "**":
                if power > POWER:
                    break
                self.at += 1
                left = self.exponent(left)
            elif token in _TIMES:
                if power >= PRODUCT:
                    break
                self.at += 1
                left = _multiply(left, self.expression(PRODUCT + 1))
            elif token in _DIVIDE:
                if power >= PRODUCT:
                    break
                self.at += 1
                left = _divide(left, self.expression(PRODUCT + 1))
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
        if token == "!":
            self.wrap()
            if self.accept("!"):
                return Node("fn", (left,), "factorial2")
            return Node("fn", (left,), "factorial")
        if token == r"\%" or token == "%":
            self.wrap()
            return Node("percent", (left,))
        if token in _DEGREE:
            self.wrap()
            return self.degrees(left)
        if token == r"\pm" or token == r"\mp" or token == "+-":
            if power >= SUM:
                return None
            self.at += 1
            return _add(left, Node("pm" if token != r"\mp" else "mp", (self.expression(SUM),)))
        if token in _SET_SIGNS or (token in ("U", "union") and left.op in _SETLIKE):
            if power >= UNION:
                return None
            self.wrap()
            return Node(_SET_SIGNS.get(token, "union"), (left, self.expression(UNION)))
        if token == ":":
            if power >= QUANTITY:
                return None
            self.at += 1
            right = self.expression(QUANTITY)
            return Node("ratio", (*left.args, right) if left.op == "ratio" else (left, right))
        if token in _OVER:
            if power >= QUANTITY:
                return None
            self.wrap()
            right = self.expression(QUANTITY)
            return _divide(left, right) if token == r"\over" else Node("fn", (left, right), "binomial")
        if token in (r"\pmod", r"\bmod", r"\mod", "mod"):
            if power >= QUANTITY:
                return None
            self.wrap()
            return Node("fn", (left, self.expression(QUANTITY)), "mod")
        if token in _MONEY and left.op in ("num", "dec"):
            self.at += 1
            return Node("quantity", (left,), parse_unit(_MONEY[token]))
        if left.op == "quantity" and token[0].isdigit():
            return self.compound(left)
        if self.unit_ahead(left, token):
            return self.unit(left) if power < QUANTITY else None
        if self.starts_operand(left, token) and power < PRODUCT + 1:
            return _multiply(left, self.expression(PRODUCT + 1))
        return None

    def wrap(self) -> None:
        """Step over an operator that deepens the tree without recursion."""
        self.at += 1
        self.wraps += 1
        if self.wraps > MAX_WRAPS:
            raise TooLarge(f"found more than {MAX_WRAPS} operators behind their operands")

    def starts_operand(self, left: Node, token: str) -> bool:
        """Whether the token begins a factor: multiplication without a sign."""
        char = token[0]
        if char.isdigit() or char == ".":
            return left.op not in ("num", "dec")
        if char.isalpha():
            return token not in _KEYWORDS
        if token == "|":
            return not self.bars
        if token in _LEVEL_OF_OPENER:
            return token != "[" or left.op not in ("tuple", "interval", "set", "list")
        if char == "\\":
            return not (
                token in _SEPARATORS
                or _text_separator(token)
                or token in _CLOSERS
                or token in _OVER
                or token == r"\mid"
                or token.startswith(r"\end")
            )
        return False

    # Units.

    def unit_ahead(self, left: Node, token: str) -> bool:
        if token[0] == "\\":
            match = _TEXT.fullmatch(token)
            if match is None or match[1] in _NOT_WORDING or _text_separator(token):
                return False
            content = match[2].strip()
            if match[1] in ("mathrm", "operatorname", "rm", "mathbf") and (content in FUNCTIONS or len(content) < 2):
                return left.op in ("num", "dec") and content in VARIABLE_LIKE
            return bool(content)
        if token == "in" and left.op in ("num", "dec"):
            following = self.tokens[self.at + 1 : self.at + 2]
            return not following or following[0] in ("^", ",", ")", "/")
        if not token.isalpha() or token in FUNCTIONS or token in CONSTANTS or token in _KEYWORDS:
            return False
        if len(token) == 1:
            return False
        if is_unit_word(token):
            return True
        return len(token) > 3 and token not in _PLAIN_FUNCTIONS and token not in GREEK and not symbols(left)

    def unit(self, left: Node) -> Node:
        """A value with the unit behind it."""
        start = self.at
        open_brace = False
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            before = self.tokens[self.at - 1]
            if token == "{" or token == "}":
                if (token == "{") != (before == "^") and not (token == "}" and open_brace):
                    break
                open_brace = token == "{"
            elif token.isdigit():
                if before not in ("^", "{", "-"):
                    break
            elif token.isalpha():
                if token in ("or", "and") or (token == "in" and self.at > start):
                    break
            elif token not in _UNIT_SIGNS and not (
                token[0] == "\\" and token[-1] == "}" and not _text_separator(token)
            ):
                break
            self.at += 1
        text = " ".join(self.tokens[start : self.at])
        scale = _SCALE.match(text)
        if scale:
            left = _multiply(left, Node("num", (), _SCALES[scale[1].lower()]))
            text = text[scale.end() :]
            if not text.strip(" {}"):
                return left
        unit = parse_unit(text)
        if unit is None:
            raise Unreadable(f"cannot read {text!r} as a unit")
        if "percent" in text.lower():
            return Node("percent", (left,))
        return Node("quantity", (left,), unit)

    def compound(self, left: Node) -> Node:
        """3 hours 30 minutes as hours."""
        number = self.operand()
        right = self.unit(number) if self.unit_ahead(number, self.peek() or " ") else number
        if right.op != "quantity" or right.value.dimension != left.value.dimension:
            raise Unreadable("cannot read two quantities as one")
        return Node("quantity", (summed(left, right),), left.value)

    def degrees(self, left: Node) -> Node:
        """Degrees of an angle, or of temperature where C or F follows."""
        token = self.peek()
        match = _TEXT.fullmatch(token) if token[:1] == "\\" else None
        scale = match[2].strip() if match else token
        if scale in ("C", "F"):
            self.at += 1
            return Node("quantity", (left,), Unit((("celsius" if scale == "C" else "fahrenheit", 1),), Fraction(1)))
        return Node("deg", (left,))

    # Powers.

    def exponent(self, base: Node) -> Node:
        self.at -= 1
        self.wrap()
        token = self.peek()
        if token in _DEGREE:
            self.at += 1
            return self.degrees(base)
        if token in _PRIME or (token == "{" and self.tokens[self.at + 1 : self.at + 2] == [r"\prime"]):
            while self.peek() in _PRIME or self.peek() in ("{", "}"):
                self.at += 1
            return Node("sym", (), f"{base.value}'") if base.op == "sym" else Node("fn", (base,), "prime")
        if token == "{":
            if self.tokens[self.at + 1 : self.at + 3] in ([r"\circ", "}"], [r"\degree", "}"]):
                self.at += 3
                return self.degrees(base)
            exponent = self.group()
        else:
            exponent = self.expression(POWER)
        if base.op == "sym" and base.value in _APPLIED and exponent == MINUS_ONE and self.peek() == "(":
            return Node("fn", self.arguments(), f"{base.value}^-1()")
        return Node("pow", (base, exponent))

    # Operands.

    def operand(self) -> Node:
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
        if token in _MONEY:
            return self.money(_MONEY[token])
        if token in ("=", "<", ">", "<=", ">="):
            return Node("rel", (Node("sym", (), "?"), self.expression(RELATION)), (RELATIONS[token],))
        raise Unreadable(f"cannot read {token!r}")

    def money(self, currency: str) -> Node:
        """An amount behind its sign, with million or dollars behind it."""
        amount = self.expression(QUANTITY)
        if self.at < len(self.tokens) and self.unit_ahead(amount, self.peek()):
            amount = self.unit(amount)
        return amount if amount.op == "quantity" else Node("quantity", (amount,), parse_unit(currency))

    def numeral(self, token: str) -> Node:
        if token.isdigit():
            if len(token) > MAX_DIGITS:
                raise TooLarge(f"found a number of {len(token)} digits, read at most {MAX_DIGITS}")
            if self.peek() == "_":
                return self.based(token)
            node = Node("num", (), int(token))
            following = self.peek()
            if following in _FRACTIONS:
                return self.mixed(node)
            return node
        if "/" in token:
            whole, top, bottom = (int(part) for part in re.split(r"[\s/]+", token) if part)
            if 0 < top < bottom:
                return Node("num", (), whole + Fraction(top, bottom))
            raise Unreadable(f"cannot read {token!r} as a mixed number")
        return decimal(token)

    def mixed(self, whole: Node) -> Node:
        """A whole number before a fraction: a mixed number where the fraction is proper, else a product."""
        self.at += 1
        top, bottom = self.fraction_part(), self.fraction_part()
        fraction = _divide(top, bottom)
        if top.op == bottom.op == "num" and 0 < top.value < bottom.value:
            return Node("num", (), whole.value + Fraction(top.value, bottom.value))
        return _multiply(whole, fraction)

    def based(self, digits: str) -> Node:
        """Digits in a base, such as 1011_2."""
        self.at += 1
        name = self.subscript()
        return based_number(digits, name)

    def subscript(self) -> str:
        """The text of a subscript."""
        if not self.accept("{"):
            if self.at >= len(self.tokens):
                raise Unreadable("ends where a subscript is expected")
            self.at += 1
            return _plain(self.tokens[self.at - 1])
        parts, level = [], 1
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            level += (token == "{") - (token == "}")
            if not level:
                break
            parts.append(_plain(token))
        return "".join(parts)

    def word(self, word: str) -> Node:
        """A word of plain text: a function, a constant, or letters multiplied."""
        if word in FUNCTIONS and (len(word) > 1):
            return self.function(FUNCTIONS[word])
        if word in _PLAIN_FUNCTIONS and self.peek() in ("(", "{", "["):
            return self.plain_function(word)
        if word in CONSTANTS:
            value = CONSTANTS[word]
            if word == "I" and self.at > 1 and self.tokens[self.at - 2] == "*":
                value = "i"
            if value in ("pi", "oo", "e", "i") and self.peek() != "_":
                return Node("const", (), value)
        if len(word) == 1 or word in GREEK:
            return self.symbol(word)
        if word in ("sqrt", "cbrt"):
            return self.plain_function(word)
        for name in _GLUED:
            if word.startswith(name) and len(word) > len(name):  # "sinx", "pir"
                self.tokens[self.at : self.at] = [word[len(name) :]]
                return self.word(name)
        if word.isupper() and 3 < len(word) < 8:
            return self.symbol(word)  # an abbreviation, such as SRMC
        if len(word) > 3 or word.lower() in _ENGLISH:
            raise Unreadable(f"found the word {word!r}")
        self.tokens[self.at : self.at] = list(word[1:])
        return self.word(word[0])

    def symbol(self, name: str) -> Node:
        """A variable with its subscript and primes, or a named function applied to its argument."""
        if self.accept("_"):
            name = f"{name}_{self.subscript()}"
        while self.peek() in _PRIME:
            self.at += 1
            name += "'"
        if name in ("Gamma", "gamma") and self.peek() == "(":
            return Node("fn", self.arguments(), "gamma")
        if self.peek() == "(" and self.is_application(name):
            self.at += 1
            arguments = self.sequence()
            self.close(")")
            return Node("fn", arguments.args if arguments.op == "list" else (arguments,), f"{name}()")
        return Node("sym", (), name)

    def is_application(self, name: str) -> bool:
        """f(x) applies f; x(x + 1) multiplies, but x(0) applies."""
        if name.rstrip("'") in _APPLIED:
            return True
        inside = self.tokens[self.at + 1 : self.at + 3]
        return inside[1:] == [")"] and (inside[0] in ("0", "t", "n") or name[-1] == "'") and inside[0] != name

    def command(self, token: str) -> Node:
        reader = _COMMANDS.get(token)
        if reader is not None:
            return reader(self)
        if token in _FRACTIONS:
            fraction = _divide(self.fraction_part(), self.fraction_part())
            return _multiply(fraction, self.operand()) if self.peek()[:1].isdigit() else fraction
        if token in _BINOMIALS:
            return Node("fn", (self.fraction_part(), self.fraction_part()), "binomial")
        name = token[1:]
        if name in FUNCTIONS:
            return self.function(FUNCTIONS[name])
        if name in ("pi", "infty", "infin", "e", "i", "imath"):
            return Node("const", (), {"infty": "oo", "infin": "oo", "imath": "i"}.get(name, name))
        if name in _BINDERS:
            return self.binder(name)
        if name in ("angle", "triangle", "measuredangle", "overarc"):
            return self.figure(name)
        if name in GREEK:
            return self.symbol(name)
        if token in _EMPTY:
            return EMPTY_SET
        if token in _PAIRS:
            closer, function = _PAIRS[token]
            inside = self.sequence()
            self.close(closer)
            return Node("fn", (inside,), function)
        if token in _MONEY:
            return self.money(_MONEY[token])
        if token in RELATIONS:
            return Node("rel", (Node("sym", (), "?"), self.expression(RELATION)), (RELATIONS[token],))
        if token in _ACCENTS:
            start = self.at
            self.group()
            return Node("sym", (), token[1:] + " " + "".join(self.tokens[start : self.at]))
        match = _TEXT.fullmatch(token)
        if match is None:
            raise Unreadable(f"cannot read {token!r}")
        return self.wording(match[1], match[2])

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
            bounds = () if low is None or high is None else (low, high)
        else:
            if low is None or low.op != "rel" or low.args[0].op != "sym" or (name == "lim") != (low.value[0] == "->"):
                raise Unreadable(f"found \\{name} without its bounds")
            body, variable = self.expression(SUM), low.args[0].value
            bounds = (low.args[1],) if name == "lim" else (low.args[1], high) if high is not None else ()
            if not bounds:
                raise Unreadable(f"found \\{name} without its bounds")
        dummy = Node("dummy", (), str(sum(part.op == "dummy" for part in walk(body))))
        return Node("fn", (substitute(body, variable, dummy), dummy, *bounds), _BINDERS[name])

    def integrand(self) -> tuple[Node, str]:
        """What stands before the differential, and the variable of it."""
        for place in range(self.at, len(self.tokens)):
            match = _DIFFERENTIAL.fullmatch(self.tokens[place])
            variable = (match[1] or match[2]) if match else None
            size = 1
            if not variable and (match or self.tokens[place] == "d"):
                variable, size = (self.tokens[place + 1 : place + 2] or [""])[0], 2
            if variable and variable.isalpha() and len(variable) == 1:
                inner = _Parser(self.tokens[self.at : place] or ["1"])
                inner.depth = self.depth
                body = inner.sequence()
                if inner.at < len(inner.tokens):
                    raise Unreadable("cannot read the integrand")
                self.at = place + size
                return body, variable
        raise Unreadable("found an integral without its differential")

    def figure(self, name: str) -> Node:
        """The letters that name an angle or triangle, as one variable."""
        start = self.at
        while self.peek().isalpha() or self.peek() == "_":
            self.at += 1
            if self.tokens[self.at - 1] == "_":
                self.subscript()
        return Node("sym", (), f"{name} {''.join(self.tokens[start : self.at])}")

    def wording(self, command: str, content: str) -> Node:
        """A command with its text: a matrix or cases, a decorated variable, or mathematics in another typeface."""
        if command == "begin":
            return self.environment(content.strip().rstrip("*"))
        if command == "mathbb":
            return Node("const", (), content.strip())
        if command in ("vec", "hat", "tilde", "bar", "dot", "ddot"):
            return self.symbol(f"{command} {content.strip()}")
        inside = tokenize(content)
        if not inside or command == "end":
            raise Unreadable(f"cannot read \\{command}{{{content}}}")
        if (
            len(inside) == 1
            and inside[0].isalpha()
            and len(inside[0]) > 1
            and inside[0] not in _PLAIN_FUNCTIONS
            and inside[0] not in FUNCTIONS
        ):
            if command in ("mathrm", "operatorname", "mathit", "mathbf") and len(inside[0]) < 5:
                return self.symbol(inside[0])
            raise Unreadable(f"found the word {inside[0]!r}")
        self.tokens[self.at : self.at] = inside
        return self.expression(FUNCTION)

    def fraction_part(self) -> Node:
        """An argument of \\frac: a group, one digit, or one command."""
        if self.peek() == "{":
            return self.group()
        token = self.peek()
        if token[:1].isdigit() and len(token) > 1:
            if not token.isdigit():
                raise Unreadable(f"cannot read {token!r} in a fraction")
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        if token == "-":
            self.at += 1
            return negate(self.fraction_part())
        if token.isdigit():
            self.at += 1
            return Node("num", (), int(token[0]))
        if token.isalpha() and len(token) > 1 and token not in CONSTANTS:
            self.tokens[self.at : self.at + 1] = [token[0], token[1:]]
        return self.operand()

    def group(self) -> Node:
        """What stands between braces."""
        self.at += 1
        if self.accept("}"):
            raise Unreadable("found an empty pair of braces")
        inside = self.sequence()
        self.close("}")
        if inside.op == "list" and inside.value == ",":
            return Node("set", inside.args)
        return inside

    def bracket(self, opener: str) -> Node:
        """Round or square brackets: a group, a tuple, or an interval."""
        bars, self.bars = self.bars, 0
        if opener == "(" and self.accept(")"):
            return Node("tuple", (), "(")
        inside = self.sequence()
        self.bars = bars
        if opener == "]":  # ]a, b[
            closer = self.close("[", "]")
            opener, closer = "(", ")" if closer == "[" else "]"
        elif opener == "[" and self.peek() == "[":
            self.at += 1
            closer = ")"
        else:
            closer = self.close(")", "]") if opener == "(" else self.close("]", ")")
        if inside.op != "list" or inside.value == "or":
            if opener + closer in ("()", "[]"):
                return inside if inside.op != "list" else Node("list", inside.args, "or")
            raise Unreadable(f"found {opener!r} closed by {closer!r}")
        if len(inside.args) == 2 and opener + closer != "()":
            return Node("interval", inside.args, opener + closer)
        if opener + closer not in ("()", "[]"):
            raise Unreadable(f"found {opener!r} closed by {closer!r}")
        return Node("tuple", inside.args, opener)

    def absolute(self) -> Node:
        self.bars += 1
        inside = self.expression(LIST)
        self.bars -= 1
        self.close("|")
        return Node("fn", (inside,), "abs")

    def norm(self, closer: str) -> Node:
        """A norm or absolute value between command bars."""
        end = self.tokens.index(closer, self.at) if closer in self.tokens[self.at :] else -1
        if end < 0:
            raise Unreadable(f"found a bar without its {closer}")
        self.tokens[end] = "|"
        return self.absolute()

    def braces(self) -> Node:
        r"""A set in \{ \}; what follows a bar or colon is its condition."""
        if self.accept(r"\}") or self.accept(r"\rbrace"):
            return EMPTY_SET
        self.mark_condition()
        bars, self.bars = self.bars, 0
        inside = self.sequence()
        self.bars = bars
        if self.peek() == r"\mid":
            self.at += 1
            condition = self.sequence()
            self.close(r"\}", "}", r"\rbrace")
            return Node("builder", (inside, condition))
        self.close(r"\}", "}", r"\rbrace")
        return Node("set", inside.args if inside.op == "list" else (inside,))

    def mark_condition(self) -> None:
        """Write the bar or colon before a set's condition as \\mid, which nothing else uses."""
        level, bars = 0, []
        for place in range(self.at, len(self.tokens)):
            token = self.tokens[place]
            if not level and token in ("|", ":"):
                bars.append(place)
            level += token in _LEVEL_OF_OPENER
            level -= token in _CLOSERS
            if level < 0:
                break
        if len(bars) % 2:
            self.tokens[bars[0]] = r"\mid"

    def angle(self) -> Node:
        inside = self.sequence()
        self.close(r"\rangle", ">")
        return Node("tuple", inside.args if inside.op == "list" else (inside,), "(")

    def root(self) -> Node:
        degree = Node("num", (), 2)
        if self.accept("["):
            degree = self.sequence()
            self.close("]")
        return Node("root", (self.argument_of_root(), degree))

    def argument_of_root(self) -> Node:
        if self.peek() == "{":
            return self.group()
        if self.peek() == "(":
            self.at += 1
            inside = self.sequence()
            self.close(")")
            return inside
        if self.peek() == "-":
            raise Unreadable("found a root without its radicand")
        if self.peek().isalpha() and self.peek() not in CONSTANTS and len(self.peek()) > 1:
            self.tokens[self.at : self.at + 1] = list(self.peek())
        return self.operand()

    # Functions.

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
        if power is not None and power == MINUS_ONE and name in _INVERSES:
            node = Node("fn", arguments, _INVERSES[name])
            power = None
        elif name == "log" and base is not None:
            node = Node("fn", (*arguments, base), "log")
        else:
            node = Node("fn", arguments, name)
        return node if power is None else Node("pow", (node, power))

    def arguments(self) -> tuple[Node, ...]:
        token = self.peek()
        if token == "(" or token == "{" or token == "[":
            self.at += 1
            inside = self.sequence()
            self.close({"(": ")", "{": "}", "[": "]"}[token])
            return inside.args if inside.op == "list" else (inside,)
        return (self.expression(FUNCTION) if token == "-" else self.juxtaposed(),)

    def juxtaposed(self) -> Node:
        """The argument of a function without brackets: factors without signs, as in sin 2x."""
        left = self.expression(FUNCTION)
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            name = token.lstrip("\\")
            if name in FUNCTIONS or token in ("(", "[", "|") or token[-1:] == "}" or name in _PLAIN_FUNCTIONS:
                break
            if (
                token in _DEGREE
                or token in RELATIONS
                or token in _TIMES
                or token in _DIVIDE
                or token in (r"\%", r"\pm", r"\mp")
            ):
                break
            if token in _SET_SIGNS or not self.starts_operand(left, token) or self.unit_ahead(left, token):
                break
            left = _multiply(left, self.expression(FUNCTION))
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
            return _divide(*arguments)
        if name in ("Matrix", "matrix", "vector", "Tuple", "tuple", "array") and len(arguments) == 1:
            return arguments[0]
        return Node("fn", arguments, {"factorial": "factorial", "C": "binomial", "binom": "binomial"}.get(name, name))

    # Environments.

    def environment(self, name: str) -> Node:
        if name == "array" and self.peek() == "{":
            while self.at < len(self.tokens) and not self.accept("}"):
                self.at += 1
        rows = self.rows()
        if name in ("cases", "dcases", "rcases") and all(len(row) == 1 and row[0].op == "rel" for row in rows):
            return Node("list", tuple(row[0] for row in rows), ",")  # a system
        if name in ("cases", "dcases", "rcases"):
            return Node("cases", tuple(cell for row in rows for cell in row))
        if name in ("aligned", "align", "gathered", "split", "equation", "gather"):
            items = tuple(_joined(row) for row in rows)
            return items[0] if len(items) == 1 else Node("list", items, ",")
        width = max(len(row) for row in rows)
        if any(len(row) != width for row in rows):
            raise Unreadable("found a matrix with rows of different lengths")
        return Node("matrix", tuple(Node("row", tuple(row)) for row in rows), name)

    def rows(self) -> list[list[Node]]:
        rows: list[list[Node]] = [[]]
        while self.at < len(self.tokens):
            token = self.peek()
            if token.startswith(r"\end"):
                self.at += 1
                break
            self.at += token in ("&", "\\\\", ",")
            if token == "\\\\":
                rows.append([])
            elif token not in ("&", ","):
                rows[-1].append(self.cell())
        rows = [row for row in rows if row]
        if not rows:
            raise Unreadable("found an empty environment")
        return rows

    def cell(self) -> Node:
        """One cell; a condition in words becomes text."""
        token = self.peek()
        match = _TEXT.fullmatch(token) if token[:1] == "\\" else None
        if match and match[1].startswith(("text", "mbox")):
            self.at += 1
            content = match[2].strip().lower()
            if content in ("if", "for", "when", "where"):
                return self.cell()
            return Node("text", (), content)
        return self.expression(LIST)


_UNIT_SIGNS = frozenset(("/", "^", r"\circ", ".", r"\cdot", "-"))
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_SCALE = re.compile(
    r"(?:\\(?:text|mathrm|mbox)\s*\{)?\s*(hundred|thousand|million|billion|trillion)\b\s*\}?", re.IGNORECASE
)
_SETLIKE = frozenset(("tuple", "interval", "set", "union", "inter", "minus"))
_NOT_WORDING = frozenset("begin end mathbb mathcal mathfrak vec hat tilde bar dot ddot".split())
_PLAIN_FUNCTIONS = frozenset(
    "sqrt cbrt root pow Pow frac Rational Fraction binomial binom factorial Matrix matrix vector Tuple tuple array C".split()
)
_GLUED = ("arcsin", "arccos", "arctan", "sqrt", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "log", "ln", "pi")
_INVERSES = {"sin": "asin", "cos": "acos", "tan": "atan", "cot": "acot", "sec": "asec", "csc": "acsc", "sinh": "asinh",
             "cosh": "acosh", "tanh": "atanh"}  # fmt: skip
_COMMANDS: dict[str, Callable[[_Parser], Node]] = {
    r"\sqrt": _Parser.root,
    r"\{": _Parser.braces,
    r"\lbrace": _Parser.braces,
    r"\langle": _Parser.angle,
    r"\lbrack": lambda parser: parser.bracket("["),
    r"\pm": lambda parser: Node("pm", (parser.expression(UNARY),)),
    r"\mp": lambda parser: Node("mp", (parser.expression(UNARY),)),
    r"\|": lambda parser: parser.norm(r"\|"),
    r"\vert": lambda parser: parser.norm(r"\vert"),
    r"\lVert": lambda parser: parser.norm(r"\rVert"),
}


def summed(left: Node, right: Node) -> Node:
    """The sum of two quantities that measure the same, in units of the first."""
    ratio = Node("num", (), right.value.factor / left.value.factor)
    return _add(left.args[0], _multiply(right.args[0], ratio))


def _text_separator(token: str) -> str:
    match = _TEXT.fullmatch(token)
    return _TEXT_SEPARATORS.get(match[2].strip(" ~").lower(), "") if match and match[1] not in _NOT_WORDING else ""


def _plain(token: str) -> str:
    match = _TEXT.fullmatch(token) if token[:1] == "\\" else None
    return match[2].strip() if match else token


def _joined(row: list[Node]) -> Node:
    """Cells of an aligned row as one relation: `x &= 1` is x = 1."""
    if len(row) == 2 and row[1].op == "rel" and row[1].args[0] == Node("sym", (), "?"):
        return Node("rel", (row[0], *row[1].args[1:]), row[1].value)
    return row[0] if len(row) == 1 else Node("list", tuple(row), ",")


def _add(left: Node, right: Node) -> Node:
    return Node("add", (*left.args, right) if left.op == "add" else (left, right))


_NO_FACTORS = frozenset(("interval", "set", "list", "union", "inter", "minus", "rel", "cases", "quantity", "ratio"))


def _multiply(left: Node, right: Node) -> Node:
    if left.op in _NO_FACTORS or right.op in _NO_FACTORS:
        raise Unreadable(f"multiplies a {left.op} by a {right.op}")
    if left.op == "dec" and right.op == "pow" and right.args[0] == Node("num", (), 10) and right.args[1].op == "num":
        shift = right.args[1].value
        if isinstance(shift, int) and abs(shift) + abs(left.value[1]) <= MAX_SHIFT:
            mantissa, places, digits = left.value
            return Node("dec", (), (mantissa, places - shift, digits))
    return Node("mul", (*left.args, right) if left.op == "mul" else (left, right))


def _divide(top: Node, bottom: Node) -> Node:
    if top.op == bottom.op == "num" and bottom.value:
        return Node("num", (), Fraction(top.value) / bottom.value)
    return Node("mul", (*top.args, inverse(bottom)) if top.op == "mul" else (top, inverse(bottom)))


def decimal(token: str) -> Node:
    """A decimal as written: 0.50 shows two places and two digits."""
    mantissa, _, exponent = token.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = whole + fraction
    if len(digits) > MAX_DIGITS or len(exponent) > 6 or abs(int(exponent or 0)) > MAX_SHIFT:
        raise TooLarge(f"found a decimal of {len(token)} characters")
    value = int(digits)
    return Node("dec", (), (value, len(fraction) - int(exponent or 0), len(digits.lstrip("0"))))


_BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
               "twelve": 12, "sixteen": 16}  # fmt: skip


def based_number(digits: str, base: str) -> Node:
    """A number written in a base. Raises Unreadable where the digits do not belong to it."""
    base = base.strip("() ")
    size = int(base) if base.isdigit() and len(base) < 3 else _BASE_WORDS.get(base.lower(), 0)
    if not 2 <= size <= 36 or len(digits) > MAX_DIGITS:
        raise Unreadable(f"cannot read {base!r} as a base")
    try:
        int(digits, size)
    except ValueError:
        raise Unreadable(f"{digits} is no number in base {size}") from None
    return Node("base", (), (digits.upper(), size))
