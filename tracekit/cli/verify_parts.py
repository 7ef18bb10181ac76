"""Verify a long list part by part, each part kept on disk: a killed `tracekit verify` goes on where it stood."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluators.batch import Progress, verify_batch, warn_of_unparsed_golds
from evaluators.service.judge import Judge
from evaluators.verdict import Outcome, Policy, Verdict

#: Rows verified between two writes: what a kill costs. Part of the result: a part has its own breaker.
PART_ROWS = 2_000


def verify_in_parts(
    responses: Sequence[Any],
    golds: Sequence[Any],
    prompts: Sequence[Any] | None,
    *,
    policy: Policy,
    workers: int | None,
    journal: Path | None,
    progress: Progress,
    judge: Judge | None = None,
) -> list[Verdict]:
    """One verdict a row. journal: file that holds the finished parts until the caller removes it; None keeps nothing.

    A journal of other rows or another policy is written anew.
    """
    key = _key(responses, golds, prompts, policy, None if judge is None else judge.model)
    verdicts = _kept(journal, key)[: len(golds)] if journal else []
    if journal and not verdicts:
        _start(journal, key)
    total = len(golds)
    while len(verdicts) < total:
        part = slice(len(verdicts), len(verdicts) + PART_ROWS)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # golds that cannot be read are told once, of all rows together
            made = verify_batch(
                responses[part],
                golds[part],
                policy=policy,
                workers=workers,
                prompts=None if prompts is None else prompts[part],
                progress=_shifted(progress, len(verdicts), total),
                judge=judge,
            )
        if journal:
            _append(journal, made)
        verdicts += made
    warn_of_unparsed_golds(verdicts)
    return verdicts


def journal_of(output: Path) -> Path:
    """The hidden file beside a result that holds its finished parts."""
    return output.with_name(f".{output.name}.parts.jsonl")


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    def report(stage: str, done: int, _: int, note: str) -> None:
        progress(stage, before + done, total, note)

    return report


def _key(
    responses: Sequence[Any], golds: Sequence[Any], prompts: Sequence[Any] | None, policy: Policy, judge: str | None
) -> str:
    """A digest of everything that decides a verdict."""
    digest = hashlib.blake2b(json.dumps([asdict(policy), _code(), PART_ROWS, judge]).encode(), digest_size=16)
    for row in zip(responses, golds, prompts or [None] * len(golds)):
        digest.update(json.dumps(row, default=repr).encode())
    return digest.hexdigest()


def _code() -> str:
    """A digest of the verifier's own source: another release makes other verdicts."""
    import evaluators

    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(Path(evaluators.__path__[0]).rglob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _kept(journal: Path, key: str) -> list[Verdict]:
    """The verdicts of whole parts in a journal of this key; a part that a kill cut off is taken off the file."""
    if not journal.is_file():
        return []
    with journal.open("r+b") as file:
        if file.readline().strip().decode("utf-8", "replace") != key:
            return []
        verdicts: list[Verdict] = []
        whole = file.tell()
        while line := file.readline():
            part = _part_of(line)
            if part is None:
                break
            verdicts += part
            whole = file.tell()
        file.truncate(whole)
    return verdicts


def _part_of(line: bytes) -> list[Verdict] | None:
    """The verdicts of a line; None where its writing was cut off."""
    try:
        return [Verdict(**{**record, "outcome": Outcome(record["outcome"])}) for record in json.loads(line)]
    except (ValueError, TypeError, KeyError):
        return None


def _start(journal: Path, key: str) -> None:
    journal.parent.mkdir(parents=True, exist_ok=True)
    journal.write_text(key + "\n", encoding="utf-8")


def _append(journal: Path, verdicts: Sequence[Verdict]) -> None:
    """Add a part as one line, synced."""
    with journal.open("ab") as file:
        records = [{**asdict(one), "outcome": str(one.outcome)} for one in verdicts]
        file.write(json.dumps(records).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
