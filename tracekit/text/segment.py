"""A response's parts: think block and answer, steps and their kinds, what is wrong first.

Rules over text, made for speed and for being questioned: every step is a span of the response as it
stands, so `response[step.start:step.end]` is what was judged.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np
import polars as pl

from evaluators.extraction.thinking import split_thinking
from tracekit.core.tables import STEPS
from tracekit.text.arithmetic import Calculation, calculator_annotations, equations, quick_checks

#: How a final answer is announced: LaTeX box, GSM8K's ####, the model solutions' "A:", prose.
FINAL_ANSWER = re.compile(r"\\boxed\b|\\fbox\b|^####|^A:|\b(?:final )?answer(?: is|:)", re.MULTILINE | re.IGNORECASE)

# A display is never cut: `\[ … \]`, `$$ … $$`, a fence, an environment. Every pattern here reads a text once, for a
# model that loops writes 40,000 blanks or openers in a row.
_OPENS_DISPLAY = re.compile(r"```|\$\$|\\\[|\\begin\{(\w+\*?)\}")
_ENDS_ENVIRONMENT = re.compile(r"\\end\{(\w+\*?)\}")
_CLOSES = {"```": "```", "$$": "$$", "\\[": "\\]"}
_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")
_NEWLINE = re.compile(r"\n\s*")

# Looked for in this order: the first that matches names the step. A pattern is tried only on a step that holds one of
# its keys, and the keys are looked for in the whole lower-cased response at once: a hundred times as fast.
_KIND_MARKERS = (
    (
        "conclusion",
        ("\\boxed", "####", "a:", "final answer", "the answer is", "in conclusion"),
        re.compile(r"\\boxed\b|^[^\S\n]*####|^[^\S\n]*a:|\b(?:final answer|the answer is|in conclusion)\b", re.M),
    ),
    (
        "backtracking",
        (
            *("wait", "hold on", "no,", "hmm", "oops", "actually", "i made a", "wrong", "not right", "incorrect"),
            *("let me re", "let me start over", "let me try again", "scratch that", "go back"),
        ),
        re.compile(
            r"^\W*(?:wait|hold on|no,|hmm|oops|actually)\b|\b(?:i made an? (?:mistake|error)|that(?:'s| is) "
            r"(?:wrong|not right|incorrect)|let me (?:re(?:do|think|consider|start|compute|calculate)|start over|"
            r"try again)|scratch that|go back)\b"
        ),
    ),
    (
        "verification",
        ("check", "verif", "confirm", "make sure", "substitut", "plug", "sanity"),
        re.compile(
            r"\b(?:check(?:s|ing|ed)?|verif(?:y|ies|ying|ication|ied)|double-check|confirm(?:s|ing)?|make sure|"
            r"substitut(?:e|ing) back|plug(?:ging)? (?:it |this |that )?back|sanity)\b"
        ),
    ),
    (
        "exploration",
        (
            *("alternatively", "maybe", "perhaps", "suppose", "what if", "another way", "another approach"),
            *("another method", "another idea", "let me try", "let's try", "let us try", "we could", "i could"),
            *("could we", "one way", "one approach", "one idea", "consider the case"),
        ),
        re.compile(
            r"^\W*(?:alternatively|maybe|perhaps|suppose|what if)\b|\b(?:another (?:way|approach|method|idea)|"
            r"let me try|let's try|let us try|we could|i could|could we|one (?:way|approach|idea)|consider the case)\b"
        ),
    ),
)
_MARKER_OF_KEY = {key: number for number, (_, keys, _) in enumerate(_KIND_MARKERS) for key in keys}
#: Letters beyond ASCII that become ASCII when they are lower-cased: the Kelvin sign, and I with a dot.
_LOWERED_TO_ASCII = ("\u212a", "\u0130")
_OPERATES = re.compile(r"\d\s*[-+*/×÷^]")


@dataclass(frozen=True, slots=True)
class Parts:
    """Where a response thinks and where it answers; spans are (start, end) in characters.

    think: inside the tags, None where the response has no think block.
    answer: what follows the think block; the whole response without one; empty where it never closes.
    closed: False where a think block opens and does not end.
    """

    think: tuple[int, int] | None
    answer: tuple[int, int]
    closed: bool = True


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a response.

    Attributes
    ----------
    start, end : int
        Characters: the step is `response[start:end]`.
    kind : str
        A name of STEP_KINDS.
    correct : bool or None
        False where a written calculation is wrong, True where all that can be checked are right, None where none can be
        checked.
    operator : str or None
        Of the last readable calculation.
    value : float or None
        The result of the last readable calculation.

    Examples
    --------
    >>> from tracekit import Step
    >>> Step(0, 9, "calculate", True, "+", 5.0).value
    5.0
    """

    start: int
    end: int
    kind: str
    correct: bool | None
    operator: str | None
    value: float | None


