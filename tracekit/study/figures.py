"""The study's figures: frames in, SVG text out. One drawing serves both themes: ink is the page's own colour."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import polars as pl

from tracekit.study.settings import BASE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: Okabe and Ito's colours, told apart by the colour-blind, in the order in which arms take them; grey is the base's.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F6BB3", "#A6761D")
BASE_COLOUR = "#8C8C8C"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
INK = "#010203"  # a colour nobody draws with, replaced by the page's own


def colours_of(arms: Sequence[str]) -> dict[str, str]:
    """A colour for each arm; the same in every figure."""
    trained = [arm for arm in arms if arm != BASE]
    return {BASE: BASE_COLOUR} | {arm: COLOURS[i % len(COLOURS)] for i, arm in enumerate(trained)}


@contextmanager
def _drawing(width: float, height: float, columns: int = 1) -> Iterator[tuple[Figure, list[Axes], list[str]]]:
    """A figure, its axes, and the list that takes its SVG text."""
    import matplotlib

    matplotlib.use("svg")
    from matplotlib import pyplot

    style: Any = {
        "font.family": "sans-serif",
        "font.size": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": "tracekit",  # ids by content: the same figure is the same bytes
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "grid.alpha": 0.18,
        "grid.color": INK,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        figure, axes = pyplot.subplots(1, columns, figsize=(width, height), squeeze=False)
        drawn: list[str] = []
        try:
            yield figure, list(axes[0]), drawn
            figure.tight_layout()
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
            text = buffer.getvalue()
            drawn.append(text[text.index("<svg") :].replace(INK, "currentColor"))
        finally:
            pyplot.close(figure)


def accuracy_figure(metrics: pl.DataFrame, titles: dict[str, str]) -> str:
    """Greedy accuracy of each arm on each split, with intervals over seeds and problems."""
    splits = metrics["split"].unique(maintain_order=True).to_list()
    with _drawing(8.4, 0.9 + 0.34 * len(titles), len(splits)) as (_, axes, drawn):
        colour = colours_of(list(titles))
        for place, (axis, split) in enumerate(zip(axes, splits)):
            part = metrics.filter((pl.col("split") == split) & (pl.col("metric") == "greedy"))
            for row, arm in enumerate(titles):
                value, low, high = part.filter(pl.col("arm") == arm).select("value", "low", "high").row(0)
                axis.plot([100 * low, 100 * high], [row, row], color=colour[arm], linewidth=2, alpha=0.55)
                axis.plot(100 * value, row, MARKERS[row % len(MARKERS)], color=colour[arm], markersize=6)
            axis.set_yticks(range(len(titles)), list(titles.values()) if place == 0 else [""] * len(titles))
            axis.set_ylim(len(titles) - 0.5, -0.5)
            axis.set_xlim(-3, 103)
            axis.set_title(split, fontsize=9)
            axis.set_xlabel("greedy accuracy, %")
    return drawn[0]


def training_figure(curves: pl.DataFrame, titles: dict[str, str]) -> str:
    """Reward of on-policy rows and entropy of rollouts over the rounds of RL; seeds as thin lines, their mean thick."""
    rounds = curves.drop_nulls("reward_on_policy") if "reward_on_policy" in curves.columns else curves.clear()
    with _drawing(8.4, 3.0, 2) as (_, axes, drawn):
        colour = colours_of(list(titles))
        for axis, column, label in (
            (axes[0], "reward_on_policy", "reward of on-policy rows"),
            (axes[1], "rollout_entropy", "entropy of rollouts, nats"),
        ):
            for arm in titles:
                own = rounds.filter(pl.col("arm") == arm)
                if own.is_empty():
                    continue
                for _, one in own.group_by("seed", maintain_order=True):
                    axis.plot(one["step"], _smooth(one[column]), color=colour[arm], linewidth=0.7, alpha=0.4)
                mean = own.group_by("step", maintain_order=True).agg(pl.col(column).mean()).sort("step")
                axis.plot(mean["step"], _smooth(mean[column]), color=colour[arm], linewidth=2, label=titles[arm])
            axis.set_xlabel("round")
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        axes[0].legend()
    return drawn[0]


def _smooth(values: pl.Series) -> pl.Series:
    """A running mean of five rounds: one round's reward is of a few hundred completions."""
    return values.rolling_mean(5, min_samples=1)


def pass_figure(metrics: pl.DataFrame, titles: dict[str, str], splits: Sequence[str]) -> str:
    """pass@k of each arm against k, with intervals."""
    with _drawing(8.4, 3.2, len(splits)) as (_, axes, drawn):
        colour = colours_of(list(titles))
        for axis, split in zip(axes, splits):
            part = metrics.filter((pl.col("split") == split) & (pl.col("metric") == "pass"))
            _curves(axis, part, "k", titles, colour)
            axis.set_xscale("log", base=2)
            ks = part["k"].unique().sort().to_list()
            axis.set_xticks(ks, [str(k) for k in ks])
            axis.set_xlabel("k")
            axis.set_ylabel("pass@k, %")
            axis.set_title(split, fontsize=9)
            axis.set_ylim(-3, 103)
        axes[0].legend()
    return drawn[0]


def _curves(axis: Axes, part: pl.DataFrame, x: str, titles: dict[str, str], colour: dict[str, str]) -> None:
    for row, (arm, title) in enumerate(titles.items()):
        own = part.filter(pl.col("arm") == arm).sort(x)
        if own.is_empty():
            continue
        axis.fill_between(own[x], 100 * own["low"], 100 * own["high"], color=colour[arm], alpha=0.15, linewidth=0)
        marker = MARKERS[row % len(MARKERS)]
        axis.plot(own[x], 100 * own["value"], color=colour[arm], marker=marker, markersize=4, label=title)


