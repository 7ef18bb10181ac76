"""`tracekit verify` and `tracekit audit-gold`: verdicts or findings beside the file, a summary on the terminal."""

from __future__ import annotations

import os
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

from evaluators.audit import Audit, Fault, audit_golds
from evaluators.batch import Progress, verify_batch
from evaluators.verdict import Outcome, Policy, Verdict

if TYPE_CHECKING:
    import polars as pl

RESPONSE_COLUMNS = ("response", "completion", "solution", "output", "prediction")
GOLD_COLUMNS = ("gold", "answer", "ground_truth", "reward_model.ground_truth", "target", "label", "solution")
PROMPT_COLUMNS = ("problem", "prompt", "question", "input")


def command_verify(
    file: Path,
    *,
    response: str | None = None,
    gold: str | None = None,
    output: Path | None = None,
    workers: int | None = None,
    require_box: bool = False,
    symbolic: bool = True,
    deadline_seconds: float = 1.0,
) -> None:
    """Verify every row of a JSONL or Parquet file and write the verdicts beside it.

    Example: tracekit verify rollouts.jsonl --response completion --gold answer

    Parameters
    ----------
    file
        JSONL or Parquet with a column of responses and one of golds.
    response
        Column of the responses; by default the first of response, completion, solution, output, prediction.
    gold
        Column of the golds, `a.b` for a field of a struct; by default the first of gold, answer, ground_truth,
        reward_model.ground_truth, target, label, solution.
    output
        Where the verdicts go, in the same order; by default FILE.verdicts.jsonl or .parquet beside the file.
    workers
        Interpreters that share the work; by default one a core for large files, none for small ones.
    require_box
        Only a boxed answer counts.
    symbolic
        Whether sympy decides what the other tiers leave open.
    deadline_seconds
        Time that sympy may take for one row.
    """
    table = _read(file)
    response = response or _first_column(table, RESPONSE_COLUMNS, file, "response")
    gold = gold or _first_column(table, tuple(c for c in GOLD_COLUMNS if c != response), file, "gold")
    policy = Policy(require_box=require_box, symbolic=symbolic, deadline_seconds=deadline_seconds)
    responses, golds = _values(table, response, file), _values(table, gold, file)
    with progress_bar("verify") as progress, warnings.catch_warnings(record=True) as said:
        verdicts = verify_batch(responses, golds, policy=policy, workers=workers, progress=progress)
    output = output or file.with_name(f"{file.stem}.verdicts{file.suffix}")
    _write([_record(row, verdict) for row, verdict in enumerate(verdicts)], output)
    Console().print(_verdict_summary(verdicts, output))
    for warning in said:
        Console(stderr=True).print(f"warning: {warning.message}", markup=False)


def command_audit_gold(
    file: Path,
    *,
    gold: str | None = None,
    prompt: str | None = None,
    output: Path | None = None,
    constant_share: float = 0.1,
    examples: int = 5,
) -> None:
    """Tell which golds of a dataset cannot be verified and which are hackable; write the findings beside it.

    Example: tracekit audit-gold problems.parquet --gold answer --prompt question

    Parameters
    ----------
    file
        JSONL or Parquet with a column of golds.
    gold
        Column of the golds, `a.b` for a field of a struct; by default as in `tracekit verify`.
    prompt
        Column of the prompts, as text or messages; by default the first of problem, prompt, question, input, if any.
    output
        Where the findings go, one a row and fault; by default FILE.audit.jsonl or .parquet beside the file.
    constant_share
        A constant answer that solves this share of the rows is a fault of them.
    examples
        How many findings of each fault are shown.
    """
    table = _read(file)
    gold = gold or _first_column(table, GOLD_COLUMNS, file, "gold")
    prompt = prompt or next((name for name in PROMPT_COLUMNS if name in table.columns and name != gold), None)
    prompts = None if prompt is None else [_last_message(value) for value in _values(table, prompt, file)]
    with progress_bar("audit") as progress:
        audit = audit_golds(_values(table, gold, file), prompts, constant_share=constant_share, progress=progress)
    output = output or file.with_name(f"{file.stem}.audit{file.suffix}")
    _write([asdict(finding) for finding in audit.findings], output)
    _print_audit(audit, output, examples)


