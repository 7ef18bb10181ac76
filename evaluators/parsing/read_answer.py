"""Read one answer: from a span of text to what is compared."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

from evaluators.parsing.dates import calendar_date
from evaluators.parsing.formulas import chemical_formula, without_typeface
from evaluators.parsing.grammar import based_number, decimal
from evaluators.parsing.logic import read_logic
from evaluators.parsing.normalize import MAX_ANSWER, ascii_signs, join_thousands, number_word, strip_wrappers, words
from evaluators.parsing.parser import parse
from evaluators.parsing.rewrite_rules import LAYOUT, NOTATION, respelled
from evaluators.parsing.tokens import CONSTANTS, FUNCTIONS, GREEK
from evaluators.parsing.tree import EMPTY_SET, Node, TooLarge, Unreadable, check_depth, negate
from evaluators.parsing.units import is_unit_word, parse_unit


class Answer(NamedTuple):
    """source: as found; key: cleaned text; tree: what was read, None where nothing was; error: why not."""

    source: str
    key: str
    tree: Node | None
    error: str
    grouped: bool = False


_INTEGER = re.compile(r"[+-]?\d{1,300}")
_FRACTION = re.compile(r"(-?)\\[dt]?frac\{(\d{1,40})\}\{(\d{1,40})\}")
_DECIMAL = re.compile(r"-?(?:\d{1,100}\.\d{1,100}|\.\d{1,100})")
_WORDED = r"\\(?:text|textbf|textit|textrm|mathrm|mathbf|mbox|boldsymbol|rm|bf|textsf|mathsf)"
_UNWRAP = re.compile(rf"^{_WORDED}\s*\{{([^{{}}]*)\}}$")
_CHOICE = re.compile(r"^(?:(?:[Oo]ption|[Cc]hoice|[Aa]nswer) )?\(?([A-Z])(?:\)|[.:](?=\s|$)|$)\s*(.*)$", re.DOTALL)
_LOWER_CHOICE = re.compile(r"^([a-j])\)\s*([^)]*)$")  # a) 180 degrees; (a) may be a variable in brackets
_CHOICE_IN_TEXT = re.compile(rf"^{_WORDED}\s*\{{\s*\(?([A-Z])[).:]?\s*\}}[.:)]?\s*(.*)$", re.DOTALL)
_NEXT_CHOICE = re.compile(r"\([A-J]\)|(?:^|[\s,;])[B-J][.:)](?:\s|$)")
_CHOICES = re.compile(r"(?:[ ,;]|and\b|or\b|\\text ?\{ ?(?:and|or) ?\}|\(?[A-J]\b[).]?)+")
_ANSWER_IS = re.compile(r"^(?:so |thus |therefore,? )?(?:the )?(?:final |correct )?answer is:? (?=\S)", re.IGNORECASE)
_SPACED = re.compile(r"(?:\\q?quad\s*)+")
_SYSTEM = re.compile(
    r"\\left\s*\\\{\s*\\begin\s*\{(?:array|aligned|matrix|gathered)\}\s*(?:\{[lcr| ]*\})?(.*?)"
    r"\\end\s*\{\w+\}\s*\\right\s*\.?$",
    re.DOTALL,
)
_CLOCK = re.compile(r"^(\d{1,2}):([0-5]\d)\s*(?:([ap])\.?\s*m\.?)?$", re.IGNORECASE)
_HOUR = re.compile(r"^(\d{1,2})\s*([ap])\.?\s*m\.?$", re.IGNORECASE)
_BASED = re.compile(r"^\(?\s{0,9}([0-9A-Za-z]+)\s{0,9}\)?\s{0,9}_\s{0,9}\{?\s{0,9}(?:\\text\s*\{)?\s*(\w+)\s*\}*$")
_IN_BASE = re.compile(r"^([0-9A-Z]+)\s{0,9}\(?\s{0,9}(?:in )?base[- ]?(\w+)\s*\)?$", re.IGNORECASE)
_MEASURED = re.compile(
    r"^(-?[\d.,/]+) ([a-zA-Z]{1,3}(?:\^?\{?-?\d\}?)?(?:\s*[/* ]\s*[a-zA-Z]{1,3}(?:\^?\{?-?\d\}?)?)*)$"
)
_OUTWARD = re.compile(r"([\[\]])([^\[\]]+,[^\[\]]+)([\[\]])")  # ]a, b[
_REPEATING = re.compile(r"(?<!\d)(\d*)\.(\d*)\\(?:overline|bar|dot)\s*(?:\{(\d{1,40})\}|(\d))")
_DOTS = re.compile(r"(?<=\d)\s*(?:\\l?dots|\\cdots|\.{3,})$")
_CONDITION = re.compile(
    r"(?:[,;(] ?|\\quad|\\qquad|\\;|\\text ?\{| (?=where|for|with|\\text|\\forall|\\quad|\(|[a-z] ?\\in))"
    r"(?:where |for |with |and |all |any |some |every |each |"
    r"\\text ?\{[^{}]*\}|\\forall|\\quad|\\,|[ {}(]){0,12}"
    r"[a-z](?: ?, ?[a-z])? ?(?:\\in ?\\?(?:mathbb|mathbf|Bbb|mathrm)? ?\{? ?[ZN]\}?(?: ?\^ ?\{?[+*]\}?|"
    r"_\+|_\{?\\?(?:ge|geq)? ?0\}?)?"
    r"|\\text ?\{[^{}]*\binteger[^{}]*\})[ .)}]*$"
    r"|(?:[,; (]|\\text ?\{|\\quad)(?:where|for|with) [^{}]{0,60}\binteger[^{}=<>]{0,40}\}?\)?\.?$"
)
_LABEL = re.compile(
    r"^(?:\\(?:text|mathrm|textbf|mbox)\s*\{\s*[A-Za-z][^{}=]{2,40}\}(?: ?\([A-Za-z]{1,3}\))?\s*[=:]|"
    r"\\text\s*\{\s*[A-Za-z][A-Za-z ]{2,40}(?:[=:]| is| are| has| have| equals)\s*\}|"
    r"\\text\s*\{\s*(?:vertex|point|cent(?:er|re)|focus|foci|midpoint|domain|range)(?: at)?\s*\}|"
    r"[Tt]here (?:is|are) (?:exactly |only )?(?=\d)|"
    r"(?!wrong|incorrect|false|not )[A-Z]?[a-z]{3,}(?: [a-z]+){0,4} ?[=:])\s*(?=\S)"
)
_EVENT = re.compile(
    r"(?:\\(?:mathbb|mathrm|mathbf|mathsf|operatorname|text)\s*\{\s*(?:P|Pr|E|Var|Cov)\s*\}|\\Pr|Pr|P|E|Var)"
    r"\s*(?:\\left\s*)?[(\[]"
)
_NAMED_VALUE = re.compile(r"\s*=\s*(?=\S)")
_UNWRAPPED_DIGITS = re.compile(r"\\(?:text|mathrm)\s*\{([0-9A-Za-z]+)\}(?=[^}]*_)")
_ORDINAL = re.compile(
    r"(?<=\d)(?:\^ ?\{? ?(?:\\(?:text|mathrm|textrm) ?\{)?|\\text ?\{ ?)?(?:st|nd|rd|th)\b(?: ?\}){0,2}"
)
_CURRENCY = re.compile(r"(USD|EUR|GBP|INR|Rs|CNY|RMB|JPY)\.? ?(?=\d)")
_ALL_BUT = re.compile(
    r"(?:\\text ?\{ ?)?all (?:reals?|real (?:numbers?|values?))(?: of \$?[a-z]\$?| [a-z])? (?:except|"
    r"excluding|but|other than)(?: for)? ?\}? ?(?=\S)(.*)$",
    re.IGNORECASE,
)
_CLAIM = re.compile(
    r"\b(no (?:real |integer )?solutions?(?: exists?)?$)|\b(does not exist$|diverges$)|\bstatement is (true|false)$"
)
_ENUMERATION = re.compile(r",(?: and\b)?|;|\band\b|&")
_TRUTH_WORDS = frozenset(("yes", "no", "true", "false"))
_CLAUSE = re.compile(r"[,.;:!?/]|\b(?:but|however|or|actually|wait|and|rather|then|maybe|also)\b")
FORMULA = "formula "  # before a chemical formula, which is compared as text
_YES_FIRST = re.compile(r"^(yes|no|true|false)(?:\s*[,.;:]|\s+-)", re.IGNORECASE)
_APPROXIMATELY = re.compile(r"^(?:\\approx|\\simeq|\\sim|~|≈|about|approximately|roughly)\s*", re.IGNORECASE)

_NO_SOLUTION = frozenset(
    """no solution|no solutions|no real solution|no real solutions|none|empty set|the empty set|no such number|emptyset
    |no such numbers|no integer solutions|no integer solution|no values|no value|no root|no roots|no real roots|null set
    |no such integers|no such integer|does not have a solution|no answer|there is no solution|no real root|varnothing
    |there are no solutions|inconsistent|no possible values|solution does not exist|no real values""".replace(
        "\n    ", ""
    ).split("|")
)
_UNDEFINED = frozenset(
    (
        "undefined",
        "does not exist",
        "dne",
        "not defined",
        "doesn t exist",
        "diverges",
        "divergent",
        "limit does not exist",
    )
)
_NUMBERS = re.compile(
    r"(?:all |the |all the |set of |set of all )?(positive |negative |non[- ]?(?:negative|positive|zero) )?"
    r"(real|integer|rational|natural|complex)s?(?: (?:numbers?|values?|x|n))?"
)
_SIGNED = {"positive": "(0, \\infty)", "negative": "(-\\infty, 0)", "nonnegative": "[0, \\infty)",
           "nonpositive": "(-\\infty, 0]",
           "nonzero": "(-\\infty, 0) \\cup (0, \\infty)"}  # fmt: skip
_POSITIVE_REALS = re.compile(r"\\mathbb ?\{?R\}? ?(?:\^ ?\{? ?\+ ?\}?|_ ?\{? ?(?:\+|> ?0) ?\}?)$")
_INFINITE = frozenset(("infinity", "infinite", "infinitely many", "infinitely many solutions"))
_YES = {"true": "true", "yes": "yes", "false": "false", "no": "no", "converges": "convergent"}
_NAMES = frozenset(FUNCTIONS) | frozenset(CONSTANTS) | GREEK
MAX_REMEMBERED = 200  # characters of an answer that is kept as read
MAX_LEVELS = 150  # of a tree: what walks it by recursion stays far from the end of the stack
_MATHEMATICAL = re.compile(r"[\\^_=<>{}\d|\[\]]")


def read_answer(source: str) -> Answer:
    """What an answer says. Never raises: an answer that cannot be read has no tree, and an error that says why."""
    if _INTEGER.fullmatch(source):
        return Answer(source, source, Node("num", (), int(source)), "")
    if _DECIMAL.fullmatch(source):
        return Answer(source, source, _signed_decimal(source), "")
    return _remembered(source) if len(source) <= MAX_REMEMBERED else _read_source(source)


@lru_cache(maxsize=8192)
def _remembered(source: str) -> Answer:
    """A short answer, read once: the samples of one problem repeat each other's answers."""
    fraction = _FRACTION.fullmatch(source)
    if fraction and int(fraction[3]):
        value = Fraction(int(fraction[1] + fraction[2]), int(fraction[3]))
        return Answer(source, source, Node("num", (), value), "")
    return _read_source(source)


