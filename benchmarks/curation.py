"""Curation against its peers, in one run: one pass over text, memory, near duplicates, contamination, kills.

    python benchmarks/curation.py scan duplicates contamination memory verify kill
    python benchmarks/curation.py scan --peer-python ENVIRONMENT/bin/python     # an environment that has datatrove

The synthetic table holds traces of 8 KB: think tags, lines of words, sums, a boxed answer.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from statistics import median

import polars as pl
from curation_measure import measure_one

RESULTS = Path(__file__).parent / "results"
TRACES = 100_000
TIMES = 7  # runs of each side
ROWS = 2000  # of a row group, or of a batch of Arrow
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


# ---- the synthetic table -------------------------------------------------------------------------------------------


def make_lines(rng: random.Random, count: int = 20_000) -> list[str]:
    words = ["".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(2, 9))) for _ in range(5000)]

    def line() -> str:
        end = rng.choice([".", "?", f" so {rng.randint(1, 99)} + {rng.randint(1, 99)} = {rng.randint(1, 198)}."])
        return " ".join(rng.choices(words, k=rng.randint(8, 40))) + end

    return [line() for _ in range(count)]


def make_trace(rng: random.Random, lines: list[str], size: int = 8000) -> str:
    body, length = [], 0
    while length < size - 200:
        body.append(rng.choice(lines))
        length += len(body[-1]) + 1
    return "<think>\n" + "\n".join(body) + f"\n</think>\n\nThe answer is $\\boxed{{{rng.randint(0, 999)}}}$."


def make_table(path: Path, count: int, seed: int = 0) -> Path:
    rng = random.Random(seed)
    lines = make_lines(rng)
    responses = [make_trace(rng, lines) for _ in range(count)]
    frame = pl.DataFrame({"trace_id": [f"{i:016x}" for i in range(count)], "response": responses})
    frame.write_parquet(path, row_group_size=ROWS)
    return path


# ---- one pass over the text ----------------------------------------------------------------------------------------


def measure_row(row: dict[str, str]) -> dict[str, object]:
    return measure_one(row["response"])


def measure_batch(batch: dict[str, list[str]]) -> dict[str, list[object]]:
    rows = [measure_one(text) for text in batch["response"]]
    return {key: [row[key] for row in rows] for key in rows[0]}


def scan(work: Path, peer_python: str | None) -> str:
    """Two starts, each the same for all: a Parquet file, and the text laid out as Arrow on disk before."""
    import datasets

    from tracekit.text.features import QUICK, measure_file

    table = make_table(work / "traces.parquet", TRACES)
    laid_out = work / "traces.arrow"
    pl.scan_parquet(table).sink_ipc(laid_out, record_batch_size=ROWS)
    halves = halve(table, work / "halves")
    datasets.disable_progress_bars()
    loaded = []

    def load() -> None:
        shutil.rmtree(work / "cache", ignore_errors=True)
        loaded.append(
            datasets.load_dataset("parquet", data_files=str(table), split="train", cache_dir=str(work / "cache"))
        )

    def run_map(function: Callable, **options: object) -> None:
        mapped.append(loaded[-1].map(function, num_proc=2, load_from_cache_file=False, **options))

    mapped: list[object] = []
    ours = work / "ours.parquet"
    drop, bytes_read = {"remove_columns": ["response"]}, pl.col("response").str.len_bytes().sum()
    spent = costs(
        {
            "from Parquet": lambda: measure_file(table, ours, QUICK),
            "from Arrow": lambda: measure_file(laid_out, work / "from_arrow.parquet", QUICK),
            "reading": lambda: pl.scan_parquet(table).select(bytes_read).collect(engine="streaming"),
            "lay out": load,
            "a row": lambda: run_map(measure_row),
            "a row, text removed": lambda: run_map(measure_row, **drop),
            "batched, text removed": lambda: run_map(measure_batch, batched=True, **drop),
            **({"datatrove": lambda: run_datatrove(peer_python, halves, work)} if peer_python else {}),
        }
    )
    from_parquet, from_arrow, reading, lay_out, *maps = spent.values()
    peers = dict(zip(("a row", "a row, text removed", "batched, text removed"), maps))
    measured = pl.read_parquet(ours)
    assert measured.equals(pl.read_parquet(work / "from_arrow.parquet"))
    for dataset in mapped:
        check_same(measured, dataset)
    rows = [
        ("Parquet", "tracekit (polars, streaming)", from_parquet, from_parquet),
        ("Parquet", "of it reading and decompressing alone", reading, from_parquet),
    ]
    for name, (wall, cpu) in peers.items():
        both = (lay_out[0] + wall, lay_out[1] + cpu)
        rows.append(("Parquet", f"datasets: load_dataset, map(num_proc=2), {name}", both, from_parquet))
    if peer_python:
        wall, _ = spent["datatrove"]  # its workers are a fork server's children, whose processor time is not told
        rows.append(("Parquet", "datatrove, 2 workers", (wall, math.nan), from_parquet))
    rows.append(("Arrow", "tracekit (polars, streaming)", from_arrow, from_arrow))
    rows += [("Arrow", f"datasets.map(num_proc=2), {name}", peer, from_arrow) for name, peer in peers.items()]
    lines = [
        f"| {start} | {name} | {wall:.2f} s | {wall / own[0]:.1f} × "
        + ("| – | – |" if math.isnan(cpu) else f"| {cpu:.2f} s | {cpu / own[1]:.1f} × |")
        for start, name, (wall, cpu), own in rows
    ]
    return (
        f"{TRACES:,} traces of 8 KB: length, think tags, boxed answer, hash, repeated lines, repeated tail; 2 cores, "
        f"load {os.getloadavg()[0]:.1f} while measured (time suffers from it, processor time hardly); the median of "
        f"{TIMES} runs of each, in turn. `a row` writes the text out again, as map does unless told otherwise.\n\n"
        "| from | | time | × ours | processor time | × ours |\n|---|---|---|---|---|---|\n" + "\n".join(lines) + "\n\n"
        f"Ours from Parquet against map on text that is laid out already: "
        f"{peers['a row'][1] / from_parquet[1]:.1f} × a row, {peers['batched, text removed'][1] / from_parquet[1]:.1f} "
        "× batched (processor time). datatrove is given the table in two files, one a worker; making them is not "
        "counted."
    )


def costs(sides: dict[str, Callable[[], object]]) -> dict[str, tuple[float, float]]:
    """(wall, processor) seconds of each side, the median of TIMES calls, children included. Sides are called in turn,
    so that a machine that slows down for a while slows all."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for _ in range(TIMES):
        for name, function in sides.items():
            os.sync()  # what was written before is not to be flushed at this call's cost
            wall, cpu = time.perf_counter(), processor_seconds()
            function()
            spent[name].append((time.perf_counter() - wall, processor_seconds() - cpu))
    return {name: (median(wall for wall, _ in of), median(cpu for _, cpu in of)) for name, of in spent.items()}


