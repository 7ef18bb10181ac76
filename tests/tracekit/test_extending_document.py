"""docs/extending.md is run as a reader would run it: its file, its data, its commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.M | re.S)


def run(script: str, folder: Path) -> str:
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = re.sub(r"^tracekit ", "python -m tracekit.cli ", script, flags=re.M)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env={**os.environ, "PATH": own, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_page_runs_and_says_what_comes_of_it(tmp_path: Path) -> None:
    data, expected = blocks("json")
    (tmp_path / "traces.jsonl").write_text(data, encoding="utf-8")
    (tmp_path / "my_rules.py").write_text("\n\n".join(blocks("python")), encoding="utf-8")
    first, second = blocks("sh")
    run(first, tmp_path)
    lines = (tmp_path / "runs/quiz/export/question-answer/train.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line) for line in lines] == [json.loads(expected)]
    ledger = pl.read_parquet(tmp_path / "runs/quiz/ledger.parquet").filter(pl.col("verdict") == "drop")
    assert dict(ledger.select("rule", "reason").iter_rows()) == {
        "max_hedges": "hedges too often",
        "no_hens": "The problem is about hens",
    }
    assert json.loads(run(second, tmp_path).splitlines()[-1])["rows"] == {"question-answer": {"train": 3}}