def forget_answers() -> None:
    """Forget the answers kept as read, for a benchmark of first readings."""
    _remembered.cache_clear()


def _read_source(source: str) -> Answer:
    if len(source) > MAX_ANSWER:
        return Answer(source, source, None, f"is {len(source)} characters long; answers are read up to {MAX_ANSWER}")
    text = ascii_signs(source)
    if "\\" in text or "{" in text:
        text = respelled(text, LAYOUT)
    text = without_braces(strip_wrappers(text).removeprefix("####").strip())
    if not text:
        return Answer(source, "", None, "is empty")
    try:
        tree = _read(text)
        if len(text) > MAX_LEVELS:
            check_depth(tree, MAX_LEVELS)
        return Answer(source, text, tree, "", "," in text)
    except TooLarge as error:
        return Answer(source, text, None, str(error))
    except Unreadable as error:
        return Answer(source, text, _as_text(text), str(error))


def without_braces(text: str) -> str:
    """{5} as 5; {1, 2} stays, for it is a set."""
    while text[:1] == "{" and text[-1:] == "}" and "," not in text and text.find("}") > text.rfind("{", 1):
        text = text[1:-1].strip()
        if "{" in text:
            break
    return text if text[:2] != "{\\" or text[-2:] != "}}" or text.count("{") != 2 else text[1:-1].strip()


