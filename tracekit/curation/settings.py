"""Settings of a curation: a recipe, and the parts of it that no other module of this package owns."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from tracekit.collection.collect import Question
from tracekit.collection.openai_client import Server
from tracekit.core.settings import Settings
from tracekit.curation.export_formats import ExportSettings
from tracekit.curation.filters import FilterSettings, Switchable
from tracekit.curation.select import SelectSettings
from tracekit.curation.verify import VerifySettings
from tracekit.reading.readers import SourceSettings


class DuplicateSettings(Switchable):
    """Thresholds of duplicates, as the Jaccard index of word n-grams in [0, 1].

    1.0 drops exact copies alone; "off" drops none.
    """

    problems: float | None = Field(
        0.9, description="least similarity in [0, 1] of two problem texts that are duplicates, over the whole set"
    )
    traces: float | None = Field(
        None,
        description=(
            "least similarity in [0, 1] of two responses to one problem that are duplicates; off by default, "
            "since a teacher that is sure of itself writes similar responses"
        ),
    )
    n: int = Field(5, ge=1, description="words of a shingle")


class ContaminationSettings(Switchable):
    """Benchmarks that the curated problems must not overlap with."""

    benchmarks: tuple[SourceSettings, ...] = Field(
        (),
        description=(
            "sources of benchmark problems; a problem that shares n words in a row with one of them is dropped"
        ),
    )
    n: int = Field(8, ge=1, description="words in a row that count as overlap")
    near: float | None = Field(
        0.8,
        description=(
            "least Jaccard index in [0, 1] of word 5-grams with a benchmark problem that counts as near; "
            '"off": no such test'
        ),
    )
    template_share: float | None = Field(
        0.01,
        description=(
            "n-grams in more than this share of the set's prompts, and in at least five of them, belong to a "
            'prompt template and do not count; "off": every n-gram counts'
        ),
    )


class ReferenceSettings(Switchable):
    """A model whose samples to each problem say how hard it is, and whether they agree with the gold."""

    question: Question = Field(Question(log_probs=False), description="the request")
    server: Server = Field(Server(), description="the server and how it is called")
    samples: int = Field(8, ge=1, description="answers a problem")
    min_pass_rate: float | None = Field(
        None, ge=0, le=1, description="least share of correct samples, in [0, 1]; None: off"
    )
    max_pass_rate: float | None = Field(
        None, ge=0, le=1, description="greatest share of correct samples, in [0, 1]; None: off"
    )
    max_votes_against: float | None = Field(
        None,
        ge=0,
        le=1,
        description="greatest share of samples that may agree on an answer other than the gold, in [0, 1]; None: off",
    )
    price_in: float = Field(0.0, ge=0, description="price of a million input tokens, for the estimate of --dry-run")
    price_out: float = Field(0.0, ge=0, description="price of a million output tokens, in the same currency")


class CurateSettings(Settings):
    """Settings of a curation; docs/settings.md lists each field.

    Examples
    --------
    >>> from tracekit import CurateSettings, SourceSettings
    >>> CurateSettings(sources=(SourceSettings(path="traces.jsonl"),), seed=1).filters.outcomes
    ('correct',)
    """

    output: Path = Field(Path("runs/curation"), description="the run folder")
    stages: Path | None = Field(
        None, description="folder of measured stages, which several runs may share; None: output/stages"
    )
    data: Path = Field(Path(), description="folder that relative paths of sources start from")
    seed: int = Field(0, description="seed of draws and of the split")
    sources: tuple[SourceSettings, ...] = Field(default=(), min_length=0, description="what is curated")
    workers: int = Field(0, ge=0, description="processes that segment and verify; 0: one a core")
    engine: Literal["local", "ray"] = Field(
        "local",
        description='"ray" distributes the batches of these stages over a Ray cluster; the results are the same',
    )
    tokenizer: str | None = Field(
        None, description="folder or file with a tokenizer.json, or a hub name; None: tokens are words"
    )
    audit_golds: bool = Field(
        True,
        description="drop problems whose reference answer cannot be verified, before any response is compared with it",
    )
    verify: VerifySettings = Field(VerifySettings(), description="how responses are verified")
    filters: FilterSettings = Field(FilterSettings(), description="thresholds of the filters")
    pass_rate_author: str = Field("", description="author whose samples the pass rate counts; empty: all authors")
    duplicates: DuplicateSettings = Field(DuplicateSettings(), description="thresholds of duplicates")
    contamination: ContaminationSettings = Field(ContaminationSettings(), description="benchmarks to keep out")
    select: SelectSettings = Field(SelectSettings(), description="which of the remaining traces of a problem are kept")
    validation: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of problems held out for validation, in [0, 1); duplicates of one problem stay on one side",
    )
    export: ExportSettings = Field(ExportSettings(), description="formats to write")
    wait: float = Field(
        3600.0,
        ge=0,
        description=(
            "seconds to wait for another curation that holds the run folder or the folder of stages; 0: do not wait"
        ),
    )
    reference: ReferenceSettings | None = Field(
        None, description="a reference model that is asked for samples of every problem; None: none"
    )
    operators: tuple[str, ...] = Field(
        default=(),
        description="Python files, or entry points of `tracekit.operators`, with rules, measurements, formats and "
        "exporters of your own; they are run",
    )
    rules: dict[str, Any] = Field(
        default_factory=dict, description='thresholds of your own rules, NAME = value; "off" switches a rule off'
    )

    @property
    def local_workers(self) -> int:
        """Processes a batch may use: under Ray one, for the batches themselves run side by side."""
        return 1 if self.engine == "ray" else self.workers
