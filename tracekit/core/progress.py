"""Progress on a terminal, drawn for any loop that takes a `Progress`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

#: Where nobody watches (a log file, a pipe), a line this often is enough.
SECONDS_BETWEEN_LINES = 10.0


class Progress(Protocol):
    """Called by every long loop; the command line draws it. `total` 0: not known."""

    def __call__(self, stage: str, done: int, total: int, note: str = "") -> None:
        """`done` of `total` of a stage; `note`: what a person wants to see beside it."""


def no_progress(stage: str, done: int, total: int, note: str = "") -> None:
    """The progress callback of those who do not watch."""


@contextmanager
def draw_progress() -> Iterator[Progress]:
    """A live line on a terminal with time spent and left; plain lines now and then elsewhere. Both on stderr.

    Of several processes (torchrun, accelerate launch) the first alone draws.
    """
    if os.environ.get("RANK", "0") != "0":
        yield no_progress
        return
    if not sys.stderr.isatty():
        yield _plain_lines()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),  # notes may hold model text: never markup
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, TaskID] = {}

        def tell(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total or None, note=note)
            bars.update(tasks[stage], completed=done, total=total or None, note=note)

        yield tell


def _plain_lines() -> Progress:
    told: dict[str, float] = {}
    started = time.monotonic()

    def tell(stage: str, done: int, total: int, note: str = "") -> None:
        now = time.monotonic()
        if stage in told and done != total and now - told[stage] < SECONDS_BETWEEN_LINES:
            return
        told[stage] = now
        share = f"{done}/{total}" if total else str(done)
        print(f"[{now - started:6.0f} s] {stage} {share} {note}".rstrip(), file=sys.stderr, flush=True)

    return tell
