"""How a feature lies in the states: margin, support vectors, dimension, alignment, and its likeness to the base's.

Everything is read off the standardised states of one outer split and their trace-normalised linear Gram (mean
diagonal 1 on the training rows), so that numbers of two layers or models can be compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from probes.protocol.nested_fits import balance, linear_gram, standardise
from probes.statistics.auc import fold_auc
from probes.statistics.folds import Splits
from probes.svm.dual import Fit
from probes.svm.hinge import solve_batch

Floats = NDArray[np.floating]

#: Widest states that are rotated as they are; wider ones are first taken to their principal components.
WIDEST_ROTATION = 512


def margin(fit: Fit, gram: Floats) -> float:
    """Distance from the plane to the margin, 1/‖w‖ with ‖w‖² = aᵀ K a, of a batch of one."""
    norm = float(fit.alpha[0] @ gram @ fit.alpha[0])
    return float("nan") if norm <= 0 else norm**-0.5


def support_share(fit: Fit, train: NDArray[np.bool_]) -> float:
    """Share of the training rows that are support vectors."""
    return float((np.abs(fit.alpha[0][train]) > 1e-8 * np.abs(fit.alpha[0]).max()).mean())


def effective_dimension(gram: Floats) -> float:
    """Participation ratio (Σλ)² / Σλ² of the centred Gram: 1 for a line, the width for an isotropic cloud.

    NaN for states that are all the same, as embeddings are where every row is read at one token.
    """
    k = centre(gram)
    spread = float(np.sum(k**2))
    return float(np.trace(k) ** 2 / spread) if spread > 0 else float("nan")


def alignment(gram: Floats, target: Floats) -> float:
    """Centred kernel-target alignment (Cortes, Mohri & Rostamizadeh 2012), in [0, 1] for a linear kernel.

    NaN for states that are all the same.
    """
    k = centre(gram)
    y = target - target.mean()
    length = float(np.linalg.norm(k) * (y @ y))
    return float(y @ k @ y) / length if length > 0 else float("nan")


def cka(a: Floats, b: Floats) -> float:
    """Debiased linear CKA of two Grams (Song et al. 2012's HSIC; Nguyen et al. 2021): about 0 for unrelated states.

    1 for a Gram with itself, also where all its rows are the same; NaN where one of two has no spread to compare.
    """
    if np.array_equal(a, b):
        return 1.0
    own, other = _hsic(a, a), _hsic(b, b)
    return _hsic(a, b) / (own * other) ** 0.5 if own > 0 and other > 0 else float("nan")


def cka_interval(a: Floats, b: Floats, groups: np.ndarray, alpha: float = 0.05, parts: int = 20) -> tuple[float, float]:
    """Jackknife interval over problems: whole problems are left out, in at most `parts` parts."""
    if np.array_equal(a, b):
        return 1.0, 1.0
    names, of_row = np.unique(groups, return_inverse=True)
    part = np.random.default_rng(0).permutation(len(names)) % min(parts, len(names))
    count = int(part.max()) + 1
    left_out = []
    for k in range(count):
        stay = np.flatnonzero(part[of_row] != k)
        left_out.append(cka(a[np.ix_(stay, stay)], b[np.ix_(stay, stay)]))
    error = np.sqrt((count - 1) / count * np.sum((np.asarray(left_out) - np.mean(left_out)) ** 2))
    half = stats.t.isf(alpha / 2, count - 1) * float(error)
    middle = cka(a, b)
    return middle - half, min(middle + half, 1.0)


def rotation(source: Floats, target: Floats) -> Floats:
    """Orthogonal R (d, d) with source @ R nearest to target (Schönemann 1966); sources and targets (n, d)."""
    left, _, right = np.linalg.svd(source.T @ target)
    return left @ right


def angle(a: Floats, b: Floats) -> float:
    """Cosine between two directions: 1 for a direction with itself, NaN where one of two has no length."""
    if np.array_equal(a, b):
        return 1.0
    lengths = float(np.linalg.norm(a)) * float(np.linalg.norm(b))
    return float(a @ b) / lengths if lengths > 0 else float("nan")


def centre(gram: Floats) -> Floats:
    """H K H."""
    middle = gram.mean(0)
    return gram - middle - middle[:, None] + middle.mean()


def _hsic(a: Floats, b: Floats) -> float:
    n = len(a)
    a, b = a - np.diag(a.diagonal()), b - np.diag(b.diagonal())
    one, two = a.sum(0), b.sum(0)
    unbiased = (a * b).sum() + one.sum() * two.sum() / ((n - 1) * (n - 2)) - 2 * (one @ two) / (n - 2)
    return float(unbiased / (n * (n - 3)))


# ---------------------------------------------------------------- one cell against the base


@dataclass(frozen=True)
class CellGeometry:
    """Geometry of one model and layer, and its likeness to the base at that layer.

    AUCs and cosines are None where the widths differ or there is no base to compare with.
    """

    margin: float
    support_share: float
    effective_dimension: float
    alignment: float
    cka: float
    cka_low: float
    cka_high: float
    transfer: float | None
    transfer_rotated: float | None
    cosine: float | None
    cosine_rotated: float | None


def compare_to_base(
    states: Floats, base: Floats, target: Floats, splits: Splits, groups: np.ndarray, cost: float
) -> CellGeometry:
    """Geometry of states (n, d) with a hinge SVM of this C on a target (n,) of -1/+1, against the base's states."""
    train = splits.splits[0].train
    gram, other = linear_gram(states, train), linear_gram(base, train)
    fit = _fit(gram, target, train, cost)
    low, high = cka_interval(gram, other, groups)
    transfer = _transfer(states, base, target, splits, cost) if states.shape == base.shape else (None,) * 4
    return CellGeometry(
        margin=margin(fit, gram),
        support_share=support_share(fit, train),
        effective_dimension=effective_dimension(gram),
        alignment=alignment(gram[np.ix_(train, train)], target[train]),
        cka=cka(gram, other),
        cka_low=low,
        cka_high=high,
        transfer=transfer[0],
        transfer_rotated=transfer[1],
        cosine=transfer[2],
        cosine_rotated=transfer[3],
    )


def _fit(gram: Floats, target: Floats, train: NDArray[np.bool_], cost: float) -> Fit:
    return solve_batch(gram, target[None], cost * balance(target[None], train) * train)


def _transfer(
    states: Floats, base: Floats, target: Floats, splits: Splits, cost: float
) -> tuple[float, float, float, float]:
    """(AUC of the base's probe on these states, after Procrustes; cosine of the two probes, after Procrustes).

    Probe and rotation see training rows alone; AUCs are held out.
    """
    direct, rotated = np.empty(len(target)), np.empty(len(target))
    cosines = []
    for split in splits.splits:
        own, theirs = standardise(states, split.train), standardise(base, split.train)
        if own.shape[1] > WIDEST_ROTATION:
            own, theirs = (_principal(z, split.train) for z in (own, theirs))
        turn = rotation(own[split.train], theirs[split.train])
        w_own, w_base = (_direction(z, target, split.train, cost) for z in (own, theirs))
        test = ~split.train
        direct[test], rotated[test] = own[test] @ w_base, own[test] @ turn @ w_base
        cosines.append((angle(w_own, w_base), angle(turn.T @ w_own, w_base)))
    plain, turned = np.mean(cosines, axis=0)
    auc = fold_auc(np.stack([direct, rotated]), target[None], splits.outer)
    return float(auc[0]), float(auc[1]), float(plain), float(turned)


def _direction(z: Floats, target: Floats, train: NDArray[np.bool_], cost: float) -> Floats:
    gram = z @ z.T
    scale = max(gram.diagonal()[train].mean(), 1e-12)
    return z.T @ _fit(gram / scale, target, train, cost).alpha[0]


def _principal(z: Floats, train: NDArray[np.bool_]) -> Floats:
    """(n, ≤ WIDEST_ROTATION) coordinates in the principal components of the training rows."""
    _, _, right = np.linalg.svd(z[train], full_matrices=False)
    return z @ right[:WIDEST_ROTATION].T


# ---------------------------------------------------------------- what a decision looks like


def decision_slice(states: Floats, target: Floats, splits: Splits, cost: float) -> tuple[Floats, Floats, NDArray]:
    """A plane through the states for the eye: (decision value, first principal component orthogonal to w, role).

    Of the first outer split. role: 0 held out, 1 training, 2 support vector.
    """
    train = splits.splits[0].train
    z = standardise(states, train)
    gram = z @ z.T
    scale = max(gram.diagonal()[train].mean(), 1e-12)
    fit = _fit(gram / scale, target, train, cost)
    w = z.T @ fit.alpha[0]
    decision = z @ w / scale + fit.bias[0]
    across = z - np.outer(z @ w, w) / max(float(w @ w), 1e-300)
    _, _, right = np.linalg.svd(across[train] - across[train].mean(0), full_matrices=False)
    support = np.abs(fit.alpha[0]) > 1e-8 * np.abs(fit.alpha[0]).max()
    return decision, (across - across[train].mean(0)) @ right[0], np.where(support, 2, train.astype(int))
