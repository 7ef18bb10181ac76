"""A probe that is kept: a direction with its scaler, bias and calibration, on disk as safetensors and JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from probes.protocol.feature_plan import FeaturePlan, plan_feature
from probes.protocol.features import Feature, FeatureError
from probes.protocol.nested_fits import LeastSquares, least_squares_grams, standardise
from probes.protocol.settings import ProtocolSettings
from probes.protocol.trace_sources import group_by_text
from probes.states.alignment import align
from probes.states.extract import States
from probes.statistics.auc import fold_auc
from probes.statistics.information import held_out_bits
from probes.svm import least_squares
from probes.svm.kernels import StatesError, check_states
from probes.svm.probabilities import fit_sigmoid
from tracekit.core.runs import read_json, write_text

Floats = NDArray[np.floating]

_FORMAT = 1
_TENSORS = "probe.safetensors"
_RECORD = "probe.json"


@dataclass(frozen=True)
class SavedProbe:
    """A linear probe of one layer and position: margin(x) = direction · (x − mean) / spread + bias.

    direction, mean, spread: (d,). calibration: (slope, offset) of the margin's sigmoid. classes: (negative, positive).
    ridge: chosen, in units of the Gram's mean diagonal. auc: held out, over problems, with the layer chosen on inner
    folds alone; bits: held-out information over the class share. rows, problems: it was fitted on. model: digest of
    the checkpoint whose states it reads.
    """

    feature: str
    position: str
    layer: int
    classes: tuple[str, str]
    direction: Floats
    mean: Floats
    spread: Floats
    bias: float
    calibration: tuple[float, float]
    ridge: float
    auc: float
    bits: float
    rows: int
    problems: int
    model: str

    def margin(self, states: Any) -> Floats:
        """(n,) margins of states (n, d): above 0 speaks for the positive class. Raises StatesError."""
        states = check_states(states, width=len(self.direction)).astype(np.float64)
        return ((states - self.mean) / self.spread) @ self.direction + self.bias

    def probability(self, margins: Floats) -> Floats:
        """(n,) calibrated probabilities of the positive class."""
        slope, offset = self.calibration
        return 1 / (1 + np.exp(-np.clip(slope * margins + offset, -30, 30)))

    @property
    def raw_direction(self) -> Floats:
        """(d,) unit vector in the space of the states, along which the margin grows fastest."""
        raw = self.direction / self.spread
        return raw / max(float(np.linalg.norm(raw)), 1e-300)


def fit_probe(
    states: States,
    traces: pl.DataFrame,
    steps: pl.DataFrame,
    feature: Feature,
    settings: ProtocolSettings,
    layers: Sequence[int] | None = None,
) -> SavedProbe:
    """Fit a least-squares probe of a binary feature on one model's states; the layer is chosen among `layers`.

    The held-out AUC is nested: problems are held out, and in each fold layer and ridge are chosen on the others.
    Raises FeatureError where the feature has more than two classes.
    """
    aligned = align({settings.base: [states]}, feature.at(settings.position))
    layers = tuple(layers or settings.band or aligned.layers)
    absent = [layer for layer in layers if layer not in aligned.layers]
    if absent:
        raise FeatureError(f"layers {absent} were not extracted; states have {list(aligned.layers)}.")
    plan = plan_feature(aligned, feature, traces, steps, group_by_text(traces), settings)
    if plan.labels.task != "binary":
        raise FeatureError(
            f"feature {feature.name} has {len(plan.targets)} targets ({plan.labels.task}); a kept probe is of two "
            "classes: add a Boolean column for the class that is meant."
        )
    held_out, chosen, ridge = _nested(
        {layer: aligned.layer(settings.base, 0, layer, plan.rows) for layer in layers}, plan
    )
    x, target = aligned.layer(settings.base, 0, chosen, plan.rows).astype(np.float64), plan.targets[0]
    everything = np.ones(len(x), dtype=bool)
    z = standardise(x, everything)
    scale = 1 / max(float((z**2).sum(1).mean()), 1e-12)
    direction, bias = least_squares.fit_direction(np.sqrt(scale) * z, target, ridge)
    # Calibrated at the final layer and ridge: the folds of the nested fit chose their own, and share no scale.
    splits = plan.repeats[0]
    steady = least_squares.cross_validate(least_squares_grams(x, splits), plan.targets, splits, (ridge,)).decisions[0]
    spread = x.std(0)
    folds = plan.repeats[0].outer
    return SavedProbe(
        feature=feature.name,
        position=feature.at(settings.position),
        layer=chosen,
        classes=plan.label_names[0],
        direction=np.sqrt(scale) * direction,
        mean=x.mean(0),
        spread=np.where(spread > 1e-12, spread, np.inf),
        bias=bias,
        calibration=fit_sigmoid(steady, target > 0, np.ones(len(target))),
        ridge=ridge,
        auc=float(fold_auc(held_out[None], target[None], folds)[0]),
        bits=_bits(held_out, target, folds),
        rows=len(target),
        problems=plan.problems,
        model=states.model,
    )


def _nested(states: dict[int, Floats], plan: FeaturePlan) -> tuple[Floats, int, float]:
    """(held-out decisions, layer, ridge): the layer of each fold by its inner folds, the final one by their mean."""
    splits, fits, inner = plan.repeats[0], {}, {}
    for layer, x in states.items():
        fits[layer] = LeastSquares().fit(least_squares_grams(x, splits), plan.targets, splits)
        inner[layer] = fits[layer].inner
    names = list(states)
    scores = np.stack([inner[layer][:, 0] for layer in names])  # (layers, outer)
    held_out = np.empty(len(plan.rows))
    for k, split in enumerate(splits.splits):
        held_out[~split.train] = fits[names[int(scores[:, k].argmax())]].held_out[0, ~split.train]
    chosen = names[int(scores.mean(1).argmax())]
    return held_out, chosen, float(np.exp(np.log(fits[chosen].costs[:, 0]).mean()))


def _bits(held_out: Floats, target: Floats, folds: NDArray[np.int64]) -> float:
    """Bits a row that the held-out decisions tell over the class share."""
    ones = np.ones((1, len(target)))
    share = held_out_bits(np.empty((1, len(target), 0)), target, folds, ones)
    return float((share - held_out_bits(held_out[None, :, None], target, folds, ones)).mean())


def save_probe(probe: SavedProbe, folder: str | Path) -> Path:
    """Write probe.safetensors and probe.json into `folder`."""
    from safetensors.numpy import save_file

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: np.ascontiguousarray(getattr(probe, name)) for name in ("direction", "mean", "spread")}
    save_file(tensors, folder / _TENSORS)
    record = {k: v for k, v in vars(probe).items() if k not in tensors}
    write_text(folder / _RECORD, json.dumps({"format": _FORMAT, **record}, indent=2, ensure_ascii=False) + "\n")
    return folder


def load_probe(folder: str | Path) -> SavedProbe:
    """Read what `save_probe` wrote. Raises StatesError."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    folder = Path(folder)
    if not (folder / _RECORD).is_file() or not (folder / _TENSORS).is_file():
        raise StatesError(f"{folder} holds no probe ({_RECORD} and {_TENSORS}); fit one with `tracekit probe fit`.")
    record = read_json(folder / _RECORD)
    if record.pop("format", None) != _FORMAT:
        raise StatesError(f"{folder}/{_RECORD} is of another format than {_FORMAT}; fit the probe again.")
    try:
        fields: dict[str, Any] = {**record, **load_file(folder / _TENSORS)}
        for name in ("classes", "calibration"):
            fields[name] = tuple(fields[name])
        probe = SavedProbe(**fields)
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise StatesError(f"{folder} holds a damaged probe ({error}); fit it again or take a whole copy.") from error
    if not probe.direction.shape == probe.mean.shape == probe.spread.shape:
        raise StatesError(f"{folder}/{_TENSORS} is damaged: direction, mean and spread differ in shape; fit it again.")
    return probe


def apply_probe(probe: SavedProbe, states: States, *, any_model: bool = False) -> pl.DataFrame:
    """The states' rows at the probe's position with `margin` and `probability`.

    Raises StatesError where the states are of another model than the probe was fitted on, unless `any_model`.
    """
    if states.model != probe.model and not any_model:
        raise StatesError(
            f"the probe was fitted on model {probe.model}, {states.folder} holds states of {states.model}; fit a probe "
            "on this model, or allow any model where a transfer is meant."
        )
    index = states.index.filter(position=probe.position)
    if index.is_empty():
        raise StatesError(f"{states.folder} has no row at {probe.position}; extract the states at that position.")
    margins = probe.margin(states.read(probe.layer, index["row"].to_numpy()))
    return index.with_columns(
        margin=pl.Series(margins, dtype=pl.Float64), probability=pl.Series(probe.probability(margins), dtype=pl.Float64)
    )
