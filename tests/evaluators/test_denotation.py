"""Answers are values, functions or sets: equal where they are the same, WRONG only with a witness."""

import pytest

from evaluators.verdict import Outcome
from evaluators.verify import verify


def outcome(gold, answer):
    return verify(f"\\boxed{{{answer}}}", gold).outcome


SAME = [
    ("|x|=1", "x=\\pm 1"), ("x=\\pm1", "|x|=1"), ("x^2=y^2", "|x|=|y|"), ("|2x|=6", "x=3 \\text{ or } x=-3"),
    ("x^2<9", "-3<x<3"), ("x^2 \\le 9", "|x| \\le 3"), ("x^2 \\ge 4", "x^4 \\ge 16"), ("x^2-5x+6\\le 0", "[2,3]"),
    ("x^2-5x+6<0", "(2,3)"), ("\\frac{1}{x}>0", "x>0"), ("|x-1|>2", "x<-1 \\text{ or } x>3"),
    ("x^2<2", "-\\sqrt2<x<\\sqrt2"), ("x\\ne\\pm1", "x^2\\ne1"), ("m>n", "n<m"), ("a \\le b", "b \\ge a"),
    ("a+b>c", "c-b<a"), ("x+y=3, x-y=1", "x=2, y=1"), ("2x+3y=6", "y=2-\\frac{2x}{3}"),
    ("f(x)=|x|", "f(x)=\\sqrt{x^2}"), ("0", "\\sin^2 x+\\cos^2 x-1"), ("0", "e^{x+y}-e^xe^y"),
    ("0", "\\ln(xy)-\\ln x-\\ln y"), ("(0,1)", "(\\tan^2 t-\\sec^2 t+1, 1)"), ("|a+b|", "\\max(a+b,-a-b)"),
    ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}",
     "\\begin{pmatrix}1&0\\\\0&1\\end{pmatrix}+\\begin{pmatrix}0&2\\\\3&3\\end{pmatrix}"),
    ("\\begin{pmatrix}7&10\\\\15&22\\end{pmatrix}", "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}^2"),
    ("O(n\\log n)", "O(3n\\log_2 n)"), ("O(n^2)", "O(n^2+5n)"), ("\\sqrt2", "1.4142135623730951"),
    ("\\frac{v_0^2}{2g}", "\\frac{v^2_0}{2g}"), ("f(x)=0", "\\forall x>0, f(x)=0"), ("7:32", "S_1:S=7:32"),
    ("\\text{H}_2\\text{SO}_4", "\\mathrm{H_2SO_4}"), ("\\text{Fe}^{3+}", "\\ce{Fe^3+}"),
]  # fmt: skip

DIFFERENT = [
    ("x=5", "|x|=5"), ("x=-1", "|x+3|=2"), ("|x|=1", "x=1"), ("f(x)=|x|", "f(x)=x"), ("y=|x|", "y=x"),
    ("|x|+|y|=1", "x+y=1"), ("|x|>|y|", "x>y"), ("|a|=|b|", "a=b"), ("x=1,y=1", "|x|=1,|y|=1"),
    ("x^2<9", "-3<x\\le3"), ("x^2<9", "x<3"), ("x^2-5x+6\\le 0", "(2,3)"), ("x>2", "x\\ge2"), ("xy=0", "x=0"),
    ("x^2+y^2<1", "x^2+y^2\\le1"), ("x+y=3, x-y=1", "x=1, y=2"), ("e^x=2", "x=1"), ("\\sin x=0", "x=0"),
    ("x^2+2x+1", "(x+1)^2+\\max(0,x-10^{12})"), ("x^2+2x+1", "(x+1)^2+0^x"), ("x", "x+0^{|x-3|}"),
    ("x^2+2x+1", "(x+1)^2+e^{-1000x^2}"), ("e^x", "e^x+e^{-1000(x-7)^2}"), ("2", "2\\tanh(50)"),
    ("2", "2+10^{-60}"), ("x^2+2x+1", "(x+1)^2+|x-10^9|-(10^9-x)"),
    ("x+y", "x+y+\\max(0,\\min(x-1000,1001-x,y-1000,1001-y))"),
    ("[-2,7]", "-2,7"), ("\\{1,2\\}", "\\{1\\},\\{2\\}"), ("1,2", "\\{1\\},\\{2\\}"), ("R", "r"), ("X", "x"),
    ("4", "4 \\pmod 7"), ("4 \\pmod 7", "4"), ("30^\\circ", "30\\%"), ("30^\\circ", "30\\text{ rad}"),
    ("\\frac23", "0.666"), ("\\sqrt2", "1.4142135623730952"), ("O(n)", "O(n\\log n)"), ("O(n^2)", "O(2^n)"),
    ("\\text{H}_2\\text{SO}_4", "\\mathrm{H_2SO_3}"), ("\\text{Fe}^{3+}", "\\text{Fe}^{2+}"),
]  # fmt: skip

