import polars as pl
import pytest

from tracekit.curation.select import SelectSettings, pair, select, validation_groups

TRACES = pl.DataFrame(
    {
        "trace_id": ["a", "b", "c", "d", "e"],
        "problem_id": ["p", "p", "p", "q", "q"],
        "token_count": [30, 10, 20, 5, 6],
        "response": ["x y z w v", "x y z w v u", "completely other words stand here", "one", "two"],
    }
)


@pytest.mark.parametrize(("policy", "kept"), [("all", set("abcde")), ("first", set("ad")), ("shortest", set("bd"))])
def test_a_policy_keeps_its_traces(policy: str, kept: set[str]) -> None:
    assert set(select(TRACES, SelectSettings(policy=policy))) == kept


def test_the_most_varied_are_the_least_alike() -> None:
    kept = select(TRACES, SelectSettings(policy="varied", k=2))
    assert set(kept) == {"a", "c", "d", "e"}


def test_odds_follow_a_power_of_length() -> None:
    many = pl.DataFrame(
        {
            "trace_id": [f"{i}{side}" for i in range(4000) for side in "ab"],
            "problem_id": [str(i) for i in range(4000) for _ in "ab"],
            "token_count": [100, 300] * 4000,
        }
    )
    for power, share in ((0.0, 1 / 2), (1.0, 3 / 4), (-1.0, 1 / 4), (2.0, 9 / 10)):
        kept = select(many, SelectSettings(policy="length_power", k=1, power=power), seed=1)
        assert len(kept) == 4000
        assert kept.str.ends_with("b").mean() == pytest.approx(share, abs=0.03)


def test_a_draw_depends_on_the_row_alone_and_not_on_its_neighbours() -> None:
    settings = SelectSettings(policy="length_power", k=1)
    whole = set(select(TRACES, settings))
    part = set(select(TRACES.filter(pl.col("problem_id") == "p"), settings))
    assert part == whole & set("abc")


def test_a_pair_is_of_one_problem_and_near_in_length() -> None:
    good = TRACES.head(2)
    wrong = TRACES.tail(3).with_columns(pl.lit("p").alias("problem_id"))
    pairs = pair(good, wrong, 2)
    assert pairs.rows() == [("p", "b", "e"), ("p", "a", "c")]
    assert pair(good, wrong, 1).height == 1
    assert pair(good, wrong, 0).height == 0


def test_validation_holds_back_a_share_that_new_data_does_not_move() -> None:
    groups = pl.Series([f"g{i}" for i in range(5000)])
    held = validation_groups(groups, 0.1)
    assert held.mean() == pytest.approx(0.1, abs=0.02)
    assert validation_groups(groups.head(100), 0.1).to_list() == held.head(100).to_list()
    assert validation_groups(groups, 0.1, seed=1).to_list() != held.to_list()
