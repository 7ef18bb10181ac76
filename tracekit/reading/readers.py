"""Public data sets → PROBLEMS and TRACES: files, folders of shards, hub names; ids by content.

What is damaged is named: file, row, column.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from pydantic import Field, model_validator

from tracekit.core.hub import hub_answers, prepare_hub, unreachable
from tracekit.core.ids import content_id, problem_id, trace_id
from tracekit.core.settings import Settings
from tracekit.core.tables import PROBLEMS, STEPS, TRACES, Schema, check_file, check_values, conform, empty, read_table
from tracekit.reading import formats as layouts
from tracekit.reading.exchanges import read_requests, with_requests
from tracekit.reading.files import SUFFIXES, DamagedFileError, SourceError, Table, read_table_file
from tracekit.reading.formats import LayoutError
from tracekit.reading.long_form import to_long
from tracekit.reading.pieces import PIECE_BYTES, read_pieces

_SPLIT_NAMES = ("train", "test", "validation", "dev")

#: JSON files that lie beside data and are none.
_NOT_DATA = ("dataset_infos.json", "dataset_info.json", "state.json", "dataset_dict.json")

#: Rows that were not read: file:row and the reason.
LOST: Schema = {"row_id": pl.String, "reason": pl.String}

#: What a source says of a trace beside it: the system prompt, and why the response ended ("stop", "length").
DETAILS: Schema = {"trace_id": pl.String, "system": pl.String, "finish_reason": pl.String}


class SourceSettings(Settings):
    """One source of problems and traces; docs/settings.md lists each field.

    Examples
    --------
    >>> from tracekit import SourceSettings
    >>> SourceSettings(path="traces.jsonl", map={"gold": "answer"}).split
    'train'
    """

    path: str = Field(
        description="a file, a folder of shards, a folder of problems.parquet and traces.parquet, or a hub name"
    )
    name: str = Field("", description="the value of PROBLEMS.source; empty: the name of the file or folder")
    split: str = Field(
        "train",
        description=(
            "the value of PROBLEMS.split; of a hub name or a folder whose files are named for splits also the"
            " split that is read"
        ),
    )
    config: str | None = Field(None, description="configuration of a hub data set")
    layout: str = Field("", description="a name of tracekit.reading.formats.LAYOUTS; empty: recognised by its columns")
    map: dict[str, str] = Field(
        default_factory=dict, description="our column = theirs, for a layout that is not recognised"
    )
    author: str = Field("", description="the value of TRACES.author where no column holds it")
    licence: str = Field("", description="licence, for the card of exported data")
    turns: Literal["last", "all"] = Field(
        "last",
        description=(
            'of a conversation with several exchanges: "last" reads the last answered question; "all" reads each, with'
            " what was said before it in the problem"
        ),
    )
    requests: str = Field(
        "", description="the file of a batch's requests; results are joined with them by custom_id (OpenAI's batch API)"
    )
    bad_share: float = Field(
        0.05,
        ge=0,
        le=1,
        description=(
            "greatest share in [0, 1] of a JSONL file's lines that may be unreadable, and of a source's shards that may"
            " be damaged; they are counted in the ledger"
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _path_alone(cls, value: Any) -> Any:
        """`sources = ["traces.jsonl"]` is `[[sources]] path = "traces.jsonl"`."""
        return {"path": str(value)} if isinstance(value, str | Path) else value


@dataclass(frozen=True)
class Part:
    """What one file gave: PROBLEMS, TRACES, and STEPS where the source knows them.

    lost: rows that gave neither, with the reason. details: of the traces, where the source has any. read: what was read
    from which column, "gold" → "answer".
    """

    where: str
    problems: pl.DataFrame
    traces: pl.DataFrame
    steps: pl.DataFrame
    lost: pl.DataFrame = field(default_factory=lambda: empty(LOST))
    details: pl.DataFrame = field(default_factory=lambda: empty(DETAILS))
    read: Mapping[str, str] = field(default_factory=dict)

    def reading(self, rows: int = 3) -> dict[str, Any]:
        """How the columns were read, and the first rows as they were read: what a person checks at a glance."""
        shown = self.problems.head(rows).join(self.traces, on="problem_id", how="left", maintain_order="left")
        first = shown.unique("problem_id", keep="first", maintain_order=True).select("problem", "gold", "response")
        return {"file": Path(self.where).name, "columns": dict(self.read), "rows": first.to_dicts()}


def read_source(source: SourceSettings, data: Path = Path()) -> Part:
    """Read a whole source of problems and traces, in memory.

    Parameters
    ----------
    source : SourceSettings
        Path or hub name, and how its columns are read where they are not recognised.
    data : Path
        Folder that a relative path starts from.

    Returns
    -------
    Part
        PROBLEMS, TRACES and STEPS; `lost` holds the rows that gave neither, each with its reason.

    Raises
    ------
    SourceError
        Where the source is absent, damaged, or holds too many unreadable lines.
    LayoutError
        Where its columns are of no known format, or could be read in two ways.

    Examples
    --------
    >>> from tracekit import SourceSettings, read_source
    >>> columns = {"problem": "question", "gold": "answer", "response": "generation"}
    >>> part = read_source(SourceSettings(path="traces.jsonl", map=columns))
    >>> part.problems.height, part.traces.height, part.lost.height
    (40, 40, 0)
    """
    parts = list(iterate_source(source, data))
    return Part(
        source.path,
        pl.concat([p.problems for p in parts]).unique("problem_id", maintain_order=True),
        pl.concat([p.traces for p in parts]),
        pl.concat([p.steps for p in parts]),
        pl.concat([p.lost for p in parts]),
        pl.concat([p.details for p in parts]),
        {ours: theirs for p in reversed(parts) for ours, theirs in p.read.items()},
    )


def read_problems(path: str | Path) -> pl.DataFrame:
    """Read PROBLEMS from a table of ours, or from problems in any layout that `read_source` reads.

    Raises SourceError or LayoutError.
    """
    file = Path(path)
    if file.suffix == ".parquet" and file.is_file() and _is_own_table(file):
        problems = read_table(file, PROBLEMS, "problems")
        return check_values(problems, str(file), ("problem_id", "problem"), unique="problem_id")
    return read_source(SourceSettings(path=str(path))).problems


def _is_own_table(file: Path) -> bool:
    try:
        return "problem_id" in pq.read_schema(file).names
    except (pa.ArrowException, OSError):  # damaged: the reader names the place
        return False


def iterate_source(source: SourceSettings, data: Path = Path()) -> Iterator[Part]:
    """The source piece by piece: a file, or several pieces of a large one. `data`: where relative paths begin."""
    path = data / source.path
    if (path / "problems.parquet").is_file() and (path / "traces.parquet").is_file():
        yield from _read_own(path)
        return
    name = source.name or path.name.removesuffix("".join(path.suffixes)) or source.path
    copies = _Copies()
    layouts_of: dict[str, layouts.Layout] = {}
    requests = read_requests(data / source.requests) if source.requests else {}
    for where, table in _tables(source, data):
        lost = list(table.lost)
        if table.frame.height == 0:
            if path.is_file() and not table.first:
                raise SourceError(f"{where} holds no rows; expected at least one. Remove the file or fill it.")
            yield Part(where, empty(PROBLEMS), empty(TRACES), empty(STEPS), _lost(where, lost or [(0, "no rows")]))
            continue
        if requests:
            table = with_requests(table, requests, where)
        layout = layouts_of.get(where)
        if layout is None or not layouts.fits(layout, table.frame):
            layout = layouts_of[where] = _layout(source, table.frame, where)
        long = to_long(table.frame, layout, where, table.first, source.turns)
        rows = long.rows.with_columns(pl.lit(source.author).alias("author")) if source.author else long.rows
        part = _identify(rows, name, source.split, where, copies)
        yield replace(part, lost=_lost(where, [*lost, *long.lost]), read=long.read)


class _Copies:
    """How often each trace of a source was met: a model that says the same twice wrote two traces."""

    def __init__(self) -> None:
        self._once: set[int] = set()  # the ids' bits: a fifth of the memory that a count of texts takes
        self._more: dict[int, int] = {}

    def id_of(self, identity: str) -> str:
        """The trace's own id: a copy's is made of the first one's and its number."""
        key = int(identity, 16)
        if key not in self._once:
            self._once.add(key)
            return identity
        self._more[key] = self._more.get(key, 1) + 1
        return content_id(identity, str(self._more[key]))


