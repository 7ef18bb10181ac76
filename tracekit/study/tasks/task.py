"""What a study is about: the embedded world, or public data and a model of the hub.

All that differs between the two stands behind `Task`; jobs, statistics, claims and figures know neither.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import polars as pl

from tracekit.core.runs import Progress
from tracekit.study.jobs import Job
from trainer.settings import DataSettings

#: (kind, operator) of each step.
SolutionPath = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Words:
    """What the report says of the task: its splits, what a path is there, what the probes read, what is left out."""

    splits: str
    path: str
    read: str
    left_out: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What a dry run assumes: the configuration that training starts from, lengths in tokens, and the machine's name.

    config: a transformers configuration. lengths: keys of trainer.planning.estimate.Workload.
    """

    config: Any
    lengths: dict[str, Any]
    hardware: str


class Task(Protocol):
    """One of the two. Files go below `places.materials_folder`."""

    @property
    def neutral(self) -> str:
        """The source of the probing traces that no arm wrote."""

    @property
    def first(self) -> str:
        """Name of the job that makes the problems."""

    @property
    def environment(self) -> Mapping[str, str]:
        """Variables of the workers."""

    @property
    def pinned(self) -> Mapping[str, Any]:
        """Settings of every training run."""

    @property
    def asked(self) -> Mapping[str, Any]:
        """Settings of every evaluation."""

    @property
    def words(self) -> Words:
        """For the report."""

    def check(self) -> None:
        """Raise a ValueError where something on this machine that the study needs is not there."""

    def make_problems(self, progress: Progress) -> None:
        """PROBLEMS of the splits, and whatever else the study has before it curates."""

    def curate(self, progress: Progress) -> None:
        """The curated traces, their problems, the same as text for CPT, and the probing traces."""

    def base_jobs(self, seed: int) -> list[Job]:
        """The jobs that end with the base of a seed."""

    def make_base(self, seed: int, train_base: Callable[[int], None]) -> None:
        """The base's checkpoint. train_base: train it, given the number of the attempt."""

    def label_steps(self, problems: pl.DataFrame, traces: pl.DataFrame) -> pl.DataFrame:
        """STEPS of TRACES."""

    def path_of(self, problem: str, response: str) -> SolutionPath:
        """The way that a response takes."""

    def teacher_traces(self) -> tuple[pl.DataFrame, pl.DataFrame] | None:
        """TRACES by the teacher of the problems in distribution, one each, and others of its hand.

        None where the teacher can be asked no more.
        """

    def skill(self) -> pl.DataFrame | None:
        """seed, least, elicited: the base's forced-step accuracy; None where steps cannot be forced."""

    def taught(self) -> tuple[pl.DataFrame, DataSettings]:
        """The CURATED rows whose tokens' probabilities are measured, and how long they may be."""

    def outlook(self) -> Outlook:
        """What is known of the study before anything is made."""
