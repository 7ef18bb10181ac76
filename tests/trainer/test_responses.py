"""Where responses begin and end: opened think blocks, ends of turn, special tokens in the text that is verified."""

import itertools

import polars as pl
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from tracekit.core.prompts import decode_responses, stop_ids, turn_end
from tracekit.core.tables import CURATED, PROBLEMS
from trainer.data.problems import load_problems
from trainer.data.sequences import encode_curated
from trainer.evaluate import EvaluateSettings, evaluate_model
from trainer.modeling.models import load_tokenizer
from trainer.rollouts.engines.embedded import EmbeddedEngine
from trainer.rollouts.engines.protocol import Rollout
from trainer.rollouts.rollout import GroupSampler
from trainer.settings import DataSettings, ModelChanges, TrainSettings
from trainer.train import train

#: Text (of the issue) that was cut off at its limit while thinking, and the same thought closed.
CUT = "4+5 gives \\boxed{9}. Wait, maybe I should check"
CLOSED = "4+5 gives \\boxed{9}.</think>The answer is \\boxed{9}."
GEMMA = (
    "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def letters(special, **tokens):
    """A tokenizer of one id a byte, with special tokens of its own."""
    vocabulary = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    made = Tokenizer(BPE(vocabulary, []))
    made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=made, **tokens)
    fast.add_special_tokens({"additional_special_tokens": list(special)})
    return fast


def write_model(folder, tokenizer, ends=None):
    torch.manual_seed(0)
    model = Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(folder)
    if ends is not None:
        GenerationConfig(eos_token_id=ends).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def qwen(tmp_path_factory):
    tokenizer = letters(("<|im_start|>", "<|im_end|>"), eos_token="<|endoftext|>", pad_token="<|endoftext|>")
    return write_model(tmp_path_factory.mktemp("qwen"), tokenizer)


@pytest.fixture
def tables(tmp_path):
    row = {"problem_id": "p", "problem": "4+5?", "gold": "9", "source": "", "split": "train"}
    pl.DataFrame([dict.fromkeys(PROBLEMS) | row], schema=PROBLEMS).write_parquet(tmp_path / "problems.parquet")
    rows = [{"trace_id": f"t{i}", "response": text} for i, text in enumerate((CUT, f"<think>\n{CLOSED}"))]
    shared = {"problem_id": "p", "problem": "4+5?", "gold": "9", "correct": True, "token_count": 1}
    frame = pl.DataFrame([dict.fromkeys(CURATED) | shared | row for row in rows], schema=CURATED)
    frame.write_parquet(tmp_path / "curated.parquet")
    return tmp_path


def luffy(qwen, tables):
    return TrainSettings(
        method="luffy",
        model=str(qwen),
        model_changes=ModelChanges(chat_template="luffy"),
        output=tables / "run",
        data=DataSettings(problems=tables / "problems.parquet", curated=tables / "curated.parquet", prompt_tokens=2000),
        rollout={"prompts": 1, "mini_batch_prompts": 1, "group_size": 5},
    )


class Scripted:
    """An engine that answers with these texts in turn."""

    exact = live = True

    def __init__(self, tokenizer, texts):
        self.tokenizer, self.texts = tokenizer, texts

    def generate(self, prompts, n, sampling):
        source = itertools.cycle(self.texts)
        ids = [[self.tokenizer(next(source))["input_ids"] for _ in range(n)] for _ in prompts]
        return [[Rollout(row, [-0.5] * len(row), "length") for row in own] for own in ids]


def test_a_response_cut_off_while_thinking_earns_nothing_under_the_shipped_template(qwen, tables):
    settings = luffy(qwen, tables)
    tokenizer = load_tokenizer(qwen, changes=settings.model_changes)
    problems, _ = load_problems(settings, tokenizer)
    sampler = GroupSampler(settings, tokenizer, Scripted(tokenizer, [CUT, CLOSED]), problems)
    (group,) = sampler.roll_out(0, 1, itertools.repeat(0), {}).groups
    teacher, *own = group.samples
    assert [sample.reward for sample in own] == [0.0, 1.0, 0.0, 1.0]
    assert teacher.response == f"<think>\n{CLOSED}", "the trace without an end of its thought is no right trace"
    assert teacher.reward == 1.0


