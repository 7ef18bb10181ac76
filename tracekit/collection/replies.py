"""The border to a server: what it sends is checked against one model before anything of it is written.

An answer is its text; where that is wrong the whole reply is refused. Counts, log-probs and the finish reason are
beside it: one that is nonsense becomes unknown, and the answer, which was paid for, is kept.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any, TypeGuard

from pydantic import BaseModel, ConfigDict, ValidationError

from tracekit.reading.turns import join_thought

#: Tokens of one answer or prompt that we believe; a larger count is nonsense, and no Int32 holds it.
MOST_TOKENS = 100_000_000
#: Pieces of the key of so many characters are masked, too: a server may repeat a part of it.
KEY_PIECE = 8


class ReplyError(ValueError):
    """A reply is no chat completion; the message says why."""


@dataclass(frozen=True, slots=True)
class Generation:
    """One answer of a teacher.

    response: think block and answer; a server that splits them is read back into `<think>…</think>`.
    token_log_probs: natural, of the tokens as sampled; None where not given or where they are of another text.
    token_count: tokens that were generated; None where the server does not say. prompt_tokens likewise.
    finish_reason: "stop", "length", or as the server says; "unknown" where that is no short text.
    """

    response: str
    token_log_probs: list[float] | None
    token_count: int | None
    finish_reason: str
    prompt_tokens: int | None = None


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Message(_Model):
    content: str | None = None
    # vLLM names the split-off thought `reasoning`, earlier versions and other servers `reasoning_content`.
    reasoning: str | None = None
    reasoning_content: str | None = None


class _Choice(_Model):
    message: _Message
    finish_reason: Any = None
    logprobs: Any = None


class _Completion(_Model):
    choices: list[_Choice]
    usage: Any = None


def read_answer(body: Any) -> Generation:
    """Return the first choice of a chat completion. Raises ReplyError where it is none."""
    try:
        completion = _Completion.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        raise ReplyError(f"{'.'.join(map(str, first['loc'])) or 'the reply'}: {first['msg']}") from None
    if not completion.choices:
        raise ReplyError("choices is empty")
    choice = completion.choices[0]
    content = choice.message.content or ""
    reasoning = choice.message.reasoning or choice.message.reasoning_content or ""
    if not content and not reasoning:
        raise ReplyError("the message is empty")
    log_probs = read_log_probs(choice.logprobs)
    usage = completion.usage if isinstance(completion.usage, dict) else {}
    count = token_count(usage.get("completion_tokens"))
    return Generation(
        response=_whole(join_thought(reasoning, content)),
        # A split-off thought has lost its tags: its log-probs are of a text that we do not have.
        token_log_probs=None if reasoning else log_probs,
        token_count=count if count is not None else len(log_probs) if log_probs else None,
        finish_reason=_finish_reason(choice.finish_reason),
        prompt_tokens=token_count(usage.get("prompt_tokens")),
    )


def token_count(value: Any) -> int | None:
    """A count of tokens as a server says it; None where it is no plausible one."""
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS
    return value if known else None


def read_log_probs(logprobs: Any) -> list[float] | None:
    """The log-probs of a choice; None where there are none, or where one of them is no log-probability."""
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    if not isinstance(tokens, list) or not tokens:
        return None
    values = [token.get("logprob") if isinstance(token, dict) else None for token in tokens]
    known = [round(float(value), 6) for value in values if _is_log_prob(value)]
    return known if len(known) == len(values) else None


def _is_log_prob(value: Any) -> TypeGuard[float]:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and -1e9 < value < 1e-3 and math.isfinite(value)  # a rounding above 0 is allowed


def _finish_reason(value: Any) -> str:
    if value is None:
        return "stop"
    return value if isinstance(value, str) and 0 < len(value) <= 40 and value.isprintable() else "unknown"


def _whole(text: str) -> str:
    """JSON can name half a character (a lone surrogate), which no file can hold: it becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


async def read_bytes(pieces: AsyncIterator[bytes], encoding: str, limit: int) -> bytes:
    """A body of at most `limit` bytes, unpacked. Raises ReplyError where it is longer or packed in another way.

    encoding: the header content-encoding. Unpacking stops at the limit, however much a small body would become.
    """
    unpack = _unpacker(encoding)
    body = bytearray()
    async for piece in pieces:
        try:
            body += piece if unpack is None else unpack.decompress(piece, limit + 1 - len(body))
        except zlib.error as error:
            raise ReplyError(f"the reply cannot be unpacked ({error})") from None
        if len(body) > limit:
            raise ReplyError(f"the reply is longer than {limit:,} bytes")
    if unpack is not None and not unpack.eof:
        raise ReplyError("the reply's compressed body breaks off")
    return bytes(body)


def _unpacker(encoding: str) -> Any:
    names = [name for name in encoding.lower().replace(" ", "").split(",") if name not in ("", "identity")]
    if not names:
        return None
    if names == ["gzip"] or names == ["x-gzip"]:
        return zlib.decompressobj(16 + zlib.MAX_WBITS)
    if names == ["deflate"]:
        return zlib.decompressobj()
    raise ReplyError(f"the reply is packed as {encoding[:40]!r}; asked for was gzip or nothing")


def read_json(body: bytes) -> Any:
    """The JSON of a reply. Raises ReplyError."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise ReplyError(f"no JSON ({type(error).__name__}: {str(error)[:100]})") from None


def masked(text: str, key: str | None) -> str:
    """The text without the key, and without any piece of it of KEY_PIECE characters."""
    if not key:
        return text
    text = text.replace(key, "…")
    pieces = {key[start : start + KEY_PIECE] for start in range(len(key) - KEY_PIECE + 1)}
    if not any(piece in text for piece in pieces):
        return text
    kept, position = [], 0
    while position < len(text):
        if text[position : position + KEY_PIECE] in pieces:
            position += KEY_PIECE
            while position < len(text) and text[position - KEY_PIECE + 1 : position + 1] in pieces:
                position += 1
            kept.append("…")
        else:
            kept.append(text[position])
            position += 1
    return "".join(kept)
