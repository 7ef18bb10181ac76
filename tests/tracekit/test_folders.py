"""Folders are replaced only where all in them is ours; a locked run folder names its holder."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tracekit.core.folders import MARKER, FolderError, lock_folder, replace_folder


def write(folder: Path, text: str) -> None:
    with replace_folder(folder, "view") as new:
        (new / "data").mkdir()
        (new / "data" / "a.js").write_text(text)
        (new / "index.html").write_text(text)


def arrive_late(folder: Path) -> None:
    with replace_folder(folder, "view") as new:
        (new / "index.html").write_text("page")
        folder.mkdir()
        (folder / "notes.txt").write_text("mine")


def fail(folder: Path) -> None:
    with replace_folder(folder, "view") as new:
        (new / "index.html").write_text("half")
        raise RuntimeError("killed")


def test_a_folder_of_ours_is_replaced_whole(tmp_path: Path) -> None:
    write(tmp_path / "view", "one")
    write(tmp_path / "view", "two")
    assert (tmp_path / "view" / "data" / "a.js").read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["view"]


def test_a_folder_of_somebody_elses_files_is_kept(tmp_path: Path) -> None:
    site = tmp_path / "site"
    (site / "photos").mkdir(parents=True)
    (site / "index.html").write_text("mine")
    (site / "photos" / "one.jpg").write_bytes(b"photo")
    with pytest.raises(FolderError, match=r"site holds index\.html and 1 more"):
        write(site, "page")
    assert (site / "photos" / "one.jpg").read_bytes() == b"photo"


@pytest.mark.parametrize("marker", ["{}", "[]", "no json", '{"kind": "export", "files": ["notes.txt"]}'])
def test_a_damaged_or_foreign_marker_owns_nothing(tmp_path: Path, marker: str) -> None:
    (tmp_path / "view").mkdir()
    (tmp_path / "view" / "notes.txt").write_text("mine")
    (tmp_path / "view" / MARKER).write_text(marker)
    with pytest.raises(FolderError):
        write(tmp_path / "view", "page")
    assert (tmp_path / "view" / "notes.txt").read_text() == "mine"


def test_a_file_that_a_user_put_into_our_folder_is_kept(tmp_path: Path) -> None:
    write(tmp_path / "view", "one")
    (tmp_path / "view" / "notes.txt").write_text("mine")
    with pytest.raises(FolderError, match=r"notes\.txt"):
        write(tmp_path / "view", "two")
    assert (tmp_path / "view" / "index.html").read_text() == "one"


def test_a_file_that_arrives_while_we_write_is_kept(tmp_path: Path) -> None:
    with pytest.raises(FolderError):
        arrive_late(tmp_path / "view")
    assert (tmp_path / "view" / "notes.txt").read_text() == "mine"


def test_a_failure_leaves_the_old_folder(tmp_path: Path) -> None:
    write(tmp_path / "view", "one")
    with pytest.raises(RuntimeError):
        fail(tmp_path / "view")
    assert (tmp_path / "view" / "index.html").read_text() == "one"
    assert [path.name for path in tmp_path.iterdir()] == ["view"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "view").write_text("mine")
    with pytest.raises(FolderError, match="is a file"):
        write(tmp_path / "view", "page")


def test_a_second_holder_learns_who_has_the_lock(tmp_path: Path) -> None:
    code = (
        "import sys; from tracekit.core.folders import lock_folder, FolderError\n"
        "try:\n    lock_folder(sys.argv[1], 'second').__enter__()\nexcept FolderError as error:\n    print(error)"
    )
    with lock_folder(tmp_path, "curate"):
        holder = json.loads((tmp_path / ".tracekit.lock.json").read_text())
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)
    assert f"curate (process {holder['pid']} on" in done.stdout
    with lock_folder(tmp_path, "again"):
        pass
