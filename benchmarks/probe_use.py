"""Is what a probe finds used? Interchange, erasure and steering on trained models, and probes as verifiers.

    python benchmarks/probe_use.py runs/sealed --run edge.sft-0 --run edge.luffy-1 --mixed sealed.luffy-4 --out FOLDER

Cause: states are read at the operation's token, before the result is written. The subspace of the running value (one
direction a value, LEACE) and the direction of its parity are taken from another problem's state (interchange), erased
at every token, or pushed along; a random subspace of equal rank is the control. The world's arithmetic is exact, so
that the right continuation of every interchange is known. Score: the models' own samples at temperature 1; probes are
fitted on half of the problems and read on the other half. Writes use.md into FOLDER.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats
from threadpoolctl import threadpool_limits

from evaluators import verify
from probes.protocol.features import find_feature
from probes.protocol.settings import ProtocolSettings
from probes.protocol.trace_sources import rollouts_as_traces
from probes.states.extract import Reading, extract_states
from probes.states.places import place
from probes.states.positions import load_tokenizer, tokenise
from probes.use.interchange import interchange, whole_state
from probes.use.interventions import (
    Edit,
    answer_greedily,
    editing,
    leace,
    paired_difference,
    random_erasure,
    random_steer,
)
from probes.use.saved_probe import fit_probe
from probes.use.scores import best_of_n, early_correctness, weighted_vote
from tracekit.cli.probe_use import token_scores
from tracekit.core.models import open_model
from tracekit.core.prompts import AS_IT_COMES, make_prompts, read_prompt_settings
from tracekit.core.runs import no_progress
from tracekit.study.tasks.chains import World, label_steps, make_problems
from tracekit.study.tasks.teachers import teach
from trainer.evaluate import EvaluateSettings, evaluate_model

LAYERS = (1, 2, 3)
FITTED, PAIRS, ANSWERED = 400, 256, 96
SAMPLED, SAMPLES = 240, 8
SETTINGS = ProtocolSettings(fit="least_squares", repeats=1, permutations=19, draws=20, max_rows=2000)


@dataclass(frozen=True)
class Read:
    """A model's states before every result: x[layer] (n, d), value and parity (n,), ids and token of each row."""

    x: dict[int, np.ndarray]
    value: np.ndarray
    problem: np.ndarray
    ids: list[list[int]]
    at: np.ndarray


def read_values(model: Path, world: World, count: int, seed: int, folder: Path) -> Read:
    """Right worked traces of new problems, read before each result."""
    problems = make_problems(world, "test", count, seed)
    written = teach(world, problems, seed)
    traces, steps = written.join(problems.drop("source"), on="problem_id"), label_steps(problems, written, world)
    states = extract_states(model, traces, steps, folder, Reading(("before_result",), layers=LAYERS))
    sequences = tokenise(load_tokenizer(model), traces, read_prompt_settings(model) or AS_IT_COMES)
    rows = place(sequences, traces, steps, ["before_result"])
    values = states.index.join(
        steps.select("trace_id", "step", "value"), on=["trace_id", "step"], maintain_order="left"
    )
    return Read(
        {layer: states.layer(layer).astype(np.float64) for layer in LAYERS},
        values["value"].to_numpy().astype(int),
        np.array([row.sequence for row in rows]),
        [sequences[row.sequence].token_ids for row in rows],
        np.array([row.last for row in rows]),
    )


def subspaces(read: Read, layer: int) -> dict[str, Edit]:
    """What is interchanged or erased, by name; the random ones have the rank of the one that they stand beside."""
    x = read.x[layer]
    value = leace(x, (read.value[:, None] == np.unique(read.value)).astype(float))
    parity = leace(x, np.where(read.value % 2 == 1, 1.0, -1.0))
    return {
        "value": value,
        "random, rank of the value's": random_erasure(x, value.left.shape[1], 1),
        "parity": parity,
        "random, rank 1": random_erasure(x, 1, 2),
    }


# ---------------------------------------------------------------- interchange


