"""Traces from a teacher, asked over HTTP or in process.

Every answer is on disk before the next is counted: `requests.jsonl` takes one line an answer and is never
rewritten. A collection that was killed goes on from there. Only what was in flight then is asked again.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Annotated, Any, Protocol

import polars as pl
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from tracekit.collection.openai_client import (
    Chat,
    CollectError,
    ExhaustedError,
    RefusedError,
    Server,
    connect,
)
from tracekit.collection.replies import MOST_TOKENS, Generation
from tracekit.core.ids import content_id, trace_id
from tracekit.core.runs import Progress, no_progress, start_run
from tracekit.core.settings import Settings
from tracekit.core.tables import PROBLEMS, TRACES, Schema, check, write_table

LEDGER_FILE = "requests.jsonl"
#: What a collection writes in its folder, by name.
WRITES = ("requests.*", "problems.parquet", "answers.parquet", "traces.parquet", "weights")

#: One row an answer, beside TRACES: what it cost.
ANSWERS: Schema = {
    "trace_id": pl.String,
    "problem_id": pl.String,
    "sample": pl.Int32,
    "finish_reason": pl.String,
    "prompt_tokens": pl.Int32,
    "token_count": pl.Int32,
    "seconds": pl.Float64,
}

#: After so many requests in a row ran out of retries, the server is taken to be down.
DOWN_AFTER = 10


class Question(Settings):
    """The request: what an answer depends on. It cannot change within one collection."""

    model: str = Field("teacher", description="the model's name on the server; it becomes the traces' author")
    system_prompt: str = Field("", description="first message; empty: none")
    temperature: float = Field(0.6, ge=0, description="sampling temperature")
    top_p: float = Field(
        0.95, gt=0, le=1, description="nucleus sampling: least total probability of the tokens that are sampled from"
    )
    max_tokens: int = Field(16384, ge=1, description="greatest length of an answer in tokens")
    seed: int = Field(0, description="the k-th sample of a problem has a seed made of this one, the problem's id and k")
    log_probs: bool = Field(True, description="keep the teacher's log-probabilities")
    extra: dict[str, Any] = Field(default_factory=dict, description="further fields of the request, as { top_k = 20 }")


class CollectSettings(Settings):
    """Settings of a collection; docs/settings.md lists each field.

    Examples
    --------
    >>> from tracekit import CollectSettings
    >>> CollectSettings(samples=4).question.temperature
    0.6
    """

    problems: Path = Field(
        Path("problems.parquet"), description="a PROBLEMS table, or problems in any layout that `curate` reads"
    )
    output: Path = Field(
        Path("runs/collection"),
        description="folder of problems, traces and answers (.parquet) and of the request ledger",
    )
    samples: int = Field(1, ge=1, description="answers a problem; a run can be continued with a greater number")
    question: Question = Field(Question(), description="the request")
    server: Server = Field(Server(), description="the server and how it is called")
    price_in: float = Field(
        0.0,
        ge=0,
        description="price of a million input tokens, in any one currency; used for the cost that progress shows",
    )
    price_out: float = Field(0.0, ge=0, description="price of a million output tokens, in the same currency")


class Generate(Protocol):
    """An engine in process: answers to problems, in their order. The caller of `collect` provides it."""

    def __call__(
        self, problems: Sequence[str], question: Question, seeds: Sequence[int]
    ) -> Sequence[Generation | RefusedError]:
        """One answer a problem, or why it cannot be asked; the i-th is drawn with seeds[i]."""
        ...


@dataclass(frozen=True, slots=True)
class Collected:
    """What a collection came to: answers in all and of this call, refused and failed requests, tokens, cost.

    bad_lines: lines of the request log that could not be used; they stand in requests.rejected.jsonl and were asked
    again.
    """

    folder: Path
    answers: int
    asked: int
    refused: int
    failed: int
    retried: int
    prompt_tokens: int
    tokens: int
    cost: float
    bad_lines: int = 0


def collect(
    settings: CollectSettings,
    problems: pl.DataFrame,
    *,
    generate: Generate | None = None,
    batch: int = 64,
    inputs: dict[str, str] | None = None,
    progress: Progress = no_progress,
) -> Collected:
    """Request what is missing of `settings.samples` answers to each problem, and write the tables.

    Parameters
    ----------
    settings : CollectSettings
        The request, the server, and the folder.
    problems : polars.DataFrame
        PROBLEMS.
    generate : callable, optional
        An engine in this process, called with `batch` problems at a time; None: the server of the settings.
    batch : int
        Problems of one call of `generate`.
    inputs : dict, optional
        Name → digest of whatever else an answer depends on, such as an engine's model. It cannot change within one
        collection.
    progress : callable, optional
        Called as progress(stage, done, total, note).

    Returns
    -------
    Collected
        Counts of answers, refusals, failures and tokens, and the cost.

    Raises
    ------
    CollectError
        Where the server cannot be used; what was answered until then is kept.

    Examples
    --------
    >>> import polars as pl
    >>> from tracekit import PROBLEMS, CollectSettings, collect
    >>> row = {"problem_id": "p1", "problem": "1 + 1 = ?", "gold": "2", "source": "mine", "split": "train", "kind": ""}
    >>> problems = pl.DataFrame([{**row, "level": None}], schema=PROBLEMS)
    >>> settings = CollectSettings(output="runs/asked", server={"base_url": "http://127.0.0.1:8000/v1"})
    >>> collect(settings, problems).answers  # doctest: +SKIP
    1
    """
    problems = check(problems, PROBLEMS, "problems")
    seed = settings.question.seed
    folder = start_run(settings.output, settings.question, seed=seed, inputs=inputs, writes=WRITES)
    with _Ledger(folder / LEDGER_FILE) as ledger:
        meter = _Meter(settings, ledger, problems.height * settings.samples, progress)
        todo = [
            (problem, text, sample)
            for sample in range(settings.samples)
            for problem, text in problems.select("problem_id", "problem").iter_rows()
            if (problem, sample) not in ledger.known
        ]
        meter.show()
        try:
            if generate is None:
                asyncio.run(_ask_server(settings, todo, meter))
            else:
                _ask_engine(settings.question, todo, generate, batch, meter)
        finally:
            answers = publish(folder, settings.question.model, problems)
    return meter.total(folder, answers)


def publish(folder: Path, model: str, problems: pl.DataFrame) -> int:
    """Write problems, traces and answers from the request ledger, in the order of problem and sample."""
    place = {name: at for at, name in enumerate(problems["problem_id"])}
    found = [one for one in _lines(folder / LEDGER_FILE) if "response" in one and one["problem_id"] in place]
    found.sort(key=lambda one: (place[one["problem_id"]], one["sample"]))
    copies: Counter[str] = Counter()
    traces, answers = [], []
    for one in found:
        name = trace_id(one["problem_id"], model, one["response"])
        copies[name] += 1
        if copies[name] > 1:  # the same words twice are two traces
            name = content_id(name, str(copies[name]))
        traces.append(
            (name, one["problem_id"], model, one["response"], one["token_count"], one["token_log_probs"], None)
        )
        answers.append((name, *(one[column] for column in list(ANSWERS)[1:])))
    write_table(problems, folder / "problems.parquet", PROBLEMS)
    write_table(pl.DataFrame(answers, schema=ANSWERS, orient="row"), folder / "answers.parquet", ANSWERS)
    write_table(pl.DataFrame(traces, schema=TRACES, orient="row"), folder / "traces.parquet", TRACES)
    return len(traces)


def seed_of(question: Question, problem_id: str, sample: int) -> int:
    """The seed of one sample: 31 bits of a hash, so that neither order nor concurrency matters."""
    return int(content_id("seed", str(question.seed), problem_id, str(sample)), 16) & 0x7FFFFFFF


async def _ask_server(settings: CollectSettings, todo: list[tuple[str, str, int]], meter: _Meter) -> None:
    queue = iter(todo)
    async with connect(settings.server) as client:
        chat = Chat(settings.server, client)

        async def work() -> None:
            for problem, text, sample in queue:  # shared: each takes the next
                began = time.perf_counter()
                try:
                    generation = await chat.ask(
                        _body(settings.question, text, seed_of(settings.question, problem, sample))
                    )
                except RefusedError as error:
                    meter.refuse(problem, sample, str(error))
                except ExhaustedError as error:
                    meter.fail(str(error))
                else:
                    meter.answer(problem, sample, generation, time.perf_counter() - began)
                meter.retried = chat.retried

        workers = [asyncio.create_task(work()) for _ in range(min(settings.server.concurrency, len(todo)))]
        try:
            await asyncio.gather(*workers)
        finally:
            for worker in workers:
                worker.cancel()
            await asyncio.gather(*workers, return_exceptions=True)


def _ask_engine(
    question: Question, todo: list[tuple[str, str, int]], generate: Generate, batch: int, meter: _Meter
) -> None:
    for start in range(0, len(todo), batch):
        part = todo[start : start + batch]
        began = time.perf_counter()
        seeds = [seed_of(question, problem, sample) for problem, _, sample in part]
        generations = generate([text for _, text, _ in part], question, seeds)
        seconds = (time.perf_counter() - began) / len(part)
        for (problem, _, sample), generation in zip(part, generations, strict=True):
            if isinstance(generation, RefusedError):
                meter.refuse(problem, sample, str(generation))
            else:
                meter.answer(problem, sample, generation, seconds)


def _body(question: Question, problem: str, seed: int) -> dict[str, Any]:
    system = [{"role": "system", "content": question.system_prompt}] if question.system_prompt else []
    return {
        "model": question.model,
        "messages": [*system, {"role": "user", "content": problem}],
        "temperature": question.temperature,
        "top_p": question.top_p,
        "max_tokens": question.max_tokens,
        "seed": seed,
        "n": 1,
        **({"logprobs": True} if question.log_probs else {}),
        **question.extra,
    }


class _Ledger:
    """`requests.jsonl`, open for one process: a line an answer or refusal, on disk before it counts."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Ledger:
        self._file: IO[bytes] = self._path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self._file.close()
            raise CollectError(
                f"{self._path} is being written by another collection; wait for it or stop it."
            ) from error
        _cut_torn_line(self._file)
        self.bad_lines = _set_aside(self._path)
        self.known: set[tuple[str, int]] = set()
        self.prompt_tokens = self.tokens = 0
        for line in _lines(self._path):
            self._count(line)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, line: dict[str, Any]) -> None:
        written = json.dumps(line, ensure_ascii=False).encode() + b"\n"
        if read_line(written) is None:  # what is written must be readable, or it would be paid for again and again
            raise CollectError(
                f"an answer to problem {line['problem_id']} does not fit the request log; nothing written"
            )
        self._file.write(written)
        self._file.flush()
        os.fsync(self._file.fileno())
        self._count(line)

    def _count(self, line: dict[str, Any]) -> None:
        if "response" not in line:  # refused: costs nothing, and another run may be served
            return
        self.known.add((line["problem_id"], line["sample"]))
        self.prompt_tokens += line["prompt_tokens"] or 0
        self.tokens += line["token_count"] or 0


