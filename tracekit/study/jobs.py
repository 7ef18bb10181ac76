"""Jobs of a study: a graph on disk that any number of workers, on any number of machines, work off together.

A job is claimed (see `job_claims`), and done when its record stands. A killed worker's claim goes stale and the job is
taken up again; every job resumes from its own files. A record that cannot be read is set aside, and its job done again.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import secrets
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.core.runs import Progress, commit, write_text
from tracekit.study.job_claims import Claims

HEARTBEAT_SECONDS = 2.0
POLL_SECONDS = 0.2


class ClaimLost(Exception):
    """Another worker has taken the job over: this one stops, and leaves no record."""


class JobError(ValueError):
    """A job of a study failed: the message names it and where its log stands."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work: its name, what must be done before, and the stage its seconds are counted in."""

    name: str
    stage: str
    after: tuple[str, ...] = ()


class Board:
    """Where the jobs of a study stand: `jobs/NAME.{claim,beat-TOKEN,progress,done,failed}` in its folder."""

    def __init__(self, folder: Path, jobs: Sequence[Job]) -> None:
        self.folder = folder / "jobs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.jobs = {job.name: job for job in jobs}
        self.claims = Claims(self.folder)
        self._read_records: dict[str, dict[str, Any]] = {}

    def path(self, name: str, what: str) -> Path:
        """The file of a job."""
        return self.folder / f"{name.replace('/', '.')}.{what}"

    def is_done(self, name: str) -> bool:
        """Whether the job's record stands and can be read. One that cannot is set aside, with a warning."""
        return self.record(name) is not None

    def record(self, name: str) -> dict[str, Any] | None:
        """The record of a done job: seconds, peak_bytes, the jobs it rested on (after), the commit that did it."""
        path = self.path(name, "done")
        if name in self._read_records and path.exists():
            return self._read_records[name]
        self._read_records.pop(name, None)
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return None
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("seconds"), int | float):
            aside = path.with_name(f"{path.name}.damaged-{secrets.token_hex(4)}")
            with contextlib.suppress(FileNotFoundError):  # another worker has set it aside
                path.rename(aside)
                warnings.warn(
                    f"{path} could not be read; it is kept as {aside.name}, and {name} is done again.", stacklevel=2
                )
            return None
        self._read_records[name] = found
        return found

    def all_done(self) -> bool:
        """Whether nothing is left to do."""
        return all(self.is_done(name) for name in self.jobs)

    def failure(self) -> str | None:
        """What the first failed job said last, and where its trace stands; None where none failed."""
        for name in self.jobs:
            path = self.path(name, "failed")
            if path.exists():
                lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
                last = lines[-1] if lines else "its record says nothing"
                return f"{name} failed: {last} (the whole trace: {path})"
        return None

    def clear_failures(self) -> None:
        """Forget failures, so that a new start tries those jobs again."""
        for name in self.jobs:
            self.path(name, "failed").unlink(missing_ok=True)

    def reopen_outgrown(self) -> None:
        """Take back what was done from less than it now rests on: a study may grow by seeds and arms."""
        for name, record in self.records().items():
            needs = set(self.jobs[name].after)  # a worker reads the arms from run.json, where they stand by name
            if set(record.get("after", needs)) != needs:
                self.path(name, "done").unlink()

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all done jobs."""
        found = {name: self.record(name) for name in self.jobs}
        return {name: record for name, record in found.items() if record is not None}

    def claim(self) -> Job | None:
        """Take a ready job, in the order of the graph; None where none is ready."""
        for job in self.jobs.values():
            if self.is_done(job.name) or not all(self.is_done(name) for name in job.after):
                continue
            if not self.claims.take(job.name):
                continue
            if not self.is_done(job.name):  # it may have been finished between the look and the claim
                return job
            self.claims.release(job.name)
        return None

    def under_way(self) -> dict[str, tuple[str, int, int, str]]:
        """Job → the latest progress it reported."""
        found = {}
        for name in self.jobs:
            path = self.path(name, "progress")
            if self.path(name, "claim").exists() and path.exists():
                try:
                    stage, done, total, note = json.loads(path.read_text(encoding="utf-8"))
                except (ValueError, TypeError, FileNotFoundError):  # replaced while it was read, or damaged
                    continue
                found[name] = (stage, done, total, note)
        return found


def work(
    board: Board, perform: Callable[[Job, Progress], None], leader: int | None = None, most: int | None = None
) -> bool:
    """Do ready jobs until all are done or one failed; True where `most` of them were done before that.

    leader: stop when that process is gone.
    """
    done = 0
    while not board.all_done() and board.failure() is None:
        if leader is not None and os.getppid() != leader:
            return False
        if done == most:
            return True
        job = board.claim()
        if job is None:
            time.sleep(POLL_SECONDS)
            continue
        _perform(board, job, perform)
        done += 1
    return False


def _perform(board: Board, job: Job, perform: Callable[[Job, Progress], None]) -> None:
    finished, lost = threading.Event(), threading.Event()

    def keep_claim() -> None:
        count = 0
        while not finished.wait(HEARTBEAT_SECONDS):
            if not board.claims.holds(job.name):
                lost.set()
                return
            count += 1
            board.claims.beat(job.name, count)

    reported = 0.0

    def report(stage: str, done: int, total: int, note: str = "") -> None:
        nonlocal reported
        if lost.is_set():
            raise ClaimLost(job.name)
        if time.monotonic() - reported > 0.5 or done == total:
            reported = time.monotonic()
            write_text(board.path(job.name, "progress"), json.dumps([stage, done, total, note]))

    heart = threading.Thread(target=keep_claim, daemon=True)
    heart.start()
    started = time.perf_counter()
    outcome: tuple[str, str] | None = None
    try:
        perform(job, report)
    except ClaimLost:
        pass
    except Exception:  # the board carries any fault of a job to the process that watches, which raises it
        outcome = ("failed", traceback.format_exc())
    else:
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        record = {"seconds": round(seconds, 3), "peak_bytes": peak, "after": job.after, "commit": commit()}
        outcome = ("done", json.dumps(record))
    finally:
        finished.set()
        heart.join()
        if outcome is not None and board.claims.holds(job.name):
            write_text(board.path(job.name, outcome[0]), outcome[1])
            board.path(job.name, "progress").unlink(missing_ok=True)
        board.claims.release(job.name)


def lead(folder: Path, board: Board, workers: int, environment: Mapping[str, str], progress: Progress) -> None:
    """Start workers and watch the board until all is done. Raises JobError where a job failed or a worker died.

    environment: variables of the workers, laid over this process's.
    """
    board.clear_failures()
    command = [sys.executable, "-m", "tracekit.study.worker", str(folder), str(os.getpid())]
    log = (folder / "jobs" / "workers.log").open("ab")
    crew = [
        subprocess.Popen(command, env={**os.environ, **environment}, stdout=log, stderr=log) for _ in range(workers)
    ]
    try:
        while not board.all_done():
            time.sleep(POLL_SECONDS)
            failure = board.failure()
            if failure:
                raise JobError(f"{failure}\nThe study goes on from here when the same command is run again.")
            if all(worker.poll() is not None for worker in crew):
                raise JobError(f"every worker has ended before the study was done; their last words: {log.name}")
            _tell(board, progress)
        _tell(board, progress)
    finally:
        for worker in crew:
            if worker.poll() is None and not board.all_done():
                worker.kill()
            worker.wait()
        log.close()


def _tell(board: Board, progress: Progress) -> None:
    done = sum(board.is_done(name) for name in board.jobs)
    notes = []
    for name, (stage, at, total, note) in board.under_way().items():
        share = f" {at}/{total}" if total else ""
        notes.append(f"{name}: {stage}{share} {note}".strip())
    progress("study", done, len(board.jobs), " │ ".join(notes))
