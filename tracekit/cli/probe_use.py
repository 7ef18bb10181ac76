"""The commands `probe fit`, `probe apply`, `probe early`, `probe erase` and `probe steer`."""

from __future__ import annotations

from json import dumps
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from evaluators import verify
from probes.protocol.features import Feature, FeatureError, find_feature, label_rows
from probes.protocol.settings import ProtocolSettings
from probes.states.extract import Reading, States, extract_states, model_digest, open_states
from probes.states.positions import load_tokenizer
from probes.use.interventions import (
    Edit,
    answer_greedily,
    editing,
    leace,
    paired_difference,
    random_erasure,
    random_steer,
    steer,
)
from probes.use.saved_probe import SavedProbe, apply_probe, fit_probe, load_probe, save_probe
from probes.use.scores import early_correctness
from tracekit.cli.arguments import print_json
from tracekit.cli.probe_sources import read_source
from tracekit.core.folders import check_claimable, claim_folder
from tracekit.core.models import open_model
from tracekit.core.progress import draw_progress
from tracekit.core.prompts import AS_IT_COMES, make_prompts, read_prompt_settings
from tracekit.core.runs import write_text
from tracekit.core.settings import SettingsError, load_settings
from tracekit.core.tables import (
    PROBLEMS,
    STEPS,
    TRACES,
    TableError,
    check_values,
    conform,
    read_any_table,
    read_table,
    write_table,
)

#: Beside a kept probe: the label of each row of the states that it was fitted from.
LABELS = "labels.parquet"
_APPLIED = ("states", "scores.parquet", "problems.parquet", "traces.parquet", "steps.parquet")
_FIT = ("states", "probe.safetensors", "probe.json", LABELS)

_Output = Annotated[Path, Parameter(name=["--output", "--out"])]


def command_probe_fit(
    *overrides: str,
    model: Path,
    traces: Path,
    feature: str,
    steps: Path | None = None,
    layer: list[int] | None = None,
    output: _Output = Path("probe-fit"),
    token_budget: int = 8192,
    json: bool = False,
) -> None:
    """Fit a linear probe of one feature on one model, and keep it: direction, scaler, bias, calibration.

    The layer is chosen on inner folds and the AUC is held out over problems. Writes probe.safetensors, probe.json and
    the states into the output folder.

    Example: tracekit probe fit --model runs/sft/final --traces curated.parquet --feature value_parity@before_result

    Parameters
    ----------
    overrides
        Protocol settings as key=value, such as position=step_end or max_rows=3000.
    model
        Folder of a causal LM with its tokenizer.
    traces
        Parquet with problem_id, trace_id, problem and response, or the folder of a curation or an evaluation.
    feature
        A binary feature, or a Boolean column of your own; FEATURE@POSITION says where it is read.
    steps
        A STEPS table in Parquet; without it steps.parquet beside the traces, else segmented by rules.
    layer
        Layers to choose from; without it, all.
    output
        Folder of the probe and its states.
    token_budget
        Padded tokens a forward pass.
    json
        Print one JSON object: the probe's layer, held-out AUC, bits, rows, problems and folder.
    """
    check_claimable(output, "probe fit", _FIT)
    settings = load_settings(ProtocolSettings, None, overrides)
    frame, stepwise = read_source(traces, steps)
    wanted = find_feature(feature, frame, stepwise)
    reading = Reading(
        positions=(wanted.at(settings.position),),
        layers=tuple(layer) if layer else None,
        token_budget=token_budget,
    )
    claim_folder(output, "probe fit", _FIT)
    with draw_progress() as progress:
        states = extract_states(model, frame, stepwise, output / "states", reading, progress=progress)
    probe = fit_probe(states, frame, stepwise, wanted, settings, states.layers)
    save_probe(probe, output)
    write_table(labelled_rows(states, frame, stepwise, wanted, probe), output / LABELS)
    if json:
        about = ("feature", "position", "layer", "auc", "bits", "rows", "problems")
        print_json({**{name: getattr(probe, name) for name in about}, "folder": output})
        return
    print(
        f"{probe.feature} at {probe.position}, layer {probe.layer}: held-out AUC {probe.auc:.3f}, "
        f"{probe.bits:+.3f} bits a row, {probe.rows} rows of {probe.problems} problems; {output}"
    )


