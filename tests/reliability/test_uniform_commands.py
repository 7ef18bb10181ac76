"""Every command: one JSON object on standard output with --json, and a place in these tests."""

from __future__ import annotations

import importlib
import inspect
import json
import shutil
import time
from pathlib import Path

import pytest

from tests.reliability.materials import ALL_COMMANDS, FILE_COMMANDS, SERVERS, tracekit
from tracekit.cli.app import COMMANDS
from tracekit.core import hub

SLOW = ("probe",)  # a minute and more: its parts are tested elsewhere


def function_of(name: str):
    module, _, function = next(c.target for c in COMMANDS if c.name == name).partition(":")
    return getattr(importlib.import_module(module), function)


def test_no_command_is_left_out_of_these_tests() -> None:
    assert {command.name for command in COMMANDS} == ALL_COMMANDS.keys() | set(SERVERS)


@pytest.mark.parametrize("name", [command.name for command in COMMANDS])
def test_every_command_takes_json(name: str) -> None:
    assert "json" in inspect.signature(function_of(name)).parameters
    assert "    json\n" in (inspect.getdoc(function_of(name)) or "").replace("\njson\n", "\n    json\n")


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in SLOW else n for n in ALL_COMMANDS])
def test_json_is_one_object_on_standard_output(name: str, materials: Path, tmp_path: Path) -> None:
    out = tmp_path / ("out.jsonl" if name in FILE_COMMANDS else "out")
    if name in ("restore", "export"):  # they write within the run
        shutil.copytree(materials / "curated", tmp_path / "curated")
        shutil.copy(materials / "rows.jsonl", tmp_path / "rows.jsonl")
        materials = tmp_path
    done = tracekit([*ALL_COMMANDS[name](materials, out), "--json"], cwd=tmp_path)
    assert done.code == 0, done.err
    assert isinstance(json.loads(done.out), dict)


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "parquet", "jsonl.gz", "csv.zst"])
@pytest.mark.parametrize("name", FILE_COMMANDS)
def test_a_file_holds_what_its_ending_says(name: str, ending: str, materials: Path, tmp_path: Path) -> None:
    """Read back by the product's readers, each by its ending: the same rows in every format."""
    from tracekit.cli.rows import read_rows

    hostile = {"gold": "=2", "response": "=cmd|' /C calc'!A0 12 = 13"}
    rows = [{"problem": f"What is {n} + {n}, in words?", **hostile} for n in (1, 2)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]))
    shutil.copy(tmp_path / "rows.jsonl", tmp_path / "asked.jsonl")
    out = tmp_path / f"result.{ending}"
    done = tracekit([*FILE_COMMANDS[name](tmp_path, out), "--json"])
    assert done.code == 0, done.err
    if out.exists():
        assert out.stat().st_size > 0
        if read := (read_rows([out]) if ".json" in ending or ".csv" in ending or ending == "parquet" else []):
            cells = [cell for row in read for cell in row.values() if isinstance(cell, str)]
            assert not [c for c in cells if "csv" in ending and c[:1] in "=+-@" and not c.lstrip("-").isdigit()]


def test_a_dry_run_without_a_source_is_an_error(tmp_path: Path) -> None:
    done = tracekit(["curate", "--dry-run"], cwd=tmp_path)
    assert done.code == 2
    assert "no source is named" in done.err


def test_standard_input_several_files_and_globs(materials: Path, tmp_path: Path) -> None:
    rows = (materials / "rows.jsonl").read_bytes()
    for name in ("segment", "duplicates", "verify", "audit-gold"):
        out = tmp_path / f"{name}.jsonl"
        for place, words in enumerate((["-"], [materials / "rows.jsonl", materials / "rows.jsonl"])):
            target = out / str(place) if name == "segment" else out
            done = tracekit([name, *words, "--output", target, "--json"], stdin=rows)
            assert done.code == 0, (name, done.err)
    assert tracekit(["segment", tmp_path / "no*.jsonl", "--output", tmp_path / "s"]).code == 2
    done = tracekit(["curate", "-", "--output", tmp_path / "run", "workers=1", "--json"], stdin=rows)
    assert done.code == 0, done.err
    assert (tmp_path / "run" / "standard-input.jsonl").read_bytes() == rows


@pytest.mark.parametrize(
    "words",
    [
        ["segment", "nobody/nothing", "--output", "out"],
        ["collect", "problems=nobody/nothing", "output=out", "question.model=m"],
        ["train", "method=sft", "model=nobody/nothing", "data.curated=traces.parquet", "output=out", "--dry-run"],
        ["evaluate", "nobody/nothing", "--problems", "problems.parquet", "--output", "out"],
    ],
    ids=lambda words: words[0],
)
def test_a_hub_name_without_a_network_is_one_sentence_at_once(
    words: list[str], materials: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is a closed port of this machine: the time that matters is that of no retry."""
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    hub.hub_answers.cache_clear()
    began = time.monotonic()
    done = tracekit(words, cwd=materials)
    assert time.monotonic() - began < 60  # seconds, on a loaded machine; retries take minutes
    hub.hub_answers.cache_clear()
    assert done.code == 2
    assert "nobody/nothing" in done.err
    assert "does not answer" in done.err
    assert len([line for line in done.err.splitlines() if line.startswith("tracekit: ")]) == 1
    assert not (materials / "out").exists()