def split_response(response: str, opened: bool = False) -> Parts:
    """Find the think block, of any notation in `evaluators.extraction.thinking`.

    opened: whether the prompt opened the block. A closing tag alone counts without it.
    """
    return Parts(*split_thinking(response, opened))


def segment(response: str) -> list[Step]:
    r"""Cut a response into steps: paragraphs, or lines where it has no blank line; a displayed formula is not cut.

    Parameters
    ----------
    response : str
        With or without a think block.

    Returns
    -------
    list of Step
        In the order of the text.

    Examples
    --------
    >>> from tracekit import segment
    >>> [(step.correct, step.value) for step in segment("First 2 + 3 = 5.\n\nThen 5 * 4 = 21.")]
    [(True, 5.0), (False, 21.0)]
    """
    spans = _spans(response)
    (hits,) = marker_hits(pl.Series([response]))
    judged = _judged(response, spans, hits)
    return [Step(start, end, *found) for (start, end), found in zip(spans, judged, strict=True)]


def _spans(response: str) -> list[tuple[int, int]]:
    parts = split_response(response)
    return [span for part in (parts.think, parts.answer) if part is not None for span in _pieces(response, *part)]


def checked_calculations(text: str) -> list[Calculation]:
    """Annotations where the text has them, else plain equations: an annotated line repeats its equation in prose."""
    return calculator_annotations(text) if "<<" in text else equations(text)


def first_wrong_step(steps: Iterable[Step]) -> int | None:
    """Index of the first step whose arithmetic is wrong; None where no written calculation is."""
    return next((index for index, step in enumerate(steps) if step.correct is False), None)


def segment_traces(traces: pl.DataFrame) -> pl.DataFrame:
    """TRACES (trace_id and response are read) → STEPS, in the order of the traces."""
    ids: list[str] = []
    rows: list[tuple[int, int, int]] = []
    judged: list[_Judgement] = []
    responses = traces["response"].to_list()
    for trace_id, response, hits in zip(traces["trace_id"], responses, marker_hits(traces["response"]), strict=True):
        spans = _spans(response)
        ids += [trace_id] * len(spans)
        rows += [(index, start, end) for index, (start, end) in enumerate(spans)]
        judged += _judged(response, spans, hits)
    columns = [*zip(*rows), *zip(*judged)] or [()] * (len(STEPS) - 1)
    return pl.DataFrame(dict(zip(STEPS, [ids, *columns], strict=True)), schema=STEPS)


#: Kind, correct, operator and value of a step, as in Step.
_Judgement = tuple[str, bool | None, str | None, float | None]
#: Where in a response keys of markers stand, in characters, and the number of the marker that each belongs to.
Hits = list[tuple[int, int]]


def marker_hits(responses: pl.Series) -> Iterator[Hits | None]:
    """The keys of the markers in each response; None where places in it may not be those in its lower-cased text.

    All keys are looked for in all responses at once.
    """
    some = pl.col("response")
    found = responses.to_frame("response").select(
        at=some.str.find_many(list(_MARKER_OF_KEY), ascii_case_insensitive=True, overlapping=True),
        key=some.str.extract_many(list(_MARKER_OF_KEY), ascii_case_insensitive=True, overlapping=True),
        ascii=some.str.len_bytes() == some.str.len_chars(),
        grows=some.str.contains_any(list(_LOWERED_TO_ASCII)),
    )
    for (places, keys, is_ascii, grows), response in zip(found.iter_rows(), responses, strict=True):
        if grows:
            yield None
            continue
        if not is_ascii and places:
            # Bytes that go on with a character are no place of their own.
            begins = (np.frombuffer(response.encode(), np.uint8) & 0xC0) != 0x80
            places = (np.cumsum(begins)[places] - 1).tolist()
        yield [(at, _MARKER_OF_KEY[key.lower()]) for at, key in zip(places, keys, strict=True)]