def _lost(where: str, rows: list[tuple[int, str]]) -> pl.DataFrame:
    """Rows that were not read, under the name of their file and their number in it."""
    found = [(f"{Path(where).name}:{row + 1}", reason) for row, reason in rows]
    return pl.DataFrame(found, schema=LOST, orient="row")


def source_files(source: SourceSettings, data: Path = Path()) -> list[Path]:
    """The files a source reads, in order; none for a hub name. Raises SourceError where a path holds none."""
    path = data / source.path
    if path.is_file():
        return [path]
    if any(sign in source.path for sign in "*?["):
        return _matching(data, source.path)
    if not path.exists():
        if source.path.endswith(SUFFIXES) or source.path.count("/") > 1 or source.path.startswith((".", "/")):
            raise SourceError(f"{path} does not exist; expected a file, a folder, or a hub name such as owner/name.")
        return []
    named = _files_of_card(path, source)
    if named:
        return named
    files = sorted(f for f in path.rglob("*") if f.name.endswith(SUFFIXES) and f.name not in _NOT_DATA)
    files = [f for f in files if not any(part.startswith(".") for part in f.relative_to(path).parts)]
    of_split = [f for f in files if f.name.startswith(source.split)]
    if of_split and any(f.name.startswith(_SPLIT_NAMES) for f in files):
        files = of_split
    if not files:
        raise SourceError(f"{path} holds no file that ends in {', '.join(SUFFIXES)}.")
    return files


