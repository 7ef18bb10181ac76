"""Where the files of a study stand.

world/ or data/         problems of each split; of the embedded world also teacher traces, corpora, the tokenizer
curation/               the curated training set, with its ledger and funnel; the same traces as text
pairs/ARM-SEED/         right traces beside wrong answers of a checkpoint, for DPO
models/ARM-SEED/        a training run; its checkpoint in final/
measures/ARM-SEED/      completions and metrics on each split, teacher-token probabilities
rollouts/ARM/           what a checkpoint answers to the probing problems
states/SOURCE/ARM-SEED/ hidden states on the traces of a source: the world's or the teacher's, or an arm's rollouts
probe/                  the probing result
views/ARM/              the trace viewer's page of an arm's first seed

A base that is given stands there once, under the first seed.
"""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tracekit.core import ids
from tracekit.core.tables import COMPLETIONS, CURATED, PROBLEMS, TRACES, conform, read_table
from tracekit.study.settings import StudySettings

#: Problems whose traces are read for hidden states: drawn as the test problems are, and apart from them.
PROBE_SPLIT = "probe"

#: Folder of the trace viewer's pages.
VIEWS = "views"


def model_folder(settings: StudySettings, arm: str, seed: int) -> Path:
    """The checkpoint of an arm."""
    return settings.output / "models" / settings.run_name(arm, seed) / "final"


def measures_folder(settings: StudySettings, arm: str, seed: int) -> Path:
    """What was measured on an arm."""
    return settings.output / "measures" / settings.run_name(arm, seed)


def pairs_folder(settings: StudySettings, arm: str, seed: int) -> Path:
    """Right traces and wrong answers of a checkpoint: `pairs.parquet`, as CURATED."""
    return settings.output / "pairs" / settings.run_name(arm, seed)


def rollouts_folder(settings: StudySettings, arm: str) -> Path:
    """What an arm's first seed answers to the probing problems."""
    return settings.output / "rollouts" / arm


def states_folder(settings: StudySettings, source: str, arm: str, seed: int) -> Path:
    """An arm's hidden states on the traces of a source."""
    return settings.output / "states" / source / settings.run_name(arm, seed)


def view_of(settings: StudySettings, arm: str) -> Path:
    """The trace viewer's page of an arm's first seed."""
    return settings.output / VIEWS / arm / "index.html"


def materials_folder(settings: StudySettings) -> Path:
    """Problems of every split, and what was made with them."""
    return settings.output / ("world" if settings.data is None else "data")


def problems_of(settings: StudySettings, split: str) -> pl.DataFrame:
    """PROBLEMS of a split."""
    return read_table(materials_folder(settings) / split / "problems.parquet", PROBLEMS)


def corpus_file(settings: StudySettings, seed: int) -> Path:
    """What one seed of a base is pre-trained on."""
    return materials_folder(settings) / f"corpus-{seed}.parquet"


def curated_file(settings: StudySettings) -> Path:
    """Where the curated set stands that the arms are trained on."""
    return settings.output / "curation" / ("curated.parquet" if settings.data is None else "train.parquet")


def curated(settings: StudySettings) -> pl.DataFrame:
    """The curated set that the arms are trained on."""
    return read_table(curated_file(settings), CURATED)


def text_file(settings: StudySettings) -> Path:
    """Where its text stands."""
    return settings.output / "curation" / "text.parquet"


def traces_of(completions: pl.DataFrame) -> pl.DataFrame:
    """COMPLETIONS as TRACES, each distinct answer of a problem once; an empty answer has no token to read."""
    rows = [
        (ids.trace_id(problem, author, response), problem, author, response, tokens, outcome == "correct")
        for problem, author, response, tokens, outcome in completions.select(
            "problem_id", "model", "response", "token_count", "outcome"
        ).iter_rows()
        if response.strip()
    ]
    columns = ["trace_id", "problem_id", "author", "response", "token_count", "flagged_correct"]
    frame = pl.DataFrame(rows, schema={name: TRACES[name] for name in columns}, orient="row")
    return conform(frame.unique("trace_id", keep="first", maintain_order=True), TRACES, "traces")


def completions_of(settings: StudySettings, arm: str, seed: int, name: str) -> pl.DataFrame:
    """COMPLETIONS of one checkpoint on a split, on the deep set, or of the sweep."""
    return read_table(measures_folder(settings, arm, seed) / name / "completions.parquet", COMPLETIONS)
