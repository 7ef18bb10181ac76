"""Whatever comes in, a verdict comes out, and soon."""

import math
import time
from decimal import Decimal
from fractions import Fraction

import pytest

from evaluators.verdict import Outcome, Verdict
from evaluators.verify import verify

NOT_TEXT = [None, [], {}, (), object(), lambda: 1, b"72", bytearray(b"72"), math.nan, math.inf, True, 1 + 2j]

ODD_TEXT = [
    "",
    " ",
    "\n\n\n",
    "\x00",
    "7\x002",
    "\ud800",
    "\\boxed{\ud800}",
    "\udfff72",
    "\u202e27\u202c",
    "\u200f72",
    "\u0661\u200f",
    "\ufeff72",
    "\ufffd",
    "{",
    "}",
    "}{",
    "{}",
    "{{}}",
    "\\boxed{",
    "\\boxed}",
    "\\boxed{}",
    "\\boxed{{}",
    "\\boxed{\\boxed{",
    "\\",
    "\\\\",
    "\\ ",
    "$",
    "$$",
    "$$$",
    "\\(",
    "\\[\\]",
    "\\frac",
    "\\frac{1}",
    "\\frac{}{}",
    "\\sqrt",
    "\\sqrt[",
    "^",
    "_",
    "x^",
    "^2",
    "&",
    "\\begin{pmatrix}",
    "\\end{pmatrix}",
    "\\begin{pmatrix}\\end{pmatrix}",
    "\\begin{a}\\begin{b}\\end{a}\\end{b}",
    "\\left",
    "\\right)",
    "\\left(1",
    "(",
    ")",
    "[1,2",
    "1,2)",
    ",",
    ",,,,",
    ";",
    ":",
    "::",
    "1:",
    "=",
    "==",
    "x=",
    "=5",
    "<",
    "<think>",
    "</think>",
    "<think></think>",
    "<think></think></think>",
    "####",
    "#### ",
    "A:",
    "**",
    "****",
    "-",
    "--",
    "+",
    "1+",
    "*",
    "/",
    "1/",
    "/2",
    "1//2",
    "!",
    "!!",
    "%",
    "°",
    "√",
    "∞∞",
    "½½",
    "²",
    "e",
    "i",
    "E",
    "1e",
    "1e999999999",
    "0x",
    "NaN",
    "Infinity",
    "None",
    "null",
    "\u0000" * 1000,
    "🙂",
    "你好",
    "\u0301" * 50,
]


@pytest.mark.parametrize("thing", NOT_TEXT, ids=lambda thing: f"{type(thing).__name__} {str(thing)[:1]}")
def test_what_is_no_text_gets_an_outcome(thing):
    for verdict in (verify(thing, "72"), verify("\\boxed{72}", thing), verify(thing, thing)):
        assert isinstance(verdict, Verdict)
        assert isinstance(verdict.reason, str)
        assert verdict.reason


def test_none_is_no_answer_and_no_gold():
    assert verify(None, "72").outcome is Outcome.NO_ANSWER
    assert verify("\\boxed{72}", None).outcome is Outcome.UNPARSED_GOLD


@pytest.mark.parametrize("number", [72, 72.0, Fraction(72), Decimal(72)], ids=repr)
def test_a_number_is_read_as_it_prints(number):
    assert verify("\\boxed{72}", number).correct
    assert verify(number, "72").correct
    assert not verify("\\boxed{71}", number).correct


@pytest.mark.parametrize("text", ODD_TEXT, ids=ascii)
def test_odd_text_gets_an_outcome(text):
    for response, gold in ((text, "72"), (f"\\boxed{{{text}}}", "72"), ("\\boxed{72}", text), (text, text)):
        assert isinstance(verify(response, gold), Verdict)


@pytest.mark.parametrize("gold", ["", " ", "\x00", "{", "\\frac", "\\boxed{}", "$$"], ids=ascii)
def test_an_unreadable_gold_is_not_a_wrong_answer(gold):
    assert verify("\\boxed{72}", gold).outcome is Outcome.UNPARSED_GOLD


LARGE = {
    "megabytes of text": "word " * 2_000_000 + "\\boxed{72}",
    "megabytes of digits": "9" * 10_000_000,
    "megabytes of digits in a box": "\\boxed{" + "9" * 10_000_000 + "}",
    "megabytes of braces": "{" * 10_000_000,
    "megabytes of boxes": "\\boxed{" * 1_500_000,
    "closed boxes": "\\boxed{1}" * 1_000_000,
    "dollars": "$" * 10_000_000,
    "formulas": "$1$" * 3_000_000,
    "backslashes": "\\" * 10_000_000,
    "spaces": " " * 10_000_000 + "x",
    "newlines": "\n" * 10_000_000,
    "think tags": "<think>" * 1_400_000,
    "closing think tags": "</think>" * 1_200_000,
    "stars": "*" * 10_000_000,
    "hashes": "#" * 10_000_000,
    "answers": "the answer is " * 700_000,
    "minuses": "-" * 10_000_000,
    "one word": "a" * 10_000_000,
    "NULs": "\0" * 10_000_000,
    "fractions": "\\frac" * 2_000_000,
    "commas": "1," * 5_000_000,
    "calculators": "<<1=1>>" * 1_400_000,
}


@pytest.mark.parametrize("name", LARGE)
def test_ten_megabytes_get_an_outcome_within_seconds(name):
    started = time.monotonic()
    assert isinstance(verify(LARGE[name], "72"), Verdict)
    assert time.monotonic() - started < 10  # a quadratic scan takes minutes; the exact time is a benchmark's matter


def test_an_answer_behind_megabytes_is_found():
    assert verify("word " * 2_000_000 + "\\boxed{72}", "72").correct


OVERSIZED = {
    "nested exponentials": "e^{e^{e^{e^{e^{e^x}}}}}",
    "a sum of roots of a variable": "+".join(f"x^{{1/{n}}}" for n in range(2, 150)),
    "a set of exponentials": r"\{" + ",".join(f"e^{{e^{{e^{{x+{n}}}}}}}" for n in range(40)) + r"\}",
    "a sum of a thousand million terms": r"\sum_{i=1}^{10^9} i^2",
}


@pytest.mark.parametrize("name", OVERSIZED)
def test_what_is_too_large_for_the_numeric_tier_never_reaches_sympy(name, monkeypatch):
    from evaluators.workers import pool as deadline

    def asked(*_):
        raise AssertionError("asked sympy")

    monkeypatch.setattr(deadline, "run_symbolic", asked)
    bomb = OVERSIZED[name]
    for response, gold in ((bomb, "72"), ("72", bomb), (bomb, f"{bomb}+1"), (f"x+{bomb}", "x^2+1")):
        assert not verify(rf"\boxed{{{response}}}", gold).correct


def test_a_deep_tree_of_a_flat_text_is_refused_and_not_walked():
    chain = "1 1/2 km + " * 500 + "1"
    assert verify(rf"\boxed{{{chain}+x}}", f"x+{chain}").outcome is Outcome.UNPARSED_GOLD
    assert verify(rf"\boxed{{{chain}}}", "72").outcome is Outcome.UNPARSED_PREDICTION