def closing(text: str, start: int) -> int:
    """The place behind the bracket that closes the one at `start`; the end of the text where none does."""
    level = 0
    for place in range(start, len(text)):
        level += (text[place] in "([") - (text[place] in ")]")
        if not level:
            return place + 1
    return len(text)


def _signed_decimal(text: str) -> Node:
    return negate(decimal(text[1:])) if text[0] == "-" else decimal(text)


def _read(text: str, labelled: bool = False) -> Node:
    bare = text
    match = _UNWRAP.match(text)
    if match:
        bare = strip_wrappers(match[1])
        if not bare:
            raise Unreadable("is empty")
        bare = _ANSWER_IS.sub("", bare)
    special = _special(text, bare)
    if special is not None:
        return special
    text = text if match is None else bare
    if "$" in text:
        text = _without_dollars(text)
    if "quad" in text and text.count("=") > 1:
        text = _SPACED.sub(" , ", text)
    if r"\right" in text and r"\begin" in text:
        text = _SYSTEM.sub(r"\\begin{cases}\1\\end{cases}", text)
    if "mathbb" in text:
        text = _POSITIVE_REALS.sub(r"(0, \\infty)", text)
    if not text[0].isdigit() and (formula := read_logic(text)) is not None:
        return formula
    if "~" in text:
        text = text.replace("~", " ")
    text = _ORDINAL.sub("", respelled(text, NOTATION))
    currency = _CURRENCY.match(text)
    if currency:
        return Node("quantity", (_read(text[currency.end() :]),), parse_unit(currency[1]))
    excepted = _ALL_BUT.match(text)
    if excepted:
        removed = _read(excepted[1], labelled=True)
        removed = removed if removed.op in ("set", "list") else Node("set", (removed,))
        return Node("minus", (Node("const", (), "R"), Node("set", removed.args)))
    if text[-1] != "=" and "=" in text and (event := _EVENT.match(text)):
        end = closing(text, event.end() - 1)
        named = _NAMED_VALUE.match(text, end)
        if named:
            return _read(text[named.end() :], labelled=True)
    if "\\Pr" in text:
        text = text.replace("\\Pr", "P")  # \Pr = \frac{5}{12}
    label = _LABEL.match(text) if not labelled and (text[0].isalpha() or text[0] == "\\") else None
    if label and "=" not in text[label.end() :]:
        return _read(text[label.end() :], labelled=True)
    if text[0] == "]" or text[-1] == "[":
        text = _OUTWARD.sub(_inward, text.replace(r"\left", "").replace(r"\right", ""))
    measured = _measured(text)
    if measured is not None:
        return measured
    text = join_thousands(text)
    if "\\in" in text or "integer" in text:
        text = _without_condition(text)
    if "." in text and "\\" in text:
        text = _REPEATING.sub(_repeating, text)
    if text.endswith(("dots", "...")) and "." in text[:-3]:
        text = _DOTS.sub("", text)
    return parse(_APPROXIMATELY.sub("", text))


