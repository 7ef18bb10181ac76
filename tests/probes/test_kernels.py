"""Gram matrices against scikit-learn's pairwise kernels."""

import numpy as np
import pytest
from sklearn.metrics import pairwise

from probes.svm import kernels
from probes.svm.kernels import Kernel, StatesError, fit_kernel, gram, gram_diagonal, normalise_trace

REFERENCE = {
    "linear": lambda a, b, k: pairwise.linear_kernel(a, b),
    "poly": lambda a, b, k: pairwise.polynomial_kernel(a, b, degree=k.degree, gamma=k.gamma, coef0=k.coef0),
    "rbf": lambda a, b, k: pairwise.rbf_kernel(a, b, gamma=k.gamma),
    "laplacian": lambda a, b, k: pairwise.laplacian_kernel(a, b, gamma=k.gamma),
}


def states(n=37, d=19, seed=0):
    return 2 * np.random.default_rng(seed).standard_normal((n, d)) + 0.5


@pytest.mark.parametrize("name", kernels.KERNELS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-12), (np.float32, 2e-5)])
def test_values_are_those_of_scikit_learn(name, dtype, tolerance):
    kernel = fit_kernel(states(), name, coef0=1.0, normalise=False)
    new, old = states(11, seed=1), states()
    ours = gram(new.astype(dtype), old.astype(dtype), kernel)
    assert ours.dtype == dtype
    np.testing.assert_allclose(ours, REFERENCE[name](new, old, kernel), rtol=tolerance * 10, atol=tolerance)


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_chunks_do_not_change_values(name, monkeypatch):
    kernel = fit_kernel(states(), name)
    whole = gram(states(), kernel=kernel)
    monkeypatch.setattr(kernels, "_CHUNK_BYTES", 8 * 37 * 5)  # five rows a chunk, the last one of two
    np.testing.assert_allclose(gram(states(), kernel=kernel), whole, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_normalised_training_rows_have_mean_diagonal_one(name):
    kernel = fit_kernel(states(), name)
    assert gram(states(), kernel=kernel).diagonal().mean() == pytest.approx(1, rel=1e-12)
    np.testing.assert_allclose(gram_diagonal(states(), kernel), gram(states(), kernel=kernel).diagonal(), rtol=1e-12)


def test_gamma_scale_and_auto_mean_what_svc_means():
    x = states()
    assert fit_kernel(x, "rbf").gamma == pytest.approx(1 / (x.shape[1] * x.var()))
    assert fit_kernel(x, "rbf", gamma="auto").gamma == 1 / x.shape[1]
    assert fit_kernel(np.ones((3, 2)), "rbf").gamma == 1.0


def test_the_trace_of_training_rows_alone_normalises():
    k = np.diag([1.0, 3.0, 100.0])
    train = np.array([True, True, False])
    assert normalise_trace(k, train).diagonal() == pytest.approx([0.5, 1.5, 50])


def test_nan_is_named_with_its_column_and_count():
    x = states()
    x[3, 7], x[5, 7] = np.nan, np.inf
    with pytest.raises(
        StatesError, match=r"2 NaN or infinite values in 2 of 37 rows and 1 of 19 columns, the first column 7; drop"
    ):
        gram(x)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gram(states(d=19), states(d=18)), r"18 columns; expected 19: these are another model's"),
        (lambda: gram(np.zeros(4)), r"states is \(4,\); expected \(rows, columns\)"),
        (lambda: gram(np.zeros((0, 4))), r"at least one of each"),
        (lambda: fit_kernel(np.zeros((4, 2))), r"the states are all zero"),
        (lambda: fit_kernel(states(), "sigmoid"), r"'sigmoid'; expected one of linear, poly, rbf, laplacian"),
        (lambda: fit_kernel(states(), "rbf", gamma=-1.0), r"gamma is -1.0; expected"),
        (lambda: normalise_trace(np.zeros((2, 2))), r"mean diagonal 0"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(StatesError, match=message):
        call()


def test_a_kernel_of_its_own_numbers_needs_no_fit():
    assert gram([[1.0, 2.0]], [[3.0, 4.0]], Kernel("poly", gamma=0.5, degree=2, coef0=1.0)) == (0.5 * 11 + 1) ** 2
