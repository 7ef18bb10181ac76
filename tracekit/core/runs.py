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

from tracekit.core.folders import (
    HOLDER,
    LOCK,
    MARKER,
    RUN_FILE,
    check_claimable,
    claim_folder,
    has_run_file,
)
from tracekit.core.progress import Progress, no_progress

__all__ = [
    "RUN_FILE",
    "Progress",
    "RunError",
    "check_run_folder",
    "commit",
    "no_progress",
    "read_json",
    "read_run_file",
    "start_run",
    "versions",
    "write_text",
]

#: The kind of folder that `start_run` makes.
RUN = "run"

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


_DAMAGED = "The results beside it are whole: restore the file from a copy, or name another folder."


class RunError(ValueError):
    """A run folder cannot be used: the message says what stands there and what to do."""


def check_run_folder(folder: Path, writes: Collection[str]) -> None:
    """Raise FolderError if `start_run` would not take this folder: call it before anything is written there."""
    check_claimable(folder, RUN, (RUN_FILE, *writes), _is_earlier_run)


def _is_earlier_run(folder: Path) -> bool:
    return has_run_file(folder, ("settings", "seed", "inputs"))


def start_run(
    folder: str | Path,
    settings: BaseModel,
    *,
    seed: int,
    inputs: dict[str, str] | None = None,
    may_differ: Collection[str] = (),
    writes: Collection[str] = ("*",),
) -> Path:
    """Make `folder` a run of these settings, or confirm that it already is one.

    inputs: name → digest of the tables the run reads. Writes `run.json` once; a later call with other
    settings or inputs raises RunError that names the difference, so that no run mixes two recipes. A run that left
    nothing but this file (it failed at its start) binds nobody.
    may_differ: settings on which no result depends, as "engine.urls": a run goes on when a server has moved.
    writes: patterns of the names that the run writes in its folder. A folder that holds such a name and is no run of
    ours is refused (FolderError); other files that lie there are left alone.
    """
    folder = claim_folder(folder, RUN, (RUN_FILE, *writes), _is_earlier_run)
    record = {
        "settings": settings.model_dump(mode="json"),
        "seed": seed,
        "inputs": inputs or {},
        "versions": versions(),
        "commit": commit(),
    }
    path = folder / RUN_FILE
    if path.exists() and any(other.name not in (RUN_FILE, LOCK, HOLDER, MARKER) for other in folder.iterdir()):
        found = read_run_file(path)
        for part in ("settings", "seed", "inputs"):
            changed = _first_difference(found.get(part), record[part], part, {f"settings.{key}" for key in may_differ})
            if changed:
                raise RunError(
                    f"{folder} holds a run with other settings: {changed}. Choose another folder or delete it."
                )
        return folder
    write_text(path, json.dumps(record, indent=2, sort_keys=True, ensure_ascii=False) + "\n")
    return folder


def read_run_file(path: Path) -> dict[str, Any]:
    """The record of a run. Raises RunError where the file is damaged or holds no such record."""
    found = read_json(path)
    if not isinstance(found.get("settings"), dict):
        raise RunError(f"{path} is damaged: it holds no settings. {_DAMAGED}")
    return found


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object that a run wrote. Raises RunError where the file is absent, damaged or holds something else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise RunError(
            f"{path} does not exist; {path.parent} is no finished run, or not all of it was copied."
        ) from error
    except (ValueError, RecursionError) as error:
        raise RunError(f"{path} is damaged ({error or 'nested too deep'}). {_DAMAGED}") from error
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: found {type(found).__name__}, expected an object. {_DAMAGED}")
    return found


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
