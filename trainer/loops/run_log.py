"""What a run writes while it goes on: metrics as Parquet and TensorBoard, and by accelerate's other trackers."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl
import torch
from torch import Tensor

from tracekit.core.models import first_line
from tracekit.core.runs import RunError
from tracekit.core.tables import write_table
from trainer.distributed.ranks import rank, sum_over_ranks, union_over_ranks
from trainer.settings import LogSettings

METRICS = "metrics.parquet"
TENSORBOARD = "tensorboard"


#: Columns of a completions table that trackers show.
SHOWN = ("problem", "response", "gold", "outcome", "reward", "advantage", "token_count", "finish_reason")


class Averages:
    """Sums and counts of a step, added up over micro-batches and then over ranks."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}

    def add(self, statistics: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add (sum, count) pairs of scalars."""
        for name, (total, count) in statistics.items():
            total = total.detach()
            pair = torch.stack([total.double(), count.detach().to(total.device, torch.float64)])
            self._sums[name] = self._sums[name].to(pair.device) + pair if name in self._sums else pair

    def means(self) -> dict[str, float | None]:
        """Sum over count of each name, over all ranks; None where the count is 0. Every rank must call it.

        A rank that had no row for a number adds nothing to it.
        """
        names, nothing = union_over_ranks(self._sums), torch.zeros(2, dtype=torch.float64)
        if not names:
            return {}
        table = sum_over_ranks(torch.stack([self._sums.get(name, nothing).cpu() for name in names]))
        return {name: total / count if count else None for name, (total, count) in zip(names, table.tolist())}


class RunLog:
    """Rows of metrics, one a step. Rank 0 writes; the others' calls do nothing.

    On opening, rows of steps after `step` are dropped: a run that was killed writes them again.
    """

    def __init__(self, folder: Path, settings: LogSettings, step: int, config: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        self.writes = rank() == 0
        self._rows: list[dict[str, Any]] = []
        self._flushed = time.monotonic()
        if not self.writes:
            return
        from torch.utils.tensorboard import SummaryWriter

        self._old = _rows_until(folder / METRICS, step)
        self._board = SummaryWriter(str(folder / TENSORBOARD), purge_step=step + 1)
        self._trackers = _trackers(settings.trackers, folder, config)

    def write(self, step: int, metrics: Mapping[str, float | int | None]) -> None:
        """Add one row: `step` counts what is done, from 1. None where a number is not known."""
        if not self.writes or (step % self.settings.every and step != 1):
            return
        self._rows.append({"step": step, **metrics})
        for name, value in metrics.items():
            if value is not None:
                self._board.add_scalar(name, value, step)
        for tracker in self._trackers:
            tracker.log({name: value for name, value in metrics.items() if value is not None}, step=step)
        if time.monotonic() - self._flushed > self.settings.flush_seconds:
            self.flush()

    def samples(self, step: int, name: str, completions: pl.DataFrame) -> None:
        """Show the first `log.tracker_samples` rows of COMPLETIONS as a table `name` in trackers that have tables."""
        count = self.settings.tracker_samples
        if not self.writes or not count or not self._trackers or completions.is_empty():
            return
        shown = completions.select(SHOWN).head(count)
        rows = [list(row) for row in shown.iter_rows()]
        for tracker in self._trackers:
            if tracker.name == "trackio":
                tracker.log({name: _trackio_table(shown)}, step=step)
            elif hasattr(tracker, "log_table"):
                tracker.log_table(name, columns=list(SHOWN), data=rows, step=step)

    def flush(self) -> None:
        """Bring metrics.parquet up to date."""
        if self.writes and self._rows:
            self._old = pl.concat([self._old, _frame(self._rows)], how="diagonal_relaxed")
            self._rows = []
            write_table(self._old, self.folder / METRICS)
            self._board.flush()
        self._flushed = time.monotonic()

    def close(self) -> None:
        """Write what is left and end the trackers."""
        self.flush()
        if self.writes:
            self._board.close()
            for tracker in self._trackers:
                tracker.finish()


def _frame(rows: list[dict[str, Any]]) -> pl.DataFrame:
    names = list(dict.fromkeys(name for row in rows for name in row))
    schema = {name: pl.Int64 if name == "step" else pl.Float64 for name in names}
    return pl.DataFrame(
        [
            {name: value if name == "step" or value is None else float(value) for name, value in row.items()}
            for row in rows
        ],
        schema=schema,
    )


def _rows_until(path: Path, step: int) -> pl.DataFrame:
    if not path.exists():
        return _frame([])
    try:
        return pl.read_parquet(path).filter(pl.col("step") <= step)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        raise RunError(
            f"{path} is damaged ({first_line(error)}); delete it to go on without the metrics of {step} steps."
        ) from error


def _trackers(names: tuple[str, ...], folder: Path, config: dict[str, Any]) -> list[Any]:
    if not names:
        return []
    from accelerate import PartialState
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    PartialState(cpu=not torch.cuda.is_available())  # trackers log through accelerate, which refuses without a state
    found = []
    for name in names:
        if name not in LOGGER_TYPE_TO_CLASS:
            raise ValueError(f"log.trackers: {name!r} is none of accelerate's: {', '.join(LOGGER_TYPE_TO_CLASS)}.")
        kind = LOGGER_TYPE_TO_CLASS[name]
        tracker = kind("tracekit", str(folder)) if kind.requires_logging_directory else kind("tracekit")
        tracker.start()
        tracker.store_init_configuration(config)
        found.append(tracker)
    return found


def _trackio_table(frame: pl.DataFrame) -> Any:
    """A trackio table, which is made of a pandas frame; trackio brings pandas along."""
    import pandas
    import trackio

    return trackio.Table(dataframe=pandas.DataFrame(frame.to_dict(as_series=False)))
