"""Checkpoint × traces → hidden states on disk, teacher-forced.

One forward pass over length-sorted, right-padded batches. A causal model's real tokens never see what stands
to their right, so no attention mask is built; the pass stops after the deepest layer that is asked for, has no
language-model head, and keeps of each layer the rows alone that are read: memory does not grow with the number
of layers, nor with the traces.

Layer 0 is the embedding, layer l the output of block l, and the last is taken *before* the final norm
(in transformers `hidden_states[-1]` is after it).
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from probes.states.forward import Batch, make_batches, read_batch
from probes.states.places import Place, Position, TokenisedTrace, place
from probes.states.positions import load_tokenizer, tokenise
from probes.states.text_baseline import surface_features
from probes.svm.kernels import StatesError
from tracekit.core.folders import claim_folder
from tracekit.core.models import ModelError, open_config, open_model
from tracekit.core.prompts import AS_IT_COMES, read_prompt_settings
from tracekit.core.runs import Progress, no_progress, read_json, write_text
from tracekit.core.tables import STATES_INDEX, check, read_any_table, write_table

if TYPE_CHECKING:
    import torch

StoredType = Literal["float32", "bfloat16", "float16"]

#: Beside STATES_INDEX: the token's id, where it ends in the response, the mean log-probability of the row's
#: tokens under this model (natural logarithm; null where not asked for).
INDEX_EXTRAS: dict[str, Any] = {"token_id": pl.Int32, "character": pl.Int32, "log_prob": pl.Float32}

_FORMAT = 1


@dataclass(frozen=True)
class States:
    """Hidden states on disk: `index` has one row for each row of every layer's array.

    Attributes
    ----------
    folder : Path
        states.json, index.parquet, surface.npy and layer_NNN.npy, one array (rows, width) a layer.
    index : DataFrame
        row, problem_id, trace_id, step (null at positions of no step), position, token (of prompt + response),
        token_id, character (where the token ends in the response; 0 in the prompt) and log_prob (nats, null where not
        asked for).
    layers : tuple of int
        Those that were extracted; 0 is the embedding, l the output of block l, the last before the final norm.
    width, depth : int
        Of the model: size of a state, number of blocks.
    stored : {"float32", "bfloat16", "float16"}
        The type on disk.
    tokens_digest : str
        Equal between two folders where their token ids are.
    model : str
        Digest of the checkpoint's configuration and weights.

    Examples
    --------
    >>> states = open_states("states/sft")  # doctest: +SKIP
    >>> states.read(2, states.index.filter(position="step_end")["row"].to_numpy()).shape  # doctest: +SKIP
    (481, 96)
    """

    folder: Path
    index: pl.DataFrame
    layers: tuple[int, ...]
    width: int
    stored: StoredType
    tokens_digest: str
    depth: int
    model: str = ""

    def layer(self, layer: int) -> np.ndarray:
        """(rows, width): memory-mapped where stored as float32 or float16, widened to float32 where bfloat16."""
        return self._widen(self.mapped(layer))

    def read(self, layer: int, rows: np.ndarray) -> np.ndarray:
        """(len(rows), width) float32 of some rows; the others stay on disk."""
        return np.asarray(self._widen(self.mapped(layer)[rows]), dtype=np.float32)

    def mapped(self, layer: int) -> np.ndarray:
        """(rows, width) as stored, memory-mapped; bfloat16 as its bits in uint16. Raises StatesError."""
        if layer not in self.layers:
            raise StatesError(f"{self.folder} holds layers {list(self.layers)}; layer {layer} was not extracted.")
        return _array(self.folder / f"layer_{layer:03d}.npy", len(self.index))

    def _widen(self, array: np.ndarray) -> np.ndarray:
        return (array.astype(np.uint32) << 16).view(np.float32) if self.stored == "bfloat16" else array

    def surface(self) -> np.ndarray:
        """(rows, features) float32: what the text alone tells (see `probes.states.text_baseline`)."""
        return _array(self.folder / "surface.npy", len(self.index))


def _array(path: Path, rows: int) -> np.ndarray:
    """A memory-mapped array of so many rows. Raises StatesError where the file is absent or damaged."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise StatesError(f"{path} cannot be read ({error}); delete {path.parent} and extract again.") from error
    if array.ndim != 2 or len(array) != rows:
        raise StatesError(f"{path} has shape {array.shape}, and the index {rows} rows; extract the states again.")
    return array


