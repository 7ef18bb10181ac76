"""From a whole response to the span that answers.

Order: what follows `</think>`; boxes; `####`; "the answer is"; an answer that is the whole response; the last bold
text; the last formula; the last number. Every step looks at a bounded tail, so a response of any length is cheap.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from evaluators.verdict import Policy

TAIL = 20_000  # characters at the end in which an answer is looked for
MAX_BOX = 20_000  # characters in a box
MAX_BOXES = 40  # boxes looked at, from the last


class Extracted(NamedTuple):
    """text: the answer as written; rule: what found it, such as "box"."""

    text: str
    rule: str


_BOX = re.compile(r"\\(?:boxed|fbox|framebox)\s*(?=\{)|\\(?:boxed|fbox)\s+(?=[^\s{])|\\boxed(?=[^\sa-zA-Z{])")
_BOX_NAMES = (r"\boxed", r"\fbox", r"\framebox")
_SENTENCE_END = re.compile(r"[.!?](?=\s|\$|$)|\n\s*\n|\\\]")
_CORRECTION = re.compile(
    r"\b(?:wait|wrong|incorrect|mistake|correction|correct(?:ed)? (?:is|answer)|actually|instead|rather|sorry|oops|hmm|"
    r"let me (?:re|check|verify)|not right|no,|should be|re-?check|recalculat)",
    re.IGNORECASE,
)
_CONSEQUENCE = re.compile(
    r"=|\\(?:implies|Rightarrow|to|rightarrow|approx|quad)\b|⇒|→|\b(?:so|therefore|thus|hence|then|which|giv(?:es|ing)|means|"
    r"because|since|final|get|finally|total|is|are|answer)\b",
    re.IGNORECASE,
)
_ANSWER = re.compile(
    r"(?:final|correct|right|my|the|our|so|\bthus,?|\btherefore,?)?\s*\banswers?\s*(?:\([^()\n]{0,30}\)\s*)?"
    r"(?:(?:to\s[^.:\n]{0,60}?\s)?(?:is|are|will be|would be|must be|should be)(?:\s*(?:thus|therefore|then|simply|just|option|choice))?\s*:?"
    r"|\s*[:：=]|\*\*\s*[:：]|[:：]\s*\*\*|\*\*\s+(?:is|are)\b)",
    re.IGNORECASE,
)
_OPTION = re.compile(r"\b(?:option|choice)\s*(?:is|:)\s*:?", re.IGNORECASE)
_CHINESE = re.compile(r"(?:答案|结果)\s*(?:是|为|：|:)+")
_LABELLED = re.compile(
    r"^\s*(?:\*\*)?(?:A|Ans|Answer|ANSWER|Final Answer|Result|Solution|Output)(?:\*\*)?\s*[:：](?:\*\*)?", re.MULTILINE
)
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_BOLD = re.compile(r"\*\*([^*\n]{1,300}?)\*\*|__([^_\n]{1,300}?)__")
_FORMULA = re.compile(
    r"\$\$(.{1,2000}?)\$\$|(?<!\\)\$([^$\n]{1,1000}?)(?<!\\)\$|\\\((.{1,1000}?)\\\)|\\\[(.{1,2000}?)\\\]", re.DOTALL
)
_NUMBER = re.compile(
    r"(?<![\w.])[-−]?[$€£]?(?:\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?|\.\d+)(?:/\d+)?(?:[eE][-+]?\d+)?(?:\s?\\?%)?(?![\d])"
)
_PLAIN = re.compile(
    r"[(\[]\s*[-−]?[\d.]+(?:/\d+)?(?:\s*,\s*[-−]?[\d./]+)+\s*[)\]]|(?<![\w.:])\d{1,2}:[0-5]\d(?:\s*[ap]\.?m\.?)?(?![\w:])|" + _NUMBER.pattern, re.IGNORECASE
)
_MARKS = re.compile(r"[\n:#*$]")
_PROSE = re.compile(r"[A-Za-z]{2,}")
_SENTENCE = re.compile(
    r"\b(?:is|are|was|were|has|have|the|it|we|he|she|they|there|so|thus|hence|therefore|get|gets|at|of|that|this|would|will|be)\b", re.IGNORECASE
)
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")
_STOP = re.compile(
    r"\n|(?<=[^.\s])\.(?=\s+[A-Z\\$*]|\s*$)|\.(?=\s+(?:I hope|Therefore|So|Thus|This|We|Let))|[!?](?=\s|$)|<\|"
)
_AFTER = re.compile(
    r",?\s+(?:because|since|as|so|which|where|when|but|given|after|for which|that)\b|\s+\((?:since|because|as)\b",
    re.IGNORECASE,
)
_LIST_GLUE = re.compile(r"\s*(?:,|;|and|or|,\s*and|,\s*or|&)\s*", re.IGNORECASE)
_HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|possibly|could be|might be|candidates?)\b", re.IGNORECASE)
_LATEX_WORDS = re.compile(r"\\[a-zA-Z]+\s*(?:\{[^{}]*\})?")
_FILLER = re.compile(
    r"^(?:[\s:*_>\-]*(?:\\(?=\n)|&|(?:therefore|thus|so|hence)\b,?|(?:equal(?:s)? (?:to)?|exactly|simply|just|approximately|about|indeed|still)\b))+",
    re.IGNORECASE,
)


def extract(response: str, policy: Policy) -> Extracted | None:
    """The final answer of a response, None where it gives none."""
    text = after_thinking(response, policy)
    if text is None or not text.strip():
        return None
    if "</answer>" in text or "<answer>" in text:
        text = text[text.rfind("<answer>") + 8 :] if "<answer>" in text else text
        text = text.split("</answer>")[0]
    boxed = last_boxes(text, policy)
    if boxed is not None:
        return boxed
    if policy.require_box:
        return None
    tail = text[-TAIL:]
    if len(text) <= 80 and not _MARKS.search(text) and not _PROSE.search(text):
        return Extracted(text, "whole")
    return last_statement(tail) or whole(text) or last_emphasis(tail) or last_number(tail)


def after_thinking(response: str, policy: Policy) -> str | None:
    """What follows the last `</think>`; None where thinking never ends and the policy does not look inside."""
    close = response.rfind("</think>")
    if close >= 0:
        rest = response[close + 8 :]
        if "<think>" not in rest:
            return rest
        response = rest
    start = response.find("<think>")
    if start < 0:
        return response
    return response[start + 7 :] if policy.answer_in_open_think else None


# Boxes.


def last_boxes(text: str, policy: Policy) -> Extracted | None:
    """The last box, joined with those that stand in the same sentence or list."""
    boxes: list[tuple[int, int, str]] = []
    end = len(text)
    while len(boxes) < MAX_BOXES:
        start = max(text.rfind(name, 0, end) for name in _BOX_NAMES)
        if start < 0:
            break
        end = start
        read = box_content(text, start)
        if read is None:
            continue
        if boxes and read[1] > boxes[-1][0]:  # a box around the one just read
            continue
        boxes.append((start, read[1], read[0]))
        if len(boxes) > 1 and not (policy.join_boxes and belong_together(text[boxes[-1][1] : boxes[-2][0]])):
            boxes.pop()
            break
    if not boxes:
        return None
    after = text[boxes[0][1] : boxes[0][1] + 2000]
    if _CORRECTION.search(after):
        corrected = last_statement(after)
        if corrected is not None:
            return corrected
    contents = list(dict.fromkeys(box[2].strip() for box in reversed(boxes)))
    if not any(contents):
        return None
    if len(contents) == 1:
        return Extracted(contents[0], "box")
    return Extracted(", ".join(contents), "boxes")


def box_content(text: str, start: int) -> tuple[str, int] | None:
    """What a box holds and where it ends; None where nothing can be told."""
    match = _BOX.match(text, start)
    if match is None:
        return None
    at = match.end()
    if text[at] != "{":
        bare = re.compile(r"\$|\\?[^\s$,;]+").match(text, at)
        return (bare[0].rstrip(".$"), bare.end()) if bare and bare[0] != "$" else None
    level = 0
    stop = min(len(text), at + MAX_BOX)
    for brace in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, at, stop):
        if brace[0] == "{":
            level += 1
        elif brace[0] == "}":
            level -= 1
            if not level:
                return text[at + 1 : brace.start()], brace.end()
    return unclosed(text, at + 1, stop)


def unclosed(text: str, start: int, stop: int) -> tuple[str, int] | None:
    """A box whose brace is missing ends with its formula or line, if that is short."""
    line = re.compile(r"[^\n$]{1,200}").match(text, start, stop)
    if line is None:
        return None
    content = re.split(r"\\\]|\\\)", line[0])[0]
    return content.rstrip(" ."), start + len(content)


def belong_together(between: str) -> bool:
    """Whether two boxes with this text between them are one answer."""
    if (
        len(between) > 200
        or _SENTENCE_END.search(between)
        or "\n" in between.strip(" \n")
        or _CORRECTION.search(between)
    ):
        return False
    return (
        not _CONSEQUENCE.search(re.sub(r"\$|\b[a-zA-Z](?:_\w|\([a-z]\))?\s*(?:=|is\b)", " ", between))
        and "\n\n" not in between
    )


# Statements.


def last_statement(text: str) -> Extracted | None:
    """The last `#### 72`, "the answer is 72" or `Answer: 72`."""
    found: list[tuple[int, int, str]] = []
    for pattern, rule in ((_ANSWER, "statement"), (_OPTION, "option"), (_LABELLED, "label"), (_CHINESE, "statement")):
        if rule == "statement" and pattern is _ANSWER and "nswer" not in text and "NSWER" not in text:
            continue
        if pattern is _CHINESE and text.isascii():
            continue
        found.extend((match.end(), match.start(), rule) for match in pattern.finditer(text))
    hashes = list(_HASHES.finditer(text)) if "####" in text else []
    if hashes and hashes[-1][1].strip():
        last = hashes[-1]
        if not found or last.start() > max(found)[0] or True:
            return Extracted(_CALCULATION.sub("", last[1]).strip(), "hashes")
    for end, _, rule in sorted(found, reverse=True)[:5]:
        stated = statement_after(text, end)
        if stated:
            return Extracted(stated, rule)
    return None


def statement_after(text: str, start: int) -> str:
    """What a sentence says from a place on: its formulas if it begins with one, else up to its end."""
    rest = text[start : start + 3000]
    filler = _FILLER.match(rest)
    rest = rest[filler.end() :] if filler else rest.lstrip(" *_:\n")
    rest = rest.lstrip()
    formula = _FORMULA.match(rest)
    if formula:
        return formulas_from(rest, formula)
    stop = _STOP.search(rest)
    sentence = rest[: stop.start()] if stop else rest
    sentence = sentence.strip().strip("*_ ").strip()
    cut = _AFTER.search(sentence)
    if cut and cut.start():
        sentence = sentence[: cut.start()]
    mixed = [match for match in _FORMULA.finditer(sentence)]
    if (
        len(mixed) == 1
        and not re.search(r"\d", sentence[: mixed[0].start()] + sentence[mixed[0].end() :])
        and not _HEDGE.search(sentence)
    ):
        return content_of(mixed[0])
    return sentence.rstrip(".").strip()


def formulas_from(text: str, first: re.Match[str]) -> str:
    """A formula, with those listed behind it and a unit or second candidate in words."""
    parts = [content_of(first)]
    end = first.end()
    glue = ""
    while True:
        link = _LIST_GLUE.match(text, end)
        following = _FORMULA.match(text, link.end()) if link else None
        if link is None or following is None:
            break
        word = link[0].strip(" ,").lower()
        glue = " or " if word == "or" else glue or (" and " if word == "and" else ", ")
        parts.append(content_of(following))
        end = following.end()
    answer = (glue or ", ").join(parts)
    trailing = re.compile(r"\s*(or\b[^.\n]{1,40}|[A-Za-z°%][A-Za-z/°^0-9 ]{0,24})(?=[.,;\n]|$|\*)").match(text, end)
    if trailing and len(parts) == 1:
        unit = trailing[1].strip()
        if unit.lower().startswith("or"):
            return f"{answer} {unit}"
        if len(unit.split()) <= 3 and not re.match(
            r"(?:is|are|which|as|so|where|when|for|by|in|on|at|with|the|and|if|since)\b", unit
        ):
            return f"{answer} \\text{{ {unit}}}"
    return answer


def content_of(formula: re.Match[str]) -> str:
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
        return None if _PROSE.search(_FORMULA.sub(" ", stripped)) and answer == content_of(formula) else Extracted(answer, "whole")
    if _SENTENCE.search(stripped) and re.search(r"\d", stripped):
        return None
    plain = _LATEX_WORDS.sub(" ", stripped)
    prose = [word for word in _PROSE.findall(plain) if len(word) > 1]
    if (
        len(prose) <= 3
        and (len(stripped) <= 60 or len(prose) <= 1)
        or (len(prose) <= 6 and not re.search(r"\d|\\", stripped))
    ):
        return Extracted(stripped, "whole")
    return None


def last_emphasis(text: str) -> Extracted | None:
    """The last bold text or formula that could be an answer, whichever comes later."""
    bold = [match for match in _BOLD.finditer(text) if re.search(r"\d|\\|^[A-Z]$", match[1] or match[2] or "")]
    formulas = list(_FORMULA.finditer(text))
    last_bold = bold[-1] if bold else None
    last_formula = formulas[-1] if formulas else None
    if last_formula is not None and (last_bold is None or last_formula.end() > last_bold.end()):
        if hedged(text, last_formula.start(), last_formula.end()):
            return Extracted(sentence_around(text, last_formula.start(), last_formula.end()), "formula")
        tail_number = _NUMBER.search(text, last_formula.end())
        if tail_number is None:
            return Extracted(last_side(content_of(last_formula)), "formula")
        return None
    if last_bold is not None:
        inside = (last_bold[1] or last_bold[2]).strip()
        formula = _FORMULA.search(inside)
        return Extracted(content_of(formula) if formula else inside.split(":")[-1].strip(), "bold")
    return None


def last_side(formula: str) -> str:
    return formula


def last_number(text: str) -> Extracted | None:
    """The last number; where its sentence offers several with "or", all of them."""
    last = None
    for last in _PLAIN.finditer(text):
        pass
    if last is None:
        return None
    if hedged(text, last.start(), last.end()):
        return Extracted(sentence_around(text, last.start(), last.end()), "number")
    return Extracted(last[0], "number")


def sentence_bounds(text: str, start: int, end: int) -> tuple[int, int]:
    before = max(text.rfind(mark, 0, start) for mark in (". ", "\n", "? ", "! "))
    following = [place for place in (text.find(mark, end) for mark in (". ", "\n", "? ", "! ")) if place >= 0]
    return before + 1, min(following, default=len(text))


def hedged(text: str, start: int, end: int) -> bool:
    """Whether the sentence around a place offers more than one candidate."""
    first, last = sentence_bounds(text, start, end)
    sentence = text[first:last]
    return bool(_HEDGE.search(sentence)) and len(_NUMBER.findall(sentence)) > 1


def sentence_around(text: str, start: int, end: int) -> str:
    """The candidates of a hedged sentence as a list."""
    first, last = sentence_bounds(text, start, end)
    return " or ".join(match[0] for match in _NUMBER.finditer(text[first:last]))
