"""A run's state on disk: a Hugging Face model folder with optimizer, random generators and cursor beside it.

A checkpoint is written into a hidden folder, synced and renamed, so that a kill leaves a whole one or none.
`manifest.json` holds the digest of every file; a checkpoint that does not match it is passed over with a
warning. Tensors are safetensors, tables Parquet, the rest JSON: nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from tracekit.core.folders import discard_folder
from trainer.distributed.fsdp import full, sharded_like

MANIFEST = "manifest.json"
STATE = "state.json"
OPTIMIZER = "optimizer.safetensors"
GENERATORS = "generators.safetensors"
EXTRA = "tensors.safetensors"
FINAL = "final"

_NAME = re.compile(r"step-(\d+)")


class CheckpointError(ValueError):
    """A checkpoint is damaged or does not fit the run: the message says what is wrong with which file."""


@dataclass(frozen=True, slots=True)
class LoopState:
    """What a loop needs to go on, beside model, optimizer and random generators.

    step: updates or rounds done. values: plain JSON values (cursor, counters). tensors and tables: what is
    larger, a replay buffer say.
    """

    step: int
    values: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    tables: dict[str, pl.DataFrame] = field(default_factory=dict)


def save_checkpoint(
    folder: Path, state: LoopState, save_model: Callable[[Path], None], optimizer: Mapping[str, Tensor], keep: int
) -> Path:
    """Write `folder`/step-N whole or not at all, then drop all but the newest `keep`.

    save_model writes the model and tokenizer into the folder it is given. optimizer: its `optimizer_tensors`, whole
    and on the CPU.
    """
    target = folder / f"step-{state.step:06d}"
    partial = folder / f".{target.name}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    save_model(partial)
    save_file(dict(optimizer), partial / OPTIMIZER)
    save_file(generator_tensors(), partial / GENERATORS)
    if state.tensors:
        save_file({name: tensor.contiguous() for name, tensor in state.tensors.items()}, partial / EXTRA)
    for name, table in state.tables.items():
        table.write_parquet(partial / f"{name}.parquet")
    record = {"step": state.step, "values": state.values, "tables": sorted(state.tables)}
    (partial / STATE).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    publish(partial, target)
    for old in checkpoints(folder)[:-keep]:
        discard(old)
    return target


def discard(old: Path) -> bool:
    """Remove a folder that `publish` made; files that somebody else put there are kept with it, with a warning."""
    try:
        owned = [Path(name) for name in json.loads((old / MANIFEST).read_text(encoding="utf-8"))]
    except (OSError, ValueError, TypeError):  # damaged: nothing tells our files from others
        warnings.warn(f"{old} is left as it is: its {MANIFEST} cannot be read.", stacklevel=2)
        return False
    inside = [str(name) for name in owned if not name.is_absolute() and ".." not in name.parts]
    if kept := discard_folder(old, [*inside, MANIFEST]):
        warnings.warn(f"{old} is kept: it holds {kept[0]}, which the run did not write.", stacklevel=2)
    return not kept


def publish(partial: Path, target: Path) -> None:
    """Seal `partial` with a manifest, sync it and rename it to `target`, which it replaces."""
    digests = {
        str(path.relative_to(partial)): _digest(path)
        for path in sorted(partial.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }
    (partial / MANIFEST).write_text(json.dumps(digests, indent=2) + "\n", encoding="utf-8")
    for path in partial.rglob("*"):
        _sync(path)
    _sync(partial)
    old = target.with_name(f".{target.name}.old")
    _put_away(old)
    if target.exists():  # an earlier run's; renaming onto a folder that holds files is refused
        os.rename(target, old)
    os.rename(partial, target)
    _put_away(old)
    _sync(target.parent)


def _put_away(old: Path) -> None:
    """Remove what `publish` replaced; under a name that a person sees where it holds somebody else's files."""
    if old.exists() and not discard(old):
        numbers = itertools.count(1)
        named = (old.with_name(f"{old.name.removeprefix('.')}-{n}") for n in numbers)
        os.rename(old, next(path for path in named if not path.exists()))


