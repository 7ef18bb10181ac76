"""What a rollout engine is: it samples completions with their log-probs, and it takes new weights."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch


@dataclass(frozen=True, slots=True)
class Sampling:
    """How completions are drawn.

    temperature: 0 is greedy. top_p: (0, 1]. top_k: 0 keeps every token. max_tokens: longest completion,
    EOS counted. seed: same seed, same engine, same weights, same completions. stop_token_ids: each ends a
    completion and stays in it. seeds: one a prompt, in place of `seed`: what a prompt is answered depends on its own
    seed alone, and not on its place in the call.
    """

    max_tokens: int
    stop_token_ids: tuple[int, ...]
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rollout:
    """One sampled completion.

    token_ids: the completion's tokens, the stop token included where it ended by itself.
    log_probs: natural log-probability of each token in the distribution it was sampled from
    (temperature, top-p and top-k applied; for a greedy completion: at temperature 1).
    finish_reason: "stop" or "length".
    """

    token_ids: list[int]
    log_probs: list[float]
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """Samples completions for prompts given as token ids, unpadded.

    exact: its log-probs are those of the trainer's forward pass, to rounding. live: it samples from the
    trainer's own weights, so that `load_weights` has nothing to do after an update.
    """

    exact: bool
    live: bool

    def generate(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling) -> list[list[Rollout]]:
        """`n` rollouts for each prompt, in the order of `prompts`."""
        ...

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Take new weights: (name as in the Hugging Face state dict, full tensor) pairs, all of them."""
        ...

    def rest(self) -> bool:
        """Give memory back until the next round. True where the weights are gone: load them before `generate`."""
        ...

    def close(self) -> None:
        """Free what the engine holds: processes, device memory, sockets."""
        ...
