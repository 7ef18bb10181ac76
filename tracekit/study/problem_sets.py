"""An evaluation recipe: several problem sets, each with its own number of samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl
from pydantic import Field, PositiveInt

from tracekit.core.recipes import find_recipe, shipped_recipes
from tracekit.core.settings import SettingsError, load_settings
from tracekit.reading.readers import SourceSettings, read_problems, read_source
from trainer.evaluate import EvaluateSettings


class ProblemSet(SourceSettings):
    """One set of problems in a source."""

    kind: str = Field("", description="PROBLEMS.kind of its problems among the source's; empty: all")
    samples: PositiveInt | None = Field(None, description="of a problem; None: the recipe's")

    def read(self, data: Path) -> pl.DataFrame:
        """PROBLEMS of the set; relative paths begin at `data`. Raises SettingsError where the source has none of it."""
        source = SourceSettings.model_validate(self.model_dump(include=set(SourceSettings.model_fields)))
        problems = read_source(source, data).problems
        chosen = problems.filter(pl.col("kind") == self.kind) if self.kind else problems
        if chosen.is_empty():
            kinds = ", ".join(sorted(set(problems["kind"].drop_nulls())))
            raise SettingsError(f"{self.path} has no problem of kind {self.kind}; it has {kinds}.")
        return chosen


class EvaluationRecipe(EvaluateSettings):
    """How models are asked, and which sets."""

    data: Path = Field(Path(), description="where relative paths begin")
    sets: tuple[ProblemSet, ...] = Field(min_length=1, description="the sets")

    def asked(self, of: ProblemSet) -> EvaluateSettings:
        """The settings of one set."""
        tree = self.model_dump(exclude={"data", "sets"}, exclude_unset=True)
        return EvaluateSettings.model_validate(tree | ({} if of.samples is None else {"samples": of.samples}))


@dataclass(frozen=True, slots=True)
class Asked:
    """A set's name ("" for a table that is alone), its PROBLEMS, and how they are asked."""

    name: str
    problems: pl.DataFrame
    settings: EvaluateSettings


def read_sets(problems: str, overrides: Sequence[str]) -> list[Asked]:
    """The sets of an evaluation recipe (a TOML file, or the name of one that comes along), or one table or source."""
    if not problems.endswith(".toml") and problems not in {recipe.stem for recipe in shipped_recipes("tracekit")}:
        return [Asked("", read_problems(problems), load_settings(EvaluateSettings, None, overrides))]
    recipe = load_settings(EvaluationRecipe, find_recipe(problems, "tracekit"), overrides)
    return [Asked(one.name or Path(one.path).stem, one.read(recipe.data), recipe.asked(one)) for one in recipe.sets]