@dataclass(frozen=True)
class Reading:
    """How states are read.

    Attributes
    ----------
    positions : tuple of str
        Where, as expressions (`probes.states.places`), such as "before_result" or "step_end-2".
    layers : tuple of int or None
        Indices 0 … depth, negative from the end; None: all.
    stored : {"float32", "bfloat16", "float16"}
        The type on disk; float16 is refused where a value overflows.
    token_budget : int
        Padded tokens of a batch, ≥ 1; one long sequence may exceed it.
    log_probs : bool
        Also the model's own mean log-probability of each row's tokens: runs the whole model and its head.
    untrained : int or None
        Seed of an initialisation drawn in place of the weights (the control); None: the weights.

    Examples
    --------
    >>> from probes import Reading
    >>> Reading(positions=("before_result", "step_end-2"), layers=(-1,)).stored
    'float32'
    """

    positions: tuple[Position, ...] = ("prompt_end", "step_end", "before_answer", "step_mean")
    layers: tuple[int, ...] | None = None
    stored: StoredType = "float32"
    token_budget: int = 8192
    log_probs: bool = False
    untrained: int | None = None


def extract_states(
    model_folder: str | Path,
    traces: pl.DataFrame,
    steps: pl.DataFrame,
    folder: str | Path,
    reading: Reading = Reading(),
    *,
    device: str | None = None,
    progress: Progress = no_progress,
) -> States:
    """Write the hidden states of a checkpoint on traces to `folder`; resume where an earlier call stopped.

    Under `accelerate launch` each rank takes its share of the batches and rank 0 joins them, on a file system that all
    ranks see.

    Parameters
    ----------
    model_folder : str or Path
        A causal language model in Hugging Face format with its fast tokenizer.
    traces : DataFrame
        problem_id, trace_id, problem and response; one row a trace.
    steps : DataFrame
        STEPS: the spans of characters of each trace's steps. No row: positions of steps give none.
    folder : str or Path
        Where the states are written.
    reading : Reading
        Positions, layers and type.
    device : str, optional
        torch's name; None: an accelerator where there is one.
    progress : callable
        Called as progress(stage, done, total, note).

    Returns
    -------
    States
        What stands on disk; read again with `open_states`.

    Raises
    ------
    StatesError
        Where the folder holds other states, no row is at the positions, the checkpoint is damaged or float16 overflows.
    PositionError
        Where the checkpoint has no fast tokenizer, or a position is unknown.

    Examples
    --------
    A page of the documentation (docs/probing.md) runs this from a new checkpoint to the report:

    >>> states = extract_states("runs/sft/final", traces, steps, "states/sft", Reading(("step_end",)))  # doctest: +SKIP
    >>> states.layer(states.layers[-1]).shape  # doctest: +SKIP
    (481, 96)
    """
    folder, model_folder = Path(folder), Path(model_folder)
    if traces.is_empty():
        raise StatesError("traces has no rows; nothing can be extracted.")
    rank, ranks, device, wait = _share(device)
    prompt_settings = read_prompt_settings(model_folder) or AS_IT_COMES
    sequences = tokenise(load_tokenizer(model_folder), traces, prompt_settings)
    places = place(sequences, traces, steps, reading.positions)
    if not places:
        raise StatesError(f"no row at positions {list(reading.positions)} in {len(traces)} traces; check steps.")
    record = _record(model_folder, sequences, places, reading)
    if (folder / "states.json").is_file():
        return _same(open_states(folder), record)
    batches = list(make_batches(sequences, places, reading.token_budget))
    parts = folder / "parts"
    _claim(parts, record, rank, wait)
    mine = [b for b in range(rank, len(batches), ranks) if not (parts / f"{b:06d}.safetensors").is_file()]
    if mine:
        model, layers = _load(model_folder, reading, device)
        for done, number in enumerate(mine):
            progress("states", done, len(mine), folder.name)
            _save_part(
                parts / f"{number:06d}.safetensors",
                read_batch(model, sequences, places, batches[number], layers, reading.log_probs),
                reading,
            )
        progress("states", len(mine), len(mine), folder.name)
    wait()
    if rank == 0:
        _join(folder, parts, sequences, places, batches, record, reading)
    wait()
    return open_states(folder)


