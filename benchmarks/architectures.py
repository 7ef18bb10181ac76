"""Which architectures every method trains end to end: tiny random models of 15 kinds, saved, trained, read again.

    python benchmarks/architectures.py [--only NAME …]

Each model is written as a Hugging Face folder in bfloat16, trained by sft, dpo, grpo, luffy and rl_sft for one step
over the embedded world's problems, and its `final/` is opened again by transformers. A run counts where weights have
changed, are finite and in the base's dtype. Where one is refused, the sentence that says why is printed.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from tracekit.core.settings import build_settings
from tracekit.core.tables import CURATED
from tracekit.study.tasks.world import World, make_problems, teach, write_tokenizer
from trainer.modeling.models import load_tokenizer
from trainer.settings import TrainSettings
from trainer.train import train

METHODS = ("sft", "dpo", "grpo", "luffy", "rl_sft")

SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 128,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}

#: Name → (model type, configuration beside SMALL, further settings of the run).
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "Qwen2": ("qwen2", {}, {}),
    "Qwen3": ("qwen3", {"head_dim": 8}, {}),
    "Llama": ("llama", {}, {}),
    "SmolLM (tied)": ("llama", {"tie_word_embeddings": True}, {}),
    "Gemma 3": ("gemma3_text", {"head_dim": 8, "sliding_window": 64}, {}),
    "Phi": ("phi", {}, {}),
    "GPT-NeoX": ("gpt_neox", {}, {}),
    "GPT-2": ("gpt2", {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 128}, {}),
    "OLMo 2": ("olmo2", {}, {}),
    "Mixtral": ("mixtral", {"num_local_experts": 4, "num_experts_per_tok": 2}, {}),
    "Qwen3-MoE": ("qwen3_moe", {"head_dim": 8, "num_experts": 4, **EXPERTS}, {}),
    "DeepSeek-V3": (
        "deepseek_v3",
        {
            "q_lora_rank": 16,
            "kv_lora_rank": 16,
            "qk_nope_head_dim": 8,
            "qk_rope_head_dim": 8,
            "v_head_dim": 8,
            "n_routed_experts": 4,
            "n_group": 1,
            "topk_group": 1,
            "first_k_dense_replace": 1,
            "num_key_value_heads": 4,
            **EXPERTS,
        },
        {},
    ),
    "Llama 4": (
        "llama4_text",
        {"head_dim": 8, "num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 64},
        {},
    ),
    "gpt-oss": ("gpt_oss", {"head_dim": 8, "num_local_experts": 4, "sliding_window": 64}, {"attention": "eager"}),
    "Qwen3-Next": (
        "qwen3_next",
        {
            "head_dim": 8,
            "num_experts": 4,
            "linear_num_key_heads": 2,
            "linear_num_value_heads": 4,
            "linear_key_head_dim": 8,
            "linear_value_head_dim": 8,
            "shared_expert_intermediate_size": 16,
            "layer_types": ["linear_attention", "full_attention"],
            **EXPERTS,
        },
        {},
    ),
}


def main() -> None:
    """Train every architecture by every method and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(MODELS), default=list(MODELS))
    chosen = parser.parse_args().only
    whole = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_inputs(folder)
        print(f"| architecture | {' | '.join(METHODS)} |\n|---|{'---|' * len(METHODS)}", flush=True)
        causes = []
        for architecture in chosen:
            outcomes = [outcome(folder, architecture, method) for method in METHODS]
            whole += not any(outcomes)
            causes += [f"{architecture}, {m}: {found}" for m, found in zip(METHODS, outcomes) if found]
            print(f"| {architecture} | {' | '.join('refused' if o else 'yes' for o in outcomes)} |", flush=True)
        print(f"\n{whole} of {len(chosen)} architectures by all {len(METHODS)} methods", *causes, sep="\n")


def write_inputs(folder: Path) -> None:
    """The embedded world's tokenizer, problems, and traces, each right one with a wrong one beside it for dpo."""
    world = World()
    write_tokenizer(world, folder / "tokenizer")
    problems = make_problems(world, "train", 8, 0)
    problems.write_parquet(folder / "problems.parquet")
    right = teach(world, problems, 0, traces_each=1).join(problems, on="problem_id").with_columns(correct=pl.lit(True))
    right = right.select(CURATED.keys()).cast(CURATED)  # type: ignore[arg-type]
    wrong = right.with_columns(
        trace_id=pl.col("trace_id") + "w", correct=pl.lit(False), response=pl.lit("\\boxed{ ( 1 , 2 ) }")
    )
    pl.concat([right, wrong]).write_parquet(folder / "curated.parquet")


def outcome(folder: Path, architecture: str, method: str) -> str | None:
    """Why a run was refused, or None where it trained."""
    base = folder / architecture.replace(" ", "")
    if not base.exists():
        write_model(base, architecture, folder)
    try:
        final = train(settings(folder, base, architecture, method))
    except ValueError as error:
        return str(error)
    before = AutoModelForCausalLM.from_pretrained(base).state_dict()
    model = AutoModelForCausalLM.from_pretrained(final)
    after = model.state_dict()
    assert before.keys() == after.keys(), f"{architecture}, {method}: other weights"
    assert all(torch.isfinite(tensor).all() for tensor in after.values()), f"{architecture}, {method}: not finite"
    assert any(not torch.equal(before[key], after[key]) for key in before), f"{architecture}, {method}: nothing moved"
    assert model.dtype == torch.bfloat16, f"{architecture}, {method}: {model.dtype}"
    return None


def write_model(base: Path, architecture: str, folder: Path) -> None:
    """A folder of the architecture with random weights in bfloat16, and the world's tokenizer."""
    kind, changes, _ = MODELS[architecture]
    tokenizer = load_tokenizer(folder / "tokenizer")
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    small = {} if kind == "gpt2" else SMALL
    config = AutoConfig.for_model(
        kind, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **ends, **(small | changes)
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(base)
    tokenizer.save_pretrained(base)


def settings(folder: Path, base: Path, architecture: str, method: str) -> TrainSettings:
    """One step, with rewards by lot so that groups have a signal."""
    tree = {
        "method": method,
        "model": str(base),
        "output": folder / "runs" / base.name / method,
        "data": {
            "problems": folder / "problems.parquet",
            "curated": folder / "curated.parquet",
            "prompt_tokens": 48,
            "response_tokens": 64,
        },
        "batch": {"rows": 4},
        "rollout": {"prompts": 4, "mini_batch_prompts": 2, "group_size": 4, "random_reward": 0.5},
        "optimizer": {"lr": 1e-2},
        "steps": 1,
        "threads": 1,
        **MODELS[architecture][2],
    }
    return build_settings(TrainSettings, tree, architecture)


if __name__ == "__main__":
    main()
