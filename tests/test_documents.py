"""README's shell blocks and the examples run, in order, as a user would run them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "examples"))

import tiny_inputs


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What README supposes: a file of traces and a model folder."""
    folder = tmp_path_factory.mktemp("user")
    tiny_inputs.write_traces(folder / "traces.jsonl")
    tiny_inputs.write_model(folder / "model")
    return folder


def shell_blocks(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    return [block for block in blocks if "pip install" not in block]


def run(script: str, folder: Path) -> None:
    own = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": own, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    script = re.sub(r"^tracekit ", "python -m tracekit.cli ", script, flags=re.M)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=230,
    )
    assert done.returncode == 0, f"{script}\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"


@pytest.mark.timeout(240)
def test_the_shell_blocks_of_the_readme_run_in_order(folder: Path) -> None:
    for block in shell_blocks(ROOT / "README.md"):
        run(block, folder)
    assert (folder / "runs" / "mine" / "view" / "index.html").is_file()
    assert list((folder / "runs" / "probe").glob("*.html"))


@pytest.mark.timeout(240)
def test_the_trl_example_takes_a_step(folder: Path) -> None:
    pytest.importorskip("trl")
    lines = (folder / "traces.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    problems = [{"problem": row["question"], "answer": row["answer"]} for row in map(json.loads, lines)]
    (folder / "problems.jsonl").write_text("\n".join(map(json.dumps, problems)), encoding="utf-8")
    run(f"python {ROOT}/examples/trl_grpo.py model problems.jsonl grpo 1", folder)
    assert (folder / "grpo" / "model.safetensors").is_file()


@pytest.mark.timeout(240)
def test_the_luffy_example_takes_a_step(folder: Path) -> None:
    pytest.importorskip("trl")
    if not (folder / "runs" / "mine").is_dir():
        run(shell_blocks(ROOT / "README.md")[0].splitlines()[0], folder)
    run(f"python {ROOT}/examples/trl_luffy.py model runs/mine/curated.parquet luffy 1", folder)
    assert (folder / "luffy" / "model.safetensors").is_file()


@pytest.mark.parametrize("script", sorted((ROOT / "examples").rglob("*.sh")), ids=lambda path: path.name)
def test_a_shell_example_has_no_syntax_fault(script: Path) -> None:
    subprocess.run([shutil.which("bash") or "bash", "-n", str(script)], check=True)
