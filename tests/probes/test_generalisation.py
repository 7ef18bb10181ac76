"""A probe fitted at one place and tested at another: one code for all steps, or one for each."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from probes.protocol.generalisation import Place, generalise
from probes.statistics.folds import make_splits


def design(problems=60, steps=4, width=30, noise=1.0, seed=0):
    draw = np.random.default_rng(seed)
    groups, step = np.repeat(np.arange(problems), steps), np.tile(np.arange(steps), problems)
    target = np.where(draw.random(len(groups)) < 0.5, 1.0, -1.0)
    states = noise * draw.standard_normal((len(groups), width))
    return states, target, step, make_splits(groups, target[None], 4, 2, 0)


def places_of(states, step):
    return [Place(f"step {s}", states, step == s) for s in np.unique(step)]


def test_one_code_for_all_steps_carries_over_and_a_code_a_step_does_not():
    states, target, step, splits = design()
    shared, apart = states.copy(), states.copy()
    shared[:, 0] += 2 * target
    apart[np.arange(len(step)), step] += 2 * target
    same = generalise(places_of(shared, step), target, splits)
    other = generalise(places_of(apart, step), target, splits)
    assert same.min() > 0.9
    assert np.diag(other).min() > 0.9
    assert abs(other[~np.eye(4, dtype=bool)].mean() - 0.5) < 0.06


def test_a_code_turned_round_is_read_upside_down():
    states, target, step, splits = design()
    states[:, 0] += 3 * target * np.where(step == 3, -1, 1)
    table = generalise(places_of(states, step), target, splits)
    assert table[0, 3] < 0.1
    assert table[3, 3] > 0.9


@pytest.mark.parametrize("width", [20, 400])
def test_an_entry_is_scikit_learns_ridge_on_held_out_problems(width):
    states, target, step, splits = design(width=width)
    states[:, 1] += target
    found = generalise(places_of(states, step), target, splits, ridge=0.3)[1, 2]
    scores = []
    for fold, split in enumerate(splits.splits):
        fit, test = split.train & (step == 1), ~split.train & (step == 2)
        mean, spread = states[fit].mean(0), states[fit].std(0)
        model = Ridge(alpha=0.3 * width).fit((states[fit] - mean) / spread, target[fit])
        scores.append((roc_auc_score(target[test], model.predict((states[test] - mean) / spread)), test.sum(), fold))
    pairs = [
        (target[(step == 2) & (splits.outer == f)] > 0).sum() * (target[(step == 2) & (splits.outer == f)] < 0).sum()
        for *_, f in scores
    ]
    assert found == pytest.approx(np.average([s for s, *_ in scores], weights=pairs), abs=1e-9)


def test_no_problem_is_trained_and_tested_on():
    states, target, step, splits = design(noise=0.0, width=60)
    states[np.arange(len(step)), np.arange(len(step)) // 4] = target  # a code of each problem alone
    assert abs(generalise(places_of(states, step), target, splits) - 0.5).max() < 0.2


def test_models_of_other_width_are_left_blank():
    states, target, step, splits = design()
    rows = np.ones(len(step), bool)
    table = generalise([Place("a", states, rows), Place("b", states[:, :9], rows)], target, splits)
    assert np.isnan(table[0, 1])
    assert np.isfinite(table[1, 1])
