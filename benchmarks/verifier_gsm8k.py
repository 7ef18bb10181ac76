"""Agreement with the human labels of GSM8K's model solutions, and the reason of every disagreement.

    python benchmarks/verifier_gsm8k.py [--data FOLDER] [--list]

`example_model_solutions.jsonl` holds four models' solutions of each of 1,319 problems with a label `is_correct`.
"""

from __future__ import annotations

import argparse
import ast
import json
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from evaluators.verdict import Outcome, Verdict
from evaluators.verify import verify

DEFAULT_DATA = Path(__file__).parents[1] / ".." / "shared" / "data" / "gsm8k"
MODELS = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")


class Solution(NamedTuple):
    """One model's solution of one problem."""

    problem: int
    model: str
    text: str
    gold: str
    label: bool


def read_solutions(path: Path) -> Iterator[Solution]:
    """Every solution of the file, its gold taken from the reference solution's last line."""
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        gold = row["ground_truth"].rpartition("A:")[2].strip()
        for model in MODELS:
            record: Any = row[model]
            if isinstance(record, str):  # some copies hold the record as Python's print of it
                record = ast.literal_eval(record)
            yield Solution(number, model, record["solution"], gold, bool(record["is_correct"]))


def reason_of(solution: Solution, verdict: Verdict) -> str:
    """Why verdict and label differ, told from the text alone."""
    last_line = solution.text.rstrip().rpartition("\n")[2]
    if "A:" not in solution.text:
        return "the solution ends without its `A:` line"
    answer = last_line.rpartition("A:")[2].strip()
    as_number, gold = plain_number(answer), plain_number(solution.gold)
    if as_number is None:
        return "what follows `A:` is no number"
    if gold is None:
        return "the gold is no number"
    if verdict.correct and as_number == gold:
        return "the answer is the gold; the label says wrong" if not solution.label else "both agree"
    if not verdict.correct and as_number != gold:
        return "the answer is another number than the gold; the label says right"
    return "the verifier is wrong"


def plain_number(text: str) -> float | None:
    """A number as GSM8K writes it, None for anything else."""
    cleaned = re.sub(r"[,$%]", "", text).strip().rstrip(".")
    try:
        return float(cleaned)
    except ValueError:
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--list", action="store_true", help="print every disagreement")
    arguments = parser.parse_args()
    solutions = list(read_solutions(arguments.data / "example_model_solutions.jsonl"))
    started = time.perf_counter()
    verdicts = [verify(solution.text, solution.gold) for solution in solutions]
    seconds = time.perf_counter() - started
    agreed = sum(v.correct == s.label for s, v in zip(solutions, verdicts))
    print(f"{len(solutions)} solutions, agreement {agreed} = {100 * agreed / len(solutions):.2f} %, {seconds:.2f} s\n")
    print("| label | " + " | ".join(Outcome) + " |\n| --- |" + " --- |" * len(Outcome))
    for label in (True, False):
        counts = Counter(v.outcome for s, v in zip(solutions, verdicts) if s.label is label)
        print(f"| {'right' if label else 'wrong'} | " + " | ".join(str(counts[o]) for o in Outcome) + " |")
    methods = Counter(verdict.method for verdict in verdicts)
    print("\ndecided by: " + ", ".join(f"{method} {count}" for method, count in methods.most_common()))
    differing = [(s, v, reason_of(s, v)) for s, v in zip(solutions, verdicts) if v.correct != s.label]
    print("\n| disagreements | reason |\n| --- | --- |")
    for reason, count in Counter(reason for _, _, reason in differing).most_common():
        print(f"| {count} | {reason} |")
    if arguments.list:
        for solution, verdict, reason in differing:
            ending = solution.text[-60:].replace("\n", " ⏎ ")
            print(f"\n{solution.model} on problem {solution.problem}, gold {solution.gold}, label {solution.label}:")
            print(f"    {reason}")
            print(f"    {verdict.outcome} by {verdict.method}, prediction {verdict.prediction!r}: {verdict.reason}")
            print(f"    …{ending}")


if __name__ == "__main__":
    main()