@contextmanager
def progress_bar(stage: str) -> Iterator[Progress]:
    """A progress callback drawn as a bar on standard error, where that is a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty()) as bars:
        task = bars.add_task(stage, total=None)

        def report(_: str, done: int, total: int, note: str) -> None:
            bars.update(task, completed=done, total=total or None)

        yield report


def _read(file: Path) -> pl.DataFrame:
    import polars as pl

    if not file.is_file():
        raise ValueError(f"{file} does not exist; expected a JSONL or Parquet file.")
    try:
        if file.suffix == ".parquet":
            return pl.read_parquet(file)
        if file.suffix in (".jsonl", ".ndjson"):
            return pl.read_ndjson(file, infer_schema_length=None)
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"{file} cannot be read as {file.suffix[1:]}: {error}; write it again.") from error
    raise ValueError(f"{file} ends in {file.suffix or 'nothing'}; expected .jsonl or .parquet.")


def _first_column(table: pl.DataFrame, names: tuple[str, ...], file: Path, what: str) -> str:
    for name in names:
        head, _, field = name.partition(".")
        if head in table.columns and (not field or field in _fields(table, head)):
            return name
    raise ValueError(f"{file} has no {what} column; it has {', '.join(table.columns)}. Name one with --{what} COLUMN.")


def _fields(table: pl.DataFrame, column: str) -> list[str]:
    kind = table.schema[column]
    return [field.name for field in getattr(kind, "fields", [])]


def _values(table: pl.DataFrame, column: str, file: Path) -> list[Any]:
    head, *fields = column.split(".") if column not in table.columns else [column]
    if head not in table.columns:
        raise ValueError(f"{file} has no column {head}; it has {', '.join(table.columns)}.")
    series = table[head]
    for field in fields:
        if field not in [known.name for known in getattr(series.dtype, "fields", [])]:
            raise ValueError(f"{file}: {head} has no field {field}; it is {series.dtype}.")
        series = series.struct.field(field)
    return [_last_message(value) for value in series.to_list()]


def _last_message(value: Any) -> Any:
    """The text of a conversation's last message; anything else as it is."""
    if isinstance(value, list) and value and isinstance(value[-1], dict):
        return value[-1].get("content")
    return value


def _record(row: int, verdict: Verdict) -> dict[str, Any]:
    return {"row": row} | asdict(verdict) | {"outcome": str(verdict.outcome), "correct": verdict.correct}


def _write(records: list[dict[str, Any]], output: Path) -> None:
    """Write beside and rename: a reader sees the old file or the new one, never a part."""
    import polars as pl

    table = pl.DataFrame([_plain(record) for record in records], infer_schema_length=None)
    output.parent.mkdir(parents=True, exist_ok=True)
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        if output.suffix == ".parquet":
            table.write_parquet(partial)
        else:
            table.write_ndjson(partial)
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    """Text that UTF-8 can hold: a lone surrogate of a response becomes its escape."""
    return {
        key: value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
        for key, value in record.items()
    }


def _verdict_summary(verdicts: list[Verdict], output: Path) -> Table:
    known = [v for v in verdicts if v.outcome not in (Outcome.UNPARSED_GOLD, Outcome.TIMEOUT)]
    accuracy = f"{100 * sum(v.correct for v in known) / len(known):.2f} %" if known else "not known"
    slowest = max((verdict.seconds for verdict in verdicts), default=0.0)
    table = Table(
        title=escape(f"{len(verdicts)} verdicts → {output}"), caption=f"accuracy of what is known: {accuracy}"
    )
    table.add_column("outcome")
    table.add_column("rows", justify="right")
    table.add_column("decided by")
    for outcome in Outcome:
        methods = Counter(verdict.method for verdict in verdicts if verdict.outcome is outcome)
        if methods:
            decided = ", ".join(f"{method} {count}" for method, count in methods.most_common())
            table.add_row(str(outcome), str(sum(methods.values())), decided)
    table.add_section()
    table.add_row("slowest", f"{1000 * slowest:.1f} ms", "")
    return table


def _print_audit(audit: Audit, output: Path, examples: int) -> None:
    table = Table(title=escape(f"{audit.rows} golds, {len(audit.findings)} findings → {output}"))
    table.add_column("fault")
    table.add_column("rows", justify="right")
    table.add_column("for example", overflow="fold")
    for fault in Fault:
        found = [finding for finding in audit.findings if finding.fault is fault]
        shown = "\n".join(f"row {f.row}: {f.gold[:60]!r} {f.detail}" for f in found[:examples])
        table.add_row(str(fault), str(len(found)), escape(shown))
    console = Console()
    console.print(table)
    if audit.constants:
        answer, share = audit.constants[0]
        console.print(
            f"The best constant answer is {answer!r}: it solves {100 * share:.1f} % of the rows.", markup=False
        )
