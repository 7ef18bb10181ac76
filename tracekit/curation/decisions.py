"""From what was measured to what is kept: decisions in a fixed order, each row of them in the ledger.

gold → filter → duplicates → contamination → select → split. A row that one stage drops is not judged by the
next, save where it was restored by hand. Decisions are made a partition at a time; what they need of the whole set
(problems, golds, near problems, who writes think blocks) is gathered before.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from tracekit.core.tables import CURATED, LEDGER, Schema, check
from tracekit.curation.filters import apply_filters
from tracekit.curation.funnel import Counts, severe_rules
from tracekit.curation.ledger import DROP, KEEP, decide, dropped
from tracekit.curation.measurements import Measured
from tracekit.curation.operator_stages import rule_decisions, with_rules
from tracekit.curation.partitions import Partition
from tracekit.curation.reference import reference_decisions, with_reference
from tracekit.curation.select import pair, select, validation_groups
from tracekit.curation.settings import CurateSettings
from tracekit.curation.verify import KNOWN
from tracekit.text.duplicates import keep_first


@dataclass(frozen=True)
class Decisions:
    """What was decided about a partition. ledger: LEDGER. curated: CURATED. pairs: DPO pairs."""

    ledger: pl.DataFrame
    curated: pl.DataFrame
    pairs: pl.DataFrame
    counts: Counts


@dataclass(frozen=True)
class Whole:
    """What a decision needs of the whole set.

    problems: problem_id, problem, gold, source and the split it goes to. thinkers: authors who nearly always write a
    think block. duplicates: pairs of traces. first_problems: problem → the problem that it repeats, and how near.
    matches: each contaminated problem's strongest match.
    """

    problems: pl.DataFrame
    golds: pl.DataFrame
    thinkers: pl.Series
    duplicates: pl.DataFrame
    first_problems: pl.DataFrame
    matches: pl.DataFrame
    restored: dict[str, str]


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


def gather(settings: CurateSettings, measured: Measured, restored: dict[str, str]) -> Whole:
    """What the decisions need of the whole set: no text but the problems'."""
    matches = measured.read("contamination", ["problem_id", "benchmark", "shared", "ngram", "jaccard"])
    pairs = measured.read("duplicates")
    of_problems = pairs.filter(pl.col("kind") == "problem")
    whole = Whole(
        problems=_problems(settings, measured, of_problems),
        golds=measured.read("golds"),
        thinkers=_thinkers(measured),
        duplicates=pairs.filter(pl.col("kind") == "trace"),
        first_problems=pl.DataFrame(schema=_LIKE),
        matches=matches.sort("shared", descending=True, maintain_order=True).unique(
            "problem_id", keep="first", maintain_order=True
        ),
        restored=restored,
    )
    threshold = settings.duplicates.problems
    if threshold is None or not of_problems.height:
        return whole
    return replace(whole, first_problems=_first_problems(settings, measured, whole, of_problems))


def decide_all(settings: CurateSettings, measured: Measured, whole: Whole) -> Iterator[Decisions]:
    """Every decision of the recipe, a partition at a time."""
    for partition in measured.partitions:
        yield _decide(settings, measured, whole, partition)


def _decide(settings: CurateSettings, measured: Measured, whole: Whole, partition: Partition) -> Decisions:
    course = _Course(_rows(settings, measured, whole, partition), whole.restored)
    everything = course.rows
    course.count("sources")
    filtered, audited = _judge_alone(settings, course, whole)
    pairs_here = whole.duplicates.filter(pl.col("left").is_in(everything["trace_id"].implode()))
    _drop_duplicates(settings, course, whole, pairs_here)
    if settings.contamination.benchmarks:
        course.pass_through("contamination", _contamination_decisions(settings, course.rows, whole), key="problem_id")
    _select(settings, course, measured, partition)
    pairs, rejected = _pairs(settings, course, audited, filtered)
    course.ledger.append(_split_decisions(settings, course.rows, whole.problems))
    curated = _curated(course, rejected, measured, whole.problems, partition)
    counts = Counts(
        funnel=course.funnel,
        by_author=_by_author(everything, course.rows),
        outcomes=dict(everything.group_by("outcome").len().iter_rows()),
        pairs=pairs.height,
        copies=_copies(pairs_here, course.rows),
        severe=severe_rules(filtered, audited),
        validation_problems=curated.filter(pl.col("split") == "validation")["problem_id"].n_unique(),
    )
    return Decisions(check(pl.concat(course.ledger), LEDGER, "ledger"), curated, pairs, counts)


