"""Segmenting in several interpreters: `python -m tracekit.text.segment_worker` is one of them.

Interpreters of their own and not multiprocessing: nothing asks the caller's script for a main guard. Each takes the
names of two files a line, traces and where their steps go, and answers with a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import polars as pl

from tracekit.text.segment import segment_traces

#: Below so many characters one interpreter is done before a second has started.
WORTH_A_WORKER = 10_000_000


class WorkerError(RuntimeError):
    """A worker ended without its table: the message holds what it said."""


class Segmenters:
    """`segment_traces` over several interpreters, started where the text is long enough and kept until the end.

    Parameters
    ----------
    workers
        Interpreters, this one among them; 0: one a core.

    Examples
    --------
    >>> with Segmenters(workers=1) as segmenters:
    ...     segmenters.segment(pl.DataFrame({"trace_id": ["a"], "response": ["1 + 1 = 2"]}))["kind"].to_list()
    ['calculation']
    """

    def __init__(self, workers: int = 0) -> None:
        self._workers = workers or os.cpu_count() or 1
        self._others: list[subprocess.Popen[str]] = []

    def __enter__(self) -> Segmenters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._others:
            if kind is not None:
                process.kill()
            process.communicate()  # the end of its input ends it
        self._others.clear()

    def segment(self, traces: pl.DataFrame) -> pl.DataFrame:
        """TRACES → STEPS, in the order of the traces. Raises WorkerError."""
        if self._workers == 1 or traces["response"].str.len_bytes().sum() < WORTH_A_WORKER:
            return segment_traces(traces)
        while len(self._others) < self._workers - 1:
            self._others.append(_start())
        shares = list(_shares(traces, self._workers))
        with tempfile.TemporaryDirectory() as folder:
            for number, (process, share) in enumerate(zip(self._others, shares[1:], strict=True)):
                source = Path(folder, f"{number}.arrow")
                share.write_ipc(source)
                _say(process, json.dumps([str(source), str(source.with_suffix(".steps"))]))
            steps = [segment_traces(shares[0])]
            for number, process in enumerate(self._others):
                assert process.stdout is not None  # it was asked for
                if not process.stdout.readline():
                    raise _failure(process)
                steps.append(pl.read_ipc(Path(folder, f"{number}.steps")))
            return pl.concat(steps)


def segment_in_processes(traces: pl.DataFrame, workers: int = 0) -> pl.DataFrame:
    """`segment_traces` over `workers` interpreters (0: one a core); the same rows in the same order."""
    with Segmenters(workers) as segmenters:
        return segmenters.segment(traces)


def _shares(traces: pl.DataFrame, count: int) -> Iterator[pl.DataFrame]:
    """Consecutive shares of about equal text."""
    before = traces["response"].str.len_bytes().cum_sum()
    ends = [before.search_sorted(before[-1] * share // count) for share in range(1, count)]
    for start, end in zip([0, *ends], [*ends, traces.height], strict=True):
        yield traces.slice(start, end - start)


def _start() -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tracekit.text.segment_worker"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _failure(process: subprocess.Popen[str]) -> WorkerError:
    _, message = process.communicate()
    return WorkerError(f"a segmenting worker ended with {process.returncode}: {message[-1000:]}")


def _say(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None  # it was asked for
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError as error:
        raise _failure(process) from error


def _work() -> None:
    for line in sys.stdin:
        source, out = json.loads(line)
        segment_traces(pl.read_ipc(source)).write_ipc(out)
        print("made", flush=True)


if __name__ == "__main__":
    _work()
