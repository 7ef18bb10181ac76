"""What a study can be about, and which of the two a study is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the settings import this package's chains
    from tracekit.study.settings import StudySettings
    from tracekit.study.tasks.task import Task

__all__ = ["task_of"]


def task_of(settings: StudySettings) -> Task:
    """Return the task of a study: the embedded world, or public data where the settings name some."""
    from tracekit.study.tasks.embedded import EmbeddedWorld
    from tracekit.study.tasks.public import PublicStudy

    return EmbeddedWorld(settings) if settings.data is None else PublicStudy(settings)
