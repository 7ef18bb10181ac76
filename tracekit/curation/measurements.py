"""The stages that measure: each reads tables, writes tables, and depends on no threshold of the recipe."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from tracekit.core.runs import Progress
from tracekit.core.tables import STEPS, VERDICTS, Schema
from tracekit.curation.partitions import Partition, partitions_of
from tracekit.curation.ray_engine import for_each_on_ray
from tracekit.curation.settings import ContaminationSettings, CurateSettings
from tracekit.curation.sources import source_inputs, source_stage
from tracekit.curation.stage_cache import Plan, Stages, digest
from tracekit.curation.streams import Slices, join_tables, table_writer, write_frames
from tracekit.curation.verify import audit_golds, policy_digest, verifier_version, verify_traces
from tracekit.reading.readers import read_source
from tracekit.text.contamination import contaminated, template_ngrams, without_templates
from tracekit.text.duplicates import exact_duplicates, near_duplicates
from tracekit.text.features import CHUNK, FULL, SCRIPTS, measure, script_counts, scripts_of
from tracekit.text.segment_worker import Segmenters
from tracekit.text.shingles import Hashes
from tracekit.text.tokens import count_tokens, tokenizer_digest

#: Raised when a stage's code changes what it writes: older folders of that stage are then made anew.
VERSIONS = {"segment": 2, "measures": 4, "golds": 1, "verify": 2, "duplicates": 3, "contamination": 3}
#: Problems held against a benchmark at a time, to bound memory.
PROBLEMS_AT_ONCE = 50_000
#: Least Jaccard index at which two problems go to the same side of a split where no rule drops near problems.
NEAR_FOR_SPLIT = 0.9
#: Traces segmented between two writes to disk, at most.
SEGMENT_BATCH = 10_000
#: What the steps of a trace add up to.
STEP_COUNTS: Schema = {
    "trace_id": pl.String,
    "steps": pl.Int32,
    "wrong_calculations": pl.Int32,
    "first_wrong_step": pl.Int32,
}


@dataclass(frozen=True)
class Measured:
    """Published name → the stage's file, how tokens were counted, and how each source's columns were read."""

    files: dict[str, Path]
    token_unit: str
    reading: Path
    partitions: tuple[Partition, ...] = ()

    def read(self, name: str, columns: list[str] | None = None) -> pl.DataFrame:
        """One of the tables."""
        return pl.read_parquet(self.files[name], columns=columns)

    def of(self, partition: Partition, name: str, columns: list[str] | None = None) -> pl.DataFrame:
        """A partition's rows of a table with one row a trace, in the order of the traces."""
        return Slices(self.files[name]).read(partition.start, partition.stop, columns)

    def opinions(self, partition: Partition) -> tuple[pl.DataFrame, pl.DataFrame]:
        """A partition's verdicts of every verifier, and the data set's own flags."""
        total = self.partitions[-1].stop
        verdicts, rows = Slices(self.files["verdicts"]), pq.read_metadata(self.files["verdicts"]).num_rows
        parts = [verdicts.read(at + partition.start, at + partition.stop) for at in range(0, rows, total)]
        return pl.concat(parts), self.of(partition, "traces", ["trace_id", "flagged_correct"])

    def readings(self) -> dict[str, Any]:
        """Source → the columns that were read, and its first rows."""
        return dict(json.loads(self.reading.read_text(encoding="utf-8")))


def measure_all(settings: CurateSettings, stages: Stages, progress: Progress) -> Measured:
    """Run or find every measuring stage."""
    sources = source_stage(settings, stages, progress)
    segments = _segments(settings, sources, stages, progress)
    measures = _measures(settings, sources, segments, stages, progress)
    golds = _golds(settings, sources, stages, progress)
    verdicts = _verdicts(settings, sources, golds, stages, progress)
    duplicates = _duplicates(settings, sources, stages, progress)
    contamination = _contamination(settings, sources, stages, progress)
    files = {
        "lost": sources / "lost.parquet",
        "problems": sources / "problems.parquet",
        "traces": sources / "traces.parquet",
        "details": sources / "details.parquet",
        "steps": segments / "steps.parquet",
        "measures": measures / "measures.parquet",
        "golds": golds / "golds.parquet",
        "verdicts": verdicts / "verdicts.parquet",
        "duplicates": duplicates / "duplicates.parquet",
        "contamination": contamination / "contamination.parquet",
    }
    partitions = () if isinstance(stages, Plan) else tuple(partitions_of(sources))
    unit = settings.tokenizer or "words (split at white space)"
    return Measured(files, unit, sources / "reading.json", partitions)


