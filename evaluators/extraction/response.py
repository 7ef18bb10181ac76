"""From a whole response to the span that answers.

Order: what follows `</think>`; boxes; `####`; "the answer is"; an answer that is the whole response; the last bold
text or formula; the last number. Every step looks at a bounded tail with patterns that cannot backtrack far, so a
response of any length is cheap.
"""

from __future__ import annotations

import re

from evaluators.extraction.boxes import LAST, Box, belong_together, boxes_from_end
from evaluators.extraction.candidates import Extracted
from evaluators.extraction.doubt import STRIKETHROUGH, corrects, is_denied, is_doubtful, is_guess, revised
from evaluators.extraction.formulas import ONE_FORMULA, PROSE
from evaluators.extraction.languages import foreign_prose, stated_value
from evaluators.extraction.statements import last_statement
from evaluators.extraction.thinking import may_have_tags, thought_and_answer
from evaluators.extraction.unmarked import TAIL, closing_letter, last_emphasis, last_number, spelled_out, whole
from evaluators.parsing.units import is_unit_word
from evaluators.verdict import Policy

_MARKS = re.compile(r"[\n:#*$：]|答案|结果")
_STATES = re.compile(r"answer|option|cho|pick|select| are|####|[^\x00-\x7f]", re.IGNORECASE)
_NEXT_QUESTION = re.compile(
    r"\n\s{0,3}(?:#{1,3} ?)?(?:\*\*)?(?:Question|QUESTION|Problem|Q|Human|User|Instruction|Exercise)"
    r"(?: ?\d{1,3})?(?:\*\*)?[ \t]?[:：]"
)
_GIVEN = re.compile(r"####|\\boxed|\b[Aa]nswer(?: is|s are|:)|(?:^|\n)A:")  # an answer was given
_TURN_END = re.compile(
    r"<\|(?:im_end|im_start|endoftext|eot_id|end_of_text|eom_id|start_header_id|user)\|>|</?s>|<end_of_turn>|"
    r"<｜end▁of▁sentence｜>|<｜User｜>|\[/?INST\]"
)
_TURN_START = re.compile(r"\s*(?:(?:<[^<>\n]{1,30}>|\[/INST\])\s*(?:assistant\s*)?)*")
_HEADER = re.compile(
    r"(?:\s{0,9}<\|(?:assistant|im_start|start_header_id|end_header_id|begin_of_text)\|>(?:assistant\b)?)+\s"
)
_SPLIT_POWER = re.compile(r"\$ ?([a-zA-Z]{1,12}) ?\$\^")  # $15$ cm$^2$
_BOX_UNIT = re.compile(r"\s?\\(?:text|mathrm|mbox)\{[^{}]{1,30}\}(?:\^\{?\d\}?)?(?=[\s$.]|\\[\])]|$)")
_PLAIN_UNIT = re.compile(r"(?:\\\))?\$? {1,2}((?:square |cubic )?(?!in\b)([A-Za-z]{2,12}))(?=[\s.,;]|$)")


def extract(response: str, policy: Policy, think_open: bool = False) -> Extracted | None:
    """Return the final answer of a response, None where it gives none.

    think_open: whether the prompt opened the response's think block.
    """
    text = after_thinking(response, policy, think_open)
    return None if text is None else final_answer(text, policy)


def final_answer(text: str, policy: Policy, expected: str = "") -> Extracted | None:
    """Return the final answer of what follows the think block, None where it gives none.

    expected: the gold as written, which is an answer even where it says "Yes and no".
    """
    text = one_exercise(text[-LAST:])
    found = _proposed(text, policy)
    if found is None or not found.text or (found.text != expected and is_doubtful(found.text)):
        return None
    return found if found.text.isascii() else Extracted(stated_value(found.text, None), found.rule)


def _proposed(text: str, policy: Policy) -> Extracted | None:
    if not text or text.isspace():
        return None
    if "answer>" in text:
        text = tagged(text)
        if not text:
            return None
    if "~~" in text:
        text = STRIKETHROUGH.sub(" ", text)
    if "\\" in text:
        text, boxed = last_boxes(text, policy)
        if boxed is not None:
            return boxed
    if policy.require_box:
        return None
    if len(text) <= 80 and not _MARKS.search(text) and not PROSE.search(text) and not foreign_prose(text):
        return Extracted(text, "whole")
    if text[0] == "$" and ONE_FORMULA.fullmatch(text) and not _STATES.search(text):
        return Extracted(text[1:-1].strip(), "whole")
    tail = text[-TAIL:]
    if "$^" in tail:
        tail = _SPLIT_POWER.sub(r"\\text{ \1}^", tail)
    return (
        last_statement(tail)
        or spelled_out(tail)
        or whole(text)
        or closing_letter(tail)
        or last_emphasis(tail)
        or last_number(tail)
    )


def one_exercise(text: str) -> str:
    """A text up to where it goes on with another question, as base models do, if it has given an answer before."""
    for match in _NEXT_QUESTION.finditer(text):
        if _GIVEN.search(text, 0, match.start()):
            return text[: match.start()]
    return text


def one_turn(response: str) -> str:
    """A response up to the control token that ends its turn: 42<|im_end|>, 42</s>."""
    start = _TURN_START.match(response)
    end = _TURN_END.search(response, start.end() if start else 0)
    return response[: end.start()] if end else response


def after_thinking(response: str, policy: Policy, think_open: bool = False) -> str | None:
    """What follows the think block; None where thinking never ends and the policy does not look inside."""
    if not think_open and not may_have_tags(response):
        return response
    header = _HEADER.match(response)
    turn = one_turn(response[header.end() :] if header else response)
    thought, answer, closed = thought_and_answer(turn, think_open)
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


def last_boxes(text: str, policy: Policy) -> tuple[str, Extracted | None]:
    """The last box that is not denied, joined with those that stand in the same sentence or list.

    Returns the text too, without the boxes that are denied.
    """
    boxes: list[Box] = []
    denied: list[Box] = []
    for box in boxes_from_end(text):
        if is_denied(text, box.start, box.end):
            denied.append(box)
            continue
        if boxes and not (policy.join_boxes and belong_together(text[box.end : boxes[-1].start])):
            break
        boxes.append(box)
    if boxes and is_guess(text, boxes[0].start):  # maybe 8, maybe 9
        denied, boxes = [*denied, *boxes], []
    if not boxes:
        for box in sorted(denied, key=lambda box: -box.start):
            text = text[: box.start] + " " + text[box.end :]
        return text, None
    return text, _content(text, boxes)


def _content(text: str, boxes: list[Box]) -> Extracted:
    """What boxes that belong together answer; boxes: from the last to the first."""
    after = text[boxes[0].end : boxes[0].end + 2000]
    if corrects(after):
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