def open_states(folder: str | Path) -> States:
    """Read a folder that `extract_states` finished. Raises StatesError."""
    folder = Path(folder)
    path = folder / "states.json"
    if not path.is_file():
        raise StatesError(f"{folder} holds no finished states (no states.json); run the extraction again to finish it.")
    record = read_json(path)
    if record.get("format") != _FORMAT:
        found = record.get("format")
        raise StatesError(f"{folder} is of format {found}, expected {_FORMAT}; extract the states again.")
    index = read_any_table(folder / "index.parquet", "index of the states")
    check(index, STATES_INDEX, f"states index ({folder / 'index.parquet'})")
    try:
        return States(
            folder=folder,
            index=index,
            layers=tuple(record["layers"]),
            width=record["width"],
            stored=record["stored"],
            tokens_digest=record["tokens"],
            depth=record["depth"],
            model=record["model"],
        )
    except (KeyError, TypeError) as error:
        raise StatesError(f"{path} is damaged ({error!r}); delete {folder} and extract the states again.") from error


# ---------------------------------------------------------------- models, ranks, files


def _load(model_folder: Path, reading: Reading, device: str) -> tuple[Any, list[int]]:
    import torch
    from transformers.utils import logging as transformers_logging

    # bfloat16 arithmetic on a CPU is slower than float32 and rounds differently in every batch shape.
    dtype: Any = torch.float32 if device == "cpu" else "auto"
    # The head that is left out on purpose is no fault to report.
    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        model = open_model(model_folder, dtype=dtype, head=reading.log_probs, untrained_seed=reading.untrained)
    except ModelError as error:
        raise StatesError(str(error)) from error
    finally:
        transformers_logging.set_verbosity(level)
    model = model.to(device).eval()
    return model, _layers(reading, model.config.get_text_config().num_hidden_layers)


def _layers(reading: Reading, depth: int) -> list[int]:
    asked = range(depth + 1) if reading.layers is None else reading.layers
    layers = sorted({layer + depth + 1 if layer < 0 else layer for layer in asked})
    if not layers or layers[0] < 0 or layers[-1] > depth:
        raise StatesError(f"layers {list(asked)}: the model has layers 0 (embedding) … {depth}.")
    return layers


def _share(device: str | None) -> tuple[int, int, str, Any]:
    """(rank, ranks, device, barrier)."""
    import torch

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        from accelerate import PartialState

        state = PartialState()
        return state.process_index, state.num_processes, device or str(state.device), state.wait_for_everyone
    return 0, 1, device or ("cuda" if torch.cuda.is_available() else "cpu"), lambda: None


def _record(
    model_folder: Path, sequences: Sequence[TokenisedTrace], places: Sequence[Place], reading: Reading
) -> dict[str, Any]:
    config = open_config(model_folder).get_text_config()
    tokens = hashlib.blake2b(digest_size=8)
    for s in sequences:
        tokens.update(np.asarray([s.prompt_length, *s.token_ids], dtype=np.int64).tobytes())
    where = repr([(p.sequence, p.position, p.step, p.first, p.last) for p in places])
    return {
        "format": _FORMAT,
        "model": model_digest(model_folder),
        "tokens": tokens.hexdigest(),
        "places": hashlib.blake2b(where.encode(), digest_size=8).hexdigest(),
        "layers": _layers(reading, config.num_hidden_layers),
        "depth": config.num_hidden_layers,
        "width": config.hidden_size,
        "stored": reading.stored,
        "token_budget": reading.token_budget,
        "log_probs": reading.log_probs,
        "untrained": reading.untrained,
    }