def command_probe_apply(
    probe: Path,
    *,
    model: Path,
    traces: Path,
    steps: Path | None = None,
    any_model: bool = False,
    position: str | None = None,
    shown: int = 5,
    output: _Output = Path("probe-apply"),
    json: bool = False,
) -> None:
    """Score new traces with a kept probe; list those that it is most sure of and most wrong on.

    What is wrong is known where the new traces have the feature's labels. Writes scores.parquet: the states' index with
    margin and probability. With --position every_token, `tracekit view` of the output folder colours the tokens.

    Example: tracekit probe apply probe-fit --model runs/sft/final --traces eval/completions.parquet

    Parameters
    ----------
    probe
        Folder that `tracekit probe fit` wrote.
    model
        The checkpoint that the probe was fitted on.
    traces
        As of `tracekit probe fit`.
    steps
        As of `tracekit probe fit`.
    any_model
        Allow another checkpoint: a transfer of the direction.
    position
        Read at another position, such as every_token.
    shown
        Rows of each list.
    output
        Folder of the scores and the states.
    json
        Print one JSON object: where the scores are, and both lists.
    """
    check_claimable(output, "probe apply", _APPLIED)
    kept = load_probe(probe)
    frame, stepwise = read_source(traces, steps)
    claim_folder(output, "probe apply", _APPLIED)
    scores = _scores(kept, model, frame, stepwise, output, position, any_model)
    write_table(scores, output / "scores.parquet")
    _write_run(frame, stepwise, output)
    strongest = pl.col("margin").abs()
    lists = {"most sure": scores.sort(strongest, descending=True).head(shown)}
    labelled = _labelled(kept, scores, frame, stepwise)
    if labelled is not None:
        wrong = labelled.filter((pl.col("margin") > 0) != pl.col("label"))
        lists["most wrong"] = wrong.sort(strongest, descending=True).head(shown)
    if json:
        drawn = {title.replace(" ", "_"): rows.to_dicts() for title, rows in lists.items()}
        print_json({"scores": output / "scores.parquet", **drawn})
        return
    console = Console()
    for title, rows in lists.items():
        console.print(_rows_drawn(title, rows))
    console.print(f"{output / 'scores.parquet'}", markup=False)


def command_probe_early(
    probe: Path,
    *,
    model: Path,
    traces: Path,
    steps: Path | None = None,
    output: _Output = Path("probe-early"),
    json: bool = False,
) -> None:
    """Measure how early a kept probe tells a correct answer: AUC after 10, 20, … % of each response.

    The log-probability of the response so far, under the same model, is the baseline. Traces need `correct`, or are
    completions of `tracekit evaluate`. Writes early.parquet.

    Example: tracekit probe early probe-fit --model runs/sft/final --traces eval/completions.parquet

    Parameters
    ----------
    probe
        Folder that `tracekit probe fit` wrote.
    model
        The checkpoint that the probe was fitted on.
    traces
        As of `tracekit probe fit`.
    steps
        As of `tracekit probe fit`.
    output
        Folder of the table and the states.
    json
        Print one JSON object: the table.
    """
    check_claimable(output, "probe early", ("states", "early.parquet"))
    kept = load_probe(probe)
    frame, stepwise = read_source(traces, steps)
    if "correct" not in frame.columns:
        raise TableError(f"{traces} has no column correct; early correctness needs the answer's verdict.")
    reading = Reading(positions=("every_token",), layers=(kept.layer,), log_probs=True)
    claim_folder(output, "probe early", ("states", "early.parquet"))
    with draw_progress() as progress:
        states = extract_states(model, frame, stepwise, output / "states", reading, progress=progress)
    _check_model(kept, states)
    tokens = token_scores(kept, states)
    correct = {t: c for t, c in frame.select("trace_id", "correct").iter_rows() if c is not None}
    table = early_correctness(tokens, correct, ("margin", "mean_margin", "log_prob"))
    write_table(table, output / "early.parquet")
    if json:
        print_json({"table": output / "early.parquet", "early": table.to_dicts()})
        return
    drawn = Table("share", "score", "AUC", "95 % interval", "traces")
    for row in table.iter_rows(named=True):
        interval = f"{row['low']:.3f} … {row['high']:.3f}"
        drawn.add_row(f"{row['share']:.0%}", row["score"], f"{row['auc']:.3f}", interval, str(row["traces"]))
    Console().print(drawn)


def token_scores(kept: SavedProbe, states: States) -> pl.DataFrame:
    """Every token's margin, the means of margin and log-probability so far, and its share of the response."""
    index = states.index.filter(position="every_token")
    margins = kept.margin(states.read(kept.layer, index["row"].to_numpy()))
    return (
        index.with_columns(margin=pl.Series(margins))
        .sort("trace_id", "token", maintain_order=True)
        .with_columns(
            share=(pl.col("token").rank("ordinal") / pl.len()).over("trace_id"),
            mean_margin=(pl.col("margin").cum_sum() / pl.col("margin").cum_count()).over("trace_id"),
            log_prob=(pl.col("log_prob").cum_sum() / pl.col("log_prob").cum_count()).over("trace_id"),
        )
    )


