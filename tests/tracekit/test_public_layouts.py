"""Rows in the layouts of public reasoning sets: each is read whole, or refused with the reason.

public_layouts.jsonl has a row of each, with the columns of the set's card and short stand-ins for its texts; where its
gold and responses are null, the row is refused.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from tracekit.reading.formats import LayoutError
from tracekit.reading.readers import Part, SourceError, SourceSettings, read_source

PROBLEM = "What is 17 + 25?"
LAYOUTS = [
    json.loads(line)
    for line in Path(__file__).with_name("public_layouts.jsonl").read_text(encoding="utf-8").splitlines()
]
READ = [one for one in LAYOUTS if one["gold"] is not None]
REFUSED = [one for one in LAYOUTS if one["gold"] is None]


def read(row: Any, folder: Path) -> Part:
    (folder / "data.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    return read_source(SourceSettings(path=str(folder / "data.jsonl")))


@pytest.mark.parametrize("layout", READ, ids=lambda one: one["name"])
def test_a_set_is_read_whole(layout: dict[str, Any], tmp_path: Path) -> None:
    found = read(layout["row"], tmp_path)
    (problem,) = found.problems["problem"]
    assert PROBLEM in problem
    assert found.problems["gold"].to_list() == [layout["gold"]]
    assert found.lost.is_empty()
    if layout["responses"] is None:
        assert found.traces.height == 1
    else:
        assert found.traces["response"].to_list() == layout["responses"]


@pytest.mark.parametrize("layout", REFUSED, ids=lambda one: one["name"])
def test_what_cannot_be_read_whole_is_refused(layout: dict[str, Any], tmp_path: Path) -> None:
    reasons = "--map|expected an object|multiple-choice|repeats the problem"
    with pytest.raises((LayoutError, SourceError), match=reasons):
        read(layout["row"], tmp_path)


def test_the_system_prompt_and_why_a_response_ended_are_kept(tmp_path: Path) -> None:
    turns = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": PROBLEM}]
    choices = [
        {"message": {"role": "assistant", "content": "It is 42."}, "finish_reason": "stop"},
        {"message": {"role": "assistant", "content": "I add"}, "finish_reason": "length"},
    ]
    found = read({"messages": turns, "choices": choices}, tmp_path)
    assert found.details["trace_id"].to_list() == found.traces["trace_id"].to_list()
    assert found.details.select("system", "finish_reason").rows() == [("Be brief.", "stop"), ("Be brief.", "length")]


def test_flags_and_reasons_of_the_end_may_be_mapped_and_are_never_shifted(tmp_path: Path) -> None:
    row = {"meta": {"q": PROBLEM, "ok": [True, False], "why": ["stop", "length"]}, "texts": ["42", "I add"]}
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n" + json.dumps(row | {"texts": ["a", "b", "c"]}) + "\n")
    columns = {"problem": "meta.q", "response": "texts[*]", "flagged_correct": "meta.ok", "finish_reason": "meta.why"}
    found = read_source(SourceSettings(path=str(tmp_path / "data.jsonl"), map=columns))
    assert found.traces["flagged_correct"].to_list() == [True, False, None, None, None]
    assert found.details["finish_reason"].to_list() == ["stop", "length"]


def shards(folder: Path, damaged: int, count: int = 4) -> SourceSettings:
    """`count` Parquet shards of which the last `damaged` are cut."""
    for number in range(count):
        file = folder / f"{number}.parquet"
        pl.DataFrame({"problem": [f"P{number}"], "answer": ["1"], "response": ["It is 1."]}).write_parquet(file)
        if number >= count - damaged:
            file.write_bytes(file.read_bytes()[:-40])
    return SourceSettings(path=str(folder))


def test_a_damaged_shard_among_others_is_set_aside_and_counted(tmp_path: Path) -> None:
    found = read_source(shards(tmp_path, damaged=1))
    assert found.problems["problem"].to_list() == ["P0", "P1", "P2"]
    (reason,) = found.lost["reason"]
    assert found.lost["row_id"].to_list() == ["3.parquet:1"]
    assert "damaged" in reason


@pytest.mark.parametrize("damaged", [2, 4])
def test_more_damaged_shards_than_may_be_end_the_reading(damaged: int, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"\.parquet is damaged"):
        read_source(shards(tmp_path, damaged))
    assert read_source(shards(tmp_path, 2).model_copy(update={"bad_share": 0.5})).problems.height == 2


TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "2 + 2?"},
    {"role": "assistant", "content": "4", "reasoning_content": "I add."},
    {"role": "user", "content": "And plus 1?"},
    {"role": "assistant", "content": "5"},
]


def test_every_exchange_is_read_where_all_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps({"messages": TURNS, "answer": "5"}) + "\n")
    source = SourceSettings(path=str(tmp_path / "data.jsonl"))
    assert read_source(source).problems.select("problem", "gold").rows() == [("And plus 1?", "5")]
    found = read_source(source.model_copy(update={"turns": "all"}))
    before = "User: 2 + 2?\n\nAssistant: 4\n\nUser: And plus 1?"
    assert found.problems.select("problem", "gold").rows() == [("2 + 2?", ""), (before, "5")]
    assert found.traces["response"].to_list() == ["<think>\nI add.\n</think>\n\n4", "5"]
    assert found.details["system"].to_list() == ["Be brief."] * 2


def test_results_of_a_batch_are_joined_with_their_requests_in_any_order(tmp_path: Path) -> None:
    requests = [
        {
            "custom_id": f"r{n}",
            "method": "POST",
            "body": {"model": "m", "messages": [{"role": "user", "content": f"P{n}"}]},
        }
        for n in range(3)
    ]
    results = [
        {"id": f"x{n}", "custom_id": f"r{n}", "error": None, "response": {"status_code": 200, "body": {"choices": [
            {"message": {"role": "assistant", "content": f"A{n}"}, "finish_reason": "stop"}]}}}
        for n in (2, 0, 7)
    ]  # fmt: skip
    for name, rows in (("requests", requests), ("results", results)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_source(SourceSettings(path="results.jsonl", requests="requests.jsonl"), tmp_path)
    read = found.traces.join(found.problems, on="problem_id", maintain_order="left").select("problem", "response")
    assert read.rows() == [("P2", "A2"), ("P0", "A0")]
    assert found.lost.rows() == [("results.jsonl:3", "no problem")]
    with pytest.raises(SourceError, match="does not exist; expected the requests"):
        read_source(SourceSettings(path="results.jsonl", requests="none.jsonl"), tmp_path)


def inspect_log(path: Path, count: int = 2) -> SourceSettings:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("header.json", json.dumps({"eval": {"task": "sums", "model": "m"}}))
        archive.writestr("summaries.json", "[]")
        for n in range(count):
            sample = {"id": n, "epoch": 1, "input": f"P{n}", "target": str(n), "messages": [
                {"role": "user", "content": f"P{n}"}, {"role": "assistant", "content": f"A{n}"}],
                "output": {"model": "m", "choices": [
                    {"message": {"role": "assistant", "content": f"A{n}"}, "stop_reason": "max_tokens"}]}}  # fmt: skip
            archive.writestr(f"samples/{n}_epoch_1.json", json.dumps(sample))
    return SourceSettings(path=str(path))


def test_an_archive_of_inspect_is_read(tmp_path: Path) -> None:
    found = read_source(inspect_log(tmp_path / "log.eval"))
    assert found.problems.select("problem", "gold").rows() == [("P0", "0"), ("P1", "1")]
    assert found.traces.select("author", "response").rows() == [("m", "A0"), ("m", "A1")]
    assert found.details["finish_reason"].to_list() == ["max_tokens"] * 2


def test_a_large_or_damaged_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = inspect_log(tmp_path / "log.eval")
    monkeypatch.setattr("tracekit.reading.files.MAX_UNPACKED_BYTES", 100)
    with pytest.raises(SourceError, match="unpacks to more than"):
        read_source(log)
    (tmp_path / "log.eval").write_bytes((tmp_path / "log.eval").read_bytes()[:-50])
    with pytest.raises(SourceError, match="is damaged"):
        read_source(log)
