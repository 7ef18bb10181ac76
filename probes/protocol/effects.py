"""Differences between models, and what may be said of each: changed, equivalent, inconclusive, saturated."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from probes.protocol.cells import Probed
from probes.protocol.settings import ProtocolSettings
from probes.statistics.equivalence import Effect, Verdict, crossed_effect, holm
from probes.statistics.power import problems_needed


def effect_table(
    probed: Mapping[str, Probed],
    contrasts: Sequence[tuple[str, str]],
    band: Sequence[int],
    settings: ProtocolSettings,
) -> pl.DataFrame:
    """One row a (estimand, contrast, feature): the effect, its interval, tests and verdict.

    Estimands: "delta" (linear AUC), "gamma" (RBF - linear), "gain" (with surface features beside the states).
    """
    rows = []
    for estimand in ("delta", "gamma", "gain"):
        for a, b in contrasts:
            family = []
            for name, one in probed.items():
                effect = contrast(one, a, b, band, estimand, shared=shared_models(settings))
                family.append((name, one, effect))
            different = holm(np.asarray([e.p_different() for *_, e in family]))
            same = holm(np.asarray([e.p_equivalent(settings.margin) for *_, e in family]))
            for (name, one, effect), p, q in zip(family, different, same):
                rows.append(_effect_row(name, one, effect, (a, b), estimand, (p, q), band, settings))
    return pl.DataFrame(rows)


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
    statistics = {
        "delta": lambda c: (c.statistics["linear"], c.draws["linear"]),
        "gamma": lambda c: (c.statistics["rbf"] - c.statistics["linear"], c.draws["rbf"] - c.draws["linear"]),
        "gain": lambda c: (c.statistics["with_surface"], c.draws["with_surface"]),
    }
    found = [statistics[estimand](c) for c in cells]
    return float(np.mean([f[0] for f in found])), np.mean([f[1] for f in found], axis=0)


def _effect_row(
    name: str,
    one: Probed,
    effect: Effect,
    pair: tuple[str, str],
    estimand: str,
    p: tuple[float, float],
    band: Sequence[int],
    settings: ProtocolSettings,
) -> dict[str, Any]:
    low, high = effect.interval(settings.alpha)
    base = np.mean([one.cells[settings.base, 0, layer].auc for layer in band])
    verdict, why, needed = judge(one, effect, p, float(base), pair, band, settings)
    return {
        "estimand": estimand,
        "a": pair[0],
        "b": pair[1],
        "feature": name,
        "effect": effect.estimate,
        "low": low,
        "high": high,
        "p": effect.p_different(),
        "p_holm": p[0],
        "p_equivalent": effect.p_equivalent(settings.margin),
        "p_equivalent_holm": p[1],
        "verdict": verdict,
        "why": why,
        "base_auc": float(base),
        "seeds": effect.seeds,
        "problems": effect.problems,
        "swappable_blocks": one.plan.swappable,
        "se_seeds": effect.seed_variance**0.5,
        "se_problems": effect.problem_variance**0.5,
        "problems_needed": needed,
    }


def judge(
    one: Probed,
    effect: Effect,
    p: tuple[float, float],
    base: float,
    pair: tuple[str, str],
    band: Sequence[int],
    settings: ProtocolSettings,
) -> tuple[Verdict, str, int | None]:
    """(verdict, why, problems needed). An effect inside the margin is equivalent even where it is not zero."""
    needed = problems_needed(effect, settings.margin, settings.alpha, settings.power)
    own = [c for (m, _, layer), c in one.cells.items() if m in pair and layer in band]
    if base > settings.saturated:
        return "saturated", f"the base's AUC is {base:.3f}, above {settings.saturated}: nothing is left to gain", None
    if one.plan.swappable < settings.least_blocks:
        return "inconclusive", f"{one.plan.swappable} swappable blocks, {settings.least_blocks} needed", needed
    if max(c.degenerate for c in own) > settings.degenerate:
        return "inconclusive", f"{max(c.degenerate for c in own):.0%} of the fits are degenerate", needed
    if p[1] < settings.alpha:
        return "equivalent", f"inside ±{settings.margin} (TOST, Holm p = {p[1]:.2g})", None
    if p[0] < settings.alpha:
        return "changed", f"differs from 0 (Holm p = {p[0]:.2g})", None
    more = "more seeds" if needed is None else f"{needed} problems"
    return (
        "inconclusive",
        (
            f"neither different from 0 (Holm p = {p[0]:.2g}) nor inside ±{settings.margin} (Holm p = {p[1]:.2g}); "
            f"{more} needed"
        ),
        needed,
    )
