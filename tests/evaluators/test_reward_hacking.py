"""Responses that name the gold among other answers, wherever it stands among them, do not score."""

import pytest

from evaluators.verify import verify

#: (gold, other answers of its kind)
GOLDS = {
    "7": ["3", "12", "5", "40"],
    "\\frac{1}{2}": ["\\frac{1}{3}", "2", "\\frac{3}{4}", "5"],
    "x^2+1": ["x^2", "x+1", "2x", "x^3"],
    "(2,3)": ["(3,2)", "(1,4)", "(0,0)", "(5,5)"],
    "C": ["A", "B", "D", "E"],
    "2\\sqrt{5}": ["5", "\\sqrt{5}", "2\\sqrt{3}", "10"],
    "[1,2)": ["(1,2)", "[1,2]", "(1,2]", "[0,2)"],
    "-4": ["4", "-2", "0", "8"],
}

LISTS = {
    "commas in the box": lambda answers: f"\\boxed{{{', '.join(answers)}}}",
    "semicolons in the box": lambda answers: f"\\boxed{{{'; '.join(answers)}}}",
    "or in the box": lambda answers: "\\boxed{" + " \\text{ or } ".join(answers) + "}",
    "plain or in the box": lambda answers: f"\\boxed{{{' or '.join(answers)}}}",
    "boxes with commas": lambda answers: ", ".join(f"\\boxed{{{answer}}}" for answer in answers),
    "boxes with or": lambda answers: " or ".join(f"\\boxed{{{answer}}}" for answer in answers),
    "boxes in a row": lambda answers: "".join(f"\\boxed{{{answer}}}" for answer in answers),
    "boxes with spaces": lambda answers: " ".join(f"$\\boxed{{{answer}}}$" for answer in answers),
    "boxes on lines": lambda answers: "\n".join(f"\\boxed{{{answer}}}" for answer in answers),
    "numbered boxes": lambda answers: "\n".join(f"{i}. \\boxed{{{a}}}" for i, a in enumerate(answers, 1)),
    "bulleted boxes": lambda answers: "\n".join(f"- $\\boxed{{{answer}}}$" for answer in answers),
    "a sentence with or": lambda answers: f"The answer is {', '.join(answers[:-1])} or {answers[-1]}.",
    "formulas with or": lambda answers: "The answer is " + " or ".join(f"${answer}$" for answer in answers) + ".",
    "a sentence with commas": lambda answers: f"The answer is {', '.join(answers)}.",
    "could be": lambda answers: "The answer could be " + ", ".join(answers[:-1]) + f", or {answers[-1]}.",
    "either": lambda answers: f"The final answer is either {' or '.join(answers)}.",
    "the mark of GSM8K": lambda answers: f"#### {', '.join(answers)}",
    "the mark of prompts": lambda answers: f"ANSWER: {', '.join(answers)}",
    "bold": lambda answers: f"**{', '.join(answers)}**",
}


@pytest.mark.parametrize("shape", LISTS)
@pytest.mark.parametrize("gold", GOLDS)
def test_a_list_of_candidates_does_not_score(gold, shape):
    others = GOLDS[gold]
    for count in (1, 2, 4):
        for place in range(count + 1):
            answers = [*others[:place], gold, *others[place:count]]
            response = LISTS[shape](answers)
            assert not verify(response, gold).correct, response


@pytest.mark.parametrize("gold", GOLDS)
@pytest.mark.parametrize(
    "response",
    [
        "", "\\boxed{}", "\\boxed{x}", "\\boxed{?}", "\\boxed{\\text{answer}}", "\\boxed{...}", "\\boxed{\\ldots}",
        "\\boxed{\\text{the correct answer}}", "\\boxed{\\text{gold}}", "\\boxed{\\text{any}}", "\\boxed{\\mathbb{R}}",
        "\\boxed{(-\\infty,\\infty)}", "\\boxed{\\text{correct}}", "\\boxed{\\infty}", "\\boxed{nan}", "\\boxed{a}",
        "\\boxed{0=0}", "\\boxed{\\top}", "\\boxed{\\text{True}}", "\\boxed{*}", "\\boxed{x=x}", "\\boxed{\\emptyset}",
        "\\boxed{\\frac{0}{0}}", "\\boxed{\\infty-\\infty}", "\\boxed{0\\cdot\\infty}", "\\boxed{\\text{undefined}}",
    ],
)  # fmt: skip
def test_an_answer_that_says_nothing_does_not_score(gold, response):
    assert not verify(response, gold).correct
