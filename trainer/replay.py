"""ExGRPO's buffer: the model's own past correct traces, by problem (Zhan et al. 2025, arXiv 2510.02245, section 4)."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import polars as pl

from tracekit.tables import Schema
from trainer.config import ReplaySettings
from trainer.problems import Problem
from trainer.rollout import Group, Replayed, Sample

#: Mean entropy of the policy on each (problem, sample) row.
EntropyOf = Callable[[Sequence[tuple[Problem, Sample]]], list[float]]

SCHEMA: Schema = {
    "problem_id": pl.String,
    "share": pl.Float64,
    "token_ids": pl.List(pl.Int64),
    "log_probs": pl.List(pl.Float64),
}


@dataclass(slots=True)
class Past:
    """What is kept of one problem: the share of its latest rollouts that were right, and right ones, newest last."""

    share: float
    traces: list[Sample] = field(default_factory=list)


class ReplayBuffer:
    """Right traces of problems that the policy solves sometimes. `open` once a round's reward has reached the start."""

    def __init__(self, settings: ReplaySettings) -> None:
        self.settings = settings
        self.past: dict[str, Past] = {}
        self.open = False

    def take_in(self, groups: Iterable[Group], mean_reward: float | None) -> None:
        """Keep the right on-policy rows of a round. A problem whose rows are all right retires; one never seen
        right does not enter."""
        for group in groups:
            own = [s for s in group.samples if s.on_policy and s.reward is not None]
            right = [s for s in own if s.reward == 1 and s.finish_reason == "stop"]
            if not own:
                continue
            share = sum(s.reward == 1 for s in own) / len(own)
            if share == 1:
                self.past.pop(group.problem.problem_id, None)
                continue
            if right or group.problem.problem_id in self.past:
                past = self.past.setdefault(group.problem.problem_id, Past(share))
                past.share = share
                kept = [replayed_sample(s.token_ids, s.log_probs or ()) for s in right]
                past.traces = [*past.traces, *kept][-self.settings.traces_per_problem :]
        if mean_reward is not None and mean_reward >= self.settings.start_reward:
            self.open = True

    def choose(self, key: str, prompts: int, problems: Sequence[Problem], entropy_of: EntropyOf) -> Replayed:
        """The replayed part of a round of `prompts` problems: drawn without replacement by a Gaussian over their
        share of right rollouts, each with its traces of lowest entropy under the policy of now."""
        count = round(self.settings.share * prompts)
        if not self.open or not self.past or count < 1:
            return {}
        numbers = {problem.problem_id: number for number, problem in enumerate(problems)}
        rng = random.Random(f"replay/{key}")
        # Efraimidis and Spirakis 2006: the largest log(u)/w are a weighted draw without replacement.
        keys = {name: math.log(1 - rng.random()) / self._weight(past.share) for name, past in self.past.items()}
        chosen = [name for name in sorted(keys, key=lambda name: -keys[name])[:count]]
        pairs = [(problems[numbers[name]], trace) for name in chosen for trace in self.past[name].traces]
        entropies = iter(entropy_of(pairs))
        found: Replayed = {}
        for name in chosen:
            ranked = sorted((next(entropies), place) for place in range(len(self.past[name].traces)))
            best = [self.past[name].traces[place] for _, place in ranked[: self.settings.rows]]
            found[numbers[name]] = tuple(best)
        return found

    def table(self) -> pl.DataFrame:
        """The buffer as a table, in its order."""
        rows = [
            (name, past.share, list(trace.token_ids), list(trace.log_probs or ()))
            for name, past in self.past.items()
            for trace in past.traces
        ]
        return pl.DataFrame(rows, schema=SCHEMA, orient="row")

    def restore(self, table: pl.DataFrame, is_open: bool) -> None:
        """Take the buffer of a checkpoint."""
        self.open = is_open
        self.past = {}
        for name, share, token_ids, log_probs in table.select(SCHEMA.keys()).iter_rows():
            self.past.setdefault(name, Past(share)).traces.append(replayed_sample(token_ids, log_probs))

    def _weight(self, share: float) -> float:
        return math.exp(-((share - self.settings.centre) ** 2) / (2 * self.settings.width**2))


def replayed_sample(token_ids: Sequence[int], log_probs: Sequence[float]) -> Sample:
    """A past trace as a row of a group: all of it off-policy, with the log-probs it was sampled with."""
    return Sample(token_ids, len(token_ids), "stop", log_probs=log_probs, replayed=True)
