"""Curated set → the trainers' formats and a data set card.

A target that is too long is dropped and counted, never cut.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from tracekit.core.folders import replace_folder
from tracekit.core.runs import write_text
from tracekit.core.settings import SettingsError
from tracekit.core.tables import CURATED, TableError, check_file
from tracekit.curation.environment_package import VERIFIERS
from tracekit.curation.export_formats import FORMATS, ExportFormat, ExportSettings, Row
from tracekit.curation.ledger import read_funnel
from tracekit.curation.select import PAIRS

#: Rows that are made and written at a time, and about how many bytes of responses.
ROW_GROUP, SLICE_BYTES = 2_000, 32 * 2**20

#: A partition's curated rows (CURATED) and DPO pairs.
Share = tuple[pl.DataFrame, pl.DataFrame]


def write_exports(
    run: Path,
    shares: Iterable[Share],
    settings: ExportSettings,
    facts: dict[str, Any],
    own: Mapping[str, ExportFormat] | None = None,
) -> Path:
    """Write every format and the card into run/export; the folder is replaced whole.

    Parameters
    ----------
    run
        The run folder of `tracekit curate`.
    shares
        The curated set a partition at a time: CURATED, and pairs (problem_id, chosen, rejected).
    settings
        Which formats, and what they share.
    facts
        What the card says of recipe, sources and funnel.
    own
        Exporters of the user's, by name.

    Raises
    ------
    SettingsError
        If a format is unknown.
    FolderError
        If run/export holds files that no export wrote.
    """
    forms = formats_of(settings, own or {})
    final = run / "export"
    with replace_folder(final, "export") as folder, ExitStack() as files:
        formats = {name: _Written(form, folder / name, files) for name, form in forms.items()}
        too_long = 0
        for curated, pairs in shares:
            too_long += _too_long(curated, settings).height
            for written in formats.values():
                written.add(curated, pairs, settings)
        files.close()
        counts: dict[str, dict[str, int]] = {name: dict(written.counts) for name, written in formats.items()}
        for name, form in forms.items():
            if counts[name]:
                for file, text in form.beside(counts[name], settings).items():
                    write_text(folder / name / file, text)
        write_text(folder / "README.md", _card(facts, counts, too_long, settings, forms))
    return final


def formats_of(settings: ExportSettings, own: Mapping[str, ExportFormat]) -> dict[str, ExportFormat]:
    """The formats that the settings name. Raises SettingsError on one that nobody knows."""
    known = {**FORMATS, "verifiers": VERIFIERS, **own}
    for name in settings.formats:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(known)}."
            raise SettingsError(f"export.formats: {name!r} is no format; {hint}")
    return {name: known[name] for name in settings.formats}


def shares_of(run: Path) -> Iterator[Share]:
    """The curated set of a run, a partition at a time."""
    rows = read_funnel(run)["partitions"]
    check_file(run / "curated.parquet", CURATED)
    check_file(run / "pairs.parquet", PAIRS)
    starts = {"curated": 0, "pairs": 0}
    for counts in rows:
        scans = (pl.scan_parquet(run / f"{name}.parquet").slice(starts[name], counts[name]) for name in starts)
        try:
            curated, pairs = (scan.collect() for scan in scans)
        except pl.exceptions.PolarsError as error:
            raise TableError(f"{run}: its curated set is damaged ({error}); run tracekit curate again.") from error
        starts = {name: start + counts[name] for name, start in starts.items()}
        yield curated, pairs


class _Written:
    """The files of one format, one a split, and how many rows each holds."""

    def __init__(self, form: ExportFormat, folder: Path, files: ExitStack) -> None:
        self._form, self._folder, self._files = form, folder, files
        self._writers: dict[str, Callable[[list[Row]], object]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, curated: pl.DataFrame, pairs: pl.DataFrame, settings: ExportSettings) -> None:
        """Write a share's rows, made a slice at a time, to bound memory."""
        longest = int(curated["response"].str.len_bytes().mean() or 1) + 1  # type: ignore[arg-type]
        rows = rows_of(self._form, curated, pairs, settings, self.counts.total())
        for some in batched(rows, max(1, min(ROW_GROUP, SLICE_BYTES // longest))):
            for split in dict.fromkeys(row["split"] for row in some):
                if split not in self._writers:
                    self._writers[split] = _open(self._form, self._folder, split, self._files)
                of_split = [row["row"] for row in some if row["split"] == split]
                self._writers[split](of_split)
                self.counts[split] += len(of_split)


def batched(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Lists of `size` rows, the last one shorter."""
    rest = iter(rows)
    while some := list(islice(rest, size)):
        yield some


def rows_of(
    form: ExportFormat, curated: pl.DataFrame, pairs: pl.DataFrame, settings: ExportSettings, first: int = 0
) -> Iterator[Row]:
    """A format's rows as plain values, each with the split it belongs to: {"split": …, "row": …}.

    first: index of the first row among the rows of all shares.
    """
    for index, row in enumerate(_chosen(form, curated, pairs, settings), start=first):
        made = form.make(row, index, settings)
        if made is not None:
            yield {"split": row["split"], "row": made}


def _chosen(form: ExportFormat, curated: pl.DataFrame, pairs: pl.DataFrame, settings: ExportSettings) -> Iterable[Row]:
    """The rows of CURATED that a format is made of."""
    if form.each == "problem":
        return curated.unique("problem_id", keep="first", maintain_order=True).iter_rows(named=True)
    fitting = curated.join(_too_long(curated, settings).select("trace_id"), on="trace_id", how="anti")
    if form.each == "pair":
        return _paired(fitting, pairs)
    good = fitting.filter(pl.col("correct").fill_null(True) | ~pl.col("trace_id").is_in(pairs["rejected"].implode()))
    return good.iter_rows(named=True, buffer_size=ROW_GROUP)


def _paired(curated: pl.DataFrame, pairs: pl.DataFrame) -> Iterator[Row]:
    place = {name: row for row, name in enumerate(curated["trace_id"])}
    for chosen, rejected in pairs.select("chosen", "rejected").iter_rows():
        if chosen in place and rejected in place:
            yield {**curated.row(place[chosen], named=True), "rejected": curated["response"][place[rejected]]}


def _too_long(curated: pl.DataFrame, settings: ExportSettings) -> pl.DataFrame:
    limit = settings.max_target_tokens
    return curated.filter(pl.col("token_count") > limit) if limit is not None else curated.clear()


def _open(form: ExportFormat, folder: Path, split: str, files: ExitStack) -> Callable[[list[Row]], object]:
    """A file of one split, closed with `files`; the function that writes rows to it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{split}{form.suffix}"
    if form.schema is None:
        file = files.enter_context(path.open("w", encoding="utf-8"))
        return lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    writer = files.enter_context(pq.ParquetWriter(path, form.schema))
    return lambda rows: writer.write_table(_table(rows, form.schema, path))


def _table(rows: list[Row], schema: pa.Schema, path: Path) -> pa.Table:
    try:
        return pa.Table.from_pylist(rows, schema=schema)
    except (pa.ArrowException, TypeError) as error:  # rows of a user's exporter
        raise SettingsError(f"export format {path.parent.name}: a row does not fit its schema: {error}.") from error


def rows_in(folder: Path) -> dict[str, dict[str, int]]:
    """Format → split → rows, of a folder that `export` wrote."""
    counts: dict[str, dict[str, int]] = {}
    for path in sorted([*folder.glob("*/*.parquet"), *folder.glob("*/*.jsonl")]):
        of_format = counts.setdefault(path.parent.name, {})
        if path.suffix == ".parquet":
            of_format[path.stem] = pq.read_metadata(path).num_rows
        else:
            with path.open("rb") as lines:
                of_format[path.stem] = sum(1 for _ in lines)
    return counts


def _card(
    facts: dict[str, Any],
    written: dict[str, dict[str, int]],
    too_long: int,
    settings: ExportSettings,
    formats: Mapping[str, ExportFormat],
) -> str:
    configs = "\n".join(
        f"- config_name: {name}\n  data_files:\n"
        + "\n".join(f"  - split: {split}\n    path: {name}/{split}.parquet" for split in splits)
        for name, splits in written.items()
        if splits
        and formats[name].schema is not None  # `datasets` reads one kind of file a folder: JSONL is loaded by its path
    )
    funnel = facts["funnel"]
    stages = "\n".join(
        f"| {s['stage']} | {s['traces']:,} | {s['problems']:,} | {s['dropped']:,} | "
        f"{', '.join(f'{k}: {v:,}' for k, v in s['reasons'].items())} |"
        for s in funnel["funnel"]
    )
    sources = "\n".join(
        f"| {s['name'] or shown_path(s['path'])} | {s['licence'] or 'not stated'} |" for s in facts["sources"]
    )
    rows = "\n".join(
        f"| {n} | {split} | {count:,} |" for n, splits in written.items() for split, count in splits.items()
    )
    limit = settings.max_target_tokens
    long = (
        f"{too_long:,} responses of more than {limit:,} tokens were left out whole."
        if limit
        else "None was left out for its length."
    )
    return (
        f"---\nconfigs:\n{configs}\n---\n\n# Curated reasoning traces\n\nRecipe `{facts['recipe']}`. "
        f"Tokens are counted by: {funnel['token_unit']}. {long}\n\n"
        f"| format | split | rows |\n|---|---|---|\n{rows}\n\n"
        f"| source | licence |\n|---|---|\n{sources}\n\n"
        f"| stage | traces | problems | dropped | reasons |\n|---|---|---|---|---|\n{stages}\n"
    )


def shown_path(path: str) -> str:
    """A source's path as a card may show it to others: of a path of this machine the last name alone."""
    return Path(path).name if Path(path).is_absolute() or path.startswith("~") else path
