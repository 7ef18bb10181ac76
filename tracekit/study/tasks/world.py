"""The embedded world in one import: its problems and their exact labels, its corpus, its teachers."""

from tracekit.study.tasks.chains import (
    LOG,
    QUESTION,
    REVERSE,
    Chain,
    Operation,
    Step,
    World,
    asked_of,
    box,
    draw_chain,
    label_steps,
    make_problems,
    read_chain,
    read_steps,
    work,
)
from tracekit.study.tasks.corpus import BOS, EOS, PAD, corpus, corpus_table, vocabulary, write_tokenizer
from tracekit.study.tasks.teachers import TEACHER, teach, write_trace

__all__ = [
    "BOS",
    "EOS",
    "LOG",
    "PAD",
    "QUESTION",
    "REVERSE",
    "TEACHER",
    "Chain",
    "Operation",
    "Step",
    "World",
    "asked_of",
    "box",
    "corpus",
    "corpus_table",
    "draw_chain",
    "label_steps",
    "make_problems",
    "read_chain",
    "read_steps",
    "teach",
    "vocabulary",
    "work",
    "write_tokenizer",
    "write_trace",
]
