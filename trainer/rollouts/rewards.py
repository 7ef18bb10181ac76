"""What a response earns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from evaluators.batch import verify_batch
from evaluators.verdict import Policy, Verdict
from trainer.data.problems import Problem
from trainer.data.sequences import Row
from trainer.rollouts.groups import Group, Sample, with_advantages
from trainer.settings import TrainSettings


def verify_responses(responses: Sequence[str], problems: Sequence[Problem], policy: Policy) -> list[Verdict]:
    """Return the verdict on each response to the problem beside it.

    The verifier is given the question, so that a restated one is no answer, and whether the prompt opened a think
    block, so that a response that was cut off while thinking has none.
    """
    found: dict[int, Verdict] = {}
    for think_open in sorted({problem.think_open for problem in problems}):
        places = [place for place, problem in enumerate(problems) if problem.think_open == think_open]
        verdicts = verify_batch(
            [responses[place] for place in places],
            [problems[place].gold for place in places],
            prompts=[problems[place].text for place in places],
            think_open=think_open,
            policy=policy,
        )
        found |= dict(zip(places, verdicts))
    return [found[place] for place in range(len(problems))]


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
