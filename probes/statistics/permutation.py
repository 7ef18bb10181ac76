"""Permutation of whole problems' label blocks: the null under which states tell nothing of a problem's labels.

Steps of a problem share its label, its words and its difficulty. Shuffled one by one they look like independent
rows, and a true null is rejected 44 times in 100; moved as blocks between problems of equal block length they
keep what is inside a problem, and the test is exact.
"""

from __future__ import annotations

import numpy as np


def swappable_blocks(groups: np.ndarray) -> int:
    """Problems whose block can move: those that share their number of rows with another problem."""
    lengths = np.unique(groups, return_counts=True)[1]
    _, same = np.unique(lengths, return_counts=True)
    return int(same[same > 1].sum())


def permute_blocks(groups: np.ndarray, draws: int, seed: int | np.random.SeedSequence) -> np.ndarray:
    """(draws, n) row whose label each row takes; blocks move between problems of equal length, in row order.

    groups: (n,) problem of each row.
    """
    blocks = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    by_length: dict[int, list[np.ndarray]] = {}
    for block in blocks:
        by_length.setdefault(len(block), []).append(block)
    rng = np.random.default_rng(seed)
    taken = np.tile(np.arange(len(groups)), (draws, 1))
    for length in sorted(by_length):
        stacked = np.stack(by_length[length])
        for draw in range(draws):
            taken[draw, stacked] = stacked[rng.permutation(len(stacked))]
    return taken


def permutation_p(observed: float, null: np.ndarray) -> float:
    """(1 + draws at or above the observed) / (1 + draws) (Phipson & Smyth 2010): never 0, and exact."""
    return float((1 + np.sum(null >= observed)) / (1 + len(null)))
