"""Samples of a reference model to each problem: how hard the problem is, and whether the samples agree with its gold.

Requests go through the request ledger of `collect`, kept beside the stages and keyed by the problem's content: a run
that was stopped goes on, more samples ask for the missing ones alone, and no answer is paid for twice.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import polars as pl

from tracekit.collection.collect import LEDGER_FILE, CollectSettings, collect, read_line
from tracekit.collection.openai_client import CollectError
from tracekit.core.runs import Progress
from tracekit.core.tables import PROBLEMS, Schema, check, read_table
from tracekit.curation.filters import STAGE
from tracekit.curation.ledger import decide
from tracekit.curation.measurements import Measured
from tracekit.curation.settings import CurateSettings
from tracekit.curation.stage_cache import Plan, Stages, digest
from tracekit.curation.verify import KNOWN, policy_digest, verifier_version, verify_traces

VERSION = 1
#: Characters of a prompt that make about one token, for an estimate of what it costs.
CHARACTERS_PER_TOKEN = 3.5

#: One row a problem. known: samples whose verdict says something. vote: the answer of the largest group of equivalent
#: ones, and its share of the known samples. agrees: whether that answer is the gold.
REFERENCE: Schema = {
    "problem_id": pl.String,
    "reference_samples": pl.Int32,
    "known": pl.Int32,
    "reference_pass_rate": pl.Float64,
    "vote": pl.String,
    "vote_share": pl.Float64,
    "agrees": pl.Boolean,
}


def measure_reference(settings: CurateSettings, measured: Measured, stages: Stages, progress: Progress) -> Measured:
    """Ask the reference model what is missing, and measure its samples. Raises CollectError."""
    wanted = settings.reference
    if wanted is None:
        return measured

    def make(folder: Path) -> None:
        problems = check(pl.read_parquet(measured.files["problems"]), PROBLEMS, "problems")
        asked = CollectSettings(
            output=_requests(settings, stages),
            samples=wanted.samples,
            question=wanted.question,
            server=wanted.server,
            price_in=wanted.price_in,
            price_out=wanted.price_out,
        )
        done = collect(asked, problems, progress=lambda _, *rest: progress("reference", *rest))
        if done.failed:
            raise CollectError(
                f"{done.failed} requests to the reference model failed on every try; the {done.answers:,} answers are "
                "kept, run the same command to ask for the others."
            )
        traces = read_table(done.folder / "traces.parquet", _TRACE_COLUMNS)
        judged = traces.join(problems.select("problem_id", "gold"), on="problem_id", maintain_order="left")
        verdicts = verify_traces(judged, "evaluators", workers=settings.workers, progress=progress)
        summary(judged, verdicts).write_parquet(folder / "reference.parquet")

    inputs = {
        "version": VERSION,
        "problems": measured.files["problems"].parent.name,
        "question": wanted.question.model_dump(mode="json"),
        "samples": wanted.samples,
        "release": verifier_version("evaluators"),
        "policy": policy_digest("evaluators"),
    }
    stage = stages.build("reference", inputs, make)
    return replace(measured, files={**measured.files, "reference": stage / "reference.parquet"})


_TRACE_COLUMNS: Schema = {"trace_id": pl.String, "problem_id": pl.String, "response": pl.String}


def _requests(settings: CurateSettings, stages: Stages) -> Path:
    """The folder of the request ledger: one for each question, whatever is curated."""
    assert settings.reference is not None
    return stages.folder / f"reference.requests-{digest(settings.reference.question.model_dump(mode='json'))}"


def summary(samples: pl.DataFrame, verdicts: pl.DataFrame) -> pl.DataFrame:
    """REFERENCE of samples (trace_id, problem_id) and their verdicts, one row a problem."""
    from evaluators.metrics import group_equivalent

    rows = samples.select("trace_id", "problem_id").join(verdicts, on="trace_id", maintain_order="left")
    found: list[tuple[object, ...]] = []
    for (problem,), own in rows.group_by(["problem_id"], maintain_order=True):
        known = own.filter(pl.col("outcome").is_in(KNOWN))
        groups = group_equivalent(known["prediction"].to_list())
        votes = pl.Series(groups, dtype=pl.Int64).drop_nulls().value_counts(sort=True)
        right = (known["outcome"] == "correct").cast(pl.Int64)
        if not votes.height or not known.height:
            rate = right.sum() / known.height if known.height else None
            found.append((problem, own.height, known.height, rate, None, None, None))
            continue
        most = max(votes["count"].to_list())
        largest = votes.filter(pl.col("count") == most)
        members = pl.Series(groups, dtype=pl.Int64).eq_missing(largest[votes.columns[0]][0])
        tie = largest.height > 1
        share = most / known.height
        agrees = None if tie else 2 * int(right.filter(members).sum()) > int(members.sum())
        vote = None if tie else known["prediction"].filter(members)[0]
        found.append((problem, own.height, known.height, right.sum() / known.height, vote, share, agrees))
    return pl.DataFrame(found, schema=REFERENCE, orient="row")


def with_reference(measured: Measured, rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of traces with what the reference model's samples say of their problem."""
    if "reference" not in measured.files:
        return rows
    table = measured.read("reference").select("problem_id", "reference_pass_rate", "vote", "vote_share", "agrees")
    return rows.join(table, on="problem_id", how="left", maintain_order="left")


