"""The estimators against scikit-learn's contract, SVC and Ridge."""

import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse
from sklearn.datasets import make_classification
from sklearn.linear_model import Ridge
from sklearn.model_selection import cross_val_score
from sklearn.svm import SVC
from sklearn.utils.estimator_checks import parametrize_with_checks

from probes import KernelLeastSquares, KernelSVC

#: As of scikit-learn's own SVC: a row of weight 2 is one box twice as high, two rows are two; equal to within tol.
WEIGHTS = {"check_sample_weight_equivalence_on_dense_data": "a weight scales the box, to within tol"}


@parametrize_with_checks(
    [KernelSVC(), KernelSVC(kernel="precomputed"), KernelSVC(probability=True), KernelLeastSquares()],
    expected_failed_checks=lambda estimator: WEIGHTS if isinstance(estimator, KernelSVC) else {},
)
def test_scikit_learns_contract(estimator, check):
    check(estimator)


def classes(count=3, n=150):
    return make_classification(n, 12, n_informative=6, n_classes=count, weights=None, class_sep=0.8, random_state=0)


@pytest.mark.parametrize("kernel", ["linear", "rbf", "poly"])
@pytest.mark.parametrize("class_weight", [None, "balanced", {0: 3.0, 1: 1.0}])
def test_two_classes_decide_as_svc_does(kernel, class_weight):
    x, y = classes(2)
    settings = {"kernel": kernel, "C": 2.0, "class_weight": class_weight, "coef0": 1.0, "tol": 1e-7}
    ours, theirs = KernelSVC(**settings).fit(x, y), SVC(**settings).fit(x, y)
    np.testing.assert_allclose(ours.decision_function(x), theirs.decision_function(x), atol=1e-3)
    np.testing.assert_array_equal(ours.support_, np.sort(theirs.support_))


def test_several_classes_decide_pair_by_pair_as_svc_does():
    x, y = classes(4)
    ours = KernelSVC(tol=1e-7).fit(x, y)
    theirs = SVC(tol=1e-7, decision_function_shape="ovo").fit(x, y)
    np.testing.assert_allclose(-ours.pair_decisions(x), theirs.decision_function(x), atol=1e-4)
    np.testing.assert_array_equal(ours.predict(x), theirs.predict(x))
    assert ours.kkt_gap_.shape == ours.degenerate_.shape == (6,)
    assert ours.kkt_gap_.max() <= 1e-7


def test_a_precomputed_kernel_is_sliced_by_cross_validation():
    x, y = classes(2)
    gram = np.ascontiguousarray(x @ x.T)
    direct = cross_val_score(KernelSVC(kernel="linear", tol=1e-6), x, y, cv=4)
    np.testing.assert_array_equal(cross_val_score(KernelSVC(kernel="precomputed", tol=1e-6), gram, y, cv=4), direct)


def test_normalising_is_a_change_of_cost():
    x, y = classes(2)
    plain = KernelSVC(kernel="linear", C=1.0, tol=1e-7).fit(x, y)
    scaled = KernelSVC(kernel="linear", C=(x**2).sum(1).mean(), normalise=True, tol=1e-7).fit(x, y)
    np.testing.assert_allclose(plain.decision_function(x), scaled.decision_function(x), atol=1e-4)


def test_a_degenerate_fit_is_flagged():
    x, y = np.repeat(classes(2)[0][:40], 1, axis=0), np.tile([0, 1], 20)
    assert KernelSVC(C=1e-5).fit(x, y).degenerate_.all()
    assert not KernelSVC(C=10.0).fit(x, y).degenerate_.any()


def test_least_squares_predicts_as_ridge_does():
    x, _ = classes()
    y = x[:, 0] ** 2 + 3
    ours, theirs = KernelLeastSquares(ridge=0.5).fit(x, y), Ridge(alpha=0.5).fit(x, y)
    np.testing.assert_allclose(ours.predict(x + 1), theirs.predict(x + 1), atol=1e-9)


