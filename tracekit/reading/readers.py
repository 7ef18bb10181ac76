"""Public data sets → PROBLEMS and TRACES: files, folders of shards, hub names; ids by content.

What is damaged is named: file, row, column.
"""

from __future__ import annotations

import gzip
import io
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import zstandard
from pydantic import Field, model_validator

from tracekit.core.ids import content_id, problem_id, trace_id
from tracekit.core.settings import Settings
from tracekit.core.tables import PROBLEMS, STEPS, TRACES, empty, read_table
from tracekit.reading import formats as layouts
from tracekit.reading.formats import LayoutError

SUFFIXES = (".parquet", ".jsonl", ".ndjson", ".jsonl.gz", ".jsonl.zst", ".json", ".csv", ".arrow")
_SPLIT_NAMES = ("train", "test", "validation", "dev")


class SourceError(ValueError):
    """A source cannot be read: the message names file, row and column, and what to do."""


class SourceSettings(Settings):
    """One source of problems and traces.

    path: a file, a folder of shards, a folder of problems.parquet and traces.parquet, or a hub name.
    name: what PROBLEMS.source says; the file's or folder's name where empty.
    split: PROBLEMS.split; of a hub name or a folder whose files are named for splits, also which one is read.
    config: a hub data set's configuration.
    layout: one of tracekit.reading.formats.LAYOUTS; found by its columns where empty.
    map: our column → theirs, for a layout nobody knows.
    author: TRACES.author where no column says it.
    licence: for the card of what is exported.
    """

    path: str
    name: str = ""
    split: str = "train"
    config: str | None = None
    layout: str = ""
    map: dict[str, str] = Field(default_factory=dict)
    author: str = ""
    licence: str = ""

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        """`sources = ["traces.jsonl"]` is `[[sources]] path = "traces.jsonl"`."""
        return {"path": str(value)} if isinstance(value, str | Path) else value


@dataclass(frozen=True)
class Part:
    """What one file gave: PROBLEMS, TRACES, and STEPS where the source knows them."""

    where: str
    problems: pl.DataFrame
    traces: pl.DataFrame
    steps: pl.DataFrame


def read_source(source: SourceSettings, data: Path = Path()) -> Part:
    """The whole source as one part, in memory. Raises SourceError or LayoutError."""
    parts = list(iterate_source(source, data))
    return Part(
        source.path,
        pl.concat([p.problems for p in parts]).unique("problem_id", maintain_order=True),
        pl.concat([p.traces for p in parts]),
        pl.concat([p.steps for p in parts]),
    )


def iterate_source(source: SourceSettings, data: Path = Path()) -> Iterator[Part]:
    """The source file by file. `data`: where relative paths begin."""
    path = data / source.path
    if (path / "problems.parquet").is_file() and (path / "traces.parquet").is_file():
        yield _read_own(path)
        return
    name = source.name or path.name.removesuffix("".join(path.suffixes)) or source.path
    copies: Counter[str] = Counter()
    for where, frame in _frames(source, data):
        if frame.height == 0:
            raise SourceError(f"{where} holds no rows; expected at least one. Remove the file or fill it.")
        layout = _layout(source, frame, where)
        long = layouts.to_long(frame, layout, where)
        if source.author:
            long = long.with_columns(pl.lit(source.author).alias("author"))
        yield _identify(long, name, source.split, where, copies)


def source_files(source: SourceSettings, data: Path = Path()) -> list[Path]:
    """The files a source reads, in order; none for a hub name. Raises SourceError where a path holds none."""
    path = data / source.path
    if path.is_file():
        return [path]
    if not path.exists():
        if source.path.endswith(SUFFIXES) or source.path.count("/") > 1 or source.path.startswith((".", "/")):
            raise SourceError(f"{path} does not exist; expected a file, a folder, or a hub name such as owner/name.")
        return []
    files = sorted(f for f in path.rglob("*") if f.name.endswith(SUFFIXES) and not f.name.startswith("."))
    of_split = [f for f in files if f.name.startswith(source.split)]
    if of_split and any(f.name.startswith(_SPLIT_NAMES) for f in files):
        files = of_split
    if not files:
        raise SourceError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}.")
    return files


def read_file(path: Path) -> pl.DataFrame:
    """One data file as a frame. Raises SourceError naming what is damaged."""
    if path.stat().st_size == 0:
        raise SourceError(f"{path} is empty (0 bytes); expected a table. Remove the file or fetch it again.")
    name = path.name
    if name.endswith(".parquet"):
        return _read_parquet(path)
    if name.endswith(".csv"):
        return _read_csv(path)
    return _read_arrow(path) if name.endswith(".arrow") else _read_json(path)


def _layout(source: SourceSettings, frame: pl.DataFrame, where: str) -> layouts.Layout:
    if source.map:
        return layouts.by_hand(source.map)
    return layouts.named(source.layout) if source.layout else layouts.detect(frame, where)


def _frames(source: SourceSettings, data: Path) -> Iterator[tuple[str, pl.DataFrame]]:
    path = data / source.path
    saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    files = [] if saved else source_files(source, data)
    if not files:
        yield source.path, _load_with_datasets(source, path)
    for file in files:
        yield str(file), read_file(file)


def _load_with_datasets(source: SourceSettings, path: Path) -> pl.DataFrame:
    import datasets

    try:
        if path.exists():
            loaded = datasets.load_from_disk(str(path))
            table = loaded[source.split] if isinstance(loaded, dict) else loaded
        else:
            table = datasets.load_dataset(source.path, source.config, split=source.split)
    except (OSError, ValueError, KeyError) as error:
        raise SourceError(
            f"{source.path} is no file or folder here, and `datasets` cannot load it as a hub name: {error}"
        ) from error
    frame = pl.from_arrow(table.with_format("arrow")[:])
    assert isinstance(frame, pl.DataFrame)
    return frame


