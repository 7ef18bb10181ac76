"""Kills, Ctrl-C, a disk or a memory that has no more: whole files, one sentence, and the same command goes on."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks.kills import differences, finish, kill_at, many_rows, one_kill, start, words_of
from tests.reliability.materials import contents, tracekit
from tracekit.cli import verify_parts
from tracekit.cli.app import going_on

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def many(materials: Path) -> Path:
    many_rows(materials, rows=6_000)
    return materials


@pytest.mark.parametrize(
    "name", ["curate", "verify", *(pytest.param(n, marks=pytest.mark.slow) for n in ("collect", "train", "evaluate"))]
)
def test_a_killed_command_goes_on_to_the_same_bytes(name: str, many: Path, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    began = time.monotonic()
    finish(words_of(name, many, whole), tmp_path / f"{name}.log")
    _, differing = one_kill(name, many, whole, time.monotonic() - began, random.Random(1))
    assert differing == []


def test_an_interruption_says_how_to_go_on(many: Path, tmp_path: Path) -> None:
    log, words = tmp_path / "log", words_of("verify", many, tmp_path)
    process = start(words, log)
    journal = verify_parts.journal_of(tmp_path / "verdicts.jsonl")
    until = time.monotonic() + 120
    while not (journal.exists() and journal.read_bytes().count(b"\n") > 1) and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130, log.read_text()
    last = log.read_text().strip().splitlines()[-1]
    assert last.startswith(
        "tracekit: interrupted; what was done is kept. To go on, run the same command again: tracekit verify"
    )
    assert not (tmp_path / "verdicts.jsonl").exists()
    kept = journal.read_bytes()
    finish(words, log)
    assert (tmp_path / "verdicts.jsonl").exists()
    assert not journal.exists()
    assert kept


def test_parts_are_verified_once(many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verify_parts, "PART_ROWS", 10)
    calls = []
    whole = verify_parts.verify_batch

    def noted(responses, golds, **options):
        calls.append(len(responses))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(responses, golds, **options)

    monkeypatch.setattr(verify_parts, "verify_batch", noted)
    words = ["verify", many / "rows.jsonl", "--output", tmp_path / "v.jsonl"]
    assert tracekit(words).code == 130
    assert tracekit(words).code == 0
    assert calls == [10, 10, 10, 4]
    monkeypatch.setattr(verify_parts, "verify_batch", whole)
    assert tracekit([*words[:-1], tmp_path / "w.jsonl"]).code == 0
    assert differences_but_seconds(tmp_path / "v.jsonl", tmp_path / "w.jsonl") == []


def differences_but_seconds(a: Path, b: Path) -> list[str]:
    (a.parent / "a").mkdir()
    (a.parent / "b").mkdir()
    a.rename(a.parent / "a" / "v.jsonl")
    b.rename(b.parent / "b" / "v.jsonl")
    return differences(a.parent / "a", a.parent / "b")


def test_a_damaged_journal_is_verified_anew(many: Path, tmp_path: Path) -> None:
    words = ["verify", many / "rows.jsonl", "--output", tmp_path / "v.jsonl"]
    for junk in (b"", b"junk\n", b"\xff\xfe", b"[" * 100_000):
        verify_parts.journal_of(tmp_path / "v.jsonl").write_bytes(junk)
        assert tracekit(words).code == 0
        assert len((tmp_path / "v.jsonl").read_text().splitlines()) == 24


def test_what_is_said_of_a_command_that_keeps_nothing() -> None:
    assert going_on(["duplicates", "a b.jsonl"]) == "to start again, run: tracekit duplicates 'a b.jsonl'"


@pytest.mark.parametrize("name", ["verify", "curate"])
def test_a_full_disk_is_one_sentence_and_leaves_whole_files(name: str, many: Path, tmp_path: Path) -> None:
    """A limit on the size of a file stands for the full disk."""
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000)); sys.argv = ['tracekit', *sys.argv[1:]]; "
        "from tracekit.cli.app import main; main()"
    )
    out = tmp_path / "out"
    out.mkdir()
    words = words_of(name, many, out)
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("tracekit: ")]
    assert len(said) == 1
    assert "while writing" in said[0]
    assert "Traceback" not in done.stderr
    assert not [file for file in contents(out) if file.endswith(".partial")]
    finish(words, tmp_path / "log")


def test_too_little_memory_is_one_sentence(tmp_path: Path) -> None:
    """Rows that the address space cannot hold."""
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"gold": "1", "response": "' + "x" * 60_000_000 + '"}\n' * 1)
    code = (
        "import sys; sys.argv = ['tracekit', *sys.argv[1:]]\n"
        "from tracekit.cli.app import main\nimport tracekit.cli.verify, resource\n"
        "used = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000,) * 2)\nmain()"
    )
    words = ["verify", str(rows), "--output", str(tmp_path / "v.jsonl")]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2, done.stderr
    assert "out of memory" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_command_killed_at_once_leaves_nothing_that_stops_the_next(many: Path, tmp_path: Path) -> None:
    words = words_of("curate", many, tmp_path / "out")
    assert kill_at(words, tmp_path / "log", 0.05, signal.SIGKILL)
    finish(words, tmp_path / "log")
