"""One worker of a study: `python -m tracekit.study.worker FOLDER [LEADER_PID]`.

Started by `tracekit study`; on a second machine that sees the same folder it is started by hand, and helps.
Where training runs are started by a launcher it begins anew for each job, so that a job finds the devices' memory free
of what the one before it held.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from tracekit.core.runs import RUN_FILE
from tracekit.core.settings import build_settings
from tracekit.study.jobs import Board, work
from tracekit.study.pipeline import jobs_of, perform
from tracekit.study.settings import StudySettings


def main(folder: Path, leader: int | None) -> bool:
    """Work off the board of the study in `folder`; True where a fresh process should go on."""
    record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    settings = build_settings(StudySettings, record["settings"], str(folder))
    settings = settings.model_copy(update={"output": folder})
    most = 1 if settings.data is not None and settings.data.launch else None
    return work(Board(folder, jobs_of(settings)), lambda job, progress: perform(settings, job, progress), leader, most)


if __name__ == "__main__":
    if main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None):
        os.execv(sys.executable, [sys.executable, "-m", "tracekit.study.worker", *sys.argv[1:]])
