"""Settings of a round of RL: what is sampled, by which engine, and what a response earns."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tracekit.core.settings import Settings

#: Rewards that come with the package; `trainer.rollouts.rewards` makes them.
BUILT_IN_REWARDS = ("accuracy", "format", "over_long", "repetition")


class RewardSettings(Settings):
    """One term of a response's reward: a built-in by its name, or a function of the user's by its path."""

    name: str | None = Field(
        None,
        description="accuracy, format, over_long, repetition; beside `path`: the name in the metrics, by default the "
        "function's",
    )
    path: str | None = Field(
        None, description="FILE.py:FUNCTION or MODULE:FUNCTION, called as TRL calls a reward; it runs as your own code"
    )
    weight: float = Field(1.0, description="factor of its values in the sum")
    arguments: dict[str, Any] = Field(default_factory=dict, description="further keyword arguments of the function")

    @model_validator(mode="after")
    def _one_function(self) -> RewardSettings:
        if self.path is None and self.name is None:
            raise ValueError("a reward needs name (a built-in) or path (FILE.py:FUNCTION).")
        if self.path is None and self.name not in BUILT_IN_REWARDS:
            raise ValueError(
                f"no reward is named {self.name!r}; known: {', '.join(BUILT_IN_REWARDS)}. Your own needs a path."
            )
        if self.path is not None and not all(self.path.rpartition(":")):
            raise ValueError(f"a reward's path is {self.path!r}; expected FILE.py:FUNCTION or MODULE:FUNCTION.")
        return self

    @property
    def label(self) -> str:
        """The reward's name in the metrics."""
        return self.name or str(self.path).rpartition(":")[2]


class CurriculumSettings(Settings):
    """Problems by their pass rate: a round leaves out those that the policy nearly always or never solved of late.

    A filter before sampling, where DAPO's drops groups after it. Kimi k1.5 (arXiv 2501.12599) samples by measured
    success rates too, in proportion to 1 − rate.
    """

    low: float = Field(0.0, ge=0.0, le=1.0, description="problems with a lower pass rate rest")
    high: float = Field(1.0, ge=0.0, le=1.0, description="problems with a higher pass rate rest")
    decay: float = Field(
        0.5, ge=0.0, lt=1.0, description="weight of a problem's earlier rate when its new one comes in"
    )
    rest_rounds: PositiveInt = Field(10, description="rounds after which a resting problem is asked again")

    @model_validator(mode="after")
    def _an_interval(self) -> CurriculumSettings:
        if self.low > self.high:
            raise ValueError(f"curriculum: low is {self.low} and high is {self.high}; expected low ≤ high.")
        return self


class RolloutSettings(Settings):
    """One round of RL: problems, completions of each, and how they are drawn and paid."""

    prompts: PositiveInt = Field(128, description="problems of a round, all processes together")
    mini_batch_prompts: PositiveInt = Field(
        64, description="problems of an optimizer step; LUFFY makes two updates a round"
    )
    epochs: PositiveInt = Field(1, description="passes over a round's rows")
    group_size: PositiveInt = Field(8, description="rows of a problem, teacher rows counted")
    temperature: PositiveFloat = Field(1.0, description="of sampling and of the trained distribution")
    top_p: PositiveFloat = Field(default=1.0, le=1.0, description="probability mass that is sampled from, (0, 1]")
    top_k: NonNegativeInt = Field(0, description="most likely tokens that are sampled from; 0: every token")
    rewards: tuple[RewardSettings, ...] = Field(
        (RewardSettings(name="accuracy"),),
        min_length=1,
        description="terms of the reward, a weighted sum; the first decides which rows are right (1 or more)",
    )
    truncated: Literal["score", "mask"] = Field(
        "score",
        description="responses cut at the limit: scored like others, or left out of the loss while their rewards stay "
        "in the group's statistics (DAPO's over-long filtering)",
    )
    curriculum: CurriculumSettings | None = Field(None, description="none: every problem once an epoch")
    drop_all_right: bool = Field(
        False, description="leave out a group whose rows, the teacher's counted, are all right"
    )
    drop_all_wrong: bool = Field(
        False, description="leave out a group of which no row, the teacher's counted, is right"
    )
    resample_rounds: NonNegativeInt = Field(
        0, description="draw further problems up to so often until `prompts` groups stand (DAPO)"
    )
    old_log_probs: Literal["auto", "engine", "recompute"] = Field(
        "auto",
        description="of sampled tokens; auto: the engine's where it is exact (embedded), recomputed elsewhere, none "
        "where a round has one update",
    )
    importance: Literal["token_truncate", "token_mask", "sequence_truncate", "sequence_mask"] = Field(
        "token_truncate",
        description="weight by trainer ÷ engine probability for engines that are not exact, of each token or of the "
        "whole response; truncate: held at the cap, mask: 0 outside of floor and cap",
    )
    importance_cap: PositiveFloat = Field(2.0, description="upper bound of that weight")
    importance_floor: NonNegativeFloat = Field(0.0, description="lower bound of the two masks")
    random_reward: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="probability that a row is paid 1 whatever it answers, a control (Shao et al. 2025, 2506.10947); "
        "none: `rewards`",
    )
    verifier_seconds: PositiveFloat = Field(2.0, description="deadline of one verification, seconds")

    @model_validator(mode="after")
    def _distinct_names(self) -> RolloutSettings:
        labels = [reward.label for reward in self.rewards]
        if len(set(labels)) < len(labels):
            raise ValueError(f"rollout.rewards are named {', '.join(labels)}; give each its own name.")
        return self

    @property
    def verifies(self) -> bool:
        """Whether responses are held against the gold by `evaluators`."""
        return any(reward.path is None and reward.name == "accuracy" for reward in self.rewards)


class EngineSettings(Settings):
    """Which rollout engine, and what it needs. A kind alone may stand in place of the table: engine = "vllm"."""

    kind: Literal["embedded", "vllm", "vllm-server"] = Field(
        "embedded", description="the trained model itself, vLLM in this process, or vLLM's servers"
    )
    rows: PositiveInt = Field(512, description="embedded: completions sampled side by side")
    urls: tuple[str, ...] = Field(("http://127.0.0.1:8000",), description="vllm-server: addresses of the servers")
    memory_fraction: PositiveFloat = Field(
        default=0.4, le=1.0, description="vllm: share of the device's memory, (0, 1]"
    )
    tensor_parallel: PositiveInt = Field(1, description="vllm: devices of one replica")
    eager: bool = Field(False, description="vllm: no compilation and no CUDA graphs: starts sooner, samples slower")
    sleep: bool = Field(True, description="vllm: give its memory back during updates")

    @model_validator(mode="before")
    @classmethod
    def _kind_alone(cls, value: Any) -> Any:
        return {"kind": value} if isinstance(value, str) else value


#: Settings of an engine that decide where and how fast it runs, and not what it says: a run goes on with others.
ENGINE_CONNECTION = ("engine.urls", "engine.memory_fraction", "engine.eager", "engine.sleep")