def _cut_torn_line(file: IO[bytes]) -> None:
    """A kill in the middle of a write leaves a line without its end: that answer never counted."""
    file.seek(0)
    data_end = whole_end = 0
    for line in file:
        data_end += len(line)
        if line.endswith(b"\n"):
            whole_end = data_end
    if whole_end < data_end:
        file.truncate(whole_end)
    file.seek(0, os.SEEK_END)


def _lines(path: Path) -> Iterator[dict[str, Any]]:
    """The lines that are an answer or a refusal; the first of each sample. What is none is passed over."""
    seen: set[tuple[str, int]] = set()
    for line in _raw_lines(path):
        one = read_line(line)
        if one is None:
            continue
        sample = (one["problem_id"], one["sample"])
        if "response" in one:
            if sample in seen:
                continue
            seen.add(sample)
        yield one


def _raw_lines(path: Path) -> Iterator[bytes]:
    if path.exists():
        with path.open("rb") as file:
            yield from file


def read_line(line: bytes) -> dict[str, Any] | None:
    """A line of the request log; None where it is damaged or holds what no table can take."""
    try:
        return _LINE.validate_json(line).model_dump(exclude_unset=True)
    except ValidationError:
        return None


class _Answered(BaseModel):
    """A line of an answer."""

    model_config = ConfigDict(strict=True, extra="ignore")
    problem_id: str
    sample: int = Field(ge=0, lt=2**31)
    seconds: float = Field(ge=0, allow_inf_nan=False)
    response: str
    token_log_probs: list[Annotated[float, Field(allow_inf_nan=False)]] | None
    token_count: int | None = Field(ge=0, le=MOST_TOKENS)
    finish_reason: str
    prompt_tokens: int | None = Field(ge=0, le=MOST_TOKENS)


