"""Make the pictures of README from real runs: the trace viewer on a curated file, the page of the published study.

    python docs/pictures.py

Needs Chromium and the extra `dev`.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "examples")]

import tiny_inputs  # noqa: E402

from tests.tracekit.chromium import chromium  # noqa: E402
from tracekit import CurateSettings, build_view, curate, load_settings  # noqa: E402

PICTURES = ROOT / "docs" / "pictures"
COLUMNS = 'sources=[{path="traces.jsonl", map={problem="question", gold="answer", response="generation"}}]'


def main() -> None:
    """Write docs/pictures/viewer.png and study.png."""
    with tempfile.TemporaryDirectory() as name, chromium() as browser:
        folder = Path(name)
        tiny_inputs.write_traces(folder / "traces.jsonl")
        run = curate(load_settings(CurateSettings, overrides=[COLUMNS, f"data={folder}", f"output={folder / 'run'}"]))
        tab = browser.open(build_view(run).as_uri() + "#traces", width=1280, height=720)
        tab.wait("document.querySelector('.row') !== null")
        tab.evaluate("document.querySelector('.row').click()")
        time.sleep(1)
        tab.screenshot(PICTURES / "viewer.png")
        tab = browser.open((ROOT / "studies/results/sealed/report.html").as_uri(), width=1280, height=720)
        tab.screenshot(PICTURES / "study.png")


if __name__ == "__main__":
    PICTURES.mkdir(exist_ok=True)
    main()
