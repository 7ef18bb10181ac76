"""Jobs of a study: a graph on disk that any number of workers, on any number of machines, work off together.

A job is claimed by making its claim file (exclusively), kept by touching it, and done when its record
stands. A killed worker's claim goes stale and the job is taken up again; every job resumes from its own files.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tracekit.core.runs import Progress, commit, write_text

HEARTBEAT_SECONDS = 2.0
STALE_SECONDS = 30.0  # a claim untouched for so long belongs to a worker that died elsewhere
POLL_SECONDS = 0.2


class JobError(ValueError):
    """A job of a study failed: the message names it and where its log stands."""


@dataclass(frozen=True, slots=True)
class Job:
    """One piece of work: its name, what must be done before, and the stage its seconds are counted in."""

    name: str
    stage: str
    after: tuple[str, ...] = ()


class Board:
    """Where the jobs of a study stand: `jobs/NAME.{claim,progress,done,failed}` in its folder."""

    def __init__(self, folder: Path, jobs: Sequence[Job]) -> None:
        self.folder = folder / "jobs"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.jobs = {job.name: job for job in jobs}

    def path(self, name: str, what: str) -> Path:
        """The file of a job."""
        return self.folder / f"{name.replace('/', '.')}.{what}"

    def is_done(self, name: str) -> bool:
        """Whether the job's record stands."""
        return self.path(name, "done").exists()

    def all_done(self) -> bool:
        """Whether nothing is left to do."""
        return all(self.is_done(name) for name in self.jobs)

    def failure(self) -> str | None:
        """What the first failed job said last, and where its trace stands; None where none failed."""
        for name in self.jobs:
            path = self.path(name, "failed")
            if path.exists():
                said = path.read_text(encoding="utf-8").strip().splitlines()[-1]
                return f"{name} failed: {said} (the whole trace: {path})"
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
        """Of each done job: seconds, peak_bytes, the jobs it rested on (after), the commit that did it."""
        found = {}
        for name in self.jobs:
            if self.is_done(name):
                found[name] = json.loads(self.path(name, "done").read_text(encoding="utf-8"))
        return found

    def claim(self) -> Job | None:
        """Take a ready job, in the order of the graph; None where none is ready."""
        for job in self.jobs.values():
            if self.is_done(job.name) or not all(self.is_done(name) for name in job.after):
                continue
            path = self.path(job.name, "claim")
            if path.exists() and not _is_stale(path):
                continue
            path.unlink(missing_ok=True)
            try:
                with path.open("x", encoding="utf-8") as file:
                    json.dump({"host": socket.gethostname(), "pid": os.getpid()}, file)
            except FileExistsError:  # another worker was faster
                continue
            if not self.is_done(job.name):  # it may have been finished between the look and the claim
                return job
            path.unlink(missing_ok=True)
        return None

    def under_way(self) -> dict[str, tuple[str, int, int, str]]:
        """Job → the latest progress it told."""
        found = {}
        for name in self.jobs:
            path = self.path(name, "progress")
            if self.path(name, "claim").exists() and path.exists():
                try:
                    found[name] = tuple(json.loads(path.read_text(encoding="utf-8")))
                except (json.JSONDecodeError, FileNotFoundError):  # replaced while it was read
                    continue
        return found


def _is_stale(path: Path) -> bool:
    try:
        owner = json.loads(path.read_text(encoding="utf-8"))
        age = time.time() - path.stat().st_mtime
    except FileNotFoundError:
        return True
    except json.JSONDecodeError:  # claimed a moment ago, not yet written; or damaged, then its age decides
        return time.time() - path.stat().st_mtime > STALE_SECONDS
    if owner["host"] == socket.gethostname():
        return not Path(f"/proc/{owner['pid']}").exists() if Path("/proc").exists() else age > STALE_SECONDS
    return age > STALE_SECONDS


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
    claim = board.path(job.name, "claim")
    finished = threading.Event()

    def keep_claim() -> None:
        while not finished.wait(HEARTBEAT_SECONDS):
            claim.touch()

    told = 0.0

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        nonlocal told
        if time.monotonic() - told > 0.5 or done == total:
            told = time.monotonic()
            write_text(board.path(job.name, "progress"), json.dumps([stage, done, total, note]))

    heart = threading.Thread(target=keep_claim, daemon=True)
    heart.start()
    started = time.perf_counter()
    try:
        perform(job, tell)
    except Exception:  # the board carries any fault of a job to the process that watches, which raises it
        write_text(board.path(job.name, "failed"), traceback.format_exc())
    else:
        seconds = time.perf_counter() - started
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        record = {"seconds": round(seconds, 3), "peak_bytes": peak, "after": job.after, "commit": commit()}
        write_text(board.path(job.name, "done"), json.dumps(record))
    finally:
        finished.set()
        heart.join()
        claim.unlink(missing_ok=True)
        board.path(job.name, "progress").unlink(missing_ok=True)


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
