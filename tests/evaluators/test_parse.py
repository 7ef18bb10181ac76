"""The parser: text to tree, in LaTeX, plain text and Unicode."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evaluators.comparison.numeric import exact
from evaluators.parsing.parser import MAX_DEPTH, parse
from evaluators.parsing.read_answer import read_answer
from evaluators.parsing.tree import Node, TooLarge, Unreadable, from_json, to_json, walk


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r"\frac12", Fraction(1, 2)),
        (r"\frac123", Fraction(3, 2)),
        (r"\frac{1}{2", Fraction(1, 2)),
        (r"1\frac{2}{3}", Fraction(5, 3)),
        ("1 2/3", Fraction(5, 3)),
        ("-1 1/2", Fraction(-3, 2)),
        ("2^10", 1024),
        ("2**-1", Fraction(1, 2)),
        ("-3^2", -9),
        ("2^3^2", 512),
        ("1/2/2", Fraction(1, 4)),
        ("6/2(1+2)", 9),
        (r"1.5\times10^3", 1500),
        ("1.04e-3", Fraction(104, 100_000)),
        (r"\sqrt{16}", 4),
        (r"\sqrt[3]{-8}", -2),
        ("√9", 3),
        ("5!", 120),
        (r"\binom{5}{2}", 10),
        (r"{5 \choose 2}", 10),
        ("|−3|", 3),
        ("½", Fraction(1, 2)),
        ("x", None),
        (r"1{,}000", 1000),
        ("1 000 000", 1_000_000),
        (r"0.\overline{3}", Fraction(1, 3)),
        (r"50\%", Fraction(1, 2)),
        ("1011_2", 11),
        ("seven", 7),
        ("٣", 3),
    ],
)
def test_numbers_mean_what_they_look_like(text, value):
    tree = read_answer(text).tree
    assert tree is not None
    assert exact(tree) == value


def test_a_missing_brace_is_forgiven_and_a_stray_sign_is_not():
    assert parse(r"\sqrt{2") == parse(r"\sqrt{2}")
    for text in ("1 +", "* 2", r"\frac{1}", "[1, 2", "3 4"):
        with pytest.raises(Unreadable):
            parse(text)


def test_a_decimal_keeps_the_digits_it_shows():
    assert parse("0.50") == Node("dec", (), (50, 2, 2))
    assert parse("-0.0120") == Node("dec", (), (-120, 4, 3))


def test_brackets_tell_tuples_from_intervals():
    assert parse("(1, 2)").op == "tuple"
    assert parse("(1, 2]").value == "(]"
    assert parse("[1, 2]").value == "[]"
    assert parse("[1, 2, 3]").op == "tuple"
    assert parse(r"\{1, 2\}").op == "set"
    assert parse("1, 2").op == "list"


@pytest.mark.parametrize(
    "text", ["(" * 500 + "1" + ")" * 500, r"\sqrt{" * 500, "-" * 500 + "1", "2" + "^2" * 500, "5" + "!" * 500]
)
def test_nesting_has_a_bound(text):
    with pytest.raises(TooLarge):
        parse(text)


def test_long_numbers_have_a_bound():
    with pytest.raises(TooLarge):
        parse("9" * 5000)


def test_a_tree_survives_its_journey_to_another_process():
    for text in (
        r"\frac{1}{3}x^2 + \sin(2y)",
        "0.25",
        "2^{100}",
        r"5\text{ km}",
        "1011_2",
        "1 < x < 2",
        r"\sum_{k=1}^{n} k",
    ):
        tree = parse(text)
        assert from_json(to_json(tree)) == tree


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet=r"0123456789+-*/^_(){}[]\|,.;:=<> xyfracsqrtpitex$%!", max_size=60))
def test_any_text_is_read_or_named_unreadable(text):
    answer = read_answer(text)
    assert answer.tree is None or sum(1 for _ in walk(answer.tree)) < 100 * MAX_DEPTH
    assert (answer.tree is None) <= bool(answer.error)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.integers(0, 99).map(str),
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})"),
        max_leaves=12,
    )
)
def test_arithmetic_agrees_with_python(text):
    assert exact(parse(text)) == eval(text)  # the text is ours: digits, signs and brackets
