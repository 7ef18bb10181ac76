"""A curation in many partitions gives the same set as in one, its rows by partition."""

import json
from pathlib import Path

import polars as pl
import pytest

from tracekit.core.settings import build_settings
from tracekit.curation.curate import curate
from tracekit.curation.partitions import partitions_of
from tracekit.curation.settings import CurateSettings

WORDS = " ".join(f"w{n}" for n in range(200))
TABLES = ("curated", "ledger", "pairs", "disagreements", "verdicts", "steps", "measures", "duplicates", "golds", "lost")


def rows_of(problem: int) -> list[dict]:
    """Right and wrong samples, a loop, a near copy of a sample, and for some a near copy of an earlier problem."""
    copied = problem - 7 if problem % 10 == 9 else problem
    asked = f"Problem {copied}: of {WORDS} {copied} hens, how many lay eggs{'?' if copied == problem else ' today?'}"
    texts = [
        f"{WORDS} {problem} first.\n\n3 + 4 = 7\n\nSo it is \\boxed{{7}}.",
        f"{WORDS} {problem} again.\n\n3 + 4 = 7\n\nSo it is \\boxed{{7}}.",
        f"{problem} + 4 = {problem + 4}, which leaves \\boxed{{8}}.",
        f"{problem}: " + "and so on and on and on.\n" * 20 + "\\boxed{7}",
    ]
    return [
        {"problem": asked, "answer": "7", "response": text, "author": author}
        for text, author in zip(texts, ("a", "b", "a", "b"), strict=True)
    ]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("partitions")
    problems = [rows_of(problem) for problem in range(60)]
    # Samples of a problem are far apart in the file, as in a set that was shuffled.
    rows = [problem[sample] for sample in range(4) for problem in problems]
    pl.DataFrame(rows).write_ndjson(folder / "traces.jsonl")
    tree = {
        "data": folder,
        "sources": ["traces.jsonl"],
        "duplicates": {"traces": 0.9},
        "select": {"pairs": 1},
        "validation": 0.3,
        "workers": 1,
        "export": {"formats": ["luffy", "verl", "trl-sft", "trl-dpo"]},
    }
    made = {}
    with pytest.MonkeyPatch.context() as patched:
        for name, size in (("one", 10**9), ("many", 9_000)):
            patched.setattr("tracekit.curation.partitions.PARTITION_BYTES", size)
            patched.setattr("tracekit.curation.streams.ROW_GROUP", 10)
            made[name] = curate(build_settings(CurateSettings, {**tree, "output": folder / name}, name))
    return made


def partitions(run: Path) -> list:
    return partitions_of(next((run / "stages").glob("sources-*")))


@pytest.mark.parametrize("table", TABLES)
def test_many_partitions_hold_the_rows_of_one(runs: dict[str, Path], table: str) -> None:
    assert len(partitions(runs["one"])) == 1
    assert len(partitions(runs["many"])) > 10
    one, many = (pl.read_parquet(run / f"{table}.parquet") for run in runs.values())
    assert one.schema == many.schema
    assert sorted(map(repr, one.rows())) == sorted(map(repr, many.rows()))


def test_the_funnel_and_the_card_are_the_same(runs: dict[str, Path]) -> None:
    one, many = (json.loads((run / "funnel.json").read_text()) for run in runs.values())
    assert len(one.pop("partitions")) == 1
    assert len(many.pop("partitions")) > 10
    for warning in (*one["warnings"], *many["warnings"]):
        assert len(warning.pop("examples")) == 3  # the first of the rows, which stand in another order
    assert one == many
    stages = {line["stage"]: line["dropped"] for line in one["funnel"]}
    assert min(stages["filter"], stages["duplicate problems"], stages["duplicate traces"], one["pairs"]) > 0
    one, many = ((run / "export" / "README.md").read_text() for run in runs.values())
    assert one == many


def test_a_problem_lies_in_one_partition_and_its_rows_in_the_order_of_the_source(runs: dict[str, Path]) -> None:
    source = pl.read_parquet(runs["one"] / "traces.parquet")["trace_id"].to_list()
    traces = pl.read_parquet(runs["many"] / "traces.parquet")
    problems = set()
    for partition in partitions(runs["many"]):
        rows = traces.slice(partition.start, partition.stop - partition.start)
        assert problems.isdisjoint(rows["problem_id"])
        problems |= set(rows["problem_id"])
        places = [source.index(trace) for trace in rows["trace_id"]]
        assert places == sorted(places)


@pytest.mark.parametrize("name", ["luffy", "verl", "trl-sft", "trl-dpo"])
def test_exports_hold_the_same_rows_and_count_on_over_the_partitions(runs: dict[str, Path], name: str) -> None:
    for file in sorted((runs["one"] / "export" / name).iterdir()):
        one, many = (pl.read_parquet(run / "export" / name / file.name) for run in runs.values())
        if "extra_info" in one.columns:
            indices = pl.col("extra_info").struct.field("index")
            assert one.select(indices.n_unique()).item() == many.select(indices.n_unique()).item() == one.height
            one, many = (frame.drop("extra_info") for frame in (one, many))
        assert sorted(map(repr, one.rows())) == sorted(map(repr, many.rows()))


def test_the_same_bytes_each_time(runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracekit.curation.partitions.PARTITION_BYTES", 9_000)
    monkeypatch.setattr("tracekit.curation.streams.ROW_GROUP", 10)
    settings = json.loads((runs["many"] / "run.json").read_text())["settings"]
    settings |= {"output": str(tmp_path / "again"), "stages": None, "verify": {**settings["verify"], "batch": 3}}
    again = curate(CurateSettings.model_validate(settings))
    for path in runs["many"].rglob("*.parquet"):
        if "stages" not in path.parts:
            assert path.read_bytes() == (again / path.relative_to(runs["many"])).read_bytes(), path
