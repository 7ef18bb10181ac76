"""Every format is read back by the loader of the trainer it is for."""

import json
import tomllib
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracekit.core.tables import CURATED, conform
from tracekit.curation.export import write_exports
from tracekit.curation.export_formats import FORMATS as ALL_FORMATS
from tracekit.curation.export_formats import ExportSettings, anchored

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
FORMATS = (*ALL_FORMATS, "verifiers")
PARQUET = tuple(name for name, form in ALL_FORMATS.items() if form.schema is not None)
PAIRS = tuple(name for name, form in ALL_FORMATS.items() if form.each == "pair")
FACTS = {
    "recipe": "0123456789ab",
    "sources": [{"name": "grade school", "path": "x", "licence": "MIT"}],
    "funnel": {
        "token_unit": "words",
        "funnel": [{"stage": "filter", "traces": 3, "problems": 2, "dropped": 1, "reasons": {"max_tokens": 1}}],
    },
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {
            "problem_id": "p",
            "trace_id": "a",
            "problem": "P?",
            "gold": "1/2",
            "response": "so \\boxed{1/2}",
            "token_count": 2,
        },
        {
            "problem_id": "p",
            "trace_id": "b",
            "problem": "P?",
            "gold": "1/2",
            "response": "long " * 50,
            "token_count": 50,
        },
        {"problem_id": "q", "trace_id": "c", "problem": "Q?", "gold": "7", "response": "7 ü \u2028", "token_count": 3},
        {"problem_id": "p", "trace_id": "d", "problem": "P?", "gold": "1/2", "response": "3", "token_count": 1},
    ]
    correct = [True, True, True, False]
    splits = ["train", "train", "validation", "train"]
    frame = pl.DataFrame(rows).with_columns(
        source=pl.lit("s"), author=pl.lit("m"), correct=pl.Series(correct), split=pl.Series(splits)
    )
    pairs = pl.DataFrame({"problem_id": ["p"], "chosen": ["a"], "rejected": ["d"]})
    settings = ExportSettings(formats=FORMATS, max_target_tokens=10, system_prompt="Think.")
    return write_exports(tmp_path, [(conform(frame, CURATED, "curated"), pairs)], settings, FACTS)


def rows(folder: Path, name: str, split: str = "train") -> list[dict]:
    return pq.read_table(folder / name / f"{split}.parquet").to_pylist()


def test_a_luffy_row_is_a_verl_row_with_its_target(folder: Path) -> None:
    (row,) = rows(folder, "luffy")  # b is too long, d is wrong
    assert row == {
        "data_source": "s",
        "prompt": [{"content": "Think.", "role": "system"}, {"content": "P?", "role": "user"}],
        "target": [{"content": "so \\boxed{1/2}", "role": "assistant"}],
        "ability": "math",
        "reward_model": {"ground_truth": "1/2", "style": "rule"},
        "extra_info": {"index": 0, "split": "train"},
    }
    assert rows(folder, "luffy", "validation")[0]["target"][0]["content"] == "7 ü \u2028"


def test_problems_stand_once_where_the_trainer_samples_itself(folder: Path) -> None:
    for name in ("verl", "trl-grpo"):
        assert len(rows(folder, name)) == 1
    assert rows(folder, "trl-grpo")[0]["solution"] == "\\boxed{1/2}"


def test_a_pair_has_one_prompt_and_two_sides(folder: Path) -> None:
    (row,) = rows(folder, "trl-dpo")
    assert [row[side][0]["content"] for side in ("chosen", "rejected")] == ["so \\boxed{1/2}", "3"]


def test_openrlhf_reads_one_object_a_line(folder: Path) -> None:
    lines = (folder / "openrlhf" / "train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"input": "Think.\n\nP?", "output": "so \\boxed{1/2}", "label": "1/2"}
    ]


def _types(kind: pa.DataType) -> set[str]:
    inner = [kind.field(i).type for i in range(kind.num_fields)]
    return {str(kind).split("<")[0]}.union(*(_types(t) for t in inner))


@pytest.mark.parametrize("name", PARQUET)
def test_no_type_is_large(folder: Path, name: str) -> None:
    for field in pq.read_schema(folder / name / "train.parquet"):
        assert not {t for t in _types(field.type) if t.startswith("large")}


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data folder")
def test_luffy_columns_have_the_types_of_the_published_file_and_concatenate_with_it(folder: Path) -> None:
    import datasets

    published = SHARED / "benchmarks" / "luffy_valid.parquet"
    theirs = pq.read_schema(published)
    ours = pq.read_schema(folder / "luffy" / "train.parquet")
    for name in ("data_source", "prompt", "ability", "reward_model", "extra_info"):
        assert ours.field(name).type.equals(theirs.field(name).type), name
    both = datasets.concatenate_datasets(
        [
            datasets.Dataset.from_parquet(
                str(path), columns=["prompt", "reward_model"], cache_dir=str(folder / "cache")
            )
            for path in (published, folder / "luffy" / "train.parquet")
        ]
    )
    assert len(both) == 2020


def test_datasets_loads_the_folder_by_its_card(folder: Path, tmp_path: Path) -> None:
    import datasets

    for name in PARQUET:
        loaded = datasets.load_dataset(str(folder), name, cache_dir=str(tmp_path / "cache"))
        assert loaded["train"].num_rows >= 1, name
        if name not in PAIRS:
            assert loaded["validation"].num_rows == 1, name


def test_datasets_loads_openrlhf_s_lines(folder: Path, tmp_path: Path) -> None:
    import datasets

    files = {"train": str(folder / "openrlhf" / "train.jsonl")}
    loaded = datasets.load_dataset("json", data_files=files, cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].column_names == ["input", "output", "label"]


