"""Evaluation while a run goes on: metrics, the best model, resume, trackers; and the dtype of what a run leaves."""

import json
import os
from dataclasses import replace

import polars as pl
import pytest
import torch
from safetensors import safe_open
from transformers import LlamaConfig, LlamaForCausalLM

from tracekit.core.settings import SettingsError, build_settings
from tracekit.core.tables import COMPLETIONS, read_table
from trainer.loops.checkpoint import LoopState, damage
from trainer.loops.evaluation import Best, Evaluation
from trainer.loops.run_log import RunLog
from trainer.loops.run_state import begin, finished
from trainer.modeling.models import base_dtype, load_tokenizer
from trainer.rollouts.engines.protocol import Rollout
from trainer.settings import LogSettings, TrainSettings
from trainer.train import train


def settings(world_folder, output, method="grpo", **changes):
    tree = {
        "method": method,
        "output": output,
        "new_model": {"tokenizer": world_folder / "tokenizer", "hidden_size": 32, "layers": 1, "heads": 2},
        "data": {
            "problems": world_folder / "problems.parquet",
            "curated": world_folder / "curated.parquet",
            "response_tokens": 24,
        },
        "batch": {"rows": 4},
        "rollout": {"prompts": 2, "mini_batch_prompts": 2, "group_size": 2},
        "optimizer": {"lr": 1e-3},
        "evaluate": {"every": 2, "problems": {"held_out": world_folder / "problems.parquet"}},
        "checkpoint": {"every": 1},
        "steps": 3,
        "threads": 1,
    }
    for name, value in changes.items():
        tree[name] = {**tree.get(name, {}), **value} if isinstance(value, dict) else value
    return build_settings(TrainSettings, tree, "settings")


@pytest.mark.parametrize("method", ["grpo", "sft"])
def test_a_run_is_evaluated_every_so_many_steps_and_at_its_end(world_folder, tmp_path, method):
    run = settings(world_folder, tmp_path / "run", method)
    train(run)
    metrics = pl.read_parquet(tmp_path / "run" / "metrics.parquet")
    assert metrics["evaluate/held_out/accuracy"].to_list() == [None, 0.0, 0.0]
    assert metrics["evaluate/held_out/tokens"].drop_nulls().len() == 2
    rows = read_table(tmp_path / "run" / "evaluations" / "held_out" / "step-000002.parquet", COMPLETIONS, "rows")
    assert rows.height == 40
    assert set(rows["step"]) == {2}
    assert damage(tmp_path / "run" / "best") is None
    assert json.loads((tmp_path / "run" / "best" / "state.json").read_text())["step"] == 2  # the first of equals
    assert not [path for path in (tmp_path / "run").iterdir() if "partial" in path.name]


