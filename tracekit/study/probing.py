"""The probing stage: states of every arm and seed on the sources' traces → the protocol's result."""

from __future__ import annotations

from tracekit.config import build_settings
from tracekit.runs import Progress
from tracekit.study.places import NEUTRAL, probing_sources, probing_traces, states_folder
from tracekit.study.settings import BASE, StudySettings


def probe_runs(settings: StudySettings, progress: Progress) -> None:
    """Run the protocol over all arms; tables into probe/tables/*.parquet, the page into probe/report.html.

    The claims rest on the neutral source; the arms' own rollouts fill the arm × source matrix.
    """
    from probes.protocol import Source, run_protocol
    from probes.report import write_report
    from probes.settings import ProtocolSettings

    tree = {"base": BASE, "features": settings.probing.features, "position": settings.probing.position}
    protocol = build_settings(ProtocolSettings, tree | settings.probing.protocol, "probing.protocol")

    def source(name: str) -> Source:
        states = {
            arm: [states_folder(settings, name, arm, seed) for seed in settings.seeds_of(arm)]
            for arm in settings.probed()
        }
        return Source(name, *probing_traces(settings, name), states)

    others = [source(name) for name in probing_sources(settings) if name != NEUTRAL]
    result = run_protocol(source(NEUTRAL), protocol, others=others, progress=progress)
    write_report(result, settings.output / "probe")
