"""The cost model against torch's counter, against seconds on this machine, and beside the costs that LUFFY tells.

    python benchmarks/cost_model.py [--only counter,seconds,paper]

Counter: FLOPs by formula (`trainer.planning.flops`) over what `torch.utils.flop_counter` counts, for forward,
forward with
backward, and a whole run of one GRPO round, at three sizes. On a CPU the counter leaves things out: SDPA's kernel,
so attention is eager here, all pairs of tokens of which causal kernels compute half; and products added in place or
made by oneDNN, which it is taught.

Seconds: what `trainer.planning.estimate` says of a run on one thread, whose peak is measured by a matrix product,
over the CPU
seconds that the run takes.

Paper: hours by the formulas for Qwen2.5-Math on 8 GPUs, and which mean length of responses would give the paper's.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedConfig, Qwen2Config

from tracekit.core.recipes import find_recipe
from tracekit.core.settings import build_settings, load_settings
from tracekit.core.tables import CURATED
from tracekit.study.tasks.world import World, make_problems, teach, write_tokenizer
from trainer.modeling.models import load_tokenizer, new_config
from trainer.planning.estimate import HARDWARE, HOUR, Estimate, Hardware, Workload, estimate
from trainer.planning.flops import model_cost
from trainer.planning.plan import measured
from trainer.settings import TrainSettings
from trainer.train import train

#: hidden, layers, heads, key and value heads
SIZES = ((64, 2, 4, 4), (128, 4, 4, 2), (256, 6, 8, 2))
ROWS, LENGTH = 4, 64
NAMES: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None}

#: Qwen2.5-Math's published configurations.
QWEN = {
    "1.5B": Qwen2Config(
        vocab_size=151_936, hidden_size=1536, num_hidden_layers=28, num_attention_heads=12, num_key_value_heads=2,
        intermediate_size=8960, tie_word_embeddings=True, **NAMES,
    ),
    "7B": Qwen2Config(
        vocab_size=152_064, hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
        intermediate_size=18_944, tie_word_embeddings=False, **NAMES,
    ),
}  # fmt: skip

#: Hours on 8 GPUs that the paper tells for Qwen2.5-Math-7B (Yan et al. 2025, arXiv 2504.14945).
PAPER = {"luffy": 77, "sft": 24, "sft_grpo": 130, "rl_sft": 133}


def counter() -> FlopCounterMode:
    """torch's counter, taught the product that is added in place, and oneDNN's (`trainer.modeling.linear`)."""
    taught = {torch.ops.aten.addmm_: _multiply_added, torch.ops.mkldnn._linear_pointwise: _by_onednn}
    return FlopCounterMode(display=False, custom_mapping=taught)


def _by_onednn(left: Sequence[int], right: Sequence[int], *_: Any, **__: Any) -> int:
    return 2 * math.prod(left) * right[0]


def _multiply_added(into: Any, left: Sequence[int], right: Sequence[int], **_: Any) -> int:
    return 2 * left[0] * left[1] * right[1]


def counted(call: Callable[[], Any]) -> int:
    """FLOPs of a call as the counter sees them."""
    with counter() as found:
        call()
    return int(found.get_total_flops())


def write_world(folder: Path) -> None:
    """The embedded world's tokenizer, problems and teacher traces."""
    world = World()
    write_tokenizer(world, folder / "tokenizer")
    problems = make_problems(world, "train", 64, 0)
    problems.write_parquet(folder / "problems.parquet")
    traces = teach(world, problems, 0).join(problems, on="problem_id").with_columns(correct=pl.lit(True))
    traces.select(CURATED.keys()).write_parquet(folder / "curated.parquet")


def recipe(folder: Path, output: str, method: str, size: Sequence[int], **changes: Any) -> TrainSettings:
    """A run over the world at one of SIZES."""
    hidden, layers, heads, kv_heads = size
    tree = {
        "method": method,
        "output": folder / output,
        "new_model": {
            "tokenizer": folder / "tokenizer", "hidden_size": hidden, "layers": layers, "heads": heads,
            "kv_heads": kv_heads,
        },
        "data": {
            "problems": folder / "problems.parquet", "curated": folder / "curated.parquet", "prompt_tokens": 64,
            "response_tokens": 64,
        },
        "rollout": {"prompts": 16, "mini_batch_prompts": 8, "group_size": 8},
        "batch": {"rows": 64, "micro_tokens": 4096, "skip_zero_advantage": False},
        "device": "cpu",
        "threads": 1,
        **changes,
    }  # fmt: skip
    return build_settings(TrainSettings, tree, output)


