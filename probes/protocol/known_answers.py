"""Controls whose answer is known, run on the base's own states: would this design have seen it?

- planted: a random label, and a random direction that holds it at a given share of the states' standard deviation.
  From 0.2 on it has to be found; at 0.1 it may be found or open, but never called "no change".
- rotated: the same states turned by a random orthogonal matrix. Nothing changed.
- wiped: noise in place of the states. The feature is lost, however high the base stood.
- second seed: another training seed of the same arm against its first.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from probes.protocol.cells import Cell, CellKey, Probed, band_rows, measure_linear
from probes.protocol.feature_plan import FeaturePlan
from probes.protocol.settings import ProtocolSettings
from probes.states.alignment import Aligned
from probes.statistics.equivalence import Effect, crossed_effect


@dataclass(frozen=True)
class Control:
    """A changed copy of the base's states. expected: conclusions that a working protocol may give."""

    name: str
    strength: float | None
    states: np.ndarray
    plan: FeaturePlan
    expected: tuple[str, ...]


def known_answer_rows(
    aligned: Aligned, one: Probed, band: Sequence[int], settings: ProtocolSettings
) -> list[dict[str, Any]]:
    """One row a control: effect, interval, conclusion, and whether it is one of the expected."""
    rows = [
        _row(one, name, None, effect, ("equivalent", "open"), settings)
        for name, effect in _seeds(one, band, settings.base)
    ]
    if not settings.controls or not one.plan.binary:
        return rows
    states = aligned.layer(settings.base, 0, band[0], one.plan.rows).astype(np.float64)
    random = np.random.default_rng([settings.seed, zlib.crc32(one.plan.feature.name.encode()), 7])
    plan = _random_label(one.plan, random)
    key = CellKey(settings.base, 0, band[0])
    start = {id(p): measure_linear(states, p, settings, key) for p in (plan, one.plan)}
    for control in _changed(states, plan, one.plan, settings, random):
        cell = measure_linear(control.states, control.plan, settings, key)
        effect = _difference(cell, start[id(control.plan)], control.plan)
        rows.append(_row(one, control.name, control.strength, effect, control.expected, settings))
    return rows


def _random_label(plan: FeaturePlan, random: np.random.Generator) -> FeaturePlan:
    """The plan with one balanced random label a row in place of the feature's."""
    label = random.permutation(np.where(np.arange(len(plan.rows)) % 2 == 0, 1.0, -1.0))
    return replace(plan, targets=label[None], baseline=None)


def _changed(
    states: np.ndarray,
    random_plan: FeaturePlan,
    plan: FeaturePlan,
    settings: ProtocolSettings,
    random: np.random.Generator,
) -> Iterator[Control]:
    width = states.shape[1]
    direction = random.standard_normal(width)
    direction = direction * (1 / np.linalg.norm(direction).item())
    spread = np.std(states @ direction).item()
    for strength in settings.controls:
        planted = states + strength * spread * random_plan.targets[0][:, None] * direction
        found = ("gained",) if strength >= 0.2 else ("gained", "open")
        yield Control("planted", strength, planted, random_plan, found)
    turn = np.linalg.qr(random.standard_normal((width, width)))[0]
    yield Control("rotated", None, states @ turn, random_plan, ("equivalent", "open"))
    noise = random.standard_normal(states.shape) * states.std() + states.mean()
    yield Control("wiped", None, noise, plan, ("lost",))


def _difference(cell: Cell, start: Cell, plan: FeaturePlan) -> Effect:
    draws = (cell.draws["delta"] - start.draws["delta"])[:, None]
    return crossed_effect(np.array([cell.statistics["delta"] - start.statistics["delta"]]), draws, plan.problems)


def _seeds(one: Probed, band: Sequence[int], base: str) -> Iterator[tuple[str, Effect]]:
    """Every model's second training seed against its first; none where each seed has a base of its own."""
    if one.has(base) and any(name == base and seed > 0 for name, seed, _ in one.cells):
        return
    for model in dict.fromkeys(name for name, *_ in one.cells):
        pair = [band_rows(one, model, seed, band) for seed in (0, 1)]
        if not all(pair):
            continue
        value, draws = (
            [np.mean([get(c) for c in cells], axis=0) for cells in pair]
            for get in (lambda c: c.statistics["delta"], lambda c: c.draws["delta"])
        )
        difference = np.array([float(value[1] - value[0])])
        yield f"second seed of {model}", crossed_effect(difference, (draws[1] - draws[0])[:, None], one.plan.problems)


def _row(
    one: Probed,
    name: str,
    strength: float | None,
    effect: Effect,
    expected: tuple[str, ...],
    settings: ProtocolSettings,
) -> dict[str, Any]:
    low, high = effect.interval(settings.alpha)
    reads = "open"
    if effect.p_equivalent(settings.margin) < settings.alpha:
        reads = "equivalent"
    elif effect.p_different() < settings.alpha:
        reads = "gained" if effect.estimate > 0 else "lost"
    return {
        "feature": one.plan.feature.name,
        "control": name,
        "strength": strength,
        "effect": effect.estimate,
        "low": low,
        "high": high,
        "reads": reads,
        "expected": " or ".join(expected),
        "as_expected": reads in expected,
    }