def checkpoints(folder: Path) -> list[Path]:
    """The step-N folders, oldest first."""
    if not folder.is_dir():
        return []
    return sorted((path for path in folder.iterdir() if _NAME.fullmatch(path.name)), key=step_of)


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest whole checkpoint; damaged ones are passed over, each with a warning."""
    for path in reversed(checkpoints(folder)):
        fault = damage(path)
        if fault is None:
            return path
        warnings.warn(f"checkpoint {path} is damaged and skipped: {fault}", stacklevel=2)
    return None


def damage(path: Path) -> str | None:
    """What is wrong with a checkpoint or final folder, or None: every file is there and has its digest."""
    try:
        digests = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        return f"{MANIFEST} cannot be read ({error})"
    if not isinstance(digests, dict) or not any(name.endswith(".safetensors") for name in digests):
        return f"{MANIFEST} names no weights"
    unknown = {path.name for path in path.glob("*.safetensors")} - digests.keys()
    if unknown:
        return f"{min(unknown)} is not in {MANIFEST}"
    for name, digest in digests.items():
        file = path / name
        if not file.is_file():
            return f"{name} is missing"
        if _digest(file) != digest:
            return f"{name} is not what was written"
    return None


def load_checkpoint(path: Path, optimizer: torch.optim.Optimizer) -> LoopState:
    """Restore the optimizer and the random generators; returns the loop's state. `restore_weights` does the model.

    Raises CheckpointError where the optimizer's state is not of this model.
    """
    try:
        record = json.loads((path / STATE).read_text(encoding="utf-8"))
        restore_optimizer(optimizer, load_file(path / OPTIMIZER))
        restore_generators(load_file(path / GENERATORS))
        tensors = load_file(path / EXTRA) if (path / EXTRA).exists() else {}
    except SafetensorError as error:
        raise CheckpointError(f"{path}: {error}") from error
    tables = {name: pl.read_parquet(path / f"{name}.parquet") for name in record["tables"]}
    return LoopState(record["step"], record["values"], tensors, tables)


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Tensor]]:
    """An optimizer's state as named tensors: "0.exp_avg", "0.step", …, numbered in the order of the parameters.

    Full tensors, one at a time; where they are sharded every rank must go through all of them.
    """
    for index, values in optimizer.state_dict()["state"].items():
        for name, value in values.items():
            yield f"{index}.{name}", full(value)


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimizer_tensors`. Raises CheckpointError where shapes are not the parameters'."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        index, _, name = key.partition(".")
        place = int(index)
        if place >= len(parameters) or (tensor.ndim and tensor.shape != parameters[place].shape):
            raise CheckpointError(
                f"{OPTIMIZER} holds {key} of shape {tuple(tensor.shape)}, which no parameter of this model has; "
                "the checkpoint is of another model or LoRA rank."
            )
        state.setdefault(place, {})[name] = sharded_like(tensor, parameters[place])
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def generator_tensors() -> dict[str, Tensor]:
    """The state of torch's global generators: the CPU's and each CUDA device's."""
    found = {"cpu": torch.get_rng_state()}
    for device in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        found[f"cuda.{device}"] = torch.cuda.get_rng_state(device)
    return found


def restore_generators(tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `generator_tensors`; devices that are not here are passed over."""
    torch.set_rng_state(tensors["cpu"])
    for device in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        if f"cuda.{device}" in tensors:
            torch.cuda.set_rng_state(tensors[f"cuda.{device}"], device)


def restore_weights(model: nn.Module, path: Path) -> None:
    """Load the weights of a checkpoint folder into a model of the same architecture, or its adapters.

    Raises CheckpointError where names or shapes differ.
    """
    files = sorted(path.glob("adapter_model*.safetensors")) or sorted(path.glob("model*.safetensors"))
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= load_file(file)
    if files and files[0].name.startswith("adapter_model"):
        from peft import set_peft_model_state_dict

        result: Any = set_peft_model_state_dict(model, weights)
        unknown, absent = result.unexpected_keys, []
    else:
        tied = set(getattr(model, "all_tied_weights_keys", None) or ())
        missing, unknown = model.load_state_dict(weights, strict=False)
        absent = [name for name in missing if name not in tied]
    if unknown or absent or not files:
        raise CheckpointError(
            f"{path} does not fit the model: unknown {unknown[:3]}, absent {absent[:3]}, {len(files)} weight files."
        )


def step_of(path: Path) -> int:
    """The step of a checkpoint folder's name."""
    found = _NAME.fullmatch(path.name)
    assert found is not None
    return int(found[1])


def _digest(path: Path) -> str:
    digest = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
