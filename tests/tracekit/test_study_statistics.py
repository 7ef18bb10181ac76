"""The exact statistics against scipy, statsmodels and enumeration, and their calibration on bimodal outcomes."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from tracekit.study.analysis.exact import (
    clopper_pearson,
    equivalence,
    fisher,
    mcnemar,
    mean_difference,
    ratio_of_means,
    sign_flip,
)
from tracekit.study.analysis.ladder import Cell, exchange_p, half_way, half_way_p, log_likelihood, shift
from tracekit.study.analysis.time_to_solve import Time, restricted_ratio, time_to_solve


@pytest.mark.parametrize(("successes", "count"), [(0, 8), (1, 8), (5, 8), (8, 8), (3, 20)])
def test_clopper_pearson_is_scipys(successes: int, count: int) -> None:
    wanted = stats.binomtest(successes, count).proportion_ci(method="exact")
    assert clopper_pearson(successes, count) == pytest.approx((wanted.low, wanted.high))


@given(st.integers(0, 8), st.integers(0, 8))
def test_fisher_is_the_sum_of_tables_no_more_likely(a: int, b: int) -> None:
    chance = stats.hypergeom(16, a + b, 8).pmf(np.arange(17))
    wanted = chance[chance <= chance[a] * (1 + 1e-9)].sum()
    assert fisher((a, 8), (b, 8)) == pytest.approx(min(wanted, 1.0))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=10))
def test_mcnemar_is_the_enumeration_of_exchanges(pairs: list[tuple[bool, bool]]) -> None:
    differences = [a - b for a, b in pairs]
    patterns = itertools.product((1, -1), repeat=len(pairs))
    sums = [abs(sum(s * d for s, d in zip(signs, differences))) for signs in patterns]
    wanted = sum(value >= abs(sum(differences)) for value in sums) / len(sums)
    assert mcnemar([a for a, _ in pairs], [b for _, b in pairs]) == pytest.approx(wanted)


@given(st.lists(st.floats(-10, 10).map(lambda x: round(x, 3)), min_size=2, max_size=8))
def test_sign_flips_are_scipys_permutations(values: list[float]) -> None:
    found = stats.permutation_test(
        (np.array(values),), np.mean, permutation_type="samples", n_resamples=np.inf, alternative="greater"
    )
    assert sign_flip(values, "greater") == pytest.approx(found.pvalue)


def test_eight_equal_signs_have_the_smallest_p() -> None:
    assert sign_flip([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]) == 2 / 256


@given(st.lists(st.floats(-1, 1).map(lambda x: round(x, 3)), min_size=6, max_size=8))
def test_an_interval_holds_what_is_not_rejected(values: list[float]) -> None:
    found = mean_difference(values)
    assert found.low <= found.value <= found.high
    if math.isfinite(found.low) and found.low < found.value - 1e-6:
        assert sign_flip(np.array(values) - (found.low - 1e-3)) <= 0.05 + 1e-12
        assert sign_flip(np.array(values) - (found.low + found.value) / 2) > 0.05


def test_equivalence_needs_every_pair_within_reach() -> None:
    assert equivalence([0.001, -0.002, 0.0, 0.003, 0.001, -0.001, 0.002, 0.0], 0.02) == 1 / 256
    assert equivalence([0.05, -0.05, 0.04, -0.03, 0.05, 0.0, 0.01, -0.04], 0.02) > 0.05


def test_a_ratio_is_that_of_the_means_and_moves_with_the_unit() -> None:
    a, b = [30.0, 40, 35, 60, 31, 45, 39, 50], [20.0, 22, 21, 30, 19, 25, 20, 26]
    found, scaled = ratio_of_means(a, b), ratio_of_means([10 * x for x in a], [10 * x for x in b])
    assert found.value == pytest.approx(sum(a) / sum(b))
    assert found.p == 2 / 256
    assert (scaled.low, scaled.high) == pytest.approx((found.low, found.high))
    back = ratio_of_means(b, a)
    assert (1 / back.high, 1 / back.low) == pytest.approx((found.low, found.high), rel=1e-6)


def test_time_to_solve_on_a_case_worked_by_hand() -> None:
    rewards = [0.0] * 10 + [0.4, 0.5, 0.5, 0.6, 0.6, 0.9]
    assert time_to_solve(rewards) == Time(15.0, True)  # rounds 11 to 15 have the mean 0.52
    assert time_to_solve([0.0] * 20) == Time(20.0, False)
    assert time_to_solve(rewards, [2.0] * 16) == Time(30.0, True)
    assert time_to_solve([]) == Time(0.0, False)


def test_censored_times_count_as_the_budget() -> None:
    never, early = [Time(60.0, False)] * 8, [Time(20.0, True)] * 8
    assert restricted_ratio(never, early, 100).value == pytest.approx(5.0)
    assert restricted_ratio(never, early, 100).p == 2 / 256


def cells(rates: list[float], solved: list[bool]) -> list[Cell]:
    return [Cell(i % 8, rate, outcome) for i, (rate, outcome) in enumerate(zip(rates, solved))]


def test_the_curve_solves_its_score_equation() -> None:
    """The maximum by the root of the derivative: solved runs pull up as much as unsolved ones pull down."""
    rng = np.random.default_rng(0)
    rates = np.repeat([0.01, 0.1, 1.0, 10.0], 8)
    solved = rng.random(32) < 1 - np.exp(-2.0 * rates)

    def score(c: float) -> float:
        return float((rates[solved] / np.expm1(c * rates[solved])).sum() - rates[~solved].sum())

    c = optimize.brentq(score, 1e-3, 60.0)
    found = half_way(cells(list(rates), list(solved)))
    assert found.value == pytest.approx(math.log10(math.log(2) / c), abs=1e-4)
    likelihood = stats.bernoulli(1 - np.exp(-c * rates)).logpmf(solved).sum()
    assert log_likelihood(cells(list(rates), list(solved)), math.log10(c)) == pytest.approx(likelihood)
    assert found.low < found.value < found.high


def test_an_arm_that_solves_all_has_a_bound_on_one_side() -> None:
    rates = [0.02] * 8 + [10.0] * 8
    none_then_all = cells(rates, [False] * 8 + [True] * 8)
    found = shift(none_then_all, cells(rates, [True] * 16))
    assert found.value == found.high == math.inf
    assert found.low > 1.0
    assert found.p == 2 / 256


def test_a_shift_turns_round_with_its_arms() -> None:
    rates = [0.02] * 8 + [1.0] * 8 + [10.0] * 8
    first = cells(rates, [False] * 8 + [True] * 4 + [False] * 4 + [True] * 8)
    second = cells(rates, [True] * 5 + [False] * 3 + [True] * 16)
    there, back = shift(first, second), shift(second, first)
    assert (there.value, there.low, there.high) == pytest.approx((-back.value, -back.high, -back.low), abs=1e-2)
    assert there.p == back.p == exchange_p(first, second)


def test_a_half_way_point_far_from_a_bound_is_told_from_it() -> None:
    data = cells([0.05] * 8 + [0.7] * 8 + [10.0] * 8, [False] * 8 + [True, False] * 4 + [True] * 8)
    assert half_way_p(data, -1.0) < 0.05
    assert half_way_p(data, 1.0) < 0.05


def bimodal(rng: np.random.Generator, solved: float, count: int = 8) -> np.ndarray:
    """Accuracies of runs that are solved (about 0.95) with this chance, and else near 0."""
    return np.where(rng.random(count) < solved, rng.normal(0.95, 0.02, count), rng.normal(0.02, 0.01, count))


@pytest.mark.parametrize("chance", [0.5, 0.8])
def test_size_on_bimodal_outcomes(chance: float) -> None:
    """The long simulation stands in benchmarks/study_calibration.py."""
    rng = np.random.default_rng(1)
    rejected = [sign_flip(bimodal(rng, chance) - bimodal(rng, chance)) <= 0.05 for _ in range(1500)]
    assert np.mean(rejected) <= 0.055 + 2 * 0.0056
