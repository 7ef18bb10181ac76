"""One model over all ranks: FSDP2's `fully_shard` on every decoder layer and on the scorer that calls them.

The scorer is the root, since its forward is the whole computation: it multiplies with the head's weight itself.
Sharded parameters are DTensors. Every forward and backward pass gathers them from all ranks, so all ranks must
make the same number of passes in the same order; `in_step` sees to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import (
    CPUOffloadPolicy,
    FSDPModule,
    MixedPrecisionPolicy,
    OffloadPolicy,
    fully_shard,
)
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from trainer.distributed.ranks import max_over_ranks, rank, world_size
from trainer.modeling.models import TokenScorer, decoder_layers, plain_model, with_adapters
from trainer.settings import LoraSettings, TrainSettings

T = TypeVar("T")


class ShardingError(ValueError):
    """A model cannot be sharded: the message says what was found."""


def shard(scorer: TokenScorer, settings: TrainSettings, device: torch.device) -> None:
    """Shard every parameter of the scorer over all ranks, in place; it moves to `device` layer by layer.

    Weights stay float32; where settings.dtype is bfloat16 they are gathered and multiplied in it, and gradients
    are added up in float32. Gradients are the sum over ranks, not FSDP's mean. Raises ModelError where the model
    names no decoder layers, ShardingError where a parameter is still whole afterwards.
    """
    half, offload = settings.dtype == "bfloat16", settings.parallel.cpu_offload and device.type != "cpu"
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (world_size(),)),
        "mp_policy": MixedPrecisionPolicy(torch.bfloat16, torch.float32) if half else MixedPrecisionPolicy(),
        "offload_policy": CPUOffloadPolicy() if offload else OffloadPolicy(),
    }
    for layer in decoder_layers(plain_model(scorer.model)):
        fully_shard(layer, reshard_after_forward=settings.parallel.reshard_after_forward, **options)
    fully_shard(scorer, reshard_after_forward=False, **options)  # backward needs the head again at once
    for module in scorer.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no other
    whole = [name for name, parameter in scorer.named_parameters() if not isinstance(parameter, DTensor)]
    if whole:
        raise ShardingError(f"fully_shard left {len(whole)} parameters whole, {whole[0]} among them.")


def is_sharded(model: nn.Module) -> bool:
    """Whether the parameters are spread over ranks."""
    return any(isinstance(value, DTensor) for value in model.state_dict().values())


# Passes in step


def in_step(micro_batches: Sequence[T], scorer: nn.Module) -> list[T | None]:
    """The micro-batches of this rank, then a None for each `empty_pass` by which another rank has more.

    At least one pass: its backward leaves the weights sharded, as the optimizer's step expects them.
    """
    if not isinstance(scorer, FSDPModule):
        return list(micro_batches)
    most = max(max_over_ranks(len(micro_batches)), 1)
    return [*micro_batches, *[None] * (most - len(micro_batches))]


def empty_pass(scorer: nn.Module, device: torch.device) -> None:
    """A pass that scores no token: it takes part in the gathering, and adds 0 to every gradient."""
    ids = torch.zeros((1, 2), dtype=torch.long, device=device)
    log_prob, entropy = scorer(ids, torch.zeros_like(ids, dtype=torch.bool))
    if torch.is_grad_enabled():
        (log_prob.sum() + entropy.sum()).backward()


# Full tensors


def full(tensor: Tensor) -> Tensor:
    """The whole of a tensor that may be sharded. Every rank must call it."""
    return cast(Tensor, tensor.full_tensor()) if isinstance(tensor, DTensor) else tensor


def sharded_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """This rank's part of a full tensor that every rank holds, laid out as `parameter`; the tensor where it is whole.

    A scalar, an optimizer's step count say, is everybody's.
    """
    if not isinstance(parameter, DTensor) or tensor.ndim == 0:
        return tensor
    return distribute_tensor(tensor, parameter.device_mesh, parameter.placements, src_data_rank=None)


def full_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The state dict with full tensors, one at a time. Every rank must go through all of it."""
    for name, tensor in model.state_dict().items():
        yield name, full(tensor).detach()


def on_first_rank(tensors: Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """The tensors by name on the CPU of rank 0; the other ranks take part and keep none."""
    found = {}
    for name, tensor in tensors:
        if rank() == 0:
            found[name] = tensor.detach().cpu().contiguous()
    return found


def whole_model(model: nn.Module, lora: LoraSettings | None) -> nn.Module | None:
    """The model with full weights on the CPU of rank 0, adapters in place; None on other ranks.

    A model that is not sharded is returned as it is. Every rank must call it.
    """
    if not is_sharded(model):
        return model
    weights = on_first_rank(full_tensors(model))
    if rank() != 0:
        return None
    whole = same_architecture(model, lora, torch.device("meta"))
    whole.load_state_dict(weights, assign=True)
    plain_model(whole).tie_weights()
    return whole


def sampling_copy(model: PreTrainedModel, settings: TrainSettings, device: torch.device) -> PreTrainedModel:
    """The whole model on each rank's device, to sample from: in the dtype of forward passes, without gradients.

    Every rank must call it.
    """
    copy = plain_model(same_architecture(model, settings.lora, device)).requires_grad_(False)
    with torch.no_grad():
        own = copy.state_dict()
        for name, tensor in full_tensors(model):
            own[name].copy_(tensor)
    return cast(PreTrainedModel, nn.Module.to(copy, torch.bfloat16 if settings.dtype == "bfloat16" else torch.float32))


def same_architecture(model: nn.Module, lora: LoraSettings | None, device: torch.device) -> nn.Module:
    """A model like `model` on `device`, its weights yet to be loaded. Draws nothing from torch's generators."""
    plain = plain_model(model)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), device:
        made = type(plain)(plain.config)
        made.generation_config = plain.generation_config
        return made if lora is None else with_adapters(made, lora)
