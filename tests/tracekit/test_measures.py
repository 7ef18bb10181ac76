from pathlib import Path

import polars as pl
import pytest

from tracekit.text.features import FULL, QUICK, TAIL, measure, measure_file


def measured(*responses: str) -> list[dict]:
    traces = pl.LazyFrame({"trace_id": [str(i) for i in range(len(responses))], "response": list(responses)})
    return measure(traces).collect().to_dicts()


@pytest.mark.parametrize(
    ("response", "boxed"),
    [
        ("so \\boxed{\\frac{1}{2}}.", "\\frac{1}{2}"),
        ("\\boxed{1} then \\boxed{2}", "2"),
        ("\\fbox{7}", "7"),
        ("a} none", None),
        ("\\boxed{1", None),
        ("", None),
    ],
)
def test_the_last_box_is_found_with_balanced_braces(response: str, boxed: str | None) -> None:
    assert measured(response)[0]["boxed"] == boxed


@pytest.mark.parametrize(
    ("response", "truncated"),
    [
        ("It is 7.", False),
        ("#### 72", False),
        ("A: five apples", False),
        ("<think>still going.", True),
        ("<think>a</think> done.", False),
        ("so we multiply by the", True),
        ("and so it is \\boxed{7}", False),
    ],
)
def test_a_response_that_breaks_off_is_told(response: str, truncated: bool) -> None:
    assert measured(response)[0]["truncated"] is truncated


def test_a_loop_repeats_its_own_tail() -> None:
    loop, prose = measured(
        "First. " + "and so we go on with the very same sentence again. " * 9, "A long answer: 7. " + "x" * 9
    )
    assert loop["tail_repeats"] >= 8
    assert prose["tail_repeats"] == 1


@pytest.mark.parametrize("response", ["", "a", "a" * 50, "a" * 90, "é" * 85, "x" * 40 + "y" + "x" * 40, "ab\n" * 30])
def test_the_tail_is_counted_as_python_counts_it(response: str) -> None:
    assert measured(response)[0]["tail_repeats"] == response.count(response[-TAIL:])


def test_repeated_lines_are_a_share() -> None:
    assert measured("a\na\na\nb")[0]["repeated_lines"] == 0.5


def test_languages_are_told_by_their_scripts() -> None:
    latin, mixed = measured("α + β = 7, as Gauß knew", "let x 你好 be y 再见")
    assert latin["foreign_share"] == 0
    assert latin["language_switches"] == 0
    assert mixed["foreign_share"] == pytest.approx(4 / 16)
    assert mixed["language_switches"] == 3


def test_an_answer_before_the_reasoning_has_a_low_position() -> None:
    early, late = measured("\\boxed{7} because " + "x " * 400, "x " * 400 + "so \\boxed{7}")
    assert early["answer_position"] < 0.01
    assert late["answer_position"] > 0.95


def test_the_streamed_file_holds_what_a_frame_gives(tmp_path: Path) -> None:
    frame = pl.DataFrame({"trace_id": ["a", "b"], "response": ["<think>x</think>\n\\boxed{1}", "no\nno"]})
    frame.write_parquet(tmp_path / "t.parquet")
    out = pl.read_parquet(measure_file(tmp_path / "t.parquet", tmp_path / "m.parquet"))
    assert out.equals(measure(frame.lazy()).collect())
    assert set(QUICK) < set(FULL) < set(out.columns)
