"""The vLLM engines against the Hugging Face forward pass, before and after a weight update.

They need vLLM's own environment: `make test-vllm`.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

STARTS_IN = 3000  # seconds: a server on CPU takes minutes to start, many on a busy machine
pytestmark = [pytest.mark.vllm, pytest.mark.timeout(STARTS_IN + 600)]
pytest.importorskip("vllm")

import httpx
import polars as pl
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tracekit.cli.collect import command_collect
from tracekit.study.tasks.world import World, make_problems, vocabulary, write_tokenizer
from trainer.data.sequences import encode_problems
from trainer.evaluate import EvaluateSettings, evaluate_model
from trainer.modeling.models import load_tokenizer
from trainer.rollouts.engines.embedded import EmbeddedEngine
from trainer.rollouts.engines.protocol import Engine, Rollout, Sampling
from trainer.rollouts.engines.vllm_server import ServerError, VllmServerEngine
from trainer.settings import DataSettings, TrainSettings
from trainer.train import train

TOLERANCE = 1e-4
PROMPTS = [[1, 40, 12, 25, 3], [1, 41, 12, 30, 13, 27, 3], [1, 50, 12, 22, 3]]
SAMPLING = Sampling(max_tokens=12, stop_token_ids=(2,), temperature=1.0, seed=5)


def small_model(seed: int) -> LlamaForCausalLM:
    """Head dimension 32: vLLM's CPU attention has no smaller one."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(vocabulary(World())),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=1,
        eos_token_id=2,
        pad_token_id=0,
        initializer_range=0.3,  # far from uniform, so that equal log-probs mean something
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    small_model(0).save_pretrained(path)
    write_tokenizer(World(), path)
    return path


@torch.no_grad()
def forward_log_probs(model: LlamaForCausalLM, prompt: list[int], rollout: Rollout) -> torch.Tensor:
    ids = torch.tensor([[*prompt, *rollout.token_ids]])
    log_probs = model(input_ids=ids).logits.log_softmax(-1)[0, len(prompt) - 1 : -1]
    return log_probs.gather(-1, ids[0, len(prompt) :, None]).squeeze(-1)


def check(engine: Engine, model: LlamaForCausalLM) -> None:
    groups = engine.generate(PROMPTS, 4, SAMPLING)
    assert [len(group) for group in groups] == [4, 4, 4]
    for prompt, group in zip(PROMPTS, groups):
        for rollout in group:
            assert (rollout.finish_reason == "stop") == (rollout.token_ids[-1] == 2)
            expected = forward_log_probs(model, prompt, rollout)
            assert torch.allclose(torch.tensor(rollout.log_probs), expected, atol=TOLERANCE)
    assert len({tuple(r.token_ids) for group in groups for r in group}) > 6, "samples do not vary"
    greedy = Sampling(max_tokens=12, stop_token_ids=(2,), temperature=0.0)
    ours = EmbeddedEngine(model, rows=8, pad_token_id=0).generate(PROMPTS, 1, greedy)
    theirs = engine.generate(PROMPTS, 1, greedy)
    assert [g[0].token_ids for g in theirs] == [g[0].token_ids for g in ours]


def test_vllm_in_process_samples_what_the_model_says_before_and_after_an_update(folder: Path) -> None:
    from trainer.rollouts.engines.vllm import VllmEngine

    engine = VllmEngine(folder, max_length=128, eager=True)
    try:
        check(engine, small_model(0))
        other = small_model(1)
        engine.load_weights(other.state_dict().items())
        check(engine, other)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    """A server that takes weights."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "128"),
        *("--logprobs-mode", "processed_logprobs", "--enforce-eager"),
    ]
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1"}
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(STARTS_IN):
            assert process.poll() is None, (folder / "server.log").read_text()[-3000:]
            try:
                if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                    break
            except httpx.HTTPError:
                pass  # not up yet: asked again in a second
            time.sleep(1)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=60)
        log.close()


def check_update(server: str, folder: Path, exchange: Path, *seeds: int) -> None:
    """The server samples what the models of these seeds say, after an update to each."""
    engine = VllmServerEngine([server], folder, exchange)
    try:
        for seed in seeds:
            model = small_model(seed)
            engine.load_weights(model.state_dict().items())
            check(engine, model)
    finally:
        engine.close()


def test_a_vllm_server_samples_what_the_model_says_before_and_after_an_update(
    server: str, folder: Path, tmp_path: Path
) -> None:
    check_update(server, folder, tmp_path / "weights", 0, 1)
    assert (tmp_path / "weights").exists()


def test_weights_of_another_architecture_are_told_and_the_server_goes_on(
    server: str, folder: Path, tmp_path: Path
) -> None:
    engine = VllmServerEngine([server], folder, tmp_path)
    with pytest.raises(ServerError, match="answered"):
        engine.load_weights([("model.layers.9.mlp.up_proj.weight", torch.zeros(256, 128))])
    check_update(server, folder, tmp_path, 0)


def test_a_server_that_is_not_there_is_told() -> None:
    with pytest.raises(ServerError, match="start it first"):
        VllmServerEngine(["http://127.0.0.1:9"], "model", "weights")


# What stands on the engines


@pytest.fixture(scope="module")
def problems(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("problems") / "problems.parquet"
    make_problems(World(), "train", 6, 0).write_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["vllm", "vllm-server"])
def test_an_evaluation_is_that_of_the_embedded_engine(
    server: str, folder: Path, problems: Path, tmp_path: Path, kind: str
) -> None:
    """Two models, one after the other. The server, which holds neither's weights, is given them."""
    small_model(5).save_pretrained(tmp_path / "other")
    write_tokenizer(World(), tmp_path / "other")
    engine = {"kind": kind, "eager": True, "urls": (server,)}
    for model in (folder, tmp_path / "other"):
        found, expected = (
            evaluate_model(
                model,
                pl.read_parquet(problems),
                EvaluateSettings(engine=chosen, temperatures=(0.0,), max_tokens=12, prompt_tokens=100),
                tmp_path / f"{model.name}-{name}",
            )
            for name, chosen in (("vllm", engine), ("embedded", {}))
        )
        assert found["response"].n_unique() > 1
        columns = ("problem_id", "response", "token_count", "finish_reason", "outcome")
        assert found.select(columns).equals(expected.select(columns))


