"""The study's figures: frames in, SVG text out. One drawing serves both themes: ink is the page's own colour."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import polars as pl

from tracekit.core.pages.palette import BASE_COLOUR, COLOURS, colours_of, places_of
from tracekit.study.settings import BASE, IN_DISTRIBUTION

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MARKERS = ("s", "^", "D", "v", "P", "X", "*", "o")
PANELS = 5  # side by side, at most
INK = "#010203"  # a colour nobody draws with, replaced by the page's own


@dataclass(frozen=True, slots=True)
class Style:
    """How an arm is drawn; the same in every figure."""

    colour: str
    marker: str
    again: bool = False  # its colour and marker are another arm's too

    @property
    def dash(self) -> str:
        """The style of its line."""
        return "--" if self.again else "-"

    @property
    def line(self) -> dict[str, Any]:
        """Keywords of a line with marks."""
        return {
            "color": self.colour,
            "marker": self.marker,
            "linestyle": self.dash,
            "markerfacecolor": "none" if self.again else self.colour,
        }

    @property
    def mark(self) -> dict[str, Any]:
        """Keywords of a mark alone."""
        return {**self.line, "linestyle": "none"}


def styles_of(arms: Sequence[str]) -> dict[str, Style]:
    """Arm → its style."""
    colours, count = colours_of(arms), len(COLOURS)
    placed = {arm: Style(colours[arm], MARKERS[i % count], i >= count) for arm, i in places_of(arms).items()}
    return {BASE: Style(colours[BASE], "o"), **placed}


def _legend(axis: Axes, arms: int) -> None:
    """A legend in the axes, or below the figure where so many arms would cover the curves."""
    if arms <= 6:
        axis.legend()
        return
    figure = axis.get_figure()
    assert figure is not None
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper center", bbox_to_anchor=(0.5, 0.0), ncols=5, fontsize=8)


@contextmanager
def _drawing(
    width: float, height: float, columns: int = 1, rows: int = 1
) -> Iterator[tuple[Figure, list[Axes], list[str]]]:
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
        figure, axes = pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False)
        drawn: list[str] = []
        try:
            yield figure, list(axes.flat), drawn
            figure.tight_layout()
            buffer = io.StringIO()
            figure.savefig(buffer, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None})
            text = buffer.getvalue()
            drawn.append(text[text.index("<svg") :].replace(INK, "currentColor"))
        finally:
            pyplot.close(figure)


def accuracy_figure(metrics: pl.DataFrame, titles: dict[str, str]) -> str:
    """Greedy accuracy of each arm on each split, with intervals over seeds and problems."""
    splits = metrics["split"].unique(maintain_order=True).to_list()
    rows = math.ceil(len(splits) / PANELS)
    columns = math.ceil(len(splits) / rows)
    with _drawing(8.4, rows * (0.9 + 0.34 * len(titles)), columns, rows) as (_, axes, drawn):
        style = styles_of(list(titles))
        for axis in axes[len(splits) :]:
            axis.set_axis_off()
        for place, (axis, split) in enumerate(zip(axes, splits)):
            part = metrics.filter((pl.col("split") == split) & (pl.col("metric") == "greedy"))
            for row, arm in enumerate(titles):
                value, low, high = part.filter(pl.col("arm") == arm).select("value", "low", "high").row(0)
                axis.plot([100 * low, 100 * high], [row, row], color=style[arm].colour, linewidth=2, alpha=0.55)
                axis.plot(100 * value, row, markersize=6, **style[arm].mark)
            axis.set_yticks(range(len(titles)), list(titles.values()) if place % columns == 0 else [""] * len(titles))
            axis.set_ylim(len(titles) - 0.5, -0.5)
            axis.set_xlim(-3, 103)
            axis.set_title(split, fontsize=9)
            axis.set_xlabel("greedy accuracy, %")
    return drawn[0]


def training_figure(curves: pl.DataFrame, titles: dict[str, str]) -> str:
    """Reward of on-policy rows and entropy of rollouts over the rounds of RL; seeds as thin lines, their mean thick."""
    rounds = curves.drop_nulls("reward_on_policy") if "reward_on_policy" in curves.columns else curves.clear()
    with _drawing(8.4, 3.0, 2) as (_, axes, drawn):
        style = styles_of(list(titles))
        for axis, column, label in (
            (axes[0], "reward_on_policy", "reward of on-policy rows"),
            (axes[1], "rollout_entropy", "entropy of rollouts, nats"),
        ):
            for arm in titles:
                own = rounds.filter(pl.col("arm") == arm)
                if own.is_empty():
                    continue
                for _, one in own.group_by("seed", maintain_order=True):
                    axis.plot(one["step"], _smooth(one[column]), color=style[arm].colour, linewidth=0.7, alpha=0.4)
                mean = own.group_by("step", maintain_order=True).agg(pl.col(column).mean()).sort("step")
                axis.plot(mean["step"], _smooth(mean[column]), color=style[arm].colour, linestyle=style[arm].dash,
                          linewidth=2, label=titles[arm])  # fmt: skip
            axis.set_xlabel("round")
            axis.set_ylabel(label)
            axis.set_ylim(bottom=0)
        _legend(axes[0], len(titles))
    return drawn[0]


def _smooth(values: pl.Series) -> pl.Series:
    """A running mean of five rounds: one round's reward is of a few hundred completions."""
    return values.rolling_mean(5, min_samples=1)


