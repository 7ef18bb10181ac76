"""The protocol's parts against slow, plain versions and hand-worked numbers."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score
from sklearn.svm import SVC

from probes.protocol.effects import contrast
from probes.protocol.nested_fits import fit_hinge, linear_gram, refit_hinge
from probes.statistics.auc import fold_auc
from probes.statistics.bootstrap import draw_problems, score_draws, variance
from probes.statistics.equivalence import Effect, crossed_effect
from probes.statistics.folds import FoldError, check_folds, group_problems, grouped_folds, make_splits
from probes.statistics.holm import holm
from probes.statistics.permutation import permutation_p, permute_blocks, swappable_blocks
from probes.statistics.power import intraclass, plan, problems_needed
from probes.svm.least_squares import cross_validate
from probes.svm.least_squares import refit as refit_least_squares


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def clustered(rng: np.random.Generator, problems: int = 30, rows: int = 4, width: int = 6):
    of_row = np.repeat(np.arange(problems), rows)
    labels = rng.choice((-1.0, 1.0), len(of_row))
    states = rng.standard_normal((len(of_row), width))
    states[:, 0] += 0.8 * labels
    return of_row, labels, states


# ---------------------------------------------------------------- AUC


def test_auc_of_one_fold_is_scikit_learns_with_ties_and_weights(rng):
    labels = rng.choice((-1.0, 1.0), 60)
    scores = rng.integers(0, 8, 60).astype(float)
    weights = rng.integers(0, 4, 60).astype(float)
    found = fold_auc(scores[None], labels[None], np.zeros(60, int), weights[None])
    assert found[0] == pytest.approx(roc_auc_score(labels, scores, sample_weight=weights), abs=1e-12)


def test_pairs_of_two_folds_are_never_compared(rng):
    labels = np.array([-1.0, 1, -1, 1])
    scores = np.array([10.0, 11, 0, 1])  # each fold in order, the pooled four not
    assert fold_auc(scores[None], labels[None], np.array([0, 0, 1, 1]))[0] == 1
    assert fold_auc(scores[None], labels[None], np.zeros(4, int))[0] == 0.75


def test_auc_of_real_labels_is_the_share_of_pairs_in_order(rng):
    values, scores = rng.standard_normal(20), rng.standard_normal(20)
    pairs = [(i, j) for i, j in itertools.combinations(range(20), 2)]
    right = [(values[i] - values[j]) * (scores[i] - scores[j]) > 0 for i, j in pairs]
    assert fold_auc(scores[None], values[None], np.zeros(20, int))[0] == pytest.approx(np.mean(right))


# ---------------------------------------------------------------- folds


def test_no_problem_is_on_two_sides_and_folds_are_even(rng):
    groups = rng.integers(0, 40, 300)
    folds = grouped_folds(groups, 5, seed=3)
    check_folds(folds, groups)
    assert set(folds) == set(range(5))
    assert np.ptp(np.bincount(folds)) <= np.bincount(groups).max()


def test_a_split_through_a_problem_is_an_error_that_counts():
    with pytest.raises(FoldError, match="1 of 2 groups have rows in more than one fold"):
        check_folds(np.array([0, 1, 1]), np.array([7, 7, 8]))


def test_fewer_groups_than_folds_is_an_error_that_counts():
    with pytest.raises(FoldError, match="3 groups of problems for 5 folds"):
        grouped_folds(np.array([0, 0, 1, 2]), 5, seed=0)


def test_near_identical_problems_share_a_group_and_others_do_not():
    long = "a train leaves the station at noon and travels north at a constant speed of sixty miles an hour until"
    groups = group_problems([f"{long} night", f"{long} dusk", "what is the sum of the first ten odd numbers"])
    assert groups[0] == groups[1] != groups[2]


# ---------------------------------------------------------------- permutation


def test_blocks_move_whole_between_problems_of_equal_length():
    groups = np.array([0, 0, 1, 1, 2, 2, 2, 3, 3])
    assert swappable_blocks(groups) == 3
    taken = permute_blocks(groups, 200, seed=1)
    blocks = {(0, 1), (2, 3), (7, 8)}
    for draw in taken:
        assert tuple(draw[4:7]) == (4, 5, 6)  # the only problem of three rows stays
        assert {tuple(draw[:2]), tuple(draw[2:4]), tuple(draw[7:9])} == blocks
    assert len({tuple(d) for d in taken}) == 6  # all 3! orders turn up


def test_permutation_p_counts_the_observed_itself():
    assert permutation_p(0.9, np.array([0.1, 0.95, 0.9, 0.2])) == pytest.approx(3 / 5)
    assert permutation_p(1.0, np.zeros(99)) == pytest.approx(0.01)


def test_the_same_permutation_is_swept_as_a_refit_would_score_it(rng):
    of_row, labels, states = clustered(rng, problems=12, rows=3)
    splits = make_splits(of_row, labels[None], 3, 2, seed=0)
    permuted = labels[permute_blocks(of_row, 3, seed=2)]
    grams = [linear_gram(states, s.train) for s in splits.splits]
    found = fold_auc(cross_validate(grams, permuted, splits, (1.0,)).decisions, permuted, splits.outer)
    for k, y in enumerate(permuted):
        decisions = np.empty(len(y))
        for gram, split in zip(grams, splits.splits):
            t = np.flatnonzero(split.train)
            n = len(t)
            bordered = np.block(
                [[gram[np.ix_(t, t)] + np.eye(n), np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]]
            )
            solved = np.linalg.solve(bordered, np.append(y[t], 0))
            decisions[~split.train] = gram[np.ix_(~split.train, t)] @ solved[:-1] + solved[-1]
        assert found[k] == pytest.approx(fold_auc(decisions[None], y[None], splits.outer)[0], abs=1e-12)


# ---------------------------------------------------------------- fits


def test_nested_hinge_fits_are_those_of_a_scikit_learn_loop(rng):
    of_row, labels, states = clustered(rng)
    splits = make_splits(of_row, labels[None], 4, 3, seed=1)
    grams = [linear_gram(states, s.train) for s in splits.splits]
    cell = fit_hinge(grams, labels[None], splits, (0.1, 1.0))
    for k, (gram, split) in enumerate(zip(grams, splits.splits)):
        t = np.flatnonzero(split.train)
        svm = SVC(C=cell.costs[k, 0], kernel="precomputed", class_weight="balanced", tol=1e-5)
        svm.fit(gram[np.ix_(t, t)], labels[t])
        expected = svm.decision_function(gram[np.ix_(~split.train, t)])
        np.testing.assert_allclose(cell.held_out[0, ~split.train], expected, atol=5e-3)


def test_the_scaler_sees_training_rows_alone(rng):
    _, _, states = clustered(rng)
    train = np.arange(len(states)) < 80
    moved = states.copy()
    moved[~train] += 100
    a, b = linear_gram(states, train), linear_gram(moved, train)
    np.testing.assert_allclose(a[np.ix_(train, train)], b[np.ix_(train, train)])
    assert a.diagonal()[train].mean() == pytest.approx(1)


@pytest.mark.parametrize("kind", ["hinge", "least squares"])
def test_a_problem_drawn_twice_is_refitted_as_two_copies_in_one_fold(rng, kind):
    of_row, labels, states = clustered(rng, problems=16, rows=3)
    splits = make_splits(of_row, labels[None], 4, 2, seed=1)
    grams = [linear_gram(states, s.train) for s in splits.splits]
    draws = np.ones((1, len(labels)))
    draws[0, of_row == 3] = 2
    draws[0, of_row == 5] = 0
    copies = np.repeat(np.arange(len(labels)), draws[0].astype(int))
    refit = refit_hinge if kind == "hinge" else refit_least_squares
    scores = refit(grams, labels[None], splits, np.ones((4, 1)), draws)
    found = score_draws(scores, labels[None], splits.outer, draws, draws)
    assert found[0, 0] == found[0, 1]
    found = found[0, 0]
    decisions = np.empty(len(copies))
    for gram, split in zip(grams, splits.splits):
        test = ~split.train[copies]
        rows, held = copies[~test], copies[test]
        if kind == "hinge":
            svm = SVC(C=1, kernel="precomputed", class_weight="balanced", tol=1e-6)
            svm.fit(gram[np.ix_(rows, rows)], labels[rows])
            decisions[test] = svm.decision_function(gram[np.ix_(held, rows)])
        else:
            n = len(rows)
            bordered = np.block(
                [[gram[np.ix_(rows, rows)] + np.eye(n), np.ones((n, 1))], [np.ones((1, n)), np.zeros((1, 1))]]
            )
            solved = np.linalg.solve(bordered, np.append(labels[rows], 0))
            decisions[test] = gram[np.ix_(held, rows)] @ solved[:-1] + solved[-1]
    expected = fold_auc(decisions[None], labels[copies][None], splits.outer[copies])[0]
    assert found == pytest.approx(expected, abs=5e-3 if kind == "hinge" else 1e-9)


def test_one_class_in_a_folds_training_rows_is_an_error_that_counts(rng):
    of_row, labels, states = clustered(rng, problems=10)
    labels[:] = -1
    labels[of_row == 0] = 1
    splits = make_splits(of_row, labels[None], 5, 2, seed=0)
    with pytest.raises(FoldError, match="rarer class"):
        fit_hinge([linear_gram(states, s.train) for s in splits.splits], labels[None], splits, (1.0,))


# ---------------------------------------------------------------- intervals


def test_with_one_seed_the_interval_is_the_bootstraps_over_problems(rng):
    draws = rng.normal(0.1, 0.03, (4000, 1, 1))
    effect = crossed_effect(np.array([0.1]), draws, problems=500)
    low, high = effect.interval()
    assert (low, high) == pytest.approx((0.1 - 1.96 * 0.03, 0.1 + 1.96 * 0.03), abs=0.002)


def test_without_problem_noise_the_interval_is_students_on_seeds_minus_one():
    differences = np.array([0.01, 0.03, 0.02, 0.05, 0.04])
    effect = crossed_effect(differences, np.tile(differences[:, None], (50, 1, 1)), problems=100)
    expected = stats.t.interval(0.95, 4, differences.mean(), stats.sem(differences))
    assert effect.interval() == pytest.approx(expected)
    assert effect.p_different() == pytest.approx(stats.ttest_1samp(differences, 0).pvalue, abs=1e-6)
    upper = stats.ttest_1samp(differences, 0.1, alternative="less").pvalue
    assert effect.p_equivalent(0.1) == pytest.approx(upper, abs=1e-6)


def test_noise_that_every_seed_shares_is_not_averaged_away(rng):
    shared, own = rng.normal(0, 0.04, (4000, 1, 1)), rng.normal(0, 0.02, (4000, 5, 1))
    effect = crossed_effect(np.full(5, 0.1), 0.1 + shared + own, problems=400)
    assert effect.problem_variance == pytest.approx(0.04**2, rel=0.1)


def test_an_arm_trained_once_is_one_seed_and_a_base_stands_for_all(rng):
    def cell():
        return SimpleNamespace(statistics={"delta": rng.random()}, draws={"delta": rng.random((20, 3))})

    seeds = {"base": 1, "trained once": 1, "sft": 3, "grpo": 2}
    cells = {(model, seed, 0): cell() for model, count in seeds.items() for seed in range(count)}
    one = SimpleNamespace(cells=cells, plan=SimpleNamespace(problems=30))
    found = {
        (a, b): contrast(one, a, b, [0], "delta", shared={"base"}).seeds
        for a, b in [
            ("sft", "base"),
            ("base", "grpo"),
            ("sft", "grpo"),
            ("sft", "trained once"),
            ("trained once", "base"),
        ]
    }
    assert list(found.values()) == [3, 2, 2, 1, 1]


def test_interval_and_tests_agree():
    effect = Effect(0.01, 2e-5, 3e-5, 0.0, seeds=5, problems=80)
    _, high = effect.interval(0.1)
    assert effect.p_equivalent(high + 1e-9) < 0.05 < effect.p_equivalent(high - 1e-6)
    p = effect.p_different()
    assert effect.interval(p)[0] == pytest.approx(0, abs=1e-6)


def test_equivalence_counts_what_seeds_and_problems_do_together_with_both(rng):
    shared, own = rng.normal(0, 0.02, (4000, 1, 1)), rng.normal(0, 0.04, (4000, 5, 1))
    differences = np.array([-0.02, 0.01, 0.0, 0.02, -0.01])
    effect = crossed_effect(differences, differences[:, None] + shared + own, problems=400)
    assert effect.interaction_variance == pytest.approx(0.04**2 / 5, rel=0.1)
    whole = Effect(0.0, effect.seed_variance, 0.02**2 + 0.04**2 / 5, 0.0, seeds=5, problems=400)
    assert effect.p_equivalent(0.05) == pytest.approx(whole.p_equivalent(0.05), rel=0.1)
    alone = Effect(0.0, effect.seed_variance, effect.problem_variance, 0.0, seeds=5, problems=400)
    assert alone.p_equivalent(0.05) < effect.p_equivalent(0.05)
    assert alone.interval() == effect.interval()


def test_no_difference_known_exactly_is_no_change_and_an_unknown_one_is_neither():
    exact = Effect(0.0, 0.0, 0.0, 0.0, seeds=1, problems=50)
    assert exact.p_different() == 1
    assert exact.p_equivalent(0.02) == 0
    unknown = crossed_effect(np.array([0.3]), np.full((20, 1, 3), np.nan), problems=50)
    assert unknown.p_different() == 1
    assert unknown.p_equivalent(0.02) == 0.5


def test_holm_by_hand():
    np.testing.assert_allclose(holm(np.array([0.01, 0.04, 0.03, np.nan])), [0.03, 0.06, 0.06, np.nan])


# ---------------------------------------------------------------- power


def test_intraclass_correlation_is_one_for_problem_labels_and_about_its_value_otherwise(rng):
    of_row = np.repeat(np.arange(400), 5)
    coin = rng.choice((-1.0, 1.0), 400)[of_row]
    assert intraclass(coin, of_row) == pytest.approx(1)
    mixed = np.where(rng.random(2000) < 0.6**0.5, coin, rng.choice((-1.0, 1.0), 2000))
    assert intraclass(mixed, of_row) == pytest.approx(0.6, abs=0.06)


def test_a_quarter_of_the_error_needs_sixteen_times_the_problems():
    effect = Effect(0.0, 0.0, 0.02**2, 0.0, seeds=1, problems=100)
    assert problems_needed(effect, 0.01) == pytest.approx(16 * problems_needed(effect, 0.04), rel=0.03)


def test_no_number_of_problems_helps_where_seeds_vary_too_much():
    assert problems_needed(Effect(0.0, 0.02**2, 0.001**2, 0.0, seeds=5, problems=100), 0.02) is None


def test_clustered_labels_need_more_problems(rng):
    of_row = np.repeat(np.arange(60), 5)
    free = plan(rng.choice((-1.0, 1.0), 300), of_row, target=0.02)
    tied = plan(rng.choice((-1.0, 1.0), 60)[of_row], of_row, target=0.02)
    assert tied.needed > 3 * free.needed


def test_draws_move_whole_problems(rng):
    of_row = np.repeat(np.arange(20), 3)
    folds = of_row % 4
    draws = draw_problems(of_row, folds, 50, seed=0)
    for fold in range(4):
        assert (draws[:, folds == fold].sum(1) == 15).all()  # five problems of three rows, as before
    assert (draws.reshape(50, 20, 3).std(2) == 0).all()


def test_what_a_pair_of_fitted_and_scored_problem_has_alone_is_counted_once(rng):
    """T = Σ k(i, j) over a fitted i and a scored j, k of independent noise: resampling both counts it twice."""
    n, k = 60, rng.standard_normal((60, 60))
    fitted, scored = (rng.multinomial(n, np.full(n, 1 / n), size=count).astype(float) for count in (4000, 40))
    own = np.einsum("bi,ij,bj->b", fitted, k, fitted) / n**2
    auc = np.column_stack([own, fitted @ k @ scored.T / n**2])
    true = 1 / n**2  # variance of the mean of n² independent entries
    assert auc[:, 0].var() > 1.6 * true  # 3 in expectation, less n's finite part, at one draw of k
    assert variance(auc) < 0.75 * auc[:, 0].var()
