"""Sampling by the embedded engine against `model.generate`: the same model, prompts and temperature, on one CPU thread.

    python benchmarks/sampling.py

512 completions (64 prompts × 8, of 16 to 24 tokens) of at most 64 tokens, a Qwen2 of 2.2 million parameters with random
weights: ours as the trainer loads it, the other as transformers does. Both in one batch. Tokens count up to and with
the EOS. Times are CPU seconds of this process, the best of `--repeats` turns taken in alternation. Greedy completions
are compared token by token.

Cases: an EOS ends completions after 29 tokens in the mean (`natural EOS`), or never (`full length`).
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from importlib import metadata
from pathlib import Path

import torch
from grpo_step import CASES, GROUP, PROMPTS, TOKENS, VOCABULARY, Case, make_model
from transformers import PreTrainedModel, Qwen2ForCausalLM

from trainer.modeling.models import load_model
from trainer.rollouts.engines.embedded import EmbeddedEngine
from trainer.rollouts.engines.protocol import Sampling

EOS = PAD = 0
Ids = list[list[int]]


def make_prompts() -> Ids:
    """Of 16 to 24 random tokens."""
    rng = random.Random(0)
    return [[rng.randrange(1, VOCABULARY) for _ in range(rng.randint(16, 24))] for _ in range(PROMPTS)]


def by_generate(model: PreTrainedModel, prompts: Ids, n: int, temperature: float) -> Ids:
    """Completions by transformers, cut after the EOS."""
    width = max(map(len, prompts))
    ids = torch.tensor([[PAD] * (width - len(p)) + p for p in prompts]).repeat_interleave(n, 0)
    seen = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts]).repeat_interleave(n, 0)
    how = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
    with torch.inference_mode():
        found = model.generate(ids, attention_mask=seen, max_new_tokens=TOKENS, pad_token_id=PAD, **how)
    rows = found[:, width:].tolist()
    return [row[: row.index(EOS) + 1] if EOS in row else row for row in rows]


def by_engine(model: PreTrainedModel, prompts: Ids, n: int, temperature: float) -> Ids:
    """Completions by the embedded engine."""
    engine = EmbeddedEngine(model, rows=PROMPTS * GROUP)
    found = engine.generate(prompts, n, Sampling(TOKENS, (EOS,), temperature=temperature))
    return [rollout.token_ids for own in found for rollout in own]


def measure(name: str, case: Case, repeats: int) -> None:
    """One case, printed as rows of a table."""
    with tempfile.TemporaryDirectory() as folder:
        saved = make_model(Path(folder), case)
        models = {by_engine: load_model(saved), by_generate: Qwen2ForCausalLM.from_pretrained(saved).eval()}
    prompts, best, means = make_prompts(), {}, {}
    for _ in range(repeats):
        for sample in (by_engine, by_generate):
            started = time.process_time()
            rows = sample(models[sample], prompts, GROUP, 1.0)
            tokens = sum(map(len, rows))
            best[sample] = max(best.get(sample, 0.0), tokens / (time.process_time() - started))
            means[sample] = tokens / len(rows)
    greedy = [sample(models[sample], prompts, 1, 0.0) for sample in (by_engine, by_generate)]
    same = sum(a == b for a, b in zip(*greedy))
    ratio = best[by_engine] / best[by_generate]
    print(
        f"| {name} | {means[by_engine]:.1f} | {best[by_engine]:,.0f} | {means[by_generate]:.1f} "
        f"| {best[by_generate]:,.0f} | {ratio:.2f} × | {same} of {len(prompts)} |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(", ".join([*(f"{p} {metadata.version(p)}" for p in ("torch", "transformers")), "one thread"]))
    print("| case | mean tokens | engine tokens/s | mean tokens | generate tokens/s | ratio | greedy the same |")
    print("|---|---|---|---|---|---|---|")
    for name, case in {"natural EOS": CASES[0], "full length": CASES[2]}.items():
        measure(name, case, arguments.repeats)


if __name__ == "__main__":
    main()
