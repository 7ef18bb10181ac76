"""What a verification returns, and the policy it was made under."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Outcome(StrEnum):
    """How a verification ended. "Don't know" has its own names and is never WRONG."""

    CORRECT = "correct"
    WRONG = "wrong"
    NO_ANSWER = "no_answer"  # the response holds no final answer
    UNPARSED_PREDICTION = "unparsed_prediction"  # an answer was found but cannot be read
    UNPARSED_GOLD = "unparsed_gold"  # the gold cannot be read: nothing can be said of any response
    TIMEOUT = "timeout"  # the deadline passed before the symbolic tier answered


@dataclass(frozen=True, slots=True)
class Verdict:
    """The record of one verification.

    outcome: what was decided.
    prediction: the answer as extracted from the response, None where there is none.
    gold: the gold as given.
    method: the tier that decided: "extract", "text", "rational", "structure", "numeric", "symbolic".
    reason: one sentence that a person understands.
    seconds: wall time of this verification.
    """

    outcome: Outcome
    prediction: str | None
    gold: str
    method: str
    reason: str
    seconds: float = field(default=0.0, compare=False)

    @property
    def correct(self) -> bool:
        """True for CORRECT alone."""
        return self.outcome is Outcome.CORRECT
