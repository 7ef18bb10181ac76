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

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(1200)]  # a server on CPU takes minutes to start
pytest.importorskip("vllm")

import httpx
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from tracekit.world import World, vocabulary, write_tokenizer
from trainer.engines.embedded import EmbeddedEngine
from trainer.engines.protocol import Engine, Rollout, Sampling

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
    from trainer.engines.vllm import VllmEngine

    engine = VllmEngine(folder, max_length=128)
    try:
        check(engine, small_model(0))
        other = small_model(1)
        engine.load_weights(other.state_dict().items())
        check(engine, other)
    finally:
        engine.close()


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder)),
        *("--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "128"),
        *("--logprobs-mode", "processed_logprobs"),
    ]
    environment = os.environ | {"VLLM_SERVER_DEV_MODE": "1"}
    log = (folder / "server.log").open("wb")
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
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


def test_a_vllm_server_samples_what_the_model_says_before_and_after_an_update(
    server: str, folder: Path, tmp_path: Path
) -> None:
    from trainer.engines.vllm_server import VllmServerEngine

    engine = VllmServerEngine([server], folder, tmp_path / "weights")
    try:
        check(engine, small_model(0))
        other = small_model(1)
        engine.load_weights(other.state_dict().items())
        check(engine, other)
    finally:
        engine.close()


def test_a_server_that_is_not_there_is_told() -> None:
    from trainer.engines.vllm_server import ServerError, VllmServerEngine

    with pytest.raises(ServerError, match="start it first"):
        VllmServerEngine(["http://127.0.0.1:9"], "model", "weights")
