"""Stages of curation on their own, from a source to a table."""

from __future__ import annotations

from json import loads
from pathlib import Path

import polars as pl

from tracekit.cli.arguments import print_json
from tracekit.cli.curate import console, draw
from tracekit.core.tables import STEPS, write_table
from tracekit.curation.curate import card_facts, settings_of
from tracekit.curation.export import export, rows_in, shares_of
from tracekit.curation.operator_files import own_formats
from tracekit.curation.operator_stages import operators_of
from tracekit.reading.readers import SourceSettings, read_source
from tracekit.text.contamination import contaminated
from tracekit.text.duplicates import near_duplicates
from tracekit.text.features import measure
from tracekit.text.segment_worker import segment_in_processes


def command_segment(source: str, *, output: Path) -> None:
    """Part responses into steps with kinds and checked arithmetic, and measure their text.

    Example: tracekit segment traces.jsonl --output runs/steps

    Parameters
    ----------
    source
        A file, a folder of shards or a hub name, in any layout that `tracekit curate` reads.
    output
        A folder: steps.parquet, measures.parquet, problems.parquet and traces.parquet are written to it.
    """
    read = read_source(SourceSettings(path=source))
    steps = segment_in_processes(read.traces) if read.steps.is_empty() else read.steps
    write_table(steps, output / "steps.parquet", STEPS)
    write_table(measure(read.traces.lazy()).collect(), output / "measures.parquet")
    write_table(read.problems, output / "problems.parquet")
    write_table(read.traces, output / "traces.parquet")
    counts = steps.group_by("kind").agg(steps=pl.len(), wrong=(pl.col("correct").eq(False)).sum()).sort("kind")
    draw(f"{read.traces.height:,} traces", ("kind", "steps", "wrong"), list(counts.iter_rows()))


def command_duplicates(source: str, *, output: Path, of: str = "problem", threshold: float = 0.8, n: int = 5) -> None:
    """List near duplicates among problems or among responses, side by side.

    Example: tracekit duplicates traces.jsonl --output pairs.parquet --of response --threshold 0.9

    Parameters
    ----------
    source
        A file, a folder of shards or a hub name.
    output
        The table of pairs: left, right, jaccard and both texts.
    of
        "problem" or "response".
    threshold
        Least Jaccard index of word n-grams; found for certain from 0.7 on.
    n
        Words of an n-gram.
    """
    read = read_source(SourceSettings(path=source))
    texts = read.problems["problem"] if of == "problem" else read.traces["response"]
    pairs = near_duplicates(texts, threshold=threshold, n=n)
    sides = pairs.with_columns(left_text=texts[pairs["left"]], right_text=texts[pairs["right"]])
    write_table(sides, output)
    console.print(f"{pairs.height:,} pairs among {len(texts):,} texts → {output}", soft_wrap=True)


def command_contamination(source: str, benchmark: str, *, output: Path, n: int = 8) -> None:
    """List the problems that share n words in a row with a benchmark, side by side with it.

    Example: tracekit contamination train.jsonl math500.jsonl --output matches.parquet

    Parameters
    ----------
    source, benchmark
        Files, folders of shards or hub names.
    output
        The table of matches: both texts, the words they share, and how many such runs.
    n
        Words in a row, lower-cased, split at any white space.
    """
    problems = read_source(SourceSettings(path=source)).problems["problem"]
    rows = read_source(SourceSettings(path=benchmark)).problems["problem"]
    matches = contaminated(problems, rows, n)
    sides = matches.with_columns(problem_text=problems[matches["problem"]], benchmark_text=rows[matches["benchmark"]])
    write_table(sides, output)
    console.print(
        f"{matches['problem'].n_unique():,} of {len(problems):,} problems share {n} words with "
        f"{matches['benchmark'].n_unique():,} of {len(rows):,} benchmark rows → {output}",
        soft_wrap=True,
    )


def command_export(run: Path, *formats: str, operators: tuple[str, ...] = (), json: bool = False) -> None:
    """Write a curated run in further formats: luffy, verl, trl-sft, trl-prompt-completion, trl-grpo, trl-dpo, openrlhf,
    prime-rl, llama-factory, llama-factory-dpo, axolotl, axolotl-dpo, or exporters of your own.

    Example: tracekit export runs/gsm8k luffy trl-sft

    Parameters
    ----------
    run
        The run folder of `tracekit curate`.
    formats
        Those of the recipe where none is named. The folder run/export is replaced whole.
    operators
        Python files with @exporter functions; they are run. Those of the recipe where none is named.
    json
        Print one JSON object: the folder, and the rows of each format and split.
    """
    settings = settings_of(run)
    settings = settings.model_copy(update={"operators": operators or settings.operators})
    wanted = settings.export.model_copy(update={"formats": formats or settings.export.formats})
    funnel = loads((run / "funnel.json").read_text(encoding="utf-8"))
    folder = export(run, shares_of(run), wanted, card_facts(settings, funnel), own_formats(operators_of(settings)))
    if json:
        print_json({"folder": folder, "rows": rows_in(folder)})
        return
    console.print(str(folder), soft_wrap=True)
