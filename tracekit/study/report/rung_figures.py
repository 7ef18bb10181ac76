"""Figures of a study with rungs: every run is a dot."""

from __future__ import annotations

import polars as pl

from tracekit.study.report.figures import _drawing, styles_of
from tracekit.study.settings import BASE

LOWEST_RATE = 1e-7  # rates below are drawn here


def solved_figure(runs: pl.DataFrame, titles: dict[str, str], rungs: dict[str, str]) -> str:
    """Greedy accuracy of every run, a panel a rung, an arm a row. A run is solved right of one half."""
    names = [rung for rung in rungs if rung in runs["rung"]]
    arms = [arm for arm in titles if arm in runs["arm"]]
    with _drawing(2.2 + 2.2 * len(names), 0.8 + 0.3 * len(arms), len(names)) as (_, axes, drawn):
        style = styles_of(arms)
        for axis, rung in zip(axes, names):
            for row, arm in enumerate(arms):
                own = runs.filter((pl.col("rung") == rung) & (pl.col("arm") == arm))
                places = [row + 0.06 * (seed - own["seed"].mean()) for seed in own["seed"]]  # type: ignore[operator]
                axis.plot(100 * own["greedy"], places, **style[arm].mark, markersize=4, alpha=0.8)
            axis.axvline(50, color="#888888", linewidth=0.8, linestyle=":")
            axis.set_title(rungs[rung])
            axis.set_xlim(-5, 105)
            axis.set_ylim(len(arms) - 0.5, -0.5)
            axis.set_yticks(range(len(arms)), [titles[arm] for arm in arms] if axis is axes[0] else [])
            axis.set_xlabel("greedy accuracy, %")
    return drawn[0]


def ladder_figure(runs: pl.DataFrame, titles: dict[str, str]) -> str:
    """Greedy accuracy of every run against its base's pass rate, a colour an arm."""
    arms = [arm for arm in titles if arm in runs["arm"] and arm != BASE]
    with _drawing(7.6, 3.2) as (_, (axis, *_rest), drawn):
        style = styles_of(arms)
        for arm in arms:
            own = runs.filter((pl.col("arm") == arm) & pl.col("pass_rate").is_not_null())
            rates = [max(rate, LOWEST_RATE) for rate in own["pass_rate"]]
            axis.plot(rates, 100 * own["greedy"], **style[arm].mark, markersize=5, alpha=0.75, label=titles[arm])
        axis.set_xscale("log")
        axis.set_xlabel("pass rate of the base, P(right)")
        axis.set_ylabel("greedy accuracy, %")
        axis.axhline(50, color="#888888", linewidth=0.8, linestyle=":")
        if arms:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn[0]


def time_figure(runs: pl.DataFrame, titles: dict[str, str], rungs: dict[str, str]) -> str:
    """Rounds until solved of every run of RL; hollow: not solved in its budget."""
    own = runs.filter(pl.col("rounds").is_not_null())
    names = [rung for rung in rungs if rung in own["rung"]]
    arms = [arm for arm in titles if arm in own["arm"]]
    with _drawing(2.2 + 2.2 * max(len(names), 1), 0.9 + 0.3 * len(arms), max(len(names), 1)) as (_, axes, drawn):
        style = styles_of(arms)
        for axis, rung in zip(axes, names):
            for row, arm in enumerate(arms):
                part = own.filter((pl.col("rung") == rung) & (pl.col("arm") == arm))
                for seed, rounds, solved in part.select("seed", "rounds", "solved_rl").iter_rows():
                    face = style[arm].colour if solved else "none"
                    axis.plot(rounds, row + 0.06 * (seed - 3.5), **{**style[arm].mark, "markerfacecolor": face})
            axis.set_title(rungs[rung])
            axis.set_yticks(range(len(arms)), [titles[arm] for arm in arms] if axis is axes[0] else [])
            axis.set_ylim(len(arms) - 0.5, -0.5)
            axis.set_xlim(0, None)
            axis.set_xlabel("rounds until solved")
    return drawn[0]


def temperature_figure(runs: pl.DataFrame, titles: dict[str, str], rungs: dict[str, str]) -> str:
    """Accuracy of every run at temperatures 0, 0.6 and 1, joined by a line; a panel a rung."""
    names = [rung for rung in rungs if rung in runs["rung"]]
    arms = [arm for arm in titles if arm in runs["arm"] and arm != BASE]
    with _drawing(2.0 + 2.4 * len(names), 2.8, len(names)) as (figure, axes, drawn):
        style = styles_of(arms)
        for axis, rung in zip(axes, names):
            for arm in arms:
                part = runs.filter((pl.col("rung") == rung) & (pl.col("arm") == arm))
                for number, values in enumerate(part.select("greedy", "warm", "hot").iter_rows()):
                    label = titles[arm] if number == 0 else None
                    axis.plot(
                        (0, 0.6, 1), [100 * v for v in values], **style[arm].line, alpha=0.6, markersize=3, label=label
                    )
            axis.set_title(rungs[rung])
            axis.set_ylim(-3, 103)
            axis.set_xlabel("temperature")
        axes[0].set_ylabel("accuracy, %")
        handles = {label: h for axis in axes for h, label in zip(*axis.get_legend_handles_labels())}
        figure.legend(handles.values(), handles.keys(), loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn[0]


def probe_figure(runs: pl.DataFrame, titles: dict[str, str]) -> str:
    """AUC of the probe of every run, an arm a row; the text's own as a dashed line."""
    own = runs.filter(pl.col("probe_auc").is_not_null())
    arms = [arm for arm in titles if arm in own["arm"]]
    with _drawing(7.6, 0.9 + 0.3 * len(arms)) as (_, (axis, *_rest), drawn):
        style = styles_of(arms)
        for row, arm in enumerate(arms):
            values = own.filter(pl.col("arm") == arm)["probe_auc"]
            places = [row + 0.08 * (n - (len(values) - 1) / 2) for n in range(len(values))]
            axis.plot(values, places, **style[arm].mark, markersize=5, alpha=0.8)
        axis.axvline(float(own["text_auc"].mean()), color="#888888", linewidth=0.8, linestyle="--")  # type: ignore[arg-type]
        axis.set_yticks(range(len(arms)), [titles[arm] for arm in arms])
        axis.set_ylim(len(arms) - 0.5, -0.5)
        axis.set_xlim(0.45, 1.02)
        axis.set_xlabel("held-out AUC")
    return drawn[0]


def forgetting_figure(runs: pl.DataFrame, titles: dict[str, str]) -> str:
    """Loss on the untouched family `!` against KL(base ‖ arm), both in nats a token, every run a dot."""
    own = runs.filter(pl.col("kl").is_not_null() & pl.col("loss_reversed").is_not_null())
    arms = [arm for arm in titles if arm in own["arm"]]
    with _drawing(7.6, 3.0) as (_, (axis, *_rest), drawn):
        style = styles_of(arms)
        for arm in arms:
            part = own.filter(pl.col("arm") == arm)
            axis.plot(
                [max(v, 1e-6) for v in part["kl"]], [max(v, 1e-6) for v in part["loss_reversed"]],
                **style[arm].mark, markersize=5, alpha=0.75, label=titles[arm],
            )  # fmt: skip
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("KL(base ‖ arm), nats a token")
        axis.set_ylabel("loss on `!`, nats a token")
        if arms:
            axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn[0]
