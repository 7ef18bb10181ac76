"""Batched SMO against libsvm, one fit at a time."""

import numpy as np
import pytest
from sklearn.svm import SVC

from probes.svm import smo
from probes.svm.dual import ProblemError
from probes.svm.kernels import fit_kernel, gram


def problem(n=240, d=30, seed=0, kernel="rbf"):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((n, d))
    y = np.where(x[:, 0] + 0.3 * x[:, 1] * x[:, 2] + 0.7 * draw.standard_normal(n) > 0, 1, -1)
    return gram(x, kernel=fit_kernel(x, kernel)), y


def libsvm(k, y, train, cost, tol=1e-8, **settings):
    svc = SVC(kernel="precomputed", C=cost, tol=tol, **settings).fit(k[np.ix_(train, train)], y[train])
    return svc, svc.decision_function(k[:, train])


@pytest.mark.parametrize("kernel", ["linear", "rbf", "laplacian", "poly"])
@pytest.mark.parametrize("cost", [0.1, 1.0, 10.0])
def test_folds_as_empty_boxes_give_the_decisions_of_sliced_fits(kernel, cost):
    k, y = problem(kernel=kernel)
    train = np.arange(len(y)) % 4 != np.arange(4)[:, None]
    fit = smo.solve_batch(k, np.tile(y, (4, 1)), cost * train, tolerance=1e-7)
    ours = smo.decisions(k, fit)
    assert (fit.alpha[~train] == 0).all()
    assert fit.kkt_gap.max() <= 1e-7
    for f in range(4):
        _, theirs = libsvm(k, y, train[f], cost)
        if fit.degenerate[f]:  # the bias is any point of an interval: compare up to it
            theirs = theirs - theirs.mean() + ours[f].mean()
        np.testing.assert_allclose(ours[f], theirs, atol=2e-5)


def test_many_label_vectors_and_costs_are_solved_at_once_in_float32():
    k, y = problem()
    labels = np.stack([np.random.default_rng(s).permutation(y) for s in range(12)])
    costs = np.tile([0.1, 1.0, 10.0], 4)[:, None]
    fit = smo.solve_batch(k.astype(np.float32), labels, costs)
    assert fit.alpha.dtype == np.float32
    assert fit.kkt_gap.max() <= 1e-3
    everyone = np.ones(len(y), bool)
    for p in range(12):
        ours = smo.decisions(k, fit)[p]
        _, theirs = libsvm(k, labels[p], everyone, costs[p, 0], tol=1e-3)
        assert abs(ours - theirs).max() <= 5e-3
        assert (np.sign(ours) == np.sign(theirs)).mean() >= 0.995


def test_signed_multipliers_are_feasible_and_the_gap_is_what_it_says():
    k, y = problem()
    fit = smo.solve_batch(k, y, 3.0, tolerance=1e-5)
    alpha = fit.alpha[0] * y
    assert alpha.min() >= 0
    assert alpha.max() <= 3.0
    assert abs(fit.alpha.sum()) < 1e-9
    residual = y - k @ fit.alpha[0]
    can_grow = np.where(y > 0, alpha < 3.0, alpha > 0)
    can_shrink = np.where(y > 0, alpha > 0, alpha < 3.0)
    assert residual[can_grow].max() - residual[can_shrink].min() == pytest.approx(fit.kkt_gap[0], abs=1e-9)


def test_class_weights_are_boxes():
    k, y = problem()
    weights = np.where(y > 0, 4.0, 1.0)
    ours = smo.decisions(k, smo.solve_batch(k, y, weights, tolerance=1e-7))[0]
    _, theirs = libsvm(k, y, np.ones(len(y), bool), 1.0, class_weight={1: 4.0, -1: 1.0})
    np.testing.assert_allclose(ours, theirs, atol=2e-5)


@pytest.mark.parametrize("n", [700, 1500])
@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_sweeps_and_compacted_problems_reach_the_same_solution(n, kernel):
    k, y = problem(n=n, d=300, kernel=kernel)
    train = np.arange(n) % 5 != 0
    fit = smo.solve_batch(k, np.stack([y, y]), np.array([[0.6], [2.0]]) * train, tolerance=1e-5)
    for p, cost in enumerate((0.6, 2.0)):
        _, theirs = libsvm(k, y, train, cost, tol=1e-5)
        np.testing.assert_allclose(smo.decisions(k, fit)[p], theirs, atol=5e-4)


