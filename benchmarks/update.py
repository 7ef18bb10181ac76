"""One policy update: length-sorted token-budget micro-batches that leave out rows without gradient, against padded.

    python benchmarks/update.py

The same model, rows, loss and budget of tokens a forward pass. Padded: rows as they come, each as long as the longest
of the batch. Ours: the trainer's own update. Rewards are drawn for 64 problems whose solve rates are spread as
Beta(½, ½), 8 rows each, so some 40 % of the groups are all right or all wrong; response lengths are
log-normal, cut at the limit. Time is one thread's own, so that other work on the machine does not count. Prints
each of the two parts alone, both, and the gradients' difference.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tracekit.core.settings import build_settings
from tracekit.study.tasks.world import World, write_tokenizer
from trainer.data.sequences import Batch, Row, collate, micro_batches
from trainer.loops.checkpoint import LoopState
from trainer.loops.optimization import make_optimizer
from trainer.loops.policy import accumulate, totals_of, with_gradient
from trainer.loops.run_log import Averages
from trainer.loops.run_state import Training
from trainer.modeling import models
from trainer.modeling.models import TokenScorer
from trainer.objectives.advantage import centred
from trainer.objectives.loss_from_settings import PolicyLoss, Totals, policy_loss
from trainer.settings import TrainSettings

GROUPS, GROUP_SIZE, PROMPT, LONGEST = 64, 8, 16, 192
BUDGET = 4096


def draw_rows(seed: int, vocabulary: int) -> list[Row]:
    """512 rows in the order of their groups, with their advantages."""
    rng = random.Random(seed)
    rewards, rows = [], []
    for _ in range(GROUPS):
        rate = rng.betavariate(0.5, 0.5)
        for _ in range(GROUP_SIZE):
            length = min(max(2, round(rng.lognormvariate(math.log(48), 0.6))), LONGEST)
            rewards.append(float(rng.random() < rate))
            rows.append(Row([rng.randrange(3, vocabulary) for _ in range(PROMPT + length)], PROMPT))
    group = torch.arange(GROUPS).repeat_interleave(GROUP_SIZE)
    advantages = centred(torch.tensor(rewards), group, torch.ones(len(rows), dtype=torch.bool))
    return [Row(row.token_ids, PROMPT, advantage=a) for row, a in zip(rows, advantages.tolist())]


def padded(rows: Sequence[Row], scorer: TokenScorer, loss_of: PolicyLoss, totals: Totals) -> None:
    """Every row in order, as long as the longest of all; as many rows a forward pass as the budget holds."""
    longest = max(len(row.token_ids) for row in rows)
    for start in range(0, len(rows), BUDGET // longest):
        batch = collate([*rows[start : start + BUDGET // longest], Row([0] * longest, longest)], 0)
        kept = slice(0, -1)  # the last row is there for its length alone
        parts: dict[str, Any] = {}
        for name in Batch.__slots__:
            part = getattr(batch, name)
            parts[name] = None if part is None else part[kept]
        batch = Batch(**parts)
        log_prob, entropy = scorer(batch.input_ids, batch.completion_mask)
        loss, _ = loss_of(batch, log_prob, entropy, totals)
        loss.backward()  # type: ignore[no-untyped-call]


def gradient(model: torch.nn.Module) -> Tensor:
    """All gradients in a row; they are cleared."""
    found = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad(set_to_none=True)
    return found


def open_training(folder: Path) -> Training:
    """A small model and what the trainer's update needs around it."""
    tree = {
        "method": "grpo",
        "output": folder,
        "new_model": {"tokenizer": write_tokenizer(World(), folder / "tokenizer"), "hidden_size": 128, "layers": 3},
        "data": {"problems": folder / "unused", "response_tokens": LONGEST},
        "batch": {"micro_tokens": BUDGET},
        "device": "cpu",
    }
    settings = build_settings(TrainSettings, tree, "benchmark")
    torch.manual_seed(0)
    model, tokenizer = models.load(settings)
    optimizer = make_optimizer(model, settings.optimizer)
    scorer = TokenScorer(model)
    return Training(
        settings,
        folder,
        torch.device("cpu"),
        model,
        tokenizer,
        optimizer,
        LoopState(0),
        scorer,
        (int(tokenizer.eos_token_id),),
    )


def main() -> int:
    """Print the table; 1 where the gradients differ by more than 1e-5 or both parts together gain less than 1.8."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=5)
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        training = open_training(Path(folder))
    scorer, loss_of = TokenScorer(training.model), policy_loss(training.settings)
    rows = draw_rows(0, len(training.tokenizer))
    totals = totals_of(rows, training.settings)
    acting = with_gradient(rows, training.settings)

    def budgeted(chosen: Sequence[Row]) -> None:
        accumulate(training, scorer, loss_of, chosen, totals, Averages())

    ways: dict[str, Callable[[], None]] = {
        "padded": lambda: padded(rows, scorer, loss_of, totals),
        "padded, zero advantage left out": lambda: padded(acting, scorer, loss_of, totals),
        "token budget": lambda: budgeted(rows),
        "token budget, zero advantage left out": lambda: budgeted(acting),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    gradients = {}
    for _ in range(repeats + 1):  # the first round warms up
        for name, way in ways.items():
            started = time.process_time()
            way()
            seconds[name].append(time.process_time() - started)
            gradients[name] = gradient(training.model)
    parameters = sum(parameter.numel() for parameter in training.model.parameters())
    lengths = [len(row.token_ids) for row in rows]
    places = sum(len(m) * max(lengths[i] for i in m) for m in micro_batches(lengths, BUDGET))
    print(
        f"{len(rows)} rows of {min(lengths)} to {max(lengths)} tokens, mean {statistics.fmean(lengths):.0f}; ", end=""
    )
    print(f"{len(acting)} have an advantage; {parameters / 1e6:.1f} M parameters, one thread")
    print(f"places computed: padded {len(rows) * max(lengths):,}, token budget {places:,}, tokens {sum(lengths):,}")
    reference, base = gradients["padded"], statistics.median(seconds["padded"][1:])
    worst, ratio = 0.0, 0.0
    for name in ways:
        off = float((gradients[name] - reference).abs().max() / reference.abs().max())
        median = statistics.median(seconds[name][1:])
        worst, ratio = max(worst, off), base / median
        print(f"{name:<40} {median:6.2f} s   {ratio:5.2f} ×   gradient off by {off:.1e}")
    return int(worst > 1e-5 or ratio < 1.8)


if __name__ == "__main__":
    sys.exit(main())