def processor_seconds() -> float:
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    return own.ru_utime + own.ru_stime + children.ru_utime + children.ru_stime


def check_same(ours: pl.DataFrame, mapped: object) -> None:
    """The two passes must have measured the same."""
    theirs = mapped.to_polars()  # type: ignore[attr-defined]
    for column in ("characters", "think_opened", "think_closed", "boxed", "repeated_lines", "tail_repeats"):
        same = (ours[column].cast(theirs[column].dtype) == theirs[column]).all()
        assert same, f"{column} differs between tracekit and the map function"


def halve(table: Path, folder: Path) -> Path:
    """Two files of half the rows each, for two workers of datatrove."""
    folder.mkdir()
    for half in range(2):
        rows = pl.scan_parquet(table).slice(half * TRACES // 2, TRACES // 2)
        rows.sink_parquet(folder / f"{half}.parquet", row_group_size=ROWS)
    return folder


def run_datatrove(python: str, halves: Path, work: Path) -> None:
    """datatrove's reader, a step that measures into the metadata, its Parquet writer: two local workers."""
    for made in (work / "datatrove", work / "datatrove-logs"):  # datatrove skips what its logs call done
        shutil.rmtree(made, ignore_errors=True)
    script = Path(__file__).with_name("curation_datatrove.py")
    subprocess.run([python, str(script), str(halves), str(work / "datatrove")], check=True, capture_output=True)


# ---- memory --------------------------------------------------------------------------------------------------------


def memory(work: Path, peer_python: str | None) -> str:
    """1,000,000 traces as ten shards (the same 100,000 under ten names: memory does not know)."""
    table = make_table(work / "traces.parquet", TRACES)
    shards = work / "shards"
    shards.mkdir()
    for shard in range(10):
        os.link(table, shards / f"{shard}.parquet")
    code = (
        "import re, sys, time; from pathlib import Path; from tracekit.text.features import measure_file, QUICK\n"
        "began = time.perf_counter(); measure_file(Path(sys.argv[1]), Path(sys.argv[2]), QUICK)\n"
        # VmHWM and not ru_maxrss, which a child inherits from the process that started it
        "print(time.perf_counter() - began, re.search(r'VmHWM:\\s+(\\d+)', Path('/proc/self/status').read_text())[1])"
    )
    out = work / "measured.parquet"
    done = subprocess.run(
        [sys.executable, "-c", code, str(shards), str(out)], check=True, capture_output=True, text=True
    )
    seconds, kilobytes = map(float, done.stdout.split())
    rows = pl.scan_parquet(out).select(pl.len()).collect().item()
    return (
        f"{rows:,} traces (8 GB of text): {seconds:.1f} s, peak resident memory {kilobytes / 1e6:.2f} GB "
        f"({rows * 8e-3 / seconds:,.0f} MB of text a second)"
    )


# ---- near duplicates -----------------------------------------------------------------------------------------------


def planted(count: int, seed: int = 0) -> tuple[list[str], set[tuple[int, int]]]:
    """Texts of which every tenth has a near copy (a few words replaced), and all pairs of Jaccard ≥ 0.8."""
    rng = random.Random(seed)
    lines = make_lines(rng)
    texts = [make_trace(rng, lines) for _ in range(count * 9 // 10)]
    pairs = set()
    for original in range(count - len(texts)):
        words = texts[original].split(" ")
        for place in rng.sample(range(len(words)), k=rng.randint(1, 24)):
            words[place] = "changed"
        texts.append(" ".join(words))
        if jaccard(texts[original], texts[-1]) >= 0.8:
            pairs.add((original, len(texts) - 1))
    return texts, pairs


def shingles(text: str, n: int = 5) -> set[str]:
    words = text.lower().split()
    return {" ".join(words[i : i + n]) for i in range(len(words) - n + 1)}


def jaccard(a: str, b: str) -> float:
    left, right = shingles(a), shingles(b)
    return len(left & right) / len(left | right)


def duplicates(work: Path, peer_python: str | None) -> str:
    from datasketch import MinHash, MinHashLSH

    from tracekit.text.duplicates import near_duplicates

    texts, truth = planted(10_000)
    column = pl.Series(texts)
    sides: dict[str, set[tuple[int, int]]] = {}

    def tracekit() -> None:
        sides["tracekit"] = {(a, b) for a, b, _ in near_duplicates(column, threshold=0.8).iter_rows()}

    def peer() -> None:
        index, theirs = MinHashLSH(threshold=0.8, num_perm=128), set()
        for row, text in enumerate(texts):
            sketch = MinHash(num_perm=128)
            sketch.update_batch([shingle.encode() for shingle in shingles(text)])
            theirs |= {(other, row) for other in index.query(sketch)}
            index.insert(row, sketch)
        sides["datasketch MinHashLSH, 128 permutations"] = theirs

    ours, theirs = costs({"tracekit": tracekit, "datasketch": peer}).values()
    lines = [
        f"| {name} | {len(some & truth) / len(truth):.2%} | {len(some & truth) / max(1, len(some)):.2%} "
        f"| {wall:.2f} s | {wall / ours[0]:.1f} × | {cpu:.2f} s | {cpu / ours[1]:.1f} × |"
        for (name, some), (wall, cpu) in zip(sides.items(), (ours, theirs))
    ]
    title = (
        f"10,000 traces of 8 KB, {len(truth):,} planted pairs of Jaccard ≥ 0.8 (word 5-grams, by brute force); the "
        f"median of {TIMES} runs of each, in turn; ours takes both cores."
    )
    head = "| | recall | precision | time | × ours | processor time | × ours |\n|---|---|---|---|---|---|---|\n"
    return f"{title}\n\n{head}" + "\n".join(lines)


# ---- contamination -------------------------------------------------------------------------------------------------


def contamination(work: Path, peer_python: str | None) -> str:
    from tracekit.text.contamination import contaminated

    rng = random.Random(1)
    words = [f"w{i}" for i in range(20_000)]
    questions = [" ".join(rng.choices(words, k=rng.randint(8, 90))) for _ in range(5000)]
    prompts = [" ".join(rng.choices(words, k=rng.randint(8, 150))) for _ in range(10_000)]
    for row in range(0, 10_000, 50):
        part = rng.choice(questions).split()
        start = rng.randrange(max(1, len(part) - 8))
        prompts[row] += " \n" + "  ".join(part[start : start + 10]).upper()
    left, right = pl.Series(prompts), pl.Series(questions)
    ours = best_of(5, lambda: contaminated(left, right))
    found = {(a, b) for a, b, *_ in contaminated(left, right).iter_rows()}
    began = time.perf_counter()
    index: dict[str, set[int]] = {}
    for row, question in enumerate(questions):
        for gram in shingles(question, 8):
            index.setdefault(gram, set()).add(row)
    truth = {(row, other) for row, p in enumerate(prompts) for gram in shingles(p, 8) for other in index.get(gram, ())}
    peer = time.perf_counter() - began
    assert found == truth, "the matches differ from those of a set of n-grams"
    return (
        f"10,000 prompts × 5,000 questions, 8 words: {ours:.2f} s; a dictionary of n-grams in Python {peer:.2f} s "
        f"({peer / ours:.1f} ×); the same {len(truth):,} matches"
    )


# ---- verification --------------------------------------------------------------------------------------------------


def verify(work: Path, peer_python: str | None) -> str:
    from tracekit.curation.verify import verify_traces
    from tracekit.reading.readers import SourceSettings, read_source

    paths = ("gsm8k/train.jsonl", "gsm8k/example_model_solutions.jsonl", "math500/test.jsonl")
    tables = [read_source(SourceSettings(path=path), SHARED) for path in paths]
    problems = pl.concat([t.problems for t in tables]).unique("problem_id")
    traces = pl.concat([t.traces for t in tables]).join(problems, on="problem_id").sample(3000, seed=0)
    verify_traces(traces.head(10), workers=1)  # imports
    began = time.perf_counter()
    ours = verify_traces(traces, workers=1)
    seconds = time.perf_counter() - began
    verify_traces(traces.head(10), "math-verify", workers=1)
    began = time.perf_counter()
    theirs = verify_traces(traces, "math-verify", workers=1)
    peer = time.perf_counter() - began
    same = (ours["outcome"] == theirs["outcome"]).mean()
    return (
        f"3,000 real traces (GSM8K, its model solutions, MATH-500), one core each: tracekit {seconds:.2f} s "
        f"({seconds / 3:.3f} ms a trace), Math-Verify {peer:.2f} s ({peer / 3:.2f} ms): {peer / seconds:.0f} ×; "
        f"outcomes agree on {same:.1%}"
    )


# ---- kills ---------------------------------------------------------------------------------------------------------

_CURATE = (
    "import sys; from tracekit.core.settings import load_settings\n"
    "from tracekit.curation import partitions\n"
    "from tracekit.curation.curate import CurateSettings, curate\n"
    "partitions.PARTITION_BYTES = 2_000_000\n"  # six of them
    "curate(load_settings(CurateSettings, None, sys.argv[1:]))"
)


def kill(work: Path, peer_python: str | None, times: int = 20) -> str:
    """kill -9 at random moments of one curation, then to the end: the same bytes as one that was left alone?"""
    table = work / "source.jsonl"
    rng = random.Random(2)
    lines = make_lines(rng, 2000)
    rows = [
        {
            "problem": f"Problem {i // 3}: {rng.choice(lines)}",
            "gold": str(i % 7),
            "response": make_trace(rng, lines, 2000),
        }
        for i in range(6000)
    ]
    pl.DataFrame(rows).write_ndjson(table)
    overrides = [
        f'sources=["{table}"]',
        "filters.outcomes=['correct', 'wrong']",
        "verify.batch=500",
        "workers=1",
    ]
    command = [sys.executable, "-c", _CURATE, *overrides]
    began = time.perf_counter()
    subprocess.run([*command, f"output={work / 'whole'}"], check=True)
    seconds = time.perf_counter() - began
    killed = 0
    while killed < times:
        process = subprocess.Popen([*command, f"output={work / 'killed'}"])
        try:
            process.wait(timeout=rng.uniform(0.3, seconds))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.wait()
        if process.returncode == 0:  # finished between two kills: begin anew
            compare_runs(work / "whole", work / "killed")
            shutil.rmtree(work / "killed")
    subprocess.run([*command, f"output={work / 'killed'}"], check=True)
    files = compare_runs(work / "whole", work / "killed")
    return f"{killed} kills at random moments of a curation of {seconds:.1f} s: {files} files byte-identical"


def compare_runs(whole: Path, killed: Path) -> int:
    """Every published file, byte by byte; the number of files."""
    names, others = (
        sorted(p.relative_to(run) for p in run.rglob("*") if p.is_file() and "stages" not in p.parts)
        for run in (whole, killed)
    )
    assert names == others, f"only in one of the two: {set(names) ^ set(others)}"
    for name in names:
        if name.name == "run.json":  # the commit may move while this runs; the folder's name differs
            a, b = (json.loads((run / name).read_text().replace(str(run), "RUN")) for run in (whole, killed))
            assert {**a, "commit": None} == {**b, "commit": None}, name
        else:
            assert (whole / name).read_bytes() == (killed / name).read_bytes(), name
    assert not [p for p in killed.rglob("*.partial")], "half-written files were left"
    return len(names)


# ---- running -------------------------------------------------------------------------------------------------------


def best_of(times: int, function: Callable[[], object]) -> float:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return min(seconds)


BENCHMARKS = {f.__name__: f for f in (scan, memory, duplicates, contamination, verify, kill)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=BENCHMARKS)
    parser.add_argument("--peer-python", help="interpreter of an environment with datatrove")
    arguments = parser.parse_args()
    packages = ("polars", "datasets", "datasketch", "math-verify", "numpy")
    versions = ", ".join(f"{p} {metadata.version(p)}" for p in packages)
    for name in arguments.names:
        with tempfile.TemporaryDirectory() as folder:
            text = BENCHMARKS[name](Path(folder), arguments.peer_python)
        print(f"\n## {name}\n\n{text}")
        RESULTS.mkdir(exist_ok=True)
        command = f"python benchmarks/curation.py {name}"
        (RESULTS / f"curation-{name}.md").write_text(
            f"## Curation: {name}\n\n{text}\n\n`{command}`, {os.cpu_count()} cores; {versions}.\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