def temperature_figure(sweep: pl.DataFrame, titles: dict[str, str]) -> str:
    """Accuracy of one sample, pass@k and majority vote against temperature."""
    most = int(sweep["k"].max())  # type: ignore[arg-type]
    panels = (
        ("pass", 1, "accuracy of one sample, %"),
        ("pass", most, f"pass@{most}, %"),
        ("majority", most, f"maj@{most}, %"),
    )
    with _drawing(8.4, 3.0, 3) as (_, axes, drawn):
        colour = colours_of(list(titles))
        for axis, (metric, k, label) in zip(axes, panels):
            wanted = (pl.col("metric") == metric) & (pl.col("k") == k)
            # greedy stands at temperature 0, where one sample is all there is
            part = sweep.filter(wanted | (pl.col("metric") == "greedy"))
            means = part.group_by("arm", "temperature").agg(pl.col("value", "low", "high").mean())
            _curves(axis, means, "temperature", titles, colour)
            axis.set_xlabel("temperature")
            axis.set_ylabel(label)
            axis.set_ylim(-3, 103)
        axes[0].legend()
    return drawn[0]


def teacher_token_figure(tokens: pl.DataFrame, titles: dict[str, str]) -> str:
    """Mean probability that each arm gives to the teacher's tokens, by the rank that the base gave them."""
    bins = tokens.filter(pl.col("tokens") > 0).select("rank_low", "rank_high").unique().sort("rank_low")
    with _drawing(8.4, 3.0) as (_, axes, drawn):
        colour, axis = colours_of(list(titles)), axes[0]
        for row, (arm, title) in enumerate(titles.items()):
            own = tokens.filter((pl.col("arm") == arm) & (pl.col("tokens") > 0))
            means = own.group_by("rank_low").agg(pl.col("probability").mean()).sort("rank_low")
            places = [bins["rank_low"].to_list().index(low) for low in means["rank_low"]]
            axis.plot(places, means["probability"], MARKERS[row % len(MARKERS)] + "-", color=colour[arm], label=title)
        labels = [_range(low, high) for low, high in bins.iter_rows()]
        axis.set_xticks(range(len(labels)), labels)
        axis.set_xlabel("rank of the teacher's token under the base")
        axis.set_ylabel("mean probability")
        axis.set_ylim(0, 1.03)
        axis.legend(ncols=2)
    return drawn[0]


def _range(low: int, high: int) -> str:
    if high - low == 1:
        return str(low)
    return f"{low} and more" if high >= 1000 else f"{low}-{high - 1}"


def cost_figure(metrics: pl.DataFrame, costs: pl.DataFrame, titles: dict[str, str]) -> str:
    """Greedy accuracy, mean of all splits, against the floating-point operations of the arm's training."""
    accuracy = metrics.filter(pl.col("metric") == "greedy").group_by("arm").agg(pl.col("value").mean())
    spent = costs.group_by("arm").agg(pl.col("flops").mean())
    joined = accuracy.join(spent, on="arm")
    with _drawing(8.4, 3.0) as (_, axes, drawn):
        colour, axis = colours_of(list(titles)), axes[0]
        for row, (arm, title) in enumerate(titles.items()):
            if arm == BASE:
                continue
            value, flops = joined.filter(pl.col("arm") == arm).select("value", "flops").row(0)
            axis.plot(flops, 100 * value, MARKERS[row % len(MARKERS)], color=colour[arm], markersize=8, label=title)
        axis.set_xscale("log")
        axis.set_xlabel("floating-point operations of training after the base")
        axis.set_ylabel("greedy accuracy, mean of the splits, %")
        axis.set_ylim(-3, 103)
        axis.legend()
    return drawn[0]


def layer_figure(cells: pl.DataFrame, titles: dict[str, str], features: Sequence[str]) -> str:
    """Held-out AUC of the linear SVM by layer, each arm a line."""
    shown = list(features)
    with _drawing(8.4, 3.0, max(len(shown), 1)) as (_, axes, drawn):
        colour = colours_of(list(titles))
        for axis, feature in zip(axes, shown):
            for row, (arm, title) in enumerate(titles.items()):
                own = cells.filter((pl.col("feature") == feature) & (pl.col("model") == arm))
                means = own.group_by("layer").agg(pl.col("auc").mean()).sort("layer")
                marker = MARKERS[row % len(MARKERS)] + "-"
                axis.plot(means["layer"], means["auc"], marker, color=colour[arm], markersize=4, label=title)
            axis.axhline(0.5, color=INK, linewidth=0.8, linestyle=":")
            axis.set_xlabel("layer")
            axis.set_title(feature, fontsize=9)
            axis.set_xticks(sorted(cells["layer"].unique()))
        axes[0].set_ylabel("held-out AUC, linear SVM")
        axes[0].legend()
    return drawn[0]


def phase_figure(table: pl.DataFrame, key: str) -> str:
    """Greedy accuracy of each arm against one setting; means over the grid's other settings."""
    titles = {arm: arm for arm in table["arm"].unique(maintain_order=True)}
    numeric = table.schema[key].is_numeric()
    with _drawing(8.4, 3.4) as (_, axes, drawn):
        axis, means = axes[0], table.group_by("arm", key).agg(pl.col("value", "low", "high").mean())
        _curves(axis, means, key, titles, colours_of(list(titles)))
        if numeric and means[key].min() > 0:  # type: ignore[operator]
            axis.set_xscale("log")
        axis.set_xlabel(key)
        axis.set_ylabel("greedy accuracy, %")
        axis.set_ylim(-3, 103)
        axis.legend()
    return drawn[0]
