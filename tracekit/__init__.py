"""Curate and verify reasoning traces for training; collect, read, view and study them."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__: str

if TYPE_CHECKING:
    from tracekit.collection.collect import CollectSettings as CollectSettings
    from tracekit.collection.collect import collect as collect
    from tracekit.core.settings import load_settings as load_settings
    from tracekit.core.tables import COMPLETIONS as COMPLETIONS
    from tracekit.core.tables import CURATED as CURATED
    from tracekit.core.tables import LEDGER as LEDGER
    from tracekit.core.tables import PROBLEMS as PROBLEMS
    from tracekit.core.tables import STATES_INDEX as STATES_INDEX
    from tracekit.core.tables import STEPS as STEPS
    from tracekit.core.tables import TRACES as TRACES
    from tracekit.core.tables import VERDICTS as VERDICTS
    from tracekit.core.tables import read_table as read_table
    from tracekit.core.tables import write_table as write_table
    from tracekit.curation.curate import CurateSettings as CurateSettings
    from tracekit.curation.curate import curate as curate
    from tracekit.curation.curate import export as export
    from tracekit.curation.curate import restore as restore
    from tracekit.curation.ledger import diff as diff
    from tracekit.curation.ledger import why as why
    from tracekit.curation.operators import exporter as exporter
    from tracekit.curation.operators import measurement as measurement
    from tracekit.curation.operators import rule as rule
    from tracekit.reading.formats import source_format as source_format
    from tracekit.reading.readers import SourceSettings as SourceSettings
    from tracekit.reading.readers import read_source as read_source
    from tracekit.study.run import run_study as run_study
    from tracekit.study.settings import StudySettings as StudySettings
    from tracekit.text.contamination import contaminated as contaminated
    from tracekit.text.duplicates import near_duplicates as near_duplicates
    from tracekit.text.segment import Step as Step
    from tracekit.text.segment import segment as segment
    from tracekit.viewer.build import build_view as build_view

#: Public name → the module that holds it. A module is imported when one of its names is first used.
_MODULES = {
    "CollectSettings": "tracekit.collection.collect",
    "collect": "tracekit.collection.collect",
    "load_settings": "tracekit.core.settings",
    "COMPLETIONS": "tracekit.core.tables",
    "CURATED": "tracekit.core.tables",
    "LEDGER": "tracekit.core.tables",
    "PROBLEMS": "tracekit.core.tables",
    "STATES_INDEX": "tracekit.core.tables",
    "STEPS": "tracekit.core.tables",
    "TRACES": "tracekit.core.tables",
    "VERDICTS": "tracekit.core.tables",
    "read_table": "tracekit.core.tables",
    "write_table": "tracekit.core.tables",
    "CurateSettings": "tracekit.curation.curate",
    "curate": "tracekit.curation.curate",
    "restore": "tracekit.curation.curate",
    "export": "tracekit.curation.curate",
    "diff": "tracekit.curation.ledger",
    "why": "tracekit.curation.ledger",
    "exporter": "tracekit.curation.operators",
    "measurement": "tracekit.curation.operators",
    "rule": "tracekit.curation.operators",
    "source_format": "tracekit.reading.formats",
    "SourceSettings": "tracekit.reading.readers",
    "read_source": "tracekit.reading.readers",
    "run_study": "tracekit.study.run",
    "StudySettings": "tracekit.study.settings",
    "contaminated": "tracekit.text.contamination",
    "near_duplicates": "tracekit.text.duplicates",
    "Step": "tracekit.text.segment",
    "segment": "tracekit.text.segment",
    "build_view": "tracekit.viewer.build",
}

__all__ = [
    "COMPLETIONS",
    "CURATED",
    "LEDGER",
    "PROBLEMS",
    "STATES_INDEX",
    "STEPS",
    "TRACES",
    "VERDICTS",
    "CollectSettings",
    "CurateSettings",
    "SourceSettings",
    "Step",
    "StudySettings",
    "__version__",
    "build_view",
    "collect",
    "contaminated",
    "curate",
    "diff",
    "export",
    "exporter",
    "load_settings",
    "measurement",
    "near_duplicates",
    "read_source",
    "read_table",
    "restore",
    "rule",
    "run_study",
    "segment",
    "source_format",
    "why",
    "write_table",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        return metadata.version("reasoning-tracekit")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value  # a module of the same name must not take its place later
    return value


def __dir__() -> list[str]:
    return __all__
