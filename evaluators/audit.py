"""Audit a dataset's golds: which cannot be verified, and which pay without being solved.

Every fault is found by asking the verifier itself, as a model in training would: a gold that does not verify against
itself, a constant that solves many rows, a prompt whose echo scores, a list of candidates that scores.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any

from evaluators.batch import Progress
from evaluators.parsing.tree import Node
from evaluators.verdict import Outcome, Policy
from evaluators.verify import read_gold, verify

#: Answers that a policy without a thought gives.
GUESSES = ("0", "1", "2", "-1", "10", "A", "B", "C", "D", "E", "yes", "no", "True", "False", "\\text{no solution}", "x")
#: How many of the dataset's own most frequent golds are tried as constants.
FREQUENT = 20


class Fault(StrEnum):
    """What is wrong with a gold. The first three cannot be verified (well), the others can be hacked."""

    UNPARSED = "unparsed"  # it cannot be read, or does not verify against itself
    TEXT = "text"  # only equal words would score
    AMBIGUOUS = "ambiguous"  # it has two readings
    CONSTANT = "constant"  # one constant answer solves this and many other rows
    ECHO = "echo"  # repeating the prompt scores
    LIST = "list"  # listing candidates scores


@dataclass(frozen=True, slots=True)
class Finding:
    """One fault of one row's gold, with a sentence that a person understands."""

    row: int
    gold: str
    fault: Fault
    detail: str


@dataclass(frozen=True, slots=True)
class Audit:
    """rows: how many golds were looked at. constants: (answer, share of the rows it solves), the best first."""

    rows: int
    findings: tuple[Finding, ...]
    constants: tuple[tuple[str, float], ...]

    def count(self, fault: Fault) -> int:
        """Rows with this fault."""
        return sum(finding.fault is fault for finding in self.findings)


def audit_golds(
    golds: Sequence[Any],
    prompts: Sequence[str] | None = None,
    *,
    policy: Policy | None = None,
    constant_share: float = 0.1,
    progress: Progress | None = None,
) -> Audit:
    r"""List the golds that cannot be verified or that could be scored without solving the problem.

    Parameters
    ----------
    golds : sequence
        Reference answers.
    prompts : sequence of str, optional
        The question of each gold.
    policy : Policy, optional
        What counts as equal.
    constant_share : float
        In (0, 1]. A constant answer that solves at least this share of the rows, and two of them, is a fault of each.
    progress : callable, optional
        Called as progress("audit", done, total, note) after every distinct gold.

    Returns
    -------
    Audit
        One finding a faulty row.

    Raises
    ------
    ValueError
        Where prompts and golds differ in number.

    Examples
    --------
    >>> from evaluators import audit_golds
    >>> [finding.row for finding in audit_golds(["12", "", r"\frac{1}{3}"]).findings]
    [1]
    """
    if prompts is not None and len(prompts) != len(golds):
        raise ValueError(f"found {len(prompts)} prompts and {len(golds)} golds; give one prompt a gold")
    policy = policy or Policy()
    rows_of: dict[str, list[int]] = defaultdict(list)
    findings: list[Finding] = []
    for row, gold in enumerate(golds):
        if isinstance(gold, str | int | float) and not isinstance(gold, bool):
            rows_of[str(gold)].append(row)
        else:
            kind = type(gold).__name__
            findings.append(Finding(row, repr(gold)[:80], Fault.UNPARSED, f"The gold is {kind}; expected text."))
    usable, decoys = [], [*GUESSES, *list(rows_of)[:FREQUENT]]
    for done, (gold, rows) in enumerate(rows_of.items(), 1):
        faults = _faults_of(gold, decoys, policy)
        findings += [Finding(row, gold, fault, detail) for row in rows for fault, detail in faults]
        if Fault.UNPARSED not in {fault for fault, _ in faults}:
            usable.append(gold)
        if progress is not None:
            progress("audit", done, len(rows_of), "")
    if prompts is not None:
        findings += _echoes(usable, rows_of, prompts, policy)
    constants = _constants(usable, rows_of, policy)
    findings += _solved_by_constants(constants, rows_of, len(golds), constant_share)
    findings.sort(key=lambda finding: (finding.row, finding.fault))
    shares = tuple((answer, sum(len(rows_of[gold]) for gold in solved) / len(golds)) for answer, solved in constants)
    return Audit(len(golds), tuple(findings), shares)


