"""The ladder: which answers are the same, by which tier, and what it refuses to compute."""

import math
from fractions import Fraction

import pytest
import sympy
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators import Outcome, Policy, verify
from evaluators.comparison.error_bounds import estimate
from evaluators.comparison.expressions import shows
from evaluators.comparison.numeric import exact, value_at
from evaluators.comparison.residues import residue
from evaluators.parsing.parser import parse
from evaluators.parsing.tree import Node
from evaluators.workers.symbolic import symbolic_equal, to_sympy


@pytest.mark.parametrize(
    ("gold", "answer", "method"),
    [
        ("12", "12", "text"),
        ("1/2", "0.5", "rational"),
        (r"\{1,2\}", "2, 1", "structure"),
        (r"(1,\infty)", "x > 1", "structure"),
        (r"x^2+2x+1", "(x+1)^2", "numeric"),
        (r"\sqrt{5+2\sqrt{6}}", r"\sqrt2+\sqrt3", "numeric"),
    ],
)
def test_the_cheapest_tier_decides(gold, answer, method):
    verdict = verify(answer, gold)
    assert (verdict.outcome, verdict.method) == (Outcome.CORRECT, method)


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (r"\frac1{2^{99}}", r"\frac1{2^{98}}"),
        ("0.0000001", "0.0000002"),
        ("1000000", "1000001"),
        (r"\sqrt2", r"\sqrt2 + 10^{-50}"),
        (r"e^{\pi\sqrt{163}}", "640320^3+744"),
        (r"\sqrt{x^2}", "x"),
        ("(1,2)", "(2,1)"),
        ("(1,2)", "[1,2]"),
        ("1011_2", "1011_3"),
        (r"7\pi", "22.0"),
    ],
)
def test_near_misses_miss_from_both_sides(one, two):
    assert verify(one, two).outcome is Outcome.WRONG
    assert verify(two, one).outcome is Outcome.WRONG


@pytest.mark.parametrize(
    ("text", "value", "right"),
    [
        ("0.333", Fraction(1, 3), True),
        ("0.33", Fraction(1, 3), False),
        ("0.334", Fraction(1, 3), False),
        ("0.667", Fraction(2, 3), True),
        ("3.14", Fraction(math.pi), True),
        ("3.15", Fraction(math.pi), False),
        ("22.0", Fraction(7 * math.pi), False),
    ],
)
def test_a_decimal_must_be_right_to_the_digits_it_shows(text, value, right):
    assert shows(parse(text), value, 3) is right


def test_the_policy_asks_for_more_digits():
    assert verify("0.333", r"\frac13").correct
    assert not verify("0.333", r"\frac13", policy=Policy(significant_digits=5)).correct


def test_a_unit_on_one_side_follows_the_policy():
    assert verify("5", r"5\text{ cm}").correct
    assert not verify("5", r"5\text{ cm}", policy=Policy(unit_on_one_side=False)).correct


@pytest.mark.parametrize(
    "bomb", ["9^{9^{9^9}}", "(10^9)!", r"\binom{10^9}{10^8}", "e^{e^{e^{e^9}}}", r"\sin(10^{10^5})"]
)
def test_what_is_too_large_is_not_computed_and_not_called_wrong(bomb):
    verdict = verify(bomb, "5")
    assert verdict.outcome is Outcome.UNPARSED_PREDICTION
    assert verify(bomb, bomb).correct


EXPRESSIONS = [
    "x^2 - 3x + 2", r"\frac{x+1}{x-2}", r"\sqrt{x}+\sqrt[3]{7}", r"\sin(x)\cos(x)", r"\ln(x+2)",
    r"2^{x}", r"\binom{5}{2}x",
    "0.25x", r"|x-3|", r"\tan^{-1}(x)", r"e^{-x}\pi",
    r"\frac{1}{1+\frac{1}{x}}",
]  # fmt: skip


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_values_agree_with_sympy(text):
    tree = parse(text)
    ours = value_at(tree, {"x": Fraction(7, 5)}, 40)
    theirs = sympy.N(to_sympy(tree).subs(sympy.Symbol("x"), sympy.Rational(7, 5)), 40)
    assert abs(complex(ours) - complex(theirs)) < 1e-14


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(-9, 9), min_size=1, max_size=5), st.lists(st.integers(-9, 9), min_size=1, max_size=5))
def test_residues_tell_polynomials_apart_as_their_coefficients_do(one, two):
    def polynomial(coefficients):
        return parse(" + ".join(f"({c})x^{{{power}}}" for power, c in enumerate(coefficients)))

    length = max(len(one), len(two))
    same = one + [0] * (length - len(one)) == two + [0] * (length - len(two))
    assert (residue(polynomial(one), 0) == residue(polynomial(two), 0)) is same


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(2, 99))
def test_an_estimate_holds_the_value_within_its_error(top, bottom, radicand):
    tree = parse(rf"\frac{{{top}}}{{{bottom}}}+\sqrt{{{radicand}}}-\sqrt{{{radicand + 1}}}")
    value, error = estimate(tree)
    assert abs(value_at(tree, {}, 40) - value) <= error


def test_an_exact_value_is_exact():
    assert exact(parse(r"\frac{100!}{98!}")) == 9900
    assert exact(parse(r"\left(\frac23\right)^{-3}")) == Fraction(27, 8)
    assert exact(parse(r"\sqrt{2}")) is None


def test_sympy_gets_a_tree_and_never_a_string():
    hostile = Node("sym", (), "__import__('os').system('true')")
    assert to_sympy(hostile) == sympy.Symbol(hostile.value)
    assert symbolic_equal(parse(r"\int_0^1 x^2 \,dx"), parse(r"\frac13")) is True


BAD_INPUT = [None, 5, 5.0, b"5", "", "\0", "\ud800", "{", "\u202e5", object(), [], 1 << 20_000, True, float("nan")]


@pytest.mark.parametrize("bad", BAD_INPUT, ids=range(len(BAD_INPUT)))
def test_bad_input_is_an_outcome(bad):
    for verdict in (verify(bad, "5"), verify("5", bad), verify(bad, bad)):
        assert isinstance(verdict.outcome, Outcome)
    assert not verify(bad, "7").correct


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (r"\sqrt{x^2+2x+1}", "x+1"),
        (r"\sin^2 x + \cos^2 x + x", "x+1"),
        (r"(1+i\sqrt{2})(1+i\sqrt{2})", r"-1+2i\sqrt{2}"),
        (r"\ln(x^2 e^3)", r"3+2\ln x"),
        ("1011_2 + x", "11 + x"),
        (r"\sqrt{10^{30}+1} - 10^{15} + x", r"\frac{1}{\sqrt{10^{30}+1}+10^{15}} + x"),
    ],
)
def test_the_bound_on_floating_point_holds_for_equal_values(a, b):
    from evaluators.comparison.error_bounds import surely_differ
    from evaluators.comparison.numeric import point_of

    points = [point_of(frozenset("x"), index, "positive") for index in range(20)]
    assert not any(surely_differ(parse(a), parse(b), point) for point in points)
    assert any(surely_differ(parse(a), parse(f"{b} + 1"), point) for point in points) or "10^" in a
