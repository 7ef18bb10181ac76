import gzip
import json
import re
from pathlib import Path

import polars as pl
import pytest
import zstandard

from evaluators.extraction.boxes import last_box
from tracekit.core.tables import PROBLEMS, TRACES, check
from tracekit.reading.formats import LayoutError, detect, named
from tracekit.reading.long_form import to_long
from tracekit.reading.readers import SourceError, SourceSettings, iterate_source, read_source

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


def turns(*texts: str) -> list[dict[str, str]]:
    return [{"role": role, "content": text} for role, text in zip(("user", "assistant"), texts)]


def shared_turns(*texts: str) -> list[dict[str, str]]:
    return [{"from": role, "value": text} for role, text in zip(("human", "gpt"), texts)]


VERL = {
    "data_source": "math",
    "prompt": [{"role": "system", "content": "S"}, *turns("P")],
    "ability": "math",
    "reward_model": {"ground_truth": "7", "style": "rule"},
    "extra_info": {"index": 0, "split": "train"},
}

# One row of each public layout → (layout, problem, gold, responses)
ROWS = [
    ({"problem": "P", "answer": "7", "generations": ["a", "b"], "correctness_math_verify": [True, False]},
     "openr1-math-220k", "7", ["a", "b"]),
    ({"problem": "P", "deepseek_reasoning": "r", "deepseek_solution": "s", "ground_truth_solution": "so \\boxed{7}",
      "domain": "math"}, "openthoughts-114k-metadata", "7", ["<think>\nr\n</think>\n\ns"]),
    ({"system": "S", "conversations": shared_turns("P", "a")}, "openthoughts-114k", "", ["a"]),
    ({"difficulty": 3, "source": "x", "domain": "math", "conversations": shared_turns("P", "a")},
     "openthoughts3", "", ["a"]),
    ({**VERL, "target": [{"role": "assistant", "content": "a"}]}, "luffy", "7", ["a"]),
    (VERL, "verl", "7", []),
    ({"question": "P", "solution": "7", "thinking_trajectories": ["r"], "attempt": "s"}, "s1k", "7",
     ["<think>\nr\n</think>\n\ns"]),
    ({"question": "P", "solution": "7", "deepseek_thinking_trajectory": "r", "deepseek_attempt": "s"}, "s1k-1.1", "7",
     ["<think>\nr\n</think>\n\ns"]),
    ({"problem": "P", "solution": "a", "answer": "7", "problem_type": "Algebra", "question_type": "math"},
     "numinamath-1.5", "7", ["a"]),
    ({"problem": "P", "answer": "7", "source": "x", "llama8b_solve_rate": 0.25}, "big-math", "7", []),
    ({"problem": "P", "solution": "a", "answer": "7", "subject": "Algebra", "level": 5}, "math-500", "7", ["a"]),
    ({"problem": "P", "solution": "\\boxed{7}", "type": "Algebra", "level": "Level 5"}, "math", "7", ["\\boxed{7}"]),
    ({"problem": "P", "solution": "a", "answer": "7"}, "deepscaler", "7", ["a"]),
    ({"question": "P", "solution": "a", "answer": "7"}, "limo", "7", ["a"]),
    ({"question": "P", "answer": "so\n#### 7"}, "gsm8k", "7", ["so\n#### 7"]),
    ({"question": "P", "ground_truth": "so\nA: 7", "m": {"is_correct": True, "solution": "a"},
      "n": {"is_correct": False, "solution": "b"}}, "gsm8k-model-solutions", "7", ["a", "b"]),
    ({"messages": turns("P", "a"), "answer": "7"}, "messages", "7", ["a"]),
    ({"conversations": shared_turns("P", "a")}, "sharegpt", "", ["a"]),
    ({"prompt": "P", "completion": "a", "answer": "7"}, "prompt-completion", "7", ["a"]),
    ({"prompt": turns("P"), "completion": [{"role": "assistant", "content": "a"}]}, "prompt-completion", "", ["a"]),
    ({"problem": "P", "gold": "7", "response": "a", "author": "m"}, "long", "7", ["a"]),
    ({"problem": "P", "answer": 7}, "problems", "7", []),
]  # fmt: skip


@pytest.mark.parametrize(("row", "layout", "gold", "responses"), ROWS, ids=[r[1] for r in ROWS])
def test_a_public_layout_is_known_by_its_columns(
    tmp_path: Path, row: dict, layout: str, gold: str, responses: list[str]
) -> None:
    (tmp_path / "data.jsonl").write_text(json.dumps(row) + "\n")
    found = read_source(SourceSettings(path="data.jsonl"), tmp_path)
    frame = pl.DataFrame([row])
    assert detect(frame, "data").name == layout
    check(found.problems, PROBLEMS, "problems")
    check(found.traces, TRACES, "traces")
    assert found.problems.select("problem", "gold").rows() == [("P", gold)]
    assert found.traces["response"].to_list() == responses


