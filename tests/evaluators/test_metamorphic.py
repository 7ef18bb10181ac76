"""A sample of the metamorphic benchmark: no near miss is accepted, and few equal answers are refused."""

import importlib.util
import random
from itertools import pairwise
from pathlib import Path

import pytest

from evaluators.verdict import Outcome
from evaluators.verify import verify

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("metamorphic", ROOT / "benchmarks" / "verifier_metamorphic.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def verdicts(benchmark, cases):
    return [(case, verify(f"\\boxed{{{case.answer}}}", case.gold, policy=benchmark.POLICY)) for case in cases]


def synthetic(benchmark):
    from fractions import Fraction

    numbers = [Fraction(7), Fraction(-3), Fraction(22, 7), Fraction(125), Fraction(-5, 6)]
    for number in numbers:
        yield from benchmark.of_number(benchmark.written(number), number)
    for one, two in pairwise(numbers):
        yield from benchmark.of_pair((benchmark.written(one), one), (benchmark.written(two), two))


def test_numbers_relations_and_pairs_made_here(benchmark):
    found = verdicts(benchmark, synthetic(benchmark))
    assert len(found) > 200
    assert [case for case, verdict in found if verdict.correct != case.equal] == []


def test_a_sample_of_the_public_golds(benchmark):
    if not benchmark.DEFAULT_DATA.exists():
        pytest.skip(f"{benchmark.DEFAULT_DATA} is not here")
    texts = random.Random(1).sample(benchmark.golds(benchmark.DEFAULT_DATA), 120)
    numbers = [(gold, value) for gold in texts if (value := benchmark.value_of(gold))]
    found = verdicts(benchmark, [case for gold, value in numbers for case in benchmark.of_number(gold, value)])
    accepted = [case for case, verdict in found if verdict.correct and not case.equal]
    refused = [case for case, verdict in found if case.equal and not verdict.correct]
    wrong = [case for case, verdict in found if case.equal and verdict.outcome is Outcome.WRONG]
    assert accepted == []
    assert wrong == []
    assert len(refused) <= 0.01 * sum(case.equal for case, _ in found)