def _segments(settings: CurateSettings, sources: Path, stages: Stages, progress: Progress) -> Path:
    """Steps as the source gives them, segmented here where it gives none; and what they add up to."""
    segmenters = Segmenters(settings.local_workers)

    def work(piece: Piece) -> dict[str, pl.DataFrame]:
        batch = Slices(sources / "traces.parquet").read(piece.start, piece.stop, ["trace_id", "response"])
        within = Slices(sources / "given_steps.parquet").read(piece.partition.steps_start, piece.partition.steps_stop)
        given = within.filter(pl.col("trace_id").is_in(batch["trace_id"].implode()))
        rest = batch.filter(~pl.col("trace_id").is_in(given["trace_id"].unique().implode()))
        steps = pl.concat([given, segmenters.segment(rest)])
        return {"steps": steps, "step_counts": _step_counts(steps)}

    inputs = {"version": VERSIONS["segment"], "sources": sources.name}
    batches = Batches(sources, SEGMENT_BATCH, work, {"steps": STEPS, "step_counts": STEP_COUNTS})
    with segmenters:
        return in_batches(stages, "segment", inputs, batches, settings.engine, progress)


def _step_counts(steps: pl.DataFrame) -> pl.DataFrame:
    wrong = pl.col("correct").eq(False)
    return steps.group_by("trace_id", maintain_order=True).agg(
        steps=pl.len().cast(pl.Int32),
        wrong_calculations=wrong.sum().cast(pl.Int32),
        first_wrong_step=pl.col("step").filter(wrong).min(),
    )


def _measures(settings: CurateSettings, sources: Path, segments: Path, stages: Stages, progress: Progress) -> Path:
    def make(folder: Path) -> None:
        traces = sources / "traces.parquet"
        tokens = None
        if settings.tokenizer:
            tokens = count_tokens(pl.scan_parquet(traces).select("response"), settings.tokenizer, progress)
        steps = pl.read_parquet(segments / "step_counts.parquet")
        spoken = scripts_of(pl.read_parquet(sources / "problems.parquet", columns=["problem_id", "problem"]))
        partitions = partitions_of(sources)

        def frames() -> Iterator[pl.DataFrame]:
            for partition in partitions:
                progress("measures", partition.start, partitions[-1].stop, "")
                for start, stop in partition.pieces(partition.stop):
                    table = _measured_text(traces, start, stop, spoken, tokens)
                    ended = Slices(sources / "details.parquet").read(start, stop, ["finish_reason"]).to_series()
                    table = table.with_columns(pl.col("truncated") | _cut_off(ended))
                    table = table.join(steps, on="trace_id", how="left", maintain_order="left")
                    yield table.with_columns(pl.col("steps", "wrong_calculations").fill_null(0))

        write_frames(frames(), folder / "measures.parquet")
        progress("measures", partitions[-1].stop, partitions[-1].stop, "")

    inputs = {
        "version": VERSIONS["measures"],
        "sources": sources.name,
        "segments": segments.name,
        "tokenizer": tokenizer_digest(settings.tokenizer),
    }
    return stages.build("measures", inputs, make)


