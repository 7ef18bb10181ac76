"""The compiled steps of `probes.svm.smo`: pair steps on one problem, on a compacted problem, on a block of rows.

Every function takes one problem in signed multipliers (`probes.svm.dual`) and moves `alpha` and
`residual` = label - gram @ alpha in place. Types are the Gram matrix's, float32 or float64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numba.extending import intrinsic

from probes.svm.dual import AT_BOUND

_BLOCK = 512  # rows whose largest value SIMD finds; only the winning block is searched for its row
_FAR = 1e30  # stands for infinity, which fast-math arithmetic may not meet
_TINY = 1e-12  # libsvm's TAU: the curvature of a pair of identical rows
_PATIENCE = 100  # stretches of n / 4 pair steps without a smaller gap than before: SMO's gap falls, though not steadily
MOST_FREE = 600  # free rows up to which a problem is copied together: with a third more, 2.5 MB of float32


_FAST = {"nnan", "ninf", "nsz", "arcp", "contract"}


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


@njit(fastmath=_FAST, cache=True)
def _shift(residual, bar, gram, i, j, step, tops):  # type: ignore[no-untyped-def]
    """residual -= step (row_i - row_j); tops[b] = the largest residual + bar of block b."""
    n = np.uint64(residual.size)  # unsigned: a signed index costs a test for negative ones
    for b in range(np.uint64(tops.size)):
        first = np.uint64(b * np.uint64(_BLOCK))
        top = residual.dtype.type(-_FAR)
        for t in range(first, min(first + np.uint64(_BLOCK), n)):
            value = residual[t] - step * (gram[i, t] - gram[j, t])
            residual[t] = value
            top = _larger(top, value + bar[t])
        tops[b] = top


@njit(fastmath=_FAST, cache=True)
def _gains(residual, bar, gram, i, diagonal, e_i, scores, gains):  # type: ignore[no-untyped-def]
    """scores[t] = row t's gain (e_i - e_t)² / (K_ii + K_tt - 2 K_it), gains[b] = block b's largest.

    Returns the least residual + bar.
    """
    n = np.uint64(residual.size)
    zero, far, tiny = e_i - e_i, residual.dtype.type(_FAR), residual.dtype.type(_TINY)
    bottom, k_ii = far, diagonal[i]
    for b in range(np.uint64(gains.size)):
        first = np.uint64(b * np.uint64(_BLOCK))
        best, least = zero, far
        for t in range(first, min(first + np.uint64(_BLOCK), n)):
            value = residual[t] + bar[t]
            least = _smaller(least, value)
            gap = _larger(e_i - value, zero)
            score = gap * gap / _larger(k_ii + diagonal[t] - gram[i, t] - gram[i, t], tiny)
            scores[t] = score
            best = _larger(best, score)
        gains[b] = best
        bottom = _smaller(bottom, least)
    return bottom


@njit(fastmath=_FAST, cache=True)
def _most(values):  # type: ignore[no-untyped-def]
    best = values[0]
    for k in range(values.size):
        best = _larger(best, values[k])
    return best


@njit(fastmath=_FAST, cache=True)
def _first_at_least(values, bar, target, tops):  # type: ignore[no-untyped-def]
    """The first row with values + bar ≥ target, searched in the first block whose top reaches it."""
    block = 0
    while tops[block] < target:
        block += 1
    first = np.uint32(block * _BLOCK)
    none = np.uint32(values.size - 1)
    found = none
    for t in range(first, np.uint32(min(first + _BLOCK, values.size))):
        u = np.uint32(t)
        found = min(found, u if values[u] + bar[u] >= target else none)
    return np.uint64(found)


@njit(cache=True)
def _bar(t, alpha, low, high, grow_bar, shrink_bar):  # type: ignore[no-untyped-def]
    """Bar row t from growing at its upper bound, from shrinking at its lower one."""
    far = alpha.dtype.type(_FAR)
    grow_bar[t] = 0 if alpha[t] < high[t] else -far
    shrink_bar[t] = 0 if alpha[t] > low[t] else far


@njit(nogil=True, cache=True)
def pair_steps(gram, diagonal, label, box, alpha, residual, tolerance, limit):  # type: ignore[no-untyped-def]
    """Up to `limit` SMO steps from a feasible `alpha` until the KKT gap is ≤ tolerance; returns the steps taken.

    Row i has the largest residual that can grow; row j, by second-order gain, a smaller one that can shrink
    (WSS 2 of Fan, Chen & Lin 2005).
    """
    n, real = residual.size, residual.dtype.type
    zero, tiny = real(0), real(_TINY)
    low, high = np.minimum(label * box, zero), np.maximum(label * box, zero)
    grow_bar, shrink_bar = np.zeros_like(residual), np.zeros_like(residual)
    for t in range(n):
        _bar(t, alpha, low, high, grow_bar, shrink_bar)
    scores, no_bar = np.zeros_like(residual), np.zeros_like(residual)
    tops = np.empty((n + _BLOCK - 1) // _BLOCK, residual.dtype)
    gains = np.empty_like(tops)
    _shift(residual, grow_bar, gram, np.uint64(0), np.uint64(0), zero, tops)
    for taken in range(limit):
        top = _most(tops)
        i = _first_at_least(residual, grow_bar, top, tops)
        bottom = _gains(residual, shrink_bar, gram, i, diagonal, top, scores, gains)
        if top - bottom <= tolerance:
            return taken
        j = _first_at_least(scores, no_bar, _most(gains), gains)
        curvature = max(diagonal[i] + diagonal[j] - real(2) * gram[i, j], tiny)
        step = min((residual[i] - residual[j]) / curvature, high[i] - alpha[i], alpha[j] - low[j])
        before_i, before_j = alpha[i], alpha[j]
        alpha[i] = min(before_i + step, high[i])
        alpha[j] = max(before_j - step, low[j])
        if alpha[i] == before_i and alpha[j] == before_j:
            return taken  # the step is below the precision of the multipliers
        _bar(i, alpha, low, high, grow_bar, shrink_bar)
        _bar(j, alpha, low, high, grow_bar, shrink_bar)
        _shift(residual, grow_bar, gram, i, j, step, tops)
    return limit


@njit(cache=True)
def ends(label, box, alpha, residual):  # type: ignore[no-untyped-def]
    """The largest residual that can grow, the least that can shrink, the sum of the free ones and their count."""
    far = residual.dtype.type(_FAR)
    top, bottom, inside, free = -far, far, 0.0, 0
    for t in range(residual.size):
        if box[t] > 0:
            unsigned = alpha[t] * label[t]
            above, below = unsigned > AT_BOUND * box[t], unsigned < (1 - AT_BOUND) * box[t]
            if below if label[t] > 0 else above:
                top = max(top, residual[t])
            if above if label[t] > 0 else below:
                bottom = min(bottom, residual[t])
            if above and below:
                inside += residual[t]
                free += 1
    return top, bottom, inside, free


@njit(nogil=True, cache=True)
def batch_ends(labels, boxes, alpha, residuals):  # type: ignore[no-untyped-def]
    """`ends` of every problem: top, bottom, inside (m,) float64, free (m,) int64."""
    m = len(labels)
    top, bottom, inside, free = np.empty(m), np.empty(m), np.empty(m), np.empty(m, np.int64)
    for k in range(m):
        top[k], bottom[k], inside[k], free[k] = ends(labels[k], boxes[k], alpha[k], residuals[k])
    return top, bottom, inside, free


@njit(fastmath=_FAST, cache=True)
def _add(residual, gram, row, step):  # type: ignore[no-untyped-def]
    """residual += step gram[row]."""
    row = np.uint64(row)
    for t in range(np.uint64(residual.size)):
        residual[t] += step * gram[row, t]


@njit(nogil=True, cache=True)
def batch_balance(gram, alpha, residuals, orders):  # type: ignore[no-untyped-def]
    """Make each alpha sum to 0, in place; residuals follow.

    The heavier class gives up its rows' multipliers one after the other, in the order of `orders` (m, n):
    scaling the class down instead would move every one of them off its bound.
    """
    for k in range(len(alpha)):
        excess = 0.0
        for t in range(alpha.shape[1]):
            excess += alpha[k, t]
        heavy = 1.0 if excess > 0 else -1.0
        given = np.zeros_like(alpha[k])
        for t in orders[k]:
            if excess * heavy <= 0:
                break
            if alpha[k, t] * heavy > 0:
                given[t] = heavy * min(abs(alpha[k, t]), excess * heavy)
                alpha[k, t] -= given[t]
                excess -= given[t]
        for t in range(given.size):
            if given[t] != 0:
                _add(residuals[k], gram, t, given[t])


@njit(cache=True)
def _undecided(label, box, alpha, residual, bias, most):  # type: ignore[no-untyped-def]
    """Up to `most` rows: the free ones, and of those at a bound the ones nearest to leaving it."""
    far = residual.dtype.type(_FAR)
    slack = np.full_like(residual, far)  # how far the residual is from pulling a row off its bound
    for t in range(residual.size):
        if box[t] > 0:
            unsigned = alpha[t] * label[t]
            if unsigned <= 0:
                slack[t] = label[t] * (bias - residual[t])
            elif unsigned >= box[t]:
                slack[t] = label[t] * (residual[t] - bias)
            else:
                slack[t] = -far
    real = residual.dtype.type
    low, high = -far, far
    for t in range(slack.size):  # bisection: numba takes seconds to compile a partition
        if abs(slack[t]) < far:
            low, high = (slack[t], slack[t]) if low == -far else (min(low, slack[t]), max(high, slack[t]))
    for _ in range(24):
        middle = (low + high) / real(2)
        low, high = (low, middle) if (slack <= middle).sum() > most else (middle, high)
    return np.flatnonzero(slack <= low)


@njit(cache=True)
def _gather(gram, rows):  # type: ignore[no-untyped-def]
    """gram[rows][:, rows], copied."""
    size, places = np.uint64(rows.size), rows.astype(np.uint32)  # unsigned: three times as fast
    part = np.empty((rows.size, rows.size), gram.dtype)
    for a in range(size):
        row = np.uint64(places[a])
        for b in range(size):
            part[a, b] = gram[row, np.uint64(places[b])]
    return part


@njit(inline="always")
def _solve_one(gram, diagonal, label, box, alpha, residual, tolerance, limit):  # type: ignore[no-untyped-def]
    """Solve one problem; returns the steps taken. Gives up at `limit`, or where rounding keeps the gap open.

    Shrinking by copy: where few rows are free, they and those nearest to leaving a bound are copied to where the
    cache holds them and solved there; then the residuals of all rows follow and all are looked at again.
    One call of `pair_steps` serves both: each more would be optimised anew, for seconds, at the first fit.
    """
    real, total = residual.dtype.type, 0
    least, stalled = real(_FAR), 0
    while total < limit and stalled < _PATIENCE:
        top, bottom, inside, free = ends(label, box, alpha, residual)
        gap = top - bottom
        if gap <= tolerance:
            break
        closer = gap < least
        least, stalled = min(least, gap), 0 if closer else stalled + 1
        size = (free + max(128, free // 3)) // 16 * 16  # whole vectors
        compact = closer and 0 < free <= MOST_FREE and 3 * size <= residual.size
        if compact:
            rows = _undecided(label, box, alpha, residual, real(inside / free), size)
            goal, stretch, matrix = max(real(0.1) * gap, real(0.5) * tolerance), limit, _gather(gram, rows)
            d, y, b, a, e = diagonal[rows], label[rows], box[rows], alpha[rows], residual[rows]
        else:
            rows = np.empty(0, np.int64)
            goal, stretch, matrix = tolerance, max(residual.size // 4, 200), gram
            d, y, b, a, e = diagonal, label, box, alpha, residual
        taken = pair_steps(matrix, d, y, b, a, e, goal, stretch)
        total += taken
        if compact:
            for k in range(rows.size):
                if a[k] != alpha[rows[k]]:
                    _add(residual, gram, rows[k], alpha[rows[k]] - a[k])
                    alpha[rows[k]] = a[k]
        elif taken < stretch:
            break
    return total


@njit(nogil=True, cache=True)
def solve_some(gram, diagonal, labels, boxes, alpha, residuals, chosen, tolerance, limit, steps):  # type: ignore[no-untyped-def]
    """`_solve_one` for the chosen problems, in place; their steps are added to `steps` (m,)."""
    for k in chosen:
        steps[k] += _solve_one(gram, diagonal, labels[k], boxes[k], alpha[k], residuals[k], tolerance, limit)


@njit(nogil=True, cache=True)
def solve_block(part, diagonal, rows, labels, boxes, alpha, residuals, chosen, tolerances, moved, steps):  # type: ignore[no-untyped-def]
    """Solve the rows of one block for the chosen problems, all other rows held; moved: (m, rows), alpha's change.

    part: gram[rows][:, rows]. labels, boxes, alpha, residuals: (m, n), alpha moved in place, residuals not.
    """
    for k in chosen:
        before, residual = alpha[k][rows], residuals[k][rows]
        after = before.copy()
        label, box = labels[k][rows], boxes[k][rows]
        steps[k] += pair_steps(part, diagonal, label, box, after, residual, tolerances[k], 100 * rows.size)
        alpha[k][rows] = after
        moved[k] = after - before
