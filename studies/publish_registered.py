"""Publish a registered study, finished or running: its records and its report into studies/results/NAME/.

python studies/publish_registered.py studies/sealed.toml runs/sealed
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from tracekit.core.settings import load_settings
from tracekit.study.preregistration import FILE
from tracekit.study.report.rung_report import report_from
from tracekit.study.settings import StudySettings

RESULTS = Path(__file__).resolve().parent / "results"


def main(recipe: Path, run: Path) -> None:
    """Copy the records of finished runs and the registration, write the report beside them, print its sentences."""
    folder = RESULTS / run.name
    (folder / "results").mkdir(parents=True, exist_ok=True)
    for path in (*(run / "results").glob("*.json"), *(run / "results").glob("*.parquet")):
        shutil.copyfile(path, folder / "results" / path.name)
    shutil.copyfile(run / FILE, folder / FILE)
    result = report_from(load_settings(StudySettings, recipe), folder)
    print(result["registration"], *result["sentences"], folder / "report.html", sep="\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", type=Path)
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    main(given.recipe, given.run)
