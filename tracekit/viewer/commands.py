"""The command of the page."""

from __future__ import annotations

import webbrowser
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from tracekit.viewer.build import build_view


def command_view(run: Path, *beside: Path, out: Path | None = None, open: bool = False) -> None:
    """Write a page to read traces, decisions and rollouts by. It opens from disk: no server, no network.

    Example: tracekit view runs/gsm8k

    Parameters
    ----------
    run
        A curation, a collection, a training run or an evaluation.
    beside
        More runs on the same page: a student's rollouts beside the teacher's traces of the same problems.
    out
        The folder to write; RUN/view where not given.
    open
        Open the page in the browser.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = Console()
    with Bars(*columns, console=console) as bars:
        task = bars.add_task("view", total=None)

        def report(stage: str, done: int, total: int, note: str = "") -> None:
            bars.update(task, description=stage, completed=done, total=total or None)

        page = build_view(run, *beside, out=out, progress=report)
    console.print(f"{page}", soft_wrap=True)
    if open:
        webbrowser.open(page.resolve().as_uri())
