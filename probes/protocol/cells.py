"""A feature's plan, fixed before any state is read, and the measurement of one cell: model × seed × layer."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from probes.protocol.estimands import Estimand, Fitted, Rows, auc, choose_estimands, over_draws, value
from probes.protocol.features import Feature, FeatureError, Labels, label_rows
from probes.protocol.nested_fits import (
    RIDGES,
    Floats,
    LeastSquares,
    NestedFit,
    Probe,
    choose_probe,
    linear_gram,
    rbf_gram,
)
from probes.protocol.regularisation import Limits
from probes.protocol.settings import ProtocolSettings
from probes.states.alignment import Aligned
from probes.statistics.auc import fold_auc
from probes.statistics.bootstrap import SCORED_DRAWS, draw_problems
from probes.statistics.folds import Splits, make_splits
from probes.statistics.information import prequential_bits
from probes.statistics.permutation import permute_blocks, swappable_blocks
from probes.svm.least_squares import cross_validate

Seed = int | np.random.SeedSequence


@dataclass(frozen=True)
class FeaturePlan:
    """All that is random about a feature's cells, drawn beforehand and the same for every model and layer.

    rows: (n,) of the aligned index. groups: (n,) problem of each row, near-identical ones as one. targets: (c, n).
    strata: (n,) place in the trace, the step's number. repeats: one Splits a fold seed. permutations: (permutations,
    n) row whose label each row takes. draws: (draws, n) bootstrap multiplicities, scored: (k, n) those of the scored
    side alone. token_labels: (1, n) random label of each token type (the control). baseline: (c, n) held-out
    decisions from position and text alone, None before they are fitted.
    """

    feature: Feature
    labels: Labels
    rows: np.ndarray
    groups: np.ndarray
    targets: Floats
    strata: np.ndarray
    repeats: tuple[Splits, ...]
    permutations: np.ndarray
    draws: Floats
    scored: Floats
    swappable: int
    token_labels: Floats
    baseline: Floats | None = None

    def scored_rows(self, repeat: int = 0) -> Rows:
        """What estimands know of the rows of one repeat."""
        return Rows(self.targets, self.repeats[repeat].outer, self.strata, self.baseline if repeat == 0 else None)

    @property
    def label_names(self) -> list[tuple[str, str]]:
        """(negative, positive) name of each target."""
        classes = self.labels.classes
        if self.labels.task == "binary":
            return [(classes[0], classes[1])]
        return [(f"not {name}", name) for name in classes]

    @property
    def positive_share(self) -> float | None:
        """Share of positive rows of a binary feature."""
        return float((self.targets[0] > 0).mean()) if self.labels.task == "binary" else None

    @property
    def problems(self) -> int:
        """Problems, near-identical ones counted once."""
        return len(np.unique(self.groups))

    @property
    def binary(self) -> bool:
        """Whether hinge SVMs apply: every target is -1/+1."""
        return self.labels.task != "real"


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


def plan_feature(
    aligned: Aligned,
    feature: Feature,
    traces: pl.DataFrame,
    steps: pl.DataFrame,
    group_of: dict[str, int],
    settings: ProtocolSettings,
    prevalence: float | None = None,
) -> FeaturePlan:
    """Fix rows, folds, permutations and draws of a feature. Raises FeatureError or FoldError.

    prevalence: share of positive rows to match, by leaving out rows of the class that is too frequent.
    """
    labels = label_rows(aligned.index, traces, steps, feature)
    random = np.random.SeedSequence([settings.seed, zlib.crc32(feature.name.encode())]).spawn(6 + settings.repeats)
    rows = _choose_rows(aligned.index, labels, group_of, feature, settings.max_rows, random[0])
    if prevalence is not None and labels.task == "binary":
        rows = match_prevalence(rows, labels.targets(rows)[0], prevalence, random[1])
    problems = aligned.index["problem_id"].gather(rows)
    groups = np.asarray([group_of[p] for p in problems])
    targets = labels.targets(rows)
    _check_varies(feature, targets, problems.to_numpy())
    repeats = tuple(
        make_splits(groups, targets, settings.outer_folds, settings.inner_folds, part) for part in random[6:]
    )
    if labels.task != "real":
        _check_folds_have_both(feature, labels, targets, groups, repeats)
    return FeaturePlan(
        feature=feature,
        labels=labels,
        rows=rows,
        groups=groups,
        targets=targets,
        strata=aligned.index["step"].fill_null(-1).gather(rows).to_numpy(),
        repeats=repeats,
        permutations=permute_blocks(groups, settings.permutations, random[2]),
        draws=draw_problems(groups, repeats[0].outer, settings.draws, random[3]),
        scored=draw_problems(groups, repeats[0].outer, SCORED_DRAWS, random[4]),
        swappable=swappable_blocks(groups),
        token_labels=_token_labels(aligned.index["token_id"].gather(rows).to_numpy(), targets[0], random[5]),
    )


def _choose_rows(
    index: pl.DataFrame, labels: Labels, group_of: dict[str, int], feature: Feature, limit: int, seed: Seed
) -> np.ndarray:
    """Rows with a label, ordered by problem, whole groups at random up to `limit` rows."""
    keep = index.with_row_index("at").filter(pl.Series(labels.defined))
    if feature.of_problem:
        keep = keep.unique("problem_id", keep="first", maintain_order=True)
    groups = np.asarray([group_of[p] for p in keep["problem_id"]])
    names, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(names))
    inside = names[order[np.cumsum(sizes[order]) <= limit]]
    at = keep["at"].to_numpy()[np.isin(groups, inside)]
    chosen = groups[np.isin(groups, inside)]
    return at[np.argsort(chosen, kind="stable")].astype(np.int64)


def match_prevalence(rows: np.ndarray, target: Floats, prevalence: float, seed: Seed) -> np.ndarray:
    """The rows without a random part of the class that is too frequent for `prevalence`, in (0, 1)."""
    positive, negative = np.flatnonzero(target > 0), np.flatnonzero(target <= 0)
    wanted = min(len(positive), round(len(negative) * prevalence / (1 - prevalence)))
    unwanted = min(len(negative), round(wanted * (1 - prevalence) / prevalence))
    rng = np.random.default_rng(seed)
    kept = np.concatenate([rng.permutation(positive)[:wanted], rng.permutation(negative)[:unwanted]])
    return rows[np.sort(kept)]


def _check_varies(feature: Feature, targets: Floats, problems: np.ndarray) -> None:
    names, of_row, sizes = np.unique(problems, return_inverse=True, return_counts=True)
    for target in targets:
        if len(np.unique(target)) < 2:
            raise FeatureError(
                f"feature {feature.name}: all {len(target)} rows that every model has are of one class; "
                "add traces of the other class or leave it out."
            )
    if len(names) == len(problems):
        return
    means = np.stack([np.bincount(of_row, t) / sizes for t in targets])
    if all(np.allclose(m[of_row], t) for m, t in zip(means, targets)):
        raise FeatureError(
            f"feature {feature.name} is the same in all rows of each of {len(names)} problems ({len(problems)} rows): "
            "it labels problems, not rows. Keep one row a problem, or probe it at prompt_end."
        )


def _check_folds_have_both(
    feature: Feature, labels: Labels, targets: Floats, groups: np.ndarray, repeats: Sequence[Splits]
) -> None:
    names = labels.classes[1:] if labels.task == "binary" else labels.classes
    for name, target in zip(names, targets):
        trained = [target[split.train] for splits in repeats for split in splits.splits]
        if all(len(np.unique(part)) == 2 for part in trained):
            continue
        rare = target > 0 if (target > 0).sum() <= len(target) / 2 else target <= 0
        raise FeatureError(
            f"feature {feature.name}, class {name} against the rest: its rarer side is in {int(rare.sum())} rows of "
            f"{len(np.unique(groups[rare]))} problems, so that some training folds have none; add traces that show it, "
            "lower outer_folds, or drop the class."
        )


def _token_labels(token_ids: np.ndarray, target: Floats, seed: Seed) -> Floats:
    """A random label for each token type, positive as often as the target (Hewitt & Liang 2019)."""
    types, of_row = np.unique(token_ids, return_inverse=True)
    share = float((target > target.mean()).mean())
    drawn = np.where(np.random.default_rng(seed).random(len(types)) < share, 1.0, -1.0)[of_row]
    if len(np.unique(drawn)) < 2 and len(types) > 1:
        drawn = np.where(of_row == 0, -drawn, drawn)
    return drawn[None]


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
    probe, grams = probe_of(plan, settings), _linear_grams(states, plan)
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
        online_bits=_online_bits(grams[0][0], plan) if in_band else float("nan"),
        statistics=statistics,
        draws=draws,
        aucs={name: float(one.aucs(plan).mean()) for name, one in fits.items()},
    )


def measure_linear(states: Floats, plan: FeaturePlan, settings: ProtocolSettings, key: CellKey) -> Cell:
    """The linear SVM alone, refitted on every draw: a cell of the band on a source that carries no main claim."""
    fits: dict[Fitted, Fits] = {"linear": _fit(probe_of(plan, settings), _linear_grams(states, plan), plan)}
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
    return LeastSquares().fit(_linear_grams(states, plan)[0], plan.targets, plan.repeats[0]).held_out


def linear_auc(states: Floats, plan: FeaturePlan, settings: ProtocolSettings) -> float:
    """Held-out linear AUC of states (n, width), mean over repeats and targets."""
    return float(_fit(probe_of(plan, settings), _linear_grams(states, plan), plan).aucs(plan).mean())


def _linear_grams(states: Floats, plan: FeaturePlan) -> list[list[Floats]]:
    return [[linear_gram(states, split.train) for split in splits.splits] for splits in plan.repeats]


def _beside(grams: Sequence[Sequence[Floats]], surface: Floats, plan: FeaturePlan) -> list[list[Floats]]:
    """Grams of [surface, states], each block of mean squared norm 1."""
    return [
        [gram + linear_gram(surface, split.train) for gram, split in zip(g, s.splits)]
        for g, s in zip(grams, plan.repeats)
    ]


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
    return float(np.mean([prequential_bits(gram, target, plan.groups, ONLINE_RIDGE) for target in plan.targets]))


#: Ridge of the prequential code: one for all models, so that code lengths compare.
ONLINE_RIDGE = 0.01
