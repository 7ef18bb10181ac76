"""The base's atomic skill: the result of one step, given all that comes before it, at every chain length."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path

import torch

from tracekit.core.models import open_model, open_tokenizer
from tracekit.core.runs import write_text
from tracekit.study.tasks.chains import LOG, QUESTION, World, draw_chain

CHAINS = 128  # of each length and form: the standard error at 95 % of a length's 128 × length steps is below 1 %


def measure_skill(model: Path, world: World, seed: int, folder: Path) -> dict[str, float]:
    """Share of steps whose result the model puts first, teacher-forced; by form and length, into skill.json.

    Keys: ": 4" for worked logs of four steps, "? 4" for four under the question; "least" over the logs, "elicited"
    over those under the question. The logs are where the base was taught its steps: they say what it can do. What it
    does with a step under a question, where it has seen few, is a part of its habit, which a study varies.
    """
    rng = random.Random(f"skill/{seed}")
    tokenizer = open_tokenizer(model)
    network = open_model(model, dtype="auto").eval()
    lengths = range(1, max((*world.train_lengths, *world.long_lengths)) + 1)
    found = {
        f"{mark} {length}": _forced_accuracy(network, tokenizer, _worked(rng, world, length, mark), length)
        for mark in (QUESTION, LOG)
        for length in lengths
    }
    forced = dict(found)
    for name, mark in (("least", LOG), ("elicited", QUESTION)):
        found[name] = min(share for form, share in forced.items() if form.startswith(mark))
    write_text(folder / "skill.json", json.dumps(found, indent=1))
    return found


def _worked(rng: random.Random, world: World, length: int, mark: str) -> list[str]:
    documents = []
    for _ in range(CHAINS):
        chain = draw_chain(rng, world, length)
        values = chain.values(world.modulus)[1:]
        steps = (f"{o.label} {o.token} {v}" for o, v in zip(chain.operations, values))
        documents.append(f"{chain.text(mark)} {' '.join(steps)}")
    return documents


@torch.no_grad()
def _forced_accuracy(network: torch.nn.Module, tokenizer: object, documents: Sequence[str], length: int) -> float:
    rows = [[tokenizer.bos_token_id, *tokenizer(d, add_special_tokens=False)["input_ids"]] for d in documents]  # type: ignore[attr-defined, operator]
    ids = torch.tensor(rows)  # (chains, tokens): chains of one length have one number of tokens
    predicted = network(input_ids=ids).logits.argmax(-1)  # (chains, tokens)
    before = 2 * length + 3  # BOS, start value, slots, mark
    results = torch.tensor([before + 3 * step + 2 for step in range(length)])
    return float((predicted[:, results - 1] == ids[:, results]).float().mean())
