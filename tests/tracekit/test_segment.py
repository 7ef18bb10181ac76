import json
import time
from itertools import pairwise
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit.core.tables import STEP_KINDS, STEPS, check
from tracekit.text.segment import first_wrong_step, segment, segment_traces, split_response

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.mark.parametrize(
    ("response", "think", "answer", "closed"),
    [
        ("<think>a</think>b", "a", "b", True),
        ("a</think>b", "a", "b", True),  # the opening tag stood in the prompt
        ("<think>a b", "a b", "", False),
        ("plain", None, "plain", True),
        ("<|begin_of_thought|>x<|end_of_thought|>y", "x", "y", True),
        ("x <think>a</think>b", "a", "b", True),
        ("", None, "", True),
    ],
)
def test_a_response_parts_into_think_block_and_answer(
    response: str, think: str | None, answer: str, closed: bool
) -> None:
    parts = split_response(response)
    assert (response[slice(*parts.think)] if parts.think else None) == think
    assert response[slice(*parts.answer)] == answer
    assert parts.closed is closed


@pytest.mark.parametrize(
    ("step", "kind"),
    [
        ("Natalia sold 48/2 = <<48/2=24>>24 clips in May.", "calculation"),
        ("We have $x^2 = 4$.", "calculation"),
        ("She has three ducks.", "restatement"),
        ("Wait, that is not right.", "backtracking"),
        ("Hmm, I made a mistake in the sum.", "backtracking"),
        ("Let me double-check: 3 + 4 = 7.", "verification"),
        ("Alternatively, we could count the pairs.", "exploration"),
        ("Therefore the final answer is \\boxed{7}.", "conclusion"),
        ("#### 72", "conclusion"),
        ("A: 18", "conclusion"),
    ],
)
def test_a_step_has_a_kind(step: str, kind: str) -> None:
    (found,) = segment(step)
    assert found.kind == kind


def test_paragraphs_are_steps_and_a_display_is_never_cut() -> None:
    response = "First.\n\n\\[\na = b\n\n+ c\n\\]\n\nLast line\nof two."
    assert [response[s.start : s.end] for s in segment(response)] == [
        "First.",
        "\\[\na = b\n\n+ c\n\\]",
        "Last line\nof two.",
    ]


def test_without_blank_lines_lines_are_steps() -> None:
    response = "one 1+1=2\n two\n#### 2"
    assert [response[s.start : s.end] for s in segment(response)] == ["one 1+1=2", "two", "#### 2"]


def test_the_first_wrong_step_is_the_first_whose_arithmetic_is_wrong() -> None:
    steps = segment("a <<1+1=2>>2\nno numbers\nb <<2+2=5>>5\nc <<5+1=7>>7")
    assert [s.correct for s in steps] == [True, None, False, False]
    assert first_wrong_step(steps) == 2
    assert [(s.operator, s.value) for s in steps] == [("+", 2.0), (None, None), ("+", 5.0), ("+", 7.0)]


@given(st.text(alphabet="ab1+=\n <>/think\\[]$boxed{}", max_size=200))
def test_steps_cover_all_text_but_white_space_and_tags_in_order(response: str) -> None:
    parts = split_response(response)
    steps = segment(response)
    assert all(a.end <= b.start for a, b in pairwise(steps))
    covered = "".join(response[s.start : s.end] for s in steps)
    whole = "".join(response[slice(*p)] for p in (parts.think, parts.answer) if p)
    assert "".join(covered.split()) == "".join(whole.split())
    assert all(s.kind in STEP_KINDS for s in steps)


def test_a_table_of_traces_becomes_a_table_of_steps() -> None:
    traces = pl.DataFrame({"trace_id": ["a", "b", "c"], "response": ["x\ny", "", "1+1=2"]})
    steps = check(segment_traces(traces), STEPS, "steps")
    assert steps.select("trace_id", "step").rows() == [("a", 0), ("a", 1), ("c", 0)]


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data folder")
def test_every_annotation_of_gsm8k_is_exact_and_some_of_its_prose_is_not() -> None:
    from tracekit.text.arithmetic import calculator_annotations

    answers = [json.loads(line)["answer"] for line in (SHARED / "gsm8k" / "train.jsonl").open()][:2000]
    statuses = {c.status for answer in answers for c in calculator_annotations(answer)}
    assert statuses == {"exact"}
    assert sum(s.correct is False for answer in answers for s in segment(answer)) > 0


def test_several_interpreters_give_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    from tracekit.text import segment_worker

    traces = pl.DataFrame(
        {"trace_id": [f"t{i}" for i in range(7)], "response": [f"a\n{i}+1={i + 1}" for i in range(7)]}
    )
    monkeypatch.setattr(segment_worker, "WORTH_A_WORKER", 0)
    assert segment_worker.segment_in_processes(traces, 2).equals(segment_traces(traces))
    null = pl.when(pl.col("trace_id") != "t5").then("response").alias("response")  # in the other interpreter's share
    with pytest.raises(segment_worker.WorkerError, match="NoneType"):
        segment_worker.segment_in_processes(traces.with_columns(null), 2)


@pytest.mark.parametrize(
    "unit", [" ", "\\[", "\\begin{a}", "$$", "\n", "\n ", "$1+", "1 = ", "a:\n", "<<1", "```", "x\n\n"]
)
def test_what_a_looping_model_writes_is_read_in_linear_time(unit: str) -> None:
    """The old patterns took 14 s for 40,000 blanks; linear reading of 100,000 units takes well under a second."""
    started = time.process_time()
    segment(unit * 100_000)
    assert time.process_time() - started < 8


def test_an_opener_that_nothing_closes_opens_no_display() -> None:
    response = "\\[ a\n\n\\begin{align} b\n\n$$ c\n\nd"
    assert len(segment(response)) == 4
    assert len(segment("```\na\n\nb\n\nc")) == 1  # a fence runs to the end
    assert len(segment("\\begin{x}\n\n\\begin{y}\n\n\\end{x}\n\n\\end{y}")) == 2
