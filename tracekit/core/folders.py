"""Folders that the product owns: replaced only where every file in them is its own, and locked by one run at a time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

#: Written into every folder that `replace_folder` makes: what made it, and the files it wrote.
MARKER = ".tracekit-folder.json"
LOCK = ".lock"
HOLDER = ".lock.json"


class FolderError(ValueError):
    """A folder may not be replaced or is in use; the message names the folder, the reason and the way out."""


@contextmanager
def replace_folder(final: str | Path, kind: str) -> Iterator[Path]:
    """Yield an empty folder beside `final` to write into; on success it takes the place of `final`.

    Parameters
    ----------
    final
        The folder to make or to replace. The old one is kept until the new one is whole.
    kind
        What the folder is, in a word or two ("view", "export"); a folder of another kind is not replaced.

    Raises
    ------
    FolderError
        If `final` is a file, or a folder that holds files which this product did not write.

    Examples
    --------
    >>> import tempfile; from pathlib import Path
    >>> place = Path(tempfile.mkdtemp()) / "page"
    >>> with replace_folder(place, "view") as folder:
    ...     _ = (folder / "index.html").write_text("<p>hello</p>")
    >>> sorted(path.name for path in place.iterdir())
    ['.tracekit-folder.json', 'index.html']
    """
    final = Path(final)
    check_replaceable(final, kind)
    final.parent.mkdir(parents=True, exist_ok=True)
    partial = final.with_name(f".{final.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    try:
        yield partial
        _write_marker(partial, kind)
        check_replaceable(final, kind)  # a file that arrived while we wrote is kept as well
        _swap(partial, final)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_replaceable(folder: str | Path, kind: str) -> None:
    """Raise FolderError unless `folder` is absent, empty, or made of nothing but our own files of this kind."""
    folder = Path(folder)
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise FolderError(f"{folder} is a file; name a folder for the {kind}.")
    files = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    if not files:
        return
    owned = _owned_files(folder, kind)
    foreign = sorted(files - owned)
    if foreign:
        more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
        raise FolderError(
            f"{folder} holds {foreign[0]}{more}, which no {kind} of tracekit wrote; nothing was changed. "
            "Name another folder, or move these files away."
        )


@contextmanager
def lock_folder(folder: str | Path, purpose: str, *, wait_seconds: float = 0.0) -> Iterator[None]:
    """Hold the lock of a run folder; the operating system releases it when the process ends, however it ends.

    Parameters
    ----------
    folder
        The run folder; made where it is absent.
    purpose
        What the holder does, as "curate"; shown to whoever finds the folder locked.
    wait_seconds
        How long to wait for another holder; 0 raises at once.

    Raises
    ------
    FolderError
        If another process holds the lock; the message names its purpose, process, host and start time.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=wait_seconds, poll_interval=0.2)
    except Timeout as error:
        raise FolderError(f"{folder} is in use by {_holder(folder)}; wait for it or name another folder.") from error
    try:
        record = {"purpose": purpose, "pid": os.getpid(), "host": socket.gethostname(), "started": time.time()}
        (folder / HOLDER).write_text(json.dumps(record), encoding="utf-8")
        yield
    finally:
        (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def _holder(folder: Path) -> str:
    try:
        record = json.loads((folder / HOLDER).read_text(encoding="utf-8"))
        started = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(float(record["started"])))
        return f"{record['purpose']} (process {record['pid']} on {record['host']}, started {started})"
    except (OSError, ValueError, KeyError, TypeError):  # the holder has the lock and has not yet written who it is
        return "another process"


def _owned_files(folder: Path, kind: str) -> set[str]:
    """Names of the files that the marker claims; empty where there is no valid marker of this kind."""
    try:
        record = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return set()
    if not isinstance(record, dict) or record.get("kind") != kind or not isinstance(record.get("files"), list):
        return set()
    return {MARKER, *(name for name in record["files"] if isinstance(name, str))}


def _write_marker(folder: Path, kind: str) -> None:
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    (folder / MARKER).write_text(json.dumps({"kind": kind, "files": files}), encoding="utf-8")


def _swap(new: Path, final: Path) -> None:
    """Put `new` in the place of `final`; the old folder goes only after the new one stands."""
    if not final.exists():
        os.rename(new, final)
        return
    old = final.with_name(f".{final.name}.{os.getpid()}.old")
    os.rename(final, old)
    try:
        os.rename(new, final)
    except OSError:
        os.rename(old, final)
        raise
    shutil.rmtree(old)
