"""One GRPO step of ours against TRL's on the same model, prompts, rewards and micro-batch limits, on one CPU thread.

    python benchmarks/grpo_step.py --peer trl

512 sequences (64 prompts × 8), at most 64 completion tokens, a Qwen2 of 2.2 million parameters in the proportions
of Qwen2-0.5B with random weights. Both sample at temperature 1, take one update a round and hold as many padded
tokens in a micro-batch. Rewards are a function of the text alone, the same for both. Times are CPU seconds of this
process, which on one thread are wall seconds of a quiet machine. Both take turns, since the machine's own speed drifts
over minutes, each turn a process of its own, since ours changes how its allocator works (`trainer.modeling.memory`),
which is
not TRL's to gain from. The first step of a turn does not count; of all others the median.

Cases: `training`: an EOS ends completions, mean length about half of the longest, and problems are solved at rates
spread as Beta(½, ½), so that some four groups of ten earn all 0 or all 1. `all signal`: every problem at rate ½,
so that nearly every row has a gradient. `full length`: likewise, and no completion ends before 64 tokens, so that
no row can leave early.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import polars as pl
import torch
import transformers
from transformers import AutoTokenizer, Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer, TrainerCallback

from evaluators.verdict import Outcome, Verdict
from tracekit.core.settings import build_settings
from tracekit.core.tables import PROBLEMS, write_table
from trainer.loops import policy
from trainer.loops import run_state as training
from trainer.rollouts import rewards, rollout
from trainer.settings import TrainSettings
from trainer.train import train

PROMPTS, GROUP, PROMPT_TOKENS, TOKENS = 64, 8, 24, 64
MICRO_ROWS = 64  # TRL's per_device_train_batch_size; ours holds as many padded tokens
VOCABULARY = 802
PARTS = ("step", "sampling", "forward and backward", "rest")


@dataclass(frozen=True)
class Case:
    """What is rolled out: the chance that a token ends a completion, and whether rates of solving are spread."""

    name: str
    end: float
    spread: bool


CASES = (Case("training", 0.03, True), Case("all signal", 0.03, False), Case("full length", 0.0, False))


def reward(case: Case, problem: str, response: str) -> float:
    """0 or 1 by checksums of the texts, 1 at the problem's rate of solving: Beta(½, ½) by its quantile, or ½."""
    rate = math.sin(math.pi / 2 * zlib.crc32(problem.encode()) / 2**32) ** 2 if case.spread else 0.5
    return float(zlib.crc32(response.encode()) / 2**32 < rate)


def make_tokenizer() -> tuple[Qwen2Tokenizer, list[str]]:
    """Qwen2's byte-level tokenizer with VOCABULARY tokens, and words that it makes one token of after a space."""
    rng = random.Random(0)
    words = sorted({"".join(rng.choice(letters) for letters in 2 * ("bdfgklmnprst", "aeiou")) for _ in range(400)})
    tokenizer = Qwen2Tokenizer().train_new_from_iterator([" ".join(words)] * 3, VOCABULARY, show_progress=False)
    return tokenizer, [word for word in words if len(tokenizer(f" {word}").input_ids) == 1]


def make_model(folder: Path, case: Case) -> Path:
    """A Qwen2 in the proportions of Qwen2-0.5B with random weights whose EOS has about the case's probability.

    The first coordinate of every embedding is the same, so the last state's is nearly constant and stands in for
    a bias of the EOS; embeddings are tied to the head.
    """
    tokenizer, _ = make_tokenizer()
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=192,
        intermediate_size=1024,
        num_hidden_layers=3,
        num_attention_heads=3,
        num_key_value_heads=1,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=None,
    )
    model = Qwen2ForCausalLM(config)
    offset = math.log(case.end * len(tokenizer)) if case.end else -20.0
    with torch.no_grad():
        embeddings = model.model.embed_tokens.weight
        embeddings[:, 0] = 1.0
        hidden = model.model(torch.arange(2, 66)[None]).last_hidden_state[0, :, 0].mean()
        embeddings[tokenizer.eos_token_id] = 0.0
        embeddings[tokenizer.eos_token_id, 0] = 1.0 + offset / hidden
    model.save_pretrained(folder)
    return folder


