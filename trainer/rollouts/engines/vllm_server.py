"""vLLM over HTTP: rollouts on machines of their own.

Prompts go as token ids to /v1/completions and come back with token ids and log-probs. Weights go through a folder that
trainer and servers see: the trainer writes it, pauses the servers, lets them reload, and resumes.

Start a server with (the update routes are vLLM's development mode; bind it where only the trainer reaches it):

    VLLM_SERVER_DEV_MODE=1 python -m vllm.entrypoints.openai.api_server --model MODEL --host 127.0.0.1 \\
        --logprobs-mode processed_logprobs
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import torch
from safetensors.torch import save_file

from trainer.distributed.fsdp import on_first_rank
from trainer.distributed.ranks import barrier, rank
from trainer.rollouts.engines.protocol import Rollout, Sampling
from trainer.rollouts.engines.sampling import seed_of_prompt

#: Requests under way at once to one server: enough that its scheduler always has a full batch to choose from.
IN_FLIGHT = 256
#: A rollout of 8,192 tokens under load takes minutes; a server that says nothing for longer is taken to be down.
TIMEOUT_SECONDS = 1800.0
#: A new one for each request: a server closes idle ones after seconds, and that of an error, as the next is being sent.
CONNECTIONS = httpx.Limits(max_connections=None, max_keepalive_connections=0)


class ServerError(ValueError):
    """A rollout server cannot be used: the message names it, what it said, and what to do."""


class VllmServerEngine:
    """`engine.kind = "vllm-server"`.

    urls: servers that hold the same model; prompts are dealt to them in turn. model: the Hugging Face folder that
    configuration and tokenizer are copied from when weights are written. exchange: a folder that trainer and
    servers see under the same path. dtype: what weights travel in, the servers' own.
    """

    exact = False
    live = False

    def __init__(
        self,
        urls: Sequence[str],
        model: str | Path,
        exchange: str | Path,
        *,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self._clients = [
            httpx.Client(base_url=url.rstrip("/"), timeout=TIMEOUT_SECONDS, limits=CONNECTIONS) for url in urls
        ]
        self._model, self._exchange, self._dtype = Path(model), Path(exchange), dtype
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
                "seed": seed_of_prompt(sampling, place, n),
                "logprobs": 0,
                "return_token_ids": True,
            }
            answer = _post(self._clients[server], "/v1/completions", body)
            return [_rollout(choice) for choice in sorted(answer["choices"], key=lambda c: c["index"])]

        with ThreadPoolExecutor(min(len(prompts), IN_FLIGHT * len(self._clients)) or 1) as pool:
            return list(pool.map(ask, range(len(prompts))))

    def load_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Pause the servers, give them the weights, let them forget what they computed with the old ones, resume.

        The servers are every rank's: rank 0 does it once, the others take part in the gathering and wait.
        """
        cast = ((name, t.to(self._dtype) if t.is_floating_point() else t) for name, t in weights)
        tensors = on_first_rank(cast)
        if rank() == 0:
            self._write(tensors)
            self._paused(self._reload)
        barrier()

    def takes_weights(self) -> bool:
        """Whether every server has the routes that update weights (VLLM_SERVER_DEV_MODE=1)."""
        return all(_is_there(client, "/is_paused") for client in self._clients)

    def check_serves(self, model: str | Path) -> None:
        """Raise ServerError where a server, whose weights cannot be changed, serves another model."""
        for client in self._clients:
            card = _get(client, "/v1/models")["data"][0]
            if str(model) not in (card["id"], card.get("root")):
                raise ServerError(
                    f"{client.base_url} serves {card['id']}, not {model}; start it with --model {model}, or with "
                    "VLLM_SERVER_DEV_MODE=1 that it takes the weights of any model of the same architecture."
                )

    def rest(self) -> bool:
        """Keep the weights: the server has its own memory."""
        return False

    def close(self) -> None:
        """Close the connections; the servers go on."""
        for client in self._clients:
            client.close()

    def _paused(self, update: Callable[[], None]) -> None:
        """Update the weights of all servers while none of them answers."""
        self._all("/pause")
        try:
            update()
            self._all("/reset_prefix_cache")
        finally:
            self._all("/resume")

    def _reload(self) -> None:
        kwargs = {"weights_path": str(self._exchange.resolve())}
        self._all("/collective_rpc", {"method": "reload_weights", "kwargs": kwargs})

    def _all(self, route: str, body: dict[str, Any] | None = None) -> None:
        """The same request to every server, at once."""
        with ThreadPoolExecutor(len(self._clients)) as pool:
            list(pool.map(lambda client: _post(client, route, body), self._clients))

    def _write(self, weights: Mapping[str, torch.Tensor]) -> None:
        beside = self._exchange.with_name(f".{self._exchange.name}.partial")
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir(parents=True)
        for name in ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
            if (self._model / name).exists():
                shutil.copy(self._model / name, beside / name)
        tensors = {name: tensor.clone() for name, tensor in weights.items()}  # safetensors refuses tied ones
        save_file(tensors, beside / "model.safetensors", metadata={"format": "pt"})
        shutil.rmtree(self._exchange, ignore_errors=True)
        beside.rename(self._exchange)

    def _served_name(self, client: httpx.Client) -> str:
        try:
            answer = client.get("/v1/models")
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise ServerError(f"{client.base_url} is no vLLM server that answers ({error}); start it first.") from error
        return str(answer.json()["data"][0]["id"])


def _is_there(client: httpx.Client, route: str) -> bool:
    try:
        return client.get(route).status_code != 404
    except httpx.HTTPError as error:
        raise ServerError(f"{client.base_url}{route} broke off ({error}); is the server still up?") from error


def _get(client: httpx.Client, route: str) -> Any:
    return _answer(client, "GET", route, None)


def _post(client: httpx.Client, route: str, body: dict[str, Any] | None) -> Any:
    return _answer(client, "POST", route, body)


def _answer(client: httpx.Client, method: str, route: str, body: dict[str, Any] | None) -> Any:
    try:
        answer = client.request(method, route, json=body)
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
