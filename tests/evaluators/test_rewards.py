"""Rewards in the trainers' call shapes; TRL's and lm-evaluation-harness's own code calls them here."""

import inspect
import math
import warnings

import pytest

from evaluators.batch import UnparsedGoldWarning
from evaluators.rewards import (
    UnparsedGold,
    accuracy_reward,
    combined_reward,
    compute_score,
    format_reward,
    length_reward,
    mean_of_known,
    number_of,
    process_results,
    repeated_share,
    repetition_reward,
    reward_func,
    reward_of,
    rubric_accuracy,
    text_of,
)
from evaluators.verdict import Outcome, Verdict

UNREADABLE = "\\frac{"


def conversation(text):
    return [{"role": "assistant", "content": text}]


def verdict(outcome):
    return Verdict(Outcome(outcome), "1", "2", "test", "because")


@pytest.mark.parametrize(
    ("outcome", "reward"),
    [
        ("correct", 1.0),
        ("wrong", 0.0),
        ("no_answer", 0.0),
        ("unparsed_prediction", 0.0),
        ("unparsed_gold", None),
        ("timeout", None),
    ],
)
def test_not_knowing_is_none_and_never_zero(outcome, reward):
    assert reward_of(verdict(outcome)) == reward


def test_where_only_numbers_count_an_unreadable_gold_is_an_error_and_a_timeout_a_warning(caplog):
    with pytest.raises(UnparsedGold, match="cannot be read"):
        number_of(verdict("unparsed_gold"), "raise")
    assert number_of(verdict("unparsed_gold")) == 0.0
    assert number_of(verdict("timeout")) == 0.0
    assert "timed out" in caplog.text


def test_plain_and_conversational_completions_score_alike():
    golds = ["72", "72", "72"]
    texts = ["\\boxed{72}", "\\boxed{71}", "I do not know"]
    assert accuracy_reward(["q"] * 3, texts, solution=golds) == [1.0, 0.0, 0.0]
    assert accuracy_reward(["q"] * 3, [conversation(text) for text in texts], solution=golds) == [1.0, 0.0, 0.0]


def test_the_last_assistant_message_is_the_response():
    said = [
        {"role": "assistant", "content": "\\boxed{1}"},
        {"role": "tool", "content": "72"},
        {"role": "assistant", "content": [{"type": "text", "text": "\\boxed{72}"}]},
    ]
    assert text_of(said) == "\\boxed{72}"
    assert text_of([]) == ""
    assert text_of([{"role": "assistant", "content": None}]) == ""
    with pytest.raises(ValueError, match="int"):
        text_of(72)


def test_an_unreadable_gold_is_none_for_trl_and_said_with_its_row():
    with pytest.warns(UnparsedGoldWarning, match="row 1"):
        rewards = accuracy_reward(["q"] * 2, ["\\boxed{72}"] * 2, solution=["72", UNREADABLE])
    assert rewards == [1.0, None]


def test_the_gold_may_be_a_worked_solution():
    assert accuracy_reward(["q"], ["\\boxed{72}"], solution=["48 + 24 = 72.\n#### 72"]) == [1.0]
    assert accuracy_reward(["q"], ["\\boxed{72}"], solution=["Then $x = \\boxed{72}$ follows."]) == [1.0]


@pytest.mark.parametrize(
    ("text", "reward"),
    [
        ("<think>so</think>72", 1.0),
        ("so</think>\n72", 1.0),  # the template opened the block
        ("\n<think>\nso\n</think>\n\n72\n", 1.0),
        ("72", 0.0),
        ("<think>so</think>", 0.0),
        ("<think>so</think>  ", 0.0),
        ("<think>so 72", 0.0),
        ("so <think>so</think>72", 0.0),
        ("<think>so</think>72<think>again</think>", 0.0),
        ("<think><think>so</think>72", 0.0),
        ("<think>so</think></think>72", 0.0),
    ],
)
def test_the_format_is_one_think_block_and_an_answer(text, reward):
    assert format_reward(["q"], [text]) == [reward]


def test_length_falls_linearly_between_its_limits():
    reward = length_reward(soft_limit=10, hard_limit=20)
    ids = [[0] * n for n in (0, 10, 15, 20, 99)]
    assert reward(["q"] * 5, ["x"] * 5, completion_ids=ids) == [0.0, 0.0, -0.5, -1.0, -1.0]
    assert reward(["q"], ["x" * 15]) == [-0.5]
    with pytest.raises(ValueError, match="soft_limit"):
        length_reward(20, 20)


def test_repetition_is_the_share_of_ngrams_that_stood_before():
    assert repeated_share("a b c d", 2) == 0.0
    assert repeated_share("a b a b a b", 2) == pytest.approx(1 - 2 / 5)  # ab ba ab ba ab
    assert repeated_share("a", 2) == 0.0
    assert repetition_reward(words=1)(["q"], ["no no No no"]) == [pytest.approx(-0.75)]
    with pytest.raises(ValueError, match="worst"):
        repetition_reward(worst=1.0)


