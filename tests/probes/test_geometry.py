"""Geometry against cases whose answer is known."""

import numpy as np
import pytest

from probes.protocol.geometry import (
    alignment,
    angle,
    cka,
    cka_interval,
    compare_to_base,
    decision_slice,
    effective_dimension,
    margin,
    rotation,
)
from probes.protocol.nested_fits import linear_gram
from probes.statistics.folds import make_splits
from probes.svm.smo import solve_batch


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(2)


def labelled(rng: np.random.Generator, n: int = 120, width: int = 5):
    problems = np.repeat(np.arange(n // 3), 3)
    labels = rng.choice((-1.0, 1.0), n)
    states = rng.standard_normal((n, width))
    states[:, 0] += 1.5 * labels
    return problems, labels, states, make_splits(problems, labels[None], 4, 2, seed=0)


def test_the_margin_of_two_points_is_half_their_distance():
    gram = np.array([[9.0, -9.0], [-9.0, 9.0]])  # at ±3
    fit = solve_batch(gram, np.array([[1.0, -1.0]]), np.full((1, 2), 1e6), tolerance=1e-8)
    assert margin(fit, gram) == pytest.approx(3, rel=1e-5)


def test_effective_dimension_is_one_for_a_line_and_the_width_for_an_isotropic_cloud(rng):
    line = rng.standard_normal((400, 1)) @ rng.standard_normal((1, 8))
    assert effective_dimension(line @ line.T) == pytest.approx(1)
    cloud = np.linalg.qr(rng.standard_normal((400, 8)))[0]
    cloud = np.linalg.qr(cloud - cloud.mean(0))[0]
    assert effective_dimension(cloud @ cloud.T) == pytest.approx(8, rel=1e-3)


def test_alignment_is_one_where_the_kernel_is_the_label_and_ignores_offsets():
    y = np.array([1.0, 1, -1, -1, -1])
    assert alignment(np.outer(y, y) + 7, y) == pytest.approx(1)


def test_debiased_cka_is_one_for_a_rotation_and_about_zero_for_unrelated_states(rng):
    a, other = rng.standard_normal((200, 60)), rng.standard_normal((200, 60))
    turned = a @ np.linalg.qr(rng.standard_normal((60, 60)))[0] * 3
    assert cka(a @ a.T, turned @ turned.T) == pytest.approx(1)
    biased = np.sum((a.T @ other) ** 2) / (np.linalg.norm(a.T @ a) * np.linalg.norm(other.T @ other))
    assert biased > 0.15
    assert abs(cka(a @ a.T, other @ other.T)) < 0.03


def test_the_interval_of_cka_holds_its_estimate(rng):
    problems, _, states, splits = labelled(rng)
    noisy = states + rng.standard_normal(states.shape)
    a, b = (linear_gram(x, splits.splits[0].train) for x in (states, noisy))
    low, high = cka_interval(a, b, problems)
    assert low < cka(a, b) < high <= 1
    assert high - low < 0.5


def test_a_rotated_copy_of_the_base_transfers_after_procrustes_alone(rng):
    problems, labels, base, splits = labelled(rng)
    turn = np.linalg.qr(rng.standard_normal((5, 5)))[0]
    np.testing.assert_allclose(rotation(base @ turn, base), turn.T, atol=1e-8)
    # Standardising each column is no rotation, so the copy is turned by a signed permutation, which it commutes with.
    turn = np.eye(5)[[1, 2, 3, 4, 0]] * np.array([1, -1, 1, 1, -1])
    found = compare_to_base(base @ turn, base, labels, splits, problems, cost=1.0)
    same = compare_to_base(base, base, labels, splits, problems, cost=1.0)
    assert found.transfer_rotated == pytest.approx(same.transfer, abs=1e-6)
    assert found.transfer < 0.75 < same.transfer
    assert found.cosine_rotated == pytest.approx(1, abs=1e-4)
    assert abs(found.cosine) < 0.6
    assert found.margin == pytest.approx(same.margin, rel=1e-3)
    assert found.cka == pytest.approx(1)


def test_states_of_another_width_have_cka_but_no_transfer(rng):
    problems, labels, base, splits = labelled(rng)
    wider = np.hstack([base, rng.standard_normal((len(base), 2))])
    found = compare_to_base(wider, base, labels, splits, problems, cost=1.0)
    assert found.transfer is None
    assert 0.3 < found.cka < 1


def test_the_slice_shows_the_svms_own_decisions_and_an_orthogonal_axis(rng):
    _, labels, states, splits = labelled(rng)
    decision, across, role = decision_slice(states, labels, splits, cost=1.0)
    train = splits.splits[0].train
    gram = linear_gram(states, train)
    positive = (labels > 0) & train
    weight = np.where(
        labels > 0, train.sum() / (2 * positive.sum()), train.sum() / (2 * (train.sum() - positive.sum()))
    )
    fit = solve_batch(gram, labels[None], (weight * train)[None])
    np.testing.assert_allclose(decision, gram @ fit.alpha[0] + fit.bias[0], atol=2e-3)
    assert abs(np.corrcoef(decision[train], across[train])[0, 1]) < 0.35
    outside = labels * decision > 1.05
    assert (role[train & outside] == 1).all()  # beyond the margin: no support vector
    assert set(role[~train]) == {0}


def test_angle_by_hand():
    assert angle(np.array([1.0, 0]), np.array([1.0, 1])) == pytest.approx(0.5**0.5)


def test_states_that_are_all_the_same_have_no_geometry_and_stop_nothing(rng):
    problems, labels, states, splits = labelled(rng)
    same = compare_to_base(np.ones_like(states), states, labels, splits, problems, 1.0)
    assert np.isnan([same.margin, same.effective_dimension, same.alignment]).all()
    assert np.isnan(same.cka)
    assert same.transfer == 0.5
    decision, _, _ = decision_slice(np.ones_like(states), labels, splits, 1.0)
    assert np.isfinite(decision).all()
