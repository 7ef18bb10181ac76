"""Throughput beside Math-Verify in one process: distinct pairs, no result cache, golds parsed once on both sides.

    python benchmarks/verifier_speed.py [--data FOLDER] [--pairs 1500]

Real responses: model solutions of GSM8K and the worked solutions of MATH-500, against their golds. Short pairs: an
answer against another answer or another spelling of itself. Both verifiers take turns every 50 pairs, so that the
load of the machine falls on both; the ratio of CPU time is the steadier one where others compute beside. Ours runs
twice, without and with the question as `prompt=`, which Math-Verify does not take, and forgets the answers that it has
read before each turn.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import random
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from math_verify import parse
from math_verify import verify as peer_verify
from verifier_gsm8k import DEFAULT_DATA, read_solutions

from evaluators.parsing.read_answer import forget_answers
from evaluators.verify import verify
from evaluators.workers import pool as deadline

TURN = 50


Case = tuple[str, str, str]  # response, gold, question


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def real_responses(data: Path) -> list[Case]:
    """Distinct (response, gold, question): model solutions of GSM8K, worked solutions of MATH-500."""
    path = data / "gsm8k/example_model_solutions.jsonl"
    questions = [row["question"] for row in read_rows(path)]
    cases = [(solution.text, solution.gold, questions[solution.problem]) for solution in read_solutions(path)]
    rows = read_rows(data / "math500/test.jsonl")
    return list(dict.fromkeys(cases)) + [(row["solution"], row["answer"], row["problem"]) for row in rows]


def short_pairs(data: Path) -> list[Case]:
    """Distinct (answer, gold, question) of MATH-500: each gold against itself respelled and against others."""
    questions = {row["answer"]: row["problem"] for row in read_rows(data / "math500/test.jsonl")}
    golds = list(questions)
    cases = []
    for step in (0, 1, 2, 3, 5):
        for gold, other in zip(golds, golds[step:] + golds[:step]):
            answer = other.replace("\\frac", "\\dfrac").replace(",", ", ")
            cases.append((f"${answer}$", gold, questions[gold]))
    return list(dict.fromkeys(cases))


def timed(times: list[float], work: Callable[[str, str, str], Any], turn: list[Case]) -> list[Any]:
    """Run some work over cases, and add its wall time and its thread's CPU time to a sum of both."""
    began, cpu = time.perf_counter(), time.thread_time()
    results = [work(*case) for case in turn]
    times[0] += time.perf_counter() - began
    times[1] += time.thread_time() - cpu
    return results


def compare(name: str, cases: list[Case]) -> None:
    """Time both verifiers over the cases, and print a row of the table."""
    golds = {gold for _, gold, _ in cases}
    parsed: dict[str, Any] = {gold: parse(f"${gold}$") for gold in golds}
    for _, gold, question in cases:
        verify("", gold, prompt=question)  # golds and questions read and kept
    ours, prompted, theirs = [0.0, 0.0], [0.0, 0.0], [0.0, 0.0]
    agreed = symbolic = 0
    for start in range(0, len(cases), TURN):
        forget_answers()
        turn = cases[start : start + TURN]
        half = len(turn) // 2
        verdicts = timed(ours, lambda answer, gold, _: verify(answer, gold), turn)
        answers = timed(theirs, lambda answer, gold, _: peer_verify(parsed[gold], parse(answer)), turn[:half])
        forget_answers()
        timed(prompted, lambda answer, gold, question: verify(answer, gold, prompt=question), turn)
        answers += timed(theirs, lambda answer, gold, _: peer_verify(parsed[gold], parse(answer)), turn[half:])
        agreed += sum(verdict.correct == bool(answer) for verdict, answer in zip(verdicts, answers))
        symbolic += sum(verdict.method == "symbolic" for verdict in verdicts)
    count = len(cases)
    print(
        f"| {name} | {count} | {count / ours[0]:,.0f} | {count / prompted[0]:,.0f} | {count / theirs[0]:,.0f} | "
        f"{theirs[1] / ours[1]:.1f} × | {theirs[1] / prompted[1]:.1f} × | {100 * agreed / count:.1f} % | "
        f"{100 * symbolic / count:.2f} % |",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA.parent)
    parser.add_argument("--pairs", type=int, default=1500, help="at most this many of each kind")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # the peer logs every parse that fails
    deadline.warm_up(wait=True)
    generator = random.Random(0)
    kinds = {
        "GSM8K and MATH-500 responses": real_responses(arguments.data),
        "short answer pairs": short_pairs(arguments.data),
    }
    print(f"Math-Verify {version('math-verify')}, sympy {version('sympy')}, Python {platform.python_version()}\n")
    print(
        "| pairs | count | ours, /s | with the question, /s | Math-Verify, /s | ratio of CPU time | with the question "
        "| same verdict | symbolic |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, cases in kinds.items():
        warm, cases = cases[:TURN], cases[TURN:]
        for response, gold, question in warm:
            verify(response, gold, prompt=question)
            peer_verify(parse(f"${gold}$"), parse(response))
        generator.shuffle(cases)
        compare(name, cases[: arguments.pairs])


if __name__ == "__main__":
    main()