def test_levels_and_flags_come_along() -> None:
    frame = pl.DataFrame([{"problem": "P", "answer": "7", "llama8b_solve_rate": 0.25}])

    assert to_long(frame, detect(frame, "x"), "x").rows["level"].to_list() == [0.75]


def test_flags_of_another_length_are_unknown_and_never_shifted(tmp_path: Path) -> None:
    rows = [
        {"problem": "P", "answer": "7", "generations": ["a"], "correctness_math_verify": [True, False]},
        {"problem": "Q", "answer": "7", "generations": ["c", "d"], "correctness_math_verify": [False, True]},
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "data.parquet")
    traces = read_source(SourceSettings(path="data.parquet"), tmp_path).traces
    assert traces.select("response", "flagged_correct").rows() == [("a", None), ("c", False), ("d", True)]


STRANGE = [3, 1.5, True, "x", None, [], [1], ["a"], {"a": 1}, [{"a": 1}], [None]]


@pytest.mark.parametrize("row", [row for row, *_ in ROWS], ids=[row[1] for row in ROWS])
def test_a_column_of_another_type_is_read_or_named_with_its_row(row: dict) -> None:
    """Never a fault of polars: every layout with every column in turn of every strange type."""
    layout = named(next(name for known, name, *_ in ROWS if known is row))
    faults = []
    for column in row:
        for value in STRANGE:
            frame = pl.DataFrame([{**row, column: None}, {**row, column: value}], infer_schema_length=None)
            try:
                to_long(frame, layout, "shard.parquet")
            except LayoutError as error:
                faults.append(str(error))
    assert faults
    assert [fault for fault in faults if not re.match(r"shard\.parquet, row [12]", fault)] == []


def test_a_wrong_type_is_named_by_file_row_and_column_with_what_was_expected() -> None:
    frame = pl.DataFrame({"problem": ["P", "Q"], "answer": ["1", "2"], "generations": [None, "text"]})
    with pytest.raises(LayoutError) as fault:
        to_long(frame, named("openr1-math-220k"), "shard.parquet")
    assert "shard.parquet, row 2, column generations: found String, expected a list of text" in str(fault.value)
    turns = pl.DataFrame({"messages": [[{"role": "user", "words": "P"}]]})
    with pytest.raises(LayoutError, match="row 1: the problem is empty"):
        to_long(turns, named("messages"), "shard.parquet")


def test_a_shard_whose_lists_are_all_empty_or_null_fits_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    row = {"problem": "P", "answer": "7", "generations": ["a", "b"], "correctness_math_verify": [True, False]}
    shards = (row, {**row, "problem": "Q", "correctness_math_verify": None}, {**row, "problem": "R", "generations": []})
    for number, one in enumerate(shards):
        pl.DataFrame([one]).write_parquet(folder / f"train-{number}.parquet")
    found = read_source(SourceSettings(path="data"), tmp_path)
    assert found.traces["response"].to_list() == ["a", "b", "a", "b"]
    assert found.traces["flagged_correct"].to_list() == [True, False, None, None]
    assert found.problems["problem"].to_list() == ["P", "Q", "R"]


def test_categories_are_the_text_they_stand_for(tmp_path: Path) -> None:
    frame = pl.DataFrame({"problem": ["P", "P"], "gold": ["7", "7"], "response": ["a", "b"], "author": ["m", "m"]})
    frame.with_columns(pl.col("problem", "author").cast(pl.Categorical)).write_parquet(tmp_path / "data.parquet")
    found = read_source(SourceSettings(path="data.parquet"), tmp_path)
    assert found.traces["author"].to_list() == ["m", "m"]
    assert found.problems["problem"].to_list() == ["P"]


def test_ids_are_of_the_content_and_copies_have_their_own(tmp_path: Path) -> None:
    row = {"problem": "P", "gold": "7", "response": "a", "author": "m"}
    pl.DataFrame([row, row, {**row, "response": "b"}]).write_ndjson(tmp_path / "one.jsonl")
    pl.DataFrame([{**row, "response": "b"}, row, row]).write_ndjson(tmp_path / "two.jsonl")
    ids = [
        set(read_source(SourceSettings(path=f, name="s"), tmp_path).traces["trace_id"])
        for f in ("one.jsonl", "two.jsonl")
    ]
    assert ids[0] == ids[1]
    assert len(ids[0]) == 3


