"""Commands killed at random moments: run again, each ends with the same bytes as a run that nobody killed.

    python benchmarks/kills.py [--kills 10] [--only curate,verify] [--seed 0]

Each kill is a SIGKILL or a SIGTERM at a moment drawn within the time that the whole run took; a run is killed until it
ends before its moment, at most three times. Times, process ids, paths and versions are left out of the comparison.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from tests.reliability.materials import FOLDER_COMMANDS, make_materials

ROOT = Path(__file__).resolve().parents[1]
#: What may differ between two runs of the same work.
TIMES = re.compile(r"second|duration|time|per_second|_ms$|started|memory", re.IGNORECASE)
IGNORED = re.compile(r"(^|/)(\.tracekit\.|tensorboard/|run(-\d+)?\.json|jobs/|.*\.(log|html|md|svg)$|\..*\.partial)")


def words_of(name: str, materials: Path, out: Path) -> list[str]:
    """The command line of a command, on the materials, into `out`."""
    if name == "verify":
        words: list[object] = ["verify", materials / "many.jsonl", "--output", out / "verdicts.jsonl", "--workers", "1"]
    elif name == "study":
        words = ["study", f"output={out}", *study_words()]
    else:
        words = FOLDER_COMMANDS[name](materials, out)
    return [str(word) for word in words]


def study_words() -> list[str]:
    """Overrides that make the quick study as small as the tests' one."""
    from tests.tracekit.test_study import TINY

    return [word for word in TINY if not word.startswith(("arms.dpo", "arms.cpt"))]


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    """Start a command in a process group of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with log.open("ab") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "tracekit.cli", *words],
            stdout=file,
            stderr=file,
            env=environment,
            cwd=log.parent,
            start_new_session=True,
        )


def finish(words: list[str], log: Path) -> None:
    """Run a command to its end. Raises RuntimeError where it fails."""
    code = start(words, log).wait()
    if code not in (0, 3):  # 3: the gate of so small a study fails
        raise RuntimeError(f"code {code}: {log.read_text(errors='replace')[-2000:]}")


def kill_at(words: list[str], log: Path, seconds: float, number: signal.Signals) -> bool:
    """Start a command and kill its process group after so many seconds; False where it had ended."""
    process = start(words, log)
    try:
        process.wait(seconds)
        return False
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, number)
        process.wait()
        with_children_gone(process.pid)
        return True


def with_children_gone(group: int) -> None:
    """End what a killed leader left of its group, as a machine that goes down does."""
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return
    time.sleep(0.2)


def comparable(path: Path, folder: Path) -> object:
    """A file's content without times and paths."""
    if path.suffix == ".parquet":
        frame = pl.read_parquet(path)
        return frame.drop([name for name in frame.columns if TIMES.search(name)]).rows()
    if path.suffix in (".json", ".jsonl"):
        text = path.read_text(encoding="utf-8").replace(str(folder), "OUT")
        lines = [text] if path.suffix == ".json" else text.splitlines()
        return [_without_times(json.loads(line)) for line in lines]
    return path.read_bytes()


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if not TIMES.search(k) and not k.startswith("commit")}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def files_of(folder: Path) -> dict[str, Path]:
    """What is compared: every file but logs, locks, run records and pages, whose data are compared."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {name: path for name, path in found.items() if not IGNORED.search(name)}


def differences(whole: Path, killed: Path) -> list[str]:
    """Names of files that one run has and the other has not, or whose content differs."""
    a, b = files_of(whole), files_of(killed)
    both = sorted(a.keys() & b.keys())
    differing = [name for name in both if comparable(a[name], whole) != comparable(b[name], killed)]
    return sorted(a.keys() ^ b.keys()) + differing


def one_kill(name: str, materials: Path, whole: Path, seconds: float, draw: random.Random) -> tuple[int, list[str]]:
    """(how often the run was killed, what differs) of one run."""
    out = whole.with_name("killed")
    log = whole.parent / f"{name}.log"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    words, kills = words_of(name, materials, out), 0
    for _ in range(3):
        number = draw.choice((signal.SIGKILL, signal.SIGTERM))
        if not kill_at(words, log, draw.uniform(0.1, 1.0) * seconds, number):
            break
        kills += 1
    finish(words, log)
    return kills, differences(whole, out)


def many_rows(materials: Path, rows: int = 12_000) -> None:
    """Rows enough that verifying them takes several parts."""
    lines = (materials / "rows.jsonl").read_text(encoding="utf-8").splitlines()
    text = "".join(lines[place % len(lines)] + "\n" for place in range(rows))
    (materials / "many.jsonl").write_text(text, encoding="utf-8")


COMMANDS = ("curate", "verify", "collect", "train", "evaluate", "probe", "study")


def measure(name: str, materials: Path, kills: int, draw: random.Random) -> int:
    """Runs of a command that ended differently from the whole run, out of `kills`."""
    whole = materials.with_name(name) / "whole"
    whole.mkdir(parents=True)
    began = time.monotonic()
    finish(words_of(name, materials, whole), whole.parent / f"{name}.log")
    seconds, wrong, killed = time.monotonic() - began, 0, 0
    for place in range(kills):
        times, differing = one_kill(name, materials, whole, seconds, draw)
        killed += times
        if differing:
            wrong += 1
            print(f"  {name} run {place}: {differing[:5]}")
    print(f"{name}: {kills - wrong} of {kills} identical, {killed} kills, whole run {seconds:.1f} s", flush=True)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--only", default=",".join(COMMANDS))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    with tempfile.TemporaryDirectory(prefix="tracekit-kills-") as folder:
        materials = make_materials(Path(folder) / "materials")
        many_rows(materials)
        wrong = sum(measure(name, materials, options.kills, draw) for name in options.only.split(","))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
