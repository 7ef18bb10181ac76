"""Settings of the run itself: optimizer, checkpoints, evaluation and log."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tracekit.core.settings import Settings


class OptimizerSettings(Settings):
    """AdamW and its schedule."""

    lr: PositiveFloat = Field(1e-6, description="highest learning rate")
    betas: tuple[float, float] = Field((0.9, 0.999), description="decay of the two moments, [0, 1)")
    eps: PositiveFloat = Field(1e-8, description="added to the root of the second moment")
    weight_decay: NonNegativeFloat = Field(0.01, description="decoupled, times the learning rate")
    max_grad_norm: PositiveFloat = Field(1.0, description="norm that gradients are clipped to")
    schedule: Literal["constant", "linear", "cosine"] = Field("constant", description="course after the warm-up")
    warmup_steps: NonNegativeInt = Field(0, description="updates of a linear rise from 0")
    final_lr_ratio: NonNegativeFloat = Field(0.0, description="learning rate of the last step ÷ lr")


class CheckpointSettings(Settings):
    """When a run's state is saved; steps are those of `steps`."""

    every: PositiveInt = Field(100, description="steps between two checkpoints")
    keep: PositiveInt = Field(2, description="newest checkpoints that stay")
    models_at: tuple[PositiveInt, ...] = Field((), description="steps whose model folder stays in models/step-N")


class EvaluationSettings(Settings):
    """Evaluation while a run goes on, on named problems; the best model stays in `best/`."""

    every: NonNegativeInt = Field(0, description="steps between two evaluations; 0: none. The last step is evaluated")
    problems: dict[str, Path] = Field(
        default_factory=dict, description="name → Parquet file with the schema PROBLEMS; verified by `evaluators`"
    )
    samples: PositiveInt = Field(1, description="responses to a problem; 1 at temperature 0")
    temperature: NonNegativeFloat = Field(0.0, description="0: greedy")
    max_tokens: PositiveInt | None = Field(
        None, description="longest response, tokens; none: data.response_tokens, and never more"
    )
    best: str | None = Field(
        None, description="name of the problems whose accuracy decides which model is best; none: the first"
    )
    keep_best: bool = Field(True, description="write the model folder `best/` when that accuracy rises")

    @model_validator(mode="after")
    def _complete(self) -> EvaluationSettings:
        if self.every and not self.problems:
            raise ValueError("evaluate.every is set; name problems too: evaluate.problems = { test = FILE }.")
        if self.best is not None and self.best not in self.problems:
            raise ValueError(f"evaluate.best is {self.best!r}; expected one of {', '.join(self.problems) or 'none'}.")
        if self.temperature == 0 and self.samples > 1:
            raise ValueError("evaluate.samples is above 1 at temperature 0, where all samples are alike.")
        return self

    @property
    def deciding(self) -> str:
        """Name of the problems that decide which model is best."""
        return self.best or next(iter(self.problems))


class LogSettings(Settings):
    """What is written while a run goes on."""

    every: PositiveInt = Field(1, description="steps between rows of metrics.parquet")
    flush_seconds: PositiveFloat = Field(10.0, description="metrics reach the disk at least so often, seconds")
    completions_every: NonNegativeInt = Field(1, description="RL: rounds between completions tables; 0: none")
    trackers: tuple[str, ...] = Field(
        (), description='accelerate\'s, beside Parquet and TensorBoard: "wandb", "trackio"'
    )
    tracker_samples: NonNegativeInt = Field(
        16,
        description="rows of a table of samples that trackers get with each completions table or evaluation; 0: none",
    )
