"""Answers without a mark: the whole response, the last bold text or formula, the last number."""

from __future__ import annotations

import re

from evaluators.extraction.candidates import Extracted
from evaluators.extraction.doubt import HEDGE, is_denied, is_guess
from evaluators.extraction.formulas import FORMULA, PROSE, content_of, first_of_run, formulas_from, prose_words
from evaluators.extraction.languages import FOREIGN_LETTER, FOREIGN_PROSE, without_counter
from evaluators.extraction.statements import CALCULATION, VERB
from evaluators.parsing.normalize import NUMBER_WORDS, number_word
from evaluators.parsing.unit_table import MULTIPLIERS
from evaluators.parsing.units import is_unit_word

BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*|__([^_\n]{1,300})__")
_BOLD_AT_END = re.compile(r"\*\*([A-Za-z][A-Za-z ]{0,30})\.?\*\*\.?\s{0,9}$")
_BOLD_MARK = re.compile(r"(?<=\s)\*\*(?=\S)|(?<=[^\w)\]}\s])\*\*")  # and no power, as in 2*x**2
_NUMBER = re.compile(
    r"(?<![A-Za-z0-9_.])[-−]?[$€£]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:/\d+)?(?:[eE][-+]?\d+)?(?: ?\\?%)?(?!\d)"
)
PLAIN = re.compile(
    r"[(\[] ?[-−]?[\d.]+(?:/\d+)?(?: ?, ?[-−]?[\d./]+)+ ?[)\]]|(?<![\w.:])\d{1,2}:[0-5]\d(?: ?[ap]\.?m\.?)?(?![\w:])|"
    + _NUMBER.pattern,
    re.IGNORECASE,
)
_ENDS = frozenset(" \n\t,;:=")  # of a formula in plain signs: sqrt(5) - 1, n(n+1)/2
_OPERATORS = frozenset("+-−*/×·÷^")
_RIGHT = re.compile(r"[^\s,;:=?!]*(?: [-+−*/×·÷^] ?[^\s,;:=?!]{1,30})*")
_LETTERS = re.compile(r"[A-Za-z√∛π²³]")
_COMPARED = re.compile(r"\b[a-zA-Z] ?(?:[<>]=?|[≤≥≠]|!=) ?\Z")  # x ≤ 3
_RUN = re.compile(  # 2√3, π/6, 6.02 × 10²³: a number that is a part of a formula is no answer
    r"[-−(]?[\d√∛π(][\d.,√∛π()⁰¹²³⁴⁵⁶⁷⁸⁹⁻/^*]*(?: ?[×·÷*/^] ?[-−(]?[\d√∛π(][\d.,√∛π()⁰¹²³⁴⁵⁶⁷⁸⁹⁻/^*]*)*"
)
_FORMULA_SIGN = re.compile(r"[√∛π×·÷⁰¹²³⁴⁵⁶⁷⁸⁹⁻^]")
_UNIT_BEHIND = re.compile(
    r" ((?:square |cubic )?(?!in\b)([A-Za-z]{2,12})(?: per [a-z]{2,9}|/[a-z]{1,4}(?![a-z]))?)(?=[\s.,;!]|$)"
)
_COUNTS = frozenset(MULTIPLIERS) | {"calorie"}  # 5 dozen eggs, where the question asks for dozens
_NUMBER_WORD = "|".join(NUMBER_WORDS)
_PART = "hal(?:f|ves)|thirds?|quarters?|fourths?|fifths?|sixths?|eighths?|tenths?"
_NUMBERS_IN_WORDS = re.compile(
    rf"\b(?:(?:negative|minus) )?(?:{_NUMBER_WORD})\b"
    rf"(?:[ -](?:and (?:a )?)?(?:{_NUMBER_WORD}|hundred|thousand|million|{_PART})\b)*",
    re.IGNORECASE,
)
_SPELLED_OUT = re.compile(r"\b(?:is|are|equals|has|have|was|were|therefore) ([A-Za-z]+(?:[ -][A-Za-z]+){0,4})\.?\s*$")
_SAYS = re.compile(
    r"(?:The|It|So|Thus|Hence|Therefore)\b[^.\n]{0,60} (?:is|was|will be|must be) (?!not\b)((?:an? |the )?[A-Za-z]+)\.?"
)
_ROUNDED = re.compile(r"\b(?:about|approximately|roughly|around)\s+\$?-?[\d.,]+", re.IGNORECASE)
_EXPRESSION = re.compile(r"(?:\b(?:is|equals)|=)\s+([^\s,;$]{1,60}(?: ?[-+*/] ?[^\s,;$]{1,60}){0,6}?)\.?\s*$")
_SIGN = re.compile(r"[√∛π^²³]|sqrt|pi|\d[a-z(]|[a-z)]\d")  # more than a number
_PENDING = re.compile(r"\d [-+−*×÷] \d")  # the probability is 1 - 5/12
_WORKED_OUT = re.compile(r"\d[\d.,]{0,20}%?\)? ?[-+−*/×÷x] ?[$€£]?[\d.,]{1,20}%?\)? ?= ?")
_REASON = re.compile(r",? (?:since|because) [^.\n]{1,200}\.?\s*\Z")  # 96, since each row holds 12
_LISTED = re.compile(r"\bare (-?\d[\d.]{0,20}(?:, -?\d[\d.]{0,20}){0,20},? and -?\d+(?:\.\d+)?)\.?\s*\Z")
_NAMES = frozenset(("sqrt", "pi", "sin", "cos", "tan", "log", "ln", "exp"))
_FOR_ALL = re.compile(r"\b(?:for|where) (?:all|any|every|each|some)(?: \w{1,12})? $")
_SENTENCE = re.compile(
    r"\b(?:is|are|was|were|has|have|the|it|we|he|she|they|there|so|thus|hence|therefore|get|gets|at|of|that|this|would|will|be|"
    r"equals|takes|costs|maybe|perhaps)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"\b(?:or|not|either|neither|maybe|perhaps|at least|at most|more|less|fewer|about)\b|n['’]t\b|\?", re.I
)
_CONCLUSION = re.compile(
    r"(?:(?:so|thus|therefore|hence|then),? )?(?:(?:the|a) [a-z ]{2,40} (?:is|are|equals) )?"
    r"([^.\n]{0,40}(?:[<>=≤≥{]|\\le|\\ge)[^\n]{0,100}?)\.?",
    re.IGNORECASE,
)
_QUALIFIED = re.compile(
    r"\b(?:not|at least|at most|less than|more than|greater than|fewer than|between .{1,10} and) $", re.IGNORECASE
)
_LETTER = re.compile(r"\(?([A-J])[).]?")
_COUNTED = re.compile(rf"{FOREIGN_LETTER.pattern}{{1,8}}")
_OR_BEFORE = re.compile(rf"({_NUMBER.pattern})\s{{0,3}},?\s{{1,3}}or\s{{1,3}}(?:maybe |possibly |perhaps |even )?$")
_OR_BEHIND = re.compile(rf"^\s{{0,3}},?\s{{1,3}}or\s{{1,3}}(?:maybe |possibly |perhaps |even )?({_NUMBER.pattern})")
TAIL = 8_000  # characters at the end in which an answer is looked for


def spelled_out(text: str) -> Extracted | None:
    """The number in words that ends a response without digits."""
    if any(char.isdigit() for char in text):
        return None
    said = _SPELLED_OUT.search(text)
    if said and number_word(said[1].lower()) is not None:
        return Extracted(said[1], "words")
    ending = text.rstrip()[-300:]
    last = ending[max(ending.rfind(mark, 0, len(ending) - 1) for mark in ".!?\n") + 1 :]
    named = _NUMBERS_IN_WORDS.findall(last)
    if len(named) != 1 or named[0].lower() == "one" or _OPEN.search(last) or len(last.split()) < 3:
        return None
    return Extracted(named[0], "words")


def whole(text: str) -> Extracted | None:
    """The response itself, where it is an answer and no prose."""
    stripped = text.strip()
    if len(stripped) > 2000 or "\n\n" in stripped:
        return None
    formula = FORMULA.search(stripped)
    if formula:
        if formula.start():
            return None
        answer = formulas_from(stripped, formula)
        rest = PROSE.search(FORMULA.sub(" ", stripped))
        return None if rest and answer == content_of(formula) else Extracted(answer, "whole")
    if _BOLD_MARK.search(stripped, 2, max(2, len(stripped) - 2)):
        return None
    digits = any(char.isdigit() for char in stripped)
    if digits and _SENTENCE.search(stripped):
        return None
    says = None if digits else _SAYS.fullmatch(stripped)
    if says:
        return Extracted(says[1], "sentence")
    if digits and not stripped.isascii() and FOREIGN_PROSE.search(stripped):
        return None
    prose = len(prose_words(stripped))
    if "\n" in stripped and prose <= 1 and stripped.count("\n") < 20 and "\\begin" not in stripped:
        return Extracted(", ".join(stripped.splitlines()), "whole")
    short = prose <= 3 and (len(stripped) <= 60 or prose <= 1)
    return Extracted(stripped, "whole") if short or (prose <= 6 and not digits and "\\" not in stripped) else None


def last_emphasis(text: str) -> Extracted | None:
    """The last bold text or formula that could be an answer, whichever comes later."""
    bold = [match for match in BOLD.finditer(text) if re.search(r"\d|\\|^[A-Z]$", match[1] or match[2])]
    closing = _BOLD_AT_END.search(text)
    if closing and not bold:
        return Extracted(closing[1], "bold")
    formulas = [
        found
        for found in FORMULA.finditer(text)
        if not _FOR_ALL.search(text, max(0, found.start() - 24), found.start())
    ]
    if formulas and (not bold or formulas[-1].end() > bold[-1].end()):
        last = formulas[-1]
        if _NUMBER.search(_ROUNDED.sub("", text[last.end() :])):
            return None
        candidates = candidates_around(text, last.start(), last.end(), FORMULA)
        if not candidates and is_denied(text, last.start(), last.end()):
            return None
        return Extracted(candidates or formulas_from(text, first_of_run(formulas[-20:], text)), "formula")
    if not bold:
        return None
    inside = (bold[-1][1] or bold[-1][2]).strip()
    formula = FORMULA.search(inside)
    if formula:
        return Extracted(content_of(formula), "bold")
    said = inside.split(":")[-1].strip()
    verb = VERB.search(said) if len(PROSE.findall(said)) > 2 else None
    return Extracted(said[verb.end() :].strip() if verb else said, "bold")


def closing_letter(text: str) -> Extracted | None:
    """The letter of a choice that stands alone on the last line, behind prose."""
    before, _, line = text.rstrip().rpartition("\n")
    match = _LETTER.fullmatch(line.strip())
    before = before.rstrip()
    prose = match is not None and any(char.isalnum() for char in before[before.rfind("\n") + 1 :])
    return Extracted(match[1], "letter") if match and prose else None


def second_reading(text: str) -> Extracted | None:
    """What a short sentence answers, where it was taken for an answer itself and cannot be read as one."""
    return last_number(text[-TAIL:]) if len(PROSE.findall(text)) > 1 else None


def last_number(text: str) -> Extracted | None:
    """The last number; where its sentence offers several with "or", all of them."""
    concluded = _CONCLUSION.fullmatch(text.strip()) if len(text) < 200 else None
    if concluded and len(prose_words(concluded[1])) < 2 and not FOREIGN_PROSE.search(concluded[1]):
        return Extracted(concluded[1], "sentence")
    concluded = _EXPRESSION.search(text)
    hedged = concluded and HEDGE.search(text[: concluded.start()].rpartition(". ")[2])  # 17 or y = 2x + 3
    if (
        concluded
        and not hedged
        and (_SIGN.search(concluded[1]) or _PENDING.search(concluded[1]))
        and all(word in _NAMES for word in PROSE.findall(concluded[1]))
    ):
        return Extracted(concluded[1], "sentence")
    if "<<" in text:
        text = CALCULATION.sub("", text)
    reason = _REASON.search(text, max(0, len(text) - 300))
    if reason and PLAIN.search(text, text.rfind(". ", 0, reason.start()) + 1, reason.start()):
        text = text[: reason.start()]
    listed = _LISTED.search(text, max(0, len(text) - 200))
    if listed:
        return Extracted(listed[1], "sentence")
    found = list(PLAIN.finditer(text))
    if not found:
        return None
    last = found[-1]
    candidates = "" if _is_result(text, last.start()) else candidates_around(text, last.start(), last.end(), _NUMBER)
    if not candidates and (is_denied(text, last.start(), last.end()) or is_guess(text, last.start())):
        return None
    qualified = _QUALIFIED.search(text, max(0, last.start() - 20), last.start()) if len(text) < 60 else None
    counted = _COUNTED.match(text, last.end()) if not text.isascii() else None
    value = without_counter(last[0] + counted[0]) if counted else last[0]  # 5厘米 as 5 cm
    value = value if FOREIGN_PROSE.search(value) is None else last[0]
    compared = _COMPARED.search(text, max(0, last.start() - 8), last.start())
    if compared:
        return Extracted(compared[0] + last[0], "number")
    if candidates or qualified or counted:
        return Extracted(candidates or (qualified[0] if qualified else "") + value, "number")
    return Extracted(_formula_around(text, last) or _with_unit(text, found), "number")


def _is_result(text: str, place: int) -> bool:
    """Whether a sentence works out one value, which stands at a place: "of 96, 20 are not working: 96 - 20 = 76"."""
    sentence = text[max(text.rfind(". ", 0, place), text.rfind("\n", 0, place)) + 1 : place]
    results = list(_WORKED_OUT.finditer(sentence))
    return len(results) == 1 and results[0].end() == len(sentence)


def _formula_around(text: str, number: re.Match[str]) -> str:
    """The formula in plain signs that a number is a part of; "" where it stands alone."""
    start = max(0, number.start() - 60)
    right = _RIGHT.match(text, number.end(), number.end() + 60)
    formula = text[_formula_start(text, number.start(), start) : right.end() if right else number.end()]
    formula = formula.strip("*_`\"'").rstrip(".")
    if formula != number[0] and _LETTERS.search(formula) and not prose_words(formula):
        return formula
    for run in _RUN.finditer(text, start, number.end() + 60):
        if run.end() >= number.end():
            whole_run = run[0].rstrip(".,")
            inside = run.start() <= number.start() and whole_run.count("(") == whole_run.count(")")
            return whole_run if inside and _FORMULA_SIGN.search(whole_run) else ""
    return ""


def _formula_start(text: str, place: int, lowest: int) -> int:
    """Where the terms that operators join to what stands at a place begin, at the lowest place or behind it."""
    while place > lowest and text[place - 1] not in _ENDS:
        place -= 1
    joined = place - 3 > lowest and text[place - 1] == text[place - 3] == " " and text[place - 2] in _OPERATORS
    return _formula_start(text, place - 3, lowest) if joined else place


def _with_unit(text: str, numbers: list[re.Match[str]]) -> str:
    """The last number with its unit, as in "5 square centimeters" and "12 dollars and 50 cents"."""
    last = numbers[-1]
    unit = _UNIT_BEHIND.match(text, last.end())
    if unit is None or not is_unit_word(unit[2]) or unit[2].lower().rstrip("s") in _COUNTS:
        return last[0]
    measured = f"{last[0]} {unit[1]}"
    between = text[numbers[-2].end() : last.start()] if len(numbers) > 1 else ""
    if between.endswith(" and ") and is_unit_word(between[:-5].strip()):
        return f"{numbers[-2][0]}{between}{measured}"
    return measured


def candidates_around(text: str, start: int, end: int, pattern: re.Pattern[str]) -> str:
    """The candidates of a sentence that hedges, as a list; "" where it offers one."""
    marks = (". ", "\n", "? ", "! ", "。", "？", "！")
    first = max(text.rfind(mark, 0, start) for mark in marks) + 1
    last = min((place for place in (text.find(mark, end) for mark in marks) if place >= 0), default=len(text))
    sentence = text[first:last]
    matches = list(pattern.finditer(sentence))
    found = [match[0].strip("$ ") for match in matches]
    if matches:
        found = [*_OR_BEFORE.findall(sentence[: matches[0].start()]), *found]  # 17 or $2n$
        found += _OR_BEHIND.findall(sentence[matches[-1].end() :])
    return " or ".join(found[-20:]) if len(found) > 1 and HEDGE.search(FORMULA.sub(" ", sentence)) else ""
