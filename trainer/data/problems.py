"""PROBLEMS and CURATED → what a round of RL asks, with the teacher's traces of each problem beside it."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
from transformers import PreTrainedTokenizerBase

from tracekit.core.tables import CURATED, PROBLEMS
from trainer.data.sequences import encode_curated, encode_problems, read_input
from trainer.settings import TrainSettings


class ProblemError(ValueError):
    """The problems of a run cannot be used: the message says what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A teacher's trace of a problem. token_ids: the response's, EOS at the end. log_probs: its author's own."""

    trace_id: str
    response: str
    token_ids: Sequence[int]
    log_probs: Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Problem:
    """One problem: its prompt as tokens, and the traces that CURATED calls correct (not yet verified here).

    think_open: whether the prompt ends inside a think block that it opened. columns: the problem's row of the table,
    further columns too, as a reward function gets them.
    """

    problem_id: str
    text: str
    gold: str
    prompt_ids: Sequence[int]
    traces: tuple[Trace, ...] = ()
    think_open: bool = False
    columns: Mapping[str, Any] = field(default_factory=dict)


def load_problems(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> tuple[list[Problem], Counter[str]]:
    """The problems of `data.problems`, and what was left out and why. Raises ProblemError where none is left."""
    assert settings.data.problems is not None  # TrainSettings holds this for every policy method
    table = read_input(settings.data.problems, PROBLEMS, "problems")
    table = table.hstack(_further_columns(settings.data.problems))
    table = table.unique("problem_id", keep="first", maintain_order=True)
    encoded = encode_problems(table["problem"].to_list(), tokenizer, settings.data)
    traces, skipped = _load_traces(settings, tokenizer)
    problems = []
    for row, index, think_open in zip(encoded.rows, encoded.origin, encoded.think_open):
        found = table.row(index, named=True)
        own = traces.get(found["problem_id"], ())
        problems.append(
            Problem(found["problem_id"], found["problem"], found["gold"], row.token_ids, tuple(own), think_open, found)
        )
    skipped += encoded.skipped
    if not problems:
        raise ProblemError(f"{settings.data.problems} holds no problem within the limits; left out: {dict(skipped)}.")
    if settings.needs_traces and not any(problem.traces for problem in problems):
        raise ProblemError(
            f"no problem of {settings.data.problems} has a correct trace in {settings.data.curated}; "
            "are the two tables of the same problems (problem_id)?"
        )
    return problems, skipped


def _further_columns(path: Path) -> pl.DataFrame:
    """The columns of a problems table beyond its schema."""
    names = [name for name in pl.read_parquet_schema(path) if name not in PROBLEMS]
    return pl.read_parquet(path, columns=names) if names else pl.DataFrame()


def _load_traces(
    settings: TrainSettings, tokenizer: PreTrainedTokenizerBase
) -> tuple[dict[str, list[Trace]], Counter[str]]:
    traces: dict[str, list[Trace]] = {}
    if not settings.needs_traces or settings.data.curated is None:
        return traces, Counter()
    curated = read_input(settings.data.curated, CURATED, "curated").filter(pl.col("correct"))
    recorded = settings.teacher.probability == "recorded"
    encoded = encode_curated(curated, tokenizer, settings.data, recorded=recorded)
    for row, index in zip(encoded.rows, encoded.origin):
        found = curated.row(index, named=True)
        trace = Trace(found["trace_id"], found["response"], row.token_ids[row.prompt_length :], row.recorded_log_probs)
        traces.setdefault(found["problem_id"], []).append(trace)
    return traces, encoded.skipped


def endless_order(count: int, seed: int, start: int) -> Iterator[int]:
    """Problem numbers from place `start` of an endless sequence: one seeded permutation of `count` after another.

    A pure function of its arguments, so that the place alone has to be saved.
    """
    epoch, place = divmod(start, count)
    while True:
        order = list(range(count))
        random.Random(f"problems/{seed}/{epoch}").shuffle(order)
        yield from islice(order, place, None)
        epoch, place = epoch + 1, 0
