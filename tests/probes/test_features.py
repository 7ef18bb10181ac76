"""Labels of features, worked by hand on two traces."""

import numpy as np
import polars as pl
import pytest

from probes.protocol.features import FEATURES, FeatureError, find_feature, label_rows
from tracekit.core.tables import STEPS

TRACES = pl.DataFrame(
    {
        "problem_id": ["p", "q"],
        "trace_id": ["a", "b"],
        "problem": ["?", "?"],
        "response": ["…", "…"],
        "correct": [True, False],
        "pass_rate": [0.9, 0.1],
        "kind": ["sum", "product"],
        "imitation": [True, False],
        "topic": ["x", "y"],
    }
)
STEP_ROWS = pl.DataFrame(
    [
        ("a", 0, 0, 3, "calculation", True, "+", -3.0),
        ("a", 1, 3, 6, "verification", False, "×", 4.0),
        ("a", 2, 6, 9, "conclusion", True, None, None),
        ("b", 0, 0, 3, "calculation", True, "−", 2.5),
        ("b", 1, 3, 6, "conclusion", False, None, None),
    ],
    schema=STEPS,
    orient="row",
)
INDEX = pl.DataFrame({"trace_id": ["a", "a", "a", "b", "b"], "step": pl.Series([0, 1, 2, 0, 1], dtype=pl.Int32)})


def values(name: str) -> list:
    labels = label_rows(INDEX, TRACES, STEP_ROWS, find_feature(name, TRACES, STEP_ROWS))
    return [v if d else None for v, d in zip(labels.values.to_list(), labels.defined)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("final_correct", [True, True, True, False, False]),
        ("step_correct", [True, False, True, True, False]),
        ("step_kind", ["calculation", "verification", "conclusion", "calculation", "conclusion"]),
        ("next_operator", ["×", None, None, None, None]),
        ("value_parity", [True, False, None, None, None]),  # 2.5 has no parity
        ("value_sign", [True, False, None, False, None]),
        ("value_size", [False, True, None, False, None]),  # the median of 3, 4 and 2.5 is 3
        ("imitation", [True, True, True, False, False]),
        ("difficulty", [False, False, False, True, True]),
        ("problem_type", ["sum", "sum", "sum", "product", "product"]),
        ("answer_distance", [2.0, 1.0, 0.0, 1.0, 0.0]),
        ("topic", ["x", "x", "x", "y", "y"]),  # a column of one's own
    ],
)
def test_a_features_labels(name, expected):
    if name == "next_operator":
        with pytest.raises(FeatureError, match="only '×' in 1 rows"):
            values(name)
        return
    assert values(name) == expected


def test_the_running_value_is_signed_and_logarithmic():
    assert values("value")[:2] == pytest.approx([-np.log(4), np.log(5)])


def test_classes_become_one_against_the_rest():
    labels = label_rows(INDEX, TRACES, STEP_ROWS, FEATURES["step_kind"])
    assert labels.classes == ("calculation", "conclusion", "verification")
    np.testing.assert_array_equal(
        labels.targets(np.arange(5)), [[1, -1, -1, 1, -1], [-1, -1, 1, -1, 1], [-1, 1, -1, -1, -1]]
    )


def test_two_classes_become_one_target_and_real_labels_are_standardised():
    kinds = label_rows(INDEX, TRACES, STEP_ROWS, FEATURES["problem_type"])
    np.testing.assert_array_equal(kinds.targets(np.arange(5)), [[1, 1, 1, -1, -1]])
    far = label_rows(INDEX, TRACES, STEP_ROWS, FEATURES["answer_distance"]).targets(np.arange(5))
    assert far.mean() == pytest.approx(0)
    assert far.std() == pytest.approx(1)


def test_a_feature_whose_column_is_absent_names_the_column():
    with pytest.raises(FeatureError, match=r"traces\.pass_rate, which is absent"):
        label_rows(INDEX, TRACES.drop("pass_rate"), STEP_ROWS, FEATURES["difficulty"])


def test_an_unknown_name_lists_features_and_columns():
    with pytest.raises(FeatureError, match=r"no feature and no column.*step_correct.*pass_rate"):
        find_feature("nonsense", TRACES, STEP_ROWS)


def test_one_class_only_is_an_error_that_counts():
    right = STEP_ROWS.with_columns(correct=pl.lit(True))
    with pytest.raises(FeatureError, match="step_correct has only True in 5 rows; two classes are needed"):
        label_rows(INDEX, TRACES, right, FEATURES["step_correct"])


def test_a_column_of_lists_or_of_infinities_is_refused_by_name():
    with pytest.raises(FeatureError, match=r"column tags of traces is List\(String\); a feature is one value a row"):
        find_feature("tags", TRACES.with_columns(tags=pl.lit(["a"])), STEP_ROWS)
    endless = TRACES.with_columns(score=pl.lit(float("inf")))
    with pytest.raises(FeatureError, match="feature score is infinite in 5 of 5 rows"):
        label_rows(INDEX, endless, STEP_ROWS, find_feature("score", endless, STEP_ROWS))
