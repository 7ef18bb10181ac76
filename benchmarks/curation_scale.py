"""A whole `curate` at several sizes: peak memory of all its processes together, time, what grows with the text.

    python benchmarks/curation_scale.py 50 200 800              # megabytes of responses
    python benchmarks/curation_scale.py 320 --profile           # the stages' seconds
    python benchmarks/curation_scale.py --batches               # a batch of verification at row 1,000,000 against row 0
    python benchmarks/curation_scale.py --segment               # segmenting on one core

Responses of about 8 kB are paragraphs of real traces (../shared/data) in a random order, four a problem; a problem is
random words of real ones. Three of four responses end in the gold.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
SAMPLES = 4
#: Seconds between two looks at the memory.
LOOK = 0.05


def pool() -> tuple[list[str], list[str]]:
    """Paragraphs of real traces, and words of real problems."""
    paragraphs: list[str] = []
    words: set[str] = set()
    for line in (SHARED / "r1_traces" / "math500.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        paragraphs += row["response"].replace("<think>", "").replace("</think>", "").split("\n\n")
    for line in (SHARED / "qwen_math" / "math_cot_100.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        paragraphs += [part for text in row["code"] for part in text.split("\n\n")]
    for line in (SHARED / "math500" / "test.jsonl").read_text(encoding="utf-8").splitlines():
        words |= set(json.loads(line)["problem"].split())
    texts = [text for text in dict.fromkeys(paragraphs) if text.strip() and "boxed" not in text]
    return texts, sorted(words)


def rows(megabytes: float, seed: int = 0) -> Iterator[dict[str, str]]:
    draw = random.Random(seed)
    paragraphs, words = pool()
    written, problem = 0, 0
    while written < megabytes * 1e6:
        asked = " ".join(draw.choices(words, k=draw.randint(15, 60))) + f" Find the number {problem}."
        gold = str(draw.randint(0, 999))
        for _ in range(SAMPLES):
            body, length = [], 0
            while length < 7_800:
                body.append(draw.choice(paragraphs))
                length += len(body[-1]) + 2
            answer = gold if draw.random() < 0.75 else str(draw.randint(1000, 1999))
            text = "<think>\n" + "\n\n".join(body) + f"\n</think>\n\nThe answer is $\\boxed{{{answer}}}$."
            written += len(text.encode())
            yield {"problem": asked, "answer": gold, "response": text, "model": "teacher"}
        problem += 1


def write_set(path: Path, megabytes: float) -> int:
    count = 0
    with path.open("w", encoding="utf-8") as file:
        for row in rows(megabytes):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def tree(pid: int) -> list[int]:
    """A process and all below it."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry))
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def memory_of(pid: int) -> float:
    """Megabytes of anonymous memory of a process; pages of files are the system's to take back."""
    try:
        status = Path("/proc", str(pid), "status").read_text()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon")) / 1e3


def measured(command: list[str]) -> dict[str, float]:
    """Seconds, CPU seconds and the peak memory of a command with all its processes, in megabytes."""
    began, before = time.perf_counter(), os.times()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, sum(memory_of(one) for one in tree(process.pid)))
        time.sleep(LOOK)
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return {"seconds": time.perf_counter() - began, "cpu": cpu, "peak": peak}


_PROFILED = """
import sys, time
from pathlib import Path
from tracekit.core.settings import load_settings
from tracekit.curation.curate import CurateSettings, curate
began, last = time.perf_counter(), [time.perf_counter(), time.process_time(), ""]
def report(stage, done, total, what):
    if stage != last[2]:
        now = time.perf_counter(), time.process_time()
        seconds, cpu = now[0] - last[0], now[1] - last[1]
        print(f"until {stage:14} {seconds:7.2f} s, {cpu:7.2f} s CPU of this process", file=sys.stderr)
        last[:] = [*now, stage]
curate(load_settings(CurateSettings, None, sys.argv[1:]), progress=report)
report("end", 0, 0, "")
"""


