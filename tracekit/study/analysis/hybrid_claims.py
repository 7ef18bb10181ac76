"""The claims of the second registration: hybrids of imitation and RL, a shorter strategy, and the knowledge gap."""

from __future__ import annotations

from tracekit.study.analysis.registered import (
    Claim,
    Measure,
    accuracy,
    compared,
    less,
    more_solved,
    not_worse,
    slower,
)
from tracekit.study.settings import BASE

LEAST_BASES = 6

HYBRIDS = "Which hybrids begin where GRPO alone does not?"
CONTROLS = "Is it the reward, and is it the compute?"
STRATEGY = "Where is the exploration?"
SEPARABLE = "What becomes linearly readable before it is written?"

FISHER = "Fisher's exact test of bases solved"
SIGN_FLIPS = "paired difference, exact sign flips"
UNPAID = 0.01  # share of a strategy that counts as not taken up
RISE = 0.1  # of AUC, that counts as having become readable


def _share(arm: str) -> Measure:
    return lambda records, seed: float(records.value("edge", arm, seed, "merged"))


def _auc(arm: str) -> Measure:
    return lambda records, seed: float(records.value("edge", arm, seed, "probe", "auc"))


def _begins(number: int, arm: str, title: str) -> Claim:
    """A hybrid solves more bases than GRPO in the sealed cell."""
    return Claim(
        f"H{number}",
        HYBRIDS,
        f"In the sealed cell {title} solves the task on more bases than GRPO does",
        "GRPO solves 4 of 8 bases or more, or as many",
        FISHER,
        (("sealed", arm), ("sealed", "grpo")),
        more_solved("sealed", arm, "grpo"),
        "share of bases",
    )


CLAIMS = (
    _begins(1, "hpt", "HPT"),
    _begins(2, "chord_phi", "CHORD-φ"),
    _begins(3, "prefix_rft", "Prefix-RFT"),
    _begins(4, "bread", "BREAD"),
    _begins(5, "distill", "on-policy distillation from the SFT model"),
    Claim(
        "H6",
        HYBRIDS,
        "HPT takes fewer rounds than LUFFY in the sealed cell",
        "it takes more",
        "ratio of restricted mean rounds, exact sign flips",
        (("sealed", "luffy"), ("sealed", "hpt")),
        slower("sealed", "luffy", "sealed", "hpt"),
        "ratio",
    ),
    Claim(
        "H7",
        CONTROLS,
        "At the edge GRPO on random rewards is no more accurate than the base, greedily (±0.02)",
        "it is more accurate",
        SIGN_FLIPS,
        (("edge", "grpo_random"), ("edge", BASE)),
        compared(
            (("edge", "grpo_random"), ("edge", BASE)),
            less(accuracy("edge", "grpo_random", "greedy"), accuracy("edge", BASE, "greedy")),
            sign=-1,
            margin=0.02,
        ),
        "accuracy",
    ),
    Claim(
        "H8",
        CONTROLS,
        "SFT at LUFFY's compute is at least as accurate as LUFFY at temperature 1 at the edge, within 2 points",
        "LUFFY is more than 2 points better",
        "non-inferiority by exact sign flips",
        (("edge", "sft_compute"), ("edge", "luffy")),
        not_worse(
            (("edge", "sft_compute"), ("edge", "luffy")),
            less(accuracy("edge", "sft_compute", "accuracy", "1"), accuracy("edge", "luffy", "accuracy", "1")),
        ),
        "accuracy",
    ),
    Claim(
        "P5",
        STRATEGY,
        "Without a price on length fewer than 1 % of LUFFY's right samples take the shorter strategy, which its "
        "teacher never shows",
        "more than 1 % do",
        "mean share less 1 %, exact sign flips",
        (("edge", "luffy"),),
        compared((("edge", "luffy"),), lambda records, seed: _share("luffy")(records, seed) - UNPAID, sign=-1),
        "share above 1 %",
    ),
    Claim(
        "P5b",
        STRATEGY,
        "With a price on length LUFFY takes the shorter strategy more often than without",
        "less often",
        SIGN_FLIPS,
        (("edge", "luffy_price"), ("edge", "luffy")),
        compared(
            (("edge", "luffy_price"), ("edge", "luffy")), less(_share("luffy_price"), _share("luffy")), margin=0.02
        ),
        "share of right samples",
    ),
    Claim(
        "P5c",
        STRATEGY,
        "With a price on length GRPO takes the shorter strategy more often than LUFFY does",
        "less often",
        SIGN_FLIPS,
        (("edge", "grpo_price"), ("edge", "luffy_price")),
        compared(
            (("edge", "grpo_price"), ("edge", "luffy_price")),
            less(_share("grpo_price"), _share("luffy_price")),
            margin=0.02,
        ),
        "share of right samples",
    ),
    Claim(
        "P11",
        SEPARABLE,
        "After SFT on the unknown operation the parity of its result is readable at the operation's token, before "
        "anything of it is written: the AUC rises by more than 0.1",
        "it rises by less",
        "mean rise less 0.1, exact sign flips",
        (("edge", "gap_sft"), ("edge", BASE)),
        compared(
            (("edge", "gap_sft"), ("edge", BASE)),
            lambda records, seed: _auc("gap_sft")(records, seed) - _auc(BASE)(records, seed) - RISE,
        ),
        "AUC above a rise of 0.1",
    ),
    Claim(
        "P11b",
        SEPARABLE,
        "After GRPO on the unknown operation it is no more readable than in the base (±0.02)",
        "it is more readable",
        SIGN_FLIPS,
        (("edge", "gap_grpo"), ("edge", BASE)),
        compared((("edge", "gap_grpo"), ("edge", BASE)), less(_auc("gap_grpo"), _auc(BASE)), sign=-1, margin=0.02),
        "AUC",
    ),
)
