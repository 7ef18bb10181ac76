"""This process among those of a run. Outside torchrun everything here is the identity."""

from __future__ import annotations

import os
from collections.abc import Iterable

import torch
from torch import Tensor, distributed


def start_ranks(device: torch.device) -> None:
    """Join the process group that torchrun or accelerate launch describes in the environment, once."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")


def rank() -> int:
    """0 … ranks − 1; 0 alone writes files."""
    return distributed.get_rank() if distributed.is_initialized() else 0


def world_size() -> int:
    """How many processes share the run."""
    return distributed.get_world_size() if distributed.is_initialized() else 1


def sum_over_ranks(values: Tensor) -> Tensor:
    """The sum of a tensor over all ranks, on each of them."""
    if world_size() > 1:
        distributed.all_reduce(values)
    return values


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        distributed.barrier()


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all ranks; a rank without one adds zero. Sharded gradients are summed by FSDP already."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if not parameter.requires_grad:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
