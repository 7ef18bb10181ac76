import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from tracekit.core.runs import RunError
from tracekit.core.settings import build_settings
from tracekit.core.tables import CURATED, read_table
from trainer.data.sequences import collate, encode_curated, encode_text, join
from trainer.loops.checkpoint import checkpoints, newest_checkpoint
from trainer.loops.supervised import Totals, language_objective, rows_of_step
from trainer.modeling.models import ModelError, TokenScorer, load_tokenizer
from trainer.settings import TrainSettings
from trainer.train import train

ROOT = Path(__file__).parents[2]


def settings_for(world_folder, output, **changes):
    tree = {
        "method": "pretrain",
        "output": str(output),
        "new_model": {"tokenizer": str(world_folder / "tokenizer"), "hidden_size": 32, "layers": 2, "heads": 2},
        "data": {"text": str(world_folder / "text.parquet")},
        "batch": {"rows": 16, "micro_tokens": 256},
        "optimizer": {"lr": 3e-3, "schedule": "cosine"},
        "checkpoint": {"every": 4},
        "threads": 1,
        "device": "cpu",
        "steps": 12,
    }
    return build_settings(TrainSettings, {**tree, **changes}, "test")


def from_model(world_folder, model, output, method, **changes):
    data = {"curated": str(world_folder / "curated.parquet")}
    return settings_for(world_folder, output, method=method, new_model=None, model=str(model), data=data, **changes)


@pytest.fixture(scope="module")
def base(world_folder, tmp_path_factory):
    return train(settings_for(world_folder, tmp_path_factory.mktemp("base") / "run", steps=30))


def weights(folder):
    return load_file(folder / "model.safetensors")


def metrics(folder):
    return pl.read_parquet(folder / "metrics.parquet")


def test_a_run_is_a_folder_and_ends_with_a_model_anyone_can_load(base):
    run = base.parent
    assert json.loads((run / "run.json").read_text())["settings"]["method"] == "pretrain"
    assert list((run / "tensorboard").iterdir())
    table = metrics(run)
    assert table["step"].to_list() == list(range(1, 31))
    assert table["loss"][-1] < table["loss"][0] - 0.5  # it learns
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base)
    assert tokenizer("1 A ×2 ?")["input_ids"] == load_tokenizer(base)("1 A ×2 ?")["input_ids"]
    assert model.config.vocab_size == len(tokenizer)


def test_the_loss_is_the_models_own(base, world_folder):
    """The first step's loss of continued pre-training is the mean over tokens that transformers computes."""
    tokenizer, model = load_tokenizer(base), AutoModelForCausalLM.from_pretrained(base)
    texts = pl.read_parquet(world_folder / "text.parquet")["text"].to_list()
    settings = settings_for(world_folder, "unused")
    rows = encode_text(texts, tokenizer, settings.data).rows[:16]
    total, tokens = 0.0, 0
    for row in rows:
        ids = torch.tensor([row.token_ids])
        total += model(input_ids=ids, labels=ids).loss.item() * (ids.shape[1] - 1)
        tokens += ids.shape[1] - 1
    for batch in (collate(rows, 0), collate([join(rows[:8]), join(rows[8:])], 0)):
        log_prob, entropy = TokenScorer(model)(batch.input_ids, batch.completion_mask, batch.position_ids)
        loss, _ = language_objective(batch, log_prob, entropy, Totals(16, tokens))
        assert loss.item() == pytest.approx(total / tokens, rel=1e-5)


def test_micro_batches_and_packing_do_not_change_the_result(world_folder, tmp_path):
    finals = [
        weights(train(settings_for(world_folder, tmp_path / name, steps=2, batch={"rows": 16, "micro_tokens": tokens})))
        for name, tokens in (("whole", 1 << 20), ("split", 80))
    ]
    for name, tensor in finals[0].items():
        torch.testing.assert_close(tensor, finals[1][name], rtol=1e-3, atol=2e-5)


def run_in_background(settings, environment=None):
    code = (
        "import sys, json\n"
        "from tracekit.core.settings import build_settings\n"
        "from trainer.settings import TrainSettings\n"
        "from trainer.train import train\n"
        "train(build_settings(TrainSettings, json.loads(sys.argv[1]), 'test'))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, settings.model_dump_json(exclude_none=True)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})},
        stderr=subprocess.DEVNULL,
    )


