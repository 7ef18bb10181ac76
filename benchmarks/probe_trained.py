"""What the arms of a study with rungs changed inside: probes on its trained models, exploratory.

    python benchmarks/probe_trained.py runs/sealed --rung edge --rung sealed --out FOLDER

Every model reads the same worked traces of problems that no run was trained or tested on. Features are read before they
are written: the result's parity and size at the operation's token, the next operator and whether another step comes at
the end of the step before. Of each feature the arms are compared with the base of the same seed, over the mean of all
blocks and at one site a base: the first block where the base's AUC lies between .6 and .95, found on other problems.
Arms of the unknown operation (gap_…) read its problems: --arm gap_sft --feature square_large@before_result asks for its
square before it is written. Holm's correction runs over all contrasts of a rung and place. Writes trained.md and tables
into FOLDER.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from threadpoolctl import threadpool_limits

from probes.protocol.cells import Probed, held_out_decisions
from probes.protocol.effects import effect_table
from probes.protocol.estimands import auc, value
from probes.protocol.feature_plan import plan_feature
from probes.protocol.features import find_feature, needed_positions
from probes.protocol.known_answers import known_answer_rows
from probes.protocol.result import cell_table
from probes.protocol.run import probe_feature
from probes.protocol.settings import ProtocolSettings
from probes.protocol.trace_sources import Source, group_by_text
from probes.states.alignment import align, open_models
from probes.states.extract import Reading, extract_states
from probes.statistics.equivalence import Effect, crossed_effect
from probes.statistics.holm import holm
from probes.statistics.power import power_of, smallest_detectable
from tracekit.core.runs import no_progress
from tracekit.study.tasks.chains import SQUARE, Split, World, label_steps, make_problems
from tracekit.study.tasks.teachers import teach

FEATURES = ("result_parity", "value_size@before_result", "next_operator", "step_kind@step_start-1", "step_correct")
ARMS = ("sft", "grpo", "luffy")
BLOCKS = (1, 2, 3)
#: AUC of the base between which a site can still rise and already holds the feature.
SITE = (0.6, 0.95)
SETTINGS = ProtocolSettings(
    features=FEATURES,
    fit="least_squares",
    repeats=1,
    permutations=49,
    draws=100,
    max_rows=2400,
    estimands=("stratified",),
    band=BLOCKS,
)
PROBLEMS, CHOOSING = 600, 200


@dataclass(frozen=True)
class Material:
    """Problems and worked traces that nobody was trained on, half of the traces with one wrong step."""

    traces: pl.DataFrame
    steps: pl.DataFrame


#: Whether the square that the unknown operation ^ works with is in the upper half: a step column of ours.
SQUARE_LARGE = "square_large"


def make_material(study: Path, count: int, seed: int, split: Split = "test") -> Material:
    """Draw them in the study's world."""
    world = World(**json.loads((study / "run.json").read_text())["settings"]["world"])
    known = pl.concat(
        [pl.read_parquet(path)["problem"] for path in sorted((study / "world").glob(f"{split}-*.parquet"))]
    )
    problems = make_problems(world, split, count, seed, frozenset(known))
    written = teach(world.model_copy(update={"teacher_errors": 0.5}), problems, seed)
    steps = label_steps(problems, written, world)
    square = pl.when(pl.col("operator") == SQUARE).then(pl.col("value") >= world.modulus / 2)
    steps = steps.with_columns(square.alias(SQUARE_LARGE))
    return Material(written.join(problems.drop("source"), on="problem_id"), steps)


def checkpoints(study: Path, rung: str, arms: Sequence[str]) -> dict[str, list[Path]]:
    """name → checkpoint of each seed at which the base and all arms are finished; "base" first."""
    done = {path.stem for path in (study / "results").glob(f"{rung}*.json")}
    seeds = [s for s in range(100) if all(name in done for name in (f"{rung}-{s}", *(f"{rung}.{a}-{s}" for a in arms)))]
    if not seeds:
        raise SystemExit(f"{study}: no seed of rung {rung} has the base and {', '.join(arms)}.")
    bases = [study / json.loads((study / f"results/{rung}-{s}.json").read_text())["model"] for s in seeds]
    return {"base": bases} | {a: [study / f"models/{rung}.{a}-{s}/final" for s in seeds] for a in arms}