def test_combined_rewards_are_a_weighted_sum_and_unknown_where_a_part_is():
    reward = combined_reward((accuracy_reward, 1.0), (format_reward, 0.5))
    completions = ["<think>so</think>\\boxed{72}", "\\boxed{72}", "<think>so</think>\\boxed{72}"]
    with pytest.warns(UnparsedGoldWarning):
        assert reward(["q"] * 3, completions, solution=["72", "72", UNREADABLE]) == [1.5, 1.0, None]
    with pytest.raises(ValueError, match="no reward"):
        combined_reward()


def test_verl_has_its_call_shape():
    assert list(inspect.signature(compute_score).parameters)[:4] == [
        "data_source",
        "solution_str",
        "ground_truth",
        "extra_info",
    ]
    assert compute_score("math", "\\boxed{72}", "72") == 1.0
    assert compute_score(data_source="math", solution_str="\\boxed{71}", ground_truth="72", extra_info={"i": 1}) == 0.0
    assert compute_score("math", "\\boxed{72}", UNREADABLE) == 0.0
    with pytest.raises(UnparsedGold):
        compute_score("math", "\\boxed{72}", UNREADABLE, on_unparsed_gold="raise")


def test_openrlhf_has_its_call_shape():
    torch = pytest.importorskip("torch")
    prompts = ["What is 70 + 2? Not \\boxed{71}. ", "And 1 + 1? "]
    queries = [prompts[0] + "\\boxed{72}", prompts[1] + "I do not know"]
    answer = reward_func(queries, prompts, ["72", "2"])
    assert torch.equal(answer["rewards"], torch.tensor([1.0, 0.0]))
    assert torch.equal(answer["scores"], answer["rewards"])


def test_a_verifiers_rubric_function_takes_completion_and_answer():
    assert rubric_accuracy(completion=conversation("\\boxed{72}"), answer="72", prompt="q", state={}) == 1.0
    assert rubric_accuracy(completion="\\boxed{71}", answer="72") == 0.0


def test_a_template_that_opens_the_think_block_shows_in_the_completions():
    question = [{"role": "user", "content": "2 + 2?"}]
    closing = ["2 + 2 = 4</think>\\boxed{4}", "Is it \\boxed{4}? I go on", "No: 5</think>\\boxed{5}", "\\boxed{4}"]
    solution = ["4"] * 4
    assert accuracy_reward([question] * 4, closing, solution=solution) == [1.0, 0.0, 0.0, 0.0]
    stray = ["\\boxed{4}"] * 7 + ["\\boxed{5}</think>"]
    assert accuracy_reward([question] * 8, stray, solution=["4"] * 8)[:7] == [1.0] * 7
    opening = ["<think>4</think>\\boxed{4}", "\\boxed{4}"]
    assert accuracy_reward([question] * 2, opening, solution=["4"] * 2) == [1.0, 1.0]


def test_lm_eval_passes_the_question_and_the_open_think_block():
    doc = {"answer": "11\\sqrt2", "question": "Simplify $\\sqrt{242}$."}
    assert process_results(doc, ["\\boxed{\\sqrt{242}}"])["accuracy"] == 0.0
    assert process_results({"answer": "11\\sqrt2"}, ["\\boxed{\\sqrt{242}}"])["accuracy"] == 1.0
    assert process_results({"answer": "4", "think_open": True}, ["It is \\boxed{4}."])["accuracy"] == 0.0
    assert process_results({"answer": "4"}, ["It is \\boxed{4}."], think_open=True)["accuracy"] == 0.0


