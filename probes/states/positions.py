"""Traces as token ids, with the characters that each token stands for.

Prompt and response are tokenised apart, as they are when a policy is sampled, so every model of one
tokenizer meets identical token ids. Steps are spans of characters; a step's tokens are those that overlap it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from probes.states.places import PositionError, TokenisedTrace
from tracekit.core.models import ModelError, open_tokenizer
from tracekit.core.prompts import AS_IT_COMES, PromptError, PromptSettings, make_prompts, opened_characters
from tracekit.core.tables import TableError


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