def read_states(
    models: dict[str, list[Path]], material: Material, features: Sequence[str], folder: Path
) -> dict[str, list[Path]]:
    """Extract the states of every checkpoint at every feature's place; name → folders."""
    positions = needed_positions(features, None, material.traces, material.steps)
    found: dict[str, list[Path]] = {}
    for name, paths in models.items():
        for number, path in enumerate(paths):
            target = folder / f"{name}-{number}"
            extract_states(path, material.traces, material.steps, target, Reading(positions, layers=BLOCKS))
            found.setdefault(name, []).append(target)
    return found


# ---------------------------------------------------------------- one site a base


def choose_sites(material: Material, states: dict[str, list[Path]], name: str) -> dict[int, int]:
    """seed → first block where the base's held-out AUC lies inside SITE, on the choosing problems."""
    bases = open_models({"base": states["base"]})
    feature = find_feature(name, material.traces, material.steps)
    aligned = align(bases, feature.position)
    plan = plan_feature(aligned, feature, material.traces, material.steps, group_by_text(material.traces), SETTINGS)
    sites = {}
    for seed in range(len(bases["base"])):
        for layer in BLOCKS:
            decisions = held_out_decisions(aligned.layer("base", seed, layer, plan.rows), plan)
            if SITE[0] <= value(auc, decisions, plan.scored_rows()) <= SITE[1]:
                sites[seed] = layer
                break
    return sites


def site_effect(one: Probed, arm: str, sites: dict[int, int]) -> Effect:
    """Arm less base over the seeds that have a site, each at its own."""
    pairs = [(one.cells[arm, seed, layer], one.cells["base", seed, layer]) for seed, layer in sites.items()]
    differences = np.array([a.statistics["delta"] - b.statistics["delta"] for a, b in pairs])
    draws = np.stack([a.draws["delta"] - b.draws["delta"] for a, b in pairs], axis=1)
    return crossed_effect(differences, draws, one.plan.problems)


# ---------------------------------------------------------------- tables


def decided(effect: Effect, p: float, p_same: float) -> str:
    """The conclusion at 5 % after Holm's correction; what lies inside the margin is no change, however sure."""
    if p_same < SETTINGS.alpha:
        return f"equivalent within ±{SETTINGS.margin:g}"
    if p < SETTINGS.alpha:
        return "gained" if effect.estimate > 0 else "lost"
    return "open"


def models_of(one: Probed) -> list[str]:
    """The models that were measured, the base first."""
    return list(dict.fromkeys(name for name, *_ in one.cells))


def site_rows(rung: str, probed: dict[str, Probed], sites: dict[str, dict[int, int]]) -> list[dict[str, object]]:
    """One row a (feature, arm) with sites, under one Holm correction."""
    keys = [(f, a) for f in probed for a in models_of(probed[f])[1:] if sites[f]]
    effects = [site_effect(probed[f], a, sites[f]) for f, a in keys]
    p = holm(np.array([e.p_different() for e in effects]))
    same = holm(np.array([e.p_equivalent(SETTINGS.margin) for e in effects]))
    alpha = SETTINGS.alpha / max(len(keys), 1)
    rows = []
    for (feature, arm), effect, a, b in zip(keys, effects, p, same):
        low, high = effect.interval()
        bases = [probed[feature].cells["base", s, layer].auc for s, layer in sites[feature].items()]
        rows.append(
            {
                "rung": rung,
                "feature": feature,
                "arm": arm,
                "bases": len(bases),
                "base": float(np.mean(bases)),
                "effect": effect.estimate,
                "low": low,
                "high": high,
                "p_holm": float(a),
                "sd_seeds": (effect.seed_variance * effect.seeds) ** 0.5,
                "detectable": smallest_detectable(effect, alpha),
                "power_03": power_of(effect, 0.03, alpha),
                "conclusion": decided(effect, float(a), float(b)),
            }
        )
    return rows