def test_lm_eval_gets_accuracy_and_how_much_is_unknown():
    assert process_results({"answer": "72"}, ["\\boxed{72}"]) == {"accuracy": 1.0, "unknown": 0.0}
    assert process_results({"solution": "so \\boxed{72}"}, ["71"]) == {"accuracy": 0.0, "unknown": 0.0}
    with pytest.warns(UnparsedGoldWarning):
        unknown = process_results({"answer": UNREADABLE}, ["71"])
    assert math.isnan(unknown["accuracy"])
    assert mean_of_known([1.0, math.nan, 0.0]) == 0.5
    with pytest.raises(ValueError, match="question"):
        process_results({"question": "?"}, ["71"])


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory):
    """A random two-layer model and a tokenizer of single characters, made here."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {chr(c): c - 29 for c in range(32, 127)}
    raw = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="</s>")
    config = transformers.Qwen2Config(
        vocab_size=128, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=128, pad_token_id=0, eos_token_id=1, bos_token_id=None,
    )  # fmt: skip
    return transformers.Qwen2ForCausalLM(config), tokenizer


def grpo_trainer(tiny_model, folder, rewards, rows):
    trl = pytest.importorskip("trl")
    from datasets import Dataset

    model, tokenizer = tiny_model
    settings = trl.GRPOConfig(
        output_dir=str(folder), per_device_train_batch_size=2, num_generations=2, max_completion_length=4,
        max_steps=1, report_to=[], use_cpu=True, save_strategy="no", bf16=False, disable_tqdm=True,
    )  # fmt: skip
    return trl.GRPOTrainer(
        model, reward_funcs=rewards, args=settings, train_dataset=Dataset.from_list(rows), processing_class=tokenizer
    )


def test_trl_calls_the_rewards_and_reads_none_as_unknown(tiny_model, tmp_path):
    import torch

    rows = [{"prompt": "1+1=", "solution": "2"}] * 4
    trainer = grpo_trainer(tiny_model, tmp_path, [accuracy_reward, format_reward, repetition_reward()], rows)
    inputs = [{"prompt": "q", "solution": gold} for gold in ("72", "72", UNREADABLE)]
    texts = ["\\boxed{72}", "\\boxed{71}", "<think>so</think>\\boxed{72}"]
    with pytest.warns(UnparsedGoldWarning):
        rewards = trainer._calculate_rewards(inputs, ["q"] * 3, texts, [[1, 2]] * 3)
    assert rewards[:2, 0].tolist() == [1.0, 0.0]
    assert torch.isnan(rewards[2, 0])
    assert rewards[:, 1].tolist() == [0.0, 0.0, 1.0]
    assert trainer.reward_func_names == ["accuracy_reward", "format_reward", "repetition_reward"]


def test_trl_takes_a_whole_step_with_them(tiny_model, tmp_path):
    rows = [{"prompt": "1+1=", "solution": "2"}] * 4
    reward = combined_reward((accuracy_reward, 1.0), (length_reward(2, 4), 0.1))
    trainer = grpo_trainer(tiny_model, tmp_path, [accuracy_reward, reward], rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer.train()
    logged = {key: value for entry in trainer.state.log_history for key, value in entry.items()}
    assert 0.0 <= logged["rewards/accuracy_reward/mean"] <= 1.0
    assert sum(logged[f"verifier/{outcome}"] for outcome in Outcome) == pytest.approx(1.0)


def test_lm_evaluation_harness_runs_a_task_with_process_results():
    lm_eval = pytest.importorskip("lm_eval")
    from datasets import Dataset, DatasetDict
    from lm_eval.api.model import LM
    from lm_eval.api.task import ConfigurableTask

    rows = [
        {"question": "70+2?", "answer": "72"},
        {"question": "1+1?", "answer": "2"},
        {"question": "?", "answer": "{"},
    ]

    class Parrot(LM):
        def generate_until(self, requests, disable_tqdm=False):
            return ["The answer is \\boxed{72}." for _ in requests]

        def loglikelihood(self, requests, disable_tqdm=False):
            raise NotImplementedError

        def loglikelihood_rolling(self, requests, disable_tqdm=False):
            raise NotImplementedError

    task = ConfigurableTask(
        config={
            "task": "verified",
            "custom_dataset": lambda **_: DatasetDict({"test": Dataset.from_list(rows)}),
            "test_split": "test",
            "output_type": "generate_until",
            "doc_to_text": "{{question}}",
            "doc_to_target": "{{answer}}",
            "process_results": process_results,
            "metric_list": [
                {"metric": "accuracy", "aggregation": mean_of_known, "higher_is_better": True},
                {"metric": "unknown", "aggregation": "mean", "higher_is_better": False},
            ],
        }
    )
    with pytest.warns(UnparsedGoldWarning):
        results = lm_eval.evaluate(Parrot(), {"verified": task}, bootstrap_iters=0)["results"]["verified"]
    assert results["accuracy,none"] == 0.5
    assert results["unknown,none"] == pytest.approx(1 / 3)


class TestPromptOpenedThinking:
    """A response without an opening tag thinks until the closing one, in every adapter."""

    THINKING = "It is \\boxed{72}."
    PROMPT = "What is 70 + 2?<think>\n"

    def test_trl(self):
        assert accuracy_reward([self.PROMPT], [self.THINKING], solution=["72"]) == [0.0]
        assert accuracy_reward(["q"], [self.THINKING], solution=["72"], think_open=True) == [0.0]
        assert accuracy_reward(["q"], [self.THINKING], solution=["72"]) == [1.0]

    def test_verl(self):
        assert compute_score("d", self.THINKING, "72", {"prompt": self.PROMPT}) == 0.0
        assert compute_score("d", self.THINKING, "72", {"think_open": True}) == 0.0
        assert compute_score("d", self.THINKING, "72", think_open=True) == 0.0
        assert compute_score("d", self.THINKING, "72") == 1.0

    def test_openrlhf(self):
        found = reward_func([self.PROMPT + self.THINKING], [self.PROMPT], ["72"])
        assert found["rewards"].tolist() == [0.0]

    def test_verifiers(self):
        assert rubric_accuracy(self.THINKING, "72", prompt=[{"role": "user", "content": self.PROMPT}]) == 0.0


def test_an_unreadable_gold_ends_no_run_unless_asked_to():
    completions, golds = ["\\boxed{72}", "\\boxed{1}"], [UNREADABLE, "1"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnparsedGoldWarning)
        assert accuracy_reward(None, completions, solution=golds) == [None, 1.0]
        assert accuracy_reward(None, completions, solution=golds, on_unparsed_gold="zero") == [0.0, 1.0]
        with pytest.raises(UnparsedGold):
            accuracy_reward(None, completions, solution=golds, on_unparsed_gold="raise")
    assert rubric_accuracy("\\boxed{72}", UNREADABLE) == 0.0
