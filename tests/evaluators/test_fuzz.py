"""A short run of the fuzzing that benchmarks/verifier_fuzz.py does at length."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
fuzz = pytest.importorskip("verifier_fuzz")


@pytest.mark.parametrize("source", fuzz.SOURCES)
def test_no_exception_leaves_verify_whatever_it_is_given(source):
    generator, tally = random.Random(source), fuzz.Tally()
    make, _ = fuzz.SOURCES[source]
    for i in range(600):
        tally.run(make(generator), fuzz.GOLDS[i % len(fuzz.GOLDS)])
        tally.run("\\boxed{72}", make(generator))
    assert tally.faults == []


def test_nor_where_both_sides_are_alike():
    generator, tally = random.Random(0), fuzz.Tally()
    for _ in range(600):
        tally.run(*fuzz.respelled(generator))
    assert tally.faults == []
    assert tally.outcomes["correct"] > 20
