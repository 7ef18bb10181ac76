"""Stages are content-addressed: a folder named for what goes into it is made once, and found ever after.

A stage is written beside and renamed, so a kill leaves it absent or whole. What a changed setting does not
reach keeps its name, and is not made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from tracekit.core.tables import full_disk_told


@dataclass(frozen=True)
class Stages:
    """The folder that holds them."""

    folder: Path

    def build(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """The folder of this stage with these inputs; `make` fills it where it does not stand yet.

        inputs: plain values (JSON) that decide every byte of the stage: settings, digests, upstream folders' names.
        """
        final = self.path(name, inputs)
        if final.is_dir():
            return final
        partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        fresh = [folder for folder in partial.parents if not folder.exists()]
        partial.mkdir(parents=True)
        try:
            with full_disk_told(self.folder):
                make(partial)
            try:
                os.replace(partial, final)
            except OSError:
                if not final.is_dir():  # another process may have finished the same stage first
                    raise
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            for folder in fresh:  # a refused stage leaves no empty folders behind
                with suppress(OSError):
                    folder.rmdir()
        return final

    def path(self, name: str, inputs: Mapping[str, Any]) -> Path:
        """Where the stage with these inputs stands, made or not."""
        return self.folder / f"{name}-{digest(inputs)}"

    def discard(self, name: str) -> None:
        """Remove every stage of that name."""
        for path in self.folder.glob(f"{name}-*"):
            shutil.rmtree(path)


@dataclass(frozen=True)
class Plan(Stages):
    """Stages that are only looked up: `build` makes nothing and writes down what stands and what does not."""

    stages: dict[str, bool] = field(default_factory=dict)

    def build(self, name: str, inputs: Mapping[str, Any], make: Callable[[Path], None]) -> Path:
        """Where the stage would stand."""
        path = self.path(name, inputs)
        self.stages[name] = self.stages.get(name, True) and path.is_dir()
        return path

    def discard(self, name: str) -> None:
        """Nothing is removed."""


def sweep(folder: Path, names: Collection[str]) -> None:
    """Remove what killed processes left half-written in a folder: .NAME.PID.partial of the names that match."""
    for partial in folder.glob(".*.partial"):
        name, _, process = partial.name.removesuffix(".partial").removeprefix(".").rpartition(".")
        if not process.isdigit() or not any(fnmatchcase(name, known) for known in names):
            continue  # none of ours
        if process != str(os.getpid()) and Path("/proc", process).exists():
            continue  # another curation is at work
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        else:
            partial.unlink(missing_ok=True)


def digest(inputs: Mapping[str, Any]) -> str:
    """12 hexadecimal digits over plain values."""
    text = json.dumps(inputs, sort_keys=True, ensure_ascii=False)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