def interchange_rows(name: str, model: Any, tokenizer: Any, fitted: Read, fresh: Read) -> list[str]:
    """How often the model goes on with the source's result, and with a result of the source's parity."""
    random = np.random.default_rng(5)
    pairs = [(a, b) for a, b in random.permutation(len(fresh.value))[: 4 * PAIRS].reshape(-1, 2)]
    pairs = [p for p in pairs if fresh.at[p[0]] == fresh.at[p[1]] and fresh.value[p[0]] != fresh.value[p[1]]]
    base, source = np.array(pairs[:PAIRS]).T
    length = int(fresh.at[base].max()) + 1
    ids = np.array([row[:length] for row in fresh.ids])
    numbers = np.array([tokenizer.convert_tokens_to_ids(str(v)) for v in range(30)])
    lines = []
    for layer in LAYERS:
        parts = {"whole state": whole_state(fitted.x[layer].shape[1]), **subspaces(fitted, layer)}
        for part, edit in parts.items():
            logits = interchange(model, layer, edit, ids[base], ids[source], fresh.at[base])
            said = logits[:, numbers].argmax(1)
            odd = fresh.value[base] % 2 != fresh.value[source] % 2
            cells = [
                _share(said == fresh.value[source]),
                _share(said == fresh.value[base]),
                _share((said % 2 == fresh.value[source] % 2)[odd]),
            ]
            lines.append(f"| {name} | {layer} | {part} | {edit.left.shape[1]} | {' | '.join(cells)} |")
    return lines


def _share(hits: np.ndarray) -> str:
    """Per cent with its 95 % Clopper-Pearson interval."""
    k, n = int(hits.sum()), len(hits)
    low = stats.beta.ppf(0.025, k, n - k + 1) if k else 0.0
    high = stats.beta.ppf(0.975, k + 1, n - k) if k < n else 1.0
    return f"{100 * k / n:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


# ---------------------------------------------------------------- erasure and steering


def edit_rows(name: str, model: Any, tokenizer: Any, path: Path, fitted: Read, problems: pl.DataFrame) -> list[str]:
    """Accuracy of greedy answers under every edit, its paired difference to the unchanged model's."""
    settings = read_prompt_settings(path) or AS_IT_COMES
    prompts = [p.token_ids for p in make_prompts(tokenizer, problems["problem"].to_list(), settings)]
    width = fitted.x[1].shape[1]
    unchanged = Edit("unchanged", *(np.zeros((width, 0)),) * 2, *(np.zeros(width),) * 2)

    def answered(layer: int, edit: Edit) -> list[bool]:
        with editing(model, layer, edit):
            texts = answer_greedily(model, tokenizer, prompts, new_tokens=40)
        return [bool(verify(text, gold).correct) for text, gold in zip(texts, problems["gold"])]

    before = answered(1, unchanged)
    lines = [f"| {name} | – | unchanged | {np.mean(before):.3f} | – | – |"]
    for layer in LAYERS:
        for what, edit in {**subspaces(fitted, layer), **_pushes(fitted, layer)}.items():
            correct = answered(layer, edit)
            effect, low, high = paired_difference(correct, before)
            verb = what if "sd" in what else f"{what} erased"
            lines.append(
                f"| {name} | {layer} | {verb} | {np.mean(correct):.3f} | {effect:+.3f} | [{low:+.3f}, {high:+.3f}] |"
            )
    return lines


def _pushes(fitted: Read, layer: int, amount: float = 2.0) -> dict[str, Edit]:
    """Along the difference of the parities' means by two standard deviations, and a random direction as long."""
    x, odd = fitted.x[layer], fitted.value % 2 == 1
    direction = x[odd].mean(0) - x[~odd].mean(0)
    direction = direction / np.linalg.norm(direction)
    length = amount * float((x @ direction).std())
    none = np.zeros((x.shape[1], 0))
    return {
        "parity +2 sd": Edit("steered", none, none, np.zeros(x.shape[1]), direction * length),
        "random direction as long as +2 sd": random_steer(x.shape[1], length, 3),
    }


# ---------------------------------------------------------------- scores


