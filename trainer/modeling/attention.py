"""Attention by PyTorch's SDPA, and two things beside it that transformers has no name for.

Rows that share tokens: a token that stands in several rows (a prompt's) is computed once everywhere but here, where
each row sees its own tokens in their order, so that plain causal attention is all it takes. And on a CPU a
single query a row, as in sampling, whose two products are faster as such, and faster yet where a prompt's keys and
values are held and read once for all of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

#: Layer types whose state is keys and values alone.
ATTENTION_LAYERS = {"full_attention", "sliding_attention", "chunked_attention"}

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


@dataclass(slots=True)
class SharedPrompts:
    """Keys and values of G prompts of L columns, held once for the rows that go on from them.

    keys, values: of each layer, (G, kv heads, L, D). prompt_mask: (G, L), True on tokens; None where nothing is
    padding. width: the most rows of a prompt. slots: (rows,), each row's place in G · width; None while the rows
    fill them in order.
    """

    keys: list[Tensor]
    values: list[Tensor]
    prompt_mask: Tensor | None
    width: int
    slots: Tensor | None = None

    def by_prompt(self, states: Tensor) -> Tensor:
        """(rows, kv heads, Q, D) → (G, kv heads, width · Q, D): zeros where a prompt has fewer rows than another."""
        if self.slots is not None:
            places = len(self.keys[0]) * self.width
            states = states.new_zeros((places, *states.shape[1:])).index_copy_(0, self.slots, states)
        return states.unflatten(0, (-1, self.width)).transpose(1, 2).flatten(2, 3)

    def by_row(self, states: Tensor) -> Tensor:
        """The way back: (G, kv heads, width · Q, D) → (rows, kv heads, Q, D)."""
        states = states.unflatten(2, (self.width, -1)).transpose(1, 2).flatten(0, 1)
        return states if self.slots is None else states.index_select(0, self.slots)

    def select(self, kept: Tensor) -> None:
        """Row i becomes what row `kept[i]` was. Prompts leave when a quarter of them has no row left."""
        prompt = (kept if self.slots is None else self.slots[kept]) // self.width
        alive, places = prompt.unique(return_inverse=True)
        if 4 * len(alive) <= 3 * len(self.keys[0]):
            self.keys, self.values = [k[alive] for k in self.keys], [v[alive] for v in self.values]
            self.prompt_mask = None if self.prompt_mask is None else self.prompt_mask[alive]
            prompt = places
        order, counts = prompt.argsort(stable=True), prompt.bincount()
        rank = torch.empty_like(prompt)
        rank[order] = torch.arange(len(prompt), device=prompt.device) - (counts.cumsum(0) - counts)[prompt[order]]
        self.width = int(counts.max())
        self.slots = prompt * self.width + rank


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
    shared_prompts: SharedPrompts | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """transformers' attention: (B, Q, heads, V) of query (B, heads, Q, D), key (B, kv heads, K, D) and value
    (B, kv heads, K, V).

    shared_rows: B is 1 and the Q = K tokens are those of rows, each of which attends causally to itself; no mask.
    shared_prompts: Q is 1, key and value are those of the completions, and the rows' prompts come before; no mask.
    """
    if shared_prompts is not None:
        return _after_prompts(
            query, key, value, shared_prompts, cast(int, module.layer_idx), kwargs.get("scaling")
        ), None
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
    rows, heads = query.shape[:2]
    grouped = _grouped(query, key, scaling)
    scores = grouped @ key.transpose(2, 3)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    return (scores.softmax(-1) @ value).view(rows, 1, heads, value.shape[-1])


def _after_prompts(
    query: Tensor, key: Tensor, value: Tensor, prompts: SharedPrompts, layer: int, scaling: float | None
) -> Tensor:
    """Like `_single_query` over a prompt's columns and a row's own; the queries of a prompt's rows are one matrix."""
    rows, heads = query.shape[:2]
    grouped = _grouped(query, key, scaling)
    before = prompts.by_prompt(grouped) @ prompts.keys[layer].transpose(2, 3)
    if prompts.prompt_mask is not None:
        before.masked_fill_(~prompts.prompt_mask[:, None, None], float("-inf"))
    weights = torch.cat([prompts.by_row(before), grouped @ key.transpose(2, 3)], dim=-1).softmax(-1)
    on_prompt, on_own = weights.split([before.shape[-1], key.shape[2]], dim=-1)
    seen = prompts.by_row(prompts.by_prompt(on_prompt) @ prompts.values[layer])
    return (seen + on_own @ value).view(rows, 1, heads, value.shape[-1])


def _grouped(query: Tensor, key: Tensor, scaling: float | None) -> Tensor:
    """Scaled queries by the head of keys they look at: (rows, heads, 1, D) → (rows, kv heads, heads / kv heads, D)."""
    rows, _, _, size = query.shape
    return query.view(rows, key.shape[1], -1, size) * (size**-0.5 if scaling is None else scaling)


def slides(config: object) -> bool:
    """Whether a layer's window is narrower than a row may be: attention of rows and after prompts has no window."""
    kinds = set(getattr(config, "layer_types", None) or ())
    window = getattr(config, "sliding_window", None) if not kinds else None
    return bool(kinds - {"full_attention"}) or window is not None


AttentionInterface.register(ROWS, rows_attention)
AttentionMaskInterface.register(ROWS, sdpa_mask)