def compute_figure(curves: pl.DataFrame, titles: dict[str, str]) -> str:
    """Reward of on-policy rows against the floating-point operations spent so far; mean of the seeds."""
    rounds = curves.drop_nulls("reward_on_policy") if "reward_on_policy" in curves.columns else curves.clear()
    with _drawing(8.4, 3.0) as (_, axes, drawn):
        style, axis = styles_of(list(titles)), axes[0]
        for arm, title in titles.items():
            own = rounds.filter(pl.col("arm") == arm)
            if own.is_empty():
                continue
            spent = own.sort("step").with_columns(
                (pl.col("flops_rollout") + pl.col("flops_update")).cum_sum().over("seed").alias("flops")
            )
            mean = spent.group_by("step").agg(pl.col("flops", "reward_on_policy").mean()).sort("step")
            axis.plot(mean["flops"], _smooth(mean["reward_on_policy"]), color=style[arm].colour,
                      linestyle=style[arm].dash, linewidth=2, label=title)  # fmt: skip
        axis.set_xlabel("floating-point operations of the RL so far")
        axis.set_ylabel("reward of on-policy rows")
        axis.set_ylim(0, 1.03)
        _legend(axis, len(titles))
    return drawn[0]


def claims_figure(claims: pl.DataFrame) -> str:
    """Claims in percentage points: effect and interval, against the line of no difference."""
    shown = claims.filter((pl.col("unit") == "points") & pl.col("low").is_not_nan())
    with _drawing(12.5, 1.0 + 0.27 * len(shown)) as (_, axes, drawn):
        axis = axes[0]
        tone = {"supported": COLOURS[2][0], "refuted": COLOURS[1][0]}
        for row, claim in enumerate(shown.iter_rows(named=True)):
            colour = tone.get(claim["verdict"], BASE_COLOUR[0])
            axis.plot([claim["low"], claim["high"]], [row, row], color=colour, linewidth=2.5, alpha=0.6)
            axis.plot(claim["effect"], row, "o", color=colour, markersize=5)
        axis.axvline(0, color=INK, linewidth=0.8)
        axis.set_xlim(-45, 105)  # an interval of three seeds may be wider than the scale
        axis.set_yticks(
            range(len(shown)), [f"{c}  [{e.rpartition(': ')[2]}]" for c, e in shown.select("claim", "estimand").rows()]
        )
        axis.set_ylim(len(shown) - 0.5, -0.5)
        axis.set_xlabel("percentage points; green: supported, orange: refuted")
    return drawn[0]


def source_figure(sources: pl.DataFrame, titles: dict[str, str]) -> str:
    """Arm × source: held-out linear AUC in the layer band, a panel a feature; blank where it could not be probed."""
    features = sources["feature"].unique(maintain_order=True).to_list()
    rows, columns = (sources[c].unique(maintain_order=True).to_list() for c in ("model", "source"))
    with _drawing(8.4, 1.2 + 0.34 * len(rows), len(features)) as (_, axes, drawn):
        for place, (axis, feature) in enumerate(zip(axes, features)):
            found = {(m, s): a for m, s, a in sources.filter(pl.col("feature") == feature)
                     .select("model", "source", "auc").iter_rows()}  # fmt: skip
            cells = [[found.get((m, s)) for s in columns] for m in rows]
            axis.imshow([[float("nan") if v is None else v for v in line] for line in cells], vmin=0.5, vmax=1.0,
                        cmap="cividis", aspect="auto")  # fmt: skip
            for y, line in enumerate(cells):
                for x, v in enumerate(line):
                    pale = v is not None and v > 0.75
                    axis.text(x, y, "–" if v is None else f"{v:.2f}", ha="center", va="center", fontsize=8,
                              color=INK if v is None else "black" if pale else "white")  # fmt: skip
            axis.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
            axis.set_yticks(range(len(rows)), [titles.get(m, m) for m in rows] if place == 0 else [""] * len(rows))
            axis.set_title(feature, fontsize=9)
            axis.grid(False)
    return drawn[0]