def read_file(path: Path) -> pl.DataFrame:
    """One data file as a frame. Raises SourceError naming what is damaged."""
    return read_table_file(path).frame


def _matching(data: Path, pattern: str) -> list[Path]:
    """Files that a glob names, in order."""
    root = Path(pattern).anchor or data
    relative = pattern.removeprefix(Path(pattern).anchor)
    files = sorted(f for f in Path(root).glob(relative) if f.is_file() and f.name.endswith(SUFFIXES))
    if not files:
        raise SourceError(f"{pattern} matches no file that ends in {', '.join(SUFFIXES[::3])}, plain or compressed.")
    return files


def _files_of_card(folder: Path, source: SourceSettings) -> list[Path]:
    """The files that a data set card names for the configuration and split; none where it has no `configs:`."""
    configs = _configs(folder / "README.md")
    if not configs:
        if source.config:
            raise SourceError(f"{folder} has no configuration {source.config}: its README.md names none.")
        return []
    names = [str(config.get("config_name", "default")) for config in configs]
    wanted = source.config or ("default" if "default" in names else names[0])
    if wanted not in names:
        raise SourceError(f"{folder} has no configuration {wanted}; it has {', '.join(names)}.")
    patterns = _patterns(configs[names.index(wanted)].get("data_files"), source.split)
    files = sorted({file for pattern in patterns for file in folder.glob(pattern) if file.name.endswith(SUFFIXES)})
    if patterns and not files:
        raise SourceError(f"{folder}: configuration {wanted} names {', '.join(patterns)}, which match no file.")
    return files


def _patterns(data_files: Any, split: str) -> list[str]:
    """The globs of a split in a card's `data_files`: text, a list, or one entry a split."""
    if isinstance(data_files, str):
        return [data_files]
    entries = data_files if isinstance(data_files, list) else []
    found = [entry for entry in entries if isinstance(entry, str)]
    for entry in entries:
        if isinstance(entry, dict) and str(entry.get("split", split)) == split:
            path = entry.get("path", [])
            found += [path] if isinstance(path, str) else [str(one) for one in path]
    return found


def _configs(card: Path) -> list[dict[str, Any]]:
    """`configs:` of a card's front matter; none where there is no card, or no front matter that can be read."""
    if not card.is_file():
        return []
    head = card.read_text(encoding="utf-8", errors="replace")[:100_000]
    if not head.startswith("---\n"):
        return []
    try:
        tree = yaml.safe_load(head[4:].partition("\n---")[0])
    except yaml.YAMLError as error:
        raise SourceError(f"{card}: its front matter is no YAML ({error}).") from error
    found = tree.get("configs", []) if isinstance(tree, dict) else []
    return [config for config in found if isinstance(config, dict)] if isinstance(found, list) else []


def _layout(source: SourceSettings, frame: pl.DataFrame, where: str) -> layouts.Layout:
    if source.map:
        return layouts.by_hand(source.map)
    return layouts.named(source.layout) if source.layout else layouts.detect(frame, where)


