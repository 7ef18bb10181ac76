"""What other trainers' rows train, by our own rules: rewards of groups → advantages, roles, weights and totals.

An adapter holds rows as tensors, not as `Sample`s. The two functions that decide here, `with_advantages` and
`with_roles`, are those of our loop, so that a recipe means the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tracekit.core.prompts import PromptSettings, print_chats
from tracekit.core.recipes import find_recipe
from tracekit.core.settings import load_settings
from trainer.data.problems import Problem
from trainer.objectives.batch import Batch
from trainer.rollouts.groups import Group, Sample, with_advantages, with_roles
from trainer.settings import RolloutSettings, TrainSettings


class RecipeError(ValueError):
    """A recipe asks for something that another trainer cannot do: the message names the setting."""


@dataclass(frozen=True, slots=True)
class RowRoles:
    """What each of N rows trains; one entry a row."""

    advantage: Tensor  # (N,) float32
    weight: Tensor  # (N,) factor of the policy gradient
    clone_weight: Tensor  # (N,) factor of −log p
    entropy_exponent: Tensor  # (N,)
    acts: Tensor  # (N,) bool, True where the row takes part in the policy gradient
    clones: Tensor  # (N,) bool, True where its −log p is minimised
    counts: Tensor  # (N,) bool, True where its tokens enter the policy gradient's totals


def load_recipe(recipe: str | TrainSettings, *words: str) -> TrainSettings:
    """A recipe by its name, or as it stands, held to what adapters can do. Raises RecipeError.

    Model and data come from the other trainer, so that the recipe's own are not read.
    """
    settings = recipe
    if isinstance(settings, str):
        settings = load_settings(TrainSettings, find_recipe(settings, "trainer"), ["data.curated=unused", *words])
    teacher = settings.teacher
    refused = {
        "method": settings.method not in ("grpo", "luffy", "rl_sft"),
        "teacher.rows": settings.teacher_rows > 1,
        "teacher.prefix": teacher.prefix.start < 1 or teacher.prefix.end < 1 or teacher.prefix.shared,
        "teacher.branch": bool(teacher.branch),
        "teacher.probability": teacher.probability != "one",
        "replay": settings.replay is not None,
        "distill": settings.distill is not None,
        "stages": bool(settings.stages),
        "rollout.drop_all_right": settings.rollout.drop_all_right,
        "rollout.drop_all_wrong": settings.rollout.drop_all_wrong,
        "rollout.random_reward": settings.rollout.random_reward is not None,
        "rollout.rewards": settings.rollout.rewards != RolloutSettings().rewards,  # the other trainer's own decide
        "rollout.truncated": settings.rollout.truncated != "score",
        "rollout.curriculum": settings.rollout.curriculum is not None,
    }
    found = [name for name, is_refused in refused.items() if is_refused]
    if found:
        raise RecipeError(
            f"the recipe sets {', '.join(found)}, which this adapter cannot do; expected one of luffy, luffy_unshaped, "
            "luffy_baseline, rl_sft, hpt, chord_mu, chord_phi, srft, grpo, or settings like theirs."
        )
    return settings


def printed_prompt(tokenizer: Any, prompt: Any, template_arguments: Mapping[str, Any]) -> str:
    """A prompt's text up to where the response begins: itself, or a conversation through the chat template."""
    if isinstance(prompt, str):
        return prompt
    settings = PromptSettings(template_arguments=dict(template_arguments))
    chat = [dict(message) for message in prompt]
    return print_chats(tokenizer, [chat], settings, add_generation_prompt=True)[0]


def row_roles(
    rewards: Sequence[float | None], teacher: Sequence[bool], group: Sequence[int], settings: TrainSettings, number: int
) -> RowRoles:
    """Decide over all rows of round `number`, counted from 0.

    rewards: of each row; None or NaN where unknown. teacher: True on rows that hold a teacher's whole trace.
    group: whole numbers, rows of one prompt alike and side by side.
    """
    samples: dict[int, list[Sample]] = {}
    for reward, taught, number_of_group in zip(rewards, teacher, group, strict=True):
        known = None if reward is None or reward != reward else float(reward)
        samples.setdefault(number_of_group, []).append(Sample([0], int(taught), "stop", reward=known))
    nobody = Problem("", "", "", ())
    groups = [Group(nobody, tuple(rows)) for rows in samples.values()]
    decided = with_roles(with_advantages(groups, settings), settings, number)
    rows = [sample for one in decided for sample in one.samples]
    roles = [sample.teacher_role if sample.off_policy else sample.role for sample in rows]
    return RowRoles(
        advantage=torch.tensor([sample.advantage for sample in rows], dtype=torch.float32),
        weight=torch.tensor([sample.weight for sample in rows]),
        clone_weight=torch.tensor([sample.clone_weight for sample in rows]),
        entropy_exponent=torch.tensor([sample.entropy_exponent for sample in rows]),
        acts=torch.tensor([role.acts for role in roles]),
        clones=torch.tensor([role.clones for role in roles]),
        counts=torch.tensor([not row.off_policy or role.acts for row, role in zip(rows, roles)]),
    )


def as_batch(
    completion_mask: Tensor,
    teacher: Tensor,
    roles: RowRoles,
    *,
    old_log_prob: Tensor | None = None,
    ref_log_prob: Tensor | None = None,
    importance: Tensor | None = None,
) -> Batch:
    """Rows of another trainer as the input of our losses; T completion tokens, the prompt left out.

    completion_mask: (B, T). teacher: (B,), True on rows that hold a teacher's trace. importance: (B, T) or (B, 1).
    """
    mask = completion_mask.bool()
    return Batch(
        input_ids=torch.zeros_like(completion_mask, dtype=torch.long),  # no loss reads them
        completion_mask=mask,
        off_policy_mask=mask & teacher[:, None],
        replay_mask=torch.zeros_like(teacher)[:, None],
        advantage=roles.advantage[:, None],
        old_log_prob=old_log_prob,
        ref_log_prob=ref_log_prob,
        importance=None if importance is None else importance.expand(mask.shape),
        surrogate_mask=mask & roles.acts[:, None],
        cloned_mask=mask & roles.clones[:, None],
        weight=roles.weight[:, None],
        clone_weight=roles.clone_weight[:, None],
        entropy_exponent=roles.entropy_exponent[:, None],
    )
