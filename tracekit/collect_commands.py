"""The command that asks a teacher."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from tracekit.collect import CollectSettings, collect
from tracekit.config import load_settings
from tracekit.progress import draw_progress
from tracekit.tables import PROBLEMS, read_table


def command_collect(recipe: Path | None = None, *overrides: str) -> None:
    """Ask a teacher for traces: any OpenAI-compatible server. Interrupted, it goes on and pays for no answer twice.

    The key is read from the environment (OPENAI_API_KEY, or server.key_variable) and never written.

    Example: tracekit collect problems=problems.parquet output=runs/r1 samples=4 question.model=DeepSeek-R1
    server.base_url=http://127.0.0.1:8000/v1

    Parameters
    ----------
    recipe
        A TOML file.
    overrides
        Settings laid over it, as key.sub=value.
    """
    if recipe is not None and "=" in str(recipe):  # no recipe, overrides alone
        recipe, overrides = None, (str(recipe), *overrides)
    settings = load_settings(CollectSettings, recipe, overrides)
    problems = read_table(settings.problems, PROBLEMS)
    with draw_progress() as progress:
        done = collect(settings, problems, progress=progress)
    console = Console()
    console.print(
        f"{done.folder}: {done.answers:,} answers, {done.asked:,} of them new; {done.tokens:,} tokens"
        + (f", cost {done.cost:,.2f}" if done.cost else "")
        + f"; {done.retried} retried, {done.refused} refused, {done.failed} failed",
        soft_wrap=True,
    )
    if done.failed:
        console.print(f"{done.failed} requests failed on every try; run the same command to ask them again.")
