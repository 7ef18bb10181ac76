"""Multiple choice with the options given: letters in prose, letters alone, and the options' texts."""

import pytest

from evaluators import Outcome, verify

SHAPES = ["a circle", "a square", "a triangle", "an ellipse"]
NUMBERS = {"A": "3", "B": "\\frac12", "C": "12", "D": "5"}
LETTERS = ["A", "B", "C", "D"]

CHOSEN = [
    ("I would go with (B).", "B", LETTERS),
    ("I would go with (B) here.", "B", LETTERS),
    ("Some reasoning about areas.\n\nC", "C", LETTERS),
    ("Some reasoning about areas.\n\nc", "C", LETTERS),
    ("Some reasoning.\n(d)", "D", LETTERS),
    ("the answer is option c", "C", LETTERS),
    ("The answer is c.", "C", LETTERS),
    ("So the correct option is **B**.", "B", LETTERS),
    ("The answer is for sure D, it can't be A or B", "D", LETTERS),
    ("It is not (A), rather (C).", "C", LETTERS),
    ("We can eliminate A and B, so the answer must be D.", "D", LETTERS),
    ("Option A is wrong because it is round. Therefore, B is correct.", "B", LETTERS),
    ("I choose D", "D", LETTERS),
    ("I'll pick option (a).", "A", LETTERS),
    ("Answer: B", "B", LETTERS),
    ("Answer: b) a square", "B", SHAPES),
    ("\\boxed{b}", "B", LETTERS),
    ("\\boxed{\\text{(B)}}", "B", LETTERS),
    ("\\boxed{\\textbf{(C)}\\ 12}", "C", NUMBERS),
    ("\\boxed{12}", "C", NUMBERS),
    ("\\boxed{0.5}", "B", NUMBERS),
    ("The answer is 12.", "C", NUMBERS),
    ("\\boxed{\\text{a square}}", "B", SHAPES),
    ("The answer is a square.", "B", SHAPES),
    ("The figure is a triangle.", "C", SHAPES),
    ("\\boxed{C}", "a triangle", SHAPES),
    ("The answer is (A).", "3", NUMBERS),
    ("<think>Maybe A, or B.</think>Going with (D).", "D", LETTERS),
]


@pytest.mark.parametrize(("response", "gold", "options"), CHOSEN)
def test_a_chosen_option_is_read(response, gold, options):
    assert verify(response, gold, options=options).correct


OPEN = [
    ("The answer is B or C.", "B"),
    ("Either (A) or (B).", "B"),
    ("\\boxed{A, B}", "B"),
    ("\\boxed{\\text{A or B}}", "B"),
    ("I am not sure, maybe B.", "B"),
    ("It could be A. It might be B.", "B"),
    ("Is it (B)?", "B"),
    ("A, B, C, D", "B"),
    ("(A) (B) (C) (D)", "C"),
    ("The answer is not B.", "B"),
    ("B is wrong.", "B"),
    ("It can't be B.", "B"),
    ("I would go with (A) or (B)", "B"),
    ("There is a circle in the figure.", "A"),
    ("I have no idea.", "A"),
]


@pytest.mark.parametrize(("response", "gold"), OPEN)
def test_what_chooses_nothing_is_never_right_and_never_wrong(response, gold):
    verdict = verify(response, gold, options=LETTERS)
    assert not verdict.correct
    assert verdict.outcome is not Outcome.WRONG


WRONG = [("I would go with (B).", "C"), ("Some reasoning.\n\nd", "C"), ("\\boxed{b}", "A"), ("Not A, but B.", "A")]


@pytest.mark.parametrize(("response", "gold"), WRONG)
def test_another_option_is_wrong_with_a_witness(response, gold):
    verdict = verify(response, gold, options=LETTERS)
    assert verdict.outcome is Outcome.WRONG
    assert verdict.witness


def test_a_letter_with_another_options_text_chooses_nothing():
    assert verify("\\boxed{\\text{(B) a circle}}", "B", options=SHAPES).outcome is Outcome.NO_ANSWER
    assert verify("\\boxed{\\text{(B) a circle}}", "A", options=SHAPES).outcome is Outcome.NO_ANSWER


def test_a_gold_that_is_no_option_is_said_to_be_none():
    assert verify("\\boxed{B}", "a heptagon", options=SHAPES).outcome is Outcome.UNPARSED_GOLD


@pytest.mark.parametrize("options", [[], ["A"], {"A": "1", "AB": "2"}, ["A", "A"]])
def test_options_that_are_none_are_refused(options):
    with pytest.raises(ValueError, match="options"):
        verify("B", "B", options=options)
