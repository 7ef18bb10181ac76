"""What a person watches of a round: rewards, lengths, signal and cost as numbers, completions as a table."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import polars as pl
import torch
from torch import Tensor

from evaluators.verdict import Outcome
from tracekit.core.tables import COMPLETIONS, write_table
from trainer.data.sequences import Row
from trainer.data.shared_prompts import shared_tokens
from trainer.distributed.ranks import rank
from trainer.planning.flops import ModelCost, causal_pairs
from trainer.rollouts.rollout import Group, Round, Sample
from trainer.settings import RewardSettings, TrainSettings

#: (sum, count) of a number: added up over micro-batches and ranks, then divided.
Statistics = dict[str, tuple[Tensor, Tensor]]

#: Bounds of the teacher-token probability histogram.
PROBABILITY_BINS = (0.0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


def round_statistics(groups: Sequence[Group]) -> Statistics:
    """Rewards, advantages and lengths by who wrote a row; shares of groups and rows."""
    samples = [sample for group in groups for sample in group.samples]
    on = [sample for sample in samples if sample.on_policy]
    teacher = [sample for sample in samples if sample.teacher]
    replayed = [sample for sample in samples if sample.replayed]
    sampled_log_probs = [value for sample in on for value in sample.log_probs or ()]
    found = {
        "reward_on_policy": _mean(on, _reward),
        "reward_teacher": _mean(teacher, _reward),
        "reward_replayed": _mean(replayed, _reward),
        "advantage_on_policy": _mean(on, _advantage),
        "advantage_teacher": _mean(teacher, _advantage),
        "advantage_size": _mean(samples, lambda sample: abs(sample.advantage)),
        "response_tokens": _mean(on, _length),
        "response_tokens_right": _mean([s for s in on if s.right], _length),
        "response_tokens_teacher": _mean(teacher, _length),
        "cut_at_limit": _mean(on, lambda sample: float(sample.finish_reason == "length")),
        "rollout_entropy": _pair([-value for value in sampled_log_probs]),  # unbiased: the mean of −log p as sampled
        "groups_with_signal": _pair([float(any(s.advantage for s in group.samples)) for group in groups]),
        "groups_all_right": _pair([float(group.pass_rate == 1) for group in groups]),
        "groups_all_wrong": _pair([float(group.pass_rate == 0) for group in groups]),
    }
    return found


def reward_statistics(
    groups: Sequence[Group], rewards: Sequence[RewardSettings], logged: Mapping[str, Sequence[float]]
) -> Statistics:
    """Of each term of the reward: mean over sampled rows whose value is known, and the share that is not known.

    logged: numbers that the reward functions logged themselves, averaged under the names they gave.
    """
    rows = [sample for group in groups for sample in group.samples if sample.on_policy]
    found: Statistics = {name: _pair(values) for name, values in logged.items()}
    for place, reward in enumerate(rewards):
        values = [sample.rewards[place] for sample in rows]
        found[f"rewards/{reward.label}"] = _pair([value for value in values if value is not None])
        found[f"rewards/{reward.label}/unknown"] = _pair([float(value is None) for value in values])
    return found


def count_statistics(rollout: Round, replayed: int, skipped: int) -> Statistics:
    """Counts of a round, summed over ranks: what was left out, and what verdicts said."""
    outcomes = {f"verdicts_{outcome}": rollout.counts[f"verdicts_{outcome}"] for outcome in Outcome}
    filtered = {
        f"groups_{why}": rollout.counts[f"groups_{why}"] for why in ("dropped_right", "dropped_wrong", "unknown")
    }
    counts = {
        **outcomes,
        **filtered,
        "groups": len(rollout.groups),
        "groups_short_of_teacher": rollout.counts["groups_short_of_teacher"],
        "groups_branched": rollout.counts["groups_branched"],
        "groups_replayed": replayed,
        "problems_drawn": rollout.drawn,
        "rewards_unknown": sum(s.reward is None for group in rollout.groups for s in group.samples),
        "tokens_sampled": sum(_written(sample) for group in rollout.groups for sample in group.samples),
        "tokens_discarded": rollout.counts["tokens_discarded"],
        "tokens_teacher": sum(s.off_policy for group in rollout.groups for s in group.samples if s.teacher),
        "skipped_rows": skipped if rank() == 0 else 0,
        "seconds_verify": sum(s.verdict.seconds for group in rollout.groups for s in group.samples if s.verdict),
    }
    return {name: _total(number) for name, number in counts.items()}


def update_statistics(trained: Sequence[Row], flops: int) -> Statistics:
    """Tokens of the rows that went forward and backward, and what that took, summed over ranks."""
    counts = {
        "tokens_trained": float(sum(len(row.token_ids) for row in trained)),
        "rows_trained": float(len(trained)),
        "flops_update": float(flops),
    }
    return {name: _total(number) for name, number in counts.items()}


def importance_statistics(rows: Sequence[Row], cap: float) -> Statistics:
    """How far the engine's log-probs are from the trainer's, over the tokens that the policy wrote: the mean weight,
    the mean of |log weight| in nats, and the share that the cap cuts. Nothing where rows carry no weights."""
    weights = [torch.tensor(row.importance[row.off_policy :]) for row in rows if row.importance is not None]
    if not weights:
        return {}
    weight = torch.cat(weights).double()
    return {
        "importance": _pair(weight.tolist()),
        "importance_gap": _pair(weight.log().abs().tolist()),
        "importance_cut": _pair((weight >= cap).double().tolist()),
    }


def pass_flops(rows: Sequence[Row], cost: ModelCost, *, shared: bool) -> int:
    """FLOPs of a forward and backward pass over rows side by side, padding counted, and nothing twice that backward
    computes again. shared: each prompt is computed once for its rows, but for attention, which sees whole rows."""
    scored, longest = sum(row.response_length for row in rows), max(len(row.token_ids) for row in rows)
    tokens = shared_tokens(rows) if shared else len(rows) * longest
    return cost.update(tokens, scored, len(rows) * causal_pairs(longest))


def sampling_flops(groups: Iterable[Group], cost: ModelCost) -> Statistics:
    """FLOPs of the completions sampled, each prompt computed once."""
    flops = sum(
        cost.sampling(len(group.problem.prompt_ids), [_written(sample) for sample in group.samples]) for group in groups
    )
    return {"flops_rollout": _total(flops)}


def probability_statistics(probabilities: Tensor) -> Statistics:
    """The histogram of the probabilities that the policy gives to a teacher's tokens: share in each bin."""
    count = torch.tensor(float(probabilities.numel()))
    edges = torch.tensor(PROBABILITY_BINS[1:-1])
    bins = torch.bincount(torch.bucketize(probabilities.cpu(), edges), minlength=len(edges) + 1)
    names = (f"teacher_probability_to_{high:g}" for high in PROBABILITY_BINS[1:])
    return {name: (bins[place].double(), count) for place, name in enumerate(names)}


