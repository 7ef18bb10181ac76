"""LUFFY inside verl: a policy loss for its registry, a data set that yields the teacher's tokens, a rollout hook.

`trainer.adapters.verl_plugin` registers all three; verl imports it where VERL_USE_EXTERNAL_MODULES names it (for the
complete command see docs/scaling.md). verl's pins (transformers below 5.11) and ours exclude each other: verl lives in
an environment of its own, with this package installed there without its dependencies.

What was tested, and what was not: the pure functions here in our own tests; against verl 0.9.1 the registry, the losses
under `agg_loss`, the hook on the trainer and the class of the rollout, on a CPU, with a newer transformers than verl
pins (tests/trainer/test_adapters_verl.py, where verl can be imported), and that the documented command's settings are
verl's. A training run on Ray was NOT run. The hook wraps one private method of `RayPPOTrainer`, verl's synchronous
trainer (`trainer.use_v1=False`, which verl calls deprecated). verl's v1 trainers keep rows in a TransferQueue and know
no such method: with one of them the rollout refuses to hand out a trace.

verl hands a policy loss nothing but log-probs, advantages and masks: the hook writes TEACHER in the place of a teacher
token's old log-prob (`trainer.adapters.token_losses`).

Departures from our loop: verl's estimator makes the advantages, so that only recipes whose trace is policy gradient
alone can be had (luffy, luffy_unshaped, luffy_baseline), with `algorithm.norm_adv_by_std_in_grpo=False`; entropy bonus
and reduction are verl's settings (`seq-mean-token-sum-norm` with `loss_scale_factor` the response limit is `constant`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.adapters.rows import printed_prompt
from trainer.adapters.token_losses import RECIPES, TEACHER, mark_teacher, token_losses
from trainer.data.sequences import responses_ids
from trainer.objectives import losses
from trainer.settings import DataSettings

__all__ = [
    "RECIPES",
    "TEACHER",
    "Claims",
    "check_groups",
    "check_trainer",
    "mark_teacher",
    "token_losses",
    "trace_ids",
    "verl_policy_loss",
]

#: Problems whose trace was taken, remembered by a rollout worker.
REMEMBERED = 100_000


def check_trainer(config: Any) -> None:
    """Raise ValueError where verl's settings choose its v1 trainer, which never calls the hook.

    A trace would then train as if the policy had sampled it.
    """
    if getattr(getattr(config, "trainer", None), "use_v1", False):
        raise ValueError(
            "trainer.use_v1 is true: the teacher's tokens would not be known to the loss. Set trainer.use_v1=False."
        )


def check_groups(taught: Sequence[Any], uids: Sequence[str]) -> None:
    """Raise ValueError where a group has two teacher rows, as happens where its rows are split over rollout workers."""
    found = [uid for one, uid in zip(taught, uids, strict=True) if one]
    if len(found) != len(set(found)):
        raise ValueError(
            "a group got two teacher rows: its rollouts were split over workers. Set rollout.agent.num_workers to a "
            "divisor of data.train_batch_size."
        )


def trace_ids(tokenizer: Any, prompt: Any, target: Any, limit: int, template_arguments: dict[str, Any]) -> list[int]:
    """The tokens of a trace with its end, or none where there is no trace or it is over `limit`.

    prompt: text or messages. target: text or messages, the last of which is the trace (LUFFY's own column).
    """
    if target is None or not len(target):
        return []
    text = target if isinstance(target, str) else target[-1]["content"]
    printed = printed_prompt(tokenizer, prompt, template_arguments)
    (ids,) = responses_ids(tokenizer, [text], [printed], DataSettings())
    return ids if len(ids) <= limit else []


class Claims:
    """Which problems' traces a rollout worker has given out: the first rollout of a problem takes it."""

    def __init__(self) -> None:
        self._taken: OrderedDict[str, None] = OrderedDict()

    def take(self, uid: str) -> bool:
        """True the first time for each problem of a step."""
        if uid in self._taken:
            return False
        self._taken[uid] = None
        if len(self._taken) > REMEMBERED:
            self._taken.popitem(last=False)
        return True


def verl_policy_loss(recipe: str) -> Callable[..., tuple[Tensor, dict[str, Any]]]:
    """A recipe's loss in the call shape of verl's registry."""
    loss_of = token_losses(recipe)

    def policy_loss_of(
        old_log_prob: Tensor,
        log_prob: Tensor,
        advantages: Tensor,
        response_mask: Tensor,
        loss_agg_mode: str = "seq-mean-token-sum-norm",
        config: Any = None,
        rollout_is_weights: Tensor | None = None,
    ) -> tuple[Tensor, dict[str, Any]]:
        from verl.trainer.ppo.core_algos import agg_loss

        token_loss, teacher, clipped = loss_of(log_prob, old_log_prob, advantages, response_mask)
        if rollout_is_weights is not None:
            token_loss = torch.where(teacher, token_loss, token_loss * rollout_is_weights)
        loss = agg_loss(token_loss, response_mask, loss_agg_mode, **config.global_batch_info)
        own = response_mask.bool() & ~teacher
        return loss, {
            "actor/pg_clipfrac": losses.masked_mean(clipped.float().expand_as(own), own).item(),
            "actor/teacher_probability": losses.masked_mean(log_prob.detach().exp(), teacher).item(),
            "actor/teacher_tokens": teacher.sum().item(),
        }

    return policy_loss_of
