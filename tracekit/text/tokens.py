"""Counting tokens with a tokenizer.json, without transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.ids import file_digest
from tracekit.core.runs import Progress

BATCH = 2000


class TokenizerError(ValueError):
    """A tokenizer cannot be loaded: the message says what to install or where to point."""


def count_tokens(responses: pl.LazyFrame, tokenizer: str, progress: Progress) -> pl.Series:
    """Tokens of each response without special tokens, Int32, in order. `tokenizer`: folder, file or hub name."""
    encoder = _load(tokenizer)
    total = responses.select(pl.len()).collect().item()
    counts: list[int] = []
    for start in range(0, total, BATCH):
        texts = responses.slice(start, BATCH).collect()["response"].to_list()
        counts += [len(e.ids) for e in encoder.encode_batch_fast(texts, add_special_tokens=False)]
        progress("tokens", len(counts), total, "")
    return pl.Series("tokens", counts, dtype=pl.Int32)


def tokenizer_digest(tokenizer: str | None) -> str | None:
    """What decides the counts: the file's bytes, or the hub name."""
    if tokenizer is None:
        return None
    path = _file(tokenizer)
    return file_digest(path) if path else tokenizer


def _file(tokenizer: str) -> Path | None:
    path = Path(tokenizer)
    path = path / "tokenizer.json" if path.is_dir() else path
    return path if path.is_file() else None


def _load(tokenizer: str) -> Any:
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise TokenizerError(
            "counting tokens needs the package tokenizers: pip install '.[train]'. "
            "Without the setting `tokenizer`, words are counted."
        ) from error
    path = _file(tokenizer)
    if path is None and Path(tokenizer).exists():
        raise TokenizerError(f"{tokenizer} holds no tokenizer.json; expected a folder or file that has one.")
    try:
        return Tokenizer.from_file(str(path)) if path else Tokenizer.from_pretrained(tokenizer)
    except Exception as error:  # tokenizers raises bare Exception for every fault
        raise TokenizerError(f"{tokenizer} cannot be loaded as a tokenizer: {error}") from error
