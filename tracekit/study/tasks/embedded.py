"""The embedded world as a study's task: everything is made, every step's label is exact."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import polars as pl

from tracekit.core.runs import Progress
from tracekit.core.settings import build_settings
from tracekit.core.tables import CURATED, PROBLEMS, STEPS, TRACES, read_table, write_table
from tracekit.study.jobs import Job
from tracekit.study.paths import (
    PROBE_SPLIT,
    corpus_file,
    curated,
    materials_folder,
    measures_folder,
    model_folder,
    problems_of,
    text_file,
)
from tracekit.study.settings import BASE, IN_DISTRIBUTION, SPLITS, StudySettings
from tracekit.study.tasks import world as worlds
from tracekit.study.tasks.corpus import corpus_table, write_tokenizer
from tracekit.study.tasks.task import Outlook, SolutionPath, Words
from tracekit.study.tasks.teachers import teach
from trainer.settings import DataSettings

#: Wrong steps among the probing traces: a step's correctness can only be probed where both kinds occur.
PROBE_ERRORS = 0.5

#: A seed under which no problem and no trace of the study was drawn is this much above the study's.
APART = 1_000_003


@dataclass(frozen=True)
class EmbeddedWorld:
    """See `tracekit.study.tasks.world`. One thread a worker, for the same bytes on any machine."""

    settings: StudySettings

    neutral = "world"
    first = "world"
    environment: ClassVar = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    pinned: ClassVar = {"threads": 1}
    asked: ClassVar = {"prompt_tokens": 64, "threads": 1}  # no question has 64 tokens
    words = Words(
        splits="test: as in training. length: longer chains. order: an order of operations that no question of the "
        "corpus has. surface: slots listed in another order than they are worked.",
        path="A path is the sequence of step kinds and operations of a response, whatever its values.",
        read="the world's traces",
    )

    def check(self) -> None:
        """Nothing is needed."""

    def make_problems(self, progress: Progress) -> None:
        """Problems of every split, the teacher's traces, the tokenizer."""
        settings = self.settings
        folder, world, counts = materials_folder(settings), settings.world, settings.problems
        seen: frozenset[str] = frozenset()
        for split in ("train", *SPLITS, PROBE_SPLIT):
            shape: Any = "test" if split == PROBE_SPLIT else split
            # probing problems are drawn from the test distribution under a seed that no test set has
            problems = worlds.make_problems(
                world, shape, getattr(counts, split), settings.seed + (APART if split == PROBE_SPLIT else 0), seen
            )
            seen |= frozenset(problems["problem"])
            write_table(problems, folder / split / "problems.parquet", PROBLEMS)
        self._write_traces("train", teach(world, problems_of(settings, "train"), settings.seed, counts.traces))
        # of test problems nobody learns: they say which way the teacher would have gone
        self._write_traces("test", teach(world, problems_of(settings, "test"), settings.seed))
        fallible = world.model_copy(update={"teacher_errors": PROBE_ERRORS})
        each = settings.probing.traces_per_problem
        probing = teach(fallible, problems_of(settings, PROBE_SPLIT), settings.seed, each)
        self._write_traces(PROBE_SPLIT, probing)
        write_tokenizer(world, folder / "tokenizer")

    def _write_traces(self, split: str, traces: pl.DataFrame) -> None:
        folder = materials_folder(self.settings) / split
        write_table(traces, folder / "traces.parquet", TRACES)
        write_table(self.label_steps(problems_of(self.settings, split), traces), folder / "steps.parquet", STEPS)

    def curate(self, progress: Progress) -> None:
        """The teacher's traces, verified, filtered, deduplicated; the same as text, without the form of a question."""
        from tracekit.curation.curate import CurateSettings, curate

        settings = self.settings
        tree = {"sources": [str(materials_folder(settings) / "train")], "output": settings.output / "curation"}
        curate(build_settings(CurateSettings, tree, "curation"), progress=progress)
        write_table(text_of(curated(settings)), text_file(settings))

    def base_jobs(self, seed: int) -> list[Job]:
        """A corpus, and the base that is pre-trained on it."""
        run = self.settings.run_name(BASE, seed)
        corpus = Job(f"corpus-{run}", "world")
        return [corpus, Job(f"train-{run}", "pretrain", (self.first, corpus.name))]

    def make_corpus(self, seed: int) -> None:
        """What one seed of the base is pre-trained on."""
        settings = self.settings
        write_table(corpus_table(settings.world, settings.corpus, seed), corpus_file(settings, seed), CURATED)

    def make_base(self, seed: int, train_base: Callable[[int], None]) -> None:
        """Train a base until it has the skill: where it has not formed, anew and twice as long.

        When the skill forms differs between seeds by hundreds of steps. The failed ones stay beside, as
        base-SEED-failed-1; their number says which attempt this is, so that a killed job goes on with its own.
        """
        from tracekit.study.tasks.base_skill import measure_skill

        settings = self.settings
        folder = model_folder(settings, BASE, seed).parent
        for attempt in range(settings.base_attempts):
            failed = folder.with_name(f"{folder.name}-failed-{attempt + 1}")
            if failed.exists():
                continue
            train_base(attempt)
            told = measures_folder(settings, BASE, seed)
            skill = measure_skill(folder / "final", settings.world, settings.seed, told)
            if skill["least"] >= settings.gates.skill or attempt + 1 == settings.base_attempts:
                return
            folder.rename(failed)

    def label_steps(self, problems: pl.DataFrame, traces: pl.DataFrame) -> pl.DataFrame:
        """Exact labels."""
        return worlds.label_steps(problems, traces, self.settings.world)

    def path_of(self, problem: str, response: str) -> SolutionPath:
        """Kind and operation of each step, whatever their values.

        Two responses that work the same slots, verify the same ones and take the same ones back have one path.
        """
        return tuple(
            (step.kind, step.operator or "") for step in worlds.read_steps(problem, response, self.settings.world)
        )

    def teacher_traces(self) -> tuple[pl.DataFrame, pl.DataFrame]:
        """The teacher can be asked again, as often as the arms are."""
        settings = self.settings
        own = read_table(materials_folder(settings) / IN_DISTRIBUTION / "traces.parquet", TRACES)
        problems = problems_of(settings, IN_DISTRIBUTION)
        return own, teach(settings.world, problems, settings.seed + APART, settings.evaluation.samples)

    def skill(self) -> pl.DataFrame:
        """ "least" over worked logs, "elicited" under the question."""
        rows = []
        for seed in self.settings.seeds:
            path = measures_folder(self.settings, BASE, seed) / "skill.json"
            found = json.loads(path.read_text(encoding="utf-8"))
            rows.append({"seed": seed, "least": found["least"], "elicited": found["elicited"]})
        return pl.DataFrame(rows)

    def taught(self) -> tuple[pl.DataFrame, DataSettings]:
        """All of them: none is long."""
        return curated(self.settings), DataSettings()

    def outlook(self) -> Outlook:
        """The configuration of the base, the lengths of sixty-four traces, one core."""
        from trainer.modeling.models import load_tokenizer, new_config
        from trainer.settings import NewModelSettings

        settings = self.settings
        problems = worlds.make_problems(settings.world, "train", min(settings.problems.train, 64), settings.seed)
        traces = teach(settings.world, problems, settings.seed)
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = load_tokenizer(write_tokenizer(settings.world, folder))
        tree = settings.base.get("new_model", {}) | {"tokenizer": Path(folder)}
        words = [float(len(text.split())) for text in (*problems["problem"], *traces["response"])]
        asked, said = (sum(part) / len(part) for part in (words[: len(problems)], words[len(problems) :]))
        # a word is a token; BOS and EOS beside them. A policy that works its steps answers at the teacher's length.
        lengths = {"prompt_tokens": asked + 1, "teacher_tokens": said + 1, "response_tokens": said + 1}
        config = new_config(build_settings(NewModelSettings, tree, "base.new_model"), tokenizer)
        return Outlook(config, lengths | {"rows": settings.problems.train * settings.problems.traces}, "core")


def text_of(rows: pl.DataFrame) -> pl.DataFrame:
    """CURATED → `text`: problem and response run together, the mark of a question between them left out.

    What CPT reads: the teacher's words, but nothing that says that one answers the other.
    """
    asked = pl.col("problem").str.strip_suffix(f" {worlds.QUESTION}")
    return rows.select(pl.format("{} {}", asked, "response").alias("text"))
