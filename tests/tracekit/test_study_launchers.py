"""Workers on a cluster: the script is what a shell runs, and sbatch is given it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from tracekit.study.jobs import JobError
from tracekit.study.launchers import slurm_script, submit

ROOT = Path(__file__).resolve().parents[2]
SMALL = Path(__file__).with_name("small_study.toml")


def fake_sbatch(folder: Path, code: int) -> None:
    """An sbatch that checks the script's syntax and keeps it, or refuses it."""
    folder.mkdir()
    (folder / "jobs").mkdir(exist_ok=True)
    program = folder / "sbatch"
    run = "echo refused >&2; exit 1" if code else 'bash -n "$1" && cp "$1" "$(dirname "$0")/given" && echo Submitted 7'
    program.write_text(f"#!/bin/bash\n{run}\n", encoding="utf-8")
    program.chmod(0o755)


def test_the_script_is_an_array_with_the_options_and_a_quoted_folder(tmp_path: Path) -> None:
    script = slurm_script(tmp_path / "a study's run", 12, ["--gres=gpu:1"], {"OMP_NUM_THREADS": "1"})
    assert script.startswith("#!/bin/bash\n")
    assert "#SBATCH --array=1-12\n" in script
    assert "#SBATCH --gres=gpu:1\n" in script
    echoed = script.replace(f"exec {sys.executable}", 'printf "%s|"')
    shown = subprocess.run(["bash", "-c", echoed + 'echo "$OMP_NUM_THREADS"'], capture_output=True, text=True).stdout
    assert shown == f"-m|tracekit.study.worker|{tmp_path.resolve()}/a study's run|1\n"


def test_sbatch_is_given_the_script_and_a_refusal_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "jobs").mkdir()
    fake_sbatch(tmp_path / "good", 0)
    monkeypatch.setenv("PATH", f"{tmp_path / 'good'}:{os.environ['PATH']}")
    path, answer = submit(tmp_path, "#!/bin/bash\n")
    assert answer == "Submitted 7"
    assert (tmp_path / "good" / "given").read_text(encoding="utf-8") == path.read_text(encoding="utf-8")
    fake_sbatch(tmp_path / "bad", 1)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bad'}:{os.environ['PATH']}")
    with pytest.raises(JobError, match="refused"):
        submit(tmp_path, "#!/bin/bash\n")


def test_the_command_prints_and_submits_and_starts_no_worker_itself(tmp_path: Path) -> None:
    fake_sbatch(tmp_path / "bin", 0)
    command = [sys.executable, "-m", "tracekit.cli", "study", str(SMALL), f"output={tmp_path / 'run'}", "workers=3"]
    command += ["--launcher", "slurm", "sbatch=--time=1:00:00"]
    path = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, **path})
    assert done.returncode == 0, done.stdout + done.stderr
    assert "--array=1-3" in done.stdout
    assert "--time=1:00:00" in done.stdout
    assert "Submitted 7" in done.stdout
    assert not list((tmp_path / "run" / "jobs").glob("*.claim*"))
