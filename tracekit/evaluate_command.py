"""The command `evaluate`: part of the roof, since it reads problem sets by one room and asks models by another."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import polars as pl
from rich.console import Console
from rich.table import Table

from tracekit.config import SettingsError, load_settings
from tracekit.progress import draw_progress
from tracekit.runs import Progress
from tracekit.sources import SourceSettings, read_source
from tracekit.tables import PROBLEMS, read_table


def command_evaluate(*models: str, problems: str, output: Path) -> None:
    """Sample and verify a model's answers to a table of problems: greedy, pass@k and majority vote with intervals.

    Run again after a kill, it goes on where it stood. engine=vllm samples with vLLM; engine.kind=vllm-server with
    engine.urls asks servers, which are given each model's weights.

    Example: tracekit evaluate runs/grpo/final runs/luffy/final --problems test.jsonl --output runs/evaluation
    temperatures=[0,0.6] samples=16

    Parameters
    ----------
    models
        Model folders or hub names; and settings, as key=value.
    problems
        A PROBLEMS table, or a problem set in any layout that `tracekit curate` reads: GSM8K, MATH-500, AIME, verl or
        LUFFY Parquet, a file, a folder, a hub name.
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
    table = read_problems(problems)
    with draw_progress() as progress:
        found = [
            evaluate_model(model, table, settings, output / name, partial(named, progress, name))
            for model, name in zip(asked, names)
        ]
    Console().print(summary_table(summarise(pl.concat(found))))


def read_problems(path: str) -> pl.DataFrame:
    """PROBLEMS from a table of ours, or from a set in a public layout."""
    if path.endswith(".parquet") and Path(path).is_file() and "problem_id" in pl.read_parquet_schema(path):
        return read_table(path, PROBLEMS, "problems")
    return read_source(SourceSettings(path=path)).problems


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
