"""Hinge fits by whichever solver is cheaper for the problem: SMO, or ADMM on a GPU and for large C on few rows."""

from __future__ import annotations

import warnings
from dataclasses import fields
from typing import Any

import numpy as np

from probes.svm import smo
from probes.svm.dual import AT_BOUND, Fit, Floats, check_batch, decisions

__all__ = ["Fit", "decisions", "solve_batch", "solve_to_the_end"]

#: ADMM on a CPU: measured 1.6 × SMO's speed at C = 10, linear kernel; SMO led at C ≤ 3 and from 2000 rows on.
_ADMM_ROWS = 1000
_ADMM_BOX = 5.0  # × mean diagonal
_ADMM_PROBLEMS = 50  # that share one factorisation

#: Steps of libsvm on one problem: states that span decades may never close the gap, and a fit must end.
LIBSVM_STEPS = 1_000_000


def solve_batch(
    gram: Floats,
    labels: Floats,
    boxes: Floats,
    *,
    tolerance: float = 1e-3,
    warm_start: Floats | None = None,
    threads: int | None = None,
    device: str | None = None,
) -> Fit:
    """Solve m soft-margin SVM duals on one Gram matrix; arguments and result as of `probes.svm.smo.solve_batch`.

    device: torch's name of an accelerator ("cuda", "cuda:1") sends every problem to ADMM there; None or "cpu" stays on
        the CPU.
    """
    gram, labels, boxes = check_batch(gram, labels, boxes)
    by_admm = np.full(len(labels), device not in (None, "cpu"))
    if len(gram) <= _ADMM_ROWS and warm_start is None:
        wide = boxes.max(1) * gram.diagonal().mean() >= _ADMM_BOX
        by_admm |= wide & (wide.sum() >= _ADMM_PROBLEMS)
    parts = []
    for solver, chosen in (("smo", np.flatnonzero(~by_admm)), ("admm", np.flatnonzero(by_admm))):
        if not len(chosen):
            continue
        start = None if warm_start is None else np.asarray(warm_start)[chosen]
        problem = (gram, labels[chosen], boxes[chosen])
        if solver == "smo":
            fit = smo.solve_batch(*problem, tolerance=tolerance, warm_start=start, threads=threads)
        else:
            from probes.svm import admm  # torch, only where it is used

            fit = admm.solve_batch(
                *problem, tolerance=tolerance, warm_start=start, threads=threads, device=device or "cpu"
            )
        parts.append((chosen, fit))
    order = np.argsort(np.concatenate([chosen for chosen, _ in parts]))
    joined = {f.name: np.concatenate([getattr(fit, f.name) for _, fit in parts])[order] for f in fields(Fit)}
    return Fit(**joined)


def solve_to_the_end(
    gram: Floats,
    labels: Floats,
    boxes: Floats,
    *,
    tolerance: float = 1e-3,
    threads: int | None = None,
    device: str | None = None,
) -> Fit:
    """`solve_batch`, and libsvm for the problems that it gave up on: unscaled states can keep its gap open."""
    fit = solve_batch(gram, labels, boxes, tolerance=tolerance, threads=threads, device=device)
    boxes = np.broadcast_to(boxes, np.shape(labels))
    parts = {f.name: getattr(fit, f.name).copy() for f in fields(Fit)}
    for k in np.flatnonzero(fit.kkt_gap > tolerance):
        for name, value in _by_libsvm(gram, np.asarray(labels)[k], boxes[k], tolerance).items():
            parts[name][k] = value
    return Fit(**parts)


def _by_libsvm(gram: Floats, label: Floats, box: Floats, tolerance: float) -> dict[str, Any]:
    """One problem solved by scikit-learn's libsvm on the same Gram matrix, as the fields of a Fit."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.svm import SVC

    rows = np.flatnonzero(box > 0)
    kernel = np.ascontiguousarray(gram[np.ix_(rows, rows)], dtype=np.float64)
    svc = SVC(C=1.0, kernel="precomputed", tol=tolerance, max_iter=LIBSVM_STEPS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the gap below says how far it came
        svc.fit(kernel, label[rows], sample_weight=box[rows])
    alpha = np.zeros(len(box))
    alpha[rows[svc.support_]] = svc.dual_coef_[0]
    residual = label[rows] - alpha[rows] @ kernel
    signed = alpha[rows] * label[rows]
    grows = np.where(label[rows] > 0, signed < box[rows] * (1 - AT_BOUND), signed > box[rows] * AT_BOUND)
    falls = np.where(label[rows] > 0, signed > box[rows] * AT_BOUND, signed < box[rows] * (1 - AT_BOUND))
    gap = max(float(residual[grows].max() - residual[falls].min()), 0.0)
    return {
        "alpha": alpha,
        "bias": float(svc.intercept_[0]),
        "kkt_gap": gap,
        "iterations": int(np.max(svc.n_iter_)),
        "degenerate": not (grows & falls).any(),
    }
