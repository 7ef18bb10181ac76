"""Kernel SVM and kernel least squares as scikit-learn estimators, on the solvers of this package."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from itertools import combinations
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import Tags
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import _ovr_decision_function, check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probes.svm import least_squares, smo
from probes.svm.dual import Floats, ProblemError, decisions
from probes.svm.kernels import Kernel, fit_kernel, gram

_Gamma = float | Literal["scale", "auto"]


class _OnGram(BaseEstimator):
    """What both estimators share: the fitted kernel, the training rows, the precomputed case."""

    kernel: str
    gamma: _Gamma
    degree: int
    coef0: float
    normalise: bool

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.pairwise = self.kernel == "precomputed"
        return tags

    def _fit_gram(self, states: Floats) -> Floats:
        """The training Gram matrix; stores `kernel_` and the rows that new ones are held against."""
        if self.kernel == "precomputed":
            if states.shape[0] != states.shape[1]:
                raise ProblemError(f"a precomputed Gram matrix is {states.shape}; expected (n, n).")
            mean = float(states.diagonal().mean()) if self.normalise else 1.0
            self.kernel_, self.rows_ = Kernel("linear", scale=1 / mean), None
            return states * states.dtype.type(self.kernel_.scale)
        self.kernel_ = fit_kernel(
            states,
            self.kernel,  # type: ignore[arg-type]
            gamma=self.gamma,
            degree=self.degree,
            coef0=self.coef0,
            normalise=self.normalise,
        )
        self.rows_ = states
        return gram(states, kernel=self.kernel_)

    def _gram_rows(self, states: Any) -> Floats:
        """Kernel values of new rows against the training rows."""
        check_is_fitted(self)
        checked: Floats = validate_data(self, states, dtype=[np.float64, np.float32], reset=False)
        if self.rows_ is None:
            return checked * checked.dtype.type(self.kernel_.scale)
        return gram(checked, self.rows_, self.kernel_)


class KernelSVC(ClassifierMixin, _OnGram):
    """Soft-margin kernel SVM; several classes one against one, all pairs as one batch on one Gram matrix.

    Parameters mean what they mean in `sklearn.svm.SVC`; float32 states are solved in float32.

    C: upper bound of each multiplier, times its class's weight.
    kernel: "linear", "poly", "rbf", "laplacian" or "precomputed" (then X is a Gram matrix).
    gamma, degree, coef0: of the kernel. class_weight: None, "balanced" or {class: weight}.
    normalise: divide the kernel by its mean diagonal on the training rows, so that C compares across layers.
    tol: KKT gap to stop at. threads: problems solved at once; all cores by default.

    Learned: classes_; support_ (rows with a multiplier in any pair); dual_coef_ (pairs, support) signed
    multipliers; intercept_, kkt_gap_, degenerate_, n_iter_ (pairs,); kernel_. Pairs run (0, 1), (0, 2), … and a
    positive decision speaks for the second class of the pair. degenerate_ marks fits with no free multiplier.

    >>> from probes import KernelSVC
    >>> svc = KernelSVC(kernel="linear", C=10.0).fit([[0.0], [1.0], [3.0], [4.0]], ["low", "low", "high", "high"])
    >>> svc.predict([[0.5], [3.5]]).tolist()
    ['low', 'high']
    """

    def __init__(
        self,
        *,
        C: float = 1.0,
        kernel: str = "rbf",
        gamma: _Gamma = "scale",
        degree: int = 3,
        coef0: float = 0.0,
        class_weight: Mapping[Any, float] | Literal["balanced"] | None = None,
        normalise: bool = False,
        tol: float = 1e-3,
        threads: int | None = None,
    ) -> None:
        self.C = C
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.class_weight = class_weight
        self.normalise = normalise
        self.tol = tol
        self.threads = threads

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on states (n, d), or on a Gram matrix (n, n) where precomputed, and n labels. Raises ValueError."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(y)
        if not self.C > 0:
            raise ProblemError(f"C is {self.C!r}; expected a positive number.")
        self.classes_, index = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ProblemError(f"y holds 1 class, {self.classes_[0]!r}, in {len(y)} rows; an SVM needs two or more.")
        weight = self.C * compute_class_weight(self.class_weight, classes=self.classes_, y=y)[index]
        pairs = np.array(list(combinations(range(len(self.classes_)), 2)))
        labels = np.where(index == pairs[:, 1:], 1, -1)
        boxes = np.where((index == pairs[:, 1:]) | (index == pairs[:, :1]), weight, 0)
        fit = smo.solve_batch(self._fit_gram(X), labels, boxes, tolerance=self.tol, threads=self.threads)
        if (fit.kkt_gap > self.tol).any():
            warnings.warn(
                f"{(fit.kkt_gap > self.tol).sum()} of {len(pairs)} fits stopped at a KKT gap of up to "
                f"{fit.kkt_gap.max():.2g}, above tol={self.tol:g}; pass float64 states or a larger tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.support_ = np.flatnonzero((fit.alpha != 0).any(0))
        self.dual_coef_ = fit.alpha[:, self.support_]
        self.intercept_, self.kkt_gap_, self.degenerate_ = fit.bias, fit.kkt_gap, fit.degenerate
        self.n_iter_ = np.maximum(fit.iterations, 1)
        self._fit = fit
        return self

    def pair_decisions(self, X: Any) -> Floats:
        """Decision values (n, pairs) of every pair of classes."""
        return decisions(self._gram_rows(X), self._fit).T

    def decision_function(self, X: Any) -> Floats:
        """Decision values: (n,) of two classes; of more, (n, classes), votes of the pairs, ties by confidence."""
        pairs = self.pair_decisions(X)
        if len(self.classes_) == 2:
            return pairs[:, 0]
        return _ovr_decision_function(pairs > 0, pairs, len(self.classes_))

    def predict(self, X: Any) -> NDArray[Any]:
        """The class of each row, (n,)."""
        values = self.decision_function(X)
        return self.classes_[(values > 0).astype(int) if values.ndim == 1 else values.argmax(1)]


class KernelLeastSquares(RegressorMixin, _OnGram):
    """Kernel ridge regression with a free intercept, solved exactly: the probe of real-valued labels.

    ridge: λ > 0 of ½‖w‖² λ + ½ Σ e²; in units of the kernel, whose mean diagonal is 1 where `normalise`.
    kernel, gamma, degree, coef0, normalise: as in `KernelSVC`.

    Learned: dual_coef_ (n,), which sums to 0; intercept_; kernel_.
    """

    def __init__(
        self,
        *,
        ridge: float = 1.0,
        kernel: str = "linear",
        gamma: _Gamma = "scale",
        degree: int = 3,
        coef0: float = 0.0,
        normalise: bool = False,
    ) -> None:
        self.ridge = ridge
        self.kernel = kernel
        self.gamma = gamma
        self.degree = degree
        self.coef0 = coef0
        self.normalise = normalise

    def fit(self, X: Any, y: Any) -> Self:
        """Fit on states (n, d), or on a Gram matrix (n, n) where precomputed, and n real targets. Raises ValueError."""
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32], y_numeric=True)
        if not self.ridge > 0:
            raise ProblemError(f"ridge is {self.ridge!r}; expected a positive number.")
        weights, intercepts = least_squares.fit(self._fit_gram(X), y, self.ridge)
        self.dual_coef_, self.intercept_ = weights[0], float(intercepts[0])
        return self

    def predict(self, X: Any) -> Floats:
        """Predicted targets, (n,)."""
        return self._gram_rows(X) @ self.dual_coef_ + self.intercept_
