"""Extraction: from a response to the span that answers."""

import time

import pytest

from evaluators.extraction.response import extract
from evaluators.verdict import Policy


def extracted(response, **policy):
    found = extract(response, Policy(**policy))
    return None if found is None else found.text


@pytest.mark.parametrize(
    ("response", "answer"),
    [
        (r"So $x = \boxed{5}$.", "5"),
        (r"\boxed{\frac{1}{2}} and so on", r"\frac{1}{2}"),
        (r"\boxed{1}. First I erred. \boxed{2}", "2"),
        (r"\boxed{5}. Wait, that is wrong: \boxed{7}", "7"),
        (r"\boxed{5} -- no wait, the answer is 7.", "7"),
        (r"The roots are $\boxed{1}$ and $\boxed{2}$.", "1, 2"),
        (r"\fbox{5}", "5"),
        (r"\boxed 5", "5"),
        (r"\boxed{\boxed{5}}", "5"),
        ("steps\n#### 1,234", "1,234"),
        ("#### Step 1\nAdd.\nThe answer is 4.", "4"),
        ("reasoning\nA: 18", "18"),
        ("The final answer is $\\frac12$. I hope it is correct.", r"\frac12"),
        ("**Answer:** 42", "42"),
        ("ANSWER: C", "C"),
        ("The answer is 3.5 because 7/2 = 3.5.", "3.5"),
        ("The answer is 41. I made a mistake. The answer is 42.", "42"),
        ("She has 42 apples left.", "42"),
        ("<think>It is \\boxed{3}</think> \\boxed{4}", "4"),
        ("<answer> 42 </answer>", "42"),
        ("答案是 42", "42"),
    ],
)
def test_the_answer_is_found_where_people_put_it(response, answer):
    assert extracted(response) == answer


@pytest.mark.parametrize("response", ["", "   ", "\n", "<think>It is 5", r"\boxed{}", "The answer isn't 7."])
def test_no_answer_is_none(response):
    assert extracted(response) is None


def test_open_thinking_answers_where_the_policy_says_so():
    assert extracted(r"<think>so \boxed{5}", answer_in_open_think=True) == "5"


def test_a_box_may_be_required():
    assert extracted("The answer is 5.", require_box=True) is None
    assert extracted(r"The answer is \boxed{5}.", require_box=True) == "5"


def test_boxes_join_only_where_the_policy_says_so():
    assert extracted(r"\boxed{1} and \boxed{2}", join_boxes=False) == "2"


@pytest.mark.parametrize("response", ["It is 1, 2 or 3", "Maybe 1, maybe 2.", "Either 24 or 42."])
def test_candidates_stay_candidates(response):
    assert " or " in extracted(response)


@pytest.mark.parametrize(
    "response", [r"\boxed{" * 100_000, "the answer is " * 100_000, "$" * 200_000, "a" * 5_000_000, "#### \n" * 100_000]
)
def test_a_long_response_is_read_from_its_end(response):
    started = time.perf_counter()
    extract(response, Policy())
    assert time.perf_counter() - started < 2.0  # milliseconds on an idle machine; quadratic would take minutes
