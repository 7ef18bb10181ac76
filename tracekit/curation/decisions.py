"""From what was measured to what is kept: decisions in a fixed order, each row of them in the ledger.

gold → filter → duplicates → contamination → select → split. A row that one stage drops is not judged by the
next, save where it was restored by hand.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import polars as pl

from tracekit.core.tables import CURATED, LEDGER, check
from tracekit.curation.filters import apply_filters
from tracekit.curation.ledger import DROP, KEEP, decide, dropped
from tracekit.curation.measurements import Measured
from tracekit.curation.select import pair, select, validation_groups
from tracekit.curation.settings import CurateSettings
from tracekit.curation.verify import KNOWN
from tracekit.text.duplicates import keep_first


@dataclass(frozen=True)
class Decisions:
    """ledger: LEDGER. curated: CURATED. pairs: DPO pairs. funnel: counts after each stage, reasons, notes."""

    ledger: pl.DataFrame
    curated: pl.DataFrame
    pairs: pl.DataFrame
    funnel: dict[str, Any]


@dataclass
class _Course:
    """The rows still in, and what was decided so far."""

    rows: pl.DataFrame
    restored: dict[str, str]
    ledger: list[pl.DataFrame] = field(default_factory=list)
    funnel: list[dict[str, Any]] = field(default_factory=list)

    def pass_through(self, stage: str, decisions: pl.DataFrame, key: str = "trace_id") -> None:
        """Enter decisions, drop what they drop, take back what was restored."""
        self.ledger.append(decisions)
        out = self.rows.filter(pl.col(key).is_in(dropped(decisions).implode()))
        back = out.filter(self.named())
        if back.height:
            self.ledger.append(self._restoration(back, stage))
        gone = out.filter(~self.named())["trace_id"]
        self.rows = self.rows.filter(~pl.col("trace_id").is_in(gone.implode()))
        reasons = decisions.filter(pl.col("verdict") == DROP, pl.col("row_id").is_in(out[key].implode()))
        self.count(stage, dict(reasons.group_by("rule").len().sort("rule").iter_rows()), back.height)

    def named(self) -> pl.Expr:
        """True for rows restored by hand, alone or with their problem."""
        names = list(self.restored)
        return pl.col("trace_id").is_in(names) | pl.col("problem_id").is_in(names)

    def count(self, stage: str, reasons: dict[str, int] | None = None, restored: int = 0) -> None:
        """A line of the funnel."""
        before = self.funnel[-1]["traces"] if self.funnel else self.rows.height
        self.funnel.append(
            {
                "stage": stage,
                "traces": self.rows.height,
                "problems": self.rows["problem_id"].n_unique(),
                "dropped": before - self.rows.height,
                "reasons": reasons or {},
                "restored": restored,
            }
        )

    def _restoration(self, back: pl.DataFrame, stage: str) -> pl.DataFrame:
        why = [self.restored.get(t) or self.restored[p] for t, p in back.select("trace_id", "problem_id").iter_rows()]
        return back.select(
            row_id="trace_id",
            stage=pl.lit("restore"),
            rule=pl.lit("by hand"),
            rule_version=pl.lit("1"),
            measured=pl.lit(f"dropped by {stage}"),
            threshold=pl.lit(""),
            verdict=pl.lit(KEEP),
            reason=pl.Series(why, dtype=pl.String),
        )


def decide_all(settings: CurateSettings, measured: Measured, restored: dict[str, str]) -> Decisions:
    """Every decision of the recipe over the measured tables."""
    course = _Course(_rows(settings, measured), restored)
    course.count("sources")
    lost = measured.read("lost")
    course.ledger.append(_read_decisions(lost))
    everything = course.rows
    if settings.audit_golds and settings.filters.outcomes is not None:
        course.pass_through("gold", _gold_decisions(measured, course.rows), key="problem_id")
    audited = course.rows
    filtered = apply_filters(course.rows.with_columns(row_id="trace_id"), settings.filters)
    course.pass_through("filter", filtered)
    warnings = severe_rules(filtered, audited)
    _drop_duplicates(settings, course, measured)
    if settings.contamination.benchmarks:
        course.pass_through(
            "contamination", _contamination_decisions(settings, course.rows, measured), key="problem_id"
        )
    _select(settings, course, measured)
    pairs, rejected = _pairs(settings, course, audited, filtered)
    problems = _problems(settings, measured)
    course.ledger.append(_split_decisions(settings, course.rows, problems))
    curated = _curated(settings, course, rejected, measured, problems)
    funnel = {
        "funnel": course.funnel,
        "token_unit": measured.token_unit,
        "read": {
            "sources": measured.readings(),
            "lost": lost.height,
            "reasons": dict(lost.group_by("reason").len().sort("len", "reason", descending=True).head(20).iter_rows()),
        },
        "by_author": _by_author(everything, course.rows),
        "outcomes": dict(everything.group_by("outcome").len().sort("outcome", nulls_last=True).iter_rows()),
        "unverifiable_golds": _unverifiable(measured),
        "gold_conflicts": _gold_conflicts(measured),
        "contaminated_problems": measured.read("contamination", ["problem_id"])["problem_id"].n_unique(),
        "pairs": pairs.height,
        "copies": _copies(measured, course.rows),
        "warnings": warnings,
        "validation_problems": curated.filter(pl.col("split") == "validation")["problem_id"].n_unique(),
    }
    ledger = check(pl.concat(course.ledger) if course.ledger else pl.DataFrame(schema=LEDGER), LEDGER, "ledger")
    return Decisions(ledger, curated, pairs, funnel)


def _read_decisions(lost: pl.DataFrame) -> pl.DataFrame:
    """Rows that could not be read, as decisions of the stage `read`; their id is their file and number."""
    return lost.select(
        "row_id",
        stage=pl.lit("read"),
        rule=pl.lit("unreadable"),
        rule_version=pl.lit("1"),
        measured=pl.lit(""),
        threshold=pl.lit(""),
        verdict=pl.lit(DROP),
        reason="reason",
    )


def _rows(settings: CurateSettings, measured: Measured) -> pl.DataFrame:
    """One row a trace: ids, measures, outcome of the deciding verifier, pass rate of the problem."""
    traces = measured.read("traces", ["trace_id", "problem_id", "author"])
    verdicts = measured.read("verdicts", ["trace_id", "outcome", "verifier"])
    verdicts = verdicts.filter(pl.col("verifier") == settings.verify.verifier).drop("verifier")
    rows = traces.join(measured.read("measures"), on="trace_id", how="left", maintain_order="left")
    rows = rows.join(verdicts, on="trace_id", how="left", maintain_order="left")
    counted = pl.col("outcome").is_in(KNOWN)
    if settings.pass_rate_author:
        counted = counted & (pl.col("author") == settings.pass_rate_author)
    rate = (pl.col("outcome") == "correct").filter(counted).mean().over("problem_id")
    return rows.with_columns(rate.alias("pass_rate"), think_fault=_think_fault())


#: An author of at least so many traces writes a think block always where so large a share of them has one, or where so
#: large a share closes one that the prompt opened. A trace of theirs without tags was cut off while it thought.
LEAST_TRACES, ALWAYS_THINKS, PROMPT_OPENS = 5, 0.8, 0.3


def _think_fault() -> pl.Expr:
    thinks = pl.col("think_opened") | pl.col("think_closed")
    closes_alone = pl.col("think_closed") & ~pl.col("think_opened")
    always = (thinks.mean().over("author") >= ALWAYS_THINKS) | (closes_alone.mean().over("author") >= PROMPT_OPENS)
    cut_off = always & (pl.len().over("author") >= LEAST_TRACES) & ~thinks
    return pl.when(cut_off).then(pl.lit("no think block, unlike its author's others")).otherwise("think_fault")


def _gold_decisions(measured: Measured, rows: pl.DataFrame) -> pl.DataFrame:
    golds = measured.read("golds").filter(pl.col("problem_id").is_in(rows["problem_id"].unique().implode()))
    return decide(
        golds.with_columns(row_id="problem_id"),
        stage="gold",
        rule="verifiable",
        version="1",
        threshold="correct",
        keep=pl.col("outcome") == "correct",
        reason=pl.format("gold cannot be verified: {}", pl.col("reason")),
        measured=pl.col("outcome"),
    )


def _drop_duplicates(settings: CurateSettings, course: _Course, measured: Measured) -> None:
    pairs = measured.read("duplicates")
    problems = course.rows["problem_id"].unique(maintain_order=True)
    if settings.duplicates.problems is not None:
        decisions = _duplicate_decisions("problem", problems, pairs, settings.duplicates.problems)
        course.pass_through("duplicate problems", decisions, key="problem_id")
    if settings.duplicates.traces is not None:
        decisions = _duplicate_decisions("trace", course.rows["trace_id"], pairs, settings.duplicates.traces)
        course.pass_through("duplicate traces", decisions)


def _duplicate_decisions(kind: str, ids: pl.Series, pairs: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Of the rows still in, in source order, the first of each set of duplicates stays."""
    place = pl.DataFrame({"id": ids}).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    inside = pairs.filter(pl.col("kind") == kind)
    for side in ("left", "right"):
        inside = inside.join(place, left_on=side, right_on="id", how="inner").rename({"row": f"{side}_row"})
    by_row = inside.select(pl.col("left_row").alias("left"), pl.col("right_row").alias("right"), "jaccard")
    first = keep_first(len(ids), by_row.sort("left", "right"))
    like = pl.Series("of", [ids[int(f)] if f >= 0 else None for f in first], dtype=pl.String)  # all null: still text
    told = pl.DataFrame({"row_id": ids, "of": like})
    likeness = pl.concat(
        [inside.select("left", "right", "jaccard"), inside.select(left="right", right="left", jaccard="jaccard")]
    )
    told = told.join(
        likeness.unique(["left", "right"]),
        left_on=["row_id", "of"],
        right_on=["left", "right"],
        how="left",
        maintain_order="left",
    )
    return decide(
        told,
        stage=f"duplicate {kind}s",
        rule="first of its like",
        version="1",
        threshold=str(threshold),
        keep=pl.col("of").is_null(),
        reason=pl.format("duplicate of {}", pl.col("of")),
        measured=pl.when(pl.col("of").is_null())
        .then(pl.lit("none"))
        .otherwise(pl.col("jaccard").round(4).cast(pl.String)),
    )


