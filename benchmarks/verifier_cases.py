"""Score the verifier on a file of labelled cases, and a peer beside it.

    python benchmarks/verifier_cases.py FILE.jsonl [--peer math-verify] [--failures]

Each line of the file is {"gold", "response", "expected", "kind"}. `expected` is true or false, an outcome's name
("correct", "wrong", "no_answer", "unparsed_gold", …) or "not_correct". An expected true or "correct" asks for
CORRECT; an expected false or "wrong" asks for anything but CORRECT, as a reward of 1 or not 1 does; any other
outcome's name likewise counts as a negative, and how often the very name was met is told apart.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POSITIVE_WORDS = {"correct", "true", "yes", "1", "right", "equal", "match", "positive", "pass"}
NEGATIVE_WORDS = {"wrong", "false", "no", "0", "incorrect", "not_correct", "unequal", "mismatch", "negative", "fail"}
NEGATIVE_WORDS |= {"no_answer", "unparsed_prediction", "unparsed_gold", "timeout", "none", "null", "unknown"}


@dataclass(frozen=True)
class Case:
    """One labelled case."""

    gold: Any
    response: Any
    expected: bool
    expected_name: str
    kind: str


@dataclass(frozen=True)
class Result:
    """What a verifier said of one case, and how long it took."""

    correct: bool
    outcome: str
    reason: str
    seconds: float


def read_cases(path: Path) -> list[Case]:
    """The cases of a JSONL file. Raises ValueError with the line's number where one cannot be read."""
    cases = []
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            expected, name = read_expected(row["expected"])
            response = row["response"] if "response" in row else row["prediction"]
            cases.append(Case(row["gold"], response, expected, name, str(row.get("kind", ""))))
        except (KeyError, ValueError) as error:
            raise ValueError(f"{path}:{number}: {error!r}; expected gold, response, expected, kind") from error
    return cases


def read_expected(label: Any) -> tuple[bool, str]:
    """The label as (is it CORRECT?, its name)."""
    name = str(label).strip().lower().removeprefix("outcome.").replace(" ", "_").replace("-", "_")
    if name in POSITIVE_WORDS:
        return True, "correct"
    if name in NEGATIVE_WORDS:
        return False, name
    raise ValueError(f"expected is {label!r}; use true, false or an outcome's name")


def run_ours(case: Case) -> Result:
    """Our verdict."""
    from evaluators.verify import verify

    started = time.perf_counter()
    try:
        verdict = verify(case.response, case.gold)
    except Exception as error:  # verify must not raise: that it did is a fault to list, not an end of the list
        return Result(False, "raised", f"{type(error).__name__}: {error}", time.perf_counter() - started)
    return Result(verdict.correct, str(verdict.outcome), verdict.reason, time.perf_counter() - started)


def run_math_verify(case: Case) -> Result:
    """Math-Verify's verdict by its documented call: parse both, verify(gold, answer). An exception is a no.

    Its parser wants LaTeX within mathematics: a bare gold is put between dollars.
    """
    from math_verify import parse, verify

    started = time.perf_counter()
    try:
        gold = str(case.gold)
        gold = gold if "$" in gold or "\\boxed" in gold else f"${gold}$"
        correct = bool(verify(parse(gold), parse(str(case.response))))
        outcome, reason = ("correct" if correct else "wrong"), ""
    except Exception as error:  # a peer's fault is its answer here, and is shown
        correct, outcome, reason = False, "raised", f"{type(error).__name__}: {error}"
    return Result(correct, outcome, reason, time.perf_counter() - started)


VERIFIERS: dict[str, Callable[[Case], Result]] = {"ours": run_ours, "math-verify": run_math_verify}


def table(rows: Iterable[Iterable[Any]]) -> str:
    """Markdown rows."""
    return "\n".join("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)


def report(name: str, cases: list[Case], results: list[Result]) -> str:
    """Accuracy, false positives and negatives, by kind, and times of one verifier, as Markdown."""
    rows: list[list[Any]] = [["kind", "cases", "accuracy", "false positives", "false negatives"], ["---"] * 5]
    for kind in ["all", *sorted({case.kind for case in cases})]:
        chosen = [(c, r) for c, r in zip(cases, results) if kind in ("all", c.kind)]
        hits = sum(c.expected == r.correct for c, r in chosen)
        false_positives = sum(r.correct and not c.expected for c, r in chosen)
        false_negatives = sum(c.expected and not r.correct for c, r in chosen)
        accuracy = f"{100 * hits / len(chosen):.1f} %"
        rows.append([kind, len(chosen), accuracy, false_positives, false_negatives])
    seconds = sorted(result.seconds for result in results)
    named = [(c, r) for c, r in zip(cases, results) if c.expected_name not in NEGATIVE_WORDS - set(OUTCOME_NAMES)]
    met = sum(c.expected_name == r.outcome for c, r in named)
    times = (
        f"{name}: median {1e3 * statistics.median(seconds):.3f} ms, 99th percentile "
        f"{1e3 * seconds[int(0.99 * (len(seconds) - 1))]:.1f} ms, slowest {1e3 * seconds[-1]:.1f} ms, "
        f"total {sum(seconds):.2f} s; the very outcome named: {met} of {len(named)}"
    )
    return f"\n### {name}\n\n{table(rows)}\n\n{times}"


OUTCOME_NAMES = ("correct", "wrong", "restated", "no_answer", "unparsed_prediction", "unparsed_gold", "timeout")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="+")
    parser.add_argument("--peer", choices=["math-verify"], action="append", default=[])
    parser.add_argument("--failures", action="store_true", help="list what went wrong, with the reason")
    arguments = parser.parse_args()
    from evaluators.workers import pool as deadline

    deadline.warm_up(wait=True)
    for path in arguments.file:
        try:
            cases = read_cases(path)
        except (OSError, ValueError) as error:
            print(error, file=sys.stderr)
            raise SystemExit(2) from error
        if not cases:
            print(f"{path} holds no case", file=sys.stderr)
            raise SystemExit(2)
        print(f"\n## {path.name}: {len(cases)} cases, {sum(case.expected for case in cases)} expected correct")
        for name in ["ours", *arguments.peer]:
            results = [VERIFIERS[name](case) for case in cases]
            print(report(name, cases, results))
            if arguments.failures:
                for case, result in zip(cases, results):
                    if case.expected != result.correct or result.outcome == "raised":
                        word = "FALSE POSITIVE" if result.correct else "FALSE NEGATIVE"
                        print(f"\n{word} [{case.kind}] gold {case.gold!r:.200} response {case.response!r:.300}")
                        print(f"    expected {case.expected_name}, said {result.outcome}: {result.reason}")


if __name__ == "__main__":
    main()