def compare_with_counter(folder: Path) -> None:
    """Formula ÷ counter at each size."""
    print("| size | parameters | forward | forward + backward | one GRPO round |\n|---|---|---|---|---|")
    for number, size in enumerate(SIZES):
        hidden, layers, heads, kv_heads = size
        config = LlamaConfig(
            vocab_size=512, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=kv_heads, intermediate_size=4 * hidden,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
        ids, cost = torch.randint(0, 512, (ROWS, LENGTH)), model_cost(model)
        forward = counted(lambda model=model, ids=ids: model(input_ids=ids))
        both = counted(lambda model=model, ids=ids: model(input_ids=ids).logits.sum().backward())
        third = cost.training([(LENGTH, LENGTH)] * ROWS)
        settings = recipe(folder, f"counted-{number}", "grpo", size, steps=1, attention="eager")
        whole = counted(lambda settings=settings: train(settings))
        logged = pl.read_parquet(settings.output / "metrics.parquet").row(0, named=True)
        ours = logged["flops_rollout"] + logged["flops_update"]
        ratios = (third / 3 / forward, third / both, ours / whole)
        parameters = sum(weight.numel() for weight in model.parameters())
        cells = " | ".join(f"{ratio:.3f}" for ratio in ratios)
        print(f"| {hidden} × {layers}, {heads} heads, {kv_heads} kv | {parameters:,} | {cells} |", flush=True)


def ceiling() -> float:
    """FLOP/s of one thread on a square matrix product, CPU time, best of five."""
    left, right = torch.randn(1024, 1024), torch.randn(1024, 1024)
    best = float("inf")
    for _ in range(5):
        started = time.process_time()
        for _ in range(4):
            left @ right
        best = min(best, (time.process_time() - started) / 4)
    return 2 * 1024**3 / best


def compare_with_seconds(folder: Path) -> None:
    """Predicted CPU seconds of whole runs at the machine's ceiling, over those they take."""
    peak = ceiling()
    print(f"\nCeiling of one thread: {peak / 1e9:.1f} GFLOP/s\n")
    print("| run | FLOPs by estimate ÷ logged | CPU seconds | at the ceiling | utilisation it implies |")
    print("|---|---|---|---|---|")
    # one device; reading weights is no limit here: this model lies in the cache
    machine = Hardware(
        devices=1, peak_flops=peak, bandwidth=1e13, memory=8e9, utilisation=1.0, bandwidth_utilisation=1.0,
        step_seconds=0.0, verifications=2000.0,
    )  # fmt: skip
    for method, steps in (("sft", 4), ("grpo", 2), ("luffy", 2)):
        settings = recipe(folder, f"timed-{method}", method, SIZES[1], steps=steps)
        tokenizer = load_tokenizer(folder / "tokenizer")
        assert settings.new_model is not None
        config: PreTrainedConfig = new_config(settings.new_model, tokenizer)
        started = time.process_time()
        train(settings)
        seconds = time.process_time() - started
        table = pl.read_parquet(settings.output / "metrics.parquet")
        names = [name for name in ("flops", "flops_rollout", "flops_update") if name in table.columns]
        logged = float(table.select(pl.sum_horizontal(pl.col(names).fill_null(0)).sum()).item())
        found, _ = measured(settings, tokenizer)
        if "response_tokens" in table.columns:  # what the policy wrote: known after the run alone
            found["response_tokens"] = float(table.select(pl.col("response_tokens").mean()).item())
        guess = estimate(config, settings, Workload(**found), machine)
        predicted = HOUR * sum(guess.hours.values())
        print(
            f"| {method}, {steps} steps | {sum(guess.flops.values()) / logged:.2f} | {seconds:.1f} | {predicted:.1f} | "
            f"{predicted / seconds:.2f} |",
            flush=True,
        )


def hours(size: str, method: str, work: Workload, hardware: Hardware) -> list[Estimate]:
    """The stages of a recipe that comes along."""
    settings = load_settings(TrainSettings, find_recipe(method, "trainer"))
    stages = settings.stage_settings() if settings.stages else [settings]
    return [estimate(QWEN[size], stage, work, hardware) for stage in stages]


def total(found: Sequence[Estimate]) -> float:
    """Hours of wall-clock time."""
    return sum(sum(stage.hours.values()) for stage in found)


def compare_with_paper() -> None:
    """Hours by size, method and machine, and what would reconcile them with the paper's."""
    work = Workload()
    print(
        "\n| model | method | rollout | reward | log-probs | update | hours, 8 × H100 | hours, 8 × A100 | GB at once |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for size in QWEN:
        for method in ("sft", "grpo", "luffy", "rl_sft", "sft_grpo"):
            found, older = (hours(size, method, work, HARDWARE[name]) for name in ("h100", "a100"))
            stages = [
                sum(stage.hours.get(name, 0.0) for stage in found)
                for name in ("rollout", "reward", "log_probs", "update")
            ]
            cells = " | ".join(f"{value:.1f}" for value in stages)
            peak = max(stage.peak for stage in found) / 1e9
            print(f"| {size} | {method} | {cells} | {total(found):.0f} | {total(older):.0f} | {peak:.0f} |", flush=True)
    print("\n| 7B | paper, hours | A100 by formula | what would give the paper's |\n|---|---|---|---|")
    machine = HARDWARE["a100"]
    for method, told in PAPER.items():
        guess = total(hours("7B", method, work, machine))
        print(f"| {method} | {told} | {guess:.0f} | {reconciled(method, told, work, machine)} |", flush=True)


def reconciled(method: str, told: float, work: Workload, machine: Hardware) -> str:
    """Utilisation for sft; for RL the mean response, at the assumed utilisation and at half of it."""
    if method == "sft":
        share = machine.utilisation * total(hours("7B", method, work, machine)) / told
        return f"a utilisation of {share:.2f}"
    parts = []
    for utilisation in (machine.utilisation, machine.utilisation / 2):
        changed = machine.model_copy(update={"utilisation": utilisation})
        low, high = 100.0, 8192.0
        if total(hours("7B", method, work.model_copy(update={"response_tokens": high}), changed)) < told:
            parts.append(f"no length at a utilisation of {utilisation:.1f}")
            continue
        for _ in range(10):
            middle = (low + high) / 2
            longer = total(hours("7B", method, work.model_copy(update={"response_tokens": middle}), changed))
            low, high = (middle, high) if longer < told else (low, middle)
        parts.append(f"responses of {high:,.0f} tokens at a utilisation of {utilisation:.1f}")
    return "; ".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="counter,seconds,paper")
    only = parser.parse_args().only.split(",")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_world(folder)
        if "counter" in only:
            compare_with_counter(folder)
        if "seconds" in only:
            compare_with_seconds(folder)
    if "paper" in only:
        compare_with_paper()


if __name__ == "__main__":
    main()
