"""The verifier over HTTP, and attacks on a data set's golds."""

import json
import threading
import urllib.error
import urllib.request

import pytest

from evaluators.service import server as service
from evaluators.service.attacks import ATTACKS, attack_golds


@pytest.fixture
def address():
    with service.VerifierServer(port=0) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def post(url, data):
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_one_pair_and_batches_are_verified_in_order(address):
    assert post(f"{address}/verify", {"response": "\\boxed{4}", "gold": "4"})[1]["outcome"] == "correct"
    pairs = [{"response": f"\\boxed{{{n}}}", "gold": "1"} for n in range(3)]
    verdicts = post(f"{address}/verify", {"pairs": pairs})[1]["verdicts"]
    assert [verdict["outcome"] for verdict in verdicts] == ["wrong", "correct", "wrong"]


def test_the_question_and_the_open_think_block_are_passed_on(address):
    restated = {"response": "\\boxed{\\sqrt{242}}", "gold": "11\\sqrt2", "prompt": "Simplify $\\sqrt{242}$."}
    assert post(f"{address}/verify", restated)[1]["outcome"] == "restated"
    thinking = {"response": "\\boxed{4}", "gold": "4", "think_open": True}
    assert post(f"{address}/verify", thinking)[1]["outcome"] == "no_answer"


def test_openrlhf_calls_it_by_its_remote_url(address):
    data = {"query": ["2 + 2? \\boxed{4}", "2 + 2? \\boxed{5}"], "prompts": ["2 + 2? "] * 2, "labels": ["4", "4"]}
    assert post(f"{address}/reward", data)[1]["rewards"] == [1.0, 0.0]


def test_nemo_gym_calls_it_as_a_resources_server(address):
    said = [{"type": "output_text", "text": "\\boxed{11\\sqrt2}"}]
    data = {
        "responses_create_params": {"input": [{"role": "user", "content": "Simplify $\\sqrt{242}$."}]},
        "response": {
            "output": [
                {"type": "reasoning", "summary": []},
                {"type": "message", "role": "assistant", "content": said},
            ]
        },
        "expected_answer": "11\\sqrt{2}",
    }
    status, answer = post(f"{address}/verify", data)
    assert (status, answer["reward"], answer["expected_answer"]) == (200, 1.0, data["expected_answer"])
    said[0]["text"] = "\\boxed{\\sqrt{242}}"
    assert post(f"{address}/verify", data)[1]["verdict"]["outcome"] == "restated"
    del data["expected_answer"]
    assert post(f"{address}/verify", data)[0] == 400
    data["verifier_metadata"] = {"answer": 4}
    assert post(f"{address}/verify", data)[1]["reward"] == 0.0


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("verify", b"no json"),
        ("verify", b"[" * 100_000),
        ("verify", {"response": "1"}),
        ("verify", {"response": 1, "gold": "1"}),
        ("verify", {"response": "1", "gold": "1", "policy": "x"}),
        ("verify", {"pairs": "1"}),
        ("verify", {"pairs": [{"response": "1", "gold": "1"}] * (service.MAX_PAIRS + 1)}),
        ("reward", {"query": ["1"], "labels": []}),
        ("reward", {"query": [1], "labels": ["1"]}),
    ],
)
def test_what_is_no_request_is_refused_with_the_reason(address, path, data):
    status, answer = post(f"{address}/{path}", data)
    assert (status, bool(answer["error"])) == (400, True)


def test_a_body_over_the_limit_is_not_read(address, monkeypatch):
    monkeypatch.setattr(service, "MAX_BODY", 10)
    assert post(f"{address}/verify", {"response": "\\boxed{4}", "gold": "4"})[0] == 400


def test_rates_count_the_outcomes(address):
    post(f"{address}/verify", {"pairs": [{"response": "\\boxed{4}", "gold": gold} for gold in "4445"]})
    with urllib.request.urlopen(f"{address}/rates", timeout=30) as answer:
        rates = json.load(answer)
    assert (rates["verdicts"], rates["shares"]["correct"], rates["alarms"]) == (4, 0.75, [])


def test_an_outcome_that_rises_raises_an_alarm():
    from evaluators import Outcome, Verdict

    rates = service.Rates()
    rates.add([Verdict(Outcome.CORRECT, "1", "1", "text", "")] * 5000)
    rates.add([Verdict(Outcome.TIMEOUT, "1", "1", "symbolic", "")] * 1000)
    assert len(rates.report()["alarms"]) == 1


def test_many_clients_at_once_get_their_own_verdicts(address):
    answers = {}

    def ask(number):
        answers[number] = post(f"{address}/verify", {"response": f"\\boxed{{{number}}}", "gold": "7"})[1]["correct"]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number == 7 for number in range(16)}


def test_attacks_solve_nothing_and_do_not_pay():
    golds = ["11\\sqrt2", "42", "x^2+1", "B", "\\frac{3}{4}"]
    prompts = ["Simplify $\\sqrt{242}$.", "What is $6 \\cdot 7$?", "Expand $x \\cdot x + 1$.", "Which?", "Find p."]
    report = attack_golds(golds, prompts)
    assert set(report.tried) == set(ATTACKS) == {"echo", "constant", "hedge", "list", "retraction", "unit"}
    assert all(report.tried.values())
    assert report.examples == ()


def test_a_gold_that_a_constant_solves_is_found():
    report = attack_golds(["yes"], ["Is 2 prime?"])
    assert [found.attack for found in report.examples] == ["constant"]
    assert report.rows_paying("constant") == 1
    with pytest.raises(ValueError, match="1 prompts and 2 golds"):
        attack_golds(["1", "2"], ["?"])
