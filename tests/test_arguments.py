"""The grammar that all commands share."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_cli import tracekit
from tracekit.cli.arguments import Words, print_json, recipe_and_settings, split_words
from tracekit.core.recipes import find_recipe
from tracekit.core.settings import SettingsError


def test_settings_are_told_from_names() -> None:
    assert split_words(["luffy", "a.b=1", "models/x"]) == Words(("luffy", "models/x"), ("a.b=1",))


def test_a_file_whose_name_holds_an_equals_sign_is_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=1.toml").touch()
    assert split_words(["lr=1.toml"]).names == ("lr=1.toml",)


def test_overrides_need_no_recipe() -> None:
    assert recipe_and_settings(Path("output=o"), ("samples=2",), "tracekit") == (None, ("output=o", "samples=2"))


def test_the_option_output_is_the_setting_output() -> None:
    assert recipe_and_settings(None, (), "tracekit", Path("runs/a b"))[1] == ('output="runs/a b"',)
    with pytest.raises(SettingsError, match="two folders"):
        recipe_and_settings(None, ("output=x",), "tracekit", Path("y"))


def test_a_recipe_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    assert find_recipe("luffy", "trainer") == find_recipe("luffy.toml", "trainer")
    own = tmp_path / "luffy.toml"
    own.touch()
    assert find_recipe(own, "trainer") == own
    with pytest.raises(SettingsError, match=r"lufy does not exist; expected .* luffy"):
        find_recipe("lufy", "trainer")


def test_a_second_recipe_is_refused() -> None:
    with pytest.raises(SettingsError, match="sft is no setting"):
        recipe_and_settings("luffy", ("sft",), "trainer")


def test_json_is_one_object_without_nan(capsys: pytest.CaptureFixture[str]) -> None:
    print_json({"path": Path("a"), "value": float("nan"), "rows": [{"n": 1}]})
    assert json.loads(capsys.readouterr().out) == {"path": "a", "value": None, "rows": [{"n": 1}]}


def test_recipes_are_listed_and_printed() -> None:
    listed = json.loads(tracekit("recipes", "--json").stdout)
    assert listed["luffy"]["command"] == "train"
    assert tracekit("recipe", "luffy").stdout == Path(listed["luffy"]["file"]).read_text(encoding="utf-8")
    assert "expected one of" in tracekit("recipe", "nothing").stderr
