"""Settings of a curation: a recipe, and the parts of it that no other module of this package owns."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from tracekit.core.settings import Settings
from tracekit.curation.export import ExportSettings
from tracekit.curation.filters import FilterSettings, Switchable
from tracekit.curation.select import SelectSettings
from tracekit.curation.verify import VerifySettings
from tracekit.reading.readers import SourceSettings


class DuplicateSettings(Switchable):
    """Duplicates by the Jaccard index of word n-grams. 1.0 drops exact copies alone; "off" drops none.

    problems: threshold between problem texts, over the whole set.
    traces: threshold between responses to one problem. Off by default: of eight samples to one problem several are
        alike because the teacher is sure of itself, and a set without them is no longer the teacher's.
    n: words of a shingle.
    """

    problems: float | None = 0.9
    traces: float | None = None
    n: int = 5


class ContaminationSettings(Switchable):
    """Benchmarks that no curated problem may share n words in a row with, nor be near to.

    near: least Jaccard index of word 5-grams to a benchmark row that counts as near; "off" looks for none.
    template_share: n-grams that occur in more than this share of the set's prompts, and in at least five of them,
        are a prompt template and do not count; "off" counts every n-gram.
    """

    benchmarks: tuple[SourceSettings, ...] = ()
    n: int = 8
    near: float | None = 0.8
    template_share: float | None = 0.01


class CurateSettings(Settings):
    """A recipe.

    output: the run folder. stages: where measured stages are kept, to be shared between runs; output/stages
    where not given. data: the folder that relative source paths begin at. seed: of draws and of the split.
    tokenizer: a folder or file with tokenizer.json, or a hub name; without one, tokens are words.
    audit_golds: drop problems whose gold cannot be verified, before anything is held against it.
    pass_rate_author: whose samples the pass rate counts; everybody's where empty.
    workers: processes that segment and verify; 0: one a core.
    engine: "ray" shares the batches of these stages out over a Ray cluster; the results are the same.
    validation: share of problems held back, duplicates of one problem on one side.
    wait: seconds to wait for another curation that holds the run folder or the stages' folder; 0: do not wait.
    """

    output: Path = Path("runs/curation")
    stages: Path | None = None
    data: Path = Path()
    seed: int = 0
    sources: tuple[SourceSettings, ...] = Field(default=(), min_length=0)
    workers: int = 0
    engine: Literal["local", "ray"] = "local"
    tokenizer: str | None = None
    audit_golds: bool = True
    verify: VerifySettings = VerifySettings()
    filters: FilterSettings = FilterSettings()
    pass_rate_author: str = ""
    duplicates: DuplicateSettings = DuplicateSettings()
    contamination: ContaminationSettings = ContaminationSettings()
    select: SelectSettings = SelectSettings()
    validation: float = 0.0
    export: ExportSettings = ExportSettings()
    wait: float = Field(3600.0, ge=0)

    @property
    def local_workers(self) -> int:
        """Processes a batch may use: under Ray one, for the batches themselves run side by side."""
        return 1 if self.engine == "ray" else self.workers
