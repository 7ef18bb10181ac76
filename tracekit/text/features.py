"""What is measured of a response in one streaming pass: polars expressions over its text, no Python a row.

Memory stays at a few batches however long the table is.
"""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

import polars as pl

from evaluators.extraction.thinking import CLOSING_TAGS, OPENING_TAGS, THINK_BLOCKS

_RESPONSE = pl.col("response")
# A box and what it holds, braces nested four deep; fancier boxes are read by evaluators.
_BOX = r"^\\(?:boxed|fbox)\{((?:[^{}]|\{(?:[^{}]|\{(?:[^{}]|\{[^{}]*\})*\})*\})*)\}"
_FINAL = r"(?m)\\boxed|\\fbox|^####|^A:|(?i:\banswer is\b)"
# An announcement that holds an answer: "#### 72", "A: 18", "the answer is $7$". A quoted instruction ("put the final
# answer in \boxed{}", "the answer is to be a fraction") holds none.
_LINE_ANSWER = r"(?m)^(?:####|A:)[ \t]*\S"
_SAID_ANSWER = r"(?i)\banswer is:?[ \t]*[*$\\({\[]*[-\d]"
#: Scripts other than the Latin and Greek that mathematics is written in, and what \p names each is made of.
SCRIPTS = {
    "east_asian": r"\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}",
    "hangul": r"\p{Hangul}",
    "cyrillic": r"\p{Cyrillic}",
    "arabic": r"\p{Arabic}",
    "hebrew": r"\p{Hebrew}",
    "devanagari": r"\p{Devanagari}",
    "thai": r"\p{Thai}",
}
_FOREIGN = f"[{''.join(SCRIPTS.values())}]"
#: A problem is written in a script of which it holds so many characters and so large a share of its letters: one name
#: in Chinese does not make a problem Chinese.
LEAST_CHARACTERS, LEAST_SHARE = 2, 0.03
_MARKERS = r"\b(?:[Ww]ait|[Hh]mm+|[Aa]lternatively|[Hh]old on|[Ll]et me (?:re|double|check|verify|think|see)\w*)\b"

#: Characters of a response's end that are looked for again in it: a loop that ran into the token limit
#: repeats its own tail once a period. 40 are long enough that prose does not repeat them by chance.
TAIL = 40
#: Characters that a period must fill up to the end before its repetition counts as a loop: a rule of dashes is none.
LOOP = 120
#: A line of fewer letters and digits is layout (a lone bracket, an item's number) and repeats without meaning.
SUBSTANTIAL = 10

#: Rows that polars holds at once: long traces of so many still fit a processor's cache, and every measure reads them.
CHUNK = 1000

# Made once, by `measure`: the last 600 characters, the count of characters in _FOREIGN, the think tags in their order,
# the last box, the substantial lines of a response that repeats a line (null elsewhere: only they are looked at).
_END, _FOREIGN_CHARACTERS = pl.col("end"), pl.col("foreign_characters")
_TAGS, _BOXED, _REPEATING = pl.col("tags"), pl.col("last_box"), pl.col("repeating")

_OPENED = _RESPONSE.str.contains_any(list(OPENING_TAGS))
_CLOSED = _RESPONSE.str.contains_any(list(CLOSING_TAGS))
_LAST_BOX_AT = _END.str.find_many(["\\boxed{", "\\fbox{"]).list.last()  # in bytes; null where there is none
_BOXED_AT_END = _END.cast(pl.Binary).bin.slice(_LAST_BOX_AT).cast(pl.String).str.extract(_BOX)
_ELSEWHERE = _RESPONSE.cast(pl.Binary).bin.head(-1).bin.contains(_RESPONSE.str.tail(TAIL).cast(pl.Binary))
_FOREIGN_TEXT = pl.when(_FOREIGN_CHARACTERS > 0).then(_RESPONSE)  # null where nothing is to be found: not searched
_ENDS_WELL = _RESPONSE.str.tail(8).str.contains(r"[.!?。！？)\]}>$*\"'”`\d%]\s*$") | (
    _RESPONSE.str.tail(200).str.contains(_FINAL)
)

_CLOSES_AT_END = rf"(?:{'|'.join(re.escape(tag) for tag in CLOSING_TAGS)})(?:<\|message\|>)?$"
_TAG_SEPARATOR = "\x1f"


