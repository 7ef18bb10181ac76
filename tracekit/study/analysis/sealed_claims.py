"""The claims that the sealed study registers. Phases say in which order their runs come; the text is what is published.

Changed after a registration, they no longer match its hash, and the page calls them exploratory.
"""

from __future__ import annotations

from tracekit.study.analysis.registered import (
    Claim,
    Measure,
    accuracy,
    compared,
    correlation,
    half_way_at_one,
    less,
    more_solved,
    not_worse,
    shifted,
    slower,
    unchanged,
)
from tracekit.study.settings import BASE

LEAST_BASES = 6  # fewer whose gates held leave a claim open

LADDER = ("sealed", "low", "middle", "edge")
FORGETTING = ("sft", "grpo", "luffy", "luffy_plain", "rl_sft", "sft_garbled")

BOUNDED = "Is zero-RL bounded by its base?"
OFFER = "What does LUFFY offer?"
IMITATION = "Is it imitation, transfer, or RL?"
DISTILLATION = "Does distillation bring what the base cannot do?"
THEN_RL = "Does LUFFY beat SFT then RL?"
FORGETS = "Does forgetting follow the KL from the base?"
TEMPERATURE = "Is the gap to SFT learning or sampling?"


def _runs(rungs: tuple[str, ...], *arms: str) -> tuple[tuple[str, str], ...]:
    return tuple((rung, arm) for rung in rungs for arm in arms)


def _gap(temperature: str) -> Measure:
    keys = ("accuracy", temperature)
    return less(accuracy("edge", "luffy", *keys), accuracy("edge", "sft", *keys))


