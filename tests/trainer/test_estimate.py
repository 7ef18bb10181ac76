"""Hours and memory by formula, against numbers worked by hand and against what a pass really keeps."""

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from tracekit.core.recipes import find_recipe
from tracekit.core.settings import build_settings, load_settings
from trainer.planning.estimate import Hardware, Workload, estimate, layer_bytes, shape_of
from trainer.settings import TrainSettings

NAMES = {"bos_token_id": None, "eos_token_id": None}
QWEN_7B = Qwen2Config(
    vocab_size=152_064, hidden_size=3584, num_hidden_layers=28, num_attention_heads=28, num_key_value_heads=4,
    intermediate_size=18_944, tie_word_embeddings=False, **NAMES,
)  # fmt: skip
WORK = Workload(prompt_tokens=200, response_tokens=1000, teacher_tokens=3000, rows=1280)


def recipe(name, *overrides):
    return load_settings(TrainSettings, find_recipe(name, "trainer"), overrides)


def test_the_state_of_a_7b_model_is_16_bytes_a_weight_over_the_devices():
    found = estimate(QWEN_7B, recipe("luffy"), WORK, Hardware())
    assert found.parameters == 7_615_616_512
    state = sum(found.memory[part] for part in ("weights", "gradients", "optimizer"))
    assert state == 16 * found.parameters / 8
    whole = estimate(QWEN_7B, recipe("luffy", "parallel.fsdp=false"), WORK, Hardware())
    assert whole.peak > 16 * found.parameters > Hardware().memory


def test_supervised_hours_are_six_flops_a_weight_and_token_and_two_more_for_checkpointing():
    machine = Hardware(devices=4, peak_flops=1e15, utilisation=0.5)
    found = estimate(QWEN_7B, recipe("sft"), WORK, machine)
    assert found.steps == 60
    assert set(found.hours) == {"update"}
    tokens = 60 * 64 * 3200
    assert found.tokens_trained == tokens
    body, attention = 6_525_288_448, 4 * 28 * 28 * 128 * 3200 / 2
    head = 152_064 * 3584 * 3000 / 3200
    assert found.flops["update"] == pytest.approx(tokens * 4 * (2 * body + attention + 2 * head), rel=1e-3)
    assert found.hours["update"] == pytest.approx(found.flops["update"] / (4 * 1e15 * 0.5) / 3600)


def test_decoding_reads_the_weights_once_a_step_and_the_cache_of_every_row():
    """One problem a device: 8,192 steps of 15.2 GB, and 7 rows of 1,000 tokens at 57,344 bytes each."""
    machine = Hardware(devices=128, bandwidth=2e12, bandwidth_utilisation=1.0, step_seconds=0.0)
    found = estimate(QWEN_7B, recipe("luffy", "steps=1"), WORK, machine)
    read = 8192 * 7_615_616_512 * 2 + 7 * 1000 * (200 + 500) * 57_344
    assert found.hours["rollout"] == pytest.approx(read / 2e12 / 3600)
    slower = estimate(QWEN_7B, recipe("luffy", "steps=1"), WORK, machine.model_copy(update={"step_seconds": 0.01}))
    assert slower.hours["rollout"] - found.hours["rollout"] == pytest.approx(81.92 / 3600)


def test_what_costs_more_is_estimated_to_cost_more():
    def hours(name, *overrides, work=WORK):
        return estimate(QWEN_7B, recipe(name, *overrides), work, Hardware()).hours

    luffy = hours("luffy")
    assert hours("rl_sft")["rollout"] > luffy["rollout"], "its teacher row stands beside a whole group"
    assert hours("luffy", "loss.kl=0.1")["log_probs"] > luffy["log_probs"]
    assert hours("luffy", "gradient_checkpointing=false")["update"] < luffy["update"]
    longer = hours("luffy", work=WORK.model_copy(update={"response_tokens": 4000}))
    assert all(longer[stage] > luffy[stage] for stage in ("rollout", "log_probs", "update"))
    assert hours("luffy", work=WORK.model_copy(update={"response_tokens": 1e9}))["update"] < float("inf")


@pytest.mark.parametrize(("hidden", "heads", "kv_heads", "inner"), [(64, 4, 2, 160), (96, 4, 4, 128), (128, 2, 1, 512)])
def test_a_layer_keeps_for_backward_what_the_formula_says(hidden, heads, kv_heads, inner):
    """Every tensor that autograd saves, each storage once; what three layers keep above two is one layer."""

    def kept(layers):
        config = Qwen2Config(
            vocab_size=50, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=kv_heads, intermediate_size=inner, **NAMES,
        )  # fmt: skip
        model = AutoModelForCausalLM.from_config(config).train()
        weights = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        found = {}

        def note(tensor):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in weights:
                found[storage.data_ptr()] = (storage.nbytes(), tensor)  # held, so that no address comes twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            model(input_ids=torch.zeros((2, 100), dtype=torch.long)).logits.sum()
        return sum(size for size, _ in found.values()), config

    larger, config = kept(3)
    measured = (larger - kept(2)[0]) / 200
    settings = build_settings(
        TrainSettings, {"method": "sft", "model": "m", "output": "o", "data": {"curated": "c"}}, "settings"
    )
    assert measured == pytest.approx(layer_bytes(shape_of(config, settings), 4), rel=0.15)
