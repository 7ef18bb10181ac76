"""From logits to a token and its log-probability."""

from __future__ import annotations

import torch
from torch import Tensor

from trainer.rollouts.engines.protocol import Sampling


def choose(logits: Tensor, sampling: Sampling, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """The next token of each row and its log-probability in the distribution it is drawn from: two (rows,).

    logits: (rows, V) in float32. uniform: (rows,) in [0, 1), inverted through the cumulative distribution.
    Temperature 0 takes the likeliest token; its log-probability is at temperature 1.
    """
    if sampling.temperature == 0:
        token = logits.argmax(-1)
        return token, _taken(logits.log_softmax(-1), token)
    if sampling.temperature != 1.0:
        logits = logits / sampling.temperature
    if sampling.top_k:
        logits = keep_top_k(logits, sampling.top_k)
    if sampling.top_p < 1.0:
        logits = keep_top_p(logits, sampling.top_p)
    log_probs = logits.log_softmax(-1)
    token = invert(log_probs.exp(), uniform)
    return token, _taken(log_probs, token)


def keep_top_k(logits: Tensor, k: int) -> Tensor:
    """Minus infinity outside the k likeliest tokens of a row; ties with the k-th stay."""
    if k >= logits.shape[-1]:
        return logits
    smallest = logits.topk(k, dim=-1).values[:, -1:]
    return logits.masked_fill(logits < smallest, float("-inf"))


def keep_top_p(logits: Tensor, p: float) -> Tensor:
    """Minus infinity outside the smallest set of likeliest tokens whose probability reaches p."""
    ordered, places = logits.sort(dim=-1, descending=True)
    probabilities = ordered.softmax(-1)
    before = probabilities.cumsum(-1) - probabilities
    ordered = ordered.masked_fill(before >= p, float("-inf"))
    return torch.empty_like(logits).scatter_(-1, places, ordered)


def invert(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """The first token whose cumulative probability exceeds uniform · total: (rows, V), (rows,) → (rows,).

    The threshold stays below the total, so rounding never reaches past the last token of positive probability.
    """
    cumulative = probabilities.cumsum(-1)
    total = cumulative[:, -1]
    threshold = torch.minimum(uniform * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, threshold[:, None], right=True).squeeze(-1)


def _taken(log_probs: Tensor, token: Tensor) -> Tensor:
    return log_probs.gather(-1, token[:, None]).squeeze(-1)


def seed_of_prompt(sampling: Sampling, place: int, n: int) -> int:
    """Seed of the prompt at `place`, in [0, 2⁶³); an engine that seeds the n samples of a prompt by seed, seed + 1, …
    then gives no two samples of a batch the same."""
    if sampling.seeds:
        return sampling.seeds[place]
    return (sampling.seed + place * n) % (1 << 63)
