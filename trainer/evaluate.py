"""A checkpoint × problems → completions with verdicts, and what they say of it: greedy, pass@k, majority vote."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import polars as pl
import torch
from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from transformers import PreTrainedTokenizerBase

from evaluators.metrics import Estimate, majority_at_k, pass_at_k
from evaluators.rewards import reward_of
from evaluators.verdict import Outcome, Policy, Verdict
from tracekit.core.models import generation_ends
from tracekit.core.prompts import AS_IT_COMES, PromptSettings, decode_responses, read_prompt_settings
from tracekit.core.runs import Progress, no_progress, start_run
from tracekit.core.settings import Settings
from tracekit.core.tables import COMPLETIONS, PROBLEMS, check, read_table, write_table
from trainer.data.problems import Problem
from trainer.data.sequences import encode_problems, response_ends
from trainer.loops.checkpoint import FINAL
from trainer.loops.run_state import resolve_device
from trainer.modeling.models import load_tokenizer
from trainer.rollouts.engines.open import engine_of
from trainer.rollouts.engines.protocol import Engine, Rollout, Sampling
from trainer.rollouts.rewards import verify_responses
from trainer.rollouts.rollout import seed_of
from trainer.settings import ENGINE_CONNECTION, DataSettings, EngineSettings

COMPLETIONS_FILE = "completions.parquet"
SUMMARY_FILE = "summary.parquet"

logger = logging.getLogger(__name__)


class EvaluateError(ValueError):
    """An evaluation cannot be made: the message says what was found and what to do."""


class EvaluateSettings(Settings):
    """Settings of an evaluation; docs/settings.md lists each field.

    Examples
    --------
    >>> from trainer import EvaluateSettings
    >>> EvaluateSettings(temperatures=(0.0, 0.6), samples=4).samples_at(0.6)
    4
    """

    name: str | None = Field(
        None, description="the model's name in the tables; None: that of its folder, or of its run above `final`"
    )
    temperatures: tuple[NonNegativeFloat, ...] = Field(
        (0.0, 1.0), description="sampling temperatures; 0 is greedy and takes one sample a problem"
    )
    samples: PositiveInt = Field(8, description="samples a problem at each temperature above 0")
    max_tokens: PositiveInt = Field(
        8192, description="greatest length of a response in tokens, the end of sequence counted"
    )
    top_p: PositiveFloat = Field(
        default=1.0,
        le=1.0,
        description="nucleus sampling: least total probability of the tokens that are sampled from, in (0, 1]",
    )
    top_k: NonNegativeInt = Field(0, description="sample from the k likeliest tokens; 0: from all")
    seed: NonNegativeInt = Field(0, description="seed of the samples")
    prompt_tokens: PositiveInt = Field(
        1024, description="greatest length of a prompt in tokens; longer ones are skipped and counted"
    )
    system_prompt: str | None = Field(
        None, description="first message of every prompt; not given: as the model's folder says (prompt_settings.json)"
    )
    chat_template: bool = Field(
        True,
        description=(
            "use the tokenizer's chat template; false: the problem's plain text; not given: as the model's folder says"
        ),
    )
    template_arguments: dict[str, Any] = Field(
        default_factory=dict, description="names that the chat template reads; not given: as the model's folder says"
    )
    engine: EngineSettings = Field(
        EngineSettings(), description='the generation engine; engine = "vllm" is short for engine.kind'
    )
    problems_per_part: PositiveInt = Field(
        128, description="problems between two writes to disk: the most that a kill can cost"
    )
    verifier_seconds: PositiveFloat = Field(2.0, description="CPU seconds of one comparison's symbolic parts")
    device: str = Field("auto", description="device of the embedded engine")
    attention: Literal["sdpa", "eager", "flash_attention_2"] = Field(
        "sdpa", description="attention of the embedded engine"
    )
    dtype: str = Field(
        default="float32",
        pattern="^(float32|bfloat16)$",
        description="number format of the weights: float32 or bfloat16",
    )
    threads: PositiveInt | None = Field(None, description="CPU threads; None: as torch decides")
    trust_remote_code: bool = Field(False, description="run code that the model folder contains")

    def prompts(self, model: str | Path) -> DataSettings:
        """How problems become prompts, in the trainer's own words: as given here, else as the model was trained."""
        trained = read_prompt_settings(model) or AS_IT_COMES
        given = {name: getattr(self, name) for name in PromptSettings.model_fields if name in self.model_fields_set}
        for name, value in given.items():
            if value != getattr(trained, name):
                logger.warning(
                    "%s is %r here and %r in %s: prompts differ from those of its training",
                    name,
                    value,
                    getattr(trained, name),
                    model,
                )
        return DataSettings(
            **(trained.model_dump() | given),
            prompt_tokens=self.prompt_tokens,
            response_tokens=self.max_tokens,
        )

    def samples_at(self, temperature: float) -> int:
        """Completions of a problem at a temperature."""
        return 1 if temperature == 0 else self.samples


