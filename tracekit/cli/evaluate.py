"""The command `evaluate`."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
from rich.console import Console
from rich.table import Table

from tracekit.cli.arguments import print_json, split_words
from tracekit.core.evaluation_logs import Harness, write_log
from tracekit.core.progress import draw_progress
from tracekit.core.runs import Progress
from tracekit.core.settings import SettingsError


def command_evaluate(
    *models: str, problems: str, output: Path, log: tuple[Harness, ...] = (), json: bool = False
) -> None:
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
        LUFFY Parquet, a file, a folder, a hub name; or a recipe of several sets in TOML, such as `benchmarks`, which
        comes along: AIME, AMC, MATH-500, Minerva, OlympiadBench, ARC-c, GPQA, MMLU-Pro.
    log
        Write the completions for other harnesses too, below `output`: inspect (a log of inspect_ai), lm-eval (samples
        and results of lm-evaluation-harness).
    json
        Print one JSON object: the rows of the summary, one a model, set, temperature and metric.
    output
        Folder that takes one folder a model, and in it one a set where there are several.
    """
    from tracekit.core.models import open_config
    from tracekit.study.problem_sets import read_sets
    from trainer.evaluate import evaluate_model, name_of, summarise

    words = split_words(models)
    asked = words.names
    if not asked:
        raise SettingsError("no model is named; expected folders or hub names before the settings.")
    names = [name_of(model) for model in asked]
    if len(set(names)) < len(names):
        raise SettingsError(f"two models are called the same: {', '.join(names)}; evaluate them into two outputs.")
    for model in asked:
        if not Path(model).is_dir():
            open_config(model)  # a name that cannot be had is told before a folder is made
    rows: list[dict[str, Any]] = []
    for part in read_sets(problems, words.settings):
        with draw_progress() as progress:
            found = [
                evaluate_model(
                    model,
                    part.problems,
                    part.settings,
                    output / name / part.name,
                    partial(named, progress, f"{name} {part.name}".strip()),
                )
                for model, name in zip(asked, names)
            ]
        for harness in log:
            write_log(pl.concat(found), output, part.name or "problems", harness)
        summary = summarise(pl.concat(found))
        rows += [{"set": part.name, **row} for row in summary.iter_rows(named=True)]
        if not json:
            Console().print(summary_table(summary, part.name))
    if json:
        print_json({"summary": rows})


def named(progress: Progress, name: str, stage: str, done: int, total: int, note: str = "") -> None:
    """The progress of one of several models, a line each."""
    progress(f"{stage} {name}", done, total, note)


def summary_table(summary: pl.DataFrame, title: str = "") -> Table:
    """The summary as a person reads it: a row a metric, percentages with their intervals."""
    columns = ("model", "temperature", "metric", "%", "95 % interval", "problems", "unknown", "tokens")
    drawn = Table(*columns, title=title or None)
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
