"""The audit of golds finds what cannot be verified and what pays unsolved, and leaves sound golds alone."""

import pytest

from evaluators.audit import Fault, ambiguity, audit_golds


def faults(golds, prompts=None, **settings):
    return {(finding.row, finding.fault) for finding in audit_golds(golds, prompts, **settings).findings}


def test_sound_golds_have_no_faults():
    golds = ["72", "\\frac{1}{3}", "x^2+1", "[2,5)", "5\\text{ km}", "\\{1,2,3\\}", "2\\sqrt{5}", "1011_2", "y=2x+3"]
    assert faults(golds) == set()


@pytest.mark.parametrize("gold", ["", "\\frac{", "{", None, [1], True])
def test_a_gold_that_cannot_be_read_is_unparsed(gold):
    assert faults(["72", gold]) == {(1, Fault.UNPARSED)}


def test_a_gold_of_words_is_text():
    assert faults(["\\text{the slow brown fox}", "72"]) == {(0, Fault.TEXT)}


@pytest.mark.parametrize(
    ("gold", "said"),
    [
        ("(1,3)", "open interval"),
        ("58,500", "separator"),
        ("E", "letter"),
        ("\\sin 30", "radians"),
        ("1/2x", "slash"),
        ("2 \\text{ or } 3", "alternatives"),
        ("\\approx 3.14", "rounded"),
    ],
)
def test_a_gold_of_two_readings_is_ambiguous(gold, said):
    assert said in ambiguity(gold)


@pytest.mark.parametrize(
    "gold", ["(3,1)", "(x,y)", "[1,3]", "58,500,000", "7", "\\sin 30^\\circ", "\\frac{1}{2}x", "1/2"]
)
def test_a_gold_of_one_reading_is_not(gold):
    assert ambiguity(gold) is None


def test_a_constant_that_solves_many_rows_is_a_fault_of_each():
    golds = ["2", "2.0", "\\frac{4}{2}", "7", "8", "9", "11", "13"]
    audit = audit_golds(golds, constant_share=0.3)
    assert {f.row for f in audit.findings if f.fault is Fault.CONSTANT} == {0, 1, 2}
    assert audit.constants[0][1] == pytest.approx(3 / 8)
    assert audit_golds(golds, constant_share=0.5).count(Fault.CONSTANT) == 0


def test_letters_of_a_multiple_choice_set_are_constants():
    golds = ["A", "B", "C", "D"] * 5
    assert audit_golds(golds, constant_share=0.2).count(Fault.CONSTANT) == 20


def test_a_prompt_whose_echo_scores_is_found():
    prompts = ["Simplify $\\frac{2}{4}$.", "What is twice 36? Answer with a number."]
    assert faults(["\\frac{1}{2}", "72"], prompts) == {(0, Fault.ECHO)}


def test_a_gold_that_a_list_of_candidates_would_solve_is_found(monkeypatch):
    """The verifier itself lets no list score; one that takes any mention of the gold does."""
    from evaluators import audit as module
    from evaluators.verdict import Outcome, Verdict

    def generous(response, gold, *, policy):
        return Verdict(Outcome.CORRECT if gold in response else Outcome.WRONG, gold, gold, "test", "because")

    monkeypatch.setattr(module, "verify", generous)
    assert (0, Fault.LIST) in faults(["72", "17"])


def test_prompts_and_golds_of_unequal_number_are_named():
    with pytest.raises(ValueError, match="1 prompts and 2 golds"):
        audit_golds(["1", "2"], ["q"])


def test_no_golds_no_findings():
    audit = audit_golds([])
    assert (audit.rows, audit.findings, audit.constants) == (0, (), ())
