import json
import os
import resource
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import polars as pl
import pyarrow.parquet as pq
import pytest
from tokenizers import Tokenizer
from tokenizers.models import BPE
from tokenizers.pre_tokenizers import ByteLevel

from tracekit.core.folders import lock_folder
from tracekit.core.settings import build_settings, load_settings
from tracekit.core.tables import CURATED, LEDGER, STEPS, VERDICTS, read_table
from tracekit.curation import ledger
from tracekit.curation import measurements as measuring
from tracekit.curation.curate import CurationError, curate, restore
from tracekit.curation.planning import plan
from tracekit.curation.settings import CurateSettings
from tracekit.curation.stage_cache import Stages
from tracekit.reading.readers import SourceError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

HENS = "P: how many hens lay one egg each for a sum of seven eggs?"
BENCHMARK = "R: a benchmark question that asks for two plus two of them, please"
LOOP = "again and again and so on and on and on and on.\n" * 6
ROWS = [
    # Problem, gold, response, and the stage that each falls at for one known cause.
    (HENS, "7", "3 + 4 = 7\nso \\boxed{7}", "stays"),
    (HENS, "7", "3 + 4 = 8\nso \\boxed{8}", "filter"),
    (HENS, "7", "3 + 4 = 7\nso \\boxed{7}", "duplicate traces"),
    (HENS, "7", "I do not know.", "filter"),
    (HENS, "7", "There are 5 + 2 = 7 hens.\n\\boxed{7}", "stays"),
    ("Q: what is the gold of this one?", "\\frac{1}{", "it is \\boxed{1}", "gold"),
    (BENCHMARK, "4", "2 + 2 = 4\n\\boxed{4}", "contamination"),
    ("S: one more question", "5", "2 + 3 = 5\n\\boxed{5}\n" + LOOP, "filter"),
    ("T: one more question, quite another", "9", "4 + 5 = 9, so \\boxed{9}", "stays"),
    ("T: one more  question, quite ANOTHER", "9", "9 is the answer: \\boxed{9}", "duplicate problems"),
]


@pytest.fixture
def recipe(tmp_path: Path) -> CurateSettings:
    columns = ("problem", "gold", "response", "author")
    rows = [dict(zip(columns, (*row[:3], "teacher"), strict=True)) for row in ROWS]
    pl.DataFrame(rows).write_ndjson(tmp_path / "traces.jsonl")
    benchmark = {"problem": ["r: A Benchmark question that asks for two plus two of them"], "answer": ["4"]}
    pl.DataFrame(benchmark).write_ndjson(tmp_path / "benchmark.jsonl")
    tree = {
        "output": tmp_path / "run",
        "data": tmp_path,
        "sources": ["traces.jsonl"],
        "contamination": {"benchmarks": ["benchmark.jsonl"]},
        "duplicates": {"traces": 0.9},
        "workers": 1,
        "export": {"formats": ["luffy", "trl-dpo"]},
        "select": {"pairs": 1},
    }
    return build_settings(CurateSettings, tree, "recipe")


LOOP_RULES = ("max_tail_repeats", "max_loop_repeats", "max_repeated_lines", "max_repeated_characters")


def fates(run: Path) -> list[str]:
    table = ledger.fates(run)
    return [stage or "stays" for stage in table["stage"]]


def contents(run: Path) -> dict[str, bytes]:
    """Every published file."""
    files = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and "stages" not in p.parts}
    record = json.loads(files["run.json"].replace(str(run).encode(), b"RUN"))
    files["run.json"] = json.dumps({**record, "commit": None}).encode()  # somebody may commit while this runs
    return files


