"""Every recipe that comes along, carried out in small: stand-ins in the hub's own formats for model and data."""

import json
from pathlib import Path

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tracekit.core.recipes import find_recipe
from tracekit.core.settings import load_settings
from tracekit.curation.curate import CurateSettings, curate
from trainer.data.sequences import prompt_text
from trainer.modeling.models import ModelError, load, load_config, load_model, load_tokenizer
from trainer.planning.plan import plan_run, plan_table
from trainer.settings import SUPERVISED, ModelChanges, TrainSettings
from trainer.train import train

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "trainer" / "recipes").glob("*.toml"))
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
#: LUFFY's context, as its recipes set it.
LUFFY = ModelChanges(rope_theta=40_000, max_positions=16_384, chat_template="luffy")


@pytest.fixture(scope="module")
def hub(tmp_path_factory):
    """A Qwen2 folder as the hub has it (theta 10,000, window 4,096, ChatML) and the tables of a curated LUFFY file."""
    folder = tmp_path_factory.mktemp("hub")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    fast.add_special_tokens({"additional_special_tokens": SPECIAL[1:]})
    fast.chat_template = CHATML
    fast.save_pretrained(folder / "model")
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(fast), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=24, max_position_embeddings=4096, rope_theta=10_000.0, sliding_window=4096,
        use_sliding_window=False, bos_token_id=fast.eos_token_id, eos_token_id=fast.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder / "model")
    written = json.loads((folder / "model" / "config.json").read_text())
    written |= {"rope_theta": written.pop("rope_parameters")["rope_theta"], "sliding_window": 4096}  # the hub's words
    (folder / "model" / "config.json").write_text(json.dumps(written))
    write_luffy_file(folder / "Elliott" / "Openr1-Math-46k-8192" / "train.parquet")
    settings = load_settings(
        CurateSettings,
        ROOT / "tracekit" / "recipes" / "openr1.toml",
        [f"data={folder}", f"output={folder / 'run'}", "workers=1"],
    )
    curate(settings)
    text = pl.read_parquet(folder / "run" / "curated.parquet").select(text="response")
    text.write_parquet(folder / "text.parquet")
    both = pl.read_parquet(folder / "run" / "curated.parquet")
    wrong = both.with_columns(trace_id=pl.col("trace_id") + "w", correct=pl.lit(False), response=pl.lit(r"\boxed{0}"))
    pl.concat([both, wrong]).write_parquet(folder / "pairs.parquet")  # dpo wants wrong traces too
    return folder


def write_luffy_file(path):
    """The layout of Elliott/Openr1-Math-46k-8192: a conversation, its target, the gold."""
    path.parent.mkdir(parents=True)
    rows = [
        {
            "data_source": "openr1",
            "prompt": [
                {"content": "Think first.", "role": "system"},
                {"content": f"What is {a} plus {b}?", "role": "user"},
            ],
            "target": [
                {
                    "content": f"<think>\nI add {a} and {b}, which makes {a + b}.\n</think>\n\n\\boxed{{{a + b}}}",
                    "role": "assistant",
                }
            ],
            "ability": "math",
            "reward_model": {"ground_truth": str(a + b), "style": "rule"},
            "extra_info": {"index": a, "split": "default"},
        }
        for a, b in [(3, 4), (12, 30), (55, 6), (70, 8)]
    ]
    pl.DataFrame(rows).write_parquet(path)


def overrides(hub, output, method):
    """What takes a recipe to the stand-ins: where model and tables stand, one process, a CPU, few and short rows."""
    curated = hub / ("pairs.parquet" if method == "dpo" else "run/curated.parquet")
    return [
        f"model={hub / 'model'}",
        f"data.text={hub / 'text.parquet'}",
        f"data.curated={curated}",
        f"data.problems={hub / 'run/problems.parquet'}",
        f"output={output}",
        "device=cpu",
    ]


