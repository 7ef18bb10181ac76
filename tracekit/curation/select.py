"""Which traces of a problem to keep, which to pair, and which problems to hold back for validation."""

from __future__ import annotations

import hashlib
from typing import Literal

import numpy as np
import polars as pl
from pydantic import Field

from tracekit.core.settings import Settings
from tracekit.core.tables import Schema
from tracekit.text.shingles import ngrams, normalise, words

#: Two traces of a problem for DPO.
PAIRS: Schema = {"problem_id": pl.String, "chosen": pl.String, "rejected": pl.String}


class SelectSettings(Settings):
    """Which of a problem's remaining traces are kept."""

    policy: Literal["all", "first", "shortest", "varied", "length_power"] = Field(
        "all",
        description=(
            '"all"; "first"; "shortest"; "varied": the k least similar; "length_power": k drawn without '
            "replacement with odds proportional to token_count ** power"
        ),
    )
    k: int = Field(4, ge=1, description='traces a problem, of "varied" and "length_power"')
    power: float = Field(
        1.0,
        description='exponent of "length_power": positive favours long traces, negative short ones; 0 draws uniformly',
    )
    pairs: int = Field(0, ge=0, description="DPO pairs a problem, each of a kept trace and a wrong one; 0: none")


def select(traces: pl.DataFrame, settings: SelectSettings, *, seed: int = 0) -> pl.Series:
    """trace_ids to keep. `traces`: trace_id, problem_id, token_count and, for "varied", response; in source order."""
    if settings.policy == "all":
        return traces["trace_id"]
    if settings.policy == "first":
        return traces.unique("problem_id", keep="first", maintain_order=True)["trace_id"]
    if settings.policy == "shortest":
        ordered = traces.sort("token_count", maintain_order=True, nulls_last=True)
        return ordered.unique("problem_id", keep="first", maintain_order=True)["trace_id"]
    if settings.policy == "length_power":
        return _draw_by_length(traces, settings, seed)
    groups = traces.partition_by("problem_id", maintain_order=True)
    return pl.concat([_most_varied(group, settings.k) for group in groups]) if groups else traces["trace_id"]


def pair(kept: pl.DataFrame, wrong: pl.DataFrame, count: int) -> pl.DataFrame:
    """DPO pairs: problem_id, chosen, rejected (trace_ids), at most `count` a problem.

    The rejected trace is the one nearest in length, so that length alone does not tell the two apart. Both
    frames: trace_id, problem_id, token_count.
    """
    both = kept.join(wrong, on="problem_id", suffix="_rejected", maintain_order="left_right")
    gap = (pl.col("token_count") - pl.col("token_count_rejected")).abs()
    ordered = both.with_columns(gap.alias("gap")).sort("problem_id", "gap", maintain_order=True)
    rows: list[tuple[str, str, str]] = []
    used: dict[str, set[str]] = {}
    for problem, chosen, rejected in ordered.select("problem_id", "trace_id", "trace_id_rejected").iter_rows():
        taken = used.setdefault(problem, set())
        if len(taken) < 2 * count and not taken & {chosen, rejected}:
            taken |= {chosen, rejected}
            rows.append((problem, chosen, rejected))
    return pl.DataFrame(rows, schema=PAIRS, orient="row")


def validation_groups(groups: pl.Series, fraction: float, *, seed: int = 0) -> pl.Series:
    """True for groups held back: by a hash of the group's name, so that new data moves no old problem."""
    limit = int(fraction * 2**32)
    return pl.Series([_draw(seed, group) >> 32 < limit for group in groups], dtype=pl.Boolean)


def _draw(seed: int, name: str) -> int:
    """64 evenly distributed bits of seed and name."""
    return int.from_bytes(hashlib.blake2b(f"{seed}\x1f{name}".encode(), digest_size=8).digest())


def _draw_by_length(traces: pl.DataFrame, settings: SelectSettings, seed: int) -> pl.Series:
    # Sampling without replacement by exponential clocks: the k least of E / weight (Efraimidis and Spirakis, 2006).
    uniform = np.array([(_draw(seed, i) + 0.5) / 2**64 for i in traces["trace_id"]])
    weight = traces["token_count"].fill_null(1).clip(lower_bound=1).to_numpy().astype(float) ** settings.power
    clocked = traces.with_columns(pl.Series("clock", -np.log(uniform) / weight))
    first = pl.col("clock").rank("ordinal").over("problem_id") <= settings.k
    return clocked.filter(first)["trace_id"]


def _most_varied(group: pl.DataFrame, k: int) -> pl.Series:
    """Farthest-first traversal over the Jaccard distance of word 3-grams, from the shortest trace on."""
    if group.height <= k:
        return group["trace_id"]
    found = words(normalise(group["response"]))
    hashes, first = ngrams(found, 3)
    sets = [np.unique(hashes[found.text[first] == row]) for row in range(group.height)]
    chosen = [int(np.argmin([len(s) for s in sets]))]
    distance = np.full(group.height, np.inf)
    while len(chosen) < k:
        distance = np.minimum(distance, [_distance(sets[chosen[-1]], s) for s in sets])
        distance[chosen] = -1
        chosen.append(int(np.argmax(distance)))
    return group["trace_id"][sorted(chosen)]


def _distance(a: np.ndarray, b: np.ndarray) -> float:
    both = len(np.intersect1d(a, b, assume_unique=True))
    either = len(a) + len(b) - both
    return 1 - both / either if either else 0.0
