"""Batches of a stage on a Ray cluster.

Ray Data hands out the batches; each is made by the same code into the same content-addressed folder as on one
machine, so results are identical. Which batches are done stands in Ray Data's checkpoint beside the stages: a job
that was interrupted hands out the rest alone. The stages' folder must be on a file system that all workers share.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")


class RayMissing(ValueError):
    """Ray is not installed: the message says which extra adds it."""


def for_each_on_ray(pieces: Sequence[T], make_batch: Callable[[T], Path], job: Path) -> Iterator[Path]:
    """The batches' folders in the order of `pieces`, made on all workers of the cluster, or of this machine.

    job: a folder for Ray Data's checkpoint, removed at the end: a job that comes after an interrupted one goes on from
        it. make_batch finds what it made before.
    """
    try:
        import ray
        import ray.data
        from ray.data.checkpoint import CheckpointConfig
    except ImportError as error:
        raise RayMissing('engine = "ray" needs Ray: pip install \'.[ray]\'. engine = "local" does without.') from error
    if not pieces:
        return

    def make(row: dict[str, Any]) -> dict[str, Any]:
        make_batch(pieces[int(row["id"])])
        return row

    context = ray.data.DataContext.get_current()
    before = context.checkpoint_config
    context.checkpoint_config = CheckpointConfig(
        id_column="id", checkpoint_path=str(job / "checkpoint"), delete_checkpoint_on_success=False
    )
    try:
        # A range, since Ray Data puts small files together into one task; written, since a row counts as done when it
        # is written.
        numbers = ray.data.range(len(pieces), override_num_blocks=len(pieces))
        numbers.map(make).write_parquet(str(job / "done"))
    finally:
        context.checkpoint_config = before
    yield from map(make_batch, pieces)
    shutil.rmtree(job)
