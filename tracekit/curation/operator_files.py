"""The Python files and entry points that a recipe names in `operators`: run, and what they register collected."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import metadata
from pathlib import Path
from types import ModuleType

from tracekit.core.ids import content_id, file_digest
from tracekit.core.source_digest import source_digest
from tracekit.curation.export_formats import ExportFormat, ExportSettings, Row
from tracekit.curation.operators import Operator, OperatorError, call, forget, place_of, registered
from tracekit.reading import formats

#: Entry points of this group may be named in `operators` in place of a file.
GROUP = "tracekit.operators"
_MODULE = "_tracekit_operators_"


@dataclass(frozen=True)
class Operators:
    """The operators of one recipe, by name."""

    rules: Mapping[str, Operator] = field(default_factory=dict)
    measurements: Mapping[str, Operator] = field(default_factory=dict)
    exporters: Mapping[str, Operator] = field(default_factory=dict)
    formats: tuple[formats.Layout, ...] = ()

    def digests(self) -> dict[str, str]:
        """Kind and name of each operator → digest of its source."""
        ours = [*self.rules.values(), *self.measurements.values(), *self.exporters.values()]
        return {f"{one.kind} {one.name}": one.digest for one in ours} | self.format_digests()

    def format_digests(self) -> dict[str, str]:
        """A source format's name → digest of its reader; part of the key of what is read."""
        return {one.name: source_digest(one.read) for one in self.formats if one.read}


def load_operators(files: Sequence[str]) -> Operators:
    """Run the files (and modules of entry points) that a recipe names, and return what they register.

    Raises
    ------
    OperatorError
        If a file is absent, fails, or registers nothing, or if two operators have one name.
    """
    operators = _loaded(tuple(_content_of(name) for name in files))
    others = [one for one in formats.LAYOUTS if one.read is None or not one.read.__module__.startswith(_MODULE)]
    formats.LAYOUTS[:] = [*operators.formats, *others]  # those of another recipe's files are out of the way
    return operators


def _content_of(name: str) -> tuple[str, str]:
    if not name.endswith(".py"):
        return name, ""
    path = Path(name).resolve()
    if not path.is_file():
        raise OperatorError(f"operators: {name} does not exist; expected a Python file, from {Path.cwd()}.")
    return str(path), file_digest(path)


@lru_cache(maxsize=8)
def _loaded(files: tuple[tuple[str, str], ...]) -> Operators:
    parts: dict[str, dict[str, Operator]] = {"rule": {}, "measurement": {}, "exporter": {}}
    layouts: list[formats.Layout] = []
    for name, _ in files:
        module = _run_file(Path(name)) if name.endswith(".py") else _entry_point(name)
        operators = registered(module.__name__)
        own_formats = [one for one in formats.LAYOUTS if one.read and one.read.__module__ == module.__name__]
        if not operators and not own_formats:
            raise OperatorError(
                f"operators: {name} registers nothing; expected a function with @rule, @measurement, @exporter "
                "or @source_format."
            )
        for one in operators:
            _add(parts[one.kind], one)
        layouts += [one for one in own_formats if one not in layouts]
    return Operators(parts["rule"], parts["measurement"], parts["exporter"], tuple(layouts))


def _add(known: dict[str, Operator], one: Operator) -> None:
    if one.name in known:
        raise OperatorError(f"{one.where}: {one.kind} {one.name} is defined at {known[one.name].where} too.")
    known[one.name] = one


def _run_file(path: Path) -> ModuleType:
    """Run a file as a module of its own; what it registered before is forgotten first."""
    name = _MODULE + content_id(str(path))
    forget(name)
    formats.LAYOUTS[:] = [one for one in formats.LAYOUTS if one.read is None or one.read.__module__ != name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None  # the name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except OperatorError:
        raise
    except Exception as error:  # whatever a user's file raises is the user's to mend
        raise OperatorError(f"{place_of(error, path)}: {type(error).__name__}: {error}") from error
    return module


def _entry_point(name: str) -> ModuleType:
    found = {point.name: point for point in metadata.entry_points(group=GROUP)}
    if name not in found:
        known = ", ".join(sorted(found)) or "none is installed"
        raise OperatorError(f"operators: {name} is no .py file and no entry point of {GROUP} ({known}).")
    module = found[name].load()
    if not isinstance(module, ModuleType):
        raise OperatorError(f"operators: entry point {name} is no module; name the module that registers them.")
    return module


def own_formats(operators: Operators) -> dict[str, ExportFormat]:
    """The user's exporters as formats that `export` writes, by name."""
    return {name: _export_format(one) for name, one in operators.exporters.items()}


def _export_format(one: Operator) -> ExportFormat:
    def make(row: Row, index: int, settings: ExportSettings) -> Row | None:
        made = call(one, {column: row[column] for column in one.columns}, row["trace_id"])
        if made is not None and (not isinstance(made, dict) or not all(isinstance(key, str) for key in made)):
            raise OperatorError(
                f"{one.where}: exporter {one.name} returned {made!r:.80} on trace {row['trace_id']}; "
                "expected a dict of named values, or None."
            )
        try:
            json.dumps(made if one.schema is None else None)
        except (TypeError, ValueError) as error:
            raise OperatorError(
                f"{one.where}: exporter {one.name} on trace {row['trace_id']}: {error}; "
                "expected text, numbers, booleans, lists and dicts."
            ) from error
        return made

    return ExportFormat(make, one.each, one.schema)