def test_a_warm_start_at_the_solution_takes_no_steps():
    k, y = problem()
    cold = smo.solve_batch(k, y, 1.0)
    warm = smo.solve_batch(k, y, 1.0, warm_start=cold.alpha)
    assert warm.iterations[0] == 0
    np.testing.assert_allclose(warm.alpha, cold.alpha, atol=1e-14)


def test_a_warm_start_outside_the_boxes_is_made_feasible():
    k, y = problem()
    loose = smo.solve_batch(k, y, 10.0)
    train = np.arange(len(y)) % 3 != 0
    warm = smo.solve_batch(k, y, 0.5 * train, warm_start=loose.alpha, tolerance=1e-7)
    cold = smo.solve_batch(k, y, 0.5 * train, tolerance=1e-7)
    np.testing.assert_allclose(smo.decisions(k, warm), smo.decisions(k, cold), atol=1e-5)


def test_threads_do_not_change_the_result():
    k, y = problem()
    labels = np.stack([np.random.default_rng(s).permutation(y) for s in range(9)])
    one, two = (smo.solve_batch(k, labels, 1.0, threads=t) for t in (1, 2))
    np.testing.assert_array_equal(one.alpha, two.alpha)


def test_a_fit_whose_multipliers_all_stand_at_the_bound_is_flagged():
    k, y = problem()
    y = np.where(np.arange(len(y)) % 2, 1, -1)  # balanced: at a tiny C every multiplier is C
    fit = smo.solve_batch(k, np.stack([y, y]), np.array([[1e-4], [10.0]]))
    assert fit.degenerate.tolist() == [True, False]
    assert (abs(fit.alpha[0]) == 1e-4).all()


def test_identical_rows_of_opposite_class_end():
    k = np.ones((6, 6), np.float32)
    fit = smo.solve_batch(k, [[1, 1, 1, -1, -1, -1]], 1.0)
    assert abs(smo.decisions(k, fit)).max() < 1


def test_a_tolerance_below_the_precision_ends_and_reports_its_gap():
    k, y = problem()
    fit = smo.solve_batch(k.astype(np.float32), y, 10.0, tolerance=1e-12)
    assert 1e-12 < fit.kkt_gap[0] < 1e-3


@pytest.mark.parametrize(
    ("labels", "boxes", "message"),
    [
        ([1, 1, 1, 1], 1.0, r"problem 0 has 4 rows of class \+1 and 0 of class -1"),
        ([1, 1, -1, -1], [1, 1, 0, 0], r"problem 0 has 2 rows of class \+1 and 0 of class -1.*merge folds or drop"),
        ([0, 1, -1, -1], 1.0, r"labels hold .*; expected -1 and \+1 alone"),
        ([1, -1, 1], 1.0, r"labels is \(1, 3\); expected \(problems, 4\)"),
        ([1, 1, -1, -1], -1.0, r"boxes hold negative or non-finite values"),
        ([1, 1, -1, -1], np.nan, r"boxes hold negative or non-finite values"),
    ],
)
def test_bad_problems_are_named(labels, boxes, message):
    with pytest.raises(ProblemError, match=message):
        smo.solve_batch(np.eye(4), labels, boxes)


def test_bad_matrices_are_named():
    k = np.eye(4)
    k[2, 1] = np.nan
    with pytest.raises(ProblemError, match=r"NaN or infinity in 1 of 4 rows, first row 2"):
        smo.solve_batch(k, [1, 1, -1, -1], 1.0)
    with pytest.raises(ProblemError, match=r"gram is \(4, 3\); expected \(n, n\)"):
        smo.solve_batch(np.ones((4, 3)), [1, 1, -1, -1], 1.0)
    with pytest.raises(ProblemError, match=r"warm_start is \(3,\); expected \(1, 4\)"):
        smo.solve_batch(np.eye(4), [1, 1, -1, -1], 1.0, warm_start=np.zeros(3))
    fit = smo.solve_batch(np.eye(4), [1, 1, -1, -1], 1.0)
    with pytest.raises(ProblemError, match=r"gram_rows is \(2, 5\); expected \(rows, 4\)"):
        smo.decisions(np.ones((2, 5)), fit)
