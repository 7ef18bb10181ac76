"""The opening sentences of the page of each set of claims, and its decision card: made from the conclusions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import polars as pl

from tracekit.study.analysis.registered import OPEN, OPPOSITE, SAME, YES

Rows = Mapping[str, dict[str, Any]]  # a claim's id → its row
NAMES = {"base": "the base", "sft": "SFT", "grpo": "GRPO", "luffy": "LUFFY", "sft_grpo": "SFT → GRPO"}


def conclusion_of(row: Mapping[str, Any]) -> str:
    """Return a claim's conclusion as it is printed: with the margin, or with what would close it."""
    if row["conclusion"] == SAME and row["margin"] is not None:
        return f"no difference within ±{row['margin']:g}"
    if row["conclusion"] != OPEN:
        return str(row["conclusion"])
    done = row["bases"] + row["excluded"]
    if done < row["planned"]:
        return f"open: {done} of {row['planned']} bases finished"
    return f"open (n ≈ {row['bases_needed']})" if row["bases_needed"] is not None else "open (no effect seen)"


def answer(row: Mapping[str, Any]) -> str:
    """A claim's conclusion as a short sentence with its id and corrected p."""
    if row["conclusion"] == OPEN and row["bases_needed"] is not None:
        return f"Open ({row['id']}, p = {row['p_holm']:.2g}; about {row['bases_needed']} bases would decide it)."
    if row["conclusion"] == OPEN:
        return f"{conclusion_of(row).capitalize()} ({row['id']}, p = {row['p_holm']:.2g})."
    words = {YES: "Yes", OPPOSITE: "No, the opposite", SAME: conclusion_of(row).capitalize()}[row["conclusion"]]
    return f"{words} ({row['id']}, p = {row['p_holm']:.2g})."


def solved(counts: pl.DataFrame, rung: str, arms: tuple[str, ...]) -> str:
    """How many bases each arm solved at a rung, with exact 95 % intervals."""
    parts = []
    for arm in arms:
        rows = counts.filter((pl.col("rung") == rung) & (pl.col("arm") == arm))
        for row in rows.iter_rows(named=True):
            interval = f"[{100 * row['low']:.0f}, {100 * row['high']:.0f}] %"
            parts.append(f"{NAMES.get(arm, arm)} solved {row['solved']} of {row['runs']} {interval}")
    return ", ".join(parts) if parts else "no run is finished"


def sealed_sentences(rows: Rows, counts: pl.DataFrame) -> list[str]:
    """Five sentences of the sealed study."""
    return [
        f"Is zero-RL bounded by its base? {answer(rows['P1'])} "
        f"In the sealed cell {solved(counts, 'sealed', ('sft', 'grpo', 'luffy'))}.",
        f"Where a base succeeds now and then (the edge), {solved(counts, 'edge', ('grpo', 'luffy', 'sft'))}; "
        f"does GRPO take more rounds than LUFFY there? {answer(rows['P3b'])}",
        f"Is LUFFY bounded too (more rounds where the teacher's first token is rarer)? {answer(rows['P4'])}",
        f"Is SFT then GRPO at least as accurate as LUFFY, within 2 points? {answer(rows['P8'])}",
        f"Is LUFFY ahead of SFT at temperature 1, as in the first study? {answer(rows['P10'])}",
    ]


def quick_sentences(rows: Rows, counts: pl.DataFrame) -> list[str]:
    """Five sentences of the quick study."""
    return [
        f"Is zero-RL bounded by its base? {answer(rows['Q1'])} "
        f"In the sealed cell {solved(counts, 'sealed', ('sft', 'grpo', 'luffy'))}.",
        f"Does GRPO solve more where the base succeeds now and then (the edge)? {answer(rows['Q2'])} "
        f"There {solved(counts, 'edge', ('grpo', 'luffy', 'sft'))}.",
        f"Does one teacher trace in each group let RL begin in the sealed cell? {answer(rows['Q3'])}",
        f"Does LUFFY pay for the distance (more rounds in the sealed cell than at the edge)? {answer(rows['Q4'])}",
        f"Does the sealed base hold a step's result before it is written, though it never answers right? "
        f"{answer(rows['Q5'])} Does SFT make it easier to read? {answer(rows['Q6'])} Does GRPO? {answer(rows['Q7'])}",
    ]