def command_probe_erase(
    probe: Path,
    *,
    model: Path,
    problems: Path,
    states: Path | None = None,
    new_tokens: int = 128,
    seed: int = 0,
    output: _Output = Path("probe-erase"),
    json: bool = False,
) -> None:
    """Erase a feature at the probe's layer (LEACE) and answer problems again: does accuracy fall more than by chance?

    The control erases as many random directions of the whitened states. Answers are greedy and verified; differences
    are paired over problems.

    Example: tracekit probe erase probe-fit --model runs/sft/final --problems problems.parquet

    Parameters
    ----------
    probe
        Folder that `tracekit probe fit` wrote, its states still there.
    model
        The checkpoint that the probe was fitted on.
    problems
        Parquet with problem and gold.
    states
        Folder of the states that the probe was fitted on; without it, `states` in the probe's folder.
    new_tokens
        Tokens of a response at most.
    seed
        Of the random directions.
    output
        Folder of answers.parquet and result.json.
    json
        Print one JSON object: feature, layer, and accuracy and difference of each edit.
    """
    check_claimable(output, "probe edit", ("answers.parquet", "result.json"))
    kept = load_probe(probe)
    x, labels = _fitted_rows(kept, probe, states)
    erased = leace(x, labels)
    edits = [erased, random_erasure(x, erased.left.shape[1], seed)]
    _answer_and_report(kept, model, problems, edits, new_tokens, output, json)


def command_probe_steer(
    probe: Path,
    *,
    model: Path,
    problems: Path,
    strength: list[float] | None = None,
    states: Path | None = None,
    new_tokens: int = 128,
    seed: int = 0,
    output: _Output = Path("probe-steer"),
    json: bool = False,
) -> None:
    """Push along a probe's direction at its layer and answer problems again; a random direction of equal norm controls.

    Example: tracekit probe steer probe-fit --model runs/sft/final --problems problems.parquet --strength 2

    Parameters
    ----------
    probe
        Folder that `tracekit probe fit` wrote, its states still there.
    model
        The checkpoint that the probe was fitted on.
    problems
        Parquet with problem and gold.
    strength
        Standard deviations of the states along the direction; -2 and 2 without it.
    states
        Folder of the states that the probe was fitted on; without it, `states` in the probe's folder.
    new_tokens
        Tokens of a response at most.
    seed
        Of the random direction.
    output
        Folder of answers.parquet and result.json.
    json
        Print one JSON object: feature, layer, and accuracy and difference of each edit.
    """
    check_claimable(output, "probe edit", ("answers.parquet", "result.json"))
    kept = load_probe(probe)
    x, _ = _fitted_rows(kept, probe, states)
    spread = float((x @ kept.raw_direction).std())
    edits = []
    for amount in strength or [-2.0, 2.0]:
        pushed = steer(kept, amount, spread)
        control = random_steer(x.shape[1], amount * spread, seed)
        edits += [_named(pushed, f"steered by {amount:+g} sd"), _named(control, f"random direction by {amount:+g} sd")]
    _answer_and_report(kept, model, problems, edits, new_tokens, output, json)


# ---------------------------------------------------------------- parts


def _named(edit: Edit, name: str) -> Edit:
    return Edit(name, edit.left, edit.right, edit.mean, edit.shift)


def _check_model(kept: SavedProbe, states: States) -> None:
    if states.model != kept.model:
        raise SettingsError(f"the probe was fitted on model {kept.model}; these states are of {states.model}.")


def labelled_rows(
    states: States, frame: pl.DataFrame, stepwise: pl.DataFrame, feature: Feature, probe: SavedProbe
) -> pl.DataFrame:
    """(row, positive) of the states' rows that have a label: what an erasure takes out."""
    index = states.index.filter(position=probe.position)
    labels = label_rows(index, frame, stepwise, feature)
    positive = labels.values.cast(pl.String) == probe.classes[1]
    return index.select("row").with_columns(positive=positive).filter(pl.Series(labels.defined))


def _scores(
    kept: SavedProbe,
    model: Path,
    frame: pl.DataFrame,
    stepwise: pl.DataFrame,
    output: Path,
    position: str | None,
    any_model: bool,
) -> pl.DataFrame:
    moved = SavedProbe(**{**vars(kept), "position": position or kept.position})
    reading = Reading(positions=(moved.position,), layers=(kept.layer,))
    with draw_progress() as progress:
        states = extract_states(model, frame, stepwise, output / "states", reading, progress=progress)
    return apply_probe(moved, states, any_model=any_model)