def test_evaluation_changes_nothing_of_the_training(world_folder, tmp_path):
    train(settings(world_folder, tmp_path / "with"))
    train(settings(world_folder, tmp_path / "without", evaluate={"every": 0}))
    weights = [tmp_path / name / "final" / "model.safetensors" for name in ("with", "without")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


class Answers:
    """An engine that answers the first `right` problems rightly, the others not at all."""

    exact = live = True

    def __init__(self, tokenizer, golds):
        self.tokenizer, self.golds, self.right = tokenizer, golds, 0

    def generate(self, prompts, n, sampling):
        texts = [f"\\boxed{{ {gold} }}" if place < self.right else "A" for place, gold in enumerate(self.golds)]
        ids = [self.tokenizer(text, add_special_tokens=False)["input_ids"] + [2] for text in texts]
        return [[Rollout(own, [0.0] * len(own), "stop")] * n for own in ids]

    def load_weights(self, weights):
        raise AssertionError("a live engine takes no weights")

    def rest(self):
        return False

    def close(self):
        pass


def test_the_best_model_is_that_of_the_highest_accuracy_and_is_remembered(world_folder, tmp_path):
    table = pl.read_parquet(world_folder / "problems.parquet").head(4)
    table.write_parquet(tmp_path / "problems.parquet")
    run = settings(world_folder, tmp_path / "run", evaluate={"problems": {"few": tmp_path / "problems.parquet"}})
    training = begin(run)
    golds = [gold.replace("(", "( ").replace(",", " ,").replace(")", " )") for gold in table["gold"]]
    answers = Answers(load_tokenizer(world_folder / "tokenizer"), golds)
    evaluation = Evaluation(training, answers)
    log = RunLog(tmp_path / "run", LogSettings(), 0, {})

    def after(step, right):
        answers.right = right
        with torch.no_grad():
            next(training.model.parameters()).fill_(step)
        return evaluation.run(step, log)["evaluate/few/accuracy"]

    assert [after(step, right) for step, right in [(2, 1), (4, 3), (6, 2), (8, 3)]] == [0.25, 0.75, 0.5, 0.75]
    assert evaluation.best == Best("few", 0.75, 4)
    with safe_open(tmp_path / "run" / "best" / "model.safetensors", "pt") as weights:
        assert weights.get_tensor("model.embed_tokens.weight").unique().tolist() == [4.0]
    again = Evaluation(replace(training, state=LoopState(8, evaluation.values())), answers)
    assert again.best == evaluation.best
    other = replace(training, state=LoopState(8, {"best": {"problems": "others", "accuracy": 1.0, "step": 1}}))
    assert Evaluation(other, answers).best is None  # accuracies of other problems are not comparable


def test_a_resumed_run_keeps_its_best_model(world_folder, tmp_path):
    for steps in (2, 5):
        train(settings(world_folder, tmp_path / "parts", steps=steps))
    train(settings(world_folder, tmp_path / "whole", steps=5))
    for name in ("best", "final"):
        files = [tmp_path / run / name / "model.safetensors" for run in ("parts", "whole")]
        assert files[0].read_bytes() == files[1].read_bytes()


@pytest.mark.parametrize(
    ("evaluate", "message"),
    [
        ({"problems": {}}, "name problems too"),
        ({"best": "other"}, "expected one of held_out"),
        ({"samples": 4}, "all samples are alike"),
    ],
)
def test_settings_that_cannot_be_evaluated_are_refused(world_folder, tmp_path, evaluate, message):
    with pytest.raises(SettingsError, match=message):
        settings(world_folder, tmp_path / "run", evaluate=evaluate)


def test_wandb_gets_metrics_and_a_table_of_samples_offline(world_folder, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    train(settings(world_folder, tmp_path / "run", log={"trackers": ("wandb",), "tracker_samples": 3}))
    (folder,) = tmp_path.glob("wandb/offline-run-*")
    tables = list(folder.glob("files/media/table/**/*.json"))
    assert {path.parent.name for path in tables} | {path.name.split("_")[0] for path in tables} >= {"rollouts"}
    rows = [json.loads(path.read_text()) for path in tables]
    assert all(len(table["data"]) <= 3 and table["columns"][:2] == ["problem", "response"] for table in rows)
    assert any("held_out" in str(path) for path in tables)


def test_trackio_gets_metrics_and_a_table_of_samples_offline(world_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when trackio is imported
    pytest.importorskip("trackio")
    train(settings(world_folder, tmp_path / "run", log={"trackers": ("trackio",), "tracker_samples": 3}))
    written = b"".join(path.read_bytes() for path in (tmp_path / "trackio").rglob("*.db*"))
    assert b"reward_on_policy" in written
    assert b"evaluate/held_out" in written
    assert b"rollouts" in written


# The dtype of model folders


@pytest.fixture
def bfloat16_base(world_folder, tmp_path):
    tokenizer = load_tokenizer(world_folder / "tokenizer")
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48,
        max_position_embeddings=128, tie_word_embeddings=True,
    )  # fmt: skip
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return tmp_path / "base"


def dtypes(folder):
    with safe_open(folder / "model.safetensors", "pt") as weights:
        return {name: weights.get_tensor(name).dtype for name in weights.keys()}  # noqa: SIM118


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_run_leaves_a_model_in_the_dtype_of_its_base(world_folder, tmp_path, bfloat16_base, lora):
    if lora is not None:
        pytest.importorskip("peft")
    run = settings(world_folder, tmp_path / "run", "sft", new_model=None, model=str(bfloat16_base), lora=lora, steps=2)
    final = train(run)
    assert set(dtypes(final).values()) == {torch.bfloat16}
    assert set(dtypes(tmp_path / "run" / "best").values()) == {torch.bfloat16}
    assert "lm_head.weight" not in dtypes(final)  # tied: written once
    assert json.loads((final / "config.json").read_text())["dtype"] == "bfloat16"
    loaded = LlamaForCausalLM.from_pretrained(final)
    assert loaded.dtype == torch.bfloat16
    if lora is None:  # checkpoints keep what the optimizer works on
        assert set(dtypes(tmp_path / "run" / "checkpoints" / "step-000002").values()) == {torch.float32}
    assert finished(run)
    assert os.path.getsize(final / "model.safetensors") < 1.1 * os.path.getsize(bfloat16_base / "model.safetensors")


def test_the_dtype_can_be_chosen_and_stages_remember_their_base(world_folder, tmp_path, bfloat16_base):
    run = settings(
        world_folder, tmp_path / "run", "sft", new_model=None, model=str(bfloat16_base), steps=1, final_dtype="float32"
    )
    final = train(run)
    assert set(dtypes(final).values()) == {torch.float32}
    after = settings(world_folder, tmp_path / "after", "sft", new_model=None, model=str(final), steps=1)
    assert base_dtype(after) == torch.bfloat16
    assert set(dtypes(train(after)).values()) == {torch.bfloat16}
