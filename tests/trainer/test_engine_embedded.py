"""The embedded engine against `model.generate` and plain forward passes."""

from copy import deepcopy

import pytest
import torch
from transformers import (
    AttentionInterface,
    DeepseekV3Config,
    DeepseekV3ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from trainer.modeling import attention
from trainer.modeling.models import with_own_kernels
from trainer.rollouts.engines import kv_cache
from trainer.rollouts.engines.embedded import EmbeddedEngine, EngineError, waves
from trainer.rollouts.engines.protocol import Sampling
from trainer.rollouts.engines.sampling import invert, keep_top_k, keep_top_p

VOCABULARY = 60
SIZES = {"vocab_size": VOCABULARY, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None}
SMALL = {**SIZES, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL))


def grouped_qwen():
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2))


def sliding_mistral():
    return MistralForCausalLM(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=6))


def gpt2():
    return GPT2LMHeadModel(GPT2Config(**SIZES, n_embd=32, n_layer=2, n_head=4))


MODELS = [llama, grouped_qwen, sliding_mistral, gpt2]


def sharp(make):
    """Random weights with logits far enough apart that rounding never turns a greedy choice."""
    torch.manual_seed(3)
    model = make().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3.0 if parameter.dim() > 1 else 1.0)
    return model


def prompts_of(lengths):
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(2, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def forward_log_probs(model, prompt, completion, temperature=1.0):
    """The slow way: one row, no cache, no padding."""
    logits = model(torch.tensor([[*prompt, *completion]])).logits[0, len(prompt) - 1 : -1]
    return (logits / temperature).log_softmax(-1)


@pytest.mark.parametrize("make", MODELS)
def test_greedy_is_what_generate_gives(make):
    model, prompts, stops = sharp(make), prompts_of([7, 3, 9, 3, 5]), tuple(range(2, 12))
    ours = with_own_kernels(deepcopy(model))
    found = EmbeddedEngine(ours, rows=2).generate(prompts, 1, Sampling(12, stops, temperature=0))
    for prompt, (rollout,) in zip(prompts, found):
        wanted = model.generate(
            torch.tensor([prompt]), do_sample=False, max_new_tokens=12, eos_token_id=list(stops), pad_token_id=0
        )[0, len(prompt) :].tolist()
        assert rollout.token_ids == wanted
        assert rollout.finish_reason == ("stop" if wanted[-1] in stops else "length")


@pytest.mark.parametrize("make", MODELS)
def test_log_probs_are_those_of_a_plain_forward_pass_before_and_after_an_update(make):
    model, prompts = sharp(make), prompts_of([6, 2, 8])
    engine = EmbeddedEngine(with_own_kernels(deepcopy(model)))
    for _ in range(2):
        for prompt, own in zip(prompts, engine.generate(prompts, 3, Sampling(10, (2, 3), seed=1))):
            for rollout in own:
                wanted = forward_log_probs(model, prompt, rollout.token_ids)
                wanted = wanted.gather(-1, torch.tensor(rollout.token_ids)[:, None]).squeeze(-1)
                torch.testing.assert_close(torch.tensor(rollout.log_probs), wanted, atol=1e-5, rtol=0)
        torch.manual_seed(8)
        moved = {name: weight + 0.05 * torch.randn_like(weight) for name, weight in model.state_dict().items()}
        model.load_state_dict(moved)
        engine.load_weights(moved.items())


def test_loaded_weights_sample_as_the_model_they_came_from():
    source, target = sharp(llama), llama()
    prompts, sampling = prompts_of([4, 6]), Sampling(8, (2,), seed=3)
    engine = EmbeddedEngine(target)
    before = engine.generate(prompts, 2, sampling)
    engine.load_weights(source.state_dict().items())
    assert engine.generate(prompts, 2, sampling) == EmbeddedEngine(source).generate(prompts, 2, sampling) != before
    with pytest.raises(EngineError, match="no weight nonsense"):
        engine.load_weights([("nonsense", torch.zeros(1))])


def test_log_probs_are_of_the_distribution_that_was_sampled_from():
    model, (prompt,) = sharp(llama), prompts_of([5])
    sampling = Sampling(6, (), temperature=0.7, top_p=0.8, top_k=5, seed=2)
    for rollout in EmbeddedEngine(model).generate([prompt], 8, sampling)[0]:
        logits = forward_log_probs(model, prompt, rollout.token_ids, temperature=0.7)
        for row, token, log_prob in zip(logits, rollout.token_ids, rollout.log_probs):
            likeliest = row.sort(descending=True).indices[:5]
            kept, mass = [], 0.0
            within = row[likeliest].softmax(-1)
            for place, share in zip(likeliest.tolist(), within.tolist()):
                if mass < 0.8:
                    kept.append(place)
                mass += share
            assert token in kept
            wanted = row[token] - row[kept].logsumexp(-1)
            assert log_prob == pytest.approx(float(wanted), abs=1e-5)


def test_tokens_are_drawn_as_often_as_the_model_says():
    model, (prompt,) = llama().eval(), prompts_of([5])
    with torch.no_grad():
        model.lm_head.weight.mul_(8.0)
    probabilities = forward_log_probs(model, prompt, [0])[0].exp()
    drawn = 6000
    rollouts = EmbeddedEngine(model, rows=1000).generate([prompt], drawn, Sampling(1, (), seed=4))[0]
    counts = torch.bincount(torch.tensor([r.token_ids[0] for r in rollouts]), minlength=VOCABULARY)
    chi_square = float(((counts - drawn * probabilities) ** 2 / (drawn * probabilities)).sum())
    assert chi_square < 105.0  # 59 degrees of freedom: beyond it once in 5,000 times


def test_a_completion_depends_neither_on_the_batch_nor_on_n():
    model, prompts = sharp(llama), prompts_of([3, 8, 5, 5])
    sampling = Sampling(10, tuple(range(2, 20)), seed=6)
    whole = EmbeddedEngine(model, rows=512).generate(prompts, 5, sampling)
    tokens = [[rollout.token_ids for rollout in own] for own in whole]
    for rows in (1, 3, 7):
        found = EmbeddedEngine(model, rows=rows).generate(prompts, 5, sampling)
        assert [[rollout.token_ids for rollout in own] for own in found] == tokens
    fewer = EmbeddedEngine(model).generate(prompts, 2, sampling)
    assert [[rollout.token_ids for rollout in own] for own in fewer] == [own[:2] for own in tokens]


def test_buffers_that_widen_on_the_way_hold_what_was_written(monkeypatch):
    model, prompts, sampling = sharp(llama), prompts_of([3, 8, 5]), Sampling(20, tuple(range(2, 6)), seed=9)
    wide = EmbeddedEngine(model).generate(prompts, 4, sampling)
    monkeypatch.setattr(kv_cache, "LEAST_COLUMNS", 1)
    assert EmbeddedEngine(model).generate(prompts, 4, sampling) == wide


def test_a_stop_token_ends_a_completion_and_stays_in_it():
    model, stops = sharp(llama), tuple(range(2, 30))
    for own in EmbeddedEngine(model).generate(prompts_of([4] * 6), 4, Sampling(9, stops, seed=7)):
        for rollout in own:
            assert not set(rollout.token_ids[:-1]) & set(stops)
            assert len(rollout.log_probs) == len(rollout.token_ids)
            if rollout.finish_reason == "stop":
                assert rollout.token_ids[-1] in stops
            else:
                assert len(rollout.token_ids) == 9


def test_the_model_is_left_as_it_was():
    model = llama().train()
    EmbeddedEngine(model).generate(prompts_of([4]), 1, Sampling(3, ()))
    assert model.training
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_an_empty_prompt_is_an_error():
    with pytest.raises(EngineError, match="prompt 1 is empty"):
        EmbeddedEngine(llama()).generate([[4], []], 1, Sampling(3, ()))


def test_a_model_with_recurrent_layers_is_refused():
    model = llama()
    model.config.layer_types = ["full_attention", "linear_attention"]
    with pytest.raises(EngineError, match="linear_attention"):
        EmbeddedEngine(model)


@pytest.mark.parametrize(("n", "rows"), [(3, 7), (8, 3), (1, 100), (5, 5)])
def test_waves_hold_every_completion_once_within_the_limit(n, rows):
    lengths = [4, 9, 1, 4, 6]
    seen = []
    for numbers, copies, first in waves(lengths, n, rows):
        assert len(numbers) * copies <= rows
        seen += [(number, first + copy) for number in numbers for copy in range(copies)]
    assert sorted(seen) == [(number, copy) for number in range(5) for copy in range(n)]


def test_inverting_takes_the_token_whose_interval_holds_the_number():
    probabilities = torch.tensor([[0.0, 0.25, 0.0, 0.5, 0.25, 0.0]]).repeat(6, 1)
    uniform = torch.tensor([0.0, 0.2499, 0.25, 0.7499, 0.75, 1.0 - 2**-24])
    assert invert(probabilities, uniform).tolist() == [1, 1, 3, 3, 4, 4]


def test_top_k_and_top_p_keep_the_likeliest():
    logits = torch.tensor([[0.1, 0.4, 0.2, 0.3]]).log()
    assert keep_top_k(logits, 2).isfinite().tolist() == [[False, True, False, True]]
    assert keep_top_p(logits, 0.6).isfinite().tolist() == [[False, True, False, True]]
    assert keep_top_p(logits, 0.75).isfinite().tolist() == [[False, True, True, True]]


@pytest.mark.parametrize("make", [llama, grouped_qwen, gpt2])
def test_completions_that_share_their_prompts_cache_are_those_that_hold_it_each(make):
    model, prompts = with_own_kernels(sharp(make)), prompts_of([7, 3, 9, 5])
    sampling = Sampling(20, tuple(range(2, 8)), seed=11)  # rows end early and late: groups of unlike sizes, then none
    sharing, apart = EmbeddedEngine(model), EmbeddedEngine(model)
    apart._shares = False
    for own, other in zip(sharing.generate(prompts, 6, sampling), apart.generate(prompts, 6, sampling)):
        assert [rollout.token_ids for rollout in own] == [rollout.token_ids for rollout in other]
        for mine, wanted in zip(own, other):
            assert mine.log_probs == pytest.approx(wanted.log_probs, abs=1e-5)
    assert sharing._shares


def test_a_window_or_an_attention_of_its_own_shares_no_cache():
    eager = LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="eager"))
    for model in (with_own_kernels(sliding_mistral()), llama(), with_own_kernels(eager)):
        engine = EmbeddedEngine(model)
        engine.generate(prompts_of([4, 6]), 2, Sampling(3, ()))
        assert engine._shares is False


