"""The command of the page."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from rich.console import Console

from tracekit.cli.arguments import print_json
from tracekit.core.progress import draw_progress
from tracekit.viewer.build import build_view


def command_view(
    run: Path,
    *beside: Path,
    output: Annotated[Path | None, Parameter(name=["--output", "--out"])] = None,
    open: bool = False,
    json: bool = False,
) -> None:
    """Write a page to read traces, decisions and rollouts by. It opens from disk: no server, no network.

    Example: tracekit view runs/gsm8k

    Parameters
    ----------
    run
        A curation, a collection, a training run or an evaluation.
    beside
        More runs on the same page: a student's rollouts beside the teacher's traces of the same problems.
    output
        The folder to write; RUN/view where not given.
    open
        Open the page in the browser.
    json
        Print one JSON object: the page.
    """
    with draw_progress() as progress:
        page = build_view(run, *beside, out=output, progress=progress)
    if json:
        print_json({"page": page})
    else:
        Console().print(f"{page}", soft_wrap=True, markup=False)
    if open:
        webbrowser.open(page.resolve().as_uri())