def test_every_trace_meets_the_fate_it_was_made_for(recipe: CurateSettings) -> None:
    run = curate(recipe)
    assert fates(run) == [row[3] for row in ROWS]
    curated = read_table(run / "curated.parquet", CURATED)
    kept = [row[2] for row in ROWS if row[3] == "stays"]
    assert curated.filter("correct")["response"].to_list() == kept
    assert curated.filter(~pl.col("correct"))["response"].to_list() == [
        "3 + 4 = 8\nso \\boxed{8}"
    ]  # DPO's rejected side
    read_table(run / "steps.parquet", STEPS)
    read_table(run / "verdicts.parquet", VERDICTS)


def test_the_funnel_adds_up_and_reports_what_cannot_be_verified(recipe: CurateSettings) -> None:
    told = json.loads((curate(recipe) / "funnel.json").read_text())
    counts = [line["traces"] for line in told["funnel"]]
    assert counts[0] == len(ROWS)
    assert [a - b for a, b in pairwise(counts)] == [line["dropped"] for line in told["funnel"][1:]]
    assert counts[-1] == 3
    assert sum(told["unverifiable_golds"].values()) == 1
    assert told["by_author"]["teacher"]["read"] == len(ROWS)
    assert told["contaminated_problems"] == 1


@pytest.mark.parametrize("counted", ["words", "tokens"])
def test_lengths_are_tokens_where_a_tokenizer_is_named_and_words_elsewhere(
    recipe: CurateSettings, counted: str
) -> None:
    letters = sorted(ByteLevel.alphabet())
    tokenizer = Tokenizer(BPE({letter: place for place, letter in enumerate(letters)}, []))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    tokenizer.save(str(recipe.data / "tokenizer.json"))
    named = str(recipe.data / "tokenizer.json") if counted == "tokens" else None
    run = curate(recipe.model_copy(update={"tokenizer": named}))
    curated = read_table(run / "curated.parquet", CURATED)
    wanted = [len(text.encode()) if named else len(text.split()) for text in curated["response"]]
    assert curated["token_count"].to_list() == wanted


def test_why_tells_measured_value_and_threshold_of_every_decision(recipe: CurateSettings) -> None:
    run = curate(recipe)
    looped = pl.read_parquet(run / "traces.parquet")["trace_id"][7]
    story = ledger.why(run, looped[:8])
    assert story.columns == list(LEDGER)
    drops = story.filter(pl.col("verdict") == "drop").select("rule", "threshold").rows()
    assert ("max_tail_repeats", "4") in drops
    assert story.filter(pl.col("rule") == "outcomes")["measured"].to_list() == ["correct"]
    with pytest.raises(ledger.LedgerError, match="no trace or problem begins so"):
        ledger.why(run, "zzzz")


def test_a_restored_trace_is_in_and_both_decisions_stand_in_the_ledger(recipe: CurateSettings) -> None:
    run = curate(recipe)
    wrong = pl.read_parquet(run / "traces.parquet")["trace_id"][3]
    restore(run, wrong[:10], "a person read it")
    curated = pl.read_parquet(run / "curated.parquet").filter(pl.col("trace_id") == wrong)
    assert curated["correct"].to_list() == [None]  # its verdict was overruled
    story = ledger.why(run, wrong)
    assert story.filter(pl.col("stage") == "restore")["reason"].to_list() == ["a person read it"]
    assert "drop" in story["verdict"].to_list()


