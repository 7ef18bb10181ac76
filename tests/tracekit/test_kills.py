"""kill -9 at random moments of a curation in many partitions: the next run ends with the same bytes.

`python benchmarks/curation.py kill` does the same at 20 moments of a larger one.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import polars as pl

MOMENTS = 5
WORDS = " ".join(f"w{n}" for n in range(200))

#: A curation in partitions of about 20 kB, whose batches are small too: a kill falls between any two of them.
CURATE = (
    "import json, sys; from tracekit.curation import partitions\n"
    "from tracekit.curation.curate import CurateSettings, curate\n"
    "partitions.PARTITION_BYTES = 20_000\n"
    "curate(CurateSettings.model_validate(json.loads(sys.argv[1])))"
)


def command(folder: Path, name: str) -> list[str]:
    tree = {
        "data": str(folder),
        "output": str(folder / name),
        "sources": ["traces.jsonl"],
        "duplicates": {"traces": 0.9},
        "verify": {"batch": 20},
        "select": {"pairs": 1},
        "validation": 0.3,
        "workers": 1,
        "export": {"formats": ["luffy", "trl-dpo"]},
    }
    return [sys.executable, "-c", CURATE, json.dumps(tree)]


def contents(run: Path) -> dict[str, bytes]:
    """Every published file; run.json without the folder's name and the commit, which may move meanwhile."""
    files = {str(p.relative_to(run)): p.read_bytes() for p in run.rglob("*") if p.is_file() and "stages" not in p.parts}
    record = json.loads(files["run.json"].replace(str(run).encode(), b"RUN"))
    return files | {"run.json": json.dumps({**record, "commit": None}).encode()}


def test_a_curation_killed_at_random_moments_ends_with_the_same_bytes(tmp_path: Path) -> None:
    rows = [
        {"problem": f"{n}: {WORDS}?", "answer": str(n), "response": f"{WORDS} {k}\n\nSo it is \\boxed{{{n + k // 2}}}."}
        for k in range(3)
        for n in range(120)
    ]
    pl.DataFrame(rows).write_ndjson(tmp_path / "traces.jsonl")
    started = time.perf_counter()
    subprocess.run(command(tmp_path, "whole"), check=True)
    seconds = time.perf_counter() - started
    draw, killed = random.Random(16), 0
    while killed < MOMENTS:
        process = subprocess.Popen(command(tmp_path, "killed"))
        try:
            process.wait(timeout=draw.uniform(0.3, 1.0) * seconds)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            killed += 1
        if process.wait() == 0:  # finished between two kills: begin anew
            assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
            shutil.rmtree(tmp_path / "killed")
    subprocess.run(command(tmp_path, "killed"), check=True)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
    assert not list((tmp_path / "killed").rglob("*.partial"))
