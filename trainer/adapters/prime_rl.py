"""LUFFY inside prime-rl: a custom loss, one dataclass in and one out, of one sequence.

    [trainer.loss]
    type = "custom"
    import_path = "trainer.adapters.prime_rl.luffy_loss"

    [trainer.loss.kwargs]
    recipe = "luffy"                # or luffy_unshaped, luffy_baseline

prime-rl calls it with its `LossInputs` (trainer_logprobs, inference_logprobs, ref_logprobs, advantages, loss_mask,
loss_weights; each (T,), the last and ref_logprobs may be None) and takes `LossOutputs(loss, metrics)`. The loss is the
sum over the sequence's tokens; prime-rl divides by the step's token count, which is `loss.reduction = "token_mean"`.

Where teacher rows come from: prime-rl has no setting for foreign code in its orchestrator, so that a named algorithm
there puts a trace into each group as one more rollout, takes the group's advantage (reward − mean, its default) and
writes TEACHER (1.0) as the inference log-prob of the trace's tokens. Without such rows the loss is the recipe's for
sampled rows.

What was tested, and what was not: value, gradient and metrics against our own loss, with dataclasses of the documented
fields (tests/trainer/test_adapters_prime_rl.py). prime-rl itself was NOT run; its documentation of `LossInputs` is of
2026. Departures from our loop: reduction and advantages are prime-rl's; entropy bonus and KL are left out.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from trainer.adapters.token_losses import token_losses
from trainer.objectives import losses


@lru_cache
def _loss_of(recipe: str) -> Any:
    return token_losses(recipe)


def luffy_loss(inputs: Any, recipe: str = "luffy") -> Any:
    """Return the recipe's loss of one sequence as prime-rl's `LossOutputs`.

    Parameters
    ----------
    inputs: `LossInputs`; inference_logprobs above 0 (TEACHER) mark the tokens that a teacher wrote, advantages and
        weights count where loss_mask is True.
    recipe: luffy, luffy_unshaped or luffy_baseline; RecipeError for one whose rows have other roles.

    Metrics: clip_fraction and teacher_probability (means over sampled and over teacher tokens), teacher_tokens.
    """
    from prime_rl.trainer.rl.loss import LossOutputs

    loss, metrics = sequence_loss(
        inputs.trainer_logprobs,
        inputs.inference_logprobs,
        inputs.advantages,
        inputs.loss_mask,
        inputs.loss_weights,
        recipe=recipe,
    )
    return LossOutputs(loss=loss, metrics=metrics)


def sequence_loss(
    log_prob: Tensor,
    inference_log_prob: Tensor,
    advantages: Tensor,
    mask: Tensor,
    weights: Tensor | None = None,
    *,
    recipe: str = "luffy",
) -> tuple[Tensor, dict[str, Tensor]]:
    """Return Σ weight · loss over one sequence's tokens, a scalar, and what to watch. All tensors are (T,).

    >>> half = torch.tensor([0.5]).log()
    >>> loss, _ = sequence_loss(half, torch.tensor([1.0]), torch.tensor([3.0]), torch.tensor([True]))
    >>> round(loss.item(), 4)  # a teacher's token: −3 · p/(p + 0.1)
    -2.5
    """
    rows = [tensor[None] for tensor in (log_prob, inference_log_prob, advantages)]
    token_loss, teacher, clipped = (found[0] for found in _loss_of(recipe)(*rows, mask[None].bool()))
    kept = mask.to(log_prob.dtype) if weights is None else torch.where(mask, weights, 0.0)
    own = mask.bool() & ~teacher
    return losses.weighted_sum(token_loss, kept), {
        "clip_fraction": losses.masked_mean(clipped.float().expand_as(own), own),
        "teacher_probability": losses.masked_mean(log_prob.detach().exp(), teacher),
        "teacher_tokens": teacher.sum().float(),
    }
