"""The server engine on servers that have vLLM's routes and no vLLM; `test_engine_vllm.py` does it with the real one."""

from contextlib import ExitStack

import pytest
import torch
from json_server import serving
from safetensors.torch import load_file

from trainer.rollouts.engines.protocol import Sampling
from trainer.rollouts.engines.vllm_server import ServerError, VllmServerEngine

WEIGHTS = {"embed": torch.arange(12.0).reshape(3, 4), "scale": torch.tensor(0.5), "steps": torch.tensor([3])}


class Server:
    """Remembers the routes that were called, and what the exchange folder held when it was told to reload."""

    def __init__(self, exchange, refuses=None):
        self.exchange, self.refuses, self.routes, self.loaded = exchange, refuses, [], []

    def answer(self, route, body):
        self.routes.append(route)
        if route == self.refuses:
            return 500, {"error": "no parameter embed"}
        if route == "/collective_rpc":
            assert body["kwargs"]["weights_path"] == str(self.exchange.resolve())
            self.loaded.append(load_file(self.exchange / "model.safetensors"))
        if route == "/v1/completions":
            choices = [
                {"index": place, "token_ids": [*body["prompt"], 2], "finish_reason": "stop",
                 "logprobs": {"token_logprobs": [-0.5] * (len(body["prompt"]) + 1)}}
                for place in reversed(range(body["n"]))
            ]  # fmt: skip
            return 200, {"choices": choices}
        return 200, {"data": [{"id": "m"}]} if route == "/v1/models" else {}


UPDATE = ["/pause", "/collective_rpc", "/reset_prefix_cache", "/resume"]


def test_every_server_reloads_what_was_written_while_it_is_paused(tmp_path):
    servers = [Server(tmp_path / "weights") for _ in range(2)]
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(server.answer)) for server in servers]
        engine = VllmServerEngine(urls, "m", tmp_path / "weights", dtype=torch.bfloat16)
        engine.load_weights(WEIGHTS.items())
        engine.load_weights((name, 2 * tensor) for name, tensor in WEIGHTS.items())
        engine.close()
    for server in servers:
        assert server.routes == ["/v1/models", *UPDATE, *UPDATE]
        for factor, loaded in zip((1, 2), server.loaded):
            assert torch.equal(loaded["embed"], (factor * WEIGHTS["embed"]).to(torch.bfloat16))
            assert torch.equal(loaded["steps"], factor * WEIGHTS["steps"])  # whole numbers keep their type
    assert [path.name for path in tmp_path.iterdir()] == ["weights"]


def test_a_server_that_refuses_the_weights_is_told_and_goes_on_answering(tmp_path):
    server = Server(tmp_path / "weights", refuses="/collective_rpc")
    with serving(server.answer) as url:
        engine = VllmServerEngine([url], "m", tmp_path / "weights")
        with pytest.raises(ServerError, match="no parameter embed"):
            engine.load_weights(WEIGHTS.items())
        assert server.routes[-1] == "/resume"
        engine.close()


def test_prompts_are_dealt_in_turn_and_answers_come_back_in_their_order(tmp_path):
    servers = [Server(tmp_path) for _ in range(2)]
    with ExitStack() as stack:
        urls = [stack.enter_context(serving(server.answer)) for server in servers]
        engine = VllmServerEngine(urls, "m", tmp_path)
        rollouts = engine.generate([[5], [6], [7]], 2, Sampling(max_tokens=4, stop_token_ids=(2,)))
        engine.close()
    assert [[row.token_ids for row in rows] for rows in rollouts] == [[[n, 2]] * 2 for n in (5, 6, 7)]
    assert [server.routes.count("/v1/completions") for server in servers] == [2, 1]
