"""Real golds, respelled so that they mean the same, and changed so that they do not."""

import json
import re
from pathlib import Path

import pytest

from evaluators.verify import verify

DATA = Path(__file__).parents[2] / ".." / "shared" / "data"


def boxed(answer):
    return f"\\boxed{{{answer}}}"


SAME = {
    "dollars": lambda gold: None if "$" in gold else f"\\boxed{{${gold}$}}",
    "full stop": lambda gold: f"\\boxed{{{gold}}}.",
    "display fractions": lambda gold: boxed(gold.replace("\\frac", "\\dfrac")),
    "Unicode minus": lambda gold: boxed(gold.replace("-", "−")),
    "Greek letters": lambda gold: boxed(gold.replace("\\pi", "π").replace("\\infty", "∞")),
    "a named value": lambda gold: (
        f"\\boxed{{x = {gold}}}" if re.fullmatch(r"-?[\d.]+|\d*\\sqrt\{\d+\}", gold) else None
    ),
    "a sentence": lambda gold: None if "$" in gold else f"The answer is ${gold}$.",
    "the sentence of few-shot prompts": lambda gold: (
        None if "$" in gold else f"Final Answer: The final answer is ${gold}$. I hope it is correct."
    ),
    "the mark of GSM8K": lambda gold: f"First 5 and then 7.\n#### {gold}",
    "a display": lambda gold: None if "$" in gold else f"We get\n\\[\n{gold}\n\\]",
    "behind a think block": lambda gold: f"<think>Is it \\boxed{{12345}}?</think>\\boxed{{{gold}}}",
}


def change_digit(gold, at):
    digits = list(re.finditer(r"\d", gold))
    if not digits:
        return None
    digit = digits[at]
    return gold[: digit.start()] + str((int(digit[0]) + 1) % 10) + gold[digit.end() :]


CHANGED = {
    "the first digit": lambda gold: change_digit(gold, 0),
    "the last digit": lambda gold: change_digit(gold, -1),
    "the sign": lambda gold: f"-{gold}" if re.fullmatch(r"[1-9][\d.]*|\\frac\{\d+\}\{\d+\}|\d*\\pi", gold) else None,
    "one more": lambda gold: f"{gold}+1" if re.fullmatch(r"\d+|\d*\\sqrt\{\d+\}|\d+\\pi|x\^\d+", gold) else None,
    "an exponent": lambda gold: gold.replace("^2", "^3", 1) if "^2" in gold else None,
    "an open end": lambda gold: gold.replace("[", "(", 1) if re.fullmatch(r"\[[^,]*,[^,]*[\])]", gold) else None,
    "a root": lambda gold: gold.replace("\\sqrt", "", 1) if re.fullmatch(r"\d*\\sqrt\{\d+\}", gold) else None,
}


@pytest.fixture(scope="module")
def golds():
    pl = pytest.importorskip("polars")
    paths = DATA / "math500" / "test.jsonl", DATA / "benchmarks" / "luffy_valid.parquet"
    for path in paths:
        if not path.exists():
            pytest.skip(f"{path} is not here")
    found = [json.loads(line)["answer"] for line in paths[0].read_text(encoding="utf-8").splitlines()]
    found += [record["ground_truth"] for record in pl.read_parquet(paths[1])["reward_model"].to_list()]
    return [gold for gold in dict.fromkeys(found) if verify(f"\\boxed{{{gold}}}", gold).correct]


def test_nearly_every_gold_of_five_benchmarks_verifies_against_itself(golds):
    assert len(golds) >= 1000


@pytest.mark.parametrize("way", SAME)
def test_a_gold_said_in_another_way_is_correct(golds, way):
    responses = [(gold, SAME[way](gold)) for gold in golds]
    missed = [gold for gold, response in responses if response is not None and not verify(response, gold).correct]
    assert missed == []


@pytest.mark.parametrize("way", CHANGED)
def test_a_gold_that_was_changed_is_not_correct(golds, way):
    changed = [(gold, CHANGED[way](gold)) for gold in golds]
    passed = [pair for pair in changed if pair[1] is not None and verify(f"\\boxed{{{pair[1]}}}", pair[0]).correct]
    assert passed == []
