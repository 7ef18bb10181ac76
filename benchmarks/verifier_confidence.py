"""How often each rule of extraction is right: verdicts against the labels of real responses.

    python benchmarks/verifier_confidence.py [--data ../shared/data]

Prints the table PRECISION of evaluators/extraction/candidates.py. Sources: 5,276 model solutions of GSM8K, labelled by
people, and 800 sampled solutions of MATH, labelled by their authors' grader. Real models mark their answers, so each
response is also read without its mark: the box's content in place of the box, the solution without its last line `A:`.
The 60 traces of DeepSeek-R1 are left out: ten of their labels are wrong because the labelling found no answer.
"""

from __future__ import annotations

import argparse
import ast
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from verifier_gsm8k import read_solutions

from evaluators import verify
from evaluators.extraction.boxes import boxes_from_end
from evaluators.extraction.candidates import Precision

DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
LEAST = 50  # answers that a rule must have found
Labelled = tuple[str, str, str, bool]  # response, gold, question, label


def gsm8k(data: Path) -> Iterator[Labelled]:
    """Solutions as written, with the usual marks in place of `A:`, and without a mark."""
    for solution in read_solutions(data / "gsm8k/example_model_solutions.jsonl"):
        body, mark, answer = solution.text.rpartition("\nA:")
        yield solution.text, solution.gold, "", solution.label
        if mark:
            yield f"{body}\n#### {answer.strip()}", solution.gold, "", solution.label
            yield body, solution.gold, "", solution.label


def qwen_math(data: Path) -> Iterator[Labelled]:
    """Solutions as written and without their boxes."""
    for line in (data / "qwen_math/math_cot_100.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        codes, scores = (
            field if isinstance(field, list) else ast.literal_eval(field) for field in (row["code"], row["score"])
        )
        for text, label in zip(codes, scores):
            yield text, row["gt"], row["question"], bool(label)
            yield without_boxes(text), row["gt"], row["question"], bool(label)


def without_boxes(text: str) -> str:
    """The text with the contents of its boxes in their place."""
    for box in list(boxes_from_end(text)):
        text = text[: box.start] + box.content + text[box.end :]
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    data = parser.parse_args().data
    counts: dict[str, list[bool]] = defaultdict(list)
    for source in (gsm8k, qwen_math):
        for response, gold, question, label in source(data):
            verdict = verify(response, gold, prompt=question or None)
            if verdict.rule:
                counts[verdict.rule].append(verdict.correct == label)
    print("PRECISION: dict[str, Precision] = {")
    seen = {rule: agreed for rule, agreed in counts.items() if len(agreed) >= LEAST}
    for rule, agreed in sorted(seen.items(), key=lambda item: -len(item[1])):
        precision = Precision(sum(agreed), len(agreed))
        low, high = precision.interval()
        shares = f"# {100 * sum(agreed) / len(agreed):.1f} % [{100 * low:.1f}, {100 * high:.1f}]"
        print(f'    "{rule}": Precision({precision.agreed}, {precision.observed}),  {shares}')
    print("}")


if __name__ == "__main__":
    main()
