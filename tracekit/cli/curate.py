"""The commands of curation. Tables are drawn here alone."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from json import dumps
from pathlib import Path
from typing import Annotated, Any

import polars as pl
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from tracekit.cli.app import GATE_FAILED
from tracekit.cli.arguments import print_json, split_words, spooled_input
from tracekit.core.progress import draw_progress
from tracekit.core.recipes import find_recipe, shipped_recipes
from tracekit.core.runs import read_json, write_text
from tracekit.core.settings import SettingsError, load_settings
from tracekit.core.tables import TRACES, read_table
from tracekit.curation import ledger
from tracekit.curation.curate import STANDARD_INPUT, claim_curation, curate, restore
from tracekit.curation.filters import FilterSettings
from tracekit.curation.planning import plan
from tracekit.curation.settings import CurateSettings
from tracekit.reading.readers import iterate_source

console = Console()


def command_curate(
    recipe: Path | None = None,
    *overrides: str,
    output: Path | None = None,
    dry_run: bool = False,
    operators: tuple[str, ...] = (),
    map: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (),
    json: bool = False,
) -> None:
    """Curate teacher traces into a training set whose every decision can be questioned.

    Example: tracekit curate traces.jsonl --map problem=question gold=answer response=generation --output runs/mine

    Parameters
    ----------
    recipe
        A recipe in TOML, or the name of one that `tracekit recipes` lists; or data files, folders, globs, hub names.
    overrides
        Settings as key.sub=value; more data files.
    output
        The run folder; the same as output=FOLDER.
    dry_run
        Print the stages, which of them are made already, and what the rest will cost; read, but write nothing.
    operators
        Python files of your own with @rule, @measurement, @source_format or @exporter; they are run. The same as the
        setting `operators`.
    map
        Columns of an unknown format, ours=theirs. A path goes into nested values (reply.choices[0].text), `a + b` joins
        two columns, messages[user] takes a role's last turn.
    json
        Print one JSON object: the run folder, its export, and the funnel; with --dry-run the stages of the plan.
    """
    words = [recipe, *overrides, *([f"operators={dumps(operators)}"] if operators else ())]
    settings = curation_of(words, map, output)
    if not settings.sources:
        raise SettingsError("no source is named; give a recipe with [[sources]], or data files: tracekit curate FILE.")
    if dry_run:
        _show_plan(plan(settings), json)
        return
    with draw_progress() as report:
        run = curate(settings, progress=report)
    funnel = read_json(run / "funnel.json")
    if json:
        print_json({"run": run, "curated": run / "curated.parquet", "export": run / "export", **funnel})
    else:
        draw_reading(funnel["read"])
        draw_funnel(funnel)
    for line in warnings_of(funnel, run):
        print(f"warning: {line}", file=sys.stderr)
    if not funnel["funnel"][-1]["traces"]:
        print(f"tracekit: {empty_result(funnel)}", file=sys.stderr)
        sys.exit(GATE_FAILED)
    if not json:
        console.print(f"{run}/curated.parquet, {run}/export; read on: tracekit why {run} ID", soft_wrap=True)


def _show_plan(stages: list[tuple[str, str, str]], json: bool) -> None:
    columns = ("stage", "state", "estimate")
    if json:
        print_json({"plan": [dict(zip(columns, stage)) for stage in stages]})
    else:
        draw("plan", columns, stages)


def command_why(run: Path, row_id: str, *, json: bool = False) -> None:
    """Tell a row's whole story: every decision about it, with what was measured and the threshold.

    Example: tracekit why runs/gsm8k 3f2a9c

    Parameters
    ----------
    run
        The run folder of `tracekit curate`.
    row_id
        A trace_id or problem_id, or the first digits of one.
    json
        Print one JSON object: the decisions, and the responses that they are about.
    """
    story = ledger.why(run, row_id)
    columns = ("row_id", "stage", "rule", "measured", "threshold", "verdict", "reason")
    told = story.select(columns)
    traces = read_table(run / "traces.parquet", TRACES, columns=("trace_id", "author", "response"))
    traces = traces.filter(pl.col("trace_id").is_in(story["row_id"].implode()))
    if json:
        print_json({"decisions": told.to_dicts(), "traces": traces.select("trace_id", "author", "response").to_dicts()})
        return
    draw(row_id, columns, [tuple(map_text(v) for v in row) for row in told.iter_rows()])
    for response in traces["response"]:
        console.print(response, markup=False, highlight=False)


def command_restore(run: Path, row_id: str, *, reason: str, json: bool = False) -> None:
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
    json
        Print one JSON object, that of `tracekit why`.
    """
    with draw_progress() as report:
        restore(run, row_id, reason, progress=report)
    command_why(run, row_id, json=json)


