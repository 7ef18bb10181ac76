"""Evaluation: what is asked, resumed and summarised."""

import importlib.util
from itertools import combinations

import numpy as np
import polars as pl
import pytest
from json_server import serving

from probes.states.extract import Reading, extract_states
from probes.states.positions import tokenise
from tracekit.cli.app import explain
from tracekit.core.prompts import PromptSettings, save_prompt_settings
from tracekit.core.runs import RunError
from tracekit.core.tables import COMPLETIONS, STEPS, check
from trainer.data.sequences import encode_problems
from trainer.evaluate import Asker, EvaluateError, EvaluateSettings, evaluate_model, name_of, summarise
from trainer.modeling.models import load_tokenizer
from trainer.rollouts.engines.embedded import EmbeddedEngine
from trainer.rollouts.engines.vllm_server import ServerError
from trainer.settings import DataSettings, EngineSettings, TrainSettings
from trainer.train import train


@pytest.fixture(scope="module")
def problems(world_folder):
    return pl.read_parquet(world_folder / "problems.parquet").head(6)


SETTINGS = EvaluateSettings(temperatures=(0.0, 0.7), samples=3, max_tokens=12, problems_per_part=2, threads=1)


def test_each_problem_is_asked_once_greedily_and_n_times_else(model, problems, tmp_path):
    found = evaluate_model(model, problems, SETTINGS, tmp_path)
    counts = found.group_by("temperature", "problem_id").len()
    assert counts.filter(pl.col("temperature") == 0)["len"].to_list() == [1] * 6
    assert counts.filter(pl.col("temperature") > 0)["len"].to_list() == [3] * 6
    assert found["model"].unique().to_list() == ["tiny"]
    assert found.filter(pl.col("finish_reason") == "length")["token_count"].unique().to_list() in ([12], [])
    assert read(tmp_path, "completions").equals(found)
    assert read(tmp_path, "summary").equals(summarise(found))


def test_a_model_trained_with_a_system_prompt_is_evaluated_and_probed_on_the_tokens_it_was_trained_on(
    model, world_folder, problems, tmp_path, monkeypatch
):
    recipe = TrainSettings(
        method="sft",
        model=str(model),
        output=tmp_path / "run",
        data=DataSettings(curated=world_folder / "curated.parquet", system_prompt="1 A"),
        steps=1,
    )
    final = train(recipe)
    trained = encode_problems(problems["problem"].to_list(), load_tokenizer(final), recipe.data).rows
    asked = []

    def note(self, prompts, n, sampling):
        asked.extend(prompts)
        raise KeyboardInterrupt

    monkeypatch.setattr(EmbeddedEngine, "generate", note)
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(final, problems, SETTINGS, tmp_path / "evaluation")
    assert [list(prompt) for prompt in asked] == [list(row.token_ids) for row in trained[:2]]
    traces = pl.DataFrame(
        {"problem_id": ["p"], "trace_id": ["t"], "problem": problems["problem"][0], "response": "1 A"}
    )
    steps = pl.DataFrame(schema=STEPS)
    states = extract_states(final, traces, steps, tmp_path / "states", Reading(positions=("prompt_end",)))
    untold = extract_states(model, traces, steps, tmp_path / "untold", Reading(positions=("prompt_end",)))
    assert states.tokens_digest != untold.tokens_digest
    told = tokenise(load_tokenizer(final), traces, recipe.data.prompt)[0]
    assert list(told.token_ids[: told.prompt_length]) == list(trained[0].token_ids)
    assert np.array_equal(states.index["token_id"], [trained[0].token_ids[-1]])


def test_a_prompt_setting_given_to_the_evaluation_stands_over_the_checkpoints_and_is_told(tmp_path, caplog):
    save_prompt_settings(PromptSettings(system_prompt="trained", template_arguments={"a": 1}), tmp_path)
    data = EvaluateSettings(system_prompt=None).prompts(tmp_path)
    assert (data.system_prompt, data.template_arguments) == (None, {"a": 1})
    assert "system_prompt is None here and 'trained'" in caplog.text
    assert EvaluateSettings().prompts(tmp_path).system_prompt == "trained"


def test_an_interrupted_evaluation_goes_on_and_gives_the_same(model, problems, tmp_path, monkeypatch):
    whole = evaluate_model(model, problems, SETTINGS, tmp_path / "whole")
    asked, ask = [], Asker.ask

    def count(self, chosen, temperature, place):
        if len(asked) == 4 and "stopped" not in asked:
            asked.append("stopped")
            raise KeyboardInterrupt
        asked.append((temperature, place))
        return ask(self, chosen, temperature, place)

    monkeypatch.setattr(Asker, "ask", count)
    with pytest.raises(KeyboardInterrupt):
        evaluate_model(model, problems, SETTINGS, tmp_path / "cut")
    assert evaluate_model(model, problems, SETTINGS, tmp_path / "cut").equals(whole)
    assert [part for part in asked if part != "stopped"] == [(t, p) for t in (0.0, 0.7) for p in (0, 2, 4)]
    monkeypatch.setattr(Asker, "open", None)  # a finished one is read, no model is loaded
    assert evaluate_model(model, problems, SETTINGS, tmp_path / "cut").equals(whole)


def test_a_folder_of_another_evaluation_is_refused(model, problems, tmp_path):
    evaluate_model(model, problems.head(2), SETTINGS, tmp_path)
    with pytest.raises(RunError, match="problems"):
        evaluate_model(model, problems, SETTINGS, tmp_path)
    with pytest.raises(RunError, match="samples"):
        evaluate_model(model, problems.head(2), SETTINGS.model_copy(update={"samples": 4}), tmp_path)


