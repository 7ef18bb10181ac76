"""Who does a job: claims as files that are made once and never changed.

The first claim of a job is `JOB.claim`; who takes a stale one over makes `JOB.claim-TOKEN` with the token of the claim
that it follows. Making a file that must not exist is the only step that two workers can race for, so each claim has at
most one successor, and the last of the chain owns the job. An owner beats in a file of its own, `JOB.beat-TOKEN`.

A claim is stale where its process is gone (told by process id and start time, on the same host), or where neither it
nor its beat has changed for STALE_SECONDS by the watcher's own clock. No clock of another machine counts.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import socket
import time
from dataclasses import dataclass, field
from pathlib import Path

from tracekit.core.runs import write_text

STALE_SECONDS = 30.0  # a claim without a sign of life for so long belongs to a worker that died


@dataclass(frozen=True, slots=True)
class Owner:
    """Who made a claim. `started`: of the process, in the kernel's ticks; None where it was not told."""

    token: str
    host: str = ""
    pid: int = 0
    started: int | None = None


@dataclass
class Claims:
    """The claims in a folder, as one watcher sees them.

    seen: job → (token and beat, when this watcher first saw them, by its own monotonic clock).
    held: job → the token of this process's own claim.
    """

    folder: Path
    seen: dict[str, tuple[tuple[str, str], float]] = field(default_factory=dict)
    held: dict[str, str] = field(default_factory=dict)

    def take(self, name: str) -> bool:
        """Claim a job that nobody holds, or whose owner is gone; False where another has it or was faster."""
        owner = self.owner(name)
        if owner is not None and not self._is_stale(name, owner):
            return False
        return self._make(name, owner)

    def owner(self, name: str) -> Owner | None:
        """The last of the chain of claims; None where there is none."""
        owner, path = None, self._first(name)
        while (following := _read(path)) is not None:
            owner = following
            path = self._successor(name, owner.token)
        return owner

    def holds(self, name: str) -> bool:
        """Whether this process's claim is still the last of its chain."""
        owner = self.owner(name)
        return owner is not None and owner.token == self.held.get(name)

    def beat(self, name: str, count: int) -> None:
        """Show a sign of life. Only this owner's own file is written."""
        write_text(self._beat(name, self.held[name]), str(count))

    def release(self, name: str) -> None:
        """Take the chain away from its end, where this process still owns it."""
        if not self.holds(name):
            self._beat(name, self.held.pop(name, "")).unlink(missing_ok=True)
            return
        chain, path = [], self._first(name)
        while (owner := _read(path)) is not None:
            chain.append((path, owner.token))
            path = self._successor(name, owner.token)
        for path, token in reversed(chain):
            path.unlink(missing_ok=True)
            self._beat(name, token).unlink(missing_ok=True)
        self.held.pop(name, None)

    def _make(self, name: str, after: Owner | None) -> bool:
        token = secrets.token_hex(8)
        record = {"token": token, "host": socket.gethostname(), "pid": os.getpid(), "started": started_at(os.getpid())}
        target = self._first(name) if after is None else self._successor(name, after.token)
        written = write_text(self.folder / f".{token}.claim", json.dumps(record))
        try:
            os.link(written, target)  # the whole claim at once, and only where there is none
        except FileExistsError:
            return False
        finally:
            written.unlink(missing_ok=True)
        self.held[name] = token
        return True

    def _is_stale(self, name: str, owner: Owner) -> bool:
        if owner.host == socket.gethostname() and owner.pid:
            started = started_at(owner.pid)
            if started is None or (owner.started is not None and started != owner.started):
                return True
            if owner.started is not None:
                return False  # it is the very process, and it lives
        now, sign = time.monotonic(), (owner.token, _text(self._beat(name, owner.token)))
        known, since = self.seen.get(name, (None, now))
        if known != sign:
            self.seen[name] = (sign, now)
            return False
        return now - since > STALE_SECONDS

    def _first(self, name: str) -> Path:
        return self.folder / f"{_file(name)}.claim"

    def _successor(self, name: str, token: str) -> Path:
        return self.folder / f"{_file(name)}.claim-{token}"

    def _beat(self, name: str, token: str) -> Path:
        return self.folder / f"{_file(name)}.beat-{token}"


def _file(name: str) -> str:
    return name.replace("/", ".")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return ""


def _read(path: Path) -> Owner | None:
    """The owner that a claim names; None where there is no claim.

    A damaged claim has an owner that nobody knows: its token is the digest of what stands there, and it goes stale.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    unknown = Owner(hashlib.sha256(content).hexdigest()[:16])
    try:
        found = json.loads(content)
        token, started = found.get("token", unknown.token), found.get("started")
        host, pid = found["host"], found["pid"]
    except (ValueError, KeyError, AttributeError, TypeError):
        return unknown
    sound = isinstance(token, str) and token.isalnum() and isinstance(host, str) and type(pid) is int and pid > 0
    return Owner(token, host, pid, started if type(started) is int else None) if sound else unknown


def started_at(pid: int) -> int | None:
    """When a process of this host started, in ticks since boot; None where it is gone (or a zombie)."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None if Path("/proc/self").exists() else _lives(pid)
    fields = text.rpartition(")")[2].split()  # the name before may hold blanks and brackets
    return None if fields[0] in ("Z", "X") else int(fields[19])


def _lives(pid: int) -> int | None:
    """Where there is no /proc: 0 for a process that lives, whose start cannot be told."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0