def _judged(response: str, spans: list[tuple[int, int]], hits: Hits | None) -> Iterator[_Judgement]:
    texts = [response[start:end] for start, end in spans]
    for text, kind in zip(texts, _marked_kinds(spans, texts, hits), strict=True):
        checks = quick_checks(text)
        if not checks:
            # What neither computes nor is marked tells again what is given or known.
            yield kind or ("calculation" if _calculates(text) else "restatement"), None, None, None
            continue
        known = [status != "wrong" for status, _, _ in checks if status != "unreadable"]
        readable = [check for check in checks if check[2] is not None]
        _, operator, value = readable[-1] if readable else (None, None, None)
        yield kind or "calculation", all(known) if known else None, operator, value


def _marked_kinds(spans: list[tuple[int, int]], texts: list[str], hits: Hits | None) -> list[str | None]:
    """The kind of each step that a marker names; None where none does."""
    if hits is None:
        return [_kind(text.lower(), range(len(_KIND_MARKERS))) for text in texts]
    kinds: list[str | None] = [None] * len(spans)
    starts = [start for start, _ in spans]
    candidates: dict[int, set[int]] = {}
    for at, number in hits:
        candidates.setdefault(bisect_right(starts, at) - 1, set()).add(number)
    for step, numbers in candidates.items():
        if step >= 0:
            kinds[step] = _kind(texts[step].lower(), sorted(numbers))
    return kinds


def _kind(lowered: str, numbers: Iterable[int]) -> str | None:
    markers = (_KIND_MARKERS[number] for number in numbers)
    return next((kind for kind, _, marker in markers if marker.search(lowered)), None)


def _calculates(text: str) -> bool:
    signs = "=" in text or "<<" in text or "\\frac" in text or "\\cdot" in text or "\\times" in text or "\\sqrt" in text
    return signs or _OPERATES.search(text) is not None


def _pieces(response: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    text = response[start:end]
    by_line = not _BLANK_LINE.search(text.strip())
    cuts = _cuts(text, _NEWLINE if by_line else _BLANK_LINE)
    position = 0
    for left, right in chain(cuts, ((len(text), len(text)),)):
        piece = text[position:left].lstrip()
        if piece:
            yield start + left - len(piece), start + left - len(piece) + len(piece.rstrip())
        position = right


def _cuts(text: str, separator: re.Pattern[str]) -> Iterator[tuple[int, int]]:
    """Where the separator stands outside of displays."""
    displays = _displays(text) if _may_display(text) else ()
    # Only those that hold a separator matter, and few do.
    walls = iter([display for display in displays if separator.search(text, *display)])
    left, right = next(walls, (len(text), len(text)))
    for cut in separator.finditer(text):
        at, after = cut.span()
        while right <= at:
            left, right = next(walls, (len(text), len(text)))
        if at < left:
            yield at, after


def _displays(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the displays, in order. An opener that nothing closes opens none; a fence then runs to the end."""
    ends: dict[str, list[int]] | None = None
    unclosed: set[str] = set()
    position = 0
    while (opener := _OPENS_DISPLAY.search(text, position)) is not None:
        start, after, name = opener.start(), opener.end(), opener.group(1)
        if name is not None:
            if ends is None:
                ends = {}
                for found in _ENDS_ENVIRONMENT.finditer(text):
                    ends.setdefault(found.group(1), []).append(found.end())
            closers = ends.get(name, [])
            place = bisect_right(closers, after)
            stop = closers[place] if place < len(closers) else -1
        else:
            stop = _end_of_display(text, opener.group(), after, unclosed)
        if stop < 0:
            position = start + 1
        else:
            yield start, stop
            position = stop


def _end_of_display(text: str, opener: str, after: int, unclosed: set[str]) -> int:
    closer = _CLOSES[opener]
    at = -1 if opener in unclosed else text.find(closer, after)
    if at < 0:
        unclosed.add(opener)  # what is not found once is not looked for again
        return len(text) if opener == "```" else -1
    return at + len(closer)


def _may_display(text: str) -> bool:
    return "$$" in text or "\\[" in text or "```" in text or "\\begin" in text
