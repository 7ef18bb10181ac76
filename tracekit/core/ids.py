"""Content-hash ids: the same words make the same id on every machine and in every run."""

from __future__ import annotations

import hashlib
from pathlib import Path


def content_id(*parts: str) -> str:
    """16 hexadecimal digits of BLAKE2b over the parts; a separator keeps ("ab", "c") from ("a", "bc")."""
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        digest.update(part.encode("utf-8", "surrogatepass"))
        digest.update(b"\x1f")
    return digest.hexdigest()


def problem_id(source: str, problem: str, gold: str) -> str:
    """Id of a problem."""
    return content_id("problem", source, problem, gold)


def trace_id(problem: str, author: str, response: str) -> str:
    """Id of a trace; `problem` is its problem_id."""
    return content_id("trace", problem, author, response)


def file_digest(path: Path) -> str:
    """BLAKE2b of a file's bytes, 16 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=8)).hexdigest()
