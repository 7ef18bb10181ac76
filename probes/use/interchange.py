"""Interchange interventions: put one input's part of a layer's state into another input's, and read what follows.

Where every intermediate value of a task is known, so is the answer that a causal subspace has to give: with the part
that holds the running value taken from a source, the model has to go on as the source would (Geiger et al. 2021).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from probes.states.forward import hooked_layer
from probes.use.interventions import Edit

Floats = NDArray[np.floating]


def whole_state(width: int) -> Edit:
    """The subspace that is everything: the upper bound of an interchange."""
    none = np.zeros(width)
    return Edit("whole state", np.eye(width), np.eye(width), none, none)


def interchange(
    model: Any, layer: int, part: Edit, base: NDArray[np.int64], source: NDArray[np.int64], at: Sequence[int]
) -> Floats:
    """(b, vocabulary) logits behind token `at` of each base row, the part of its state there taken from the source.

    base, source: (b, t) token ids of sequences of one length. at: (b,) token whose state is changed, the same in both.
    part: what is interchanged: what the edit would take out, (x − mean) left rightᵀ. layer: 0 is the embedding.
    """
    import torch

    device = next(model.parameters()).device
    rows, where = torch.arange(len(base)), torch.as_tensor(np.asarray(at))
    kept: list[torch.Tensor] = []

    def keep(hidden: torch.Tensor) -> torch.Tensor:
        kept.append(hidden[rows, where].float())
        return hidden

    left, right = (torch.as_tensor(x, dtype=torch.float32, device=device) for x in (part.left, part.right))

    def swap(hidden: torch.Tensor) -> torch.Tensor:
        changed = hidden.clone()
        own = hidden[rows, where].float()
        changed[rows, where] = (own + ((kept[0] - own) @ left) @ right.T).to(hidden.dtype)
        return changed

    def read(ids: NDArray[np.int64], hook: AbstractContextManager[None]) -> torch.Tensor:
        with torch.inference_mode(), hook:
            return model(input_ids=torch.as_tensor(ids, device=device), use_cache=False).logits

    read(source, hooked_layer(model, layer, keep))
    logits = read(base, hooked_layer(model, layer, swap))
    return logits[rows, where].float().cpu().numpy()
