"""Tables that are written a part at a time, so that no table of a curation is held in memory whole."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tracekit.core.tables import Schema, check, full_disk_told

#: Rows and bytes of a row group at most, which is what a reader of the file holds at once.
ROW_GROUP, GROUP_BYTES = 2_000, 16 * 2**20
#: Types as Arrow names them that every reader of Parquet knows: no string views.
_OLDEST = pl.CompatLevel.oldest()


class TableWriter:
    """One Parquet file, written in row groups. Made by `table_writer`.

    Where a group ends depends on its rows alone, not on how they were handed over, so the bytes are the same each time.
    """

    def __init__(self, path: Path, schema: Schema, row_group: int) -> None:
        self._schema, self._row_group, self.rows = schema, row_group, 0
        self._pending = pl.DataFrame(schema=schema)
        arrow = self._pending.to_arrow(compat_level=_OLDEST).schema
        self._file = pq.ParquetWriter(path, arrow, compression="zstd", compression_level=1)

    def write(self, frame: pl.DataFrame) -> None:
        """Append the rows. Raises TableError where a column is absent or of another type."""
        self._pending = pl.concat([self._pending, check(frame, self._schema, "table")])
        self.rows += frame.height
        cuts = list(group_ends(self._pending, self._row_group))
        for start, stop in pairwise([0, *cuts]):
            self._write_group(self._pending.slice(start, stop - start))
        if cuts:
            self._pending = self._pending.slice(cuts[-1])

    def close(self) -> None:
        """Write what is left and the footer."""
        if self._pending.height:
            self._write_group(self._pending)
        self._file.close()

    def _write_group(self, rows: pl.DataFrame) -> None:
        self._file.write_table(rows.to_arrow(compat_level=_OLDEST), row_group_size=rows.height)


def group_ends(frame: pl.DataFrame, row_group: int) -> Iterator[int]:
    """Where full row groups end: after `row_group` rows, or after the row that fills GROUP_BYTES of text."""
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    sizes = frame.select(pl.sum_horizontal(pl.col(texts).str.len_bytes().cast(pl.Int64).fill_null(0)))
    filled = np.cumsum(sizes.to_series().to_numpy()) if texts else np.zeros(frame.height, np.int64)
    start, before = 0, 0
    while start < frame.height:
        end = min(start + row_group, int(np.searchsorted(filled, before + GROUP_BYTES)) + 1)
        if end > frame.height:
            return
        yield end
        start, before = end, int(filled[end - 1])


@contextmanager
def table_writer(path: Path, schema: Schema, row_group: int | None = None) -> Iterator[TableWriter]:
    """A writer of one file. A failure leaves what stood under the name before; success replaces it.

    Parameters
    ----------
    path
        The Parquet file.
    schema
        Its columns; others of the frames written are left out.
    row_group
        Rows of a group at most; ROW_GROUP where not given.

    Raises
    ------
    OSError
        If the disk is full; the error names the folder.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with full_disk_told(path):
            writer = TableWriter(partial, schema, row_group or ROW_GROUP)
            try:
                yield writer
            finally:
                writer.close()
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_frames(frames: Iterator[pl.DataFrame], path: Path) -> Path:
    """One file of frames of one schema, at least one, in their order."""
    first = next(frames)
    with table_writer(path, dict(first.schema), row_group=100_000) as writer:
        for frame in chain([first], frames):
            writer.write(frame)
    return path


def join_tables(parts: Iterable[Path], path: Path, schema: Schema) -> Path:
    """One file of the rows of several, in their order, a row group at a time."""
    with table_writer(path, schema, row_group=100_000) as writer:
        for part in parts:
            file = pq.ParquetFile(part)
            for group in range(file.num_row_groups):
                writer.write(frame_of_arrow(file.read_row_group(group), schema))
    return path


def frame_of_arrow(table: pa.Table, schema: Schema) -> pl.DataFrame:
    """An Arrow table of ours as a frame of the schema's types."""
    frame = pl.from_arrow(table)
    assert isinstance(frame, pl.DataFrame)
    return frame.cast({name: dtype for name, dtype in schema.items() if frame.schema[name] != dtype})


class Slices:
    """Ranges of rows of a Parquet file, read without the rows before them."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self, start: int, stop: int, columns: list[str] | None = None) -> pl.DataFrame:
        """Rows start to stop (excluded)."""
        scan = pl.scan_parquet(self.path).slice(start, stop - start)
        return (scan if columns is None else scan.select(columns)).collect()
