"""Rows grouped by problem on disk: all rows of a problem are in one partition, and one partition fits in memory.

Rows are spilled into BUCKETS by a hash of their problem while they are read. Then neighbouring buckets become one
partition of about PARTITION_BYTES, whose rows are in the order in which they were read. A set that fits in one is never
spilled, and its rows stay in the order of the sources.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import polars as pl
import pyarrow as pa

from tracekit.core.ids import content_id
from tracekit.core.tables import STEPS, TRACES, Schema
from tracekit.curation.streams import frame_of_arrow

#: Bytes of responses that a partition holds, about; one bucket is the least.
PARTITION_BYTES = 48 * 2**20
BUCKETS = 256
FILE = "partitions.json"

#: Traces as they are spilled: with what the source says beside them.
SPILLED: Schema = {**TRACES, "system": pl.String, "finish_reason": pl.String}
_PLACE: Schema = {"bucket": pl.Int64, "row": pl.Int64}


@dataclass(frozen=True)
class Partition:
    """Rows start to stop (excluded) of traces.parquet, likewise of given_steps.parquet.

    bytes: of the responses, and one more for each.
    """

    number: int
    start: int
    stop: int
    steps_start: int
    steps_stop: int
    bytes: int

    def pieces(self, rows: int) -> Iterator[tuple[int, int]]:
        """Ranges of at most `rows` traces, and of fewer where the traces are long."""
        size = max(1, min(rows, (self.stop - self.start) * PARTITION_BYTES // max(1, self.bytes)))
        for start in range(self.start, self.stop, size):
            yield start, min(start + size, self.stop)


def partitions_of(sources: Path) -> list[Partition]:
    """The partitions of a `sources` stage."""
    return [Partition(**one) for one in json.loads((sources / FILE).read_text(encoding="utf-8"))]


def write_partitions(partitions: Sequence[Partition], folder: Path) -> None:
    """Write down where each partition begins and ends."""
    (folder / FILE).write_text(json.dumps([asdict(one) for one in partitions]), encoding="utf-8")


def buckets_of(problems: pl.DataFrame) -> pl.DataFrame:
    """problem_id and bucket of PROBLEMS; the same text with the same gold and split is in one bucket."""
    keys = problems.select("problem", "gold", "split").iter_rows()
    buckets = [int(content_id(*key)[:8], 16) % BUCKETS for key in keys]
    return problems.select("problem_id", bucket=pl.Series(buckets, dtype=pl.Int64))


class Spill:
    """Traces and their given steps while they are read: in memory, and on disk once they are too many."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._waiting: dict[str, list[pl.DataFrame]] = {"traces": [], "steps": []}
        self._files: dict[tuple[str, int], pa.RecordBatchStreamWriter] = {}
        self._bytes = [0] * BUCKETS
        self._size, self.rows = 0, 0

    def add(self, problems: pl.DataFrame, traces: pl.DataFrame, steps: pl.DataFrame) -> None:
        """Take the next rows. problems: PROBLEMS of at least these traces. traces: SPILLED."""
        place = traces.select("trace_id", "problem_id").with_row_index("row", offset=self.rows)
        place = place.join(buckets_of(problems), on="problem_id", how="left", maintain_order="left")
        place = place.select("trace_id", pl.col("bucket", "row").cast(pl.Int64))
        self._waiting["traces"].append(traces.with_columns(place["bucket"], place["row"]))
        if steps.height:
            self._waiting["steps"].append(steps.join(place, on="trace_id", maintain_order="left"))
        sizes = place.select("bucket", size=1 + traces["response"].str.len_bytes()).group_by("bucket").sum()
        for bucket, size in sizes.iter_rows():
            self._bytes[bucket] += size
            self._size += size
        self.rows += traces.height
        if self._size > PARTITION_BYTES:
            self._to_disk()

    def partitions(self) -> Iterator[tuple[pl.DataFrame, pl.DataFrame, int]]:
        """The traces (SPILLED) of each partition, their given steps, and the bytes of their responses."""
        if not self._files:
            traces, steps = self._held("traces"), self._held("steps")
            yield traces.drop("bucket", "row"), steps.drop("bucket", "row"), self._size
            return
        self._to_disk()
        for file in self._files.values():
            file.close()
        for buckets in self._groups():
            traces, steps = (self._of(name, buckets) for name in ("traces", "steps"))
            yield traces, steps, sum(self._bytes[bucket] for bucket in buckets)

    def _groups(self) -> Iterator[list[int]]:
        """Neighbouring buckets that together hold about PARTITION_BYTES; none is empty."""
        group: list[int] = []
        size = 0
        for bucket, more in enumerate(self._bytes):
            if group and size + more > PARTITION_BYTES:
                yield group
                group, size = [], 0
            if more:
                group.append(bucket)
                size += more
        if group:
            yield group

    def _held(self, name: str) -> pl.DataFrame:
        schema = {**(SPILLED if name == "traces" else STEPS), **_PLACE}
        return pl.concat([pl.DataFrame(schema=schema), *(part.select(*schema) for part in self._waiting[name])])

    def _to_disk(self) -> None:
        for name, waiting in self._waiting.items():
            for (bucket,), rows in self._held(name).partition_by("bucket", as_dict=True).items():
                batches = rows.to_arrow(compat_level=pl.CompatLevel.oldest())
                if (name, bucket) not in self._files:
                    path = self._folder / f"{name}-{bucket}.arrow"
                    self._files[name, bucket] = pa.ipc.new_stream(str(path), batches.schema)
                self._files[name, bucket].write_table(batches)
            waiting.clear()

    def _of(self, name: str, buckets: Sequence[int]) -> pl.DataFrame:
        """The rows of these buckets, in the order in which they were read."""
        schema = SPILLED if name == "traces" else STEPS
        parts = [pl.DataFrame(schema={**schema, **_PLACE})]
        for bucket in buckets:
            if (name, bucket) in self._files:
                path = self._folder / f"{name}-{bucket}.arrow"
                with pa.ipc.open_stream(str(path)) as stream:
                    parts.append(frame_of_arrow(stream.read_all(), {**schema, **_PLACE}))
                path.unlink()
        order = ["row", "step"] if name == "steps" else ["row"]
        return pl.concat(parts).sort(order, maintain_order=True).select(schema.keys())
