"""Differences between models, and the conclusion of each (see `probes.protocol.conclusions`)."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from probes.protocol.cells import Probed
from probes.protocol.conclusions import Conclusion, Contrast, conclude
from probes.protocol.estimands import ESTIMANDS
from probes.protocol.settings import ProtocolSettings
from probes.statistics.equivalence import Effect, crossed_effect
from probes.statistics.holm import holm
from probes.statistics.power import smallest_detectable


@dataclass(frozen=True)
class Tested:
    """One contrast of one feature under one estimand, before the correction."""

    feature: str
    estimand: str
    contrast: Contrast
    effect: Effect


def effect_table(
    probed: Mapping[str, Probed],
    contrasts: Sequence[tuple[str, str]],
    band: Sequence[int],
    settings: ProtocolSettings,
) -> pl.DataFrame:
    """One row a (estimand, contrast, feature): the effect, its interval, tests and conclusion.

    The registered family is every contrast of every feature under the primary estimand, less those that are not
    tested at all (refused, not decodable, too few problems). Holm's correction runs over it once. Other estimands
    describe: interval and p without correction, and no verdict.
    """
    tested = [
        Tested(name, estimand, Contrast.of(one, a, b, tuple(band)), _effect(one, a, b, band, estimand, settings))
        for estimand in ESTIMANDS
        for a, b in contrasts
        for name, one in probed.items()
        if _measured(one, estimand)
    ]
    family = [t.estimand == settings.estimand and t.contrast.obstacle(settings) is None for t in tested]
    different = holm(np.asarray([t.effect.p_different() if f else np.nan for t, f in zip(tested, family)]))
    same = holm(np.asarray([t.effect.p_equivalent(settings.margin) if f else np.nan for t, f in zip(tested, family)]))
    return pl.DataFrame(
        [_effect_row(t, (float(p), float(q)), sum(family), settings) for t, p, q in zip(tested, different, same)],
        infer_schema_length=None,
    )


def _measured(one: Probed, estimand: str) -> bool:
    return any(estimand in cell.draws for cell in one.cells.values())


def _effect(one: Probed, a: str, b: str, band: Sequence[int], estimand: str, settings: ProtocolSettings) -> Effect:
    return contrast(one, a, b, band, estimand, shared=shared_models(settings))


def shared_models(settings: ProtocolSettings) -> set[str]:
    """Models that arms of any seed start from: their one checkpoint stands for every seed."""
    return {settings.base, settings.untrained}


def contrast(
    one: Probed,
    a: str,
    b: str,
    band: Sequence[int],
    estimand: str,
    *,
    shared: Container[str],
    of_b: Probed | None = None,
) -> Effect:
    """The effect of A against B on one feature, over the seeds that both have.

    shared: models whose one checkpoint stands for every seed. An arm of one seed does not: it was trained once.
    of_b: what was measured of B, where it read other traces than A; the two are then resampled apart.
    """
    other = of_b or one
    counts = {a: _seeds_of(one, a), b: _seeds_of(other, b)}
    trained = [count for model, count in counts.items() if count > 1 or model not in shared]
    seeds = min(trained, default=1)
    of_a = [_in_band(one, a, seed, band, estimand) for seed in range(seeds)]
    of_other = [_in_band(other, b, seed, band, estimand) for seed in range(seeds)]
    differences = np.asarray([x[0] - y[0] for x, y in zip(of_a, of_other)])
    # Draws of other traces that bear the same number are of the same random numbers, not of the same problems.
    apart = 0 if other is one else 1
    draws = np.stack([x[1] - np.roll(y[1], apart, axis=0) for x, y in zip(of_a, of_other)], axis=1)
    return crossed_effect(differences, draws, min(one.plan.problems, other.plan.problems))


def _seeds_of(one: Probed, model: str) -> int:
    return 1 + max(seed for name, seed, _ in one.cells if name == model)


def _in_band(one: Probed, model: str, seed: int, band: Sequence[int], estimand: str) -> tuple[float, np.ndarray]:
    """(statistic, its draws), mean over the band; the one checkpoint of a shared model is taken for every seed."""
    seed = min(seed, _seeds_of(one, model) - 1)
    cells = [one.cells[model, seed, layer] for layer in band]
    draws = np.mean([c.draws[estimand] for c in cells], axis=0)
    return float(np.mean([c.statistics[estimand] for c in cells])), draws


def _effect_row(tested: Tested, p: tuple[float, float], family: int, settings: ProtocolSettings) -> dict[str, Any]:
    effect, sides = tested.effect, tested.contrast
    low, high = effect.interval(settings.alpha)
    found: Conclusion | None = None
    if tested.estimand == settings.estimand:
        found = conclude(sides, effect, p, family, settings)
    return {
        "estimand": tested.estimand,
        "a": sides.a,
        "b": sides.b,
        "feature": tested.feature,
        "effect": effect.estimate,
        "low": low,
        "high": high,
        "p": effect.p_different(),
        "p_holm": p[0],
        "p_equivalent": effect.p_equivalent(settings.margin),
        "p_equivalent_holm": p[1],
        "verdict": found.verdict if found else None,
        "direction": found.direction if found else None,
        "why": found.why if found else "describes; only the registered estimand is judged",
        "auc_a": sides.auc_a,
        "auc_b": sides.auc_b,
        "p_decodable_a": sides.p_a,
        "p_decodable_b": sides.p_b,
        "ceiling": sides.ceiling(settings.saturated),
        "detectable": smallest_detectable(effect, settings.alpha / max(family, 1), settings.power),
        "family": family,
        "seeds": effect.seeds,
        "problems": effect.problems,
        "swappable_blocks": sides.swappable,
        "se_seeds": effect.seed_variance**0.5,
        "se_problems": effect.problem_variance**0.5,
        "problems_needed": found.problems_needed if found else None,
    }
