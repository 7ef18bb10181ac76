"""The verifier behind HTTP, for trainers that ask a reward service: JSON in, JSON out, single or in batches.

POST /verify   {"response", "gold", "prompt"?, "think_open"?} or {"pairs": [...]}; answers verdicts.
               NeMo Gym's call to a resources server, {"responses_create_params", "response", "expected_answer"}, is
               answered with itself and its "reward".
POST /reward   OpenRLHF's call: {"query": [...], "prompts": [...], "labels": [...]}; answers {"rewards", "scores"}.
GET  /rates    how many verdicts had each outcome since the start, and in the last RECENT.
GET  /health   "ok".
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from evaluators.batch import Pair
from evaluators.service.judge import Judge
from evaluators.verdict import Outcome, Policy, Verdict

MAX_BODY = 64 * 1024**2  # bytes of a request
MAX_PAIRS = 8192  # of a request
MAX_TEXT = 4_000_000  # characters of a response
READ_SECONDS = 30.0  # a connection that sends nothing for so long is closed
RECENT = 1000  # verdicts in the recent rates
#: A rise of the recent share of an outcome over its share since the start that is worth an alarm.
DRIFT = 0.2


class RequestError(ValueError):
    """A request that cannot be answered; its text goes to the client."""


class Rates:
    """Counts of outcomes, safe for threads."""

    def __init__(self) -> None:
        self.total: Counter[str] = Counter()
        self.recent: deque[str] = deque(maxlen=RECENT)
        self.lock = threading.Lock()

    def add(self, verdicts: list[Verdict]) -> None:
        """Count verdicts."""
        with self.lock:
            for verdict in verdicts:
                self.total[str(verdict.outcome)] += 1
                self.recent.append(str(verdict.outcome))

    def report(self) -> dict[str, Any]:
        """Return the shares by outcome, and alarms for outcomes whose recent share rose by DRIFT."""
        with self.lock:
            total, recent = self.total.copy(), Counter(self.recent)
        all_, late = sum(total.values()), sum(recent.values())
        shares = {str(o): total[str(o)] / all_ if all_ else 0.0 for o in Outcome}
        recent_shares = {str(o): recent[str(o)] / late if late else 0.0 for o in Outcome}
        alarms = [
            f"{name}: {recent_shares[name]:.0%} of the last {late} verdicts, {shares[name]:.0%} since the start"
            for name in shares
            if name != "correct" and late >= 100 and recent_shares[name] - shares[name] > DRIFT
        ]
        return {"verdicts": all_, "shares": shares, "recent_shares": recent_shares, "alarms": alarms}


class VerifierServer(ThreadingHTTPServer):
    """Serve verdicts on a local address. `port` 0 takes a free one; `server_address` tells it."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, host: str = "127.0.0.1", port: int = 8765, policy: Policy | None = None, judge: Judge | None = None
    ) -> None:
        self.policy = policy or Policy()
        self.judge = judge
        self.rates = Rates()
        super().__init__((host, port), _Handler)

    def decide(self, pairs: list[Pair]) -> list[Verdict]:
        """Return the verdicts on the pairs and count them."""
        from evaluators.batch import Breaker

        breaker = Breaker(self.policy)
        verdicts = [breaker.verify(pair) for pair in pairs]
        if self.judge is not None:
            verdicts = self.judge.resolve_all(verdicts, [pair.prompt for pair in pairs])
        self.rates.add(verdicts)
        return verdicts


def read_pair(data: Any) -> Pair:
    """A pair of a request. Raises RequestError."""
    if not isinstance(data, dict):
        raise RequestError(f"found a pair of type {type(data).__name__}; expected an object with response and gold")
    unknown = set(data) - set(Pair._fields)
    if unknown or "response" not in data or "gold" not in data:
        raise RequestError(f"found the fields {', '.join(sorted(data))}; expected response, gold, prompt?, think_open?")
    for name in ("response", "prompt"):
        if data.get(name) is not None and not isinstance(data[name], str):
            raise RequestError(f"found {name} of type {type(data[name]).__name__}; expected text")
    if data.get("think_open") not in (None, True, False):
        raise RequestError("think_open is true, false or null")
    if len(data["response"] or "") > MAX_TEXT:
        raise RequestError(f"found a response of {len(data['response'])} characters; at most {MAX_TEXT} are read")
    return Pair(**data)


def read_pairs(data: Any) -> list[Pair]:
    """The pairs of a request to /verify. Raises RequestError."""
    pairs = data.get("pairs") if isinstance(data, dict) and "pairs" in data else [data]
    if not isinstance(pairs, list) or len(pairs) > MAX_PAIRS:
        raise RequestError(f"pairs is a list of at most {MAX_PAIRS}")
    return [read_pair(pair) for pair in pairs]


