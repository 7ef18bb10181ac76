"""Where states are read: an expression for each position, and the rows that it gives.

    position   = anchor [offset] | span
    anchor     = prompt_end | step_start | step_end | before_result | before_answer | response_end
    offset     = +k | -k            tokens to the right or left, such as step_end-2
    span       = every_token | step_mean | prompt_mean | response_mean

`before_result` is the token before a step's result, where the result is not yet in the text: the last number of the
step, or the first behind its last "=". A place that an offset moves out of the prompt and response is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import polars as pl

from tracekit.core.tables import STEPS, check

#: A position's expression, as `parse_position` reads it.
Position = str

_STEP_ANCHORS = ("step_start", "step_end", "before_result")
_ANCHORS = ("prompt_end", *_STEP_ANCHORS, "before_answer", "response_end")
_MEANS = ("step_mean", "prompt_mean", "response_mean")
#: Every position without an offset, in the order in which rows are read.
POSITIONS: tuple[Position, ...] = (*_ANCHORS, *_MEANS, "every_token")

_EXPRESSION = re.compile(rf"({'|'.join(POSITIONS)})([+-]\d{{1,4}})?")
_BOX = re.compile(r"\\boxed\s*\{\s*")
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*(?:/\d+)?")
_SIGN = re.compile(r"[-−+]\s*\Z")


class PositionError(ValueError):
    """A trace cannot be tokenised or a position is unknown: the message names it and the remedy."""


@dataclass(frozen=True, slots=True)
class TokenisedTrace:
    """One trace as the model reads it.

    token_ids: prompt, then response. prompt_length: tokens of the prompt. spans: (start, end) in characters
    of the response, one for each of its tokens.
    """

    problem_id: str
    trace_id: str
    token_ids: list[int]
    prompt_length: int
    spans: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Place:
    """One row of the states: tokens first … last (inclusive, of prompt + response) of one sequence.

    sequence: index of the sequence. step: None at positions that belong to no step. character: where the
    last token ends in the response; 0 in the prompt. mean: whether the tokens are averaged; else the last is read.
    """

    sequence: int
    position: Position
    step: int | None
    first: int
    last: int
    character: int
    mean: bool = False


@dataclass(frozen=True)
class Expression:
    """A parsed position: its anchor or span, and the tokens that it is moved by."""

    anchor: str
    offset: int = 0

    @property
    def mean(self) -> bool:
        """Whether tokens are averaged."""
        return self.anchor in _MEANS


def parse_position(text: str) -> Expression:
    """Read a position's expression. Raises PositionError.

    >>> parse_position("step_end-2")
    Expression(anchor='step_end', offset=-2)
    """
    match = _EXPRESSION.fullmatch(text)
    if not match or (match[2] and match[1] not in _ANCHORS):
        raise PositionError(
            f"unknown position {text!r}; choose from {', '.join(POSITIONS)}, the first {len(_ANCHORS)} also with an "
            "offset in tokens, such as step_end-2."
        )
    return Expression(match[1], int(match[2] or 0))


def place(
    sequences: Sequence[TokenisedTrace], traces: pl.DataFrame, steps: pl.DataFrame, positions: Sequence[Position]
) -> list[Place]:
    """Every row to be read, ordered by trace, then by position as asked, then by step. Raises PositionError."""
    if not positions:
        raise PositionError(f"no positions; choose from {', '.join(POSITIONS)}.")
    parsed = [(position, parse_position(position)) for position in positions]
    steps = check(steps, STEPS, "steps").sort("trace_id", "step")
    of_trace = {key[0]: group.rows(named=True) for key, group in steps.group_by("trace_id")}
    responses = dict(traces.select("trace_id", "response").iter_rows())
    places: list[Place] = []
    for number, sequence in enumerate(sequences):
        text = _Text(sequence, responses[sequence.trace_id], of_trace.get(sequence.trace_id, []))
        for position, expression in parsed:
            for step, first, last in _SPANS[expression.anchor](text):
                moved = last + expression.offset
                if 0 <= moved < len(sequence.token_ids):
                    first = min(first, moved)
                    end = text.character(moved)
                    places.append(Place(number, position, step, first, moved, end, expression.mean))
    return places


# ---------------------------------------------------------------- one trace


@dataclass(frozen=True)
class _Text:
    """One trace: its tokens, its response and its steps."""

    sequence: TokenisedTrace
    response: str
    steps: Sequence[dict[str, Any]]

    @property
    def start(self) -> int:
        """Token of the response's beginning."""
        return self.sequence.prompt_length

    def character(self, token: int) -> int:
        """Where a token ends in the response, 0 in the prompt."""
        return 0 if token < self.start else self.sequence.spans[token - self.start][1]

    def before(self, character: int) -> int | None:
        """The last token of the response that ends at or before a character; None where there is none."""
        ended = [t for t, (_, end) in enumerate(self.sequence.spans) if end <= character]
        return self.start + ended[-1] if ended else None

    def tokens(self, step: dict[str, Any]) -> tuple[int, int] | None:
        """First and last token that overlap a step."""
        inside = [t for t, (a, b) in enumerate(self.sequence.spans) if a < step["end"] and b > step["start"] and b > a]
        return (self.start + inside[0], self.start + inside[-1]) if inside else None