SMALL = [
    "steps=1",
    "dtype=float32",
    "parallel.fsdp=false",
    "engine.kind=embedded",
    "data.prompt_tokens=1200",
    "data.response_tokens=100",
    "rollout.prompts=2",
    "rollout.mini_batch_prompts=2",
    "rollout.group_size=3",
    "batch.rows=2",
]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_a_dry_run_of_every_recipe_reads_all_it_would_read_and_estimates_all_it_would_take(recipe, hub, tmp_path):
    settings = load_settings(TrainSettings, recipe, new_model_of(recipe, hub))
    words = [*overrides(hub, tmp_path / "run", settings.method), *new_model_of(recipe, hub)]
    if settings.new_model is not None:
        words = [word for word in words if not word.startswith("model=")]
    plans = plan_run(recipe, words, "a100")
    assert len(plans) == max(len(settings.stages), 1)
    assert not (tmp_path / "run").exists()
    for plan in plans:
        found = plan.estimate
        assert "rows" in plan.found
        assert plan.work.rows == 4 or plan.settings.data.pack_tokens
        amounts = [*found.hours.values(), *found.flops.values(), *found.memory.values(), found.peak, found.device_hours]
        assert all(0 <= amount < float("inf") for amount in amounts)
        assert found.hours["update"] > 0
        assert found.flops["update"] > 0
        assert ("rollout" in found.hours) == (plan.settings.method not in SUPERVISED)
        assert plan_table(plan).row_count > 10


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_trains_a_step_on_the_stand_ins(recipe, hub, tmp_path):
    settings = load_settings(TrainSettings, recipe, new_model_of(recipe, hub))
    words = [*overrides(hub, tmp_path / "run", settings.method), *SMALL, *new_model_of(recipe, hub)]
    if settings.new_model is not None or recipe.stem == "pretrain":
        words = [word for word in words if not word.startswith("model=")]
    settings = load_settings(TrainSettings, recipe, words)
    if settings.stages:  # steps of a stage are the stage's own
        stages = tuple({**stage, "steps": 1} for stage in settings.stages)
        settings = settings.model_copy(update={"stages": stages})
    if settings.data.pack_tokens is not None:
        settings = settings.model_copy(update={"data": settings.data.model_copy(update={"pack_tokens": 256})})
    final = train(settings)
    config = json.loads((final / "config.json").read_text())
    if settings.model_changes == LUFFY:
        assert config["rope_parameters"]["rope_theta"] == 40_000
        assert config["max_position_embeddings"] == 16_384
        assert "<think>" in load_tokenizer(final).chat_template


def new_model_of(recipe, hub):
    if recipe.stem == "on_policy_distillation":
        return [f"distill.model={hub / 'model'}"]
    return [f"new_model.tokenizer={hub / 'model'}"] if recipe.stem == "pretrain" else []


@pytest.mark.parametrize("method", ["sft", "grpo", "luffy", "rl_sft", "sft_grpo"])
def test_the_recipes_of_the_paper_start_from_qwen_math_with_its_authors_context(method):
    settings = load_settings(TrainSettings, find_recipe(method, "trainer"))
    assert settings.model == "Qwen/Qwen2.5-Math-7B"
    assert settings.model_changes == LUFFY
    assert (settings.data.prompt_tokens, settings.data.response_tokens) == (1024, 8192)
    assert settings.parallel.fsdp
    small = load_settings(TrainSettings, find_recipe(method, "trainer"), ["model=Qwen/Qwen2.5-Math-1.5B"])
    assert small.model_copy(update={"model": settings.model}) == settings


def test_a_changed_theta_and_window_are_those_of_a_model_whose_folder_says_so(hub, tmp_path):
    """Against a copy of the folder whose config.json was written by hand."""
    plain = load_model(hub / "model")
    config = json.loads((hub / "model" / "config.json").read_text())
    config |= {"rope_theta": 40_000, "max_position_embeddings": 16_384}
    by_hand = tmp_path / "by_hand"
    by_hand.mkdir()
    (by_hand / "config.json").write_text(json.dumps(config))
    (by_hand / "model.safetensors").write_bytes((hub / "model" / "model.safetensors").read_bytes())
    changed, wanted = load_model(hub / "model", changes=LUFFY), load_model(by_hand)
    ids = torch.arange(60)[None] % 50
    assert torch.equal(changed(ids).logits, wanted(ids).logits)
    assert not torch.allclose(changed(ids).logits, plain(ids).logits)
    assert load_config(hub / "model").max_position_embeddings == 4096


def test_luffys_template_prints_its_system_prompt_and_opens_the_think_block(hub):
    settings = load_settings(TrainSettings, find_recipe("luffy", "trainer"), [f"model={hub / 'model'}"])
    _, tokenizer = load(settings)
    assert tokenizer.model_max_length == 16_384
    printed = prompt_text(tokenizer, "1 + 1?", settings.data)
    file = ROOT.parent / "shared" / "data" / "benchmarks" / "luffy_valid.parquet"
    if file.is_file():
        system = pl.read_parquet(file)["prompt"][0][0]["content"]
        assert printed.startswith(f"<|im_start|>system\n{system}<|im_end|>\n")
    assert printed.endswith("<|im_start|>user\n1 + 1?<|im_end|>\n<|im_start|>assistant\n<think>\n")
    own = prompt_text(tokenizer, "1 + 1?", settings.data.model_copy(update={"system_prompt": "Be brief."}))
    assert own == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1 + 1?<|im_end|>\n" + (
        "<|im_start|>assistant\n<think>\n"
    )


def test_what_cannot_be_changed_is_told(hub):
    with pytest.raises(ModelError, match="expected one of luffy"):
        load_tokenizer(hub / "model", changes=ModelChanges(chat_template="luffi"))
    from transformers import GPT2Config

    from trainer.modeling.models import config_changes

    with pytest.raises(ModelError, match="rotary"):
        config_changes(GPT2Config(), LUFFY)
