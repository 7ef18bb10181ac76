"""What checkpoints themselves write for others to read: DPO's rejected side, and rollouts for the probes."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tracekit.core.runs import Progress
from tracekit.core.settings import build_settings
from tracekit.core.tables import CURATED, conform, write_table
from tracekit.study.paths import (
    PROBE_SPLIT,
    curated,
    model_folder,
    pairs_folder,
    problems_of,
    rollouts_folder,
    traces_of,
)
from tracekit.study.settings import StudySettings
from tracekit.study.tasks import task_of

#: Answers of a checkpoint to each training problem, among which the wrong ones become DPO's rejected side.
PAIR_SAMPLES = 4


def make_pairs(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """A checkpoint's wrong answers to the training problems beside the curated right traces, as DPO reads them."""
    folder = pairs_folder(settings, arm, seed)
    answers = answer(settings, arm, seed, "train", PAIR_SAMPLES, folder, progress)
    wrong = traces_of(answers.filter(pl.col("outcome") == "wrong"))
    asked = problems_of(settings, "train").select("problem_id", "problem", "gold", "source", "split")
    rejected = wrong.join(asked, on="problem_id").with_columns(pl.lit(False).alias("correct"))
    rows = pl.concat([curated(settings), conform(rejected, CURATED, "pairs")])
    write_table(rows, folder / "pairs.parquet", CURATED)


def roll_out(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """A checkpoint's own answers to the probing problems."""
    answer(
        settings, arm, seed, PROBE_SPLIT, settings.probing.traces_per_problem, rollouts_folder(settings, arm), progress
    )


def answer(
    settings: StudySettings, arm: str, seed: int, split: str, samples: int, folder: Path, progress: Progress
) -> pl.DataFrame:
    """COMPLETIONS of a checkpoint to a split's problems, at the study's temperature."""
    from trainer.evaluate import EvaluateSettings, evaluate_model

    tree = {
        "name": arm,
        "temperatures": (settings.temperature,),
        "samples": samples,
        "max_tokens": settings.evaluation.max_tokens,
        "seed": seed,
        **task_of(settings).asked,
    }
    asked = build_settings(EvaluateSettings, tree, f"answers of {arm}")
    return evaluate_model(model_folder(settings, arm, seed), problems_of(settings, split), asked, folder, progress)
