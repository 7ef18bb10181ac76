"""The judge of undecided verdicts, against an endpoint of our own on this machine."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from evaluators import Judge, Outcome, verify, verify_batch
from evaluators.service import judge as judging

KEY = "sk-a-key-that-must-not-be-written"
UNDECIDED = ("an isosceles triangle", r"\text{isosceles}")  # response and gold


class Endpoint(ThreadingHTTPServer):
    """A chat endpoint whose replies a test sets."""

    daemon_threads = True

    def __init__(self):
        self.requests = []
        self.reply = lambda request: "SAME"
        self.status = 200
        self.pause = 0.0
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers["Authorization"], body))
        content = self.server.reply(body)
        data = content if isinstance(content, bytes) else json.dumps({"choices": [{"message": {"content": content}}]})
        data = data if isinstance(data, bytes) else data.encode()
        self.send_response(self.server.status)
        self.send_header("Location", "/v1/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        try:
            for byte in range(len(data)) if self.server.pause else ():
                self.wfile.write(data[byte : byte + 1])
                time.sleep(self.server.pause)
            if not self.server.pause:
                self.wfile.write(data)
        except OSError:
            pass  # the judge closed the connection, as it should

    def log_message(self, format, *args):
        pass


@pytest.fixture
def endpoint():
    with Endpoint() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_an_undecided_answer_that_the_judge_takes_is_correct(endpoint):
    verdict = Judge(endpoint.url, "m").resolve(verify(*UNDECIDED), "What kind of triangle is it?")
    assert (verdict.outcome, verdict.method) == (Outcome.CORRECT, "judge")
    path, _, body = endpoint.requests[0]
    asked = json.loads(body["messages"][1]["content"])
    assert (path, body["temperature"]) == ("/v1/chat/completions", 0)
    assert asked == {
        "question": "What kind of triangle is it?",
        "reference": r"\text{isosceles}",
        "student": "an isosceles triangle",
    }


def test_a_no_leaves_the_verdict_undecided_for_it_is_no_witness(endpoint):
    endpoint.reply = lambda request: "<think>SAME? No.</think>They differ.\nDIFFERENT"
    verdict = Judge(endpoint.url, "m").resolve(verify(*UNDECIDED))
    assert (verdict.outcome, verdict.method, verdict.witness) == (Outcome.UNPARSED_PREDICTION, "judge", None)


@pytest.mark.parametrize(
    ("response", "gold"),
    [(r"\boxed{3}", "4"), (r"\boxed{4}", "4"), ("I don't know.", "4"), (r"\boxed{x>3}", "x<3"), (r"\boxed{No}", "yes")],
)
def test_what_is_decided_or_no_answer_is_never_asked(endpoint, response, gold):
    verdict = verify(response, gold)
    assert Judge(endpoint.url, "m").resolve(verdict) is verdict
    assert endpoint.requests == []


def test_a_restated_question_is_not_asked(endpoint):
    verdict = verify(r"\boxed{\sqrt{242}}", r"11\sqrt2", prompt=r"Simplify $\sqrt{242}$.")
    assert Judge(endpoint.url, "m").resolve(verdict) is verdict
    assert endpoint.requests == []


def test_replies_are_kept_by_content_and_logged_without_the_key(endpoint, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.reply = lambda request: f"Your key is {KEY}.\nSAME"
    cache = tmp_path / "judge.jsonl"
    for _ in range(2):
        judge = Judge(endpoint.url, "m", cache)
        assert [v.correct for v in judge.resolve_all([verify(*UNDECIDED)] * 2)] == [True, True]
    assert len(endpoint.requests) <= 2  # two threads may ask the first at once
    assert endpoint.requests[0][1] == f"Bearer {KEY}"
    assert judge.recalled == 2
    assert KEY not in cache.read_text()
    assert json.loads(cache.read_text().splitlines()[0])["asked"]["student"] == "an isosceles triangle"


def test_a_line_that_was_cut_off_is_asked_again(endpoint, tmp_path):
    cache = tmp_path / "judge.jsonl"
    Judge(endpoint.url, "m", cache).resolve(verify(*UNDECIDED))
    cache.write_text(cache.read_text()[:-20])
    assert Judge(endpoint.url, "m", cache).resolve(verify(*UNDECIDED)).correct
    assert len(endpoint.requests) == 2


@pytest.mark.parametrize(
    "reply",
    [
        "SAME or DIFFERENT",
        "I cannot tell.",
        "SAMENESS",
        "",
        b"no json",
        b"[" * 100_000,
        b'{"choices": []}',
        "DIFFERENT? no",
    ],
)
def test_a_reply_that_says_nothing_clear_leaves_the_verdict(endpoint, reply):
    endpoint.reply = lambda request: reply
    judge = Judge(endpoint.url, "m")
    verdict = judge.resolve(verify(*UNDECIDED))
    assert (verdict.outcome, verdict.method) == (Outcome.UNPARSED_PREDICTION, "text")
    assert judge.failed == 1


@pytest.mark.parametrize("status", [302, 401, 500])
def test_refusals_and_redirects_leave_the_verdict_and_hide_the_key(endpoint, status, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    endpoint.status, endpoint.reply = status, lambda request: f"bad key {KEY}"
    verdict = Judge(endpoint.url, "m").resolve(verify(*UNDECIDED))
    assert verdict.outcome is Outcome.UNPARSED_PREDICTION
    assert str(status) in verdict.reason
    assert KEY not in verdict.reason
    assert len(endpoint.requests) == 1


def test_a_reply_byte_by_byte_ends_at_the_deadline(endpoint):
    endpoint.pause = 0.2
    started = time.monotonic()
    verdict = Judge(endpoint.url, "m", seconds=1.0).resolve(verify(*UNDECIDED))
    assert verdict.outcome is Outcome.UNPARSED_PREDICTION
    assert time.monotonic() - started < 4


def test_an_endless_reply_is_not_read(endpoint, monkeypatch):
    monkeypatch.setattr(judging, "MAX_REPLY", 1000)
    endpoint.reply = lambda request: "SAME\n" * 1000
    assert "longer than" in Judge(endpoint.url, "m").resolve(verify(*UNDECIDED)).reason


def test_an_endpoint_that_keeps_failing_is_left_alone(endpoint):
    endpoint.status = 503
    judge = Judge(endpoint.url, "m", parallel=1)
    judge.resolve_all([verify(f"an isosceles triangle {letter}", UNDECIDED[1]) for letter in "abcdefgh"])
    assert len(endpoint.requests) == judging.FAILURES


@pytest.mark.parametrize("url", ["ftp://host/v1", "host:80", "http://user:secret@host/v1", "http://host/v1?key=secret"])
def test_urls_that_hold_a_secret_or_are_none_are_refused(url):
    with pytest.raises(ValueError, match="judge's URL"):
        Judge(url, "m")


def test_a_batch_asks_about_its_undecided_rows_alone(endpoint):
    verdicts = verify_batch([r"\boxed{4}", UNDECIDED[0], r"\boxed{5}"], ["4", UNDECIDED[1], "4"],
                            judge=Judge(endpoint.url, "m"))  # fmt: skip
    assert [str(verdict.outcome) for verdict in verdicts] == ["correct", "correct", "wrong"]
    assert len(endpoint.requests) == 1