def _judge_alone(settings: CurateSettings, course: _Course, whole: Whole) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The stages that look at a row alone: gold and filter → the filter's decisions, and the rows that it judged."""
    if settings.audit_golds and settings.filters.outcomes is not None:
        course.pass_through("gold", _gold_decisions(whole, course.rows), key="problem_id")
    audited = course.rows
    filtered = apply_filters(audited.with_columns(row_id="trace_id"), settings.filters)
    filtered = pl.concat([filtered, *reference_decisions(settings, audited), rule_decisions(settings, audited)])
    course.pass_through("filter", filtered)
    return filtered, audited


def read_decisions(lost: pl.DataFrame) -> pl.DataFrame:
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


def _rows(settings: CurateSettings, measured: Measured, whole: Whole, partition: Partition) -> pl.DataFrame:
    """One row a trace: ids, measures, outcome of the deciding verifier, pass rate of the problem."""
    traces = measured.of(partition, "traces", ["trace_id", "problem_id", "author"])
    verdicts = measured.of(partition, "verdicts", ["trace_id", "outcome"])  # those of the deciding verifier come first
    rows = traces.join(measured.of(partition, "measures"), on="trace_id", how="left", maintain_order="left")
    rows = rows.join(verdicts, on="trace_id", how="left", maintain_order="left")
    counted = pl.col("outcome").is_in(KNOWN)
    if settings.pass_rate_author:
        counted = counted & (pl.col("author") == settings.pass_rate_author)
    rate = (pl.col("outcome") == "correct").filter(counted).mean().over("problem_id")
    cut_off = pl.col("author").is_in(whole.thinkers.implode()) & ~(pl.col("think_opened") | pl.col("think_closed"))
    fault = pl.when(cut_off).then(pl.lit("no think block, unlike its author's others")).otherwise("think_fault")
    rows = with_reference(measured, rows)
    return with_rules(settings, measured, rows.with_columns(rate.alias("pass_rate"), think_fault=fault), partition)


#: An author of at least so many traces writes a think block always where so large a share of them has one, or where so
#: large a share closes one that the prompt opened. A trace of theirs without tags was cut off while it thought.
LEAST_TRACES, ALWAYS_THINKS, PROMPT_OPENS = 5, 0.8, 0.3


def _thinkers(measured: Measured) -> pl.Series:
    """Authors who nearly always write a think block."""
    opened, closed = pl.col("think_opened"), pl.col("think_closed")
    authors = pl.scan_parquet(measured.files["traces"]).select("author")
    tags = pl.scan_parquet(measured.files["measures"]).select("think_opened", "think_closed")
    rows = pl.concat([authors, tags], how="horizontal")
    by_author = rows.group_by("author").agg(
        traces=pl.len(), think=(opened | closed).mean(), close_alone=(closed & ~opened).mean()
    )
    always = (pl.col("think") >= ALWAYS_THINKS) | (pl.col("close_alone") >= PROMPT_OPENS)
    return by_author.filter(always, pl.col("traces") >= LEAST_TRACES).collect()["author"]


def _gold_decisions(whole: Whole, rows: pl.DataFrame) -> pl.DataFrame:
    golds = whole.golds.filter(pl.col("problem_id").is_in(rows["problem_id"].unique().implode()))
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


#: A row and the row kept in its place.
_LIKE: Schema = {"row_id": pl.String, "of": pl.String, "jaccard": pl.Float64}


def _first_problems(settings: CurateSettings, measured: Measured, whole: Whole, pairs: pl.DataFrame) -> pl.DataFrame:
    """Of the problems still in after the filters, in the order of the sources, the first of each set of near ones."""
    paired = pl.concat([pairs["left"], pairs["right"]]).unique()
    still_in: list[pl.Series] = [pl.Series(dtype=pl.String)]
    for partition in measured.partitions:
        rows = _rows(settings, measured, whole, partition)
        course = _Course(rows.filter(pl.col("problem_id").is_in(paired.implode())), whole.restored)
        course.count("sources")
        _judge_alone(settings, course, whole)
        still_in.append(course.rows["problem_id"].unique())
    kept = pl.concat(still_in)
    problems = whole.problems["problem_id"]
    return _first_of_like(problems.filter(problems.is_in(kept.implode())), pairs)


