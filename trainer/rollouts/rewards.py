"""What a response earns."""

from __future__ import annotations

from collections.abc import Sequence

from evaluators.batch import verify_batch
from evaluators.verdict import Policy, Verdict
from trainer.data.problems import Problem


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
