"""ADMM against SMO and libsvm, and the choice between the two solvers."""

import numpy as np
import pytest
import torch
from sklearn.svm import SVC

from probes.svm import admm, hinge, smo
from probes.svm.kernels import fit_kernel, gram


def problems(count=6, n=150, kernel="linear"):
    draw = np.random.default_rng(0)
    x = draw.standard_normal((n, 40))
    y = np.where(x[:, 0] + draw.standard_normal(n) > 0, 1, -1)
    labels = np.stack([np.where(draw.random(n) < 0.1, -y, y) for _ in range(count)])
    train = np.stack([np.arange(n) % 5 != p % 5 for p in range(count)])
    return gram(x, kernel=fit_kernel(x, kernel)), labels, train


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_decisions_are_those_of_sliced_libsvm_fits(kernel):
    k, labels, train = problems(kernel=kernel)
    costs = np.array([[0.1], [1.0], [10.0]] * 2)
    fit = admm.solve_batch(k, labels, costs * train, tolerance=1e-6, device="cpu")
    assert fit.kkt_gap.max() <= 1e-6
    for p in range(len(labels)):
        t = train[p]
        svc = SVC(kernel="precomputed", C=costs[p, 0], tol=1e-8).fit(k[np.ix_(t, t)], labels[p, t])
        np.testing.assert_allclose(smo.decisions(k, fit)[p], svc.decision_function(k[:, t]), atol=1e-4)


@pytest.mark.parametrize("precision", [np.float32, np.float64])
def test_both_precisions_stay_what_they_are_and_reach_libsvm(precision):
    k, labels, train = problems()
    fit = admm.solve_batch(k.astype(precision), labels, 10.0 * train, tolerance=1e-3, device="cpu")
    assert fit.alpha.dtype == precision
    assert fit.kkt_gap.max() <= 1e-3
    ours = smo.decisions(k, fit)
    for p in range(len(labels)):
        t = train[p]
        svc = SVC(kernel="precomputed", C=10.0, tol=1e-8).fit(k[np.ix_(t, t)], labels[p, t])
        np.testing.assert_allclose(ours[p], svc.decision_function(k[:, t]), atol=1e-2)


def test_every_tensor_is_made_on_the_device_that_was_asked_for():
    # A tensor made without a device would land on "meta", where it holds no values and mixes with none.
    k, labels, train = problems()
    expected = admm.solve_batch(k, labels, 10.0 * train, device="cpu")
    with torch.device("meta"):
        found = admm.solve_batch(k, labels, 10.0 * train, device="cpu")
    np.testing.assert_array_equal(found.alpha, expected.alpha)


def test_its_iterations_alone_come_close_before_smo_finishes():
    k, labels, train = problems()
    boxes = 10.0 * train
    cold = smo.solve_batch(k, labels, boxes)
    near = admm.solve_batch(k, labels, boxes, device="cpu")
    assert near.iterations.sum() < 0.5 * cold.iterations.sum()


def test_the_operator_is_the_block_of_the_bordered_inverse():
    k, _, _ = problems()
    n = len(k)
    border = np.ones((n + 1, n + 1))
    border[:n, :n], border[n, n] = k + 0.3 * np.eye(n), 0
    ours = admm._bordered_inverse(torch.as_tensor(k), 0.3).numpy()
    np.testing.assert_allclose(ours, np.linalg.inv(border)[:n, :n], atol=1e-10)


def test_large_costs_on_few_rows_go_to_admm_and_the_rest_to_smo(monkeypatch):
    k, labels, train = problems(count=120)
    costs = np.tile([[0.1], [10.0]], (60, 1))
    sent = []
    whole = admm.solve_batch
    monkeypatch.setattr(admm, "solve_batch", lambda g, y, b, **rest: sent.append(b.max(1)) or whole(g, y, b, **rest))
    fit = hinge.solve_batch(k, labels, costs * train, tolerance=1e-6)
    assert len(sent) == 1
    assert (sent[0] == 10.0).all()
    alone = smo.solve_batch(k, labels, costs * train, tolerance=1e-6)
    np.testing.assert_allclose(smo.decisions(k, fit), smo.decisions(k, alone), atol=1e-4)


@pytest.mark.gpu
@pytest.mark.parametrize(("precision", "tolerance", "apart"), [(np.float32, 1e-3, 2e-2), (np.float64, 1e-6, 1e-4)])
def test_a_gpu_gives_what_the_cpu_gives(precision, tolerance, apart):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    k, labels, train = problems()
    k = k.astype(precision)
    there = hinge.solve_batch(k, labels, 10.0 * train, tolerance=tolerance, device="cuda:0")
    here = admm.solve_batch(k, labels, 10.0 * train, tolerance=tolerance, device="cpu")
    assert there.kkt_gap.max() <= tolerance
    np.testing.assert_allclose(smo.decisions(k, there), smo.decisions(k, here), atol=apart)