def test_a_changed_threshold_measures_nothing_anew(recipe: CurateSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    run = curate(recipe)
    made: list[str] = []
    build = Stages.build

    def spy(self: Stages, name: str, inputs: dict, make: object) -> Path:
        return build(self, name, inputs, lambda folder: (made.append(name), make(folder)))  # type: ignore[operator]

    monkeypatch.setattr(Stages, "build", spy)
    other = recipe.model_copy(
        update={
            "output": run.with_name("other"),
            "stages": run / "stages",
            "filters": recipe.filters.model_copy(update=dict.fromkeys(LOOP_RULES)),
        }
    )
    second = curate(other)
    assert made == []
    changed = ledger.diff(run, second)
    assert changed.select("a", "b").rows() == [("out: repeats its lines (filter)", "in")]


def test_the_same_curation_again_changes_nothing_and_leaves_nothing(recipe: CurateSettings) -> None:
    before = contents(curate(recipe))
    assert contents(curate(recipe)) == before
    assert not list(recipe.output.rglob("*.partial"))


def test_the_plan_says_what_is_made_and_makes_nothing(recipe: CurateSettings) -> None:
    assert {state for _, state, _ in plan(recipe)} == {"to do"}
    assert not recipe.output.exists()
    curate(recipe)
    assert {state for _, state, _ in plan(recipe)} == {"made"}
    other = recipe.model_copy(update={"duplicates": recipe.duplicates.model_copy(update={"n": 4})})
    assert {name for name, state, _ in plan(other) if state == "to do"} == {"duplicates"}


def test_traces_are_written_in_groups_that_a_stream_can_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracekit.curation.streams.ROW_GROUP", 4)
    rows = [{"problem": f"P{n}", "gold": "7", "response": f"{n}: \\boxed{{7}}"} for n in range(10)]
    pl.DataFrame(rows).write_ndjson(tmp_path / "traces.jsonl")
    run = curate(CurateSettings(output=tmp_path / "run", data=tmp_path, sources=("traces.jsonl",), workers=1))
    footer = pq.read_metadata(run / "traces.parquet")
    assert [footer.row_group(group).num_rows for group in range(footer.num_row_groups)] == [4, 4, 2]


def test_a_problem_near_to_a_benchmark_row_is_contaminated_though_it_shares_no_run_of_words(tmp_path: Path) -> None:
    words = [f"word{n}" for n in range(80)]
    near = [*words[:40], "other", *words[41:]]
    rows = [(" ".join(near), "near"), (" ".join(reversed(words)), "far")]
    table = [{"problem": text, "gold": "7", "response": f"{name}: \\boxed{{7}}"} for text, name in rows]
    pl.DataFrame(table).write_ndjson(tmp_path / "traces.jsonl")
    pl.DataFrame({"problem": [" ".join(words)], "answer": ["7"]}).write_ndjson(tmp_path / "benchmark.jsonl")
    tree = {"data": tmp_path, "sources": ["traces.jsonl"], "workers": 1}
    fates = {}
    for name, given in (("near", {}), ("off", {"near": None})):
        contamination = {"benchmarks": ["benchmark.jsonl"], "n": 60, **given}
        run = curate(
            build_settings(CurateSettings, {**tree, "output": tmp_path / name, "contamination": contamination}, name)
        )
        kept = pl.read_parquet(run / "curated.parquet")["response"].str.head(3).to_list()
        said = pl.read_parquet(run / "ledger.parquet").filter(
            pl.col("stage") == "contamination", pl.col("verdict") == "drop"
        )
        fates[name] = kept, said.select("measured", "reason").rows()
    (kept, ((measured, reason),)) = fates["near"]
    assert kept == ["far"]
    assert reason == "is near to a row of benchmark"
    shared, union = 76 - 5, 76 + 5  # word 5-grams of 80 words; one changed word takes five
    assert float(measured.removeprefix("Jaccard ")) == pytest.approx(shared / union, abs=1e-3)
    assert fates["off"] == (["nea", "far"], [])


def test_one_row_is_enough_and_no_row_is_a_clear_error(tmp_path: Path) -> None:
    pl.DataFrame([{"problem": "P", "gold": "7", "response": "\\boxed{7}"}]).write_ndjson(tmp_path / "one.jsonl")
    one = CurateSettings(output=tmp_path / "one", data=tmp_path, sources=("one.jsonl",))
    assert pl.read_parquet(curate(one) / "curated.parquet").height == 1
    pl.DataFrame([{"problem": "P", "answer": "7"}]).write_ndjson(tmp_path / "none.jsonl")
    with pytest.raises(SourceError, match="1 problems and no responses; collect them"):
        curate(CurateSettings(output=tmp_path / "none", data=tmp_path, sources=("none.jsonl",)))
    with pytest.raises(CurationError, match="names no source"):
        curate(CurateSettings(output=tmp_path / "none"))


def curated_rows(folder: Path, rows: list[dict], **settings: object) -> Path:
    """A run over these rows."""
    pl.DataFrame(rows).write_ndjson(folder / "traces.jsonl")
    tree = {"output": folder / "run", "data": folder, "sources": ["traces.jsonl"], "workers": 1, **settings}
    return curate(build_settings(CurateSettings, tree, "rows"))


def test_a_restored_problem_brings_back_all_its_traces(recipe: CurateSettings) -> None:
    run = curate(recipe)
    traces = pl.read_parquet(run / "traces.parquet")
    problem = traces["problem_id"][5]  # its gold cannot be verified
    assert fates(run)[5] == "gold"
    assert traces.filter(pl.col("problem_id") == problem).height == 1
    restore(run, problem[:10], "the gold is right")
    assert fates(run)[5] == "stays"
    hens = traces["problem_id"][0]
    restore(run, hens, "all of them")
    assert fates(run)[:5] == ["stays"] * 5
    reasons = ledger.why(run, hens).filter(pl.col("stage") == "restore")["reason"].unique().to_list()
    assert reasons == []  # decisions about the traces stand under the traces
    story = ledger.why(run, traces["trace_id"][1]).filter(pl.col("stage") == "restore")
    assert story["reason"].unique().to_list() == ["all of them"]


def test_a_wrong_trace_that_no_rule_drops_is_kept_by_diff_and_viewer_too(
    recipe: CurateSettings, tmp_path: Path
) -> None:
    strict = curate(recipe)
    wrong = pl.read_parquet(strict / "traces.parquet")["trace_id"][1]
    assert not ledger.fates(strict)["kept"][1]  # written as the rejected side of a pair alone
    off = recipe.model_copy(
        update={"output": tmp_path / "off", "filters": recipe.filters.model_copy(update={"outcomes": None})}
    )
    assert ledger.fates(curate(off))["kept"][1]
    assert ledger.diff(strict, off.output).filter(pl.col("trace_id") == wrong)["b"].to_list() == ["in"]
    restore(strict, wrong, "the slip is wanted")
    assert ledger.fates(strict)["kept"][1]


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2)])
def test_a_chain_of_near_problems_is_on_one_side_of_the_split(tmp_path: Path, order: tuple[int, ...]) -> None:
    """0 ~ 1 ~ 2 of which 0 and 2 differ, read in any order: all three go to one side."""
    rows = []
    for chain in range(40):
        words = [f"c{chain}w{n}" for n in range(120)]
        texts = [[*words[:119], "end"], words, ["start", *words[1:]]]
        rows += [
            {"problem": " ".join(texts[link]), "gold": "7", "response": f"{chain} {link}: \\boxed{{7}}"}
            for link in order
        ]
    run = curated_rows(tmp_path, rows, validation=0.5, duplicates={"problems": 0.97})
    pairs = pl.read_parquet(run / "duplicates.parquet").filter(pl.col("kind") == "problem")
    assert pairs.height == 80  # neighbours, and not the ends of a chain
    # Neighbours of a problem that is dropped may be kept, and stay on its side.
    off = curated_rows(tmp_path, rows, validation=0.5, duplicates={"problems": "off"}, output=tmp_path / "off")
    for folder in (run, off):
        curated = pl.read_parquet(folder / "curated.parquet")
        splits = curated.group_by(pl.col("response").str.extract(r"^(\d+)")).agg(pl.col("split").n_unique())
        assert splits["split"].to_list() == [1] * 40
        assert curated["split"].n_unique() == 2
    assert curated.height == 120


