"""A feature's plan, fixed before any state is read, and the measurement of one cell: model × seed × layer."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import polars as pl

from probes.protocol.features import Feature, FeatureError, Labels, label_rows
from probes.protocol.nested_fits import (
    RIDGES,
    Floats,
    NestedFit,
    fit_hinge,
    fit_least_squares,
    linear_gram,
    rbf_gram,
    refit_hinge,
)
from probes.protocol.settings import ProtocolSettings
from probes.states.alignment import Aligned
from probes.statistics.auc import fold_auc
from probes.statistics.bootstrap import SCORED_DRAWS, draw_problems, score_draws
from probes.statistics.folds import Splits, make_splits
from probes.statistics.permutation import permute_blocks, swappable_blocks
from probes.svm.least_squares import cross_validate, refit


@dataclass(frozen=True)
class FeaturePlan:
    """All that is random about a feature's cells, drawn beforehand and the same for every model and layer.

    rows: (n,) of the aligned index. groups: (n,) problem of each row, near-identical ones as one. targets: (c, n).
    repeats: one Splits a fold seed. taken: (permutations, n) block permutations. draws: (draws, n) bootstrap
    multiplicities, scored: (k, n) those of the scored side alone. token_labels: (1, n) random label of each token
    type (the control).
    """

    feature: Feature
    labels: Labels
    rows: np.ndarray
    groups: np.ndarray
    targets: Floats
    repeats: tuple[Splits, ...]
    taken: np.ndarray
    draws: Floats
    scored: Floats
    swappable: int
    token_labels: Floats

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
class Cell:
    """What was measured of one model, seed and layer; AUCs are means over repeats and targets.

    by_repeat: (repeats,). draws: name of a statistic → (draws, 1 + k) bootstrap refits, in the band alone. null:
    (permutations,) least-squares AUC under permuted blocks, `swept` the observed one. costs: (targets,) C (or ridge)
    chosen in the first split.
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
    swept: float = float("nan")
    null: Floats = field(default_factory=lambda: np.empty(0))
    token_control: float = float("nan")
    statistics: dict[str, float] = field(default_factory=dict)
    draws: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True)
class Probed:
    """One feature's plan and cells, by (model, seed, layer); surface: AUC of the surface features alone."""

    plan: FeaturePlan
    cells: dict[tuple[str, int, int], Cell]
    surface: float | None

    def has(self, model: str) -> bool:
        """Whether the model was measured."""
        return any(name == model for name, *_ in self.cells)


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
    seed = settings.seed + zlib.crc32(feature.name.encode()) % 100_000
    rows = _choose_rows(aligned.index, labels, group_of, feature, settings.max_rows, seed)
    if prevalence is not None and labels.task == "binary":
        rows = match_prevalence(rows, labels.targets(rows)[0], prevalence, seed)
    problems = aligned.index["problem_id"].gather(rows)
    groups = np.asarray([group_of[p] for p in problems])
    targets = labels.targets(rows)
    _check_varies(feature, targets, problems.to_numpy())
    repeats = tuple(
        make_splits(groups, targets, settings.outer_folds, settings.inner_folds, seed + 1000 * r)
        for r in range(settings.repeats)
    )
    if labels.task != "real":
        _check_folds_have_both(feature, labels, targets, groups, repeats)
    return FeaturePlan(
        feature=feature,
        labels=labels,
        rows=rows,
        groups=groups,
        targets=targets,
        repeats=repeats,
        taken=permute_blocks(groups, settings.permutations, seed + 1),
        draws=draw_problems(groups, repeats[0].outer, settings.draws, seed + 2),
        scored=draw_problems(groups, repeats[0].outer, SCORED_DRAWS, seed + 4),
        swappable=swappable_blocks(groups),
        token_labels=_token_labels(aligned.index["token_id"].gather(rows).to_numpy(), targets[0], seed + 3),
    )