def _contamination_decisions(settings: CurateSettings, rows: pl.DataFrame, measured: Measured) -> pl.DataFrame:
    matches = measured.read("contamination", ["problem_id", "benchmark", "shared", "ngram", "jaccard"])
    strongest = matches.sort("shared", descending=True, maintain_order=True).unique(
        "problem_id", keep="first", maintain_order=True
    )
    problems = rows.select("problem_id").unique(maintain_order=True)
    told = problems.join(strongest, on="problem_id", how="left", maintain_order="left").with_columns(
        row_id="problem_id"
    )
    return decide(
        told,
        stage="contamination",
        rule=f"{settings.contamination.n} words in a row",
        version="2",
        threshold="0",
        keep=pl.col("shared").is_null(),
        reason=pl.when(pl.col("jaccard").is_null())
        .then(pl.format("shares “{}” with {}", pl.col("ngram"), pl.col("benchmark")))
        .otherwise(pl.format("is near to a row of {}", pl.col("benchmark"))),
        measured=pl.when(pl.col("jaccard").is_null())
        .then(pl.col("shared").fill_null(0).cast(pl.String))
        .otherwise(pl.format("Jaccard {}", pl.col("jaccard").round(3))),
    )


def _select(settings: CurateSettings, course: _Course, measured: Measured) -> None:
    rows = course.rows
    if settings.select.policy == "varied":
        responses = measured.read("traces", ["trace_id", "response"])
        rows = rows.join(responses, on="trace_id", how="left", maintain_order="left")
    kept = select(rows, settings.select, seed=settings.seed)
    decisions = decide(
        course.rows.with_columns(row_id="trace_id"),
        stage="select",
        rule=settings.select.policy,
        version="1",
        threshold=str(settings.select.k) if settings.select.policy in ("varied", "length_power") else "",
        keep=pl.col("trace_id").is_in(kept.implode()),
        reason=pl.lit("another trace of the problem was chosen"),
        measured=pl.col("token_count"),
    )
    course.pass_through("select", decisions)


