"""Groups: the rows of a problem, their advantages, and what each row trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from evaluators.verdict import Verdict
from trainer.data.problems import Problem
from trainer.objectives.advantage import centred, standardised
from trainer.objectives.batch import Role
from trainer.settings import OnPolicySettings, TrainSettings


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a group.

    token_ids: of the response. log_probs: of each in the distribution it was sampled from; 0 on a teacher's
    prefix; None on a teacher's whole trace. off_policy: leading tokens that the policy did not write.
    replayed: an earlier policy wrote them, with these log_probs. rewards: value of each term of `rollout.rewards`, None
    where a term does not know. reward: their weighted sum, None where it is not known. role, teacher_role, weight,
    clone_weight, entropy_exponent, masked: what the row trains, as in Row.
    """

    token_ids: Sequence[int]
    off_policy: int
    finish_reason: str
    log_probs: Sequence[float] | None = None
    recorded_log_probs: Sequence[float] | None = None
    replayed: bool = False
    response: str = ""
    verdict: Verdict | None = None
    rewards: tuple[float | None, ...] = ()
    reward: float | None = None
    advantage: float = 0.0
    role: Role = Role.SURROGATE
    teacher_role: Role = Role.SURROGATE
    weight: float = 1.0
    clone_weight: float = 1.0
    entropy_exponent: float = 0.0
    masked: bool = False

    @property
    def right(self) -> bool | None:
        """Whether the first term of the reward is 1 or more; None where it does not know."""
        deciding = self.rewards[0] if self.rewards else self.reward
        return None if deciding is None else deciding >= 1

    @property
    def on_policy(self) -> bool:
        """True where the policy wrote every token."""
        return self.off_policy == 0

    @property
    def teacher(self) -> bool:
        """True where a teacher wrote the first token."""
        return self.off_policy > 0 and not self.replayed


@dataclass(frozen=True, slots=True)
class Group:
    """The rows of one problem."""

    problem: Problem
    samples: tuple[Sample, ...]

    @property
    def rewards(self) -> list[float]:
        """The rewards that are known."""
        return [sample.reward for sample in self.samples if sample.reward is not None]

    @property
    def outcomes(self) -> list[bool]:
        """Whether each row is right, where that is known."""
        return [sample.right for sample in self.samples if sample.right is not None]

    @property
    def pass_rate(self) -> float | None:
        """Share of right rows among the sampled ones, where that is known."""
        known = [sample.right for sample in self.samples if sample.on_policy and sample.right is not None]
        return sum(known) / len(known) if known else None


def written_tokens(group: Group) -> int:
    """Tokens of a group that the policy wrote in this round."""
    return sum(len(row.token_ids) - row.off_policy for row in group.samples)


def with_advantages(groups: Sequence[Group], settings: TrainSettings) -> list[Group]:
    """The groups with each row's advantage; a row of unknown reward gets 0 and does not enter the baseline."""
    if not groups:
        return []
    rows = [(number, sample) for number, group in enumerate(groups) for sample in group.samples]
    estimate: Callable[..., torch.Tensor] = centred
    if settings.advantage.std:
        estimate = partial(standardised, unit_when_constant=settings.advantage.baseline == "on_policy")
    baseline = [_in_baseline(sample, settings) for _, sample in rows]
    advantage = estimate(
        torch.tensor([0.0 if sample.reward is None else sample.reward for _, sample in rows], dtype=torch.float64),
        torch.tensor([number for number, _ in rows]),
        torch.tensor(baseline),
    )
    values = iter(advantage.tolist())
    return [
        replace(group, samples=tuple(_weighed(sample, next(values), settings) for sample in group.samples))
        for group in groups
    ]


def _in_baseline(sample: Sample, settings: TrainSettings) -> bool:
    if sample.reward is None or _only_cloned(sample, settings):
        return False
    return settings.advantage.baseline == "all" or sample.on_policy


def _weighed(sample: Sample, advantage: float, settings: TrainSettings) -> Sample:
    counts = sample.reward is not None and not _only_cloned(sample, settings)
    return replace(sample, advantage=advantage if counts else 0.0)


def _only_cloned(sample: Sample, settings: TrainSettings) -> bool:
    """Whether a row is a teacher's whole trace outside of the policy gradient, so that its reward compares nothing."""
    whole = sample.teacher and sample.off_policy == len(sample.token_ids)
    return whole and not Role(settings.teacher_role).acts


def with_roles(groups: Sequence[Group], settings: TrainSettings, number: int) -> list[Group]:
    """The groups of round `number` with the role and weight of each row, as the recipe has them."""
    weighted = [_gated(replace(group, samples=_weighted(group, settings, number)), settings) for group in groups]
    if settings.rollout.truncated == "score":
        return weighted
    return [replace(group, samples=tuple(map(_without_truncated, group.samples))) for group in weighted]


def _without_truncated(sample: Sample) -> Sample:
    """DAPO's over-long filtering (Yu et al. 2025, arXiv 2503.14476, section 3.4): a response cut at the limit trains
    nothing but what is cloned of a teacher's prefix; its reward stays in the group's statistics."""
    if sample.finish_reason != "length":
        return sample
    taught = Role.CLONED if sample.teacher_role.clones else Role.LEFT_OUT
    return replace(sample, role=Role.LEFT_OUT, teacher_role=taught, masked=True)


def _weighted(group: Group, settings: TrainSettings, number: int) -> tuple[Sample, ...]:
    """The teacher's role on teacher rows, and CHORD's factors: policy gradient times 1 − mu, cloned tokens times mu."""
    schedule, teacher = settings.loss.mu, settings.teacher
    mu = None if schedule is None else schedule.at(number)
    acting, cloning = (1.0, 1.0) if mu is None else (1.0 - mu, mu)
    role = Role(settings.teacher_role)
    return tuple(
        replace(sample, teacher_role=role, weight=acting * teacher.weight, clone_weight=cloning)
        if sample.teacher
        else _weighted_rollout(sample, acting, settings.on_policy)
        for sample in group.samples
    )


def _weighted_rollout(sample: Sample, acting: float, on_policy: OnPolicySettings) -> Sample:
    """A sampled row's weight; SRFT weighs right rows apart."""
    if not sample.right:
        return replace(sample, weight=acting)
    return replace(sample, weight=acting * on_policy.right_weight, entropy_exponent=on_policy.right_entropy)


def _gated(group: Group, settings: TrainSettings) -> Group:
    """HPT's gate (Lv et al. 2025, arXiv 2509.04419): the teacher's rows alone where at most `right_at_most` sampled
    rows are right, else the others alone. A group without a teacher row stays as it is."""
    most = settings.teacher.right_at_most
    if most is None or not any(sample.teacher for sample in group.samples):
        return group
    right = sum(bool(sample.right) for sample in group.samples if sample.on_policy)
    fails = right <= most
    return replace(group, samples=tuple(s if s.teacher == fails else _left_out(s) for s in group.samples))


def _left_out(sample: Sample) -> Sample:
    return replace(sample, role=Role.LEFT_OUT, teacher_role=Role.LEFT_OUT)
