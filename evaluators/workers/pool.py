"""Computations that can be killed: warm worker interpreters behind pipes, with a deadline and a memory limit.

A worker is its own interpreter (`python -m evaluators.workers._worker`), fed JSON lines: nothing is forked after a
library has threads, nothing is pickled, the caller needs no `__main__` guard, and no signal is used, so that
it works from any thread, from asyncio and inside another program's workers.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from evaluators.parsing.tree import DeadlineExceeded

logger = logging.getLogger("evaluators")

#: A start (interpreter and sympy: about a second) beyond this is a broken installation or machine.
STARTUP_SECONDS = 60.0
#: Address space of a worker; sympy itself takes about 0.3 GiB of it.
MEMORY_BYTES = 2 * 1024**3
#: CPU seconds of a case's first try. What needs more is tried again with all its budget once no first try waits, so
#: that a few expensive cases do not hold up many cheap ones.
FIRST_TRY_SECONDS = 0.25
#: Wall seconds for each CPU second, and beyond them, after which a worker that answers nothing is taken for stuck.
WALL_FACTOR, WALL_SECONDS = 60.0, 30.0
#: Comparisons remembered, those that used up their budget too.
MEMO_SIZE = 8192
#: Workers that one case may end. Two can be killed from outside at once (one at work, one in reserve).
TRIES = 3


class WorkerBroken(RuntimeError):
    """A worker interpreter does not start: the installation is at fault, not a case."""


class WorkerDied(RuntimeError):
    """A worker ended in the midst of a case."""


class OutOfTime(RuntimeError):
    """A case used up its CPU time where nothing could interrupt it: its worker ended with it."""


def run_symbolic(a: Any, b: Any, budget_seconds: float = 1.0) -> bool | None:
    """Whether two trees are equal by sympy, computed in a worker; None where sympy cannot tell.

    `ask_symbolic` without the cost.
    """
    return ask_symbolic(a, b, budget_seconds)[0]


def ask_symbolic(a: Any, b: Any, budget_seconds: float) -> tuple[bool | None, float]:
    """Whether two trees are equal by sympy, and the CPU seconds that it took; None where sympy cannot tell.

    a, b: trees as `evaluators.parsing.tree.to_json` writes them.
    budget_seconds: CPU time of the computation in its worker. Waiting for a free worker and a worker's start are not
        counted, so that the answer does not depend on the machine's load.

    Equal comparisons are made once: the answer is remembered, as is that a budget did not suffice.
    Raises DeadlineExceeded past the budget or the memory limit, WorkerBroken where no worker ever started.
    """
    kind, value, seconds = _memo.get((a, b), budget_seconds, lambda: _ask(a, b, budget_seconds))
    if kind == "memory":
        raise DeadlineExceeded("the symbolic computation needed more memory than its worker may use")
    if kind == "deadline":
        raise DeadlineExceeded(f"the symbolic computation needed more than {budget_seconds:g} s of CPU time")
    return (None if value is None else bool(value)), seconds


def _ask(a: Any, b: Any, seconds: float) -> tuple[str, Any, float]:
    """One computation in a worker, as (kind, value, CPU seconds)."""
    try:
        kind, value = _pool.ask([a, b], seconds)
    except (WorkerBroken, OSError) as error:
        if not _pool.was_ready:
            raise
        # Workers did start before: the machine is short of processes or memory, and a long run must not end for it.
        logger.error("no symbolic worker starts any more; cases that need one time out: %s", error)
        raise DeadlineExceeded(f"no worker could be started: {error}") from error
    if kind == "error":
        logger.warning("the symbolic tier failed on a case, which stays undecided: %s", value)
        return "value", None, seconds
    return (kind, *value) if kind == "value" else (kind, None, seconds)


class _Memo:
    """Comparisons made and being made: two threads that ask the same wait for one answer."""

    def __init__(self) -> None:
        self.known: OrderedDict[str, tuple[str, Any, float]] = OrderedDict()
        self.running: dict[str, threading.Event] = {}
        self.lock = threading.Lock()

    def get(
        self, question: Any, seconds: float, compute: Callable[[], tuple[str, Any, float]]
    ) -> tuple[str, Any, float]:
        """The remembered answer, else the computed one; an answer within fewer seconds than a case took is no time."""
        key = json.dumps(question)
        while True:
            with self.lock:
                known = self.known.get(key)
                if known is not None and (known[0] == "value" or known[2] >= seconds):
                    self.known.move_to_end(key)
                    return known if known[2] <= seconds or known[0] != "value" else ("deadline", None, seconds)
                event = self.running.get(key)
                if event is None:
                    event = self.running[key] = threading.Event()
                    break
            event.wait()
        try:
            answer = compute()
            with self.lock:
                self.known[key] = answer
                while len(self.known) > MEMO_SIZE:
                    self.known.popitem(last=False)
            return answer
        finally:
            with self.lock:
                del self.running[key]
            event.set()


def warm_up(*, wait: bool = False, count: int = 2) -> None:
    """Start the first symbolic workers now; with `wait`, return when they are ready to answer within their deadline."""
    _pool.warm_up(wait, count)


def set_worker_count(count: int) -> None:
    """How many symbolic workers may stand at once (default: 2 to 8, by the number of cores)."""
    _pool.limit = max(1, count)


def close() -> None:
    """End all symbolic workers; the next use starts new ones. Called at exit."""
    _pool.close()


class Worker:
    """One worker interpreter. Not for two threads at once.

    task: "symbolic" or "verify", see `evaluators.workers._worker`.
    """

    def __init__(self, task: str, memory_bytes: int = MEMORY_BYTES) -> None:
        command = [sys.executable, "-P", "-m", "evaluators.workers._worker", task, str(memory_bytes)]
        search_path = os.pathsep.join(os.path.abspath(entry or ".") for entry in sys.path)
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL if task == "symbolic" else None,
            env=os.environ | {"PYTHONPATH": search_path, "OMP_NUM_THREADS": "1"},
            bufsize=0,
            start_new_session=True,  # Ctrl-C belongs to the caller
        )
        self.ready = False
        self._number = 0
        self._buffer = b""
        assert self.process.stdout is not None
        self._poll = select.poll()
        self._poll.register(self.process.stdout, select.POLLIN | select.POLLHUP)

    def wait_ready(self, seconds: float = STARTUP_SECONDS) -> None:
        """Return when the worker has done its imports.

        Raises WorkerDied where it was killed, WorkerBroken where it ends by itself or takes over `seconds`.
        """
        if self.ready:
            return
        try:
            line = self._read_line(time.monotonic() + seconds)
        except DeadlineExceeded as error:
            raise self._broken(error) from error
        except WorkerDied as error:
            status = self.process.wait()
            if status < 0:
                raise WorkerDied(f"the worker was killed by signal {-status} while it started") from error
            raise self._broken(error) from error
        assert json.loads(line)[1] == "ready"
        self.ready = True

    def _broken(self, error: Exception) -> WorkerBroken:
        self.kill()
        return WorkerBroken(
            f"the worker {sys.executable} -m evaluators.workers._worker did not start ({error}); "
            "run that command with `symbolic 2147483648` to see why"
        )

    def is_warm(self) -> bool:
        """Whether `wait_ready` would return at once."""
        return self.ready or bool(self._poll.poll(0))

    def send(self, payload: Any) -> None:
        """Give the worker a case. Raises WorkerDied."""
        self._number += 1
        assert self.process.stdin is not None
        line = memoryview(json.dumps([self._number, payload]).encode("ascii") + b"\n")
        try:
            while line:
                line = line[self.process.stdin.write(line) :]
        except OSError as error:
            raise WorkerDied(f"the worker is gone: {error}") from error

    def receive(self, until: float) -> tuple[str, Any]:
        """The answer to the case sent last, as (kind, value). Raises WorkerDied, DeadlineExceeded."""
        number, kind, value = json.loads(self._read_line(until))
        assert number == self._number, "one case at a time"
        return kind, value

    def kill(self) -> None:
        """End the process and reap it."""
        self.process.kill()
        self.close_pipes()
        self.process.wait()

    def close_pipes(self) -> None:
        """Let go of both pipes."""
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()

    def _read_line(self, until: float) -> bytes:
        assert self.process.stdout is not None
        while b"\n" not in self._buffer:
            remaining = until - time.monotonic()
            if not self._poll.poll(max(0.0, remaining) * 1000):
                raise DeadlineExceeded("the deadline passed")
            part = self.process.stdout.read(65536)
            if not part:
                if self.process.wait() == -getattr(signal, "SIGXCPU", 0):
                    raise OutOfTime("the worker used up the CPU time of its case")
                raise WorkerDied(f"the worker ended with status {self.process.poll()}")
            self._buffer += part
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line


class _Pool:
    """The symbolic workers: a thread takes one, asks it, gives it back; a killed one is replaced at once."""

    def __init__(self) -> None:
        self.limit = max(2, min(8, os.cpu_count() or 2))
        self.idle: list[Worker] = []
        self.standing = 0
        self.first_tries = 0
        self.was_ready = False
        self.changed = threading.Condition()

    def ask(self, trees: list[Any], seconds: float) -> tuple[str, Any]:
        """Answer as (kind, value): a short try first, and all of the budget where that is not enough."""
        first = min(seconds, FIRST_TRY_SECONDS)
        kind, value = self._ask_for(trees, first, patient=False)
        return self._ask_for(trees, seconds, patient=True) if kind == "deadline" and first < seconds else (kind, value)

    def _ask_for(self, trees: list[Any], seconds: float, patient: bool) -> tuple[str, Any]:
        for tried in range(1, TRIES + 1):
            try:
                return self._ask_once([*trees, seconds], seconds, patient)
            except OutOfTime:
                return "deadline", None
            except WorkerDied as error:  # killed from outside, or by this case: the last try tells
                if tried == TRIES:
                    raise DeadlineExceeded(f"the case ended its worker {TRIES} times; {error}") from error
        raise AssertionError("the last try returns or raises")

    def _ask_once(self, payload: Any, seconds: float, patient: bool) -> tuple[str, Any]:
        worker = self._take(patient)
        healthy = False
        try:
            worker.wait_ready()
            self.was_ready = True
            worker.send(payload)
            kind, value = worker.receive(time.monotonic() + WALL_SECONDS + WALL_FACTOR * seconds)
            healthy = kind != "memory"
        finally:
            self._give_back(worker, healthy)
        return kind, value

    def warm_up(self, wait: bool, count: int) -> None:
        with self.changed:
            self._start_first(count)
            waiting = [worker for worker in self.idle if not worker.ready] if wait else []
            for worker in waiting:
                self.idle.remove(worker)
        for worker in waiting:
            healthy = False
            try:
                worker.wait_ready()
                healthy = self.was_ready = True
            finally:
                self._give_back(worker, healthy)

    def close(self) -> None:
        with self.changed:
            workers, self.idle = self.idle, []
            self.standing -= len(workers)
            self.was_ready = False
        for worker in workers:
            worker.kill()

    def _take(self, patient: bool) -> Worker:
        """A worker, waited for without limit; patient: only once no first try waits."""
        with self.changed:
            self.first_tries += not patient
            try:
                self._drop_dead()
                self._start_first()
                while not self.idle or (patient and self.first_tries):
                    if not self.idle and self.standing < self.limit:
                        self._start()
                    else:
                        self.changed.wait()
                # The last one in is the warmest; one that is still starting is taken only where no other stands.
                place = next((i for i in range(len(self.idle) - 1, -1, -1) if self.idle[i].is_warm()), 0)
                return self.idle.pop(place)
            finally:
                self.first_tries -= not patient
                if not self.first_tries:
                    self.changed.notify_all()

    def _give_back(self, worker: Worker, healthy: bool) -> None:
        if healthy:
            with self.changed:
                self.idle.append(worker)
                self.changed.notify_all()
        else:
            worker.process.kill()
            # Reaping a large process and starting the next take tens of milliseconds that the caller need not wait.
            threading.Thread(target=self._replace, args=(worker,), daemon=True).start()

    def _replace(self, worker: Worker) -> None:
        worker.kill()
        with self.changed:
            self.standing -= 1
            if worker.ready and self is _pool:  # one that never came up would not come up again
                self._start()
            self.changed.notify_all()

    def _drop_dead(self) -> None:
        """Let go of workers that were killed while they stood idle: their end says nothing of the next case."""
        for worker in [worker for worker in self.idle if worker.ready and worker.process.poll() is not None]:
            self.idle.remove(worker)
            worker.close_pipes()
            self.standing -= 1

    def _start_first(self, count: int = 2) -> None:
        while self.standing < min(count, self.limit):  # one to work and one in reserve, should a case kill the first
            self._start()

    def _start(self) -> None:
        self.idle.append(Worker("symbolic"))
        self.standing += 1


_pool = _Pool()
_memo = _Memo()


def _forget_after_fork() -> None:
    """A forked child must not talk on its parent's pipes: it lets go of them and has no workers yet."""
    global _pool, _memo
    _memo = _Memo()
    inherited, limit = _pool, _pool.limit
    for worker in inherited.idle:
        worker.close_pipes()
        worker.process.returncode = 0  # the parent's to reap
    _pool = _Pool()
    _pool.limit = limit


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
atexit.register(close)
