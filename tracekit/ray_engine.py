"""Batches of a stage on a Ray cluster.

Ray hands out the batches; each is made by the same code into the same content-addressed folder as on one
machine, so results are identical and an interrupted job finds what was done. The stages' folder must be on a
file system that all workers share.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any


class RayMissing(ValueError):
    """Ray is not installed: the message says which extra adds it."""


def for_each_on_ray(starts: Sequence[int], make_batch: Callable[[int], Path]) -> Iterator[Path]:
    """The batches' folders in the order of `starts`, made on all workers of the cluster, or of this machine."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise RayMissing('engine = "ray" needs Ray: pip install \'.[ray]\'. engine = "local" does without.') from error
    if not starts:
        return

    def make(row: dict[str, Any]) -> dict[str, Any]:
        return {"start": row["start"], "path": str(make_batch(int(row["start"])))}

    ray.data.DataContext.get_current().execution_options.preserve_order = True
    batches = ray.data.from_items([{"start": start} for start in starts], override_num_blocks=len(starts))
    for row in batches.map(make).iter_rows():
        yield Path(row["path"])
