"""The job board: a job has one owner at a time, whatever was killed, damaged, or set to another time."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracekit.study import job_claims
from tracekit.study.job_claims import Claims, started_at
from tracekit.study.jobs import Board, Job, work

HERE = socket.gethostname()

#: Takes every job of a board in an order of its own and writes the names of those that it got.
TAKER = """
import random, sys
from pathlib import Path
from tracekit.study.job_claims import Claims
folder, jobs, seed = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
names = [f"job-{i}" for i in range(jobs)]
random.Random(seed // 2).shuffle(names)  # two and two meet at the same jobs
claims = Claims(folder)
print("END", flush=True)
sys.stdin.readline()  # all begin together
got = [name for name in names if claims.take(name)]
print(*got, "END", sep=chr(10), flush=True)
sys.stdin.readline()  # a claim is stale once its process has ended
"""


def dead_process() -> int:
    """The id of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def claim_of(claims: Claims, name: str, **record: object) -> Path:
    path = claims.folder / f"{name}.claim"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def test_none_of_a_thousand_stale_jobs_is_taken_twice(tmp_path: Path) -> None:
    claims, dead, jobs = Claims(tmp_path), dead_process(), 1000
    for i in range(jobs):
        claim_of(claims, f"job-{i}", host=HERE, pid=dead)
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKER, str(tmp_path), str(jobs), str(seed)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for seed in range(4)
    ]  # fmt: skip

    def lines(taker: subprocess.Popen[str]) -> list[str]:
        assert taker.stdout is not None
        return list(iter(taker.stdout.readline, "END\n"))

    for taker in takers:
        assert lines(taker) == []  # each is ready
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    got = [name.strip() for taker in takers for name in lines(taker)]
    for taker in takers:
        taker.communicate("end\n")
    assert sorted(got) == sorted(f"job-{i}" for i in range(jobs))


def test_a_claim_is_held_while_its_process_lives(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    owner = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        claim_of(claims, "a", host=HERE, pid=owner.pid, started=started_at(owner.pid), token="1f")
        assert not claims.take("a")
    finally:
        owner.kill()
        owner.wait()
    assert claims.take("a")


def test_a_process_id_that_was_given_out_anew_holds_nothing(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    claim_of(claims, "a", host=HERE, pid=os.getpid(), started=1, token="1f")
    assert claims.take("a")


@pytest.mark.parametrize("shift", [-3600, -40, 3600])
def test_no_other_clock_makes_a_claim_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift: float) -> None:
    monkeypatch.setattr(job_claims, "STALE_SECONDS", 0.3)
    claims = Claims(tmp_path)
    path = claim_of(claims, "a", host="elsewhere", pid=1, token="1f")
    os.utime(path, (time.time() + shift, time.time() + shift))
    assert not claims.take("a")  # seen for the first time
    time.sleep(0.2)
    (tmp_path / "a.beat-1f").write_text("1")
    assert not claims.take("a")  # it has beaten
    time.sleep(0.4)
    assert claims.take("a")


def test_who_was_robbed_neither_beats_nor_releases_the_new_claim(tmp_path: Path) -> None:
    robbed, thief = Claims(tmp_path), Claims(tmp_path)
    assert robbed.take("a")
    thief.seen["a"] = ((robbed.held["a"], ""), time.monotonic() - 3600)
    owner = robbed.owner("a")
    assert owner is not None
    assert thief._make("a", owner)
    assert thief.holds("a")
    assert not robbed.holds("a")
    robbed.release("a")
    assert thief.holds("a")
    thief.release("a")
    assert not list(tmp_path.iterdir())


def test_a_robbed_worker_leaves_no_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracekit.study.jobs.HEARTBEAT_SECONDS", 0.05)
    board = Board(tmp_path, [Job("a", "s")])
    other = Claims(board.folder)

    def perform(job: Job, progress: object) -> None:
        owner = other.owner(job.name)
        assert owner is not None
        assert other._make(job.name, owner)
        time.sleep(0.3)

    work(board, perform, most=1)  # type: ignore[arg-type]
    assert not board.is_done("a")
    assert board.failure() is None
    assert other.holds("a")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '"x"', '{"seconds": "long"}', "\x00\x01"])
def test_a_damaged_record_is_set_aside_with_a_sentence_and_done_again(tmp_path: Path, text: str) -> None:
    board = Board(tmp_path, [Job("a", "s"), Job("b", "s", ("a",))])
    board.path("a", "done").write_text(text)
    with pytest.warns(UserWarning, match="could not be read"):
        assert not board.is_done("a")
    assert board.records() == {}
    work(board, lambda job, progress: None)
    assert board.all_done()
    assert len(list(board.folder.glob("a.done.damaged-*"))) == 1


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"host": 3, "pid": "x"}', "\x00\x01"])
def test_a_damaged_claim_goes_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(job_claims, "STALE_SECONDS", 0.1)
    board = Board(tmp_path, [Job("a", "s")])
    board.path("a", "claim").write_text(text)
    assert board.claim() is None
    time.sleep(0.2)
    assert board.claim() is not None


@pytest.mark.parametrize("text", ["", "{", "[1]", "null"])
def test_a_damaged_progress_or_failure_is_no_fault_of_the_watcher(tmp_path: Path, text: str) -> None:
    board = Board(tmp_path, [Job("a", "s")])
    board.path("a", "claim").write_text("{}")
    board.path("a", "progress").write_text(text)
    board.path("a", "failed").write_text("")
    assert board.under_way() == {}
    assert "says nothing" in str(board.failure())
