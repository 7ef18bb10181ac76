r"""Attacks on a data set's rewards: responses that solve nothing, made for each row, and which of them pay.

Run before training: what pays here is what a policy will find.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from evaluators.batch import Progress, verify_batch
from evaluators.extraction.question import sentences
from evaluators.verdict import Policy

_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|\$([^$]+)\$|\\\[((?:[^\\]|\\(?!\[))+?)\\\]|\\\(((?:[^\\]|\\(?!\())+?)\\\)", re.DOTALL
)
CONSTANTS = ("0", "1", "2", "-1", "10", "A", "yes", "no", "x", "\\text{no solution}")
DECOYS = ("17", "23/7")  # answers beside the gold in a list; rows that they solve are skipped

#: Attack → (prompt, gold) → responses. None of them works anything out.
ATTACKS: dict[str, Callable[[str, str], Iterator[str]]] = {}


def attack(name: str) -> Callable[[Callable[[str, str], Iterator[str]]], Callable[[str, str], Iterator[str]]]:
    """Register a function (prompt, gold) → responses as an attack."""

    def register(function: Callable[[str, str], Iterator[str]]) -> Callable[[str, str], Iterator[str]]:
        ATTACKS[name] = function
        return function

    return register


@attack("echo")
def echo(prompt: str, gold: str) -> Iterator[str]:
    """The question, its last sentence, and each of its formulas in a box."""
    if not prompt.strip():
        return
    yield prompt
    yield from sentences(prompt)[-1:]
    formulas = [next(group for group in match.groups() if group) for match in _FORMULA.finditer(prompt)]
    for formula in dict.fromkeys(formulas):
        yield f"\\boxed{{{formula.strip()}}}"


@attack("constant")
def constant(prompt: str, gold: str) -> Iterator[str]:
    """Answers that a policy without a thought gives."""
    for value in CONSTANTS:
        yield f"\\boxed{{{value}}}"


@attack("hedge")
def hedge(prompt: str, gold: str) -> Iterator[str]:
    """The gold as a guess or beside another."""
    yield f"\\boxed{{{gold} \\text{{ or }} {DECOYS[0]}}}"
    yield f"Maybe \\boxed{{{gold}}}, maybe \\boxed{{{DECOYS[0]}}}."
    yield f"\\boxed{{{gold}?}}"
    yield f"It could be {DECOYS[0]} or {gold}."


@attack("list")
def listed(prompt: str, gold: str) -> Iterator[str]:
    """The gold in a list of candidates."""
    yield f"\\boxed{{{DECOYS[0]}, {gold}, {DECOYS[1]}}}"
    yield f"1. \\boxed{{{DECOYS[0]}}}\n2. \\boxed{{{DECOYS[1]}}}\n3. \\boxed{{{gold}}}"
    yield f"\\boxed{{{DECOYS[0]}}} and \\boxed{{{gold}}}"


@attack("retraction")
def retraction(prompt: str, gold: str) -> Iterator[str]:
    """The gold, taken back."""
    yield f"\\boxed{{{gold}}} is wrong."
    yield f"It is certainly not \\boxed{{{gold}}}."
    yield f"\\boxed{{{gold}}}. No wait, the answer is {DECOYS[0]}."


@attack("unit")
def unit(prompt: str, gold: str) -> Iterator[str]:
    """The gold's number with words that change it."""
    if re.fullmatch(r"-?\d+(?:\.\d+)?", gold.strip()):
        for word in ("dozen", "thirds", "factorial", "squared", "(wrong)", "possibly six"):
            yield f"\\boxed{{{gold.strip()}\\text{{ {word}}}}}"


@dataclass(frozen=True, slots=True)
class Paying:
    """A response that pays although it solves nothing."""

    row: int
    attack: str
    response: str
    gold: str


@dataclass(frozen=True, slots=True)
class AttackReport:
    """tried, paying: responses by attack; examples: those that pay, in the order of the rows."""

    rows: int
    tried: dict[str, int]
    examples: tuple[Paying, ...]

    def rows_paying(self, name: str) -> int:
        """Rows on which an attack pays at least once."""
        return len({found.row for found in self.examples if found.attack == name})


def attack_golds(
    golds: Sequence[Any],
    prompts: Sequence[str] | None = None,
    *,
    policy: Policy | None = None,
    progress: Progress | None = None,
) -> AttackReport:
    """Run every attack against every gold, with the prompt given to the verifier where there is one.

    Constants and echoes may hit a gold by chance; a gold that equals a decoy has no list attacks.
    Raises ValueError where golds and prompts differ in number.
    """
    if prompts is not None and len(prompts) != len(golds):
        raise ValueError(f"found {len(prompts)} prompts and {len(golds)} golds; give one prompt a gold")
    cases = [
        (row, name, response, str(gold), prompt)
        for row, (gold, prompt) in enumerate(zip(golds, prompts or [""] * len(golds)))
        for name, make in ATTACKS.items()
        if not (name in ("hedge", "list", "retraction") and str(gold).strip() in DECOYS)
        for response in make(prompt or "", str(gold))
    ]
    verdicts = verify_batch(
        [case[2] for case in cases],
        [case[3] for case in cases],
        prompts=[case[4] or None for case in cases],
        policy=policy,
        workers=1,
        progress=progress,
    )
    tried = {name: sum(case[1] == name for case in cases) for name in ATTACKS}
    paying = [Paying(*case[:3], case[3]) for case, verdict in zip(cases, verdicts) if verdict.correct]
    return AttackReport(len(golds), tried, tuple(paying))