def _choose_rows(
    index: pl.DataFrame, labels: Labels, group_of: dict[str, int], feature: Feature, limit: int, seed: int
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


def match_prevalence(rows: np.ndarray, target: Floats, prevalence: float, seed: int) -> np.ndarray:
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


def _token_labels(token_ids: np.ndarray, target: Floats, seed: int) -> Floats:
    """A random label for each token type, positive as often as the target (Hewitt & Liang 2019)."""
    types, of_row = np.unique(token_ids, return_inverse=True)
    share = float((target > target.mean()).mean())
    drawn = np.where(np.random.default_rng(seed).random(len(types)) < share, 1.0, -1.0)[of_row]
    if len(np.unique(drawn)) < 2 and len(types) > 1:
        drawn = np.where(of_row == 0, -drawn, drawn)
    return drawn[None]


# ---------------------------------------------------------------- cells


def measure_cell(
    states: Floats,
    plan: FeaturePlan,
    settings: ProtocolSettings,
    *,
    model: str,
    seed: int,
    layer: int,
    in_band: bool,
    surface: Floats,
) -> Cell:
    """Fit everything on the states (n, width) of one cell."""
    grams = _linear_grams(states, plan)
    cell = _fit_linear(grams, plan, settings, (model, seed, layer), in_band)
    swept, null, control = _sweep(grams[0], plan)
    statistics, draws = dict(cell.statistics), dict(cell.draws)
    if in_band:
        statistics["rbf"], draws["rbf"] = _nonlinear(grams, plan, settings)
        statistics["with_surface"], draws["with_surface"] = _beside_surface(grams, surface, plan, settings)
    return replace(cell, swept=swept, null=null, token_control=control, statistics=statistics, draws=draws)


def measure_linear(
    states: Floats, plan: FeaturePlan, settings: ProtocolSettings, *, model: str, seed: int, layer: int
) -> Cell:
    """The linear SVM alone, refitted on every draw: a cell of the band on a source that carries no main claim."""
    return _fit_linear(_linear_grams(states, plan), plan, settings, (model, seed, layer), refitted=True)


def linear_auc(states: Floats, plan: FeaturePlan, settings: ProtocolSettings) -> float:
    """Held-out linear AUC of states (n, width), mean over repeats and targets."""
    return _fit_linear(_linear_grams(states, plan), plan, settings, ("", 0, 0), refitted=False).auc


def _linear_grams(states: Floats, plan: FeaturePlan) -> list[list[Floats]]:
    return [[linear_gram(states, split.train) for split in splits.splits] for splits in plan.repeats]


def _fit_linear(
    grams: Sequence[Sequence[Floats]],
    plan: FeaturePlan,
    settings: ProtocolSettings,
    where: tuple[str, int, int],
    refitted: bool,
) -> Cell:
    fits = [_fit(g, plan, splits, settings) for g, splits in zip(grams, plan.repeats)]
    by_repeat = np.asarray([_mean_auc(f.held_out, plan.targets, s) for f, s in zip(fits, plan.repeats)])
    low, high = resampled_interval(fits[0].held_out, plan.targets, plan.repeats[0], plan.draws)
    shift = float(by_repeat.mean() - by_repeat[0])
    return Cell(
        model=where[0],
        seed=where[1],
        layer=where[2],
        auc=float(by_repeat.mean()),
        low=low + shift,
        high=high + shift,
        by_repeat=by_repeat,
        degenerate=max(f.degenerate for f in fits),
        largest_gap=max(f.largest_gap for f in fits),
        costs=fits[0].costs[0],
        statistics={"linear": float(by_repeat.mean())},
        draws={"linear": _refit(grams[0], plan, fits[0].costs, settings)} if refitted else {},
    )


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


def _fit(
    grams: Sequence[Floats],
    plan: FeaturePlan,
    splits: Splits,
    settings: ProtocolSettings,
    gammas: Sequence[float] = (),
) -> NestedFit:
    if plan.binary and settings.fit == "hinge":
        return fit_hinge(grams, plan.targets, splits, settings.costs, gammas)
    return fit_least_squares(grams, plan.targets, splits, RIDGES, gammas)


def _refit(grams: Sequence[Floats], plan: FeaturePlan, costs: Floats, settings: ProtocolSettings) -> Floats:
    hinge = plan.binary and settings.fit == "hinge"
    scores = (refit_hinge if hinge else refit)(grams, plan.targets, plan.repeats[0], costs, plan.draws)
    return score_draws(scores, plan.targets, plan.repeats[0].outer, plan.draws, plan.scored)


def _nonlinear(
    grams: Sequence[Sequence[Floats]], plan: FeaturePlan, settings: ProtocolSettings
) -> tuple[float, Floats]:
    """AUC of the RBF kernel, and its refits on the bootstrap draws (gamma and C as chosen)."""
    fits = [_fit(g, plan, s, settings, settings.gammas) for g, s in zip(grams, plan.repeats)]
    auc = float(np.mean([_mean_auc(f.held_out, plan.targets, s) for f, s in zip(fits, plan.repeats)]))
    # One gamma a split for the draws: that of its first target.
    curved = [rbf_gram(g, width[0]) for g, width in zip(grams[0], fits[0].gammas)]
    return auc, _refit(curved, plan, fits[0].costs, settings)


def _beside_surface(
    grams: Sequence[Sequence[Floats]], surface: Floats, plan: FeaturePlan, settings: ProtocolSettings
) -> tuple[float, Floats]:
    """AUC of [surface, states], each block of mean squared norm 1, and its refits."""
    both = [
        [gram + linear_gram(surface, split.train) for gram, split in zip(g, s.splits)]
        for g, s in zip(grams, plan.repeats)
    ]
    fits = [_fit(g, plan, s, settings) for g, s in zip(both, plan.repeats)]
    auc = float(np.mean([_mean_auc(f.held_out, plan.targets, s) for f, s in zip(fits, plan.repeats)]))
    return auc, _refit(both[0], plan, fits[0].costs, settings)


def _sweep(grams: Sequence[Floats], plan: FeaturePlan) -> tuple[float, Floats, float]:
    """Observed least-squares AUC, those of all permutations, and that of the token control, in one product."""
    permuted = plan.targets[:, plan.taken].transpose(1, 0, 2)  # (permutations, c, n)
    stacked = np.concatenate([plan.targets[None], permuted]).reshape(-1, plan.targets.shape[1])
    count = len(stacked)
    control = plan.token_labels if plan.binary else np.empty((0, stacked.shape[1]))
    labels, splits = np.concatenate([stacked, control]), plan.repeats[0]
    every = fold_auc(
        cross_validate(grams, labels, splits, RIDGES, score="squared_error").decisions, labels, splits.outer
    )
    auc = every[:count].reshape(-1, len(plan.targets)).mean(1)
    return float(auc[0]), auc[1:], float(every[count]) if plan.binary else float("nan")


def _mean_auc(held_out: Floats, targets: Floats, splits: Splits) -> float:
    return float(fold_auc(held_out, targets, splits.outer).mean())
