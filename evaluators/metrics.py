"""Metrics over problems: unbiased pass@k and majority vote, each with a bootstrap interval over problems.

Input is one sequence of verdicts a problem. A verdict that says nothing of the response (UNPARSED_GOLD, TIMEOUT)
is no sample: it is left out and counted in `Estimate.unknown`.
"""

from __future__ import annotations

import functools
import math
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from evaluators.verdict import Outcome, Policy, Verdict
from evaluators.verify import verify

#: Subsets of k samples drawn a problem where k < n and a vote is estimated; its standard error is below 0.04.
VOTE_DRAWS = 200

#: The numbers of an answer that is one whole number, or a tuple of them.
Whole = tuple[int, ...]

_NUMBER = r"\s*-?(?:0|[1-9][0-9]{0,14})\s*"
_WHOLE = re.compile(rf"{_NUMBER}|\({_NUMBER}(?:,{_NUMBER})+\)", re.ASCII)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over problems and its interval.

    value, low, high: in [0, 1]; NaN where no problem is left.
    problems: how many entered. unknown: samples left out because their verdict says nothing of the response.
    left_out: problems that had fewer than k samples without these.
    """

    value: float
    low: float
    high: float
    problems: int
    unknown: int
    left_out: int


def pass_at_k(
    verdicts: Sequence[Sequence[Verdict]],
    k: int,
    *,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Estimate pass@k, 1 - C(n - c, k) / C(n, k) averaged over problems (Chen et al. 2021, arXiv:2107.03374, eq. 1).

    Parameters
    ----------
    verdicts : sequence of sequences of Verdict
        n >= k samples a problem, of which c are CORRECT. TIMEOUT and UNPARSED_GOLD are left out and counted.
    k : int
        Samples drawn, at least 1.
    confidence : float
        Level of the bootstrap interval over problems, in (0, 1).
    resamples : int
        Bootstrap resamples.
    seed : int
        Seed of the resamples.

    Returns
    -------
    Estimate
        Value and interval in [0, 1], and the counts of what was left out.

    Raises
    ------
    ValueError
        Where k < 1 or a problem has fewer than k verdicts.

    Examples
    --------
    >>> from evaluators import pass_at_k, verify
    >>> samples = [verify(answer, "4") for answer in ("4", "5", "4", "6")]
    >>> round(pass_at_k([samples], 2).value, 4)
    0.8333
    """

    def solved(samples: Sequence[Verdict]) -> float:
        return pass_probability(len(samples), sum(sample.correct for sample in samples), k)

    return _estimate(verdicts, k, solved, confidence, resamples, seed)


