"""Stages of a user's own measurements and rules, and the decisions of the rules.

Each function is a stage of its own. Its key holds the function's digest and the stages of the columns that it reads, so
a changed function, threshold or column is run again and nothing else is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.runs import Progress
from tracekit.core.tables import LEDGER
from tracekit.curation.filters import STAGE
from tracekit.curation.ledger import decide
from tracekit.curation.measurements import Batches, Measured, Piece, in_batches
from tracekit.curation.operator_files import Operators, load_operators
from tracekit.curation.operator_runs import Job, run_operator
from tracekit.curation.operators import COLUMNS, Operator, OperatorError
from tracekit.curation.partitions import Partition
from tracekit.curation.settings import CurateSettings
from tracekit.curation.stage_cache import Stages
from tracekit.curation.streams import Slices

#: Traces handed to a function between two writes to disk: what a kill can cost.
BATCH = 10_000
VERSION = 1

#: Where the results stand in `Measured.files`, and so in the run folder.
_VALUES, _ANSWERS = "operators/{}", "operators/rule.{}"


def measure_operators(settings: CurateSettings, measured: Measured, stages: Stages, progress: Progress) -> Measured:
    """Run or find every measurement and rule of `settings.operators`. Raises OperatorError."""
    operators = operators_of(settings)
    files = dict(measured.files)
    for one in operators.measurements.values():
        job = Job(settings.operators, "measurement", one.name)
        files[_VALUES.format(one.name)] = _stage(settings, job, one, files, stages, progress)
    for one in operators.rules.values():
        threshold = threshold_of(settings, one)
        if threshold is not None:
            job = Job(settings.operators, "rule", one.name, threshold)
            files[_ANSWERS.format(one.name)] = _stage(settings, job, one, files, stages, progress)
    return replace(measured, files=files)


def _stage(
    settings: CurateSettings, job: Job, one: Operator, files: Mapping[str, Path], stages: Stages, progress: Progress
) -> Path:
    tables = _tables_of(one)

    def work(piece: Piece) -> dict[str, pl.DataFrame]:
        rows = _columns_of(files, tables, piece)
        columns = dict.fromkeys(("trace_id", *one.columns))
        return {job.name: run_operator(job, rows.select(*columns), settings.local_workers)}

    inputs = {
        "version": VERSION,
        "name": one.name,
        "source": one.digest,
        "returns": one.returns,
        "threshold": job.threshold,
        "tables": {table: files[table].parent.name for table in ("traces", *tables)},
        "verifier": settings.verify.verifier if "verdicts" in tables else None,
    }
    batches = Batches(files["traces"].parent, BATCH, work, {job.name: job.schema()})
    return in_batches(stages, job.kind, inputs, batches, settings.engine, progress) / f"{job.name}.parquet"


def _tables_of(one: Operator) -> dict[str, tuple[str, ...]]:
    """Table → the columns of it that the function reads; a measurement of the user's is a table of its own."""
    ours = {column: table for table, columns in COLUMNS.items() for column in columns}
    tables: dict[str, tuple[str, ...]] = {}
    for column in one.columns:
        table = ours.get(column, _VALUES.format(column))
        tables[table] = (*tables.get(table, ()), column)
    return tables


def _columns_of(files: Mapping[str, Path], tables: Mapping[str, tuple[str, ...]], piece: Piece) -> pl.DataFrame:
    """The columns of a piece's traces. All tables but the problems have a row a trace, in one order."""
    needed = ["trace_id", *(["problem_id"] if "problems" in tables else [])]
    rows = Slices(files["traces"]).read(
        piece.start, piece.stop, list(dict.fromkeys((*needed, *tables.get("traces", ()))))
    )
    for table in [table for table in tables if table not in ("traces", "problems")]:
        # those of the deciding verifier come first
        beside = Slices(files[table]).read(piece.start, piece.stop, ["trace_id", *tables[table]])
        rows = rows.join(beside, on="trace_id", how="left", maintain_order="left")
    if "problems" in tables:
        wanted = dict.fromkeys(("problem_id", *tables["problems"]))
        here = pl.scan_parquet(files["problems"]).select(*wanted)
        here = here.filter(pl.col("problem_id").is_in(rows["problem_id"].unique().implode()))
        rows = rows.join(here.collect(), on="problem_id", how="left", maintain_order="left")
    return rows


def operators_of(settings: CurateSettings) -> Operators:
    """The operators of a recipe, checked against each other and against `[rules]`. Raises OperatorError."""
    operators = load_operators(settings.operators)
    known = {*operators.measurements, *(column for columns in COLUMNS.values() for column in columns)}
    for one in operators.rules.values():
        for column in set(one.columns) - known:
            raise OperatorError(f"{one.where}: rule {one.name}: there is no column {column}{_near(column, known)}")
    for name in settings.rules:
        if name not in operators.rules:
            raise OperatorError(f"rules.{name}: no rule of that name is registered{_near(name, operators.rules)}")
    return operators


def _near(name: str, known: Iterable[str]) -> str:
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(names) or 'none'}."


def threshold_of(settings: CurateSettings, one: Operator) -> Any:
    """The recipe's threshold for a rule, else its default; True where it has none; None where it is switched off."""
    given = settings.rules.get(one.name, one.threshold if one.threshold is not None else True)
    if given == "off":
        return None
    if one.threshold is None and given is not True:
        raise OperatorError(f'rules.{one.name} is {given!r}; the rule takes no threshold, only "off".')
    return given


def with_rules(settings: CurateSettings, measured: Measured, rows: pl.DataFrame, partition: Partition) -> pl.DataFrame:
    """A partition's rows with a column for each rule's answers."""
    for one in operators_of(settings).rules.values():
        name = _ANSWERS.format(one.name)
        if name in measured.files:
            answers = measured.of(partition, name)
            answers = answers.select("trace_id", pl.struct("keep", "reason", "shown").alias(name))
            rows = rows.join(answers, on="trace_id", how="left", maintain_order="left")
    return rows


def rule_decisions(settings: CurateSettings, rows: pl.DataFrame) -> pl.DataFrame:
    """LEDGER rows of the user's rules over rows of `with_rules`, in the order of their files."""
    decisions = [pl.DataFrame(schema=LEDGER)]
    for one in operators_of(settings).rules.values():
        threshold, answers = threshold_of(settings, one), pl.col(_ANSWERS.format(one.name)).struct
        if threshold is not None:
            decisions.append(
                decide(
                    rows.with_columns(row_id="trace_id"),
                    stage=STAGE,
                    rule=one.name,
                    version=one.digest,
                    threshold="" if one.threshold is None else str(threshold),
                    keep=answers.field("keep"),
                    reason=answers.field("reason"),
                    measured=answers.field("shown"),
                )
            )
    return pl.concat(decisions)