def test_nothing_to_ask_is_an_error(model, problems, tmp_path):
    with pytest.raises(EvaluateError, match="no row"):
        evaluate_model(model, problems.head(0), SETTINGS, tmp_path / "a")
    with pytest.raises(EvaluateError, match="over 2 tokens"):
        evaluate_model(model, problems, SETTINGS.model_copy(update={"prompt_tokens": 2}), tmp_path / "b")
    with pytest.raises(EvaluateError, match="no safetensors"):
        evaluate_model(tmp_path, problems, SETTINGS, tmp_path / "c")


def test_the_summary_agrees_with_counting_every_subset():
    right = {"a": [1, 0, 0, 1], "b": [0, 0, 0, 0], "c": [1, 1, 1, 0]}
    found = summarise(table(right))
    shares = {}
    for k in (1, 2, 4):
        solved = [[any(chosen) for chosen in combinations(values, k)] for values in right.values()]
        shares[k] = sum(sum(own) / len(own) for own in solved) / 3
    passed = {k: value for metric, k, value in found.select("metric", "k", "value").iter_rows() if metric == "pass"}
    assert passed == pytest.approx(shares)
    vote = found.filter((pl.col("metric") == "majority") & (pl.col("k") == 4)).row(0, named=True)
    assert vote["value"] == pytest.approx((0.5 + 0 + 1) / 3)  # a: two against two that agree
    assert vote["low"] <= vote["value"] <= vote["high"]


def test_a_timeout_is_no_sample_of_the_summary():
    frame = table({"a": [1, 0], "b": [1, None]})
    row = summarise(frame).filter((pl.col("metric") == "pass") & (pl.col("k") == 1)).row(0, named=True)
    assert row["value"] == pytest.approx((0.5 + 1.0) / 2)
    assert row["unknown"] == 1


def test_a_run_is_called_by_its_folder():
    assert name_of("runs/luffy/final") == "luffy"
    assert name_of("Qwen/Qwen2.5-Math-1.5B") == "Qwen2.5-Math-1.5B"


def test_a_server_that_moved_is_no_other_evaluation(model, problems, tmp_path):
    first = evaluate_model(model, problems.head(2), SETTINGS, tmp_path)
    moved = with_engine(urls=("http://elsewhere:8000",))
    assert evaluate_model(model, problems.head(2), moved, tmp_path).equals(first)
    with pytest.raises(RunError, match=r"engine\.kind"):
        evaluate_model(model, problems.head(2), with_engine(kind="vllm-server"), tmp_path)


@pytest.mark.skipif(importlib.util.find_spec("vllm") is not None, reason="vLLM is installed")
def test_an_engine_that_is_not_installed_is_said_with_its_extra(model, problems, tmp_path):
    with pytest.raises(ImportError) as error:
        evaluate_model(model, problems, with_engine(kind="vllm"), tmp_path)
    assert "needs vllm, which is not installed: pip install 'reasoning-tracekit[vllm]'" in explain(error.value)


def test_a_server_that_is_not_there_is_said(model, problems, tmp_path):
    with pytest.raises(ServerError, match=r"127\.0\.0\.1:9 is no vLLM server that answers"):
        evaluate_model(model, problems, with_engine(kind="vllm-server", urls=("http://127.0.0.1:9",)), tmp_path)


def test_a_server_that_takes_no_weights_must_serve_the_model(model, problems, tmp_path):
    """Without vLLM's development mode there is no route to update by."""
    with serving_alone("another") as url, pytest.raises(ServerError, match=f"serves another, not {model}"):
        evaluate_model(model, problems, with_engine(kind="vllm-server", urls=(url,)), tmp_path / "a")
    with serving_alone(str(model)) as url:
        found = evaluate_model(model, problems, with_engine(kind="vllm-server", urls=(url,)), tmp_path / "b")
    assert found.filter(pl.col("temperature") > 0)["token_count"].to_list() == [2] * 18
    assert found["finish_reason"].unique().to_list() == ["stop"]


def with_engine(**changes):
    return SETTINGS.model_copy(update={"engine": EngineSettings(**changes)})


def serving_alone(name):
    """Answers as vLLM does outside its development mode: every completion is one token and EOS."""
    one = {"token_ids": [5, 2], "finish_reason": "stop", "logprobs": {"token_logprobs": [-1.0, -2.0]}}

    def answer(route, body):
        if route == "/v1/models":
            return 200, {"data": [{"id": name, "root": name}]}
        if route == "/v1/completions":
            return 200, {"choices": [{"index": i, **one} for i in range(body["n"])]}
        return 404, {}

    return serving(answer)


def table(right):
    """COMPLETIONS at temperature 1: 1 answers the gold, 0 another number, None timed out."""
    rows = [
        {
            "problem_id": name,
            "model": "m",
            "sample": sample,
            "temperature": 1.0,
            "gold": "7",
            "prediction": {1: "7", 0: "8", None: None}[value],
            "outcome": {1: "correct", 0: "wrong", None: "timeout"}[value],
            "token_count": 5,
            "finish_reason": "stop",
        }
        for name, values in right.items()
        for sample, value in enumerate(values)
    ]
    return check(pl.DataFrame(rows, schema=COMPLETIONS), COMPLETIONS, "completions")


def read(folder, name):
    return pl.read_parquet(folder / f"{name}.parquet")
