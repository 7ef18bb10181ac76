"""Public data and a model of the hub as a study's task: problems by name, traces by a curation, steps as written."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import polars as pl
import torch

from tracekit.core.hub import hub_answers, prepare_hub, unreachable
from tracekit.core.runs import Progress
from tracekit.core.settings import SettingsError, build_settings
from tracekit.core.tables import CURATED, PROBLEMS, STEPS, TRACES, conform, read_table, write_table
from tracekit.reading.readers import source_files
from tracekit.study.jobs import Job
from tracekit.study.paths import PROBE_SPLIT, curated, curated_file, materials_folder, model_folder, text_file
from tracekit.study.settings import BASE, GivenBase, PublicData, StudySettings, set_name
from tracekit.study.tasks.task import Outlook, SolutionPath, Words
from tracekit.text.contamination import contaminated
from tracekit.text.segment import segment, segment_traces
from trainer.settings import DataSettings

#: What a model folder of the hub holds that we read: no pickled weights, no code.
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


class StudyDataError(ValueError):
    """Public data cannot carry a study: the message says what was found and what to do."""


@dataclass(frozen=True)
class PublicStudy:
    """See `tracekit.study.settings.PublicData`."""

    settings: StudySettings

    neutral = "teacher"
    first = "sets"
    environment: ClassVar = {"TOKENIZERS_PARALLELISM": "false"}
    pinned: ClassVar[dict[str, Any]] = {}

    @cached_property
    def data(self) -> PublicData:
        """The settings of the data."""
        assert self.settings.data is not None, "a study of public data has [data]"
        return self.settings.data

    @property
    def asked(self) -> dict[str, Any]:
        """As the study says."""
        return self.data.asking

    @property
    def words(self) -> Words:
        """What is public has no exact labels."""
        shifted = ", ".join(self.settings.shifted)
        return Words(
            splits=f"In distribution: {', '.join(self.settings.in_distribution)}. "
            + (f"Out of distribution: {shifted}. " if shifted else "")
            + "Where sets are taken together, every problem counts alike. Votes, coverage and paths are of "
            + f"{', '.join(self.settings.repeated)}, whose problems are sampled often enough.",
            path="A path is what tracekit.text.segment reads from the text: the kinds of a response's steps in order, "
            "each with the last operator that it computes with; restatements are left out and repeats run together. It "
            "tells how a response is built, not what it thinks: two of one path may reason differently, and long ones "
            "seldom share one.",
            read="the teacher's traces of held-out problems",
            left_out="The base is given: no skill of its own is a gate. The teacher cannot be asked again: what "
            "departing from its own traces means is not measured, and claims that rest on it are left out.",
        )

    def check(self) -> None:
        """Look at what is named by a path: the base, the sets, the curated table; a hub's name is asked in its job."""
        from probes.states.extract import Reading
        from trainer.evaluate import EvaluateSettings

        _check_base(self.settings.given_base)
        build_settings(EvaluateSettings, self.asked, "data.asking")
        unknown = self.data.reading.keys() - {field.name for field in fields(Reading)}
        if unknown:
            known = ", ".join(field.name for field in fields(Reading))
            raise SettingsError(f"data.reading: unknown key {min(unknown)}; known keys: {known}.")
        self._check_layers()
        for one in self.data.sets:
            if source_files(one, self.data.folder):
                one.read(self.data.folder)
        if self.data.curated is not None:
            self._right_rows(self.data.curated)
        elif self.data.curation is not None:
            self._curation()

    def _check_layers(self) -> None:
        """The layers that the claims rest on are among those that are read; days later the probes would miss them."""
        layers, band = self.data.reading.get("layers"), self.settings.probing.protocol.get("band")
        if self.settings.probed() and layers is not None and not (band and set(band) <= set(layers)):
            raise SettingsError(
                f"data.reading.layers is {layers} and probing.protocol.band {band or 'not given'}; name in band those "
                "of the layers that the claims rest on."
            )

    def _curation(self) -> Any:
        """The curation's settings. Raises SettingsError, and SourceError where a path holds nothing."""
        from tracekit.curation.curate import CurateSettings

        tree = {"data": self.data.folder} | (self.data.curation or {}) | {"output": self.settings.output / "curation"}
        found = build_settings(CurateSettings, tree, "data.curation")
        for source in found.sources:
            source_files(source, found.data)
        return found

    def _right_rows(self, path: Path) -> pl.DataFrame:
        rows = read_table(path, CURATED, "data.curated").filter("correct")
        if rows.is_empty():
            raise StudyDataError(
                f"{path} holds no right trace: imitation has nothing to learn from, and probes to read."
            )
        return rows

    def make_problems(self, progress: Progress) -> None:
        """Every set as it is now: a study goes on with these when the hub's have changed."""
        for done, one in enumerate(self.data.sets):
            progress("sets", done, len(self.data.sets), set_name(one))
            path = materials_folder(self.settings) / set_name(one) / "problems.parquet"
            write_table(one.read(self.data.folder), path, PROBLEMS)
        progress("sets", len(self.data.sets), len(self.data.sets))

    def curate(self, progress: Progress) -> None:
        """Curate unless a table was given, hold the probing problems out, and write the rest for training."""
        from tracekit.curation.curate import curate

        path = self.data.curated
        if path is None:
            path = curate(self._curation(), progress=progress) / "curated.parquet"
        rows = self._right_rows(path)
        train, held_out = self._parted(rows)
        folder, kinds = materials_folder(self.settings), path.with_name("problems.parquet")
        known = read_table(kinds, PROBLEMS) if kinds.is_file() else None
        write_table(_problems_of(train, known), folder / "train" / "problems.parquet", PROBLEMS)
        each = held_out.group_by("problem_id", maintain_order=True).head(self.settings.probing.traces_per_problem)
        traces = conform(each, TRACES, "probing traces")
        write_table(_problems_of(held_out, known), folder / PROBE_SPLIT / "problems.parquet", PROBLEMS)
        write_table(traces, folder / PROBE_SPLIT / "traces.parquet", TRACES)
        write_table(segment_traces(traces), folder / PROBE_SPLIT / "steps.parquet", STEPS)
        write_table(train.select(pl.format("{}\n\n{}", "problem", "response").alias("text")), text_file(self.settings))
        write_table(train, curated_file(self.settings), CURATED)

    def _parted(self, rows: pl.DataFrame) -> tuple[pl.DataFrame, pl.DataFrame]:
        """Rows to train on and rows to probe, by problem; what is near to a held-out problem is in neither."""
        names, wanted = sorted(set(rows["problem_id"])), self.data.held_out if self.settings.probed() else 0
        random.Random(f"held out/{self.settings.seed}").shuffle(names)
        held_out = rows.filter(pl.col("problem_id").is_in(names[:wanted]))
        train = rows.filter(pl.col("problem_id").is_in(names[wanted:]))
        near = (
            contaminated(train["problem"], held_out["problem"])["problem"] if wanted else pl.Series([], dtype=pl.Int64)
        )
        train = train.with_row_index("row").filter(~pl.col("row").is_in(near.implode())).drop("row")
        left = [name for name in names[wanted:] if name in set(train["problem_id"])][: self.data.problems]
        if not left:
            raise StudyDataError(
                f"{len(names)} problems have a right trace, {wanted} are held out for the probes, and none that shares "
                "no eight words in a row with those is left to train on; lower data.held_out or curate more."
            )
        return train.filter(pl.col("problem_id").is_in(left)), held_out

    def base_jobs(self, seed: int) -> list[Job]:
        """The base is laid beside the arms; everything rests on it, and it on the data."""
        return [Job(f"train-{self.settings.run_name(BASE, seed)}", "pretrain", ("curate",))]

    def make_base(self, seed: int, train_base: Callable[[int], None]) -> None:
        """The given model with its changes."""
        lay_base(self.settings.given_base, model_folder(self.settings, BASE, seed))

    def label_steps(self, problems: pl.DataFrame, traces: pl.DataFrame) -> pl.DataFrame:
        """As written: kinds by words, arithmetic checked where it can be read."""
        return segment_traces(traces)

    def path_of(self, problem: str, response: str) -> SolutionPath:
        """Kind and last operator of each step; restatements are left out, for they do nothing, repeats run together."""
        path: list[tuple[str, str]] = []
        for step in segment(response):
            one = (step.kind, step.operator or "")
            if step.kind != "restatement" and path[-1:] != [one]:
                path.append(one)
        return tuple(path)

    def teacher_traces(self) -> None:
        """There is nobody to ask."""

    def skill(self) -> None:
        """No step of a text can be forced."""

    def taught(self) -> tuple[pl.DataFrame, DataSettings]:
        """Some of them, drawn by the study's seed, as long as training takes them."""
        rows = curated(self.settings).sort("trace_id")
        some = rows.sample(min(self.data.taught, len(rows)), seed=self.settings.seed, shuffle=False)
        limits = build_settings(DataSettings, self.settings.recipe.get("data", {}), "recipe.data")
        return some, limits

    def outlook(self) -> Outlook:
        """The configuration that the hub or the folder has; lengths are the estimate's own until data were read."""
        from trainer.modeling.models import load_config

        given = self.settings.given_base
        _check_base(given, weights=False)
        lengths: dict[str, Any] = {"rows": self.data.problems} if self.data.problems is not None else {}
        if curated_file(self.settings).is_file():
            lengths = {"rows": len(curated(self.settings))}
        return Outlook(load_config(given.model, changes=given.model_changes), lengths, "h100")