def _special(text: str, bare: str) -> Node | None:
    """Answers whose form is not mathematical: choices, times, base-n numbers, agreed phrases."""
    match = _CHOICE_IN_TEXT.match(text) or _CHOICE.match(bare)
    if match:
        rest = strip_wrappers(match[2])
        if not rest:
            return Node("choice", (), match[1])
        if bare[0] == "(" or bare[1:2] in ".:)" or text.startswith("\\"):
            if match.string.startswith("\\") and match.string[match.start(2) - 1] not in ")}.: ":
                return None
            if _CHOICES.fullmatch(rest):
                return None
            if _NEXT_CHOICE.search(rest):
                raise Unreadable("lists several choices")
            inner = read_answer(rest)
            if inner.tree is not None and not rest.startswith(("_", "^", "=", "+", "-", "*", "/", "(", "\\c", ",")):
                return Node("choice", (inner.tree,), match[1])
    lower = _LOWER_CHOICE.match(bare)
    if lower:
        labelled = read_answer(lower[2]).tree if lower[2] else None
        return Node("choice", () if labelled is None else (labelled,), lower[1].upper())
    yes = _YES_FIRST.match(bare) if bare[0] in "yYnNtTfF" else None
    if yes:
        _check_single_truth(yes[1].lower(), bare[yes.end() :])
        return Node("text", (), yes[1].lower())
    if " " in bare or bare.count("-") == 2:
        date = calendar_date(bare)
        if date is not None:
            return Node("text", (), date)
    if ":" in bare or bare[-1:] in "mM.":
        clock = _clock(bare)
        if clock is not None:
            return clock
    if text[-1] not in "=" and not text[0].isdigit() and (formula := _formula(text)) is not None:
        return formula
    if "_" in text:
        match = _BASED.match(_UNWRAPPED_DIGITS.sub(r"\1", text))
        if match and (match[1][0].isdigit() or (match[1].isalpha() and match[2] == "16")):
            return based_number(match[1], match[2])
    if "base" in bare:
        match = _IN_BASE.match(re.sub(r"\\text ?\{([^{}]*)\}", r"\1", bare))
        if match:
            return based_number(match[1].upper(), match[2])
    if not _MATHEMATICAL.search(bare) or text.startswith("\\text"):
        return _phrase(bare)
    return None


