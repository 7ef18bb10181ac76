"""The probing stage: states of every arm and seed on the sources' traces → the protocol's result."""

from __future__ import annotations

import polars as pl

from tracekit.core.runs import Progress
from tracekit.core.tables import COMPLETIONS, STEPS, TRACES, read_table
from tracekit.study.paths import (
    PROBE_SPLIT,
    materials_folder,
    model_folder,
    problems_of,
    rollouts_folder,
    states_folder,
    traces_of,
)
from tracekit.study.settings import BASE, StudySettings
from tracekit.study.tasks import task_of


def probing_sources(settings: StudySettings) -> tuple[str, ...]:
    """Whose traces every checkpoint reads: first those that no arm wrote."""
    return (task_of(settings).neutral, *settings.probing.own_rollouts)


def probing_traces(settings: StudySettings, source: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The traces of a source that every checkpoint reads, problem beside them, and their STEPS."""
    folder, problems = materials_folder(settings) / PROBE_SPLIT, problems_of(settings, PROBE_SPLIT)
    task = task_of(settings)
    if source == task.neutral:
        traces = read_table(folder / "traces.parquet", TRACES)
        return traces.join(problems, on="problem_id"), read_table(folder / "steps.parquet", STEPS)
    traces = traces_of(read_table(rollouts_folder(settings, source) / "completions.parquet", COMPLETIONS))
    return traces.join(problems, on="problem_id"), task.label_steps(problems, traces)


def extract_run_states(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """States of one checkpoint on every source's traces, at all positions that the features are read at."""
    from probes.protocol.features import needed_positions
    from probes.states.extract import Reading, extract_states

    protocol = settings.probing.full_protocol()
    asked = settings.data.reading if settings.data is not None else {}
    for source in probing_sources(settings):
        traces, steps = probing_traces(settings, source)
        positions = needed_positions(protocol.features, protocol.position, traces, steps)
        reading = Reading(**{"positions": positions, "log_probs": arm == BASE, **asked})
        folder = states_folder(settings, source, arm, seed)
        extract_states(model_folder(settings, arm, seed), traces, steps, folder, reading, progress=progress)


def probe_runs(settings: StudySettings, progress: Progress) -> None:
    """Run the protocol over all arms; tables into probe/tables/*.parquet, the page into probe/report.html.

    The claims rest on the neutral source; the arms' own rollouts fill the arm × source matrix.
    """
    from probes.protocol.run import Source, run_protocol
    from probes.report.report import write_report

    protocol = settings.probing.full_protocol()

    def source(name: str) -> Source:
        states = {
            arm: [states_folder(settings, name, arm, seed) for seed in settings.run_seeds(arm)]
            for arm in settings.probed()
        }
        return Source(name, *probing_traces(settings, name), states)

    neutral, *others = probing_sources(settings)
    result = run_protocol(source(neutral), protocol, others=[source(name) for name in others], progress=progress)
    write_report(result, settings.output / "probe")
