"""LUFFY's loss of each token, for trainers that hand a policy loss nothing but log-probs, advantages and a mask.

How a teacher's tokens are known there: TEACHER, which no log-prob can be, stands in the place of their old log-prob.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from trainer.adapters.rows import RecipeError, load_recipe
from trainer.objectives import losses
from trainer.objectives.loss_from_settings import policy_loss
from trainer.settings import TrainSettings

#: Stands for the old log-prob of a token that a teacher wrote: no log-prob is above 0.
TEACHER = 1.0

#: Recipes whose teacher rows are policy gradient alone, by their names.
RECIPES = ("luffy", "luffy_unshaped", "luffy_baseline")


def token_losses(
    recipe: str | TrainSettings,
) -> Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]:
    """A recipe's loss of each token: (log_prob, old_log_prob, advantages, response_mask) → (loss, teacher, clipped).

    All are (B, T). old_log_prob: TEACHER on tokens that a teacher wrote. teacher, clipped: True on a teacher's tokens,
    and on those whose gradient the clip takes. Raises RecipeError for recipes with other roles.
    """
    settings = load_recipe(recipe)
    if settings.teacher_role != "surrogate" or settings.teacher_beside or settings.teacher.right_at_most is not None:
        raise RecipeError(
            f"advantages alone know no roles; expected one of {', '.join(RECIPES)}, or settings like theirs."
        )
    terms, weight = policy_loss(settings), settings.teacher.weight

    def loss_of(log_prob: Tensor, old: Tensor, advantages: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        teacher = mask.bool() & (old > 0)
        old = torch.where(teacher, log_prob.detach(), old)
        on_loss, clipped = terms.on_policy(log_prob, old, advantages, mask.bool() & ~teacher)
        off_ratio = terms.teacher_ratio(terms.teacher_log_ratio(log_prob, None))
        return losses.mixed(on_loss, weight * losses.surrogate(off_ratio, advantages), teacher), teacher, clipped

    return loss_of


def mark_teacher(old_log_prob: Tensor, taught: Sequence[Any]) -> Tensor:
    """Old log-probs with TEACHER in the rows that hold a trace: (B, T). taught: true of each such row."""
    rows = torch.tensor([bool(one) for one in taught], device=old_log_prob.device)
    return torch.where(rows[:, None], TEACHER, old_log_prob)
