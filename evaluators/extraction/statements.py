"""Answers with a mark: `#### 72`, "the answer is 72", `Answer: 72`."""

from __future__ import annotations

import re

from evaluators.extraction.candidates import Extracted
from evaluators.extraction.doubt import HEDGE, revised
from evaluators.extraction.formulas import FORMULA, PROSE, first_of_run, formulas_from

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
_CHINESE = re.compile(r"(?:答案|结果)(?:是|为|：|:)+")
_LABEL = re.compile(
    r"^[ \t]*(?:\*\*)?(?:(?:A|Ans|Answer|ANSWER|Final Answer|Result|Solution|Output)(?:\*\*)?[ \t]?[:：]|"
    r"Ans\.)(?:\*\*)?",
    re.MULTILINE,
)
_LABELLED_NUMBER = re.compile(_LABEL.pattern.removeprefix("^") + r"[ \t]*(-?\d+(?:\.\d+)?)\s*\Z")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_HASHED_ANSWER = re.compile(r"[-−+±$€£¥\\(\[{.\d√π∞]|[A-J]\)?\.?$")
VERB = re.compile(r"^.*\b(?:is|are|equals?|has|have)\b", re.DOTALL)
_CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")
_STOP = re.compile(
    r"\n|(?<=[^.\s])\.(?=\s+[A-Z\\$*]|\s*$)|\.(?=\s(?:I hope|Therefore|So|Thus|This|We|Let))|[!?](?=\s|$)|<\|"
)
_AFTER = re.compile(
    r",? (?:because|since|as|so|which|where|when|but|given|after|for which|that|not|rather than|"
    r"instead of)\b| \((?:since|because|as|not|rather)\b",
    re.IGNORECASE,
)
_FILLER = re.compile(
    r"(?:[ \t:*_>]|\n\s{0,5}(?:[-•] )?|\\(?=\n)|&|(?:therefore|thus|so|hence|(?:equals? (?:to)?)|exactly|"
    r"simply|just|indeed|still)\b,?)*",
    re.IGNORECASE,
)


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


def statement_after(text: str, start: int) -> str:
    """What a sentence says from a place on: its formulas if it begins with one, else up to its end."""
    rest = text[start : start + 3000]
    filler = _FILLER.match(rest)
    rest = rest[filler.end() :] if filler else rest
    formula = FORMULA.match(rest)
    if formula:
        return formulas_from(rest, formula)
    stop = _STOP.search(rest)
    sentence = (rest[: stop.start()] if stop else rest).strip().strip("*_ ").strip()
    cut = _AFTER.search(sentence)
    if cut and cut.start():
        sentence = sentence[: cut.start()]
    inside = list(FORMULA.finditer(sentence))
    if inside and not HEDGE.search(sentence):
        around = sentence[: inside[0].start()] + sentence[inside[-1].end() :]
        if not re.search(r"\d", around):
            return formulas_from(sentence, first_of_run(inside, sentence))
    verb = VERB.search(sentence) if len(PROSE.findall(sentence)) > 1 and sentence[:1].isupper() else None
    if verb and not sentence[verb.end() :].strip().startswith("not"):
        sentence = sentence[verb.end() :].strip(" $")
    if sentence.endswith("}") and sentence.count("{") < sentence.count("}"):
        sentence = sentence[:-1]
    return sentence.rstrip(".").strip()
