from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tracekit.core.settings import load_settings
from tracekit.core.tables import LEDGER, check
from tracekit.curation.filters import RULES, FilterSettings, apply_filters
from tracekit.curation.settings import CurateSettings

GOOD: dict[str, Any] = {
    "row_id": "t",
    "outcome": "correct",
    "token_count": 100,
    "truncated": False,
    "think_opened": True,
    "think_closed": True,
    "think_fault": "",
    "repeated_lines": 0.0,
    "repeated_characters": 0.0,
    "loop_repeats": 1.0,
    "tail_repeats": 1,
    "foreign_share": 0.0,
    "language_switches": 0,
    "steps": 5,
    "wrong_calculations": 0,
    "pass_rate": 0.5,
    "answer_position": 0.9,
    "characters": 1000,
}
OFF = FilterSettings(**dict.fromkeys(FilterSettings.model_fields))

# setting, threshold, a value that falls, a value that stays just inside
CASES = [
    ("outcomes", ("correct",), {"outcome": "wrong"}, {"outcome": "correct"}),
    ("min_tokens", 10, {"token_count": 9}, {"token_count": 10}),
    ("max_tokens", 100, {"token_count": 101}, {"token_count": 100}),
    ("truncated", False, {"truncated": True}, {"truncated": False}),
    ("think", "closed", {"think_closed": False}, {"think_closed": True}),
    ("think", "absent", {"think_opened": True}, {"think_opened": False, "think_closed": False}),
    ("max_repeated_lines", 0.3, {"repeated_lines": 0.31}, {"repeated_lines": 0.3}),
    ("max_repeated_characters", 0.3, {"repeated_characters": 0.31}, {"repeated_characters": 0.3}),
    ("think_faults", False, {"think_fault": "not one block"}, {"think_fault": ""}),
    ("max_loop_repeats", 2.5, {"loop_repeats": 2.6}, {"loop_repeats": 2.5}),
    ("max_tail_repeats", 4, {"tail_repeats": 5}, {"tail_repeats": 4}),
    ("max_foreign_share", 0.05, {"foreign_share": 0.06}, {"foreign_share": 0.05}),
    ("max_language_switches", 2, {"language_switches": 3}, {"language_switches": 2}),
    ("min_steps", 2, {"steps": 1}, {"steps": 2}),
    ("max_steps", 9, {"steps": 10}, {"steps": 9}),
    ("max_wrong_calculations", 0, {"wrong_calculations": 1}, {"wrong_calculations": 0}),
    ("min_pass_rate", 0.1, {"pass_rate": 0.0}, {"pass_rate": 0.1}),
    ("max_pass_rate", 0.9, {"pass_rate": 1.0}, {"pass_rate": 0.9}),
    ("min_answer_position", 0.05, {"answer_position": 0.01}, {"answer_position": 0.01, "characters": 399}),
]


@pytest.mark.parametrize(("setting", "threshold", "falls", "stays"), CASES)
def test_a_rule_drops_what_is_past_its_threshold_and_says_why(
    setting: str, threshold: Any, falls: dict, stays: dict
) -> None:
    frame = pl.DataFrame([{**GOOD, **falls, "row_id": "out"}, {**GOOD, **stays, "row_id": "in"}])
    decisions = check(apply_filters(frame, OFF.model_copy(update={setting: threshold})), LEDGER, "ledger")
    told = {row["row_id"]: row for row in decisions.to_dicts()}
    assert (told["out"]["verdict"], told["in"]["verdict"]) == ("drop", "keep")
    assert told["out"]["rule"] == setting
    assert told["out"]["reason"]
    assert told["in"]["reason"] == ""


def test_what_was_not_measured_is_kept() -> None:
    frame = pl.DataFrame(
        [{**GOOD, "pass_rate": None, "answer_position": None}], schema_overrides={"pass_rate": pl.Float64}
    )
    decisions = apply_filters(frame.cast({"answer_position": pl.Float32}), FilterSettings(min_pass_rate=0.5))
    told = {row["rule"]: row for row in decisions.to_dicts()}
    assert (told["min_pass_rate"]["verdict"], told["min_pass_rate"]["measured"]) == ("keep", "unknown")


def test_every_threshold_has_its_rule() -> None:
    assert [rule.setting for rule in RULES] == list(FilterSettings.model_fields)


@pytest.mark.parametrize("setting", list(FilterSettings.model_fields))
def test_every_rule_is_switched_off_by_the_word_off(setting: str, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[filters]\n{setting} = "off"\n')
    by_recipe = load_settings(CurateSettings, recipe).filters
    by_hand = load_settings(CurateSettings, None, [f"filters.{setting}=off"]).filters
    assert getattr(by_recipe, setting) is None
    assert by_hand == by_recipe
    assert setting not in apply_filters(pl.DataFrame([GOOD]), by_recipe)["rule"].to_list()


def test_a_recipe_with_every_filter_off_drops_nothing() -> None:
    assert apply_filters(pl.DataFrame([GOOD]), OFF).height == 0
