"""Write the generated references: commands from their help, settings from their fields, docs/api from public names.

    python docs/generate.py

A test compares what this prints with the files.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel

DOCS = Path(__file__).parent

#: The settings of each command: title → class.
SETTINGS = {
    "curate": "tracekit.curation.curate:CurateSettings",
    "collect": "tracekit.cli.collect:CommandSettings",
    "train": "trainer.settings:TrainSettings",
    "evaluate": "trainer.evaluate:EvaluateSettings",
    "probe": "probes.protocol.settings:ProtocolSettings",
    "study": "tracekit.study.settings:StudySettings",
}


def load(target: str) -> Any:
    """The object at "module:name"."""
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def commands_page() -> str:
    """Every command's help: what it does, an example, its parameters."""
    from tracekit.cli.app import COMMANDS

    lines = ["# Commands", "", "Made by `python docs/generate.py` from the commands' own help; do not edit.", ""]
    for command in COMMANDS:
        text = inspect.cleandoc(load(command.target).__doc__ or "")
        body, _, parameters = text.partition("Parameters\n----------\n")
        prose, _, example = body.partition("Example: ")
        lines += [f"## `tracekit {command.name}`", "", prose.strip(), ""]
        if example:
            lines += ["```text", " ".join(example.split()), "```", ""]
        for name, meaning in re.findall(r"^(\S[^\n]*)\n((?:[ ]+[^\n]*\n?)+)", parameters, flags=re.M):
            lines.append(f"- `{name}`: {' '.join(meaning.split())}")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"


def settings_page() -> str:
    """Every setting: key, type, default and meaning."""
    lines = ["# Settings", "", "Made by `python docs/generate.py` from the settings' own descriptions; do not edit."]
    for name, target in SETTINGS.items():
        lines += ["", f"## `tracekit {name}`", "", "| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [f"| {' | '.join(_cell(part) for part in row)} |" for row in rows_of(load(target))]
    return "\n".join(lines) + "\n"


def rows_of(kind: type[BaseModel], prefix: str = "") -> list[tuple[str, str, str, str]]:
    """(key, type, default, meaning) of every field, those of nested records behind their own."""
    rows = []
    for name, field in kind.model_fields.items():
        nested = _nested(field.annotation)
        required = field.is_required()
        default = "required" if required else "" if nested else _shown(field.get_default(call_default_factory=True))
        rows.append((f"`{prefix}{name}`", _type(field.annotation), default, field.description or ""))
        for inner in nested:
            rows += rows_of(inner, f"{prefix}{name}.")
    return rows


def _nested(annotation: Any) -> list[type[BaseModel]]:
    parts = (annotation, *typing.get_args(annotation))
    return [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]


def _type(annotation: Any) -> str:
    if typing.get_origin(annotation) is typing.Annotated:
        return _type(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return " or ".join(_type(part) for part in typing.get_args(annotation))
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(repr(value) for value in typing.get_args(annotation))
    if annotation is type(None):
        return "none"
    if typing.get_origin(annotation) is None:
        return getattr(annotation, "__name__", str(annotation))
    inner = ", ".join(_type(part) for part in typing.get_args(annotation) if part is not Ellipsis)
    return f"{typing.get_origin(annotation).__name__} of {inner}"


def _shown(value: Any) -> str:
    return f"`{value}`" if isinstance(value, Path) else f"`{value!r}`"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def api_page(package: str) -> str:
    """Every public name of a package, for mkdocstrings, which reads its docstring when the site is built."""
    names = load(f"{package}:__all__")
    lines = [f"# `{package}`", "", str(importlib.import_module(package).__doc__).partition("\n")[0], ""]
    for name in names:
        found = load(f"{package}:{name}")
        if inspect.ismodule(found):
            lines += [f"## `{name}`", "", f"::: {found.__name__}", "    options: { show_root_heading: false }", ""]
        elif inspect.isclass(found) or inspect.isfunction(found):
            lines += [f"::: {found.__module__}.{found.__qualname__}", ""]
    schemas = [name for name in names if isinstance(load(f"{package}:{name}"), dict)]
    if schemas:
        lines += ["## Schemas", "", ", ".join(f"`{name}`" for name in schemas) + ": see [Tables](../data.md).", ""]
    return "\n".join(lines).rstrip() + "\n"


PAGES = {
    "commands.md": commands_page,
    "settings.md": settings_page,
    **{f"api/{name}.md": functools.partial(api_page, name) for name in ("evaluators", "tracekit", "trainer", "probes")},
}


if __name__ == "__main__":
    (DOCS / "api").mkdir(exist_ok=True)
    for file, page in PAGES.items():
        (DOCS / file).write_text(page(), encoding="utf-8")
