"""ExGRPO's buffer: the model's own past correct traces, by problem (Zhan et al. 2025, arXiv 2510.02245, section 4).

On several ranks each problem belongs to one of them, by a hash of its name: that rank holds its traces and scores
them. Every rank knows every problem's share of right rollouts, so that all make the same draw. From the same rounds
the buffer holds the same, and draws the same, on any number of ranks; its table does not tell how many there were.
"""

from __future__ import annotations

import math
import random
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl

from tracekit.core.tables import Schema
from trainer.data.problems import Problem
from trainer.distributed.ranks import gather_rows, rank, world_size
from trainer.rollouts.rollout import Group, Replayed, Sample
from trainer.settings import ReplaySettings

#: Mean entropy of the policy on each (problem, sample) row.
EntropyOf = Callable[[Sequence[tuple[Problem, Sample]]], list[float]]

#: The buffer in a checkpoint, a row a trace.
SCHEMA: Schema = {
    "problem_id": pl.String,
    "share": pl.Float64,
    "token_ids": pl.List(pl.Int64),
    "log_probs": pl.List(pl.Float64),
}

#: What a rank tells the others of its round, a row an on-policy rollout. token_ids: None where it is not kept.
OUTCOMES: Schema = {
    "problem_id": pl.String,
    "right": pl.Boolean,
    "token_ids": pl.List(pl.Int64),
    "log_probs": pl.List(pl.Float64),
}

#: Traces that their problems' ranks chose to be replayed.
CHOSEN: Schema = {name: SCHEMA[name] for name in ("problem_id", "token_ids", "log_probs")}


@dataclass(slots=True)
class Past:
    """What is kept of one problem: the share of its latest rollouts that were right, and right ones, newest last.

    The traces are empty on ranks that the problem does not belong to.
    """

    share: float
    traces: list[Sample] = field(default_factory=list)


class ReplayBuffer:
    """Right traces of problems that the policy solves sometimes. `open` once a round's reward has reached the start.

    Every rank must call `take_in`, `choose` and `table`.
    """

    def __init__(self, settings: ReplaySettings) -> None:
        self.settings = settings
        self.past: dict[str, Past] = {}
        self.open = False

    def take_in(self, groups: Iterable[Group], mean_reward: float | None) -> None:
        """Keep the right on-policy rows of a round. A problem whose rows are all right retires; one never seen
        right does not enter. mean_reward: over all ranks."""
        outcomes = gather_rows(_outcomes(groups))
        outcomes = outcomes.sort(outcomes.columns)  # the same whichever rank sampled them
        for (name,), own in outcomes.group_by("problem_id", maintain_order=True):
            self._take_in(str(name), own)
        if mean_reward is not None and mean_reward >= self.settings.start_reward:
            self.open = True

    def choose(self, key: str, prompts: int, problems: Sequence[Problem], entropy_of: EntropyOf) -> Replayed:
        """This rank's share of the replayed part of a round of `prompts` problems on all ranks.

        The problems are drawn without replacement by a Gaussian over their share of right rollouts, each with its
        traces of lowest entropy under the policy of now.
        """
        count = round(self.settings.share * prompts)
        if not self.open or not self.past or count < 1:
            return {}
        numbers = {problem.problem_id: number for number, problem in enumerate(problems)}
        # Efraimidis and Spirakis 2006: the largest log(u)/w are a weighted draw without replacement.
        keys = {name: _log_uniform(key, name) / self._weight(past.share) for name, past in self.past.items()}
        names = sorted(keys, key=lambda name: (-keys[name], name))[:count]
        pairs = [(problems[numbers[name]], trace) for name in names for trace in self.past[name].traces]
        best = gather_rows(self._best(pairs, entropy_of(pairs)))
        found: Replayed = {numbers[name]: () for name in names[rank() :: world_size()]}
        for name, token_ids, log_probs in best.iter_rows():
            if numbers[name] in found:
                found[numbers[name]] += (replayed_sample(token_ids, log_probs),)
        return found

    def table(self) -> pl.DataFrame:
        """The whole buffer as a table, on every rank."""
        rows = [
            (name, past.share, list(trace.token_ids), list(trace.log_probs or ()))
            for name, past in self.past.items()
            for trace in past.traces
        ]
        return gather_rows(pl.DataFrame(rows, schema=SCHEMA, orient="row")).sort("problem_id", maintain_order=True)

    def restore(self, table: pl.DataFrame, is_open: bool) -> None:
        """Take the buffer of a checkpoint, whatever the number of ranks that wrote it."""
        self.open = is_open
        self.past = {}
        for name, share, token_ids, log_probs in table.select(SCHEMA.keys()).iter_rows():
            past = self.past.setdefault(name, Past(share))
            if _is_own(name):
                past.traces.append(replayed_sample(token_ids, log_probs))

    def _take_in(self, name: str, own: pl.DataFrame) -> None:
        """One problem's outcomes of a round."""
        share, kept = float(own["right"].mean()), own.filter(pl.col("token_ids").is_not_null())  # type: ignore[arg-type]
        if share == 1:
            self.past.pop(name, None)
        elif kept.height or name in self.past:
            past = self.past.setdefault(name, Past(share))
            past.share = share
            if _is_own(name):
                traces = [replayed_sample(*row) for row in kept.select("token_ids", "log_probs").iter_rows()]
                past.traces = [*past.traces, *traces][-self.settings.traces_per_problem :]

    def _best(self, pairs: Sequence[tuple[Problem, Sample]], entropies: Sequence[float]) -> pl.DataFrame:
        """Of each problem here the `rows` traces of lowest entropy, as CHOSEN."""
        ranked: dict[str, list[tuple[float, int]]] = {}
        for place, ((problem, _), entropy) in enumerate(zip(pairs, entropies)):
            ranked.setdefault(problem.problem_id, []).append((entropy, place))
        rows = [
            (name, list(pairs[place][1].token_ids), list(pairs[place][1].log_probs or ()))
            for name, own in ranked.items()
            for _, place in sorted(own)[: self.settings.rows]
        ]
        return pl.DataFrame(rows, schema=CHOSEN, orient="row")

    def _weight(self, share: float) -> float:
        return math.exp(-((share - self.settings.centre) ** 2) / (2 * self.settings.width**2))


def replayed_sample(token_ids: Sequence[int], log_probs: Sequence[float]) -> Sample:
    """A past trace as a row of a group: all of it off-policy, with the log-probs it was sampled with."""
    return Sample(token_ids, len(token_ids), "stop", log_probs=log_probs, replayed=True)


def _outcomes(groups: Iterable[Group]) -> pl.DataFrame:
    """The on-policy rows of known reward, as OUTCOMES."""
    rows = []
    for group in groups:
        for sample in group.samples:
            if not sample.on_policy or sample.right is None:
                continue
            kept = sample.right and sample.finish_reason == "stop"
            trace = (list(sample.token_ids), list(sample.log_probs or ())) if kept else (None, None)
            rows.append((group.problem.problem_id, sample.right, *trace))
    return pl.DataFrame(rows, schema=OUTCOMES, orient="row")


def _is_own(name: str) -> bool:
    """Whether a problem belongs to this rank."""
    return zlib.crc32(name.encode()) % world_size() == rank()


def _log_uniform(key: str, name: str) -> float:
    """log(u) of a problem's own u in (0, 1]: neither the order of the buffer nor the ranks matter."""
    return math.log(1 - random.Random(f"replay/{key}/{name}").random())
