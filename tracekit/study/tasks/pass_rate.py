"""The base's pass rate under the question, estimated far below one in the number of samples.

    P(right) = Σ_t P(first token is t) · P(right | first token is t)

The first factor is read from the model. The second is sampled for each label t, with t forced; where the first token
opens the box, the chance of the right answer is the product of its tokens' probabilities. Other first tokens are
counted as never right, with their probability beside, so that the estimate says what it may miss. A stratum's standard
error is that of its mean over problems, times its probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
import torch

from tracekit.core.models import open_model, open_tokenizer
from tracekit.study.tasks.chains import BOX_OPEN, LABELS, World, asked_of, box, read_chain

ROWS = 2048  # completions sampled at once


@dataclass(frozen=True, slots=True)
class PassRate:
    """Rates of a base over problems of the question.

    worked: P(right, and the first token is a label). guessed: P(right, and the first token opens the box).
    first: P(the first token is the first label), the teacher's. unseen: P(any other first token).
    """

    worked: float
    worked_error: float
    guessed: float
    first: float
    unseen: float
    samples: int

    @property
    def total(self) -> float:
        """P(right) but for what `unseen` may add."""
        return self.worked + self.guessed


@torch.no_grad()
def measure_pass_rate(model: str | Path, problems: pl.DataFrame, world: World, samples: int, seed: int) -> PassRate:
    """Measure with `samples` forced completions in all, spread evenly over problems and labels.

    problems: PROBLEMS of the world. The same seed gives the same rate.
    """
    tokenizer = open_tokenizer(model)
    network = open_model(model).eval()
    chains = [read_chain(text) for text in problems["problem"]]
    answers = [box(asked_of(world, chain.values(world.modulus))) for chain in chains]
    firsts: list[list[float]] = []
    guesses: list[float] = []
    unseen: list[float] = []
    strata = [(row, label) for row, chain in enumerate(chains) for label in LABELS[: len(chain.operations)]]
    each = max(1, math.ceil(samples / len(strata)))
    generator = torch.Generator().manual_seed(seed)
    opened = tokenizer.convert_tokens_to_ids(BOX_OPEN)
    for chain, text, answer in zip(chains, problems["problem"], answers):
        prompt = [tokenizer.bos_token_id, *_ids(tokenizer, text)]
        response = [*_ids(tokenizer, answer), tokenizer.eos_token_id]
        log_probs = network(torch.tensor([prompt + response])).logits[0].log_softmax(-1)
        first = log_probs[len(prompt) - 1].exp()
        labels = torch.tensor([tokenizer.convert_tokens_to_ids(o.label) for o in chain.operations])
        firsts.append(first[labels].tolist())
        unseen.append(float(1 - first[labels].sum() - first[opened]))
        scored = log_probs[len(prompt) - 1 : -1].gather(-1, torch.tensor(response)[:, None])
        guesses.append(float(scored.sum().exp()))
    shares = _forced_shares(network, tokenizer, problems["problem"].to_list(), answers, strata, each, generator)
    by_problem = [0.0] * len(chains)
    for (row, label), share in zip(strata, shares):
        by_problem[row] += firsts[row][LABELS.index(label)] * share
    rates = torch.tensor(by_problem, dtype=torch.float64)
    error = float(rates.std() / math.sqrt(len(rates))) if len(rates) > 1 else float("nan")
    return PassRate(
        worked=float(rates.mean()),
        worked_error=error,
        guessed=sum(guesses) / len(guesses),
        first=sum(probabilities[0] for probabilities in firsts) / len(firsts),
        unseen=sum(unseen) / len(unseen),
        samples=each * len(strata),
    )


@torch.no_grad()
def first_token_rate(model: str | Path, problems: pl.DataFrame) -> float:
    """Mean probability of the first label, with which the teacher begins, under the question."""
    tokenizer = open_tokenizer(model)
    network = open_model(model).eval()
    label = tokenizer.convert_tokens_to_ids(LABELS[0])
    rates = []
    for text in problems["problem"]:
        prompt = torch.tensor([[tokenizer.bos_token_id, *_ids(tokenizer, text)]])
        rates.append(float(network(prompt).logits[0, -1].softmax(-1)[label]))
    return sum(rates) / len(rates)


def _ids(tokenizer: object, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])  # type: ignore[operator]


def _forced_shares(
    network: torch.nn.Module,
    tokenizer: object,
    texts: Sequence[str],
    answers: Sequence[str],
    strata: Sequence[tuple[int, str]],
    each: int,
    generator: torch.Generator,
) -> list[float]:
    """Share of right completions of each stratum: a problem, and the label that its response begins with."""
    prompts = [
        [tokenizer.bos_token_id, *_ids(tokenizer, f"{texts[row]} {label}")]  # type: ignore[attr-defined]
        for row, label in strata
    ]
    wanted = [_ids(tokenizer, answers[row]) for row, _ in strata]
    right = [0] * len(strata)
    by_length: dict[int, list[int]] = {}
    for number, prompt in enumerate(prompts):
        by_length.setdefault(len(prompt), []).extend([number] * each)
    for rows in by_length.values():
        for begin in range(0, len(rows), ROWS):
            batch = rows[begin : begin + ROWS]
            longest = 4 * max(len(texts[strata[n][0]].split()) for n in batch)
            sampled = _sample(network, tokenizer, [prompts[n] for n in batch], longest, generator)
            for number, tokens in zip(batch, sampled):
                right[number] += ends_with(tokens, wanted[number])
    return [count / each for count in right]


def ends_with(tokens: Sequence[int], answer: Sequence[int]) -> bool:
    """Whether a response ends with the answer."""
    return len(tokens) >= len(answer) and list(tokens[-len(answer) :]) == list(answer)


def _sample(
    network: torch.nn.Module,
    tokenizer: object,
    prompts: Sequence[Sequence[int]],
    longest: int,
    generator: torch.Generator,
) -> list[list[int]]:
    """One completion at temperature 1 of each prompt; prompts have one length. EOS is left out; cut ones stay cut."""
    ids, cache = torch.tensor(prompts), None
    end = tokenizer.eos_token_id  # type: ignore[attr-defined]
    open_rows = torch.arange(len(ids))
    written: list[list[int]] = [[] for _ in prompts]
    for _ in range(longest):
        output = network(input_ids=ids, past_key_values=cache, use_cache=True)
        cache = output.past_key_values
        drawn = torch.multinomial(output.logits[:, -1].softmax(-1), 1, generator=generator)
        going = drawn[:, 0] != end
        for row, token in zip(open_rows[going].tolist(), drawn[going, 0].tolist()):
            written[row].append(token)
        if not bool(going.any()):
            break
        if not bool(going.all()):
            open_rows, drawn = open_rows[going], drawn[going]
            cache.batch_select_indices(going.nonzero()[:, 0])
        ids = drawn
    return written
