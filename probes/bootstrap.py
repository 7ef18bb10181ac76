"""Bootstrap over problems: whole problems drawn with replacement, every copy kept in its problem's fold."""

from __future__ import annotations

import numpy as np


def draw_problems(groups: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(draws, n) multiplicity of each row: that of its problem. groups: (n,) problem of each row."""
    names, of_row = np.unique(groups, return_inverse=True)
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)
    return counts[:, of_row].astype(np.float64)
