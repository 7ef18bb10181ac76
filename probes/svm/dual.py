"""What the two dual solvers share: the batch of problems, its checks, the fit, its gap, its decisions.

Problem k of a batch is the soft-margin SVM dual (Cortes & Vapnik 1995) on one Gram matrix K, written in
signed multipliers a_t = y_t α_t:

    max_a  Σ_t y_t a_t - ½ aᵀ K a    with  Σ_t a_t = 0,  0 ≤ y_t a_t ≤ box_t

A row left out has box_t = 0: its multiplier cannot move, so no fold ever slices the Gram matrix. With the
residuals e = y - K a, optimality is max{e_t : a_t can grow} - min{e_t : a_t can shrink} ≤ 0; the left-hand
side is the KKT gap (the m(α) - M(α) of Fan, Chen & Lin 2005, and libsvm's stopping rule).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[Any]

#: A multiplier this near to a bound, as a share of its box, stands at the bound.
AT_BOUND = 1e-6


class ProblemError(ValueError):
    """A batch of problems cannot be solved: the message names the problem or row, the count and the remedy."""


@dataclass(frozen=True)
class Fit:
    """The solved batch of m problems on n rows.

    alpha: (m, n) signed multipliers y·α, exactly 0 on rows left out; decisions are K a + bias.
    bias: (m,).
    kkt_gap: (m,), in units of the decision; ≤ tolerance where the solver converged. 0 where it is negative.
    iterations: (m,) int, the solver's own steps.
    degenerate: (m,) bool, True where no multiplier lies strictly inside its box: the kernel decided nothing
        and the data leave the bias an interval.
    """

    alpha: Floats
    bias: Floats
    kkt_gap: Floats
    iterations: NDArray[np.int64]
    degenerate: NDArray[np.bool_]


def decisions(gram_rows: Floats, fit: Fit) -> Floats:
    """Decision values K a + b, (m, r), of r rows for every problem; gram_rows: (r, n), new rows × fitted rows."""
    gram_rows = np.asarray(gram_rows)
    if gram_rows.ndim != 2 or gram_rows.shape[1] != fit.alpha.shape[1]:
        raise ProblemError(
            f"gram_rows is {gram_rows.shape}; expected (rows, {fit.alpha.shape[1]}): one column for each fitted row."
        )
    return fit.alpha.astype(gram_rows.dtype, copy=False) @ gram_rows.T + fit.bias[:, None]


def check_batch(gram: Floats, labels: Floats, boxes: Floats) -> tuple[Floats, Floats, Floats]:
    """Return (gram, labels, boxes) as contiguous arrays of the Gram's precision, or raise ProblemError."""
    gram = np.ascontiguousarray(gram, dtype=np.float32 if np.asarray(gram).dtype == np.float32 else np.float64)
    if gram.ndim != 2 or gram.shape[0] != gram.shape[1]:
        raise ProblemError(f"gram is {gram.shape}; expected (n, n).")
    n = gram.shape[0]
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(gram @ np.zeros(n, gram.dtype))  # one pass over the matrix; inf · 0 is NaN
    if not finite.all():
        rows = np.flatnonzero(~finite)
        raise ProblemError(
            f"gram has NaN or infinity in {len(rows)} of {n} rows, first row {rows[0]}; "
            "drop those rows or fix the states."
        )
    labels = np.atleast_2d(np.asarray(labels))
    if labels.shape[1:] != (n,):
        raise ProblemError(f"labels is {labels.shape}; expected (problems, {n}): one label vector a row.")
    if not (np.abs(labels) == 1).all():
        raise ProblemError(f"labels hold {np.unique(labels)[:5]}; expected -1 and +1 alone.")
    labels = np.ascontiguousarray(labels, dtype=gram.dtype)
    boxes = np.array(np.broadcast_to(np.asarray(boxes, dtype=gram.dtype), labels.shape), order="C")
    if not (np.isfinite(boxes).all() and (boxes >= 0).all()):
        raise ProblemError("boxes hold negative or non-finite values; expected C × weight, 0 for a row left out.")
    positive = ((labels > 0) & (boxes > 0)).sum(1)
    rows_in = (boxes > 0).sum(1)
    for k in np.flatnonzero((positive == 0) | (positive == rows_in)):
        raise ProblemError(
            f"problem {k} has {positive[k]} rows of class +1 and {rows_in[k] - positive[k]} of class -1; "
            "an SVM needs both: merge folds or drop the label."
        )
    return gram, labels, boxes
