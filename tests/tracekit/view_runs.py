"""Small run folders for the tests of the page: a curation with every side table, and a training run."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl

from tracekit.core.tables import COMPLETIONS, CURATED, LEDGER, PROBLEMS, STEPS, TRACES, VERDICTS, conform, write_table
from tracekit.text.segment import segment_traces
from tracekit.viewer.run_data import CONTAMINATION, DISAGREEMENTS, DUPLICATES


def curation(folder: Path, responses: list[str], *, words: str = "", per_problem: int = 2) -> Path:
    """Responses, `per_problem` to each problem; every fourth is dropped as wrong. `words` stand in every other text."""
    count = len(responses)
    problems = pl.DataFrame(
        {
            "problem_id": [f"p{n}" for n in range(-(-count // per_problem))],
            "problem": [f"Problem {n}: what is $1+{n}$? {words}" for n in range(-(-count // per_problem))],
            "gold": [f"{n + 1}{words}" for n in range(-(-count // per_problem))],
            "source": f"set {words}",
            "kind": f"sums {words}",
        }
    )
    write_table(conform(problems, PROBLEMS, "problems"), folder / "problems.parquet")
    ids = [f"t{n}" for n in range(count)]
    traces = pl.DataFrame(
        {
            "trace_id": ids,
            "problem_id": [f"p{n // per_problem}" for n in range(count)],
            "author": [f"author {n % 2} {words}" for n in range(count)],
            "response": responses,
            "token_count": [10 + n for n in range(count)],
        }
    )
    write_table(conform(traces, TRACES, "traces"), folder / "traces.parquet")
    steps = segment_traces(conform(traces, TRACES, "traces"))
    write_table(steps, folder / "steps.parquet", STEPS)
    wrong = [n % 4 == 3 for n in range(count)]
    verdicts = pl.DataFrame(
        {
            "trace_id": ids,
            "outcome": ["wrong" if bad else "correct" for bad in wrong],
            "prediction": [f"{n // per_problem + 1}{words}" for n in range(count)],
            "gold": [f"{n // per_problem + 1}{words}" for n in range(count)],
            "method": f"text {words}",
            "reason": f"Because of {words}.",
            "seconds": 0.002,
            "verifier": "evaluators",
            "verifier_version": "1",
        }
    )
    both = pl.concat([verdicts, verdicts.with_columns(verifier=pl.lit("math-verify"), outcome=pl.lit("wrong"))])
    write_table(conform(both, VERDICTS, "verdicts"), folder / "verdicts.parquet")
    said = verdicts.select(
        row_id="trace_id",
        stage=pl.lit("filter"),
        rule=pl.lit(f"outcomes{words}"),
        rule_version=pl.lit("1"),
        measured="outcome",
        threshold=pl.lit(f"correct{words}"),
        verdict=pl.when(pl.col("outcome") == "correct").then(pl.lit("keep")).otherwise(pl.lit("drop")),
        reason=pl.lit(f"because {words}"),
    )
    about = pl.DataFrame(
        [("p0", "gold", f"verifiable {words}", "1", "correct", "correct", "keep", "")], LEDGER, orient="row"
    )
    write_table(conform(pl.concat([about, said]), LEDGER, "ledger"), folder / "ledger.parquet")
    kept = traces.filter(~pl.Series(wrong)).with_columns(correct=pl.lit(True))
    write_table(conform(kept, CURATED, "curated"), folder / "curated.parquet")
    side_tables(folder, words, count)
    return folder


def side_tables(folder: Path, words: str, count: int) -> None:
    pairs = [("problem", "p0", "p1", 0.95)] if (folder / "problems.parquet").exists() and count > 2 else []
    pairs += [("trace", "t0", "t1", 1.0)] if count > 1 else []
    write_table(pl.DataFrame(pairs, DUPLICATES, orient="row"), folder / "duplicates.parquet")
    shared = "the quick brown fox jumps over the lazy"
    found = [
        (
            "p0",
            f"AIME {words}",
            f"Here {shared} dog {words}",
            f"There {shared} cat {words}",
            2,
            shared.removesuffix(" dog"),
        )
    ]
    write_table(pl.DataFrame(found, CONTAMINATION, orient="row"), folder / "contamination.parquet")
    differing = [("t0", "correct", f"math-verify {words}", "wrong")]
    write_table(pl.DataFrame(differing, DISAGREEMENTS, orient="row"), folder / "disagreements.parquet")
    dropped = sum(n % 4 == 3 for n in range(count))
    funnel = [
        {"stage": f"sources{words}", "traces": count, "problems": -(-count // 2), "dropped": 0, "reasons": {}},
        {
            "stage": "filter",
            "traces": count - dropped,
            "problems": -(-count // 2),
            "dropped": dropped,
            "reasons": {f"outcomes{words}": dropped},
        },
    ]
    (folder / "funnel.json").write_text(json.dumps({"funnel": funnel}), encoding="utf-8")


def training(folder: Path) -> Path:
    """Two rounds of two problems: a teacher's row and three rollouts each, in two shards."""
    for shard, step in enumerate((0, 4)):
        rows = [
            {
                "problem_id": f"p{problem}",
                "model": "student-1",
                "step": step,
                "sample": sample,
                "temperature": 1.0,
                "on_policy": sample > 0,
                "problem": f"Problem {problem}",
                "gold": "7",
                "response": f"Add 3 and 4.\n\nSo \\boxed{{{7 if sample in (0, 1 + shard) else 8}}} at {step}.{sample}",
                "token_count": 12 + sample,
                "finish_reason": "stop",
                "outcome": "correct" if sample in (0, 1 + shard) else "wrong",
                "prediction": "7" if sample in (0, 1 + shard) else "8",
                "reward": float(sample in (0, 1 + shard)),
                "advantage": 0.5,
            }
            for problem in range(2)
            for sample in range(4)
        ]
        table = conform(pl.DataFrame(rows), COMPLETIONS, "completions")
        write_table(table, folder / "completions" / f"round-{shard:06d}.parquet")
    return folder
