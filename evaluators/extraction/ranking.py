"""All candidates of a response in the order in which the rules rank them; worked out only when somebody asks.

The answer of `final_answer` comes first. Behind it stand the proposals of every rule: by rule, and of one rule the
later ones first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice

from evaluators.extraction.boxes import LAST, boxes_from_end
from evaluators.extraction.candidates import Candidate, Extracted
from evaluators.extraction.doubt import is_denied
from evaluators.extraction.formulas import FORMULA, content_of
from evaluators.extraction.question import blanked
from evaluators.extraction.response import after_thinking, tagged
from evaluators.extraction.statements import announced, hashes
from evaluators.extraction.unmarked import BOLD, PLAIN, TAIL, closing_letter
from evaluators.verdict import Policy

MAX_OF_A_RULE = 5  # proposals of one rule, from the last
MAX_CANDIDATES = 20


def candidates(
    response: str, policy: Policy, prompt: str | None, think_open: bool, chosen: Extracted | None
) -> tuple[Candidate, ...]:
    """Return the candidates of a response, the chosen one first; none where it never stops thinking."""
    text = after_thinking(response, policy, think_open)
    if text is None:
        return ()
    start = max(0, response.rfind(text))
    inner = tagged(text) if "answer>" in text else text
    start += max(0, text.rfind(inner))
    inner = blanked(inner, prompt) if prompt else inner
    if len(inner) > LAST:
        start, inner = start + len(inner) - LAST, inner[-LAST:]
    proposed = [Candidate(*found[:2], found.start + start, found.end + start) for found in proposals(inner, policy)]
    if chosen is not None:
        proposed.insert(0, _placed(chosen, proposed, response))
    kept: dict[tuple[str, str], Candidate] = {}
    for candidate in proposed:
        kept.setdefault(candidate[:2], candidate)
    return tuple(islice(kept.values(), MAX_CANDIDATES))


def proposals(text: str, policy: Policy) -> Iterator[Candidate]:
    """Yield what each rule proposes for a text, by rank; spans are in this text."""
    boxes = (box for box in boxes_from_end(text) if not is_denied(text, box.start, box.end))
    yield from (Candidate(box.content, "box", box.start, box.end) for box in islice(boxes, MAX_OF_A_RULE))
    if policy.require_box:
        return
    shift = max(0, len(text) - TAIL)
    for found in _of_tail(text[shift:]):
        yield Candidate(found.text, found.rule, found.start + shift, found.end + shift)


def _of_tail(text: str) -> Iterator[Candidate]:
    for match in _last(hashes(text)):
        yield Candidate(match[1].strip(), "hashes", match.start(1), match.end(1))
    for end, stated in announced(text):
        place = text.find(stated, end)
        yield Candidate(stated, "statement", place, place + len(stated) if place >= 0 else -1)
    letter = closing_letter(text)
    if letter is not None:
        place = text.rfind(letter.text)
        yield Candidate(letter.text, "letter", place, place + 1)
    for match in _last(BOLD.finditer(text)):
        yield Candidate((match[1] or match[2]).strip(), "bold", *match.span())
    for match in _last(FORMULA.finditer(text)):
        yield Candidate(content_of(match), "formula", *match.span())
    for match in _last(PLAIN.finditer(text)):
        yield Candidate(match[0], "number", *match.span())


def _last(matches: Iterator[re.Match[str]]) -> list[re.Match[str]]:
    """The last matches, the very last first."""
    return list(matches)[: -MAX_OF_A_RULE - 1 : -1]


def _placed(chosen: Extracted, proposed: list[Candidate], response: str) -> Candidate:
    """The chosen answer with its place: that of the same proposal, of all boxes that it joins, or of its text."""
    for candidate in proposed:
        if candidate.text == chosen.text and candidate.rule == chosen.rule:
            return candidate
    if chosen.rule == "boxes":
        joined = [found for found in proposed if found.rule == "box" and found.text in chosen.text]
        if joined:
            return Candidate(*chosen, min(found.start for found in joined), max(found.end for found in joined))
    place = response.rfind(chosen.text)
    return Candidate(*chosen, place, place + len(chosen.text) if place >= 0 else -1)
