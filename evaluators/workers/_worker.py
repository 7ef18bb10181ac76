"""The worker interpreter: `python -m evaluators.workers._worker` answers JSON lines on its pipes.

Each request is one line `[number, payload]`; each answer one line `[number, kind, value]` with kind "value", "memory",
"deadline" (the CPU time that the request allows is used up) or "error". The first line out is `[0, "ready", null]`,
once the task's imports are done.
A thread reads the requests, so that the end of the parent ends this process even in the midst of a computation.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

Task = Callable[[Any], Any]
#: CPU seconds beyond its limit after which a case that no signal handler can interrupt ends the whole worker.
HARD_SECONDS = 2


class OutOfTime(BaseException):
    """The CPU time of a case is used up; no library that catches Exception stops it."""


@contextlib.contextmanager
def cpu_limit(seconds: float) -> Iterator[None]:
    """Raise OutOfTime in the block once it has used `seconds` of this process's CPU time, whatever the clock says."""
    if not hasattr(signal, "setitimer"):  # not a POSIX system: the caller's wall clock alone bounds the case
        yield
        return
    armed = True

    def interrupt(signum: int, frame: Any) -> None:
        if armed:
            raise OutOfTime

    signal.signal(signal.SIGPROF, interrupt)
    _limit_cpu(time.process_time() + seconds + HARD_SECONDS)
    signal.setitimer(signal.ITIMER_PROF, seconds, 0.05)  # again, should a bare except have swallowed the first
    try:
        yield
    finally:
        armed = False
        signal.setitimer(signal.ITIMER_PROF, 0)


def _limit_cpu(seconds: float) -> None:
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    wanted = math.ceil(seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


def main(task: str, memory_bytes: int) -> None:
    """Serve one task ("symbolic" or "verify") until standard input ends."""
    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)  # a print of a library must not enter the protocol
    _limit_memory(memory_bytes)
    run = TASKS[task]()
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(sys.stdin.buffer, requests), daemon=True).start()
    _write(answers, 0, "ready", None)
    while True:
        number, payload = json.loads(requests.get())
        try:
            kind, value = "value", run(payload)
        except MemoryError:
            kind, value = "memory", None
        except OutOfTime:
            kind, value = "deadline", None
        except Exception as error:  # the process boundary: the parent says it, with the type's name
            kind, value = "error", f"{type(error).__name__}: {error}"
        _write(answers, number, kind, value)


def _symbolic() -> Task:
    from evaluators.parsing.tree import ONE, TWO, Node, from_json
    from evaluators.workers.symbolic import symbolic_equal

    x = Node("sym", (), "x")  # sympy imports much at its first use: that is no case's time
    symbolic_equal(Node("pow", (Node("add", (x, ONE)), TWO)), Node("fn", (x,), "sin"))

    def run(payload: Any) -> list[Any]:
        """The answer and the CPU seconds that it took."""
        a, b, seconds = payload
        before = time.process_time()
        with cpu_limit(seconds):
            same = symbolic_equal(from_json(a), from_json(b))
        return [same, time.process_time() - before]

    return run


def _verify() -> Task:
    from dataclasses import astuple

    from evaluators.batch import Breaker, Pair
    from evaluators.verdict import Policy
    from evaluators.workers import pool as deadline

    deadline.set_worker_count(1)  # the batch has its own workers: one symbolic worker behind each is enough

    def run(payload: Any) -> list[Any]:
        settings, pairs, timeouts = payload
        breaker = Breaker(Policy(**settings), timeouts)
        verdicts = [breaker.verify(Pair(*pair)) for pair in pairs]
        return [(verdict.rule, *astuple(verdict)) for verdict in verdicts]

    return run


TASKS: dict[str, Callable[[], Task]] = {"symbolic": _symbolic, "verify": _verify}


def _read(pipe: BinaryIO, requests: queue.SimpleQueue[bytes]) -> None:
    for line in pipe:
        requests.put(line)
    os._exit(0)


def _write(pipe: Any, number: int, kind: str, value: Any) -> None:
    line = memoryview(json.dumps([number, kind, value]).encode("ascii") + b"\n")
    while line:  # an unbuffered pipe may take less than it is given
        line = line[pipe.write(line) :]


def _limit_memory(memory_bytes: int) -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system: the deadline alone bounds the worker
        return
    hard = resource.getrlimit(resource.RLIMIT_AS)[1]
    limit = memory_bytes if hard == resource.RLIM_INFINITY else min(memory_bytes, hard)
    resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