def completions_table(groups: Sequence[Group], model: str, step: int, temperature: float) -> pl.DataFrame:
    """The rows of a round as COMPLETIONS. step: optimizer steps done when they were sampled."""
    rows = [
        {
            "problem_id": group.problem.problem_id,
            "model": model,
            "step": step,
            "sample": number,
            "temperature": temperature,
            "on_policy": sample.on_policy,
            "problem": group.problem.text,
            "gold": group.problem.gold,
            "response": sample.response,
            "token_count": len(sample.token_ids),
            "finish_reason": sample.finish_reason,
            "outcome": None if sample.verdict is None else str(sample.verdict.outcome),
            "prediction": None if sample.verdict is None else sample.verdict.prediction,
            "reward": sample.reward,
            "advantage": sample.advantage,
        }
        for group in groups
        for number, sample in enumerate(group.samples)
    ]
    return pl.DataFrame(rows, schema=COMPLETIONS)


def write_completions(
    folder: Path, groups: Sequence[Group], settings: TrainSettings, round_number: int, step: int
) -> pl.DataFrame:
    """Write `completions/round-N.parquet` of the run folder and return it; beyond one rank each writes its own part."""
    part = f"-rank{rank()}" if rank() else ""
    table = completions_table(groups, settings.output.name, step, settings.rollout.temperature)
    write_table(table, folder / "completions" / f"round-{round_number:06d}{part}.parquet", COMPLETIONS)
    return table


def _written(sample: Sample) -> int:
    """Tokens that the policy wrote in this round."""
    return 0 if sample.replayed else len(sample.token_ids) - sample.off_policy


def _reward(sample: Sample) -> float | None:
    return sample.reward


def _advantage(sample: Sample) -> float | None:
    return sample.advantage


def _length(sample: Sample) -> float | None:
    return float(len(sample.token_ids))


def _mean(samples: Iterable[Sample], value: Callable[[Sample], float | None]) -> tuple[Tensor, Tensor]:
    return _pair([found for sample in samples if (found := value(sample)) is not None])


def _total(number: float) -> tuple[Tensor, Tensor]:
    """Counted once, on rank 0: the sum over ranks in place of their mean."""
    return torch.tensor(float(number), dtype=torch.float64), torch.tensor(float(rank() == 0))


def _pair(values: Sequence[float]) -> tuple[Tensor, Tensor]:
    return torch.tensor(sum(values), dtype=torch.float64), torch.tensor(float(len(values)))
