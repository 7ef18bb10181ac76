"""A reference model's samples: pass rates, votes against the gold, ledger and price. The server is a fake."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import pytest

from tests.trainer.json_server import serving
from tracekit.collection.openai_client import CollectError
from tracekit.curation.curate import curate
from tracekit.curation.planning import plan
from tracekit.curation.settings import CurateSettings
from tracekit.reading.readers import SourceSettings

#: problem → the answers that the reference model gives in turn, and the gold of the data set.
ANSWERS = {
    "What is 1 + 1?": (["2", "2", "2", "2"], "2"),
    "What is 20 + 1?": (["21", "12", "21.0", "3"], "21"),
    "What is 7 * 8?": (["56", "56", "56", "55"], "54"),  # the gold is wrong
    "What is 9 - 9?": (["1", "2", "3", "4"], "0"),
}


@dataclass
class Reference:
    """What the server was asked, and what it refuses."""

    url: str = ""
    asked: Counter = field(default_factory=Counter)
    down: bool = False


@pytest.fixture
def reference() -> Iterator[Reference]:
    seen = Reference()

    def answer(route: str, body: dict) -> tuple[int, dict]:
        problem = body["messages"][-1]["content"]
        if seen.down:
            return 503, {"error": "busy"}
        said = ANSWERS[problem][0][seen.asked[problem] % 4]
        seen.asked[problem] += 1
        choice = {"message": {"role": "assistant", "content": f"So \\boxed{{{said}}}"}, "finish_reason": "stop"}
        return 200, {"choices": [choice], "usage": {"prompt_tokens": 9, "completion_tokens": 5}}

    with serving(answer) as url:
        seen.url = f"{url}/v1"
        yield seen


def recipe(folder: Path, reference: Reference, **more: object) -> CurateSettings:
    rows = [{"problem": p, "answer": gold, "response": f"\\boxed{{{gold}}}"} for p, (_, gold) in ANSWERS.items()]
    path = folder / "traces.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    asked = {
        "samples": 4,
        "question": {"model": "reference", "log_probs": False, "max_tokens": 100},
        "server": {"base_url": reference.url, "concurrency": 1, "retries": 0, "backoff": 0.0},
        "price_in": 1.0,
        "price_out": 10.0,
        **more,
    }
    return CurateSettings(
        output=folder / "run",
        sources=(SourceSettings(path=str(path)),),
        reference=asked,  # type: ignore[arg-type]
    )


def table(run: Path) -> dict[str, dict]:
    problems = pl.read_parquet(run / "problems.parquet").select("problem_id", "problem")
    rows = pl.read_parquet(run / "reference.parquet").join(problems, on="problem_id")
    return {row["problem"]: row for row in rows.to_dicts()}


def test_pass_rates_and_votes(tmp_path: Path, reference: Reference) -> None:
    found = table(curate(recipe(tmp_path, reference)))
    rates = {problem: row["reference_pass_rate"] for problem, row in found.items()}
    assert rates == dict(zip(ANSWERS, (1.0, 0.5, 0.0, 0.0), strict=True))
    wrong_gold = found["What is 7 * 8?"]
    assert (wrong_gold["vote"], wrong_gold["vote_share"], wrong_gold["agrees"]) == ("56", 0.75, False)
    equal = found["What is 20 + 1?"]  # 21 and 21.0 vote together
    assert (equal["vote_share"], equal["agrees"]) == (0.5, True)
    tie = found["What is 9 - 9?"]  # nobody knows what four different answers agree on
    assert (tie["vote"], tie["agrees"]) == (None, None)


def test_rules_on_the_samples_are_in_the_ledger_and_a_threshold_asks_nothing(
    tmp_path: Path, reference: Reference
) -> None:
    curate(recipe(tmp_path, reference))
    assert reference.asked.total() == 16
    run = curate(recipe(tmp_path, reference, max_pass_rate=0.9, max_votes_against=0.5))
    assert reference.asked.total() == 16
    drops = pl.read_parquet(run / "ledger.parquet").filter(pl.col("verdict") == "drop")
    assert dict(drops.select("rule", "reason").iter_rows()) == {
        "reference.max_pass_rate": "too easy for the reference model",
        "reference.max_votes_against": "the samples agree on 56 against the gold",
    }
    assert pl.read_parquet(run / "curated.parquet")["gold"].to_list() == ["21", "0"]


def test_more_samples_and_more_problems_ask_for_the_missing_ones_alone(tmp_path: Path, reference: Reference) -> None:
    first = recipe(tmp_path, reference, samples=2)
    curate(first)
    assert reference.asked.total() == 8
    curate(recipe(tmp_path, reference, samples=4))
    assert reference.asked.total() == 16
    assert set(reference.asked.values()) == {4}


def test_a_server_that_is_down_costs_nothing_twice(tmp_path: Path, reference: Reference) -> None:
    curate(recipe(tmp_path, reference, samples=1))
    reference.down = True
    with pytest.raises(CollectError, match=r"12 requests to the reference model failed|in a row failed"):
        curate(recipe(tmp_path, reference))
    reference.down = False
    curate(recipe(tmp_path, reference))
    assert reference.asked.total() == 16


def test_the_plan_has_a_price_and_asks_nothing(tmp_path: Path, reference: Reference) -> None:
    settings = recipe(tmp_path, reference)
    assert dict((name, cost) for name, _, cost in plan(settings))["reference"] == "4 requests a problem"
    curate(recipe(tmp_path, reference, samples=2))
    state, cost = next((state, cost) for name, state, cost in plan(settings) if name == "reference")
    assert (state, cost.startswith("8 requests, at most 0.01")) == ("to do", True)
    assert reference.asked.total() == 8
    curate(settings)
    assert ("reference", "made", "") in plan(settings)
