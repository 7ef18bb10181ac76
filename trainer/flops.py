"""Floating-point operations by formula: what a run spends, without counting on the device.

Forward: 2 for each weight of a matrix product and token, and 4 · heads · head_dim for each pair of tokens that
attention compares (scores and weighted sum) in each layer; backward twice that (Kaplan et al. 2020, section 2.1,
with attention kept).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import nn
from transformers import PreTrainedModel

BACKWARD = 2  # forwards that a backward pass costs


@dataclass(frozen=True, slots=True)
class ModelCost:
    """What a token costs. body: weights it is multiplied with below the head. head: weights of the output layer.
    attention: Σ over layers of heads · head_dim."""

    body: int
    head: int
    attention: int

    def forward(self, tokens: int, scored: int, pairs: int) -> int:
        """FLOPs of a forward pass. scored: tokens that reach the head. pairs: (query, key) pairs of attention."""
        return 2 * self.body * tokens + 2 * self.head * scored + 4 * self.attention * pairs

    def training(self, rows: Iterable[tuple[int, int]]) -> int:
        """Forward and backward of rows given as (tokens, scored tokens)."""
        return sum((1 + BACKWARD) * self.forward(n, scored, causal_pairs(n)) for n, scored in rows)

    def sampling(self, prompt: int, completions: Iterable[int]) -> int:
        """A prompt computed once, completions of these lengths sampled after it, each token but the last fed back."""
        total = self.forward(prompt, 1, causal_pairs(prompt))
        for length in completions:
            fed = max(length - 1, 0)
            total += self.forward(fed, fed, causal_pairs(prompt + fed) - causal_pairs(prompt))
        return total


def causal_pairs(tokens: int) -> int:
    """Pairs (query, key) of a causal row, itself counted."""
    return tokens * (tokens + 1) // 2


def model_cost(model: PreTrainedModel) -> ModelCost:
    """The cost of a model, from its linear layers and its configuration."""
    head = model.get_output_embeddings()
    head_weights = head.weight.numel() if isinstance(head, nn.Linear) else 0
    linear = sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))
    config = model.config.get_text_config(decoder=True)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelCost(
        linear - head_weights, head_weights, config.num_hidden_layers * config.num_attention_heads * head_dim
    )