def _write_run(frame: pl.DataFrame, steps: pl.DataFrame, output: Path) -> None:
    """The traces and problems beside the scores: a folder that `tracekit view` reads."""
    named = {"author": "probed", "gold": "", "source": "", "split": "", "kind": ""}
    whole = frame.with_columns(
        pl.lit(text).alias(column) for column, text in named.items() if column not in frame.columns
    )
    problems = whole.unique("problem_id", keep="first", maintain_order=True)
    write_table(conform(problems, PROBLEMS, "problems"), output / "problems.parquet", PROBLEMS)
    write_table(conform(whole, TRACES, "traces"), output / "traces.parquet", TRACES)
    write_table(steps, output / "steps.parquet", STEPS)


def _labelled(
    kept: SavedProbe, scores: pl.DataFrame, frame: pl.DataFrame, stepwise: pl.DataFrame
) -> pl.DataFrame | None:
    """The scores with the feature's label where the new traces have it; None where they do not."""
    try:
        labels = label_rows(scores, frame, stepwise, find_feature(kept.feature, frame, stepwise))
    except FeatureError:  # new traces need no labels
        return None
    text = labels.values.cast(pl.String)
    return scores.with_columns(label=text == kept.classes[1]).filter(pl.Series(labels.defined))


def _rows_drawn(title: str, rows: pl.DataFrame) -> Table:
    drawn = Table("trace", "step", "character", "margin", "probability", title=title, title_justify="left")
    for row in rows.iter_rows(named=True):
        step = "–" if row["step"] is None else str(row["step"])
        numbers = (f"{row['margin']:+.3f}", f"{row['probability']:.3f}")
        drawn.add_row(row["trace_id"], step, str(row["character"]), *numbers)
    return drawn


def _fitted_rows(kept: SavedProbe, probe: Path, folder: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """(states (n, d), label -1/+1 (n,)) of the rows that the probe was fitted from."""
    states = open_states(folder or probe / "states")
    _check_model(kept, states)
    if not (probe / LABELS).is_file():
        raise TableError(f"{probe} has no {LABELS}; fit the probe again with `tracekit probe fit`.")
    rows = read_table(probe / LABELS, {"row": pl.Int64, "positive": pl.Boolean}, "labels")
    check_values(rows, str(probe / LABELS), ("row", "positive"), unique="row")
    if not rows["row"].is_between(0, len(states.index) - 1).all():
        raise TableError(f"{probe / LABELS} names rows that the states have not; fit the probe again.")
    x = states.read(kept.layer, rows["row"].to_numpy()).astype(np.float64)
    return x, np.where(rows["positive"].to_numpy(), 1.0, -1.0)


def _answer_and_report(
    kept: SavedProbe, folder: Path, problems: Path, edits: list[Edit], new_tokens: int, output: Path, json: bool
) -> None:
    """Answer without and with every edit; write answers.parquet and result.json, and print the differences."""
    if model_digest(folder) != kept.model:
        raise SettingsError(f"the probe was fitted on model {kept.model}; {folder} is another.")
    claim_folder(output, "probe edit", ("answers.parquet", "result.json"))
    frame = read_any_table(problems, "problems")
    if absent := [c for c in ("problem", "gold") if c not in frame.columns]:
        raise TableError(f"{problems} has no column {', '.join(absent)}; expected problems with their golds.")
    tokenizer = load_tokenizer(folder)
    prompts = make_prompts(tokenizer, frame["problem"].to_list(), read_prompt_settings(folder) or AS_IT_COMES)
    model = open_model(folder).eval()
    none = Edit("unchanged", *(np.zeros((len(kept.mean), 0)),) * 2, *(np.zeros(len(kept.mean)),) * 2)
    answers: dict[str, list[str]] = {}
    for edit in (none, *edits):
        with editing(model, kept.layer, edit):
            ids = [prompt.token_ids for prompt in prompts]
            answers[edit.name] = answer_greedily(model, tokenizer, ids, new_tokens=new_tokens)
    right = {name: [verify(r, g).correct for r, g in zip(texts, frame["gold"])] for name, texts in answers.items()}
    write_table(
        frame.select("problem", "gold").with_columns(**{n: pl.Series(t) for n, t in answers.items()}),
        output / "answers.parquet",
    )
    rows: list[dict[str, Any]] = []
    drawn = Table("edit", "accuracy", "difference", "95 % interval")
    for name, correct in right.items():
        effect, low, high = paired_difference(correct, right["unchanged"])
        rows.append({"edit": name, "accuracy": float(np.mean(correct)), "difference": effect, "low": low, "high": high})
        drawn.add_row(name, f"{np.mean(correct):.3f}", f"{effect:+.3f}", f"{low:+.3f} … {high:+.3f}")
    record = {"feature": kept.feature, "layer": kept.layer, "problems": len(frame), "edits": rows}
    write_text(output / "result.json", dumps(record, indent=2) + "\n")
    if json:
        print_json(record)
    else:
        Console().print(drawn)
