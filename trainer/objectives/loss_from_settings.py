"""Settings → one policy loss: the only place where a string of the recipe becomes a function."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from trainer.objectives import losses
from trainer.objectives.batch import Batch
from trainer.settings import (
    DistillSettings,
    LossSettings,
    OnPolicySettings,
    ShapeSettings,
    TeacherSettings,
    TrainSettings,
)

#: (log_prob, old_log_prob, advantage, completion_mask) → (token loss, clipped tokens), two (B, T).
OnPolicyTerm = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, slots=True)
class Totals:
    """What the reductions divide by: counts of the whole optimizer step, over all micro-batches and ranks.

    rows: rows of the policy-gradient term, those left out for zero advantage counted. tokens: their completion
    tokens. cloned_tokens: tokens whose −log p is minimised. length: longest response allowed.
    """

    rows: int
    tokens: int
    length: int
    cloned_tokens: int = 0


@dataclass(frozen=True, slots=True)
class PolicyLoss:
    """The loss of every method with rollouts, composed of the functions in `losses` as the settings say.

    Which token meets which function is the batch's: `surrogate_mask`, `cloned_mask` and the row weights.
    """

    on_policy: OnPolicyTerm
    teacher_log_ratio: Callable[[Tensor, Tensor | None], Tensor]
    teacher_ratio: Callable[[Tensor], Tensor]  # of the log-ratio
    replay_ratio: Callable[[Tensor], Tensor]
    weights: Callable[[Tensor, Totals], Tensor]
    kl: Callable[[Tensor, Tensor], Tensor]
    settings: LossSettings
    distill: DistillSettings | None = None
    top_entropy: float | None = None  # share of a row's teacher tokens that the policy gradient takes

    @property
    def needs_every_row(self) -> bool:
        """Whether a row of zero advantage still has a gradient, by entropy or KL."""
        return self.settings.entropy != 0 or self._kl_in_loss

    @property
    def _kl_in_loss(self) -> bool:
        return self.settings.kl != 0 and self.settings.kl_in == "loss"

    def __call__(
        self, batch: Batch, log_prob: Tensor, entropy: Tensor, totals: Totals
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        """This micro-batch's part of the step's loss, and statistics as (sum, count) that add up likewise.

        log_prob, entropy: (B, T), of the batch's tokens under the model being trained. Summed over micro-batches
        and ranks the parts are the loss.
        """
        mask = batch.completion_mask
        old = log_prob.detach() if batch.old_log_prob is None else batch.old_log_prob
        advantage = batch.advantage
        if self.distill is not None and batch.teacher_log_prob is not None:
            by_teacher = losses.reverse_kl_advantage(old, batch.teacher_log_prob)
            advantage = self.distill.weight * by_teacher + self.distill.reward * advantage
        on_loss, clipped = self.on_policy(log_prob, old, advantage, mask & ~batch.off_policy_mask)
        if batch.importance is not None:
            on_loss = on_loss * batch.importance
        off_loss = losses.surrogate(self._off_policy_ratio(batch, log_prob, old), batch.advantage)
        token_loss = losses.mixed(on_loss, off_loss, batch.off_policy_mask)
        if batch.weight is not None:
            token_loss = token_loss * batch.weight
        if batch.entropy_exponent is not None:
            token_loss = token_loss * losses.entropy_factor(entropy, mask, batch.entropy_exponent)
        if self._kl_in_loss:
            assert batch.ref_log_prob is not None, "kl > 0 needs ref_log_prob"
            token_kl = self.kl(log_prob, batch.ref_log_prob)
            token_loss = token_loss + self.settings.kl * token_kl
        kept = mask if batch.surrogate_mask is None else batch.surrogate_mask
        acted_on = kept
        if self.settings.drop_above is not None:
            acted_on = losses.without_likely(kept, log_prob, self.settings.drop_above)
        if self.top_entropy is not None:
            taught = acted_on & batch.off_policy_mask
            acted_on = (acted_on & ~taught) | losses.highest_entropy(taught, entropy, self.top_entropy)
        loss = losses.weighted_sum(token_loss, self.weights(acted_on, totals))
        if self.settings.entropy:
            bonus = losses.weighted_sum(entropy, losses.token_mean_weights(kept, totals.tokens))
            loss = loss - self.settings.entropy * bonus
        if batch.cloned_mask is not None:
            loss = loss + self.settings.sft * self._cloned(batch, batch.cloned_mask, log_prob, entropy, totals)
        return loss, self._statistics(batch, log_prob.detach(), entropy.detach(), old, clipped)

    def _cloned(self, batch: Batch, cloned_mask: Tensor, log_prob: Tensor, entropy: Tensor, totals: Totals) -> Tensor:
        """Σ w·(−log p) over the cloned tokens ÷ their number in the step."""
        weights = losses.token_mean_weights(cloned_mask, totals.cloned_tokens)
        if batch.clone_weight is not None:
            weights = weights * batch.clone_weight
        if self.settings.sft_weight == "phi":
            weights = weights * losses.phi(log_prob)
        if self.settings.sft_weight == "entropy":
            weights = weights * losses.entropy_factor(entropy, batch.completion_mask, -torch.ones_like(batch.advantage))
        return losses.weighted_sum(losses.cross_entropy(log_prob), weights)

    def _off_policy_ratio(self, batch: Batch, log_prob: Tensor, old: Tensor) -> Tensor:
        ratio = self.teacher_ratio(self.teacher_log_ratio(log_prob, batch.recorded_log_prob))
        if not batch.replay_mask.any():
            return ratio
        return torch.where(batch.replay_mask, self.replay_ratio(losses.token_log_ratio(log_prob, old)), ratio)

    def _statistics(
        self, batch: Batch, log_prob: Tensor, entropy: Tensor, old: Tensor, clipped: Tensor
    ) -> dict[str, tuple[Tensor, Tensor]]:
        on, off = batch.completion_mask & ~batch.off_policy_mask, batch.off_policy_mask
        found = {
            "entropy_on_policy": (entropy, on),
            "entropy_off_policy": (entropy, off),
            "clip_fraction": (clipped.expand_as(on).float(), on),
            "policy_shift": (losses.kl_k3(old, log_prob), on),  # k3 KL of the policy that sampled to this one
            "off_policy_probability": (log_prob.exp(), off),
        }
        if batch.ref_log_prob is not None:
            found["kl"] = (self.kl(log_prob, batch.ref_log_prob), on)
        return {name: (torch.where(mask, value, 0.0).sum(), mask.sum()) for name, (value, mask) in found.items()}


#: KL of a token by `loss.kl_kind`; k3's log-ratio is held at ±20, so that it never overflows.
KL: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "k1": losses.kl_k1,
    "k2": losses.kl_k2,
    "k3": partial(losses.kl_k3_clamped, bound=math.inf),
}


def policy_loss(settings: TrainSettings) -> PolicyLoss:
    """The loss that a policy method's settings describe."""
    replay_shape = ShapeSettings(kind="gamma") if settings.replay is None else settings.replay.shape
    return PolicyLoss(
        on_policy=_on_policy(settings.on_policy),
        teacher_log_ratio=_teacher_log_ratio(settings.teacher),
        teacher_ratio=_teacher_ratio(settings.teacher),
        replay_ratio=shape(replay_shape),
        weights=reduction(settings.loss),
        kl=KL[settings.loss.kl_kind],
        settings=settings.loss,
        distill=settings.distill,
        top_entropy=settings.teacher.top_entropy,
    )


