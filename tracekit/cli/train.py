"""The command `train`."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from rich.console import Console

from tracekit.core.progress import draw_progress
from tracekit.core.settings import load_settings
from trainer.settings import TrainSettings


def command_train(recipe: Path | None = None, *overrides: str, dry_run: bool = False, hardware: str = "h100") -> None:
    """Train a model by a recipe: pretrain, cpt, sft, dpo, grpo, luffy or rl_sft.

    Run again after a kill, it goes on where it stood. On several processes: torchrun --nproc-per-node 8 -m
    tracekit.cli train … .

    With --dry-run nothing is trained: the plan is printed, with hours and memory by formula. What it assumes can be
    set: work.response_tokens=3000, hardware.devices=16.

    Example: tracekit train luffy.toml model=Qwen/Qwen2.5-Math-1.5B data.problems=problems.parquet output=runs/luffy

    Parameters
    ----------
    recipe
        A TOML file, or the name of one that comes with the package: luffy, grpo, sft, … .
    overrides
        Settings laid over it, as key.sub=value.
    dry_run
        Read settings, model configuration, tokenizer and tables, and print what the run would take.
    hardware
        For the dry run: a100, h100, h800 or h200, 8 of them unless hardware.devices says otherwise.
    """
    if recipe is not None and "=" in str(recipe):  # no recipe, overrides alone
        recipe, overrides = None, (str(recipe), *overrides)
    if dry_run:
        from trainer.planning.plan import plan_run, plan_table

        Console().print(*(plan_table(plan) for plan in plan_run(find_recipe(recipe), overrides, hardware)), sep="\n")
        return
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
