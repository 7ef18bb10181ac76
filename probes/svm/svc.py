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
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import _ovr_decision_function, check_classification_targets
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from probes.svm import hinge, least_squares
from probes.svm.dual import Floats, ProblemError, decisions
from probes.svm.kernels import Kernel, fit_kernel, gram
from probes.svm.probabilities import couple, fit_sigmoid

_Gamma = float | Literal["scale", "auto"]


#: Folds whose held-out decisions the probabilities are calibrated on, as in libsvm.
_FOLDS = 5


def as_array(states: Any) -> Any:
    """States as they are, but a torch tensor of any type as a NumPy array (numpy has no bfloat16)."""
    if hasattr(states, "detach"):
        states = states.detach().cpu()
        return (states.float() if states.dtype.itemsize < 4 else states).numpy()
    return states


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
            apart = float(np.abs(states - states.T).max())
            if apart > 1e-4 * max(float(np.abs(states).max()), 1e-300):
                raise ProblemError(
                    f"the precomputed Gram matrix is not symmetric (entries differ by up to {apart:.3g}); a kernel is."
                )
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
        checked: Floats = validate_data(self, as_array(states), dtype=[np.float64, np.float32], reset=False)
        if self.rows_ is None:
            return checked * checked.dtype.type(self.kernel_.scale)
        return gram(checked, self.rows_, self.kernel_)


