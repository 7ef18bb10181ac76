"""Filters: rules with thresholds, each from a frame to a reason per row.

A rule reads one measure and holds it against one setting; a setting of "off" (None in Python) turns its rule off.
What cannot be measured (null) is kept: absence of evidence drops nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import polars as pl
from pydantic import Field, model_validator

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
    """Thresholds of the filters; "off" switches a rule off."""

    outcomes: tuple[str, ...] | None = Field(("correct",), description="verification outcomes that are kept")
    min_tokens: int | None = Field(None, description="least length of the response, in tokens of `tokenizer`")
    max_tokens: int | None = Field(None, description="greatest length of the response, in tokens of `tokenizer`")
    truncated: bool | None = Field(False, description="false: drop responses that break off")
    think: Literal["closed", "absent"] | None = Field(
        None, description='"closed": require a think block that ends; "absent": require that there is none'
    )
    think_faults: bool | None = Field(
        False,
        description=(
            "false: drop responses whose think tags are not one block followed by an answer, and responses "
            "without a block by an author who nearly always writes one"
        ),
    )
    max_repeated_lines: float | None = Field(
        0.3,
        description=(
            "greatest share in [0, 1] of lines with at least 10 letters or digits that occurred earlier in the response"
        ),
    )
    max_repeated_characters: float | None = Field(
        0.3,
        description="greatest share in [0, 1] of the characters of such lines that occurred earlier in the response",
    )
    max_tail_repeats: int | None = Field(
        4, description="greatest number of occurrences of the last 40 characters; more is a loop"
    )
    max_loop_repeats: float | None = Field(
        2.5,
        description=(
            "greatest number of periods, of any length, that the response's end repeats up to its last character"
        ),
    )
    max_foreign_share: float | None = Field(
        0.05,
        description=(
            "greatest share in [0, 1] of characters in a script that is neither Latin nor Greek nor the problem's"
        ),
    )
    max_language_switches: int | None = Field(
        None, description="greatest number of changes between Latin and such a script"
    )
    min_steps: int | None = Field(None, description="least number of steps")
    max_steps: int | None = Field(None, description="greatest number of steps")
    max_wrong_calculations: int | None = Field(
        None, description="greatest number of steps whose written arithmetic is wrong"
    )
    min_pass_rate: float | None = Field(
        None, description="least share in [0, 1] of correct responses among the problem's samples"
    )
    max_pass_rate: float | None = Field(
        None, description="greatest share in [0, 1] of correct responses among the problem's samples"
    )
    min_answer_position: float | None = Field(
        0.05,
        description=(
            "least position in [0, 1] at which the final answer is first stated, as a share of the response; "
            "an earlier answer was not reasoned for. Responses of under 400 characters are kept"
        ),
    )


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