def test_two_sources_that_share_a_problem_both_keep_their_traces(tmp_path: Path) -> None:
    for name in ("one", "two"):
        row = {"problem": HENS, "gold": "7", "response": f"{name}: 3 + 4 = 7, so \\boxed{{7}}"}
        pl.DataFrame([row]).write_ndjson(tmp_path / f"{name}.jsonl")
    run = curate(CurateSettings(output=tmp_path / "run", data=tmp_path, sources=("one.jsonl", "two.jsonl")))
    curated = pl.read_parquet(run / "curated.parquet")
    assert curated["response"].str.head(3).to_list() == ["one", "two"]
    assert curated["problem_id"].n_unique() == 1


@pytest.mark.parametrize(
    ("problem", "response", "kept"),
    [
        ("求方程 x + 3 = 10 的正整数解是多少", "我们把等式两边同时减去三得到答案 \\boxed{7}", True),
        ("求方程 x + 3 = 10 的正整数解是多少", "Мы вычитаем три из обеих частей и получаем \\boxed{7}", False),
        ("Solve x + 3 = 10 for x, please.", "我们把等式两边同时减去三得到答案 \\boxed{7}", False),
        ("Solve x + 3 = 10 for x, please.", "Take three from both sides: \\boxed{7}", True),
        ("求方程 x + 3 = 10 的正整数解是多少", "Take three from both sides: \\boxed{7}", True),
    ],
)
def test_the_language_of_a_trace_is_held_against_its_problem(
    tmp_path: Path, problem: str, response: str, kept: bool
) -> None:
    run = curated_rows(
        tmp_path, [{"problem": problem, "gold": "7", "response": response}], filters={"max_language_switches": 2}
    )
    assert (pl.read_parquet(run / "curated.parquet").height == 1) is kept


