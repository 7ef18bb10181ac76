"""Computations that can be killed: warm workers, deadlines, threads, asyncio, forks."""

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
import time
from fractions import Fraction

import pytest

from evaluators import Outcome, verify
from evaluators.parsing.tree import Node, to_json
from evaluators.workers import pool as deadline
from evaluators.workers.pool import DeadlineExceeded, Worker, WorkerBroken, WorkerDied, run_symbolic

X = Node("sym", (), "x")
ONE, TWO = Node("num", (), 1), Node("num", (), 2)
SQUARE_OF_SUM = Node("pow", (Node("add", (X, ONE)), TWO))
EXPANDED = Node("add", (Node("pow", (X, TWO)), Node("mul", (TWO, X)), ONE))
OTHER = Node("add", (Node("pow", (X, TWO)), X, ONE))


def ask(a, b, seconds=30.0):
    deadline._memo.known.clear()  # each test asks the workers, not the memory
    return run_symbolic(to_json(a), to_json(b), seconds)


@pytest.fixture(autouse=True, scope="module")
def warm_workers():
    deadline.warm_up(wait=True)
    yield
    deadline.close()


def stuck_worker(monkeypatch):
    """From here on every answer is late: the worker is stopped in the midst of its case."""
    monkeypatch.setattr(deadline, "WALL_SECONDS", 0.4)
    monkeypatch.setattr(deadline, "WALL_FACTOR", 0.0)
    send = Worker.send

    def send_to_a_stopped_process(worker, payload):
        import signal

        os.kill(worker.process.pid, signal.SIGSTOP)
        send(worker, payload)

    monkeypatch.setattr(Worker, "send", send_to_a_stopped_process)


def test_a_worker_tells_equal_from_unequal():
    assert ask(SQUARE_OF_SUM, EXPANDED) is True
    assert ask(SQUARE_OF_SUM, OTHER) is not True


def test_a_stuck_worker_is_given_up_by_the_wall_clock(monkeypatch):
    with monkeypatch.context() as patch:
        stuck_worker(patch)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            ask(SQUARE_OF_SUM, EXPANDED, 0.5)
        assert time.monotonic() - started < 1.5
    assert ask(SQUARE_OF_SUM, EXPANDED) is True


def test_the_parts_of_one_answer_share_one_budget(monkeypatch):
    given = []

    def slow(a, b, seconds):
        given.append(seconds)
        return None, 0.2

    monkeypatch.setattr(deadline, "ask_symbolic", slow)
    integrals = ", ".join(rf"\int_0^1 |x^{{{n}}} - a| dx" for n in range(2, 12))
    verdict = verify(rf"\boxed{{({integrals})}}", f"({integrals.replace('x^', 'y^').replace('dx', 'x dy')})")
    assert verdict.outcome is Outcome.TIMEOUT
    assert len(given) == 5
    assert given == sorted(given, reverse=True)
    assert given[-1] == pytest.approx(0.2)


def test_the_budget_is_cpu_time_and_the_worker_outlives_it():
    assert ask(SQUARE_OF_SUM, EXPANDED) is True
    wait_for(lambda: len(deadline._pool.idle) == deadline._pool.standing)
    workers = {worker.process.pid for worker in deadline._pool.idle}
    hard = Node("fn", (Node("mul", tuple(Node("add", (X, Node("num", (), n))) for n in range(60))),), "sin")
    with pytest.raises(DeadlineExceeded, match=r"more than 0\.05 s of CPU time"):
        ask(hard, Node("fn", (Node("add", (hard, ONE)),), "cos"), 0.05)
    assert ask(SQUARE_OF_SUM, EXPANDED) is True
    assert {worker.process.pid for worker in deadline._pool.idle} == workers


