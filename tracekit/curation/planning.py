"""What a curation would still have to do, and how long it would take; nothing is made."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq

from tracekit.core.runs import no_progress
from tracekit.curation.measurements import measure_all
from tracekit.curation.operator_stages import measure_operators
from tracekit.curation.reference import measure_reference, price
from tracekit.curation.settings import CurateSettings
from tracekit.curation.sources import files_of
from tracekit.curation.stage_cache import Plan

#: Characters a second on one core, by which a plan is estimated: measured with benchmarks/curation.py's tables
#: and GSM8K on a 2-core virtual machine.
SPEEDS = {
    "sources": 60e6,
    "segment": 7e6,
    "measures": 60e6,
    "golds": 50e6,
    "verify": 4e6,
    "duplicates": 40e6,
    "contamination": 50e6,
    "measurement": 20e6,
    "rule": 20e6,
}


def plan(settings: CurateSettings) -> list[tuple[str, str, str]]:
    """(stage, "made" or "to do", estimated seconds) of the measuring stages; nothing is made."""
    stages = Plan(settings.stages or settings.output / "stages")
    measured = measure_reference(settings, measure_all(settings, stages, no_progress), stages, no_progress)
    measure_operators(settings, measured, stages, no_progress)
    size = sum(_characters(file) for source in settings.sources for file in files_of(source, settings.data))

    def estimate(name: str) -> str:
        if name == "reference":
            return price(settings, measured, stages)
        return f"{size / SPEEDS[name.split('.')[0]]:,.0f} s"

    return [(name, "made" if made else "to do", "" if made else estimate(name)) for name, made in stages.stages.items()]


def _characters(file: Path) -> int:
    """Size of the text: what Parquet's footer says of its columns unpacked, else the file's size."""
    if not file.name.endswith(".parquet"):
        return file.stat().st_size * (4 if file.suffix in (".gz", ".zst") else 1)
    footer = pq.read_metadata(file)
    return sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))