def test_a_prompt_template_contaminates_nothing_and_a_copied_problem_still_does(tmp_path: Path) -> None:
    before = "Solve the following math problem step by step. The last line of your response should be the answer. "
    after = " Remember to put your answer on its own line after the word answer."
    rows = [
        {
            "problem": f"{before}Find the value of n{i} where n{i} hens lay {i * 7} eggs a day for room {i % 5}{after}",
            "gold": "7",
            "response": f"{i}: \\boxed{{7}}",
        }
        for i in range(50)
    ]
    other = f"{before}Find the value of the sum of all primes under one hundred.{after}"
    benchmark = {"problem": [other, rows[3]["problem"]], "answer": ["1060", "7"]}
    pl.DataFrame(benchmark).write_ndjson(tmp_path / "benchmark.jsonl")
    run = curated_rows(
        tmp_path, rows, contamination={"benchmarks": ["benchmark.jsonl"]}, duplicates={"problems": "off"}
    )
    assert [at for at, fate in enumerate(fates(run)) if fate != "stays"] == [3]


def test_a_response_whose_engine_says_that_it_was_cut_off_is_truncated(tmp_path: Path) -> None:
    rows = [
        {
            "problem": f"What is {n} + 1?",
            "answer": str(n + 1),
            "response": f"It is \\boxed{{{n + 1}}}.",
            "finish_reason": why,
        }
        for n, why in enumerate(["stop", "length", "MAX_TOKENS", None, "stop"])
    ]
    run = curated_rows(tmp_path, rows)
    fate = ledger.fates(run)
    assert fate["kept"].to_list() == [True, False, False, True, True]
    assert set(fate["rule"].drop_nulls()) == {"truncated"}
    assert pl.read_parquet(run / "details.parquet")["finish_reason"].to_list() == [row["finish_reason"] for row in rows]


