"""Group advantages as pure functions: rewards of a group's rows → one advantage a row."""

from __future__ import annotations

import torch
from torch import Tensor


def group_mean(rewards: Tensor, group: Tensor, baseline_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean reward of each row's group over its baseline rows, and how many those are: two (N,) in float64.

    rewards: (N,). group: (N,), whole numbers from 0, rows of one problem alike. baseline_mask: (N,), True on rows
    that enter the mean. A group of fewer than two baseline rows has mean 0, as in the reference: nothing to
    compare with.
    """
    groups = int(group.max()) + 1 if group.numel() else 0
    kept = baseline_mask.double()
    counts = torch.zeros(groups, dtype=torch.float64, device=rewards.device).index_add_(0, group, kept)
    totals = torch.zeros_like(counts).index_add_(0, group, torch.where(baseline_mask, rewards.double(), 0.0))
    means = torch.where(counts > 1, totals / counts.clamp(min=1), 0.0)
    return means[group], counts[group]


def centred(rewards: Tensor, group: Tensor, baseline_mask: Tensor) -> Tensor:
    """A = R − mean of the group (Dr. GRPO, Liu et al. 2025; LUFFY's code): (N,).

    Arguments as in `group_mean`. Rows outside the baseline get an advantage too.
    """
    mean, _ = group_mean(rewards, group, baseline_mask)
    return (rewards.double() - mean).to(rewards.dtype)


def standardised(
    rewards: Tensor, group: Tensor, baseline_mask: Tensor, epsilon: float = 1e-6, *, unit_when_constant: bool = False
) -> Tensor:
    """A = (R − mean) / (std + epsilon) of the group, std unbiased (GRPO, Shao et al. 2024): (N,).

    Arguments as in `group_mean`. A group of fewer than two baseline rows has std 1. unit_when_constant: where
    the baseline rows all earn the same, std is 1 in place of 0: then a teacher row beside rollouts that
    all fail gets advantage 1, not 1/epsilon.
    """
    mean, count = group_mean(rewards, group, baseline_mask)
    deviation = rewards.double() - mean
    squares = torch.zeros_like(mean).index_add_(0, group, torch.where(baseline_mask, deviation.square(), 0.0))[group]
    std = torch.where(count > 1, (squares / (count - 1).clamp(min=1)).sqrt(), 1.0)
    if unit_when_constant:
        std = torch.where(std == 0, 1.0, std)
    return (deviation / (std + epsilon)).to(rewards.dtype)


def groups_with_signal(advantage: Tensor, group: Tensor) -> Tensor:
    """True for each group that has a row of nonzero advantage: (groups,)."""
    groups = int(group.max()) + 1 if group.numel() else 0
    return torch.bincount(group[advantage != 0], minlength=groups) > 0
