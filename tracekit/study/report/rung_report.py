"""The report of a study with rungs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tracekit.core.runs import write_text
from tracekit.study.analysis.registered import conclude, read_records
from tracekit.study.analysis.sealed_claims import CLAIMS
from tracekit.study.preregistration import standing
from tracekit.study.settings import StudySettings


def write_rung_report(settings: StudySettings, jobs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Write result.json; returns what it holds."""
    records = read_records(settings, settings.output / "results")
    registered, note = standing(settings)
    claims = conclude(CLAIMS, records)
    result = {"registered": registered, "registration": note, "claims": claims, "gates": []}
    write_text(settings.output / "result.json", json.dumps(result, indent=1))
    return result