def measure_rung(study: Path, rung: str, features: Sequence[str], arms: Sequence[str], out: Path) -> list[str]:
    """Probe every model of a rung; tables into `out`, and the Markdown lines of the report."""
    models = checkpoints(study, rung, arms)
    split: Split = "gap" if all(arm.startswith("gap") for arm in arms) else "test"
    material, other = (make_material(study, *drawn, split) for drawn in ((PROBLEMS, 7001), (CHOOSING, 7002)))
    states = read_states(models, material, features, out / "states" / rung)
    choosing = read_states({"base": models["base"]}, other, features, out / "states" / f"{rung}-choosing")
    source = Source("world", material.traces, material.steps, states)
    probed, known = {}, []
    for name in features:
        feature = find_feature(name, material.traces, material.steps)
        aligned = align(open_models(states), feature.position)
        groups = group_by_text(material.traces)
        probed[name] = probe_feature(aligned, feature, source, groups, BLOCKS, SETTINGS, no_progress)
        known += known_answer_rows(aligned, probed[name], BLOCKS[:1], SETTINGS)
        print(rung, name, flush=True)
    sites = {name: choose_sites(other, choosing, name) for name in features}
    effects = effect_table(probed, [(arm, "base") for arm in arms], BLOCKS, SETTINGS).filter(estimand="delta")
    frames = {
        "cells": cell_table(probed, SETTINGS),
        "effects": effects,
        "known": pl.DataFrame(known, infer_schema_length=None),
        "sites": pl.DataFrame(site_rows(rung, probed, sites), infer_schema_length=None),
    }
    for name, frame in frames.items():
        frame.write_parquet(out / f"{rung}-{name}.parquet")
    alone = {name: (one.position, one.text) for name, one in probed.items()}
    return report(rung, frames, alone, len(models["base"]))


def report(
    rung: str, frames: dict[str, pl.DataFrame], alone: dict[str, tuple[object, object]], bases: int
) -> list[str]:
    """The rung's section."""
    lines = [f"## Rung `{rung}`: {bases} bases, {PROBLEMS} problems", ""]
    lines += ["AUC by block, mean over bases.", "", "| feature | position, text alone | model | block 1 | 2 | 3 |"]
    lines += ["|---|---|---|---|---|---|"]
    means = frames["cells"].group_by("feature", "model", "layer", maintain_order=True).agg(pl.col("auc").mean())
    for (feature, model), part in means.group_by("feature", "model", maintain_order=True):
        text = ", ".join(f"{x:.3f}" for x in alone[str(feature)])
        lines.append(f"| {feature} | {text} | {model} | " + " | ".join(f"{a:.3f}" for a in part["auc"]) + " |")
    lines += ["", "Arm − base, mean of the blocks.", ""]
    lines += [
        "| feature | arm | base | Δ | 95 % | Holm p | found in 80 % from | conclusion |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for r in frames["effects"].iter_rows(named=True):
        interval = f"[{r['low']:+.3f}, {r['high']:+.3f}]"
        verdict = r["direction"] or r["verdict"]
        lines.append(
            f"| {r['feature']} | {r['a']} | {r['auc_b']:.3f} | {r['effect']:+.4f} | {interval} | {_p(r['p_holm'])} | "
            f"{r['detectable']:.3f} | {verdict} |"
        )
    lines += ["", f"At each base's site, where AUC lies in {SITE[0]} … {SITE[1]}.", ""]
    lines += [
        "| feature | arm | bases | base | Δ | 95 % | Holm p | sd over bases | found in 80 % from | power at .03 | |"
    ]
    lines += ["|---|---|---|---|---|---|---|---|---|---|---|"]
    for r in frames["sites"].iter_rows(named=True):
        lines.append(
            f"| {r['feature']} | {r['arm']} | {r['bases']} | {r['base']:.3f} | {r['effect']:+.4f} | "
            f"[{r['low']:+.3f}, {r['high']:+.3f}] | {_p(r['p_holm'])} | {r['sd_seeds']:.4f} | {r['detectable']:.3f} | "
            f"{r['power_03']:.2f} | {r['conclusion']} |"
        )
    return [*lines, ""]


def _p(p: float | None) -> str:
    return "–" if p is None or not np.isfinite(p) else f"{p:.2g}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study", type=Path, help="folder of a finished study with rungs")
    parser.add_argument("--rung", action="append", required=True)
    parser.add_argument("--feature", action="append", help=f"default: {', '.join(FEATURES)}")
    parser.add_argument("--arm", action="append", help=f"default: {', '.join(ARMS)}")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    lines = ["# Probes on the trained models of a study (exploratory)", ""]
    for rung in arguments.rung:
        with threadpool_limits(1):
            lines += measure_rung(
                arguments.study, rung, arguments.feature or FEATURES, arguments.arm or ARMS, arguments.out
            )
        (arguments.out / "trained.md").write_text("\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
