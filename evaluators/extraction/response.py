"""From a whole response to the span that answers.

Order: what follows `</think>`; boxes; `####`; "the answer is"; an answer that is the whole response; the last bold
text or formula; the last number. Every step looks at a bounded tail with patterns that cannot backtrack far, so a
response of any length is cheap.
"""

from __future__ import annotations

import re

from evaluators.extraction.boxes import LAST, Box, belong_together, boxes_from_end
from evaluators.extraction.candidates import Extracted
from evaluators.extraction.doubt import CORRECTION, DENIED, revised
from evaluators.extraction.formulas import ONE_FORMULA, PROSE
from evaluators.extraction.statements import last_statement
from evaluators.extraction.thinking import thought_and_answer
from evaluators.extraction.unmarked import TAIL, last_emphasis, last_number, spelled_out, whole
from evaluators.parsing.units import is_unit_word
from evaluators.verdict import Policy

_MARKS = re.compile(r"[\n:#*$：]|答案|结果")
_STATES = re.compile(r"answer|option|cho|pick|select| are|####|[^\x00-\x7f]", re.IGNORECASE)
_SPLIT_POWER = re.compile(r"\$ ?([a-zA-Z]{1,12}) ?\$\^")  # $15$ cm$^2$
_BOX_UNIT = re.compile(r"\s?\\(?:text|mathrm|mbox)\{[^{}]{1,30}\}(?:\^\{?\d\}?)?(?=[\s$.]|\\[\])]|$)")
_PLAIN_UNIT = re.compile(r"(?:\\\))?\$? {1,2}((?:square |cubic )?(?!in\b)([A-Za-z]{2,12}))(?=[\s.,;]|$)")


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
    if len(text) <= 80 and not _MARKS.search(text) and not PROSE.search(text):
        return Extracted(text, "whole")
    if text[0] == "$" and ONE_FORMULA.fullmatch(text) and not _STATES.search(text):
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


def last_boxes(text: str, policy: Policy) -> Extracted | None:
    """The last box, joined with those that stand in the same sentence or list."""
    boxes: list[Box] = []
    for box in boxes_from_end(text):
        if DENIED.search(text, max(0, box.start - 20), box.start):
            continue
        if boxes and not (policy.join_boxes and belong_together(text[box.end : boxes[-1].start])):
            break
        boxes.append(box)
    if not boxes:
        return None
    after = text[boxes[0].end : boxes[0].end + 2000]
    if CORRECTION.search(after):
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