def score_lines(name: str, study: Path, world: World, folder: Path) -> list[str]:
    """Early correctness, best of n and votes on a model's own samples, fitted on half of the problems."""
    path = study / "models" / name / "final"
    asked = EvaluateSettings(temperatures=(1.0,), samples=SAMPLES, max_tokens=40, prompt_tokens=64, threads=1, seed=1)
    problems = make_problems(world, "test", SAMPLED, 8004)
    samples = evaluate_model(path, problems, asked, folder / "answers", no_progress)
    traces = rollouts_as_traces(
        samples.filter(pl.col("temperature") == 1.0).join(problems, on="problem_id", how="semi")
    )
    traces = traces.filter(pl.col("correct").is_not_null())
    steps = label_steps(traces.select("problem_id", "problem").unique(), traces, world)
    reading = Reading(("every_token",), layers=LAYERS, log_probs=True)
    states = extract_states(path, traces, steps, folder / "states", reading)
    names = np.random.default_rng(11).permutation(traces["problem_id"].unique().sort().to_numpy())
    fitting = pl.col("problem_id").is_in(names[: len(names) // 2])
    feature = find_feature("correct@every_token", traces, steps)
    probe = fit_probe(
        states, traces.filter(fitting), steps, feature, SETTINGS.model_copy(update={"max_rows": 8000}), LAYERS
    )
    tokens = token_scores(probe, states).filter(~fitting)
    correct = dict(traces.filter(~fitting).select("trace_id", "correct").iter_rows())
    early = early_correctness(tokens, correct, ("margin", "mean_margin", "log_prob"))
    lines = [f"`{name}`: {len(correct)} samples of {len(names) - len(names) // 2} problems, "]
    lines[0] += (
        f"{np.mean(list(correct.values())):.3f} correct; probe of layer {probe.layer}, held-out AUC {probe.auc:.3f}."
    )
    lines += [
        "",
        "| share of the response | "
        + " | ".join(f"{s:.0%}" for s in early["share"].unique(maintain_order=True))
        + " |",
    ]
    lines += ["|---|" + "---|" * early["share"].n_unique()]
    for score, part in early.group_by("score", maintain_order=True):
        cells = [f"{r['auc']:.3f} [{r['low']:.3f}, {r['high']:.3f}]" for r in part.iter_rows(named=True)]
        lines.append(f"| {score[0]} | {' | '.join(cells)} |")
    return [*lines, "", *_chosen(traces.filter(~fitting), tokens, probe)]


def _chosen(traces: pl.DataFrame, tokens: pl.DataFrame, probe: Any) -> list[str]:
    """Accuracy over problems of every way to choose among the samples."""
    last = tokens.sort("share").unique("trace_id", keep="last", maintain_order=True)
    boxed = traces.with_columns(answer=pl.col("response").str.extract(r"\\boxed\{(.*)\}"))
    scored = boxed.join(last.select("trace_id", "mean_margin", "log_prob"), on="trace_id")
    scored = scored.with_columns(weight=pl.Series(probe.probability(scored["mean_margin"].to_numpy())))
    one = scored.group_by("problem_id").agg(pl.col("correct").mean())["correct"]
    ways = [
        best_of_n(scored, "mean_margin"),
        best_of_n(scored, "log_prob"),
        weighted_vote(scored),
        weighted_vote(scored, "weight"),
    ]
    lines = [
        "| way | accuracy | standard error |",
        "|---|---|---|",
        f"| one sample | {one.mean():.3f} | {one.std() / len(one) ** 0.5:.3f} |",
    ]
    return [*lines, *(f"| {w.name} | {w.accuracy:.3f} | {w.standard_error:.3f} |" for w in ways), ""]


# ---------------------------------------------------------------- all


def run_all(study: Path, runs: Sequence[str], mixed: Sequence[str], out: Path) -> list[str]:
    """Every table as Markdown."""
    world = World(**json.loads((study / "run.json").read_text())["settings"]["world"])
    swaps, edits, scores = [], [], []
    for name in runs:
        path = study / "models" / name / "final"
        model, tokenizer = open_model(path).eval(), load_tokenizer(path)
        fitted = read_values(path, world, FITTED, 8001, out / "states" / f"{name}-fitted")
        fresh = read_values(path, world, FITTED, 8002, out / "states" / f"{name}-fresh")
        problems = make_problems(world, "test", ANSWERED, 8003)
        swaps += interchange_rows(name, model, tokenizer, fitted, fresh)
        edits += edit_rows(name, model, tokenizer, path, fitted, problems)
        print(name, flush=True)
    for name in mixed:
        scores += score_lines(name, study, world, out / "states" / f"{name}-samples")
    return [
        "## Interchange at the operation's token: per cent [95 %]",
        "",
        f"Up to {PAIRS} pairs at the same token, results different; last column: where their parity differs.",
        "",
        "| run | layer | taken from the source | rank | source's result follows | its own | source's parity |",
        "|---|---|---|---|---|---|---|",
        *swaps,
        "",
        f"## Erased or steered at every token: greedy answers to {ANSWERED} problems",
        "",
        "| run | layer | edit | accuracy | difference | 95 % |",
        "|---|---|---|---|---|---|",
        *edits,
        "",
        f"## Early prediction of the answer's correctness; choosing among {SAMPLES} samples",
        "",
        *scores,
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a study with rungs")
    parser.add_argument("--run", action="append", default=[], help="runs that solve their problems")
    parser.add_argument("--mixed", action="append", default=[], help="runs whose samples are partly right")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with threadpool_limits(1):
        lines = run_all(arguments.study, arguments.run, arguments.mixed, arguments.out)
    (arguments.out / "use.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