def problem_texts(count: int) -> list[str]:
    """Prompts of PROMPT_TOKENS random words."""
    rng, (_, words) = random.Random(0), make_tokenizer()
    return ["".join(f" {rng.choice(words)}" for _ in range(PROMPT_TOKENS)) for _ in range(count)]


def run_ours(model: Path, case: Case, steps: int, folder: Path) -> Measured:
    """Rounds of `trainer.train`, as a user runs it: metrics, completions and all."""
    texts = problem_texts(PROMPTS * steps)
    rows = [(str(number), text, text, "benchmark", "train", "", None) for number, text in enumerate(texts)]
    write_table(pl.DataFrame(rows, schema=PROBLEMS, orient="row"), folder / "problems.parquet", PROBLEMS)
    tree = {
        "method": "grpo",
        "model": str(model),
        "output": str(folder / "run"),
        "data": {"problems": str(folder / "problems.parquet"), "response_tokens": TOKENS},
        "steps": steps,
        "threads": 1,
        "rollout": {"prompts": PROMPTS, "mini_batch_prompts": PROMPTS, "group_size": GROUP},
        "engine": {"rows": PROMPTS * GROUP},
        "batch": {"micro_tokens": MICRO_ROWS * (PROMPT_TOKENS + TOKENS)},
        "checkpoint": {"every": 10_000},
    }

    def verdicts(responses: Sequence[str], golds: Sequence[str], **_: Any) -> list[Verdict]:
        right = [reward(case, problem, response) == 1 for problem, response in zip(golds, responses)]
        return [
            Verdict(Outcome.CORRECT if r else Outcome.WRONG, None, g, "benchmark", "") for r, g in zip(right, golds)
        ]

    measured = Measured()
    with (
        patched(rewards, "verify_batch", verdicts),
        measured.counting(rollout.GroupSampler, "_sample", "sampling"),
        measured.counting(policy, "accumulate", "forward and backward"),
    ):
        train(build_settings(TrainSettings, tree, "benchmark"), progress=lambda *_: measured.end_step())
    metrics = pl.read_parquet(folder / "run" / "metrics.parquet")
    measured.length = metrics["response_tokens"].mean()
    measured.rows_trained = metrics["rows_trained"].mean()
    return measured


