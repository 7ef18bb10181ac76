"""Operands of the grammar: numbers with their units, words, letters, braces."""

from __future__ import annotations

import re
from fractions import Fraction

from evaluators.parsing.grammar import (
    APPLIED,
    ENGLISH,
    FRACTIONS,
    FUNCTION,
    GLUED,
    KEYWORDS,
    MAX_DIGITS,
    NOT_WORDING,
    PERCENT,
    PLAIN_FUNCTIONS,
    PRIME,
    QUANTITY,
    SCALE,
    TEXT,
    UNIT_SIGNS,
    based_number,
    decimal,
    divide,
    multiply,
    plain,
    summed,
    text_separator,
)
from evaluators.parsing.operators import PROGRAM_FORMS
from evaluators.parsing.token_stream import Cursor
from evaluators.parsing.tokens import CONSTANTS, FUNCTIONS, GREEK, tokenize
from evaluators.parsing.tree import Node, TooLarge, Unreadable, negate, symbols
from evaluators.parsing.unit_table import MULTIPLIERS, VARIABLE_LIKE
from evaluators.parsing.units import Unit, is_unit_word, parse_unit, plain_text


class Operands(Cursor):
    """Reads numbers, words, letters, units and groups."""

    __slots__ = ()

    def money(self, currency: str) -> Node:
        """An amount behind its sign, with million or dollars behind it."""
        amount = self.expression(QUANTITY)
        if self.at < len(self.tokens) and self.unit_ahead(amount, self.peek()):
            amount = self.unit(amount)
        return amount if amount.op == "quantity" else Node("quantity", (amount,), parse_unit(currency))

    def numeral(self, token: str) -> Node:
        """A number as written; a mixed number or one in a base where that follows."""
        if token.isdigit():
            if len(token) > MAX_DIGITS:
                raise TooLarge(f"found a number of {len(token)} digits, read at most {MAX_DIGITS}")
            if self.peek() == "_":
                return self.based(token)
            node = Node("num", (), int(token))
            following = self.peek()
            if following in FRACTIONS:
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
        fraction = divide(top, bottom)
        if top.op == bottom.op == "num" and 0 < top.value < bottom.value:
            return Node("num", (), whole.value + Fraction(top.value, bottom.value))
        return multiply(whole, fraction)

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
            return plain(self.tokens[self.at - 1])
        parts, level = [], 1
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            self.at += 1
            level += (token == "{") - (token == "}")
            if not level:
                break
            parts.append(plain(token))
        return "".join(parts)

    def word(self, word: str) -> Node:
        """A word of plain text: a function, a constant, or letters multiplied."""
        if not word.isascii():
            raise Unreadable(f"found the word {word!r}")  # 3页 is no product
        if word in FUNCTIONS and (len(word) > 1):
            return self.function(FUNCTIONS[word])
        if word in PROGRAM_FORMS and self.peek() == "(":
            return self.program_form(word)
        if word in PLAIN_FUNCTIONS and self.peek() in ("(", "{", "["):
            return self.plain_function(word)
        if word in CONSTANTS:
            value = CONSTANTS[word]
            if word == "I" and "*" in (self.peek(), self.tokens[self.at - 2] if self.at > 1 else ""):
                value = "i"
            if value in ("pi", "oo", "e", "i") and self.peek() != "_":
                return Node("const", (), value)
        if len(word) == 1 or word in GREEK:
            return self.symbol(word)
        if word in ("sqrt", "cbrt"):
            return self.plain_function(word)
        for name in GLUED:
            if word.startswith(name) and len(word) > len(name):  # "sinx", "pir"
                self.tokens[self.at : self.at] = [word[len(name) :]]
                return self.word(name)
        if word.isupper() and 3 < len(word) < 8:
            return self.symbol(word)  # an abbreviation, such as SRMC
        if len(word) > 3 or word.lower() in ENGLISH:
            raise Unreadable(f"found the word {word!r}")
        self.tokens[self.at : self.at] = list(word[1:])
        return self.word(word[0])

    def symbol(self, name: str) -> Node:
        """A variable with its subscript and primes, or a named function applied to its argument."""
        if self.accept("_"):
            name = f"{name}_{self.subscript()}"
        while self.peek() in PRIME:
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
        if name.rstrip("'") in APPLIED:
            return True
        inside = self.tokens[self.at + 1 : self.at + 3]
        if self.at == 1 + ("_" in name) * 2 and self.defines():
            return True
        return inside[1:] == [")"] and (inside[0] in ("0", "t", "n") or name[-1] == "'") and inside[0] != name

    def defines(self) -> bool:
        """Whether letters in brackets and an equals sign follow, as in I(x, t) = ..."""
        end = self.at + 1
        while end < len(self.tokens) and (
            (len(self.tokens[end]) == 1 and self.tokens[end].isalpha()) or self.tokens[end] == ","
        ):
            end += 1
        return end > self.at + 1 and self.tokens[end : end + 2] == [")", "="]

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
            letters = content.strip()
            if command == "bar" and letters[:1] in ("z", "w"):
                return Node("fn", (Node("sym", (), letters),), "conjugate")
            return self.symbol(f"{command} {letters}")
        inside = tokenize(content)
        if not inside or command == "end":
            raise Unreadable(f"cannot read \\{command}{{{content}}}")
        if (
            len(inside) == 1
            and inside[0].isalpha()
            and len(inside[0]) > 1
            and inside[0] not in PLAIN_FUNCTIONS
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

    def unit_ahead(self, left: Node, token: str) -> bool:
        """Whether what stands at the cursor measures the value before it."""
        if token[0] == "\\":
            match = TEXT.fullmatch(token)
            if match is None or match[1] in NOT_WORDING or text_separator(token):
                return False
            content = match[2].strip()
            if match[1] in ("mathrm", "operatorname", "rm", "mathbf") and (content in FUNCTIONS or len(content) < 2):
                return left.op in ("num", "dec") and content in VARIABLE_LIKE
            return bool(content)
        if token == "in" and left.op in ("num", "dec"):
            following = self.tokens[self.at + 1 : self.at + 2]
            return not following or following[0] in ("^", ",", ")", "/")
        if not token.isalpha() or token in FUNCTIONS or token in CONSTANTS or token in KEYWORDS:
            return False
        if len(token) == 1:
            return False
        if is_unit_word(token):
            return True
        return len(token) > 3 and token not in PLAIN_FUNCTIONS and token not in GREEK and not symbols(left)

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
            elif token not in UNIT_SIGNS and not (token[0] == "\\" and token[-1] == "}" and not text_separator(token)):
                break
            self.at += 1
        text = " ".join(self.tokens[start : self.at])
        scale = SCALE.match(text)
        while scale:
            name = scale[1].lower()
            size = MULTIPLIERS.get(name) or MULTIPLIERS[name.removesuffix("s")]
            left = divide(multiply(left, Node("num", (), size.numerator)), Node("num", (), size.denominator))
            text = text[scale.end() :]
            if not text.strip(" {}"):
                return left
            scale = SCALE.match(text)
        unit = parse_unit(text)
        if unit is None:
            raise Unreadable(f"cannot read {text!r} as a unit")
        if "percent" in text.lower():
            if not PERCENT.fullmatch(plain_text(text)):
                raise Unreadable(f"cannot read {text!r} as a unit")  # 5 percent less
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
        match = TEXT.fullmatch(token) if token[:1] == "\\" else None
        scale = match[2].strip() if match else token
        if scale in ("C", "F"):
            self.at += 1
            return Node("quantity", (left,), Unit((("celsius" if scale == "C" else "fahrenheit", 1),), Fraction(1)))
        return Node("deg", (left,))
