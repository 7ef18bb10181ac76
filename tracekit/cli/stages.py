"""Stages of curation on their own, from a source to a table."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import polars as pl

from tracekit.cli.arguments import print_json, spooled_input
from tracekit.cli.curate import console, draw
from tracekit.cli.row_output import check_output, write_rows
from tracekit.core.folders import check_claimable, claim_folder
from tracekit.core.hub_push import kind_of, model_card, push_folder
from tracekit.core.tables import STEPS, write_table
from tracekit.curation.curate import export
from tracekit.curation.export import rows_in
from tracekit.reading.readers import Part, SourceSettings, read_source
from tracekit.text.contamination import MATCHES, contaminated
from tracekit.text.duplicates import near_duplicates
from tracekit.text.features import measure
from tracekit.text.segment_worker import segment_in_processes

#: What `segment` writes in its folder.
_SEGMENTED = ("steps.parquet", "measures.parquet", "problems.parquet", "traces.parquet")
_PAIRS = ("left", "right", "jaccard", "left_text", "right_text")
_MATCHES = (*MATCHES, "problem_text", "benchmark_text")


def command_segment(source: str, *more: str, output: Path, json: bool = False) -> None:
    """Part responses into steps with kinds and checked arithmetic, and measure their text.

    Example: tracekit segment traces.jsonl --output runs/steps

    Parameters
    ----------
    source, more
        Files, globs, folders of shards or hub names, in any layout that `tracekit curate` reads; - is standard input.
    output
        A folder: steps.parquet, measures.parquet, problems.parquet and traces.parquet are written to it.
    json
        Print one JSON object: folder, traces, and steps and wrong steps by kind.
    """
    check_claimable(output, "segmentation", _SEGMENTED)
    read = read_sources((source, *more))
    steps = segment_in_processes(read.traces) if read.steps.is_empty() else read.steps
    claim_folder(output, "segmentation", _SEGMENTED)
    write_table(steps, output / "steps.parquet", STEPS)
    write_table(measure(read.traces.lazy()).collect(), output / "measures.parquet")
    write_table(read.problems, output / "problems.parquet")
    write_table(read.traces, output / "traces.parquet")
    counts = steps.group_by("kind").agg(steps=pl.len(), wrong=(pl.col("correct").eq(False)).sum()).sort("kind")
    if json:
        kinds = {kind: {"steps": all_, "wrong": wrong} for kind, all_, wrong in counts.iter_rows()}
        print_json({"folder": output, "traces": read.traces.height, "kinds": kinds})
        return
    draw(f"{read.traces.height:,} traces", ("kind", "steps", "wrong"), list(counts.iter_rows()))


def command_duplicates(
    source: str,
    *more: str,
    output: Path,
    of: Literal["problem", "response"] = "problem",
    threshold: float = 0.8,
    n: int = 5,
    json: bool = False,
) -> None:
    """List near duplicates among problems or among responses, side by side.

    Example: tracekit duplicates traces.jsonl --output pairs.parquet --of response --threshold 0.9

    Parameters
    ----------
    source, more
        Files, globs, folders of shards or hub names; - is standard input.
    output
        The table of pairs, as .parquet, .jsonl, .json or .csv: left, right, jaccard and both texts.
    of
        "problem" or "response".
    threshold
        Least Jaccard index of word n-grams; found for certain from 0.7 on.
    n
        Words of an n-gram.
    json
        Print one JSON object: texts, pairs, and where the table is.
    """
    check_output(output, _PAIRS, "pairs of duplicates", _files((source, *more)))
    read = read_sources((source, *more))
    texts = read.problems["problem"] if of == "problem" else read.traces["response"]
    pairs = near_duplicates(texts, threshold=threshold, n=n)
    sides = pairs.with_columns(left_text=texts[pairs["left"]], right_text=texts[pairs["right"]])
    written = write_frame(sides, output)
    if json:
        print_json({"texts": len(texts), "pairs": pairs.height, "table": written})
        return
    told = f" → {written}" if written else "; no file is written"
    console.print(f"{pairs.height:,} pairs among {len(texts):,} texts{told}", soft_wrap=True, markup=False)


def command_contamination(
    source: str, benchmark: str, *more: str, output: Path, n: int = 8, json: bool = False
) -> None:
    """List the problems that share n words in a row with a benchmark, side by side with it.

    Example: tracekit contamination train.jsonl math500.jsonl --output matches.parquet

    Parameters
    ----------
    source, benchmark, more
        Files, globs, folders of shards or hub names; - is standard input. The first is compared with all that follow.
    output
        The table of matches, as .parquet, .jsonl, .json or .csv: both texts, the words they share, and how many such
        runs.
    n
        Words in a row, lower-cased, split at any white space.
    json
        Print one JSON object: problems and benchmark rows, how many of each match, and where the table is.
    """
    check_output(output, _MATCHES, "matches", _files((source, benchmark, *more)))
    problems = read_sources((source,)).problems["problem"]
    rows = read_sources((benchmark, *more)).problems["problem"]
    matches = contaminated(problems, rows, n)
    sides = matches.with_columns(problem_text=problems[matches["problem"]], benchmark_text=rows[matches["benchmark"]])
    written = write_frame(sides, output)
    if json:
        found = {"problems": len(problems), "contaminated": matches["problem"].n_unique()}
        found |= {"benchmark_rows": len(rows), "benchmark_matched": matches["benchmark"].n_unique()}
        print_json({**found, "table": written})
        return
    console.print(
        f"{matches['problem'].n_unique():,} of {len(problems):,} problems share {n} words with "
        f"{matches['benchmark'].n_unique():,} of {len(rows):,} benchmark rows"
        + (f" → {written}" if written else "; no file is written"),
        soft_wrap=True,
        markup=False,
    )


def command_export(
    run: Path,
    *formats: str,
    operators: tuple[str, ...] = (),
    push_to_hub: str = "",
    public: bool = False,
    json: bool = False,
) -> None:
    """Write a curated run in further formats: luffy, verl, trl-sft, trl-prompt-completion, trl-grpo, trl-dpo, openrlhf,
    prime-rl, llama-factory, llama-factory-dpo, axolotl, axolotl-dpo, verifiers (an environment package), or exporters
    of your own.

    Example: tracekit export runs/gsm8k luffy trl-sft

    Parameters
    ----------
    run
        The run folder of `tracekit curate`.
    formats
        Those of the recipe where none is named. The folder run/export is replaced whole.
    operators
        Python files with @exporter functions; they are run. Those of the recipe where none is named.
    push_to_hub
        A repository of the Hugging Face hub, owner/name, that takes the folder with its card. It is private. The token
        is HF_TOKEN's, or that of `hf auth login`.
    public
        Make that repository public.
    json
        Print one JSON object: the folder, the rows of each format and split, and the address on the hub.
    """
    folder = export(run, *formats, operators=operators)
    address = push_folder(folder, push_to_hub, "dataset", public=public) if push_to_hub else None
    if json:
        print_json({"folder": folder, "rows": rows_in(folder), "hub": address})
        return
    console.print(str(folder) + (f" → {address}" if address else ""), soft_wrap=True, markup=False)


def command_push(folder: Path, repository: str, *, public: bool = False, json: bool = False) -> None:
    """Push a trained model, or an exported data set, to the Hugging Face hub, with a card; private by default.

    Example: tracekit push runs/luffy/final owner/name

    Parameters
    ----------
    folder
        A model folder, or RUN/export of `tracekit curate`.
    repository
        The repository, owner/name; it is made if it is not there. The token is HF_TOKEN's, or that of `hf auth login`.
    public
        Make it public.
    json
        Print one JSON object: the kind and the address.
    """
    kind = kind_of(folder)
    card = model_card(folder) if kind == "model" else ""
    address = push_folder(folder, repository, kind, public=public, card=card)
    if json:
        print_json({"kind": kind, "hub": address})
        return
    console.print(f"{folder} → {address}", soft_wrap=True, markup=False)


def read_sources(sources: Sequence[str]) -> Part:
    """Several sources as one; /dev/stdin is standard input, as JSONL."""
    parts = []
    for source in sources:
        with spooled_input(source) as path:
            parts.append(read_source(SourceSettings(path=path)))
    tables = {name: pl.concat([getattr(part, name) for part in parts]) for name in ("traces", "steps", "lost")}
    problems = pl.concat([part.problems for part in parts]).unique("problem_id", maintain_order=True)
    return Part(", ".join(sources), problems, **tables)


def write_frame(frame: pl.DataFrame, output: Path) -> Path | None:
    """A table as Parquet, or as rows in the format of the ending; None where there is no row and JSONL was asked."""
    if output.suffix == ".parquet":
        return write_table(frame, output)
    return write_rows(frame.to_dicts(), output, frame.columns)


def _files(sources: Sequence[str]) -> list[Path]:
    return [Path(source) for source in sources]
