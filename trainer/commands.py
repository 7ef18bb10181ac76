"""The commands `train` and `evaluate`."""

from __future__ import annotations

from functools import partial
from importlib import resources
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from tracekit.config import SettingsError, load_settings
from tracekit.progress import draw_progress
from tracekit.runs import Progress
from tracekit.tables import PROBLEMS, read_table
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


def command_evaluate(*models: str, problems: Path, output: Path) -> None:
    """Sample and verify a model's answers to a table of problems: greedy, pass@k and majority vote with intervals.

    Run again after a kill, it goes on where it stood.

    Example: tracekit evaluate runs/grpo/final runs/luffy/final --problems test.parquet --output runs/evaluation
    temperatures=[0,0.6] samples=16

    Parameters
    ----------
    models
        Model folders or hub names; and settings, as key=value.
    problems
        A PROBLEMS table in Parquet.
    output
        Folder that takes one folder a model.
    """
    from trainer.evaluate import EvaluateSettings, evaluate_model, name_of, summarise

    overrides = [word for word in models if "=" in word]
    asked = [word for word in models if "=" not in word]
    if not asked:
        raise SettingsError("no model is named; expected folders or hub names before the settings.")
    settings = load_settings(EvaluateSettings, None, overrides)
    names = [name_of(model) for model in asked]
    if len(set(names)) < len(names):
        raise SettingsError(f"two models are called the same: {', '.join(names)}; evaluate them into two outputs.")
    table = read_table(problems, PROBLEMS, "problems")
    with draw_progress() as progress:
        found = [
            evaluate_model(model, table, settings, output / name, partial(named, progress, name))
            for model, name in zip(asked, names)
        ]
    Console().print(summary_table(summarise(pl.concat(found))))


def named(progress: Progress, name: str, stage: str, done: int, total: int, note: str = "") -> None:
    """The progress of one of several models, a line each."""
    progress(f"{stage} {name}", done, total, note)


def summary_table(summary: pl.DataFrame) -> Table:
    """The summary as a person reads it: a row a metric, percentages with their intervals."""
    drawn = Table("model", "temperature", "metric", "%", "95 % interval", "problems", "unknown", "tokens")
    for row in summary.iter_rows(named=True):
        metric = row["metric"] if row["metric"] == "greedy" else f"{row['metric']}@{row['k']}"
        drawn.add_row(
            row["model"],
            f"{row['temperature']:g}",
            metric,
            f"{100 * row['value']:.1f}",
            f"{100 * row['low']:.1f} – {100 * row['high']:.1f}",
            str(row["problems"]),
            str(row["unknown"]),
            f"{row['tokens']:.0f}",
        )
    return drawn


def find_recipe(recipe: Path | None) -> Path | None:
    """The file of a recipe's path, or of the name of one that comes with the package."""
    if recipe is None or recipe.exists():
        return recipe
    shipped = Path(str(resources.files("trainer"))) / "recipes" / f"{recipe}.toml"
    return shipped if shipped.is_file() else recipe
