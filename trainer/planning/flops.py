"""Floating-point operations by formula: what a run spends, without counting on the device.

Forward: 2 for each weight of a matrix product and token, and 4 · heads · head_dim for each pair of tokens that
attention compares (scores and weighted sum) in each layer; backward twice that (Kaplan et al. 2020, arXiv 2001.08361,
section 2.1, with attention kept). Checked against torch's own counter by `benchmarks/cost_model.py`.

Left out: what is no matrix product (norms, softmax, activations, the optimizer), a few percent of a large model.
Counted too high: layers with a sliding window, as if they saw everything, and frozen weights (LoRA), as if they had
gradients, which makes up to a third of an update. Not covered: layers without attention (state space, linear
attention) and attention through a latent of its own width (MLA), whose pairs cost something else.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

BACKWARD = 2  # forwards that a backward pass costs

#: What configurations call the number of experts of a layer, and of those that a token passes through.
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
ACTIVE_EXPERTS = "num_experts_per_tok"


@dataclass(frozen=True, slots=True)
class Again:
    """What a backward pass computes a second time: the layers (gradient checkpointing; a little less in truth, since
    torch stops at the last product whose result it needs), and the head where log-probs are made chunk by chunk
    (`trainer.modeling.log_probs`)."""

    body: bool = False
    head: bool = False


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

    def update(self, tokens: int, scored: int, pairs: int, again: Again = Again()) -> int:
        """FLOPs of a forward and a backward pass."""
        total = (1 + BACKWARD) * self.forward(tokens, scored, pairs)
        return total + self.forward(again.body * tokens, again.head * scored, again.body * pairs)

    def training(self, rows: Iterable[tuple[int, int]], again: Again = Again()) -> int:
        """Forward and backward of rows given as (tokens, scored tokens)."""
        return sum(self.update(n, scored, causal_pairs(n), again) for n, scored in rows)

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
    """The cost of a model with any number of key and value heads, tied or untied embeddings, dense or of experts.

    Counted are its matrices, embeddings apart; of stacked experts those that a token passes through.
    """
    head = model.get_output_embeddings()
    head_weight = head.weight if isinstance(head, nn.Linear) else None
    config = model.config.get_text_config(decoder=True)
    body = 0
    for module in model.modules():
        if not isinstance(module, nn.Embedding):
            own = (weight for weight in module.parameters(recurse=False) if weight is not head_weight)
            body += sum(_multiplied(weight, config) for weight in own)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    attention = config.num_hidden_layers * config.num_attention_heads * head_dim
    return ModelCost(body, 0 if head_weight is None else head_weight.numel(), attention)


def config_cost(config: PreTrainedConfig) -> ModelCost:
    """The cost of a model that a configuration describes; no weight is made."""
    return model_cost(empty_model(config))


def empty_model(config: PreTrainedConfig) -> PreTrainedModel:
    """The causal LM of a configuration on torch's meta device: shapes without memory."""
    with torch.device("meta"):
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config)
    return model


def _multiplied(weight: torch.Tensor, config: PreTrainedConfig) -> int:
    """Numbers of a weight that each token is multiplied with."""
    if weight.ndim == 2:
        return weight.numel()
    experts = next((found for name in EXPERTS if (found := getattr(config, name, None))), None)
    if weight.ndim == 3 and weight.shape[0] == experts:
        return weight.numel() * int(getattr(config, ACTIVE_EXPERTS)) // experts
    return 0  # norms, biases, convolutions
