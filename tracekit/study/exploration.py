"""Where the exploration is: solution paths, coverage, and what the policy gives to a teacher's tokens."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tracekit.tables import write_table
from tracekit.world import World, read_steps

#: Bounds of the base's rank of a token: 1 is its first choice.
RANK_BINS = (1, 2, 3, 5, 10, 30, 10_000)
ROWS = 64  # traces of one forward pass

#: (kind, operator) of each step.
SolutionPath = tuple[tuple[str, str], ...]


def path_of(problem: str, response: str, world: World) -> SolutionPath:
    """The way a response takes: kind and operation of each step, whatever their values.

    Two responses that work the same slots, verify the same ones and take the same ones back have one path.
    """
    return tuple((step.kind, step.operator or "") for step in read_steps(problem, response, world))


def path_table(completions: pl.DataFrame, world: World) -> pl.DataFrame:
    """COMPLETIONS → problem_id, sample, correct, path (text), calculation, verification, backtracking (counts)."""
    rows = []
    for problem_id, problem, sample, response, reward in completions.select(
        "problem_id", "problem", "sample", "response", "reward"
    ).iter_rows():
        path = path_of(problem, response, world)
        kinds = [kind for kind, _ in path]
        rows.append(
            {
                "problem_id": problem_id,
                "sample": sample,
                "correct": reward == 1.0,
                "path": " ".join(f"{kind}{operator}" for kind, operator in path),
                **{kind: kinds.count(kind) for kind in ("calculation", "verification", "backtracking")},
            }
        )
    return pl.DataFrame(rows)


def path_metrics(own: pl.DataFrame, base: pl.DataFrame, teacher: pl.DataFrame) -> dict[str, float | None]:
    """Exploration in numbers, each a mean over problems. `own`, `base`: path tables; `teacher`: problem_id, path.

    paths: distinct correct paths of a problem that has a correct sample. off_teacher, off_base: share of correct
    samples whose path is not the teacher's, and is none of the base's correct ones. kept: share of the problems
    that the base solved and this model solves. gained: share of those that the base did not solve.
    worked, verification, backtracking: share of all samples that work a step, and steps a sample.
    """
    right = own.filter("correct")
    base_right = base.filter("correct")
    solved, base_solved = set(right["problem_id"]), set(base_right["problem_id"])
    problems = set(own["problem_id"])
    known = base_right.select("problem_id", "path").unique()
    off_base = right.join(known, on=["problem_id", "path"], how="anti")
    off_teacher = right.join(teacher.select("problem_id", "path").unique(), on=["problem_id", "path"], how="anti")
    distinct = right.group_by("problem_id").agg(pl.col("path").n_unique())["path"]
    unsolved = problems - base_solved
    return {
        "paths": _mean(distinct),
        "off_teacher": len(off_teacher) / len(right) if len(right) else None,
        "off_base": len(off_base) / len(right) if len(right) else None,
        "kept": len(solved & base_solved) / len(base_solved) if base_solved else None,
        "gained": len(solved & unsolved) / len(unsolved) if unsolved else None,
        "worked": _mean((own["calculation"] > 0).cast(pl.Float64)),
        "verification": _mean(own["verification"]),
        "backtracking": _mean(own["backtracking"]),
    }


def _mean(values: pl.Series) -> float | None:
    mean = values.cast(pl.Float64).mean()
    return float(mean) if isinstance(mean, float) else None


@torch.no_grad()
def measure_teacher_tokens(model: Path, base: Path, curated: pl.DataFrame, folder: Path) -> pl.DataFrame:
    """The probability that a model gives to the teacher's tokens, by the rank that the base gave them.

    Writes teacher_tokens.parquet: rank_low, rank_high (bounds, the upper one excluded), tokens, probability (mean),
    log_prob (mean).
    """
    tokenizer = AutoTokenizer.from_pretrained(model)
    networks = [AutoModelForCausalLM.from_pretrained(folder).eval() for folder in (base, model)]
    ranks, probabilities = [], []
    rows = curated.sort("token_count").select("problem", "response").rows()
    for at in range(0, len(rows), ROWS):
        ids, completion_mask = _batch(tokenizer, rows[at : at + ROWS])
        base_logits, logits = (network(input_ids=ids).logits[:, :-1] for network in networks)
        target = ids[:, 1:, None]
        above = (base_logits > base_logits.gather(-1, target)).sum(-1)
        ranks.append(above[completion_mask[:, 1:]] + 1)
        log_prob = logits.log_softmax(-1).gather(-1, target).squeeze(-1)
        probabilities.append(log_prob[completion_mask[:, 1:]])
    frame = pl.DataFrame({"rank": torch.cat(ranks).numpy(), "log_prob": torch.cat(probabilities).double().numpy()})
    found = pl.DataFrame([_bin(frame, low, high) for low, high in itertools.pairwise(RANK_BINS)])
    write_table(found, folder / "teacher_tokens.parquet")
    return found


def _bin(frame: pl.DataFrame, low: int, high: int) -> dict[str, float | int | None]:
    inside = frame.filter(pl.col("rank").is_between(low, high, closed="left"))["log_prob"]
    return {
        "rank_low": low,
        "rank_high": high,
        "tokens": len(inside),
        "probability": _mean(inside.exp()),
        "log_prob": _mean(inside),
    }


def _batch(tokenizer: Any, rows: Sequence[tuple[str, str]]) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids (B, L), padded on the right, and completion_mask (B, L), True on the response's tokens and EOS."""
    prompts = [[tokenizer.bos_token_id, *ids] for ids in _ids(tokenizer, [problem for problem, _ in rows])]
    responses = [[*ids, tokenizer.eos_token_id] for ids in _ids(tokenizer, [response for _, response in rows])]
    longest = max(len(p) + len(r) for p, r in zip(prompts, responses))
    ids = torch.full((len(rows), longest), tokenizer.pad_token_id)
    completion_mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for row, (prompt, response) in enumerate(zip(prompts, responses)):
        ids[row, : len(prompt) + len(response)] = torch.tensor([*prompt, *response])
        completion_mask[row, len(prompt) : len(prompt) + len(response)] = True
    return ids, completion_mask


def _ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    return list(tokenizer(list(texts), add_special_tokens=False)["input_ids"])