def _characters(lines: pl.Expr) -> pl.Expr:
    return lines.list.eval(pl.element().str.len_chars()).list.sum()


#: The fast pass: length, think tags, boxed answer, hash, repetition.
QUICK: dict[str, pl.Expr] = {
    "characters": _RESPONSE.str.len_chars().cast(pl.Int32),
    "think_opened": _OPENED,
    "think_closed": _CLOSED,
    # The last box of the last 600 characters; null where there is none. A regex that looks for it takes ten times
    # as long.
    "boxed": _BOXED_AT_END,
    "response_hash": _RESPONSE.hash(),
    # Share of the substantial lines that stand in the response before, and of their characters, in [0, 1).
    "repeated_lines": (1 - _REPEATING.list.n_unique() / _REPEATING.list.len()).fill_nan(0).fill_null(0),
    "repeated_characters": (1 - _characters(_REPEATING.list.unique()) / _characters(_REPEATING))
    .fill_nan(0)
    .fill_null(0),
    # Counted only where the tail stands before the end too, which is found in a third of the time.
    "tail_repeats": pl.coalesce(
        _RESPONSE.str.count_matches(pl.when(_ELSEWHERE).then(_RESPONSE.str.tail(TAIL)), literal=True),
        _ELSEWHERE.cast(pl.UInt32) + 1,
    ).cast(pl.Int32),
    # How often the end repeats one period, up to the last character; 1 where it repeats none.
    "loop_repeats": pl.when(_ELSEWHERE)
    .then(_RESPONSE)
    .map_batches(lambda texts: loop_repeats(texts), return_dtype=pl.Float32, is_elementwise=True)
    .fill_null(1),
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
    # Where the final answer is first announced, as a share of the response in [0, 1]; null where it never is.
    "answer_position": (
        pl.min_horizontal(
            _RESPONSE.str.find(pl.concat_str(pl.lit("\\boxed{"), _BOXED, pl.lit("}")), literal=True),
            _RESPONSE.str.find(pl.concat_str(pl.lit("answer is "), _BOXED), literal=True),
            _RESPONSE.str.find(pl.concat_str(pl.lit("answer is $"), _BOXED, pl.lit("$")), literal=True),
            pl.when(_BOXED.is_null()).then(_RESPONSE).str.find(_LINE_ANSWER),
            pl.when(_BOXED.is_null()).then(_RESPONSE).str.find(_SAID_ANSWER),
        )
        / _RESPONSE.str.len_bytes()
    ).cast(pl.Float32),
    # What is wrong with the think tags: "" where they are one block, with or without its opening tag, and an answer.
    "think_fault": pl.when(_TAGS == "")
    .then(pl.lit(""))
    .when(~_TAGS.map_batches(lambda tags: _are_one_block(tags), return_dtype=pl.Boolean, is_elementwise=True))
    .then(pl.lit("not one block"))
    .when(_RESPONSE.str.strip_chars_end().str.tail(40).str.contains(_CLOSES_AT_END))
    .then(pl.lit("no answer after it"))
    .otherwise(pl.lit("")),
    # A think block that never closes, or an end that neither punctuation, a number nor a final answer makes.
    "truncated": (_OPENED & ~_CLOSED) | ~_ENDS_WELL,
}


def measure(traces: pl.LazyFrame, measures: dict[str, pl.Expr] | None = None) -> pl.LazyFrame:
    """trace_id and the measures (FULL by default), one row a trace; lazy, to be collected or sunk streaming."""
    not_ascii = _RESPONSE.str.len_bytes() > _RESPONSE.str.len_chars()
    shared = traces.with_columns(  # polars makes only those that are asked for
        # The regex engine finds a byte faster than the literal search.
        lines=_RESPONSE.str.split("\n", literal=False).list.filter(pl.element().str.len_bytes() >= SUBSTANTIAL),
        end=_RESPONSE.str.tail(600),
        foreign_characters=pl.when(not_ascii).then(_RESPONSE).str.count_matches(_FOREIGN).fill_null(0),
        tags=_RESPONSE.str.extract_many([*OPENING_TAGS, *CLOSING_TAGS]).list.join(_TAG_SEPARATOR),
    ).with_columns(
        last_box=pl.coalesce(_BOXED_AT_END, _last_box_anywhere()),
        repeating=pl.when(pl.col("lines").list.n_unique() < pl.col("lines").list.len())
        .then(pl.col("lines"))
        .list.filter(pl.element().str.contains(rf"(?:[\p{{L}}\p{{N}}][^\p{{L}}\p{{N}}]*){{{SUBSTANTIAL}}}")),
    )
    return shared.select("trace_id", **(measures or FULL))