def _check_single_truth(first: str, rest: str) -> None:
    """Refuse `yes, No` and `True; however False`: a second truth value takes the first one back."""
    others = {part.strip(" }") for part in _CLAUSE.split(rest.lower())} & _TRUTH_WORDS
    if others - {first}:
        raise Unreadable(f"says {first} and {min(others - {first})}")


def _formula(text: str) -> Node | None:
    """A chemical formula, with its letters multiplied as what it may be compared with where they are no elements."""
    formula = chemical_formula(text)
    if formula is None:
        return None
    try:
        return Node("text", (parse(without_typeface(text)),), FORMULA + formula)
    except Unreadable:
        return Node("text", (), FORMULA + formula)


def _clock(text: str) -> Node | None:
    text = re.sub(r"\\(?:text|mathrm|mbox)\s*\{([^{}]*)\}|[~]|\\[,;: ]", lambda match: match[1] or " ", text).strip()
    match = _CLOCK.match(text)
    if match and int(match[1]) <= 24:
        half = (match[3] or "").lower()
        return Node("clock", (), (str(int(match[1]) * 60 + int(match[2])), half))
    match = _HOUR.match(text)
    if match and int(match[1]) <= 12:
        return Node("clock", (), (str(int(match[1]) * 60), match[2].lower()))
    return None


