"""Accuracy against FLOPs of a study with rungs: every round of every run of RL, every run's end, and who is on top."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from tracekit.study.analysis.time_to_solve import WINDOW
from tracekit.study.report.figures import _drawing, styles_of
from tracekit.study.settings import BASE, StudySettings

LEAST = 0.01  # accuracies that differ by less count as the same on the frontier


def read_curves(settings: StudySettings) -> pl.DataFrame:
    """Rung, arm, seed, flops so far, and reward (mean of the last rounds) of each round of every run of RL."""
    frames = []
    for path in sorted((settings.output / "results").glob("*.parquet")):
        rung, arm, seed = _parts(path)
        curve = pl.read_parquet(path).sort("step")
        spent = pl.sum_horizontal(name for name in ("flops_rollout", "flops_update") if name in curve.columns)
        frames.append(
            curve.select(
                pl.lit(rung).alias("rung"),
                pl.lit(arm).alias("arm"),
                pl.lit(seed, dtype=pl.Int64).alias("seed"),
                spent.cum_sum().cast(pl.Float64).alias("flops"),
                pl.col("reward_on_policy").fill_null(0.0).rolling_mean(WINDOW, min_samples=1).alias("reward"),
            )
        )
    names = {"rung": pl.String, "arm": pl.String, "seed": pl.Int64, "flops": pl.Float64, "reward": pl.Float64}
    schema = pl.Schema(names)
    return pl.concat(frames).match_to_schema(schema) if frames else pl.DataFrame(schema=schema)


def _parts(path: Path) -> tuple[str, str, int]:
    """RUNG.ARM-SEED.parquet, taken apart."""
    run, _, seed = path.stem.rpartition("-")
    rung, _, arm = run.partition(".")
    return rung, arm, int(seed)


def frontier_figure(curves: pl.DataFrame, runs: pl.DataFrame, titles: dict[str, str], rungs: dict[str, str]) -> str:
    """Accuracy at temperature 1 against FLOPs, a panel a rung."""
    ends = runs.filter(pl.col("flops").is_not_null())
    names = [rung for rung in rungs if rung in ends["rung"]] or list(rungs)[:1]
    arms = [arm for arm in titles if arm in ends["arm"] and arm != BASE]
    with _drawing(2.0 + 2.4 * len(names), 2.8, len(names)) as (figure, axes, drawn):
        style = styles_of(arms)
        for axis, rung in zip(axes, names):
            for arm in arms:
                here = (pl.col("rung") == rung) & (pl.col("arm") == arm)
                starts = _start_costs(ends.filter(here), curves.filter(here))
                for seed, start in starts.items():
                    one = curves.filter(here & (pl.col("seed") == seed))
                    axis.plot(one["flops"] + start, 100 * one["reward"], color=style[arm].colour, lw=0.7, alpha=0.5)
                own = ends.filter(here)
                axis.plot(
                    own["flops"], 100 * own["hot"], **style[arm].mark, markersize=5, alpha=0.85, label=titles[arm]
                )
            axis.set_title(rungs[rung])
            axis.set_xscale("log")
            axis.set_ylim(-3, 103)
            axis.set_xlabel("FLOPs")
        axes[0].set_ylabel("accuracy at temperature 1, %")
        handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels())}
        figure.legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn[0]


def _start_costs(ends: pl.DataFrame, curves: pl.DataFrame) -> dict[int, float]:
    """Seed → FLOPs spent before the curve began: of the run that this one starts from."""
    last = dict(curves.group_by("seed").agg(pl.col("flops").max()).iter_rows())
    return {
        seed: max(0.0, flops - last[seed]) for seed, flops in ends.select("seed", "flops").iter_rows() if seed in last
    }


def frontier_sentences(runs: pl.DataFrame, titles: dict[str, str], rungs: dict[str, str]) -> list[str]:
    """For each rung: the arms that no arm of fewer FLOPs reaches in mean accuracy at temperature 1 (Pareto)."""
    sentences = []
    for rung, title in rungs.items():
        ends = runs.filter((pl.col("rung") == rung) & pl.col("flops").is_not_null() & (pl.col("arm") != BASE))
        means = ends.group_by("arm").agg(pl.col("flops").mean(), pl.col("hot").mean(), pl.len()).sort("flops", "arm")
        best, kept = 0.0, []
        for arm, flops, accuracy, count in means.iter_rows():
            if accuracy > best + LEAST:
                kept.append(f"{titles[arm]} ({100 * accuracy:.0f} %, {flops:.2g} FLOPs, {count} runs)")
                best = accuracy
        if kept:
            sentences.append(f"On the frontier in the cell {title}, by mean over finished runs: {', '.join(kept)}.")
    return sentences
