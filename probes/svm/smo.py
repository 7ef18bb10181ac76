"""Sequential minimal optimisation for many SVMs on one Gram matrix, compiled, parallel over problems.

Platt's SMO (1999) with the second-order working set of Fan, Chen & Lin (2005), as in libsvm. What differs:

- The Gram matrix is read in place, in float32 where it is given so, one contiguous row at a time; the two
  passes of a step are straight-line arithmetic that the compiler turns into SIMD (`probes.svm.smo_steps`).
- Small boxes start with every multiplier at its bound, where nearly all of them end.
- A large Gram matrix does not fit the cache, and pair steps wait for its rows. So blocks of rows are first
  solved for all problems at once, and one matrix product a block brings all residuals up to date.
- Few undecided rows are copied together and solved in the cache (shrinking, by copy).
"""

from __future__ import annotations

import os
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from probes.svm.dual import Fit, Floats, ProblemError, check_batch, decisions
from probes.svm.smo_steps import MOST_FREE, batch_balance, batch_ends, solve_block, solve_some

__all__ = ["Fit", "ProblemError", "decisions", "solve_batch"]

_LIMIT = 10_000_000  # pair steps of one problem, libsvm's own
_SMALL_BOX = 1.0  # C × mean diagonal up to which starting at the bound saved steps (0.1: 5-13 ×, 1: 1.3 ×, 10: none)
_SWEEP_BOX = 0.5  # C × mean diagonal from which sweeps pay: below, hardly a row leaves its bound
_SWEEP_ROWS = 1500  # rows from which sweeps pay: below, the cache holds the Gram matrix (measured at 1000 and 4000)
_SWEEP_BLOCK = 256
_SWEEP_GAIN = 0.75  # sweep on while a sweep leaves at most this share of the gap: slower, pair steps are cheaper
_LEAST_SWEEPS = 2
_MOST_SWEEPS = 20
_CLOSE = 10  # × tolerance: a gap that pair steps close sooner than a sweep


def solve_batch(
    gram: Floats,
    labels: Floats,
    boxes: Floats,
    *,
    tolerance: float = 1e-3,
    warm_start: Floats | None = None,
    threads: int | None = None,
) -> Fit:
    """Solve m soft-margin SVM duals (see `probes.svm.dual`) on one Gram matrix by SMO.

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
    problems = _Problems(gram, labels, boxes, *_start(gram, labels, boxes, warm_start), np.zeros(len(labels), np.int64))
    threads = threads or os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as pool:
        if warm_start is None and len(gram) >= _SWEEP_ROWS:
            _sweep(problems, tolerance, pool, threads)
        _finish(problems, tolerance, pool, threads)
    top, bottom, inside, free = problems.ends()
    bias = np.where(free > 0, inside / np.maximum(free, 1), (top + bottom) / 2)  # libsvm's rule
    return Fit(problems.alpha, bias, np.maximum(top - bottom, 0), problems.steps, free == 0)


def _start(gram: Floats, labels: Floats, boxes: Floats, start: Floats | None) -> tuple[Floats, Floats]:
    """Feasible signed multipliers near `start` and their residuals, (m, n) each."""
    if start is None:
        small = boxes.max(1, keepdims=True) * gram.diagonal().mean() <= _SMALL_BOX
        start = labels * np.where(small, boxes, 0)
    elif np.shape(start) != labels.shape:
        raise ProblemError(f"warm_start is {np.shape(start)}; expected {labels.shape}: one row a problem.")
    alpha = labels * np.clip(np.asarray(start, dtype=gram.dtype) * labels, 0, boxes)
    if not alpha.any():
        return alpha, labels.copy()
    residuals = labels - alpha @ gram
    heavy = np.sign(alpha.sum(1, dtype=np.float64, keepdims=True)).astype(gram.dtype)
    batch_balance(gram, alpha, residuals, np.argsort(heavy * residuals))  # the row best on its own side goes first
    return alpha, residuals


@dataclass(frozen=True)
class _Problems:
    """A batch under way: alpha, residuals and steps are moved in place."""

    gram: Floats
    labels: Floats
    boxes: Floats
    alpha: Floats
    residuals: Floats
    steps: NDArray[np.int64]

    def part(self, chosen: NDArray[np.int64]) -> _Problems:
        """Copies of the chosen problems."""
        return _Problems(
            self.gram,
            self.labels[chosen],
            self.boxes[chosen],
            self.alpha[chosen],
            self.residuals[chosen],
            self.steps[chosen],
        )

    def put(self, chosen: NDArray[np.int64], part: _Problems) -> None:
        """Write the part's multipliers, residuals and steps back."""
        self.alpha[chosen], self.residuals[chosen], self.steps[chosen] = part.alpha, part.residuals, part.steps

    def ends(self) -> tuple[Floats, Floats, Floats, Floats]:
        return batch_ends(self.labels, self.boxes, self.alpha, self.residuals)