UNDECIDED = [
    ("2", "2\\tanh(5000)"), ("x^2+2x+1", "(x+1)^2+e^{-10^9(x^2+1)}"), ("n!", "n!+\\max(0,n-10^7)"),
    ("z^2=-1", "z^2=-4"), ("5", "x+3=8"), ("2,3", "x^2-5x+6=0"), ("\\text{kids}", "\\text{children}"),
]  # fmt: skip


@pytest.mark.parametrize(("gold", "answer"), SAME)
def test_the_same_value_function_or_set_is_correct_both_ways(gold, answer):
    assert outcome(gold, answer) is Outcome.CORRECT
    assert outcome(answer, gold) is Outcome.CORRECT


@pytest.mark.parametrize(("gold", "answer"), DIFFERENT)
def test_what_differs_is_never_correct_and_wrong_has_a_witness(gold, answer):
    for verdict in (verify(f"\\boxed{{{answer}}}", gold), verify(f"\\boxed{{{gold}}}", answer)):
        assert not verdict.correct
        assert (verdict.outcome is Outcome.WRONG) == (verdict.witness is not None)


def test_a_witness_is_a_point_that_can_be_checked():
    verdict = verify("\\boxed{|x|=5}", "x=5")
    assert verdict.outcome is Outcome.WRONG
    assert verdict.witness == "X = -5 satisfies one and not the other"
    assert verdict.witness in verdict.reason


@pytest.mark.parametrize(("gold", "answer"), UNDECIDED)
def test_what_cannot_be_told_is_undecided_and_not_wrong(gold, answer):
    assert outcome(gold, answer) is Outcome.UNPARSED_PREDICTION


def test_golds_of_which_any_is_right():
    for golds in (["0.5", "\\frac12"], '["0.5", "1/2"]', ("0.5", "2/4")):
        assert verify("\\boxed{1/2}", golds).correct
        assert verify("\\boxed{1/3}", golds).outcome is Outcome.WRONG
    assert not verify("\\boxed{1}", "[1, 2]").correct


def test_golds_with_their_unit_in_parentheses():
    for answer in ("9", "9\\text{ apples}", "9 apples"):
        assert verify(f"\\boxed{{{answer}}}", "9 (apples)").correct
    assert verify("\\boxed{8}", "9 (apples)").outcome is Outcome.WRONG
    assert verify("\\boxed{9.5}", "9.5 (zorblaxes)").correct
    assert verify("\\boxed{9.5\\text{ zorblaxes}}", "9.5 (zorblaxes)").correct
    assert verify("9:15 am", "9:15 (a.m.)").correct
    assert not verify("\\boxed{9\\text{ (apples) wrong}}", "9 (apples)").correct


def test_a_gold_that_is_a_name_may_be_the_subject_of_the_last_sentence():
    gold = "\\text{Evelyn}"
    assert verify("The ratios differ.\n\nThus, Evelyn’s average speed is the largest.", gold).correct
    assert verify("So Evelyn is the fastest runner.", gold).correct
    for response in (
        "Thus, Carla's average speed is the largest.",
        "Thus, Evelyn's average speed is not the largest.",
        "Thus, Evelyn or Carla has the largest speed.",
        "Evelyn is the fastest. Carla is the fastest.",
        "\\boxed{\\text{Carla}} So Evelyn is the slowest.",
        "Evelyn has the second largest speed.",
    ):
        assert not verify(response, gold).correct, response
