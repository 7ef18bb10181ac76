"""Throughput beside Math-Verify in one process: distinct pairs, no result cache, golds parsed once on both sides.

    python benchmarks/verifier_speed.py [--data FOLDER] [--pairs 1500]

Real responses: model solutions of GSM8K and the worked solutions of MATH-500, against their golds. Short pairs: an
answer against another answer or another spelling of itself. Both verifiers take turns every 50 pairs, so that the
load of the machine falls on both; the ratio of CPU time is the steadier one where others compute beside.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import random
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from math_verify import parse
from math_verify import verify as peer_verify
from verifier_gsm8k import DEFAULT_DATA, read_solutions

from evaluators.verify import verify
from evaluators.workers import pool as deadline

TURN = 50


def real_responses(data: Path) -> list[tuple[str, str]]:
    """Distinct (response, gold): model solutions of GSM8K, worked solutions of MATH-500."""
    pairs = [
        (solution.text, solution.gold) for solution in read_solutions(data / "gsm8k/example_model_solutions.jsonl")
    ]
    rows = [json.loads(line) for line in (data / "math500/test.jsonl").read_text(encoding="utf-8").splitlines()]
    return list(dict.fromkeys(pairs)) + [(row["solution"], row["answer"]) for row in rows]


def short_pairs(data: Path) -> list[tuple[str, str]]:
    """Distinct (answer, gold) of MATH-500: each gold against itself respelled and against others."""
    rows = [json.loads(line) for line in (data / "math500/test.jsonl").read_text(encoding="utf-8").splitlines()]
    golds = list(dict.fromkeys(row["answer"] for row in rows))
    pairs = []
    for step in (0, 1, 2, 3, 5):
        for gold, other in zip(golds, golds[step:] + golds[:step]):
            answer = other.replace("\\frac", "\\dfrac").replace(",", ", ")
            pairs.append((f"${answer}$", gold))
    return list(dict.fromkeys(pairs))


def compare(name: str, pairs: list[tuple[str, str]]) -> None:
    """Time both verifiers over the pairs, and print a row of the table."""
    golds = {gold for _, gold in pairs}
    parsed: dict[str, Any] = {gold: parse(f"${gold}$") for gold in golds}
    for gold in golds:
        verify("", gold)  # read and cached
    ours = theirs = our_cpu = their_cpu = 0.0
    agreed = 0
    methods: dict[str, int] = {}
    slowest = 0.0
    for start in range(0, len(pairs), TURN):
        turn = pairs[start : start + TURN]
        began, cpu = time.perf_counter(), time.process_time()
        verdicts = [verify(response, gold) for response, gold in turn]
        ours, our_cpu = ours + time.perf_counter() - began, our_cpu + time.process_time() - cpu
        began, cpu = time.perf_counter(), time.process_time()
        answers = [bool(peer_verify(parsed[gold], parse(response))) for response, gold in turn]
        theirs, their_cpu = theirs + time.perf_counter() - began, their_cpu + time.process_time() - cpu
        agreed += sum(verdict.correct == answer for verdict, answer in zip(verdicts, answers))
        for verdict in verdicts:
            methods[verdict.method] = methods.get(verdict.method, 0) + 1
            slowest = max(slowest, verdict.seconds)
    count = len(pairs)
    symbolic = 100 * methods.get("symbolic", 0) / count
    ratios = f"{theirs / ours:.1f} × | {their_cpu / our_cpu:.1f} ×"
    print(
        f"| {name} | {count} | {count / ours:,.0f} | {count / theirs:,.0f} | {ratios} | "
        f"{100 * agreed / count:.1f} % | {1000 * slowest:.1f} | {symbolic:.2f} % |",
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
        "| pairs | count | ours, /s | Math-Verify, /s | ratio | of CPU time | same verdict | slowest, ms | symbolic |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, pairs in kinds.items():
        warm, pairs = pairs[:TURN], pairs[TURN:]
        for response, gold in warm:
            verify(response, gold)
            peer_verify(parse(f"${gold}$"), parse(response))
        generator.shuffle(pairs)
        compare(name, pairs[: arguments.pairs])


if __name__ == "__main__":
    main()
