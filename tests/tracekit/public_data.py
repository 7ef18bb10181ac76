"""A small model folder in the hub's format, and a few dozen word problems with worked answers in GSM8K's layout."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

END, PLAIN = "<|endoftext|>", "{% for m in messages %}{{ m['content'] }}\n{% endfor %}"
#: What the study makes of the model's own template: it opens a think block.
THINKING = PLAIN + "{% if add_generation_prompt %}<think>\n{% endif %}"


def write_model(folder: Path) -> Path:
    """A Qwen2 of 2 layers with random weights, a byte-level tokenizer and a chat template."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=END)
    fast.chat_template = PLAIN
    fast.save_pretrained(folder)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, max_position_embeddings=256, rope_theta=10_000.0, bos_token_id=fast.eos_token_id,
        eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    return folder


def word_problems(count: int, first: int = 0) -> list[dict[str, str]]:
    """Problems of two steps, no two alike in eight words in a row."""
    people, things = ("Ada", "Boris", "Chen", "Dana", "Emil"), ("pears", "stamps", "coins", "shells")
    rows = []
    for number in range(first, first + count):
        who, what = people[number % 5], things[number % 4]
        a, b, c = 3 + 7 * number % 40, 2 + 5 * number % 23, 2 + number % 3
        both = a + b
        rows.append(
            {
                "question": f"{who} finds {a} {what}, then {b} more on day {number}. With {c} times as many, how many?",
                "answer": f"First {who} has {a} + {b} = <<{a}+{b}={both}>>{both} {what}.\n"
                f"Check: {both} - {b} = <<{both}-{b}={a}>>{a}, as it began.\n"
                f"Then {both} * {c} = <<{both}*{c}={both * c}>>{both * c}.\n#### {both * c}",
            }
        )
    return rows


def write_problems(path: Path, rows: list[dict[str, str]]) -> Path:
    """As JSONL."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_recipe(folder: Path) -> Path:
    """Model, problems and a study of them in `folder`; returns the study's recipe."""
    write_model(folder / "model")
    write_problems(folder / "train.jsonl", word_problems(48))
    write_problems(folder / "asked.jsonl", word_problems(6, first=100))
    write_problems(folder / "far.jsonl", word_problems(4, first=200))
    (folder / "thinking.jinja").write_text(THINKING, encoding="utf-8")
    recipe = folder / "study.toml"
    recipe.write_text(
        f"""
output = "{folder / "run"}"
seeds = [0, 1]
workers = 1
base.model = "{folder / "model"}"
base.model_changes = {{ rope_theta = 40_000, max_positions = 512, chat_template = "{folder / "thinking.jinja"}" }}
evaluation = {{ samples = 3, max_tokens = 24 }}
gates = {{ imitation = 0.0, guess = 1.0 }}

[data]
folder = "{folder}"
curation = {{ sources = ["train.jsonl"], workers = 1, duplicates = {{ problems = 1.0 }} }}
sets = [{{ path = "asked.jsonl" }}, {{ path = "far.jsonl", name = "far away", samples = 1 }}]
shifted = ["far away"]
temperature = 0.6
held_out = 18
taught = 8
asking = {{ prompt_tokens = 200, threads = 1 }}
reading = {{ layers = [0, 2], stored = "bfloat16" }}

[recipe]
threads = 1
steps = 1
data = {{ prompt_tokens = 200, response_tokens = 160 }}
rollout = {{ prompts = 2, mini_batch_prompts = 2, group_size = 3 }}
batch = {{ rows = 4 }}

[arms.sft]
title = "SFT"
recipe = {{ method = "sft", optimizer = {{ lr = 1e-3 }} }}

[arms.luffy]
title = "LUFFY"
seeds = 1
recipe = {{ method = "luffy", on_policy = {{ clip = false }}, data = {{ response_tokens = 160 }} }}

[probing]
features = ["step_kind", "value_parity"]
protocol = {{ band = [2], permutations = 19, draws = 20, repeats = 1, costs = [1.0], gammas = [1.0], outer_folds = 3 }}
""",
        encoding="utf-8",
    )
    return recipe
