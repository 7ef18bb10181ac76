"""A user's function over the rows of a table, here or in several interpreters.

`python -m tracekit.curation.operator_runs JOB.json IN.parquet OUT.parquet` is one of them. Interpreters of their own,
not multiprocessing: nothing asks the caller's script for a main guard.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tracekit.core.tables import Schema
from tracekit.curation.operator_files import load_operators
from tracekit.curation.operators import TYPES, Operator, OperatorError, call

#: Rows that are run here first, to learn how long the others will take.
TRIAL_ROWS = 200
#: Seconds from which on other interpreters are started: each needs about half a second.
WORTH_SECONDS = 4.0

DTYPES: Schema = {"int": pl.Int64, "float": pl.Float64, "str": pl.String, "bool": pl.Boolean}


@dataclass(frozen=True)
class Job:
    """Which operator of which files is run, and a rule's threshold."""

    files: tuple[str, ...]
    kind: Literal["rule", "measurement"]
    name: str
    threshold: Any = None

    def operator(self) -> Operator:
        """The operator; its file is run where this interpreter has not run it yet."""
        operators = load_operators(self.files)
        return (operators.rules if self.kind == "rule" else operators.measurements)[self.name]

    def schema(self) -> Schema:
        """Columns of the result: a measurement's value, or whether a rule keeps the row, why not, and what it read."""
        if self.kind == "rule":
            return {"trace_id": pl.String, "keep": pl.Boolean, "reason": pl.String, "shown": pl.String}
        return {"trace_id": pl.String, self.name: DTYPES[self.operator().returns]}


def run_operator(job: Job, rows: pl.DataFrame, workers: int) -> pl.DataFrame:
    """One row of `job.schema()` for each of `rows` (trace_id and the columns that the operator reads), in their order.

    workers: interpreters to share the rows where it pays; 0: one a core. Raises OperatorError.
    """
    started = time.perf_counter()
    first = _run_here(job, rows.head(TRIAL_ROWS))
    rest = rows.slice(TRIAL_ROWS)
    seconds = (time.perf_counter() - started) / max(first.height, 1) * rest.height
    count = min(workers or os.cpu_count() or 1, rest.height)
    if count < 2 or seconds < WORTH_SECONDS:
        return pl.concat([first, _run_here(job, rest)])
    return pl.concat([first, *_run_elsewhere(job, rest, count)])


def _run_here(job: Job, rows: pl.DataFrame) -> pl.DataFrame:
    operator = job.operator()
    results = [(row["trace_id"], *_called(operator, job.threshold, row)) for row in rows.iter_rows(named=True)]
    return pl.DataFrame(results, schema=job.schema(), orient="row")


def _called(operator: Operator, threshold: Any, row: dict[str, Any]) -> tuple[Any, ...]:
    """The function's answer to one row; unknown where a column that it needs is null."""
    given = {column: row[column] for column in operator.columns}
    unknown = any(value is None and column not in operator.optional for column, value in given.items())
    if unknown:
        return (None, "", None) if operator.kind == "rule" else (None,)
    if operator.threshold is not None:
        given["threshold"] = threshold
    answer = call(operator, given, row["trace_id"])
    if operator.kind == "rule":
        return (*_verdict(operator, answer, row), _shown(given))
    return (_value(operator, answer, row),)


def _verdict(operator: Operator, answer: Any, row: dict[str, Any]) -> tuple[bool | None, str]:
    if answer is None or answer is True:
        return answer, ""
    if answer is False or isinstance(answer, str):
        return False, answer or operator.reason
    raise _misfit(operator, answer, row, "True, False, None or a text")


def _shown(given: dict[str, Any]) -> str:
    """What the ledger has as measured: the numbers and short words that the rule read, those of a text left out."""
    short = {
        column: f"{value:.6g}" if isinstance(value, float) else str(value)
        for column, value in given.items()
        if column != "threshold" and column != "trace_id" and len(str(value)) <= 40
    }
    if len(given.keys() - {"threshold"}) == 1:
        return next(iter(short.values()), "")
    return ", ".join(f"{column} {value}" for column, value in short.items())


def _value(operator: Operator, answer: Any, row: dict[str, Any]) -> Any:
    wanted = TYPES[operator.returns]
    if wanted is float and isinstance(answer, int) and not isinstance(answer, bool):
        return float(answer)
    if answer is not None and (not isinstance(answer, wanted) or (wanted is int and isinstance(answer, bool))):
        raise _misfit(operator, answer, row, f"{operator.returns} or None, as it is annotated")
    if isinstance(answer, int) and not -(2**63) <= answer < 2**63:
        raise _misfit(operator, answer, row, "a whole number of 64 bits")
    return answer


def _misfit(operator: Operator, answer: Any, row: dict[str, Any], expected: str) -> OperatorError:
    return OperatorError(
        f"{operator.where}: {operator.kind} {operator.name} returned {answer!r:.80} on trace {row['trace_id']}; "
        f"expected {expected}."
    )


def _run_elsewhere(job: Job, rows: pl.DataFrame, count: int) -> Iterator[pl.DataFrame]:
    """The results of `count` interpreters, each given an equal share of the rows."""
    with tempfile.TemporaryDirectory() as folder:
        task = Path(folder, "job.json")
        task.write_text(json.dumps(asdict(job)), encoding="utf-8")
        size = -(-rows.height // count)
        started = []
        for part in range(count):
            source, out = Path(folder, f"{part}.parquet"), Path(folder, f"{part}-out.parquet")
            rows.slice(part * size, size).write_parquet(source, compression="lz4")
            command = [sys.executable, "-m", "tracekit.curation.operator_runs", str(task), str(source), str(out)]
            started.append((subprocess.Popen(command, stderr=subprocess.PIPE, text=True), out))
        try:
            for process, out in started:
                yield _result_of(process, out, job)
        finally:
            for process, _ in started:
                process.kill()
                process.wait()


def _result_of(process: subprocess.Popen[str], out: Path, job: Job) -> pl.DataFrame:
    _, said = process.communicate()
    if process.returncode == FAILED:
        raise OperatorError(said.strip().rpartition("\n")[2])
    if process.returncode:
        raise OperatorError(f"{job.kind} {job.name}: its interpreter ended with {process.returncode}: {said[-500:]}")
    return pl.read_parquet(out)


#: Exit code of an interpreter whose last line on standard error is a sentence for the user.
FAILED = 2


def main(arguments: Sequence[str]) -> int:
    """Run one share of the rows; 0, or FAILED with a sentence on standard error."""
    task, source, out = map(Path, arguments)
    tree = json.loads(task.read_text(encoding="utf-8"))
    job = Job(tuple(tree["files"]), tree["kind"], tree["name"], tree["threshold"])
    try:
        _run_here(job, pl.read_parquet(source)).write_parquet(out)
    except OperatorError as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