def evaluate_model(
    model: str | Path,
    problems: pl.DataFrame,
    settings: EvaluateSettings,
    folder: str | Path,
    progress: Progress = no_progress,
    engine: Engine | None = None,
) -> pl.DataFrame:
    """Sample and verify completions of every problem at every temperature.

    After a kill the same call continues, and a finished evaluation is read.

    Parameters
    ----------
    model : str or Path
        A Hugging Face folder or hub name.
    problems : polars.DataFrame
        PROBLEMS.
    settings : EvaluateSettings
        Temperatures, samples, lengths and the engine.
    folder : str or Path
        Takes run.json, parts as they are done, completions.parquet and summary.parquet.
    progress : callable, optional
        Called as progress(stage, done, total, note).
    engine : Engine, optional
        Used in place of that of the settings; it must hold the model's weights, the tokenizer is the model's.

    Returns
    -------
    polars.DataFrame
        COMPLETIONS: one row a sample, with its verdict.

    Raises
    ------
    EvaluateError
        Where the model or the problems cannot be used.
    RunError
        Where the folder holds another evaluation.
    ServerError
        Where a server of `engine.urls` is not there or holds another model.

    Examples
    --------
    >>> import polars as pl
    >>> from trainer import EvaluateSettings, evaluate_model
    >>> problems = pl.read_parquet("runs/mine/problems.parquet")  # doctest: +SKIP
    >>> evaluate_model("model", problems, EvaluateSettings(samples=4), "runs/evaluation")  # doctest: +SKIP
    """
    folder, problems = Path(folder), check(problems, PROBLEMS, "problems")
    if problems.is_empty():
        raise EvaluateError("the problems table has no row; there is nothing to ask.")
    inputs = {"problems": _digest_of(problems), "model": model_digest(model)}
    if read_prompt_settings(model) is not None:
        inputs["prompt"] = settings.prompts(model).prompt.model_dump_json()
    writes = (COMPLETIONS_FILE, SUMMARY_FILE, "parts", "weights")
    start_run(folder, settings, seed=settings.seed, inputs=inputs, may_differ=ENGINE_CONNECTION, writes=writes)
    done = folder / COMPLETIONS_FILE
    if done.exists():
        return read_table(done, COMPLETIONS, "completions")
    asker = Asker.open(model, settings, engine, folder / "weights")
    try:
        completions = asker.ask_all(problems, folder, progress)
    finally:
        if engine is None:
            asker.engine.close()
    write_table(summarise(completions), folder / SUMMARY_FILE)
    write_table(completions, done, COMPLETIONS)
    return completions


