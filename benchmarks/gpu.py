"""What a GPU gives: ceilings, sameness with the CPU, model FLOP utilisation of updates, sampling, memory of the loss.

    python benchmarks/gpu.py [--out FILE.md] [--sections ceilings sameness update sampling loss_memory]
    python benchmarks/gpu.py --device cpu --small     # the same code at a size that a CPU takes, to try it out

Needs one CUDA device; every section and every kind of update is a process of its own, so that one which fails (out of
memory, say) leaves the others their figures; the exit code is 1 where any failed. Nothing is downloaded: the model has
the shape of Qwen2.5-1.5B and random weights.

update: LUFFY's loss by the trainer's own `accumulate` and optimizer step on rows of 8,192 tokens, one a micro-batch, in
bfloat16 with weights, gradients and optimizer in float32, with and without gradient checkpointing and `compile`. Model
FLOPs are those of `trainer.planning.flops` with nothing counted twice; MFU is their share of an H100's or H200's
peak by data
sheet (989 TFLOP/s), beside it their share of the product measured here. sampling: the embedded engine against
`model.generate`, 64 prompts × 8, in bfloat16.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM

from tracekit.core.settings import build_settings
from tracekit.study.tasks.world import World, write_tokenizer
from trainer.data.sequences import Row, collate
from trainer.data.shared_prompts import score_shared
from trainer.loops.checkpoint import LoopState
from trainer.loops.optimization import apply_update, make_optimizer
from trainer.loops.policy import accumulate, totals_of
from trainer.loops.run_log import Averages
from trainer.loops.run_state import Training
from trainer.modeling.log_probs import from_logits, token_log_probs
from trainer.modeling.models import TokenScorer, compile_layers, load_tokenizer, with_own_kernels
from trainer.objectives.loss_from_settings import policy_loss
from trainer.planning.estimate import HARDWARE
from trainer.planning.flops import causal_pairs, model_cost
from trainer.rollouts.engines.embedded import EmbeddedEngine
from trainer.rollouts.engines.protocol import Sampling
from trainer.settings import TrainSettings

UPDATES = [
    {"gradient_checkpointing": checkpointing, "compile": compiled}
    for checkpointing, compiled in itertools.product((False, True), (False, True))
]


@dataclass(frozen=True)
class Size:
    """What is measured: `model` in transformers' words for a Qwen2, tokens of a row, rows of an update."""

    model: dict[str, int]
    row_tokens: int
    rows: int
    product: int  # side of the square product
    copied: int  # bytes
    prompts: int
    completion_tokens: int
    scored_tokens: int


LARGE = Size(
    {
        "vocab_size": 151_936,
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
        "num_key_value_heads": 2,
    },
    row_tokens=8192,
    rows=8,
    product=8192,
    copied=4 << 30,
    prompts=64,
    completion_tokens=128,
    scored_tokens=8192,
)
SMALL = Size(
    {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    },
    row_tokens=64,
    rows=4,
    product=256,
    copied=1 << 20,
    prompts=4,
    completion_tokens=8,
    scored_tokens=64,
)


# Clocks


def synchronize(device: torch.device) -> None:
    """Wait for what the device still has to do."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(call: Callable[[], object], device: torch.device, repeats: int, warm: int = 2) -> float:
    """Median wall seconds of a call, the device's work included."""
    found = []
    for turn in range(warm + repeats):
        synchronize(device)
        started = time.perf_counter()
        call()
        synchronize(device)
        if turn >= warm:
            found.append(time.perf_counter() - started)
    return statistics.median(found)


def peak_memory(device: torch.device) -> float:
    """Highest bytes allocated on the device since the last reset, in GB; 0 on a CPU."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0


def matrix_rate(side: int, device: torch.device) -> float:
    """FLOP/s of a bfloat16 product of two random square matrices."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    return 2 * side**3 / seconds(lambda: a @ b, device, 10, warm=3)


# Sections: each prints lines of Markdown


