"""What the arms learn from and the probes read: the world's tables, the curated set, text, pairs, rollouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from tracekit import world as worlds
from tracekit.config import build_settings
from tracekit.runs import Progress
from tracekit.study.places import (
    PROBE_SPLIT,
    model_folder,
    pairs_folder,
    problems_of,
    rollouts_folder,
    traces_of,
)
from tracekit.study.settings import SPLITS, StudySettings
from tracekit.tables import CURATED, PROBLEMS, STEPS, TRACES, conform, read_table, write_table

#: Wrong steps among the probing traces: a step's correctness can only be probed where both kinds occur.
PROBE_ERRORS = 0.5

#: Answers of a checkpoint to each training problem, among which the wrong ones become DPO's rejected side.
PAIR_SAMPLES = 4


def make_world(settings: StudySettings, progress: Progress) -> None:
    """Problems of every split, the teacher's traces, the tokenizer."""
    folder, world, counts = settings.output / "world", settings.world, settings.problems
    seen: frozenset[str] = frozenset()
    for split in ("train", *SPLITS, PROBE_SPLIT):
        shape: Any = "test" if split == PROBE_SPLIT else split
        # 1,000,003: probing problems are drawn from the test distribution under a seed that no test set has
        problems = worlds.make_problems(
            world, shape, getattr(counts, split), settings.seed + (1_000_003 if split == PROBE_SPLIT else 0), seen
        )
        seen |= frozenset(problems["problem"])
        write_table(problems, folder / split / "problems.parquet", PROBLEMS)
    teacher = worlds.teach(world, problems_of(settings, "train"), settings.seed, counts.traces)
    _write_traces(settings, "train", teacher, world)
    # of test problems nobody learns: they say which way the teacher would have gone
    _write_traces(settings, "test", worlds.teach(world, problems_of(settings, "test"), settings.seed), world)
    fallible = world.model_copy(update={"teacher_errors": PROBE_ERRORS})
    each = settings.probing.traces_per_problem
    _write_traces(
        settings, PROBE_SPLIT, worlds.teach(fallible, problems_of(settings, PROBE_SPLIT), settings.seed, each), world
    )
    worlds.write_tokenizer(world, folder / "tokenizer")


def make_corpus(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """What one seed of the base is pre-trained on."""
    write_table(worlds.corpus_table(settings.world, settings.corpus, seed), corpus_file(settings, seed), CURATED)


def corpus_file(settings: StudySettings, seed: int) -> Path:
    """Where it stands."""
    return settings.output / "world" / f"corpus-{seed}.parquet"


def _write_traces(settings: StudySettings, split: str, traces: pl.DataFrame, world: worlds.World) -> None:
    folder = settings.output / "world" / split
    write_table(traces, folder / "traces.parquet", TRACES)
    steps = worlds.label_steps(problems_of(settings, split), traces, world)
    write_table(steps, folder / "steps.parquet", STEPS)


def curate_traces(settings: StudySettings, progress: Progress) -> None:
    """The teacher's traces, verified, filtered, deduplicated; the same as text, without the form of a question."""
    from tracekit.curate import CurateSettings, curate

    tree = {"sources": [str(settings.output / "world" / "train")], "output": settings.output / "curation"}
    curate(build_settings(CurateSettings, tree, "curation"), progress=progress)
    write_table(text_of(curated(settings)), text_file(settings))


def curated(settings: StudySettings) -> pl.DataFrame:
    """The curated set."""
    return read_table(curated_file(settings), CURATED)


def curated_file(settings: StudySettings) -> Path:
    """Where the curated set stands."""
    return settings.output / "curation" / "curated.parquet"


def text_file(settings: StudySettings) -> Path:
    """Where its text stands."""
    return settings.output / "curation" / "text.parquet"


def text_of(rows: pl.DataFrame) -> pl.DataFrame:
    """CURATED → `text`: problem and response run together, the mark of a question between them left out.

    What CPT reads: the teacher's words, but nothing that says that one answers the other.
    """
    asked = pl.col("problem").str.strip_suffix(f" {worlds.QUESTION}")
    return rows.select(pl.format("{} {}", asked, "response").alias("text"))


def make_pairs(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """A checkpoint's wrong answers to the training problems beside the curated right traces, as DPO reads them."""
    folder = pairs_folder(settings, arm, seed)
    answers = answer(settings, arm, seed, "train", PAIR_SAMPLES, folder, progress)
    wrong = traces_of(answers.filter(pl.col("outcome") == "wrong"))
    asked = problems_of(settings, "train").select("problem_id", "problem", "gold", "source", "split")
    rejected = wrong.join(asked, on="problem_id").with_columns(pl.lit(False).alias("correct"))
    rows = pl.concat([curated(settings), conform(rejected, CURATED, "pairs")])
    write_table(rows, folder / "pairs.parquet", CURATED)


def roll_out(settings: StudySettings, arm: str, seed: int, progress: Progress) -> None:
    """A checkpoint's own answers to the probing problems."""
    answer(
        settings, arm, seed, PROBE_SPLIT, settings.probing.traces_per_problem, rollouts_folder(settings, arm), progress
    )


def answer(
    settings: StudySettings, arm: str, seed: int, split: str, samples: int, folder: Path, progress: Progress
) -> pl.DataFrame:
    """COMPLETIONS of a checkpoint to a split's problems, at temperature 1."""
    from trainer.evaluate import EvaluateSettings, evaluate_model

    tree = {
        "name": arm,
        "temperatures": (1.0,),
        "samples": samples,
        "max_tokens": settings.evaluation.max_tokens,
        "prompt_tokens": 64,
        "seed": seed,
        "threads": 1,
    }
    asked = build_settings(EvaluateSettings, tree, f"answers of {arm}")
    return evaluate_model(model_folder(settings, arm, seed), problems_of(settings, split), asked, folder, progress)
