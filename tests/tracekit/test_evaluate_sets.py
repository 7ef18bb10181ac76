"""An evaluation of several sets: which problems each has, how they are asked, and where the answers go."""

from pathlib import Path

import polars as pl
import pytest
import torch

from tracekit.cli.evaluate import command_evaluate
from tracekit.core.settings import SettingsError, load_settings
from tracekit.core.tables import COMPLETIONS, read_table
from tracekit.study.problem_sets import EvaluationRecipe, read_sets
from tracekit.study.tasks.world import World, make_problems, write_tokenizer
from trainer.modeling.models import load_tokenizer, new_model
from trainer.settings import NewModelSettings

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "tracekit" / "recipes" / "benchmarks.toml"
VALID = ROOT.parent / "shared" / "data" / "benchmarks" / "luffy_valid.parquet"


def test_the_benchmarks_are_those_of_the_paper_asked_as_it_asks():
    recipe = load_settings(EvaluationRecipe, BENCHMARKS)
    asked = {one.name: recipe.asked(one) for one in recipe.sets}
    assert {name for name, settings in asked.items() if settings.samples == 32} == {"AIME 2024", "AIME 2025", "AMC"}
    assert {settings.temperatures for settings in asked.values()} == {(0.6,)}
    assert {settings.max_tokens for settings in asked.values()} == {8192}
    assert {"MATH-500", "Minerva", "OlympiadBench", "ARC-c", "GPQA-diamond", "MMLU-Pro"} < set(asked)
    assert not hasattr(asked["AMC"], "sets"), "a set's run records how it was asked, and not what else was"


@pytest.mark.skipif(not VALID.is_file(), reason="LUFFY's validation file is not beside the checkout")
def test_the_paper_s_validation_file_has_the_sets(tmp_path):
    (tmp_path / "valid.all.parquet").write_bytes(VALID.read_bytes())
    recipe = load_settings(EvaluationRecipe, BENCHMARKS, [f"data={tmp_path}"])
    sizes = {one.name: one.read(recipe.data).height for one in recipe.sets if one.path == "valid.all.parquet"}
    # of 240 rows of AIME and 332 of AMC, 8 and 4 are one problem each
    assert sizes == {"AIME 2024": 30, "AMC": 83, "MATH-500": 500, "Minerva": 272, "OlympiadBench": 675}


def test_a_kind_that_a_source_does_not_have_is_told(tmp_path):
    make_problems(World(), "test", 4, 0).select("problem", answer="gold").write_parquet(tmp_path / "four.parquet")
    (tmp_path / "sets.toml").write_text('[[sets]]\npath = "four.parquet"\nkind = "aime"\n')
    with pytest.raises(SettingsError, match="no problem of kind aime"):
        read_sets(str(tmp_path / "sets.toml"), [f"data={tmp_path}"])


def test_each_set_is_sampled_as_often_as_it_says_into_a_folder_of_its_own(tmp_path, capsys):
    world, model = World(), tmp_path / "model"
    write_tokenizer(world, model)
    torch.manual_seed(0)
    tokenizer = load_tokenizer(model)
    new_model(NewModelSettings(tokenizer=model, hidden_size=16, layers=1, heads=2), tokenizer, "sdpa").save_pretrained(
        model
    )
    for name, count in (("few", 2), ("many", 4)):
        table = make_problems(world, "test", count, count).select("problem", answer="gold")
        table.write_parquet(tmp_path / f"{name}.parquet")
    (tmp_path / "sets.toml").write_text(
        "temperatures = [0.6]\nsamples = 1\nmax_tokens = 8\n"
        '[[sets]]\nname = "Few"\npath = "few.parquet"\nsamples = 3\n'
        '[[sets]]\npath = "many.parquet"\n'
    )
    words = [str(model), f"data={tmp_path}", "device=cpu"]
    command_evaluate(*words, problems=str(tmp_path / "sets.toml"), output=tmp_path / "out")
    few, many = (
        read_table(tmp_path / "out" / "model" / name / "completions.parquet", COMPLETIONS) for name in ("Few", "many")
    )
    assert few.group_by("problem_id").len()["len"].to_list() == [3, 3]
    assert many.group_by("problem_id").len()["len"].to_list() == [1] * 4
    assert few.select(pl.col("temperature").unique()).item() == pytest.approx(0.6)
    shown = capsys.readouterr().out
    assert "Few" in shown
    assert "many" in shown
