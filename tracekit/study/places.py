"""Where the files of a study stand.

world/        problems and teacher traces of each split, corpora, the tokenizer
curation/     the curated training set, with its ledger and funnel
models/ARM-SEED/        a training run; its checkpoint in final/
measures/ARM-SEED/      completions and metrics on each split, teacher-token probabilities
states/ARM-SEED/        hidden states on the probing traces
probe/        the probing result
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tracekit.study.settings import StudySettings
from tracekit.tables import COMPLETIONS, PROBLEMS, STEPS, TRACES, read_table

#: Problems whose traces are read for hidden states: drawn as the test problems are, and apart from them.
PROBE_SPLIT = "probe"


def model_folder(settings: StudySettings, arm: str, seed: int) -> Path:
    """The checkpoint of an arm."""
    return settings.output / "models" / f"{arm}-{seed}" / "final"


def measures_folder(settings: StudySettings, arm: str, seed: int) -> Path:
    """What was measured on an arm."""
    return settings.output / "measures" / f"{arm}-{seed}"


def states_folder(settings: StudySettings, arm: str, seed: int) -> Path:
    """An arm's hidden states on the probing traces."""
    return settings.output / "states" / f"{arm}-{seed}"


def problems_of(settings: StudySettings, split: str) -> pl.DataFrame:
    """PROBLEMS of a split."""
    return read_table(settings.output / "world" / split / "problems.parquet", PROBLEMS)


def probing_traces(settings: StudySettings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The traces that every checkpoint reads, problem beside them, and their STEPS."""
    folder = settings.output / "world" / PROBE_SPLIT
    traces = read_table(folder / "traces.parquet", TRACES)
    problems = read_table(folder / "problems.parquet", PROBLEMS)
    return traces.join(problems, on="problem_id"), read_table(folder / "steps.parquet", STEPS)


def completions_of(settings: StudySettings, arm: str, seed: int, name: str) -> pl.DataFrame:
    """COMPLETIONS of one checkpoint on a split, on the deep set, or of the sweep."""
    return read_table(measures_folder(settings, arm, seed) / name / "completions.parquet", COMPLETIONS)
