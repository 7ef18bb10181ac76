"""Segmenting in several interpreters: `python -m tracekit.text.segment_worker IN.parquet OUT.parquet` is one of them.

Interpreters of their own and not multiprocessing: nothing asks the caller's script for a main guard.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import polars as pl

from tracekit.text.segment import segment_traces

#: Below so many characters one interpreter is done before a second has started.
WORTH_A_WORKER = 10_000_000


class WorkerError(RuntimeError):
    """A worker ended without its table: the message holds what it said."""


def segment_in_processes(traces: pl.DataFrame, workers: int = 0) -> pl.DataFrame:
    """`segment_traces` over `workers` interpreters (0: one a core); the same rows in the same order."""
    workers = workers or os.cpu_count() or 1
    characters = traces["response"].str.len_chars().sum()
    if workers == 1 or characters < WORTH_A_WORKER:
        return segment_traces(traces)
    with tempfile.TemporaryDirectory() as folder:
        size = -(-traces.height // workers)
        outs, processes = [], []
        for part in range(workers):
            source, out = Path(folder, f"{part}.parquet"), Path(folder, f"{part}-steps.parquet")
            traces.slice(part * size, size).write_parquet(source, compression="lz4")
            command = [sys.executable, "-m", "tracekit.text.segment_worker", str(source), str(out)]
            processes.append(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
            outs.append(out)
        for process in processes:
            _, said = process.communicate()
            if process.returncode:
                raise WorkerError(f"a segmenting worker ended with {process.returncode}: {said[-1000:]}")
        return pl.concat([pl.read_parquet(out) for out in outs])


if __name__ == "__main__":
    segment_traces(pl.read_parquet(sys.argv[1])).write_parquet(sys.argv[2])
