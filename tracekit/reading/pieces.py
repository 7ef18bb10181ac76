"""Data files a piece at a time: what a file of any size takes in memory is one piece.

A file of at most PIECE_BYTES of text is one piece, and is read as `read_table_file` reads it.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tracekit.reading.files import (
    DamagedFileError,
    SourceError,
    Table,
    check_bad_share,
    damaged_rows,
    frame_of,
    is_json_object,
    parse_lines,
    read_table_file,
    table_of,
    uniform_lines,
    unpacked_pieces,
)

#: Bytes of a piece, about.
PIECE_BYTES = 32 * 2**20
#: Files that are always read whole.
_WHOLE = (".parquet.gz", ".parquet.zst", ".arrow.gz", ".arrow.zst", ".eval")
#: Rows that are looked at to learn how long a row is.
_FIRST_ROWS = 1_000


def read_pieces(path: Path, bad_share: float = 0.05) -> Iterator[Table]:
    """The rows of one data file, piece by piece; lost rows are counted from the file's first.

    Parameters
    ----------
    path
        A file that ends in one of `tracekit.reading.files.SUFFIXES`.
    bad_share
        Lines of a JSONL file that may be unreadable, as a share of its lines; one always may.

    Raises
    ------
    SourceError
        If the file is empty or damaged, or if more lines are unreadable.
    """
    if path.stat().st_size == 0 or path.name.endswith(_WHOLE):
        yield read_table_file(path, bad_share)
    elif path.name.endswith(".parquet"):
        yield from _parquet(path)
    elif path.name.endswith(".arrow"):
        yield from _arrow(path)
    else:
        yield from _text(path, bad_share)


def _parquet(path: Path) -> Iterator[Table]:
    try:
        footer = pq.read_metadata(path)
    except (pa.ArrowException, OSError):
        yield read_table_file(path)  # which says what is damaged
        return
    size = sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
    if size <= PIECE_BYTES:
        yield read_table_file(path)
        return
    file = pq.ParquetFile(path, buffer_size=2**20)  # pages are read one by one, however large a row group is
    try:
        yield from _numbered(file.iter_batches(batch_size=max(1, footer.num_rows * PIECE_BYTES // size)))
    except (pa.ArrowException, OSError) as error:
        raise DamagedFileError(f"{path} is damaged: {damaged_rows(path) or error}. Fetch it again.") from error


def _arrow(path: Path) -> Iterator[Table]:
    if path.stat().st_size <= PIECE_BYTES:
        yield read_table_file(path)
        return
    try:
        with pa.memory_map(str(path)) as source:
            is_file = source.read(6) == b"ARROW1"
            source.seek(0)
            if is_file:
                file = pa.ipc.open_file(source)
                batches = (file.get_batch(place) for place in range(file.num_record_batches))
                yield from _numbered(_cut(batches))
            else:
                yield from _numbered(_cut(pa.ipc.open_stream(source)))
    except (pa.ArrowException, OSError) as error:
        raise DamagedFileError(f"{path} is damaged: {error}. Fetch it again.") from error


def _cut(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        size = max(1, batch.num_rows * PIECE_BYTES // max(1, batch.nbytes))
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


def _numbered(batches: Iterable[pa.RecordBatch]) -> Iterator[Table]:
    first = 0
    for batch in batches:
        frame = pl.from_arrow(batch)
        assert isinstance(frame, pl.DataFrame)
        yield Table(frame, first=first)
        first += frame.height


# ---- JSON and CSV --------------------------------------------------------------------------------------------------


def _text(path: Path, bad_share: float) -> Iterator[Table]:
    pieces = unpacked_pieces(path)
    head = _at_least(pieces, PIECE_BYTES)
    more = next(pieces, None)
    if more is None:
        yield table_of(path, head, bad_share)
        return
    head = head.removeprefix(b"\xef\xbb\xbf")
    rest = chain([head, more], pieces)
    name = path.name.removesuffix(".gz").removesuffix(".zst")
    if name.endswith(".csv"):
        yield from _csv(path, rest)
    elif head.lstrip()[:1] == b"[":
        yield from _array(path, rest)
    elif is_json_object(head.lstrip().partition(b"\n")[0]):
        yield from _lines(path, rest, bad_share)
    else:  # one object over many lines: nothing says where its rows are
        yield table_of(path, b"".join(rest), bad_share)


def _at_least(pieces: Iterator[bytes], size: int) -> bytes:
    taken: list[bytes] = []
    length = 0
    for piece in pieces:
        taken.append(piece)
        length += len(piece)
        if length >= size:
            break
    return b"".join(taken)


def _lines(path: Path, pieces: Iterator[bytes], bad_share: float) -> Iterator[Table]:
    """JSON lines. A column that a piece lacks and an earlier one had is null in it."""
    first, bad, known = 0, list[tuple[int, str]](), dict[str, None]()
    for raw in _whole_lines(pieces):
        frame, lost = uniform_lines(raw), []
        count = 0 if frame is None else frame.height
        if frame is None:
            found = parse_lines(raw, first)
            frame, lost = frame_of(found.rows), found.bad
            count = len(found.rows) + len(found.bad)
        bad += lost
        frame = frame.with_columns(pl.lit(None).alias(name) for name in known if name not in frame.columns)
        known |= dict.fromkeys(frame.columns)
        if frame.height or lost:
            yield Table(frame, tuple(lost), first)
        first += count
    check_bad_share(path, bad, first, bad_share)


def _whole_lines(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """About PIECE_BYTES at a time, cut at the end of a line."""
    rest = b""
    while taken := _at_least(pieces, PIECE_BYTES):
        lines, end, tail = (rest + taken).rpartition(b"\n")
        if end:
            yield lines
        rest = tail
    if rest.strip():
        yield rest


def _array(path: Path, pieces: Iterator[bytes]) -> Iterator[Table]:
    """The objects of a JSON list."""
    rows: list[dict[str, Any]] = []
    first, size = 0, 0
    for row, length in _elements(path, pieces):
        rows.append(row)
        size += length
        if size >= PIECE_BYTES:
            yield Table(frame_of(rows), first=first)
            first, rows, size = first + len(rows), [], 0
    if rows:
        yield Table(frame_of(rows), first=first)


#: What stands before an object of a list.
_BETWEEN = re.compile(r"[\s,\[]*")


def _elements(path: Path, pieces: Iterator[bytes]) -> Iterator[tuple[dict[str, Any], int]]:
    """Each object of a list and how many characters it takes. Raises SourceError on anything else."""
    decode, parse = codecs.getincrementaldecoder("utf-8")("replace").decode, json.JSONDecoder().raw_decode
    text, place, number = "", 0, 0
    for piece in chain(pieces, [b""]):
        text, place = text[place:] + decode(piece, not piece), 0
        while True:
            between = _BETWEEN.match(text, place)
            assert between is not None  # it matches the empty text
            place = between.end()
            if place == len(text) or text[place] == "]":
                break
            if text[place] != "{":
                raise SourceError(f"{path}, row {number + 1}: found {text[place : place + 20]!r}, expected an object.")
            try:
                row, end = parse(text, place)
            except (ValueError, RecursionError) as error:
                if piece and len(text) - place < 4 * PIECE_BYTES:
                    break  # the object goes on in the next piece
                raise SourceError(f"{path}, row {number + 1}: no JSON ({error}).") from error
            yield row, end - place
            place, number = end, number + 1


class _Stream(io.RawIOBase):
    """Pieces of bytes as a file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces, self._rest = pieces, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._rest = piece
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _csv(path: Path, pieces: Iterator[bytes]) -> Iterator[Table]:
    """Rows of a CSV file; an empty cell is null."""
    csv.field_size_limit(2**31 - 1)
    text = io.TextIOWrapper(io.BufferedReader(_Stream(pieces), 2**20), encoding="utf-8", newline="")
    rows, first, size = csv.reader(text, strict=True), 0, _FIRST_ROWS
    try:
        names = next(rows)
        while some := list(islice(rows, size)):
            columns = zip(*(row + [""] * (len(names) - len(row)) for row in some), strict=True)
            cells = {name: [cell or None for cell in column] for name, column in zip(names, columns, strict=True)}
            frame = pl.DataFrame(cells, schema=dict.fromkeys(names, pl.String))
            yield Table(frame, first=first)
            first += len(some)
            size = max(1, frame.height * PIECE_BYTES // max(1, int(frame.estimated_size())))
    except (csv.Error, ValueError) as error:
        raise SourceError(f"{path} is no readable CSV: {error}. Expected a header and quoted text.") from error