def _pairs(
    settings: CurateSettings, course: _Course, audited: pl.DataFrame, filtered: pl.DataFrame
) -> tuple[pl.DataFrame, pl.Series]:
    """DPO pairs, and the traces on their rejected side: wrong, and dropped for nothing else."""
    other_faults = filtered.filter(pl.col("verdict") == DROP, pl.col("rule") != "outcomes")["row_id"]
    unfit = pl.concat([other_faults, course.rows["trace_id"]])
    wrong = audited.filter(pl.col("outcome") == "wrong", ~pl.col("trace_id").is_in(unfit.implode()))
    narrow = ["trace_id", "problem_id", "token_count"]
    pairs = pair(course.rows.select(narrow), wrong.select(narrow), settings.select.pairs)
    if pairs.height:
        course.ledger.append(
            decide(
                pairs.select(row_id="rejected", problem_id="problem_id", chosen="chosen"),
                stage="select",
                rule="rejected side of a pair",
                version="1",
                threshold=str(settings.select.pairs),
                keep=pl.lit(True),
                reason=pl.lit(""),
                measured=pl.format("against {}", pl.col("chosen")),
            )
        )
    return pairs, pairs["rejected"].unique(maintain_order=True)


def _split_decisions(settings: CurateSettings, rows: pl.DataFrame, problems: pl.DataFrame) -> pl.DataFrame:
    """Which split each problem still in went to: a decision that drops nothing."""
    inside = problems.filter(pl.col("problem_id").is_in(rows["problem_id"].unique().implode()))
    return decide(
        inside.with_columns(row_id="problem_id"),
        stage="split",
        rule="validation",
        version="1",
        threshold=str(settings.validation),
        keep=pl.lit(True),
        reason=pl.lit(""),
        measured=pl.col("split"),
    )