def _tables(source: SourceSettings, data: Path) -> Iterator[tuple[str, Table]]:
    path = data / source.path
    saved = (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()
    files = [] if saved else source_files(source, data)
    if not files:
        yield from ((source.path, table) for table in _load_with_datasets(source, path))
    damaged: list[DamagedFileError] = []
    for file in files:
        if file.stat().st_size == 0 and len(files) > 1:  # one empty shard does not end the reading of the others
            yield str(file), Table(pl.DataFrame(), ((0, "the file is empty"),))
            continue
        rows = 0
        try:
            for table in read_pieces(file, source.bad_share):
                rows = table.first + table.frame.height
                yield str(file), table
        except DamagedFileError as error:
            damaged.append(error)
            # The last shard: so that a set whose every shard is damaged is refused, and not empty.
            if len(damaged) > max(1, source.bad_share * len(files)) or len(damaged) == len(files):
                raise
            yield str(file), Table(pl.DataFrame(), ((rows, f"the rest of the shard is damaged: {error}"),), rows)


def _load_with_datasets(source: SourceSettings, path: Path) -> Iterator[Table]:
    prepare_hub(path)  # before `datasets` is imported: it reads the environment then
    import datasets

    try:
        if path.exists():
            loaded = datasets.load_from_disk(str(path))
            table = loaded[source.split] if isinstance(loaded, dict) else loaded
        else:
            table = datasets.load_dataset(source.path, source.config, split=source.split)
    except (OSError, ValueError, KeyError) as error:
        if not path.exists() and not hub_answers():
            raise SourceError(unreachable(source.path)) from error
        raise SourceError(
            f"{source.path} is no file or folder here, and `datasets` cannot load it as a hub name: {error}"
        ) from error
    size = max(1, len(table) * PIECE_BYTES // max(1, table.data.nbytes))
    for first in range(0, max(1, len(table)), size):
        frame = pl.from_arrow(table.with_format("arrow")[first : first + size])
        assert isinstance(frame, pl.DataFrame)
        yield Table(frame, first=first)


def _read_own(folder: Path) -> Iterator[Part]:
    """Our own tables: all problems with the first piece of the traces, steps with the traces that they belong to."""
    problems = read_table(folder / "problems.parquet", PROBLEMS)
    check_values(problems, str(folder / "problems.parquet"), ("problem_id", "problem"), unique="problem_id")
    has_steps = (folder / "steps.parquet").is_file()
    if has_steps:
        check_file(folder / "steps.parquet", STEPS)
    check_file(folder / "traces.parquet", TRACES)
    for table in read_pieces(folder / "traces.parquet"):
        traces = conform(table.frame, TRACES, f"traces ({folder / 'traces.parquet'})")
        check_values(traces, str(folder / "traces.parquet"), ("trace_id", "problem_id", "response"), unique="trace_id")
        strangers = traces.join(problems, on="problem_id", how="anti")
        if strangers.height:
            raise SourceError(
                f"{folder}/traces.parquet: trace {strangers['trace_id'][0]} belongs to problem "
                f"{strangers['problem_id'][0]}, which problems.parquet does not hold."
            )
        steps = pl.scan_parquet(folder / "steps.parquet") if has_steps else empty(STEPS).lazy()
        here = steps.filter(pl.col("trace_id").is_in(traces["trace_id"].implode())).select(STEPS.keys()).collect()
        of_these = problems.join(traces, on="problem_id", how="semi") if table.first else problems
        yield Part(str(folder), of_these, traces, here)


def _identify(long: pl.DataFrame, name: str, split: str, where: str, copies: _Copies) -> Part:
    ids = [problem_id(name, problem, gold) for problem, gold in long.select("problem", "gold").iter_rows()]
    long = long.with_columns(pl.Series("problem_id", ids, dtype=pl.String))
    problems = long.unique("problem_id", maintain_order=True).select(
        "problem_id", "problem", "gold", pl.lit(name).alias("source"), pl.lit(split).alias("split"), "kind", "level"
    )
    traces = long.filter(pl.col("response").is_not_null() & (pl.col("response") != ""))
    rows = traces.select("problem_id", "author", "response").iter_rows()
    trace_ids = [copies.id_of(trace_id(*row)) for row in rows]
    traces = traces.with_columns(pl.Series("trace_id", trace_ids, dtype=pl.String))
    details = traces.select(*DETAILS).filter(pl.any_horizontal(pl.col("system", "finish_reason").is_not_null()))
    traces = traces.select(
        "trace_id",
        "problem_id",
        "author",
        "response",
        pl.lit(None, dtype=pl.Int32).alias("token_count"),
        pl.lit(None, dtype=pl.List(pl.Float32)).alias("token_log_probs"),
        "flagged_correct",
    )
    return Part(where, problems, traces, empty(STEPS), details=details)


__all__ = [
    "DETAILS",
    "LayoutError",
    "Part",
    "SourceError",
    "SourceSettings",
    "iterate_source",
    "read_file",
    "read_problems",
    "read_source",
    "source_files",
]
