"""A feature's plan: rows, folds, permutations and draws, fixed before any state is read."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from probes.protocol.estimands import Rows
from probes.protocol.features import Feature, FeatureError, Labels, label_rows
from probes.protocol.nested_fits import Floats
from probes.protocol.settings import ProtocolSettings
from probes.states.alignment import Aligned
from probes.statistics.bootstrap import SCORED_DRAWS, draw_problems
from probes.statistics.folds import Splits, make_splits
from probes.statistics.permutation import permute_blocks, swappable_blocks

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
