"""What is measured on each checkpoint: completions on every split, deep pass@k, the temperature sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from tracekit.core.runs import Progress
from tracekit.core.settings import build_settings
from tracekit.study.paths import measures_folder, model_folder, problems_of
from tracekit.study.settings import StudySettings
from tracekit.study.tasks import task_of

DEEP = "deep"
SWEEP = "sweep"


def evaluate_run(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """Sample and verify everything that the study asks of one checkpoint."""
    evaluation, warm = settings.evaluation, settings.temperature
    for split in settings.splits:
        asked = {"temperatures": (0.0, warm), "samples": settings.samples_of(split)}
        _evaluate(settings, arm, seed, split, problems_of(settings, split), asked, progress)
    repeated = pl.concat(problems_of(settings, split) for split in settings.repeated)
    if evaluation.deep_samples and arm in evaluation.deep_arms:
        asked = {"temperatures": (warm,), "samples": evaluation.deep_samples}
        # a part of four problems is some 4,000 completions: what a kill costs
        deep = asked | {"problems_per_part": 4}
        _evaluate(settings, arm, seed, DEEP, repeated.head(evaluation.deep_problems), deep, progress)
    if evaluation.temperatures:
        asked = {"temperatures": evaluation.temperatures, "samples": evaluation.sweep_samples}
        _evaluate(settings, arm, seed, SWEEP, repeated, asked, progress)


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

    fixed = {"name": arm, "max_tokens": settings.evaluation.max_tokens, "seed": seed, **task_of(settings).asked}
    evaluate_settings = build_settings(EvaluateSettings, fixed | asked, f"evaluation of {arm}")
    folder = measures_folder(settings, arm, seed) / name
    evaluate_model(model_folder(settings, arm, seed), problems, evaluate_settings, folder, progress)


def summary_of(folder: Path) -> pl.DataFrame:
    """The summary that the evaluation left in its folder."""
    return pl.read_parquet(folder / "summary.parquet")