@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz", "jsonl.zst", "csv", "parquet", "json"])
def test_every_file_format_gives_the_same_rows(tmp_path: Path, suffix: str) -> None:
    frame = pl.DataFrame({"problem": ["P", "Q"], "gold": ["1", "007"], "response": ["a\nb", "c, d"]})
    path = tmp_path / f"data.{suffix}"
    lines = frame.write_ndjson().encode()
    match suffix:
        case "jsonl":
            path.write_bytes(lines)
        case "jsonl.gz":
            path.write_bytes(gzip.compress(lines))
        case "jsonl.zst":
            first, rest = lines.split(b"\n", 1)  # two frames, as parallel compressors write
            path.write_bytes(zstandard.compress(first + b"\n") + zstandard.compress(rest))
        case "json":
            path.write_text(json.dumps(frame.to_dicts()))
        case "csv":
            frame.write_csv(path)
        case "parquet":
            frame.write_parquet(path)
    found = read_source(SourceSettings(path=path.name, name="s"), tmp_path)
    assert found.problems["gold"].to_list() == ["1", "007"]
    assert found.traces["response"].to_list() == ["a\nb", "c, d"]


def test_a_folder_of_shards_is_one_source_and_a_null_column_fits_the_others(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    one = pl.DataFrame({"problem": ["P"], "gold": ["1"], "response": ["a"], "flagged_correct": [True]})
    none = one.with_columns(pl.lit("Q").alias("problem"), pl.lit(None).alias("flagged_correct"))
    one.write_parquet(folder / "train-00000-of-00002.parquet")
    none.write_parquet(folder / "train-00001-of-00002.parquet")
    one.write_parquet(folder / "test-00000-of-00001.parquet")
    found = read_source(SourceSettings(path="data"), tmp_path)
    assert found.problems["problem"].to_list() == ["P", "Q"]
    assert found.traces["flagged_correct"].to_list() == [True, None]


def test_what_datasets_saved_to_disk_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    saved = datasets.Dataset.from_list([{"problem": "P", "gold": "7", "response": "a"}])
    saved.save_to_disk(str(tmp_path / "saved"))
    found = read_source(SourceSettings(path="saved"), tmp_path)
    assert found.traces["response"].to_list() == ["a"]


def test_an_unknown_layout_lists_columns_layouts_and_the_way_out(tmp_path: Path) -> None:
    pl.DataFrame({"frage": ["P"], "antwort": ["7"]}).write_parquet(tmp_path / "data.parquet")
    with pytest.raises(LayoutError) as fault:
        read_source(SourceSettings(path="data.parquet"), tmp_path)
    for part in ("frage, antwort", "openr1-math-220k", "--map problem="):
        assert part in str(fault.value)
    by_hand = {"problem": "frage", "gold": "antwort"}
    found = read_source(SourceSettings(path="data.parquet", map=by_hand), tmp_path)
    assert found.problems["gold"].to_list() == ["7"]
    with pytest.raises(LayoutError, match="question is no column of ours"):
        read_source(SourceSettings(path="data.parquet", map={"question": "frage"}), tmp_path)


DAMAGED = [
    ("empty.parquet", b"", "empty.parquet is empty"),
    ("damaged.parquet", b"PAR1 and nothing else PAR1", "damaged.parquet is damaged"),
    ("broken.jsonl", b'{"problem": "P"}\n{"problem": \n{"gold": \n', "row 2: no JSON"),
    ("lists.jsonl", b'{"problem": "P"}\n[1]\n[2]\n', "row 2: found list, expected an object"),
    ("blank.jsonl", b'{"problem": null, "gold": "1"}\n', "row 1: the problem is empty"),
    ("number.jsonl", b'{"problem": 3, "gold": "1", "response": "a"}\n', "row 1: problem is Int64; expected String"),
    ("cut.jsonl.gz", gzip.compress(b'{"problem": "P"}')[:-6], "cannot be decompressed"),
    ("latin.jsonl", '{"problem": "Größe", "gold": "1"}\n'.encode("latin-1"), "row 1"),
    ("cut.jsonl.zst", zstandard.compress(b'{"problem": "P"}' * 9)[:-4], "cannot be decompressed"),
    ("cut.arrow", b"ARROW1 and nothing else", "cut.arrow is damaged"),
    ("cut.json", b'[{"problem": "P"}, {"prob', "cut.json"),
    ("text.json", b'["a", "b"]', "text.json"),
    ("cut.csv", b'problem,gold,response\n"P,1,a\n', "cut.csv"),
    ("header.csv", b"problem,gold,response\n", "holds no rows"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "says"), DAMAGED, ids=[d[0] for d in DAMAGED])
def test_damage_is_named_by_file_row_and_column(tmp_path: Path, name: str, content: bytes, says: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises((SourceError, LayoutError)) as fault:
        read_source(SourceSettings(path=name), tmp_path)
    assert name in str(fault.value)
    assert says in str(fault.value)


LOST_ROWS = [
    (b'{"problem": "P", "gold": "1", "response": "a"}\n{"problem": \n', "no JSON"),
    (b'{"problem": "P", "gold": "1", "response": "a"}\n{"problem": ["Q"], "gold": "1"}\n', "the problem is empty"),
    (b'{"problem": "P", "gold": "1", "response": "a"}\n[1]\n', "found list, expected an object"),
    (b'{"problem": "P", "gold": "1", "response": "a"}\n{"problem": null, "gold": "1"}\n', "the problem is empty"),
]


@pytest.mark.parametrize(("content", "reason"), LOST_ROWS, ids=[reason for _, reason in LOST_ROWS])
def test_a_row_that_cannot_be_read_is_counted_with_its_reason(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "data.jsonl").write_bytes(content)
    found = read_source(SourceSettings(path="data.jsonl"), tmp_path)
    assert found.traces.height == 1
    assert found.lost["row_id"].to_list() == ["data.jsonl:2"]
    assert reason in found.lost["reason"][0]


def test_a_path_that_is_not_there_is_told_and_nothing_is_fetched(tmp_path: Path) -> None:
    for path in ("nowhere.jsonl", "./nowhere", "a/b/c"):
        with pytest.raises(SourceError, match="does not exist"):
            read_source(SourceSettings(path=path), tmp_path)


def test_a_damaged_row_group_is_named_by_its_rows_and_column(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    frame = pl.DataFrame({"problem": [f"P{i}" for i in range(300)], "gold": ["1"] * 300, "response": ["a" * 50] * 300})
    frame.write_parquet(path, row_group_size=100, compression="zstd")
    import pyarrow.parquet as pq

    column = pq.ParquetFile(path).metadata.row_group(1).column(0)
    raw = bytearray(path.read_bytes())
    start = column.data_page_offset
    raw[start : start + column.total_compressed_size // 2] = bytes(column.total_compressed_size // 2)
    path.write_bytes(bytes(raw))
    with pytest.raises(SourceError, match=r"data.parquet is damaged: rows 101 to 200, column problem"):
        read_source(SourceSettings(path="data.parquet"), tmp_path)


def test_our_own_tables_are_a_source_and_keep_their_steps(tmp_path: Path) -> None:
    pl.DataFrame({"problem": ["P"], "gold": ["7"], "response": ["a"]}).write_ndjson(tmp_path / "data.jsonl")
    (part,) = iterate_source(SourceSettings(path="data.jsonl"), tmp_path)
    part.problems.write_parquet(tmp_path / "problems.parquet")
    part.traces.write_parquet(tmp_path / "traces.parquet")
    again = read_source(SourceSettings(path=str(tmp_path)))
    assert again.traces.equals(part.traces)
    part.traces.with_columns(pl.lit("nobody").alias("problem_id")).write_parquet(tmp_path / "traces.parquet")
    with pytest.raises(SourceError, match="belongs to problem nobody"):
        read_source(SourceSettings(path=str(tmp_path)))


@pytest.mark.parametrize(
    ("text", "inside"),
    [
        ("\\boxed{\\frac{1}{2}}", "\\frac{1}{2}"),
        ("\\boxed{1} and \\boxed{2}", "2"),
        ("none", None),
        ("\\boxed{1", "1"),
        ("\\fbox{5}", "5"),
        ("\\boxed 5", "5"),
    ],
)
def test_the_last_box_is_read_with_its_braces_balanced(text: str, inside: str | None) -> None:
    assert last_box(text) == inside


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data folder")
def test_the_real_files_are_recognised() -> None:
    counts = {
        "gsm8k/train.jsonl": (7473, 7473),
        "gsm8k/example_model_solutions.jsonl": (1319, 5276),
        "math500/test.jsonl": (500, 500),
        "benchmarks/luffy_valid.parquet": (1560, 0),  # 2,019 rows, of which AIME's and AMC's stand many times
    }
    for path, (problems, traces) in counts.items():
        found = read_source(SourceSettings(path=path), SHARED)
        assert (found.problems.height, found.traces.height) == (problems, traces)
