"""Estimands, the path of the regularisation, conclusions and controls against cases whose answer is known."""

import numpy as np
import pytest

from probes.protocol.conclusions import Contrast, conclude
from probes.protocol.estimands import ESTIMANDS, Estimand, Rows, auc, bits, register, stratified_auc, value
from probes.protocol.nested_fits import Hinge, LeastSquares, fit_hinge, linear_gram
from probes.protocol.regularisation import Limits, choose
from probes.protocol.settings import ProtocolSettings
from probes.statistics.auc import fold_auc
from probes.statistics.equivalence import Effect
from probes.statistics.folds import make_splits
from probes.statistics.information import prequential_bits
from probes.statistics.power import problems_needed, smallest_detectable


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def rows_of(rng: np.random.Generator, n: int = 400) -> tuple[np.ndarray, np.ndarray]:
    return rng.choice((-1.0, 1.0), n), np.arange(n) % 5


# ---------------------------------------------------------------- bits and strata


def test_a_probe_that_knows_the_label_tells_nearly_a_bit_and_noise_none(rng):
    y, folds = rows_of(rng)
    rows = Rows(y[None], folds, np.zeros(len(y), int))
    assert 0.9 < value(bits, y[None] + 0.01 * rng.standard_normal((1, len(y))), rows) <= 1.0
    noise = [value(bits, rng.standard_normal((1, len(y))), rows) for _ in range(20)]
    assert -0.02 < np.mean(noise) < 0.005


def test_bits_do_not_depend_on_a_folds_scale(rng):
    y, folds = rows_of(rng)
    decisions = 0.8 * y + rng.standard_normal(len(y))
    rows = Rows(y[None], folds, np.zeros(len(y), int))
    scale = np.array([1.0, 1e3, 1e-3, 50.0, 7.0])[folds]
    assert value(bits, (decisions * scale)[None], rows) == pytest.approx(value(bits, decisions[None], rows))


def test_what_the_text_tells_already_is_no_information(rng):
    y, folds = rows_of(rng)
    text = 0.8 * y + rng.standard_normal(len(y))
    rows = Rows(y[None], folds, np.zeros(len(y), int), text[None])
    assert value(bits, text[None], rows) == pytest.approx(0, abs=0.01)
    assert value(bits, (y + rng.standard_normal(len(y)))[None], rows) > 0.1


def test_one_confident_mistake_does_not_cost_all_the_bits(rng):
    y, folds = rows_of(rng)
    decisions = y.copy()
    decisions[0] = -y[0]
    assert value(bits, decisions[None], Rows(y[None], folds, np.zeros(len(y), int))) > 0.85


def test_a_probe_that_knows_the_place_alone_has_half_among_rows_at_one_place(rng):
    place = rng.integers(0, 4, 600)
    y = np.where(rng.random(600) < 0.15 + 0.2 * place, 1.0, -1.0)
    rows = Rows(y[None], np.zeros(600, int), place)
    assert value(auc, place[None].astype(float), rows) > 0.65
    assert value(stratified_auc, place[None].astype(float), rows) == 0.5


def test_fewer_rows_suffice_for_a_strong_direction(rng):
    groups = np.repeat(np.arange(100), 3)
    y = rng.choice((-1.0, 1.0), 300)
    x = rng.standard_normal((300, 10))
    saved = []
    for strength in (0.0, 0.7, 2.0):
        moved = x + strength * np.outer(y, np.eye(10)[0])
        saved.append(prequential_bits(linear_gram(moved, np.ones(300, bool)), y, groups, 0.1))
    assert saved[0] < 0.02 < saved[1] < saved[2] < 1


def test_an_estimand_is_registered_once():
    with pytest.raises(ValueError, match="delta is registered already"):
        register(Estimand("delta", "another", auc))
    assert list(ESTIMANDS)[:3] == ["delta", "stratified", "bits"]


# ---------------------------------------------------------------- the path


def test_the_simplest_of_the_best_with_neighbours_on_both_sides_is_chosen():
    flat = choose(np.array([[0.6, 0.8, 0.9, 0.9005, 0.9]]).T)
    assert (flat.at[0], flat.edge[0]) == (2, 0)
    rising = choose(np.array([[0.6, 0.7, 0.8]]).T)
    assert (rising.at[0], rising.edge[0]) == (2, 1)
    falling = choose(np.array([[0.8, 0.7, 0.6]]).T)
    assert (falling.at[0], falling.edge[0]) == (0, -1)
    flat = choose(np.array([[0.8, 0.8]]).T)
    assert (flat.edge[0], flat.flat[0]) == (0, True)
    assert choose(np.array([[0.9, 0.9, 0.9, 0.5]]).T, simplest_first=False).at[0] == 2


