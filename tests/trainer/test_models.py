import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, Gemma2Config, Qwen2Config

from trainer.loops.optimization import DivergedError, apply_update, learning_rate, make_optimizer
from trainer.loops.run_log import RunLog
from trainer.modeling.attention import ROWS
from trainer.modeling.models import ModelError, TokenScorer, load_model, load_tokenizer, with_own_kernels
from trainer.settings import LogSettings, OptimizerSettings

SIZES = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 32,
    "pad_token_id": 0,
}
CONFIGS = [Qwen2Config(**SIZES), Gemma2Config(**SIZES, final_logit_softcapping=2.0)]


@pytest.mark.parametrize("config", CONFIGS, ids=["plain head", "capped logits"])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_scores_are_the_models_own_log_softmax(config, temperature):
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    scorer = TokenScorer(model, temperature)
    assert scorer.plain_head == isinstance(config, Qwen2Config)
    ids = torch.randint(1, 31, (3, 9))
    scored = torch.rand(3, 9) < 0.5
    scored[:, 0] = False
    log_prob, entropy = scorer(ids, scored)
    wanted = torch.log_softmax(model(input_ids=ids).logits / temperature, -1)[:, :-1]
    picked = wanted.gather(-1, ids[:, 1:, None]).squeeze(-1)
    torch.testing.assert_close(log_prob[:, 1:], torch.where(scored[:, 1:], picked, 0.0), rtol=1e-4, atol=1e-5)
    spread = -(wanted.exp() * wanted).sum(-1)
    torch.testing.assert_close(entropy[:, 1:], torch.where(scored[:, 1:], spread, 0.0), rtol=1e-4, atol=1e-5)


def test_our_kernels_leave_no_trace_in_a_saved_model(tmp_path):
    torch.manual_seed(0)
    model = with_own_kernels(AutoModelForCausalLM.from_config(CONFIGS[0])).eval()
    assert model.config._attn_implementation == ROWS
    model.save_pretrained(tmp_path)
    assert ROWS not in (tmp_path / "config.json").read_text()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
    assert plain.config._attn_implementation == "sdpa"
    ids = torch.randint(1, 31, (2, 7))
    torch.testing.assert_close(model(input_ids=ids).logits, plain(input_ids=ids).logits)


def test_weights_that_are_not_safetensors_are_refused(tmp_path):
    CONFIGS[0].save_pretrained(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelError, match="safetensors"):
        load_model(tmp_path)


@pytest.mark.parametrize("name", ["/no/such/folder", "runs/no-such/final", "./no-such"])
def test_a_path_that_is_not_there_is_told_as_one(name):
    with pytest.raises(ModelError, match=f"{name} does not exist"):
        load_tokenizer(name)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_gradient_that_is_no_number_stops_the_run_and_leaves_the_weights(poison):
    model = nn.Linear(2, 2)
    before = model.weight.detach().clone()
    optimizer = make_optimizer(model, OptimizerSettings(lr=1.0))
    (model(torch.ones(1, 2)).sum() * poison).backward()
    with pytest.raises(DivergedError, match="step 7"):
        apply_update(optimizer, 1.0, 1.0, 7)
    assert torch.equal(model.weight, before)


def test_the_learning_rate_warms_up_and_falls_along_its_schedule():
    cosine = OptimizerSettings(lr=1.0, schedule="cosine", warmup_steps=3, final_lr_ratio=0.1)
    rates = [learning_rate(step, 103, cosine) for step in range(103)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[53] == pytest.approx(0.55)
    assert rates[-1] == pytest.approx(0.1, abs=1e-3)
    linear = OptimizerSettings(lr=2.0, schedule="linear")
    assert [learning_rate(step, 4, linear) for step in range(4)] == [2.0, 1.5, 1.0, 0.5]


def test_metrics_of_steps_after_the_checkpoint_are_written_anew(tmp_path):
    def write(start, stop, value):
        log = RunLog(tmp_path, LogSettings(), start, {})
        for step in range(start + 1, stop + 1):
            log.write(step, {"loss": value, "kl": None if step < 4 else 0.5})
        log.close()

    write(0, 5, 1.0)
    write(3, 6, 2.0)  # a run killed after step 5 goes on from its checkpoint at 3
    import polars as pl

    table = pl.read_parquet(tmp_path / "metrics.parquet")
    assert table["step"].to_list() == [1, 2, 3, 4, 5, 6]
    assert table["loss"].to_list() == [1.0, 1.0, 1.0, 2.0, 2.0, 2.0]
    assert table["kl"].to_list() == [None, None, None, 0.5, 0.5, 0.5]


def test_an_accelerate_tracker_gets_the_numbers_and_an_unknown_one_is_told(tmp_path):
    log = RunLog(tmp_path, LogSettings(trackers=("tensorboard",)), 0, {"method": "sft"})
    log.write(1, {"loss": 1.0})
    log.close()
    assert list((tmp_path / "tracekit").rglob("events*"))
    with pytest.raises(ValueError, match="wandbb"):
        RunLog(tmp_path, LogSettings(trackers=("wandbb",)), 0, {})


def test_sharding_that_does_not_happen_is_told(world_folder, tmp_path):
    from test_supervised import settings_for

    from trainer.train import train

    with pytest.raises(ValueError, match=r"parallel\.fsdp"):
        train(settings_for(world_folder, tmp_path, parallel={"fsdp": True}))


def test_a_run_that_shards_where_there_are_several_processes_runs_in_one(world_folder, tmp_path):
    from test_supervised import settings_for

    from trainer.train import train

    assert train(settings_for(world_folder, tmp_path, parallel={"fsdp": "auto"})).is_dir()
