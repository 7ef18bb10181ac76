"""From a whole response to the span that answers.

Order: what follows `</think>`; boxes; `####`; "the answer is"; an answer that is the whole response; the last bold
text or formula; the last number. Every step looks at a bounded tail with patterns that cannot backtrack far, so a
response of any length is cheap.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from evaluators.extraction.boxes import LAST, Box, boxes_from_end
from evaluators.extraction.thinking import thought_and_answer
from evaluators.parsing.normalize import number_word
from evaluators.parsing.units import is_unit_word
from evaluators.verdict import Policy

TAIL = 8_000  # characters at the end in which an answer is looked for


class Extracted(NamedTuple):
    """text: the answer as written; rule: what found it, such as "box"."""

    text: str
    rule: str


_NEXT_ITEM = re.compile(
    r"[\s$.,;]{0,9}(?:\\[\])])?\s{0,9}\n[ \t]{0,9}(?:\d{1,2}[.)]|[-*•]|\([a-z\d]\))[\s$]{0,9}(?:\\[\[(])?\s{0,9}"
)
_SENTENCE_END = re.compile(r"[.!?](?=\s|\$|$)|\n\s*\n|\\\]")
_CORRECTION = re.compile(
    r"\b(?:wait|wrong|incorrect|mistake|correction|correct(?:ed)? (?:is|answer)|actually|instead|rather|sorry|oops|hmm|"
    r"let me (?:re|check|verify)|not right|no,|should be|re-?check|recalculat)",
    re.IGNORECASE,
)
_CONSEQUENCE = re.compile(
    r"=|\\(?:implies|Rightarrow|to|rightarrow|approx|quad)\b|⇒|→|\b(?:so|therefore|thus|hence|then|which|giv(?:es|ing)|"
    r"means|because|since|final|get|finally|total|is|are|answer)\b",
    re.IGNORECASE,
)
_NAMED = re.compile(r"\$|\b[a-zA-Z](?:_\w|\([a-z]\))?\s?(?:=|is\b)")

_ANSWER = re.compile(
    r"\banswers?\"?(?: ?\([^()\n]{0,30}\))?"
    r"(?:(?: to [^.:\n]{0,60}?| here| then| therefore)? (?:is|are|will be|would be|must be|should be)\b"
    r"(?: (?:thus|therefore|then|simply|just|option|choice|as follows|given by)\b)?\s{0,3}:?"
    r"| ?[:：=]| ?\*\*\s{0,3}[:：\n]|[ \t]{0,3}\n| ?\*\* (?:is|are)\b)",
    re.IGNORECASE,
)
_ROOTS = re.compile(
    r"\b(?:solutions|roots|zeros|values|zeroes)(?: (?:of|for|to) [^.:\n]{0,40})? are\b:?", re.IGNORECASE
)
_OPTION = re.compile(
    r"\b(?:option|choice) ?(?:is|:) ?:?|\b(?:choose|select|pick)(?: option)?(?= \*{0,2}\(?[A-J]\b)", re.IGNORECASE
)
_CHOSEN = re.compile(
    r"\b(?:option|choice|answer) ?\*{0,2}\(?([A-J])\)?\*{0,2} (?:is|must be|seems) (?:the |therefore |"
    r"thus )?(?:correct|right|best|answer)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(r"(?:\bnot|n't|\bcannot|\bnever)\b(?: be| equal)?[ $]{0,3}$")
_DOUBTED = re.compile(r"\b(?:(?:may|might|could) (?:also )?be|maybe|perhaps|possibly)[ $]{0,3}$", re.IGNORECASE)
_CHINESE = re.compile(r"(?:答案|结果)(?:是|为|：|:)+")
_LABEL = re.compile(
    r"^[ \t]*(?:\*\*)?(?:(?:A|Ans|Answer|ANSWER|Final Answer|Result|Solution|Output)(?:\*\*)?[ \t]?[:：]|"
    r"Ans\.)(?:\*\*)?",
    re.MULTILINE,
)
_LABELLED_NUMBER = re.compile(_LABEL.pattern.removeprefix("^") + r"[ \t]*(-?\d+(?:\.\d+)?)\s*\Z")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_HASHED_ANSWER = re.compile(r"[-−+±$€£¥\\(\[{.\d√π∞]|[A-J]\)?\.?$")
_BOLD = re.compile(r"\*\*([^*\n]{1,300})\*\*|__([^_\n]{1,300})__")
_BOLD_AT_END = re.compile(r"\*\*([A-Za-z][A-Za-z ]{0,30})\.?\*\*\.?\s{0,9}$")
_FORMULA = re.compile(
    r"\$\$((?:[^$]|\\\$){1,2000})\$\$|(?<!\\)\$([^$\n]{1,1000}?)(?<!\\)\$(?!\d)"
    r"|\\\(((?:[^\\]|\\(?![()])){1,1000})\\\)|\\\[((?:[^\\]|\\(?![\[\]])){1,2000})\\\]"
)
_ONE_FORMULA = re.compile(r"\$(?!\$)[^$\n\\]*(?:\\[^$\n][^$\n\\]*)*\$", re.ASCII)
_STATES = re.compile(r"answer|option|cho|pick|select| are|####|[^\x00-\x7f]", re.IGNORECASE)
_NUMBER = re.compile(
    r"(?<![\w.])[-−]?[$€£]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)"
    r"(?:/\d+)?(?:[eE][-+]?\d+)?(?: ?\\?%)?(?!\d)"
)
_PLAIN = re.compile(
    r"[(\[] ?[-−]?[\d.]+(?:/\d+)?(?: ?, ?[-−]?[\d./]+)+ ?[)\]]|(?<![\w.:])\d{1,2}:[0-5]\d(?: ?[ap]\.?m\.?)?(?![\w:])|"
    + _NUMBER.pattern,
    re.IGNORECASE,
)
_TAKEN_BACK = re.compile(
    r"\b(?:no,? wait|wait,|wait\b[^.\n]{0,20}\bno\b|oops|sorry|correction:|scratch that|on second thought|"
    r"actually,? (?:it|that|this|the)|I made an? (?:\w+ )?(?:mistake|error)|"
    r"that(?:'s| is| was) (?:wrong|incorrect|not right))",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"\b(?:it|this|that|answer|result|value|total|sum|number)(?:'s| is| was| should be| must be| equals)"
    r" (\$[^$\n]{1,200}\$|[-−]?\d[\d,./]*(?<=\d))\s*(?=[.!\n]|$)",
    re.IGNORECASE,
)
_SPELLED_OUT = re.compile(r"\b(?:is|are|equals|has|have|was|were|therefore) ([A-Za-z]+(?:[ -][A-Za-z]+){0,4})\.?\s*$")
_SAYS = re.compile(
    r"(?:The|It|So|Thus|Hence|Therefore)\b[^.\n]{0,60} (?:is|was|will be) (?!not\b)((?:an? |the )?[A-Za-z]+)\.?"
)
_ROUNDED = re.compile(r"\b(?:about|approximately|roughly|around)\s+\$?-?[\d.,]+", re.IGNORECASE)
_EXPRESSION = re.compile(r"(?:\b(?:is|equals)|=)\s+([^\s,;$]{1,60}(?: ?[-+*/] ?[^\s,;$]{1,60}){0,6}?)\.?\s*$")
_SIGN = re.compile(r"[√∛π^²³]|sqrt|pi|\d[a-z(]|[a-z)]\d")  # more than a number
_NAMES = frozenset(("sqrt", "pi", "sin", "cos", "tan", "log", "ln", "exp"))
_FOR_ALL = re.compile(r"\b(?:for|where) (?:all|any|every|each|some)(?: \w{1,12})? $")
_VERB = re.compile(r"^.*\b(?:is|are|equals?|has|have)\b", re.DOTALL)
_MARKS = re.compile(r"[\n:#*$：]|答案|结果")
_PROSE = re.compile(r"[A-Za-z]{2,}")
_SENTENCE = re.compile(
    r"\b(?:is|are|was|were|has|have|the|it|we|he|she|they|there|so|thus|hence|therefore|get|gets|at|of|that|this|would|will|be|"
    r"equals|takes|costs|maybe|perhaps)\b",
    re.IGNORECASE,
)
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")
_STOP = re.compile(
    r"\n|(?<=[^.\s])\.(?=\s+[A-Z\\$*]|\s*$)|\.(?=\s(?:I hope|Therefore|So|Thus|This|We|Let))|[!?](?=\s|$)|<\|"
)
_AFTER = re.compile(
    r",? (?:because|since|as|so|which|where|when|but|given|after|for which|that|not|rather than|"
    r"instead of)\b| \((?:since|because|as|not|rather)\b",
    re.IGNORECASE,
)
_GLUE = re.compile(r"\s{0,3}(?:,\s{0,3}(?:and|or)\b|,|;|and\b|or\b|&)\s{0,3}", re.IGNORECASE)
_HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|possibly|could be|might be|candidates?|not)\b", re.IGNORECASE)
_CONCLUSION = re.compile(
    r"(?:(?:so|thus|therefore|hence|then),? )?(?:(?:the|a) [a-z ]{2,40} (?:is|are|equals) )?"
    r"([^.\n]{0,40}(?:[<>=≤≥{]|\\le|\\ge)[^\n]{0,100}?)\.?",
    re.IGNORECASE,
)
_QUALIFIED = re.compile(
    r"\b(?:not|at least|at most|less than|more than|greater than|fewer than|between .{1,10} and) $", re.IGNORECASE
)
_COMMAND = re.compile(r"\\[a-zA-Z]+ ?(?:\{[^{}]{0,200}\})?")
_FILLER = re.compile(
    r"(?:[ \t:*_>]|\n\s{0,5}(?:[-•] )?|\\(?=\n)|&|(?:therefore|thus|so|hence|(?:equals? (?:to)?)|exactly|"
    r"simply|just|indeed|still)\b,?)*",
    re.IGNORECASE,
)
_UNIT_AFTER = re.compile(r"\s{0,3}\(?(or\b[^.\n]{1,40}|[A-Za-z°%][A-Za-z/°^0-9 ]{0,24})(?=[.,;\n]|$|\*)")
_NOT_UNIT = re.compile(r"(?:is|are|which|as|so|where|when|for|by|in|on|at|with|the|and|if|since|that|to|because)\b")
_SPLIT_POWER = re.compile(r"\$ ?([a-zA-Z]{1,12}) ?\$\^")  # $15$ cm$^2$


def extract(response: str, policy: Policy, think_open: bool = False) -> Extracted | None:
    """Return the final answer of a response, None where it gives none.

    think_open: whether the prompt opened the response's think block.
    """
    text = after_thinking(response, policy, think_open)
    return None if text is None else final_answer(text, policy)


def final_answer(text: str, policy: Policy) -> Extracted | None:
    """Return the final answer of what follows the think block, None where it gives none."""
    text = text[-LAST:]
    if not text or text.isspace():
        return None
    if "answer>" in text:
        text = tagged(text)
        if not text:
            return None
    boxed = last_boxes(text, policy) if "\\" in text else None
    if boxed is not None:
        return boxed if boxed.text else None
    if policy.require_box:
        return None
    if len(text) <= 80 and not _MARKS.search(text) and not _PROSE.search(text):
        return Extracted(text, "whole")
    if text[0] == "$" and _ONE_FORMULA.fullmatch(text) and not _STATES.search(text):
        return Extracted(text[1:-1].strip(), "whole")
    tail = text[-TAIL:]
    if "$^" in tail:
        tail = _SPLIT_POWER.sub(r"\\text{ \1}^", tail)
    return last_statement(tail) or spelled_out(tail) or whole(text) or last_emphasis(tail) or last_number(tail)


def after_thinking(response: str, policy: Policy, think_open: bool = False) -> str | None:
    """What follows the think block; None where thinking never ends and the policy does not look inside."""
    thought, answer, closed = thought_and_answer(response, think_open)
    if closed:
        return answer
    return thought if policy.answer_in_open_think else None


def tagged(text: str) -> str:
    """What stands in the last <answer> tag."""
    start = text.rfind("<answer>")
    if start < 0:
        return text
    end = text.find("</answer>", start)
    return text[start + 8 : end if end >= 0 else len(text)].strip()


# Boxes.


def last_boxes(text: str, policy: Policy) -> Extracted | None:
    """The last box, joined with those that stand in the same sentence or list."""
    boxes: list[Box] = []
    for box in boxes_from_end(text):
        if _DENIED.search(text, max(0, box.start - 20), box.start):
            continue
        if boxes and not (policy.join_boxes and belong_together(text[box.end : boxes[-1].start])):
            break
        boxes.append(box)
    if not boxes:
        return None
    after = text[boxes[0].end : boxes[0].end + 2000]
    if _CORRECTION.search(after):
        corrected = last_statement(after)
        if corrected is not None:
            return corrected
        again = revised(after)
        if again is not None:
            return Extracted(again, "statement")
    contents = list(dict.fromkeys(box.content for box in reversed(boxes)))
    if len(contents) > 1:
        return Extracted(", ".join(contents), "boxes")
    unit = _BOX_UNIT.match(after)
    plain = _PLAIN_UNIT.match(after)
    if plain and is_unit_word(plain[2]) and contents[0][-1:].isdigit():
        return Extracted(f"{contents[0]} {plain[1]}", "box")
    return Extracted(f"{contents[0]} {unit[0].strip()}" if unit and contents[0][-1:].isdigit() else contents[0], "box")


_BOX_UNIT = re.compile(r"\s?\\(?:text|mathrm|mbox)\{[^{}]{1,30}\}(?:\^\{?\d\}?)?(?=[\s$.]|\\[\])]|$)")
_PLAIN_UNIT = re.compile(r"(?:\\\))?\$? {1,2}((?:square |cubic )?(?!in\b)([A-Za-z]{2,12}))(?=[\s.,;]|$)")


def belong_together(between: str) -> bool:
    """Whether two boxes with this text between them are one answer."""
    if _NEXT_ITEM.fullmatch(between):
        return True
    if (
        len(between) > 200
        or _SENTENCE_END.search(between)
        or "\n" in between.strip(" \n")
        or _CORRECTION.search(between)
    ):
        return False
    return not _CONSEQUENCE.search(_NAMED.sub(" ", between)) and "\n\n" not in between


# Statements.


def last_statement(text: str) -> Extracted | None:
    """The last `#### 72`, "the answer is 72" or `Answer: 72`."""
    if "####" in text:
        for match in reversed(list(_HASHES.finditer(text))[-5:]):
            content = _CALCULATION.sub("", match[1]).strip()
            if _HASHED_ANSWER.match(content) or (content and not text[match.end() :].strip()):  # and no heading
                return Extracted(content, "hashes")
    lowered = text.lower()
    if "option" in lowered or "choice" in lowered or "answer" in lowered:
        chosen = list(_CHOSEN.finditer(text))
        if chosen:
            return Extracted(chosen[-1][1], "statement")
    labelled = _LABELLED_NUMBER.match(text, text.rfind("\n", 0, len(text) - 1) + 1)
    if labelled:  # the end of most responses that are trained on: what follows finds the same
        return Extracted(labelled[1], "statement")
    ends = [match.end() for match in _LABEL.finditer(text)]
    if "answer" in lowered:
        ends += [match.end() for match in _ANSWER.finditer(text)]
    if " are" in lowered:
        ends += [match.end() for match in _ROOTS.finditer(text)]
    if "option" in lowered or "cho" in lowered or "pick" in lowered or "select" in lowered:
        ends += [match.end() for match in _OPTION.finditer(text)]
    if not text.isascii():
        ends += [match.end() for match in _CHINESE.finditer(text)]
    for end in sorted(ends, reverse=True)[:5]:
        stated = statement_after(text, end)
        if stated:
            return Extracted(revised(text[end : end + 2000]) or stated, "statement")
    return None


def revised(after: str) -> str | None:
    """The answer that takes an earlier one back: "No wait, it is 43"."""
    taken_back = _TAKEN_BACK.search(after)
    found = list(_REVISED.finditer(after, taken_back.end())) if taken_back else []
    return found[-1][1].strip("$") if found else None


def spelled_out(text: str) -> Extracted | None:
    """The number in words that ends a response without digits."""
    said = None if any(char.isdigit() for char in text) else _SPELLED_OUT.search(text)
    return Extracted(said[1], "words") if said and number_word(said[1].lower()) is not None else None


def statement_after(text: str, start: int) -> str:
    """What a sentence says from a place on: its formulas if it begins with one, else up to its end."""
    rest = text[start : start + 3000]
    filler = _FILLER.match(rest)
    rest = rest[filler.end() :] if filler else rest
    formula = _FORMULA.match(rest)
    if formula:
        return formulas_from(rest, formula)
    stop = _STOP.search(rest)
    sentence = (rest[: stop.start()] if stop else rest).strip().strip("*_ ").strip()
    cut = _AFTER.search(sentence)
    if cut and cut.start():
        sentence = sentence[: cut.start()]
    inside = list(_FORMULA.finditer(sentence))
    if inside and not _HEDGE.search(sentence):
        around = sentence[: inside[0].start()] + sentence[inside[-1].end() :]
        if not re.search(r"\d", around):
            return formulas_from(sentence, first_of_run(inside, sentence))
    verb = _VERB.search(sentence) if len(_PROSE.findall(sentence)) > 1 and sentence[:1].isupper() else None
    if verb and not sentence[verb.end() :].strip().startswith("not"):
        sentence = sentence[verb.end() :].strip(" $")
    if sentence.endswith("}") and sentence.count("{") < sentence.count("}"):
        sentence = sentence[:-1]
    return sentence.rstrip(".").strip()


def first_of_run(formulas: list[re.Match[str]], text: str) -> re.Match[str]:
    """The first of the formulas that are listed together with the last one."""
    first = formulas[-1]
    for earlier in reversed(formulas[:-1]):
        link = _GLUE.match(text, earlier.end())
        if link is None or link.end() != first.start():
            break
        first = earlier
    return first


def formulas_from(text: str, first: re.Match[str]) -> str:
    """A formula, with those listed behind it and a unit or second candidate in words."""
    parts = [content_of(first)]
    end = first.end()
    glue = ""
    while True:
        link = _GLUE.match(text, end)
        following = _FORMULA.match(text, link.end()) if link else None
        if link is None or following is None:
            break
        word = link[0].strip(" ,\n").lower()
        glue = " or " if word == "or" or glue == " or " else " and " if word == "and" else glue or ", "
        parts.append(content_of(following))
        end = following.end()
    answer = (glue if glue in (" or ", " and ") and len(parts) == 2 else ", ").join(parts)
    trailing = _UNIT_AFTER.match(text, end)
    if trailing and len(parts) == 1:
        unit = trailing[1].strip()
        if unit.lower().startswith("or "):
            return f"{answer} {unit.replace('$', '').rstrip(')')}"
        if len(unit.split()) <= 3 and not _NOT_UNIT.match(unit):
            return f"{answer} \\text{{ {unit}}}"
    return answer


def content_of(formula: re.Match[str]) -> str:
    """What stands between the delimiters of a formula."""
    return next(group for group in formula.groups() if group is not None).strip()


# Without a mark.


def whole(text: str) -> Extracted | None:
    """The response itself, where it is an answer and no prose."""
    stripped = text.strip()
    if len(stripped) > 2000 or "\n\n" in stripped:
        return None
    formula = _FORMULA.search(stripped)
    if formula:
        if formula.start():
            return None
        answer = formulas_from(stripped, formula)
        rest = _PROSE.search(_FORMULA.sub(" ", stripped))
        return None if rest and answer == content_of(formula) else Extracted(answer, "whole")
    if "**" in stripped[2:-2]:
        return None
    digits = any(char.isdigit() for char in stripped)
    if digits and _SENTENCE.search(stripped):
        return None
    says = None if digits else _SAYS.fullmatch(stripped)
    if says:
        return Extracted(says[1], "sentence")
    prose = len(_PROSE.findall(_COMMAND.sub(" ", stripped)))
    if "\n" in stripped and prose <= 1 and stripped.count("\n") < 20 and "\\begin" not in stripped:
        return Extracted(", ".join(stripped.splitlines()), "whole")
    short = prose <= 3 and (len(stripped) <= 60 or prose <= 1)
    return Extracted(stripped, "whole") if short or (prose <= 6 and not digits and "\\" not in stripped) else None


def last_emphasis(text: str) -> Extracted | None:
    """The last bold text or formula that could be an answer, whichever comes later."""
    bold = [match for match in _BOLD.finditer(text) if re.search(r"\d|\\|^[A-Z]$", match[1] or match[2])]
    closing = _BOLD_AT_END.search(text)
    if closing and not bold:
        return Extracted(closing[1], "bold")
    formulas = [
        found
        for found in _FORMULA.finditer(text)
        if not _FOR_ALL.search(text, max(0, found.start() - 24), found.start())
    ]
    if formulas and (not bold or formulas[-1].end() > bold[-1].end()):
        last = formulas[-1]
        if _NUMBER.search(_ROUNDED.sub("", text[last.end() :])):
            return None
        candidates = candidates_around(text, last.start(), last.end(), _FORMULA)
        return Extracted(candidates or formulas_from(text, first_of_run(formulas[-20:], text)), "formula")
    if not bold:
        return None
    inside = (bold[-1][1] or bold[-1][2]).strip()
    formula = _FORMULA.search(inside)
    if formula:
        return Extracted(content_of(formula), "bold")
    said = inside.split(":")[-1].strip()
    verb = _VERB.search(said) if len(_PROSE.findall(said)) > 2 else None
    return Extracted(said[verb.end() :].strip() if verb else said, "bold")


def second_reading(text: str) -> Extracted | None:
    """What a short sentence answers, where it was taken for an answer itself and cannot be read as one."""
    return last_number(text[-TAIL:]) if len(_PROSE.findall(text)) > 1 else None


def last_number(text: str) -> Extracted | None:
    """The last number; where its sentence offers several with "or", all of them."""
    concluded = _CONCLUSION.fullmatch(text.strip()) if len(text) < 200 else None
    if concluded and len(_PROSE.findall(_COMMAND.sub(" ", concluded[1]))) < 2:
        return Extracted(concluded[1], "sentence")
    concluded = _EXPRESSION.search(text)
    if concluded and _SIGN.search(concluded[1]) and all(word in _NAMES for word in _PROSE.findall(concluded[1])):
        return Extracted(concluded[1], "sentence")
    found = list(_PLAIN.finditer(text))
    if not found:
        return None
    last = found[-1]
    before = max(0, last.start() - 20), last.start()
    candidates = candidates_around(text, last.start(), last.end(), _NUMBER)
    if _DENIED.search(text, *before) or (_DOUBTED.search(text, *before) and not candidates):
        return None
    qualified = _QUALIFIED.search(text, max(0, last.start() - 20), last.start()) if len(text) < 60 else None
    return Extracted(
        candidates or (qualified[0] if qualified else "") + last[0],
        "number",
    )


def candidates_around(text: str, start: int, end: int, pattern: re.Pattern[str]) -> str:
    """The candidates of a sentence that hedges, as a list; "" where it offers one."""
    marks = (". ", "\n", "? ", "! ")
    first = max(text.rfind(mark, 0, start) for mark in marks) + 1
    last = min((place for place in (text.find(mark, end) for mark in marks) if place >= 0), default=len(text))
    sentence = text[first:last]
    found = [match[0].strip("$ ") for match in pattern.finditer(sentence)]
    return " or ".join(found[-20:]) if len(found) > 1 and _HEDGE.search(_FORMULA.sub(" ", sentence)) else ""