def _first_of_like(ids: pl.Series, pairs: pl.DataFrame) -> pl.DataFrame:
    """Rows that repeat an earlier one of `ids`, the row that is kept in their place, and how near it is → _LIKE."""
    place = pl.DataFrame({"id": ids}).with_row_index("row").with_columns(pl.col("row").cast(pl.Int64))
    inside = pairs
    for side in ("left", "right"):
        inside = inside.join(place, left_on=side, right_on="id", how="inner").rename({"row": f"{side}_row"})
    by_row = inside.select(pl.col("left_row").alias("left"), pl.col("right_row").alias("right"), "jaccard")
    first = pl.Series(keep_first(len(ids), by_row.sort("left", "right")))
    repeats = pl.DataFrame({"row_id": ids.filter(first >= 0), "of": ids[first.filter(first >= 0)]})
    likeness = pl.concat(
        [inside.select("left", "right", "jaccard"), inside.select(left="right", right="left", jaccard="jaccard")]
    )
    return repeats.join(
        likeness.unique(["left", "right"]),
        left_on=["row_id", "of"],
        right_on=["left", "right"],
        how="left",
        maintain_order="left",
    )


def _drop_duplicates(settings: CurateSettings, course: _Course, whole: Whole, pairs: pl.DataFrame) -> None:
    """pairs: of the partition's traces."""
    if (threshold := settings.duplicates.problems) is not None:
        problems = course.rows["problem_id"].unique(maintain_order=True)
        decisions = _duplicate_decisions("problem", problems, whole.first_problems, threshold)
        course.pass_through("duplicate problems", decisions, key="problem_id")
    if (threshold := settings.duplicates.traces) is not None:
        traces = course.rows["trace_id"]
        decisions = _duplicate_decisions("trace", traces, _first_of_like(traces, pairs), threshold)
        course.pass_through("duplicate traces", decisions)


def _duplicate_decisions(kind: str, ids: pl.Series, repeats: pl.DataFrame, threshold: float) -> pl.DataFrame:
    """Of the rows still in the first of each set of duplicates stays. repeats: _LIKE."""
    rows = pl.DataFrame({"row_id": ids}).join(repeats, on="row_id", how="left", maintain_order="left")
    return decide(
        rows,
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


def _contamination_decisions(settings: CurateSettings, rows: pl.DataFrame, whole: Whole) -> pl.DataFrame:
    problems = rows.select("problem_id").unique(maintain_order=True)
    matched = problems.join(whole.matches, on="problem_id", how="left", maintain_order="left").with_columns(
        row_id="problem_id"
    )
    return decide(
        matched,
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


def _select(settings: CurateSettings, course: _Course, measured: Measured, partition: Partition) -> None:
    rows = course.rows
    if settings.select.policy == "varied":
        responses = measured.of(partition, "traces", ["trace_id", "response"])
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
    course: _Course, rejected: pl.Series, measured: Measured, problems: pl.DataFrame, partition: Partition
) -> pl.DataFrame:
    ids = pl.concat([course.rows["trace_id"], rejected])
    traces = pl.scan_parquet(measured.files["traces"]).slice(partition.start, partition.stop - partition.start)
    measures = measured.of(partition, "measures", ["trace_id", "token_count"])
    verdicts = measured.of(partition, "verdicts", ["trace_id", "outcome"])
    # A row that a person took back in has no verdict: the verifier's was overruled.
    wrong_here = verdicts.filter(pl.col("outcome") != "correct")["trace_id"]
    overruled = course.rows.filter(pl.col("trace_id").is_in(wrong_here.implode()), course.named())["trace_id"]
    by_hand = pl.col("trace_id").is_in(overruled.implode())
    outcome = verdicts.select(
        "trace_id", correct=pl.when(pl.col("outcome").is_in(KNOWN) & ~by_hand).then(pl.col("outcome") == "correct")
    )
    kept = traces.filter(pl.col("trace_id").is_in(ids.implode()))
    frame = kept.drop("token_count", "flagged_correct").collect()
    for side, key in ((measures, "trace_id"), (outcome, "trace_id"), (problems, "problem_id")):
        frame = frame.join(side, on=key, how="left", maintain_order="left")
    return check(frame, CURATED, "curated")


def _problems(settings: CurateSettings, measured: Measured, pairs: pl.DataFrame) -> pl.DataFrame:
    """Problems with their split; those held back for validation go with all that is near them (pairs)."""
    problems = measured.read("problems", ["problem_id", "problem", "gold", "source", "split"])
    if not settings.validation:
        return problems
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


def _copies(pairs: pl.DataFrame, rows: pl.DataFrame) -> int:
    """Traces still in whose very text stands before in another trace of their problem."""
    exact = pairs.filter(pl.col("jaccard") == 1.0)
    inside = pl.col("left").is_in(rows["trace_id"].implode()) & pl.col("right").is_in(rows["trace_id"].implode())
    return exact.filter(inside)["right"].n_unique()
