"""A prompt computed once for its rows gives the numbers and gradients of separate rows."""

import random
from dataclasses import replace

import pytest
import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from trainer.data import shared_prompts
from trainer.data.sequences import Row, collate
from trainer.data.shared_prompts import by_prompt, can_share, score_shared, shared_micro_batches
from trainer.modeling.models import TokenScorer, with_own_kernels

SIZES = {"vocab_size": 40, "max_position_embeddings": 64, "bos_token_id": None, "eos_token_id": None}
SMALL = {**SIZES, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def llama():
    return LlamaForCausalLM(LlamaConfig(**SMALL))


def qwen():
    return Qwen2ForCausalLM(Qwen2Config(**SMALL, num_key_value_heads=2))


def gpt2():
    return GPT2LMHeadModel(
        GPT2Config(**SIZES, n_embd=32, n_layer=2, n_head=4, resid_pdrop=0, attn_pdrop=0, embd_pdrop=0)
    )


def scorer_of(make):
    torch.manual_seed(1)
    return TokenScorer(with_own_kernels(make()), temperature=0.8)


def rows_of(groups):
    """Rows of one prompt next to each other, of unlike lengths."""
    rng, rows = random.Random(2), []
    for prompt_length, lengths in groups:
        prompt = [rng.randrange(40) for _ in range(prompt_length)]
        rows += [Row([*prompt, *(rng.randrange(40) for _ in range(n))], prompt_length) for n in lengths]
    return rows


@pytest.mark.parametrize("make", [llama, qwen, gpt2])
def test_log_probs_entropies_and_gradients_are_those_of_separate_rows(make):
    scorer, rows = scorer_of(make), rows_of([(5, [4, 1, 7]), (3, [2]), (6, [3, 3])])
    batch = collate(rows, 0)
    direction = torch.randn(batch.input_ids.shape, generator=torch.Generator().manual_seed(3))
    found = []
    for log_prob, entropy in (
        scorer(batch.input_ids, batch.completion_mask),
        score_shared(scorer, rows, batch),
    ):
        scorer.zero_grad()
        (log_prob * direction + 0.3 * entropy * direction).sum().backward()
        found.append((log_prob, entropy, [p.grad.clone() for p in scorer.parameters()]))
    torch.testing.assert_close(found[1][0], found[0][0], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[1][1], found[0][1], rtol=1e-5, atol=1e-5)
    for shared, apart in zip(found[1][2], found[0][2]):
        torch.testing.assert_close(shared, apart, rtol=1e-4, atol=1e-5)
    assert can_share(scorer)


def test_models_whose_attention_is_another_are_left_alone():
    windowed = MistralForCausalLM(MistralConfig(**SMALL, num_key_value_heads=2, sliding_window=6))
    assert not can_share(TokenScorer(with_own_kernels(windowed)))
    eager = LlamaForCausalLM(LlamaConfig(**SMALL, attn_implementation="eager"))
    assert not can_share(TokenScorer(with_own_kernels(eager)))


def test_gradient_checkpointing_computes_the_shared_rows_again():
    rows = rows_of([(5, [4, 1, 7]), (3, [2])])
    batch, gradients = collate(rows, 0), []
    for checkpointing in (False, True):
        scorer = scorer_of(llama).train()
        if checkpointing:
            scorer.model.gradient_checkpointing_enable()
        score_shared(scorer, rows, batch)[0].sum().backward()
        gradients.append([parameter.grad for parameter in scorer.parameters()])
    for plain, again in zip(*gradients):
        torch.testing.assert_close(again, plain)


def test_rows_share_their_prompt_where_that_saves_a_tenth_of_the_tokens():
    short = rows_of([(24, [10] * 8)] * 3)
    micro = shared_micro_batches(short, budget=600)
    assert [sorted(rows) for rows in micro] == [list(range(16)), list(range(16, 24))]  # 16 rows of 34 tokens
    assert shared_micro_batches(rows_of([(24, [4000] * 8)]), budget=10**6) is None
    assert shared_micro_batches(rows_of([(24, [10])] * 8), budget=10**6) is None  # nobody to share with
    assert shared_micro_batches([], budget=10**6) is None


def test_micro_batches_hold_the_longest_rows_first_and_padding_counts():
    rows = rows_of([(20, [2, 2]), (20, [30, 4]), (20, [6, 6])])
    assert shared_micro_batches(rows, budget=100) == [[2, 3], [4, 5], [0, 1]]
    assert shared_micro_batches(rows, budget=200) == [[2, 3, 4, 5], [0, 1]]


def test_a_group_over_the_budget_is_split():
    rows = rows_of([(24, [10] * 8)])
    micro = shared_micro_batches(rows, budget=3 * 34)
    assert sorted(map(len, micro)) == [2, 3, 3]


def test_parts_of_a_split_group_do_not_meet_again_around_another_prompt(monkeypatch):
    monkeypatch.setattr(shared_prompts, "LEAST_SAVING", -10.0)
    rows = rows_of([(2, [10, 10, 88, 8]), (3, [8, 8])])
    for micro in shared_micro_batches(rows, budget=100):
        chosen = [rows[number] for number in micro]
        assert [place for group in by_prompt(chosen) for place in group] == list(range(len(chosen)))


def test_rows_apart_of_one_prompt_are_refused():
    rows = rows_of([(3, [2, 2]), (4, [2])])
    mixed = [rows[0], rows[2], rows[1]]
    with pytest.raises(AssertionError, match="stand together"):
        score_shared(scorer_of(llama), mixed, collate(mixed, 0))


def test_off_policy_rows_are_grouped_with_their_prompts_others():
    rows = rows_of([(3, [2, 4])])
    assert by_prompt([replace(rows[0], off_policy=2), rows[1]]) == [[0, 1]]