def lay_base(given: GivenBase, folder: Path) -> None:
    """A model folder with changed configuration and tokenizer, and the given model's own weights under a second name.

    Nothing of `ModelChanges` touches a weight: 15 GB need no copy. They are hard links, or symbolic ones where the
    model stands on another file system. Raises ModelError where the model is none that can be read.
    """
    from trainer.modeling.models import ModelError, load_config, load_tokenizer

    source = Path(given.model)
    if not source.is_dir():
        prepare_hub(given.model)
        from huggingface_hub import snapshot_download

        try:
            source = Path(snapshot_download(given.model, allow_patterns=list(HUB_FILES)))
        except (OSError, ValueError) as error:
            raise ModelError(unreachable(given.model) if not hub_answers() else f"{given.model}: {error}") from error
    weights = sorted(source.glob("*.safetensors"))
    if not weights:
        raise ModelError(f"{given.model} holds no safetensors weights; expected a Hugging Face model folder.")
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    config = load_config(source, changes=given.model_changes)
    # Arms are saved in float32. What reads a checkpoint in its own dtype, as hidden states are read on a GPU, must read
    # base and arms alike, or it would find a difference of rounding.
    config.dtype = torch.float32
    config.save_pretrained(partial)
    load_tokenizer(source, changes=given.model_changes).save_pretrained(partial)
    for path in (*source.glob("*.safetensors.index.json"), *source.glob("generation_config.json")):
        shutil.copyfile(path, partial / path.name)
    for path in weights:
        real = path.resolve()  # the hub's cache names its files by symbolic links
        try:
            os.link(real, partial / path.name)
        except OSError:
            (partial / path.name).symlink_to(real)
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def _check_base(given: GivenBase, *, weights: bool = True) -> None:
    """Raise SettingsError where base.model is a path with no model behind it; a hub's name is left to the hub."""
    from tracekit.core.models import is_path

    folder = Path(given.model)
    if not folder.is_dir():
        if is_path(given.model) or folder.exists():
            raise SettingsError(f"base.model is {given.model}: no folder stands there, and a hub name is owner/name.")
        return
    for pattern in ("config.json", "*.safetensors")[: 2 if weights else 1]:
        if not any(folder.glob(pattern)):
            raise SettingsError(f"base.model is {given.model}, which holds no {pattern}; expected a model folder.")


def _problems_of(rows: pl.DataFrame, known: pl.DataFrame | None) -> pl.DataFrame:
    """PROBLEMS of CURATED rows; kind and level where they are known."""
    problems = rows.unique("problem_id", keep="first", maintain_order=True)
    problems = problems.select("problem_id", "problem", "gold", "source", "split", pl.lit("").alias("kind"))
    if known is not None:
        problems = problems.drop("kind").join(known.select("problem_id", "kind", "level"), on="problem_id", how="left")
    return conform(problems, PROBLEMS, "problems")
