"""What is measured of a response in one streaming pass: polars expressions over its text, no Python a row.

Memory stays at a few batches however long the table is.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from evaluators.extraction.thinking import CLOSING_TAGS, OPENING_TAGS

_RESPONSE = pl.col("response")
# A box and what it holds, braces nested four deep; fancier boxes are read by evaluators.
_BOX = r"^\\(?:boxed|fbox)\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}"
_FINAL = r"(?m)\\boxed|\\fbox|^####|^A:|(?i:\banswer is\b)"
_FOREIGN = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Hangul}\p{Cyrillic}\p{Arabic}\p{Hebrew}\p{Devanagari}\p{Thai}]"
_MARKERS = r"\b(?:[Ww]ait|[Hh]mm+|[Aa]lternatively|[Hh]old on|[Ll]et me (?:re|double|check|verify|think|see)\w*)\b"

#: Characters of a response's end that are looked for again in it: a loop that ran into the token limit
#: repeats its own tail once a period. 40 are long enough that prose does not repeat them by chance.
TAIL = 40

#: Rows that polars holds at once: long traces of so many still fit a processor's cache, and every measure reads them.
CHUNK = 1000

# Made once, by `measure`: the lines, the last 600 characters, the count of characters in _FOREIGN.
_LINES, _END, _FOREIGN_CHARACTERS = pl.col("lines"), pl.col("end"), pl.col("foreign_characters")

_OPENED = _RESPONSE.str.contains_any(list(OPENING_TAGS))
_CLOSED = _RESPONSE.str.contains_any(list(CLOSING_TAGS))
_LAST_BOX_AT = _END.str.find_many(["\\boxed{", "\\fbox{"]).list.last()  # in bytes; null where there is none
_ELSEWHERE = _RESPONSE.cast(pl.Binary).bin.head(-1).bin.contains(_RESPONSE.str.tail(TAIL).cast(pl.Binary))
_FOREIGN_TEXT = pl.when(_FOREIGN_CHARACTERS > 0).then(_RESPONSE)  # null where nothing is to be found: not searched
_ENDS_WELL = _RESPONSE.str.tail(8).str.contains(r"[.!?。！？)\]}>$*\"'”`\d%]\s*$") | (
    _RESPONSE.str.tail(200).str.contains(_FINAL)
)

#: The fast pass: length, think tags, boxed answer, hash, repetition.
QUICK: dict[str, pl.Expr] = {
    "characters": _RESPONSE.str.len_chars().cast(pl.Int32),
    "think_opened": _OPENED,
    "think_closed": _CLOSED,
    # The last box of the last 600 characters; null where there is none. A regex that looks for it takes ten times
    # as long.
    "boxed": _END.cast(pl.Binary).bin.slice(_LAST_BOX_AT).cast(pl.String).str.extract(_BOX),
    "response_hash": _RESPONSE.hash(),
    # Share of lines that stand in the response before, in [0, 1).
    "repeated_lines": 1 - _LINES.list.n_unique() / _LINES.list.len(),
    # Counted only where the tail stands before the end too, which is found in a third of the time.
    "tail_repeats": pl.coalesce(
        _RESPONSE.str.count_matches(pl.when(_ELSEWHERE).then(_RESPONSE.str.tail(TAIL)), literal=True),
        _ELSEWHERE.cast(pl.UInt32) + 1,
    ).cast(pl.Int32),
}

#: What the filters also ask for.
FULL: dict[str, pl.Expr] = {
    **QUICK,
    "words": _RESPONSE.str.count_matches(r"\S+").cast(pl.Int32),
    # Share of characters in scripts other than the Latin and Greek that mathematics is written in.
    "foreign_share": (_FOREIGN_CHARACTERS / _RESPONSE.str.len_chars()).cast(pl.Float32),
    "language_switches": (
        _FOREIGN_TEXT.str.count_matches(rf"\p{{Latin}}[^\p{{L}}]*{_FOREIGN}")
        + _FOREIGN_TEXT.str.count_matches(rf"{_FOREIGN}[^\p{{L}}]*\p{{Latin}}")
    )
    .fill_null(0)
    .cast(pl.Int32),
    "markers": _RESPONSE.str.count_matches(_MARKERS).cast(pl.Int32),
    # Where a final answer is first announced, as a share of the response in [0, 1]; null where it never is.
    "answer_position": (_RESPONSE.str.find(_FINAL) / _RESPONSE.str.len_bytes()).cast(pl.Float32),
    # A think block that never closes, or an end that neither punctuation, a number nor a final answer makes.
    "truncated": (_OPENED & ~_CLOSED) | ~_ENDS_WELL,
}


def measure(traces: pl.LazyFrame, measures: dict[str, pl.Expr] | None = None) -> pl.LazyFrame:
    """trace_id and the measures (FULL by default), one row a trace; lazy, to be collected or sunk streaming."""
    not_ascii = _RESPONSE.str.len_bytes() > _RESPONSE.str.len_chars()
    shared = traces.with_columns(  # polars makes only those that are asked for
        lines=_RESPONSE.str.split("\n", literal=False),  # the regex engine finds a byte faster than the literal search
        end=_RESPONSE.str.tail(600),
        foreign_characters=pl.when(not_ascii).then(_RESPONSE).str.count_matches(_FOREIGN).fill_null(0),
    )
    return shared.select("trace_id", **(measures or FULL))


def measure_file(traces: Path, out: Path, measures: dict[str, pl.Expr] | None = None) -> Path:
    """Measure one table (Parquet, or Arrow by the name .arrow), or a folder of Parquet shards, of any size into `out`:
    polars' streaming engine."""
    scan = pl.scan_ipc if traces.suffix == ".arrow" else pl.scan_parquet
    with pl.Config(streaming_chunk_size=CHUNK):
        measure(scan(traces / "*.parquet" if traces.is_dir() else traces), measures).sink_parquet(out)
    return out