def test_a_run_on_a_server_is_nearly_on_policy_after_each_update(
    server: str, folder: Path, problems: Path, tmp_path: Path
) -> None:
    settings = {
        "method": "grpo",
        "model": str(folder),
        "output": str(tmp_path / "run"),
        "data": {"problems": str(problems), "prompt_tokens": 100, "response_tokens": 12},
        "rollout": {"prompts": 4, "mini_batch_prompts": 2, "group_size": 4},
        "loss": {"entropy": 0.1},  # rewards of a random model are all 0: entropy alone moves the weights
        "optimizer": {"lr": 1e-3},
        "engine": {"kind": "vllm-server", "urls": [server]},
        "steps": 3,
    }
    train(TrainSettings.model_validate(settings))
    metrics = pl.read_parquet(tmp_path / "run/metrics.parquet")
    assert metrics["gradient_norm"].min() > 0
    assert metrics["importance_gap"].max() < TOLERANCE
    assert metrics["importance"].to_list() == pytest.approx([1.0] * 3, abs=TOLERANCE)
    assert metrics["importance_cut"].to_list() == [0.0] * 3


def collection(problems: Path, output: Path, **others: object) -> pl.DataFrame:
    """TRACES of `tracekit collect`."""
    asked = {
        "problems": problems,
        "output": output,
        "samples": 2,
        "question.max_tokens": 12,
        "question.temperature": 1.0,
        "question.top_p": 1.0,
        **others,
    }
    command_collect(None, *(f"{key}={value}" for key, value in asked.items()))
    return pl.read_parquet(output / "traces.parquet").join(pl.read_parquet(output / "answers.parquet"), on="trace_id")


def check_log_probs(traces: pl.DataFrame, problems: Path, folder: Path, model: LlamaForCausalLM) -> None:
    """Every trace whose text gives its tokens back: recorded log-probs are those of the forward pass."""
    tokenizer = load_tokenizer(folder)
    texts, compared = dict(pl.read_parquet(problems).select("problem_id", "problem").iter_rows()), 0
    for trace in traces.iter_rows(named=True):
        prompt = encode_problems([texts[trace["problem_id"]]], tokenizer, DataSettings()).rows[0].token_ids
        assert trace["prompt_tokens"] == len(prompt)
        assert len(trace["token_log_probs"]) == trace["token_count"] == trace["token_count_right"]
        ids = tokenizer(trace["response"], add_special_tokens=False)["input_ids"]
        ids += [tokenizer.eos_token_id] * (trace["finish_reason"] == "stop")
        if len(ids) == trace["token_count"]:  # else a special token among the sampled ones is not in the text
            compared += 1
            expected = forward_log_probs(model, list(prompt), Rollout(ids, [], "stop"))
            assert torch.allclose(torch.tensor(trace["token_log_probs"]), expected, atol=TOLERANCE)
    assert compared >= 3


def test_a_collection_from_a_server_keeps_the_teachers_log_probs(
    server: str, folder: Path, problems: Path, tmp_path: Path
) -> None:
    engine, model = VllmServerEngine([server], folder, tmp_path / "weights"), small_model(6)
    engine.load_weights(model.state_dict().items())
    engine.close()
    asked = {"question.model": folder, "server.base_url": f"{server}/v1", "server.concurrency": 4}
    traces = collection(problems, tmp_path / "c", **asked)
    assert traces.height == 12
    check_log_probs(traces, problems, folder, model)
    ledger = (tmp_path / "c/requests.jsonl").read_bytes()
    assert collection(problems, tmp_path / "c", **asked).equals(traces)
    assert (tmp_path / "c/requests.jsonl").read_bytes() == ledger  # nothing was asked twice


def test_a_collection_by_vllm_in_process_keeps_the_teachers_log_probs(
    folder: Path, problems: Path, tmp_path: Path
) -> None:
    asked = {"teacher.model": folder, "teacher.engine.kind": "vllm", "teacher.engine.eager": "true"}
    traces = collection(problems, tmp_path / "c", **asked, **{"teacher.prompt_tokens": 100})
    assert traces.height == 12
    check_log_probs(traces, problems, folder, small_model(0))