def test_a_second_curation_waits_or_says_who_holds_the_folder(recipe: CurateSettings) -> None:
    with lock_folder(recipe.output, "curate"):
        busy = [sys.executable, "-c", _CURATE_TREE, json.dumps({**recipe.model_dump(mode="json"), "wait": 0})]
        done = subprocess.run(busy, capture_output=True, text=True)
    assert done.returncode == 1
    assert f"is in use by curate (process {os.getpid()} on " in done.stderr
    waiting = [sys.executable, "-c", _CURATE_TREE, json.dumps(recipe.model_dump(mode="json"))]
    both = [subprocess.Popen(waiting) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert fates(recipe.output) == [row[3] for row in ROWS]


_CURATE_TREE = (
    "import json, sys; from tracekit.curation.settings import CurateSettings\n"
    "from tracekit.curation.curate import curate; curate(CurateSettings.model_validate(json.loads(sys.argv[1])))"
)


def test_steps_that_a_source_knows_are_taken_as_they_are(tmp_path: Path, recipe: CurateSettings) -> None:
    run = curate(recipe)
    world = tmp_path / "world"
    world.mkdir()
    for name in ("problems", "traces"):
        (world / f"{name}.parquet").write_bytes((run / f"{name}.parquet").read_bytes())
    steps = pl.read_parquet(run / "steps.parquet").head(3).with_columns(pl.lit("exploration").alias("kind"))
    steps.write_parquet(world / "steps.parquet")
    again = curate(
        recipe.model_copy(update={"sources": CurateSettings(sources=[str(world)]).sources, "output": tmp_path / "b"})
    )
    both = pl.read_parquet(again / "steps.parquet")
    assert both.filter(pl.col("kind") == "exploration").equals(steps)
    assert both["trace_id"].n_unique() == len(ROWS)


def test_a_share_of_the_problems_is_held_back_for_validation(tmp_path: Path) -> None:
    words = " ".join("{0}" + letter for letter in "abcdefghijklmnop")
    rows = [
        {
            "problem": words.format(i // 2) + (" please" if i % 2 else ""),
            "gold": "7",
            "response": f"{i}: \\boxed{{7}}",
        }
        for i in range(80)
    ]
    pl.DataFrame(rows).write_ndjson(tmp_path / "traces.jsonl")
    settings = CurateSettings(output=tmp_path / "run", data=tmp_path, sources=("traces.jsonl",), validation=0.5)
    run = curate(settings)
    pairs = pl.read_parquet(run / "duplicates.parquet").filter(pl.col("kind") == "problem")
    assert pairs.height == 40
    curated = pl.read_parquet(run / "curated.parquet")  # each pair's first alone, by the rule on duplicates
    assert curated.height == 40
    assert 8 < curated.filter(pl.col("split") == "validation").height < 32


_CURATE = (
    "import sys; from pathlib import Path; from tracekit.core.settings import load_settings\n"
    "from tracekit.curation.curate import CurateSettings, curate\n"
    "curate(load_settings(CurateSettings, Path(sys.argv[1]), sys.argv[2:]))"
)


def test_a_killed_curation_goes_on_to_the_same_bytes(tmp_path: Path, recipe: CurateSettings) -> None:
    whole = contents(curate(recipe))
    toml = tmp_path / "recipe.toml"
    toml.write_text(
        f'workers = 1\ndata = "{tmp_path}"\nsources = ["traces.jsonl"]\n'
        '[contamination]\nbenchmarks = ["benchmark.jsonl"]\n[duplicates]\ntraces = 0.9\n'
        '[export]\nformats = ["luffy", "trl-dpo"]\n[select]\npairs = 1\n'
    )
    command = [sys.executable, "-c", _CURATE, str(toml), f"output={tmp_path / 'killed'}"]
    stages = tmp_path / "killed" / "stages"
    for wanted in ("segment", "verify"):  # killed as soon as this stage stands
        process = subprocess.Popen(command)
        while process.poll() is None and not list(stages.glob(f"{wanted}-*")):
            time.sleep(0.002)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    subprocess.run(command, check=True)
    assert contents(tmp_path / "killed") == whole


@pytest.mark.parametrize(
    "fault",
    [
        OSError(28, "No space left on device"),
        pl.exceptions.ComputeError("parquet: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_what_was_done_and_a_clear_error(
    recipe: CurateSettings, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def full(*args: object, **options: object) -> None:
        raise fault

    with monkeypatch.context() as patched:
        patched.setattr("tracekit.curation.measurements.audit_golds", full)
        with pytest.raises(OSError, match="No space left"):
            curate(recipe)
    standing = {p.name.rpartition("-")[0] for p in (recipe.output / "stages").iterdir()}
    assert standing == {"sources", "segment", "measures"}
    assert fates(curate(recipe)) == [row[3] for row in ROWS]


def test_a_disk_that_takes_no_more_is_told_in_a_line_and_the_next_run_goes_on(tmp_path: Path) -> None:
    """The system's own fault: no file may grow past 40 kB, which the sources stay under and a later table does not."""
    words = " ".join(f"{{0}}word{n}" for n in range(12))
    rows = [
        {"problem": f"{words.format(i)}?", "gold": str(i), "response": f"{words.format(i)} {i**9}: \\boxed{{{i}}}"}
        for i in range(400)
    ]
    pl.DataFrame(rows).write_ndjson(tmp_path / "traces.jsonl")
    (tmp_path / "recipe.toml").write_text(
        f'data = "{tmp_path}"\noutput = "{tmp_path}/run"\nsources = ["traces.jsonl"]\nworkers = 1\n'
        '[export]\nformats = ["openrlhf"]\n'
    )
    command = [sys.executable, "-m", "tracekit.cli", "curate", str(tmp_path / "recipe.toml")]

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000))

    full = subprocess.run(command, preexec_fn=limited, capture_output=True, text=True)
    assert full.returncode == 2
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith(f"tracekit: file too large while writing {tmp_path / 'run'}")
    stages = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "run" / "stages").iterdir()}
    assert any(name.startswith("sources-") for name in stages)
    assert not list((tmp_path / "run").rglob("*.partial"))
    subprocess.run(command, check=True, capture_output=True)
    assert {name: (tmp_path / "run" / "stages" / name).stat().st_mtime_ns for name in stages} == stages
    assert pl.read_parquet(tmp_path / "run" / "curated.parquet").height == 400


def test_a_file_that_stands_in_two_sources_is_told(recipe: CurateSettings) -> None:
    twice = recipe.model_copy(update={"sources": recipe.sources * 2})
    with pytest.raises(SourceError, match="read from two sources"):
        curate(twice)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs the shared data folder")
def test_the_gsm8k_recipe_curates_real_solutions(tmp_path: Path) -> None:
    package = Path(measuring.__file__).parents[1]
    for name in ("train", "test", "example_model_solutions"):
        lines = (SHARED / "gsm8k" / f"{name}.jsonl").read_text().splitlines()[:300]
        (tmp_path / "gsm8k").mkdir(exist_ok=True)
        (tmp_path / "gsm8k" / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    for name in ("math500", "benchmarks"):
        (tmp_path / name).symlink_to(SHARED / name)
    settings = load_settings(
        CurateSettings, package / "recipes" / "gsm8k.toml", [f"data={tmp_path}", f"output={tmp_path / 'run'}"]
    )
    run = curate(settings)
    told = json.loads((run / "funnel.json").read_text())
    assert told["by_author"]["human"]["correct"] == told["by_author"]["human"]["read"] == 600
    assert told["disagreements"] == {}  # with the data set's own flags
    assert told["funnel"][-1]["traces"] > 700


def test_without_ray_its_engine_says_which_extra_adds_it(recipe: CurateSettings) -> None:
    import importlib.util

    if importlib.util.find_spec("ray"):
        pytest.skip("Ray is installed")
    with pytest.raises(ValueError, match=r"pip install '.\[ray\]'"):
        curate(recipe.model_copy(update={"engine": "ray"}))
