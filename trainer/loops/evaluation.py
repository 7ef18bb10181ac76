"""Evaluation while a run goes on: named problems at the weights of now, and the best model kept."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
import torch

from evaluators.verdict import Outcome
from tracekit.core.tables import COMPLETIONS, PROBLEMS, write_table
from trainer.data.sequences import pad_id, read_input
from trainer.distributed.fsdp import full_tensors
from trainer.distributed.ranks import rank, world_size
from trainer.evaluate import Asker, EvaluateSettings
from trainer.loops.run_log import Averages, RunLog
from trainer.loops.run_state import Training
from trainer.modeling.models import plain_model
from trainer.rollouts.engines.open import open_engine
from trainer.rollouts.engines.protocol import Engine
from trainer.settings import TrainSettings

#: Folder of the run that holds the best model, and the folder of the evaluations' completions.
BEST, EVALUATIONS = "best", "evaluations"


@dataclass(frozen=True, slots=True)
class Best:
    """The best evaluation so far. problems: the name of the set. accuracy: in [0, 1]. step: counted from 1."""

    problems: str
    accuracy: float
    step: int


class Evaluation:
    """The sets of `evaluate.problems`, what asks them, and the best accuracy so far.

    Every rank must call `run`; each asks its share of the problems. engine: the run's own rollout engine, which holds
    the weights of now; None: one is opened and given the weights before each evaluation.
    """

    def __init__(self, training: Training, engine: Engine | None = None) -> None:
        self.training, self.settings = training, training.settings.evaluate
        self._shared = engine is not None
        model = plain_model(training.model)
        if engine is None:
            engine = open_engine(training.settings, model, pad_id(training.tokenizer), training.device)
        settings = _asked(training.settings)
        prompts = training.settings.data.model_copy(update={"response_tokens": settings.max_tokens})
        self.asker = Asker(training.folder.name, engine, training.tokenizer, settings, prompts, training.ends)
        self.problems = {
            name: self.asker.within_limits(read_input(path, PROBLEMS, f"evaluate.problems.{name}"))[0]
            for name, path in self.settings.problems.items()
        }
        saved = training.state.values.get(BEST)
        self.best = Best(**saved) if saved and saved["problems"] == self.settings.deciding else None

    def due(self, step: int, total: int) -> bool:
        """Whether to evaluate after `step`, counted from 1, of `total` steps."""
        return step % self.settings.every == 0 or step == total

    def run(self, step: int, log: RunLog) -> dict[str, float | None]:
        """Ask all problems and return the metrics; the model is written to `best/` where it is the best so far."""
        engine = self.asker.engine
        if not self._shared and not engine.live:
            engine.load_weights(full_tensors(plain_model(self.training.model)))
        averages = Averages()
        for name, problems in self.problems.items():
            completions = self._ask(name, problems, step)
            averages.add({f"evaluate/{name}/{key}": pair for key, pair in _statistics(completions).items()})
            log.samples(step, f"evaluate/{name}", completions)
        if not self._shared:
            engine.rest()
        metrics = averages.means()
        self._keep_best(step, metrics)
        return metrics

    def values(self) -> dict[str, Any]:
        """What a checkpoint keeps, beside the loop's own values."""
        if self.best is None:
            return {}
        return {BEST: {"problems": self.best.problems, "accuracy": self.best.accuracy, "step": self.best.step}}

    def close(self) -> None:
        """Free the engine where it is not the run's own."""
        if not self._shared:
            self.asker.engine.close()

    def _ask(self, name: str, problems: pl.DataFrame, step: int) -> pl.DataFrame:
        """COMPLETIONS of this rank's share of the problems, written to `evaluations/NAME/`."""
        own = problems[rank() :: world_size()]
        if own.is_empty():
            return pl.DataFrame(schema=COMPLETIONS)
        with self.training.autocast():
            completions = self.asker.ask(own, self.settings.temperature, rank())
        completions = completions.with_columns(step=pl.lit(step, pl.Int32))
        part = f"-rank{rank()}" if rank() else ""
        path = self.training.folder / EVALUATIONS / name / f"step-{step:06d}{part}.parquet"
        write_table(completions, path, COMPLETIONS)
        return completions

    def _keep_best(self, step: int, metrics: dict[str, float | None]) -> None:
        deciding = self.settings.deciding
        accuracy = metrics[f"evaluate/{deciding}/accuracy"]
        if accuracy is None or (self.best is not None and accuracy <= self.best.accuracy):
            return
        self.best = Best(deciding, accuracy, step)
        if self.settings.keep_best:
            self.training.publish(self.training.folder / BEST, self.values()[BEST])


def open_evaluation(training: Training, engine: Engine | None = None) -> Evaluation | None:
    """The run's evaluation; None where `evaluate.every` is 0."""
    return Evaluation(training, engine) if training.settings.evaluate.every else None


def _asked(settings: TrainSettings) -> EvaluateSettings:
    """The settings of `tracekit evaluate` that ask as the run does."""
    limit = settings.data.response_tokens
    return EvaluateSettings(
        temperatures=(settings.evaluate.temperature,),
        samples=settings.evaluate.samples,
        max_tokens=min(settings.evaluate.max_tokens or limit, limit),
        prompt_tokens=settings.data.prompt_tokens,
        seed=settings.seed,
        verifier_seconds=settings.rollout.verifier_seconds,
    )


def _statistics(completions: pl.DataFrame) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """(sum, count) of accuracy over the known verdicts, of unknown verdicts, of tokens and of responses cut."""
    known = completions["reward"].drop_nulls()
    rows = torch.tensor(float(completions.height))
    return {
        "accuracy": (torch.tensor(float(completions["outcome"].eq(Outcome.CORRECT).sum())), torch.tensor(len(known))),
        "unknown": (torch.tensor(float(completions.height - len(known))), rows),
        "tokens": (torch.tensor(float(completions["token_count"].sum())), rows),
        "cut": (torch.tensor(float(completions["finish_reason"].eq("length").sum())), rows),
    }
