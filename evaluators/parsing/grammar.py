"""The signs of the grammar, and the nodes that its operators build."""

from __future__ import annotations

import re
from fractions import Fraction

from evaluators.parsing.tree import Node, TooLarge, Unreadable, inverse
from evaluators.parsing.unit_table import MULTIPLIERS

MAX_DIGITS = 1000  # of one number
MAX_SHIFT = 2000  # powers of ten in scientific notation
LIST, RELATION, QUANTITY, UNION, SUM, PRODUCT, UNARY, FUNCTION, POWER = range(0, 90, 10)
FRACTIONS = frozenset((r"\frac", r"\dfrac", r"\tfrac", r"\cfrac", r"\sfrac", r"\nicefrac", r"\rfrac"))
BINOMIALS = frozenset((r"\binom", r"\dbinom", r"\tbinom"))
TIMES = frozenset(("*", r"\cdot", r"\times", r"\ast", r"\star", r"\bullet"))
DIVIDE = frozenset(("/", r"\div"))
OVER = frozenset((r"\over", r"\choose", r"\atop"))
SET_SIGNS = {r"\cup": "union", r"\bigcup": "union", r"\cap": "inter", r"\setminus": "minus", r"\backslash": "minus"}
PRIME = frozenset(("'", r"\prime"))
ACCENTS = frozenset(
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
EMPTY = frozenset((r"\emptyset", r"\varnothing"))
SEPARATORS = {",": ",", ";": ",", "or": "or", "and": "and", r"\lor": "or", r"\vee": "or", r"\land": "and",
               r"\wedge": "and", "&": ",", "\\\\": ","}  # fmt: skip
TEXT_SEPARATORS = {"or": "or", "and": "and", ",": ",", "": ",", ", and": "and", ", or": "or", ";": ",", "&": "and"}
CLOSERS = frozenset(
    (")", "]", "}", r"\}", r"\rangle", r"\rfloor", r"\rceil", r"\rvert", r"\rVert", r"\rbrace", r"\rbrack")
)
PAIRS = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceil"), r"\lvert": (r"\rvert", "abs")}
MONEY = {
    r"\$": "dollar",
    "$": "dollar",
    "€": "euro",
    r"\euro": "euro",
    "£": "£",
    r"\pounds": "£",
    "₹": "rupee",
    "¥": "yen",
}
OPENERS = frozenset(("(", "[", "{", r"\{", r"\langle", r"\lfloor", r"\lceil", r"\lvert", r"\lbrace", r"\lbrack"))
TEXT = re.compile(r"\\([a-zA-Z]+)\*?\s*\{([^{}]*)\}", re.DOTALL)
APPLIED = frozenset("fghFGHPQTpqu")  # letters read as functions before a bracket
DEGREE = (r"\circ", r"\degree")
KEYWORDS = frozenset(("or", "and", "in", "U", "union", "to", "mod", "choose"))
BINDERS = {"sum": "sum", "prod": "product", "int": "integral", "lim": "limit"}
DIFFERENTIAL = re.compile(r"d([a-zA-Z])|\\(?:mathrm|text|operatorname)\s*\{\s*d\s*([a-zA-Z]?)\s*\}")
ENGLISH = frozenset(
    [
        "is",
        "the",
        "we",
        "of",
        "it",
        "so",
        "do",
        "not",
        "if",
        "for",
        "are",
        "was",
        "yes",
        "has",
        "can",
        "all",
        "how",
        "why",
        "you",
        "she",
        "his",
        "her",
        "but",
        "its",
    ]
)
UNIT_SIGNS = frozenset(("/", "^", r"\circ", ".", r"\cdot", "-"))
# What multiplies the number before it: `5\text{ dozen eggs}`, `2\text{ thirds}`, `3\text{ million}`
SCALE = re.compile(
    r"(?:\\(?:text|mathrm|mbox|textrm|rm)\s*\{)?\s*((?:"
    + "|".join(MULTIPLIERS)
    + r")s?)\b(?: of(?: an?| the)?\b)?\s*\}?",
    re.IGNORECASE,
)
PERCENT = re.compile(r"percent(?:s|age|age points?)?", re.IGNORECASE)
SETLIKE = frozenset(("tuple", "interval", "set", "union", "inter", "minus"))
NOT_WORDING = frozenset(["begin", "end", "mathbb", "mathcal", "mathfrak", "vec", "hat", "tilde", "bar", "dot", "ddot"])
PLAIN_FUNCTIONS = frozenset(
    [
        "sqrt",
        "cbrt",
        "root",
        "pow",
        "Pow",
        "frac",
        "Rational",
        "Fraction",
        "binomial",
        "binom",
        "factorial",
        "Matrix",
        "matrix",
        "vector",
        "Tuple",
        "tuple",
        "array",
        "C",
    ]
)
GLUED = ("arcsin", "arccos", "arctan", "sqrt", "sinh", "cosh", "tanh", "sin", "cos", "tan", "cot", "log", "ln", "pi")
INVERSES = {"sin": "asin", "cos": "acos", "tan": "atan", "cot": "acot", "sec": "asec", "csc": "acsc", "sinh": "asinh",
             "cosh": "acosh", "tanh": "atanh"}  # fmt: skip
NO_FACTORS = frozenset(("interval", "set", "list", "union", "inter", "minus", "rel", "cases", "quantity", "ratio"))
BASE_WORDS = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10,
               "twelve": 12, "sixteen": 16}  # fmt: skip