class Asker:
    """A model with its tokenizer, ready to be asked."""

    def __init__(
        self,
        name: str,
        engine: Engine,
        tokenizer: PreTrainedTokenizerBase,
        settings: EvaluateSettings,
        prompts: DataSettings,
        ends: tuple[int, ...],
    ) -> None:
        self.name, self.engine, self.tokenizer, self.settings = name, engine, tokenizer, settings
        self.prompts, self.ends = prompts, ends
        self.policy = Policy(deadline_seconds=settings.verifier_seconds)

    @classmethod
    def open(cls, model: str | Path, settings: EvaluateSettings, engine: Engine | None, exchange: Path) -> Asker:
        """Load the tokenizer, and the model into the engine of the settings unless one is given.

        exchange: a folder through which the weights go where the engine is a server.
        """
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        tokenizer = load_tokenizer(model, trust_remote_code=settings.trust_remote_code)
        if engine is None:
            engine = engine_of(
                model,
                tokenizer,
                settings.engine,
                max_length=settings.prompt_tokens + settings.max_tokens,
                dtype=settings.dtype,
                device=resolve_device(settings.device),
                trust_remote_code=settings.trust_remote_code,
                exchange=exchange,
                attention=settings.attention,
            )
        prompts = settings.prompts(model)
        ends = response_ends(tokenizer, prompts, generation_ends(model))
        return cls(settings.name or name_of(model), engine, tokenizer, settings, prompts, ends)

    def ask_all(self, problems: pl.DataFrame, folder: Path, progress: Progress) -> pl.DataFrame:
        """COMPLETIONS of all problems at all temperatures, part by part; parts that stand in the folder are read."""
        settings = self.settings
        asked, skipped = self.within_limits(problems)
        if skipped:
            logger.warning("%d problems skipped: prompt over %d tokens", skipped.total(), settings.prompt_tokens)
        parts, total = [], sum(len(asked) * settings.samples_at(t) for t in settings.temperatures)
        for temperature in settings.temperatures:
            for start in range(0, len(asked), settings.problems_per_part):
                path = folder / "parts" / f"temperature-{temperature:g}" / f"{start:06d}.parquet"
                if not path.exists():
                    chosen = asked[start : start + settings.problems_per_part]
                    write_table(self.ask(chosen, temperature, start), path, COMPLETIONS)
                parts.append(read_table(path, COMPLETIONS, "completions"))
                right = sum(part["outcome"].eq(Outcome.CORRECT).sum() for part in parts)
                progress("evaluate", sum(map(len, parts)), total, f"{self.name}  right {right}")
        return check(pl.concat(parts), COMPLETIONS, "completions")

    def within_limits(self, problems: pl.DataFrame) -> tuple[pl.DataFrame, Counter[str]]:
        """The problems whose prompts are within the limit, and the others counted. EvaluateError where none is."""
        encoded = encode_problems(problems["problem"].to_list(), self.tokenizer, self.prompts)
        if not encoded.origin:
            raise EvaluateError(f"every prompt is over {self.settings.prompt_tokens} tokens; raise prompt_tokens.")
        return problems[encoded.origin], encoded.skipped

    def ask(self, problems: pl.DataFrame, temperature: float, place: int) -> pl.DataFrame:
        """COMPLETIONS of these problems at one temperature. place: of the first among all, for the seed."""
        settings = self.settings
        prompts = encode_problems(problems["problem"].to_list(), self.tokenizer, self.prompts)
        sampling = Sampling(
            max_tokens=settings.max_tokens,
            stop_token_ids=self.ends,
            temperature=temperature,
            top_p=settings.top_p,
            top_k=settings.top_k,
            seed=seed_of(f"evaluate/{settings.seed}/{temperature}/{place}"),
        )
        rollouts = self.engine.generate(
            [row.token_ids for row in prompts.rows], settings.samples_at(temperature), sampling
        )
        responses = decode_responses(self.tokenizer, [rollout.token_ids for own in rollouts for rollout in own])
        asked = [
            Problem(row["problem_id"], row["problem"], row["gold"], prompt.token_ids, think_open=think_open)
            for row, prompt, think_open in zip(problems.iter_rows(named=True), prompts.rows, prompts.think_open)
        ]
        answered = [problem for problem, own in zip(asked, rollouts) for _ in own]
        verdicts = verify_responses(responses, answered, self.policy)
        return self._table(problems, temperature, rollouts, responses, verdicts)

    def _table(
        self,
        problems: pl.DataFrame,
        temperature: float,
        rollouts: Sequence[Sequence[Rollout]],
        responses: Iterable[str],
        verdicts: Iterable[Verdict],
    ) -> pl.DataFrame:
        judged = iter(zip(responses, verdicts))
        rows = []
        for problem, own in zip(problems.iter_rows(named=True), rollouts):
            for sample, rollout in enumerate(own):
                response, verdict = next(judged)
                rows.append(
                    {
                        "problem_id": problem["problem_id"],
                        "model": self.name,
                        "sample": sample,
                        "temperature": temperature,
                        "on_policy": True,
                        "problem": problem["problem"],
                        "gold": problem["gold"],
                        "response": response,
                        "token_count": len(rollout.token_ids),
                        "finish_reason": rollout.finish_reason,
                        "outcome": str(verdict.outcome),
                        "prediction": verdict.prediction,
                        "reward": reward_of(verdict),
                    }
                )
        return pl.DataFrame(rows, schema=COMPLETIONS)


