"""What training moved that it was not asked to move: loss on the families `!` and `:`, and the KL from the base."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import polars as pl
import torch

from tracekit.core.models import open_model, open_tokenizer
from tracekit.study.tasks.chains import LOG, REVERSE, World, draw_chain, read_chain, work
from tracekit.study.tasks.corpus import direct_answer, reversed_slots

DOCUMENTS = 256  # of each family


@torch.no_grad()
def measure_forgetting(
    model: Path, base: Path, problems: pl.DataFrame, world: World, seed: int
) -> dict[str, float | None]:
    """loss_reversed, loss_logs: nats a token of the responses of `!` and `:`. kl: see `divergence`.

    loss_reversed is None where the world has no family `!`.
    """
    rng = random.Random(f"forgetting/{seed}")
    tokenizer = open_tokenizer(model)
    network, before = (open_model(folder).eval() for folder in (model, base))
    chains = [draw_chain(rng, world, rng.choice(world.train_lengths)) for _ in range(DOCUMENTS)]
    logs = [(chain.text(LOG), work(rng, world, chain, wrong=0.0)) for chain in chains]
    reversed_ = [(chain.text(REVERSE), reversed_slots(chain)) for chain in chains]
    answers = [(text, direct_answer(rng, world, read_chain(text))) for text in problems["problem"]]
    return {
        "loss_reversed": _loss(network, tokenizer, reversed_) if world.reversed_share else None,
        "loss_logs": _loss(network, tokenizer, logs),
        "kl": divergence(before, network, tokenizer, answers),
    }


def divergence(
    base: torch.nn.Module, model: torch.nn.Module, tokenizer: object, documents: Sequence[tuple[str, str]]
) -> float:
    """KL(base ‖ model) in nats a token of the response, summed over the vocabulary at each position.

    The positions are those of direct answers under the question, which is how the base answers.
    """
    total, count = 0.0, 0
    for ids, response in _batches(tokenizer, documents):
        first, second = (network(ids).logits[:, -response - 1 : -1].log_softmax(-1) for network in (base, model))
        kl = (first.exp() * (first - second)).sum(-1)
        total, count = total + float(kl.sum()), count + kl.numel()
    return total / count


def _loss(network: torch.nn.Module, tokenizer: object, documents: Sequence[tuple[str, str]]) -> float:
    total, count = 0.0, 0
    for ids, response in _batches(tokenizer, documents):
        log_probs = network(ids).logits[:, -response - 1 : -1].log_softmax(-1)
        scored = log_probs.gather(-1, ids[:, -response:, None])
        total, count = total - float(scored.sum()), count + scored.numel()
    return total / count


def _batches(tokenizer: object, documents: Sequence[tuple[str, str]]) -> list[tuple[torch.Tensor, int]]:
    """Documents of one shape together: token ids, BOS first and EOS last, and the length of the response with EOS."""
    by_shape: dict[tuple[int, int], list[list[int]]] = {}
    for problem, response in documents:
        asked, answer = (tokenizer(part, add_special_tokens=False)["input_ids"] for part in (problem, response))  # type: ignore[operator]
        row = [tokenizer.bos_token_id, *asked, *answer, tokenizer.eos_token_id]  # type: ignore[attr-defined]
        by_shape.setdefault((len(row), len(answer) + 1), []).append(row)
    return [(torch.tensor(rows), response) for (_, response), rows in by_shape.items()]
