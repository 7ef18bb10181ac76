"""A prediction that restates its question: never correct where the question is given."""

import json
import re
from pathlib import Path

import pytest

from evaluators import Outcome, verify, verify_batch
from evaluators.rewards import accuracy_reward, compute_score, reward_func, rubric_accuracy

MATH500 = Path(__file__).resolve().parents[3] / "shared" / "data" / "math500" / "test.jsonl"
SIMPLIFY = "Simplify $\\sqrt{242}$."

RESTATED = [  # question, gold, answer
    (SIMPLIFY, "11\\sqrt2", "\\sqrt{242}"),
    (SIMPLIFY, "11\\sqrt2", "1 \\cdot \\sqrt{242}"),
    (SIMPLIFY, "11\\sqrt2", "242^{1/2}"),
    (SIMPLIFY, "11\\sqrt2", "\\sqrt{242} + 0"),
    ("Write $\\frac{3}{20}$ as a decimal.", "0.15", "\\frac{3}{20}"),
    ("What is $1100_2$ in base eight?", "14_8", "1100_2"),
    ("What is $1100_2$ in base eight?", "14_8", "12"),
    ("Find $6_8 \\cdot 7_8$ in base 8.", "52_8", "7_8 \\cdot 6_8"),
    ("Factor $ab+5b+2a+10$.", "(a+5)(b+2)", "ab+5b+2a+10"),
    ("Factor $ab+5b+2a+10$.", "(a+5)(b+2)", "a(b+2)+5(b+2)"),
    ("Expand $(x+1)(x+2)$.", "x^2+3x+2", "(x+2)(x+1)"),
    ("Write $\\frac{4+6a}{5}-\\frac{1+3a}{4}$ as one fraction.", "\\frac{11+9a}{20}",
     "\\frac{4+6a}{5}-\\frac{1+3a}{4}"),
    ("Evaluate $513^2-487^2$.", "26000", "(513-487)(513+487)"),
    ("Evaluate 12 * (3 + 4).", "84", "12 * (3 + 4)"),
    ("Compute $\\frac{1}{5}\\cdot\\frac{8}{7}\\div\\frac{12}{20}$.", "\\frac{8}{21}", "\\frac{16}{42}"),
    ("$441+2(21)(19)+361=x$. Solve for $x$.", "1600", "441+2(21)(19)+361=x"),
    ("Let $a+b=0$. Find the maximum of $|a+b|$.", "0", "a+b=0"),
]  # fmt: skip
ANSWERED = [
    (SIMPLIFY, "11\\sqrt2", "11\\sqrt{2}"),
    ("What is $\\sqrt{53}$ in simplest radical form?", "\\sqrt{53}", "\\sqrt{53}"),
    ("Write $\\frac{3}{20}$ as a decimal.", "0.15", "0.150"),
    ("What is $1100_2$ in base eight?", "14_8", "14_{8}"),
    ("Factor $ab+5b+2a+10$.", "(a+5)(b+2)", "(b+2)(a+5)"),
    ("Expand $(x+1)(x+2)$.", "x^2+3x+2", "2+3x+x^2"),
    ("Evaluate $513^2-487^2$.", "26000", "26{,}000"),
    ("How many subsets has a set of 10 elements?", "1024", "2^{10}"),
    ("Solve $2x=10$.", "5", "x=5"),
    ("Let $x=5$. What is $x$?", "5", "x=5"),
    ("Is $\\frac{1}{2}$ or $0.3$ larger?", "0.5", "\\frac{1}{2}"),
    ("Simplify $(-k+4)+(-2+3k)$.", "2k+2", "2(k+1)"),
    ("Find the angle; it is less than $90^\\circ$.", "30^\\circ", "30"),
    ("Which shape? (A) a plane through the origin (B) a circle of radius 2", "(B)", "(B) a circle of radius 2"),
    ("Simplify $\\frac{\\sec x}{\\sin x}-\\frac{\\sin x}{\\cos x}$.", "\\cot x", "\\frac{\\cos x}{\\sin x}"),
]


@pytest.mark.parametrize(("question", "gold", "answer"), RESTATED)
def test_the_questions_form_does_not_pay(question, gold, answer):
    response = f"So it is $\\boxed{{{answer}}}$."
    assert verify(response, gold, prompt=question).outcome is Outcome.RESTATED
    assert verify(response, gold).correct  # the value is right: only the question tells


@pytest.mark.parametrize(("question", "gold", "answer"), ANSWERED)
def test_an_answer_in_the_golds_form_pays(question, gold, answer):
    assert verify(f"So it is $\\boxed{{{answer}}}$.", gold, prompt=question).correct


@pytest.mark.parametrize("response", [SIMPLIFY, f"  {SIMPLIFY}\n", f"{SIMPLIFY} {SIMPLIFY}", f"Well. {SIMPLIFY}"])
def test_the_bare_question_does_not_pay(response):
    assert not verify(response, "11\\sqrt2", prompt=SIMPLIFY).correct


def test_a_solution_that_begins_with_the_question_pays():
    assert verify(f"{SIMPLIFY} It is $11\\sqrt2$.", "11\\sqrt2", prompt=SIMPLIFY).correct


def test_answers_of_worked_examples_in_the_prompt_are_no_copies():
    prompt = "Q: What is 5 + 7?\nSo the final answer is 12.\nQ: What is 6 + 6?"
    assert verify("So the final answer is 12.", "12", prompt=prompt).correct


def test_every_adapter_takes_the_question():
    echo, gold = f"\\boxed{{\\sqrt{{242}}}} for: {SIMPLIFY}", "11\\sqrt2"
    chat = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": SIMPLIFY}]
    assert accuracy_reward([SIMPLIFY, chat], [echo] * 2, solution=[gold] * 2) == [0.0, 0.0]
    assert compute_score("math", echo, gold, {"question": SIMPLIFY}) == 0.0
    assert reward_func([SIMPLIFY + echo], [SIMPLIFY], [gold])["rewards"].tolist() == [0.0]
    assert rubric_accuracy(echo, gold, prompt=chat) == 0.0
    assert [v.outcome for v in verify_batch([echo], [gold], prompts=[SIMPLIFY])] == [Outcome.RESTATED]


@pytest.mark.skipif(not MATH500.exists(), reason="needs ../shared/data/math500")
def test_on_math500_formulas_of_the_question_pay_by_coincidence_alone():
    rows = [json.loads(line) for line in MATH500.read_text().splitlines() if line.strip()]
    paying, bare, refused = [], [], []
    for row in rows:
        question, gold = row["problem"], row["answer"]
        formulas = [a or b for a, b in re.findall(r"\$([^$]+)\$|\\\[(.+?)\\\]", question, re.DOTALL)]
        if any(verify(f"\\boxed{{{formula}}}", gold, prompt=question).correct for formula in formulas):
            paying.append(gold)
        if verify(question, gold, prompt=question).correct:
            bare.append(gold)
        if not verify(row["solution"], gold, prompt=question).correct:
            refused.append(gold)
    assert (len(paying) <= 8, bare, refused) == (True, [], [])
