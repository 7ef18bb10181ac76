"""What the text alone tells of a row, without any model: the bar that hidden states have to clear.

Bag of the row's own tokens (a step's; the prompt's, or the response's so far, where the row belongs to no
step), where the row stands, and how long it is. The base's log-probability joins them in the protocol.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from probes.states.places import Place, TokenisedTrace

#: Tokens counted one by one: the most frequent; the rest share one column.
BAG_SIZE = 256


def surface_features(sequences: Sequence[TokenisedTrace], places: Sequence[Place]) -> np.ndarray:
    """(rows, features) float32: token counts, one-hot last token, then step, token, share of the response, length.

    Columns are the same for every model that shares the token ids.
    """
    bags = [Counter(sequences[p.sequence].token_ids[p.first : p.last + 1]) for p in places]
    last = [sequences[p.sequence].token_ids[p.last] for p in places]
    often = Counter(token for bag in bags for token in bag)
    chosen = sorted(often, key=lambda token: (-often[token], token))[:BAG_SIZE]
    column = {token: k for k, token in enumerate(chosen)}
    rest = len(chosen)
    counts = np.zeros((len(places), 2 * (rest + 1)), np.float32)
    for row, bag in enumerate(bags):
        for token, count in bag.items():
            counts[row, column.get(token, rest)] += count
        counts[row, rest + 1 + column.get(last[row], rest)] = 1
    return np.hstack([counts, _standing(sequences, places)])


def _standing(sequences: Sequence[TokenisedTrace], places: Sequence[Place]) -> np.ndarray:
    rows = []
    for p in places:
        sequence = sequences[p.sequence]
        length = len(sequence.token_ids)
        share = (p.last + 1 - sequence.prompt_length) / max(length - sequence.prompt_length, 1)
        rows.append((-1 if p.step is None else p.step, p.last, share, length, p.last - p.first + 1))
    return np.asarray(rows, np.float32)
