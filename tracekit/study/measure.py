"""What is measured on each checkpoint: completions on every split, deep pass@k, the temperature sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from tracekit.config import build_settings
from tracekit.runs import Progress
from tracekit.study.places import measures_folder, model_folder, problems_of
from tracekit.study.settings import IN_DISTRIBUTION, SPLITS, StudySettings

DEEP = "deep"
SWEEP = "sweep"


def evaluate_run(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """Sample and verify everything that the study asks of one checkpoint."""
    evaluation = settings.evaluation
    for split in SPLITS:
        asked = {"temperatures": (0.0, 1.0), "samples": evaluation.samples}
        _evaluate(settings, arm, seed, split, problems_of(settings, split), asked, progress)
    in_distribution = problems_of(settings, IN_DISTRIBUTION)
    if evaluation.deep_samples and arm in evaluation.deep_arms:
        asked = {"temperatures": (1.0,), "samples": evaluation.deep_samples}
        # a part of four problems is some 4,000 completions: what a kill costs
        deep = asked | {"problems_per_part": 4}
        _evaluate(settings, arm, seed, DEEP, in_distribution.head(evaluation.deep_problems), deep, progress)
    if evaluation.temperatures:
        asked = {"temperatures": evaluation.temperatures, "samples": evaluation.sweep_samples}
        _evaluate(settings, arm, seed, SWEEP, in_distribution, asked, progress)


def _evaluate(
    settings: StudySettings,
    arm: str,
    seed: int,
    name: str,
    problems: pl.DataFrame,
    asked: dict[str, Any],
    progress: Progress,
) -> None:
    from trainer.evaluate import EvaluateSettings, evaluate_model

    fixed = {"name": arm, "max_tokens": settings.evaluation.max_tokens, "prompt_tokens": 64, "seed": seed, "threads": 1}
    evaluate_settings = build_settings(EvaluateSettings, fixed | asked, f"evaluation of {arm}")
    folder = measures_folder(settings, arm, seed) / name
    evaluate_model(model_folder(settings, arm, seed), problems, evaluate_settings, folder, progress)


def summary_of(folder: Path) -> pl.DataFrame:
    """The summary that the evaluation left in its folder."""
    return pl.read_parquet(folder / "summary.parquet")
