"""The published studies' results, in a clone and in an installed package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

REPORT = "report.html"
VIEWER = "view/index.html"
VIEWER_DATA = "view/data"  # what is published of it; the page itself comes from tracekit.viewer

#: Pages of `tracekit demo`: title, path in the results of the sealed study.
DEMO_PAGES = (
    ("the study", REPORT),
    ("its traces in the viewer", VIEWER),
    ("its probing report", "probe/report.html"),
)


def published_results(name: str) -> Path:
    """The folder of a published study's results: `published/NAME` in an installed package, studies/ in a clone."""
    installed, clone = HERE / "published", HERE.parents[1] / "studies" / "results"
    return (installed if installed.is_dir() else clone) / name


def published_result(name: str) -> dict[str, Any]:
    """The result.json of a published study. Raises FileNotFoundError."""
    return dict(json.loads((published_results(name) / "result.json").read_text(encoding="utf-8")))
