from pathlib import Path

import pytest

from tracekit.core.settings import SettingsError, build_settings, load_settings
from trainer.settings import TrainSettings

RECIPES = sorted((Path(__file__).parents[2] / "trainer" / "recipes").glob("*.toml"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_is_valid(recipe):
    settings = load_settings(TrainSettings, recipe)
    assert settings.output.name == recipe.stem


def test_the_luffy_recipe_is_the_authors_code():
    luffy = load_settings(TrainSettings, next(path for path in RECIPES if path.stem == "luffy"))
    assert (luffy.rollout.group_size, luffy.teacher_rows, luffy.sampled_rows) == (8, 1, 7)
    assert (luffy.rollout.prompts, luffy.rollout.mini_batch_prompts, luffy.rollout.temperature) == (128, 64, 1.0)
    assert (luffy.teacher.shape.kind, luffy.teacher.shape.gamma, luffy.teacher.probability) == ("gamma", 0.1, "one")
    assert (luffy.on_policy.clip, luffy.advantage.std, luffy.advantage.baseline) == (False, False, "all")
    assert (luffy.loss.reduction, luffy.loss.entropy, luffy.loss.kl) == ("constant", 0.001, 0.0)
    assert (luffy.optimizer.lr, luffy.optimizer.weight_decay, luffy.optimizer.max_grad_norm) == (1e-6, 0.01, 1.0)
    assert (luffy.data.prompt_tokens, luffy.data.response_tokens) == (1024, 8192)


def test_stages_lie_over_the_shared_settings_and_start_from_the_one_before():
    recipe = next(path for path in RECIPES if path.stem == "sft_grpo")
    first, second = load_settings(TrainSettings, recipe, ["optimizer.eps=1e-7", "output=out"]).stage_settings()
    assert (first.method, second.method) == ("sft", "grpo")
    assert (first.optimizer.lr, second.optimizer.lr) == (5e-5, 1e-6)
    assert first.optimizer.eps == second.optimizer.eps == 1e-7
    assert second.model == str(Path("out") / "1_sft" / "final")


FAULTS = [
    ({"method": "sft", "model": "m"}, "data.curated"),
    ({"method": "sft", "data": {"curated": "c"}}, "exactly one of model"),
    (
        {"method": "luffy", "model": "m", "data": {"problems": "p", "curated": "c"}, "teacher": {"rows": 8}},
        "sampled row",
    ),
    (
        {"method": "sft", "model": "m", "data": {"curated": "c"}, "attention": "flash_attention_2"},
        "set dtype to bfloat16",
    ),
    ({"method": "sft", "model": "m", "data": {"curated": "c"}, "optimiser": {}}, "did you mean optimizer"),
    (
        {"method": "sft", "model": "m", "data": {"curated": "c"}, "model_changes": {"max_positions": 4096}},
        "prompt_tokens and response_tokens make 9216",
    ),
    (
        {
            "method": "sft",
            "model": "m",
            "data": {"curated": "c"},
            "model_changes": {"rope_theta": 4e4},
            "engine": {"kind": "vllm-server"},
        },
        "do not reach a rollout server",
    ),
    (
        {
            "method": "sft",
            "new_model": {"tokenizer": "t"},
            "data": {"curated": "c"},
            "model_changes": {"rope_theta": 4e4},
        },
        "model_changes are those of a model that stands",
    ),
    (
        {"method": "dpo", "new_model": {"tokenizer": "t"}, "data": {"curated": "c"}},
        "compares with the model it starts from",
    ),
]


@pytest.mark.parametrize(("tree", "told"), FAULTS, ids=[told for _, told in FAULTS])
def test_what_cannot_work_is_told_before_anything_runs(tree, told):
    with pytest.raises(SettingsError, match=told):
        build_settings(TrainSettings, {"output": "o", **tree}, "settings")


def test_settings_that_contradict_each_other_are_told_without_the_whole_record():
    tree = {"method": "luffy", "model": "m", "output": "o", "data": {"problems": "p", "curated": "c"}}
    with pytest.raises(SettingsError) as told:
        build_settings(TrainSettings, {**tree, "teacher": {"rows": 8}}, "luffy.toml")
    assert str(told.value) == "luffy.toml: teacher.rows is 8; a group of 8 needs at least one sampled row."
