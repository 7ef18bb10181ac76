"""One feature read from a checkpoint of a study with rungs: on held-out problems, from one step of each trace.

The step is the last one, or the square within the operation ^ where problems of the knowledge gap are read.

A problem gives one row, so that rows are independent. The probe is a least-squares probe of the last layer, fitted on
the first half of the problems, its ridge chosen there; the second half is read. Every checkpoint of a study reads the
same problems and the same right traces. Beside it stands a probe of the text: the last token and the value before it,
each as one-hot vector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tracekit.study.settings import StudySettings
from tracekit.study.tasks.chains import SQUARE, label_steps, make_problems
from tracekit.study.tasks.teachers import teach

SEED = 1_000_003  # added to the study's: these problems are none of training or testing
RIDGES = tuple(10.0**k for k in range(-6, 3))  # in units of the Gram's mean diagonal
FOLDS = 5


def measure_probe(settings: StudySettings, model: Path, folder: Path) -> dict[str, Any]:
    """feature, position, layer, problems, auc, text_auc, and right, text_right: a 0 or 1 for each held-out problem.

    Raises FeatureError where the feature has other than two classes.
    """
    from probes.protocol.features import FeatureError, find_feature, label_rows
    from probes.states.extract import Reading, extract_states

    traces, steps = read_traces(settings)
    feature = find_feature(settings.probing.features[0], traces, steps)
    position = feature.at(None)
    states = extract_states(model, traces, steps, folder / "states", Reading(positions=(position,)))
    labels = label_rows(states.index, traces, steps, feature)
    if labels.task != "binary":
        raise FeatureError(f"feature {feature.name} is {labels.task}; a study with rungs reads one of two classes.")
    read_at = states.index.filter(pl.Series(labels.defined))
    if settings.probing.split == "gap":
        read_at = read_at.join(steps.filter(pl.col("operator") == SQUARE), on=["trace_id", "step"], how="semi")
    rows = _last_rows(read_at, steps)
    positive = labels.targets(rows["row"].to_numpy())[0] > 0
    half = len(positive) // 2
    x = states.read(states.layers[-1], rows["row"].to_numpy())
    read, text = (_held_out(part, positive, half) for part in (x, _one_hot(rows)))
    return {
        "feature": feature.name,
        "position": position,
        "layer": states.layers[-1],
        "problems": len(positive) - half,
        "auc": _auc(read, positive[half:]),
        "text_auc": _auc(text, positive[half:]),
        "right": _flags((read > 0) == positive[half:]),
        "text_right": _flags((text > 0) == positive[half:]),
    }


def read_traces(settings: StudySettings) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The right traces that are read, problem beside them, and their STEPS."""
    world = settings.world.model_copy(update={"teacher": "right", "teacher_errors": 0.0})
    problems = make_problems(world, settings.probing.split, settings.problems.probe, settings.seed + SEED)
    traces = teach(world, problems, settings.seed + SEED)
    return traces.join(problems, on="problem_id"), label_steps(problems, traces, world)


def _last_rows(index: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """The last row of each trace: row, token_id and the value `before` its step, ordered by trace."""
    before = steps.select(
        "trace_id", "step", pl.col("value").shift(1).over("trace_id", order_by="step").alias("before")
    )
    joined = index.join(before, on=["trace_id", "step"], how="left")
    return joined.sort("trace_id", "step").group_by("trace_id", maintain_order=True).last()


def _one_hot(rows: pl.DataFrame) -> np.ndarray:
    """(rows, tokens + values): the last token and the value before it."""
    parts = []
    for column in ("token_id", "before"):
        values = rows[column].fill_null(-1).to_numpy()
        parts.append((values[:, None] == np.unique(values)[None, :]).astype(np.float64))
    return np.hstack(parts)


def _held_out(x: np.ndarray, positive: np.ndarray, half: int) -> np.ndarray:
    """Decisions of the second half by a probe of the first."""
    from probes.svm import least_squares

    x = np.asarray(x, dtype=np.float64)
    z = (x - x[:half].mean(0)) / np.maximum(x[:half].std(0), 1e-8)
    z /= np.sqrt(max(float((z[:half] ** 2).sum(1).mean()), 1e-12))
    target = np.where(positive[:half], 1.0, -1.0)
    gram, folds = z[:half] @ z[:half].T, np.arange(half) % FOLDS
    scores = []
    for ridge in RIDGES:
        inner = least_squares.held_out_operator(least_squares.bordered_inverse(gram, ridge), folds) @ target
        scores.append(_auc(inner, positive[:half]))
    weights, bias = least_squares.fit(gram, target, RIDGES[int(np.argmax(scores))])
    return np.asarray(z[half:] @ z[:half].T @ weights[0] + bias[0])


def _auc(decisions: np.ndarray, positive: np.ndarray) -> float:
    from probes.statistics.auc import fold_auc

    folds = np.zeros(len(positive), dtype=np.int64)
    return float(fold_auc(decisions[None], np.where(positive, 1.0, -1.0)[None], folds)[0])


def _flags(flags: np.ndarray) -> str:
    return "".join("1" if flag else "0" for flag in flags)
