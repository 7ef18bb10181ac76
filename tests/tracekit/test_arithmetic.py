from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracekit.text.arithmetic import UnreadableArithmetic, calculator_annotations, equations, evaluate, quick_checks


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("48/2", 24),
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("2^3^2", 512),
        ("-2^2", -4),
        ("1,000 x 3", 3000),
        ("50% * 20", 10),
        ("$1.50 × 2", 3),
        ("7//2", 3),
        (".5 + 1.", Fraction(3, 2)),
        ("10 ÷ 4", Fraction(5, 2)),
    ],
)
def test_an_expression_has_its_exact_value(expression: str, value: Fraction) -> None:
    assert evaluate(expression) == value


_WHOLE = st.integers(0, 999).map(str)
_EXPRESSIONS = st.recursive(
    _WHOLE, lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda t: f"({t[0]}{t[1]}{t[2]})")
)


@given(_EXPRESSIONS)
def test_whole_numbers_agree_with_python(expression: str) -> None:
    if len(expression) <= 300:
        assert evaluate(expression) == eval(expression)  # written by this test, not by a model


@pytest.mark.parametrize(
    "hostile", ["9^9^9", "__import__('os')", "1/0", "0^(0-1)", "x+1", "(" * 400, "", "1 2", "3 + ", "2**1000", "1//0"]
)
def test_what_is_no_arithmetic_is_refused_at_once(hostile: str) -> None:
    with pytest.raises(UnreadableArithmetic):
        evaluate(hostile)


@pytest.mark.parametrize(
    ("annotation", "status"),
    [
        ("<<48/2=24>>", "exact"),
        ("<<48/2=25>>", "wrong"),
        ("<<1/3=0.33>>", "rounded"),
        ("<<2/3=0.66>>", "rounded"),
        ("<<2/3=0.60>>", "wrong"),
        ("<<7/2=4>>", "rounded"),
        ("<<0.1*3=0.30000000000000004>>", "exact"),
        ("<<x+1=3>>", "unreadable"),
        ("<<5*2=10 apples>>", "unreadable"),
        ("<<2+2=2*2=4>>", "exact"),
    ],
)
def test_a_calculator_annotation_is_held_against_arithmetic(annotation: str, status: str) -> None:
    (found,) = calculator_annotations(f"so she has {annotation} left")
    assert found.status == status
    assert found.correct is {"exact": True, "rounded": True, "wrong": False, "unreadable": None}[status]


def test_an_annotation_knows_where_it_stands_and_what_it_computed() -> None:
    text = "He has 3 - 1 = <<3-1=2>>2 left"
    (found,) = calculator_annotations(text)
    assert text[found.start : found.end] == "<<3-1=2>>"
    assert (found.value, found.claimed_value, found.operator) == (2, 2, "-")


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("It cost 192*100=$1920", 1),
        ("Mathews made $4200+$3000 = $8600", 1),
        ("He took 2*8 = 24 hours", 1),
        ("He has 3 + 4 = 7 left", 0),
        ("Each is 1 / 2 = .5 of it", 0),
        ("It cost 1 / 4 = $.25", 0),
    ],
)
def test_a_plain_equation_between_numbers_is_checked(text: str, wrong: int) -> None:
    found = equations(text)
    assert len(found) == 1
    assert sum(c.status == "wrong" for c in found) == wrong


@pytest.mark.parametrize(
    "text",
    [
        "x + 3 + 4 = 8",
        "2x3 = 5y",
        "22 - 16 = 16 + x - 16",
        "He spends $1 / 2 = 50 cents",
        "for 3/ 1/4 = 12 parts",
        "12 x 1 and 1/4 = 15",
        "0900-0130 = 0730",
        "600 x 30 = 18 000 watts",
        "f(2) + 3 = 9",
        "half is 1/2 = 50%",
    ],
)
def test_what_may_mean_something_else_is_not_called_wrong(text: str) -> None:
    assert not [c for c in equations(text) if c.status == "wrong"]


@given(st.integers(0, 10**6), st.sampled_from("+-*/×÷x"), st.integers(0, 10**4), st.integers(-3, 3), st.booleans())
def test_the_quick_check_of_an_integer_equation_says_what_the_exact_parser_says(
    a: int, sign: str, b: int, off: int, blanks: bool
) -> None:
    value = {"+": a + b, "-": a - b, "/": a // b if b else 0, "÷": a // b if b else 0}.get(sign, a * b)
    blank = " " if blanks else ""
    text = f"so: {a}{blank}{sign}{blank}{b}{blank}={blank}{abs(value + off)} it is"
    slow = [
        (c.status, c.operator, None if c.claimed_value is None else float(c.claimed_value)) for c in equations(text)
    ]
    assert quick_checks(text) == slow
    assert len(slow) <= 1