def command_diff(run_a: Path, run_b: Path, *, rows: int = 20, json: bool = False) -> None:
    """Compare two curations: which traces are in one and not in the other, and why.

    Example: tracekit diff runs/gsm8k runs/gsm8k-strict

    Parameters
    ----------
    run_a, run_b
        Run folders of `tracekit curate`.
    rows
        How many traces to list; the counts are of all.
    json
        Print one JSON object: how many traces differ, the counts, and the first traces.
    """
    changed = ledger.diff(run_a, run_b)
    counts = changed.group_by("a", "b").len("traces").sort("traces", "a", "b", descending=[True, False, False])
    if json:
        first = changed.head(rows).select("trace_id", "a", "b")
        print_json({"differ": changed.height, "counts": counts.to_dicts(), "first": first.to_dicts()})
        return
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
        f"{key_of(found['rule'])} = {found['threshold'] or 'on'} drops {found['dropped']:,} of {found['correct']:,} "
        f"correct traces ({found['dropped'] / found['correct']:.0%}), for example "
        + ", ".join(f"{one['row_id']} ({map_text(one['measured'])})" for one in found["examples"])
        + f". Look with tracekit why {run} ID; {key_of(found['rule'])}=off switches the rule off."
        for found in funnel["warnings"]
    ]


def key_of(rule: str) -> str:
    """The setting of a filter of ours, or of a rule of the user's."""
    if "." in rule:
        return rule  # of the reference model
    return f"{'filters' if rule in FilterSettings.model_fields else 'rules'}.{rule}"


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


def curation_of(words: Sequence[str | Path | None], map: Sequence[str], output: Path | None = None) -> CurateSettings:
    """The settings of a curation: a recipe, or data files in place of one, with settings and a mapping laid over."""
    parts = split_words(words, output)
    shipped = {path.stem for path in shipped_recipes("tracekit")}
    recipes = [name for name in parts.names if name.endswith(".toml") or name in shipped]
    files = [name for name in parts.names if name not in recipes]
    if len(recipes) > 1 or (recipes and files):
        raise SettingsError(f"{parts.names[1]}: expected one recipe, or data files without a recipe.")
    settings = list(parts.settings)
    if "/dev/stdin" in files:
        files[files.index("/dev/stdin")] = _kept_input(load_settings(CurateSettings, None, settings).output)
    if files:
        settings.append("sources=[" + ", ".join(f"{{path={dumps(name)}}}" for name in files) + "]")
    recipe = find_recipe(recipes[0], "tracekit") if recipes else None
    return _with_map(load_settings(CurateSettings, recipe, settings), tuple(map))


def _kept_input(output: Path) -> str:
    """Standard input, kept in the run folder: the same curation can be made again, extended and restored."""
    claim_curation(output)
    kept = output / STANDARD_INPUT
    with spooled_input("-") as path:
        partial = kept.with_name(f".{kept.name}.{os.getpid()}.partial")
        shutil.copyfile(path, partial)
        os.replace(partial, kept)
    return str(kept)


def command_init(
    file: str, *, map: Annotated[tuple[str, ...], Parameter(consume_multiple=True)] = (), json: bool = False
) -> None:
    """Write a recipe for a file of traces, after showing how its columns are read.

    Example: tracekit init traces.jsonl

    Parameters
    ----------
    file
        A file, a folder of shards, a glob or a hub name.
    map
        As in `tracekit curate`.
    json
        Print one JSON object: the recipe, and how the columns are read.
    """
    if file == "/dev/stdin":
        raise SettingsError("a recipe names a file, which standard input is not; save it, then tracekit init FILE.")
    settings = curation_of([file], map)
    part = next(iter(iterate_source(settings.sources[0])))
    if not json:
        draw_reading({"sources": {file: part.reading()}, "lost": part.lost.height, "reasons": {}})
    name = re.sub(r"[^\w.-]+", "-", Path(file).name.partition(".")[0]).strip("-") or "traces"
    recipe = Path(f"{name}.toml")
    if recipe.exists():
        raise SettingsError(f"{recipe} exists; move it away, or edit it.")
    columns = "".join(f"{ours} = {dumps(theirs)}\n" for ours, theirs in settings.sources[0].map.items())
    write_text(
        recipe,
        f"output = {dumps(f'runs/{name}')}\n\n[[sources]]\npath = {dumps(file)}\n"
        + (f"\n[sources.map]\n{columns}" if columns else "")
        + '\n# Every rule and its default: docs/settings.md. A rule is switched off by "off".\n[filters]\n',
    )
    if json:
        print_json({"recipe": recipe, **part.reading()})
        return
    console.print(f"{recipe}; go on with: tracekit curate {recipe}", soft_wrap=True, markup=False)


def draw_reading(read: dict[str, Any]) -> None:
    """How each source's columns were read, its first rows, and what was lost."""
    for source, reading in read["sources"].items():
        columns = ", ".join(f"{ours} ← {theirs}" for ours, theirs in reading["columns"].items())
        rows = [tuple(_shortened(row[name]) for name in ("problem", "gold", "response")) for row in reading["rows"]]
        draw(f"{source}: {columns}", ("problem", "gold", "response"), rows)
    if read["lost"]:
        console.print(f"{read['lost']:,} rows were not read: {_listed(read['reasons'])}", markup=False)


def _shortened(value: str | None, characters: int = 60) -> str:
    text = " ".join((value or "").split())
    return text if len(text) <= characters else f"{text[: characters - 1]}…"


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
