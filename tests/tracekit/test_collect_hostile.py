"""What a server may send: each planted behaviour is answered, asked again or refused, and none stays in the log."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import polars as pl
import pytest

from tracekit.collection.collect import LEDGER_FILE, CollectSettings, Question, collect, read_line
from tracekit.collection.openai_client import CollectError, Server
from tracekit.collection.replies import ReplyError, masked, read_answer
from tracekit.core.ids import problem_id
from tracekit.core.tables import PROBLEMS, TRACES, read_table

KEY = "sk-planted-0123456789abcdef-secret"
#: What is sent for a request: status, headers, body; None drips a byte at a time and never ends.
Reply = tuple[int, dict[str, str], bytes] | None


def whole(**changes: object) -> dict:
    message = {"role": "assistant", "content": "So it is \\boxed{7}."}
    return {
        "choices": [{"message": message, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 5},
        **changes,
    }


def choice(**changes: object) -> dict:
    return whole(choices=[{"message": {"content": "So it is \\boxed{7}."}, "finish_reason": "stop", **changes}])


def ok(body: object, **headers: str) -> Reply:
    return 200, headers, body if isinstance(body, bytes) else json.dumps(body).encode()


@contextmanager
def serving(reply: Callable[[int], Reply]) -> Iterator[tuple[str, list[int]]]:
    """A server that sends reply(0), reply(1), … ; yields its address and the list of requests."""
    requests: list[int] = []
    stop = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            requests.append(len(requests))
            sent = reply(len(requests) - 1)
            status, headers, body = sent if sent is not None else (200, {}, b"{" * 100_000)
            self.send_response(status)
            for name, value in {"content-length": str(len(body)), **headers}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            try:
                if sent is None:
                    while not stop.wait(0.05):
                        self.wfile.write(b" ")
                        self.wfile.flush()
                self.wfile.write(body)
            except OSError:
                pass  # the client has hung up, as it should
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1", requests
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        thread.join()


def run(folder: Path, url: str, **server: object):
    rows = [(problem_id("test", "one", "7"), "one", "7", "test", "train", "", None)]
    settings = CollectSettings(
        output=folder,
        question=Question(model="m", log_probs=True),
        server=Server(base_url=url, backoff=0.01, longest_backoff=0.05, **{"retries": 1, "timeout": 2, **server}),
    )
    return collect(settings, pl.DataFrame(rows, schema=PROBLEMS, orient="row"))


def everything(folder: Path) -> str:
    return "".join(path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file())


#: The answer's text is no text: the reply is refused, nothing is written, the next try is asked.
REFUSED = {
    "null message": choice(message=None),
    "text for a message": choice(message="So it is"),
    "number for content": choice(message={"content": 7}),
    "list for content": choice(message={"content": ["a"]}),
    "empty content": choice(message={"content": ""}),
    "no content": choice(message={}),
    "object for reasoning": choice(message={"content": "a", "reasoning": {"a": 1}}),
    "no choices": whole(choices=[]),
    "null choices": whole(choices=None),
    "text for choices": whole(choices="abc"),
    "object for choices": whole(choices={"0": 1}),
    "numbers in choices": whole(choices=[1]),
    "a list": [1],
    "a number": 7,
    "null": None,
    "text": "hello",
    "no JSON": b"<html>",
    "empty body": b"",
    "half a body": json.dumps(whole()).encode()[:50],
    "no UTF-8": b'{"choices": "\xff\xfe"}',
    "deep JSON": b'{"choices": ' + b"[" * 200_000 + b"]" * 200_000 + b"}",
    "a number of 10,000 digits": b'{"choices": [], "usage": ' + b"9" * 10_000 + b"}",
}
#: What stands beside the text is nonsense: the answer is kept, and what is nonsense is unknown.
KEPT = {
    "count as text": whole(usage={"completion_tokens": "3", "prompt_tokens": "3"}),
    "huge count": whole(usage={"completion_tokens": 10**12, "prompt_tokens": 10**30}),
    "negative count": whole(usage={"completion_tokens": -1, "prompt_tokens": -5}),
    "fraction of a token": whole(usage={"completion_tokens": 3.5, "prompt_tokens": 1e300}),
    "true for a count": whole(usage={"completion_tokens": True, "prompt_tokens": False}),
    "object for a count": whole(usage={"completion_tokens": {"a": 1}, "prompt_tokens": []}),
    "list for usage": whole(usage=[1]),
    "text for usage": whole(usage="none"),
    "null usage": whole(usage=None),
    "text for logprobs": choice(logprobs="none"),
    "text in logprobs": choice(logprobs={"content": "abc"}),
    "null in logprobs": choice(logprobs={"content": [None]}),
    "text for a logprob": choice(logprobs={"content": [{"logprob": "-1"}]}),
    "endless logprob": choice(logprobs={"content": [{"logprob": float("-inf")}]}),
    "no number for a logprob": choice(logprobs={"content": [{"logprob": float("nan")}]}),
    "positive logprob": choice(logprobs={"content": [{"logprob": 3.0}]}),
    "object for finish_reason": choice(finish_reason={"a": 1}),
    "long finish_reason": choice(finish_reason="x" * 10_000),
    "half a character": choice(message={"content": "a \ud800 b"}),
}


@pytest.mark.parametrize("behaviour", REFUSED)
def test_a_reply_without_an_answer_is_asked_again_and_leaves_nothing(tmp_path: Path, behaviour: str) -> None:
    with serving(lambda request: ok(REFUSED[behaviour]) if request < 2 else ok(whole())) as (url, requests):
        first = run(tmp_path, url)
        assert (first.answers, first.failed, len(requests)) == (0, 1, 2)
        assert (tmp_path / LEDGER_FILE).read_bytes() == b""
        assert run(tmp_path, url).answers == 1


@pytest.mark.parametrize("behaviour", KEPT)
def test_nonsense_beside_the_answer_is_unknown_and_the_answer_is_kept(tmp_path: Path, behaviour: str) -> None:
    with serving(lambda request: ok(KEPT[behaviour])) as (url, requests):
        assert run(tmp_path, url).answers == 1
        again = run(tmp_path, url)  # and no later run stumbles over it
    assert (again.answers, again.asked, again.bad_lines, len(requests)) == (1, 0, 0, 1)
    (trace,) = read_table(tmp_path / "traces.parquet", TRACES).to_dicts()
    assert trace["token_log_probs"] is None
    assert trace["token_count"] in (None, 5)
    answers = pl.read_parquet(tmp_path / "answers.parquet")
    assert answers["finish_reason"][0] in ("stop", "unknown")


@pytest.mark.parametrize(
    "reply",
    [
        None,
        ok(b"x" * 3_000_000),
        ok(gzip.compress(b" " * 300_000_000, 1), content_encoding="gzip"),
        ok(zlib.compress(b" " * 300_000_000, 1), content_encoding="deflate"),
        ok(gzip.compress(json.dumps(whole()).encode())[:-9], content_encoding="gzip"),
        ok(json.dumps(whole()).encode(), content_encoding="zstd"),
        ok(json.dumps(whole()).encode(), content_encoding="gzip"),
    ],
    ids=["drips", "long", "gzip bomb", "deflate bomb", "cut gzip", "zstd", "no gzip"],
)
def test_a_reply_has_a_wall_clock_and_a_limit_of_bytes(tmp_path: Path, reply: Reply) -> None:
    with serving(lambda request: reply) as (url, requests):
        started = time.monotonic()
        done = run(tmp_path, url, timeout=1.0, longest_reply=1_000_000)
        assert time.monotonic() - started < 20
    assert (done.answers, done.failed, len(requests)) == (0, 1, 2)


def test_a_packed_answer_is_read(tmp_path: Path) -> None:
    with serving(lambda request: ok(gzip.compress(json.dumps(whole()).encode()), content_encoding="gzip")) as (url, _):
        assert run(tmp_path, url).answers == 1


@pytest.mark.parametrize(
    "header", ["1000000000", "inf", "nan", "-5", "1e400", "Fri, 31 Dec 2099 23:59:59 GMT", "soon", "9" * 99]
)
def test_retry_after_is_waited_for_no_longer_than_the_longest_backoff(tmp_path: Path, header: str) -> None:
    with serving(lambda n: (429, {"retry-after": header}, b"") if n == 0 else ok(whole())) as (url, _):
        started = time.monotonic()
        assert run(tmp_path, url).answers == 1
        assert time.monotonic() - started < 10


@pytest.mark.parametrize("status", [400, 401, 422, 500, 200])
@pytest.mark.parametrize("before", [0, 150, 180, 195])
def test_no_part_of_the_key_is_written_or_said(tmp_path: Path, monkeypatch, status: int, before: int) -> None:
    """The message is cut to 200 characters: the key is masked before, wherever the cut falls."""
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    text = "e" * before + KEY + " and " + KEY[3:20] + " and Bearer " + KEY
    body = json.dumps(choice(message={"content": f"{text} \\boxed{{7}}"})) if status == 200 else text
    said = ""
    with serving(lambda request: (status, {}, body.encode())) as (url, _):
        try:
            run(tmp_path, url)
        except CollectError as error:
            said = str(error)
    written = everything(tmp_path) + said
    assert not [KEY[at : at + 8] for at in range(len(KEY) - 7) if KEY[at : at + 8] in written]


def test_damaged_lines_of_the_log_are_set_aside_and_asked_again(tmp_path: Path) -> None:
    with serving(lambda request: ok(whole())) as (url, requests):
        run(tmp_path, url)
        log = tmp_path / LEDGER_FILE
        good = log.read_bytes()
        line = json.loads(good)
        bad = [
            b"no JSON",
            b'{"problem_id": 3}',
            json.dumps({**line, "token_count": "3"}).encode(),
            json.dumps({**line, "token_count": 10**12}).encode(),
            json.dumps({**line, "token_log_probs": "x"}).encode(),
            json.dumps({**line, "sample": -1}).encode(),
            b"\xff\xfe",
            b"[" * 100_000,
        ]
        log.write_bytes(b"\n".join(bad) + b"\n")
        again = run(tmp_path, url)
        assert (again.answers, again.asked, again.bad_lines) == (1, 1, len(bad))
        assert (tmp_path / "requests.rejected.jsonl").read_bytes().splitlines() == bad
        log.write_bytes(good + good)  # the same sample twice is one answer
        assert run(tmp_path, url).answers == 1
    assert len(requests) == 2
    assert read_line(good) is not None


def test_the_mask_covers_the_key_and_its_pieces() -> None:
    assert masked(f"a {KEY} b", KEY) == "a … b"
    assert masked(f"a {KEY[5:15]} b", KEY) == "a … b"
    assert masked("nothing of it", KEY) == "nothing of it"
    assert masked("the word EMPTY", None) == "the word EMPTY"


def test_a_split_off_thought_is_read_back() -> None:
    assert read_answer(choice(message={"content": "b", "reasoning": "a"})).response == "<think>\na\n</think>\n\nb"
    with pytest.raises(ReplyError, match=r"choices\.0\.message\.content"):
        read_answer(choice(message={"content": 1}))
