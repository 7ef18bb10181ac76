import random
import sys
from collections import Counter

import polars as pl
import pytest
import torch

from tracekit.core.tables import CURATED
from trainer.data.sequences import (
    Encoded,
    Row,
    SequenceError,
    collate,
    encode_curated,
    encode_problems,
    encode_text,
    join,
    micro_batches,
    pack,
    preference_pairs,
    until_eos,
    without_padding,
)
from trainer.modeling.models import load_tokenizer
from trainer.settings import DataSettings

PLAIN = DataSettings(chat_template=False)
THINKING = "{% for m in messages %}{{ m['content'] }} {% endfor %}<think>\n"


@pytest.fixture
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<think>", "</think>", "a", "b", "c", "d", "1", "2"]
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<pad>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def curated(responses, problem="a b", log_probs=None, correct=None, problems=None):
    count = len(responses)
    return pl.DataFrame(
        {
            "problem_id": problems or ["p"] * count,
            "trace_id": [f"t{i}" for i in range(count)],
            "problem": [problem] * count,
            "gold": ["1"] * count,
            "response": responses,
            "source": ["s"] * count,
            "split": ["train"] * count,
            "author": ["teacher"] * count,
            "token_count": [None] * count,
            "token_log_probs": log_probs or [None] * count,
            "correct": correct or [True] * count,
        },
        schema=CURATED,
    )


def words(tokenizer, ids):
    return tokenizer.convert_ids_to_tokens(list(ids))


def test_a_row_is_bos_problem_response_and_one_eos(tokenizer):
    (row,) = encode_curated(curated(["c d"]), tokenizer, PLAIN).rows
    assert words(tokenizer, row.token_ids) == ["<bos>", "a", "b", "c", "d", "<eos>"]
    assert (row.prompt_length, row.response_length, row.scored_tokens, row.off_policy) == (3, 3, 3, 3)


def test_an_eos_that_the_trace_carries_is_not_doubled(tokenizer):
    (row,) = encode_curated(curated(["c d <eos>"]), tokenizer, PLAIN).rows
    assert words(tokenizer, row.token_ids)[3:] == ["c", "d", "<eos>"]


@pytest.mark.parametrize(
    ("response", "target"),
    [
        ("<think> c </think> d", ["c", "</think>", "d", "<eos>"]),
        ("<think>\n c </think> d", ["c", "</think>", "d", "<eos>"]),
        ("<think> <think> c </think> d", ["<think>", "c", "</think>", "d", "<eos>"]),  # once, not twice
        ("c </think> d", ["c", "</think>", "d", "<eos>"]),
    ],
)
def test_a_think_that_the_template_prints_is_stripped_from_the_target_exactly_once(tokenizer, response, target):
    tokenizer.chat_template = THINKING
    (row,) = encode_curated(curated([response]), tokenizer, DataSettings()).rows
    assert words(tokenizer, row.token_ids[: row.prompt_length]) == ["a", "b", "<think>"]
    assert words(tokenizer, row.token_ids[row.prompt_length :]) == target


def test_without_a_printed_think_the_target_keeps_its_own(tokenizer):
    tokenizer.chat_template = "{% for m in messages %}{{ m['content'] }} {% endfor %}"
    (row,) = encode_curated(curated(["<think> c </think> d"]), tokenizer, DataSettings()).rows
    assert words(tokenizer, row.token_ids) == ["a", "b", "<think>", "c", "</think>", "d", "<eos>"]


def test_rows_over_a_limit_are_counted_with_the_reason(tokenizer):
    table = curated(["c", "c d c d", "c d"])
    encoded = encode_curated(table, tokenizer, DataSettings(chat_template=False, response_tokens=3))
    assert encoded.origin == [0, 2]
    assert encoded.skipped == {"response over 3 tokens": 1}
    assert encode_problems(["a", "a b c d"], tokenizer, DataSettings(chat_template=False, prompt_tokens=3)).skipped == {
        "prompt over 3 tokens": 1
    }


def test_or_they_are_an_error_that_names_the_row(tokenizer):
    with pytest.raises(SequenceError, match=r"t1.*response over 3 tokens"):
        encode_curated(
            curated(["c", "c d c d"]),
            tokenizer,
            DataSettings(chat_template=False, response_tokens=3, over_long="error"),
        )


def test_recorded_log_probs_must_be_one_a_token(tokenizer):
    table = curated(["c d"] * 4, log_probs=[[-1.0, -2.0], [-1.0, -2.0, -0.5], [-1.0], None])
    encoded = encode_curated(table, tokenizer, PLAIN, recorded=True)
    assert [list(row.recorded_log_probs) for row in encoded.rows] == [[-1.0, -2.0, 0.0], [-1.0, -2.0, -0.5]]
    assert encoded.skipped.total() == 2


def test_documents_get_bos_and_eos_and_are_packed_whole(tokenizer):
    texts = ["a", "a b c", "b", "a b c d a b"]
    plain = encode_text(texts, tokenizer, PLAIN)
    assert [words(tokenizer, row.token_ids)[0] for row in plain.rows] == ["<bos>"] * 4
    packed = encode_text(texts, tokenizer, DataSettings(pack_tokens=8))
    lengths = sorted(len(row.token_ids) for row in packed.rows)
    assert lengths == [8, 8, 3] or sum(lengths) == sum(len(row.token_ids) for row in plain.rows)
    assert max(lengths) <= 8
    assert sum(row.scored_tokens for row in packed.rows) == sum(row.scored_tokens for row in plain.rows)


