"""AdamW, its schedule, and one update of the weights."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from trainer.settings import OptimizerSettings


class DivergedError(ValueError):
    """A loss or gradient is no finite number: the message says at which step and what to do."""


def make_optimizer(model: nn.Module, settings: OptimizerSettings) -> torch.optim.AdamW:
    """AdamW over the parameters that have gradients, weight decay on all of them as in the reference; fused."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return torch.optim.AdamW(
        trained,
        lr=settings.lr,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def learning_rate(step: int, total: int, settings: OptimizerSettings) -> float:
    """The learning rate of optimizer step 0 … total − 1: linear warm-up, then constant, linear or cosine.

    A pure function of the step, so that a schedule has no state to save.
    """
    if step < settings.warmup_steps:
        return settings.lr * (step + 1) / (settings.warmup_steps + 1)
    if settings.schedule == "constant":
        return settings.lr
    done = (step - settings.warmup_steps) / max(total - settings.warmup_steps, 1)
    left = 1 - done if settings.schedule == "linear" else (1 + math.cos(math.pi * done)) / 2
    return settings.lr * (settings.final_lr_ratio + (1 - settings.final_lr_ratio) * left)


def apply_update(optimizer: torch.optim.Optimizer, lr: float, max_grad_norm: float, step: int) -> float:
    """Clip the gradients' norm, step, and clear them; returns the norm before clipping.

    Raises DivergedError where the norm is not finite: the weights are then as they were.
    """
    norm = torch.nn.utils.clip_grad_norm_(trained_parameters(optimizer), max_grad_norm)
    value = float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)
    if not math.isfinite(value):
        raise DivergedError(
            f"the gradient norm at step {step} is {value}; lower optimizer.lr or look at the rows of this step. "
            "The newest checkpoint is whole: the same command goes on from it."
        )
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return value


def trained_parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    """Every parameter that the optimizer steps, in its order."""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]
