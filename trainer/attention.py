"""Attention by PyTorch's SDPA, and two things beside it that transformers has no name for.

Rows that share tokens: a token that stands in several rows (a prompt's) is computed once everywhere but here, where
each row sees its own tokens in their order, so that plain causal attention is all it takes. And on a CPU a
single query a row, as in sampling, whose two products are faster as such.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: Name of this attention in transformers' registry.
ROWS = "sdpa_of_rows"


@dataclass(frozen=True, slots=True)
class SharedRows:
    """Where the tokens of rows lie in one flat sequence of T tokens.

    tokens: (R, L), the token at each place of each row; what fills a row up on its right is any token.
    homes: (T,), for each token a place in R · L where it stands.
    """

    tokens: Tensor
    homes: Tensor


def take_rows(model: PreTrainedModel) -> None:
    """Let a model that attends by SDPA attend by `rows_attention`, which is the same until rows are given."""
    if model.config._attn_implementation == "sdpa":
        model.set_attn_implementation(ROWS)


def rows_attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared_rows: SharedRows | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention: query (B, heads, Q, D), key and value (B, kv heads, K, D) → (B, Q, heads, D).

    shared_rows: B is 1 and the Q = K tokens are those of rows, each of which attends causally to itself; no mask.
    """
    if shared_rows is not None:
        query, key, value = (_of_rows(states, shared_rows.tokens) for states in (query, key, value))
        out, _ = sdpa_attention_forward(module, query, key, value, None, **kwargs)
        heads = out.shape[2:]
        return F.embedding(shared_rows.homes, out.reshape(-1, heads.numel())).view(1, -1, *heads), None
    plain = kwargs.get("position_bias") is None and not kwargs.get("dropout")
    if query.shape[2] == 1 and query.device.type == "cpu" and plain:
        return _single_query(query, key, value, attention_mask, kwargs.get("scaling")), None
    found: tuple[Tensor, None] = sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)
    return found


def _of_rows(states: Tensor, tokens: Tensor) -> Tensor:
    """(1, heads, T, D) → (R, heads, L, D). An embedding's backward adds a token's gradients up fast."""
    heads, size = states.shape[1], states.shape[3]
    flat = states.transpose(1, 2).reshape(-1, heads * size)
    return F.embedding(tokens, flat).unflatten(-1, (heads, size)).transpose(1, 2)


def _single_query(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Tensor:
    """softmax(q·Kᵀ·scaling)·V for one query a row, the heads of a group in one product."""
    rows, heads, _, size = query.shape
    grouped = query.view(rows, key.shape[1], -1, size) * (size**-0.5 if scaling is None else scaling)
    scores = grouped @ key.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) @ value).view(rows, 1, heads, size)


AttentionInterface.register(ROWS, rows_attention)
AttentionMaskInterface.register(ROWS, sdpa_mask)
