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


PARAGRAPHS = [f"Paragraph number {n} says something of its own." for n in range(15)]


def test_repeated_lines_are_a_share_of_the_substantial_lines() -> None:
    one, layout = "We add the two numbers.", "\\["
    (found,) = measured("\n".join([one, layout, "", one, layout, "", "Then we take half of it.", "so"]))
    assert found["repeated_lines"] == pytest.approx(1 / 3)
    assert found["repeated_characters"] == pytest.approx(len(one) / (2 * len(one) + len("Then we take half of it.")))


@pytest.mark.parametrize("between", ["\n\n", "\n\n\n", "\n\\[\nx\n\\]\n", "\n---\n"])
def test_what_parts_distinct_paragraphs_is_no_repetition(between: str) -> None:
    (found,) = measured(between.join(PARAGRAPHS))
    assert (found["repeated_lines"], found["repeated_characters"]) == (0, 0)


@pytest.mark.parametrize("period", [1, 7, 50, 333, 1200])
def test_a_period_of_any_length_that_repeats_to_the_end_is_counted(period: int) -> None:
    said = "".join(f"{n}, " for n in range(1000))[:period]
    (found,) = measured("A beginning that is said once. " + said * 200 if period < 50 else "Once. " + said * 4)
    assert found["loop_repeats"] == pytest.approx(200 if period < 50 else 4, rel=0.02)


def test_an_end_that_is_said_twice_and_a_rule_of_dashes_are_no_loop() -> None:
    twice, dashes = measured("Some words before. " + PARAGRAPHS[1] * 2, "Some words before.\n" + "-" * 80)
    assert (twice["loop_repeats"], dashes["loop_repeats"]) == (1, 1)


@pytest.mark.parametrize(
    ("response", "fault"),
    [
        ("<think>a</think>b", ""),
        ("a</think>b", ""),  # the opening tag stood in the prompt
        ("no block", ""),
        ("<|begin_of_thought|>a<|end_of_thought|>\n<|begin_of_solution|>b", ""),
        ("<|channel|>analysis<|message|>a<|channel|>analysis<|message|>b<|channel|>final<|message|>c", ""),
        ("[THINK]a[/THINK]b", ""),
        ("<|channel|>analysis<|message|>a", "not one block"),
        ("<think>a<think>b</think>c", "not one block"),
        ("<think>a</think>b</think>c", "not one block"),
        ("<think>a", "not one block"),
        ("</think>a<think>", "not one block"),
        ("<think>a</thinking>b", "not one block"),
        ("<think>a</think>b<think>c</think>d", "not one block"),
        ("<think>a</think> \n", "no answer after it"),
    ],
)
def test_think_tags_at_fault_are_told(response: str, fault: str) -> None:
    assert measured(response)[0]["think_fault"] == fault


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


@pytest.mark.parametrize(
    "instruction",
    ["I must put the final answer in \\boxed{}.", "The answer is to be a fraction in \\boxed{...}.", "Use \\boxed."],
)
def test_an_instruction_that_is_quoted_is_no_answer(instruction: str) -> None:
    (found,) = measured(instruction + " We reckon." * 60 + " So it is \\boxed{7}.")
    assert found["answer_position"] > 0.9


@pytest.mark.parametrize("early", ["The answer is 7. ", "The answer is $7$. ", "\\boxed{7} it is. "])
def test_an_answer_that_is_said_first_and_again_at_the_end_is_early(early: str) -> None:
    (found,) = measured(early + "We reckon. " * 100 + "So it is \\boxed{7}.")
    assert found["answer_position"] < 0.05


def test_the_streamed_file_holds_what_a_frame_gives(tmp_path: Path) -> None:
    frame = pl.DataFrame({"trace_id": ["a", "b"], "response": ["<think>x</think>\n\\boxed{1}", "no\nno"]})
    frame.write_parquet(tmp_path / "t.parquet")
    out = pl.read_parquet(measure_file(tmp_path / "t.parquet", tmp_path / "m.parquet"))
    assert out.equals(measure(frame.lazy()).collect())
    assert set(QUICK) < set(FULL) < set(out.columns)
