"""Folders that the product owns: replaced only where every file in them is its own, and locked by one run at a time."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

#: Written into every folder that `replace_folder` makes: what made it, and the files it wrote.
MARKER = ".tracekit-folder.json"
RUN_FILE = "run.json"
LOCK = ".tracekit.lock"
HOLDER = ".tracekit.lock.json"


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
    from typing import Any
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


def claim_folder(
    folder: str | Path,
    kind: str,
    writes: Collection[str],
    earlier: Callable[[Path], bool] = lambda folder: False,
) -> Path:
    """Make `folder` ours to write into, and mark it; files of other names that lie there stay as they are.

    Parameters
    ----------
    kind
        What the folder is, in a word or two ("segment", "run"). A folder marked as another kind is refused.
    writes
        Patterns of the names that will be written directly in the folder, such as "layer_*.npy".
    earlier
        Whether a folder without a marker is one of this kind, made by a release that wrote none.

    Raises
    ------
    FolderError
        If the folder has no marker and holds one of these names already; nothing is changed then.
    """
    folder = Path(folder)
    if not check_claimable(folder, kind, writes, earlier):
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f"{MARKER}.{os.getpid()}.partial"
        partial.write_text(json.dumps({"kind": kind, "files": []}), encoding="utf-8")
        os.replace(partial, folder / MARKER)
    return folder


def check_claimable(
    folder: str | Path,
    kind: str,
    writes: Collection[str],
    earlier: Callable[[Path], bool] = lambda folder: False,
) -> bool:
    """Whether `folder` carries the marker of this kind already; False if it can get it. Raises FolderError."""
    folder = Path(folder)
    if not folder.exists() and not folder.is_symlink():
        return False
    if not folder.is_dir():
        raise FolderError(f"{folder} is a file; name a folder for the {kind}.")
    record = _marker(folder)
    if record is not None and record["kind"] == kind:
        return True
    if record is not None:
        raise FolderError(f"{folder} is a {record['kind']} folder of tracekit; name another folder for the {kind}.")
    taken = sorted(p.name for p in folder.iterdir() if any(fnmatchcase(p.name, name) for name in writes))
    if taken and not earlier(folder):
        more = f" and {len(taken) - 1} more that it would replace" if len(taken) > 1 else ""
        raise FolderError(
            f"{folder} holds {taken[0]}{more}, which no {kind} of tracekit wrote; nothing was changed. "
            "Name another folder, or move these files away."
        )
    return False


def discard_folder(folder: Path, owned: Sequence[str]) -> list[str]:
    """Remove the files named in `owned`, in that order, and the folder if nothing is left; returns what is left."""
    for name in owned:
        (folder / name).unlink(missing_ok=True)
    left = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
            path.rmdir()
    if not left:
        folder.rmdir()
    return left


def has_run_file(folder: Path, keys: Collection[str]) -> bool:
    """Whether the folder's run.json has these keys, which tell it from a run.json of another program."""
    try:
        record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(record, dict) and set(keys) <= record.keys()


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
    record = _marker(folder)
    if record is None or record["kind"] != kind:
        return set()
    return {MARKER, *(name for name in record["files"] if isinstance(name, str))}


def _marker(folder: Path) -> dict[str, Any] | None:
    """What a folder's marker says; None where there is none that can be read."""
    try:
        record = json.loads((folder / MARKER).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    whole = isinstance(record, dict) and isinstance(record.get("kind"), str) and isinstance(record.get("files"), list)
    return record if whole else None


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
