"""What a response earns: the terms of `rollout.rewards`, their weighted sum, and the charge for KL."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase, TrainerState

from evaluators.batch import verify_batch
from evaluators.rewards import Reward, format_reward, length_reward, repetition_reward, reward_of
from evaluators.verdict import Policy, Verdict
from tracekit.core.prompts import uses_template
from trainer.data.problems import Problem, Trace
from trainer.data.sequences import Row
from trainer.rollouts.groups import Group, Sample, with_advantages
from trainer.settings import RewardSettings, TrainSettings


class RewardError(ValueError):
    """A reward function cannot be found or answers wrongly: the message says which and what was expected."""


@dataclass(frozen=True, slots=True)
class Term:
    """One term of the reward. function: in TRL's call shape; None: the verdict of `evaluators`."""

    name: str
    weight: float
    function: Reward | None
    arguments: dict[str, Any]


class Rewards:
    """The terms of `rollout.rewards`, ready to judge responses.

    step: round under way, `trainer_state.global_step` of the functions. metrics: what functions log by `log_metric`.
    """

    def __init__(self, terms: Sequence[Term], policy: Policy, *, system_prompt: str | None, conversational: bool):
        self.terms, self.policy = terms, policy
        self.system_prompt, self.conversational = system_prompt, conversational
        self.step = 0
        self.metrics: dict[str, list[float]] = {}

    @classmethod
    def open(cls, settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> Rewards:
        """Load the functions. Raises RewardError where one cannot be found."""
        return cls(
            [_term(reward, settings.data.response_tokens) for reward in settings.rollout.rewards],
            Policy(deadline_seconds=settings.rollout.verifier_seconds),
            system_prompt=settings.data.system_prompt,
            conversational=uses_template(tokenizer, settings.data.prompt),
        )

    def judge(self, problems: Sequence[Problem], rows: Sequence[Sample]) -> list[Sample]:
        """Return the rows with the value of each term, and with the verdict where accuracy is one of them.

        problems: of each row. Each function is called once, with all rows.
        """
        if not rows:
            return []
        verdicts: list[Verdict] | None = None
        if any(term.function is None for term in self.terms):
            verdicts = verify_responses([row.response for row in rows], problems, self.policy)
        arguments = self._arguments(problems, rows)
        values = [
            [reward_of(verdict) for verdict in verdicts or ()]
            if term.function is None
            else _called(term, arguments, len(rows))
            for term in self.terms
        ]
        return [
            replace(row, verdict=None if verdicts is None else verdicts[place], rewards=own)
            for place, (row, own) in enumerate(zip(rows, zip(*values)))
        ]

    def paid(self, group: Group) -> Group:
        """Return the group with the reward of each row, from the values of its terms."""
        totals = weighted_rewards([row.rewards for row in group.samples], [term.weight for term in self.terms])
        return replace(group, samples=tuple(replace(row, reward=r) for row, r in zip(group.samples, totals)))

    def take_metrics(self) -> dict[str, list[float]]:
        """Return what the functions logged by `log_metric` since the last call."""
        metrics, self.metrics = self.metrics, {}
        return metrics

    def traces_right(self, problem: Problem, traces: Sequence[Trace]) -> list[bool]:
        """Whether each trace is right by the verifier; where accuracy is no reward CURATED alone says so."""
        if not any(term.function is None for term in self.terms):
            return [True] * len(traces)
        verdicts = verify_responses([trace.response for trace in traces], [problem] * len(traces), self.policy)
        return [verdict.correct for verdict in verdicts]

    def _arguments(self, problems: Sequence[Problem], rows: Sequence[Sample]) -> dict[str, Any]:
        """The keyword arguments of TRL's reward functions, each a list with one value a row."""
        columns = {name for problem in problems for name in problem.columns} - {"prompt", "completion"}
        return {
            **{name: [problem.columns.get(name) for problem in problems] for name in sorted(columns)},
            "solution": [problem.columns.get("solution", problem.gold) for problem in problems],
            "think_open": [problem.think_open for problem in problems],
            "finish_reason": [row.finish_reason for row in rows],
            "prompts": [self._prompt(problem) for problem in problems],
            "completions": [self._completion(row) for row in rows],
            "completion_ids": [list(row.token_ids) for row in rows],
            "trainer_state": TrainerState(global_step=self.step),
            "log_metric": lambda name, value: self.metrics.setdefault(name, []).append(float(value)),
            "log_extra": lambda name, values: None,  # TRL's table of completions has free columns, ours has none
        }

    def _prompt(self, problem: Problem) -> Any:
        if not self.conversational:
            return problem.text
        system = [] if self.system_prompt is None else [{"role": "system", "content": self.system_prompt}]
        return [*system, {"role": "user", "content": problem.text}]

    def _completion(self, row: Sample) -> Any:
        return [{"role": "assistant", "content": row.response}] if self.conversational else row.response


def weighted_rewards(values: Sequence[Sequence[float | None]], weights: Sequence[float]) -> list[float | None]:
    """Return one reward for each row of a group: Σ weight · value over the terms.

    values: (rows, terms), None where a term does not know. A term that knows nothing of the whole group (a
    mathematics reward on a coding problem) is left out of all its sums, which stay comparable. Elsewhere a row with a
    None has no reward: a sum without one part is not comparable with the other rows'. None for every row where no term
    knows anything.

    >>> weighted_rewards([(1.0, 1.0), (0.0, None), (None, 1.0)], [1.0, 0.2])
    [1.2, None, None]
    >>> weighted_rewards([(None, 1.0), (None, 0.0)], [1.0, 0.2])
    [0.2, 0.0]
    """
    known = [term for term in range(len(weights)) if any(row[term] is not None for row in values)]
    totals: list[float | None] = []
    for row in values:
        parts = [weights[term] * value for term in known if (value := row[term]) is not None]
        totals.append(math.fsum(parts) if known and len(parts) == len(known) else None)
    return totals


def over_long(response_tokens: int, *, cache_tokens: int | None = None, limit_tokens: int | None = None) -> Reward:
    """Return DAPO's soft punishment of over-long responses (Yu et al. 2025, arXiv 2503.14476, eq. 13).

    With L the limit, C the cache and |y| the tokens of a response:

        R(y) = 0                       |y| ≤ L − C
               ((L − C) − |y|) / C     L − C < |y| ≤ L
               −1                      L < |y|

    response_tokens: the run's limit, L where `limit_tokens` is None. cache_tokens: C, 0 < C ≤ L; None: a fifth of L, as
    DAPO's 4,096 of 20,480. DAPO's accuracy is ±1: beside one of 0 and 1 the same balance is a weight of 0.5.
    Raises ValueError.
    """
    limit = limit_tokens or response_tokens
    if cache_tokens is None:
        cache_tokens = max(1, limit // 5)
    if not 0 < cache_tokens <= limit:
        raise ValueError(
            f"found cache_tokens={cache_tokens} and a limit of {limit}; expected 0 < cache_tokens <= limit"
        )
    return length_reward(limit - cache_tokens, limit)


#: Built-in rewards other than accuracy: (data.response_tokens, the term's arguments) → a function in TRL's shape.
BUILT_IN: dict[str, Callable[..., Reward]] = {
    "format": lambda response_tokens: format_reward,
    "over_long": over_long,
    "repetition": lambda response_tokens, **arguments: repetition_reward(**arguments),
}


def reward_function(path: str) -> Reward:
    """Return the function at FILE.py:FUNCTION or MODULE:FUNCTION. Its module runs: it is the user's own code.

    Raises RewardError where there is none.
    """
    place, _, name = path.rpartition(":")
    try:
        module = _module_of_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not place.startswith(error.name):
            raise  # a package that the user's module imports
        raise RewardError(f"rollout.rewards: there is no module {place}; expected FILE.py:FUNCTION.") from error
    function = getattr(module, name, None)
    if not callable(function):
        raise RewardError(f"rollout.rewards: {place} has no function {name}.")
    return function  # type: ignore[no-any-return]


def _module_of_file(path: Path) -> Any:
    if not path.is_file():
        raise RewardError(f"rollout.rewards: {path} does not exist (looked for in {Path.cwd()}).")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # a .py file has a loader
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _term(reward: RewardSettings, response_tokens: int) -> Term:
    if reward.path is not None:
        return Term(reward.label, reward.weight, reward_function(reward.path), reward.arguments)
    if reward.name == "accuracy":
        return Term(reward.label, reward.weight, None, {})
    try:
        function = BUILT_IN[reward.label](response_tokens, **reward.arguments)
    except (TypeError, ValueError) as error:
        raise RewardError(f"rollout.rewards: {reward.label} cannot be made with {reward.arguments}: {error}") from error
    return Term(reward.label, reward.weight, function, {})


def _called(term: Term, arguments: dict[str, Any], rows: int) -> list[float | None]:
    """The values of a term. Raises RewardError where they are not one finite number or None a row."""
    assert term.function is not None
    found: Any = term.function(**arguments, **term.arguments)
    if inspect.isawaitable(found):
        found = asyncio.run(_awaited(found))
    values = [None if value is None or math.isnan(value) else float(value) for value in found]
    if len(values) != rows:
        raise RewardError(f"reward {term.name} gave {len(values)} values for {rows} completions; expected one each.")
    if any(value is not None and math.isinf(value) for value in values):
        raise RewardError(f"reward {term.name} gave an infinite value; expected a number, or None for not known.")
    return values


async def _awaited(found: Any) -> Any:
    return await found


def verify_responses(responses: Sequence[str], problems: Sequence[Problem], policy: Policy) -> list[Verdict]:
    """Return the verdict on each response to the problem beside it.

    The verifier is given the question, so that a restated one is no answer, and whether the prompt opened a think
    block, so that a response that was cut off while thinking has none.
    """
    verdicts: dict[int, Verdict] = {}
    for think_open in sorted({problem.think_open for problem in problems}):
        places = [place for place, problem in enumerate(problems) if problem.think_open == think_open]
        judged = verify_batch(
            [responses[place] for place in places],
            [problems[place].gold for place in places],
            prompts=[problems[place].text for place in places],
            think_open=think_open,
            policy=policy,
        )
        verdicts |= dict(zip(places, judged))
    return [verdicts[place] for place in range(len(problems))]


def charged_for_kl(groups: Sequence[Group], rows: Sequence[Sequence[Row]], settings: TrainSettings) -> list[list[Row]]:
    """Return the rows with advantages of rewards from which `loss.kl` times the KL to the reference is taken.

    A row's KL is Σ (log p_old − log p_ref) over the tokens that the policy wrote: an unbiased estimate for sampled
    rows (Stiennon et al. 2020, arXiv 2009.01325, section 3.4). A teacher's row is charged nothing.
    """
    charged = [
        replace(group, samples=tuple(_charged(s, row, settings.loss.kl) for s, row in zip(group.samples, own)))
        for group, own in zip(groups, rows)
    ]
    return [
        [replace(row, advantage=sample.advantage) for row, sample in zip(own, group.samples)]
        for own, group in zip(rows, with_advantages(charged, settings))
    ]


def _charged(sample: Sample, row: Row, coefficient: float) -> Sample:
    old = row.old_log_probs or sample.log_probs
    if sample.reward is None or sample.replayed or old is None or row.ref_log_probs is None:
        return sample
    kl = sum(own - ref for own, ref in list(zip(old, row.ref_log_probs))[sample.off_policy :])
    return replace(sample, reward=sample.reward - coefficient * kl)