def summed(left: Node, right: Node) -> Node:
    """The sum of two quantities that measure the same, in units of the first."""
    ratio = Node("num", (), right.value.factor / left.value.factor)
    return add(left.args[0], multiply(right.args[0], ratio))


def text_separator(token: str) -> str:
    """The separator that a \\text{} holds, such as "or"; "" for other text."""
    match = TEXT.fullmatch(token)
    return TEXT_SEPARATORS.get(match[2].strip(" ~").lower(), "") if match and match[1] not in NOT_WORDING else ""


def plain(token: str) -> str:
    """A token without its wording command."""
    match = TEXT.fullmatch(token) if token[:1] == "\\" else None
    return match[2].strip() if match else token


def joined(row: list[Node]) -> Node:
    """Cells of an aligned row as one relation: `x &= 1` is x = 1."""
    if len(row) == 2 and row[1].op == "rel" and row[1].args[0] == Node("sym", (), "?"):
        return Node("rel", (row[0], *row[1].args[1:]), row[1].value)
    return row[0] if len(row) == 1 else Node("list", tuple(row), ",")


def alternatives(items: list[Node], signs: list[str]) -> Node | None:
    """`x = 1, y = 2 or x = 2, y = 1` as alternatives of systems; None where it is a plain list."""
    systems: list[list[Node]] = [[items[0]]]
    for sign, item in zip(signs, items[1:]):
        if sign == "or":
            systems.append([])
        systems[-1].append(item)
    size = len(systems[0])
    if size < 2 or any(len(system) != size for system in systems) or any(item.op != "rel" for item in items):
        return None
    return Node("list", tuple(Node("list", tuple(system), ",") for system in systems), "or")


def is_segment(node: Node) -> bool:
    """Whether a tree is two capital letters, as AB."""
    return (
        node.op == "mul"
        and len(node.args) == 2
        and all(part.op == "sym" and part.value.isupper() for part in node.args)
    )


def add(left: Node, right: Node) -> Node:
    """The sum of two trees."""
    return Node("add", (*left.args, right) if left.op == "add" else (left, right))


def multiply(left: Node, right: Node) -> Node:
    """The product of two trees; a decimal times a power of ten stays a decimal."""
    if left.op in NO_FACTORS or right.op in NO_FACTORS:
        raise Unreadable(f"multiplies a {left.op} by a {right.op}")
    if left.op == "dec" and right.op == "pow" and right.args[0] == Node("num", (), 10) and right.args[1].op == "num":
        shift = right.args[1].value
        if isinstance(shift, int) and abs(shift) + abs(left.value[1]) <= MAX_SHIFT:
            mantissa, places, digits = left.value
            return Node("dec", (), (mantissa, places - shift, digits))
    return Node("mul", (*left.args, right) if left.op == "mul" else (left, right))


def divide(top: Node, bottom: Node) -> Node:
    """The quotient of two trees, a fraction where both are integers."""
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


def based_number(digits: str, base: str) -> Node:
    """A number written in a base. Raises Unreadable where the digits do not belong to it."""
    base = base.strip("() ")
    size = int(base) if base.isdigit() and len(base) < 3 else BASE_WORDS.get(base.lower(), 0)
    if not 2 <= size <= 36 or len(digits) > MAX_DIGITS:
        raise Unreadable(f"cannot read {base!r} as a base")
    try:
        int(digits, size)
    except ValueError:
        raise Unreadable(f"{digits} is no number in base {size}") from None
    return Node("base", (), (digits.upper(), size))