def pass_figure(metrics: pl.DataFrame, titles: dict[str, str], splits: Sequence[str]) -> str:
    """pass@k of each arm against k, with intervals."""
    with _drawing(8.4, 3.2, len(splits)) as (_, axes, drawn):
        style = styles_of(list(titles))
        for axis, split in zip(axes, splits):
            part = metrics.filter((pl.col("split") == split) & (pl.col("metric") == "pass"))
            _curves(axis, part, "k", titles, style)
            axis.set_xscale("log", base=2)
            ks = part["k"].unique().sort().to_list()
            axis.set_xticks(ks, [str(k) for k in ks])
            axis.set_xlabel("k")
            axis.set_ylabel("pass@k, %")
            axis.set_title(split, fontsize=9)
            axis.set_ylim(-3, 103)
        _legend(axes[0], len(titles))
    return drawn[0]


def _curves(axis: Axes, part: pl.DataFrame, x: str, titles: dict[str, str], style: dict[str, Style]) -> None:
    for arm, title in titles.items():
        own = part.filter(pl.col("arm") == arm).sort(x)
        if own.is_empty():
            continue
        axis.fill_between(own[x], 100 * own["low"], 100 * own["high"], color=style[arm].colour, alpha=0.15, linewidth=0)
        axis.plot(own[x], 100 * own["value"], markersize=4, label=title, **style[arm].line)


def temperature_figure(sweep: pl.DataFrame, titles: dict[str, str]) -> str:
    """Accuracy of one sample, pass@k and majority vote against temperature."""
    most = int(sweep["k"].max())  # type: ignore[arg-type]
    panels = (
        ("pass", 1, "accuracy of one sample, %"),
        ("pass", most, f"pass@{most}, %"),
        ("majority", most, f"maj@{most}, %"),
    )
    with _drawing(8.4, 3.0, 3) as (_, axes, drawn):
        style = styles_of(list(titles))
        for axis, (metric, k, label) in zip(axes, panels):
            wanted = (pl.col("metric") == metric) & (pl.col("k") == k)
            # greedy stands at temperature 0, where one sample is all there is
            part = sweep.filter(wanted | (pl.col("metric") == "greedy"))
            means = part.group_by("arm", "temperature").agg(pl.col("value", "low", "high").mean())
            _curves(axis, means, "temperature", titles, style)
            axis.set_xlabel("temperature")
            axis.set_ylabel(label)
            axis.set_ylim(-3, 103)
        _legend(axes[0], len(titles))
    return drawn[0]


def teacher_token_figure(tokens: pl.DataFrame, titles: dict[str, str]) -> str:
    """Mean probability that each arm gives to the teacher's tokens, by the rank that the base gave them."""
    bins = tokens.filter(pl.col("tokens") > 0).select("rank_low", "rank_high").unique().sort("rank_low")
    with _drawing(8.4, 3.0) as (_, axes, drawn):
        style, axis = styles_of(list(titles)), axes[0]
        for arm, title in titles.items():
            own = tokens.filter((pl.col("arm") == arm) & (pl.col("tokens") > 0))
            means = own.group_by("rank_low").agg(pl.col("probability").mean()).sort("rank_low")
            places = [bins["rank_low"].to_list().index(low) for low in means["rank_low"]]
            axis.plot(places, means["probability"], label=title, **style[arm].line)
        labels = [_range(low, high) for low, high in bins.iter_rows()]
        axis.set_xticks(range(len(labels)), labels)
        axis.set_xlabel("rank of the teacher's token under the base")
        axis.set_ylabel("mean probability")
        axis.set_ylim(0, 1.03)
        _legend(axis, len(titles))
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
        style, axis = styles_of(list(titles)), axes[0]
        for arm, title in titles.items():
            if arm == BASE:
                continue
            value, flops = joined.filter(pl.col("arm") == arm).select("value", "flops").row(0)
            axis.plot(flops, 100 * value, markersize=8, label=title, **style[arm].mark)
        axis.set_xscale("log")
        axis.set_xlabel("floating-point operations of training after the base")
        axis.set_ylabel("greedy accuracy, mean of the splits, %")
        axis.set_ylim(-3, 103)
        _legend(axis, len(titles))
    return drawn[0]