def _curated(
    settings: CurateSettings, course: _Course, rejected: pl.Series, measured: Measured, problems: pl.DataFrame
) -> pl.DataFrame:
    ids = pl.concat([course.rows["trace_id"], rejected])
    traces = pl.scan_parquet(measured.files["traces"]).filter(pl.col("trace_id").is_in(ids.implode()))
    measures = measured.read("measures", ["trace_id", "token_count"])
    verdicts = measured.read("verdicts", ["trace_id", "outcome", "verifier"])
    verdicts = verdicts.filter(pl.col("verifier") == settings.verify.verifier)
    # A row that a person took back in has no verdict: the verifier's was overruled.
    wrong_here = verdicts.filter(pl.col("outcome") != "correct")["trace_id"]
    overruled = course.rows.filter(pl.col("trace_id").is_in(wrong_here.implode()), course.named())["trace_id"]
    by_hand = pl.col("trace_id").is_in(overruled.implode())
    outcome = verdicts.select(
        "trace_id", correct=pl.when(pl.col("outcome").is_in(KNOWN) & ~by_hand).then(pl.col("outcome") == "correct")
    )
    frame = traces.drop("token_count", "flagged_correct").collect()
    for side, key in ((measures, "trace_id"), (outcome, "trace_id"), (problems, "problem_id")):
        frame = frame.join(side, on=key, how="left", maintain_order="left")
    return check(frame, CURATED, "curated")