def read_openrlhf(data: Any) -> list[Pair]:
    """The pairs of a request of OpenRLHF's `--remote_rm_url`. Raises RequestError."""
    queries, labels = (data.get("query"), data.get("labels")) if isinstance(data, dict) else (None, None)
    if not isinstance(queries, list) or not isinstance(labels, list) or len(queries) != len(labels):
        raise RequestError("expected query and labels, two lists of equal length")
    prompts = data.get("prompts") or [""] * len(queries)
    if not isinstance(prompts, list) or len(prompts) != len(queries) or len(queries) > MAX_PAIRS:
        raise RequestError(f"expected one prompt a query, and at most {MAX_PAIRS} of them")
    if not all(isinstance(text, str) for text in (*queries, *prompts)):
        raise RequestError("queries and prompts are texts")
    return [
        read_pair({"response": query.removeprefix(prompt), "gold": label, "prompt": prompt or None})
        for query, prompt, label in zip(queries, prompts, labels)
    ]


GYM_GOLDS = ("expected_answer", "answer", "ground_truth", "label", "solution", "gold")


def is_gym(data: Any) -> bool:
    """Whether a request to /verify is NeMo Gym's: a model's response as the Responses API gives it."""
    return isinstance(data, dict) and isinstance(data.get("response"), dict) and "responses_create_params" in data


def read_gym(data: dict[str, Any]) -> Pair:
    """The pair of NeMo Gym's request. Raises RequestError.

    The answer is the text of the last message; the question the last user message of the input; the gold the first of
    GYM_GOLDS in the request or its `verifier_metadata`.
    """
    metadata = data.get("verifier_metadata")
    fields = {**(metadata if isinstance(metadata, dict) else {}), **data}
    name = next((name for name in GYM_GOLDS if fields.get(name) is not None), None)
    if name is None:
        raise RequestError(f"expected the gold as {', '.join(GYM_GOLDS)}, there or in verifier_metadata")
    given = data["responses_create_params"]
    asked = given.get("input") if isinstance(given, dict) else None
    prompt = asked if isinstance(asked, str) else last_text(asked, "user")
    return read_pair(
        {
            "response": last_text(data["response"].get("output"), "assistant") or "",
            "gold": fields[name],
            "prompt": prompt,
        }
    )


def last_text(items: Any, role: str) -> str | None:
    """The text of the last message of a role among items of the Responses API; None where there is none."""
    messages = [item for item in items or () if isinstance(item, dict) and item.get("role") == role]
    content = messages[-1].get("content") if messages else None
    if isinstance(content, list):
        content = "".join(
            part["text"] for part in content if isinstance(part, dict) and isinstance(part.get("text"), str)
        )
    return content if isinstance(content, str) else None


def as_json(verdict: Verdict) -> dict[str, Any]:
    """A verdict as the service writes it."""
    return {
        "outcome": str(verdict.outcome),
        "correct": verdict.correct,
        "prediction": verdict.prediction,
        "method": verdict.method,
        "reason": verdict.reason,
    }


class _Handler(BaseHTTPRequestHandler):
    server: VerifierServer
    protocol_version = "HTTP/1.1"
    timeout = READ_SECONDS

    def do_GET(self) -> None:
        if self.path == "/health":
            self._send(200, "ok")
        elif self.path == "/rates":
            self._send(200, self.server.rates.report())
        else:
            self._send(404, {"error": "expected GET /rates or /health, POST /verify or /reward"})

    def do_POST(self) -> None:
        if self.path not in ("/verify", "/reward"):
            self.close_connection = True  # its body stays unread
            self._send(404, {"error": "expected POST /verify or /reward"})
            return
        try:
            data = self._read()
            pairs = (
                read_openrlhf(data)
                if self.path == "/reward"
                else [read_gym(data)]
                if is_gym(data)
                else read_pairs(data)
            )
        except RequestError as error:
            self.close_connection = True
            self._send(400, {"error": str(error)})
            return
        verdicts = self.server.decide(pairs)
        if self.path == "/reward":
            rewards = [float(verdict.correct) for verdict in verdicts]
            timeouts = [float(verdict.outcome is Outcome.TIMEOUT) for verdict in verdicts]
            self._send(200, {"rewards": rewards, "scores": rewards, "extra_logs": {"timeouts": timeouts}})
        elif is_gym(data):
            self._send(200, {**data, "reward": float(verdicts[0].correct), "verdict": as_json(verdicts[0])})
        elif isinstance(data, dict) and "pairs" in data:
            self._send(200, {"verdicts": [as_json(verdict) for verdict in verdicts]})
        else:
            self._send(200, as_json(verdicts[0]))

    def _read(self) -> Any:
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > MAX_BODY:
            raise RequestError(f"a request has a Content-Length of at most {MAX_BODY} bytes")
        try:
            return json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError) as error:
            raise RequestError(f"the body is no JSON: {error}") from error

    def _send(self, status: int, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are counted in /rates and not logged one by one."""