#: (step, first token, last token): the span that a row's text is of, its last token the one that is read.
_Span = tuple[int | None, int, int]


def _prompt_end(text: _Text) -> Iterator[_Span]:
    yield None, 0, text.start - 1


def _response_end(text: _Text) -> Iterator[_Span]:
    yield None, text.start, len(text.sequence.token_ids) - 1


def _before_answer(text: _Text) -> Iterator[_Span]:
    begins = answer_start(text.response, text.steps)
    last = text.before(begins) if begins is not None else None
    if last is not None:
        yield None, text.start, last


def _step_start(text: _Text) -> Iterator[_Span]:
    for step in text.steps:
        if (span := text.tokens(step)) is not None:
            yield step["step"], span[0], span[0]


def _step_end(text: _Text) -> Iterator[_Span]:
    for step in text.steps:
        if (span := text.tokens(step)) is not None:
            yield step["step"], *span


def _before_result(text: _Text) -> Iterator[_Span]:
    for step in text.steps:
        span, begins = text.tokens(step), result_start(text.response, step)
        last = text.before(begins) if begins is not None else None
        if span is not None and last is not None:
            yield step["step"], min(span[0], last), last


def _every_token(text: _Text) -> Iterator[_Span]:
    spans = text.sequence.spans
    for t, (start, end) in enumerate(spans):
        last_here = t + 1 == len(spans) or spans[t + 1][1] > end  # of tokens that end at one character, the last
        if end > start and last_here:
            inside = [s["step"] for s in text.steps if start < s["end"] and end > s["start"]]
            yield inside[0] if inside else None, text.start + t, text.start + t


_SPANS: dict[str, Callable[[_Text], Iterator[_Span]]] = {
    "prompt_end": _prompt_end,
    "step_start": _step_start,
    "step_end": _step_end,
    "before_result": _before_result,
    "before_answer": _before_answer,
    "response_end": _response_end,
    "step_mean": _step_end,
    "prompt_mean": _prompt_end,
    "response_mean": _response_end,
    "every_token": _every_token,
}


def answer_start(response: str, steps: Sequence[dict[str, Any]]) -> int | None:
    r"""The character at which the final answer begins: inside the last \boxed{, else the last conclusion's start."""
    boxes = list(_BOX.finditer(response))
    if boxes:
        return boxes[-1].end()
    conclusions = [step["start"] for step in steps if step["kind"] == "conclusion"]
    return conclusions[-1] if conclusions else None


def result_start(response: str, step: dict[str, Any]) -> int | None:
    """The character at which a step's result begins, its sign included; None where the step computes nothing.

    "A +1 13" → at "13"; "3 × 4 = 12 apples" → at "12". A step that holds its only number first has no result.
    """
    if step["value"] is None:
        return None
    text = response[step["start"] : step["end"]]
    behind = text.rfind("=") + 1
    numbers = list(_NUMBER.finditer(text))
    after = [n for n in numbers if n.start() >= behind]
    if not after:
        return None
    number = after[0] if behind else after[-1]
    sign = _SIGN.search(text[behind : number.start()])
    negative = sign is not None and sign[0].strip() in ("-", "−") and (behind > 0 or step["value"] < 0)
    begins = behind + sign.start() if negative and sign is not None else number.start()
    return step["start"] + begins if begins > 0 else None
