"""What a verification returns, and the policy it was made under."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple

from evaluators.extraction.candidates import PRECISION, Candidate, Extracted


class Outcome(StrEnum):
    """How a verification ended. Values that mean "not known" are never WRONG.

    Examples
    --------
    >>> from evaluators import Outcome, verify
    >>> verify("I could not solve it.", "4").outcome is Outcome.NO_ANSWER
    True
    """

    CORRECT = "correct"
    WRONG = "wrong"
    RESTATED = "restated"  # the gold's value in the question's own form: nothing was worked out
    NO_ANSWER = "no_answer"  # the response holds no final answer
    UNPARSED_PREDICTION = "unparsed_prediction"  # an answer was found but cannot be read, or not compared
    UNPARSED_GOLD = "unparsed_gold"  # the gold cannot be read: nothing can be said of any response
    TIMEOUT = "timeout"  # the deadline passed before the symbolic tier answered


@dataclass(frozen=True, slots=True)
class Policy:
    r"""What counts as the same answer where mathematics alone does not decide.

    An order matters in tuples and not in sets, lists or roots; an equation `x = a` answers `a`; a base-n number is its
    value: these are no choices.

    Attributes
    ----------
    unit_on_one_side : bool
        `5` and `5 cm` agree. Two units must always agree, converted where they measure the same quantity.
    percent_as_number : bool
        `50` and `50 %` agree, as does `1/2`, which a percentage always equals.
    significant_digits : int
        A decimal stands for an exact value where it is right to the digits it shows, and it shows at least this many
        significant ones. Two decimals agree where the coarser is the finer one rounded and shows two digits more than
        this. Exact values are compared exactly.
    join_boxes : bool
        Several boxes in one sentence or list are one tuple or set; boxes apart always mean the last.
    require_box : bool
        Only `\boxed{}` and `\fbox{}` answer; otherwise "the answer is", `####` and the like do too.
    answer_in_open_think : bool
        A response whose think block is never closed may still answer inside it.
    ignore_case : bool
        Text answers are compared case-insensitively.
    symbolic : bool
        What the cheaper tiers leave open goes to sympy in a worker process; False leaves it undecided.
    deadline_seconds : float
        CPU seconds of one comparison's symbolic parts together, in their worker; beyond it the verdict is TIMEOUT.
        Waiting for a worker is not counted, so that a verdict does not depend on the machine's load.

    Examples
    --------
    >>> from evaluators import Policy, verify
    >>> verify("The answer is 5.", "5", policy=Policy(require_box=True)).outcome
    <Outcome.NO_ANSWER: 'no_answer'>
    """

    unit_on_one_side: bool = True
    percent_as_number: bool = True
    significant_digits: int = 3
    join_boxes: bool = True
    require_box: bool = False
    answer_in_open_think: bool = False
    ignore_case: bool = True
    symbolic: bool = True
    deadline_seconds: float = 1.0


class Grounds(NamedTuple):
    """What a reason and a witness are written from, when somebody reads them.

    template: the reason, with a place for each of `texts`, which are shown shortened.
    witness: text, or a function that writes it; it follows the reason.
    rule: the rule of extraction that found the prediction, "" where none did.
    """

    template: str
    texts: tuple[str, ...] = ()
    witness: str | Callable[[], str] | None = None
    rule: str = ""


Asked = tuple[Callable[..., tuple[Candidate, ...]], str, str | None, bool, Policy]
"""What proposes candidates, and what it needs: response, prompt, whether that opened a think block, policy."""


class _Deferred:
    """Slots for what is worked out when it is read."""

    __slots__ = ("_asked", "_grounds")


@dataclass(frozen=True, slots=True)
class Verdict(_Deferred):
    r"""The record of one verification.

    Attributes
    ----------
    outcome : Outcome
        What was decided.
    prediction : str or None
        The answer as extracted from the response.
    gold : str
        The gold as given.
    method : str
        The tier that decided: "extract", "text", "rational", "structure", "numeric" or "symbolic".
    reason : str
        One sentence for people.
    seconds : float
        Wall time of this verification.
    witness : str or None
        For WRONG, what proves it: a point that lies in one answer and not in the other, or two values that differ.
        Without a witness the outcome is UNPARSED_PREDICTION: the comparison is undecided.

    `reason`, `witness`, `candidates` and `confidence` are worked out when they are read first: a training run reads
    the outcome alone.

    Examples
    --------
    >>> from evaluators import verify
    >>> verdict = verify(r"\boxed{3}", "4")
    >>> verdict.correct, verdict.prediction, verdict.outcome
    (False, '3', <Outcome.WRONG: 'wrong'>)
    """

    outcome: Outcome
    prediction: str | None
    gold: str
    method: str
    reason: str
    seconds: float = field(default=0.0, compare=False)
    witness: str | None = field(default=None, compare=False)

    def __getattr__(self, name: str) -> Any:
        if name not in ("reason", "witness") or not hasattr(self, "_grounds"):
            raise AttributeError(f"a Verdict has no attribute {name!r}")
        grounds: Grounds = self._grounds
        witness = grounds.witness() if callable(grounds.witness) else grounds.witness
        reason = grounds.template.format(*map(shortened, grounds.texts))
        object.__setattr__(self, "witness", witness)
        object.__setattr__(self, "reason", reason if witness is None else f"{reason} {witness}.")
        return getattr(self, name)

    @property
    def rule(self) -> str:
        """The rule of extraction that found the prediction, such as "box"; "" where none did, or it is not known."""
        grounds: Grounds | None = getattr(self, "_grounds", None)
        return "" if grounds is None else grounds.rule

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """All possible final answers of the response, the one that was compared first; worked out when read."""
        asked: Asked | None = getattr(self, "_asked", None)
        if asked is None:
            return ()
        propose, response, prompt, think_open, policy = asked
        chosen = Extracted(self.prediction, self.rule) if self.prediction is not None and self.rule else None
        return propose(response, policy, prompt, think_open, chosen)

    @property
    def confidence(self) -> float | None:
        """How often verdicts on answers found by this verdict's rule agreed with labels of real responses, from 0 to 1.

        None where there is no answer, or no labelled responses in which the rule found one.
        """
        precision = PRECISION.get(self.rule)
        return None if precision is None else precision.agreed / precision.observed

    @property
    def confidence_interval(self) -> tuple[float, float] | None:
        """Wilson's 95 % interval of `confidence`."""
        precision = PRECISION.get(self.rule)
        return None if precision is None else precision.interval()

    @property
    def correct(self) -> bool:
        """True for CORRECT alone."""
        return self.outcome is Outcome.CORRECT


