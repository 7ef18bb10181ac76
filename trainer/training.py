"""What every loop stands on: the run folder, the model with its optimizer, and the state to go on from."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tracekit.runs import start_run
from trainer import models
from trainer.checkpoint import (
    FINAL,
    LoopState,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    publish,
    restore_weights,
    save_checkpoint,
)
from trainer.config import TrainSettings
from trainer.optimization import make_optimizer
from trainer.ranks import barrier, rank, start_ranks

CHECKPOINTS = "checkpoints"
MODELS = "models"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Training:
    """A run under way. `model` carries the adapters where there are any; `state` is where the loop begins."""

    settings: TrainSettings
    folder: Path
    device: torch.device
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    optimizer: torch.optim.Optimizer
    state: LoopState

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The dtype that forward passes run in; weights and optimizer stay float32."""
        return autocast(self.settings, self.device)

    def save(self, state: LoopState, *, last: bool = False) -> None:
        """Save a checkpoint where `checkpoint.every` (or the end) asks for one, and the models to keep for good."""
        settings = self.settings.checkpoint
        if rank() == 0 and state.step in settings.models_at:
            self._publish_model(self.folder / MODELS / f"step-{state.step:06d}")
        if rank() == 0 and (last or state.step % settings.every == 0):
            save_checkpoint(self.folder / CHECKPOINTS, state, self._save_for_resume, self.optimizer, settings.keep)
        barrier()

    def finish(self) -> Path:
        """Write `final/`, adapters merged; returns it."""
        target = self.folder / FINAL
        if rank() == 0:
            self._publish_model(target)
        barrier()
        return target

    def _save_for_resume(self, folder: Path) -> None:
        cast(PreTrainedModel, self.model).save_pretrained(folder)  # peft's own saves the adapters alone
        self.tokenizer.save_pretrained(folder)

    def _publish_model(self, target: Path) -> None:
        partial = target.with_name(f".{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_merged(self.model, partial)
        self.tokenizer.save_pretrained(partial)
        publish(partial, target)


def open_run(settings: TrainSettings) -> None:
    """Make `output` the folder of this run, or confirm that it is. Raises RunError where it holds another run."""
    start_run(settings.output, settings, seed=settings.seed, inputs=_digests(settings))


def begin(settings: TrainSettings) -> Training:
    """Load the model and the optimizer, and restore the newest whole checkpoint where there is one."""
    if settings.parallel.fsdp:  # silence here would train unsharded copies
        raise ValueError(
            "parallel.fsdp is true, but sharding is not built yet; set parallel.fsdp=false: every rank then holds the "
            "whole model, and gradients are summed over ranks."
        )
    device = resolve_device(settings.device)
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    start_ranks(device)
    torch.manual_seed(settings.seed)
    model, tokenizer = models.load(settings)
    trained: nn.Module = model if settings.lora is None else models.with_adapters(model, settings.lora)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if settings.lora is not None:
            model.enable_input_require_grads()  # frozen embeddings would cut the checkpointed graph
    newest = newest_checkpoint(settings.output / CHECKPOINTS)
    if newest is not None:
        restore_weights(trained, newest)
    trained.to(device).train()
    optimizer = make_optimizer(trained, settings.optimizer)
    state = LoopState(0) if newest is None else load_checkpoint(newest, optimizer)
    if newest is None and checkpoints(settings.output / CHECKPOINTS):
        logger.warning("no checkpoint of %s is whole: the run starts from the beginning", settings.output)
    return Training(settings, settings.output, device, trained, tokenizer, optimizer, state)


def resolve_device(name: str) -> torch.device:
    """The device of a name; "auto" is the CUDA device of this rank where there is one, else the CPU."""
    if name != "auto":
        return torch.device(name)
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
    torch.cuda.set_device(device)
    return device


def autocast(settings: TrainSettings, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Mixed precision as the settings say, or nothing."""
    if settings.dtype == "float32":
        return contextlib.nullcontext()
    return cast(contextlib.AbstractContextManager[None], torch.autocast(device.type, dtype=torch.bfloat16))


def save_merged(model: nn.Module, folder: Path) -> None:
    """Write a plain Hugging Face model folder: adapters are added into a copy of their weights' layers."""
    if not hasattr(model, "merge_adapter"):
        cast(PreTrainedModel, model).save_pretrained(folder)
        return
    merge, unmerge = cast(Callable[[], None], model.merge_adapter), cast(Callable[[], None], model.unmerge_adapter)
    merge()
    try:
        weights = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in models.plain_model(model).state_dict().items()
            if ".lora_" not in name
        }
        models.plain_model(model).save_pretrained(folder, state_dict=weights)
    finally:
        unmerge()


def warn_skipped(skipped: Counter[str], what: str) -> None:
    """Say how many rows were left out and why."""
    for reason, count in sorted(skipped.items()):
        logger.warning("%d %s skipped: %s", count, what, reason)


def _digests(settings: TrainSettings) -> dict[str, str]:
    paths = {"text": settings.data.text, "curated": settings.data.curated, "problems": settings.data.problems}
    found = {}
    for name, path in paths.items():
        if path is not None and path.is_file():
            with path.open("rb") as file:
                found[name] = hashlib.file_digest(file, "blake2b").hexdigest()[:32]
    return found
