"""Which tokens are read: the prompt's last, each step's last, the one before the answer, the mean over a step.

Prompt and response are tokenised apart, as they are when a policy is sampled, so every model of one
tokenizer meets identical token ids. Steps are spans of characters; a step's tokens are those that overlap it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import polars as pl

from tracekit.core.models import ModelError, open_tokenizer
from tracekit.core.prompts import AS_IT_COMES, PromptError, PromptSettings, make_prompts, opened_characters
from tracekit.core.tables import STEPS, TableError, check

Position = Literal["prompt_end", "step_end", "before_answer", "step_mean"]
POSITIONS: tuple[Position, ...] = get_args(Position)

_BOX = re.compile(r"\\boxed\s*\{\s*")


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
    last token ends in the response; 0 at the end of the prompt.
    """

    sequence: int
    position: Position
    step: int | None
    first: int
    last: int
    character: int


def load_tokenizer(folder: str | Path) -> Any:
    """Open a checkpoint's tokenizer. Raises PositionError where the folder has none."""
    if not Path(folder).is_dir():
        raise PositionError(f"{folder} is no folder; expected a checkpoint with its tokenizer.")
    if not (Path(folder) / "tokenizer_config.json").is_file():
        raise PositionError(f"{folder} has no tokenizer (no tokenizer_config.json); save it beside the weights.")
    try:
        return open_tokenizer(folder)
    except ModelError as error:
        raise PositionError(str(error)) from error


def tokenise(
    tokenizer: Any, traces: pl.DataFrame, prompt_settings: PromptSettings = AS_IT_COMES
) -> list[TokenisedTrace]:
    """The traces (problem_id, trace_id, problem, response) as token ids, in the order of the frame.

    prompt_settings: how prompts are printed; those that the checkpoint was trained with (`read_prompt_settings`).
    A think tag that the prompt opens is not read twice. Raises PositionError.
    """
    for column in ("problem_id", "trace_id", "problem", "response"):
        if column not in traces.columns:
            raise TableError(f"traces has no column {column}; join the problems to the traces first.")
    if not getattr(tokenizer, "is_fast", False):
        raise PositionError("this tokenizer gives no character offsets; save its fast version into the checkpoint.")
    rows = traces.select("problem_id", "trace_id", "problem", "response").rows()
    try:
        prompts = make_prompts(tokenizer, [problem for _, _, problem, _ in rows], prompt_settings)
    except PromptError as error:
        raise PositionError(str(error)) from error
    skipped = [opened_characters(prompt.text, row[3]) for prompt, row in zip(prompts, rows)]
    said = tokenizer(
        [row[3][skip:] for row, skip in zip(rows, skipped)], add_special_tokens=False, return_offsets_mapping=True
    )
    sequences = []
    for row, prompt, response, spans, skip in zip(rows, prompts, said["input_ids"], said["offset_mapping"], skipped):
        if not prompt.token_ids or not response:
            part = "response" if prompt.token_ids else "prompt"
            raise PositionError(f"trace {row[1]}: the {part} has no tokens; drop the trace.")
        moved = [(start + skip, end + skip) for start, end in spans]
        sequences.append(TokenisedTrace(row[0], row[1], [*prompt.token_ids, *response], len(prompt.token_ids), moved))
    return sequences


def place(
    sequences: Sequence[TokenisedTrace], traces: pl.DataFrame, steps: pl.DataFrame, positions: Sequence[Position]
) -> list[Place]:
    """Every row to be read, ordered by trace, then by position as asked, then by step."""
    unknown = [p for p in positions if p not in POSITIONS]
    if unknown or not positions:
        raise PositionError(f"unknown positions {unknown}; choose from {', '.join(POSITIONS)}.")
    steps = check(steps, STEPS, "steps").sort("trace_id", "step")
    of_trace = {key[0]: group.rows(named=True) for key, group in steps.group_by("trace_id")}
    responses = dict(traces.select("trace_id", "response").iter_rows())
    places: list[Place] = []
    for number, sequence in enumerate(sequences):
        own = of_trace.get(sequence.trace_id, [])
        for position in positions:
            places += _places(number, sequence, responses[sequence.trace_id], own, position)
    return places


def _places(number: int, sequence: TokenisedTrace, response: str, steps: list[dict], position: Position) -> list[Place]:
    start = sequence.prompt_length
    if position == "prompt_end":
        return [Place(number, position, None, 0, start - 1, 0)]
    if position == "before_answer":
        begins = answer_start(response, steps)
        before = [t for t, (_, end) in enumerate(sequence.spans) if end <= begins] if begins is not None else []
        if not before:
            return []
        last = before[-1]
        return [Place(number, position, None, start, start + last, sequence.spans[last][1])]
    found = []
    for step in steps:
        inside = [t for t, (a, b) in enumerate(sequence.spans) if a < step["end"] and b > step["start"] and b > a]
        if inside:
            first, last = inside[0], inside[-1]
            found.append(Place(number, position, step["step"], start + first, start + last, sequence.spans[last][1]))
    return found


def answer_start(response: str, steps: Sequence[dict]) -> int | None:
    r"""The character at which the final answer begins: inside the last \boxed{, else the last conclusion's start."""
    boxes = list(_BOX.finditer(response))
    if boxes:
        return boxes[-1].end()
    conclusions = [step["start"] for step in steps if step["kind"] == "conclusion"]
    return conclusions[-1] if conclusions else None
