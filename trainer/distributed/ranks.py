"""This process among those of a run. Outside torchrun everything here is the identity."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from datetime import timedelta

import polars as pl
import torch
from torch import Tensor, distributed
from torch.distributed.tensor import DTensor


def start_ranks(device: torch.device) -> None:
    """Join the process group that torchrun or accelerate launch describes in the environment, once."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not distributed.is_initialized():
        # counts and metrics are summed on the CPU; one rank's slow rollouts or rank 0's writing are no hang
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        distributed.init_process_group(backend, timeout=timedelta(hours=1))


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


def max_over_ranks(number: int) -> int:
    """The largest of the numbers that the ranks have."""
    largest = torch.tensor(number)
    if world_size() > 1:
        distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    return int(largest)


def union_over_ranks(names: Iterable[str]) -> list[str]:
    """The names that any rank has, in one order for all: the first rank's, then what others add."""
    if world_size() == 1:
        return list(names)
    lists: list[list[str]] = [[] for _ in range(world_size())]
    distributed.all_gather_object(lists, list(names))
    return list(dict.fromkeys(name for names in lists for name in names))


def gather_rows(frame: pl.DataFrame) -> pl.DataFrame:
    """The rows of every rank's frame, rank after rank, on all of them. They travel as Arrow: nothing is unpickled."""
    if world_size() == 1:
        return frame
    buffer = io.BytesIO()
    frame.write_ipc(buffer)
    own = torch.frombuffer(bytearray(buffer.getbuffer()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.long) for _ in range(world_size())]
    distributed.all_gather(sizes, torch.tensor([own.numel()]))
    longest = max(int(size) for size in sizes)
    parts = [torch.empty(longest, dtype=torch.uint8) for _ in sizes]
    distributed.all_gather(parts, torch.nn.functional.pad(own, (0, longest - own.numel())))
    return pl.concat([pl.read_ipc(part[: int(size)].numpy().tobytes()) for part, size in zip(parts, sizes)])


def barrier() -> None:
    """Wait until every rank is here."""
    if world_size() > 1:
        distributed.barrier()


def sum_gradients(parameters: Iterable[Tensor]) -> None:
    """Add up the gradients of all ranks; a rank without one adds zero. Sharded gradients are summed by FSDP already."""
    if world_size() == 1:
        return
    for parameter in parameters:
        if not parameter.requires_grad or isinstance(parameter, DTensor):
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        distributed.all_reduce(parameter.grad)