def ceilings(size: Size, device: torch.device) -> None:
    """What the device's memory and matrix units give at most."""
    source = torch.randint(256, (size.copied,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    rate = 2 * size.copied / seconds(lambda: target.copy_(source), device, 10)
    print(f"Copy within the device, bytes read and written: {rate / 1e12:.2f} TB/s. ", end="")
    print(f"bfloat16 product of {size.product:,}³: {matrix_rate(size.product, device) / 1e12:.0f} TFLOP/s.")


def sameness(size: Size, device: torch.device) -> None:
    """Losses and gradients here against float64 on the CPU (in float32 from the head's logits on), for rows apart and
    rows that share their prompt; log-probs of the engine's samples against that forward pass."""
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.manual_seed(0)
    exact = qwen2(SMALL, torch.device("cpu")).double()
    model = qwen2(SMALL, torch.device("cpu"))
    model.load_state_dict(exact.state_dict())
    model.to(device)
    generator = torch.Generator().manual_seed(1)

    def drawn(length: int) -> list[int]:
        return torch.randint(3, 512, (length,), generator=generator).tolist()

    prompts = [drawn(9), drawn(12)]
    rows = [Row([*prompt, *drawn(length)], len(prompt)) for prompt in prompts for length in (17, 30, 5, 24)]
    wanted = loss_and_gradients(exact, rows, torch.device("cpu"), shared=False)
    print("| against float64 on the CPU | loss | gradients |\n|---|---|---|")
    for name, shared, half in (
        ("float32", False, False),
        ("float32, shared prompts", True, False),
        ("bfloat16", False, True),
    ):
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            found = loss_and_gradients(model, rows, device, shared=shared)
        print(f"| {name} | {off(found[0], wanted[0]):.1e} | {off(found[1], wanted[1]):.1e} |")
    engine = EmbeddedEngine(model)
    worst = 0.0
    for own, prompt in zip(engine.generate(prompts, 4, Sampling(20, ())), prompts):
        for rollout in own:
            row = Row([*prompt, *rollout.token_ids], len(prompt))
            batch = collate([row], 0)
            with torch.no_grad():
                log_prob, _ = TokenScorer(exact)(batch.input_ids, batch.completion_mask)
            sampled = torch.tensor(rollout.log_probs, dtype=torch.float64)
            worst = max(worst, float((log_prob[0, len(prompt) :].double() - sampled).abs().max()))
    print(f"\nSampled log-probs against that forward pass: {worst:.1e} apart at most.")


def loss_and_gradients(
    model: PreTrainedModel, rows: Sequence[Row], device: torch.device, *, shared: bool
) -> tuple[Tensor, Tensor]:
    """A number made of all log-probs and entropies, and its gradient by every weight: both float64, on the CPU."""
    scorer, batch = TokenScorer(model), collate(rows, 0, device)
    model.zero_grad(set_to_none=True)
    if shared:
        log_prob, entropy = score_shared(scorer, rows, batch)
    else:
        log_prob, entropy = scorer(batch.input_ids, batch.completion_mask)
    weights = torch.linspace(-1, 1, log_prob.numel(), device=device, dtype=torch.float64).view(log_prob.shape)
    loss = (weights * (log_prob.double() + 0.1 * entropy.double())).sum()
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.flatten().double().cpu() for p in model.parameters() if p.grad is not None]
    return loss.detach().cpu()[None], torch.cat(gradients)


def off(found: Tensor, wanted: Tensor) -> float:
    """‖found − wanted‖ / ‖wanted‖."""
    return float((found - wanted).norm() / wanted.norm())


def update(size: Size, device: torch.device, **changes: bool) -> None:
    """Seconds, tokens/s and MFU of one update with these settings."""
    with tempfile.TemporaryDirectory() as folder:
        training = open_training(size, device, Path(folder), changes)
    prompt, cost = size.row_tokens // 32, model_cost(training.model)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, size.model["vocab_size"], (size.rows, size.row_tokens), generator=generator).tolist()
    rows = [
        Row(own, prompt, off_policy=0 if number else size.row_tokens - prompt, advantage=(-1.0) ** number)
        for number, own in enumerate(ids)
    ]
    loss_of, totals = policy_loss(training.settings), totals_of(rows, training.settings)

    def step() -> None:
        accumulate(training, training.scorer, loss_of, rows, totals, Averages())
        apply_update(training.optimizer, 1e-6, 1.0, 0)

    started = time.perf_counter()
    step()
    synchronize(device)
    first, taken = time.perf_counter() - started, seconds(step, device, 3, warm=1)
    flops = size.rows * cost.update(size.row_tokens, size.row_tokens - prompt, causal_pairs(size.row_tokens))
    rate, tokens = flops / taken, size.rows * size.row_tokens / taken
    memory = peak_memory(device)
    peak, product = HARDWARE["h200"].peak_flops, matrix_rate(size.product, device)
    settings = " | ".join("yes" if changed else "no" for changed in changes.values())
    print(
        f"| {settings} | {taken:.2f} | {tokens:,.0f} | {rate / 1e12:.0f} | {rate / peak:.1%} | {rate / product:.1%} "
        f"| {memory:.1f} | {first:.0f} |"
    )


def sampling(size: Size, device: torch.device) -> None:
    """Tokens a second of the embedded engine and of `model.generate`."""
    model = qwen2(size, device).to(torch.bfloat16).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    prompts = torch.randint(3, size.model["vocab_size"], (size.prompts, 32), generator=generator)
    engine = EmbeddedEngine(model, rows=8 * size.prompts)

    def ours() -> None:
        engine.generate(prompts.tolist(), 8, Sampling(size.completion_tokens, ()))

    repeated = prompts.repeat_interleave(8, 0).to(device)
    how = {"do_sample": True, "temperature": 1.0, "top_k": 0, "pad_token_id": 0, "eos_token_id": None}
    tokens = size.completion_tokens

    def theirs() -> None:
        with torch.inference_mode():
            model.generate(
                repeated,
                attention_mask=torch.ones_like(repeated),
                min_new_tokens=tokens,
                max_new_tokens=tokens,
                **how,
            )

    rates = [8 * size.prompts * tokens / seconds(call, device, 2, warm=1) for call in (ours, theirs)]
    print(f"{8 * size.prompts} rows, {tokens} tokens each: engine {rates[0]:,.0f} tokens/s, ", end="")
    print(f"`generate` {rates[1]:,.0f}, {rates[0] / rates[1]:.2f} ×.")


def loss_memory(size: Size, device: torch.device) -> None:
    """Peak memory and time of log-probs and entropy with gradients: chunked against materialised logits, bfloat16."""
    vocabulary, width = size.model["vocab_size"], size.model["hidden_size"]
    hidden = torch.randn(size.scored_tokens, width, device=device, dtype=torch.bfloat16).requires_grad_()
    weight = (torch.randn(vocabulary, width, device=device) / width**0.5).to(torch.bfloat16).requires_grad_()
    targets = torch.randint(vocabulary, (size.scored_tokens,), device=device)
    ways = {
        "materialised": lambda: from_logits(hidden @ weight.T, targets),
        "chunked": lambda: token_log_probs(hidden, weight, targets),
    }
    print("| logits | peak GB above the inputs | seconds |\n|---|---|---|")
    for name, way in ways.items():

        def passes(way: Callable[[], tuple[Tensor, Tensor]] = way) -> None:
            hidden.grad = weight.grad = None
            log_prob, entropy = way()
            (log_prob.mean() + 0.1 * entropy.mean()).backward()

        passes()
        hidden.grad = weight.grad = None
        gc.collect()
        before = 0.0
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            before = torch.cuda.memory_allocated(device) / 1e9
        taken = seconds(passes, device, 3)
        print(f"| {name} | {peak_memory(device) - before:.2f} | {taken:.3f} |")


# What they stand on


def qwen2(size: Size, device: torch.device) -> PreTrainedModel:
    """A Qwen2 with random weights in float32, embeddings tied as in the small ones of its family."""
    config = Qwen2Config(
        **size.model, max_position_embeddings=32_768, tie_word_embeddings=True, attn_implementation="sdpa"
    )
    with device:
        return with_own_kernels(Qwen2ForCausalLM(config))


def open_training(size: Size, device: torch.device, folder: Path, changes: dict[str, bool]) -> Training:
    """A LUFFY training at its start, as `trainer.loops.run_state.begin` makes it from a folder."""
    tree = {
        "method": "luffy",
        "output": folder / "run",
        "new_model": {"tokenizer": write_tokenizer(World(), folder / "tokenizer")},
        "data": {"problems": folder / "unused", "curated": folder / "unused", "response_tokens": size.row_tokens},
        "batch": {"micro_tokens": size.row_tokens},
        "on_policy": {"clip": False},
        "device": str(device),
        "dtype": "bfloat16",
        **changes,
    }
    settings = build_settings(TrainSettings, tree, "benchmark")
    torch.manual_seed(0)
    model = qwen2(size, device)
    if settings.gradient_checkpointing:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    scorer = TokenScorer(model).train()
    if settings.compile:
        compile_layers(model)
    optimizer, tokenizer = make_optimizer(model, settings.optimizer), load_tokenizer(folder / "tokenizer")
    return Training(
        settings,
        settings.output,
        device,
        model,
        tokenizer,
        optimizer,
        LoopState(0),
        scorer,
        (int(tokenizer.eos_token_id),),
    )


SECTIONS: dict[str, Callable[..., None]] = {
    "ceilings": ceilings,
    "sameness": sameness,
    "update": update,
    "sampling": sampling,
    "loss_memory": loss_memory,
}


def main() -> int:
    """Run the sections, each in its own process; the report goes to standard output and to --out."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sections", nargs="+", choices=SECTIONS, default=list(SECTIONS))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="sizes for a CPU")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", choices=SECTIONS, help="measure this one in this process")
    parser.add_argument("--changes", type=json.loads, default={}, help="settings of the one update, as JSON")
    options = parser.parse_args()
    device, size = torch.device(options.device), SMALL if options.small else LARGE
    if device.type == "cuda" and not torch.cuda.is_available():
        parser.error("there is no CUDA device; --device cpu --small tries the script out without one.")
    if options.one:
        SECTIONS[options.one](size, device, **options.changes)
        return 0
    lines, failed = [f"# {describe(device)}"], False
    print(lines[0], flush=True)
    for section in options.sections:
        runs = [["--changes", json.dumps(changes)] for changes in UPDATES] if section == "update" else [[]]
        heading = f"\n## {section}\n"
        if section == "update":
            heading += (
                f"\n{size.rows} rows of {size.row_tokens:,} tokens, one a micro-batch.\n\n"
                "| checkpointing | compile | s | tokens/s | TFLOP/s | MFU | of the product here | GB | first step s |\n"
                "|---|---|---|---|---|---|---|---|---|"
            )
        lines.append(heading)
        print(heading, flush=True)
        for extra in runs:
            command = [sys.executable, __file__, "--one", section, "--device", options.device, *extra]
            done = subprocess.run([*command, *(["--small"] if options.small else [])], capture_output=True, text=True)
            text = done.stdout.rstrip()
            if done.returncode:
                failed = True
                text += f"\n{section} {' '.join(extra)} failed: {done.stderr.strip().splitlines()[-1]}"
                print(done.stderr, file=sys.stderr)
            lines.append(text)
            print(text, flush=True)
    if options.out:
        options.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(failed)


def describe(device: torch.device) -> str:
    """Device and versions in a line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{name}, {versions}, Python {platform.python_version()}"


if __name__ == "__main__":
    sys.exit(main())
