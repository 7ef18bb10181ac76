"""Answers with a mark: `#### 72`, "the answer is 72", `Answer: 72`."""

from __future__ import annotations

import re
from collections.abc import Iterator

from evaluators.extraction.candidates import Extracted
from evaluators.extraction.doubt import CORRECTION, DENIED_AFTER, HEDGE, is_denied, is_guess, revised
from evaluators.extraction.formulas import FORMULA, PROSE, first_of_run, formulas_from
from evaluators.extraction.languages import Language, announcements, stated_value
from evaluators.extraction.languages.english import ANSWER, CHOSEN, LABEL, OPTION, ROOTS

_LABELLED_NUMBER = re.compile(LABEL.pattern.removeprefix("^") + r"[ \t]*(-?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?)\s*\Z")
_HASHES = re.compile(r"####[ \t]*([^\n]*)")
_HASHED_ANSWER = re.compile(r"[-−+±$€£¥\\(\[{.\d√π∞]|[A-J]\)?\.?$")
VERB = re.compile(r"^.*\b(?:is|are|equals?|has|have)\b", re.DOTALL)
CALCULATION = re.compile(r"<<[^<>\n]{0,200}>>")
_STOP = re.compile(
    r"\n|(?<=[^.\s])\.(?=\s+[A-Z\\$*(]|\s*$)|\.(?=\s(?:I hope|Therefore|So|Thus|This|We|Let))|[!?](?=\s|$)|<\|"
)
_AFTER = re.compile(
    r" [—–] (?=[A-Za-z]{2})|[,;]? (?:because|since|as|so|which|where|when|but|given|after|for which|that|this|"
    r"i\.e|namely|not|rather than|"
    r"instead of)\b| \((?:since|because|as|not|rather|verified|checked|confirmed|by|from|using|see|after|assuming)"
    r"\b",
    re.IGNORECASE,
)
_THEN_WORDS = re.compile(
    r"([-−+]?[$€£]?\d[\d,.]*(?<=\d)%?(?: [A-Za-z]{2,15}){0,2}), ?([a-z]{2,}\b.*)", re.DOTALL
)  # 72, in total
_CHEERS = "✅✓✔☑🎉🎊🎯😀😃😄😁😊🙂👍💯\ufe0f"  # **Answer: 5** ✅
_STARS = re.compile(r"(?<!\w)\*\*|\*\*(?!\w)")  # **B**: 12; not x**2
_VALUE = re.compile(r"[-−+(]?\s?(?:[$€£]\s?)?\d|\\|\$")
_FILLER = re.compile(
    r"(?:[ \t:*_>]|\n\s{0,5}(?:[-•] )?|\\(?=\n)|&|(?:therefore|thus|so|hence|(?:equals? (?:to)?)|exactly|"
    r"simply|just|indeed|still)\b,?)*",
    re.IGNORECASE,
)


def last_statement(text: str) -> Extracted | None:
    """The last `#### 72`, "the answer is 72" or `Answer: 72`."""
    hashed = hashed_answer(text) if "####" in text else None
    if hashed is not None and not ANSWER.match(hashed.removeprefix("The ").removeprefix("the ")):
        return Extracted(hashed, "hashes")
    lowered = text.lower()
    if "option" in lowered or "choice" in lowered or "answer" in lowered:
        chosen = [match for match in CHOSEN.finditer(text) if not is_denied(text, match.start(1), match.end(1))]
        if chosen:
            return Extracted(chosen[-1][1], "statement")
    labelled = _LABELLED_NUMBER.match(text, text.rfind("\n", 0, len(text) - 1) + 1)
    if labelled:  # the end of most responses that are trained on: what follows finds the same
        return Extracted(labelled[1], "statement")
    for end, stated in announced(text):
        return Extracted(revised(text[end : end + 2000]) or stated, "statement")
    return None


def announced(text: str) -> Iterator[tuple[int, str]]:
    """Yield the end of each announcement of an answer and what it states, the last first, five at most."""
    lowered = text.lower()
    ends: list[tuple[int, Language | None]] = [(end, None) for end in _english_announcements(text, lowered)]
    ends += announcements(text, lowered)
    for end, language in sorted(ends, key=lambda item: -item[0])[:5]:
        stated = statement_after(text, end)
        if language is not None:
            stated = stated_value(stated, language)
        if stated and not _denied_in(text, end, stated) and not is_guess(text, end):
            yield end, stated


def hashes(text: str) -> Iterator[re.Match[str]]:
    """Yield the `####` of a text that give an answer: what stands behind is in the first group."""
    for match in _HASHES.finditer(text):
        if _HASHED_ANSWER.match(CALCULATION.sub("", match[1]).strip()):
            yield match


def hashed_answer(text: str) -> str | None:
    """What the last `####` gives, unless the text behind an earlier one goes on with another question.

    A base model goes on after `#### 18` with "John has 3 apples. How many …?" and answers that too.
    """
    found: str | None = None
    end = 0
    for match in _HASHES.finditer(text):
        content = CALCULATION.sub("", match[1]).strip()
        if not (_HASHED_ANSWER.match(content) or (content and not text[match.end() :].strip())):
            continue  # a heading
        between = text[end : match.start()]
        if found is not None and "?" in between and not CORRECTION.search(between):
            break
        found, end = content, match.end()
    return found


def _english_announcements(text: str, lowered: str) -> list[int]:
    ends = _labels(text) if ":" in text or "：" in text or "Ans." in text else []
    if "answer" in lowered:
        ends += [match.end() for match in ANSWER.finditer(text)]
    if " are" in lowered:
        ends += [match.end() for match in ROOTS.finditer(text)]
    if "option" in lowered or "cho" in lowered or "pick" in lowered or "select" in lowered:
        ends += [match.end() for match in OPTION.finditer(text)]
    return ends


def _labels(text: str) -> list[int]:
    """The ends of the labels that begin a line; tried at each line, ten times as fast as a search."""
    ends = []
    start = 0
    while True:
        label = LABEL.match(text, start)
        if label:
            ends.append(label.end())
        start = text.find("\n", start) + 1
        if not start:
            return ends


def _denied_in(text: str, start: int, stated: str) -> bool:
    """Whether what an announcement states is taken back at once: "The answer 5 is wrong"."""
    place = text.find(stated, start, start + 3000)
    return place >= 0 and DENIED_AFTER.match(text, place + len(stated), place + len(stated) + 80) is not None


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
    if sentence[-1:] in _CHEERS:
        sentence = sentence.rstrip(_CHEERS + "*_ \n")
    sentence = _to_the_point(_STARS.sub("", sentence) if "**" in sentence else sentence)
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


def _to_the_point(sentence: str) -> str:
    """A sentence without what follows its value: "72, in total, so …" as 72, "the number that …, which is 5" as 5."""
    counted = _THEN_WORDS.match(sentence)
    if counted and not HEDGE.match(counted[2]) and not CORRECTION.match(counted[2]):
        return counted[1].strip()
    cut = _AFTER.search(sentence)
    if cut is None or not cut.start():
        return sentence.removeprefix("that ") if cut is None else _after_that(sentence)
    head = sentence[: cut.start()]
    if _VALUE.search(head) or not _VALUE.search(sentence, cut.end()):
        return head
    return _after_that(sentence)  # "the maximum number of points that could be in the domain is 19"


def _after_that(sentence: str) -> str:
    """What the last verb of a sentence says, where it says a value."""
    verb = VERB.search(sentence)
    rest = sentence[verb.end() :].strip() if verb else ""
    return rest if _VALUE.match(rest) else sentence
