"""Gram matrices: linear, polynomial, RBF and Laplacian kernels, chunked, trace-normalised.

The four kernels and the meaning of their parameters are scikit-learn's (`sklearn.metrics.pairwise`,
`SVC(gamma="scale")`), so that a C found here means the same there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.floating]
KernelName = Literal["linear", "poly", "rbf", "laplacian"]

KERNELS: tuple[KernelName, ...] = ("linear", "poly", "rbf", "laplacian")
_CHUNK_BYTES = 64 << 20  # of a block of Gram rows under way; beyond it, only the result itself is held


class StatesError(ValueError):
    """States cannot be used: the message names the rows, columns or width, the count and the remedy."""


@dataclass(frozen=True)
class Kernel:
    """A kernel with its numbers, as fitted on training rows.

    gamma: of poly, rbf and laplacian. degree, coef0: of poly alone. scale: what every value is multiplied by;
    `fit_kernel(..., normalise=True)` sets it so that the training rows' mean diagonal, the trace over n, is 1.
    """

    name: KernelName
    gamma: float = 1.0
    degree: int = 3
    coef0: float = 0.0
    scale: float = 1.0


def fit_kernel(
    states: ArrayLike,
    name: KernelName = "linear",
    *,
    gamma: float | Literal["scale", "auto"] = "scale",
    degree: int = 3,
    coef0: float = 0.0,
    normalise: bool = True,
) -> Kernel:
    """The kernel of training states (n, d).

    gamma: a number, "scale" for 1 / (d × variance of all entries), or "auto" for 1 / d.
    normalise: divide by the mean diagonal, so that C means the same for every layer and kernel.
    Raises StatesError.
    """
    states = check_states(states)
    if name not in KERNELS:
        raise StatesError(f"kernel is {name!r}; expected one of {', '.join(KERNELS)}.")
    if name == "poly" and not (degree == int(degree) and degree >= 0):
        raise StatesError(f"degree is {degree!r}; expected a whole number of at least 0.")
    if not np.isfinite(coef0):
        raise StatesError(f"coef0 is {coef0!r}; expected a finite number.")
    kernel = Kernel(name, _gamma(states, gamma), int(degree), coef0)
    if not normalise:
        return kernel
    mean = float(gram_diagonal(states, kernel).mean(dtype=np.float64))
    if not mean > 0:
        raise StatesError(
            f"the {name} kernel of {len(states)} rows has mean diagonal {mean:g}; the states are all zero."
        )
    return Kernel(kernel.name, kernel.gamma, degree, coef0, 1 / mean)


def gram(rows: ArrayLike, columns: ArrayLike | None = None, kernel: Kernel = Kernel("linear")) -> Floats:
    """Kernel values (r, n) of rows (r, d) against columns (n, d), or of rows against themselves.

    float32 states give a float32 Gram; anything else float64. Rows are done in chunks, so that beyond the
    result and the states little memory is held. Raises StatesError.
    """
    rows = check_states(rows)
    columns = rows if columns is None else check_states(columns, width=rows.shape[1])
    columns = columns.astype(np.result_type(rows, columns), copy=False)
    out = np.empty((len(rows), len(columns)), columns.dtype)
    values = _VALUES[kernel.name]
    chunk = max(1, _CHUNK_BYTES // max(1, out.itemsize * len(columns)))
    for first in range(0, len(rows), chunk):
        block = out[first : first + chunk]
        values(rows[first : first + chunk].astype(out.dtype, copy=False), columns, kernel, block)
        if kernel.scale != 1:
            block *= out.dtype.type(kernel.scale)
    return out


def gram_diagonal(states: ArrayLike, kernel: Kernel) -> Floats:
    """k(x, x) of each row, (n,), without the Gram matrix."""
    states = check_states(states)
    if kernel.name in ("rbf", "laplacian"):
        return np.full(len(states), kernel.scale, states.dtype)
    square = np.einsum("nd,nd->n", states, states)
    if kernel.name == "poly":
        square = (kernel.gamma * square + kernel.coef0) ** kernel.degree
    return kernel.scale * square


def normalise_trace(gram: ArrayLike, train: NDArray[np.bool_] | None = None) -> Floats:
    """A Gram matrix (n, n) over its mean diagonal, of the rows `train` where given. Raises StatesError."""
    gram = np.asarray(gram)
    diagonal = gram.diagonal() if train is None else gram.diagonal()[train]
    mean = float(diagonal.mean(dtype=np.float64))
    if not (np.isfinite(mean) and mean > 0):
        raise StatesError(f"the Gram matrix has mean diagonal {mean:g}; expected a positive one: are the states zero?")
    return gram / gram.dtype.type(mean)


def check_states(states: ArrayLike, *, width: int | None = None) -> Floats:
    """States as a C-contiguous (n, d) float32 or float64 array without NaN or infinity, of `width` columns if given.

    Raises StatesError naming rows, columns and count.
    """
    states = np.asarray(states)
    if states.dtype != np.float32:
        states = states.astype(np.float64)
    if states.ndim != 2 or 0 in states.shape:
        raise StatesError(f"states is {states.shape}; expected (rows, columns), at least one of each.")
    if width is not None and states.shape[1] != width:
        raise StatesError(
            f"states have {states.shape[1]} columns; expected {width}: these are another model's or layer's states."
        )
    if not np.isfinite(states).all():
        bad = ~np.isfinite(states)
        columns = np.flatnonzero(bad.any(0))
        raise StatesError(
            f"states hold {bad.sum()} NaN or infinite values in {bad.any(1).sum()} of {len(states)} rows and "
            f"{len(columns)} of {states.shape[1]} columns, the first column {columns[0]}; drop those rows, or store "
            "the states as bfloat16 or float32."
        )
    return np.ascontiguousarray(states)


def _gamma(states: Floats, gamma: float | str) -> float:
    if gamma == "scale":
        variance = float(states.var(dtype=np.float64))
        return 1 / (states.shape[1] * variance) if variance > 0 else 1.0  # as scikit-learn: constant states take 1
    if gamma == "auto":
        return 1 / states.shape[1]
    if isinstance(gamma, str) or not (gamma > 0 and np.isfinite(gamma)):
        raise StatesError(f'gamma is {gamma!r}; expected "scale", "auto" or a positive number.')
    return float(gamma)


def _linear(rows: Floats, columns: Floats, kernel: Kernel, out: Floats) -> None:
    np.matmul(rows, columns.T, out=out)


def _poly(rows: Floats, columns: Floats, kernel: Kernel, out: Floats) -> None:
    np.matmul(rows, columns.T, out=out)
    out *= out.dtype.type(kernel.gamma)
    out += out.dtype.type(kernel.coef0)
    np.power(out, kernel.degree, out=out)


def _rbf(rows: Floats, columns: Floats, kernel: Kernel, out: Floats) -> None:
    # ‖a‖² + ‖b‖² - 2 a·b loses all digits in float32 where an offset is large against the spread: distances do not
    # depend on the origin, so it is put into the middle of the columns.
    middle = columns.mean(0, dtype=np.float64).astype(out.dtype)
    rows, columns = rows - middle, columns - middle
    np.matmul(rows, columns.T, out=out)
    out *= -2
    out += np.einsum("nd,nd->n", rows, rows)[:, None]
    out += np.einsum("nd,nd->n", columns, columns)
    np.maximum(out, 0, out=out)  # rounding may leave a distance just below zero
    out *= out.dtype.type(-kernel.gamma)
    np.exp(out, out=out)


def _laplacian(rows: Floats, columns: Floats, kernel: Kernel, out: Floats) -> None:
    _city_block(rows, columns, out)
    out *= out.dtype.type(-kernel.gamma)
    np.exp(out, out=out)


@njit(fastmath=True, nogil=True, cache=True)
def _city_block(rows, columns, out):  # type: ignore[no-untyped-def]
    """out[r, n] = Σ_d |rows[r, d] - columns[n, d]|, a tile of columns at a time so that it stays in the cache."""
    tile = max(1, 262144 // (columns.shape[1] * 4))
    for first in range(0, columns.shape[0], tile):
        for r in range(rows.shape[0]):
            for n in range(first, min(first + tile, columns.shape[0])):
                total = rows.dtype.type(0)
                for d in range(columns.shape[1]):
                    total += abs(rows[r, d] - columns[n, d])
                out[r, n] = total


_VALUES: dict[str, Callable[[Floats, Floats, Kernel, Floats], None]] = {
    "linear": _linear,
    "poly": _poly,
    "rbf": _rbf,
    "laplacian": _laplacian,
}
