"""The tutorials are notebooks that run from top to bottom in an empty folder."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "docs" / "tutorials").glob("*.ipynb"))


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_tutorial_runs(notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    binaries = tmp_path / "bin"
    binaries.mkdir()
    command = binaries / "tracekit"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m tracekit.cli "$@"\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{binaries}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    work = tmp_path / "work"
    work.mkdir()
    book = nbformat.read(notebook, as_version=4)
    nbclient.NotebookClient(book, timeout=200, resources={"metadata": {"path": str(work)}}).execute()
    assert any(cell.get("outputs") for cell in book.cells)