def _read_own(folder: Path) -> Part:
    problems = read_table(folder / "problems.parquet", PROBLEMS)
    traces = read_table(folder / "traces.parquet", TRACES)
    steps = read_table(folder / "steps.parquet", STEPS) if (folder / "steps.parquet").is_file() else empty(STEPS)
    strangers = traces.join(problems, on="problem_id", how="anti")
    if strangers.height:
        raise SourceError(
            f"{folder}/traces.parquet: trace {strangers['trace_id'][0]} belongs to problem "
            f"{strangers['problem_id'][0]}, which problems.parquet does not hold."
        )
    return Part(str(folder), problems, traces, steps)


def _identify(long: pl.DataFrame, name: str, split: str, where: str, copies: Counter[str]) -> Part:
    ids = [problem_id(name, problem, gold) for problem, gold in long.select("problem", "gold").iter_rows()]
    long = long.with_columns(pl.Series("problem_id", ids, dtype=pl.String))
    problems = long.unique("problem_id", maintain_order=True).select(
        "problem_id", "problem", "gold", pl.lit(name).alias("source"), pl.lit(split).alias("split"), "kind", "level"
    )
    traces = long.filter(pl.col("response").is_not_null() & (pl.col("response") != ""))
    trace_ids = []
    for row in traces.select("problem_id", "author", "response").iter_rows():
        identity = trace_id(*row)
        # A model that says the same twice wrote two traces: each copy has its own id, and duplicates.py tells them.
        copies[identity] += 1
        trace_ids.append(identity if copies[identity] == 1 else content_id(identity, str(copies[identity])))
    traces = traces.select(
        pl.Series("trace_id", trace_ids, dtype=pl.String),
        "problem_id",
        "author",
        "response",
        pl.lit(None, dtype=pl.Int32).alias("token_count"),
        pl.lit(None, dtype=pl.List(pl.Float32)).alias("token_log_probs"),
        "flagged_correct",
    )
    return Part(where, problems, traces, empty(STEPS))


# ---- files ---------------------------------------------------------------------------------------------------------


def _read_parquet(path: Path) -> pl.DataFrame:
    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{path} is damaged: {_damaged_rows(path) or error}. Fetch it again.") from error


def _damaged_rows(path: Path) -> str | None:
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
        raise SourceError(f"{path} is damaged: {error}. Fetch it again.") from error


def _read_csv(path: Path) -> pl.DataFrame:
    try:
        return pl.read_csv(path, infer_schema=False)  # text as it stands: "007" is no number
    except pl.exceptions.PolarsError as error:
        raise SourceError(f"{path} is no readable CSV: {error}. Expected a header and quoted text.") from error


def _read_json(path: Path) -> pl.DataFrame:
    raw = path.read_bytes()
    try:
        if path.name.endswith(".gz"):
            raw = gzip.decompress(raw)
        elif path.name.endswith(".zst"):
            raw = _unpack_zstd(raw)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise SourceError(f"{path} cannot be decompressed: {error}. Fetch it again.") from error
    try:
        if raw.lstrip()[:1] == b"[":
            return pl.DataFrame(json.loads(raw), infer_schema_length=None)
        frame = pl.read_ndjson(io.BytesIO(raw), infer_schema_length=None)
    except (pl.exceptions.PolarsError, ValueError, TypeError) as error:
        raise SourceError(_first_json_fault(path, raw) or f"{path} is no readable JSONL: {error}") from error
    # polars makes text of a column that mixes text with lists or objects. Text that begins like one is looked at.
    texts = [name for name, dtype in frame.schema.items() if dtype == pl.String]
    mixed = frame.select(pl.any_horizontal(pl.col(texts).str.contains(r"^[\[{]").any())).item() if texts else False
    fault = _first_json_fault(path, raw) if mixed else None
    if fault is not None:
        raise SourceError(fault)
    return frame


def _unpack_zstd(raw: bytes) -> bytes:
    """Every frame of the file: parallel compressors write several. Raises EOFError where the last one breaks off."""
    frames = []
    while raw:
        frame = zstandard.ZstdDecompressor().decompressobj()
        frames.append(frame.decompress(raw))
        if not frame.eof:
            raise EOFError("the file ends within a frame")
        raw = frame.unused_data
    return b"".join(frames)


def _first_json_fault(path: Path, raw: bytes) -> str | None:
    """The first line that is no JSON object, or whose column has another type than in the lines above."""
    types: dict[str, tuple[type, int]] = {}
    for number, line in enumerate(raw.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row: Any = json.loads(line)
        except ValueError as error:
            return f"{path}, row {number}: no JSON ({error}). Repair or remove the line."
        if not isinstance(row, dict):
            return f"{path}, row {number}: found {type(row).__name__}, expected an object."
        for column, value in row.items():
            if value is None:
                continue
            kind = float if isinstance(value, int | float) else type(value)
            known, first = types.setdefault(column, (kind, number))
            if known is not kind and {list, dict} & {known, kind}:  # a number among texts is read as text
                return (
                    f"{path}, row {number}, column {column}: {kind.__name__}, "
                    f"but {known.__name__} in row {first}. Give the column one type."
                )
    return None


__all__ = [
    "LayoutError",
    "Part",
    "SourceError",
    "SourceSettings",
    "iterate_source",
    "read_file",
    "read_source",
    "source_files",
]
