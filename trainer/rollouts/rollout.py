"""Groups: rows sampled from the policy, the teacher's beside them, rewards by `evaluators`, filters, advantages.

Nothing here holds a random state: every draw is a function of the seed, the round and the problem, so a
resumed run needs to know the round and the place in the problems alone.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice

from transformers import PreTrainedTokenizerBase

from tracekit.core.prompts import decode_responses
from trainer.data.problems import Problem, Trace
from trainer.data.sequences import Row, response_ends
from trainer.rollouts.engines.protocol import Engine, Rollout, Sampling
from trainer.rollouts.groups import Group, Sample, with_advantages, with_roles, written_tokens
from trainer.rollouts.rewards import Rewards
from trainer.settings import PrefixSettings, TrainSettings


@dataclass(frozen=True, slots=True)
class Round:
    """What one round of rolling out leaves. drawn: problems taken. counts: what was left out or unusual.

    pass_rates: problem_id → share of right sampled rows, of groups that the filters left out too.
    """

    groups: list[Group]
    drawn: int
    counts: Counter[str] = field(default_factory=Counter)
    pass_rates: dict[str, float] = field(default_factory=dict)


#: Problems of a round that get rows of their own past: problem number → the replayed samples.
Replayed = dict[int, tuple[Sample, ...]]


class GroupSampler:
    """Makes the groups of a round from problems, an engine and a verifier."""

    def __init__(
        self,
        settings: TrainSettings,
        tokenizer: PreTrainedTokenizerBase,
        engine: Engine,
        problems: Sequence[Problem],
        stop_token_ids: tuple[int, ...] | None = None,
    ) -> None:
        self.settings, self.tokenizer, self.engine, self.problems = settings, tokenizer, engine, problems
        self.stop_token_ids = stop_token_ids or response_ends(tokenizer, settings.data)
        self.rewards = Rewards.open(settings, tokenizer)
        self._traces_right: dict[str, bool] = {}

    def roll_out(self, number: int, wanted: int, order: Iterator[int], replayed: Replayed, seed: str = "") -> Round:
        """`wanted` groups: replayed problems first, then those that `order` names, drawn again after the filters.

        number: of the round. seed: sets this rank's draws apart from the others'.
        """
        rollout, groups, counts, drawn = self.settings.rollout, list[Group](), Counter[str](), 0
        pass_rates: dict[str, float] = {}
        self.rewards.step = number
        chosen = [(problem, replayed[problem]) for problem in replayed][:wanted]
        for attempt in range(rollout.resample_rounds + 1):
            fresh = list(islice(order, wanted - len(groups) - len(chosen)))
            drawn += len(fresh)
            chosen += [(problem, ()) for problem in fresh]
            key = f"{self.settings.seed}/{seed}/{number}/{attempt}"
            for group in map(partial(self._paid, key=key), self._groups(chosen, number, key, counts)):
                if group.pass_rate is not None:
                    pass_rates[group.problem.problem_id] = group.pass_rate
                reason = self.left_out(group)
                if reason is None:
                    groups.append(group)
                else:
                    counts[f"groups_{reason}"] += 1
            chosen = []
            if len(groups) >= wanted:
                break
        groups = with_roles(with_advantages(groups, self.settings), self.settings, number)
        return Round(groups, drawn, counts, pass_rates)

    def _paid(self, group: Group, key: str) -> Group:
        """The group with its verified rewards, or with random ones where the recipe asks for the control."""
        chance = self.settings.rollout.random_reward
        if chance is None:
            return group
        draw = random.Random(f"reward/{key}/{group.problem.problem_id}")
        paid = [float(draw.random() < chance) for _ in group.samples]
        rows = (replace(s, reward=r, rewards=(r, *s.rewards[1:])) for s, r in zip(group.samples, paid))
        return replace(group, samples=tuple(rows))

    def left_out(self, group: Group) -> str | None:
        """Why the filters leave a group out, all its rows counted, or None."""
        if not group.rewards:
            return "unknown"
        if self.settings.rollout.drop_all_right and group.outcomes and all(group.outcomes):
            return "dropped_right"
        if self.settings.rollout.drop_all_wrong and group.outcomes and not any(group.outcomes):
            return "dropped_wrong"
        return None

    def _groups(
        self, chosen: Sequence[tuple[int, tuple[Sample, ...]]], number: int, key: str, counts: Counter[str]
    ) -> list[Group]:
        """Sample and verify the groups of these problems."""
        problems = [self.problems[index] for index, _ in chosen]
        if self.settings.teacher.prefix.shared:
            prefixes = [self._prefix(problem, number, counts) for problem in problems]
            return self._judged(problems, self._from_prefixes(problems, prefixes, key), counts)
        off_policy = [(*past, *self._teacher_rows(p, number, counts)) for p, (_, past) in zip(problems, chosen)]
        size = self.settings.rollout.group_size
        beside = self.settings.teacher_beside
        sampled = [size - (sum(not row.teacher for row in rows) if beside else len(rows)) for rows in off_policy]
        on_policy = self._sample(problems, sampled, key)
        continued = self._continue(problems, off_policy, key)
        rows = [(*begun, *own) for begun, own in zip(continued, on_policy)]
        return self._branched(self._judged(problems, rows, counts), number, key, counts)

    def _branched(self, groups: list[Group], number: int, key: str, counts: Counter[str]) -> list[Group]:
        """BREAD: sample groups without a right row anew from growing prefixes of a trace (Zhang et al. 2025,
        arXiv 2506.17211). One that fails at every prefix stays as it was; so does one without a trace."""
        failed = [place for place, group in enumerate(groups) if not any(group.outcomes)]
        if self.settings.teacher.branch:
            failed = [place for place in failed if self._verified(groups[place].problem)]
        found = list(groups)
        for fraction in self.settings.teacher.branch:
            if not failed:
                break
            problems = [groups[place].problem for place in failed]
            prefixes = [_teacher_sample(self._traces(problem, number)[0], fraction) for problem in problems]
            tries = self._judged(problems, self._from_prefixes(problems, prefixes, f"{key}/{fraction}"), counts)
            for place, tried in zip(failed, tries):
                right = any(tried.outcomes)
                counts["groups_branched"] += right
                counts["tokens_discarded"] += written_tokens(found[place] if right else tried)
                found[place] = tried if right else found[place]
            failed = [place for place, tried in zip(failed, tries) if not any(tried.outcomes)]
        return found

    def _prefix(self, problem: Problem, number: int, counts: Counter[str]) -> Sample | None:
        """The prefix that all rows of a problem's group continue from; None without a right trace, or at fraction 0."""
        traces = self._traces(problem, number)
        if not traces:
            counts["groups_short_of_teacher"] += 1
            return None
        length = len(traces[0].token_ids)
        sample = _teacher_sample(traces[0], min(self._fraction(problem, number), 1 - 1 / length))
        return sample if sample.off_policy else None

    def _from_prefixes(
        self, problems: Sequence[Problem], prefixes: Sequence[Sample | None], key: str
    ) -> list[tuple[Sample, ...]]:
        """`group_size` rows of each problem, all from its prefix, or from its prompt where that is None."""
        size, limit = self.settings.rollout.group_size, self.settings.data.response_tokens
        begun = [() if prefix is None else tuple(prefix.token_ids) for prefix in prefixes]
        prompts = [[*problem.prompt_ids, *start] for problem, start in zip(problems, begun)]
        sampling = replace(self._sampling(f"{key}/group"), max_tokens=limit - min(map(len, begun)))
        return [
            tuple(_on_policy_sample(row) if prefix is None else _continued(prefix, row, limit) for row in rows)
            for prefix, rows in zip(prefixes, self.engine.generate(prompts, size, sampling))
        ]

    def _teacher_rows(self, problem: Problem, number: int, counts: Counter[str]) -> list[Sample]:
        """The teacher's rows of a group: verified traces, whole or cut to the schedule's fraction."""
        wanted = self.settings.teacher_rows
        if not wanted:
            return []
        traces = self._traces(problem, number)
        if len(traces) < wanted:
            counts["groups_short_of_teacher"] += 1
        fraction = self._fraction(problem, number)
        rows = [_teacher_sample(trace, fraction) for trace in traces[:wanted]]
        return [row for row in rows if row.off_policy]

    def _fraction(self, problem: Problem, number: int) -> float:
        """The fraction of a trace that begins a row: the schedule's, or drawn by it."""
        prefix = self.settings.teacher.prefix
        value = prefix_fraction(prefix, number)
        draw = random.Random(f"prefix/{self.settings.seed}/{number}/{problem.problem_id}")
        if prefix.slices:
            return sum(draw.random() < value for _ in range(prefix.slices)) / prefix.slices
        return value if prefix.lowest is None else draw.uniform(prefix.lowest, value)

    def _traces(self, problem: Problem, number: int) -> list[Trace]:
        """The problem's verified traces in the round's order."""
        traces = self._verified(problem)
        random.Random(f"teacher/{self.settings.seed}/{number}/{problem.problem_id}").shuffle(traces)
        return traces

    def _verified(self, problem: Problem) -> list[Trace]:
        """The traces that CURATED calls correct and the verifier too, where it is one of the rewards."""
        unknown = [trace for trace in problem.traces if trace.trace_id not in self._traces_right]
        right = self.rewards.traces_right(problem, unknown)
        self._traces_right |= {trace.trace_id: found for trace, found in zip(unknown, right)}
        return [trace for trace in problem.traces if self._traces_right[trace.trace_id]]

    def _sample(self, problems: Sequence[Problem], sampled: Sequence[int], key: str) -> list[list[Sample]]:
        """On-policy rows from the prompt: `sampled[i]` of problem i; one call of the engine for each number of rows."""
        found: list[list[Sample]] = [[] for _ in problems]
        for n in sorted(set(sampled) - {0}):
            places = [place for place, count in enumerate(sampled) if count == n]
            prompts = [problems[place].prompt_ids for place in places]
            rollouts = self.engine.generate(prompts, n, self._sampling(f"{key}/{n}"))
            for place, rows in zip(places, rollouts):
                found[place] = [_on_policy_sample(rollout) for rollout in rows]
        return found

    def _continue(
        self, problems: Sequence[Problem], rows: Sequence[Sequence[Sample]], key: str
    ) -> list[tuple[Sample, ...]]:
        """Let the policy go on from every prefix of a teacher's trace."""
        limit = self.settings.data.response_tokens
        begun = [(i, j) for i, own in enumerate(rows) for j, row in enumerate(own) if row.finish_reason == "prefix"]
        found = [list(own) for own in rows]
        if begun:
            prompts = [[*problems[i].prompt_ids, *rows[i][j].token_ids] for i, j in begun]
            shortest = min(rows[i][j].off_policy for i, j in begun)
            sampling = replace(self._sampling(f"{key}/prefix"), max_tokens=limit - shortest)
            for (i, j), (rollout,) in zip(begun, self.engine.generate(prompts, 1, sampling)):
                found[i][j] = _continued(rows[i][j], rollout, limit)
        return [tuple(own) for own in found]

    def _sampling(self, key: str) -> Sampling:
        rollout = self.settings.rollout
        return Sampling(
            max_tokens=self.settings.data.response_tokens,
            stop_token_ids=self.stop_token_ids,
            temperature=rollout.temperature,
            top_p=rollout.top_p,
            top_k=rollout.top_k,
            seed=seed_of(key),
        )

    def _judged(
        self, problems: Sequence[Problem], rows: Sequence[Sequence[Sample]], counts: Counter[str]
    ) -> list[Group]:
        """Texts, verdicts and rewards of all rows, the teacher's and the replayed too."""
        flat = [(problem, row) for problem, own in zip(problems, rows) for row in own]
        texts = decode_responses(self.tokenizer, [row.token_ids for _, row in flat])
        written = [replace(row, response=row.response or text) for (_, row), text in zip(flat, texts)]
        judged = iter(self.rewards.judge([problem for problem, _ in flat], written))
        groups = [Group(problem, tuple(islice(judged, len(own)))) for problem, own in zip(problems, rows)]
        for verdict in (row.verdict for group in groups for row in group.samples if row.verdict):
            counts[f"verdicts_{verdict.outcome}"] += 1
        return [self.rewards.paid(group) for group in groups]