def hybrid_sentences(rows: Rows, counts: pl.DataFrame) -> list[str]:
    """One sentence a claim of the hybrids."""
    return [f"{row['claim']}? {answer(row)}" for row in list(rows.values())[:5]]


SENTENCES: dict[str, Callable[[Rows, pl.DataFrame], list[str]]] = {
    "sealed": sealed_sentences,
    "quick": quick_sentences,
    "hybrids": hybrid_sentences,
}


# ---------------------------------------------------------------- the decision card


#: Set of claims → (situation, claim, advice by conclusion). An open claim gives no advice.
CARD: dict[str, tuple[tuple[str, str, dict[str, str]], ...]] = {
    "sealed": (
        (
            "Rollouts of the whole budget × pass rate is far below 1",
            "P1",
            {YES: "Do not begin with RL alone: train on traces first.", OPPOSITE: "RL alone can begin."},
        ),
        (
            "The same, and traces are there for RL",
            "P1b",
            {YES: "One teacher trace a group is enough for RL to begin.", OPPOSITE: "A teacher trace does not help."},
        ),
        (
            "The base succeeds now and then",
            "P3b",
            {
                YES: "A teacher trace saves rounds.",
                OPPOSITE: "Leave the traces out: RL alone is faster.",
            },
        ),
        (
            "SFT then RL, or both at once",
            "P8",
            {YES: "SFT then RL: as accurate, at fewer FLOPs.", OPPOSITE: "Both at once (LUFFY) is more accurate."},
        ),
        (
            "The task needs an operation that the base never worked",
            "P7",
            {YES: "Show it: traces are needed.", OPPOSITE: "RL alone finds it."},
        ),
        (
            "The traces may be garbled",
            "P6",
            {YES: "Verify steps, not only answers: SFT loses skill on such traces.", SAME: "SFT bears them."},
        ),
        (
            "The traces may end in wrong answers",
            "P6b",
            {
                YES: "Verify answers first: RL that verifies a trace drops these, SFT learns them.",
                OPPOSITE: "SFT bears them better than LUFFY.",
            },
        ),
        (
            "Samples are drawn at temperature 1",
            "P10",
            {
                YES: "Expect SFT's samples to be behind; compare at the temperature you will use.",
                OPPOSITE: "SFT's samples are ahead.",
                SAME: "No difference to expect from the method.",
            },
        ),
    ),
    "quick": (
        (
            "Rollouts of the whole budget × pass rate is far below 1",
            "Q1",
            {YES: "Do not begin with RL alone: train on traces first.", OPPOSITE: "RL alone can begin."},
        ),
        (
            "The same, and traces are there for RL",
            "Q3",
            {YES: "One teacher trace a group is enough for RL to begin.", OPPOSITE: "A teacher trace does not help."},
        ),
        (
            "The base succeeds now and then",
            "Q2",
            {YES: "RL alone is enough.", OPPOSITE: "RL alone does not begin."},
        ),
        (
            "How far the base is from the teacher's style",
            "Q4",
            {YES: "Plan more rounds of mixed-policy RL the rarer the teacher's first token.", OPPOSITE: "It saves."},
        ),
    ),
    "hybrids": (),
}


def decision_card(name: str, rows: Rows) -> pl.DataFrame:
    """Situation, what to do, and the claim that it rests on; without advice where that claim is open."""
    card = []
    for situation, claim, advice in CARD[name]:
        row = rows[claim]
        what = advice.get(row["conclusion"], "No advice yet.")
        card.append({"your situation": situation, "what to do": what, "rests on": f"{claim}: {conclusion_of(row)}"})
    return pl.DataFrame(card, schema=["your situation", "what to do", "rests on"], orient="row")
