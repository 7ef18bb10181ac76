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
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tracekit.core.models import ends_of
from tracekit.core.prompts import read_prompt_settings, save_prompt_settings
from tracekit.core.runs import start_run
from trainer.data.sequences import response_ends
from trainer.distributed.fsdp import on_first_rank, shard, whole_model
from trainer.distributed.ranks import barrier, rank, start_ranks, world_size
from trainer.loops.checkpoint import (
    FINAL,
    LoopState,
    checkpoints,
    load_checkpoint,
    newest_checkpoint,
    optimizer_tensors,
    publish,
    restore_weights,
    save_checkpoint,
)
from trainer.loops.optimization import make_optimizer
from trainer.modeling import models
from trainer.modeling.memory import keep_freed_memory
from trainer.settings import ENGINE_CONNECTION, POLICY, TrainSettings

CHECKPOINTS = "checkpoints"
MODELS = "models"

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Training:
    """A run under way. `model` carries the adapters where there are any; `state` is where the loop begins.

    ends: ids that end a response.
    scorer: the model's, at the temperature that rows are sampled at (1 in supervised loops); sharded with it.
    """

    settings: TrainSettings
    folder: Path
    device: torch.device
    model: nn.Module
    tokenizer: PreTrainedTokenizerBase
    optimizer: torch.optim.Optimizer
    state: LoopState
    scorer: models.TokenScorer
    ends: tuple[int, ...]

    def autocast(self) -> contextlib.AbstractContextManager[None]:
        """The dtype that forward passes run in; weights and optimizer stay float32."""
        return autocast(self.settings, self.device)

    def saves_at(self, step: int) -> bool:
        """Whether `checkpoint.every` or `checkpoint.models_at` asks for something at this step."""
        settings = self.settings.checkpoint
        return step in settings.models_at or step % settings.every == 0

    def save(self, state: LoopState) -> None:
        """Save a checkpoint where `checkpoint.every` asks for one, and the models to keep for good."""
        if not self.saves_at(state.step):
            return
        settings = self.settings.checkpoint
        for_good, to_resume = state.step in settings.models_at, state.step % settings.every == 0
        model = whole_model(self.model, self.settings.lora)
        if for_good and model is not None and rank() == 0:
            self._publish_model(model, self.folder / MODELS / f"step-{state.step:06d}")
        if to_resume:
            optimizer = on_first_rank(optimizer_tensors(self.optimizer))
            if model is not None and rank() == 0:
                save_model = partial(self._save_for_resume, model)
                save_checkpoint(self.folder / CHECKPOINTS, state, save_model, optimizer, settings.keep)
        barrier()

    def finish(self) -> Path:
        """Write `final/`, adapters merged; returns it."""
        target = self.folder / FINAL
        model = whole_model(self.model, self.settings.lora)
        if model is not None and rank() == 0:
            self._publish_model(model, target)
        barrier()
        return target

    def _save_for_resume(self, model: nn.Module, folder: Path) -> None:
        cast(PreTrainedModel, model).save_pretrained(folder)  # peft's own saves the adapters alone
        self._save_tokenizer(folder)

    def _save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer and how prompts are made with it: `evaluate` and `probe` read both."""
        self.tokenizer.save_pretrained(folder)
        save_prompt_settings(self.settings.data.prompt, folder)

    def _publish_model(self, model: nn.Module, target: Path) -> None:
        beside = target.with_name(f".{target.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        save_merged(model, beside)
        self._save_tokenizer(beside)
        publish(beside, target)


def open_run(settings: TrainSettings) -> None:
    """Make `output` the folder of this run, or confirm that it is. Raises RunError where it holds another run."""
    start_run(settings.output, settings, seed=settings.seed, inputs=_digests(settings), may_differ=ENGINE_CONNECTION)


def begin(settings: TrainSettings) -> Training:
    """Load the model and the optimizer, and restore the newest whole checkpoint where there is one."""
    device = resolve_device(settings.device)
    if device.type == "cpu":
        keep_freed_memory()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    start_ranks(device)
    if settings.parallel.fsdp and world_size() == 1:  # silence here would train a whole copy
        raise ValueError(
            "parallel.fsdp is true in a single process, which has nothing to shard over; start several by "
            "torchrun --nproc-per-node N -m tracekit.cli train …, or set parallel.fsdp=false."
        )
    torch.manual_seed(settings.seed)
    model, tokenizer = models.load(settings)
    warn_other_prompts(settings)
    ends = response_ends(tokenizer, settings.data, ends_of(model.generation_config))
    if model.generation_config is not None and ends_of(model.generation_config) != ends:
        # whoever samples from a checkpoint ends responses as training does
        model.generation_config.eos_token_id = list(ends)
    trained: nn.Module = model if settings.lora is None else models.with_adapters(model, settings.lora)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        if settings.lora is not None:
            model.enable_input_require_grads()  # frozen embeddings would cut the checkpointed graph
    newest = newest_checkpoint(settings.output / CHECKPOINTS)
    if newest is not None:
        restore_weights(trained, newest)
    scorer = _on_device(trained, settings, device)
    optimizer = make_optimizer(trained, settings.optimizer)
    state = LoopState(0) if newest is None else load_checkpoint(newest, optimizer)
    if newest is None and checkpoints(settings.output / CHECKPOINTS):
        logger.warning("no checkpoint of %s is whole: the run starts from the beginning", settings.output)
    return Training(settings, settings.output, device, trained, tokenizer, optimizer, state, scorer, ends)


def _on_device(model: nn.Module, settings: TrainSettings, device: torch.device) -> models.TokenScorer:
    """The model in its scorer, whole on the device or sharded over all ranks' devices."""
    temperature = settings.rollout.temperature if settings.method in POLICY else 1.0
    if not settings.parallel.fsdp:
        model.to(device)
    if settings.compares_passes:
        models.without_dropout(model)
    scorer = models.TokenScorer(model, temperature).train()  # tries the head out: before its weight is sharded
    if settings.compile:
        models.compile_layers(models.plain_model(model))
    if settings.parallel.fsdp:
        shard(scorer, settings, device)
    return scorer


def resolve_device(name: str) -> torch.device:
    """The device of a name; "cuda" is this rank's, and "auto" is that where there is one, else the CPU."""
    if name not in ("auto", "cuda"):
        return torch.device(name)
    if name == "auto" and not torch.cuda.is_available():
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


def warn_other_prompts(settings: TrainSettings) -> None:
    """Say where the model was trained on prompts that were printed otherwise than this run prints them."""
    trained = None if settings.model is None else read_prompt_settings(settings.model)
    if trained is not None and trained != settings.data.prompt:
        logger.warning(
            "%s was trained on prompts with %s; this run has %s under [data]",
            settings.model,
            trained,
            settings.data.prompt,
        )


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
