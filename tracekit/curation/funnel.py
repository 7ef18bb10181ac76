"""Counts of a curation: rows after each stage, reasons, what was found beside; added up over partitions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import polars as pl

from tracekit.curation.ledger import DROP
from tracekit.curation.measurements import Measured

#: A rule that drops more than this share of the correct traces is reported, with EXAMPLES of them.
SEVERE, EXAMPLES = 0.2, 3


@dataclass(frozen=True)
class Severe:
    """Correct traces, and for each filter rule (rule, threshold) how many of them it drops and the first of these."""

    correct: int
    drops: dict[tuple[str, str], tuple[int, list[dict[str, Any]]]]


@dataclass(frozen=True)
class Counts:
    """What is counted in one partition.

    funnel: a line a stage. by_author: author → read, correct, wrong, kept. outcomes: outcome → traces.
    """

    funnel: list[dict[str, Any]]
    by_author: dict[str, dict[str, int]]
    outcomes: dict[str, int]
    pairs: int
    copies: int
    severe: Severe
    validation_problems: int


def severe_rules(filtered: pl.DataFrame, rows: pl.DataFrame) -> Severe:
    """How many correct traces each filter rule drops.

    filtered: the filters' LEDGER rows. rows: the traces that they judged, with their outcome.
    """
    correct = rows.filter(pl.col("outcome") == "correct")["trace_id"]
    drops = filtered.filter(pl.col("verdict") == DROP, pl.col("row_id").is_in(correct.implode()))
    counts = drops.group_by("rule", "threshold", maintain_order=True).agg(
        dropped=pl.len(), examples=pl.struct("row_id", "measured").head(EXAMPLES)
    )
    return Severe(len(correct), {(rule, limit): (count, some) for rule, limit, count, some in counts.iter_rows()})


def whole_funnel(counts: Iterable[Counts], measured: Measured, lost: pl.DataFrame) -> dict[str, Any]:
    """The counts of all partitions together, as funnel.json has them. lost: rows that could not be read."""
    parts = list(counts)
    outcomes = _sum(part.outcomes for part in parts)
    return {
        "funnel": _added([part.funnel for part in parts]),
        "token_unit": measured.token_unit,
        "read": {
            "sources": measured.readings(),
            "lost": lost.height,
            "reasons": dict(lost.group_by("reason").len().sort("len", "reason", descending=True).head(20).iter_rows()),
        },
        "by_author": {
            author: dict(_sum(part.by_author.get(author, {}) for part in parts))
            for author in sorted({author for part in parts for author in part.by_author})
        },
        "outcomes": {name: outcomes[name] for name in sorted(outcomes, key=lambda name: (name is None, name or ""))},
        "unverifiable_golds": _unverifiable(measured),
        "gold_conflicts": _gold_conflicts(measured),
        "contaminated_problems": measured.read("contamination", ["problem_id"])["problem_id"].n_unique(),
        "pairs": sum(part.pairs for part in parts),
        "copies": sum(part.copies for part in parts),
        "warnings": _warnings([part.severe for part in parts]),
        "validation_problems": sum(part.validation_problems for part in parts),
    }


def _added(funnels: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Lines of the same stage added up."""
    return [
        {
            "stage": lines[0]["stage"],
            **{name: sum(line[name] for line in lines) for name in ("traces", "problems", "dropped")},
            "reasons": dict(sorted(_sum(line["reasons"] for line in lines).items())),
            "restored": sum(line["restored"] for line in lines),
        }
        for lines in zip(*funnels, strict=True)
    ]


def _warnings(parts: list[Severe]) -> list[dict[str, Any]]:
    """Filter rules that drop more than SEVERE of the correct traces → rule, threshold, dropped, examples, correct."""
    correct = sum(part.correct for part in parts)
    rules = dict.fromkeys(rule for part in parts for rule in part.drops)
    found = []
    for rule, threshold in rules:
        of_rule = [part.drops.get((rule, threshold), (0, [])) for part in parts]
        dropped = sum(count for count, _ in of_rule)
        examples = [one for _, some in of_rule for one in some][:EXAMPLES]
        line = {"rule": rule, "threshold": threshold, "dropped": dropped, "examples": examples, "correct": correct}
        if dropped > SEVERE * max(correct, 1):
            found.append(line)
    return found


def _sum(counts: Iterable[dict[str, int]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for one in counts:
        for name, count in one.items():  # not Counter.update's sum of positive counts alone
            total[name] += count
    return total


def _unverifiable(measured: Measured) -> dict[str, int]:
    faults = measured.read("golds").filter(pl.col("outcome") != "correct")
    return dict(faults.group_by("outcome").len().sort("outcome").iter_rows())


def _gold_conflicts(measured: Measured) -> int:
    """Problems whose very text stands under two golds: at least one is wrong."""
    problems = measured.read("problems", ["problem", "gold"])
    return problems.group_by("problem").agg(pl.col("gold").n_unique()).filter(pl.col("gold") > 1).height