def _last_box_anywhere() -> pl.Expr:
    """The last box of responses whose last 600 characters hold none: an answer that stands at the front."""
    text = pl.when(_LAST_BOX_AT.is_null()).then(_RESPONSE)
    at = text.str.find_many(["\\boxed{", "\\fbox{"]).list.last()
    return text.cast(pl.Binary).bin.slice(at).cast(pl.String).str.extract(_BOX)


def _are_one_block(tags: pl.Series) -> pl.Series:
    """Whether each response's think tags, joined in order, are one block: opened here or by the prompt, then closed."""
    return pl.Series(tags.name, [None if one is None else _is_one_block(one) for one in tags], dtype=pl.Boolean)


@lru_cache(maxsize=1024)
def _is_one_block(tags: str) -> bool:
    found = tags.split(_TAG_SEPARATOR)
    block = next((block for block in THINK_BLOCKS if found[-1] in block.closings), None)
    if block is None:
        return False
    opened = next(place for place, tag in enumerate(found) if tag not in block.openings)
    closing = found[opened:]
    # Harmony opens a channel for each stretch of a thought; other notations open once. A block may close in two tags.
    return (opened <= 1 or len(block.openings) > 1) and closing == [tag for tag in block.closings if tag in closing]


def loop_repeats(texts: pl.Series) -> pl.Series:
    """How often each text's end repeats one period up to its last character, Float32; 1 where that is no loop."""
    return pl.Series(texts.name, [None if text is None else _repeats(text) for text in texts], dtype=pl.Float32)


def _repeats(text: str) -> float:
    text = text.rstrip()
    end = len(text)
    before = text.rfind(text[-TAIL:], 0, end - 1)
    period = end - TAIL - before
    if before < 0 or end < TAIL:
        return 1.0
    # How long a suffix equals the one a period earlier: doubled while it does, then halved to the exact length.
    known, step = TAIL, TAIL
    while step:
        longer = known + step
        if longer <= end - period and text.endswith(text[end - period - longer : end - period]):
            known, step = longer, step * 2
        else:
            step //= 2
    return (known + period) / period if known + period >= LOOP else 1.0


def script_counts() -> dict[str, pl.Expr]:
    """Characters of the response in each of SCRIPTS, one column a script: what `curation` holds against the problem."""
    text = pl.when(_FOREIGN_CHARACTERS > 0).then(_RESPONSE)
    return {
        f"in_{name}": text.str.count_matches(f"[{ranges}]").fill_null(0).cast(pl.Int32)
        for name, ranges in SCRIPTS.items()
    }


def scripts_of(problems: pl.DataFrame) -> pl.DataFrame:
    """problem_id and for each of SCRIPTS whether the problem (PROBLEMS) is written in it."""
    text = pl.col("problem")
    letters = text.str.count_matches(r"\p{L}")
    counts = {name: text.str.count_matches(f"[{ranges}]") for name, ranges in SCRIPTS.items()}
    return problems.select(
        "problem_id",
        **{
            f"of_{name}": (count >= LEAST_CHARACTERS) & (count >= LEAST_SHARE * letters)
            for name, count in counts.items()
        },
    )


def measure_file(traces: Path, out: Path, measures: dict[str, pl.Expr] | None = None) -> Path:
    """Measure one table (Parquet, or Arrow by the name .arrow), or a folder of Parquet shards, of any size into `out`:
    polars' streaming engine."""
    scan = pl.scan_ipc if traces.suffix == ".arrow" else pl.scan_parquet
    with pl.Config(streaming_chunk_size=CHUNK):
        measure(scan(traces / "*.parquet" if traces.is_dir() else traces), measures).sink_parquet(out)
    return out
