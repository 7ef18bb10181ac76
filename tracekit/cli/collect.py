"""The command `collect`, and a teacher that runs in this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl
from pydantic import Field, PositiveInt
from rich.console import Console

from tracekit.cli.arguments import print_json, recipe_and_settings, split_words, spooled_input
from tracekit.collection.collect import Collected, CollectSettings, Question, collect
from tracekit.collection.openai_client import CollectError, Generation, RefusedError
from tracekit.core.progress import draw_progress
from tracekit.core.runs import Progress
from tracekit.core.settings import Settings, SettingsError, load_settings
from tracekit.reading.files import SUFFIXES
from tracekit.reading.readers import read_problems
from trainer.settings import DataSettings, EngineSettings

if TYPE_CHECKING:  # torch is loaded for a teacher in this process alone
    from trainer.rollouts.engines.protocol import Engine


class TeacherSettings(Settings):
    """A teacher in this process, in place of a server."""

    model: str | None = Field(None, description="a Hugging Face folder or hub name; None: question.model")
    engine: EngineSettings = Field(
        EngineSettings(), description='the generation engine; engine = "vllm" is short for engine.kind'
    )
    batch: PositiveInt = Field(
        64, description="responses generated between two writes to disk: the most that a kill can cost"
    )
    prompt_tokens: PositiveInt = Field(
        1024, description="greatest length of a prompt in tokens; a longer one is refused and counted"
    )
    dtype: Literal["float32", "bfloat16"] = Field("float32", description="number format of the weights")
    device: str = Field("auto", description="device of the embedded engine")
    trust_remote_code: bool = Field(False, description="run code that the model folder contains")


class CommandSettings(CollectSettings):
    """A collection, and the teacher where it is no server."""

    teacher: TeacherSettings | None = Field(None, description="a model in this process; None: the server answers")


def command_collect(
    recipe: Path | None = None, *overrides: str, output: Path | None = None, json: bool = False
) -> None:
    """Ask a teacher for traces: any OpenAI-compatible server, or with teacher.model and teacher.engine a model in this
    process. Interrupted, it goes on and pays for no answer twice.

    The key is read from the environment (OPENAI_API_KEY, or server.key_variable) and never written.

    Example: tracekit collect problems=problems.parquet output=runs/r1 samples=4 question.model=DeepSeek-R1
    server.base_url=http://127.0.0.1:8000/v1

    Parameters
    ----------
    recipe
        A recipe in TOML, or a file of problems in any format that `tracekit curate` reads.
    overrides
        Settings laid over it, as key.sub=value.
    output
        The folder of the collection; the same as output=FOLDER.
    json
        Print one JSON object: folder, answers, tokens, cost, and requests retried, refused and failed.
    """
    given = [str(word) for word in (recipe, *overrides) if word is not None]
    files = [word for word in split_words(given).names if word.endswith(SUFFIXES) or word == "/dev/stdin"]
    if files:
        recipe, overrides = None, (*(word for word in given if word not in files), *_problems_setting(files))
    settings = load_settings(CommandSettings, *recipe_and_settings(recipe, overrides, "tracekit", output))
    with spooled_input(settings.problems) as path:
        problems = read_problems(path)
    with draw_progress() as progress:
        if settings.teacher is None:
            done = collect(settings, problems, progress=progress)
        else:
            done = collect_in_process(settings, settings.teacher, problems, progress)
    if json:
        print_json(asdict(done))
        return
    console = Console()
    console.print(
        f"{done.folder}: {done.answers:,} answers, {done.asked:,} of them new; {done.tokens:,} tokens"
        + (f", cost {done.cost:,.2f}" if done.cost else "")
        + f"; {done.retried} retried, {done.refused} refused, {done.failed} failed",
        soft_wrap=True,
    )
    if done.bad_lines:
        console.print(f"{done.bad_lines} lines of the request log were damaged: see requests.rejected.jsonl.")
    if done.failed:
        console.print(f"{done.failed} requests failed on every try; run the same command to ask them again.")


def _problems_setting(files: list[str]) -> list[str]:
    if len(files) > 1:
        raise SettingsError(f"{files[1]} is a second file of problems; name several as a folder or a glob in quotes.")
    return [f"problems={dumps(files[0])}"]


def collect_in_process(
    settings: CollectSettings, teacher: TeacherSettings, problems: pl.DataFrame, progress: Progress
) -> Collected:
    """A collection whose teacher is a model in this process. Its weights cannot change within one collection."""
    from trainer.evaluate import model_digest

    if teacher.engine.kind == "vllm-server":
        raise CollectError("teacher.engine is vllm-server; a server is asked by server.base_url, without [teacher].")
    model = teacher.model or settings.question.model
    answers = InProcess(model, teacher, settings.output)
    try:
        return collect(
            settings,
            problems,
            generate=answers,
            batch=teacher.batch,
            inputs={"model": model_digest(model)},
            progress=progress,
        )
    finally:
        answers.close()


class InProcess:
    """A `tracekit.collection.collect.Generate`: a model in this process, loaded when it is first asked."""

    def __init__(self, model: str, teacher: TeacherSettings, folder: Path) -> None:
        from trainer.modeling.models import load_tokenizer

        self.model, self.teacher, self.folder = model, teacher, folder
        self.tokenizer = load_tokenizer(model, trust_remote_code=teacher.trust_remote_code)
        self.engine: Engine | None = None

    def __call__(
        self, problems: Sequence[str], question: Question, seeds: Sequence[int]
    ) -> list[Generation | RefusedError]:
        """One answer a problem, drawn with its own seed; a prompt over its limit is refused."""
        from tracekit.core.models import generation_ends
        from tracekit.core.prompts import decode_responses
        from trainer.data.sequences import encode_problems, response_ends
        from trainer.rollouts.engines.protocol import Sampling

        data = DataSettings(
            system_prompt=question.system_prompt or None,
            prompt_tokens=self.teacher.prompt_tokens,
            response_tokens=question.max_tokens,
        )
        asked = encode_problems(list(problems), self.tokenizer, data)
        sampling = Sampling(
            max_tokens=question.max_tokens,
            stop_token_ids=response_ends(self.tokenizer, data, generation_ends(self.model)),
            temperature=question.temperature,
            top_p=question.top_p,
            top_k=_top_k(question),
            seeds=tuple(seeds[place] for place in asked.origin),
        )
        prompts = [row.token_ids for row in asked.rows]
        refusal = RefusedError(f"the prompt is over {self.teacher.prompt_tokens} tokens; raise teacher.prompt_tokens.")
        found: list[Generation | RefusedError] = [refusal] * len(problems)
        for place, prompt, (rollout,) in zip(
            asked.origin, prompts, self._engine(question).generate(prompts, 1, sampling)
        ):
            found[place] = Generation(
                response=decode_responses(self.tokenizer, [rollout.token_ids])[0],
                token_log_probs=rollout.log_probs if question.log_probs else None,
                token_count=len(rollout.token_ids),
                finish_reason=rollout.finish_reason,
                prompt_tokens=len(prompt),
            )
        return found

    def close(self) -> None:
        """Free the model, where it was loaded."""
        if self.engine is not None:
            self.engine.close()

    def _engine(self, question: Question) -> Engine:
        from trainer.loops.run_state import resolve_device
        from trainer.rollouts.engines.open import engine_of

        if self.engine is None:
            self.engine = engine_of(
                self.model,
                self.tokenizer,
                self.teacher.engine,
                max_length=self.teacher.prompt_tokens + question.max_tokens,
                dtype=self.teacher.dtype,
                device=resolve_device(self.teacher.device),
                trust_remote_code=self.teacher.trust_remote_code,
                exchange=self.folder / "weights",
            )
        return self.engine


def _top_k(question: Question) -> int:
    """The one further field of a request that an engine in process knows; 0 keeps every token."""
    unknown = sorted(question.extra.keys() - {"top_k"})
    if unknown:
        raise CollectError(f"question.extra has {', '.join(unknown)}; an engine in process takes top_k alone.")
    return int(question.extra.get("top_k", 0))
