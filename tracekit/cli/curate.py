"""The commands of curation. Tables are drawn here alone."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tracekit.cli.app import GATE_FAILED
from tracekit.cli.arguments import recipe_and_settings
from tracekit.core.progress import draw_progress
from tracekit.core.settings import load_settings
from tracekit.curation import ledger
from tracekit.curation.curate import curate, restore
from tracekit.curation.measurements import plan
from tracekit.curation.settings import CurateSettings

console = Console()


def command_curate(
    recipe: Path | None = None,
    *overrides: str,
    output: Path | None = None,
    dry_run: bool = False,
    map: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
) -> None:
    """Curate teacher traces into a training set whose every decision can be questioned.

    Example: tracekit curate gsm8k.toml data=../shared/data output=runs/gsm8k

    Parameters
    ----------
    recipe
        A TOML file; `gsm8k` or another name of tracekit/recipes for one that comes along.
    overrides
        Settings as key.sub=value.
    output
        The run folder; the same as output=FOLDER.
    dry_run
        Print the stages, which of them are made already, and what the rest will cost; read, but write nothing.
    map
        Columns of sources nobody knows, ours=theirs: --map problem=question gold=answer response=text
    """
    found, words = recipe_and_settings(recipe, overrides, "tracekit", output)
    settings = _with_map(load_settings(CurateSettings, found, words), map)
    if dry_run:
        draw("plan", ("stage", "state", "estimate"), plan(settings))
        return
    with draw_progress() as report:
        run = curate(settings, progress=report)
    funnel = json.loads((run / "funnel.json").read_text(encoding="utf-8"))
    draw_funnel(funnel)
    for line in warnings_of(funnel, run):
        print(f"warning: {line}", file=sys.stderr)
    if not funnel["funnel"][-1]["traces"]:
        print(f"tracekit: {empty_result(funnel)}", file=sys.stderr)
        sys.exit(GATE_FAILED)
    console.print(f"{run}/curated.parquet, {run}/export; read on: tracekit why {run} ID", soft_wrap=True)


def command_why(run: Path, row_id: str) -> None:
    """Tell a row's whole story: every decision about it, with what was measured and the threshold.

    Example: tracekit why runs/gsm8k 3f2a9c

    Parameters
    ----------
    run
        The run folder of `tracekit curate`.
    row_id
        A trace_id or problem_id, or the first digits of one.
    """
    story = ledger.why(run, row_id)
    columns = ("row_id", "stage", "rule", "measured", "threshold", "verdict", "reason")
    draw(row_id, columns, [tuple(map_text(v) for v in row) for row in story.select(columns).iter_rows()])
    trace = pl.scan_parquet(run / "traces.parquet").filter(pl.col("trace_id").is_in(story["row_id"].implode()))
    for response in trace.select("response").collect()["response"]:
        console.print(response, markup=False, highlight=False)


def command_restore(run: Path, row_id: str, *, reason: str) -> None:
    """Take a dropped trace, or a problem with its traces, back in; the ledger keeps both decisions.

    Example: tracekit restore runs/gsm8k 3f2a9c --reason "the gold is wrong"

    Parameters
    ----------
    run
        The run folder of `tracekit curate`.
    row_id
        A trace_id or problem_id, or the first digits of one.
    reason
        Why: it is written into the ledger.
    """
    with draw_progress() as report:
        restore(run, row_id, reason, progress=report)
    command_why(run, row_id)


def command_diff(run_a: Path, run_b: Path, *, rows: int = 20) -> None:
    """Compare two curations: which traces are in one and not in the other, and why.

    Example: tracekit diff runs/gsm8k runs/gsm8k-strict

    Parameters
    ----------
    run_a, run_b
        Run folders of `tracekit curate`.
    rows
        How many traces to list; the counts are of all.
    """
    changed = ledger.diff(run_a, run_b)
    counts = changed.group_by("a", "b").len().sort("len", descending=True)
    draw(f"{changed.height} traces differ", (str(run_a), str(run_b), "traces"), list(counts.iter_rows()))
    draw(
        "the first",
        ("trace", str(run_a), str(run_b)),
        list(changed.head(rows).select("trace_id", "a", "b").iter_rows()),
    )


def draw_funnel(funnel: dict[str, Any]) -> None:
    """The funnel as a table, and what was found beside it."""
    lines = [
        (s["stage"], f"{s['traces']:,}", f"{s['problems']:,}", f"{s['dropped']:,}", _listed(s["reasons"]))
        for s in funnel["funnel"]
    ]
    draw("funnel", ("stage", "traces", "problems", "dropped", "why"), lines)
    authors = [(a, *(f"{n:,}" for n in row.values())) for a, row in funnel["by_author"].items()]
    draw("authors", ("author", "read", "correct", "wrong", "kept"), authors)
    for fact in ("unverifiable_golds", "disagreements"):
        console.print(f"{fact.replace('_', ' ')}: {_listed(funnel[fact]) or 'none'}")
    console.print(f"copies kept: {funnel['copies']} (duplicates.traces=1.0 drops them)")
    console.print(
        f"problems with two golds: {funnel['gold_conflicts']}; contaminated: {funnel['contaminated_problems']}"
    )


def warnings_of(funnel: dict[str, Any], run: Path) -> list[str]:
    """A sentence for each rule that drops a large share of the correct traces, with examples and what to do."""
    return [
        f"filters.{found['rule']} = {found['threshold']} drops {found['dropped']:,} of {found['correct']:,} correct "
        f"traces ({found['dropped'] / found['correct']:.0%}), for example "
        + ", ".join(f"{one['row_id']} ({map_text(one['measured'])})" for one in found["examples"])
        + f". Look with tracekit why {run} ID; filters.{found['rule']}=off switches the rule off."
        for found in funnel["warnings"]
    ]


def empty_result(funnel: dict[str, Any]) -> str:
    """Why nothing is left, in a sentence: the stage that dropped the last traces, its reasons, the way out."""
    last = next(stage for stage in funnel["funnel"] if not stage["traces"])
    reasons = _listed(last["reasons"]) or "no reason recorded"
    way_out = (
        "No gold could be verified: where the source has none, audit_golds=off filters.outcomes=off keeps its traces."
        if last["stage"] == "gold"
        else "Set a rule to off (filters.NAME=off), or look at a trace with tracekit why."
    )
    return f"the curated set is empty: stage {last['stage']} dropped the last traces ({reasons}). {way_out}"


def map_text(value: Any) -> str:
    """A cell: text from models may hold anything, so control characters and markup are shown, not obeyed."""
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(value or ""))


def _with_map(settings: CurateSettings, pairs: tuple[str, ...]) -> CurateSettings:
    columns = dict(pair.partition("=")[::2] for pair in pairs)
    if not columns:
        return settings
    sources = tuple(source.model_copy(update={"map": {**columns, **source.map}}) for source in settings.sources)
    return settings.model_copy(update={"sources": sources})


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def draw(title: str, columns: tuple[str, ...], rows: list[Any]) -> None:
    """A table on the console; cells are shown as they are."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*(map_text(cell) for cell in row))
    console.print(table, markup=False)
