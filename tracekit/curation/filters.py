"""Filters: rules with thresholds, each from a frame to a reason per row.

A rule reads one measure and holds it against one setting; a setting of "off" (None in Python) turns its rule off.
What cannot be measured (null) is kept: absence of evidence drops nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from pydantic import model_validator

from tracekit.core.settings import Settings
from tracekit.core.tables import LEDGER
from tracekit.curation.ledger import decide

STAGE = "filter"


class Switchable(Settings):
    """Settings whose rules can be switched off: "off", in TOML or on the command line, is None."""

    @model_validator(mode="before")
    @classmethod
    def _off_is_none(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {name: None if value == "off" else value for name, value in tree.items()}


class FilterSettings(Switchable):
    """Thresholds; "off" switches a rule off.

    outcomes: verification outcomes that stay.
    min_tokens, max_tokens: of the response, in the recipe's tokens.
    truncated: False drops responses that break off.
    think: "closed" wants a think block that ends, "absent" none.
    think_faults: False drops responses whose think tags are not one block with an answer after it, and those without
        a block by an author who nearly always writes one.
    max_repeated_lines: share of the lines with 10 letters or digits that stand in the response before, in [0, 1].
    max_repeated_characters: the same by characters: share of those lines' text that stands in the response before.
    max_tail_repeats: how often the last 40 characters may occur; more is a loop.
    max_loop_repeats: how often the response's end may repeat one period, of any length, up to its last character.
    max_foreign_share: share of characters in scripts that are neither Latin nor Greek nor the problem's, in [0, 1].
    max_language_switches: changes between Latin and such a script.
    min_steps, max_steps: steps of the response.
    max_wrong_calculations: steps whose written arithmetic is wrong.
    min_pass_rate, max_pass_rate: share of correct among the problem's samples, in [0, 1].
    min_answer_position: where the response's final answer is first announced, as a share of the response; less is an
        answer leaked before its reasoning. Responses of under 400 characters are not asked.
    """

    outcomes: tuple[str, ...] | None = ("correct",)
    min_tokens: int | None = None
    max_tokens: int | None = None
    truncated: bool | None = False
    think: Literal["closed", "absent"] | None = None
    think_faults: bool | None = False
    max_repeated_lines: float | None = 0.3
    max_repeated_characters: float | None = 0.3
    max_tail_repeats: int | None = 4
    max_loop_repeats: float | None = 2.5
    max_foreign_share: float | None = 0.05
    max_language_switches: int | None = None
    min_steps: int | None = None
    max_steps: int | None = None
    max_wrong_calculations: int | None = None
    min_pass_rate: float | None = None
    max_pass_rate: float | None = None
    min_answer_position: float | None = 0.05


@dataclass(frozen=True)
class Rule:
    """One rule: `keep(threshold)` is a boolean expression over the measures; `says` is the reason of a drop."""

    setting: str
    measure: str
    keep: Callable[[Any], pl.Expr]
    says: str
    version: str = "1"


def _at_least(measure: str) -> Callable[[Any], pl.Expr]:
    return lambda threshold: pl.col(measure) >= threshold


def _at_most(measure: str) -> Callable[[Any], pl.Expr]:
    return lambda threshold: pl.col(measure) <= threshold


def _think(wanted: str) -> pl.Expr:
    has = pl.col("think_closed") if wanted == "closed" else ~(pl.col("think_opened") | pl.col("think_closed"))
    return has


def _leaks(threshold: float) -> pl.Expr:
    return (pl.col("answer_position") >= threshold) | (pl.col("characters") < 400)


RULES: tuple[Rule, ...] = (
    Rule("outcomes", "outcome", lambda kept: pl.col("outcome").is_in(kept), "not verified as correct"),
    Rule("min_tokens", "token_count", _at_least("token_count"), "too short"),
    Rule("max_tokens", "token_count", _at_most("token_count"), "too long"),
    Rule("truncated", "truncated", lambda allowed: ~pl.col("truncated") | allowed, "breaks off"),
    Rule("think", "think_closed", _think, "think block not as wanted"),
    Rule("think_faults", "think_fault", lambda allowed: (pl.col("think_fault") == "") | allowed, "think tags at fault"),
    Rule("max_repeated_lines", "repeated_lines", _at_most("repeated_lines"), "repeats its lines", "2"),
    Rule("max_repeated_characters", "repeated_characters", _at_most("repeated_characters"), "repeats its text"),
    Rule("max_tail_repeats", "tail_repeats", _at_most("tail_repeats"), "ends in a loop"),
    Rule("max_loop_repeats", "loop_repeats", _at_most("loop_repeats"), "ends in a loop"),
    Rule("max_foreign_share", "foreign_share", _at_most("foreign_share"), "another language", "2"),
    Rule("max_language_switches", "language_switches", _at_most("language_switches"), "switches language"),
    Rule("min_steps", "steps", _at_least("steps"), "too few steps"),
    Rule("max_steps", "steps", _at_most("steps"), "too many steps"),
    Rule("max_wrong_calculations", "wrong_calculations", _at_most("wrong_calculations"), "calculates wrongly"),
    Rule("min_pass_rate", "pass_rate", _at_least("pass_rate"), "problem too hard"),
    Rule("max_pass_rate", "pass_rate", _at_most("pass_rate"), "problem too easy"),
    Rule("min_answer_position", "answer_position", _leaks, "answers before it reasons", "2"),
)


def apply_filters(measured: pl.DataFrame, settings: FilterSettings) -> pl.DataFrame:
    """Every rule that is on, over every row → LEDGER. `measured`: row_id and the measures, one row a trace."""
    decisions = [
        decide(
            measured,
            stage=STAGE,
            rule=rule.setting,
            version=rule.version,
            threshold=_as_text(threshold),
            keep=rule.keep(threshold),
            reason=pl.lit(rule.says),
            measured=pl.col(rule.measure).round(4)
            if measured.schema[rule.measure].is_float()
            else pl.col(rule.measure),
        )
        for rule in RULES
        if (threshold := getattr(settings, rule.setting)) is not None
    ]
    return pl.concat(decisions) if decisions else pl.DataFrame(schema=LEDGER)


def _as_text(threshold: Any) -> str:
    return ", ".join(threshold) if isinstance(threshold, tuple) else str(threshold)
