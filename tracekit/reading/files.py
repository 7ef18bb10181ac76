"""Data files → frames: Parquet, Arrow, CSV and JSON in their spellings, plain or compressed.

What is damaged is named: file, row, column. A line that is no JSON is set aside and counted, up to a share of the file.
"""

from __future__ import annotations

import gzip
import io
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

_ENDINGS = (".parquet", ".jsonl", ".ndjson", ".json", ".csv", ".arrow")
SUFFIXES = (*(ending + packed for ending in _ENDINGS for packed in ("", ".gz", ".zst")), ".eval")

#: A compressed file may unpack to so much; a bomb of 122 kB unpacks to 4 GB.
MAX_UNPACKED_BYTES = 8 * 2**30

#: Lists of rows within a single JSON object, as logs and exports have them.
_ROW_LISTS = ("samples", "data", "rows", "results", "examples", "instances", "questions")


class SourceError(ValueError):
    """A source cannot be read: the message names file, row and column, and what to do."""


class DamagedFileError(SourceError):
    """A file whose bytes are not what they were: of many shards some may be."""


@dataclass(frozen=True)
class Table:
    """A file's rows, or those from row `first` on; what was set aside: (row, reason), counted from the file's row 0."""

    frame: pl.DataFrame
    lost: tuple[tuple[int, str], ...] = ()
    first: int = 0


def read_table_file(path: Path, bad_share: float = 0.05) -> Table:
    """Read one data file.

    Parameters
    ----------
    path
        A file that ends in one of SUFFIXES.
    bad_share
        Lines of a JSONL file that may be unreadable, as a share of its lines; one always may.

    Raises
    ------
    SourceError
        If the file is empty or damaged, or if more lines are unreadable.
    """
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes); expected a table. Remove the file or fetch it again.")
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name == path.name and name.endswith(".parquet"):
        return Table(_read_parquet(path))
    if name == path.name and name.endswith(".arrow"):
        return Table(_read_arrow(path))
    if name.endswith(".eval"):
        return Table(frame_of(list(_inspect_samples(path))))
    return table_of(path, b"".join(unpacked_pieces(path)), bad_share)


