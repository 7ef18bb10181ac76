"""The command `probe`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import polars as pl
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from probes.protocol.features import Feature, find_feature, label_rows, needed_positions
from probes.protocol.result import ProbeResult
from probes.protocol.run import run_protocol
from probes.protocol.settings import ProtocolSettings
from probes.protocol.trace_sources import Source
from probes.report.report import answer, conclusion, write_report
from probes.states.extract import Reading, extract_states
from probes.states.places import parse_position
from probes.svm.kernels import StatesError
from tracekit.cli.arguments import print_json, recipe_and_settings
from tracekit.cli.probe_sources import read_source
from tracekit.core import runs
from tracekit.core.folders import check_claimable, claim_folder
from tracekit.core.models import open_config
from tracekit.core.progress import draw_progress
from tracekit.core.settings import SettingsError, load_settings

#: What the command writes in its folder, by name.
_WRITES = ("states", "tables", "report.html", "report.md")
#: Names become folders: no separator, and no lone dots.
_NAME = re.compile(r"\w[\w.+-]*")


def command_probe(
    recipe: Path | None = None,
    *overrides: str,
    model: list[str],
    traces: Path,
    feature: list[str] | None = None,
    steps: Path | None = None,
    source: list[str] | None = None,
    source_steps: list[str] | None = None,
    output: Annotated[Path, Parameter(name=["--output", "--out"])] = Path("probe"),
    token_budget: int = 8192,
    untrained: bool = True,
    dry_run: bool = False,
    json: bool = False,
) -> None:
    """Test which features became linearly separable in which model, on identical traces, and write the report.

    Run again after a kill, it goes on where it stood. On several GPUs: accelerate launch -m tracekit.cli probe … .

    Example: tracekit probe --model base=models/base --model sft=runs/sft/final --model rl=runs/luffy/final
    --traces curated.parquet --feature step_correct --feature next_operator --output probe

    Parameters
    ----------
    recipe
        Protocol settings as TOML.
    overrides
        Protocol settings as key=value, such as band=[12,13,14] or permutations=199.
    model
        NAME=FOLDER of a causal LM with its tokenizer; the same name again for another seed. One is called base.
    traces
        Parquet with problem_id, trace_id, problem and response, and the columns that features are read from; or the
        folder of a curation or an evaluation: steps and verdicts that stand there are read too.
    feature
        A feature, or a column of your own in traces or steps.
    steps
        A STEPS table in Parquet; without it steps.parquet beside the traces, else the responses are segmented and
        tagged by rules.
    source
        NAME=FILE of traces by another author, or of a model's own rollouts as `tracekit evaluate` writes them
        (completions.parquet); NAME is then the model's. Every model reads every source.
    source_steps
        NAME=FILE of that source's steps.
    output
        Folder of the states, the tables and the report.
    token_budget
        Padded tokens a forward pass.
    untrained
        Also probe the base's architecture with untrained weights, as a control.
    dry_run
        Check files, features, their balance and the band, print them, and read no model.
    json
        Print one JSON object: the report, the answer and the effects; with --dry-run each feature's balance.
    """
    settings = load_settings(ProtocolSettings, *recipe_and_settings(recipe, overrides, "tracekit.study"))
    if feature:
        settings = settings.model_copy(update={"features": tuple(feature)})
    models = name_models(model, settings.base)
    others, their_steps = name_files(source or (), "--source"), name_files(source_steps or (), "--source-steps")
    if unknown := [name for name in their_steps if name not in others]:
        raise SettingsError(
            f"--source-steps {unknown[0]}: no --source has this name; name it --source {unknown[0]}=FILE."
        )
    check_claimable(output, "probe", _WRITES)
    # All files are read before the first pass through a model: a mistake in the last one costs no hours.
    read = [(traces.name, *read_source(traces, steps), output / "states")]
    read += [(n, *read_source(path, their_steps.get(n)), output / "states" / f"on-{n}") for n, path in others.items()]
    needed_positions(settings.features, settings.position, *read[0][1:3])
    balances = [describe_feature(name, *read[0][1:3]) for name in settings.features]
    check_band(settings, check_depths(models))
    if dry_run:
        if json:
            print_json({"features": [{**vars(one), "feature": one.feature.name} for one in balances]})
        else:
            Console().print(balance_drawn(balances))
        return
    claim_folder(output, "probe", _WRITES)
    with draw_progress() as progress:
        neutral, *own = (
            Source(name, t, s, extract_models(models, t, s, folder, settings, token_budget, untrained, progress))
            for name, t, s, folder in read
        )
        result = run_protocol(neutral, settings, others=own, progress=progress)
    page = write_report(result, output)
    if json:
        effects = result.tables["effects"].filter(estimand=result.settings.estimand)
        told = [{**row, "verdict": conclusion(row)} for row in effects.iter_rows(named=True)]
        print_json({"report": page, "answer": answer(result), "effects": told})
        return
    console = Console()
    console.print(effects_drawn(result))
    console.print(answer(result), markup=False)
    console.print(f"{page}", markup=False)


def name_models(arguments: Sequence[str], base: str) -> dict[str, list[Path]]:
    """NAME=FOLDER arguments → name → one folder for each training seed. Raises SettingsError."""
    models: dict[str, list[Path]] = {}
    for argument in arguments:
        name, equals, folder = argument.partition("=")
        if not equals or not folder or not _NAME.fullmatch(name):
            raise SettingsError(
                f"--model {argument!r}; expected NAME=FOLDER, such as base=models/base, the name of letters, digits "
                "and . _ + - alone."
            )
        models.setdefault(name, []).append(Path(folder))
    if base not in models:
        raise SettingsError(f"no --model is named {base}; name the one to compare with: --model {base}=FOLDER.")
    return models


def name_files(arguments: Sequence[str], option: str) -> dict[str, Path]:
    """NAME=FILE arguments → name → file. Raises SettingsError."""
    files: dict[str, Path] = {}
    for argument in arguments:
        name, equals, path = argument.partition("=")
        if not equals or not path or not _NAME.fullmatch(name) or name in files:
            raise SettingsError(
                f"{option} {argument!r}; expected NAME=FILE, each name once, of letters, digits and . _ + - alone."
            )
        files[name] = Path(path)
    return files


def check_depths(models: dict[str, list[Path]]) -> int:
    """The models' depth. Raises StatesError where they differ: before their states are read, not after."""
    depths: dict[int, list[str]] = {}
    for folder in (folder for folders in models.values() for folder in folders):
        if not (folder / "config.json").is_file():
            raise StatesError(f"{folder} is no checkpoint: it has no config.json.")
        config = open_config(folder).get_text_config()
        depth = getattr(config, "num_hidden_layers", None)
        if not isinstance(depth, int):
            raise StatesError(f"{folder}/config.json says num_hidden_layers {depth!r}; expected a number of layers.")
        depths.setdefault(depth, []).append(str(folder))
    if len(depths) > 1:
        found = "; ".join(f"{depth}: {', '.join(names)}" for depth, names in depths.items())
        raise StatesError(f"models of different depth ({found}) have no common layers; compare models of one depth.")
    return next(iter(depths))