def test_an_attention_that_forgets_the_shared_prompts_is_found_out(monkeypatch):
    model, prompts, sampling = with_own_kernels(sharp(llama)), prompts_of([4, 6]), Sampling(8, (2,), seed=3)
    wanted = EmbeddedEngine(model).generate(prompts, 2, sampling)
    own = attention.rows_attention

    def forgetful(*args, shared_prompts=None, **kwargs):
        return own(*args, **kwargs)

    monkeypatch.setitem(AttentionInterface._global_mapping, attention.ROWS, forgetful)
    engine = EmbeddedEngine(model)
    found = engine.generate(prompts, 2, sampling)
    assert engine._shares is False
    assert [[r.token_ids for r in own] for own in found] == [[r.token_ids for r in own] for own in wanted]


@pytest.mark.parametrize("completions", [1, 3])
def test_values_may_be_narrower_than_keys(completions):
    """DeepSeek's latent attention: heads of 16 for queries and keys, of 8 for values."""
    torch.manual_seed(0)
    config = DeepseekV3Config(
        vocab_size=60, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4,
        intermediate_size=48, moe_intermediate_size=16, n_routed_experts=4, num_experts_per_tok=2, n_group=1,
        topk_group=1, q_lora_rank=16, kv_lora_rank=16, qk_nope_head_dim=8, qk_rope_head_dim=8, v_head_dim=8,
        max_position_embeddings=64,
    )  # fmt: skip
    model = with_own_kernels(DeepseekV3ForCausalLM(config).eval())
    prompts = prompts_of([4, 6])
    for prompt, rows in zip(prompts, EmbeddedEngine(model).generate(prompts, completions, Sampling(8, (2,), seed=3))):
        for row in rows:
            ids = torch.tensor([[*prompt, *row.token_ids]])
            with torch.no_grad():
                log_probs = model(ids).logits[0].log_softmax(-1)
            places = torch.arange(len(prompt) - 1, ids.shape[1] - 1)
            expected = log_probs[places, ids[0, len(prompt) :]]
            assert row.log_probs == pytest.approx(expected.tolist(), abs=1e-5)
