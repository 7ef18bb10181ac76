"""The closed form against refitting fold by fold, and against scikit-learn's ridge."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.metrics import roc_auc_score

from probes.statistics.folds import Split, Splits
from probes.svm import least_squares as ls
from probes.svm.dual import ProblemError

RIDGES = (0.01, 0.1, 1.0, 10.0)


def design(n=120, m=7, seed=0):
    draw = np.random.default_rng(seed)
    x = draw.standard_normal((n, 25))
    labels = np.where(x[:, :1].T + 1.5 * draw.standard_normal((m, n)) > 0, 1.0, -1.0)
    groups = np.arange(n) // 4
    folds = groups % 5
    splits = [Split(folds != f, np.where(folds != f, (groups // 5) % 4, -1)) for f in range(5)]
    return x, labels, Splits(folds, tuple(splits))


def ridge_decisions(x, y, fit, out, ridge):
    return Ridge(alpha=ridge, solver="cholesky").fit(x[fit], y[fit]).predict(x[out])


def test_a_fit_is_scikit_learns_ridge_with_intercept():
    x, labels, _ = design()
    weights, intercepts = ls.fit(x @ x.T, labels, 0.7)
    theirs = Ridge(alpha=0.7).fit(x, labels[3])
    np.testing.assert_allclose(weights[3] @ x, theirs.coef_, atol=1e-10)
    assert intercepts[3] == pytest.approx(theirs.intercept_, abs=1e-10)
    assert abs(weights.sum(1)).max() < 1e-9


@pytest.mark.parametrize("n", [120, 20])
def test_a_direction_is_scikit_learns_ridge_in_either_dimension(n):
    x, labels, _ = design(n=120)
    x, target = x[:n] + 3.0, labels[2, :n]
    weights, intercept = ls.fit_direction(x, target, 0.7)
    theirs = Ridge(alpha=0.7).fit(x, target)
    np.testing.assert_allclose(weights, theirs.coef_, atol=1e-9)
    assert intercept == pytest.approx(theirs.intercept_, abs=1e-9)


def test_one_operator_gives_every_folds_held_out_decisions():
    x, labels, splits = design()
    folds = splits.outer
    ours = labels @ ls.held_out_operator(ls.bordered_inverse(x @ x.T, 0.3), folds).T
    for f in range(5):
        out = folds == f
        for m in range(len(labels)):
            np.testing.assert_allclose(ours[m, out], ridge_decisions(x, labels[m], ~out, out, 0.3), atol=1e-10)


def test_leaving_rows_out_needs_no_new_inverse():
    x, _, splits = design()
    k, out = x @ x.T, splits.outer == 2
    np.testing.assert_allclose(
        ls.without(ls.bordered_inverse(k, 0.3), out), ls.bordered_inverse(k[np.ix_(~out, ~out)], 0.3), atol=1e-10
    )


@pytest.mark.parametrize("score", ["auc", "squared_error"])
def test_narrow_states_are_cross_validated_by_their_factors_as_wide_ones_by_inverses(score):
    x, labels, splits = design(n=160)
    scaled = [x * factor for factor in (1, 2, 3, 1, 0.5)]  # a scaler of its own in each outer split
    grams = [z @ z.T for z in scaled]
    assert ls._narrow_factors(grams) is not None
    by_inverses = list(ls._by_inverses(grams, labels, splits, RIDGES, score))
    by_factors = list(ls._by_factors(ls._narrow_factors(grams), labels, splits, RIDGES, score))
    for (one, its_scores), (other, their_scores) in zip(by_inverses, by_factors):
        np.testing.assert_allclose(one, other, atol=1e-9)
        np.testing.assert_allclose(its_scores, their_scores, atol=1e-9)


def test_a_factor_stands_for_its_gram_in_fits_cross_validation_and_refits():
    x, labels, splits = design()
    draws = np.random.default_rng(1).integers(0, 3, (4, len(x))).astype(float)
    for one, other in (
        (ls.fit(x, labels, 0.7)[0], ls.fit(x @ x.T, labels, 0.7)[0]),
        (
            ls.cross_validate(x, labels, splits, RIDGES).decisions,
            ls.cross_validate(x @ x.T, labels, splits, RIDGES).decisions,
        ),
        *[
            (
                ls.refit([x] * 5, labels, splits, np.full((5, 7), 0.3), draws),
                ls.refit([x @ x.T] * 5, labels, splits, np.full((5, 7), 0.3), draws),
            )
        ],
    ):
        np.testing.assert_allclose(one, other, atol=1e-8)


def test_an_indefinite_gram_of_few_columns_is_refused_as_a_wide_one_is():
    x, labels, splits = design()
    x = np.hstack([x, np.ones((len(x), 1)) * 40])
    indefinite = x @ np.diag([*[1.0] * 25, -1.0]) @ x.T
    with pytest.raises(ProblemError, match="not positive definite"):
        ls.cross_validate(indefinite, labels, splits, RIDGES)


def test_nested_choice_and_decisions_are_those_of_refitting_everything():
    x, labels, splits = design()
    result = ls.cross_validate(x @ x.T, labels, splits, RIDGES)
    for m in range(len(labels)):
        for f in range(5):
            train, inner = np.flatnonzero(splits.splits[f].train), splits.splits[f].inner
            scores = []
            for ridge in RIDGES:
                right = pairs = 0.0
                for g in range(4):
                    fit, out = train[inner[train] != g], train[inner[train] == g]
                    ones = (labels[m, out] > 0).sum()
                    weight = ones * (len(out) - ones)
                    pairs += weight
                    right += weight * roc_auc_score(labels[m, out], ridge_decisions(x, labels[m], fit, out, ridge))
                scores.append(right / pairs)
            np.testing.assert_allclose(result.inner_scores[m, f], scores, atol=1e-12)
            best = RIDGES[int(np.argmax(scores))]
            assert result.ridges[m, f] == best
            out = splits.outer == f
            expected = ridge_decisions(x, labels[m], train, out, best)
            np.testing.assert_allclose(result.decisions[m, out], expected, atol=1e-10)


def test_a_gram_matrix_for_each_split_is_used_for_its_split():
    x, labels, splits = design()
    grams, folds = [], splits.outer
    for f in range(5):
        z = (x - x[folds != f].mean(0)) / x[folds != f].std(0)
        grams.append(z @ z.T)
    result = ls.cross_validate(grams, labels, splits, RIDGES)
    for f in range(5):
        train, z = folds != f, (x - x[folds != f].mean(0)) / x[folds != f].std(0)
        expected = ridge_decisions(z, labels[0], train, ~train, result.ridges[0, f])
        np.testing.assert_allclose(result.decisions[0, ~train], expected, atol=1e-10)


@pytest.mark.parametrize("score", ["accuracy", "squared_error"])
def test_other_scores_choose_by_what_they_say(score):
    x, labels, splits = design()
    result = ls.cross_validate(x @ x.T, labels, splits, RIDGES, score=score)
    train, inner = np.flatnonzero(splits.splits[1].train), splits.splits[1].inner
    held_out = np.empty(len(train))
    for g in range(4):
        out = inner[train] == g
        held_out[out] = ridge_decisions(x, labels[0], train[~out], train[out], RIDGES[2])
    y = labels[0, train]
    expected = (np.sign(held_out) == y).mean() if score == "accuracy" else -((held_out - y) ** 2).mean()
    assert result.inner_scores[0, 1, 2] == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ridges": (0.0, 1.0)}, r"expected one or more positive values"),
        (
            {"labels": np.ones((2, 120)), "splits": Splits(np.zeros(7, int), ())},
            "splits are of 7 rows; the labels have 120",
        ),
        ({"labels": np.ones((2, 30))}, r"labels is \(2, 30\); expected \(label vectors, 120\)"),
        ({"labels": np.full((1, 120), np.nan)}, r"labels has 120 NaN or infinite values"),
        ({"gram": [np.eye(120)] * 3}, r"3 Gram matrices for 5 outer folds"),
        ({"gram": -np.eye(120)}, r"not positive definite at row 0; use a larger ridge"),
    ],
)
def test_bad_designs_are_named(change, message):
    x, labels, splits = design()
    call = {"gram": x @ x.T, "labels": labels, "splits": splits, "ridges": RIDGES} | change
    with pytest.raises(ProblemError, match=message):
        ls.cross_validate(**call)