def check_band(settings: ProtocolSettings, depth: int) -> None:
    """Raise SettingsError where the band names layers that the models do not have."""
    absent = [layer for layer in settings.band or () if not 0 <= layer <= depth]
    if absent:
        raise SettingsError(f"band names layers {absent}; the models have layers 0 (embedding) … {depth}.")


@dataclass(frozen=True)
class Balance:
    """A feature's labels before a model is read: rows, problems, and rows of each class (none for real labels)."""

    feature: Feature
    rows: int
    problems: int
    classes: dict[str, int]


def describe_feature(name: str, traces: pl.DataFrame, steps: pl.DataFrame) -> Balance:
    """Count a feature's labels on the steps, or on the traces. Raises FeatureError where they are of one class."""
    feature = find_feature(name, traces, steps)
    of_steps = feature.needs[0] == "steps" or parse_position(feature.position).anchor.startswith(("step", "before_r"))
    rows = steps.select("trace_id", "step") if of_steps else traces.select("trace_id")
    index = rows.join(traces.select("trace_id", "problem_id"), on="trace_id", how="inner")
    if not of_steps:
        index = index.with_columns(step=pl.lit(None, pl.Int32))
    labels = label_rows(index, traces, steps, feature)
    known = index.filter(pl.Series(labels.defined))
    counts = labels.values.filter(pl.Series(labels.defined)).cast(pl.String).value_counts(sort=True)
    classes = {} if labels.task == "real" else dict(counts.iter_rows())
    return Balance(feature, len(known), known["problem_id"].n_unique(), classes)


def balance_drawn(balances: Sequence[Balance]) -> Table:
    """What would be probed, as a table for the terminal."""
    drawn = Table("feature", "position", "rows", "problems", "rows of each class")
    for one in balances:
        classes = ", ".join(f"{name}: {count}" for name, count in one.classes.items()) or "real-valued"
        drawn.add_row(one.feature.name, one.feature.position, str(one.rows), str(one.problems), classes)
    return drawn


def extract_models(
    models: dict[str, list[Path]],
    traces: pl.DataFrame,
    steps: pl.DataFrame,
    out: Path,
    settings: ProtocolSettings,
    token_budget: int,
    untrained: bool,
    progress: runs.Progress,
) -> dict[str, list[Path]]:
    """States of every model and seed at the positions that the features need, into `out`; name → folders."""
    positions = needed_positions(settings.features, settings.position, traces, steps)
    states: dict[str, list[Path]] = {}
    for name, folders in models.items():
        for seed, folder in enumerate(folders):
            reading = Reading(positions, token_budget=token_budget, log_probs=name == settings.base and seed == 0)
            target = out / f"{name}-{seed}"
            states.setdefault(name, []).append(target)
            extract_states(folder, traces, steps, target, reading, progress=progress)
    if untrained and settings.untrained not in models:
        reading = Reading(positions, token_budget=token_budget, untrained=settings.seed)
        target = out / settings.untrained
        extract_states(models[settings.base][0], traces, steps, target, reading, progress=progress)
        states[settings.untrained] = [target]
    return states


def effects_drawn(result: ProbeResult) -> Table:
    """The primary estimand as a table for the terminal."""
    drawn = Table("feature", "contrast", "Δ AUC", "95 % interval", "verdict")
    for row in result.tables["effects"].filter(estimand=result.settings.estimand).iter_rows(named=True):
        drawn.add_row(
            row["feature"],
            f"{row['a']} − {row['b']}",
            f"{row['effect']:+.3f}",
            f"{row['low']:+.3f} … {row['high']:+.3f}",
            conclusion(row),
        )
    return drawn
