r"""Answers judged by hand, beside the golds they are judged against.

A file holds blocks: a line `G gold`, or `G gold ;; question`, then one line for each answer: `+` where a careful
reader takes it for the gold, `-` where not. Every answer is tried in a box and as the whole response.
"""

from pathlib import Path

import pytest

from evaluators.verdict import Outcome
from evaluators.verify import verify

FOLDER = Path(__file__).parent / "cases" / "judged"


def read_blocks():
    """Yield the file, gold, question and answers of each block, answers with their judgement."""
    for path in sorted(FOLDER.glob("*.txt")):
        gold, question, answers = "", None, []
        for line in [*path.read_text(encoding="utf-8").splitlines(), "G"]:
            mark, _, rest = line.partition(" ")
            if mark == "G":
                if answers:
                    yield path.stem, gold, question, answers
                (gold, _, question), answers = rest.partition(" ;; "), []
            elif mark in ("+", "-"):
                answers.append((rest, mark == "+"))


BLOCKS = list(read_blocks())


@pytest.mark.parametrize(
    ("gold", "question", "answers"),
    [pytest.param(*block[1:], id=f"{block[0]}-{number}") for number, block in enumerate(BLOCKS, 1)],
)
def test_each_answer_is_taken_as_a_reader_takes_it(gold, question, answers):
    for answer, right in answers:
        for response in (f"\\boxed{{{answer}}}", answer):
            verdict = verify(response, gold, prompt=question or None)
            assert verdict.correct == right, f"{gold} ;; {response}: {verdict}"
            assert not right or verdict.outcome is not Outcome.WRONG


def test_there_are_enough_answers_of_both_kinds():
    judged = [right for block in BLOCKS for _, right in block[3]]
    assert len(judged) >= 500
    assert judged.count(False) >= len(judged) / 5


def test_no_answer_stands_twice_under_a_gold():
    for _, gold, _, answers in BLOCKS:
        assert len({answer for answer, _ in answers}) == len(answers), gold
