"""Real traces of real teachers from the shared data folder, in the long form that `tracekit curate` reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
NAMES = ("r1_traces", "qwen_math", "gsm8k")


def _lines(path: str) -> Iterator[dict]:
    with (SHARED / path).open(encoding="utf-8") as file:
        yield from map(json.loads, file)


def real_traces(name: str) -> list[dict[str, str]]:
    """Rows of problem, gold, response and author. name: one of NAMES; of GSM8K's solutions the first 300 problems."""
    if name == "r1_traces":
        return [_row(r["problem"], r["answer"], r["response"], r["model"]) for r in _lines("r1_traces/math500.jsonl")]
    if name == "qwen_math":
        rows = _lines("qwen_math/math_cot_100.jsonl")
        return [_row(r["question"], r["gt"], text, "Qwen2.5-Math") for r in rows for text in r["code"]]
    rows = []
    for number, row in enumerate(_lines("gsm8k/example_model_solutions.jsonl")):
        if number == 300:
            break
        gold = row["ground_truth"].rpartition("A:")[2].strip()
        models = {key: value["solution"] for key, value in row.items() if isinstance(value, dict)}
        rows += [_row(row["question"], gold, text, author) for author, text in models.items()]
    return rows


def _row(problem: str, gold: str, response: str, author: str) -> dict[str, str]:
    return {"problem": problem, "gold": gold, "response": response, "author": author}