def _inspect_samples(path: Path) -> Iterator[dict[str, Any]]:
    """The samples of an inspect_ai log: an archive with samples/ID_epoch_1.json and further files."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [one for one in archive.infolist() if one.filename.startswith("samples/")]
            # The sizes that an archive claims are those that are read at most.
            if sum(one.file_size for one in members) > MAX_UNPACKED_BYTES:
                raise SourceError(f"{path} unpacks to more than {MAX_UNPACKED_BYTES / 2**30:.0f} GiB.")
            for member in sorted(members, key=lambda one: one.filename):
                yield json.loads(archive.read(member))
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, OSError, ValueError) as error:
        if isinstance(error, SourceError):
            raise
        raise DamagedFileError(f"{path} is damaged: {error}. Fetch it again.") from error


def table_of(path: Path, raw: bytes, bad_share: float) -> Table:
    """The rows of a file whose unpacked bytes are at hand; `path` tells the format. Raises SourceError."""
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    raw = raw.removeprefix(b"\xef\xbb\xbf")
    if name.endswith(".csv"):
        return Table(_read_csv(path, raw))
    if name.endswith((".parquet", ".arrow")):
        return Table(_from_bytes(path, name, raw))
    return _read_json(path, raw, bad_share)


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedFileError(f"{path} is damaged: {damaged_rows(path) or error}. Fetch it again.") from error


def damaged_rows(path: Path) -> str | None:
    """Which row group and column of a Parquet file cannot be read; None where its footer cannot."""
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowException, OSError):
        return None
    first = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        for column in file.schema_arrow.names:
            try:
                file.read_row_group(group, columns=[column])
            except (pa.ArrowException, OSError) as error:
                return f"rows {first + 1} to {first + rows}, column {column}: {error}"
        first += rows
    return None


def _read_arrow(path: Path) -> pl.DataFrame:
    """Arrow as `datasets` writes it, a stream, or as a file."""
    with path.open("rb") as file:
        read = pl.read_ipc if file.read(6) == b"ARROW1" else pl.read_ipc_stream
    try:
        return read(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}. Fetch it again.") from error


def _from_bytes(path: Path, name: str, raw: bytes) -> pl.DataFrame:
    """Parquet or Arrow that was compressed once more."""
    read = pl.read_parquet if name.endswith(".parquet") else pl.read_ipc if raw[:6] == b"ARROW1" else pl.read_ipc_stream
    try:
        return read(io.BytesIO(raw))
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}. Fetch it again.") from error


def _read_csv(path: Path, raw: bytes) -> pl.DataFrame:
    try:
        return pl.read_csv(io.BytesIO(raw), infer_schema=False)  # text as it stands: "007" is no number
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"{path} is no readable CSV: {error}. Expected a header and quoted text.") from error


# ---- compression ---------------------------------------------------------------------------------------------------


def unpacked_pieces(path: Path) -> Iterator[bytes]:
    """The bytes of a file, decompressed where it is compressed, a few megabytes at a time.

    Raises
    ------
    SourceError
        If the file is damaged, or unpacks to more than MAX_UNPACKED_BYTES.
    """
    packed = path.name.endswith((".gz", ".zst"))
    size = 0
    try:
        for piece in _pieces(path):
            size += len(piece)
            if packed and size > MAX_UNPACKED_BYTES:
                raise SourceError(
                    f"{path} unpacks from {path.stat().st_size:,} bytes to more than "
                    f"{MAX_UNPACKED_BYTES / 2**30:.0f} GiB; unpack it into shards first."
                )
            yield piece
    except (OSError, EOFError, zlib.error, zstandard.ZstdError) as error:
        raise DamagedFileError(f"{path} cannot be decompressed: {error}. Fetch it again.") from error


def _pieces(path: Path) -> Iterator[bytes]:
    if path.name.endswith(".gz"):
        with gzip.open(path) as unpacked:
            yield from iter(lambda: unpacked.read(2**22), b"")
        return
    with path.open("rb") as file:
        pieces = iter(lambda: file.read(2**20), b"")
        yield from _zstd_pieces(pieces) if path.name.endswith(".zst") else pieces


def _zstd_pieces(packed: Iterator[bytes]) -> Iterator[bytes]:
    """Every frame of the file: parallel compressors write several. Raises EOFError where the last one breaks off."""
    frame = None
    for piece in packed:
        for start in range(0, len(piece), 2**16):  # a bomb unpacks little by little
            rest = piece[start : start + 2**16]
            while rest:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                yield frame.decompress(rest)
                rest, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    if frame is not None:
        raise EOFError("the file ends within a frame")


# ---- JSON ----------------------------------------------------------------------------------------------------------


def _read_json(path: Path, raw: bytes, bad_share: float) -> Table:
    text = raw.strip()
    first, _, more = text.partition(b"\n")
    if text[:1] == b"[" or not more or not is_json_object(first):
        whole = _whole_document(text)
        if whole is not None:
            return Table(frame_of(_rows_of(path, whole)))
    frame = uniform_lines(raw)
    return _line_by_line(path, raw, bad_share) if frame is None else Table(frame)


def uniform_lines(raw: bytes) -> pl.DataFrame | None:
    """JSON lines as a frame; None where a column mixes types or a line is no JSON."""
    try:
        frame = pl.read_ndjson(io.BytesIO(raw), infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError, TypeError):
        return None
    # polars makes text of a column that mixes text with lists or objects. Text that begins like one is looked at.
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    mixed = frame.select(pl.any_horizontal(pl.col(texts).str.contains(r"^[\[{]").any())).item() if texts else False
    return None if mixed else frame


def is_json_object(line: bytes) -> bool:
    """Whether a line is a whole JSON object."""
    try:
        return isinstance(json.loads(line), dict)
    except ValueError:
        return False


def _whole_document(text: bytes) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _rows_of(path: Path, document: Any) -> list[dict[str, Any]]:
    """The rows of a JSON document: a list, a list within an object, or the object itself."""
    if isinstance(document, dict):
        inner = next((document[name] for name in _ROW_LISTS if _is_rows(document.get(name))), None)
        document = [document] if inner is None else inner
    wrong = next((place for place, row in enumerate(document) if not isinstance(row, dict)), None)
    if wrong is not None:
        raise SourceError(f"{path}, row {wrong + 1}: found {type(document[wrong]).__name__}, expected an object.")
    return list(document)


def _is_rows(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, dict) for row in value)


def _line_by_line(path: Path, raw: bytes, bad_share: float) -> Table:
    """Rows of a JSONL file whose columns mix types or some of whose lines are no JSON."""
    found = parse_lines(raw)
    check_bad_share(path, found.bad, len(found.rows) + len(found.bad), bad_share)
    return Table(frame_of(found.rows), tuple(found.bad))


@dataclass(frozen=True)
class Lines:
    """Objects of JSON lines, and the lines that are none: (line, reason). Blank lines are not counted."""

    rows: list[dict[str, Any]]
    bad: list[tuple[int, str]]


def parse_lines(raw: bytes, first: int = 0) -> Lines:
    """Parse JSON lines one by one."""
    found = Lines([], [])
    for number, line in enumerate((line for line in raw.splitlines() if line.strip()), start=first):
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            found.bad.append((number, f"no JSON ({error})"))
            continue
        if isinstance(row, dict):
            found.rows.append(row)
        else:
            found.bad.append((number, f"found {type(row).__name__}, expected an object"))
    return found


def check_bad_share(path: Path, bad: Sequence[tuple[int, str]], lines: int, bad_share: float) -> None:
    """Raise SourceError where more than `bad_share` of the lines are bad, or all; one always may be."""
    if bad and (len(bad) == lines or len(bad) > max(1, bad_share * lines)):
        number, reason = bad[0]
        raise SourceError(
            f"{path}, row {number + 1}: {reason}. Repair or remove the line; {len(bad)} of {lines} lines are "
            f"unreadable, and {bad_share:.0%} may be (sources.bad_share)."
        )


def frame_of(rows: list[dict[str, Any]]) -> pl.DataFrame:
    """Rows as a frame; a column of mixed types keeps its Python objects."""
    names = dict.fromkeys(name for row in rows for name in row)
    return pl.DataFrame([_series(name, [row.get(name) for row in rows]) for name in names])


def _series(name: str, values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        values = [None if value is None or value != value else value for value in values]
        kinds = {float} if float in kinds else kinds
    if kinds <= {str, int, float} and len(kinds) > 1:  # a number among texts is read as text
        return pl.Series(name, [None if value is None else str(value) for value in values], dtype=pl.String)
    if len(kinds) > 1 or not _uniform(values):
        return pl.Series(name, values, dtype=pl.Object)
    try:
        return pl.Series(name, values, strict=False) if kinds == {float} else pl.Series(name, values)
    except (pl.exceptions.PolarsError, TypeError, OverflowError):
        return pl.Series(name, values, dtype=pl.Object)


def _uniform(values: list[Any]) -> bool:
    """Whether nested values have one shape: the types of their parts do not differ."""
    shapes: dict[str, set[type]] = {}

    def visit(value: Any, place: str) -> None:
        if value is None:
            return
        shapes.setdefault(place, set()).add(
            float if isinstance(value, int) and not isinstance(value, bool) else type(value)
        )
        if isinstance(value, Mapping):
            for key, inner in value.items():
                visit(inner, f"{place}.{key}")
        elif isinstance(value, list):
            for inner in value:
                visit(inner, f"{place}[]")

    for value in values:
        if isinstance(value, list | dict):
            visit(value, "")
    return all(len(kinds) == 1 for kinds in shapes.values())
