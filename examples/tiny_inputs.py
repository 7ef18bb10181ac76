"""Write the inputs that the README and the tutorials use, for a first try without a GPU and without a download.

    python examples/tiny_inputs.py [FOLDER]

traces.jsonl: 40 worked sums (question, answer, generation), two of them wrong. model/: a random Qwen2 of two layers
with a byte tokenizer, in the hub's folder format; it learns nothing in a few steps, but every command runs on it.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path


def trace(a: int, b: int, wrong: bool = False) -> dict[str, str]:
    """Return a worked sum in the columns of a published set; a wrong one ends in a wrong box."""
    total = a + b + wrong
    check = f"{total} - {b} = {a}" if a % 2 else f"{b} + {a} = {total}"
    return {
        "question": f"A shelf holds {a} red and {b} blue books. How many books are on it in all?",
        "answer": str(a + b),
        "generation": f"<think>\nThere are {a} red books and {b} blue ones.\n\nSo {a} + {b} = {total}.\n\n"
        f"I check it: {check}.\n</think>\n\nThe shelf holds \\boxed{{{total}}} books.",
    }


def write_traces(path: Path) -> None:
    """Write 40 traces as JSON lines."""
    rows = [trace(a, b, wrong=(a, b) in {(12, 7), (25, 12)}) for a in range(11, 31) for b in (7, 12)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def write_model(folder: Path, positions: int = 2048) -> None:
    """Write a random Qwen2 with a byte tokenizer and a ChatML template. Needs the extra `train` or `probe`."""
    import torch
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=special[2], pad_token=special[0])
    fast.add_special_tokens({"additional_special_tokens": special})
    fast.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=positions,
        eos_token_id=fast.eos_token_id,
        pad_token_id=fast.pad_token_id,
        tie_word_embeddings=True,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    fast.save_pretrained(folder)


if __name__ == "__main__":
    here = Path(sys.argv[1] if len(sys.argv) > 1 else ".")
    here.mkdir(parents=True, exist_ok=True)
    for target in (here / "traces.jsonl", here / "model"):
        if target.exists():
            sys.exit(f"{target} exists; give another folder.")
    write_traces(here / "traces.jsonl")
    write_model(here / "model")
    print(f"{here / 'traces.jsonl'} and {here / 'model'} written")