def low_variance_label(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The label lies in a direction of little variance among strong ones: only a large C finds it."""
    groups = np.repeat(np.arange(60), 4)
    y = rng.choice((-1.0, 1.0), len(groups))
    strong = rng.standard_normal((len(groups), 3)) @ rng.standard_normal((3, 30))
    x = strong + 0.15 * rng.standard_normal((len(groups), 30)) + 0.15 * np.outer(y, rng.standard_normal(30))
    return x, y, groups


@pytest.mark.parametrize("probe", [Hinge(costs=(0.001, 0.01)), LeastSquares(ridges=(10.0, 100.0))])
def test_the_path_is_followed_until_auc_stops_rising(rng, probe):
    x, y, groups = low_variance_label(rng)
    splits = make_splits(groups, y[None], 4, 3, seed=0)
    grams = [linear_gram(x, split.train) for split in splits.splits]
    fit = probe.fit(grams, y[None], splits)
    assert not fit.edges.any()
    assert fit.wanted is None
    narrow = fit_hinge(grams, y[None], splits, (0.001, 0.01))
    low, high = (fold_auc(f.held_out, y[None], splits.outer)[0] for f in (narrow, fit))
    assert high > low + 0.03


def test_a_path_that_is_cut_off_names_the_one_that_would_do(rng):
    x, y, groups = low_variance_label(rng)
    splits = make_splits(groups, y[None], 4, 3, seed=0)
    grams = [linear_gram(x, split.train) for split in splits.splits]
    fit = fit_hinge(grams, y[None], splits, (0.1, 1.0), limits=Limits(0.1, 1.0))
    assert (fit.edges == 1).any()
    assert fit.wanted is not None
    assert fit.wanted[1] > 1.0


# ---------------------------------------------------------------- conclusions


def contrast(**changes) -> Contrast:
    known = {
        "a": "arm",
        "b": "base",
        "auc_a": 0.7,
        "auc_b": 0.7,
        "p_a": 0.01,
        "p_b": 0.01,
        "swappable": 99,
        "cells": (),
    }
    return Contrast(**{**known, **changes})


LOSS = Effect(-0.4, 0.0, 1e-4, 0.0, 1, 100)


@pytest.mark.parametrize(
    ("sides", "effect", "p", "verdict", "direction"),
    [
        ({"auc_b": 1.0, "auc_a": 0.6}, LOSS, (1e-7, 1.0), "changed", "lost"),
        ({"auc_b": 1.0, "auc_a": 0.999}, Effect(0.001, 0, 1e-4, 0, 1, 100), (0.9, 0.3), "saturated", None),
        ({"auc_b": 1.0, "auc_a": 0.99}, Effect(-0.01, 0, 1e-4, 0, 1, 100), (0.4, 0.3), "open", None),
        ({}, Effect(0.001, 0, 1e-6, 0, 1, 100), (0.9, 0.001), "equivalent", None),
        ({}, Effect(0.01, 0, 1e-6, 0, 1, 100), (0.001, 0.001), "equivalent", None),
        ({}, Effect(0.1, 0, 1e-4, 0, 1, 100), (0.001, 1.0), "changed", "gained"),
        ({"p_a": 0.5, "p_b": 0.4}, Effect(0.1, 0, 1e-4, 0, 1, 100), (0.001, 1.0), "not decodable", None),
        ({"p_a": 0.01, "p_b": 0.4}, Effect(0.1, 0, 1e-4, 0, 1, 100), (0.001, 1.0), "changed", "gained"),
        ({"swappable": 5}, LOSS, (1e-7, 1.0), "open", None),
    ],
)
def test_conclusions_follow_their_order(sides, effect, p, verdict, direction):
    found = conclude(contrast(**sides), effect, p, 3, ProtocolSettings())
    assert (found.verdict, found.direction) == (verdict, direction)


@pytest.mark.parametrize("estimate", [0.0, 0.01, 0.019, 0.021, 0.03, 0.06, -0.03])
@pytest.mark.parametrize("error", [0.004, 0.008, 0.02])
@pytest.mark.parametrize("family", [1, 9, 45])
def test_problems_needed_are_more_than_there_are_or_not_named(estimate, error, family):
    effect = Effect(estimate, 0.0, error**2, 0.0, 1, 120)
    needed = problems_needed(effect, 0.02, 0.05 / family)
    assert needed is None or needed > 120


def test_the_smallest_detectable_difference_is_found_in_four_of_five_cases(rng):
    error, problems = 0.01, 200
    least = smallest_detectable(Effect(0.0, 0.0, error**2, 0.0, 1, problems))
    drawn = least + error * rng.standard_normal(4000)
    found = [Effect(d, 0.0, error**2, 0.0, 1, problems).p_different() < 0.05 for d in drawn]
    assert np.mean(found) == pytest.approx(0.8, abs=0.025)