class KernelSVC(ClassifierMixin, _OnGram):
    """Soft-margin kernel SVM; several classes one against one, all pairs as one batch on one Gram matrix.

    Solved by sequential minimal optimisation [1]_ on all pairs at once; float32 states are solved in float32.

    Parameters
    ----------
    C : float, default 1.0
        Upper bound of each multiplier, times its class's weight; > 0.
    kernel : {"linear", "poly", "rbf", "laplacian", "precomputed"}, default "rbf"
        "precomputed": X is a Gram matrix (n, n), and (m, n) in `predict`.
    gamma : {"scale", "auto"} or float, default "scale"
        Of the rbf, laplacian and poly kernels, as in `sklearn.svm.SVC`; > 0.
    degree : int, default 3
        Of the poly kernel; ≥ 0.
    coef0 : float, default 0.0
        Of the poly kernel.
    class_weight : dict, "balanced" or None
        Factor of C for each class; "balanced": n / (classes × rows of the class).
    normalise : bool, default False
        Divide the kernel by its mean diagonal on the training rows, so that C compares across layers.
    tol : float, default 1e-3
        KKT gap to stop at; > 0. What the batch solver leaves open goes to libsvm.
    threads : int or None
        Problems solved at once; None: all cores.
    device : str or None
        torch's name of an accelerator, such as "cuda", for the fits; None: the CPU.
    probability : bool, default False
        Also calibrate `predict_proba` on held-out decisions of five folds: Platt's sigmoid [2]_, coupled by pairs [3]_.

    Attributes
    ----------
    classes_ : ndarray (classes,)
    support_ : ndarray (support,)
        Training rows with a multiplier in any pair.
    support_vectors_ : ndarray (support, d)
        Those rows; absent where precomputed.
    n_support_ : ndarray (classes,)
    dual_coef_ : ndarray (pairs, support)
        Signed multipliers. Pairs run (0, 1), (0, 2), …; a positive decision speaks for the second class of the pair.
    coef_ : ndarray (pairs, d)
        Of the linear kernel alone.
    intercept_, kkt_gap_, n_iter_ : ndarray (pairs,)
    degenerate_ : ndarray (pairs,) of bool
        Fits with no free multiplier, whose intercept is not unique.

    Raises
    ------
    ValueError
        Where a parameter is out of range, X or y holds NaN, or y has one class (`fit`).

    Warns
    -----
    ConvergenceWarning
        Where a fit ends above `tol`.

    References
    ----------
    .. [1] Fan, Chen & Lin (2005). Working set selection using second order information for training SVMs. JMLR 6.
    .. [2] Platt (1999). Probabilistic outputs for support vector machines. Advances in Large Margin Classifiers.
    .. [3] Wu, Lin & Weng (2004). Probability estimates for multi-class classification by pairwise coupling. JMLR 5.

    Examples
    --------
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
        device: str | None = None,
        probability: bool = False,
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
        self.device = device
        self.probability = probability

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Fit on states (n, d), or on a Gram matrix (n, n) where precomputed, and n labels. Raises ValueError.

        sample_weight: (n,) factors of each row's C; a row of weight 0 is left out.
        """
        X, y = validate_data(self, as_array(X), as_array(y), dtype=[np.float64, np.float32])
        check_classification_targets(y)
        self._check_parameters()
        self.classes_, index = np.unique(y, return_inverse=True)
        self._index = index
        if len(self.classes_) < 2:
            raise ProblemError(
                f"y holds 1 class, {self.classes_.tolist()[0]!r}, in {len(y)} rows; an SVM needs two or more."
            )
        rows = _check_sample_weight(sample_weight, X, ensure_non_negative=True)
        present = np.unique(index[rows > 0])
        if len(present) < len(self.classes_):
            raise ProblemError(
                f"{len(self.classes_) - len(present)} of {len(self.classes_)} classes have no row of positive "
                "sample_weight; leave the class out, or weight one of its rows."
            )
        weight = rows * self.C * compute_class_weight(self.class_weight, classes=self.classes_, y=y)[index]
        pairs = np.array(list(combinations(range(len(self.classes_)), 2)))
        labels = np.where(index == pairs[:, 1:], 1, -1)
        boxes = np.where((index == pairs[:, 1:]) | (index == pairs[:, :1]), weight, 0)
        kernel = self._fit_gram(X)
        fit = hinge.solve_to_the_end(
            kernel, labels, boxes, tolerance=self.tol, threads=self.threads, device=self.device
        )
        if (fit.kkt_gap > self.tol).any():
            warnings.warn(
                f"{(fit.kkt_gap > self.tol).sum()} of {len(pairs)} fits stopped at a KKT gap of up to "
                f"{fit.kkt_gap.max():.2g}, above tol={self.tol:g}; scale the states, or pass a larger tol.",
                ConvergenceWarning,
                stacklevel=2,
            )
        self.support_ = np.flatnonzero((fit.alpha != 0).any(0))
        self.dual_coef_ = fit.alpha[:, self.support_]
        self.intercept_, self.kkt_gap_, self.degenerate_ = fit.bias, fit.kkt_gap, fit.degenerate
        self.n_iter_ = np.maximum(fit.iterations, 1)
        self._fit = fit
        if self.rows_ is not None:
            self.support_vectors_ = self.rows_[self.support_]
        if self.probability:
            self._sigmoids = self._calibrate(kernel, labels, boxes)
        return self

    def _check_parameters(self) -> None:
        for name, value in (("C", self.C), ("tol", self.tol)):
            if not (value > 0 and np.isfinite(value)):
                raise ProblemError(f"{name} is {value!r}; expected a positive number.")
        if self.threads is not None and self.threads < 1:
            raise ProblemError(f"threads is {self.threads!r}; expected 1 or more, or None for all cores.")

    def _calibrate(self, kernel: Floats, labels: Floats, boxes: Floats) -> list[tuple[float, float]]:
        """Each pair's sigmoid on held-out decisions: five folds, the classes of a pair dealt evenly."""
        random, sigmoids = np.random.default_rng(0), []
        for label, box in zip(labels, boxes):
            fold = np.full(len(label), -1)
            for side in (-1, 1):
                rows = random.permutation(np.flatnonzero((label == side) & (box > 0)))
                fold[rows] = np.arange(len(rows)) % _FOLDS
            parts = np.stack([np.where(fold == k, 0, box) for k in range(_FOLDS)])
            able = [k for k in range(_FOLDS) if len(np.unique(label[parts[k] > 0])) == 2 and (fold == k).any()]
            held_out = np.zeros(len(label))
            fit = hinge.solve_batch(
                kernel, np.tile(label, (len(able), 1)), parts[able], tolerance=self.tol, threads=self.threads
            )
            for k, values in zip(able, decisions(kernel, fit)):
                held_out[fold == k] = values[fold == k]
            used = np.isin(fold, able)
            sigmoids.append(fit_sigmoid(held_out, label > 0, np.where(used, 1.0, 0.0)))
        return sigmoids

    @property
    def coef_(self) -> Floats:
        """Weights (pairs, d) of the linear kernel. Raises AttributeError for others."""
        if self.kernel != "linear":
            raise AttributeError(f"coef_ is of the linear kernel alone; the kernel is {self.kernel}.")
        return self.dual_coef_ @ self.support_vectors_ * self.kernel_.scale

    @property
    def n_support_(self) -> NDArray[np.int64]:
        """Support vectors of each class, (classes,)."""
        return np.asarray([int((self._classes_of_support() == k).sum()) for k in range(len(self.classes_))])

    def _classes_of_support(self) -> NDArray[np.int64]:
        return self._index[self.support_]

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
        """The class of each row, (n,): most votes of the pairs, the first class where they tie, as libsvm does."""
        second = self.pair_decisions(X) >= 0  # libsvm gives a decision of exactly 0 to the second class
        votes = np.zeros((len(second), len(self.classes_)), np.int64)
        for k, (i, j) in enumerate(combinations(range(len(self.classes_)), 2)):
            votes[np.arange(len(second)), np.where(second[:, k], j, i)] += 1
        return self.classes_[votes.argmax(1)]

    @available_if(lambda self: self.probability)
    def predict_proba(self, X: Any) -> Floats:
        """Class probabilities (n, classes), calibrated on held-out decisions; needs probability=True at `fit`."""
        pairs = self.pair_decisions(X)
        logits = np.column_stack([a * d + b for (a, b), d in zip(self._sigmoids, pairs.T)])
        return couple(1 / (1 + np.exp(-np.clip(logits, -30, 30))), len(self.classes_))


