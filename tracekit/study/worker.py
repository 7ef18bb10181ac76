"""One worker of a study: `python -m tracekit.study.worker FOLDER [LEADER_PID]`.

Started by `tracekit study`; on a second machine that sees the same folder it is started by hand, and helps.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tracekit.config import build_settings
from tracekit.runs import RUN_FILE
from tracekit.study.jobs import Board, work
from tracekit.study.pipeline import jobs_of, perform
from tracekit.study.settings import StudySettings


def main(folder: Path, leader: int | None) -> None:
    """Work off the board of the study in `folder`."""
    record = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    settings = build_settings(StudySettings, record["settings"], str(folder))
    settings = settings.model_copy(update={"output": folder})
    work(Board(folder, jobs_of(settings)), lambda job, progress: perform(settings, job, progress), leader)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else None)
