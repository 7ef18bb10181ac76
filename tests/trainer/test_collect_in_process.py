"""`tracekit collect` with a teacher in this process: the embedded engine behind the ledger that servers have."""

import polars as pl
import pytest
import torch

from tracekit.cli import collect as collect_command
from tracekit.cli.collect import CommandSettings, command_collect
from tracekit.collection.collect import seed_of
from tracekit.collection.openai_client import CollectError
from tracekit.core.runs import RunError
from tracekit.core.tables import TRACES, read_table
from trainer.data.sequences import encode_problems
from trainer.modeling.models import load_model, load_tokenizer
from trainer.settings import DataSettings


@pytest.fixture(scope="module")
def problems(world_folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("problems") / "problems.parquet"
    pl.read_parquet(world_folder / "problems.parquet").head(5).write_parquet(path)
    return path


def words(model, problems, output, **others):
    """The command's arguments."""
    asked = {
        "problems": problems,
        "output": output,
        "samples": 2,
        "question.model": "tiny",
        "question.max_tokens": 12,
        "question.temperature": 1.0,
        "question.top_p": 1.0,
        "teacher.model": model,
        "teacher.engine": "embedded",
        **others,
    }
    return [f"{key}={value}" for key, value in asked.items()]


def collected(*arguments):
    command_collect(None, *arguments)
    output = next(word.partition("=")[2] for word in arguments if word.startswith("output="))
    return read_table(f"{output}/traces.parquet", TRACES)


def test_the_teachers_log_probs_are_those_of_its_forward_pass(model, problems, tmp_path):
    traces = collected(*words(model, problems, tmp_path / "c"))
    assert traces.height == 10
    assert traces["author"].unique().to_list() == ["tiny"]
    teacher, tokenizer = load_model(model), load_tokenizer(model)
    answers = pl.read_parquet(tmp_path / "c/answers.parquet")
    texts = dict(pl.read_parquet(problems).select("problem_id", "problem").iter_rows())
    compared = 0
    for trace, answer in zip(traces.iter_rows(named=True), answers.iter_rows(named=True)):
        prompt = encode_problems([texts[trace["problem_id"]]], tokenizer, DataSettings()).rows[0].token_ids
        assert answer["prompt_tokens"] == len(prompt)
        assert trace["token_count"] == len(trace["token_log_probs"]) == answer["token_count"]
        ids = tokenizer(trace["response"], add_special_tokens=False)["input_ids"]
        if answer["finish_reason"] == "stop":
            ids.append(tokenizer.eos_token_id)
        if len(ids) != trace["token_count"]:  # a special token among the sampled ones is not in the text
            continue
        compared += 1
        with torch.no_grad():
            logits = teacher(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
        expected = logits.log_softmax(-1).gather(-1, torch.tensor(ids)[:, None]).squeeze(-1)
        torch.testing.assert_close(torch.tensor(trace["token_log_probs"]), expected, rtol=0, atol=1e-4)
    assert compared >= 3


def test_answers_depend_neither_on_the_batch_nor_on_an_interruption(model, problems, tmp_path, monkeypatch):
    whole = collected(*words(model, problems, tmp_path / "whole"))
    answer, batches = collect_command.InProcess.__call__, []

    def interrupted(self, *asked):
        batches.append(len(asked[0]))
        if len(batches) == 3:
            raise KeyboardInterrupt
        return answer(self, *asked)

    monkeypatch.setattr(collect_command.InProcess, "__call__", interrupted)
    asked = words(model, problems, tmp_path / "cut", **{"teacher.batch": 3})
    with pytest.raises(KeyboardInterrupt):
        command_collect(None, *asked)
    resumed = collected(*asked)
    assert resumed.drop("token_log_probs").equals(whole.drop("token_log_probs"))
    for found, expected in zip(resumed["token_log_probs"], whole["token_log_probs"]):
        assert found.to_list() == pytest.approx(expected.to_list(), abs=1e-5)  # other rows beside it: rounding alone
    assert batches == [3, 3, 3, 3, 1]  # the third was lost; what the first two brought was not asked again
    monkeypatch.setattr(collect_command.InProcess, "_engine", None)  # nothing is missing: no model is loaded
    assert collected(*asked).equals(resumed)


def test_another_seed_draws_other_answers(model, problems, tmp_path):
    first = collected(*words(model, problems, tmp_path / "a"))
    other = collected(*words(model, problems, tmp_path / "b", **{"question.seed": 1}))
    assert first["response"].to_list() != other["response"].to_list()
    settings = CommandSettings()
    assert seed_of(settings.question, "p", 0) != seed_of(settings.question, "p", 1)


def test_a_collection_is_one_teachers(model, problems, world_folder, tmp_path):
    collected(*words(model, problems, tmp_path / "c"))
    changed = tmp_path / "changed"
    teacher, tokenizer = load_model(model), load_tokenizer(model)
    torch.nn.init.zeros_(teacher.get_input_embeddings().weight)
    teacher.save_pretrained(changed)
    tokenizer.save_pretrained(changed)
    with pytest.raises(RunError, match=r"inputs\.model"):
        command_collect(None, *words(changed, problems, tmp_path / "c"))


def test_a_prompt_over_its_limit_is_refused_and_told(model, problems, tmp_path):
    texts = pl.read_parquet(problems)
    longest = texts.with_columns(
        problem=pl.when(pl.int_range(pl.len()) == 2).then(pl.lit("A " * 99)).otherwise("problem")
    )
    longest.write_parquet(tmp_path / "problems.parquet")
    asked = words(model, tmp_path / "problems.parquet", tmp_path / "c", **{"teacher.prompt_tokens": 60})
    assert collected(*asked).height == 8
    assert (tmp_path / "c/requests.jsonl").read_text().count("over 60 tokens; raise teacher.prompt_tokens") == 2


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"teacher.engine": "vllm-server"}, "server.base_url"),
        ({"question.extra": "{best_of = 3}"}, "best_of; an engine in process takes top_k alone"),
    ],
)
def test_what_no_engine_in_process_can_do_is_said(model, problems, tmp_path, change, said):
    with pytest.raises(CollectError, match=said):
        command_collect(None, *words(model, problems, tmp_path / "c", **change))
