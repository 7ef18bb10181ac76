"""Settings of the losses: teacher rows, on-policy rows, advantages, and the terms beside them.

Strings are turned into functions in `trainer.objectives.loss_from_settings` alone; no loss sees this file.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from tracekit.core.settings import Settings


class ShapeSettings(Settings):
    """Shaping f of a ratio or probability x."""

    kind: Literal["none", "gamma", "sqrt", "power", "log", "identity_log"] = Field(
        "none",
        description="none: x. gamma: x/(x + gamma) (LUFFY, eq. 7). sqrt: √x. power: x^exponent. log: weight·log x. "
        "identity_log: x + weight·log x",
    )
    gamma: PositiveFloat = Field(0.1, description="of kind gamma, a probability")
    exponent: PositiveFloat = Field(0.5, description="of kind power")
    weight: PositiveFloat = Field(1.0, description="of kinds log and identity_log")


class ScheduleSettings(Settings):
    """A number in [0, 1] that moves from `start` to `end` over `steps` rounds and stays."""

    start: float = Field(default=1.0, ge=0.0, le=1.0, description="value of the first round, [0, 1]")
    end: float = Field(default=1.0, ge=0.0, le=1.0, description="value from round `steps` on, [0, 1]")
    steps: NonNegativeInt = Field(0, description="rounds from start to end; 0: the end at once")
    kind: Literal["linear", "cosine"] = Field("linear", description="course between the two")

    def at(self, number: int) -> float:
        """Return the value in round `number`, counted from 0."""
        done = 1.0 if self.steps == 0 else min(number / self.steps, 1.0)
        if self.kind == "cosine":
            return self.end + (self.start - self.end) * (1 + math.cos(math.pi * done)) / 2
        return self.start + (self.end - self.start) * done


class PrefixSettings(ScheduleSettings):
    """Fraction of the teacher's trace that a teacher row takes; the policy continues from there.

    1.0: the whole trace with EOS, which leaves the policy nothing to continue.
    """

    lowest: float | None = Field(
        default=None,
        ge=0.0,
        le=1.0,
        description="draw the fraction of each problem uniformly between this and the value (Prefix-RFT); none: the "
        "value",
    )
    slices: NonNegativeInt = Field(
        0, description="draw the fraction of each problem as Binomial(slices, value) ÷ slices (UFT); 0: the value"
    )
    shared: bool = Field(
        False, description="every row of the group continues from one prefix, never the whole trace (UFT)"
    )


class TeacherSettings(Settings):
    """Teacher (off-policy) rows of luffy and rl_sft: how many, what they train, and their weight.

    `role` and `beside` hold what the two methods differ in; none takes the method's: luffy is surrogate in place of
    a sampled row, rl_sft is cloned beside a whole group.
    """

    rows: NonNegativeInt = Field(1, description="teacher rows of a group")
    role: Literal["surrogate", "cloned", "both", "left_out"] | None = Field(
        None, description="what the teacher's tokens train: policy gradient, −log p, both, nothing; none: the method's"
    )
    beside: bool | None = Field(
        None, description="whether teacher rows stand beside `group_size` sampled ones; none: the method's"
    )
    weight: NonNegativeFloat = Field(
        1.0, description="of its rows' policy gradient; 0: a row counts in the group's mean alone"
    )
    right_at_most: NonNegativeInt | None = Field(
        None,
        description="HPT's gate: where at most so many sampled rows are right, only the teacher's rows train; "
        "elsewhere only the sampled ones. none: all rows train",
    )
    top_entropy: float | None = Field(
        default=None,
        gt=0.0,
        le=1.0,
        description="share of a row's teacher tokens, those of highest entropy, that the policy gradient takes; none: "
        "all (Prefix-RFT)",
    )
    branch: tuple[float, ...] = Field(
        (),
        description="BREAD: where no sampled row is right, sample the group anew from these fractions of a trace, one "
        "after another until a row is right; the prefix has `role`",
    )
    probability: Literal["one", "recorded"] = Field(
        "one", description="q in the ratio p/q: 1 (LUFFY), or the trace's own token_log_probs"
    )
    shape: ShapeSettings = Field(ShapeSettings(kind="gamma"), description="f of that ratio")
    ratio_min: NonNegativeFloat | None = Field(None, description="lower bound of the shaped ratio; none: no bound")
    ratio_max: PositiveFloat | None = Field(None, description="upper bound of the shaped ratio; none: no bound")
    prefix: PrefixSettings = Field(PrefixSettings(), description="how much of a trace a row takes")


class OnPolicySettings(Settings):
    """Weight of on-policy rows: ratio → shape → clip, or a capped detached weight (CISPO)."""

    ratio: Literal["token", "sequence"] = Field("token", description="of each token, or one a response (GSPO)")
    shape: ShapeSettings = Field(ShapeSettings(), description="f of the ratio")
    clip: bool = Field(True, description="PPO's clip; LUFFY's mixed rows have none")
    clip_low: NonNegativeFloat = Field(0.2, description="the ratio is held at 1 − clip_low or above")
    clip_high: NonNegativeFloat = Field(0.2, description="the ratio is held at 1 + clip_high or below; DAPO: 0.28")
    delta: PositiveFloat | None = Field(
        None, description="cap of the unclipped ratio (two-sided clipping); none: no cap"
    )
    weight_cap: PositiveFloat | None = Field(
        None, description="CISPO: −min(ratio, cap)·A·log p with a detached weight and no clip; none: not used"
    )
    right_weight: PositiveFloat = Field(1.0, description="weight of right sampled rows (SRFT: 0.1)")
    right_entropy: float = Field(
        0.0, description="c of a further factor e^(cH) of right sampled rows, H the row's mean entropy (SRFT: 1)"
    )


class AdvantageSettings(Settings):
    """Reward minus the group's mean, over the group's standard deviation or not."""

    std: bool = Field(False, description="divide by the group's standard deviation (GRPO)")
    baseline: Literal["all", "on_policy"] = Field("all", description="rows whose mean and deviation are taken")


class LossSettings(Settings):
    """How tokens become one number, and the terms beside the surrogate."""

    reduction: Literal["constant", "token_mean", "sequence_mean"] = Field(
        "constant",
        description="constant: Σ tokens ÷ (rows × response_tokens). token_mean: Σ ÷ tokens. sequence_mean: mean of the "
        "rows' means",
    )
    entropy: float = Field(0.0, description="coefficient of the entropy bonus")
    kl: NonNegativeFloat = Field(0.0, description="coefficient of the KL to the reference")
    kl_in: Literal["loss", "reward"] = Field(
        "loss",
        description="loss: kl · kl_kind beside each token's surrogate. reward: a sampled row's reward − kl · "
        "Σ (log p_old − log p_ref)",
    )
    kl_kind: Literal["k1", "k2", "k3"] = Field(
        "k2",
        description="estimator in the loss, whose gradient matters: k2's is the reverse KL's, k3's (log-ratio held at "
        "±20) is not, and the mean of k1's is 0",
    )
    sft: NonNegativeFloat = Field(1.0, description="coefficient of the cloned tokens' mean of −log p")
    sft_weight: Literal["one", "phi", "entropy"] = Field(
        "one",
        description="detached weight of a cloned token. phi: p·(1 − p) (CHORD-φ). entropy: e^(−H), H the row's mean "
        "entropy (SRFT)",
    )
    mu: ScheduleSettings | None = Field(
        None, description="CHORD: policy gradient times 1 − mu, cloned tokens times mu; none: neither"
    )
    drop_above: PositiveFloat | None = Field(
        None, description="leave out tokens of a higher probability; none: keep all"
    )


class ReplaySettings(Settings):
    """ExGRPO: the model's own past correct traces come back as off-policy rows of a group.

    Zhan et al. 2025, arXiv 2510.02245: problems by a Gaussian over their share of right rollouts, the trace
    of lowest entropy under the policy, half of a batch, once the batch's reward has passed `start_reward`.
    """

    share: float = Field(default=0.5, ge=0.0, le=1.0, description="of a round's problems that are replayed ones")
    start_reward: float = Field(
        default=0.35, ge=0.0, le=1.0, description="mean on-policy reward of a round that opens replay"
    )
    rows: PositiveInt = Field(1, description="replayed rows of a group")
    traces_per_problem: PositiveInt = Field(10, description="traces kept of a problem")
    centre: float = Field(default=0.5, ge=0.0, le=1.0, description="of the Gaussian over the share of right rollouts")
    width: PositiveFloat = Field(1.0, description="standard deviation of that Gaussian")
    shape: ShapeSettings = Field(
        ShapeSettings(kind="gamma"), description="f of exp(log_prob − log_prob when it was sampled)"
    )


class DistillSettings(Settings):
    """On-policy distillation: each sampled token's advantage is `weight` · (log q − log p_old) + `reward` · A.

    q is the teacher's probability of the token, so that the gradient is that of the reverse KL from policy to
    teacher on the policy's own samples (Agarwal et al. 2024, arXiv 2306.13649).
    """

    model: str | None = Field(None, description="folder or hub name of the teacher; its tokenizer must be the policy's")
    scorer: str | None = Field(
        None, description="or module:function, (problem, response tokens) → log q of each response token"
    )
    weight: PositiveFloat = Field(1.0, description="of the teacher's log-ratio")
    reward: NonNegativeFloat = Field(0.0, description="of the group's advantage; 0: the teacher alone decides")

    @model_validator(mode="after")
    def _one_teacher(self) -> DistillSettings:
        if (self.model is None) == (self.scorer is None):
            raise ValueError("distill: expected exactly one of model (a folder or hub name) and scorer.")
        return self


class DpoSettings(Settings):
    """Direct preference optimisation; the reference is the starting model."""

    beta: PositiveFloat = Field(0.1, description="strength of the KL constraint, nats⁻¹")
    label_smoothing: float = Field(
        default=0.0, ge=0.0, lt=0.5, description="probability that a pair's labels are swapped, [0, 0.5) (cDPO)"
    )
    pairs_per_problem: PositiveInt = Field(4, description="at most; correct × wrong rows in a seeded order")
