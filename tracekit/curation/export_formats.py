"""Rows of the trainers' formats, with exact nested types, and the files that stand beside them.

Types are Arrow's `list` and `string`, never `large_list` and `large_string`: `datasets` cannot concatenate
the two kinds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
from pydantic import Field

from tracekit.core.settings import Settings

Row = dict[str, Any]
#: Split → rows that were written.
Counts = Mapping[str, int]


class ExportSettings(Settings):
    """What is written to RUN/export: one folder a format, one file a split."""

    formats: tuple[str, ...] = Field(
        ("luffy",), description="formats to write, of docs/curation.md or exporters of your own"
    )
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


@dataclass(frozen=True)
class ExportFormat:
    """How a format is written.

    make: a row of CURATED, its number and the settings → a row of the format; None leaves it out. A row of a pair has
        `rejected` too, the other side's response.
    each: what a row stands for. schema: Arrow types of Parquet; None writes JSON lines.
    beside: files that the consumer reads beside the data: split counts and settings → name → text.
    """

    make: Callable[[Row, int, ExportSettings], Row | None]
    each: Literal["trace", "problem", "pair"] = "trace"
    schema: pa.Schema | None = None
    beside: Callable[[Counts, ExportSettings], dict[str, str]] = lambda counts, settings: {}

    @property
    def suffix(self) -> str:
        """Ending of the data files."""
        return ".jsonl" if self.schema is None else ".parquet"


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


def _dpo(row: Row, index: int, settings: ExportSettings) -> Row:
    return {
        "prompt": _prompt(row["problem"], settings),
        "chosen": [_message("assistant", row["response"])],
        "rejected": [_message("assistant", row["rejected"])],
    }


def _preference(row: Row, index: int, settings: ExportSettings) -> Row:
    """A conversation up to the answer, and one message for each side: LLaMA-Factory and Axolotl."""
    return {
        "messages": _prompt(row["problem"], settings),
        "chosen": _message("assistant", row["response"]),
        "rejected": _message("assistant", row["rejected"]),
    }


def _llama_factory(counts: Counts, settings: ExportSettings) -> dict[str, str]:
    return {"dataset_info.json": _dataset_info(counts, {"messages": "messages"})}


def _llama_factory_dpo(counts: Counts, settings: ExportSettings) -> dict[str, str]:
    columns = {"messages": "messages", "chosen": "chosen", "rejected": "rejected"}
    return {"dataset_info.json": _dataset_info(counts, columns, ranking=True)}


def _dataset_info(counts: Counts, columns: dict[str, str], **more: Any) -> str:
    """LLaMA-Factory's description of a folder: `dataset_dir=FOLDER dataset=curated_train`."""
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}
    tags["system_tag"] = "system"
    about = {
        f"curated_{split}": {
            "file_name": f"{split}.parquet",
            "formatting": "sharegpt",
            **more,
            "columns": columns,
            "tags": tags,
        }
        for split in counts
    }
    return json.dumps(about, indent=2) + "\n"


def _axolotl(counts: Counts, settings: ExportSettings) -> dict[str, str]:
    lines = ["    type: chat_template", "    field_messages: messages", *_ROLES]
    return {"axolotl.yaml": _axolotl_config(counts, lines)}


def _axolotl_dpo(counts: Counts, settings: ExportSettings) -> dict[str, str]:
    fields = ["messages", "chosen", "rejected"]
    lines = ["    type: chat_template.default", *(f"    field_{name}: {name}" for name in fields), *_ROLES]
    return {"axolotl.yaml": "rl: dpo\n" + _axolotl_config(counts, lines)}


_ROLES = ("    message_property_mappings:", "      role: role", "      content: content")


def _axolotl_config(counts: Counts, lines: list[str]) -> str:
    """The part of an Axolotl configuration that names the data; paths are relative to this folder."""
    text = "# For your Axolotl configuration; run axolotl from this folder, or write the whole path.\n"
    for split in counts:
        name = "datasets" if split == "train" else "test_datasets"
        path = f"  - path: {split}.parquet\n    ds_type: parquet\n    split: train\n"
        header = "" if f"\n{name}:\n" in text else f"{name}:\n"
        text += header + path + "\n".join(lines) + "\n"
    return text


_MESSAGE = pa.struct([("content", pa.string()), ("role", pa.string())])
_MESSAGES = pa.list_(_MESSAGE)
_VERL_COLUMNS = [
    ("data_source", pa.string()),
    ("prompt", _MESSAGES),
    ("ability", pa.string()),
    ("reward_model", pa.struct([("ground_truth", pa.string()), ("style", pa.string())])),
    ("extra_info", pa.struct([("index", pa.int64()), ("split", pa.string())])),
]
_SFT = pa.schema([("messages", _MESSAGES)])
_SIDES = pa.schema([("messages", _MESSAGES), ("chosen", _MESSAGE), ("rejected", _MESSAGE)])

#: Every format of ours. LUFFY's types are those of its published validation file, and `target`.
FORMATS: dict[str, ExportFormat] = {
    "luffy": ExportFormat(_luffy, schema=pa.schema([*_VERL_COLUMNS[:2], ("target", _MESSAGES), *_VERL_COLUMNS[2:]])),
    "verl": ExportFormat(_verl, "problem", pa.schema(_VERL_COLUMNS)),
    "trl-sft": ExportFormat(_sft, schema=_SFT),
    "trl-prompt-completion": ExportFormat(
        _prompt_completion, schema=pa.schema([("prompt", _MESSAGES), ("completion", _MESSAGES)])
    ),
    "trl-grpo": ExportFormat(_grpo, "problem", pa.schema([("prompt", _MESSAGES), ("solution", pa.string())])),
    "trl-dpo": ExportFormat(
        _dpo, "pair", pa.schema([("prompt", _MESSAGES), ("chosen", _MESSAGES), ("rejected", _MESSAGES)])
    ),
    "openrlhf": ExportFormat(_openrlhf),
    "prime-rl": ExportFormat(_sft, schema=_SFT),
    "llama-factory": ExportFormat(_sft, schema=_SFT, beside=_llama_factory),
    "llama-factory-dpo": ExportFormat(_preference, "pair", _SIDES, _llama_factory_dpo),
    "axolotl": ExportFormat(_sft, schema=_SFT, beside=_axolotl),
    "axolotl-dpo": ExportFormat(_preference, "pair", _SIDES, _axolotl_dpo),
}