def test_equal_comparisons_are_made_once_and_time_outs_are_remembered(monkeypatch):
    asked = []

    def count(trees, seconds):
        asked.append(seconds)
        return "deadline", None

    memo = deadline._Memo()
    monkeypatch.setattr(deadline, "_memo", memo)
    monkeypatch.setattr(deadline._pool, "ask", count)
    for seconds in (0.5, 0.5, 0.2, 1.0, 0.7):
        with pytest.raises(DeadlineExceeded):
            run_symbolic(to_json(X), to_json(ONE), seconds)
    assert asked == [0.5, 1.0]


def test_threads_that_ask_the_same_wait_for_one_answer(monkeypatch):
    asked = []

    def slow(trees, seconds):
        asked.append(trees)
        time.sleep(0.2)
        return "value", [True, 0.01]

    monkeypatch.setattr(deadline, "_memo", deadline._Memo())
    monkeypatch.setattr(deadline._pool, "ask", slow)
    answers = []
    threads = [
        threading.Thread(target=lambda: answers.append(run_symbolic(to_json(X), to_json(TWO)))) for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (answers, len(asked)) == ([True] * 16, 1)


def test_the_first_symbolic_case_of_a_process_has_its_whole_budget():
    script = """
        from evaluators import verify
        assert verify(r"\\boxed{\\int_0^1 |x - 1/3| dx}", r"\\frac{5}{18}").correct
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=120)


def test_bombs_do_not_starve_their_neighbours():
    """Honest cases that need sympy beside as many bombs, all at once."""
    verdicts = {}

    def decide(name, answer, gold):
        verdicts[name] = verify(rf"\boxed{{{answer}}}", gold).outcome

    cases = []
    for n in range(2, 10):
        value = Fraction(1, 2 * n * n) + Fraction((n - 1) ** 2, 2 * n * n)
        honest = rf"\int_0^1 |x - \frac{{1}}{{{n}}}| dx", f"{value.numerator}/{value.denominator}"
        cases += [(f"bomb {n}", rf"\int_0^{{{n}}} |\sin(x^{{x}})| x^{{x^x}} dx", "72"), (f"honest {n}", *honest)]
    threads = [threading.Thread(target=decide, args=case) for case in cases]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {outcome for name, outcome in verdicts.items() if name.startswith("honest")} == {Outcome.CORRECT}


def test_a_killed_worker_is_gone_and_another_stands_in(monkeypatch):
    wait_for(lambda: len(deadline._pool.idle) == deadline._pool.standing == 2)
    before = {worker.process.pid for worker in deadline._pool.idle}
    with monkeypatch.context() as patch:
        stuck_worker(patch)
        with pytest.raises(DeadlineExceeded):
            ask(SQUARE_OF_SUM, EXPANDED, 0.2)
    wait_for(lambda: len(deadline._pool.idle) == deadline._pool.standing == 2)
    (killed,) = before - {worker.process.pid for worker in deadline._pool.idle}
    assert not is_running(killed)


def wait_for(condition, seconds=20):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    assert condition()


def test_a_worker_killed_while_idle_costs_no_case():
    deadline.warm_up(wait=True)
    for worker in deadline._pool.idle:
        worker.process.kill()
        worker.process.wait()
        break
    assert [ask(SQUARE_OF_SUM, EXPANDED, 20.0) for _ in range(3)] == [True] * 3


def test_a_case_that_ends_every_worker_is_a_deadline_exceeded(monkeypatch):
    def send_and_die(worker, payload):
        worker.process.kill()
        worker.process.wait()
        raise WorkerDied("killed by the test")

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "send", send_and_die)
        with pytest.raises(DeadlineExceeded, match="ended its worker 3 times"):
            ask(SQUARE_OF_SUM, EXPANDED)
    assert ask(SQUARE_OF_SUM, EXPANDED) is True


def test_many_threads_each_get_their_own_answer():
    cases = [(SQUARE_OF_SUM, EXPANDED), (SQUARE_OF_SUM, OTHER)] * 10
    answers = [None] * len(cases)

    def work(i):
        answers[i] = ask(*cases[i], 30.0)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(cases))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [bool(answer) for answer in answers] == [True, False] * 10


def test_a_stuck_case_in_one_thread_loses_no_case_of_another():
    deadline.warm_up(wait=True)
    answers = []

    def well_behaved():
        answers.extend(ask(SQUARE_OF_SUM, EXPANDED, 30.0) for _ in range(20))

    thread = threading.Thread(target=well_behaved)
    thread.start()
    for _ in range(2):
        for worker in list(deadline._pool.idle):
            worker.process.kill()  # whichever happens to rest
        time.sleep(0.05)
    thread.join()
    assert answers == [True] * 20


def test_it_works_inside_asyncio():
    async def both():
        return await asyncio.gather(*(asyncio.to_thread(ask, SQUARE_OF_SUM, EXPANDED, 30.0) for _ in range(4)))

    assert asyncio.run(both()) == [True] * 4

    async def on_the_loop_itself():
        return ask(SQUARE_OF_SUM, EXPANDED, 30.0)

    assert asyncio.run(on_the_loop_itself()) is True


def test_a_forked_child_has_workers_of_its_own():
    assert ask(SQUARE_OF_SUM, EXPANDED) is True
    script = """
        import os
        from evaluators.workers.pool import run_symbolic
        from evaluators.parsing.tree import Node, to_json
        one = to_json(Node("sym", (), "x"))
        assert run_symbolic(one, one, 30.0) is True
        child = os.fork()
        if child == 0:
            os._exit(0 if run_symbolic(one, one, 30.0) is True else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert run_symbolic(one, one, 30.0) is True
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, timeout=60)


def test_no_worker_outlives_its_parent():
    script = """
        from evaluators.workers import pool as deadline
        deadline.warm_up(wait=True)
        print(*(worker.process.pid for worker in deadline._pool.idle))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True, capture_output=True, timeout=60)
    pids = [int(pid) for pid in done.stdout.split()]
    assert pids
    time.sleep(0.2)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_worker_ends_when_its_parent_is_killed_in_the_midst():
    script = """
        import time
        from evaluators.workers import pool as deadline
        deadline.warm_up(wait=True)
        print(*(worker.process.pid for worker in deadline._pool.idle), flush=True)
        time.sleep(60)
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE)
    pids = [int(pid) for pid in parent.stdout.readline().split()]
    parent.kill()
    parent.wait()
    parent.stdout.close()
    wait_for(lambda: not any(is_running(pid) for pid in pids))


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_an_installation_that_starts_no_worker_says_so(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    worker = Worker("symbolic")
    with pytest.raises(WorkerBroken, match="did not start"):
        worker.wait_ready()


def test_where_workers_did_start_before_a_failing_start_ends_no_run(monkeypatch, caplog):
    assert ask(SQUARE_OF_SUM, EXPANDED) is True

    def no_more(worker, seconds=0.0):
        raise WorkerBroken("no memory")

    with monkeypatch.context() as patch:
        patch.setattr(Worker, "wait_ready", no_more)
        with pytest.raises(DeadlineExceeded, match="no memory"):
            ask(SQUARE_OF_SUM, EXPANDED)
    assert "no symbolic worker starts any more" in caplog.text
    assert ask(SQUARE_OF_SUM, EXPANDED) is True


def test_a_worker_has_a_memory_limit():
    worker = Worker("symbolic")
    try:
        worker.wait_ready()
        with open(f"/proc/{worker.process.pid}/limits") as limits:
            (line,) = [line for line in limits if line.startswith("Max address space")]
        assert int(line.split()[3]) == deadline.MEMORY_BYTES
    finally:
        worker.kill()


def test_workers_that_were_killed_while_idle_cost_no_case_its_answer():
    deadline.warm_up(wait=True, count=2)
    for worker in list(deadline._pool.idle):
        worker.process.kill()
        worker.process.wait()
    assert ask(SQUARE_OF_SUM, EXPANDED, 30.0) is True