def layer_figure(cells: pl.DataFrame, titles: dict[str, str], features: Sequence[str]) -> str:
    """Held-out AUC of the linear SVM by layer, each arm a line."""
    shown = list(features)
    with _drawing(8.4, 3.0, max(len(shown), 1)) as (_, axes, drawn):
        style = styles_of(list(titles))
        for axis, feature in zip(axes, shown):
            for arm, title in titles.items():
                own = cells.filter((pl.col("feature") == feature) & (pl.col("model") == arm))
                means = own.group_by("layer").agg(pl.col("auc").mean()).sort("layer")
                axis.plot(means["layer"], means["auc"], markersize=4, label=title, **style[arm].line)
            axis.axhline(0.5, color=INK, linewidth=0.8, linestyle=":")
            axis.set_xlabel("layer")
            axis.set_title(feature, fontsize=9)
            axis.set_xticks(sorted(cells["layer"].unique()))
        axes[0].set_ylabel("held-out AUC, linear SVM")
        _legend(axes[0], len(titles))
    return drawn[0]


def phase_figure(table: pl.DataFrame, key: str) -> str:
    """Each arm's accuracy against one setting, greedy and at temperature 1; means over the grid's other settings."""
    titles = {arm: arm for arm in table["arm"].unique(maintain_order=True)}
    metrics = table["metric"].unique(maintain_order=True).to_list()
    with _drawing(8.4, 3.4, len(metrics)) as (_, axes, drawn):
        for axis, metric in zip(axes, metrics):
            _phase(axis, table.filter(pl.col("metric") == metric), key, titles)
            axis.set_ylabel(f"{metric}, %")
        _legend(axes[0], len(titles))
    return drawn[0]


def _phase(axis: Axes, table: pl.DataFrame, key: str, titles: dict[str, str]) -> None:
    means = table.group_by("arm", key).agg(pl.col("value", "low", "high").mean())
    _curves(axis, means, key, titles, styles_of(list(titles)))
    if table.schema[key].is_numeric() and means[key].min() > 0:  # type: ignore[operator]
        axis.set_xscale("log")
    axis.set_xlabel(key)
    axis.set_ylim(-3, 103)


def summary_figure(metrics: pl.DataFrame, curves: pl.DataFrame, phase: pl.DataFrame, titles: dict[str, str]) -> str:
    """A study in three panels: accuracy at temperature 1, reward over the rounds, and the phase diagram."""
    sampled = metrics.filter((pl.col("metric") == "pass") & (pl.col("k") == 1) & (pl.col("split") == IN_DISTRIBUTION))
    with _drawing(11.0, 3.6, 3) as (_, axes, drawn):
        style = styles_of(list(titles))
        for row, (arm, title) in enumerate(titles.items()):
            value, low, high = sampled.filter(pl.col("arm") == arm).select("value", "low", "high").row(0)
            axes[0].plot([100 * low, 100 * high], [row, row], color=style[arm].colour, linewidth=2.5, alpha=0.55)
            axes[0].plot(100 * value, row, markersize=6, **style[arm].mark)
            own = curves.filter(pl.col("arm") == arm)
            if "reward_on_policy" in own.columns and own["reward_on_policy"].is_not_null().any():
                mean = own.group_by("step").agg(pl.col("reward_on_policy").mean()).sort("step")
                reward = _smooth(mean["reward_on_policy"])
                axes[1].plot(mean["step"], 100 * reward, color=style[arm].colour, linestyle=style[arm].dash,
                             linewidth=2, label=title)  # fmt: skip
        axes[0].set_yticks(range(len(titles)), list(titles.values()))
        axes[0].set_ylim(len(titles) - 0.5, -0.5)
        axes[0].set_xlim(-3, 103)
        axes[0].set_xlabel("accuracy at temperature 1, %")
        axes[1].set_xlabel("round of RL")
        axes[1].set_ylabel("right on-policy rows, %")
        axes[1].set_ylim(-3, 103)
        habit = next(column for column in phase.columns if column.startswith("world."))
        _phase(axes[2], phase.filter(pl.col("metric") == phase["metric"][-1]), habit, titles)
        axes[2].set_xlabel("how often the base takes steps")
        axes[2].set_ylabel("accuracy at temperature 1, %")
    return drawn[0]