def reference_decisions(settings: CurateSettings, rows: pl.DataFrame) -> list[pl.DataFrame]:
    """LEDGER rows of the rules on the reference model's samples. rows: of `with_reference`."""
    wanted = settings.reference
    if wanted is None:
        return []
    rate = pl.col("reference_pass_rate")
    against = pl.when(~pl.col("agrees")).then("vote_share").otherwise(0.0)
    rules = (
        ("min_pass_rate", lambda limit: rate >= limit, rate.round(4), pl.lit("too hard for the reference model")),
        ("max_pass_rate", lambda limit: rate <= limit, rate.round(4), pl.lit("too easy for the reference model")),
        (
            "max_votes_against",
            lambda limit: pl.col("agrees").is_null() | (against <= limit),
            against.round(4),
            pl.format("the samples agree on {} against the gold", pl.col("vote")),
        ),
    )
    return [
        decide(
            rows.with_columns(row_id="trace_id"),
            stage=STAGE,
            rule=f"reference.{name}",
            version="1",
            threshold=str(limit),
            keep=keep(limit),
            reason=reason,
            measured=shown,
        )
        for name, keep, shown, reason in rules
        if (limit := getattr(wanted, name)) is not None
    ]


def price(settings: CurateSettings, measured: Measured, stages: Plan) -> str:
    """What the reference model's missing answers cost at most, as the plan shows it."""
    wanted = settings.reference
    assert wanted is not None
    if not measured.files["problems"].is_file():
        return f"{wanted.samples} requests a problem"
    problems = pl.read_parquet(measured.files["problems"], columns=["problem_id", "problem"])
    log = _requests(settings, stages) / LEDGER_FILE
    have: dict[str, int] = {}
    if log.is_file():
        with log.open("rb") as lines:
            for line in lines:
                one = read_line(line)
                if one is not None and "response" in one and one["sample"] < wanted.samples:
                    have[one["problem_id"]] = have.get(one["problem_id"], 0) + 1
    missing = [max(0, wanted.samples - have.get(problem, 0)) for problem in problems["problem_id"]]
    characters = problems["problem"].str.len_chars() + len(wanted.question.system_prompt)
    tokens_in = sum(count * size for count, size in zip(missing, characters)) / CHARACTERS_PER_TOKEN
    tokens_out = sum(missing) * wanted.question.max_tokens
    cost = (tokens_in * wanted.price_in + tokens_out * wanted.price_out) / 1e6
    return f"{sum(missing):,} requests" + (f", at most {cost:,.2f}" if cost else "")
