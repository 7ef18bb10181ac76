"""A run is a folder: its settings, seed, versions and commit are written before the first step."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Collection
from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from tracekit.core.folders import HOLDER, LOCK
from tracekit.core.progress import Progress, no_progress

__all__ = ["RUN_FILE", "Progress", "RunError", "commit", "no_progress", "start_run", "versions", "write_text"]

RUN_FILE = "run.json"

#: What a number of ours may depend on.
RECORDED_PACKAGES = (
    "reasoning-tracekit",
    "torch",
    "transformers",
    "accelerate",
    "polars",
    "sympy",
    "mpmath",
    "numpy",
    "scikit-learn",
    "numba",
    "datasets",
    "vllm",
)


class RunError(ValueError):
    """A run folder cannot be used: the message says what stands there and what to do."""


def start_run(
    folder: str | Path,
    settings: BaseModel,
    *,
    seed: int,
    inputs: dict[str, str] | None = None,
    may_differ: Collection[str] = (),
) -> Path:
    """Make `folder` a run of these settings, or confirm that it already is one.

    inputs: name → digest of the tables the run reads. Writes `run.json` once; a later call with other
    settings or inputs raises RunError that names the difference, so that no run mixes two recipes. A run that left
    nothing but this file (it failed at its start) binds nobody.
    may_differ: settings on which no result depends, as "engine.urls": a run goes on when a server has moved.
    """
    folder = Path(folder)
    record = {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "inputs": inputs or {},
        "versions": versions(),
        "commit": commit(),
    }
    path = folder / RUN_FILE
    if path.exists() and any(other.name not in (RUN_FILE, LOCK, HOLDER) for other in folder.iterdir()):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise RunError(f"{path} is damaged ({error}); delete {folder} to start again.") from error
        for part in ("settings", "seed", "inputs"):
            changed = _first_difference(found.get(part), record[part], part, {f"settings.{key}" for key in may_differ})
            if changed:
                raise RunError(
                    f"{folder} holds a run with other settings: {changed}. Choose another folder or delete it."
                )
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return folder


def write_text(path: str | Path, text: str) -> Path:
    """Write beside and rename: a kill leaves the old file or the new one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return path


def versions() -> dict[str, str]:
    """Installed versions of what a number may depend on, and of Python."""
    found = {"python": platform.python_version()}
    for package in RECORDED_PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """The commit of the source tree this package runs from, "-dirty" where it is changed; None outside a checkout."""
    here = Path(__file__).resolve().parents[2]
    if not (here / ".git").exists():
        return None
    try:
        head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"], cwd=here, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):  # no git program, or a tree that git refuses to read
        return None
    return head.stdout.strip() + ("-dirty" if dirty.stdout.strip() else "")


def _first_difference(found: Any, wanted: Any, key: str, may_differ: Collection[str]) -> str | None:
    if key in may_differ:
        return None
    if isinstance(found, dict) and isinstance(wanted, dict):
        for name in sorted(found.keys() | wanted.keys()):
            difference = _first_difference(found.get(name), wanted.get(name), f"{key}.{name}", may_differ)
            if difference:
                return difference
        return None
    return None if found == wanted else f"{key} is {found!r} there and {wanted!r} here"