def test_a_run_killed_and_started_again_ends_with_the_same_bytes(world_folder, tmp_path):
    whole = train(settings_for(world_folder, tmp_path / "whole", steps=60))
    settings = settings_for(world_folder, tmp_path / "killed", steps=60)
    process = run_in_background(settings)
    deadline = time.monotonic() + 120
    while not checkpoints(settings.output / "checkpoints"):
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (settings.output / "final").exists()
    resumed_from = newest_checkpoint(settings.output / "checkpoints")
    assert resumed_from is not None
    final = train(settings)
    assert (final / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    kept = ["step", "loss", "gradient_norm", "learning_rate"]
    assert metrics(final.parent).select(kept).equals(metrics(whole.parent).select(kept))


def test_a_damaged_checkpoint_is_skipped_with_a_warning_and_the_result_is_the_same(world_folder, tmp_path):
    whole = train(settings_for(world_folder, tmp_path / "whole"))
    settings = settings_for(world_folder, tmp_path / "damaged")
    final = train(settings)
    newest = checkpoints(settings.output / "checkpoints")[-1]
    data = bytearray((newest / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (newest / "model.safetensors").write_bytes(data)
    (final / "model.safetensors").write_bytes(b"cut")
    with pytest.warns(UserWarning, match="damaged"):
        final = train(settings)
    assert (final / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


def test_a_finished_run_is_returned_and_another_recipe_is_refused(base, world_folder):
    modified = (base / "model.safetensors").stat().st_mtime_ns
    assert train(settings_for(world_folder, base.parent, steps=30)) == base
    assert (base / "model.safetensors").stat().st_mtime_ns == modified
    with pytest.raises(RunError, match="steps"):
        train(settings_for(world_folder, base.parent, steps=31))


def test_sft_clones_right_rows_alone(base, world_folder, tmp_path):
    final = train(from_model(world_folder, base, tmp_path / "sft", "sft", epochs=8, steps=None))
    table = metrics(final.parent)
    assert table["loss"][-1] < table["loss"][0] - 0.3
    tokenizer = load_tokenizer(base)
    curated = read_table(world_folder / "curated.parquet", CURATED)
    settings = from_model(world_folder, base, tmp_path / "sft", "sft")
    right = encode_curated(curated.filter(pl.col("correct")), tokenizer, settings.data).rows
    assert table["tokens"].sum() == pytest.approx(8 * sum(len(row.token_ids) for row in right), rel=0.1)


def test_dpo_moves_right_traces_above_wrong_ones(base, world_folder, tmp_path):
    final = train(from_model(world_folder, base, tmp_path / "dpo", "dpo", steps=15))
    table = metrics(final.parent)
    assert table["loss"][0] == pytest.approx(0.6931, abs=1e-3)  # the policy is the reference: −log σ(0)
    assert table["loss"][-1] < 0.6
    assert table["preferred_pairs"][-1] > 0.8


def test_lora_trains_adapters_and_its_final_folder_is_merged(base, world_folder, tmp_path):
    pytest.importorskip("peft")
    lora = {"rank": 4, "alpha": 8}
    settings = from_model(world_folder, base, tmp_path / "lora", "sft", lora=lora, steps=8)
    final = train(settings)
    assert (checkpoints(settings.output / "checkpoints")[-1] / "adapter_model.safetensors").exists()
    before, after = weights(base), weights(final)
    assert before.keys() == after.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all("proj" in name for name in changed)
    for path in checkpoints(settings.output / "checkpoints")[1:]:  # resume from the adapters alone
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    (final / "model.safetensors").unlink()
    with pytest.warns(UserWarning, match="damaged"):
        again = weights(train(settings))
    assert all(torch.equal(after[name], again[name]) for name in after)


def test_bfloat16_and_gradient_checkpointing_stay_near_the_plain_run(base, world_folder, tmp_path):
    plain = metrics(train(from_model(world_folder, base, tmp_path / "a", "sft", steps=5)).parent)
    saved = metrics(
        train(from_model(world_folder, base, tmp_path / "b", "sft", steps=5, gradient_checkpointing=True)).parent
    )
    half = metrics(train(from_model(world_folder, base, tmp_path / "c", "sft", steps=5, dtype="bfloat16")).parent)
    assert saved["loss"].to_list() == pytest.approx(plain["loss"].to_list(), rel=1e-5)
    assert half["loss"].to_list() == pytest.approx(plain["loss"].to_list(), rel=2e-2)


def test_stages_run_one_after_another(base, world_folder, tmp_path):
    changes = {"stages": ({"method": "sft", "steps": 2}, {"method": "dpo", "steps": 2})}
    final = train(from_model(world_folder, base, tmp_path / "run", "sft", **changes))
    assert final == tmp_path / "run" / "2_dpo" / "final"
    assert (tmp_path / "run" / "1_sft" / "final" / "model.safetensors").exists()


def test_a_tokenizer_of_another_model_is_told(base, world_folder, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base)
    tokenizer = load_tokenizer(base)
    tokenizer.add_tokens(["new"])
    model.save_pretrained(tmp_path / "odd")
    tokenizer.save_pretrained(tmp_path / "odd")
    with pytest.raises(ModelError, match="not the model's"):
        train(from_model(world_folder, tmp_path / "odd", tmp_path / "run", "sft"))


def test_an_epoch_visits_every_row_once_and_the_next_in_another_order():
    first = [row for step in range(5) for row in rows_of_step(step, 4, 20, seed=1)]
    second = [row for step in range(5, 10) for row in rows_of_step(step, 4, 20, seed=1)]
    assert sorted(first) == sorted(second) == list(range(20))
    assert first != second
    assert first == [row for step in range(10) for row in rows_of_step(step, 2, 20, seed=1)]