def run_trl(model: Path, case: Case, steps: int, folder: Path) -> Measured:
    """The same steps by TRL's GRPOTrainer, without gradient checkpointing or anything else that costs it time."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    def rewards(prompts: list[str], completions: list[str], **_: Any) -> list[float]:
        return [reward(case, prompt, completion) for prompt, completion in zip(prompts, completions)]

    class Steps(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            measured.end_step()

    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=MICRO_ROWS,
        gradient_accumulation_steps=PROMPTS * GROUP // MICRO_ROWS,
        num_generations=GROUP,
        max_completion_length=TOKENS,
        temperature=1.0,
        loss_type="dr_grpo",
        scale_rewards="none",
        beta=0.0,
        max_steps=steps,
        learning_rate=1e-6,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        logging_steps=1,
        disable_tqdm=True,
    )
    measured = Measured()
    trainer = GRPOTrainer(
        model=Qwen2ForCausalLM.from_pretrained(model),
        args=config,
        train_dataset=Dataset.from_dict({"prompt": problem_texts(PROMPTS * steps)}),
        reward_funcs=rewards,
        processing_class=AutoTokenizer.from_pretrained(model),
        callbacks=[Steps()],
    )
    with (
        measured.counting(trainer, "training_step", "forward and backward"),
        measured.counting(trainer, "_generate_and_score_completions", "rest"),
        measured.counting(trainer, "_generate", "sampling"),
        silent(),
    ):
        trainer.train()
    history = trainer.state.log_history
    lengths = [entry["completions/mean_length"] for entry in history if "completions/mean_length" in entry]
    measured.length = statistics.mean(lengths)
    measured.rows_trained = float(PROMPTS * GROUP)
    return measured


class Measured:
    """CPU seconds of each step and of its parts; what is counted inside another part is taken out of that."""

    def __init__(self) -> None:
        self.steps: list[dict[str, float]] = []
        self.length = self.rows_trained = 0.0
        self._parts: dict[str, float] = defaultdict(float)
        self._open: list[float] = []
        self._started = time.process_time()

    def end_step(self) -> None:
        """Close a step; what no part took is its rest."""
        now = time.process_time()
        total = now - self._started
        self._parts["rest"] = total - sum(v for name, v in self._parts.items() if name != "rest")
        self.steps.append({**self._parts, "step": total})
        self._parts.clear()
        self._started = now

    @contextmanager
    def counting(self, owner: Any, name: str, part: str) -> Iterator[None]:
        """Count every call of owner.name into a part."""
        inner = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            started = time.process_time()
            self._open.append(0.0)
            try:
                return inner(*args, **kwargs)
            finally:
                spent = time.process_time() - started
                self._parts[part] += spent - self._open.pop()
                if self._open:
                    self._open[-1] += spent

        with patched(owner, name, counted):
            yield

    def report(self) -> dict[str, Any]:
        """What counts: the steps after the first, which loads and warms, the mean length, the rows trained."""
        return {"steps": self.steps[1:], "length": self.length, "rows": self.rows_trained}


@contextmanager
def patched(owner: Any, name: str, value: Any) -> Iterator[None]:
    """owner.name is `value` inside."""
    old = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, old)


@contextmanager
def silent() -> Iterator[None]:
    """TRL prints a dictionary a step."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def run_turn(side: str, case: Case, arguments: argparse.Namespace) -> dict[str, Any]:
    """One turn of a side in a process of its own: what `Measured.report` says."""
    command = [sys.executable, __file__, "--one", side, "--cases", case.name, "--steps", str(arguments.steps)]
    command += ["--give-back"] * arguments.give_back
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def run_one(side: str, case: Case, arguments: argparse.Namespace) -> None:
    """The turn itself: prints its report as JSON."""
    if arguments.give_back:
        training.keep_freed_memory = lambda: None
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as scratch:
        base = make_model(Path(scratch) / "model", case)
        run = {"ours": run_ours, "TRL": run_trl}[side]
        print(json.dumps(run(base, case, arguments.steps + 1, Path(scratch)).report()))


def medians(turns: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Median seconds of each part over the steps of all turns."""
    steps = [step for turn in turns for step in turn["steps"]]
    return {part: statistics.median(step.get(part, 0.0) for step in steps) for part in PARTS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--peer", choices=["trl"], default="trl")
    parser.add_argument("--turns", type=int, default=3, help="how often each of the two runs a case")
    parser.add_argument("--steps", type=int, default=2, help="of a turn, after the first, which is not counted")
    parser.add_argument("--give-back", action="store_true", help="leave ours the allocator as it is by default")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], default=[c.name for c in CASES])
    parser.add_argument("--one", choices=["ours", "TRL"], help="one turn of this side in this process")
    arguments = parser.parse_args()
    cases = [case for case in CASES if case.name in arguments.cases]
    if arguments.one:
        run_one(arguments.one, cases[0], arguments)
        return
    print(
        f"torch {torch.__version__}, transformers {transformers.__version__}, trl {metadata.version('trl')}, one thread"
    )
    print("| case | mean tokens | of | step s | sampling | forward, backward | rest | rows trained |")
    print("|---|---|---|---|---|---|---|---|")
    for case in cases:
        turns = [{side: run_turn(side, case, arguments) for side in ("TRL", "ours")} for _ in range(arguments.turns)]
        seconds = {side: medians([turn[side] for turn in turns]) for side in ("ours", "TRL")}
        for side, found in seconds.items():
            parts = " | ".join(f"{found[part]:.2f}" for part in PARTS)
            last = turns[-1][side]
            print(f"| {case.name} | {last['length']:.1f} | {side} | {parts} | {last['rows']:.0f} |")
        ratios = " | ".join(f"{seconds['TRL'][part] / max(seconds['ours'][part], 1e-9):.2f} ×" for part in PARTS)
        print(f"| {case.name} | | ratio | {ratios} | |", flush=True)


if __name__ == "__main__":
    main()
