"""TRACES × evaluators → VERDICTS, with provenance; golds audited first; verifiers held against each other."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict
from importlib import metadata
from typing import Literal

import polars as pl
from pydantic import Field

from tracekit.core.runs import Progress, no_progress
from tracekit.core.settings import Settings
from tracekit.core.tables import VERDICTS, Schema
from tracekit.curation.stage_cache import digest

#: Where two opinions of a trace differ.
DISAGREEMENTS: Schema = dict.fromkeys(("trace_id", "gold", "prediction", "ours", "other", "other_says"), pl.String)

#: Outcomes that say something of the response. The others say "don't know".
KNOWN = ("correct", "wrong", "no_answer", "restated", "unparsed_prediction")
Verifier = Literal["evaluators", "math-verify"]


class VerifierError(ValueError):
    """A verifier cannot be used: the message says which install adds it."""


class VerifySettings(Settings):
    """How responses are verified."""

    verifier: Verifier = Field("evaluators", description="the verifier that decides")
    also: tuple[Verifier, ...] = Field((), description="further verifiers, for the table of disagreements")
    batch: int = Field(
        10_000, ge=1, description="traces verified between two writes to disk: the most that a kill can cost"
    )


def verify_traces(
    traces: pl.DataFrame, verifier: Verifier = "evaluators", *, workers: int = 0, progress: Progress = no_progress
) -> pl.DataFrame:
    """One verdict a trace → VERDICTS. `traces`: trace_id, response, gold."""
    judge = _JUDGES[verifier]
    verdicts = judge(traces["response"].to_list(), traces["gold"].to_list(), workers, progress)
    version = verifier_version(verifier)
    return pl.DataFrame(
        [
            (i, *v, None, verifier, version, policy_digest(verifier))
            for i, v in zip(traces["trace_id"], verdicts, strict=True)
        ],
        schema=VERDICTS,
        orient="row",
    )


def audit_golds(problems: pl.DataFrame, *, workers: int = 0, progress: Progress = no_progress) -> pl.DataFrame:
    r"""Can each gold be verified at all? → problem_id, gold, outcome, reason.

    A gold passes where a response that says just it, `\boxed{gold}`, is found correct against it.
    """
    golds = problems["gold"].to_list()
    unique = list(dict.fromkeys(golds))
    verdicts = _ours([f"\\boxed{{{gold}}}" for gold in unique], unique, workers, progress)
    told = {gold: (v[0], v[4]) for gold, v in zip(unique, verdicts, strict=True)}
    return problems.select(
        "problem_id",
        "gold",
        pl.Series("outcome", [told[g][0] for g in golds], dtype=pl.String),
        pl.Series("reason", [told[g][1] for g in golds], dtype=pl.String),
    )


def disagreements(verdicts: pl.DataFrame, traces: pl.DataFrame) -> pl.DataFrame:
    """Where two verifiers, or a verifier and the data set's flag, differ on correct or not.

    → trace_id, gold, prediction, ours, other ("math-verify" or "dataset flag"), other_says. "Don't know" is
    no disagreement with anyone.
    """
    ours = verdicts.filter(pl.col("verifier") == "evaluators", pl.col("outcome").is_in(KNOWN))
    ours = ours.select("trace_id", "gold", "prediction", pl.col("outcome").alias("ours"))
    others = verdicts.filter(pl.col("verifier") != "evaluators", pl.col("outcome").is_in(KNOWN))
    opinions = pl.concat(
        [
            others.select("trace_id", other=pl.col("verifier"), says=pl.col("outcome") == "correct"),
            traces.filter(pl.col("flagged_correct").is_not_null()).select(
                "trace_id", other=pl.lit("dataset flag"), says=pl.col("flagged_correct")
            ),
        ]
    )
    joined = ours.join(opinions, on="trace_id", how="inner", maintain_order="left")
    return joined.filter((pl.col("ours") == "correct") != pl.col("says")).select(
        "trace_id",
        "gold",
        "prediction",
        "ours",
        "other",
        pl.when("says").then(pl.lit("correct")).otherwise(pl.lit("wrong")).alias("other_says"),
    )


def verifier_version(verifier: Verifier) -> str:
    """The installed version that decides."""
    return metadata.version("reasoning-tracekit" if verifier == "evaluators" else verifier)


def policy_digest(verifier: Verifier) -> str:
    """What the verifier counts as the same answer, in 12 hexadecimal digits; "" where it has no such setting."""
    if verifier != "evaluators":
        return ""
    from evaluators.verdict import Policy

    return digest(asdict(Policy()))


#: outcome, prediction, gold, method, reason. How long a verdict took is not part of it: it differs from run to run.
Row = tuple[str, str | None, str, str, str]


def _ours(responses: list[str], golds: list[str], workers: int, progress: Progress) -> list[Row]:
    from evaluators.batch import UnparsedGoldWarning, verify_batch

    with warnings.catch_warnings():  # golds that cannot be read are a table of their own here
        warnings.simplefilter("ignore", UnparsedGoldWarning)
        verdicts = verify_batch(responses, golds, workers=workers or None, progress=progress)
    return [(str(v.outcome), v.prediction, v.gold, v.method, v.reason) for v in verdicts]


def _math_verify(responses: list[str], golds: list[str], workers: int, progress: Progress) -> list[Row]:
    try:
        from math_verify import parse, verify
    except ImportError as error:
        raise VerifierError("math-verify is not installed; pip install 'math-verify[antlr4_13_2]'.") from error
    rows: list[Row] = []
    for response, gold in zip(responses, golds, strict=True):
        target, answer = parse(f"${gold}$"), parse(response)
        outcome = "unparsed_gold" if not target else "no_answer" if not answer else None
        if outcome is None:
            outcome = "correct" if verify(target, answer) else "wrong"
        prediction = str(answer[-1]) if answer else None
        rows.append((outcome, prediction, gold, "math-verify", ""))
        progress("verify", len(rows), len(responses), "math-verify")
    return rows


_JUDGES: dict[str, Callable[[list[str], list[str], int, Progress], list[Row]]] = {
    "evaluators": _ours,
    "math-verify": _math_verify,
}
