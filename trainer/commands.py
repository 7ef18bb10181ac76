"""The command `train`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from rich.console import Console

from tracekit.config import load_settings
from tracekit.progress import draw_progress
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

    with draw_progress() as progress:
        final = train(settings, progress=progress)
    Console().print(f"{final}")


def find_recipe(recipe: Path | None) -> Path | None:
    """The file of a recipe's path, or of the name of one that comes with the package."""
    if recipe is None or recipe.exists():
        return recipe
    shipped = Path(str(resources.files("trainer"))) / "recipes" / f"{recipe}.toml"
    return shipped if shipped.is_file() else recipe
