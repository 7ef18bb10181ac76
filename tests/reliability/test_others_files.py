"""Nothing of the user's is lost: every command that writes is led to a place full of somebody's files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.reliability.materials import FILE_COMMANDS, FOLDER_COMMANDS, contents, names_in, tracekit
from tracekit.core.folders import MARKER

SITE = {
    "index.html": b"<p>mine</p>",
    "thesis.tex": b"\\documentclass{article}",
    "photos/one.jpg": b"photo",
    ".lock": b"somebody's lock",
    "notes.txt": b"mine",
    ".notes.txt.4194999.partial": b"an editor's",
    "step-000001/thesis.tex": b"mine",
}
SLOW = ("probe",)
FOLDERS = [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in FOLDER_COMMANDS]


def plant(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_full_of_somebodys_files_keeps_them(name: str, materials: Path, tmp_path: Path) -> None:
    words = FOLDER_COMMANDS[name]
    assert tracekit(words(materials, tmp_path / "empty")).code == 0
    folders = [tmp_path / "empty"] if name != "evaluate" else [tmp_path / "empty" / "model"]
    assert all((folder / MARKER).is_file() for folder in folders)

    site = plant(tmp_path / "site", SITE)
    tracekit(words(materials, site))
    kept = contents(site)
    assert {file: kept.get(file) for file in SITE} == SITE

    again = tracekit(words(materials, tmp_path / "empty"))  # what is ours goes on, or is made again
    assert again.code == 0, again.err

    for path in names_in(folders[0]):  # each name that the command writes, taken by somebody's file or folder
        place = tmp_path / f"taken-{path.name}"
        inside = place / "model" if name == "evaluate" else place
        mine = {f"{path.name}/mine.txt" if path.is_dir() else path.name: b"mine"}
        plant(inside, mine)
        done = tracekit(words(materials, place))
        assert {file: contents(inside).get(file) for file in mine} == mine
        assert done.code == 2, f"{name} wrote beside somebody's {path.name}"
        assert path.name in done.err
        assert contents(inside) == mine, "a refused command left something behind"


@pytest.mark.parametrize("name", FILE_COMMANDS)
def test_a_file_of_somebodys_is_not_replaced(name: str, materials: Path, tmp_path: Path) -> None:
    words = FILE_COMMANDS[name]
    for ending, content in {
        "jsonl": b'{"mine": 1}\n',
        "json": b'[{"mine": 1}]',
        "csv": b"mine\n1\n",
        "parquet": b"no Parquet",
        "txt": b"mine",
        "csv.gz": b"no gzip",
        "jsonl.zst": b"no zstd",
    }.items():
        file = tmp_path / f"mine.{ending}"
        file.write_bytes(content)
        done = tracekit(words(materials, file))
        assert done.code == 2, f"{name} replaced {file.name}"
        assert file.name in done.err
        assert contents(tmp_path)[file.name] == content
    result = tmp_path / "result.csv"
    for _ in range(2):  # an earlier result of the same command is replaced
        done = tracekit(words(materials, result))
        assert done.code == 0, done.err


@pytest.mark.parametrize("name", FILE_COMMANDS)
def test_no_input_is_replaced_by_the_result(name: str, materials: Path, tmp_path: Path) -> None:
    for file in ("rows.jsonl", "asked.jsonl"):
        shutil.copy(materials / file, tmp_path / file)
    before = contents(tmp_path)
    words = FILE_COMMANDS[name](tmp_path, tmp_path / ("asked.jsonl" if name == "attack-reward" else "rows.jsonl"))
    done = tracekit(words)
    assert done.code == 2
    assert contents(tmp_path) == before


def test_verdicts_of_the_default_name_replace_no_file_of_somebodys(materials: Path, tmp_path: Path) -> None:
    shutil.copy(materials / "rows.jsonl", tmp_path / "rows.jsonl")
    (tmp_path / "rows.verdicts.jsonl").write_text(json.dumps({"row": 0, "outcome": "correct", "note": "by hand"}))
    before = contents(tmp_path)
    assert tracekit(["verify", tmp_path / "rows.jsonl"]).code == 2
    assert contents(tmp_path) == before


def test_a_note_in_a_trained_model_survives_the_next_training(materials: Path, tmp_path: Path) -> None:
    words = FOLDER_COMMANDS["train"](materials, tmp_path / "run")
    assert tracekit(words).code == 0
    final = tmp_path / "run" / "final"
    (final / "notes.txt").write_text("mine")
    (final / "model.safetensors").write_bytes(b"damaged")
    done = tracekit([word if word != "steps=2" else "steps=2" for word in words])
    assert done.code == 0, done.err
    assert [path.read_text() for path in (tmp_path / "run").rglob("notes.txt")] == ["mine"]
