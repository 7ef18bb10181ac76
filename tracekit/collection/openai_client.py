"""One answer from an OpenAI-compatible server: the request, its retries, what came back."""

from __future__ import annotations

import asyncio
import email.utils
import math
import os
import random
import time
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import httpx
from pydantic import Field

from tracekit.collection.replies import (
    KEY_PIECE,
    Generation,
    ReplyError,
    masked,
    read_answer,
    read_bytes,
    read_json,
)
from tracekit.core.settings import Settings

#: Told to come again: timeouts, conflicts, rate limits, server faults.
RETRIED = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
#: Bytes of an error page that are read.
LONGEST_ERROR = 1_000_000
#: No other request will fare better: key, permission, address.
FATAL = frozenset({401, 402, 403, 404, 405})


class CollectError(ValueError):
    """A collection cannot go on: the message says what the server or the folder said and what to do."""


class RefusedError(Exception):
    """The server refused this one request (400, 413, 422, …); asking again would be refused again."""


class ExhaustedError(Exception):
    """Every retry of this request failed."""


class Server(Settings):
    """The teacher's server and the limits of a request.

    Before the k-th retry the client waits a time drawn from [0, min(longest_backoff, backoff · 2^k)], or the server's
    Retry-After where that is longer, of which no more than longest_backoff is waited.
    """

    base_url: str = Field(
        "http://127.0.0.1:8000/v1", description="address up to and including the version, as http://127.0.0.1:8000/v1"
    )
    key_variable: str = Field(
        "OPENAI_API_KEY", description="environment variable that holds the key; where it is not set, no key is sent"
    )
    concurrency: int = Field(64, ge=1, description="requests in flight")
    retries: int = Field(8, ge=0, description="further tries after the first")
    timeout: float = Field(3600.0, gt=0, description="seconds for one try, from the request to the answer's last byte")
    longest_reply: int = Field(64_000_000, gt=0, description="greatest size of one answer in bytes, decompressed")
    backoff: float = Field(0.5, ge=0, description="seconds before the first retry; doubles with each")
    longest_backoff: float = Field(60.0, ge=0, description="greatest wait before a retry, in seconds")


@dataclass(frozen=True, slots=True)
class _Reply:
    """What came back: status, the header Retry-After, the body, and the status with the server's own words, masked."""

    status: int
    retry_after: str | None
    body: bytes
    said: str


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
                async with asyncio.timeout(self.server.timeout):
                    reply = await self._post(body)
                if reply.status in RETRIED:
                    said, wait = reply.said, min(retry_after(reply.retry_after), self.server.longest_backoff)
                elif 200 <= reply.status < 300:
                    return self._masked(read_answer(read_json(reply.body)))
                elif reply.status in FATAL:
                    raise CollectError(self._fatal(reply))
                else:
                    raise RefusedError(reply.said)
            except (httpx.HTTPError, httpx.StreamError) as error:
                said = masked(f"{type(error).__name__} {error}".strip(), self._key)[:200]
            except TimeoutError:
                said = f"no whole answer within {self.server.timeout:g} s"
            except ReplyError as error:
                said = masked(f"an answer that is no chat completion ({error})", self._key)[:200]
            if attempt < self.server.retries:
                self.retried += 1
                longest = min(self.server.longest_backoff, self.server.backoff * 2**attempt)
                await asyncio.sleep(max(wait, self.draw.uniform(0, longest)))
        raise ExhaustedError(said)

    async def _post(self, body: dict[str, Any]) -> _Reply:
        async with self.client.stream("POST", "chat/completions", json=body) as response:
            encoding = response.headers.get("content-encoding", "")
            limit = self.server.longest_reply if response.is_success else LONGEST_ERROR
            try:
                whole = await read_bytes(response.aiter_raw(), encoding, limit)
            except ReplyError:
                if response.is_success:
                    raise
                whole = b""  # an error page that cannot be read says no more than its status
            words = " ".join(masked(whole.decode("utf-8", "replace"), self._key).split())
            said = f"HTTP {response.status_code} {words[:200]}".strip()
            return _Reply(response.status_code, response.headers.get("retry-after"), whole, said)

    def _masked(self, generation: Generation) -> Generation:
        """An answer that repeats the key is kept without it; a key as short as a word is not looked for."""
        if self._key is None or len(self._key) < KEY_PIECE:
            return generation
        return replace(generation, response=masked(generation.response, self._key))

    @property
    def _key(self) -> str | None:
        return os.environ.get(self.server.key_variable)

    def _fatal(self, reply: _Reply) -> str:
        remedy = {401: "check the key", 403: "check what the key may do", 404: "check base_url and model"}
        hint = remedy.get(reply.status, "check base_url and the account")
        known = "set" if self._key else "not set"
        return f"{self.server.base_url}: {reply.said}; {hint} ({self.server.key_variable} is {known})."


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
        headers={"Accept-Encoding": "gzip", **({"Authorization": f"Bearer {key}"} if key else {})},
        timeout=httpx.Timeout(server.timeout, connect=min(server.timeout, 20.0)),
        limits=httpx.Limits(max_connections=server.concurrency, max_keepalive_connections=server.concurrency),
    )


def retry_after(header: str | None) -> float:
    """Seconds of a Retry-After header, given in seconds or as a date; 0 where there is none or it is neither."""
    if not header:
        return 0.0
    try:
        seconds = float(header)
        return max(0.0, seconds) if not math.isnan(seconds) else 0.0
    except ValueError:
        pass
    try:
        until = email.utils.parsedate_to_datetime(header)
    except (ValueError, OverflowError):
        return 0.0
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.fromtimestamp(time.time(), UTC)).total_seconds())