def ambiguity(gold: str) -> str | None:
    """A sentence that names the two readings of a gold; None where there is one."""
    answer = read_gold(gold)
    text, tree = answer.key, answer.tree
    if re.fullmatch(r"[EIei]", text):
        return f"{text} is an option's letter, or a variable or constant of that name."
    if re.fullmatch(r"-?\d{1,3},\d{3}", text):
        return f"{text} is one number with a separator, or a list of two."
    if tree is not None and tree.op in ("tuple", "interval") and _is_open_pair(tree, text):
        return f"{text} is a point, or the open interval between its ends."
    if re.search(r"\\(?:sin|cos|tan)\s*\{?\(?\s*\d{2,}\b(?!\s*\}?\)?\s*(?:\^|°|\\circ|\\deg|\\pi))", text):
        return "The angle is given in radians, or in degrees without their sign."
    if re.search(r"(?<![\w}])\d+/\d*[a-zA-Z]\w*", text) or re.search(r"\d/\d+\(", text):
        return "What stands behind the slash belongs under it, or beside the fraction."
    if re.search(r"\bor\b", text):
        return "The gold offers alternatives: either of them is meant, or both."
    if re.search(r"\\approx|≈|\\sim|\babout\b|\bapprox", gold):
        return "The gold is a rounded value; to how many digits is not said."
    return None


def _is_open_pair(tree: Node, text: str) -> bool:
    ends = tree.args
    if len(ends) != 2 or not (text.startswith("(") and text.endswith(")")):
        return False
    values = [end.value for end in ends if end.op == "num"]
    return len(values) == 2 and values[0] < values[1]


def _faults_of(gold: str, decoys: Sequence[str], policy: Policy) -> list[tuple[Fault, str]]:
    answer = read_gold(gold)
    itself = verify(f"\\boxed{{{answer.source}}}", gold, policy=policy)
    if itself.outcome is Outcome.UNPARSED_GOLD or answer.tree is None:
        return [(Fault.UNPARSED, (answer.error and f"The gold cannot be read: {answer.error}.") or itself.reason)]
    if not itself.correct:
        return [(Fault.UNPARSED, f"The gold does not verify against itself: {itself.reason}")]
    faults = []
    if answer.tree.op == "text":
        faults.append((Fault.TEXT, "The gold is words: only the same words score, not the same meaning."))
    readings = ambiguity(gold)
    if readings is not None:
        faults.append((Fault.AMBIGUOUS, readings))
    paying = _paying_list(answer.source, gold, decoys, policy)
    if paying is not None:
        faults.append((Fault.LIST, f"A list of candidates scores: {paying!r:.120}."))
    return faults


def _paying_list(answer: str, gold: str, decoys: Sequence[str], policy: Policy) -> str | None:
    """A response that lists the gold among other answers and scores; None where none does."""
    others = (decoy for decoy in decoys if "," not in decoy and "\n" not in decoy)
    wrong = (other for other in others if not verify(f"\\boxed{{{other}}}", gold, policy=policy).correct)
    one, two = islice(wrong, 2)  # there are two: GUESSES are no synonyms
    lists = (
        f"\\boxed{{{one}, {answer}, {two}}}",
        f"\\boxed{{{one} \\text{{ or }} {answer}}}",
        f"\\boxed{{{one}}} or \\boxed{{{answer}}}",
        f"The answer is {one}, {two} or {answer}.",
        f"1. \\boxed{{{one}}}\n2. \\boxed{{{two}}}\n3. \\boxed{{{answer}}}",
    )
    return next((response for response in lists if verify(response, gold, policy=policy).correct), None)


def _echoes(
    golds: Sequence[str], rows_of: dict[str, list[int]], prompts: Sequence[str], policy: Policy
) -> list[Finding]:
    return [
        Finding(row, gold, Fault.ECHO, "A response that repeats the prompt scores.")
        for gold in golds
        for row in rows_of[gold]
        if verify(prompts[row], gold, policy=policy).correct
    ]


def _constants(golds: Sequence[str], rows_of: dict[str, list[int]], policy: Policy) -> list[tuple[str, list[str]]]:
    """Each constant tried and the golds it solves, those that solve most rows first; equivalent ones once."""
    frequent = Counter({gold: len(rows_of[gold]) for gold in golds if "\n" not in gold}).most_common(FREQUENT)
    found: list[tuple[str, list[str]]] = []
    claimed: set[tuple[str, ...]] = set()
    for constant in dict.fromkeys([*(gold for gold, _ in frequent), *GUESSES]):
        solved = [gold for gold in golds if verify(f"\\boxed{{{constant}}}", gold, policy=policy).correct]
        if solved and tuple(solved) not in claimed:
            claimed.add(tuple(solved))
            found.append((constant, solved))
    return sorted(found, key=lambda item: -sum(len(rows_of[gold]) for gold in item[1]))


def _solved_by_constants(
    constants: list[tuple[str, list[str]]], rows_of: dict[str, list[int]], total: int, least: float
) -> list[Finding]:
    findings = []
    for constant, solved in constants:
        rows = [(row, gold) for gold in solved for row in rows_of[gold]]
        if len(rows) >= 2 and len(rows) >= least * total:
            detail = (
                f"The constant answer {constant} solves {len(rows)} of {total} rows ({100 * len(rows) / total:.0f} %)."
            )
            findings += [Finding(row, gold, Fault.CONSTANT, detail) for row, gold in rows]
    return findings