def _measured_text(traces: Path, start: int, stop: int, spoken: pl.DataFrame, tokens: pl.Series | None) -> pl.DataFrame:
    """What the text of these traces measures. tokens: of all traces; words are counted where they are None."""
    # Words stand in for tokens where no tokenizer is named, and counting them takes most of the pass.
    wanted = {name: of for name, of in FULL.items() if name != "words" or tokens is None}
    some = pl.scan_parquet(traces).slice(start, stop - start)
    with pl.Config(streaming_chunk_size=CHUNK):
        table = measure(some, {**wanted, **script_counts()}).collect(engine="streaming")
    given = Slices(traces).read(start, stop, ["problem_id", "token_count"])
    table = _without_the_problems_language(table.with_columns(given["problem_id"]), spoken)
    counts = table["words"] if tokens is None else tokens[start:stop]
    return table.with_columns(token_count=given["token_count"].fill_null(counts.cast(pl.Int32)))


#: Reasons of a response's end that say that it was cut off, in the words of many engines.
CUT_OFF = (
    *("length", "max_tokens", "max_output_tokens", "max_length", "model_length", "token_limit", "context_length"),
    *("model_context_window_exceeded", "incomplete", "truncated"),
)


def _cut_off(ended: pl.Series) -> pl.Series:
    return ended.str.to_lowercase().is_in(CUT_OFF).fill_null(False)


def _without_the_problems_language(table: pl.DataFrame, spoken: pl.DataFrame) -> pl.DataFrame:
    """`foreign_share` without the scripts of the problem; `language_switches` unknown where it is written in one."""
    table = table.join(spoken, on="problem_id", how="left", maintain_order="left")
    foreign = pl.sum_horizontal(pl.when(~pl.col(f"of_{name}")).then(f"in_{name}") for name in SCRIPTS)
    same_language = pl.any_horizontal(f"of_{name}" for name in SCRIPTS)
    return table.with_columns(
        foreign_share=(foreign / pl.col("characters")).fill_nan(0).cast(pl.Float32),
        language_switches=pl.when(~same_language).then("language_switches"),
    ).drop("problem_id", pl.selectors.starts_with("in_", "of_"))


def _golds(settings: CurateSettings, sources: Path, stages: Stages, progress: Progress) -> Path:
    def make(folder: Path) -> None:
        problems = pl.read_parquet(sources / "problems.parquet")
        audit_golds(problems, workers=settings.workers, progress=progress).write_parquet(folder / "golds.parquet")

    return stages.build(
        "golds", {"version": VERSIONS["golds"], "sources": sources.name, **_verifier("evaluators")}, make
    )


def _verifier(name: Any) -> dict[str, str]:
    return {"verifier": name, "release": verifier_version(name), "policy": policy_digest(name)}


def _verdicts(settings: CurateSettings, sources: Path, golds: Path, stages: Stages, progress: Progress) -> Path:
    """Every trace whose problem has a gold, by the deciding verifier and by those asked for a second opinion."""
    parts = []
    for name in dict.fromkeys((settings.verify.verifier, *settings.verify.also)):

        def work(piece: Piece, name: Any = name) -> dict[str, pl.DataFrame]:
            columns = ["trace_id", "problem_id", "response"]
            batch = Slices(sources / "traces.parquet").read(piece.start, piece.stop, columns)
            here = batch.lazy().select("problem_id").unique()
            problems = pl.scan_parquet(sources / "problems.parquet").select("problem_id", "gold")
            golds_here = problems.join(here, on="problem_id", how="semi").collect()
            with_golds = batch.join(golds_here, on="problem_id", how="left", maintain_order="left")
            return {"verdicts": verify_traces(with_golds, name, workers=settings.local_workers)}

        inputs = {"version": VERSIONS["verify"], "sources": sources.name, **_verifier(name)}
        batches = Batches(sources, settings.verify.batch, work, {"verdicts": VERDICTS})
        parts.append(in_batches(stages, "verify", inputs, batches, settings.engine, progress))
    if len(parts) == 1:
        return parts[0]

    def make(folder: Path) -> None:
        join_tables([part / "verdicts.parquet" for part in parts], folder / "verdicts.parquet", VERDICTS)

    return stages.build("verify.all", {"parts": [p.name for p in parts]}, make)


