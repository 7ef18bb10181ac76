"""What is predicted: labels of the rows of the states, read from traces and steps.

A feature is one column of labels aligned with the states' index: True/False, a class, or a number; null where
it is not defined (the operator after the last step). `targets` turns labels into the vectors that are fitted:
one for a binary or real-valued feature, one for each class (against the rest) otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import polars as pl

from probes.states.places import Position, parse_position

Task = Literal["binary", "classes", "real"]


class FeatureError(ValueError):
    """A feature cannot be probed: the message names the column, the count and the remedy."""


@dataclass(frozen=True)
class Feature:
    """A feature by name.

    task: "binary", "classes" or "real". position: where it is probed unless a position is set; pinned: its name says
    where (`value_parity@before_result`). needs: (table, column) it is read from. expression: over the rows of the
    index joined with traces and steps (step columns as `step_…`, the next step's as `next_…`). of_problem: one row a
    problem is kept.
    """

    name: str
    task: Task
    position: Position
    needs: tuple[str, str]
    expression: Callable[[], pl.Expr]
    says: str
    of_problem: bool = False
    pinned: bool = False

    def at(self, position: Position | None) -> Position:
        """Where it is probed: where its name pins it, else at `position`, else at its own."""
        return self.position if self.pinned or position is None else position


def _parity(column: str) -> pl.Expr:
    """Whether a value is odd; fractions have no parity."""
    value = pl.col(column)
    return pl.when(value == value.round()).then(value.abs() % 2 == 1)


def _signed_log(column: str) -> pl.Expr:
    return pl.col(column).sign() * pl.col(column).abs().log1p()


_FEATURES = (
    Feature(
        "final_correct",
        "binary",
        "before_answer",
        ("traces", "correct"),
        lambda: pl.col("correct"),
        "the final answer is correct",
    ),
    Feature(
        "step_correct",
        "binary",
        "step_end",
        ("steps", "correct"),
        lambda: pl.col("step_correct"),
        "the step is correct",
    ),
    Feature("step_kind", "classes", "step_end", ("steps", "kind"), lambda: pl.col("step_kind"), "the step's kind"),
    Feature(
        "next_operator",
        "classes",
        "step_end",
        ("steps", "operator"),
        lambda: pl.col("next_operator"),
        "the operator of the next step",
    ),
    Feature(
        "value_parity",
        "binary",
        "step_end",
        ("steps", "value"),
        lambda: _parity("step_value"),
        "the running value is odd",
    ),
    # ---- what the text does not hold yet, where it is read
    Feature(
        "result_parity",
        "binary",
        "before_result",
        ("steps", "value"),
        lambda: _parity("step_value"),
        "the result about to be written is odd",
    ),
    Feature(
        "result_correct",
        "binary",
        "before_result",
        ("steps", "correct"),
        lambda: pl.col("step_correct"),
        "the step whose result is about to be written is correct",
    ),
    Feature(
        "next_value",
        "real",
        "step_end",
        ("steps", "value"),
        lambda: _signed_log("next_value"),
        "the next step's value, as signed log(1 + |v|)",
    ),
    Feature(
        "next_parity",
        "binary",
        "step_end",
        ("steps", "value"),
        lambda: _parity("next_value"),
        "the next step's value is odd",
    ),
    Feature(
        "next_correct",
        "binary",
        "step_end",
        ("steps", "correct"),
        lambda: pl.col("next_correct"),
        "the next step is correct",
    ),
    Feature(
        "final_answer",
        "real",
        "step_end",
        ("steps", "value"),
        lambda: pl.when(pl.col("steps_left") > 0).then(_signed_log("final_value")),
        "the last value of the trace, as signed log(1 + |v|)",
    ),
    Feature(
        "final_parity",
        "binary",
        "step_end",
        ("steps", "value"),
        lambda: pl.when(pl.col("steps_left") > 0).then(_parity("final_value")),
        "the last value of the trace is odd",
    ),
    Feature(
        "answer_correct",
        "binary",
        "step_end",
        ("traces", "correct"),
        lambda: pl.when(pl.col("steps_left") > 0).then(pl.col("correct")),
        "the answer to come is correct",
    ),
    Feature(
        "value_sign",
        "binary",
        "step_end",
        ("steps", "value"),
        lambda: pl.col("step_value") < 0,
        "the running value is negative",
    ),
    Feature(
        "value_size",
        "binary",
        "step_end",
        ("steps", "value"),
        lambda: pl.col("step_value").abs() > pl.col("step_value").abs().median(),
        "the running value's size is above the median",
    ),
    Feature(
        "value",
        "real",
        "step_end",
        ("steps", "value"),
        lambda: _signed_log("step_value"),
        "the running value, as signed log(1 + |v|)",
    ),
    Feature(
        "imitation",
        "binary",
        "before_answer",
        ("traces", "imitation"),
        lambda: pl.col("imitation"),
        "a teacher wrote the trace, not the model itself",
    ),
    Feature(
        "difficulty",
        "binary",
        "prompt_end",
        ("traces", "pass_rate"),
        lambda: pl.col("pass_rate") < pl.col("pass_rate").median(),
        "the base's pass rate on the problem is below the median",
        of_problem=True,
    ),
    Feature(
        "problem_type",
        "classes",
        "prompt_end",
        ("traces", "kind"),
        lambda: pl.col("kind"),
        "the problem's type",
        of_problem=True,
    ),
    Feature(
        "answer_distance",
        "real",
        "step_end",
        ("steps", "kind"),
        lambda: pl.col("steps_left").cast(pl.Float64),
        "steps left to the end of the trace",
    ),
)

#: Every feature by name.
FEATURES: dict[str, Feature] = {feature.name: feature for feature in _FEATURES}


def find_feature(name: str, traces: pl.DataFrame, steps: pl.DataFrame) -> Feature:
    """The feature of this name, or a column of your own in `traces` or `steps`; NAME@POSITION says where it is read.

    Raises FeatureError, and PositionError where the position is unknown.
    """
    plain, pinned, position = name.rpartition("@")
    if pinned and name not in {*traces.columns, *steps.columns}:
        parse_position(position)
        return replace(find_feature(plain, traces, steps), name=name, position=position, pinned=True)
    if name in FEATURES:
        return FEATURES[name]
    table, frame = ("traces", traces) if name in traces.columns else ("steps", steps)
    if name not in frame.columns:
        raise FeatureError(
            f"{name} is no feature and no column; features: {', '.join(FEATURES)}; columns of traces: "
            f"{', '.join(traces.columns)}; of steps: {', '.join(steps.columns)}."
        )
    kind = frame.schema[name]
    if kind.is_nested() or kind == pl.Binary:
        raise FeatureError(
            f"column {name} of {table} is {kind}; a feature is one value a row: Boolean, a class, or a float."
        )
    task: Task = "binary" if kind == pl.Boolean else "real" if kind.is_float() else "classes"
    column, position = (name, "before_answer") if table == "traces" else (f"step_{name}", "step_end")
    return Feature(name, task, position, (table, name), lambda: pl.col(column), f"column {name} of {table}")  # type: ignore[arg-type]


def needed_positions(
    features: Sequence[str], position: Position | None, traces: pl.DataFrame, steps: pl.DataFrame
) -> tuple[Position, ...]:
    """The positions that states of these features are read at, each once. Raises FeatureError or PositionError.

    position: of features that name none themselves; None: each one's own.
    """
    wanted = (find_feature(name, traces, steps).at(position) for name in features)
    return tuple(dict.fromkeys(wanted))


@dataclass(frozen=True)
class Labels:
    """A feature's labels on the rows of an index.

    values: null-free where `defined`; bool, str or float. classes: the names behind the targets' rows.
    """

    name: str
    task: Task
    values: pl.Series
    defined: np.ndarray
    classes: tuple[str, ...]

    def targets(self, rows: np.ndarray) -> np.ndarray:
        """(targets, len(rows)): -1 / +1 for binary and one-against-rest classes, standardised for real values."""
        picked = self.values.gather(rows)
        if self.task == "real":
            numbers = picked.cast(pl.Float64).to_numpy()
            spread = numbers.std()
            return ((numbers - numbers.mean()) / (spread if spread > 0 else 1.0))[None]
        text = picked.cast(pl.String).to_numpy()
        names = self.classes[1:] if self.task == "binary" else self.classes
        return np.stack([np.where(text == name, 1.0, -1.0) for name in names])


def label_rows(index: pl.DataFrame, traces: pl.DataFrame, steps: pl.DataFrame, feature: Feature) -> Labels:
    """Labels of a feature for every row of `index` (STATES_INDEX); a trace's column labels all its rows.

    Raises FeatureError where the table lacks the column or the labels are of one class.
    """
    table, column = feature.needs
    frame = {"traces": traces, "steps": steps}[table]
    if column not in frame.columns or frame[column].null_count() == len(frame):
        found = "absent" if column not in frame.columns else f"null in all {len(frame)} rows"
        raise FeatureError(
            f"feature {feature.name} is read from {table}.{column}, which is {found}; add it or leave the feature out."
        )
    values = _joined(index, traces, steps).select(feature.expression().alias(feature.name)).to_series()
    return _labels(feature.name, feature.task, values)


def _joined(index: pl.DataFrame, traces: pl.DataFrame, steps: pl.DataFrame) -> pl.DataFrame:
    """The index's rows, in order, with their trace's columns, their step's and the next step's."""
    doubled = traces["trace_id"].is_duplicated().sum()
    if doubled:
        raise FeatureError(f"traces.trace_id repeats in {doubled} rows; keep one row a trace.")
    ordered = steps.sort("trace_id", "step")
    own = ordered.rename({c: f"step_{c}" for c in ordered.columns if c not in ("trace_id", "step")})
    own = own.with_columns(
        *(pl.col(f"step_{c}").shift(-1).over("trace_id").alias(f"next_{c}") for c in ("operator", "value", "correct")),
        pl.col("step_value").drop_nulls().last().over("trace_id").alias("final_value"),
        (pl.len().over("trace_id") - 1 - pl.int_range(pl.len()).over("trace_id")).alias("steps_left"),
    )
    keys = index.select("trace_id", "step")
    about = traces.drop([c for c in ("step", *own.columns[2:]) if c in traces.columns])
    return keys.join(about, on="trace_id", how="left", maintain_order="left").join(
        own, on=["trace_id", "step"], how="left", maintain_order="left"
    )


def _labels(name: str, task: Task, values: pl.Series) -> Labels:
    if values.dtype.is_float():
        endless = int(values.is_infinite().sum())
        if endless:
            raise FeatureError(f"feature {name} is infinite in {endless} of {len(values)} rows; make them null.")
        values = values.fill_nan(None)
    defined = values.is_not_null().to_numpy()
    distinct = values.drop_nulls().unique().sort()
    if len(distinct) < 2:
        found = f"only {distinct[0]!r} in {int(defined.sum())} rows" if len(distinct) else "no label at all"
        raise FeatureError(f"feature {name} has {found}; two classes are needed: widen the traces or leave it out.")
    classes = () if task == "real" else tuple(str(v) for v in distinct.cast(pl.String))
    if task == "classes" and len(classes) == 2:
        task = "binary"
    return Labels(name, task, values, defined, classes)
