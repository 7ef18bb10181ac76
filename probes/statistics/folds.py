"""Who is held out with whom: groups of problems, grouped folds, and the checks that no problem is on both sides."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components

#: Share of 3-word shingles in common from which two problems count as one (a renumbered or lightly edited copy).
NEAR = 0.8


class FoldError(ValueError):
    """Rows cannot be split: the message says how many groups there are and how many are needed."""


def group_problems(problems: Sequence[str], near: float = NEAR) -> np.ndarray:
    """(n,) group of each problem text: near-identical ones (Jaccard of 3-word shingles ≥ near) share a group."""
    shingles = [_shingles(text) for text in problems]
    column = {s: k for k, s in enumerate(sorted(set().union(*shingles)))}
    at = [(row, column[s]) for row, bag in enumerate(shingles) for s in bag]
    rows, columns = np.asarray(at).T
    bags = csr_array((np.ones(len(at), np.float32), (rows, columns)), shape=(len(problems), len(column)))
    shared = (bags @ bags.T).tocoo()
    size = np.asarray([len(bag) for bag in shingles])
    union = size[shared.row] + size[shared.col] - shared.data
    same = shared.data >= near * union
    links = csr_array((same, (shared.row, shared.col)), shape=(len(problems),) * 2)
    links.eliminate_zeros()
    return connected_components(links, directed=False)[1]


def _shingles(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    return {tuple(words[i : i + 3]) for i in range(max(len(words) - 2, 1))}


def grouped_folds(
    groups: np.ndarray, folds: int, seed: int | np.random.SeedSequence, labels: np.ndarray | None = None
) -> np.ndarray:
    """(n,) fold 0 … folds - 1 of each row: whole groups, shuffled, then each to the fold with the fewest rows.

    labels: (n,) -1/+1; ties in size go to the fold that lacks the group's class most, so that no fold is left
    with one class where that can be avoided. Raises FoldError where there are fewer groups than folds.
    """
    names, of_row, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if len(names) < folds:
        raise FoldError(f"{len(names)} groups of problems for {folds} folds; add problems or lower the folds.")
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-sizes[order], kind="stable")]
    positives = np.zeros(len(names)) if labels is None else np.bincount(of_row, labels > 0, len(names))
    held, held_positive = np.zeros(folds), np.zeros(folds)
    fold_of = np.empty(len(names), np.int64)
    for group in order:
        # Rows first; then the class that the group brings most of.
        lean = np.sign(positives[group] - sizes[group] / 2)
        choice = np.lexsort((lean * (held_positive - held / 2), held))[0]
        fold_of[group] = choice
        held[choice] += sizes[group]
        held_positive[choice] += positives[group]
    return fold_of[of_row]


def check_folds(folds: np.ndarray, groups: np.ndarray) -> None:
    """Raise FoldError where a group has rows in two folds."""
    pairs = np.unique(np.stack([groups, folds]), axis=1)
    names, counts = np.unique(pairs[0], return_counts=True)
    split = names[counts > 1]
    if len(split):
        raise FoldError(
            f"{len(split)} of {len(names)} groups have rows in more than one fold, first group {split[0]}: "
            "a problem would be on both sides. Split by group (grouped_folds)."
        )


@dataclass(frozen=True)
class Split:
    """One outer split. train: (n,) bool. inner: (n,) inner fold of each training row, -1 on held-out rows."""

    train: NDArray[np.bool_]
    inner: NDArray[np.int64]


@dataclass(frozen=True)
class Splits:
    """All outer splits of one repeat. outer: (n,) fold that holds each row out."""

    outer: NDArray[np.int64]
    splits: tuple[Split, ...]


def make_splits(
    groups: np.ndarray, targets: NDArray[np.floating], outer: int, inner: int, seed: int | np.random.SeedSequence
) -> Splits:
    """Outer folds grouped by problem, and grouped inner folds in each one's training rows. Raises FoldError."""
    binary = targets[0] if len(targets) == 1 else None
    root = seed if isinstance(seed, np.random.SeedSequence) else np.random.SeedSequence(seed)
    random = root.spawn(1 + outer)
    folds = grouped_folds(groups, outer, random[0], binary)
    check_folds(folds, groups)
    splits = []
    for fold in range(outer):
        train = folds != fold
        inside = np.full(len(groups), -1)
        inside[train] = grouped_folds(groups[train], inner, random[1 + fold], None if binary is None else binary[train])
        check_folds(inside[train], groups[train])
        splits.append(Split(train, inside))
    return Splits(folds, tuple(splits))
