"""A study with rungs: one skill base a seed, a habit a rung by mid-training, and the arms at each rung.

    [rungs.sealed]
    habit = 0.0
    [rungs.edge]
    habit = 0.01

A run is named RUNG.ARM-SEED, the base of a rung RUNG-SEED. Every job leaves one small record, results/RUN.json, and a
run of RL its curve, results/RUN.parquet: what is published, and what the analysis reads.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tracekit.study.jobs import Job
from tracekit.study.settings import BASE, Arm, StudySettings


@dataclass(frozen=True, slots=True)
class Run:
    """An arm at a rung on a seed; `arm` is BASE for the rung's own base."""

    rung: str
    arm: str
    seed: int

    @property
    def name(self) -> str:
        """How its folder and its jobs are called."""
        return f"{self.rung}-{self.seed}" if self.arm == BASE else f"{self.rung}.{self.arm}-{self.seed}"


def runs_of(settings: StudySettings) -> Iterator[Run]:
    """Every run, an arm after the one that it starts from."""
    ordered = list(dict.fromkeys(arm for arm, _ in settings.runs() if arm != BASE))
    for seed in settings.seeds:
        for rung in settings.rungs:
            yield Run(rung, BASE, seed)
            for arm in ordered:
                if runs_at(settings.arms[arm], rung):
                    yield Run(rung, arm, seed)


def runs_at(arm: Arm, rung: str) -> bool:
    """Whether an arm runs at a rung."""
    return arm.rungs is None or rung in arm.rungs


def start_of(settings: StudySettings, run: Run) -> Run:
    """The run whose checkpoint a run starts from."""
    return Run(run.rung, settings.arms[run.arm].start, run.seed)


def phase_of(settings: StudySettings, run: Run) -> int:
    """When the jobs of a run come: those of its rung, its arm, and what it starts from must all have come."""
    own = settings.rungs[run.rung].phase
    return own if run.arm == BASE else max(own, settings.arms[run.arm].phase)


def teacher_of(settings: StudySettings, run: Run) -> Run | None:
    """The run whose checkpoint teaches a run of on-policy distillation; None elsewhere."""
    name = None if run.arm == BASE else settings.arms[run.arm].distill_from
    return None if name is None else Run(run.rung, name, run.seed)


def _needs(settings: StudySettings, run: Run) -> tuple[str, ...]:
    """The jobs that a run's job comes after."""
    if run.arm == BASE:
        return (f"skill-{run.seed}",)
    teacher = teacher_of(settings, run)
    return tuple(f"run-{one.name}" for one in (start_of(settings, run), teacher) if one is not None)


def rung_jobs(settings: StudySettings) -> list[Job]:
    """The graph, in the order in which ready jobs are taken: by phase, then seed by seed."""
    first = [Job("world", "world")]
    keyed: list[tuple[tuple[int, int], Job]] = []
    for place, seed in enumerate(settings.seeds):
        phases = [settings.rungs[rung].phase for rung in settings.rungs]
        keyed.append(((min(phases), place), Job(f"skill-{seed}", "pretrain", ("world",))))
    for run in runs_of(settings):
        key = (phase_of(settings, run), settings.seeds.index(run.seed))
        keyed.append((key, Job(f"run-{run.name}", "train", _needs(settings, run))))
    return first + [job for _, job in sorted(keyed, key=lambda pair: pair[0])]
