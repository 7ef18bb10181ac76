"""Check written arithmetic: a small exact parser over fractions. Nothing is ever evaluated as code.

Grammar (after stripping `$` and thousands separators):
    sum     = product (("+" | "-") product)*
    product = unary (("*" | "x" | "×" | "·" | "/" | "÷" | "//") unary)*     "//" divides and rounds down
    unary   = ("+" | "-") unary | power
    power   = atom "%"* ("^" unary)?        "**" is read as "^"
    atom    = number | "(" sum ")"
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import floor
from typing import Literal

#: Longest expression read. GSM8K's longest annotation has 75 characters.
MAX_CHARACTERS = 300
#: Bounds that keep a hostile power such as 9^9^9 from filling the memory.
MAX_EXPONENT = 64
MAX_BITS = 4096

Status = Literal["exact", "rounded", "wrong", "unreadable"]

_TOKEN = re.compile(r"\s*(?:(\d+\.\d*|\.\d+|\d+)|(\*\*|//|[-+*/^()%x×·÷−–]))")
#: `a op b = c` in integers: what most equations are, judged without a fraction.
_PLAIN = re.compile(r"\$?(\d{1,15}) ?([-+*/x×÷]) ?\$?(\d{1,15}) ?= ?\$?(\d{1,15})")
_THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")
_SAME_SIGN = {"**": "^", "x": "*", "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-"}
_ANNOTATION = re.compile(r"<<([^<>\n]{1,300})>>")
_NUMBER = r"\$?(?:\d{1,3}(?:,\d{3})+|\d+)?(?:\.\d+|(?<=\d))"
# A plain equation stands alone: left of it is a word, punctuation or a line's start (never an operator, a
# variable, a bracket, or the "and" of "1 and 1/4"), and what is right of it does not go on, be it with an
# operator, a unit that changes its size ("50 cents", "25%") or a thousands group after a blank. Chains and blanks are
# bounded, so that a text is read in time proportional to its length.
_EQUATION = re.compile(
    rf"(?:^|(?<=[a-z]{{2}} )|(?<=[:;,.] )|(?<=[=(] )|(?<=\$))(?<!and )"
    rf"({_NUMBER}(?:\s{{0,9}}[-+*/×÷x]\s{{0,9}}{_NUMBER}){{1,60}})\s{{0,9}}=\s{{0,9}}({_NUMBER})"
    r"(?![\d%^/(\\a-zA-Z]|[.,]\d|\s*[-+*/×÷^=x–]|\s\d{3}\b|\s(?:cents?|percent|thousand|million|hundred)\b)",
    re.MULTILINE,
)
_EQUATES = re.compile(r"=\s*\$?\.?\d")  # begins with one certain character, which is found fast
_STARTS = re.compile(r"(?<!\d)[$.\d]")
_OF_A_CHAIN = "0123456789 \t\n\r\f\v,.$+-*/×÷x"
_AMBIGUOUS = re.compile(r"/.*/|\b0\d")  # "2/ 1/5" may divide by a fifth; "0130" is a time of day


class UnreadableArithmetic(ValueError):
    """The text is no arithmetic that this parser reads."""


@dataclass(frozen=True, slots=True)
class Calculation:
    """One written calculation.

    start, end: characters of the text it stands at.
    expression, claimed: both sides as written.
    value: the expression's exact value; None where it cannot be read or divides by zero.
    claimed_value: the written result as a number; None where it cannot be read.
    operator: the operator applied last, "+", "-", "*", "/" or "^"; None where there is none.
    status: "exact"; "rounded" (within one unit of the last written place); "wrong"; "unreadable".
    """

    start: int
    end: int
    expression: str
    claimed: str
    value: Fraction | None
    claimed_value: Fraction | None
    operator: str | None
    status: Status

    @property
    def correct(self) -> bool | None:
        """True where exact or rounded, False where wrong, None where nobody can know."""
        return None if self.status == "unreadable" else self.status != "wrong"


def evaluate(expression: str) -> Fraction:
    """The exact value of an arithmetic expression. Raises UnreadableArithmetic on anything else."""
    return _Parser(expression).read()[0]


def calculator_annotations(text: str) -> list[Calculation]:
    """Calculator annotations as GSM8K writes them, `<<48/2=24>>`, each checked."""
    return [_check(found.start(), found.end(), found.group(1)) for found in _ANNOTATION.finditer(text)]


def equations(text: str) -> list[Calculation]:
    """Plain equations between numbers, `48 / 2 = 24`, each checked; equations with unknowns are passed over."""
    return [_check(found.start(1), found.end(2), found.group(0)) for found in _plain_equations(text)]


def _plain_equations(text: str) -> Iterator[re.Match[str]]:
    """The matches of _EQUATION in order: tried where a chain before an equality sign begins, and nowhere else."""
    position = 0
    for number, sign, end in _equated_numbers(text):
        if number < position:
            continue  # within the last match
        chain = len(text[position:number].rstrip(_OF_A_CHAIN)) + position
        starts = (_EQUATION.match(text, one.start()) for one in _STARTS.finditer(text, chain, end))
        found = next((found for found in starts if found is not None), None)
        if found is not None and not _AMBIGUOUS.search(found.group(1)):
            yield found
        # What stands right of a sign may be left of the next: the search goes on behind the sign, or behind the match.
        position = found.end() if found is not None else sign


def _equated_numbers(text: str) -> Iterator[tuple[int, int, int]]:
    """Equality signs between digits: where the digit before, the sign, and what follows the digit after stand."""
    for found in _EQUATES.finditer(text):
        sign = found.start()
        before = sign - 1
        while before > 0 and text[before].isspace():
            before -= 1
        if before >= 0 and text[before].isdecimal():
            yield before, sign, found.end()


#: Status, operator and claimed value of a calculation: what a step tells of it.
Check = tuple[Status, str | None, float | None]


def quick_checks(text: str) -> list[Check]:
    """Status, operator and claimed value of a step's calculations: annotations where it has them, else equations.

    The same as of `calculator_annotations` and `equations`, without their spans and fractions, and from memory where
    the same calculation was met before.
    """
    if "<<" in text:
        return [_quick_check(body) for body in _ANNOTATION.findall(text)]
    if "=" not in text:
        return []
    return [_quick_check(found.group(0)) for found in _plain_equations(text)]


@lru_cache(maxsize=50_000)
def _quick_check(body: str) -> Check:
    plain = _PLAIN.fullmatch(body)
    if plain is None:
        found = _check(0, 0, body)
        return found.status, found.operator, None if found.claimed_value is None else float(found.claimed_value)
    left, sign, right, claimed = int(plain[1]), _SAME_SIGN.get(plain[2], plain[2]), int(plain[3]), int(plain[4])
    if sign == "/":
        if right == 0:
            return "unreadable", None, None
        value, claimed_value = left, claimed * right  # both sides times the divisor
    else:
        value = left + right if sign == "+" else left - right if sign == "-" else left * right
        claimed_value = claimed
    distance = abs(value - claimed_value)
    if distance * 10**9 <= abs(value):
        return "exact", sign, float(claimed)
    return "rounded" if sign == "/" and distance < right else "wrong", sign, float(claimed)


def _check(start: int, end: int, body: str) -> Calculation:
    expression, _, claimed = body.rpartition("=")
    expression = expression.partition("=")[0]  # `a=b=c`: the first side against the last
    value = claimed_value = operator = None
    status: Status = "unreadable"
    try:
        value, operator = _Parser(expression).read()
        claimed_value = evaluate(claimed)
        status = _compare(value, claimed_value, claimed)
    except UnreadableArithmetic:
        pass  # `unreadable` is the answer: a unit, a variable, a division by zero
    return Calculation(start, end, expression.strip(), claimed.strip(), value, claimed_value, operator, status)


def _compare(value: Fraction, claimed_value: Fraction, claimed: str) -> Status:
    if value == claimed_value:
        return "exact"
    distance = abs(value - claimed_value)
    if distance <= abs(value) * Fraction(1, 10**9):  # calculators write 0.30000000000000004
        return "exact"
    places = len(claimed.strip().rstrip("%").partition(".")[2])
    unit = Fraction(1, 10**places)
    if claimed.strip().endswith("%"):
        unit /= 100
    return "rounded" if distance < unit else "wrong"


class _Parser:
    """Recursive descent over tokens; depth is bounded by MAX_CHARACTERS."""

    def __init__(self, text: str) -> None:
        text = _THOUSANDS.sub("", text.replace("$", "").replace("\\", "")).strip()
        if not text or len(text) > MAX_CHARACTERS:
            raise UnreadableArithmetic(f"expected an expression of 1 to {MAX_CHARACTERS} characters, found {len(text)}")
        self.tokens: list[str] = []
        self.operator: str | None = None
        position = 0
        while position < len(text):
            found = _TOKEN.match(text, position)
            if found is None:
                raise UnreadableArithmetic(f"unexpected {text[position : position + 10]!r}")
            sign = found.group(2)
            self.tokens.append(_SAME_SIGN.get(sign, sign) if sign else found.group(1))
            position = found.end()
        self.position = 0

    def read(self) -> tuple[Fraction, str | None]:
        value = self.sum()
        if self.position < len(self.tokens):
            raise UnreadableArithmetic(f"unexpected {self.tokens[self.position]!r}")
        return value, self.operator

    def peek(self) -> str:
        return self.tokens[self.position] if self.position < len(self.tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self.position += 1
        return token

    def sum(self) -> Fraction:
        value = self.product()
        while self.peek() in ("+", "-"):
            sign = self.take()
            term = self.product()
            value = value + term if sign == "+" else value - term
            self.operator = sign
        return value

    def product(self) -> Fraction:
        value = self.unary()
        while self.peek() in ("*", "/", "//"):
            sign = self.take()
            factor = self.unary()
            if sign != "*" and factor == 0:
                raise UnreadableArithmetic("division by zero")
            value = _bounded(value * factor if sign == "*" else value / factor)
            value = Fraction(floor(value)) if sign == "//" else value
            self.operator = sign[0]
        return value

    def unary(self) -> Fraction:
        if self.peek() in ("+", "-"):
            return self.unary() if self.take() == "+" else -self.unary()
        return self.power()

    def power(self) -> Fraction:
        base = self.atom()
        while self.peek() == "%":
            self.take()
            base /= 100
        if self.peek() != "^":
            return base
        self.take()
        exponent = self.unary()
        if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or (base == 0 and exponent < 0):
            raise UnreadableArithmetic(f"exponent {exponent} is not an integer of at most {MAX_EXPONENT}")
        self.operator = "^"
        return _bounded(base ** int(exponent))

    def atom(self) -> Fraction:
        token = self.take()
        if token == "(":
            value = self.sum()
            if self.take() != ")":
                raise UnreadableArithmetic("a bracket is not closed")
            return value
        if not token or not (token[0].isdigit() or token[0] == "."):
            raise UnreadableArithmetic(f"expected a number, found {token!r}")
        # Read from text a fraction takes four times as long.
        return Fraction(int(token)) if token.isdecimal() else Fraction(token.rstrip("."))


def _bounded(value: Fraction) -> Fraction:
    if value.numerator.bit_length() + value.denominator.bit_length() > MAX_BITS:
        raise UnreadableArithmetic(f"a value needs more than {MAX_BITS} bits")
    return value
