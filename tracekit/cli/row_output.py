"""Tables that a command writes to a file: JSONL, JSON, CSV or Parquet by the ending, plain or compressed.

A file that stands there is replaced only where it is an earlier result of the same command.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tracekit.cli.rows import Row, columns_of, stem_of

ENDINGS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")

#: A first row longer than this is not one of ours.
_FIRST_ROW_BYTES = 2**24


def check_output(path: Path, columns: Iterable[str], what: str, inputs: Iterable[Path] = ()) -> Path:
    """Return `path` if the result may be written there; called before the work begins.

    Parameters
    ----------
    columns
        The columns of the result. A file that stands at `path` is replaced if it has exactly these.
    what
        What the result is, as "verdicts"; for the message.
    inputs
        Files that the command reads; none of them is replaced.

    Raises
    ------
    ValueError
        If the ending is unknown, or if a file stands there that is not an earlier result of this command.
    """
    if not stem_of(path).endswith(ENDINGS):
        raise ValueError(f"--output {path} ends in {path.suffix or 'nothing'}; expected {', '.join(ENDINGS)}.")
    if path.is_dir():
        raise ValueError(f"--output {path} is a folder; name a file for the {what}.")
    if not path.exists():
        return path
    if any(one.exists() and path.samefile(one) for one in inputs):
        raise ValueError(f"--output {path} is a file that is read; name another file for the {what}.")
    if path.stat().st_size and first_columns(path) != set(columns):
        raise ValueError(f"{path} exists and holds no {what} of this command; move it away, or name another --output.")
    return path


def first_columns(path: Path) -> set[str] | None:
    """Columns of a table's first row, or of its header; None where the file is no such table."""
    name = stem_of(path)
    if name.endswith(".parquet"):
        return _parquet_columns(path)
    try:
        start = _start_of(path).decode("utf-8", "replace")
    except (OSError, EOFError, zlib.error):  # not compressed as its name says
        return None
    if name.endswith(".csv"):
        return set(next(csv.reader(io.StringIO(start)), []))
    return _first_keys(start, whole=name.endswith(".json"))


def _parquet_columns(path: Path) -> set[str] | None:
    import polars as pl

    try:
        return set(pl.read_parquet_schema(path))
    except (pl.exceptions.PolarsError, OSError):
        return None


def _start_of(path: Path) -> bytes:
    if not path.name.endswith(".zst"):
        with gzip.open(path) if path.name.endswith(".gz") else path.open("rb") as file:
            return file.read(_FIRST_ROW_BYTES)
    import zstandard

    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as unpacked:
        try:
            return unpacked.read(_FIRST_ROW_BYTES)
        except zstandard.ZstdError as error:
            raise OSError(str(error)) from error


def write_rows(records: Sequence[Row], output: Path, columns: Sequence[str] = ()) -> Path | None:
    """Write beside and rename: a reader sees the old file or the new one, never a part.

    columns: those of a result without rows. JSONL cannot hold such a result: no file is left then, and None returned.
    """
    output.parent.mkdir(parents=True, exist_ok=True)
    if not records and stem_of(output).endswith((".jsonl", ".ndjson")):
        output.unlink(missing_ok=True)
        return None
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        with _full_disk_named(output):
            _write(records, output, partial, columns or columns_of(records))
        os.replace(partial, output)
    finally:
        partial.unlink(missing_ok=True)
    return output


def _write(records: Sequence[Row], output: Path, partial: Path, columns: Sequence[str]) -> None:
    name = stem_of(output)
    with _writing(output, partial) as file:
        if name.endswith(".parquet"):
            import polars as pl

            frame = pl.DataFrame([_plain(record) for record in records], infer_schema_length=None)
            (frame if records else pl.DataFrame(schema=dict.fromkeys(columns, pl.String))).write_parquet(file)
            return
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        if name.endswith(".csv"):
            _write_csv(records, text, columns)
        elif name.endswith(".json"):
            text.write(json.dumps([_plain(record) for record in records], ensure_ascii=False, indent=1) + "\n")
        else:
            text.writelines(json.dumps(_plain(record), ensure_ascii=False) + "\n" for record in records)
        text.flush()
        text.detach()


def _write_csv(records: Sequence[Row], file: IO[str], columns: Sequence[str]) -> None:
    """CSV whose cells no spreadsheet takes for a formula."""
    writer = csv.DictWriter(file, columns)
    writer.writeheader()
    for record in records:
        writer.writerow({name: csv_cell(value) for name, value in _plain(record).items()})


def csv_cell(value: Any) -> str:
    """A value as text; what a spreadsheet would run as a formula gets an apostrophe in front, numbers do not."""
    if value is None:
        return ""
    if isinstance(value, int | float):
        return str(value)
    cell = json.dumps(value, ensure_ascii=False) if isinstance(value, list | dict) else str(value)
    return f"'{cell}" if cell.lstrip(" ")[:1] in ("=", "+", "-", "@", "\t", "\r", "＝", "＋", "－", "＠") else cell


def _plain(record: Row) -> Row:
    """Text that UTF-8 can hold: a lone surrogate of a response becomes its escape."""
    return {
        key: value.encode("utf-8", "backslashreplace").decode("utf-8") if isinstance(value, str) else value
        for key, value in record.items()
    }


def _first_keys(start: str, whole: bool) -> set[str] | None:
    """Keys of the first JSON object of a text: the first line, or of a .json the first element of its list."""
    text = start.lstrip().removeprefix("[").lstrip() if whole else start.lstrip()
    try:
        row, _ = json.JSONDecoder().raw_decode(text)
    except (ValueError, RecursionError):
        return None
    return set(row) if isinstance(row, dict) else None


@contextmanager
def _writing(output: Path, partial: Path) -> Iterator[Any]:
    """The partial file, compressed as the output's ending says."""
    with partial.open("wb") as raw:
        if output.name.endswith(".zst"):
            import zstandard

            with zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as file:
                yield file
        elif output.name.endswith(".gz"):
            with gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as packed:
                yield packed
        else:
            yield raw
        raw.flush()
        os.fsync(raw.fileno())


@contextmanager
def _full_disk_named(output: Path) -> Iterator[None]:
    """An OSError of an open file does not say which file: add it."""
    try:
        yield
    except OSError as error:
        if error.errno is None or error.filename:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(output)) from error
