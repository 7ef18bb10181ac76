"""The commands `train` and `evaluate`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tracekit import runs
from tracekit.config import load_settings
from trainer.config import TrainSettings


def command_train(recipe: Path | None = None, *overrides: str) -> None:
    """Train a model by a recipe: pretrain, cpt, sft, dpo, grpo, luffy or rl_sft.

    Run again after a kill, it goes on where it stood. On several processes: torchrun --nproc-per-node 8 -m
    tracekit.cli train … .

    Example: tracekit train luffy.toml model=Qwen/Qwen2.5-Math-1.5B data.problems=problems.parquet output=runs/luffy

    Parameters
    ----------
    recipe
        A TOML file, or the name of one that comes with the package: luffy, grpo, sft, … .
    overrides
        Settings laid over it, as key.sub=value.
    """
    if recipe is not None and "=" in str(recipe):  # no recipe, overrides alone
        recipe, overrides = None, (str(recipe), *overrides)
    settings = load_settings(TrainSettings, find_recipe(recipe), overrides)
    from trainer.train import train

    with progress_line() as progress:
        final = train(settings, progress=progress)
    Console().print(f"{final}")


def find_recipe(recipe: Path | None) -> Path | None:
    """The file of a recipe's path, or of the name of one that comes with the package."""
    if recipe is None or recipe.exists():
        return recipe
    shipped = Path(str(resources.files("trainer"))) / "recipes" / f"{recipe}.toml"
    return shipped if shipped.is_file() else recipe


@contextmanager
def progress_line() -> Iterator[runs.Progress]:
    """A progress callback that draws one line a stage: what is done, its note, the time left."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=Console(stderr=True)) as drawn:
        tasks = {}

        def progress(stage: str, done: int, total: int, note: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = drawn.add_task(stage, total=total or None, note=note)
            drawn.update(tasks[stage], completed=done, total=total or None, note=note)

        yield progress
