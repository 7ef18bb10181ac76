"""Sequential minimal optimisation for many SVMs on one Gram matrix, compiled, parallel over problems.

Platt's SMO (1999) with the second-order working set of Fan, Chen & Lin (2005), as in libsvm. What differs is
the layout: the Gram matrix is read in place, in float32 where it is given so, one contiguous row at a time,
and each of the two passes of a step is straight-line arithmetic over a row that the compiler turns into SIMD.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import njit
from numba.extending import intrinsic
from numpy.typing import ArrayLike

from probes.dual import Fit, Floats, ProblemError, check_batch, decisions, summarise, usable_start

__all__ = ["Fit", "ProblemError", "decisions", "solve_batch"]

_BLOCK = 256  # rows whose largest value is found by SIMD; only the winning block is searched
_FAR = 1e30  # stands for infinity, which fast-math arithmetic may not meet
_TINY = 1e-12  # libsvm's TAU: the curvature of a pair of identical rows
_STEPS_PER_ROW = 2000  # with libsvm's floor of 10⁷ steps no limit that a solvable problem meets


def solve_batch(
    gram: ArrayLike,
    labels: ArrayLike,
    boxes: ArrayLike,
    *,
    tolerance: float = 1e-3,
    warm_start: ArrayLike | None = None,
    threads: int | None = None,
) -> Fit:
    """Solve m soft-margin SVM duals (see `probes.dual`) on one Gram matrix by SMO.

    gram: (n, n) symmetric; read as it is when float32 or float64, and solved in that precision.
    labels: (m, n) of -1 and +1; on rows left out, either.
    boxes: (m, n) upper bounds C × weight, 0 for a row left out; anything that broadcasts to it.
    tolerance: the KKT gap to stop at, in units of the decision (libsvm's `tol`).
    warm_start: (m, n) signed multipliers to start from, as `Fit.alpha` has them; clipped to the boxes and
        balanced to sum to 0.
    threads: problems solved at once; the machine's cores by default.
    Raises ProblemError.
    """
    gram, labels, boxes = check_batch(gram, labels, boxes)
    alpha, residuals = usable_start(gram, labels, boxes, warm_start)
    diagonal = gram.diagonal().copy()
    limit = max(10_000_000, _STEPS_PER_ROW * len(gram))

    def solve(k: int) -> int:
        return _smo(gram, diagonal, labels[k], boxes[k], alpha[k], residuals[k], tolerance, limit)

    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        iterations = np.fromiter(pool.map(solve, range(len(labels))), dtype=np.int64)
    return summarise(alpha, labels - alpha @ gram, labels, boxes, iterations)


@intrinsic  # type: ignore[misc]
def _larger(context: Any, a: Any, b: Any) -> Any:
    """max(a, b) with fast-math flags on the select itself: only so does LLVM vectorise a running maximum."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *arguments, flags=("fast",)), *arguments, flags=("fast",))

    return a(a, a), generate


@intrinsic  # type: ignore[misc]
def _smaller(context: Any, a: Any, b: Any) -> Any:
    """min(a, b), likewise."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *arguments, flags=("fast",)), *arguments, flags=("fast",))

    return a(a, a), generate


@njit(fastmath=True, inline="never", cache=True)
def _shift(residual, bar, row_i, row_j, step, tops):  # type: ignore[no-untyped-def]
    """residual -= step (row_i - row_j); tops[b] = the largest residual + bar of block b."""
    for b in range(tops.size):
        first = b * _BLOCK
        e, p = residual[first : first + _BLOCK], bar[first : first + _BLOCK]
        ki, kj = row_i[first : first + _BLOCK], row_j[first : first + _BLOCK]
        top = residual.dtype.type(-_FAR)
        for t in range(e.size):
            e[t] -= step * (ki[t] - kj[t])
            top = _larger(top, e[t] + p[t])
        tops[b] = top


@njit(fastmath=True, inline="never", cache=True)
def _gains(residual, bar, row_i, diagonal, e_i, k_ii, tiny, scores, gains):  # type: ignore[no-untyped-def]
    """scores[t] = row t's gain (e_i - e_t)² / (K_ii + K_tt - 2 K_it), gains[b] = block b's largest.

    Returns the least residual + bar.
    """
    zero, far = e_i - e_i, residual.dtype.type(_FAR)
    bottom = far
    for b in range(gains.size):
        first = b * _BLOCK
        e, p = residual[first : first + _BLOCK], bar[first : first + _BLOCK]
        ki, kt = row_i[first : first + _BLOCK], diagonal[first : first + _BLOCK]
        score = scores[first : first + _BLOCK]
        best, least = zero, far
        for t in range(e.size):
            value = e[t] + p[t]
            least = _smaller(least, value)
            gap = _larger(e_i - value, zero)
            score[t] = gap * gap / _larger(k_ii + kt[t] - ki[t] - ki[t], tiny)
            best = _larger(best, score[t])
        gains[b] = best
        bottom = _smaller(bottom, least)
    return bottom


@njit(inline="never", cache=True)
def _first_at_least(values, bar, target, tops):  # type: ignore[no-untyped-def]
    """The first row of the first block whose largest value + bar is `target`."""
    block = 0
    while tops[block] < target:
        block += 1
    t = block * _BLOCK
    stop = min(t + _BLOCK, values.size) - 1
    while t < stop and values[t] + bar[t] < target:
        t += 1
    return t


@njit(nogil=True, cache=True)
def _smo(gram, diagonal, label, box, alpha, residual, tolerance, limit):  # type: ignore[no-untyped-def]
    """Solve one problem in place from a feasible `alpha` with residual = label - gram @ alpha; returns the steps."""
    n, real = residual.size, residual.dtype.type
    zero, far, tiny = real(0), real(_FAR), real(_TINY)
    low, high = np.minimum(label * box, zero), np.maximum(label * box, zero)
    grow_bar, shrink_bar = np.zeros_like(residual), np.zeros_like(residual)
    for t in range(n):
        grow_bar[t] = zero if alpha[t] < high[t] else -far
        shrink_bar[t] = zero if alpha[t] > low[t] else far
    scores, nothing = np.zeros_like(residual), np.zeros_like(residual)
    tops = np.empty((n + _BLOCK - 1) // _BLOCK, residual.dtype)
    gains = np.empty_like(tops)
    _shift(residual, grow_bar, residual, residual, zero, tops)
    for iteration in range(limit):
        top = tops.max()
        i = _first_at_least(residual, grow_bar, top, tops)
        bottom = _gains(residual, shrink_bar, gram[i], diagonal, top, diagonal[i], tiny, scores, gains)
        if top - bottom <= tolerance:
            return iteration
        j = _first_at_least(scores, nothing, gains.max(), gains)
        curvature = max(diagonal[i] + diagonal[j] - real(2) * gram[i, j], tiny)
        step = min((residual[i] - residual[j]) / curvature, high[i] - alpha[i], alpha[j] - low[j])
        before_i, before_j = alpha[i], alpha[j]
        alpha[i] = min(before_i + step, high[i])
        alpha[j] = max(before_j - step, low[j])
        if alpha[i] == before_i and alpha[j] == before_j:
            return iteration  # the step is below the precision of the multipliers
        grow_bar[i] = zero if alpha[i] < high[i] else -far
        shrink_bar[i] = zero if alpha[i] > low[i] else far
        grow_bar[j] = zero if alpha[j] < high[j] else -far
        shrink_bar[j] = zero if alpha[j] > low[j] else far
        _shift(residual, grow_bar, gram[i], gram[j], step, tops)
    return limit
