"""ADMM for many SVMs on one Gram matrix: every iteration is one matrix product over all problems.

The alternating direction method of multipliers (Boyd et al. 2011, §5.2, with over-relaxation §3.4.3) on the
dual of `probes.svm.dual`: a quadratic with Σ a = 0 whose solution is a product with one n × n matrix, shared by all
problems of a penalty ρ, against a clip to the boxes. Runs in torch on a GPU, and on a CPU where it is faster
than SMO: large C, where pair steps are many, and n ≤ 1000, where the factorisation is cheap. ADMM comes close
quickly and arrives slowly, so SMO takes the last steps; the result is held to the same KKT gap.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from probes.svm import smo
from probes.svm.dual import Fit, Floats, check_batch

_RELAXATION = 1.6  # Boyd et al. 2011: 1.5 to 1.8
_MOST_ITERATIONS = 100
_LOOK_EVERY = 10
_CLOSE = 10  # × tolerance: from here SMO needs fewer operations (n = 1000, C = 10: 100 pair steps)


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
    """Solve m soft-margin SVM duals as `probes.svm.smo.solve_batch` does, with the same arguments and result.

    device: torch's name of where the products run; "cuda" where there is one, else "cpu".
    `iterations` counts ADMM's iterations and SMO's steps together. Raises ProblemError.
    """
    gram, labels, boxes = check_batch(gram, labels, boxes)
    start = np.zeros_like(labels) if warm_start is None else np.asarray(warm_start, dtype=gram.dtype)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_device = torch.as_tensor(gram, device=device)
    iterations = np.zeros(len(labels), np.int64)
    penalties = _penalties(gram, boxes)
    for penalty in np.unique(penalties):
        chosen = np.flatnonzero(penalties == penalty)
        problems = [torch.as_tensor(part[chosen], device=device) for part in (labels, boxes, start)]
        start[chosen], iterations[chosen] = _iterate(on_device, float(penalty), tolerance, *problems)
    fit = smo.solve_batch(gram, labels, boxes, tolerance=tolerance, warm_start=start, threads=threads)
    return Fit(fit.alpha, fit.bias, fit.kkt_gap, fit.iterations + iterations, fit.degenerate)


def _penalties(gram: Floats, boxes: Floats) -> Floats:
    """ρ = mean diagonal / √(C × mean diagonal), in quarter decades so that problems share a factorisation.

    The exponent is measured: at C = 0.1, 1, 10 the fewest steps were left at ρ = 3, 1, 0.3 (n = 1000).
    """
    scale = float(gram.diagonal().mean())
    exponent = -0.5 * np.log10(boxes.max(1) * scale)
    return scale * 10 ** (np.round(4 * exponent) / 4)


def _iterate(
    gram: torch.Tensor,
    penalty: float,
    tolerance: float,
    labels: torch.Tensor,
    boxes: torch.Tensor,
    clipped: torch.Tensor,
) -> tuple[Floats, NDArray[np.int64]]:
    """ADMM from `clipped` (m, n): the clipped multipliers and each problem's iterations, on the CPU."""
    operator = _bordered_inverse(gram, penalty)
    low, high = torch.clamp(labels * boxes, max=0), torch.clamp(labels * boxes, min=0)
    dual, going = torch.zeros_like(clipped), torch.arange(len(labels), device=gram.device)
    result, taken = clipped.clone(), torch.zeros(len(labels), dtype=torch.int64, device="cpu")
    for iteration in range(1, _MOST_ITERATIONS + 1):
        exact = (labels + penalty * (clipped - dual)) @ operator
        relaxed = _RELAXATION * exact + (1 - _RELAXATION) * clipped
        pull = penalty * (exact - clipped + dual)  # y - K a less the bias, at a = exact, without another product
        clipped = torch.clamp(relaxed + dual, low, high)
        dual += relaxed - clipped
        if iteration % _LOOK_EVERY and iteration < _MOST_ITERATIONS:
            continue
        result[going], taken[going.cpu()] = clipped, iteration
        top = torch.where(clipped < high, pull, -torch.inf).amax(1)
        bottom = torch.where(clipped > low, pull, torch.inf).amin(1)
        open_ = top - bottom > _CLOSE * tolerance
        if not open_.any():
            break
        if not open_.all():
            labels, low, high, clipped, dual, going = (
                part[open_] for part in (labels, low, high, clipped, dual, going)
            )
    return result.cpu().numpy(), taken.numpy()


def _bordered_inverse(gram: torch.Tensor, penalty: float) -> torch.Tensor:
    """The n × n block of [[K + ρI, 1], [1ᵀ, 0]]⁻¹: maps a right-hand side to the solution that sums to 0."""
    shifted = gram.clone()
    shifted.diagonal().add_(penalty)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(shifted))
    ones = inverse.sum(1)
    return inverse - torch.outer(ones, ones) / ones.sum()