def _duplicates(settings: CurateSettings, sources: Path, stages: Stages, progress: Progress) -> Path:
    """Pairs (kind, left, right, jaccard): kind "problem" or "trace"; left stands first in the sources."""
    wanted = settings.duplicates
    # A split must know which problems are near each other though none of them is to be dropped.
    near_problems = NEAR_FOR_SPLIT if wanted.problems is None and settings.validation else wanted.problems

    def make(folder: Path) -> None:
        problems = pl.read_parquet(sources / "problems.parquet", columns=["problem_id", "problem"])
        partitions = partitions_of(sources)
        progress("duplicates", 0, 1 + len(partitions), "problems")
        with table_writer(folder / "duplicates.parquet", DUPLICATES, row_group=100_000) as written:
            written.write(_pairs("problem", problems["problem_id"], problems["problem"], None, near_problems, wanted.n))
            # Switched off, copies are still counted: the funnel tells how many there are.
            for partition in partitions:
                progress("duplicates", 1 + partition.number, 1 + len(partitions), "traces")
                columns = ["trace_id", "problem_id", "response"]
                some = Slices(sources / "traces.parquet").read(partition.start, partition.stop, columns)
                ids, texts, groups = some["trace_id"], some["response"], some["problem_id"]
                written.write(_pairs("trace", ids, texts, groups, wanted.traces, wanted.n))
        progress("duplicates", 1 + len(partitions), 1 + len(partitions), "")

    inputs = {"version": VERSIONS["duplicates"], "sources": sources.name, **wanted.model_dump(mode="json")}
    inputs["problems"] = near_problems
    return stages.build("duplicates", inputs, make)


def _pairs(
    kind: str, ids: pl.Series, texts: pl.Series, groups: pl.Series | None, threshold: float | None, n: int
) -> pl.DataFrame:
    exact = exact_duplicates(texts, groups)
    # Each text stands once in the near search: a text that occurs a thousand times would pair with itself.
    first = ~pl.int_range(0, len(texts), eager=True).is_in(exact["right"].implode())
    parts = [exact]
    if threshold is not None:
        rows = first.arg_true().cast(pl.Int64)
        near = near_duplicates(
            texts.filter(first), threshold=threshold, n=n, groups=groups.filter(first) if groups is not None else None
        )
        parts.append(near.with_columns(rows[near["left"]].alias("left"), rows[near["right"]].alias("right")))
    pairs = pl.concat(parts).sort("left", "right")
    return pl.DataFrame(
        {
            "kind": pl.Series([kind] * pairs.height, dtype=pl.String),
            "left": ids[pairs["left"]],
            "right": ids[pairs["right"]],
            "jaccard": pairs["jaccard"],
        }
    )


def _contamination(settings: CurateSettings, sources: Path, stages: Stages, progress: Progress) -> Path:
    """Problems that share words with a benchmark row, side by side with it."""
    wanted = settings.contamination

    def make(folder: Path) -> None:
        problems = pl.read_parquet(sources / "problems.parquet", columns=["problem_id", "problem"])
        parts = [pl.DataFrame(schema=CONTAMINATION)]
        share = wanted.template_share
        templates = None if share is None else template_ngrams(problems["problem"], wanted.n, share)
        for number, source in enumerate(wanted.benchmarks):
            progress("contamination", number, len(wanted.benchmarks), source.path)
            benchmark = read_source(source, settings.data).problems
            matches = _matches(problems["problem"], benchmark["problem"], wanted, templates)
            parts.append(
                pl.DataFrame(
                    {
                        "problem_id": problems["problem_id"][matches["problem"]],
                        "benchmark": benchmark["source"][matches["benchmark"]],
                        "problem": problems["problem"][matches["problem"]],
                        "benchmark_problem": benchmark["problem"][matches["benchmark"]],
                        "shared": matches["shared"],
                        "ngram": matches["ngram"],
                        "jaccard": matches["jaccard"],
                    }
                )
            )
        pl.concat(parts).write_parquet(folder / "contamination.parquet")

    benchmarks = [source_inputs(source, settings.data) for source in wanted.benchmarks]
    inputs = {"version": VERSIONS["contamination"], "sources": sources.name, "benchmarks": benchmarks, "n": wanted.n}
    inputs |= {"near": wanted.near, "template_share": wanted.template_share}
    return stages.build("contamination", inputs, make)