def _problems(settings: CurateSettings, measured: Measured) -> pl.DataFrame:
    """Problems with their split; those held back for validation go with all that is near them."""
    problems = measured.read("problems", ["problem_id", "problem", "gold", "source", "split"])
    if not settings.validation:
        return problems
    pairs = measured.read("duplicates").filter(pl.col("kind") == "problem")
    groups = _groups(problems["problem_id"], pairs)
    held = validation_groups(groups, settings.validation, seed=settings.seed)
    split = pl.when(held & (pl.col("split") == "train")).then(pl.lit("validation")).otherwise(pl.col("split"))
    return problems.with_columns(split.alias("split"))


def _groups(problems: pl.Series, pairs: pl.DataFrame) -> pl.Series:
    """For each problem the first of all that it is near to, be it over several: a chain stays together."""
    leader: dict[str, str] = {}

    def first(problem: str) -> str:
        while problem in leader:
            above = leader[problem]
            leader[problem] = leader.get(above, above)  # a long chain is walked once
            problem = above
        return problem

    place = {problem: at for at, problem in enumerate(problems)}
    for left, right in pairs.select("left", "right").iter_rows():
        one, other = sorted((first(left), first(right)), key=place.__getitem__)
        if one != other:
            leader[other] = one
    return pl.Series([first(problem) for problem in problems], dtype=pl.String)


def _by_author(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, dict[str, int]]:
    read = before.group_by("author").agg(
        read=pl.len(), correct=(pl.col("outcome") == "correct").sum(), wrong=(pl.col("outcome") == "wrong").sum()
    )
    kept = after.group_by("author").agg(kept=pl.len())
    table = read.join(kept, on="author", how="left").with_columns(pl.col("kept").fill_null(0)).sort("author")
    return {row.pop("author"): row for row in table.to_dicts()}


def _unverifiable(measured: Measured) -> dict[str, int]:
    faults = measured.read("golds").filter(pl.col("outcome") != "correct")
    return dict(faults.group_by("outcome").len().sort("outcome").iter_rows())


def _copies(measured: Measured, rows: pl.DataFrame) -> int:
    """Traces still in whose very text stands before in another trace of their problem."""
    exact = measured.read("duplicates").filter(pl.col("kind") == "trace", pl.col("jaccard") == 1.0)
    inside = pl.col("left").is_in(rows["trace_id"].implode()) & pl.col("right").is_in(rows["trace_id"].implode())
    return exact.filter(inside)["right"].n_unique()


#: A rule that drops more than this share of the correct traces is told to the user, with three of them.
SEVERE = 0.2


def severe_rules(filtered: pl.DataFrame, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """Filter rules that drop more than a fifth of the correct traces → rule, dropped, correct, threshold, examples.

    filtered: the filters' LEDGER rows. rows: the traces that they judged, with their outcome.
    """
    correct = rows.filter(pl.col("outcome") == "correct")["trace_id"]
    drops = filtered.filter(pl.col("verdict") == DROP, pl.col("row_id").is_in(correct.implode()))
    counts = drops.group_by("rule", "threshold", maintain_order=True).agg(
        dropped=pl.len(), examples=pl.struct("row_id", "measured").head(3)
    )
    return [
        {**row, "correct": len(correct)} for row in counts.to_dicts() if row["dropped"] > SEVERE * max(len(correct), 1)
    ]


def _gold_conflicts(measured: Measured) -> int:
    """Problems whose very text stands under two golds: at least one is wrong."""
    problems = measured.read("problems", ["problem", "gold"])
    return problems.group_by("problem").agg(pl.col("gold").n_unique()).filter(pl.col("gold") > 1).height