_SLOTS = ("outcome", "prediction", "gold", "method", "seconds")
_set_outcome, _set_prediction, _set_gold, _set_method, _set_seconds = (
    Verdict.__dict__[name].__set__ for name in _SLOTS
)
_set_grounds = _Deferred.__dict__["_grounds"].__set__
_set_asked = _Deferred.__dict__["_asked"].__set__


def verdict_of(
    outcome: Outcome, prediction: str | None, gold: str, method: str, seconds: float, grounds: Grounds, asked: Asked
) -> Verdict:
    """Return a verdict whose reason, witness and candidates wait until they are read.

    Writes the slots directly: half the time of the constructor, which is a tenth of a verification of a number.
    """
    verdict: Verdict = object.__new__(Verdict)
    _set_outcome(verdict, outcome)
    _set_prediction(verdict, prediction)
    _set_gold(verdict, gold)
    _set_method(verdict, method)
    _set_seconds(verdict, seconds)
    _set_grounds(verdict, grounds)
    _set_asked(verdict, asked)
    return verdict


def with_origin(verdict: Verdict, rule: str, asked: Asked) -> Verdict:
    """Return a verdict that came from another process with what its candidates are worked out from."""
    _set_grounds(verdict, Grounds("", rule=rule))
    _set_asked(verdict, asked)
    return verdict


def shortened(text: str) -> str:
    """Return a text as a reason shows it: on one line, at most 60 characters."""
    text = " ".join(text[:400].split())
    return text if len(text) <= 60 else text[:57] + "..."