def majority_at_k(
    verdicts: Sequence[Sequence[Verdict]],
    k: int,
    *,
    policy: Policy | None = None,
    confidence: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    r"""Estimate how often the most frequent answer of k samples is CORRECT, averaged over problems.

    Equivalent answers vote together. A tie earns the share of its groups that are CORRECT; a response without an answer
    does not vote. Where k < n the vote is averaged over VOTE_DRAWS subsets.

    Parameters
    ----------
    verdicts : sequence of sequences of Verdict
        n >= k samples a problem.
    k : int
        Samples that vote, at least 1.
    policy : Policy, optional
        What counts as equal between answers.
    confidence : float
        Level of the bootstrap interval over problems, in (0, 1).
    resamples : int
        Bootstrap resamples.
    seed : int
        Seed of resamples and subsets.

    Returns
    -------
    Estimate
        Value and interval in [0, 1], and the counts of what was left out.

    Raises
    ------
    ValueError
        Where k < 1 or a problem has fewer than k verdicts.

    Examples
    --------
    >>> from evaluators import majority_at_k, verify
    >>> samples = [verify(answer, "0.5") for answer in ("0.5", r"\boxed{\frac12}", "3")]
    >>> majority_at_k([samples], 3).value
    1.0
    """
    import numpy as np  # an extra: the base install verifies without it

    generator = np.random.default_rng(seed)

    def voted(samples: Sequence[Verdict]) -> float:
        groups = group_equivalent([sample.prediction for sample in samples], policy)
        right = _groups_that_are_correct(groups, samples)
        if k == len(samples):
            return _vote(groups, right)
        draws = [generator.choice(len(groups), size=k, replace=False) for _ in range(VOTE_DRAWS)]
        return math.fsum(_vote([groups[i] for i in draw], right) for draw in draws) / VOTE_DRAWS

    return _estimate(verdicts, k, voted, confidence, resamples, seed)


def pass_probability(samples: int, correct: int, k: int) -> float:
    """1 - C(n - c, k) / C(n, k): chance that k of n samples, drawn without replacement, hold one of c correct ones."""
    return 1.0 - math.comb(samples - correct, k) / math.comb(samples, k)


def group_equivalent(answers: Sequence[str | None], policy: Policy | None = None) -> list[int | None]:
    """The group of each answer: equal numbers mean equivalent answers; None has no group.

    Each answer is compared with the first of every group, the more frequent spellings first, since a tolerance is
    not transitive. Whole numbers, and tuples of them, are read off and not compared: a thousand samples of a weak
    model give hundreds of different ones.
    """
    counts = Counter(answer for answer in answers if answer is not None)
    group_of = _groups_of(tuple(answer for answer, _ in counts.most_common()), policy or Policy())
    return [None if answer is None else group_of[answer] for answer in answers]


@functools.lru_cache(maxsize=4096)  # votes of one problem are asked for at many k
def _groups_of(spellings: tuple[str, ...], policy: Policy) -> dict[str, int]:
    representatives: list[tuple[str, Whole | None]] = []
    first_of: dict[Whole, int] = {}
    group_of: dict[str, int] = {}
    for answer in spellings:
        whole = _whole_numbers(answer)
        same = None if whole is None else first_of.get(whole)
        # another spelling that came before may be equal too: "1,234" is a number, "(1,234)" a pair or that number
        others = (
            group
            for group, (other, its_whole) in enumerate(representatives[:same])
            if (whole is None or its_whole is None or len(whole) != len(its_whole))
            and verify(f"\\boxed{{{answer}}}", other, policy=policy).correct
        )
        group_of[answer] = found = next(others, len(representatives) if same is None else same)
        if found == len(representatives):
            representatives.append((answer, whole))
            if whole is not None:
                first_of[whole] = found
    return group_of


def _whole_numbers(answer: str) -> Whole | None:
    """Two of the same length are the same answer where they are equal, under any policy: whole numbers are exact."""
    if not _WHOLE.fullmatch(answer):
        return None
    return tuple(int(number) for number in answer.strip().strip("()").split(","))


def bootstrap_interval(
    values: Sequence[float], *, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean: the values are drawn again with replacement (Efron 1979).

    values: one a problem. NaN, NaN for none. Raises ValueError unless 0 < confidence < 1.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence is {confidence}; expected a share between 0 and 1, such as 0.95")
    if not len(values):
        return math.nan, math.nan
    import numpy as np

    array = np.asarray(values, dtype=np.float64)
    generator = np.random.default_rng(seed)
    chunk = max(1, 4_000_000 // len(array))  # 32 MB of draws at once
    means = np.concatenate(
        [
            array[generator.integers(len(array), size=(min(chunk, resamples - start), len(array)))].mean(axis=1)
            for start in range(0, resamples, chunk)
        ]
    )
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)


def _estimate(
    verdicts: Sequence[Sequence[Verdict]],
    k: int,
    value_of: Callable[[Sequence[Verdict]], float],
    confidence: float,
    resamples: int,
    seed: int,
) -> Estimate:
    if k < 1:
        raise ValueError(f"k is {k}; expected at least 1")
    values, unknown, left_out = [], 0, 0
    for problem, samples in enumerate(verdicts):
        if len(samples) < k:
            raise ValueError(f"problem {problem} has {len(samples)} samples; k = {k} needs at least as many")
        known = [sample for sample in samples if sample.outcome not in (Outcome.UNPARSED_GOLD, Outcome.TIMEOUT)]
        unknown += len(samples) - len(known)
        if len(known) < k:
            left_out += 1
        else:
            values.append(value_of(known))
    value = math.fsum(values) / len(values) if values else math.nan
    low, high = bootstrap_interval(values, confidence=confidence, resamples=resamples, seed=seed)
    return Estimate(value, low, high, len(values), unknown, left_out)


def _groups_that_are_correct(groups: Sequence[int | None], samples: Sequence[Verdict]) -> frozenset[int]:
    """Groups of which more members than not are CORRECT."""
    ballots = Counter[int]()
    for group, sample in zip(groups, samples):
        if group is not None:
            ballots[group] += 1 if sample.correct else -1
    return frozenset(group for group, balance in ballots.items() if balance > 0)


def _vote(groups: Sequence[int | None], right: frozenset[int]) -> float:
    counts = Counter(group for group in groups if group is not None)
    if not counts:
        return 0.0
    most = max(counts.values())
    leaders = [group for group, count in counts.items() if count == most]
    return sum(group in right for group in leaders) / len(leaders)
