"""What the protocol hands over: tables, settings and what a reader has to know first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl

from probes.protocol.cells import Probed
from probes.protocol.settings import ProtocolSettings
from probes.statistics.equivalence import holm
from probes.statistics.permutation import permutation_p
from probes.statistics.power import plan


@dataclass(frozen=True)
class ProbeResult:
    """All that the protocol found, as tables, and what it was found under.

    tables: "effects", "cells", "decodability", "controls", "power", "sources",
    "source_effects", "geometry", "slices".
    notes: what a reader has to know before believing a number. about: models, versions, layer band, source.
    """

    settings: ProtocolSettings
    tables: dict[str, pl.DataFrame]
    notes: tuple[str, ...]
    about: dict[str, Any] = field(default_factory=dict)


def cell_table(probed: Mapping[str, Probed]) -> pl.DataFrame:
    """One row a (feature, model, seed, layer): AUC, interval without refit, the permutation null, fit quality."""
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
                "null_mean": float(np.mean(c.null)),
                "null_95": float(np.quantile(c.null, 0.95)),
                "swept": c.swept,
                "rbf": c.statistics.get("rbf"),
                "with_surface": c.statistics.get("with_surface"),
                "degenerate": c.degenerate,
                "kkt_gap": c.largest_gap,
            }
            for name, one in probed.items()
            for c in one.cells.values()
        ]
    )


def decodability_table(probed: Mapping[str, Probed], settings: ProtocolSettings) -> pl.DataFrame:
    """Is the feature there at all? Maximum over layers, the same permutation across layers; Holm over features."""
    rows = []
    for name, one in probed.items():
        for model, seed in sorted({(m, s) for m, s, _ in one.cells}):
            layers = [c for (m, s, _), c in one.cells.items() if (m, s) == (model, seed)]
            observed = max(c.swept for c in layers)
            null = np.max([c.null for c in layers], axis=0)
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
            swept = float(np.mean([c.swept for c in cells]))
            token = float(np.mean([c.token_control for c in cells]))
            rows.append(
                {
                    "feature": name,
                    "model": model,
                    "auc": float(np.mean([c.auc for c in cells])),
                    "surface_alone": one.surface,
                    "with_surface": _mean(c.statistics.get("with_surface") for c in cells),
                    "random_token_labels": token,
                    "selectivity": swept - token,
                    "shuffled_labels": float(np.mean([c.null.mean() for c in cells])),
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
