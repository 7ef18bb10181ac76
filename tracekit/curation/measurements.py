"""The stages that measure: each reads tables, writes tables, and depends on no threshold of the recipe."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet as pq

from tracekit.core.ids import file_digest
from tracekit.core.runs import Progress, no_progress, write_text
from tracekit.core.tables import STEPS, VERDICTS, Schema
from tracekit.curation.ray_engine import for_each_on_ray
from tracekit.curation.settings import ContaminationSettings, CurateSettings
from tracekit.curation.stage_cache import Plan, Stages, digest
from tracekit.curation.verify import audit_golds, policy_digest, verifier_version, verify_traces
from tracekit.reading.readers import SourceError, SourceSettings, iterate_source, read_source, source_files
from tracekit.text.contamination import contaminated, template_ngrams, without_templates
from tracekit.text.duplicates import exact_duplicates, near_duplicates
from tracekit.text.features import FULL, SCRIPTS, measure_file, script_counts, scripts_of
from tracekit.text.segment_worker import segment_in_processes
from tracekit.text.shingles import Hashes
from tracekit.text.tokens import count_tokens, tokenizer_digest

#: Raised when a stage's code changes what it writes: older folders of that stage are then made anew.
VERSIONS = {"sources": 6, "segment": 1, "measures": 2, "golds": 1, "verify": 2, "duplicates": 2, "contamination": 3}
#: Traces of a row group, which is what a stream holds at once: 16 MB of text at 8 KB each. Left to itself, polars
#: makes one group of 100,000 and more.
ROW_GROUP = 2_000
#: Bytes of responses that the search for duplicates holds at a time.
TEXT_AT_ONCE = 256_000_000
#: Problems held against a benchmark at a time, to bound memory.
PROBLEMS_AT_ONCE = 50_000
#: Least Jaccard index at which two problems go to the same side of a split where no rule drops near problems.
NEAR_FOR_SPLIT = 0.9
#: Traces segmented between two writes to disk.
SEGMENT_BATCH = 10_000


@dataclass(frozen=True)
class Measured:
    """Published name → the stage's file, how tokens were counted, and how each source's columns were read."""

    files: dict[str, Path]
    token_unit: str
    reading: Path

    def read(self, name: str, columns: list[str] | None = None) -> pl.DataFrame:
        """One of the tables."""
        return pl.read_parquet(self.files[name], columns=columns)

    def readings(self) -> dict[str, Any]:
        """Source → the columns that were read, and its first rows."""
        return dict(json.loads(self.reading.read_text(encoding="utf-8")))


def measure_all(settings: CurateSettings, stages: Stages, progress: Progress) -> Measured:
    """Run or find every measuring stage."""
    sources = _sources(settings, stages, progress)
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
        "steps": segments / "steps.parquet",
        "measures": measures / "measures.parquet",
        "golds": golds / "golds.parquet",
        "verdicts": verdicts / "verdicts.parquet",
        "duplicates": duplicates / "duplicates.parquet",
        "contamination": contamination / "contamination.parquet",
    }
    return Measured(files, settings.tokenizer or "words (split at white space)", sources / "reading.json")


#: Characters a second on one core, by which a plan is estimated: measured with benchmarks/curation.py's tables
#: and GSM8K on a 2-core virtual machine.
SPEEDS = {
    "sources": 60e6,
    "segment": 7e6,
    "measures": 60e6,
    "golds": 50e6,
    "verify": 4e6,
    "duplicates": 40e6,
    "contamination": 50e6,
}


def plan(settings: CurateSettings) -> list[tuple[str, str, str]]:
    """(stage, "made" or "to do", estimated seconds) of the measuring stages; nothing is made."""
    stages = Plan(settings.stages or settings.output / "stages")
    measure_all(settings, stages, no_progress)
    size = sum(_characters(file) for source in settings.sources for file in files_of(source, settings.data))
    return [
        (name, "made" if made else "to do", "" if made else f"{size / SPEEDS[name.split('.')[0]]:,.0f} s")
        for name, made in stages.stages.items()
    ]


def _characters(file: Path) -> int:
    """Size of the text: what Parquet's footer says of its columns unpacked, else the file's size."""
    if not file.name.endswith(".parquet"):
        return file.stat().st_size * (4 if file.suffix in (".gz", ".zst") else 1)
    footer = pq.read_metadata(file)
    return sum(footer.row_group(group).total_byte_size for group in range(footer.num_row_groups))


def files_of(source: SourceSettings, data: Path) -> list[Path]:
    """The files a source is made of; none for a hub name."""
    path = data / source.path
    own = [path / f"{name}.parquet" for name in ("problems", "traces", "steps")]
    return [f for f in own if f.is_file()] if own[0].is_file() else source_files(source, data)


def _sources(settings: CurateSettings, stages: Stages, progress: Progress) -> Path:
    def make(folder: Path) -> None:
        (folder / "parts").mkdir()
        problems, steps, lost, count = [], [], [], 0
        readings: dict[str, Any] = {}
        for source in settings.sources:
            for part in iterate_source(source, settings.data):
                lost.append(part.lost)
                readings.setdefault(source.path, part.reading())
                problems.append(part.problems)
                steps.append(part.steps)
                part.traces.write_parquet(folder / "parts" / f"{len(problems):06d}.parquet")
                count += part.traces.height
                progress("sources", count, 0, part.where)
        unique, same = _merged(pl.concat(problems).unique("problem_id", keep="first", maintain_order=True))
        unique.write_parquet(folder / "problems.parquet")
        pl.concat(steps).write_parquet(folder / "given_steps.parquet")
        pl.concat(lost).write_parquet(folder / "lost.parquet")
        write_text(folder / "reading.json", json.dumps(readings, ensure_ascii=False, indent=1))
        parts = pl.scan_parquet(folder / "parts" / "*.parquet")
        if same:
            parts = parts.with_columns(pl.col("problem_id").replace(same))
        parts.sink_parquet(folder / "traces.parquet", row_group_size=ROW_GROUP)
        for path in (folder / "parts").iterdir():
            path.unlink()
        (folder / "parts").rmdir()
        if not count:
            raise SourceError(
                f"the sources hold {unique.height:,} problems and no responses; collect them (tracekit collect "
                "problems=FILE), or name their column with --map response=COLUMN."
            )
        _check_unique(folder / "traces.parquet")

    inputs = [_source_inputs(source, settings.data) for source in settings.sources]
    return stages.build("sources", {"version": VERSIONS["sources"], "sources": inputs}, make)


def _merged(problems: pl.DataFrame) -> tuple[pl.DataFrame, dict[str, str]]:
    """Problems with those merged that two sources share, and problem_id → the id that stands for it.

    The same text with the same gold and split is one problem: two teachers' traces of it stand side by side, and none
    is lost as the trace of a duplicate problem.
    """
    first = problems.with_columns(first=pl.col("problem_id").first().over("problem", "gold", "split"))
    again = first.filter(pl.col("first") != pl.col("problem_id"))
    same = dict(again.select("problem_id", "first").iter_rows())
    return first.filter(pl.col("first") == pl.col("problem_id")).drop("first"), same


def _check_unique(traces: Path) -> None:
    ids = pl.read_parquet(traces, columns=["trace_id"])["trace_id"]
    if ids.n_unique() < len(ids):
        twice = ids.filter(ids.is_duplicated())[0]
        raise SourceError(f"trace {twice} is read from two sources; name each file in one source, or name them apart.")


def _source_inputs(source: SourceSettings, data: Path) -> dict[str, Any]:
    files = [(file.name, file_digest(file)) for file in files_of(source, data)]
    return {**source.model_dump(mode="json", exclude={"licence"}), "files": files}


def _segments(settings: CurateSettings, sources: Path, stages: Stages, progress: Progress) -> Path:
    """Steps as the source gives them, segmented here where it gives none."""

    def work(batch: pl.DataFrame) -> pl.DataFrame:
        given = pl.scan_parquet(sources / "given_steps.parquet")
        given_here = given.filter(pl.col("trace_id").is_in(batch["trace_id"].implode())).collect()
        rest = batch.filter(~pl.col("trace_id").is_in(given_here["trace_id"].unique().implode()))
        return pl.concat([given_here, segment_in_processes(rest, settings.local_workers)])

    traces = pl.scan_parquet(sources / "traces.parquet").select("trace_id", "response")
    inputs = {"version": VERSIONS["segment"], "sources": sources.name}
    batches = Batches(traces, SEGMENT_BATCH, work, "steps", STEPS)
    return _in_batches(stages, "segment", inputs, batches, settings.engine, progress)


def _measures(settings: CurateSettings, sources: Path, segments: Path, stages: Stages, progress: Progress) -> Path:
    def make(folder: Path) -> None:
        progress("measures", 0, 1, "")
        traces = pl.scan_parquet(sources / "traces.parquet")
        # Words stand in for tokens where no tokenizer is named, and counting them takes most of the pass.
        wanted = {name: of for name, of in FULL.items() if name != "words" or not settings.tokenizer}
        measure_file(sources / "traces.parquet", folder / "text.parquet", {**wanted, **script_counts()})
        table = _without_the_problems_language(pl.read_parquet(folder / "text.parquet"), sources)
        (folder / "text.parquet").unlink()
        if settings.tokenizer:
            tokens = count_tokens(traces.select("response"), settings.tokenizer, progress)
            table = table.with_columns(tokens.alias("tokens"))
        counts = pl.col("tokens" if settings.tokenizer else "words")
        known = traces.select("token_count").collect()["token_count"]
        table = table.with_columns(pl.coalesce(known, counts).cast(pl.Int32).alias("token_count"))
        by_trace = _step_measures(pl.scan_parquet(segments / "steps.parquet"))
        table = table.join(by_trace, on="trace_id", how="left", maintain_order="left")
        table = table.with_columns(pl.col("steps", "wrong_calculations").fill_null(0))
        table.drop("tokens", strict=False).write_parquet(folder / "measures.parquet")
        progress("measures", 1, 1, "")

    inputs = {
        "version": VERSIONS["measures"],
        "sources": sources.name,
        "segments": segments.name,
        "tokenizer": tokenizer_digest(settings.tokenizer),
    }
    return stages.build("measures", inputs, make)


def _without_the_problems_language(table: pl.DataFrame, sources: Path) -> pl.DataFrame:
    """`foreign_share` without the scripts of the problem; `language_switches` unknown where it is written in one."""
    spoken = scripts_of(pl.read_parquet(sources / "problems.parquet", columns=["problem_id", "problem"]))
    of = pl.read_parquet(sources / "traces.parquet", columns=["trace_id", "problem_id"])
    table = table.join(of, on="trace_id", how="left", maintain_order="left")
    table = table.join(spoken, on="problem_id", how="left", maintain_order="left")
    foreign = pl.sum_horizontal(pl.when(~pl.col(f"of_{name}")).then(f"in_{name}") for name in SCRIPTS)
    same_language = pl.any_horizontal(f"of_{name}" for name in SCRIPTS)
    return table.with_columns(
        foreign_share=(foreign / pl.col("characters")).fill_nan(0).cast(pl.Float32),
        language_switches=pl.when(~same_language).then("language_switches"),
    ).drop("problem_id", pl.selectors.starts_with("in_", "of_"))


def _step_measures(steps: pl.LazyFrame) -> pl.DataFrame:
    wrong = pl.col("correct").eq(False)
    return (
        steps.group_by("trace_id")
        .agg(
            steps=pl.len().cast(pl.Int32),
            wrong_calculations=wrong.sum().cast(pl.Int32),
            first_wrong_step=pl.col("step").filter(wrong).min(),
        )
        .collect()
    )


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
    problems = pl.scan_parquet(sources / "problems.parquet").select("problem_id", "gold")
    traces = pl.scan_parquet(sources / "traces.parquet").select("trace_id", "problem_id", "response")
    parts = []
    for name in dict.fromkeys((settings.verify.verifier, *settings.verify.also)):

        def work(batch: pl.DataFrame, name: Any = name) -> pl.DataFrame:
            # Joined batch by batch: a slice of a join reads every row before it, and verifying would be quadratic.
            golds_here = problems.join(
                batch.lazy().select("problem_id").unique(), on="problem_id", how="semi"
            ).collect()
            with_golds = batch.join(golds_here, on="problem_id", how="left", maintain_order="left")
            return verify_traces(with_golds, name, workers=settings.local_workers)

        inputs = {"version": VERSIONS["verify"], "sources": sources.name, **_verifier(name)}
        batches = Batches(traces, settings.verify.batch, work, "verdicts", VERDICTS)
        parts.append(_in_batches(stages, "verify", inputs, batches, settings.engine, progress))
    if len(parts) == 1:
        return parts[0]

    def make(folder: Path) -> None:
        pl.scan_parquet([p / "verdicts.parquet" for p in parts]).sink_parquet(folder / "verdicts.parquet")

    return stages.build("verify.all", {"parts": [p.name for p in parts]}, make)


def _duplicates(settings: CurateSettings, sources: Path, stages: Stages, progress: Progress) -> Path:
    """Pairs (kind, left, right, jaccard): kind "problem" or "trace"; left stands first in the sources."""
    wanted = settings.duplicates
    # A split must know which problems are near each other though none of them is to be dropped.
    near_problems = NEAR_FOR_SPLIT if wanted.problems is None and settings.validation else wanted.problems

    def make(folder: Path) -> None:
        problems = pl.read_parquet(sources / "problems.parquet", columns=["problem_id", "problem"])
        progress("duplicates", 0, 1, "problems")
        parts = [_pairs("problem", problems["problem_id"], problems["problem"], None, near_problems, wanted.n)]
        # Switched off, copies are still counted: the funnel tells how many there are.
        traces = pl.scan_parquet(sources / "traces.parquet").select("trace_id", "problem_id", "response")
        shares = -(-_characters(sources / "traces.parquet") // TEXT_AT_ONCE)
        for share in range(shares):  # a problem's traces are in one share, which is held in memory at a time
            progress("duplicates", 1 + share, 1 + shares, "traces")
            here = pl.col("problem_id").hash() % shares == share
            some = (traces if shares == 1 else traces.filter(here)).collect()
            parts.append(
                _pairs("trace", some["trace_id"], some["response"], some["problem_id"], wanted.traces, wanted.n)
            )
        pl.concat(parts).write_parquet(folder / "duplicates.parquet")
        progress("duplicates", 1 + shares, 1 + shares, "")

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

    benchmarks = [_source_inputs(source, settings.data) for source in wanted.benchmarks]
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


@dataclass(frozen=True)
class Batches:
    """How a stage is made batch by batch: `work` turns a frame of `size` rows of `traces` into rows of `schema`."""

    traces: pl.LazyFrame
    size: int
    work: Callable[[pl.DataFrame], pl.DataFrame]
    table: str
    schema: Schema


def _in_batches(
    stages: Stages, name: str, inputs: dict[str, Any], batches: Batches, engine: str, progress: Progress
) -> Path:
    """A stage made of batches, each a small stage of its own until all are there: a kill costs the one at work."""
    made: list[Path] = []
    parts_name = f"{name}.batch-{digest({**inputs, 'size': batches.size})}"

    def make_batch(start: int) -> Path:
        def make(part: Path) -> None:
            batches.work(batches.traces.slice(start, batches.size).collect()).write_parquet(part / "part.parquet")

        return stages.build(parts_name, {"start": start, "size": batches.size}, make)

    def make(folder: Path) -> None:
        total = batches.traces.select(pl.len()).collect().item()
        starts = list(range(0, total, batches.size))
        remote = engine == "ray"
        job = stages.folder / f"{parts_name}-ray"  # goes with the batches, whichever engine ends the stage
        for path in for_each_on_ray(starts, make_batch, job) if remote else map(make_batch, starts):
            made.append(path)
            progress(name, min(len(made) * batches.size, total), total, "")
        parts = [path / "part.parquet" for path in made]
        pl.scan_parquet(parts, schema=batches.schema).sink_parquet(folder / f"{batches.table}.parquet")

    final = stages.build(name, inputs, make)
    stages.discard(parts_name)  # the whole stage stands: its batches are no longer needed
    return final