def summarise(completions: pl.DataFrame, confidence: float = 0.95) -> pl.DataFrame:
    """Greedy accuracy, pass@k and maj@k of each model and temperature, with bootstrap intervals over problems.

    k: 1 and the powers of two up to the samples of a problem, and that number itself. Columns: model,
    temperature, metric ("greedy", "pass", "majority"), k, value, low, high in [0, 1], problems, unknown (samples whose
    verdict says nothing), left_out (problems with fewer than k known samples), tokens (mean of a response), cut
    (share of responses that reached the limit).
    """
    completions = check(completions, COMPLETIONS, "completions")
    rows = []
    for (model, temperature), part in completions.group_by(["model", "temperature"], maintain_order=True):
        verdicts = [
            [_verdict(*sample) for sample in own.select("outcome", "prediction", "gold").iter_rows()]
            for _, own in part.group_by("problem_id", maintain_order=True)
        ]
        about = {
            "model": model,
            "temperature": temperature,
            "tokens": part["token_count"].mean(),
            "cut": part["finish_reason"].eq("length").mean(),
        }
        for metric, k, estimate in _estimates(verdicts, temperature == 0, confidence):
            rows.append({**about, "metric": metric, "k": k, **_columns(estimate)})
    return pl.DataFrame(rows, schema=SUMMARY)


SUMMARY = {
    "model": pl.String,
    "temperature": pl.Float32,
    "metric": pl.String,
    "k": pl.Int32,
    "value": pl.Float64,
    "low": pl.Float64,
    "high": pl.Float64,
    "problems": pl.Int32,
    "unknown": pl.Int32,
    "left_out": pl.Int32,
    "tokens": pl.Float64,
    "cut": pl.Float64,
}


def _estimates(
    verdicts: Sequence[Sequence[Verdict]], greedy: bool, confidence: float
) -> Iterable[tuple[str, int, Estimate]]:
    fewest = min(map(len, verdicts))
    if greedy:
        yield "greedy", 1, pass_at_k(verdicts, 1, confidence=confidence)
        return
    ks = sorted({1, fewest} | {1 << power for power in range(1, fewest.bit_length()) if 1 << power <= fewest})
    for k in ks:
        yield "pass", k, pass_at_k(verdicts, k, confidence=confidence)
    for k in ks:
        if k > 2:  # a vote of two is a draw or a pair
            yield "majority", k, majority_at_k(verdicts, k, confidence=confidence)


def _columns(estimate: Estimate) -> dict[str, float]:
    return {name: getattr(estimate, name) for name in ("value", "low", "high", "problems", "unknown", "left_out")}


def _verdict(outcome: str, prediction: str | None, gold: str) -> Verdict:
    return Verdict(Outcome(outcome), prediction, gold, "", "")


def name_of(model: str | Path) -> str:
    """How a model is called in the tables: its folder's name, the run's for its `final` folder."""
    path = Path(model)
    return path.parent.name if path.name == FINAL and path.parent.name else path.name


def model_digest(model: str | Path) -> str:
    """A digest of the weights of a model folder; a hub name is its own."""
    folder = Path(model)
    if not folder.is_dir():
        return str(model)
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        raise EvaluateError(f"{folder} holds no safetensors weights; expected a Hugging Face model folder.")
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    return digest.hexdigest()


def _digest_of(problems: pl.DataFrame) -> str:
    rows = "\x1e".join(
        "\x1f".join(map(str, row)) for row in problems.select("problem_id", "problem", "gold").iter_rows()
    )
    return hashlib.blake2b(rows.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
