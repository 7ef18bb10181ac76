"""Rows side by side as tensors, and what each token is for: the input of every policy loss.

This module needs torch alone, so that `trainer.objectives` can be used inside other trainers.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from torch import Tensor


class Role(StrEnum):
    """What a token trains.

    surrogate: the policy gradient, by ratio and advantage. cloned: −log p. both: the two. left_out: nothing.
    A row has two roles: one for the tokens that the policy wrote, one for those that it did not.
    """

    SURROGATE = "surrogate"
    CLONED = "cloned"
    BOTH = "both"
    LEFT_OUT = "left_out"

    @property
    def acts(self) -> bool:
        """True where a token takes part in the policy gradient."""
        return self in (Role.SURROGATE, Role.BOTH)

    @property
    def clones(self) -> bool:
        """True where a token's −log p is minimised."""
        return self in (Role.CLONED, Role.BOTH)


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows side by side, L the longest of them; everything (B, L) and aligned with input_ids.

    completion_mask: True on scored tokens; prompt and padding False. off_policy_mask: True on tokens the
    policy did not write. replay_mask: (B, 1), True on replayed rows. advantage: (B, 1). position_ids: given for
    packed rows alone, restarting with each document. Log-probs and importance are 0 off the
    completion and on rows that have none; None where no row has them. teacher_log_prob: a teacher's of sampled tokens.
    surrogate_mask, cloned_mask: True on tokens of the policy gradient, and on tokens that are cloned; None: every
    completion token, and no token. weight, clone_weight: (B, 1), factors of a row's policy gradient and of its
    cloned tokens; None: 1. entropy_exponent: (B, 1), c of a further factor e^{cH} of the policy gradient, H the row's
    mean entropy in nats; None: 0.
    """

    input_ids: Tensor
    completion_mask: Tensor
    off_policy_mask: Tensor
    replay_mask: Tensor
    advantage: Tensor
    position_ids: Tensor | None = None
    old_log_prob: Tensor | None = None
    ref_log_prob: Tensor | None = None
    recorded_log_prob: Tensor | None = None
    importance: Tensor | None = None
    teacher_log_prob: Tensor | None = None
    surrogate_mask: Tensor | None = None
    cloned_mask: Tensor | None = None
    weight: Tensor | None = None
    clone_weight: Tensor | None = None
    entropy_exponent: Tensor | None = None