CLAIMS = (
    Claim(
        "P1",
        BOUNDED,
        "Where the base's pass rate is at most 1e-5, SFT solves the task on more bases than GRPO does",
        "GRPO solves 4 of 8 bases or more, or as many as SFT",
        "Fisher's exact test of bases solved",
        _runs(("sealed",), "sft", "grpo"),
        more_solved("sealed", "sft", "grpo"),
        "share of bases",
    ),
    Claim(
        "P1b",
        BOUNDED,
        "There LUFFY solves the task on more bases than GRPO does",
        "GRPO solves as many as LUFFY",
        "Fisher's exact test of bases solved",
        _runs(("sealed",), "luffy", "grpo"),
        more_solved("sealed", "luffy", "grpo"),
        "share of bases",
    ),
    Claim(
        "P2",
        BOUNDED,
        "Half of GRPO's runs are solved where the base would give about one right rollout (within a factor 3)",
        "the half-way point lies more than half a decade from one",
        "profile likelihood of the ladder, 95 % interval inside the range",
        _runs(LADDER, "grpo"),
        half_way_at_one("grpo", LADDER, 3.0),
        "log10 of right rollouts",
    ),
    Claim(
        "P3",
        OFFER,
        "LUFFY's half-way point lies at least one decade below GRPO's",
        "the interval includes 0 decades",
        "profile likelihood of the ladder; p by exchange of the arms within bases",
        _runs(("sealed", "edge"), "grpo", "luffy"),
        shifted("grpo", "luffy", ("sealed", "edge"), 1.0),
        "decades",
    ),
    Claim(
        "P3b",
        OFFER,
        "At the edge GRPO takes more rounds than LUFFY to solve the task",
        "it takes fewer",
        "ratio of restricted mean rounds, exact sign flips",
        _runs(("edge",), "grpo", "luffy"),
        slower("edge", "grpo", "edge", "luffy"),
        "ratio",
    ),
    Claim(
        "P4",
        OFFER,
        "LUFFY is bounded too: it takes more rounds where the teacher's first token is rarer (sealed against edge)",
        "it takes fewer",
        "ratio of restricted mean rounds, exact sign flips",
        _runs(("sealed", "edge"), "luffy"),
        slower("sealed", "luffy", "edge", "luffy"),
        "ratio",
    ),
    Claim(
        "P4b",
        OFFER,
        "Without shaping LUFFY takes more rounds in the sealed cell",
        "it takes fewer",
        "ratio of restricted mean rounds, exact sign flips",
        _runs(("sealed",), "luffy_plain", "luffy"),
        slower("sealed", "luffy_plain", "sealed", "luffy"),
        "ratio",
    ),
    Claim(
        "P4c",
        OFFER,
        "RL with an SFT loss is not bounded: it takes the same rounds (±10) in the sealed cell and at the edge",
        "it takes more rounds in the sealed cell",
        "two one-sided exact sign-flip tests",
        _runs(("sealed", "edge"), "rl_sft"),
        unchanged(_runs(("sealed", "edge"), "rl_sft"), ("sealed", "rl_sft"), ("edge", "rl_sft"), 10.0),
        "rounds",
    ),
    Claim(
        "P6",
        IMITATION,
        "SFT on garbled traces (random steps, right answers) loses skill on logs",
        "the skill rises",
        "paired difference, exact sign flips",
        _runs(("edge",), BASE, "sft_garbled"),
        compared(
            _runs(("edge",), "sft_garbled"),
            less(accuracy("edge", "sft_garbled", "skill"), accuracy("edge", BASE, "skill")),
            sign=-1,
            margin=0.02,
        ),
        "forced-step accuracy",
    ),
    Claim(
        "P6b",
        IMITATION,
        "With a teacher that is always wrong LUFFY is more accurate than SFT",
        "SFT is more accurate",
        "paired difference of greedy accuracy, exact sign flips",
        _runs(("edge",), "luffy_wrong", "sft_wrong"),
        compared(
            _runs(("edge",), "luffy_wrong", "sft_wrong"),
            less(accuracy("edge", "luffy_wrong", "greedy"), accuracy("edge", "sft_wrong", "greedy")),
            margin=0.02,
        ),
        "accuracy",
    ),
    Claim(
        "P7",
        DISTILLATION,
        "An operation that the base never worked: SFT solves it on more bases than GRPO does",
        "GRPO solves as many",
        "Fisher's exact test of bases solved",
        _runs(("edge",), "gap_sft", "gap_grpo"),
        more_solved("edge", "gap_sft", "gap_grpo"),
        "share of bases",
    ),
    Claim(
        "P7b",
        DISTILLATION,
        "LUFFY solves it on more bases than GRPO does",
        "GRPO solves as many",
        "Fisher's exact test of bases solved",
        _runs(("edge",), "gap_luffy", "gap_grpo"),
        more_solved("edge", "gap_luffy", "gap_grpo"),
        "share of bases",
    ),
    Claim(
        "P8",
        THEN_RL,
        "SFT then GRPO, at fewer FLOPs, is at least as accurate as LUFFY in the sealed cell: greedy, within 2 points",
        "LUFFY is more than 2 points better",
        "non-inferiority by exact sign flips",
        _runs(("sealed",), "sft_grpo", "luffy"),
        not_worse(
            _runs(("sealed",), "sft_grpo", "luffy"),
            less(accuracy("sealed", "sft_grpo", "greedy"), accuracy("sealed", "luffy", "greedy")),
        ),
        "accuracy",
    ),
    Claim(
        "P8b",
        THEN_RL,
        "The same at temperature 0.6",
        "LUFFY is more than 2 points better",
        "non-inferiority by exact sign flips",
        _runs(("sealed",), "sft_grpo", "luffy"),
        not_worse(
            _runs(("sealed",), "sft_grpo", "luffy"),
            less(accuracy("sealed", "sft_grpo", "accuracy", "0.6"), accuracy("sealed", "luffy", "accuracy", "0.6")),
        ),
        "accuracy",
    ),
    Claim(
        "P9",
        FORGETS,
        "Over arms, loss on the untouched family `!` rises with KL(base ‖ arm), both in logs: r above 0.8",
        "r is below 0.8",
        "mean of Fisher's z over bases against that of 0.8, exact sign flips",
        _runs(("edge",), *FORGETTING),
        compared(_runs(("edge",), *FORGETTING), correlation("edge", FORGETTING, 0.8)),
        "Fisher's z above that of 0.8",
    ),
    Claim(
        "P10",
        TEMPERATURE,
        "At temperature 1 LUFFY is more accurate than SFT at the edge (+22 points in the first study)",
        "SFT is more accurate",
        "paired difference, exact sign flips",
        _runs(("edge",), "luffy", "sft"),
        compared(_runs(("edge",), "luffy", "sft"), _gap("1"), margin=0.02),
        "accuracy",
    ),
    Claim(
        "P10b",
        TEMPERATURE,
        "The gap between LUFFY and SFT at temperature 1 is more than three times that at 0.6, in absolute value",
        "it is smaller than that",
        "paired difference |gap at 1| - 3 |gap at 0.6|, exact sign flips",
        _runs(("edge",), "luffy", "sft"),
        compared(
            _runs(("edge",), "luffy", "sft"),
            lambda records, seed: abs(_gap("1")(records, seed)) - 3 * abs(_gap("0.6")(records, seed)),
        ),
        "accuracy",
    ),
    Claim(
        "P10c",
        TEMPERATURE,
        "A vote of 16 samples at temperature 1 recovers SFT's greedy accuracy within 2 points",
        "the vote is more than 2 points below",
        "non-inferiority by exact sign flips",
        _runs(("edge",), "sft"),
        not_worse(_runs(("edge",), "sft"), less(accuracy("edge", "sft", "vote"), accuracy("edge", "sft", "greedy"))),
        "accuracy",
    ),
)
