"""A dry run of a study: its jobs, and what its training runs would take by formula."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from rich.table import Table

from tracekit.core.settings import SettingsError, load_settings
from tracekit.study.pipeline import jobs_of
from tracekit.study.settings import BASE, StudySettings
from tracekit.study.steps.training import train_settings
from tracekit.study.tasks import task_of
from trainer.planning.estimate import HARDWARE, Estimate, Hardware, Workload, estimate


@dataclass(frozen=True, slots=True)
class ArmPlan:
    """What one run of an arm is expected to take, what it starts from left out, and how many runs there are."""

    arm: str
    runs: int
    estimate: Estimate

    @property
    def hours(self) -> float:
        """Of one run."""
        return sum(self.estimate.hours.values())


@dataclass(frozen=True, slots=True)
class StudyPlan:
    """jobs: of each stage. work: what is assumed of lengths and rows. arms: those that are trained."""

    jobs: Counter[str]
    work: Workload
    hardware: Hardware
    arms: tuple[ArmPlan, ...]


def plan_study(settings: StudySettings, overrides: Sequence[str] = (), hardware: str | None = None) -> StudyPlan:
    """Plan a study without making or training anything; of a model that stands only the configuration is read.

    overrides: `work.KEY=…` and `hardware.KEY=…`. hardware: a name in trainer.planning.estimate.HARDWARE; None: 8
    H100 for
    public data, one core for the embedded world. Raises SettingsError, and ModelError where there is no configuration.
    """
    outlook = task_of(settings).outlook()
    name = hardware or outlook.hardware
    if name not in HARDWARE:
        raise SettingsError(f"hardware is {name!r}; expected one of {', '.join(HARDWARE)}.")
    machine = HARDWARE[name].model_copy(update=_told(Hardware, "hardware.", overrides))
    work = Workload(**outlook.lengths | _told(Workload, "work.", overrides))
    trained = [arm for arm in dict.fromkeys(arm for arm, _ in settings.runs()) if _is_trained(settings, arm)]
    arms = []
    for arm in trained:
        seeds = settings.run_seeds(arm)
        resolved = train_settings(settings, arm, seeds[0])
        own = work if arm != BASE else work.model_copy(update={"rows": settings.corpus})
        arms.append(ArmPlan(arm, len(seeds), estimate(outlook.config, resolved, own, machine)))
    return StudyPlan(Counter(job.stage for job in jobs_of(settings)), work, machine, tuple(arms))


def _is_trained(settings: StudySettings, arm: str) -> bool:
    return settings.data is None if arm == BASE else settings.arms[arm].model is None


def _told(kind: type[Hardware] | type[Workload], prefix: str, overrides: Sequence[str]) -> dict[str, object]:
    words = [word.removeprefix(prefix) for word in overrides if word.startswith(prefix)]
    return load_settings(kind, None, words).model_dump(exclude_unset=True)


def plan_table(settings: StudySettings, plan: StudyPlan) -> Table:
    """The plan as a person reads it: a row an arm."""
    drawn = Table(title=settings.title, title_justify="left")
    drawn.add_column("arm")
    for column in ("runs", "steps", "hours a run", "hours of all", "device-hours of all", "GB of a device"):
        drawn.add_column(column, justify="right")
    for one in plan.arms:
        fits = "" if one.estimate.peak <= plan.hardware.memory else " of too few"
        drawn.add_row(
            one.arm,
            str(one.runs),
            f"{one.estimate.steps:,}",
            _short(one.hours),
            _short(one.runs * one.hours),
            _short(one.runs * one.estimate.device_hours),
            f"{_short(one.estimate.peak / 1e9)}{fits}",
        )
    hours = sum(one.runs * one.hours for one in plan.arms)
    drawn.add_section()
    drawn.add_row(
        "all", str(sum(one.runs for one in plan.arms)), "", "", _short(hours), _short(plan.hardware.devices * hours),
        _short(max((one.estimate.peak for one in plan.arms), default=0.0) / 1e9),
    )  # fmt: skip
    return drawn


def told(plan: StudyPlan) -> list[str]:
    """The jobs, and what the figures rest on and leave out."""
    jobs = ", ".join(f"{count} {stage}" for stage, count in plan.jobs.items())
    work = ", ".join(f"{name.replace('_', ' ')} {value:,.6g}" for name, value in plan.work.model_dump().items())
    return [
        f"jobs: {jobs}",
        f"assumed: {work}; {plan.hardware.devices} × {plan.hardware.memory / 1e9:.0f} GB",
        "Estimates by formula of training alone. Curation, evaluation, hidden states and probes come on top.",
    ]


def _short(value: float) -> str:
    """Three digits."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