def _matches(
    problems: pl.Series, benchmark: pl.Series, wanted: ContaminationSettings, templates: Hashes | None
) -> pl.DataFrame:
    """`contaminated`, and jaccard: null where n words are shared, the nearness of a pair that shares none."""
    if templates is not None:
        benchmark = without_templates(benchmark, templates, wanted.n)
    parts = []
    for start in range(0, max(len(problems), 1), PROBLEMS_AT_ONCE):
        some = problems.slice(start, PROBLEMS_AT_ONCE)
        if templates is not None:
            some = without_templates(some, templates, wanted.n)
        parts.append(_matches_of(some, benchmark, wanted).with_columns(pl.col("problem") + start))
    return pl.concat(parts)


def _matches_of(problems: pl.Series, benchmark: pl.Series, wanted: ContaminationSettings) -> pl.DataFrame:
    found = contaminated(problems, benchmark, wanted.n).with_columns(jaccard=pl.lit(None, dtype=pl.Float64))
    if wanted.near is None:
        return found
    pairs = near_duplicates(pl.concat([problems, benchmark.rename(problems.name)]), threshold=wanted.near)
    across = pairs.filter(pl.col("left") < len(problems), pl.col("right") >= len(problems)).select(
        problem=pl.col("left").cast(pl.Int64),
        benchmark=pl.col("right").cast(pl.Int64) - len(problems),
        shared=pl.lit(0, dtype=pl.Int64),
        ngram=pl.lit(""),
        jaccard=pl.col("jaccard").cast(pl.Float64),
    )
    return pl.concat([found, across.join(found, on=("problem", "benchmark"), how="anti")]).sort("problem", "benchmark")


CONTAMINATION: Schema = {
    "problem_id": pl.String,
    "benchmark": pl.String,
    "problem": pl.String,
    "benchmark_problem": pl.String,
    "shared": pl.Int64,
    "ngram": pl.String,
    "jaccard": pl.Float64,
}


DUPLICATES: Schema = {"kind": pl.String, "left": pl.String, "right": pl.String, "jaccard": pl.Float64}


@dataclass(frozen=True)
class Piece:
    """Traces start to stop (excluded), all of one partition."""

    partition: Partition
    start: int
    stop: int


@dataclass(frozen=True)
class Batches:
    """How a stage is made piece by piece: `work` turns at most `size` traces into rows of `tables`."""

    sources: Path
    size: int
    work: Callable[[Piece], dict[str, pl.DataFrame]]
    tables: dict[str, Schema]

    def pieces(self) -> list[Piece]:
        """All pieces, in the order of the traces."""
        return [Piece(one, *ends) for one in partitions_of(self.sources) for ends in one.pieces(self.size)]


def in_batches(
    stages: Stages, name: str, inputs: dict[str, Any], batches: Batches, engine: str, progress: Progress
) -> Path:
    """A stage made of batches, each a small stage of its own until all are there: a kill costs the one at work."""
    parts_name = f"{name}.batch-{digest({**inputs, 'size': batches.size})}"

    def make_batch(piece: Piece) -> Path:
        def make(part: Path) -> None:
            for table, rows in batches.work(piece).items():
                rows.write_parquet(part / f"{table}.parquet", compression="lz4")

        return stages.build(parts_name, {"start": piece.start, "stop": piece.stop}, make)

    def make(folder: Path) -> None:
        pieces, made = batches.pieces(), list[Path]()
        remote = engine == "ray"
        job = stages.folder / f"{parts_name}-ray"  # goes with the batches, whichever engine ends the stage
        for path in for_each_on_ray(pieces, make_batch, job) if remote else map(make_batch, pieces):
            progress(name, pieces[len(made)].stop, pieces[-1].stop, "")
            made.append(path)
        for table, schema in batches.tables.items():
            join_tables([path / f"{table}.parquet" for path in made], folder / f"{table}.parquet", schema)

    final = stages.build(name, inputs, make)
    stages.discard(parts_name)  # the whole stage stands: its batches are no longer needed
    return final
