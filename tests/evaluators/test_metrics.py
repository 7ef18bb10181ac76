"""pass@k and majority vote against counting by hand and by enumeration."""

import itertools
import math
import random
from collections import Counter

import numpy as np
import pytest

from evaluators.metrics import bootstrap_interval, group_equivalent, majority_at_k, pass_at_k, pass_probability
from evaluators.verdict import Outcome, Verdict
from evaluators.verify import verify


def verdict(prediction, outcome):
    return Verdict(Outcome(outcome), prediction, "gold", "test", "because")


def right(prediction="2"):
    return verdict(prediction, "correct")


def wrong(prediction="3"):
    return verdict(prediction, "wrong")


@pytest.mark.parametrize(("n", "c", "k"), [(5, 2, 1), (5, 2, 3), (6, 0, 2), (6, 6, 2), (4, 3, 2), (7, 1, 7)])
def test_pass_at_k_is_the_share_of_subsets_with_a_correct_sample(n, c, k):
    subsets = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_probability(n, c, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_averages_over_problems():
    estimate = pass_at_k([[right(), wrong()], [wrong(), wrong()]], 1)
    assert estimate.value == pytest.approx(0.25)
    assert estimate.low <= estimate.value <= estimate.high
    assert estimate.problems == 2


def test_a_sample_of_which_nothing_is_known_is_left_out_and_counted():
    estimate = pass_at_k([[right(), verdict("x", "timeout"), wrong()], [verdict("y", "unparsed_gold")] * 3], 1)
    assert estimate.value == pytest.approx(0.5)
    assert (estimate.problems, estimate.unknown, estimate.left_out) == (1, 4, 1)


def test_too_few_samples_are_named():
    with pytest.raises(ValueError, match="problem 1 has 1 samples"):
        pass_at_k([[right(), wrong()], [right()]], 2)
    with pytest.raises(ValueError, match="k is 0"):
        pass_at_k([[right()]], 0)


def test_no_problem_gives_no_number():
    assert math.isnan(pass_at_k([], 1).value)


def test_equivalent_answers_are_one_group():
    groups = group_equivalent(["1/2", r"\frac{1}{2}", "3", None, "0.5", "3.0", "1/2"])
    assert groups[0] == groups[1] == groups[4] == groups[6]
    assert groups[2] == groups[5] != groups[0]
    assert groups[3] is None


def test_whole_numbers_that_are_read_off_are_grouped_as_comparison_groups_them():
    spellings = ["7", "7.0", "-7", "07", "14/2", "(1,2)", "( 1 , 2 )", "(2,1)", "[1,2]", "1,2", "(1,234)", "1234"]
    spellings += ["1,234", "(1234)", "(1,2,3)", "x=7", "7%", "0.07", "0", "-0", "(0,-0)", "(0,0)", "7 cm", "(1,2", "10"]
    rng = random.Random(0)
    for _ in range(40):
        answers = [rng.choice(spellings) for _ in range(12)]
        first, expected = [], {}
        for answer, _ in Counter(answers).most_common():
            same = [i for i, other in enumerate(first) if verify(f"\\boxed{{{answer}}}", other).correct]
            expected[answer] = same[0] if same else len(first)
            if not same:
                first.append(answer)
        assert group_equivalent(answers) == [expected[answer] for answer in answers]


def test_the_majority_is_counted_over_equivalent_answers_not_strings():
    samples = [right("1/2"), right(r"\frac12"), right("0.5"), wrong("3"), wrong("3")]
    assert majority_at_k([samples], 5).value == 1.0


def test_a_tie_earns_the_share_of_its_groups_that_are_correct():
    assert majority_at_k([[right("2"), wrong("3")]], 2).value == pytest.approx(0.5)
    assert majority_at_k([[right("2"), wrong("3"), wrong("5")]], 3).value == pytest.approx(1 / 3)


def test_a_response_without_an_answer_does_not_vote():
    silent = verdict(None, "no_answer")
    assert majority_at_k([[silent, silent, right()]], 3).value == 1.0
    assert majority_at_k([[silent, silent]], 2).value == 0.0


def test_the_vote_of_a_subset_is_estimated_near_its_enumeration():
    samples = [right("2")] * 3 + [wrong("3")] * 2 + [wrong("5")]
    votes = []
    for subset in itertools.combinations(["2"] * 3 + ["3"] * 2 + ["5"], 3):
        most = max(subset.count(answer) for answer in subset)
        leaders = {answer for answer in subset if subset.count(answer) == most}
        votes.append(("2" in leaders) / len(leaders))
    exact = sum(votes) / len(votes)
    estimates = [majority_at_k([samples], 3, seed=seed).value for seed in range(20)]
    assert np.mean(estimates) == pytest.approx(exact, abs=0.03)


def test_one_of_one_is_the_mean_accuracy():
    samples = [[right("2"), wrong("3"), wrong("4"), right("2")], [wrong("7")] * 4]
    assert pass_at_k(samples, 1).value == pytest.approx(0.25)
    estimates = [majority_at_k(samples, 1, seed=seed).value for seed in range(20)]
    assert np.mean(estimates) == pytest.approx(0.25, abs=0.03)


def test_the_interval_is_that_of_the_normal_theory_for_many_problems():
    values = np.random.default_rng(1).integers(0, 2, 400).astype(float)
    low, high = bootstrap_interval(values)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.006)
    assert high == pytest.approx(values.mean() + half, abs=0.006)


def test_the_interval_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(2)
    covered = 0
    for trial in range(200):
        low, high = bootstrap_interval(generator.binomial(1, 0.3, 100), resamples=500, seed=trial)
        covered += low <= 0.3 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_the_same_seed_gives_the_same_interval():
    values = [0.0, 1.0, 1.0, 0.5]
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    with pytest.raises(ValueError, match="confidence"):
        bootstrap_interval(values, confidence=95)
