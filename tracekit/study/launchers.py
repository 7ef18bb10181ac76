"""Workers of a study on a cluster: a Slurm array whose tasks take jobs from the study's board."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tracekit.core.runs import write_text
from tracekit.study.jobs import JobError

SCRIPT = "workers.sbatch"


def slurm_script(
    folder: Path, workers: int, options: Sequence[str] = (), environment: Mapping[str, str] | None = None
) -> str:
    """The batch script: an array of `workers` tasks, each of which takes jobs until none is left.

    folder: the study's, on a file system that all nodes see. options: further words of sbatch, such as --gres=gpu:1,
    laid over the script's own. environment: variables of the workers. A task that is cancelled or times out loses its
    job to the others; the array can be submitted again.
    """
    folder = folder.resolve()
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=tracekit-study",
        f"#SBATCH --array=1-{workers}",
        f'#SBATCH --output="{folder}/jobs/slurm-%A_%a.log"',
        *(f"#SBATCH {option}" for option in options),
        *(f"export {name}={shlex.quote(value)}" for name, value in (environment or {}).items()),
        f"exec {shlex.quote(sys.executable)} -m tracekit.study.worker {shlex.quote(str(folder))}",
    ]
    return "\n".join(lines) + "\n"


def submit(folder: Path, script: str) -> tuple[Path, str]:
    """Write the script into the study's folder and give it to sbatch; returns its path and what sbatch answered.

    The answer is "" where there is no sbatch on this machine. Raises JobError where sbatch refuses the script.
    """
    path = write_text(folder / "jobs" / SCRIPT, script)
    program = shutil.which("sbatch")
    if program is None:
        return path, ""
    done = subprocess.run([program, str(path)], capture_output=True, text=True)
    if done.returncode:
        raise JobError(f"sbatch refused {path}: {done.stderr.strip() or done.stdout.strip()}")
    return path, done.stdout.strip()
