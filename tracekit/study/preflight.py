"""Can RL begin from this model on these problems? Rates of its samples, and a forecast that names what it rests on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from pydantic import Field, PositiveInt

from trainer.evaluate import EvaluateSettings

EARLY_ROUNDS = 10
UNKNOWN = ("unparsed_prediction", "unparsed_gold", "timeout")  # outcomes that are neither right nor wrong
LIKELY, UNLIKELY = 0.9, 0.1  # chances of beginning that lead to advice


class PreflightSettings(EvaluateSettings):
    """How the model is asked, and the run of RL that is planned. `samples` is per problem, at one temperature."""

    temperatures: tuple[float, ...] = Field((1.0,), min_length=1, max_length=1, description="of the planned rollouts")
    samples: PositiveInt = Field(64, ge=8, description="completions of a problem")
    max_tokens: PositiveInt = Field(2048, description="longest response, EOS counted")
    take: PositiveInt = Field(64, description="problems that are asked: the first so many of the table")
    rounds: PositiveInt = Field(100, description="rounds of the planned run")
    problems_per_round: PositiveInt = Field(128, description="problems of a round")
    group_size: PositiveInt = Field(8, ge=2, description="rollouts of a problem in a round")

    @property
    def rollouts(self) -> int:
        """Rollouts of the planned run."""
        return self.rounds * self.problems_per_round * self.group_size

    def asked(self) -> EvaluateSettings:
        """The settings of the evaluation alone."""
        plan = {"take", "rounds", "problems_per_round", "group_size"}
        tree = self.model_dump(exclude=plan, exclude_unset=True)
        own = {"temperatures": self.temperatures, "samples": self.samples, "max_tokens": self.max_tokens}
        return EvaluateSettings.model_validate(tree | own)


@dataclass(frozen=True, slots=True)
class Rates:
    """What the samples say. Shares are in [0, 1], lengths in tokens, intervals at 95 %.

    pass_at: k → share of problems with a right one among k samples, unbiased. low, high: interval of pass@1, over
    problems; of none right, what so many samples could have missed. signal: expected share of groups of the planned
    size with right and wrong rollouts, the only ones that GRPO learns from. reached: share of problems with any right
    sample. formatted: share of samples with an answer that can be read. cut: share cut at the longest length.
    unknown: samples that the verifier could not judge; they count as not right.
    """

    problems: int
    samples: int
    pass_at: dict[int, float]
    low: float
    high: float
    signal: float
    reached: float
    formatted: float
    tokens_mean: float
    tokens_95: float
    cut: float
    unknown: int


def measure_rates(completions: pl.DataFrame, group_size: int) -> Rates:
    """The rates of COMPLETIONS with the same number of samples of every problem."""
    from evaluators.metrics import bootstrap_interval, pass_probability

    right = (pl.col("outcome") == "correct").sum().alias("right")
    counts = completions.group_by("problem_id", maintain_order=True).agg(right, pl.len().alias("samples"))
    samples = int(counts["samples"].min())  # type: ignore[arg-type]
    pairs = list(counts.select("samples", "right").iter_rows())
    pass_at = {
        k: sum(pass_probability(n, c, k) for n, c in pairs) / len(pairs) for k in (1, 8, 64, 128) if k <= samples
    }
    low, high = bootstrap_interval([c / n for n, c in pairs])
    if not any(c for _, c in pairs):
        high = 1 - 0.05 ** (1 / completions.height)
    size = min(group_size, samples)
    return Rates(
        problems=len(pairs),
        samples=samples,
        pass_at=pass_at,
        low=low,
        high=high,
        signal=sum(mixed_share(n, c, size) for n, c in pairs) / len(pairs),
        reached=sum(c > 0 for _, c in pairs) / len(pairs),
        formatted=float(completions["prediction"].is_not_null().mean()),  # type: ignore[arg-type]
        tokens_mean=float(completions["token_count"].mean()),  # type: ignore[arg-type]
        tokens_95=float(completions["token_count"].quantile(0.95)),  # type: ignore[arg-type]
        cut=float((completions["finish_reason"] == "length").mean()),  # type: ignore[arg-type]
        unknown=int(completions["outcome"].is_in(UNKNOWN).sum()),
    )


def mixed_share(samples: int, right: int, size: int) -> float:
    """Chance that a group of `size`, drawn without replacement from `samples`, has both right and wrong ones."""
    all_ways = math.comb(samples, size)
    return 1 - (math.comb(right, size) + math.comb(samples - right, size)) / all_ways


def begin_chance(rate: float, rollouts: int, half_way: float) -> float:
    """Return 1 - exp(-c n p) with c = ln 2 / 10^half_way: the chance that RL begins, as analysis/ladder.py fits it."""
    return -math.expm1(-math.log(2) / 10.0**half_way * rollouts * rate)


def forecast(rates: Rates, settings: PreflightSettings, ladder: Mapping[str, Any]) -> list[str]:
    """The forecast in sentences. ladder: of GRPO in the published study: half_way, low, high (log10), runs, solved."""
    rate, rollouts = rates.pass_at[1], settings.rollouts
    early = rate * settings.problems_per_round * settings.group_size * EARLY_ROUNDS
    chance = begin_chance(rate, rollouts, ladder["half_way"])
    least = begin_chance(rates.low, rollouts, ladder["high"])
    most = begin_chance(rates.high, rollouts, ladder["low"])
    lines = [
        f"Right rollouts to expect in the first {EARLY_ROUNDS} rounds: {early:.3g}; in all {settings.rounds} rounds "
        f"({rollouts:,} rollouts): {rate * rollouts:.3g} (pass@1 {rate:.3g} [{rates.low:.2g}, {rates.high:.2g}]).",
        f"Chance that GRPO alone begins to learn: {chance:.2f} [{least:.2f}, {most:.2f}].",
        _advice(least, most, rates),
    ]
    if rates.cut > 0.1:
        lines.append(f"{100 * rates.cut:.0f} % of the samples were cut at {settings.max_tokens} tokens: allow more.")
    if rates.formatted < 0.5:
        lines.append(
            f"Only {100 * rates.formatted:.0f} % of the samples hold a readable answer: teach the format first."
        )
    lines.append(
        f"This rests on {ladder['runs']} GRPO runs ({ladder['solved']} solved) of a model of 0.4 million parameters in "
        "the embedded world, to which P(solved) = 1 - exp(-c · rollouts · pass rate) was fitted: half of the runs "
        f"began at {10 ** ladder['half_way']:.2g} right rollouts [{10 ** ladder['low']:.2g}, "
        f"{10 ** ladder['high']:.2g}]. It says whether there is anything to reinforce, not how far training gets; no "
        "larger model was used in the fit."
    )
    return lines


def _advice(least: float, most: float, rates: Rates) -> str:
    if least >= LIKELY:
        return (
            "GRPO alone should begin. A group of the planned size has right and wrong rollouts in "
            f"{100 * rates.signal:.0f} % of cases."
        )
    if most <= UNLIKELY:
        return "GRPO alone should not begin: train on traces first (SFT, then GRPO), or mix teacher traces into groups."
    return "Open: the interval is too wide for advice; ask more problems (take=) or more samples (samples=)."
