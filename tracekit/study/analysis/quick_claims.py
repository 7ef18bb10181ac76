"""The claims of the quick study: four bases, one-sided exact tests."""

from __future__ import annotations

from tracekit.study.analysis.few_bases import reads_better, solves_more, takes_longer
from tracekit.study.analysis.registered import Claim
from tracekit.study.settings import BASE

LEAST_BASES = 3
PAIRING = (
    "Fisher's and the rank-sum test take the two arms' runs as independent; they share their bases, which makes these "
    "tests conservative where a base helps or hinders both. The sign-flip p by base in the note cannot fall below 1/16."
)

BOUNDED = "Is zero-RL bounded by its base?"
OFFER = "What does a teacher's trace offer?"
INSIDE = "What can be read inside before it is written?"

SFT, GRPO, LUFFY, SEALED = ("sealed", "sft"), ("sealed", "grpo"), ("sealed", "luffy"), ("sealed", BASE)
EDGE_GRPO, EDGE_LUFFY = ("edge", "grpo"), ("edge", "luffy")

FISHER = "Fisher's exact test of bases solved, one-sided"
RANKS = "exact rank-sum test, one-sided; ratio by Hodges and Lehmann"
PROBLEMS = "McNemar's exact test over held-out problems, one-sided; the largest p of the bases"


CLAIMS = (
    Claim(
        "Q1",
        BOUNDED,
        "Where the base's pass rate is at most 2e-5, SFT solves the task on more bases than GRPO does",
        "GRPO solves more bases",
        FISHER,
        (SFT, GRPO),
        solves_more(SFT, GRPO),
        "share of bases",
    ),
    Claim(
        "Q2",
        BOUNDED,
        "GRPO solves more bases at the edge, where the base succeeds now and then, than in the sealed cell",
        "it solves more in the sealed cell",
        FISHER,
        (EDGE_GRPO, GRPO),
        solves_more(EDGE_GRPO, GRPO),
        "share of bases",
    ),
    Claim(
        "Q3",
        OFFER,
        "In the sealed cell LUFFY solves the task on more bases than GRPO does",
        "GRPO solves more bases",
        FISHER,
        (LUFFY, GRPO),
        solves_more(LUFFY, GRPO),
        "share of bases",
    ),
    Claim(
        "Q4",
        OFFER,
        "LUFFY takes more rounds in the sealed cell than at the edge",
        "it takes fewer",
        RANKS,
        (LUFFY, EDGE_LUFFY),
        takes_longer(LUFFY, EDGE_LUFFY),
        "ratio of rounds",
    ),
    Claim(
        "Q5",
        INSIDE,
        "The sealed base, which never answers right, holds the parity of a step's result one token before the result "
        "would be written: a probe reads it better than from the token itself",
        "the token itself is read better",
        PROBLEMS,
        (SEALED,),
        reads_better(SEALED),
        "accuracy",
    ),
    Claim(
        "Q6",
        INSIDE,
        "After SFT it is read better than before",
        "it is read worse",
        PROBLEMS,
        (SFT, SEALED),
        reads_better(SFT, SEALED),
        "accuracy",
    ),
    Claim(
        "Q7",
        INSIDE,
        "After GRPO in the sealed cell it is read better than before",
        "it is read worse",
        PROBLEMS,
        (GRPO, SEALED),
        reads_better(GRPO, SEALED),
        "accuracy",
    ),
)
