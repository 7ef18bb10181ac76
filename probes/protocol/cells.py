"""The measurement of one cell: model × seed × layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from probes.protocol.estimands import Estimand, Fitted, auc, choose_estimands, over_draws, value
from probes.protocol.feature_plan import FeaturePlan
from probes.protocol.nested_fits import (
    RIDGES,
    Floats,
    LeastSquares,
    NestedFit,
    Probe,
    choose_probe,
    least_squares_grams,
    linear_factor,
    linear_gram,
    rbf_gram,
)
from probes.protocol.regularisation import Limits
from probes.protocol.settings import ProtocolSettings
from probes.statistics.auc import fold_auc
from probes.statistics.folds import Splits
from probes.statistics.information import prequential_bits
from probes.svm.least_squares import cross_validate


@dataclass(frozen=True)
class CellKey:
    """Which model, training seed and layer a cell is of."""

    model: str
    seed: int
    layer: int


@dataclass(frozen=True)
class Cell:
    """What was measured of one model, seed and layer; AUCs are means over repeats and targets.

    by_repeat: (repeats,). costs: (targets,) C (or ridge) chosen in the first split. chosen: lowest, median and highest
    over splits and repeats; tried: ends of the path; edge: share of the fits whose AUC still rises at an end of the
    path, and wanted the path that would do. permuted: (permutations,) least-squares AUC under permuted blocks,
    least_squares_auc the observed one. statistics: estimand → value. draws: estimand → (draws, 1 + k) bootstrap
    refits, in the band alone. aucs: AUC of each kind of fit. online_bits: prequential saving, bits a row.
    """

    model: str
    seed: int
    layer: int
    auc: float
    low: float
    high: float
    by_repeat: Floats
    degenerate: float
    largest_gap: float
    costs: Floats
    chosen: tuple[float, float, float] = (float("nan"),) * 3
    tried: tuple[float, float] = (float("nan"),) * 2
    edge: float = 0.0
    wanted: tuple[float, float] | None = None
    least_squares_auc: float = float("nan")
    permuted: Floats = field(default_factory=lambda: np.empty(0))
    token_control: float = float("nan")
    online_bits: float = float("nan")
    statistics: dict[str, float] = field(default_factory=dict)
    draws: dict[str, Floats] = field(default_factory=dict)
    aucs: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Probed:
    """One feature's plan and cells, by (model, seed, layer).

    surface: AUC of the text with the base's log-probability; text: of the text alone; position: of the place in the
    trace alone. None where they were not fitted.
    """

    plan: FeaturePlan
    cells: dict[tuple[str, int, int], Cell]
    surface: float | None
    text: float | None = None
    position: float | None = None

    def has(self, model: str) -> bool:
        """Whether the model was measured."""
        return any(name == model for name, *_ in self.cells)


def band_rows(one: Probed, model: str, seed: int, band: Sequence[int]) -> list[Cell]:
    """The cells of one model and seed in the band."""
    return [c for (name, s, layer), c in one.cells.items() if (name, s) == (model, seed) and layer in band]


# ---------------------------------------------------------------- cells


def probe_of(plan: FeaturePlan, settings: ProtocolSettings) -> Probe:
    """The probe that the settings ask for on this feature."""
    return choose_probe(
        settings.fit,
        binary=plan.binary,
        costs=settings.costs,
        limits=Limits(*settings.limits),
        device=settings.device,
    )


@dataclass(frozen=True)
class Fits:
    """One kind of fit on every repeat: how, grams[repeat][outer split], and what was fitted on them."""

    probe: Probe
    grams: Sequence[Sequence[Floats]]
    nested: Sequence[NestedFit]

    def aucs(self, plan: FeaturePlan) -> Floats:
        """(repeats,) held-out AUC."""
        return np.asarray(
            [value(auc, f.held_out, plan.scored_rows(r)) for r, f in enumerate(self.nested)], dtype=np.float64
        )


def measure_cell(
    states: Floats, plan: FeaturePlan, settings: ProtocolSettings, key: CellKey, *, in_band: bool, surface: Floats
) -> Cell:
    """Fit everything on the states (n, width) of one cell."""
    probe = probe_of(plan, settings)
    grams = _linear_grams(states, plan, probe)
    wanted = _measurable(choose_estimands(settings.estimands, settings.estimand), plan)
    fits: dict[Fitted, Fits] = {"linear": _fit(probe, grams, plan)}
    if in_band:
        for kind in {e.of for e in wanted.values()} - {"linear"}:
            fits |= _further_fit(kind, fits["linear"], plan, settings, surface)
    observed, permuted, control = _permuted_aucs(grams[0], plan)
    cell = _linear_cell(fits["linear"], plan, key)
    statistics, draws = _estimate(fits, plan, wanted, refitted=in_band)
    return replace(
        cell,
        least_squares_auc=observed,
        permuted=permuted,
        token_control=control,
        online_bits=_online_bits(grams[0][0], plan) if in_band and "bits" in wanted else float("nan"),
        statistics=statistics,
        draws=draws,
        aucs={name: float(one.aucs(plan).mean()) for name, one in fits.items()},
    )


def measure_linear(states: Floats, plan: FeaturePlan, settings: ProtocolSettings, key: CellKey) -> Cell:
    """The linear SVM alone, refitted on every draw: a cell of the band on a source that carries no main claim."""
    probe = probe_of(plan, settings)
    fits: dict[Fitted, Fits] = {"linear": _fit(probe, _linear_grams(states, plan, probe), plan)}
    statistics, draws = _estimate(
        fits, plan, _measurable(choose_estimands(("delta",), settings.estimand), plan), refitted=True
    )
    return replace(_linear_cell(fits["linear"], plan, key), statistics=statistics, draws=draws)


def _measurable(estimands: Mapping[str, Estimand], plan: FeaturePlan) -> dict[str, Estimand]:
    return {name: e for name, e in estimands.items() if plan.binary or not e.binary}


def _further_fit(
    kind: Fitted, linear: Fits, plan: FeaturePlan, settings: ProtocolSettings, surface: Floats
) -> dict[Fitted, Fits]:
    """The fit of one kind beside the linear one; {} where it would be the linear one again."""
    probe, grams = linear.probe, linear.grams
    if kind == "rbf":
        curved = _fit(probe, grams, plan, settings.gammas)
        # One gamma a split for the draws: that of its first target.
        widths = [[rbf_gram(g, width[0]) for g, width in zip(grams[0], curved.nested[0].gammas)]]
        return {kind: Fits(probe, widths, curved.nested)}
    if kind == "with_surface":
        return {kind: _fit(probe, _beside(grams, surface, plan), plan)}
    return {} if isinstance(probe, LeastSquares) else {kind: _fit(LeastSquares(), grams, plan)}


def held_out_decisions(states: Floats, plan: FeaturePlan) -> Floats:
    """(c, n) held-out least-squares decisions on features (n, width) of the first repeat: of text, or of position."""
    probe = LeastSquares()
    return probe.fit(_linear_grams(states, plan, probe)[0], plan.targets, plan.repeats[0]).held_out


def linear_auc(states: Floats, plan: FeaturePlan, settings: ProtocolSettings) -> float:
    """Held-out linear AUC of states (n, width), mean over repeats and targets."""
    probe = probe_of(plan, settings)
    return float(_fit(probe, _linear_grams(states, plan, probe), plan).aucs(plan).mean())


def _linear_grams(states: Floats, plan: FeaturePlan, probe: Probe) -> list[list[Floats]]:
    """grams[repeat][outer split], or factors of them for least squares on narrow states."""
    if isinstance(probe, LeastSquares):
        return [least_squares_grams(states, splits) for splits in plan.repeats]
    return [[linear_gram(states, split.train) for split in splits.splits] for splits in plan.repeats]


def _beside(grams: Sequence[Sequence[Floats]], surface: Floats, plan: FeaturePlan) -> list[list[Floats]]:
    """Grams of [surface, states], each block of mean squared norm 1."""
    return [
        [_with_gram(gram, surface, split.train) for gram, split in zip(g, s.splits)]
        for g, s in zip(grams, plan.repeats)
    ]


def _with_gram(gram: Floats, surface: Floats, train: NDArray[np.bool_]) -> Floats:
    both = gram.shape[1] + surface.shape[1]
    if gram.shape[1] < len(gram) and both < len(gram):
        return np.hstack([gram, linear_factor(surface, train)])
    square = gram @ gram.T if gram.shape[1] < len(gram) else gram
    return square + linear_gram(surface, train)


def _fit(probe: Probe, grams: Sequence[Sequence[Floats]], plan: FeaturePlan, gammas: Sequence[float] = ()) -> Fits:
    return Fits(probe, grams, [probe.fit(g, plan.targets, splits, gammas) for g, splits in zip(grams, plan.repeats)])


def _linear_cell(fits: Fits, plan: FeaturePlan, key: CellKey) -> Cell:
    """What the linear fits say of themselves: AUC, chosen strengths, quality."""
    by_repeat, first = fits.aucs(plan), fits.nested[0]
    low, high = resampled_interval(first.held_out, plan.targets, plan.repeats[0], plan.draws)
    shift = float(by_repeat.mean() - by_repeat[0])
    strengths = np.concatenate([f.costs.ravel() for f in fits.nested])
    wanted = [f.wanted for f in fits.nested if f.wanted is not None]
    return Cell(
        model=key.model,
        seed=key.seed,
        layer=key.layer,
        auc=float(by_repeat.mean()),
        low=low + shift,
        high=high + shift,
        by_repeat=by_repeat,
        degenerate=max(f.degenerate for f in fits.nested),
        largest_gap=max(f.largest_gap for f in fits.nested),
        costs=first.costs[0],
        chosen=(float(strengths.min()), float(np.median(strengths)), float(strengths.max())),
        tried=(min(f.tried[0] for f in fits.nested), max(f.tried[1] for f in fits.nested)),
        edge=float(np.mean([(f.edges != 0).mean() for f in fits.nested])),
        wanted=(min(w[0] for w in wanted), max(w[1] for w in wanted)) if wanted else None,
    )


def _estimate(
    fits: Mapping[Fitted, Fits],
    plan: FeaturePlan,
    estimands: Mapping[str, Estimand],
    *,
    refitted: bool,
) -> tuple[dict[str, float], dict[str, Floats]]:
    """(value of every estimand whose fits there are, its bootstrap draws). AUCs are means over repeats."""
    able = {name: e for name, e in estimands.items() if {e.of, e.less or e.of} <= fits.keys()}
    statistics, draws = {}, {}
    scores: dict[Fitted, Floats] = {}
    if refitted:
        needed = {kind for e in able.values() for kind in (e.of, e.less) if kind is not None}
        scores = {
            kind: fits[kind].probe.refit(
                fits[kind].grams[0], plan.targets, plan.repeats[0], fits[kind].nested[0].costs, plan.draws
            )
            for kind in sorted(needed)
        }

    def over(kind: Fitted, e: Estimand) -> tuple[float, Floats | None]:
        repeats = range(1 if e.unit == "bit" else len(plan.repeats))  # the baseline was fitted on the first repeat
        values = [value(e.statistic, fits[kind].nested[r].held_out, plan.scored_rows(r)) for r in repeats]
        if kind not in scores:
            return float(np.mean(values)), None
        return float(np.mean(values)), over_draws(
            e.statistic, scores[kind], plan.scored_rows(), plan.draws, plan.scored
        )

    for name, e in able.items():
        own, of_draws = over(e.of, e)
        other, of_other = over(e.less, e) if e.less else (0.0, None)
        statistics[name] = own - other
        if of_draws is not None:
            draws[name] = of_draws - (of_other if of_other is not None else 0.0)
    return statistics, draws


def resampled_interval(
    held_out: Floats, targets: Floats, splits: Splits, draws: Floats, alpha: float = 0.05
) -> tuple[float, float]:
    """Percentile interval of the AUC over problems *without* refitting: for curves, not for verdicts."""
    resampled = np.mean(
        [
            fold_auc(np.broadcast_to(h, draws.shape), np.broadcast_to(t, draws.shape), splits.outer, draws)
            for h, t in zip(held_out, targets)
        ],
        axis=0,
    )
    low, high = np.nanquantile(resampled, [alpha / 2, 1 - alpha / 2])
    return float(low), float(high)


def _permuted_aucs(grams: Sequence[Floats], plan: FeaturePlan) -> tuple[float, Floats, float]:
    """Observed least-squares AUC, those of all permutations, and that of the token control, in one product."""
    permuted = plan.targets[:, plan.permutations].transpose(1, 0, 2)  # (permutations, c, n)
    stacked = np.concatenate([plan.targets[None], permuted]).reshape(-1, plan.targets.shape[1])
    count = len(stacked)
    control = plan.token_labels if plan.binary else np.empty((0, stacked.shape[1]))
    labels, splits = np.concatenate([stacked, control]), plan.repeats[0]
    every = fold_auc(
        cross_validate(grams, labels, splits, RIDGES, score="squared_error").decisions, labels, splits.outer
    )
    of_label = every[:count].reshape(-1, len(plan.targets)).mean(1)
    return float(of_label[0]), of_label[1:], float(every[count]) if plan.binary else float("nan")


def _online_bits(gram: Floats, plan: FeaturePlan) -> float:
    """Prequential saving over the class share, bits a row, mean over targets: larger where few rows suffice."""
    if not plan.binary:
        return float("nan")
    if gram.shape[1] < len(gram):
        gram = gram @ gram.T
    return float(np.mean([prequential_bits(gram, target, plan.groups, ONLINE_RIDGE) for target in plan.targets]))


#: Ridge of the prequential code: one for all models, so that code lengths compare.
ONLINE_RIDGE = 0.01
