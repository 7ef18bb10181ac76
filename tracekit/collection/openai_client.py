"""One answer from an OpenAI-compatible server: the request, its retries, what came back."""

from __future__ import annotations

import asyncio
import email.utils
import os
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from tracekit.core.settings import Settings

#: Told to come again: timeouts, conflicts, rate limits, server faults.
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
#: No other request will fare better: key, permission, address.
FATAL = frozenset({401, 402, 403, 404, 405})


class CollectError(ValueError):
    """A collection cannot go on: the message says what the server or the folder said and what to do."""


class RefusedError(Exception):
    """The server refused this one request (400, 413, 422, …); asking again would be refused again."""


class ExhaustedError(Exception):
    """Every retry of this request failed."""


class Server(Settings):
    """Where the teacher answers, and how patiently it is asked.

    base_url: up to and with the version, as in http://127.0.0.1:8000/v1. key_variable: the environment variable
    that holds the key; unset, no key is sent. concurrency: requests in flight. retries: further tries after the
    first. timeout: seconds for one answer. backoff, longest_backoff: seconds; the k-th wait is drawn from
    [0, min(longest_backoff, backoff · 2^k)] and is never shorter than the server's Retry-After.
    """

    base_url: str = "http://127.0.0.1:8000/v1"
    key_variable: str = "OPENAI_API_KEY"
    concurrency: int = 64
    retries: int = 8
    timeout: float = 3600.0
    backoff: float = 0.5
    longest_backoff: float = 60.0


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer of a teacher.

    response: think block and answer; a server that splits them is read back into `<think>…</think>`.
    token_log_probs: natural, of the tokens as sampled; None where not given or where they are of another text.
    token_count: tokens that were generated; None where the server does not say. prompt_tokens likewise.
    finish_reason: "stop", "length", or as the server says.
    """

    response: str
    token_log_probs: list[float] | None
    token_count: int | None
    finish_reason: str
    prompt_tokens: int | None = None


@dataclass
class Chat:
    """A client with retries. `retried` counts tries that failed and were followed by another."""

    server: Server
    client: httpx.AsyncClient
    draw: random.Random = field(default_factory=random.Random)
    retried: int = 0

    async def ask(self, body: dict[str, Any]) -> Generation:
        """One chat completion. Raises RefusedError, ExhaustedError or CollectError (nothing else will work)."""
        said = ""
        for attempt in range(self.server.retries + 1):
            wait = 0.0
            try:
                response = await self.client.post("chat/completions", json=body)
                if response.status_code in RETRIED:
                    said, wait = _status(response), retry_after(response.headers.get("retry-after"))
                elif response.is_success:
                    return read_answer(response.json())
                elif response.status_code in FATAL:
                    raise CollectError(self._fatal(response))
                else:
                    raise RefusedError(_status(response))
            except (httpx.TransportError, httpx.DecodingError) as error:
                said = f"{type(error).__name__} {error}".strip()
            except (ValueError, KeyError, TypeError, IndexError) as error:
                if isinstance(error, CollectError):
                    raise
                said = f"an answer that is no chat completion ({type(error).__name__}: {error})"
            if attempt < self.server.retries:
                self.retried += 1
                longest = min(self.server.longest_backoff, self.server.backoff * 2**attempt)
                await asyncio.sleep(max(wait, self.draw.uniform(0, longest)))
        raise ExhaustedError(said)

    def _fatal(self, response: httpx.Response) -> str:
        key = os.environ.get(self.server.key_variable)
        remedy = {401: "check the key", 403: "check what the key may do", 404: "check base_url and model"}
        hint = remedy.get(response.status_code, "check base_url and the account")
        known = "set" if key else "not set"
        return f"{self.server.base_url}: {_status(response)}; {hint} ({self.server.key_variable} is {known})."


def connect(server: Server) -> httpx.AsyncClient:
    """The HTTP client; the key goes from the environment into its header and nowhere else. Raises CollectError."""
    url = httpx.URL(server.base_url)
    if url.scheme not in ("http", "https") or not url.host:
        raise CollectError(f"base_url is {server.base_url!r}; expected http(s)://host/v1.")
    if url.userinfo:
        raise CollectError(f"base_url holds a credential; put the key into the environment as {server.key_variable}.")
    key = os.environ.get(server.key_variable)
    return httpx.AsyncClient(
        base_url=server.base_url.rstrip("/") + "/",
        headers={"Authorization": f"Bearer {key}"} if key else {},
        timeout=httpx.Timeout(server.timeout, connect=min(server.timeout, 20.0)),
        limits=httpx.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency),
    )


def read_answer(body: Any) -> Generation:
    """The first choice of a chat completion. Raises ValueError, KeyError or TypeError where it is none."""
    choice, usage = body["choices"][0], body.get("usage") or {}
    message = choice["message"]
    content = message.get("content") or ""
    # vLLM names the split-off thought `reasoning`, earlier versions and other servers `reasoning_content`.
    reasoning = message.get("reasoning") or message.get("reasoning_content") or ""
    if not isinstance(content, str) or not isinstance(reasoning, str):
        raise TypeError("the message's content is no text")
    if not content and not reasoning:
        raise ValueError("the message is empty")
    tokens = (choice.get("logprobs") or {}).get("content")
    # A split-off thought has lost its tags: its log-probs are of a text that we do not have.
    log_probs = [round(float(token["logprob"]), 6) for token in tokens] if tokens and not reasoning else None
    count = usage.get("completion_tokens")
    return Generation(
        response=_whole(f"<think>\n{reasoning}\n</think>\n\n{content}" if reasoning else content),
        token_log_probs=log_probs,
        token_count=count if count is not None else len(tokens) if tokens else None,
        finish_reason=str(choice.get("finish_reason") or "stop"),
        prompt_tokens=usage.get("prompt_tokens"),
    )


def retry_after(header: str | None) -> float:
    """Seconds of a Retry-After header, given in seconds or as a date; 0 where there is none or it is neither."""
    if not header:
        return 0.0
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(header)
    except ValueError:
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.fromtimestamp(time.time(), UTC)).total_seconds())


def _whole(text: str) -> str:
    """JSON can name half a character (a lone surrogate), which no file can hold: it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _status(response: httpx.Response) -> str:
    """Status and the server's own words, short, without the key that some servers repeat."""
    text = " ".join(response.text.split())[:200]
    sent = response.request.headers.get("authorization", "").removeprefix("Bearer ")
    return f"HTTP {response.status_code} {text.replace(sent, '…') if sent else text}".strip()