class KernelLeastSquares(RegressorMixin, _OnGram):
    """Kernel ridge regression with a free intercept, solved exactly: the probe of real-valued labels.

    Minimises ½ λ‖w‖² + ½ Σ e², the least-squares SVM [1]_.

    Parameters
    ----------
    ridge : float, default 1.0
        λ > 0, in units of the kernel, whose mean diagonal is 1 where `normalise`.
    kernel, gamma, degree, coef0, normalise
        As in `KernelSVC`; the default kernel is linear.

    Attributes
    ----------
    dual_coef_ : ndarray (n,)
        Weights of the training rows; they sum to 0.
    intercept_ : float

    Raises
    ------
    ValueError
        Where a parameter is out of range, or X or y holds NaN (`fit`).

    References
    ----------
    .. [1] Suykens & Vandewalle (1999). Least squares support vector machine classifiers. Neural Processing Letters 9.

    Examples
    --------
    >>> from probes import KernelLeastSquares
    >>> fit = KernelLeastSquares(ridge=1e-9).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 5.0])
    >>> fit.predict([[3.0]]).round(3).tolist()
    [7.0]
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
        X, y = validate_data(self, as_array(X), as_array(y), dtype=[np.float64, np.float32], y_numeric=True)
        if not self.ridge > 0:
            raise ProblemError(f"ridge is {self.ridge!r}; expected a positive number.")
        weights, intercepts = least_squares.fit(self._fit_gram(X), y, self.ridge)
        self.dual_coef_, self.intercept_ = weights[0], float(intercepts[0])
        return self

    def predict(self, X: Any) -> Floats:
        """Predicted targets, (n,)."""
        return self._gram_rows(X) @ self.dual_coef_ + self.intercept_
