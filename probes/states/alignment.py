"""The rows that every model has: the same step of the same trace, read at the same character."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from probes.states.extract import States, StatesError, open_states
from probes.states.places import Position

_KEY = ["trace_id", "step", "position", "character"]


@dataclass(frozen=True)
class Aligned:
    """States of several models, row by row the same inputs.

    states: model → one States for each training seed. index: the common rows of one position. rows: (model,
    seed) → the row of each in that model's arrays. identical: whether token ids are equal throughout; else rows
    are compared where they end at the same character.
    """

    states: Mapping[str, Sequence[States]]
    index: pl.DataFrame
    rows: Mapping[tuple[str, int], np.ndarray]
    layers: tuple[int, ...]
    identical: bool

    def layer(self, model: str, seed: int, layer: int, chosen: np.ndarray) -> np.ndarray:
        """(len(chosen), width) float32 states of the chosen rows of the index. Raises StatesError."""
        states = self.states[model][seed]
        array = states.mapped(layer)
        if array.shape != (len(states.index), states.width):
            raise StatesError(
                f"{states.folder}/layer_{layer:03d}.npy is {array.shape}, its index says "
                f"({len(states.index)}, {states.width}): it is another model's; extract the states again."
            )
        found = states.read(layer, self.rows[model, seed][chosen])
        bad = int((~np.isfinite(found)).any(1).sum())
        if bad:
            raise StatesError(
                f"{model}, seed {seed}, layer {layer}: {bad} of {len(found)} rows are NaN or infinite; "
                "extract them as float32 or drop those traces."
            )
        return found


def open_models(folders: Mapping[str, Sequence[Path]]) -> dict[str, list[States]]:
    """Open every model's states. Raises StatesError where models differ in layers, or one model's seeds in width."""
    models = {name: [open_states(folder) for folder in seeds] for name, seeds in folders.items()}
    if not models or any(not seeds for seeds in models.values()):
        raise StatesError("no states: name at least one folder for each model.")
    depths = {name: {s.depth for s in seeds} for name, seeds in models.items()}
    if len(set().union(*depths.values())) > 1:
        raise StatesError(f"models of different depth ({depths}) have no common layers; compare models of one depth.")
    for name, seeds in models.items():
        widths = {s.width for s in seeds}
        if len(widths) > 1:
            raise StatesError(f"{name}: its seeds have widths {sorted(widths)}; one of the folders is another model's.")
    return models


def align(models: Mapping[str, Sequence[States]], position: Position) -> Aligned:
    """Keep the rows at `position` that all models have and that end at the same character.

    Raises StatesError where no row, or less than half of them, can be compared.
    """
    every = [(name, seed, s) for name, seeds in models.items() for seed, s in enumerate(seeds)]
    layers = sorted(set.intersection(*(set(s.layers) for _, _, s in every)))
    if not layers:
        raise StatesError("the models' states have no layer in common; extract the same layers of each.")
    first = every[0][2]
    # Steps may be null, and a join passes nulls over: -1 stands for "no step".
    keyed = [
        s.index.filter(pl.col("position") == position).with_columns(pl.col("step").fill_null(-1)) for *_, s in every
    ]
    common = keyed[0].select(_KEY)
    for frame in keyed[1:]:
        common = common.join(frame.select(_KEY), on=_KEY, how="inner", maintain_order="left")
    total = max(len(frame) for frame in keyed)
    if len(common) == 0 or len(common) < total / 2:
        raise StatesError(
            f"only {len(common)} of {total} rows at {position} end at the same character in every model: "
            "tokenizers or traces differ too much to compare; use models of one tokenizer."
        )
    rows = {}
    for (name, seed, _), frame in zip(every, keyed):
        joined = common.join(frame.select(*_KEY, "row"), on=_KEY, how="left", maintain_order="left")
        rows[name, seed] = joined["row"].to_numpy()
    index = first.index[rows[every[0][0], 0].tolist()]
    return Aligned(models, index, rows, tuple(layers), len({s.tokens_digest for *_, s in every}) == 1)
