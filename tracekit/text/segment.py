"""A response's parts: think block and answer, steps and their kinds, what is wrong first.

Rules over text, made for speed and for being questioned: every step is a span of the response as it
stands, so `response[step.start:step.end]` is what was judged.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import polars as pl

from evaluators.extraction.thinking import split_thinking
from tracekit.core.tables import STEPS
from tracekit.text.arithmetic import Calculation, calculator_annotations, equations

#: How a final answer is announced: LaTeX box, GSM8K's ####, the model solutions' "A:", prose.
FINAL_ANSWER = re.compile(r"\\boxed\b|\\fbox\b|^####|^A:|\b(?:final )?answer(?: is|:)", re.MULTILINE | re.IGNORECASE)

# A display is never cut: `\[ … \]`, `$$ … $$`, a fence, an environment.
_DISPLAY = re.compile(r"```.*?(?:```|\Z)|\$\$.*?\$\$|\\\[.*?\\\]|\\begin\{(\w+\*?)\}.*?\\end\{\1\}", re.DOTALL)
_BLANK_LINE = re.compile(r"\n[ \t]*\n\s*")
_NEWLINE = re.compile(r"\s*\n\s*")

# Looked for in this order: the first that matches names the step. A pattern is tried only where one of its keys
# stands in the lower-cased step: finding a word is thirty times as fast as trying a pattern at every character.
_KIND_MARKERS = (
    (
        "conclusion",
        ("\\boxed", "####", "a:", "final answer", "the answer is", "in conclusion"),
        re.compile(r"\\boxed\b|^\s*####|^\s*a:|\b(?:final answer|the answer is|in conclusion)\b", re.M),
    ),
    (
        "backtracking",
        ("wait", "hold on", "no,", "hmm", "oops", "actually", "i made a", "that", "let me", "scratch that", "go back"),
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
        ("alternatively", "maybe", "perhaps", "suppose", "what if", "another", "try", "could", "one ", "consider"),
        re.compile(
            r"^\W*(?:alternatively|maybe|perhaps|suppose|what if)\b|\b(?:another (?:way|approach|method|idea)|"
            r"let me try|let's try|let us try|we could|i could|could we|one (?:way|approach|idea)|consider the case)\b"
        ),
    ),
)
_HAS_CALCULATION = re.compile(r"<<|\d\s*[-+*/×÷^=]|=\s*-?\$?\\?\d|\\frac|\\cdot|\\times|\\sqrt|=")


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
    """One step: `response[start:end]`, its kind (tables.STEP_KINDS), and what its arithmetic says.

    correct: False where a written calculation is wrong, True where all that can be checked are right,
        None where none can be checked.
    operator, value: of the step's last readable calculation.
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
    """The response's steps in order: paragraphs, or lines where it has no blank line, displays kept whole."""
    parts = split_response(response)
    steps: list[Step] = []
    for part in (parts.think, parts.answer):
        if part is not None:
            steps += [_step(response, *span) for span in _pieces(response, *part)]
    return steps


def checked_calculations(text: str) -> list[Calculation]:
    """Annotations where the text has them, else plain equations: an annotated line repeats its equation in prose."""
    return calculator_annotations(text) if "<<" in text else equations(text)


def first_wrong_step(steps: Iterable[Step]) -> int | None:
    """Index of the first step whose arithmetic is wrong; None where no written calculation is."""
    return next((index for index, step in enumerate(steps) if step.correct is False), None)


def segment_traces(traces: pl.DataFrame) -> pl.DataFrame:
    """TRACES (trace_id and response are read) → STEPS, in the order of the traces."""
    rows = [
        (trace_id, index, step.start, step.end, step.kind, step.correct, step.operator, step.value)
        for trace_id, response in traces.select("trace_id", "response").iter_rows()
        for index, step in enumerate(segment(response))
    ]
    return pl.DataFrame(rows, schema=STEPS, orient="row")


def _step(response: str, start: int, end: int) -> Step:
    text = response[start:end]
    found = checked_calculations(text)
    readable = [c for c in found if c.claimed_value is not None]
    known = [c.correct for c in found if c.correct is not None]
    last = readable[-1] if readable else None
    return Step(
        start,
        end,
        _kind(text, bool(found)),
        all(known) if known else None,
        last.operator if last else None,
        float(last.claimed_value) if last and last.claimed_value is not None else None,
    )


def _kind(text: str, calculates: bool) -> str:
    lowered = text.lower()
    for kind, keys, marker in _KIND_MARKERS:
        for key in keys:
            if key in lowered:
                if marker.search(lowered):
                    return kind
                break
    # What neither computes nor is marked tells again what is given or known.
    return "calculation" if calculates or _HAS_CALCULATION.search(text) else "restatement"


def _pieces(response: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    text = response[start:end]
    separator = _BLANK_LINE if _BLANK_LINE.search(text.strip()) else _NEWLINE
    displays = [found.span() for found in _DISPLAY.finditer(text)] if _may_display(text) else []
    position = 0
    for cut in separator.finditer(text):
        if any(left < cut.start() < right for left, right in displays):
            continue
        yield from _trimmed(text, position, cut.start(), start)
        position = cut.end()
    yield from _trimmed(text, position, len(text), start)


def _may_display(text: str) -> bool:
    return "$$" in text or "\\[" in text or "```" in text or "\\begin" in text


def _trimmed(text: str, left: int, right: int, offset: int) -> Iterator[tuple[int, int]]:
    piece = text[left:right]
    if piece.strip():
        start = left + len(piece) - len(piece.lstrip())
        yield offset + start, offset + start + len(piece.strip())
