"""Collecting from a teacher: an OpenAI-compatible server on this machine that fails in every way it can."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from tracekit.collection.collect import CollectSettings, Question, collect, seed_of
from tracekit.collection.openai_client import CollectError, Generation, Server, read_answer, retry_after
from tracekit.core.ids import problem_id
from tracekit.core.runs import RunError
from tracekit.core.tables import PROBLEMS, TRACES, read_table, write_table

#: A fault is asked (body, how often this very request came before) and returns what to do, or None to answer.
Fault = Callable[[dict, int], str | None]


@dataclass
class Teacher:
    """What the server saw and gave: requests and whole answers by (problem, seed)."""

    url: str = ""
    fault: Fault = lambda body, before: None
    asked: Counter = field(default_factory=Counter)
    answered: Counter = field(default_factory=Counter)
    bodies: list[dict] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    busy: int = 0
    busiest: int = 0
    delay: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)


def answer_to(body: dict) -> dict:
    text = f"<think>\n{body['messages'][-1]['content']} by {body['seed']}\n</think>\n\n\\boxed{{{body['seed'] % 10}}}"
    tokens = text.split(" ")
    content = [{"token": token, "logprob": -0.25 * (at % 4), "bytes": None} for at, token in enumerate(tokens)]
    return {
        "choices": [
            {
                "message": {"role": "assistant", "content": text},
                "finish_reason": "stop",
                "logprobs": {"content": content} if body.get("logprobs") else None,
            }
        ],
        "usage": {"prompt_tokens": 7, "completion_tokens": len(tokens)},
    }


@contextmanager
def serving(fault: Fault = lambda body, before: None, delay: float = 0.0) -> Iterator[Teacher]:
    teacher = Teacher(fault=fault, delay=delay)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            key = (body["messages"][-1]["content"], body["seed"])
            with teacher.lock:
                before = teacher.asked[key]
                teacher.asked[key] += 1
                teacher.bodies.append(body)
                teacher.keys.append(self.headers.get("authorization"))
                teacher.busy += 1
                teacher.busiest = max(teacher.busiest, teacher.busy)
            time.sleep(teacher.delay)
            with teacher.lock:
                teacher.busy -= 1
            self.reply(key, body, teacher.fault(body, before))

        def reply(self, key: tuple, body: dict, fault: str | None) -> None:
            if fault == "disconnect":
                self.close_connection = True
                self.connection.close()
                return
            if fault == "half":
                self.send_response(200)
                self.send_header("content-length", "5000")
                self.end_headers()
                self.wfile.write(b'{"choices": [')
                self.close_connection = True
                return
            status = int(fault) if fault and fault.isdigit() else 200
            payload = b"<html>not JSON" if fault == "garbage" else json.dumps(answer_to(body)).encode()
            if status != 200:
                payload = json.dumps({"error": f"{status} for {self.headers.get('authorization')}"}).encode()
            self.send_response(status)
            if status == 429:
                self.send_header("retry-after", "0.05")
            self.send_header("content-length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)
            if status == 200 and fault is None:
                with teacher.lock:
                    teacher.answered[key] += 1

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    teacher.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield teacher
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def problems(count: int) -> pl.DataFrame:
    rows = [
        (problem_id("test", f"problem {n}", "0"), f"problem {n}", "0", "test", "train", "", None) for n in range(count)
    ]
    return pl.DataFrame(rows, schema=PROBLEMS, orient="row")


def settings(folder: Path, url: str, **others: object) -> CollectSettings:
    server = {"base_url": url, "backoff": 0.002, "longest_backoff": 0.02, **others.pop("server", {})}
    question = {"model": "teacher-1", **others.pop("question", {})}
    return CollectSettings.model_validate(
        {"output": folder, "server": server, "question": question, "problems": folder / "in.parquet", **others}
    )


def test_every_problem_gets_its_samples_with_log_probs_and_counts(tmp_path: Path) -> None:
    with serving() as teacher:
        done = collect(settings(tmp_path / "c", teacher.url, samples=3, price_in=1.0, price_out=2.0), problems(5))
    traces = read_table(tmp_path / "c" / "traces.parquet", TRACES)
    assert traces.height == done.answers == 15
    assert traces["trace_id"].n_unique() == 15
    assert traces["author"].unique().to_list() == ["teacher-1"]
    for response, count, log_probs in traces.select("response", "token_count", "token_log_probs").iter_rows():
        assert count == len(log_probs) == len(response.split(" "))
        assert log_probs == [-0.25 * (at % 4) for at in range(count)]
    # Problem-major order, whatever order the answers came in, and each sample by its own seed.
    wanted = [
        f"problem {n} by {seed_of(Question(), i, k)}" for n, i in enumerate(problems(5)["problem_id"]) for k in range(3)
    ]
    assert [response.split("\n")[1] for response in traces["response"]] == wanted
    assert done.cost == pytest.approx((15 * 7 * 1.0 + traces["token_count"].sum() * 2.0) / 1e6)


def test_the_request_says_what_was_asked(tmp_path: Path) -> None:
    asked = {"system_prompt": "Think.", "temperature": 0.5, "max_tokens": 99, "extra": {"top_k": 20}}
    with serving() as teacher:
        collect(settings(tmp_path / "c", teacher.url, question=asked), problems(1))
    body = teacher.bodies[0]
    assert body["messages"] == [{"role": "system", "content": "Think."}, {"role": "user", "content": "problem 0"}]
    assert (body["temperature"], body["max_tokens"], body["top_k"], body["logprobs"]) == (0.5, 99, 20, True)


def test_faults_are_retried_until_every_answer_is_there_once(tmp_path: Path) -> None:
    faults = ("429", "500", "disconnect", "503", "half", "garbage")

    def fault(body: dict, before: int) -> str | None:  # the n-th problem meets n faults before its answer
        return faults[before] if before < int(body["messages"][-1]["content"].split()[1]) else None

    with serving(fault) as teacher:
        done = collect(settings(tmp_path / "c", teacher.url), problems(7))
    assert (done.answers, done.failed, done.refused) == (7, 0, 0)
    assert set(teacher.answered.values()) == {1}
    assert sum(teacher.asked.values()) == 7 + sum(range(7))
    assert done.retried == sum(range(7))


def test_what_stays_broken_is_counted_and_asked_again_by_the_next_run(tmp_path: Path) -> None:
    def broken(body: dict, before: int) -> str | None:
        return "500" if body["messages"][-1]["content"] == "problem 1" else None

    with serving(broken) as teacher:
        wanted = settings(tmp_path / "c", teacher.url, server={"retries": 2})
        first = collect(wanted, problems(3))
        assert (first.answers, first.failed) == (2, 1)
        teacher.fault = lambda body, before: None
        second = collect(wanted, problems(3))
    assert (second.answers, second.asked, second.failed) == (3, 1, 0)
    assert set(teacher.answered.values()) == {1}


def test_a_refused_request_is_not_repeated_and_stops_no_other(tmp_path: Path) -> None:
    with serving(lambda body, before: "400" if "1" in body["messages"][-1]["content"] else None) as teacher:
        done = collect(settings(tmp_path / "c", teacher.url), problems(3))
    assert (done.answers, done.refused, done.retried) == (2, 1, 0)
    assert set(teacher.asked.values()) == {1}


def test_more_samples_are_added_to_a_collection(tmp_path: Path) -> None:
    with serving() as teacher:
        collect(settings(tmp_path / "c", teacher.url, samples=1), problems(4))
        done = collect(settings(tmp_path / "c", teacher.url, samples=3), problems(4))
    assert (done.answers, done.asked) == (12, 8)
    assert set(teacher.asked.values()) == {1}


def test_another_question_does_not_go_into_the_same_collection(tmp_path: Path) -> None:
    with serving() as teacher:
        collect(settings(tmp_path / "c", teacher.url), problems(1))
        with pytest.raises(RunError, match="temperature"):
            collect(settings(tmp_path / "c", teacher.url, question={"temperature": 0.1}), problems(1))


def test_no_more_requests_are_in_flight_than_allowed(tmp_path: Path) -> None:
    with serving(delay=0.02) as teacher:
        collect(settings(tmp_path / "c", teacher.url, server={"concurrency": 3}), problems(12))
    assert teacher.busiest == 3


@pytest.mark.parametrize("status", ["401", "404"])
def test_a_wrong_key_or_address_ends_the_collection_with_what_to_do(tmp_path: Path, status: str, monkeypatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret")
    with serving(lambda body, before: status) as teacher:
        wanted = settings(tmp_path / "c", teacher.url, server={"key_variable": "TEACHER_KEY", "concurrency": 1})
        with pytest.raises(CollectError, match=f"HTTP {status}.*check") as error:
            collect(wanted, problems(5))
    assert "sk-very-secret" not in str(error.value)
    assert sum(teacher.asked.values()) == 1


def test_the_key_is_sent_and_never_written(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-very-secret")
    with serving(lambda body, before: "400" if "1" in body["messages"][-1]["content"] else None) as teacher:
        collect(settings(tmp_path / "c", teacher.url, server={"key_variable": "TEACHER_KEY"}), problems(3))
    assert set(teacher.keys) == {"Bearer sk-very-secret"}
    files = [file for file in (tmp_path / "c").rglob("*") if file.is_file()]
    assert len(files) >= 5
    assert not any(b"sk-very-secret" in file.read_bytes() for file in files)


def test_a_key_inside_the_address_is_turned_away(tmp_path: Path) -> None:
    with pytest.raises(CollectError, match="environment"):
        collect(settings(tmp_path / "c", "https://user:sk@example.org/v1"), problems(1))


def test_a_dead_server_ends_the_collection_and_keeps_the_answers(tmp_path: Path) -> None:
    with serving(lambda body, before: None if body["messages"][-1]["content"] == "problem 0" else "503") as teacher:
        wanted = settings(tmp_path / "c", teacher.url, server={"retries": 0, "concurrency": 1})
        with pytest.raises(CollectError, match=r"10 requests in a row.*503"):
            collect(wanted, problems(40))
    assert read_table(tmp_path / "c" / "traces.parquet", TRACES).height == 1
    assert sum(teacher.asked.values()) == 11


COLLECT_ALL = """
import sys
from pathlib import Path
import polars as pl
from tracekit.collection.collect import CollectSettings, collect
settings = CollectSettings.model_validate_json(Path(sys.argv[1]).read_text())
collect(settings, pl.read_parquet(settings.problems))
"""


def test_a_killed_collection_goes_on_and_pays_for_no_answer_twice(tmp_path: Path) -> None:
    with serving(delay=0.01) as teacher:
        wanted = settings(tmp_path / "c", teacher.url, samples=4, server={"concurrency": 2})
        write_table(problems(30), tmp_path / "c" / "in.parquet")
        (tmp_path / "settings.json").write_text(wanted.model_dump_json())
        ledger = tmp_path / "c" / "requests.jsonl"
        for stop_at in (10, 40):
            process = subprocess.Popen([sys.executable, "-c", COLLECT_ALL, str(tmp_path / "settings.json")])
            while not ledger.exists() or ledger.read_bytes().count(b"\n") < stop_at:
                assert process.poll() is None
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            process.wait()
            with ledger.open("ab") as file:  # the kill came in the middle of a write
                file.write(b'{"problem_id": "torn", "respo')
        before = {
            tuple(json.loads(line)[k] for k in ("problem_id", "sample"))
            for line in ledger.read_bytes().splitlines()[:-1]
        }
        asked = sum(teacher.asked.values())
        done = collect(wanted, problems(30))
    assert done.answers == 120
    assert done.asked == 120 - len(before) == sum(teacher.asked.values()) - asked
    # At most what was in flight at each kill, one a worker, was asked twice.
    assert sum(count - 1 for count in teacher.asked.values()) <= 2 * 2
    assert read_table(tmp_path / "c" / "traces.parquet", TRACES)["trace_id"].n_unique() == 120


def test_two_collections_do_not_write_one_ledger(tmp_path: Path) -> None:
    def engine(texts: list[str], question: Question, seeds: list[int]) -> list[Generation]:
        with pytest.raises(CollectError, match="another collection"):
            collect(settings(tmp_path / "c", "http://127.0.0.1:9/v1"), problems(1))
        return [Generation("x", None, 1, "stop")] * len(texts)

    assert collect(settings(tmp_path / "c", ""), problems(1), generate=engine).answers == 1


def test_an_engine_in_process_is_asked_in_batches_and_resumes(tmp_path: Path) -> None:
    sizes: list[int] = []

    def engine(texts: list[str], question: Question, seeds: list[int]) -> list[Generation]:
        sizes.append(len(texts))
        if len(sizes) == 2:
            raise MemoryError
        return [Generation(f"{text} {seed}", [-1.0], 1, "length") for text, seed in zip(texts, seeds, strict=True)]

    wanted = settings(tmp_path / "c", "", samples=2)
    with pytest.raises(MemoryError):
        collect(wanted, problems(5), generate=engine, batch=4)
    done = collect(wanted, problems(5), generate=engine, batch=4)
    assert (sizes, done.answers, done.asked) == ([4, 4, 4, 2], 10, 6)
    answers = pl.read_parquet(tmp_path / "c" / "answers.parquet")
    assert answers["finish_reason"].unique().to_list() == ["length"]


def test_the_same_words_twice_are_two_traces(tmp_path: Path) -> None:
    engine = lambda texts, question, seeds: [Generation("same", None, 1, "stop")] * len(texts)  # noqa: E731
    collect(settings(tmp_path / "c", "", samples=3), problems(2), generate=engine)
    assert read_table(tmp_path / "c" / "traces.parquet", TRACES)["trace_id"].n_unique() == 6


def test_a_split_off_thought_is_put_back_without_its_log_probs() -> None:
    message = {"content": "\\boxed{4}", "reasoning_content": "2 and 2"}
    choice = {"message": message, "finish_reason": "stop", "logprobs": {"content": [{"logprob": -1.0}]}}
    told = read_answer({"choices": [choice], "usage": {"completion_tokens": 9}})
    assert told == Generation("<think>\n2 and 2\n</think>\n\n\\boxed{4}", None, 9, "stop")


def test_half_a_character_does_not_spoil_the_tables() -> None:
    body = json.loads('{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": "stop"}]}')
    assert read_answer(body).response == "a\ufffdb"


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, 0.0), ("3", 3.0), ("0.5", 0.5), ("-1", 0.0), ("soon", 0.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0)],
)
def test_retry_after_is_read_in_seconds_and_as_a_date(header: str | None, seconds: float) -> None:
    assert retry_after(header) == seconds


def test_a_date_in_the_future_is_waited_for() -> None:
    from email.utils import formatdate

    assert 55 < retry_after(formatdate(time.time() + 60, usegmt=True)) <= 60


def test_the_default_server_is_vllm_on_this_machine() -> None:
    assert Server().base_url == "http://127.0.0.1:8000/v1"
    assert os.environ.get("TEACHER_KEY") is None