def prefix_fraction(prefix: PrefixSettings, number: int) -> float:
    """The fraction of a teacher's trace in round `number` (from 0): linear from start to end, then constant."""
    return prefix.at(number)


def training_row(problem: Problem, sample: Sample, *, old_log_probs: bool) -> Row:
    """A sample as the tokens and numbers that a loss needs. old_log_probs: take those it was sampled with along."""
    return Row(
        token_ids=[*problem.prompt_ids, *sample.token_ids],
        prompt_length=len(problem.prompt_ids),
        off_policy=sample.off_policy,
        advantage=sample.advantage,
        old_log_probs=sample.log_probs if old_log_probs or sample.replayed else None,
        recorded_log_probs=sample.recorded_log_probs,
        replayed=sample.replayed,
        role=sample.role,
        teacher_role=sample.teacher_role,
        weight=sample.weight,
        clone_weight=sample.clone_weight,
        entropy_exponent=sample.entropy_exponent,
        masked=sample.masked,
    )


def seed_of(key: str) -> int:
    """A 63-bit seed from a text: the same on every machine."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "big") >> 1


def _on_policy_sample(rollout: Rollout) -> Sample:
    return Sample(rollout.token_ids, 0, rollout.finish_reason, log_probs=rollout.log_probs)


def _teacher_sample(trace: Trace, fraction: float) -> Sample:
    """The whole trace with its EOS, or its first tokens, from which the policy is to go on."""
    length = len(trace.token_ids)
    kept = length if fraction >= 1 else min(round(fraction * length), length - 1)
    recorded = None if trace.log_probs is None else trace.log_probs[:kept]
    if kept == length:
        return Sample(trace.token_ids, length, "stop", recorded_log_probs=recorded, response=trace.response)
    return Sample(trace.token_ids[:kept], kept, "prefix", recorded_log_probs=recorded)


def _continued(row: Sample, rollout: Rollout, limit: int) -> Sample:
    """The prefix and what the policy wrote after it, within the limit of a response."""
    room = limit - row.off_policy
    own, log_probs = rollout.token_ids[:room], rollout.log_probs[:room]
    recorded = None if row.recorded_log_probs is None else [*row.recorded_log_probs, *[0.0] * len(own)]
    return replace(
        row,
        token_ids=[*row.token_ids, *own],
        log_probs=[*[0.0] * row.off_policy, *log_probs],
        recorded_log_probs=recorded,
        finish_reason=rollout.finish_reason if len(rollout.token_ids) <= room else "length",
    )
