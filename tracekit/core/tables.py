"""Every table that crosses a room's threshold: its schema, once, and the doors to disk.

A table is a polars frame. `check` is called where a frame enters or leaves a package; it says which
column is wrong and what to do. `write_table` writes beside and renames, so that a kill leaves either
the old file or the new one.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

Schema = dict[str, pl.DataType | type[pl.DataType]]

#: One row a problem. `problem_id` is a hash of source, problem text and gold.
PROBLEMS: Schema = {
    "problem_id": pl.String,
    "problem": pl.String,  # what the model is asked, without template or system prompt
    "gold": pl.String,  # the reference answer, as the data set has it
    "source": pl.String,  # which data set it came from
    "split": pl.String,  # "train", "validation", "test" or a named out-of-distribution set
    "kind": pl.String,  # the subject or problem type; "" where unknown
    "level": pl.Float32,  # difficulty: chain length, dataset level; null where unknown
}

#: One row a trace: a teacher's, a person's or a model's worked response to one problem.
TRACES: Schema = {
    "trace_id": pl.String,
    "problem_id": pl.String,
    "author": pl.String,  # who wrote it: "DeepSeek-R1", "human", a checkpoint's name
    "response": pl.String,  # think block and answer, never rewritten
    "token_count": pl.Int32,  # of `response` by the recipe's tokenizer; null where not counted
    "token_log_probs": pl.List(pl.Float32),  # the author's own, one a token; null where not recorded
    "flagged_correct": pl.Boolean,  # the data set's own flag; null where it has none
}

#: One row a step of a trace. Offsets count characters of `response`: response[start:end].
STEPS: Schema = {
    "trace_id": pl.String,
    "step": pl.Int32,  # 0, 1, …
    "start": pl.Int32,
    "end": pl.Int32,
    "kind": pl.String,  # STEP_KINDS
    "correct": pl.Boolean,  # null where nobody can know
    "operator": pl.String,  # of the calculation; null where there is none
    "value": pl.Float64,  # the running value after the step; null where there is none
}

STEP_KINDS = ("calculation", "verification", "backtracking", "exploration", "restatement", "conclusion")

#: One row a (trace, verifier).
VERDICTS: Schema = {
    "trace_id": pl.String,
    "outcome": pl.String,  # evaluators.Outcome
    "prediction": pl.String,
    "gold": pl.String,
    "method": pl.String,
    "reason": pl.String,
    "seconds": pl.Float64,  # wall time; null in a curation, whose bytes depend on no clock
    "verifier": pl.String,  # "evaluators", "math-verify"
    "verifier_version": pl.String,
    "policy": pl.String,  # digest of the policy
}

#: One row a decision of a stage about a row. Append-only: nothing is ever removed.
LEDGER: Schema = {
    "row_id": pl.String,  # a trace_id or a problem_id
    "stage": pl.String,
    "rule": pl.String,
    "rule_version": pl.String,
    "measured": pl.String,  # what was measured, as text
    "threshold": pl.String,  # what it was held against, as text
    "verdict": pl.String,  # "keep" or "drop"
    "reason": pl.String,
}

#: One row a kept trace, problem beside it: what the trainers read.
CURATED: Schema = {
    "problem_id": pl.String,
    "trace_id": pl.String,
    "problem": pl.String,
    "gold": pl.String,
    "response": pl.String,
    "source": pl.String,
    "split": pl.String,
    "author": pl.String,
    "token_count": pl.Int32,
    "token_log_probs": pl.List(pl.Float32),
    "correct": pl.Boolean,  # its verdict: False rows are kept for DPO's rejected side alone
}

#: One row a sampled completion, with its verdict: evaluation and training rollouts alike.
COMPLETIONS: Schema = {
    "problem_id": pl.String,
    "model": pl.String,  # the checkpoint or arm that wrote it
    "step": pl.Int32,  # optimizer step of the policy that wrote it; null outside training
    "sample": pl.Int32,  # 0 … n - 1
    "temperature": pl.Float32,  # 0 is greedy
    "on_policy": pl.Boolean,  # False for a teacher's row
    "problem": pl.String,
    "gold": pl.String,
    "response": pl.String,
    "token_count": pl.Int32,
    "finish_reason": pl.String,  # "stop" or "length"
    "outcome": pl.String,  # evaluators.Outcome
    "prediction": pl.String,
    "reward": pl.Float32,  # null where the verifier could not tell
    "advantage": pl.Float32,  # null outside training
}

#: One row of the state array: which token of which trace it is.
STATES_INDEX: Schema = {
    "row": pl.Int64,  # the row of every layer's array
    "problem_id": pl.String,
    "trace_id": pl.String,
    "step": pl.Int32,  # null at positions that belong to no step
    "position": pl.String,  # "prompt_end", "step_end", "before_answer", "step_mean"
    "token": pl.Int32,  # index of the (last) token in prompt + response
}

SCHEMAS: dict[str, Schema] = {
    "problems": PROBLEMS,
    "traces": TRACES,
    "steps": STEPS,
    "verdicts": VERDICTS,
    "ledger": LEDGER,
    "curated": CURATED,
    "completions": COMPLETIONS,
    "states_index": STATES_INDEX,
}


class TableError(ValueError):
    """A table is not what its schema says: the message names the column and the remedy."""


def check(frame: pl.DataFrame, schema: Schema, name: str) -> pl.DataFrame:
    """Return `frame` with exactly the schema's columns in its order; columns beyond it are left out.

    Raises TableError where a column is absent or of another type.
    """
    for column, expected in schema.items():
        if column not in frame.columns:
            raise TableError(
                f"{name} has no column {column}; it has {', '.join(frame.columns) or 'none'}. "
                f"Add {column} as {expected}."
            )
        found = frame.schema[column]
        if found != expected:
            raise TableError(f"{name}.{column} is {found}; cast it to {expected} before passing it on.")
    return frame.select(schema.keys())


def conform(frame: pl.DataFrame, schema: Schema, name: str) -> pl.DataFrame:
    """Like `check`, but missing columns become null and castable types are cast (no lossy cast)."""
    columns = []
    for column, expected in schema.items():
        if column not in frame.columns:
            columns.append(pl.lit(None, dtype=expected).alias(column))
        else:
            columns.append(pl.col(column).cast(expected, strict=True))
    try:
        return check(frame.select(columns), schema, name)
    except pl.exceptions.InvalidOperationError as error:
        raise TableError(f"{name}: a value does not fit its column's type: {error}") from error


def check_values(frame: pl.DataFrame, name: str, filled: Collection[str], unique: str | None = None) -> pl.DataFrame:
    """Return `frame` if no value of `filled` is null and no value of `unique` repeats. Raises TableError."""
    for column in filled:
        if nulls := frame[column].null_count():
            row, rows = frame[column].is_null().arg_max(), len(frame)
            raise TableError(f"{name}: {column} is null in {nulls} of {rows} rows, first in row {row}; drop them.")
    if unique is not None and (repeated := int(frame[unique].is_duplicated().sum())):
        row = frame[unique].is_duplicated().arg_max()
        raise TableError(f"{name}: {unique} repeats in {repeated} rows, first in row {row}; keep one row of each.")
    return frame


def empty(schema: Schema) -> pl.DataFrame:
    """A table of no rows."""
    return pl.DataFrame(schema=schema)


def read_table(
    path: str | Path, schema: Schema, name: str | None = None, columns: Collection[str] | None = None
) -> pl.DataFrame:
    """Read a Parquet table and check it against its schema.

    Parameters
    ----------
    path : str or Path
        The file.
    schema : Schema
        Column → type, such as TRACES; docs/data.md describes each table.
    name : str, optional
        The table's name in messages; None: that of the file.
    columns : collection of str, optional
        The columns to read; None: all of the schema.

    Returns
    -------
    polars.DataFrame

    Raises
    ------
    TableError
        Where the file is absent, damaged or of another schema.

    Examples
    --------
    >>> import polars as pl
    >>> from tracekit import STEPS, read_table, write_table
    >>> path = write_table(pl.DataFrame(schema=STEPS), "steps.parquet", STEPS)
    >>> read_table(path, STEPS).height
    0
    """
    path = Path(path)
    name = name or path.stem
    part = schema if columns is None else {column: schema[column] for column in columns}
    return check(read_any_table(path, name, columns), part, f"{name} ({path})")


def read_any_table(path: str | Path, name: str | None = None, columns: Collection[str] | None = None) -> pl.DataFrame:
    """Read a Parquet table of any columns. Raises TableError where the file is absent or damaged."""
    path = Path(path)
    if not path.is_file():
        raise TableError(f"{path} does not exist; expected the {name or path.stem} table as Parquet.")
    try:
        if columns is not None:
            columns = [column for column in columns if column in pl.read_parquet_schema(path)]
        return pl.read_parquet(path, columns=columns)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise TableError(
            f"{path} is not readable as Parquet ({error}); write it again or take a whole copy."
        ) from error


def check_file(path: str | Path, schema: Schema) -> None:
    """Check a Parquet file's columns without reading its rows. Raises TableError as `read_table` does."""
    path = Path(path)
    if not path.is_file():
        raise TableError(f"{path} does not exist; expected the {path.stem} table as Parquet.")
    try:
        frame = pl.DataFrame(schema=pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise TableError(
            f"{path} is not readable as Parquet ({error}); write it again or take a whole copy."
        ) from error
    check(frame, schema, f"{path.stem} ({path})")


def write_table(frame: pl.DataFrame, path: str | Path, schema: Schema | None = None) -> Path:
    """Write a Parquet table; a reader finds the old file or the new one, never a part.

    Parameters
    ----------
    frame : polars.DataFrame
        The table.
    path : str or Path
        The file; its folder is made where it is absent.
    schema : Schema, optional
        Checked before anything is written.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    TableError
        Where the table is of another schema.
    OSError
        Where the disk is full; the message names the folder.

    Examples
    --------
    >>> import polars as pl
    >>> from tracekit import STEPS, write_table
    >>> write_table(pl.DataFrame(schema=STEPS), "steps.parquet", STEPS).name
    'steps.parquet'
    """
    path = Path(path)
    if schema is not None:
        frame = check(frame, schema, path.stem)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with full_disk_told(path):
            frame.write_parquet(partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


#: What a disk says that takes no more: full, the user's share spent, a limit on a file's size.
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def full_disk_told(folder: Path) -> Iterator[None]:
    """A disk that takes no more, told as an OSError that names the folder.

    polars wraps it in errors of its own, and a write to an open file does not say which file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in FULL or error.filename:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(folder)) from error
    except pl.exceptions.PolarsError as error:
        number = next((number for number in FULL if os.strerror(number) in str(error)), None)
        if number is None:
            raise
        raise OSError(number, os.strerror(number), str(folder)) from error