class _Refused(BaseModel):
    """A line of a refusal."""

    model_config = ConfigDict(strict=True, extra="forbid")
    problem_id: str
    sample: int = Field(ge=0, lt=2**31)
    refused: str


_LINE: TypeAdapter[_Answered | _Refused] = TypeAdapter(_Answered | _Refused)


def _set_aside(path: Path) -> int:
    """Write the lines that cannot be used beside the log, and count them; the log itself is never rewritten."""
    bad = [line for line in _raw_lines(path) if read_line(line) is None]
    aside = path.with_suffix(".rejected.jsonl")
    if bad:
        aside.write_bytes(b"".join(bad))
    else:
        aside.unlink(missing_ok=True)
    return len(bad)


class _Meter:
    """Counts, tells progress, and gives up where the server is down."""

    def __init__(self, settings: CollectSettings, ledger: _Ledger, wanted: int, progress: Progress) -> None:
        self._settings, self._ledger, self._wanted, self._progress = settings, ledger, wanted, progress
        self._began = time.perf_counter()
        self._tokens_before = ledger.tokens
        self._in_a_row = 0
        self.asked = self.refused = self.failed = self.retried = 0

    def answer(self, problem: str, sample: int, generation: Generation, seconds: float) -> None:
        self._ledger.write(
            {"problem_id": problem, "sample": sample, "seconds": round(seconds, 4), **asdict(generation)}
        )
        self.asked += 1
        self._in_a_row = 0
        self.show()

    def refuse(self, problem: str, sample: int, said: str) -> None:
        self._ledger.write({"problem_id": problem, "sample": sample, "refused": said})
        self.refused += 1
        self.show()

    def fail(self, said: str) -> None:
        self.failed += 1
        self._in_a_row += 1
        if self._in_a_row >= DOWN_AFTER:
            raise CollectError(
                f"{self._settings.server.base_url}: {self._in_a_row} requests in a row failed on every try, the last "
                f"by {said}. Answers so far are kept; run the same command when the server is up."
            )

    def show(self) -> None:
        rate = (self._ledger.tokens - self._tokens_before) / max(time.perf_counter() - self._began, 1e-9)
        note = f"{rate:,.0f} tokens/s"
        if self.cost:
            note += f", cost {self.cost:,.2f}"
        for count, word in ((self.retried, "retried"), (self.refused, "refused"), (self.failed, "failed")):
            note += f", {count} {word}" if count else ""
        self._progress("collect", len(self._ledger.known), self._wanted, note)

    @property
    def cost(self) -> float:
        """Of all answers in the ledger, in the currency of the prices."""
        paid_in, paid_out = self._settings.price_in, self._settings.price_out
        return (self._ledger.prompt_tokens * paid_in + self._ledger.tokens * paid_out) / 1e6

    def total(self, folder: Path, answers: int) -> Collected:
        return Collected(
            folder, answers, self.asked, self.refused, self.failed, self.retried,
            self._ledger.prompt_tokens, self._ledger.tokens, self.cost, self._ledger.bad_lines,
        )  # fmt: skip