def batch_costs(total: int = 1_002_000, size: int = 2_000, times: int = 15) -> str:
    """What verifying a batch costs at the first row and at the last: the reading, the golds, the verdicts."""
    import polars as pl

    from tracekit.core.tables import TRACES
    from tracekit.curation.streams import Slices, table_writer
    from tracekit.curation.verify import verify_traces

    def traces(start: int, stop: int) -> pl.DataFrame:
        rows = [
            (f"{n:016x}", f"{n // 4:016x}", "t", f"{n} + 1 = {n + 1}, \\boxed{{7}}", None, None, None)
            for n in range(start, stop)
        ]
        return pl.DataFrame(rows, schema=TRACES, orient="row")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "traces.parquet")
        with table_writer(path, TRACES) as written:
            for start in range(0, total, 100_000):
                written.write(traces(start, min(total, start + 100_000)))
        seconds: dict[int, list[float]] = {0: [], total - size: []}
        for _ in range(times):
            for start, taken in seconds.items():
                began = time.process_time()
                batch = Slices(path).read(start, start + size, ["trace_id", "problem_id", "response"])
                verify_traces(batch.with_columns(gold=pl.lit("7")), workers=1)
                taken.append(time.process_time() - began)
    first, last = (sorted(taken)[times // 2] for taken in seconds.values())
    at = f"a batch of {size:,} at row 0: {first * 1e3:.1f} ms; at row {total - size:,}: {last * 1e3:.1f} ms"
    return f"{at} ({last / first:.2f} ×)"


def segment_speed(times: int = 5) -> str:
    """Megabytes a second of processor time, on the responses of R1 and Qwen2.5-Math of the acceptance set."""
    import polars as pl

    from tracekit.text.segment import segment_traces

    texts = [json.loads(line)["response"] for line in (SHARED / "r1_traces" / "math500.jsonl").open(encoding="utf-8")]
    texts += [
        text for line in (SHARED / "qwen_math" / "math_cot_100.jsonl").open() for text in json.loads(line)["code"]
    ]
    frame = pl.DataFrame({"trace_id": [str(n) for n in range(len(texts))], "response": texts})
    size, best = sum(len(text.encode()) for text in texts) / 1e6, float("inf")
    for _ in range(times):
        began = time.process_time()
        steps = segment_traces(frame).height
        best = min(best, time.process_time() - began)
    load = os.getloadavg()[0]
    return f"{size:.2f} MB, {steps:,} steps: {size / best:.1f} MB a second of processor time, load {load:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("megabytes", type=float, nargs="*")
    parser.add_argument("--batches", action="store_true", help="the cost of a batch at row 1,000,000 against row 0")
    parser.add_argument("--segment", action="store_true", help="segmenting of real traces on one core")
    parser.add_argument("--profile", action="store_true", help="print the seconds of each stage")
    parser.add_argument("--folder", type=Path, help="where to write; a temporary folder where not given")
    arguments = parser.parse_args()
    if arguments.batches:
        print(batch_costs())
    if arguments.segment:
        print(segment_speed())
    lines = []
    for size in arguments.megabytes:
        folder = Path(tempfile.mkdtemp(dir=arguments.folder))
        count = write_set(folder / "traces.jsonl", size)
        overrides = [f'sources=["{folder / "traces.jsonl"}"]', f"output={folder / 'run'}", "workers=2"]
        told = measured([sys.executable, "-c", _PROFILED if arguments.profile else _CURATE, *overrides])
        lines.append(
            f"| {size:,.0f} MB | {count:,} | {told['peak']:,.0f} MB | {told['seconds']:,.1f} s | {told['cpu']:,.1f} s |"
        )
        print(lines[-1], flush=True)
        shutil.rmtree(folder)
    if lines and not arguments.profile:
        write_results(lines, sys.argv[1:])


_CURATE = (
    "import sys; from tracekit.core.settings import load_settings\n"
    "from tracekit.curation.curate import CurateSettings, curate\n"
    "curate(load_settings(CurateSettings, None, sys.argv[1:]))"
)


def write_results(lines: list[str], words: list[str]) -> None:
    packages = ", ".join(f"{name} {metadata.version(name)}" for name in ("polars", "pyarrow", "numpy"))
    (RESULTS / "curation-scale.md").write_text(
        "## Curation: scale\n\nA whole `curate` with the default recipe and two workers, from one JSONL file, of real "
        "paragraphs in a random order; the memory is the anonymous memory of all processes together.\n\n"
        "| responses | traces | peak memory | time | processor time |\n|---|---|---|---|---|\n"
        + "\n".join(lines)
        + f"\n\n`python benchmarks/curation_scale.py {' '.join(words)}`, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f} at the end; {packages}.\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