def test_and_counts_as_no_answer_in_an_evaluation(qwen, tables, monkeypatch):
    tokenizer = load_tokenizer(qwen, changes=ModelChanges(chat_template="luffy"))
    folder = write_model(tables / "trained", tokenizer)
    settings = EvaluateSettings(temperatures=(1.0,), samples=2, prompt_tokens=2000, max_tokens=99, threads=1)
    problems = pl.read_parquet(tables / "problems.parquet")
    found = evaluate_model(folder, problems, settings, tables / "out", engine=Scripted(tokenizer, [CUT, CLOSED]))
    assert found["outcome"].to_list() == ["no_answer", "correct"]


def test_the_end_of_turn_ends_responses_and_targets_where_the_tokenizers_eos_is_another_token():
    tokenizer = letters(("<start_of_turn>", "<end_of_turn>", "<|also|>"), bos_token="<bos>", eos_token="<eos>")
    tokenizer.chat_template = "{{ bos_token }}" + GEMMA
    end, also = (tokenizer.convert_tokens_to_ids(token) for token in ("<end_of_turn>", "<|also|>"))
    assert turn_end(tokenizer) == end
    assert stop_ids(tokenizer, generation_ends=(1, also)) == (end, tokenizer.eos_token_id, 1, also)
    row = {"trace_id": "t", "problem_id": "p", "problem": "1", "response": "2<end_of_turn><eos>", "gold": "2"}
    frame = pl.DataFrame([dict.fromkeys(CURATED) | row], schema=CURATED)
    (encoded,) = encode_curated(frame, tokenizer, DataSettings()).rows
    assert tokenizer.decode(encoded.token_ids[encoded.prompt_length :]) == "2<end_of_turn>"
    tokenizer.chat_template = None
    assert turn_end(tokenizer) == tokenizer.eos_token_id


def test_generations_list_of_ends_reaches_the_engine_in_training_and_evaluation(tables, monkeypatch):
    tokenizer = letters(("<start_of_turn>", "<end_of_turn>", "<|also|>"), eos_token="<eos>", pad_token="<eos>")
    tokenizer.chat_template = GEMMA
    eos, end, also = (tokenizer.convert_tokens_to_ids(token) for token in ("<eos>", "<end_of_turn>", "<|also|>"))
    folder, asked = write_model(tables / "gemma", tokenizer, ends=[eos, also]), []
    generate = EmbeddedEngine.generate

    def note(self, prompts, n, sampling):
        asked.append(sampling.stop_token_ids)
        return generate(self, prompts, n, sampling)

    monkeypatch.setattr(EmbeddedEngine, "generate", note)
    problems = pl.read_parquet(tables / "problems.parquet")
    evaluate_model(folder, problems, EvaluateSettings(temperatures=(0.0,), max_tokens=4), tables / "evaluation")
    data = DataSettings(problems=tables / "problems.parquet", response_tokens=4)
    rollout = {"prompts": 1, "mini_batch_prompts": 1, "group_size": 2}
    recipe = TrainSettings(method="grpo", model=str(folder), output=tables / "r", data=data, rollout=rollout, steps=1)
    final = train(recipe)
    assert asked == [(end, eos, also)] * 2
    assert GenerationConfig.from_pretrained(final).eos_token_id == [end, eos, also]


def test_think_tags_that_are_special_tokens_survive_decoding_and_others_do_not():
    tokenizer = letters(("[THINK]", "[/THINK]", "[INST]"), eos_token="</s>")
    ids = tokenizer("[THINK]so 9[/THINK]It is [INST]9.</s>")["input_ids"]
    assert decode_responses(tokenizer, [ids, []]) == ["[THINK]so 9[/THINK]It is 9.", ""]
    harmony = ("<|channel|>", "<|message|>", "<|start|>", "<|end|>", "<|return|>")
    tokenizer = letters(harmony, eos_token="<|return|>")
    text = "<|channel|>analysis<|message|>so 9<|end|><|start|>assistant<|channel|>final<|message|>9<|return|>"
    (decoded,) = decode_responses(tokenizer, [tokenizer(text)["input_ids"]])
    assert decoded == text.replace("<|end|>", "").replace("<|return|>", "")
