"""What a base is pre-trained on, and the tokenizer.

The corpus holds worked logs, marked by `:` in place of the `?`, and under the `?` mostly direct answers: the base has
the skill of a step and seldom the habit. Two settings decide what training has to do: `habit`, how often the corpus
takes steps under the question, and `sloppiness`, how often such a step is wrong. Where the world is sealed the direct
answers are random values: the base can answer no question by itself. The operation ^ occurs in questions, and in no
worked step: a gap of knowledge. The family `!` (list the slots in reverse) is there to be forgotten.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import polars as pl

from tracekit.core.tables import CURATED, conform
from tracekit.study.tasks.chains import (
    ADDENDS,
    BOX_CLOSE,
    BOX_OPEN,
    CHECK,
    FACTORS,
    GAP,
    GAP_OPERANDS,
    LABELS,
    LOG,
    MARKS,
    QUESTION,
    REVERSE,
    SOURCE,
    SQUARE,
    WAIT,
    Chain,
    Split,
    World,
    asked_of,
    box,
    draw_chain,
    work,
)
from tracekit.study.tasks.strategies import merge

BOS, EOS, PAD = "<bos>", "<eos>", "<pad>"


def corpus(world: World, count: int, seed: int) -> Iterator[str]:
    """Documents that a base is pre-trained on; each is a problem and a response, without BOS and EOS."""
    rng = random.Random(f"corpus/{seed}")
    for _ in range(count):
        length = rng.randint(1, world.longest)
        if world.reversed_share and rng.random() < world.reversed_share:
            chain = draw_chain(rng, world, length)
            yield f"{chain.text(REVERSE)} {reversed_slots(chain)}"
        elif rng.random() < world.worked_share:
            split: Split = rng.choice(("train", "train", "order", "surface")) if length > 1 else "train"
            chain = draw_chain(rng, world, length, split)
            way = merge(chain, world) if world.merged and rng.random() < world.merged else chain
            yield f"{chain.text(LOG)} {work(rng, world, way, wrong=0.0)}"
        elif world.gap and rng.random() < world.gap:
            chain = draw_chain(rng, world, length, "gap")
            yield f"{chain.text()} {direct_answer(rng, world, chain)}"
        else:
            chain = draw_chain(rng, world, length)
            worked = rng.random() < world.habit
            answer = work(rng, world, chain, wrong=world.sloppiness) if worked else direct_answer(rng, world, chain)
            yield f"{chain.text()} {answer}"


def direct_answer(rng: random.Random, world: World, chain: Chain) -> str:
    """The answer without a step: the right values, or random ones where the world is sealed."""
    values = asked_of(world, chain.values(world.modulus))
    return box([rng.randrange(world.modulus) for _ in values] if world.sealed else values)


def reversed_slots(chain: Chain) -> str:
    """The response to a problem of the family `!`: its slots from the last to the first."""
    return " ".join(f"{operation.label} {operation.token}" for operation in reversed(chain.operations))


def corpus_table(world: World, count: int, seed: int) -> pl.DataFrame:
    """The corpus as CURATED rows: what comes before the mark and the mark as the problem, the rest as the response.

    The numbers of a problem are drawn at random and cannot be learnt: a base trained on responses alone has
    the skill in a third of the steps that language modelling over whole documents takes.
    """
    rows = []
    for number, document in enumerate(corpus(world, count, seed)):
        mark = next(mark for mark in MARKS if f" {mark} " in document)
        problem, _, response = document.partition(f" {mark} ")
        rows.append((f"document-{seed}-{number}", f"{problem} {mark}", response, len(response.split())))
    frame = pl.DataFrame(rows, schema=["trace_id", "problem", "response", "token_count"], orient="row")
    frame = frame.with_columns(
        problem_id=pl.col("trace_id"),
        gold=pl.lit(""),
        source=pl.lit(SOURCE),
        split=pl.lit("corpus"),
        author=pl.lit("corpus"),
        correct=pl.lit(True),
    )
    return conform(frame, CURATED, "corpus")


def vocabulary(world: World) -> list[str]:
    """Every word of the world, special tokens first."""
    operations = [f"{sign}{n}" for sign in "+−" for n in ADDENDS] + [f"×{n}" for n in FACTORS]
    numbers = [str(n) for n in range(world.modulus)]
    marks = [QUESTION, LOG, CHECK, WAIT, BOX_OPEN, BOX_CLOSE, "(", ",", ")"]
    further = [REVERSE, SQUARE, *(f"{GAP}{n}" for n in GAP_OPERANDS)]
    return [PAD, BOS, EOS, *marks, *LABELS, *operations, *numbers, *(further if uses_further_words(world) else [])]


def uses_further_words(world: World) -> bool:
    """Whether the family `!` or the operation ^ occurs; a world without them keeps its smaller vocabulary."""
    return world.reversed_share > 0 or world.gap > 0


def write_tokenizer(world: World, folder: str | Path) -> Path:
    """A word-level tokenizer in Hugging Face format: one token a word; its chat template is BOS and the question."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = vocabulary(world)
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token=PAD))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=BOS,
        eos_token=EOS,
        pad_token=PAD,
        clean_up_tokenization_spaces=False,
        chat_template="{{ bos_token }} {% for m in messages %}{{ m['content'] }} {% endfor %}",
    )
    folder = Path(folder)
    fast.save_pretrained(folder)
    return folder
