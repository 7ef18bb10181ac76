"""Logs of an evaluation for other harnesses, read by their own readers and by ours."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from tracekit.core.evaluation_logs import write_log
from tracekit.core.tables import COMPLETIONS, conform
from tracekit.reading.readers import SourceSettings, read_source


@pytest.fixture
def completions() -> pl.DataFrame:
    judged = ((0, "correct", 1.0), (1, "wrong", 0.0), (2, "timeout", None))
    rows = [
        {
            "problem_id": problem,
            "model": "runs/m",
            "sample": sample,
            "temperature": temperature,
            "on_policy": True,
            "problem": f"What is {problem}?",
            "gold": "2",
            "response": f"So \\boxed{{{2 + sample}}} ü \u2028",
            "token_count": 4,
            "finish_reason": "length" if sample == 1 else "stop",
            "outcome": outcome,
            "prediction": str(2 + sample),
            "reward": reward,
        }
        for temperature in (0.5, 1.0)
        for problem in ("a", "b")
        for sample, outcome, reward in judged
    ]
    return conform(pl.DataFrame(rows, infer_schema_length=None), COMPLETIONS, "completions")


def responses(path: Path) -> tuple[list[str], list[str]]:
    read = read_source(SourceSettings(path=str(path)))
    assert read.lost.is_empty()
    return read.problems["gold"].to_list(), read.traces["response"].to_list()


def test_our_reader_reads_both_back(completions: pl.DataFrame, tmp_path: Path) -> None:
    expected = completions.filter(pl.col("temperature") == 1.0)["response"].to_list()
    inspect = write_log(completions, tmp_path, "quiz", "inspect")
    assert len(inspect) == 2  # one a temperature
    golds, found = responses(next(path for path in inspect if "_t1_" in path.name))
    assert (golds, found) == (["2", "2"], expected)
    samples = [path for path in write_log(completions, tmp_path, "quiz", "lm-eval") if path.suffix == ".jsonl"]
    golds, found = responses(next(path for path in samples if "_t1_" in path.name))
    assert (golds, found) == (["2", "2"], expected)


def test_what_is_not_known_has_no_score(completions: pl.DataFrame, tmp_path: Path) -> None:
    log = json.loads(write_log(completions, tmp_path, "quiz", "inspect")[0].read_text(encoding="utf-8"))
    scores = [sample["scores"].get("verify", {}).get("value") for sample in log["samples"]]
    assert scores == ["C", "I", None] * 2
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 0.5
    assert [sample["epoch"] for sample in log["samples"]] == [1, 2, 3] * 2


def test_inspect_ai_reads_its_log(completions: pl.DataFrame, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log").read_eval_log(
        str(write_log(completions, tmp_path, "quiz", "inspect")[0])
    )
    assert log.status == "success"
    assert log.samples[0].output.completion == completions["response"][0]
    assert log.samples[0].scores["verify"].value == "C"
    assert log.samples[1].output.stop_reason == "max_tokens"


def test_lm_eval_finds_its_files(completions: pl.DataFrame, tmp_path: Path) -> None:
    utils = pytest.importorskip("lm_eval.utils")
    files = [str(path) for path in write_log(completions, tmp_path, "quiz", "lm-eval")]
    samples = utils.get_sample_results_filenames(files)
    assert len(samples) == 2
    assert len(utils.get_results_filenames(files)) == 2
    assert {utils.get_file_task_name(Path(name).name) for name in samples} == {"quiz_t0.5", "quiz_t1"}
    rows = [json.loads(line) for line in Path(samples[0]).read_text(encoding="utf-8").split("\n") if line]
    assert [row["exact_match"] for row in rows] == [0.5, 0.5]