def shape(settings: ShapeSettings) -> losses.Shape:
    """The function f of log x."""
    shapes: dict[str, losses.Shape] = {
        "none": losses.identity,
        "gamma": partial(losses.over_gamma, gamma=settings.gamma),
        "sqrt": partial(losses.power, exponent=0.5),
        "power": partial(losses.power, exponent=settings.exponent),
        "log": partial(losses.logarithm, weight=settings.weight),
        "identity_log": partial(losses.identity_and_logarithm, weight=settings.weight),
    }
    return shapes[settings.kind]


def reduction(settings: LossSettings) -> Callable[[Tensor, Totals], Tensor]:
    """The weight of each token, from its mask and the step's totals."""
    if settings.reduction == "constant":
        return lambda mask, totals: losses.constant_weights(mask, totals.rows, totals.length)
    if settings.reduction == "token_mean":
        return lambda mask, totals: losses.token_mean_weights(mask, totals.tokens)
    return lambda mask, totals: losses.sequence_mean_weights(mask, totals.rows)


def _on_policy(settings: OnPolicySettings) -> OnPolicyTerm:
    ratio = _on_policy_ratio(settings)
    low, high = 1 - settings.clip_low, 1 + settings.clip_high

    def capped(log_prob: Tensor, old: Tensor, advantage: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        assert settings.weight_cap is not None
        r = ratio(log_prob, old, mask)
        loss = losses.capped_weight_surrogate(r, log_prob, advantage, settings.weight_cap)
        return loss, (r > settings.weight_cap) & (advantage > 0)

    def clipped(log_prob: Tensor, old: Tensor, advantage: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        r = ratio(log_prob, old, mask)
        loss = losses.clipped_surrogate(r, advantage, low, high, settings.delta)
        return loss, losses.clipped_tokens(r, advantage, low, high)

    def unclipped(log_prob: Tensor, old: Tensor, advantage: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        r = ratio(log_prob, old, mask)
        return losses.surrogate(r, advantage), torch.zeros_like(mask)

    if settings.weight_cap is not None:
        return capped
    return clipped if settings.clip else unclipped


def _on_policy_ratio(settings: OnPolicySettings) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    f = shape(settings.shape)
    if settings.ratio == "sequence":
        return lambda log_prob, old, mask: f(losses.sequence_log_ratio(log_prob, old, mask))
    if settings.shape.kind == "gamma":  # γ is a probability: f meets p and p_old, not their ratio
        return lambda log_prob, old, mask: losses.shaped_quotient(log_prob, old, f)
    return lambda log_prob, old, mask: f(losses.token_log_ratio(log_prob, old))


def _teacher_log_ratio(settings: TeacherSettings) -> Callable[[Tensor, Tensor | None], Tensor]:
    if settings.probability == "one":
        return lambda log_prob, recorded: log_prob

    def against_recorded(log_prob: Tensor, recorded: Tensor | None) -> Tensor:
        return log_prob if recorded is None else losses.recorded_log_ratio(log_prob, recorded.exp())

    return against_recorded


def _teacher_ratio(settings: TeacherSettings) -> Callable[[Tensor], Tensor]:
    f = shape(settings.shape)
    return lambda log_ratio: losses.bounded(f(log_ratio), settings.ratio_min, settings.ratio_max)
