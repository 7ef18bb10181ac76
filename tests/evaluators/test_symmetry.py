"""verify(a, b) and verify(b, a) say the same of bare answers; an answer equals itself."""

import json
import tomllib
from pathlib import Path

import pytest

from evaluators.verify import verify

CASES_FOLDER = Path(__file__).parent / "cases"
DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def bare_pairs():
    for path in sorted(CASES_FOLDER.glob("*.toml")):
        if path.stem in ("extraction", "hedging"):  # responses, not bare answers
            continue
        for case in tomllib.loads(path.read_text(encoding="utf-8"))["cases"]:
            response = case["response"]
            boxed = response.startswith("\\boxed{") and response.endswith("}") and response.count("\\boxed") == 1
            if boxed and "answer is" not in response:
                yield case["gold"], response[len("\\boxed{") : -1]


PAIRS = list(bare_pairs())


def test_there_are_enough_pairs():
    assert len(PAIRS) > 500


def test_the_verdict_does_not_depend_on_which_side_is_the_gold():
    flipped = [
        (gold, answer)
        for gold, answer in PAIRS
        if verify(f"\\boxed{{{answer}}}", gold).correct != verify(f"\\boxed{{{gold}}}", answer).correct
    ]
    assert flipped == []


def test_the_box_makes_no_difference_to_a_bare_answer_in_mathematics():
    differing = [
        (gold, answer)
        for gold, answer in PAIRS
        if verify(f"\\boxed{{{answer}}}", gold).correct != verify(f"${answer}$", gold).correct and "$" not in answer
    ]
    assert differing == []


def test_every_answer_of_the_cases_that_has_a_value_equals_itself():
    answers = {side for pair in PAIRS for side in pair}
    without_value = {"\\frac{1}{0}", "3=5", ""}
    differing = [a for a in sorted(answers - without_value) if not verify(f"\\boxed{{{a}}}", a).correct]
    assert differing == []


def math500_golds():
    path = DATA / "math500" / "test.jsonl"
    if not path.exists():
        pytest.skip(f"{path} is not here")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_gold_of_math500_verifies_against_itself_and_its_worked_solution():
    rows = math500_golds()
    assert [row["answer"] for row in rows if not verify(f"\\boxed{{{row['answer']}}}", row["answer"]).correct] == []
    missed = [(row["unique_id"], row["answer"]) for row in rows if not verify(row["solution"], row["answer"]).correct]
    assert missed == []


def test_no_gold_of_math500_verifies_against_the_next_one_of_another_value():
    golds = sorted({row["answer"] for row in math500_golds()})
    both_ways = [
        (a, b) for step in (1, 7, 31) for a, b in zip(golds, golds[step:]) if verify(f"\\boxed{{{a}}}", b).correct
    ]
    assert all(normal(a) == normal(b) for a, b in both_ways), both_ways


def normal(answer):
    """Golds that MATH-500 spells in two ways."""
    for noise in (
        "\\dfrac",
        "\\text",
        "\\mbox",
        "\\left",
        "\\right",
        "\\$",
        "\\!",
        "\\,",
        "{,}",
        "^\\circ",
        " ",
        "{",
        "}",
    ):
        answer = answer.replace(noise, "\\frac" if noise == "\\dfrac" else "")
    return answer.split("cm")[0].replace(",", "")