def test_packing_loses_and_repeats_no_document():
    rng = random.Random(0)
    rows = [Row([i + 1] * rng.randint(2, 30), 0) for i in range(200)]
    encoded = pack(Encoded(rows, list(range(200)), Counter()), 64)
    seen = Counter(token for row in encoded.rows for token in row.token_ids)
    assert seen == Counter(token for row in rows for token in row.token_ids)
    assert max(len(row.token_ids) for row in encoded.rows) <= 64
    full = sum(len(row.token_ids) for row in encoded.rows) / (64 * len(encoded.rows))
    assert full > 0.9


def test_rows_laid_into_padding_score_the_same_tokens():
    rng = random.Random(1)
    rows = [Row(list(range(rng.randint(4, 40))), rng.randint(1, 3)) for _ in range(50)]
    joined = without_padding(rows, 40)
    scored = Counter()
    for part in (collate([row], 0) for row in rows):
        scored.update(part.input_ids[part.completion_mask].tolist())
    found = Counter()
    batch = collate(joined, 0)
    found.update(batch.input_ids[batch.completion_mask].tolist())
    assert found == scored
    assert len(joined) < len(rows)


def test_positions_restart_with_each_document_and_in_the_padding():
    batch = collate([join([Row([5, 6, 7], 1), Row([8, 9], 1)]), Row([1, 2, 3, 4, 5, 6, 7], 2)], pad=0)
    assert batch.position_ids.tolist() == [[0, 1, 2, 0, 1, 0, 1], [0, 1, 2, 3, 4, 5, 6]]
    assert batch.completion_mask.tolist() == [
        [False, True, True, False, True, False, False],
        [False, False, True, True, True, True, True],
    ]


def test_a_batch_places_every_number_over_its_token():
    rows = [
        Row([1, 2, 3, 4], 2, advantage=0.5, old_log_probs=[-1.0, -2.0]),
        Row([1, 2, 3, 4, 5], 2, off_policy=3, advantage=-1.0, recorded_log_probs=[-3.0, -4.0, -5.0]),
    ]
    batch = collate(rows, pad=9)
    assert batch.input_ids.tolist() == [[1, 2, 3, 4, 9], [1, 2, 3, 4, 5]]
    assert batch.completion_mask.tolist() == [[False, False, True, True, False], [False, False, True, True, True]]
    assert batch.off_policy_mask.tolist() == [[False] * 5, [False, False, True, True, True]]
    assert batch.old_log_prob.tolist() == [[0, 0, -1, -2, 0], [0] * 5]
    assert batch.recorded_log_prob.tolist() == [[0] * 5, [0, 0, -3, -4, -5]]
    assert batch.advantage.tolist() == [[0.5], [-1.0]]
    assert batch.position_ids is None


def test_an_on_policy_row_without_old_log_probs_is_no_silent_zero():
    rows = [Row([1, 2, 3], 2, old_log_probs=[-1.0]), Row([1, 2, 3], 2)]
    with pytest.raises(SequenceError, match="old_log_probs"):
        collate(rows, pad=0)


@pytest.mark.parametrize("seed", range(5))
def test_micro_batches_hold_every_row_once_within_the_budget(seed):
    rng = random.Random(seed)
    lengths = [rng.randint(1, 120) for _ in range(77)]
    groups = micro_batches(lengths, budget=100)
    assert sorted(i for group in groups for i in group) == list(range(77))
    for group in groups:
        assert len(group) == 1 or len(group) * max(lengths[i] for i in group) <= 100


def test_pairs_are_right_by_wrong_of_one_problem():
    table = curated(["c"] * 6, correct=[True, False, True, False, True, None], problems=["p", "p", "p", "p", "q", "q"])
    pairs = preference_pairs(table, per_problem=9, seed=0)
    assert sorted(pairs) == [(0, 1), (0, 3), (2, 1), (2, 3)]
    assert preference_pairs(table, per_problem=3, seed=0) == pairs[:3]


def test_until_eos_keeps_the_first_eos_and_nothing_after():
    ids = torch.tensor([[5, 2, 7, 2], [5, 6, 7, 8], [2, 2, 2, 2]])
    assert until_eos(ids, 2).long().tolist() == [[1, 1, 0, 0], [1, 1, 1, 1], [1, 0, 0, 0]]


def test_a_tokenizer_without_eos_is_refused(tokenizer, tmp_path):
    tokenizer.eos_token = None
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="eos_token"):
        load_tokenizer(tmp_path)


def test_rows_of_a_table_take_four_bytes_a_token(tokenizer):
    table = curated(["c d " * 200] * 3000)  # more than are encoded at one time
    encoded = encode_curated(table, tokenizer, PLAIN)
    assert encoded.origin == list(range(3000))
    tokens = sum(len(row.token_ids) for row in encoded.rows)
    assert tokens == 3000 * 404
    assert {row.token_ids.itemsize for row in encoded.rows} == {4}
    assert sum(sys.getsizeof(row.token_ids) for row in encoded.rows) < 4.5 * tokens
    batch = collate(encoded.rows[:2], 0)
    assert batch.input_ids[0].tolist() == list(encoded.rows[0].token_ids)
    assert batch.input_ids.dtype == torch.int64
