"""Where the exploration is: solution paths, coverage, and what the policy gives to a teacher's tokens."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import polars as pl
import torch

from tracekit.core.models import ModelError, open_model, open_tokenizer
from tracekit.core.tables import write_table
from tracekit.study.tasks.task import SolutionPath
from trainer.data.sequences import Row, collate, encode_curated, pad_id
from trainer.modeling.log_probs import CHUNK_ELEMENTS
from trainer.modeling.models import head_is_plain
from trainer.settings import DataSettings

#: Bounds of the base's rank of a token: 1 is its first choice, and no vocabulary has a rank beyond the last.
RANK_BINS = (1, 2, 3, 5, 10, 30, 1_000_000)
ROWS = 64  # traces of one forward pass, at most
TOKENS = 16_384  # of one forward pass, padding counted, unless a single trace is longer


def path_table(completions: pl.DataFrame, path_of: Callable[[str, str], SolutionPath]) -> pl.DataFrame:
    """COMPLETIONS → problem_id, sample, correct, path (text), calculation, verification, backtracking (counts)."""
    rows = []
    for problem_id, problem, sample, response, reward in completions.select(
        "problem_id", "problem", "sample", "response", "reward"
    ).iter_rows():
        path = path_of(problem, response)
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


def path_metrics(own: pl.DataFrame, base: pl.DataFrame, teacher: pl.DataFrame | None) -> dict[str, float | None]:
    """Exploration in numbers, each a mean over problems. `own`, `base`: path tables; `teacher`: problem_id, path.

    off_teacher is None without a teacher.

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
    off_teacher = (
        right.clear()
        if teacher is None
        else right.join(teacher.select("problem_id", "path").unique(), on=["problem_id", "path"], how="anti")
    )
    distinct = right.group_by("problem_id").agg(pl.col("path").n_unique())["path"]
    unsolved = problems - base_solved
    return {
        "paths": _mean(distinct),
        "off_teacher": len(off_teacher) / len(right) if len(right) and teacher is not None else None,
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
def measure_teacher_tokens(
    model: Path, base: Path, curated: pl.DataFrame, limits: DataSettings, folder: Path
) -> pl.DataFrame:
    """The probability that a model gives to the teacher's tokens, by the rank that the base gave them.

    curated: CURATED; rows beyond `limits` are left out, as in training, and prompts are what the trainer makes of
    problems. Both models stand on the GPU in their own dtype where there is one, else on the CPU in float32. Writes
    teacher_tokens.parquet: rank_low, rank_high (bounds, the upper one excluded), tokens, probability (mean), log_prob
    (mean).
    """
    tokenizer = open_tokenizer(model)
    networks = [_open(path) for path in (base, model)]
    rows = encode_curated(curated.sort("token_count"), tokenizer, limits).rows
    found = [_ranks(networks, batch, pad_id(tokenizer)) for batch in _batches(rows)]
    ranks, log_probs = (torch.cat(parts) for parts in zip(*found))
    frame = pl.DataFrame({"rank": ranks.numpy(), "log_prob": log_probs.double().numpy()})
    table = pl.DataFrame([_bin(frame, low, high) for low, high in itertools.pairwise(RANK_BINS)])
    write_table(table, folder / "teacher_tokens.parquet")
    return table


def _open(folder: Path) -> Any:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype: Any = torch.float32 if device == "cpu" else "auto"  # a CPU is slower in bfloat16, and less exact
    network: Any = open_model(folder, dtype=dtype)
    network = network.to(device).eval()
    if not head_is_plain(network):
        raise ModelError(
            f"{folder} scales its logits after the head; teacher tokens are read from the plain head alone."
        )
    return network


def _batches(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Rows in their order, ROWS a batch or as many as TOKENS hold."""
    batch: list[Row] = []
    for row in rows:
        longest = max(len(one.token_ids) for one in (*batch, row))
        if batch and (len(batch) == ROWS or longest * (len(batch) + 1) > TOKENS):
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def _ranks(networks: Sequence[Any], rows: Sequence[Row], pad: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first network's rank of each response token, and the second's log-prob of it: two (tokens,) on the CPU.

    The heads run on some tokens at a time: at a vocabulary of 152k a trace's logits are larger than the model.
    """
    device = networks[0].device
    batch = collate(list(rows), pad, device)
    scored = batch.completion_mask[:, 1:]
    targets = batch.input_ids[:, 1:][scored]  # (tokens,)
    hidden = [network.base_model(input_ids=batch.input_ids, use_cache=False).last_hidden_state for network in networks]
    before = [states[:, :-1][scored] for states in hidden]  # (tokens, width) each
    heads = [network.get_output_embeddings() for network in networks]
    at_once = max(1, CHUNK_ELEMENTS[device.type] // heads[0].weight.shape[0])
    ranks, log_probs = [], []
    for own, other, target in zip(*(part.split(at_once) for part in before), targets.split(at_once)):
        base_logits, logits = (head(states).float() for head, states in zip(heads, (own, other)))
        target = target[:, None]
        ranks.append((base_logits > base_logits.gather(-1, target)).sum(-1) + 1)
        log_probs.append(logits.log_softmax(-1).gather(-1, target).squeeze(-1))
    return torch.cat(ranks).cpu(), torch.cat(log_probs).cpu()


def _bin(frame: pl.DataFrame, low: int, high: int) -> dict[str, float | int | None]:
    inside = frame.filter(pl.col("rank").is_between(low, high, closed="left"))["log_prob"]
    return {
        "rank_low": low,
        "rank_high": high,
        "tokens": len(inside),
        "probability": _mean(inside.exp()),
        "log_prob": _mean(inside),
    }
