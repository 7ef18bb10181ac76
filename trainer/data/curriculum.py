"""Curriculum by pass rate: problems that the policy nearly always or never solves rest for some rounds.

Every rank holds the same table: the same rounds give the same curriculum on any number of ranks.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import polars as pl

from tracekit.core.tables import Schema
from trainer.data.problems import Problem
from trainer.distributed.ranks import gather_rows
from trainer.settings import CurriculumSettings

#: The curriculum in a checkpoint, a row a problem that was asked.
SCHEMA: Schema = {"problem_id": pl.String, "rate": pl.Float64, "round": pl.Int64}

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is known of a problem. rate: smoothed pass rate, [0, 1]. round: the latest that asked it, from 0."""

    rate: float
    round: int


class Curriculum:
    """Pass rates of the problems asked so far, and which problems a round may ask.

    After a round with pass rate r a problem's rate is decay · rate + (1 − decay) · r, and r after its first. A problem
    rests while its rate is outside of [low, high] and fewer than `rest_rounds` rounds have passed since it was asked.
    """

    def __init__(self, settings: CurriculumSettings) -> None:
        self.settings = settings
        self.standings: dict[str, Standing] = {}

    def take_in(self, rates: Mapping[str, float], number: int) -> None:
        """Add a round's pass rates, problem_id → share of right sampled rows. Every rank must call it."""
        own = pl.DataFrame({"problem_id": list(rates), "rate": list(rates.values())}, schema_overrides=SCHEMA)
        table = gather_rows(own).group_by("problem_id").agg(pl.col("rate").mean()).sort("problem_id")
        for name, rate in table.iter_rows():
            before = self.standings.get(name)
            decay = 0.0 if before is None else self.settings.decay
            smoothed = (before.rate if before else 0.0) * decay + rate * (1 - decay)
            self.standings[name] = Standing(smoothed, number)

    def rests(self, problem_id: str, number: int) -> bool:
        """Whether round `number` leaves the problem out."""
        standing = self.standings.get(problem_id)
        if standing is None or number - standing.round > self.settings.rest_rounds:
            return False
        return not self.settings.low <= standing.rate <= self.settings.high

    def awake(self, problems: Sequence[Problem], number: int, needed: int) -> frozenset[int]:
        """Numbers of the problems that round `number` may ask; all of them where fewer than `needed` are left."""
        found = frozenset(i for i, problem in enumerate(problems) if not self.rests(problem.problem_id, number))
        if len(found) >= min(needed, len(problems)):
            return found
        logger.warning(
            "round %d: %d of %d problems are within the curriculum and %d are needed: all are asked",
            number + 1,
            len(found),
            len(problems),
            needed,
        )
        return frozenset(range(len(problems)))

    def table(self) -> pl.DataFrame:
        """The curriculum as a table of a checkpoint."""
        rows = [(name, standing.rate, standing.round) for name, standing in sorted(self.standings.items())]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")

    def restore(self, table: pl.DataFrame) -> None:
        """Take the curriculum of a checkpoint."""
        self.standings = {name: Standing(rate, number) for name, rate, number in table.iter_rows()}


class Draws:
    """Problem numbers of an endless order, without those that rest. places: how far into the order it has come."""

    def __init__(self, order: Iterator[int], awake: frozenset[int] | None = None) -> None:
        self.order, self.awake, self.places = order, awake, 0

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        while True:
            number = next(self.order)
            self.places += 1
            if self.awake is None or number in self.awake:
                return number