def _sweep(problems: _Problems, tolerance: float, pool: Executor, threads: int) -> None:
    """Sweep over blocks of rows, dealt anew each time, for all problems at once.

    A problem leaves when a sweep no longer closes its gap fast enough, or so few of its rows are free that they
    fit the cache.
    """
    deal = np.random.default_rng(0)
    top, bottom, _, _ = problems.ends()
    wide = problems.boxes.max(1) * problems.gram.diagonal().mean() > _SWEEP_BOX
    going = np.flatnonzero(wide & (top - bottom > _CLOSE * tolerance))
    gap = (top - bottom)[going]
    for sweep in range(_MOST_SWEEPS):
        if not len(going):
            return
        part = problems.part(going)
        _sweep_once(part, deal.permutation(len(problems.gram)), np.maximum(tolerance / 2, 0.1 * gap), pool, threads)
        problems.put(going, part)
        top, bottom, _, free = part.ends()
        before, gap = gap, top - bottom
        closing = (gap <= _SWEEP_GAIN * before) & (free > MOST_FREE)
        stay = (closing | (sweep < _LEAST_SWEEPS - 1)) & (gap > _CLOSE * tolerance)
        going, gap = going[stay], gap[stay]


def _sweep_once(part: _Problems, order: NDArray[np.int64], inner: Floats, pool: Executor, threads: int) -> None:
    """Solve each block of `order` in turn to the gaps `inner`; the residuals follow by one product a block."""
    diagonal, inner = part.gram.diagonal(), inner.astype(part.gram.dtype)
    for first in range(0, len(order), _SWEEP_BLOCK):
        rows = np.sort(order[first : first + _SWEEP_BLOCK])
        gram_rows, steps = part.gram[rows], np.empty((len(inner), len(rows)), part.gram.dtype)
        block = (np.ascontiguousarray(gram_rows[:, rows]), diagonal[rows], rows)
        jobs = [
            pool.submit(
                solve_block,
                *block,
                part.labels,
                part.boxes,
                part.alpha,
                part.residuals,
                chosen,
                inner,
                steps,
                part.steps,
            )
            for chosen in np.array_split(np.arange(len(inner)), threads)
        ]
        for job in jobs:
            job.result()
        part.residuals[:] -= steps @ gram_rows


def _finish(problems: _Problems, tolerance: float, pool: Executor, threads: int) -> None:
    """Solve each problem to the tolerance, again where rounding let its residuals drift from its multipliers."""
    p, diagonal, goal = problems, problems.gram.diagonal().copy(), problems.gram.dtype.type(tolerance)
    going = np.arange(len(p.labels))
    for _ in range(3):
        pieces = np.array_split(going, min(len(going), 8 * threads))  # more than threads: problems differ in length
        jobs = [
            pool.submit(
                solve_some, p.gram, diagonal, p.labels, p.boxes, p.alpha, p.residuals, piece, goal, _LIMIT, p.steps
            )
            for piece in pieces
        ]
        for job in jobs:
            job.result()
        p.residuals[going] = p.labels[going] - p.alpha[going] @ p.gram
        top, bottom, _, _ = p.part(going).ends()
        going = going[top - bottom > tolerance]
        if not len(going):
            return
