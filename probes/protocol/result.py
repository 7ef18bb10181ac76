"""What the protocol hands over: tables, settings and what a reader has to know first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from probes.protocol.cells import Probed
from probes.protocol.settings import ProtocolSettings
from probes.statistics.holm import holm
from probes.statistics.permutation import permutation_p
from probes.statistics.power import plan


@dataclass(frozen=True)
class ProbeResult:
    """All that the protocol found, as tables, and what it was found under.

    tables: "effects", "cells", "decodability", "controls", "known_answers", "power", "sources",
    "source_effects", "geometry", "generalisation", "slices".
    notes: what a reader has to know before believing a number. about: models, versions, layer band, source.
    """

    settings: ProtocolSettings
    tables: dict[str, pl.DataFrame]
    notes: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)


def cell_table(probed: Mapping[str, Probed], settings: ProtocolSettings) -> pl.DataFrame:
    """One row a (feature, model, seed, layer): AUC, bits, the permutation null, chosen strengths, fit quality.

    chosen …: C or ridge over splits and repeats; path …: ends of the path; at_edge: share of the fits at one.
    """
    return pl.DataFrame(
        [
            {
                "feature": name,
                "model": c.model,
                "seed": c.seed,
                "layer": c.layer,
                "auc": c.auc,
                "low": c.low,
                "high": c.high,
                "null_mean": float(np.mean(c.permuted)),
                "null_95": float(np.quantile(c.permuted, 0.95)),
                "above_null": c.least_squares_auc - float(np.mean(c.permuted)),
                "least_squares_auc": c.least_squares_auc,
                "stratified": c.statistics.get("stratified"),
                "bits": c.statistics.get("bits"),
                "online_bits": c.online_bits,
                "rbf": c.aucs.get("rbf"),
                "with_surface": c.aucs.get("with_surface"),
                "strength": "C" if one.plan.binary and settings.fit == "hinge" else "ridge",
                "chosen_low": c.chosen[0],
                "chosen": c.chosen[1],
                "chosen_high": c.chosen[2],
                "path_low": c.tried[0],
                "path_high": c.tried[1],
                "at_edge": c.edge,
                "degenerate": c.degenerate,
                "kkt_gap": c.largest_gap,
            }
            for name, one in probed.items()
            for c in one.cells.values()
        ],
        infer_schema_length=None,
    )


def decodability_table(probed: Mapping[str, Probed], settings: ProtocolSettings) -> pl.DataFrame:
    """Is the feature there at all? Maximum over layers, the same permutation across layers; Holm over features."""
    rows = []
    for name, one in probed.items():
        for model, seed in sorted({(m, s) for m, s, _ in one.cells}):
            layers = [c for (m, s, _), c in one.cells.items() if (m, s) == (model, seed)]
            observed = max(c.least_squares_auc for c in layers)
            null = np.max([c.permuted for c in layers], axis=0)
            p = permutation_p(observed, null)
            rows.append({"feature": name, "model": model, "seed": seed, "best_auc": observed, "p": p})
    frame = pl.DataFrame(rows)
    parts = [
        part.with_columns(p_holm=pl.Series(holm(part["p"].to_numpy())))
        for part in frame.partition_by("model", "seed", maintain_order=True)
    ]
    return pl.concat(parts).with_columns(permutations=pl.lit(settings.permutations))


def control_table(probed: Mapping[str, Probed], band: Sequence[int], settings: ProtocolSettings) -> pl.DataFrame:
    """AUC in the band beside what each control reaches."""
    rows = []
    for name, one in probed.items():
        for model in dict.fromkeys(m for m, *_ in one.cells):
            cells = [c for (m, _, layer), c in one.cells.items() if m == model and layer in band]
            least_squares = float(np.mean([c.least_squares_auc for c in cells]))
            token = float(np.mean([c.token_control for c in cells]))
            rows.append(
                {
                    "feature": name,
                    "model": model,
                    "auc": float(np.mean([c.auc for c in cells])),
                    "stratified": _mean(c.statistics.get("stratified") for c in cells),
                    "bits_above_text": _mean(c.statistics.get("bits") for c in cells),
                    "online_bits": float(np.mean([c.online_bits for c in cells])),
                    "position_alone": one.position,
                    "text_alone": one.text,
                    "surface_alone": one.surface,
                    "with_surface": _mean(c.aucs.get("with_surface") for c in cells),
                    "random_token_labels": token,
                    "selectivity": least_squares - token,
                    "shuffled_labels": float(np.mean([c.permuted.mean() for c in cells])),
                    "untrained_control": model == settings.untrained,
                }
            )
    return pl.DataFrame(rows)


def _mean(values: Any) -> float | None:
    known = [v for v in values if v is not None]
    return float(np.mean(known)) if known else None


def power_table(probed: Mapping[str, Probed], settings: ProtocolSettings) -> pl.DataFrame:
    """What each feature's labels and problems can show, before any fit."""
    rows = []
    for name, one in probed.items():
        before = plan(
            one.plan.targets[0] if one.plan.binary else np.sign(one.plan.targets[0]),
            one.plan.groups,
            target=settings.margin,
            alpha=settings.alpha,
            power=settings.power,
        )
        rows.append(
            {
                "feature": name,
                "rows": len(one.plan.rows),
                "problems": before.problems,
                "swappable_blocks": one.plan.swappable,
                "intraclass": before.intraclass,
                "design_effect": before.design_effect,
                "detectable": before.detectable,
                "problems_needed": before.needed,
                "classes": ", ".join(one.plan.labels.classes),
                "task": one.plan.labels.task,
                "position": one.plan.feature.position,
            }
        )
    return pl.DataFrame(rows)
