"""What every loop stands on: the run folder, the model with its optimizer, and the state to go on from."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from tracekit.core.models import ends_of
from tracekit.core.prompts import read_prompt_settings, save_prompt_settings
from tracekit.core.runs import RUN_FILE, start_run, write_text
from trainer.data.sequences import response_ends
from trainer.distributed.fsdp import on_first_rank, shard, whole_model
from trainer.distributed.ranks import barrier, max_over_ranks, rank, start_ranks, world_size
from trainer.loops.checkpoint import (
    FINAL,
    STATE,
    LoopState,
    checkpoints,
    damage,
    load_checkpoint,
    newest_checkpoint,
    optimizer_tensors,
    publish,
    restore_weights,
    save_checkpoint,
    step_of,
)
from trainer.loops.optimization import make_optimizer
from trainer.loops.run_log import METRICS, TENSORBOARD
from trainer.modeling import models
from trainer.modeling.memory import keep_freed_memory
from trainer.settings import NEUTRAL, POLICY, TrainSettings

CHECKPOINTS = "checkpoints"
MODELS = "models"
#: What a training run writes in its folder, by name.
WRITES = (CHECKPOINTS, MODELS, FINAL, METRICS, TENSORBOARD, "completions", "weights")

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
        if state.step in settings.models_at:
            self.publish(self.folder / MODELS / f"step-{state.step:06d}")
        if state.step % settings.every == 0:
            self._save_checkpoint(state)
        barrier()

    def _save_checkpoint(self, state: LoopState) -> None:
        model = whole_model(self.model, self.settings.lora)
        optimizer = on_first_rank(optimizer_tensors(self.optimizer))
        if model is not None and rank() == 0:
            save_model, keep = partial(self._save_for_resume, model), self.settings.checkpoint.keep
            save_checkpoint(self.folder / CHECKPOINTS, state, save_model, optimizer, keep)

    def finish(self, state: LoopState) -> Path:
        """Write `final/`, adapters merged, and a last checkpoint to extend a long run from; returns `final/`."""
        if state.step > self.settings.checkpoint.every and state.step % self.settings.checkpoint.every:
            self._save_checkpoint(state)
        target = self.folder / FINAL
        dtype = models.base_dtype(self.settings)
        self.publish(target, {**_length(self.settings), "base_dtype": str(dtype).removeprefix("torch.")})
        return target

    def publish(self, target: Path, record: dict[str, Any] | None = None) -> None:
        """Write the model of now as a plain model folder, adapters merged, whole or not at all.

        record: written beside the weights. Every rank must call it.
        """
        model = whole_model(self.model, self.settings.lora)
        if model is not None and rank() == 0:
            partial = target.with_name(f".{target.name}.partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            save_merged(model, partial, models.final_dtype(self.settings))
            self._save_tokenizer(partial)
            if record is not None:
                (partial / STATE).write_text(json.dumps(record) + "\n", encoding="utf-8")
            publish(partial, target)
        barrier()

    def _save_for_resume(self, model: nn.Module, folder: Path) -> None:
        cast(PreTrainedModel, model).save_pretrained(folder)  # peft's own saves the adapters alone
        self._save_tokenizer(folder)

    def _save_tokenizer(self, folder: Path) -> None:
        """Write the tokenizer and how prompts are made with it: `evaluate` and `probe` read both."""
        self.tokenizer.save_pretrained(folder)
        save_prompt_settings(self.settings.data.prompt, folder)


def open_run(settings: TrainSettings) -> None:
    """Make `output` the folder of this run, or confirm that it is. Raises RunError where it holds another run.

    A run may be extended: more `steps` or `epochs` than before, where the learning rate does not depend on them.
    """
    may_differ, path = set(NEUTRAL), settings.output / RUN_FILE
    found = _recorded(path)
    if found is not None:
        may_differ |= _moved(found, settings)
        may_differ |= {"steps", "epochs"} if _extends(found, settings) else set()
    inputs = _digests(settings)
    start_run(settings.output, settings, seed=settings.seed, inputs=inputs, may_differ=may_differ, writes=WRITES)
    if found is not None and {"steps", "epochs"} <= may_differ:
        record = json.loads(path.read_text(encoding="utf-8"))
        record["settings"] |= {"steps": settings.steps, "epochs": settings.epochs}
        write_text(path, json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")


def _recorded(path: Path) -> dict[str, Any] | None:
    """The settings in a run file; None where there is none, or none that can be read: `start_run` tells."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))["settings"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return found if isinstance(found, dict) and "output" in found else None


def _moved(found: dict[str, Any], settings: TrainSettings) -> set[str]:
    """`model` where it is the stage before this one and lies where it lay, seen from the run's folder."""
    before, now = str(found.get("model")), str(settings.model)
    if not isinstance(found["output"], str):
        return set()
    seen = [os.path.relpath(model, output) for model, output in ((before, found["output"]), (now, settings.output))]
    return {"model"} if seen[0] == seen[1] and seen[0].startswith("..") and Path(now).name == FINAL else set()


