"""verify_batch: the verdicts of verify, in order, whatever happens to its workers."""

import os
import threading
import time

import pytest

from evaluators import batch
from evaluators.batch import UnparsedGoldWarning, verify_batch
from evaluators.verdict import Outcome, Policy, Verdict
from evaluators.verify import verify
from evaluators.workers.pool import Worker, WorkerDied

RESPONSES = [f"The answer is \\boxed{{{i}}}." for i in range(300)]
GOLDS = [str(i if i % 3 else i + 1) for i in range(300)]
EXPECTED = [i % 3 != 0 for i in range(300)]


@pytest.mark.parametrize("workers", [None, 1, 2])
def test_the_verdicts_are_those_of_verify_in_order(workers):
    verdicts = verify_batch(RESPONSES, GOLDS, workers=workers)
    assert verdicts == [verify(response, gold) for response, gold in zip(RESPONSES, GOLDS)]
    assert [verdict.correct for verdict in verdicts] == EXPECTED


def test_what_a_trial_shows_to_be_long_work_is_shared(monkeypatch):
    monkeypatch.setattr(batch, "TRIAL_SECONDS", 0.0)
    monkeypatch.setattr(batch, "WORTH_SECONDS", 0.0)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    shared = []
    run = batch._Batch.run
    monkeypatch.setattr(batch._Batch, "run", lambda self, *rest: shared.append(len(self.pairs)) or run(self, *rest))
    verdicts = verify_batch(RESPONSES, GOLDS)
    assert shared == [len(GOLDS) - batch.CHUNK]
    assert [verdict.correct for verdict in verdicts] == EXPECTED


def test_the_policy_reaches_the_workers():
    responses, golds = ["\\boxed{5 km}"] * 4, ["5"] * 4
    assert all(verdict.correct for verdict in verify_batch(responses, golds, workers=2))
    strict = Policy(unit_on_one_side=False)
    assert not any(verdict.correct for verdict in verify_batch(responses, golds, policy=strict, workers=2))


def test_odd_text_goes_through_the_pipes_and_comes_back():
    odd = ["\ud800", "\x00", "7\n2", "\u202e27", "½", "{", "", None, 72, b"72"]
    verdicts = verify_batch(odd, ["72"] * len(odd), workers=2)
    assert verdicts == [verify(thing, "72") for thing in odd]


def test_a_killed_worker_loses_no_case():
    killed = []

    def kill_one_worker(stage, done, total, note):
        if not killed:
            for name in os.listdir("/proc"):
                if name.isdigit() and is_a_batch_worker_of_ours(name):
                    os.kill(int(name), 9)
                    killed.append(name)
                    return

    responses, golds = RESPONSES * 40, GOLDS * 40
    verdicts = verify_batch(responses, golds, workers=2, progress=kill_one_worker)
    assert killed
    assert [verdict.correct for verdict in verdicts] == EXPECTED * 40


def is_a_batch_worker_of_ours(pid):
    try:
        with open(f"/proc/{pid}/cmdline") as line, open(f"/proc/{pid}/stat") as stat:
            parent = int(stat.read().rpartition(")")[2].split()[1])
            return parent == os.getpid() and "\0verify\0" in line.read()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_case_that_ends_two_workers_is_a_timeout_and_loses_no_other(monkeypatch):
    send = Worker.send

    def die_of_the_poison(worker, payload):
        if any("poison" in response for response, *_ in payload[1]):
            worker.process.kill()
            worker.process.wait()
            raise WorkerDied("poisoned")
        send(worker, payload)

    monkeypatch.setattr(Worker, "send", die_of_the_poison)
    monkeypatch.setattr(batch, "CHUNK", 4)
    responses = [*RESPONSES[:10], "poison \\boxed{1}", *RESPONSES[10:20]]
    golds = [*GOLDS[:10], "1", *GOLDS[10:20]]
    verdicts = verify_batch(responses, golds, workers=2)
    assert verdicts[10].outcome is Outcome.TIMEOUT
    assert "two workers" in verdicts[10].reason
    assert [verdict.correct for verdict in verdicts[:10] + verdicts[11:]] == EXPECTED[:20]


@pytest.mark.parametrize("workers", [1, 2])
def test_progress_ends_at_the_total(workers):
    calls = []
    verify_batch(RESPONSES, GOLDS, workers=workers, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("verify", 300, 300, "")
    assert [call[1] for call in calls] == sorted(call[1] for call in calls)


def test_golds_that_cannot_be_read_are_said_once_with_their_rows():
    with pytest.warns(UnparsedGoldWarning) as said:
        verify_batch(["\\boxed{1}"] * 3, ["1", "\\frac{", "{"])
    assert len(said) == 1
    assert "row 1" in str(said[0].message)
    assert "row 2" in str(said[0].message)


def test_unequal_lengths_are_named():
    with pytest.raises(ValueError, match="2 responses and 1 golds"):
        verify_batch(["1", "2"], ["1"])


def test_nothing_gives_nothing():
    assert verify_batch([], []) == []
    assert verify_batch([], [], workers=4) == []


def test_it_leaves_no_worker_behind():
    verify_batch(RESPONSES, GOLDS, workers=2)
    assert not [name for name in os.listdir("/proc") if name.isdigit() and is_a_batch_worker_of_ours(name)]


def test_an_interrupt_ends_the_workers():
    def interrupt(stage, done, total, note):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_batch(RESPONSES * 100, GOLDS * 100, workers=2, progress=interrupt)
    until = time.monotonic() + 10
    while time.monotonic() < until and threading.active_count() > 1:
        if not [name for name in os.listdir("/proc") if name.isdigit() and is_a_batch_worker_of_ours(name)]:
            return
        time.sleep(0.05)
    assert not [name for name in os.listdir("/proc") if name.isdigit() and is_a_batch_worker_of_ours(name)]


def test_the_breaker_cuts_the_budget_of_a_batch_that_keeps_using_it_up(monkeypatch):
    given = []

    def timed_out(self, policy):
        given.append(policy.deadline_seconds)
        outcome = Outcome.TIMEOUT if self.response == "bomb" else Outcome.CORRECT
        return Verdict(outcome, None, "1", "symbolic", "")

    monkeypatch.setattr(batch.Pair, "verify", timed_out)
    verify_batch(["bomb"] * 300 + ["1"], ["1"] * 301, workers=1)
    assert given == [1.0] * 16 + [0.25] * 240 + [0.1] * 45
