"""COMPLETIONS of an evaluation in the formats of other harnesses: lm-evaluation-harness 0.4 and inspect_ai.

One log is written for each model and temperature. A completion whose verdict says nothing of it (unreadable gold,
timeout) has no score in them.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import polars as pl

from tracekit.core.runs import write_text
from tracekit.core.tables import COMPLETIONS, check

Harness = Literal["inspect", "lm-eval"]


def write_log(completions: pl.DataFrame, folder: Path, task: str, harness: Harness) -> list[Path]:
    """Write the logs of one problem set.

    Parameters
    ----------
    completions
        COMPLETIONS of one or more models.
    folder
        The folder that takes `FOLDER/lm-eval/MODEL/…` or `FOLDER/inspect/…`.
    task
        The problem set's name, which is the task's name in the logs.
    harness
        "lm-eval": samples_TASK_DATE.jsonl and results_DATE.json. "inspect": a log in JSON.

    Returns
    -------
    list of Path
        The files.
    """
    completions = check(completions, COMPLETIONS, "completions")
    now = datetime.now(UTC)
    written: list[Path] = []
    for (model, temperature), part in completions.group_by(["model", "temperature"], maintain_order=True):
        name = f"{task}_t{temperature:g}"
        if harness == "inspect":
            written.append(_write_inspect(part, folder, name, str(model), now))
        else:
            written += _write_lm_eval(part, folder, name, str(model), now)
    return written


def _file_name(text: str) -> str:
    return re.sub(r"[^\w.-]+", "-", text)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)


def _mean_score(part: pl.DataFrame) -> float | None:
    """Share of correct completions among those that a verdict says something of."""
    return part["reward"].drop_nulls().mean()  # type: ignore[return-value]


def _write_lm_eval(part: pl.DataFrame, folder: Path, task: str, model: str, now: datetime) -> list[Path]:
    date = now.strftime("%Y-%m-%dT%H-%M-%S.%f")
    place = folder / "lm-eval" / _file_name(model)
    samples = place / f"samples_{_file_name(task)}_{date}.jsonl"
    results = place / f"results_{date}-{_file_name(task)}.json"
    write_text(samples, "".join(_json(row) + "\n" for row in lm_eval_samples(part)))
    metrics = {"alias": task, "exact_match,none": _mean_score(part)}
    about = {
        "results": {task: metrics},
        "configs": {task: {"task": task, "output_type": "generate_until", "repeats": _samples(part)}},
        "versions": {task: 1.0},
        "n-shot": {task: 0},
        "n-samples": {task: {"original": part["problem_id"].n_unique(), "effective": part["problem_id"].n_unique()}},
        "config": {"model": "tracekit", "model_args": f"pretrained={model}"},
        "model_name": model,
        "date": now.timestamp(),
    }
    write_text(results, _json(about) + "\n")
    return [samples, results]


def _samples(part: pl.DataFrame) -> int:
    return int(part.group_by("problem_id").len()["len"].max())  # type: ignore[arg-type]


def lm_eval_samples(part: pl.DataFrame) -> Iterator[dict[str, Any]]:
    """Rows of a samples file: one a problem, with all its responses. part: COMPLETIONS of one model and temperature."""
    for number, (_, own) in enumerate(part.group_by("problem_id", maintain_order=True)):
        first = own.row(0, named=True)
        doc = {"problem_id": first["problem_id"], "problem": first["problem"], "answer": first["gold"]}
        known = own["reward"].drop_nulls()
        yield {
            "doc_id": number,
            "doc": doc,
            "target": first["gold"],
            "arguments": {"gen_args_0": {"arg_0": first["problem"], "arg_1": {"temperature": first["temperature"]}}},
            "resps": [own["response"].to_list()],
            "filtered_resps": own["response"].to_list(),
            "filter": "none",
            "metrics": ["exact_match"],
            "doc_hash": _hash(_json(doc)),
            "prompt_hash": _hash(first["problem"]),
            "target_hash": _hash(first["gold"]),
            "exact_match": known.mean(),
        }


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _write_inspect(part: pl.DataFrame, folder: Path, task: str, model: str, now: datetime) -> Path:
    name = f"{now.strftime('%Y-%m-%dT%H-%M-%S+00-00')}_{_file_name(task)}_{_file_name(model)}.json"
    return write_text(folder / "inspect" / name, _json(inspect_log(part, task, model, now)) + "\n")


#: Why a generation ended, as inspect_ai names it.
_STOPS = {"length": "max_tokens", "stop": "stop"}


def inspect_log(part: pl.DataFrame, task: str, model: str, now: datetime) -> dict[str, Any]:
    """An inspect_ai log (version 2) as plain values. part: COMPLETIONS of one model and temperature."""
    date = now.isoformat(timespec="seconds")
    ids = part["problem_id"].unique(maintain_order=True).to_list()
    score = _mean_score(part)
    metrics = {} if score is None else {"accuracy": {"name": "accuracy", "value": score}}
    identity = _hash(f"{task} {model} {date}")[:22]
    return {
        "version": 2,
        "status": "success",
        "eval": {
            "eval_id": identity,
            "run_id": identity,
            "task_id": identity,
            "created": date,
            "task": task,
            "model": model,
            "dataset": {"name": task, "samples": len(ids), "sample_ids": ids},
            "config": {"epochs": _samples(part)},
        },
        "plan": {"name": "plan", "config": {"temperature": part["temperature"][0]}},
        "results": {
            "total_samples": part.height,
            "completed_samples": part.height,
            "scores": [{"name": "verify", "scorer": "verify", "metrics": metrics}],
        },
        "stats": {"started_at": date, "completed_at": date},
        "samples": [_inspect_sample(row, model) for row in part.iter_rows(named=True)],
    }


def _inspect_sample(row: dict[str, Any], model: str) -> dict[str, Any]:
    answer = {"role": "assistant", "content": row["response"], "source": "generate", "model": model}
    scores = {}
    if row["reward"] is not None:
        value = "C" if row["reward"] == 1 else "I"
        scores["verify"] = {"value": value, "answer": row["prediction"], "explanation": row["outcome"]}
    stop = _STOPS.get(row["finish_reason"], "unknown")
    return {
        "id": row["problem_id"],
        "epoch": row["sample"] + 1,
        "input": row["problem"],
        "target": row["gold"],
        "messages": [{"role": "user", "content": row["problem"]}, answer],
        "output": {
            "model": model,
            "choices": [{"message": answer, "stop_reason": stop}],
            "usage": {"input_tokens": 0, "output_tokens": row["token_count"], "total_tokens": row["token_count"]},
        },
        "scores": scores,
        "metadata": {"outcome": row["outcome"]},
    }