def _extends(found: dict[str, Any], settings: TrainSettings) -> bool:
    """Whether the settings ask for more of the same run."""
    if settings.optimizer.schedule != "constant":
        return False  # the learning rate of the steps done was that of a shorter run
    if settings.steps is None or found.get("steps") is None:
        return settings.steps is None and found.get("steps") is None and settings.epochs > found.get("epochs", 0)
    return isinstance(found["steps"], int) and settings.steps > found["steps"]


def finished(settings: TrainSettings) -> bool:
    """Whether `final/` is whole and of as many steps as the settings ask for; the first rank looks."""
    whole = False
    final = settings.output / FINAL
    if rank() == 0 and final.exists():
        fault = damage(final)
        if fault is not None:
            warnings.warn(f"{final} is damaged and made again: {fault}", stacklevel=3)
        whole = fault is None and _length_of(final) in (None, _length(settings))
    return bool(max_over_ranks(int(whole)))


def _length(settings: TrainSettings) -> dict[str, Any]:
    return {"steps": settings.steps, "epochs": settings.epochs}


def _length_of(final: Path) -> dict[str, Any] | None:
    """The steps and epochs that a final folder was trained for; None in a folder that does not say."""
    path = final / STATE
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return {name: record[name] for name in ("steps", "epochs")} if "steps" in record else None


def begin(settings: TrainSettings) -> Training:
    """Load the model and the optimizer, and restore the newest whole checkpoint where there is one."""
    device = resolve_device(settings.device)
    if device.type == "cpu":
        keep_freed_memory()
    if settings.threads is not None:
        torch.set_num_threads(settings.threads)
    start_ranks(device)
    if settings.parallel.fsdp is True and world_size() == 1:  # silence here would train a whole copy
        raise ValueError(
            "parallel.fsdp is true in a single process, which has nothing to shard over; start several by "
            "torchrun --nproc-per-node N -m tracekit.cli train …, or set parallel.fsdp to false or auto."
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
    newest = _newest(settings.output / CHECKPOINTS)
    if newest is not None:
        restore_weights(trained, newest)
    scorer = _on_device(trained, settings, device)
    optimizer = make_optimizer(trained, settings.optimizer)
    state = LoopState(0) if newest is None else load_checkpoint(newest, optimizer)
    if newest is None and checkpoints(settings.output / CHECKPOINTS):
        logger.warning("no checkpoint of %s is whole: the run starts from the beginning", settings.output)
    return Training(settings, settings.output, device, trained, tokenizer, optimizer, state, scorer, ends)


def _newest(folder: Path) -> Path | None:
    """The newest whole checkpoint: the first rank reads every file of it, the others are told its step."""
    found = newest_checkpoint(folder) if rank() == 0 else None
    step = max_over_ranks(-1 if found is None else step_of(found))
    return None if step < 0 else next(path for path in checkpoints(folder) if step_of(path) == step)


def _on_device(model: nn.Module, settings: TrainSettings, device: torch.device) -> models.TokenScorer:
    """The model in its scorer, whole on the device or sharded over all ranks' devices."""
    temperature = settings.rollout.temperature if settings.method in POLICY else 1.0
    sharded = settings.parallel.fsdp is True or (settings.parallel.fsdp == "auto" and world_size() > 1)
    if not sharded:
        model.to(device)
    if settings.compares_passes:
        models.without_dropout(model)
    scorer = models.TokenScorer(model, temperature).train()  # tries the head out: before its weight is sharded
    if settings.compile:
        models.compile_layers(models.plain_model(model))
    if sharded:
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


def save_merged(model: nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write a plain Hugging Face model folder: adapters are added into a copy of their weights' layers.

    dtype: of the floating-point weights in the folder.
    """
    plain = models.plain_model(model)
    if not hasattr(model, "merge_adapter"):
        _save_as(plain, plain.state_dict(), folder, dtype)
        return
    merge, unmerge = cast(Callable[[], None], model.merge_adapter), cast(Callable[[], None], model.unmerge_adapter)
    merge()
    try:
        weights = {
            name.replace(".base_layer.", "."): tensor
            for name, tensor in plain.state_dict().items()
            if ".lora_" not in name
        }
        _save_as(plain, weights, folder, dtype)
    finally:
        unmerge()


def _save_as(model: PreTrainedModel, weights: Mapping[str, Tensor], folder: Path, dtype: torch.dtype) -> None:
    """Write the weights in `dtype`, tied ones once, and the configuration that says so."""
    places = {name: (tensor.data_ptr(), tensor.shape, tensor.stride()) for name, tensor in weights.items()}
    made = {places[name]: t.to(dtype) if t.is_floating_point() else t for name, t in weights.items()}
    model.save_pretrained(folder, state_dict={name: made[place] for name, place in places.items()})
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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
            found[name] = _file_digest(path)
    for reward in settings.rollout.rewards if settings.method in POLICY else ():
        file = Path(str(reward.path).rpartition(":")[0])
        if file.suffix == ".py" and file.is_file():  # another function would be another run
            found[f"reward {reward.label}"] = _file_digest(file)
    return found


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()[:32]
