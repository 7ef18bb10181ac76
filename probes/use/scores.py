"""A probe's margin as a score: best of n, weighted vote, and how early it tells a correct answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from probes.statistics.auc import fold_auc

#: Shares of a response after which correctness is told.
SHARES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True)
class Selection:
    """Accuracy over problems of a way to choose among samples, with its standard error."""

    name: str
    accuracy: float
    standard_error: float


def best_of_n(samples: pl.DataFrame, score: str) -> Selection:
    """Take each problem's sample with the highest score. samples: problem_id, correct and the score's column."""
    best = samples.sort(score, descending=True, nulls_last=True, maintain_order=True).unique(
        "problem_id", keep="first", maintain_order=True
    )
    return _selection(f"best of n by {score}", best["correct"])


def weighted_vote(samples: pl.DataFrame, weight: str | None = None) -> Selection:
    """Each problem's answer with the largest summed weight; without one, the plain majority.

    samples: problem_id, answer, correct and the weight's column, whose values are not negative. Samples without an
    answer do not vote.
    """
    weights = pl.lit(1.0) if weight is None else pl.col(weight)
    votes = (
        samples.filter(pl.col("answer").is_not_null())
        .with_columns(vote=weights)
        .group_by("problem_id", "answer", maintain_order=True)
        .agg(pl.col("vote").sum(), pl.col("correct").first())
        .sort("vote", descending=True, maintain_order=True)
        .unique("problem_id", keep="first", maintain_order=True)
    )
    silent = samples["problem_id"].n_unique() - len(votes)  # a problem without any answer is not solved
    correct = pl.concat([votes["correct"].cast(pl.Boolean), pl.Series([False] * silent, dtype=pl.Boolean)])
    return _selection("majority" if weight is None else f"vote weighted by {weight}", correct)


def _selection(name: str, correct: pl.Series) -> Selection:
    values = correct.drop_nulls().cast(pl.Float64).to_numpy()
    error = float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else float("nan")
    return Selection(name, float(values.mean()) if len(values) else float("nan"), error)


def early_correctness(
    tokens: pl.DataFrame, correct: dict[str, bool], scores: Sequence[str], shares: Sequence[float] = SHARES
) -> pl.DataFrame:
    """AUC of the answer's correctness after a share of each response, for each score, with a bootstrap over problems.

    tokens: one row a token (or step) of a trace, with problem_id, trace_id, `share` of the response up to its end, and
    a column for each score. A trace's score after a share is that of its last row up to there. correct: trace_id →
    whether its answer is. Returns share, score, auc, low, high, traces.
    """
    rows = []
    known = tokens.filter(pl.col("trace_id").is_in(list(correct)))
    for share in shares:
        last = known.filter(pl.col("share") <= share + 1e-9).sort("share", maintain_order=True)
        last = last.unique("trace_id", keep="last", maintain_order=True)
        labels = np.array([1.0 if correct[t] else -1.0 for t in last["trace_id"]])
        for name in scores:
            values = last[name].cast(pl.Float64).to_numpy()
            usable = np.isfinite(values)
            auc, low, high = _auc(values[usable], labels[usable], last["problem_id"].to_numpy()[usable])
            rows.append(
                {"share": share, "score": name, "auc": auc, "low": low, "high": high, "traces": int(usable.sum())}
            )
    return pl.DataFrame(rows)


def _auc(values: np.ndarray, labels: np.ndarray, problems: np.ndarray, draws: int = 400) -> tuple[float, float, float]:
    """(AUC, low, high): 95 % percentile interval over problems drawn with replacement."""
    if len(np.unique(labels)) < 2:
        return (float("nan"),) * 3
    names, of_row = np.unique(problems, return_inverse=True)
    random = np.random.default_rng(0)
    weights = random.multinomial(len(names), np.full(len(names), 1 / len(names)), size=draws)[:, of_row]
    shape, folds = (draws, len(values)), np.zeros(len(values), np.int64)
    drawn = fold_auc(np.broadcast_to(values, shape), labels[None], folds, weights.astype(float))
    low, high = np.nanquantile(drawn, [0.025, 0.975])
    return float(fold_auc(values[None], labels[None], folds)[0]), float(low), float(high)


class ProbeReward:
    """A reward function in the shape that TRL's trainers call: (prompts, completions, **columns) → list of floats.

    score: (prompts, completions) as text → (n,) rewards, such as a probe's probability at the response's end
    (`probes.use.interventions.end_scorer`). Chat messages are joined to text: the last message of a completion.
    """

    def __init__(self, score: Callable[[list[str], list[str]], Any], name: str = "probe_reward") -> None:
        self.score = score
        self.__name__ = name  # TRL logs rewards by it

    def __call__(self, prompts: Sequence[Any], completions: Sequence[Any], **_: Any) -> list[float]:
        """One reward for each completion."""
        if len(prompts) != len(completions):
            raise ValueError(f"{len(prompts)} prompts for {len(completions)} completions; give one for each.")
        texts = [[_text(item) for item in column] for column in (prompts, completions)]
        return [float(value) for value in self.score(texts[0], texts[1])]


def _text(item: Any) -> str:
    return item if isinstance(item, str) else str(item[-1]["content"])
