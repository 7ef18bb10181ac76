"""Rows of a table for the commands of the base install: JSON, JSONL and CSV by the standard library alone.

Parquet and zstd need the extra `curate`. `-` is standard input, as JSONL.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import sys
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

Row = dict[str, Any]

#: A file may unpack to so many bytes.
MAX_BYTES = 8 * 2**30

STANDARD_INPUT = "/dev/stdin"


def read_rows(files: Sequence[Path]) -> list[Row]:
    """All rows of the files, in order. Raises ValueError naming the file and the row."""
    if not files:
        raise ValueError("no file is named; expected JSONL, JSON, CSV or Parquet, or - for standard input.")
    return [row for file in files for row in _rows_of(file)]


def is_standard_input(file: Path) -> bool:
    """Whether a file stands for standard input; the command line hands `-` on as /dev/stdin."""
    return str(file) in ("-", STANDARD_INPUT)


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Every column of any row, in the order in which they first occur."""
    return list(dict.fromkeys(name for row in rows for name in row))


def values_of(rows: Sequence[Row], column: str) -> list[Any]:
    """A column, or a field within one (`a.b`). Raises ValueError where no row has it."""
    names = columns_of(rows)
    head, *fields = [column] if column in names else column.split(".")
    if head not in names:
        raise ValueError(f"there is no column {head}; there are {', '.join(names)}.")
    values = [row.get(head) for row in rows]
    for field in fields:
        if not any(isinstance(value, dict) and field in value for value in values):
            raise ValueError(f"column {head} has no field {field}.")
        values = [value.get(field) if isinstance(value, dict) else None for value in values]
    return values


def has_column(rows: Sequence[Row], column: str) -> bool:
    """Whether any row has the column, or the field within one."""
    head, _, field = column.partition(".")
    return any(column in row or (field and isinstance(row.get(head), dict) and field in row[head]) for row in rows)


def stem_of(file: Path) -> str:
    """A file's name without the ending of a compression."""
    return file.name.removesuffix(".gz").removesuffix(".zst")


def _rows_of(file: Path) -> list[Row]:
    if is_standard_input(file):
        return _json_lines(Path("standard input"), sys.stdin.buffer.read())
    if not file.is_file():
        raise ValueError(f"{file} does not exist; expected a JSONL, JSON, CSV or Parquet file.")
    name = stem_of(file)
    if name.endswith((".parquet", ".arrow")) or file.name.endswith(".zst"):
        from tracekit.reading.files import read_table_file

        return read_table_file(file).frame.to_dicts()
    if not name.endswith((".jsonl", ".ndjson", ".json", ".csv")):
        raise ValueError(f"{file} ends in {file.suffix or 'nothing'}; expected .jsonl, .json, .csv or .parquet.")
    raw = _unpacked(file).removeprefix(b"\xef\xbb\xbf")
    if name.endswith(".csv"):
        return _csv_rows(file, raw)
    return _json_document(file, raw) if name.endswith(".json") else _json_lines(file, raw)


def _unpacked(file: Path) -> bytes:
    if not file.name.endswith(".gz"):
        return file.read_bytes()
    try:
        with gzip.open(file) as packed:
            raw = packed.read(MAX_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{file} cannot be decompressed: {error}. Fetch it again.") from error
    if len(raw) > MAX_BYTES:
        raise ValueError(f"{file} unpacks to more than {MAX_BYTES / 2**30:.0f} GiB; unpack it into parts first.")
    return raw


def _csv_rows(file: Path, raw: bytes) -> list[Row]:
    try:
        return list(csv.DictReader(io.StringIO(raw.decode("utf-8")), strict=True))
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no readable CSV: {error}. Expected a header and quoted text in UTF-8.") from error


def _json_document(file: Path, raw: bytes) -> list[Row]:
    try:
        document = json.loads(raw)
    except (ValueError, RecursionError):
        return _json_lines(file, raw)  # JSON lines under another name
    rows = document if isinstance(document, list) else [document]
    wrong = next((place for place, row in enumerate(rows) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise ValueError(f"{file}, row {wrong + 1}: found {type(rows[wrong]).__name__}, expected an object.")
    return rows


def _json_lines(file: Path, raw: bytes) -> list[Row]:
    rows = []
    for number, line in enumerate(raw.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}, row {number}: no JSON ({error}); repair or remove the line.") from error
        if not isinstance(row, dict):
            raise ValueError(f"{file}, row {number}: found {type(row).__name__}, expected an object.")
        rows.append(row)
    if not rows:
        raise ValueError(f"{file} holds no rows; expected at least one.")
    return rows
