"""A dry run: what a recipe would do, with what it finds of model and data, and what that would take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from rich.table import Table
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from tracekit.core.settings import SettingsError, load_settings
from tracekit.core.tables import CURATED, PROBLEMS, read_table
from trainer.data.sequences import Encoded, encode_curated, encode_problems, encode_text, preference_pairs
from trainer.modeling import models
from trainer.planning.estimate import HARDWARE, Estimate, Hardware, Workload, estimate
from trainer.settings import POLICY, TrainSettings


@dataclass(frozen=True, slots=True)
class Plan:
    """One run, or one stage of it. found: what of `work` comes from the data; skipped: rows that would be left out."""

    settings: TrainSettings
    work: Workload
    found: tuple[str, ...]
    skipped: Counter[str]
    hardware: Hardware
    estimate: Estimate


def plan_run(recipe: Path | None, overrides: Sequence[str], hardware: str) -> list[Plan]:
    """The plan of each stage of a recipe. overrides: settings, and `work.` and `hardware.` keys among them.

    Raises SettingsError, and ModelError where configuration or tokenizer cannot be read.
    """
    if hardware not in HARDWARE:
        raise SettingsError(f"hardware is {hardware!r}; expected one of {', '.join(HARDWARE)}.")
    machine_words, work_words = _of("hardware.", overrides), _of("work.", overrides)
    own = [word for word in overrides if not word.startswith(("hardware.", "work."))]
    machine = HARDWARE[hardware].model_copy(
        update=load_settings(Hardware, None, machine_words).model_dump(exclude_unset=True)
    )
    told = load_settings(Workload, None, work_words).model_dump(exclude_unset=True)
    settings = load_settings(TrainSettings, recipe, own)
    stages = settings.stage_settings() if settings.stages else [settings]
    config, tokenizer = _model(stages[0])
    plans = []
    for stage in stages:
        found, skipped = measured(stage, tokenizer)
        work = load_settings(Workload).model_copy(update=found | told)
        plans.append(Plan(stage, work, tuple(found), skipped, machine, estimate(config, stage, work, machine)))
    return plans


def measured(settings: TrainSettings, tokenizer: PreTrainedTokenizerBase) -> tuple[dict[str, Any], Counter[str]]:
    """Mean lengths and number of rows of the tables that stand on disk, through the tokenizer, and what is left out."""
    data, found, skipped = settings.data, dict[str, Any](), Counter[str]()
    if settings.method in ("pretrain", "cpt") and data.text is not None and data.text.is_file():
        texts = read_table(data.text, {"text": pl.String}, "text")["text"].to_list()
        encoded = encode_text(texts, tokenizer, data)
        found |= {"teacher_tokens": _mean(len(row.token_ids) for row in encoded.rows), "rows": len(encoded.rows)}
        return found, encoded.skipped
    if data.curated is not None and data.curated.is_file():
        curated = read_table(data.curated, CURATED, "curated").filter(pl.col("correct"))
        encoded = encode_curated(curated, tokenizer, data)
        found |= _lengths(encoded) | {"teacher_tokens": _mean(row.response_length for row in encoded.rows)}
        skipped += encoded.skipped
        if settings.method == "dpo":
            every = read_table(data.curated, CURATED, "curated")
            found["rows"] = len(preference_pairs(every, settings.dpo.pairs_per_problem, settings.seed))
    if settings.method in POLICY and data.problems is not None and data.problems.is_file():
        encoded = encode_problems(read_table(data.problems, PROBLEMS, "problems")["problem"].to_list(), tokenizer, data)
        found |= _lengths(encoded)
        skipped += encoded.skipped
    if not all(found.values()):
        raise SettingsError(f"no row of the tables is within the limits; left out: {dict(skipped)}.")
    return found, skipped


def plan_table(plan: Plan) -> Table:
    """The plan as a person reads it."""
    settings, found = plan.settings, plan.estimate
    drawn = Table(title=f"{settings.method}: {settings.model or 'a new model'}", show_header=False)
    drawn.add_row("parameters", f"{found.parameters:,}")
    for name, value in plan.work.model_dump().items():
        drawn.add_row(name.replace("_", " "), f"{value:,.6g}", "from the data" if name in plan.found else "assumed")
    for reason, count in plan.skipped.items():
        drawn.add_row("left out", f"{count:,}", reason)
    drawn.add_row("steps", f"{found.steps:,}")
    drawn.add_row("tokens sampled, trained", f"{found.tokens_sampled:.3g}, {found.tokens_trained:.3g}")
    drawn.add_section()
    for stage, hours in found.hours.items():
        flops = f"{found.flops[stage]:.3g} FLOPs" if stage in found.flops else ""
        drawn.add_row(f"hours of {stage}", f"{hours:,.3g}", flops)
    drawn.add_row("device-hours", f"{found.device_hours:,.3g}", f"{found.devices} devices; an estimate")
    drawn.add_section()
    for part, size in found.memory.items():
        drawn.add_row(f"GB of {part}", f"{size / 1e9:,.3g}")
    fits = "of" if found.peak <= plan.hardware.memory else "does not fit into"
    drawn.add_row("GB at once", f"{found.peak / 1e9:,.3g}", f"{fits} {plan.hardware.memory / 1e9:.0f} a device")
    return drawn


def _model(settings: TrainSettings) -> tuple[PreTrainedConfig, PreTrainedTokenizerBase]:
    if settings.new_model is not None:
        tokenizer = models.load_tokenizer(settings.new_model.tokenizer)
        return models.new_config(settings.new_model, tokenizer), tokenizer
    assert settings.model is not None  # TrainSettings holds this
    trusted, changes = settings.trust_remote_code, settings.model_changes
    tokenizer = models.load_tokenizer(settings.model, trust_remote_code=trusted, changes=changes)
    return models.load_config(settings.model, trust_remote_code=trusted, changes=changes), tokenizer


def _of(prefix: str, words: Sequence[str]) -> list[str]:
    return [word.removeprefix(prefix) for word in words if word.startswith(prefix)]


def _lengths(encoded: Encoded) -> dict[str, Any]:
    return {"prompt_tokens": _mean(row.prompt_length for row in encoded.rows), "rows": len(encoded.rows)}


def _mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0