def _phrase(text: str) -> Node | None:
    if text[0] == "-":
        return None  # -infinity, which `words` would take the sign from
    key = words(text)
    signed = key.removeprefix("negative ").removeprefix("minus ")
    if signed != key and " " not in key.removesuffix(signed).strip():
        size = _phrase(signed) if signed else None
        return negate(size) if size is not None and size.op in ("num", "const") else None
    if key in _NO_SOLUTION:
        return EMPTY_SET
    if len(key) < 60:
        claim = _CLAIM.search(key)
        if claim:
            return EMPTY_SET if claim[1] else Node("text", (), claim[3] or "undefined")
    if key in _UNDEFINED:
        return Node("text", (), "undefined")
    numbers = _NUMBERS.fullmatch(key) if "al" in key or "int" in key or "num" in key else None
    if numbers:
        return _all_numbers((numbers[1] or "").replace("non ", "non").replace("-", ""), numbers[2])
    if key in _YES:
        return Node("text", (), _YES[key])
    if key in _INFINITE:
        return Node("const", (), "oo")
    value = number_word(key)
    if value is None and " " in key:
        count, _, unit = key.rpartition(" ")
        value = number_word(count) if unit == "percent" or is_unit_word(unit) else None
        if value is not None:
            return Node("percent", (Node("num", (), value),)) if unit == "percent" else _measure(value, unit)
    cased = text.islower() or text.istitle()
    if value is None and text.isalpha() and cased and 2 < len(text) < 5 and text not in _NAMES:
        return Node("text", (parse(text),), key)  # a short word, or letters multiplied
    return None if value is None else Node("num", (), value)


def _measure(value: int | Fraction, unit: str) -> Node | None:
    """ "fifty dollars" as a quantity."""
    measured = parse_unit(unit)
    return None if measured is None else Node("quantity", (Node("num", (), value),), measured)


def _all_numbers(sign: str, kind: str) -> Node | None:
    """ "all positive real numbers" as their interval, "all integers" as Z."""
    letter = {"integer": "Z", "natural": "N"}.get(kind, kind[0].upper())
    if not sign:
        return Node("const", (), letter)
    if kind == "real":
        return parse(_SIGNED[sign.strip()])
    return Node("const", (), "N") if letter == "Z" and sign == "positive " else None


def _as_text(text: str) -> Node | None:
    """Words as a text answer; None where the text is mathematics gone wrong."""
    match = _UNWRAP.match(text)
    bare = match[1] if match else text
    key = words(bare)
    letters = sum(char.isalpha() for char in key)
    if letters < 2 or letters < 0.6 * len(key.replace(" ", "")):
        return None
    if match is None and re.search(
        r"\\(?!text|mathrm|mbox|mathbf|,|;| )|[=^{}]", re.sub(rf"{_WORDED}\s*\{{[^{{}}]*\}}", " ", bare)
    ):
        return None
    parts = [words(part) for part in _ENUMERATION.split(bare)]
    return Node("text", (), " ".join(sorted(parts)) if len(parts) > 1 else key)


def _without_condition(text: str) -> str:
    """The text without a closing "where k is an integer"."""
    start = max(0, len(text) - 120)
    found = _CONDITION.search(re.sub(r"\s+", " ", text[start:]))
    return text if found is None else (text[:start] + re.sub(r"\s+", " ", text[start:])[: found.start()]) or text


def _measured(text: str) -> Node | None:
    """`5 m` and `9.8 m/s^2` in plain text, with a space: `5m` is a variable's multiple."""
    match = _MEASURED.match(text)
    unit = parse_unit(match[2]) if match and (len(match[2]) > 1 or match[2] in "mgshLNJWVK") else None
    if match is None or unit is None or any(base.startswith("a ") for base, _ in unit.dimension):
        return None
    return Node("quantity", (_read(match[1]),), unit)


def _inward(match: re.Match[str]) -> str:
    return ("(" if match[1] == "]" else "[") + match[2] + (")" if match[3] == "[" else "]")


def _without_dollars(text: str) -> str:
    if text.count("$") - text.count("\\$") == 1 and re.match(r"-?\$\s*[\d.]", text):
        return text
    return re.sub(r"(?<!\\)\$", " ", text)


def _repeating(match: re.Match[str]) -> str:
    """A repeating decimal as a fraction."""
    whole, start, block = match[1] or "0", match[2], match[3] or match[4]
    top = int(whole + start + block) - int(whole + start)
    bottom = (10 ** len(block) - 1) * 10 ** len(start)
    return rf"\frac{{{top}}}{{{bottom}}}"
