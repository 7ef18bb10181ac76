"""Curated set → the trainers' formats, with exact nested types.

Types are Arrow's `list` and `string`, never `large_list` and `large_string`: `datasets` cannot concatenate
the two kinds. A target that is too long is dropped and counted, never cut.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from tracekit.core.folders import replace_folder
from tracekit.core.runs import write_text
from tracekit.core.settings import Settings

Format = Literal["luffy", "verl", "trl-sft", "trl-prompt-completion", "trl-grpo", "trl-dpo", "openrlhf"]


class ExportSettings(Settings):
    """What is written to RUN/export: one folder a format, one file a split."""

    formats: tuple[Format, ...] = Field(("luffy",), description="formats to write")
    max_target_tokens: int | None = Field(
        None,
        ge=1,
        description=(
            "longer responses are left out of the formats that train on them, and counted in the card; None: "
            "none is left out"
        ),
    )
    system_prompt: str = Field("", description="first message of every prompt; empty: none")
    ability: str = Field("math", description="value of verl's column `ability`")


Row = dict[str, Any]
#: Rows that are made and written at a time, and about how many bytes of responses.
ROW_GROUP, SLICE_BYTES = 2_000, 32 * 2**20

_MESSAGES = pa.list_(pa.struct([("content", pa.string()), ("role", pa.string())]))
_VERL = [
    ("data_source", pa.string()),
    ("prompt", _MESSAGES),
    ("ability", pa.string()),
    ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
    ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string())])),
]

#: Column types of each Parquet format. LUFFY's are those of its published validation file, and `target`.
ARROW_SCHEMAS: dict[str, pa.Schema] = {
    "luffy": pa.schema([*_VERL[:2], ("target", _MESSAGES), *_VERL[2:]]),
    "verl": pa.schema(_VERL),
    "trl-sft": pa.schema([("messages", _MESSAGES)]),
    "trl-prompt-completion": pa.schema([("prompt", _MESSAGES), ("completion", _MESSAGES)]),
    "trl-grpo": pa.schema([("prompt", _MESSAGES), ("solution", pa.string())]),
    "trl-dpo": pa.schema([("prompt", _MESSAGES), ("chosen", _MESSAGES), ("rejected", _MESSAGES)]),
}


#: A partition's curated rows (CURATED) and DPO pairs.
Share = tuple[pl.DataFrame, pl.DataFrame]


def export(run: Path, shares: Iterable[Share], settings: ExportSettings, facts: dict[str, Any]) -> Path:
    """Write every format and the card into run/export; the folder is replaced whole.

    shares: the curated set a partition at a time. facts: what the card says of recipe, sources and funnel.
    """
    final = run / "export"
    with replace_folder(final, "export") as folder, ExitStack() as files:
        formats = {name: _Written(name, folder / name, files) for name in settings.formats}
        too_long = 0
        for curated, pairs in shares:
            too_long += _too_long(curated, settings).height
            for written in formats.values():
                written.add(curated, pairs, settings)
        files.close()
        counts: dict[str, dict[str, int]] = {name: dict(written.counts) for name, written in formats.items()}
        write_text(folder / "README.md", _card(facts, counts, too_long, settings))
    return final


def shares_of(run: Path) -> Iterator[Share]:
    """The curated set of a run, a partition at a time."""
    rows = json.loads((run / "funnel.json").read_text(encoding="utf-8"))["partitions"]
    starts = {"curated": 0, "pairs": 0}
    for counts in rows:
        scans = (pl.scan_parquet(run / f"{name}.parquet").slice(starts[name], counts[name]) for name in starts)
        curated, pairs = (scan.collect() for scan in scans)
        starts = {name: start + counts[name] for name, start in starts.items()}
        yield curated, pairs


class _Written:
    """The files of one format, one a split, and how many rows each holds."""

    def __init__(self, name: Format, folder: Path, files: ExitStack) -> None:
        self._name, self._folder, self._files = name, folder, files
        self._writers: dict[str, Callable[[list[Row]], object]] = {}
        self.counts: Counter[str] = Counter()

    def add(self, curated: pl.DataFrame, pairs: pl.DataFrame, settings: ExportSettings) -> None:
        """Write a share's rows, made a slice at a time, to bound memory."""
        longest = int(curated["response"].str.len_bytes().mean() or 1) + 1  # type: ignore[arg-type]
        rows = rows_of(self._name, curated, pairs, settings, self.counts.total())
        for some in batched(rows, max(1, min(ROW_GROUP, SLICE_BYTES // longest))):
            for split in dict.fromkeys(row["split"] for row in some):
                if split not in self._writers:
                    self._writers[split] = _open(self._name, self._folder, split, self._files)
                of_split = [row["row"] for row in some if row["split"] == split]
                self._writers[split](of_split)
                self.counts[split] += len(of_split)


def batched(rows: Iterable[Row], size: int) -> Iterator[list[Row]]:
    """Lists of `size` rows, the last one shorter."""
    rest = iter(rows)
    while some := list(islice(rest, size)):
        yield some


def rows_of(
    name: str, curated: pl.DataFrame, pairs: pl.DataFrame, settings: ExportSettings, first: int = 0
) -> Iterator[Row]:
    """A format's rows as plain values, each with the split it belongs to: {"split": …, "row": …}.

    first: index of the first row among the rows of all shares.
    """
    fitting = curated.join(_too_long(curated, settings).select("trace_id"), on="trace_id", how="anti")
    good = fitting.filter(pl.col("correct").fill_null(True) | ~pl.col("trace_id").is_in(pairs["rejected"].implode()))
    if name == "trl-dpo":
        yield from _dpo(fitting, pairs, settings)
        return
    if name in ("verl", "trl-grpo"):
        good = curated.unique("problem_id", keep="first", maintain_order=True)
    make = _MAKERS[name]
    for index, row in enumerate(good.iter_rows(named=True, buffer_size=ROW_GROUP), start=first):
        yield {"split": row["split"], "row": make(row, index, settings)}


def anchored(gold: str) -> str:
    r"""A gold in the form that answer parsers read for certain: `\boxed{…}`, unless it holds a box already."""
    return gold if "\\boxed" in gold else f"\\boxed{{{gold}}}"


def _prompt(problem: str, settings: ExportSettings) -> list[Row]:
    system = [_message("system", settings.system_prompt)] if settings.system_prompt else []
    return [*system, _message("user", problem)]


def _message(role: str, content: str) -> Row:
    return {"content": content, "role": role}


def _verl(row: Row, index: int, settings: ExportSettings) -> Row:
    return {
        "data_source": row["source"],
        "prompt": _prompt(row["problem"], settings),
        "ability": settings.ability,
        "reward_model": {"ground_truth": row["gold"], "style": "rule"},
        "extra_info": {"index": index, "split": row["split"]},
    }


def _luffy(row: Row, index: int, settings: ExportSettings) -> Row:
    return {**_verl(row, index, settings), "target": [_message("assistant", row["response"])]}


def _sft(row: Row, index: int, settings: ExportSettings) -> Row:
    return {"messages": [*_prompt(row["problem"], settings), _message("assistant", row["response"])]}


def _prompt_completion(row: Row, index: int, settings: ExportSettings) -> Row:
    return {"prompt": _prompt(row["problem"], settings), "completion": [_message("assistant", row["response"])]}


def _grpo(row: Row, index: int, settings: ExportSettings) -> Row:
    return {"prompt": _prompt(row["problem"], settings), "solution": anchored(row["gold"])}


def _openrlhf(row: Row, index: int, settings: ExportSettings) -> Row:
    prompt = "\n\n".join(part for part in (settings.system_prompt, row["problem"]) if part)
    return {"input": prompt, "output": row["response"], "label": row["gold"]}


def _dpo(curated: pl.DataFrame, pairs: pl.DataFrame, settings: ExportSettings) -> Iterable[Row]:
    place = {name: row for row, name in enumerate(curated["trace_id"])}
    for chosen, rejected in pairs.select("chosen", "rejected").iter_rows():
        if chosen in place and rejected in place:
            row = curated.row(place[chosen], named=True)
            yield {
                "split": row["split"],
                "row": {
                    "prompt": _prompt(row["problem"], settings),
                    "chosen": [_message("assistant", row["response"])],
                    "rejected": [_message("assistant", curated["response"][place[rejected]])],
                },
            }


_MAKERS: dict[str, Callable[[Row, int, ExportSettings], Row]] = {
    "luffy": _luffy,
    "verl": _verl,
    "trl-sft": _sft,
    "trl-prompt-completion": _prompt_completion,
    "trl-grpo": _grpo,
    "openrlhf": _openrlhf,
}


def _too_long(curated: pl.DataFrame, settings: ExportSettings) -> pl.DataFrame:
    limit = settings.max_target_tokens
    return curated.filter(pl.col("token_count") > limit) if limit is not None else curated.clear()


def _open(name: str, folder: Path, split: str, files: ExitStack) -> Callable[[list[Row]], object]:
    """A file of one split, closed with `files`; the function that writes rows to it."""
    folder.mkdir(parents=True, exist_ok=True)
    if name == "openrlhf":
        file = files.enter_context((folder / f"{split}.jsonl").open("w", encoding="utf-8"))
        return lambda rows: file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    schema = ARROW_SCHEMAS[name]
    writer = files.enter_context(pq.ParquetWriter(folder / f"{split}.parquet", schema))
    return lambda rows: writer.write_table(pa.Table.from_pylist(rows, schema=schema))


def _card(facts: dict[str, Any], written: dict[str, dict[str, int]], too_long: int, settings: ExportSettings) -> str:
    configs = "\n".join(
        f"- config_name: {name}\n  data_files:\n"
        + "\n".join(f"  - split: {split}\n    path: {name}/{split}.*" for split in splits)
        for name, splits in written.items()
        if splits and name in ARROW_SCHEMAS  # `datasets` reads one kind of file a folder: JSONL is loaded by its path
    )
    funnel = facts["funnel"]
    stages = "\n".join(
        f"| {s['stage']} | {s['traces']:,} | {s['problems']:,} | {s['dropped']:,} | "
        f"{', '.join(f'{k}: {v:,}' for k, v in s['reasons'].items())} |"
        for s in funnel["funnel"]
    )
    sources = "\n".join(f"| {s['name'] or s['path']} | {s['licence'] or 'not stated'} |" for s in facts["sources"])
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