def model_digest(model_folder: Path) -> str:
    """BLAKE2b over the configuration and the weights."""
    files = sorted(model_folder.glob("*.safetensors"))
    if not files or not (model_folder / "config.json").is_file():
        raise StatesError(f"{model_folder} is no checkpoint: it needs config.json and *.safetensors.")
    digest = hashlib.blake2b((model_folder / "config.json").read_bytes(), digest_size=8)
    for path in files:
        with path.open("rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    return digest.hexdigest()


def _same(states: States, record: dict[str, Any]) -> States:
    found = read_json(states.folder / "states.json")
    different = [key for key in record if found.get(key) != record[key]]
    if different:
        raise StatesError(
            f"{states.folder} holds other states ({', '.join(different)} differ); choose another folder or delete it."
        )
    return states


#: What stands in a folder of states, by name.
_WRITES = ("states.json", "layer_*.npy", "surface.npy", "index.parquet", "parts")


def _claim(parts: Path, record: dict[str, Any], rank: int, wait: Any) -> None:
    """Parts of an earlier, unfinished call are kept when they are of the same states, thrown away otherwise."""
    path, wanted = parts / "record.json", json.dumps(record, sort_keys=True)
    if rank == 0:
        claim_folder(parts.parent, "states", _WRITES, lambda folder: path.is_file())
        if parts.is_dir() and (not path.is_file() or path.read_text(encoding="utf-8", errors="replace") != wanted):
            shutil.rmtree(parts)
        write_text(path, wanted)
    wait()


def _save_part(path: Path, found: dict[str, torch.Tensor], reading: Reading) -> None:
    import torch
    from safetensors.torch import save_file

    stored = {}
    for name, rows in found.items():
        kind = torch.float32 if name == "log_prob" else getattr(torch, reading.stored)
        stored[name] = rows.to(kind).contiguous()
        bad = int((~torch.isfinite(stored[name])).reshape(len(rows), -1).any(1).sum())
        if bad and reading.stored == "float16" and bool(torch.isfinite(rows).all()):
            raise StatesError(
                f"{name}: {bad} rows overflow float16 (largest {float(rows.abs().max()):.3g}, limit 65504); "
                "store as bfloat16 or float32."
            )
        if bad:
            raise StatesError(f"{name}: {bad} of {len(rows)} rows are NaN or infinite; the checkpoint is damaged.")
    partial = path.with_suffix(".partial")
    save_file(stored, partial)
    os.replace(partial, path)


def _join(
    folder: Path,
    parts: Path,
    sequences: Sequence[TokenisedTrace],
    places: Sequence[Place],
    batches: Sequence[Batch],
    record: dict[str, Any],
    reading: Reading,
) -> None:
    """Write every layer's array from the parts, then the index, then states.json: its presence means finished."""
    import torch
    from safetensors import safe_open

    on_disk = {"float32": np.float32, "float16": np.float16, "bfloat16": np.uint16}[reading.stored]
    arrays = {}
    for layer in record["layers"]:
        path = folder / f"layer_{layer:03d}.npy"
        arrays[layer] = np.lib.format.open_memmap(path, "w+", on_disk, (len(places), record["width"]))
    log_prob = np.full(len(places), np.nan, np.float32)
    for number, batch in enumerate(batches):
        with safe_open(parts / f"{number:06d}.safetensors", "pt") as file:
            for layer, array in arrays.items():
                tensor = file.get_tensor(f"layer_{layer:03d}")
                bits = tensor.view(torch.uint16) if reading.stored == "bfloat16" else tensor
                array[batch.rows] = bits.numpy()
            if reading.log_probs:
                log_prob[batch.rows] = file.get_tensor("log_prob").numpy()
    for array in arrays.values():
        array.flush()
    np.save(folder / "surface.npy", surface_features(sequences, places))
    write_table(_index(sequences, places, log_prob if reading.log_probs else None), folder / "index.parquet")
    write_text(folder / "states.json", json.dumps(record, indent=2, sort_keys=True) + "\n")
    shutil.rmtree(parts)


def _index(sequences: Sequence[TokenisedTrace], places: Sequence[Place], log_prob: np.ndarray | None) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "row": range(len(places)),
            "problem_id": [sequences[p.sequence].problem_id for p in places],
            "trace_id": [sequences[p.sequence].trace_id for p in places],
            "step": [p.step for p in places],
            "position": [p.position for p in places],
            "token": [p.last for p in places],
            "token_id": [sequences[p.sequence].token_ids[p.last] for p in places],
            "character": [p.character for p in places],
            "log_prob": [None] * len(places) if log_prob is None else log_prob,
        },
        schema={**STATES_INDEX, **INDEX_EXTRAS},
    )