@pytest.mark.parametrize(
    ("estimator", "x", "y", "message"),
    [
        (KernelSVC(), np.eye(4), [1, 1, 1, 1], "y holds 1 class.*an SVM needs two"),
        (KernelSVC(), [[np.nan, 1.0], [0.0, 1.0]], [0, 1], "NaN"),
        (KernelSVC(C=0.0), np.eye(2), [0, 1], "C is 0.0; expected a positive number"),
        (KernelSVC(kernel="precomputed"), np.ones((3, 2)), [0, 1, 1], r"Gram matrix is \(3, 2\); expected \(n, n\)"),
        (KernelSVC(tol=-1.0), np.eye(2), [0, 1], "tol is -1.0; expected a positive number"),
        (KernelSVC(threads=-1), np.eye(2), [0, 1], "threads is -1; expected 1 or more"),
        (KernelSVC(kernel="poly", degree=2.5), np.eye(2), [0, 1], "degree is 2.5; expected a whole number"),
        (KernelSVC(kernel="poly", degree=-1), np.eye(2), [0, 1], "degree is -1; expected a whole number"),
        (KernelSVC(gamma=np.inf), np.eye(2), [0, 1], "gamma is inf"),
        (KernelSVC(kernel="precomputed"), [[1.0, 0.5], [0.0, 1.0]], [0, 1], "not symmetric"),
        (KernelSVC(), sparse.eye_array(2), [0, 1], "[Ss]parse"),
        (KernelSVC(), np.eye(2), [0.0, 0.0], "1 class, 0.0, in 2 rows"),
        (KernelLeastSquares(ridge=-1), np.eye(2), [0.0, 1.0], "ridge is -1; expected a positive number"),
    ],
)
def test_bad_input_is_named(estimator, x, y, message):
    with pytest.raises((ValueError, TypeError), match=message):
        estimator.fit(x, y)


def test_states_of_another_width_are_refused():
    x, y = classes(2)
    with pytest.raises(ValueError, match="11 features, but KernelSVC is expecting 12"):
        KernelSVC().fit(x, y).predict(x[:, :11])


def test_importing_the_package_imports_nothing_heavy():
    code = "import probes, sys; print([m for m in ('numba', 'torch', 'sklearn', 'scipy') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_sample_weights_are_svcs(kernel):
    x, y = classes(3)
    weights = np.random.default_rng(0).integers(0, 4, len(y)).astype(float)
    settings = {"kernel": kernel, "C": 0.7, "tol": 1e-7}
    ours = KernelSVC(**settings).fit(x, y, sample_weight=weights)
    theirs = SVC(**settings, decision_function_shape="ovo").fit(x, y, sample_weight=weights)
    np.testing.assert_allclose(-ours.pair_decisions(x), theirs.decision_function(x), atol=1e-4)
    np.testing.assert_array_equal(ours.n_support_, theirs.n_support_)


def test_the_weights_of_a_linear_kernel_are_svcs_and_others_have_none():
    x, y = classes(2)
    ours, theirs = (s(kernel="linear", C=0.5, tol=1e-7).fit(x, y) for s in (KernelSVC, SVC))
    np.testing.assert_allclose(ours.coef_, theirs.coef_, atol=1e-4)
    np.testing.assert_array_equal(ours.support_vectors_, x[ours.support_])
    assert not hasattr(KernelSVC().fit(x, y), "coef_")


@pytest.mark.parametrize("count", [2, 3])
def test_probabilities_are_calibrated_on_rows_that_the_fit_did_not_see(count):
    x, y = classes(count, 1200)
    svc = KernelSVC(probability=True).fit(x[:600], y[:600])
    found = svc.predict_proba(x[600:])
    np.testing.assert_allclose(found.sum(1), 1)
    own = -np.log(found[np.arange(600), y[600:]]).mean()
    assert own < 0.75 * np.log(count)
    sure = found.max(1) > 0.9  # of rows called with 90 % and more, about so many are right
    assert (found.argmax(1) == y[600:])[sure].mean() > 0.88
    assert not hasattr(KernelSVC(), "predict_proba")


def test_unscaled_states_are_solved_as_libsvm_solves_them():
    x, y = classes(2)
    x = x * np.logspace(0, 2, x.shape[1])
    ours, theirs = KernelSVC(kernel="linear").fit(x, y), SVC(kernel="linear", max_iter=1_000_000).fit(x, y)
    assert ours.score(x, y) == pytest.approx(theirs.score(x, y), abs=0.01)


def test_an_offset_costs_a_float32_rbf_kernel_no_accuracy():
    x, y = classes(2)
    moved = (x + 3000).astype(np.float32)
    exact = KernelSVC(gamma=0.05).fit(x, y)
    np.testing.assert_allclose(
        KernelSVC(gamma=0.05).fit(moved, y).decision_function(moved), exact.decision_function(x), atol=0.05
    )


def test_a_bfloat16_tensor_is_read():
    torch = pytest.importorskip("torch")
    x, y = classes(2)
    rounded = torch.tensor(x).bfloat16()
    found = KernelSVC().fit(rounded, torch.tensor(y)).predict(rounded)
    exact = KernelSVC().fit(rounded.double().numpy(), y).predict(rounded.double().numpy())
    assert (np.asarray(found) == exact).mean() > 0.99
