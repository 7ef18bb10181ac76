"""vLLM over HTTP: rollouts on machines of their own.

Prompts go as token ids to /v1/completions and come back with token ids and log-probs. Weights go over the disk:
the trainer writes a folder that every server sees, pauses them, lets them reload, and resumes.

Start a server with (the update routes are vLLM's development mode; bind it where only the trainer reaches it):

    VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model MODEL --host 127.0.0.1 \\
        --logprobs-mode processed_logprobs --return-tokens-as-token-ids
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors.torch import save_file

from trainer.engines.protocol import Rollout, Sampling
from trainer.engines.sampling import seed_of_prompt
from trainer.ranks import barrier, rank
from trainer.sharding import on_first_rank

#: Requests under way at once to one server: enough that its scheduler always has a full batch to choose from.
IN_FLIGHT = 256
#: A rollout of 8,192 tokens under load takes minutes; a server that says nothing for longer is taken to be down.
TIMEOUT_SECONDS = 1800.0


class ServerError(ValueError):
    """A rollout server cannot be used: the message names it, what it said, and what to do."""


class VllmServerEngine:
    """`engine.kind = "vllm-server"`.

    urls: servers that hold the same model; prompts are dealt to them in turn. model: the Hugging Face folder that
    configuration and tokenizer are copied from when weights are written. exchange: a folder that trainer and
    servers see under the same path; weights go through it.
    """

    exact = False
    live = False

    def __init__(self, urls: Sequence[str], model: str | Path, exchange: str | Path) -> None:
        self._clients = [httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT_SECONDS) for url in urls]
        self._model, self._exchange = Path(model), Path(exchange)
        self._served = [self._served_name(client) for client in self._clients]

    def generate(self, prompts: Sequence[Sequence[int]], n: int, sampling: Sampling) -> list[list[Rollout]]:
        """`n` rollouts for each prompt, in the order of `prompts`."""

        def ask(place: int) -> list[Rollout]:
            server = place % len(self._clients)
            body = {
                "model": self._served[server],
                "prompt": list(prompts[place]),
                "n": n,
                "temperature": sampling.temperature,
                "top_p": sampling.top_p,
                "top_k": sampling.top_k,
                "max_tokens": sampling.max_tokens,
                "stop_token_ids": list(sampling.stop_token_ids),
                "ignore_eos": True,  # the stop tokens are those of `sampling`, and no others
                "seed": seed_of_prompt(sampling.seed, place, n),
                "logprobs": 0,
                "return_token_ids": True,
            }
            answer = _post(self._clients[server], "/v1/completions", body)
            return [_rollout(choice) for choice in sorted(answer["choices"], key=lambda c: c["index"])]

        with ThreadPoolExecutor(min(len(prompts), IN_FLIGHT * len(self._clients)) or 1) as pool:
            return list(pool.map(ask, range(len(prompts))))

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Write the weights where the servers see them; pause, reload, forget the cache, resume.

        The servers are every rank's: rank 0 does it once, the others wait.
        """
        tensors = on_first_rank(weights)
        if rank() == 0:
            self._write(tensors)
            for client in self._clients:
                self._reload(client)
        barrier()

    def close(self) -> None:
        """Close the connections; the servers go on."""
        for client in self._clients:
            client.close()

    def _reload(self, client: httpx.Client) -> None:
        _post(client, "/pause", None)
        try:
            kwargs = {"weights_path": str(self._exchange.resolve())}
            _post(client, "/collective_rpc", {"method": "reload_weights", "kwargs": kwargs})
            _post(client, "/reset_prefix_cache", None)
        finally:
            _post(client, "/resume", None)

    def _write(self, weights: Mapping[str, torch.Tensor]) -> None:
        partial = self._exchange.with_name(f".{self._exchange.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            if (self._model / name).exists():
                shutil.copy(self._model / name, partial / name)
        tensors = {name: tensor.clone() for name, tensor in weights.items()}  # safetensors refuses tied ones
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
        shutil.rmtree(self._exchange, ignore_errors=True)
        partial.rename(self._exchange)

    def _served_name(self, client: httpx.Client) -> str:
        try:
            answer = client.get("/v1/models")
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ServerError(f"{client.base_url} is no vLLM server that answers ({error}); start it first.") from error
        return str(answer.json()["data"][0]["id"])


def _post(client: httpx.Client, route: str, body: dict[str, Any] | None) -> Any:
    try:
        answer = client.post(route, json=body)
    except httpx.HTTPError as error:
        raise ServerError(f"{client.base_url}{route} broke off ({error}); is the server still up?") from error
    if answer.status_code == 404:
        raise ServerError(f"{client.base_url} has no {route}; start it with VLLM_SERVER_DEV_MODE=1.")
    if answer.is_error:
        raise ServerError(f"{client.base_url}{route} answered {answer.status_code}: {answer.text[:300]}")
    return answer.json() if answer.content else None


def _rollout(choice: dict[str, Any]) -> Rollout:
    log_probs = [float(value) for value in choice["logprobs"]["token_logprobs"]]
    return Rollout(list(choice["token_ids"]), log_probs, "stop" if choice["finish_reason"] == "stop" else "length")
