"""Labelled cases: gold, response, outcome, why. The outcome "not_correct" leaves open which kind of no it is."""

import tomllib
from pathlib import Path

import pytest

from evaluators.verdict import Outcome
from evaluators.verify import verify

CASES_FOLDER = Path(__file__).parent / "cases"


def read_cases():
    for path in sorted(CASES_FOLDER.glob("*.toml")):
        for number, case in enumerate(tomllib.loads(path.read_text(encoding="utf-8"))["cases"], 1):
            yield pytest.param(case, id=f"{path.stem}-{number}")


CASES = list(read_cases())


@pytest.mark.parametrize("case", CASES)
def test_the_verdict_is_the_labelled_one(case):
    verdict = verify(case["response"], case["gold"])
    explanation = f"{case['why']}: {verdict}"
    if case["outcome"] == "not_correct":
        assert not verdict.correct, explanation
    else:
        assert verdict.outcome == Outcome(case["outcome"]), explanation


def test_there_are_enough_cases_and_a_third_says_no():
    outcomes = [case.values[0]["outcome"] for case in CASES]
    assert len(outcomes) >= 600
    assert sum(outcome != "correct" for outcome in outcomes) >= len(outcomes) / 3


def test_no_case_stands_twice():
    pairs = [(case.values[0]["gold"], case.values[0]["response"]) for case in CASES]
    assert len(set(pairs)) == len(pairs)
