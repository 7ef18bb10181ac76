"""The probing stage: states of every arm and seed on one neutral set of traces → the protocol's result."""

from __future__ import annotations

from pathlib import Path

from tracekit.config import build_settings
from tracekit.runs import Progress
from tracekit.study.places import probing_traces, states_folder
from tracekit.study.settings import BASE, StudySettings


def probe_runs(settings: StudySettings, progress: Progress) -> None:
    """Run the protocol over all arms; tables into probe/*.parquet, the page into probe/report.html."""
    from probes.protocol import Source, run_protocol
    from probes.report import write_report
    from probes.settings import ProtocolSettings

    traces, steps = probing_traces(settings)
    arms = [BASE, *settings.arms]
    tree = {"base": BASE, "features": settings.probing.features, "position": settings.probing.position}
    protocol = build_settings(ProtocolSettings, tree | settings.probing.protocol, "probing.protocol")
    states: dict[str, list[Path]] = {
        arm: [states_folder(settings, arm, seed) for seed in settings.seeds_of(arm)] for arm in arms
    }
    source = Source("world", traces, steps, states)
    result = run_protocol(source, protocol, progress=progress)
    write_report(result, settings.output / "probe")
