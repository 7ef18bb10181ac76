"""Candidates with rule and span, and the confidence that labelled responses gave each rule."""

import pickle

import pytest

from evaluators import verify, verify_batch
from evaluators.extraction.candidates import PRECISION, Precision


def test_the_chosen_answer_comes_first_with_its_rule_and_span():
    response = "First $x = 4$, then **5**. The answer is 6. So \\boxed{7}."
    verdict = verify(response, "7")
    first = verdict.candidates[0]
    assert (first.text, first.rule) == ("7", "box")
    assert response[first.start : first.end] == "\\boxed{7}"
    assert {"6", "5", "x = 4"} <= {candidate.text for candidate in verdict.candidates}


@pytest.mark.parametrize(
    ("response", "rule"),
    [
        ("Adding gives 7.\n#### 7", "hashes"),
        ("The answer is 7.", "statement"),
        ("We add them up and get **7** apples in the basket at the end of the day", "bold"),
        ("We add them up and find that there are then $7$ apples in the basket", "formula"),
        ("We add them all up, and there are then 7 apples in the basket", "number"),
        ("7", "whole"),
    ],
)
def test_every_candidate_names_its_rule_and_lies_where_its_span_says(response, rule):
    verdict = verify(response, "7 ")
    assert verdict.candidates[0].rule == rule
    assert all(candidate.text in response[candidate.start : candidate.end] for candidate in verdict.candidates)


def test_spans_are_those_of_the_response_behind_a_think_block_and_a_question():
    question = "What is the sum of 3 and 4, please?"
    response = f"<think>Is it 8?</think>{question} The answer is 7."
    candidate = verify(response, "7", prompt=question).candidates[0]
    assert response[candidate.start : candidate.end] == "7"
    assert candidate.start > response.index("The answer")
    assert "8" not in {other.text for other in verify(response, "7", prompt=question).candidates}


def test_joined_boxes_have_the_span_of_all_of_them():
    response = "So $\\boxed{2}$ and $\\boxed{3}$."
    candidate = verify(response, "2,3").candidates[0]
    assert response[candidate.start : candidate.end] == "\\boxed{2}$ and $\\boxed{3}"


def test_a_response_without_an_answer_has_no_confidence():
    verdict = verify("I do not know.", "7")
    assert (verdict.candidates, verdict.confidence, verdict.confidence_interval) == ((), None, None)


def test_confidence_is_a_measured_share_within_its_interval():
    verdict = verify("\\boxed{7}", "7")
    low, high = verdict.confidence_interval
    assert 0 <= low <= verdict.confidence <= high <= 1
    assert verdict.confidence == PRECISION["box"].agreed / PRECISION["box"].observed


def test_wilsons_interval_is_the_textbooks():
    low, high = Precision(8, 10).interval()
    assert (round(low, 3), round(high, 3)) == (0.490, 0.943)


def test_a_batch_in_workers_keeps_candidates_and_rules():
    verdicts = verify_batch(["\\boxed{7}", "The answer is 8."], ["7", "8"], workers=2)
    assert [verdict.rule for verdict in verdicts] == ["box", "statement"]
    assert [verdict.candidates[0].text for verdict in verdicts] == ["7", "8"]


def test_a_pickled_verdict_keeps_its_reason_and_witness():
    verdict = verify("\\boxed{7}", "8")
    again = pickle.loads(pickle.dumps(verdict))
    assert again == verdict
    assert (again.reason, again.witness) == (verdict.reason, verdict.witness)
    assert again.candidates == ()