def test_trl_tells_the_formats_as_conversations(folder: Path) -> None:
    data_utils = pytest.importorskip("trl.data_utils")
    for name in ("trl-sft", "trl-prompt-completion", "trl-grpo", "trl-dpo"):
        assert data_utils.is_conversational(rows(folder, name)[0]), name


@pytest.mark.parametrize("name", ["trl-sft", "trl-prompt-completion", "trl-dpo", "trl-grpo"])
def test_trl_s_own_trainer_takes_a_step_on_the_export(folder: Path, tmp_path: Path, name: str) -> None:
    trl = pytest.importorskip("trl")
    import datasets
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = pre_tokenizers.ByteLevel.alphabet()
    words = Tokenizer(models.BPE({c: i for i, c in enumerate(["<pad>", "<eos>", *sorted(vocabulary)])}, []))
    words.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="<eos>")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}"
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=0,
            eos_token_id=1,
        )
    ).save_pretrained(tmp_path / "model")  # DPO reads its reference from the folder
    model = LlamaForCausalLM.from_pretrained(tmp_path / "model")
    table = datasets.load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path / "cache"))
    common = {"output_dir": str(tmp_path), "max_steps": 1, "report_to": [], "use_cpu": True, "save_strategy": "no"}
    given = {"model": model, "train_dataset": table, "processing_class": tokenizer}
    if name == "trl-dpo":
        trainer = trl.DPOTrainer(args=trl.DPOConfig(per_device_train_batch_size=1, **common), **given)
    elif name == "trl-grpo":
        sizes = {"per_device_train_batch_size": 2, "num_generations": 2, "max_completion_length": 4}
        from trl.rewards import accuracy_reward as reward

        trainer = trl.GRPOTrainer(args=trl.GRPOConfig(**sizes, **common), reward_funcs=reward, **given)
    else:
        trainer = trl.SFTTrainer(args=trl.SFTConfig(per_device_train_batch_size=1, **common), **given)
    trainer.train()
    assert trainer.state.global_step == 1


def test_trl_s_default_reward_reads_every_anchored_gold() -> None:
    pytest.importorskip("trl")
    from trl.rewards import accuracy_reward

    golds = ["1/2", "\\frac{1}{2}", "7", "(0, \\pi)", "x+1", "12.5", "\\boxed{3}"]
    completions = [[{"role": "assistant", "content": anchored(g)}] for g in golds]
    assert accuracy_reward(completions, [anchored(g) for g in golds]) == [1.0] * len(golds)


def test_the_card_tells_funnel_licences_recipe_and_what_was_too_long(folder: Path) -> None:
    card = (folder / "README.md").read_text()
    for part in ("0123456789ab", "| grade school | MIT |", "1 responses of more than 10 tokens", "max_tokens: 1"):
        assert part in card


def test_llama_factory_s_description_names_the_files_and_columns(folder: Path, tmp_path: Path) -> None:
    import datasets

    for name in ("llama-factory", "llama-factory-dpo"):
        about = json.loads((folder / name / "dataset_info.json").read_text(encoding="utf-8"))
        assert set(about) == {f"curated_{path.stem}" for path in (folder / name).glob("*.parquet")}
        for one in about.values():
            files = {"train": str(folder / name / one["file_name"])}
            loaded = datasets.load_dataset(
                "parquet", data_files=files, split="train", cache_dir=str(tmp_path / "cache")
            )
            assert set(one["columns"].values()) == set(loaded.column_names)
            message = loaded[0][one["columns"]["messages"]][-1]
            roles = {one["tags"][f"{tag}_tag"] for tag in ("user", "assistant", "system")}
            assert message[one["tags"]["role_tag"]] in roles
            assert isinstance(message[one["tags"]["content_tag"]], str)
    assert about["curated_train"]["ranking"] is True
    assert loaded[0]["chosen"]["role"] == "assistant"


def test_axolotl_s_part_of_a_configuration_names_the_files_and_columns(folder: Path) -> None:
    import yaml

    for name, kind in (("axolotl", "chat_template"), ("axolotl-dpo", "chat_template.default")):
        config = yaml.safe_load((folder / name / "axolotl.yaml").read_text(encoding="utf-8"))
        entries = [*config["datasets"], *config.get("test_datasets", [])]
        assert {one["path"] for one in entries} == {path.name for path in (folder / name).glob("*.parquet")}
        for one in entries:
            assert one["type"] == kind
            columns = pq.read_schema(folder / name / one["path"]).names
            assert {value for key, value in one.items() if key.startswith("field_")} == set(columns)
    assert config["rl"] == "dpo"


def test_the_environment_package_rewards_with_our_verifier(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = folder / "verifiers"
    assert {path.name for path in package.iterdir()} == {
        *("pyproject.toml", "README.md", "tracekit_problems.py", "train.jsonl", "validation.jsonl"),
    }
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))
    assert project["tool"]["hatch"]["build"]["include"] == ["tracekit_problems.py", "*.jsonl"]
    verifiers = pytest.importorskip("verifiers")
    if not hasattr(verifiers, "SingleTurnEnv"):
        pytest.skip("verifiers 0.1 is another interface than the one installed")
    monkeypatch.syspath_prepend(str(package))
    import tracekit_problems

    environment = tracekit_problems.load_environment()
    assert environment.get_dataset()[0]["answer"] == "1/2"
    reward = next(f for f in environment.rubric._get_reward_funcs() if f.__name__ == "rubric_accuracy")
    completion = [{"role": "assistant", "content": "so \\boxed{0.5}"}]
    assert reward(completion=completion, answer="1/2", prompt=[{"role": "user", "content": "P?"}]) == 1.0
    assert reward(completion=completion, answer="1/3", prompt=[{"role": "user", "content": "P?"}]) == 0.0
