"""Figures of a probing result, drawn by matplotlib as SVG, once for a light page and once for a dark one.

Models keep one colour (Okabe & Ito's palette, told apart by the colour-blind), one marker and one line style
throughout, so that no figure rests on colour alone. Every figure carries the table it was drawn from.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs

from probes.protocol.result import ProbeResult
from tracekit.core.pages.palette import BASE, COLOURS, Theme, colours_of

_INK = {"light": "#1f2328", "dark": "#e6e8eb"}
_FAINT = {"light": "#d8dce1", "dark": "#3a4048"}
_MARKERS = ("o", "s", "^", "D", "v", "P", "X")
_LINES = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1)), (0, (1, 1)))


@dataclass(frozen=True)
class Figure:
    """A figure in both themes. svg: theme → SVG text. data: what was drawn."""

    name: str
    title: str
    caption: str
    svg: dict[Theme, str]
    data: pl.DataFrame


def draw_figures(result: ProbeResult) -> list[Figure]:
    """All figures that the result has rows for, in the order of the report."""
    drawn = [
        _both("effects", "What changed", _EFFECTS, effects_data(result), lambda d, t: _effects(d, result, t)),
        _both("layers", "Layer by layer", _LAYERS, result.tables["cells"], lambda d, t: _layers(d, result, t)),
        _both("nonlinear", "What is there but not linear", _GAP, gap_data(result), lambda d, t: _gaps(d, result, t)),
        _both("sources", "Arm × source", _SOURCES, sources_data(result), lambda d, t: _matrices(d, result, t)),
        _both(
            "by_source",
            "What changed, source by source",
            _BY_SOURCE,
            by_source(result),
            lambda d, t: _by_source(d, result, t),
        ),
        _both("geometry", "Geometry", _GEOMETRY, result.tables["geometry"], lambda d, t: _geometry(d, result, t)),
        _both(
            "generalisation",
            "Where else a probe works",
            _GENERALISATION,
            generalisation_data(result),
            lambda d, t: _generalisation(d, result, t),
        ),
        _both("controls", "Controls", _CONTROLS, result.tables["controls"], lambda d, t: _controls(d, result, t)),
        _both("slices", "Decision slices", _SLICES, result.tables["slices"], lambda d, t: _slices(d, result, t)),
    ]
    return [figure for figure in drawn if figure is not None]


_EFFECTS = (
    "Δ, the difference of held-out linear AUC in the layer band, with its interval over seeds and problems. The "
    "shaded band is the equivalence margin. Filled: changed; hollow: equivalent; cross: open; star: saturated; a bar "
    "without a point: refused or not decodable."
)
_LAYERS = (
    "Held-out AUC of the linear SVM by layer, mean over training seeds. Whiskers: 95 % over problems, without "
    "refitting. Grey area: up to the 95th percentile under permuted blocks (largest over models). Marked on the axis: "
    "the layer band."
)
_GAP = "AUC of the RBF kernel minus the linear kernel, in the layer band: what is encoded, but not linearly."
_SOURCES = "Held-out AUC in the layer band for every model (row) on traces of every source (column)."
_BY_SOURCE = (
    "Δ against the base with its interval, on the traces of every author. On one author's traces all models read "
    "identical tokens; on own rollouts each reads its own. The shaded band is the equivalence margin."
)
_GEOMETRY = (
    "By layer, mean over training seeds and features. Whiskers of CKA: jackknife over problems, 95 %. The base's own "
    "probe is held out too."
)
_GENERALISATION = (
    "AUC on held-out problems of a least-squares probe fitted at one place (row) and tested at another (column): at "
    "each step and model, first layer of the band; across the base's layers; and across models. High off the "
    "diagonal: one code for all places. Below .5: read upside down."
)
_CONTROLS = (
    "AUC in the layer band beside what the text alone reaches, what random labels of token types reach "
    "(least squares) and what permuted labels reach."
)
_SLICES = (
    "Each model's first seed, first layer of the band, one outer split: decision value against the first principal "
    "component orthogonal to the SVM's direction. Discs: the class that the arrow names; triangles: the other. Strong: "
    "held out; pale: training rows, which the plane was fitted to. Lines: plane and margin. Ringed: support vectors."
)


# ---------------------------------------------------------------- data


def effects_data(result: ProbeResult) -> pl.DataFrame:
    """The primary estimand's rows."""
    return result.tables["effects"].filter(pl.col("estimand") == result.settings.estimand)


def gap_data(result: ProbeResult) -> pl.DataFrame:
    """RBF minus linear AUC of each model, mean over the band and seeds."""
    cells = result.tables["cells"].filter(pl.col("rbf").is_not_null())
    return (
        cells.with_columns(gap=pl.col("rbf") - pl.col("auc"))
        .group_by("feature", "model", maintain_order=True)
        .agg(pl.col("gap").mean(), pl.col("auc").mean(), pl.col("rbf").mean())
    )


def sources_data(result: ProbeResult) -> pl.DataFrame:
    """The arm × source matrix; empty where there is one source alone."""
    sources = result.tables["sources"]
    return sources if sources["source"].n_unique() > 1 else sources.clear()


def by_source(result: ProbeResult) -> pl.DataFrame:
    """Differences from the base on every source, the neutral one first; empty where there is one source alone."""
    other = result.tables["source_effects"].filter(pl.col("b") == result.settings.base)
    first = effects_data(result).filter(pl.col("b") == result.settings.base)
    columns = ["feature", "source", "a", "effect", "low", "high"]
    neutral = first.with_columns(source=pl.lit(result.about["source"])).select(columns)
    return pl.concat([neutral, other.select(columns)]) if len(other) else neutral.clear()


# ---------------------------------------------------------------- drawing


def generalisation_data(result: ProbeResult) -> pl.DataFrame:
    """Steps of every model, layers of the base, and models."""
    table = result.tables["generalisation"]
    return table.filter((pl.col("across") != "layer") | (pl.col("model") == result.settings.base))


def _both(
    name: str, title: str, caption: str, data: pl.DataFrame, draw: Callable[[pl.DataFrame, Theme], Any]
) -> Figure | None:
    if data.is_empty():
        return None
    import matplotlib

    svg: dict[Theme, str] = {}
    themes: tuple[Theme, ...] = ("light", "dark")
    for theme in themes:
        style: Any = {
            "font.family": "sans-serif",
            "font.size": 9,
            "svg.fonttype": "none",
            "svg.hashsalt": name,
            "text.color": _INK[theme],
            "axes.labelcolor": _INK[theme],
            "axes.edgecolor": _FAINT[theme],
            "axes.facecolor": "none",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.titlesize": 9.5,
            "axes.titlelocation": "left",
            "xtick.color": _INK[theme],
            "ytick.color": _INK[theme],
            "figure.facecolor": "none",
            "legend.frameon": False,
        }
        with matplotlib.rc_context(style):
            svg[theme] = _as_svg(draw(data, theme))
    return Figure(name, title, caption, svg, data)


def _as_svg(figure: Any) -> str:
    out = io.StringIO()
    figure.savefig(
        out, format="svg", transparent=True, dpi=130, bbox_inches="tight", metadata={"Date": None, "Creator": None}
    )
    text = re.sub(r"<\?xml.*?\?>\s*|<!DOCTYPE.*?>\s*|<metadata>.*?</metadata>\s*", "", out.getvalue(), flags=re.DOTALL)
    # The page's own fonts: matplotlib names the one that it measured with.
    return text.replace("DejaVu Sans", "system-ui")


def _panels(count: int, columns: int = 3, size: tuple[float, float] = (3.1, 2.3)) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure as Canvas
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    columns = min(columns, count)
    rows = -(-count // columns)
    figure = Canvas(figsize=(size[0] * columns, size[1] * rows), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08))
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for spare in axes[count:]:
        spare.axis("off")
    return figure, axes[:count]


def _look(result: ProbeResult, model: str, theme: Theme) -> dict[str, Any]:
    models = list(result.about["models"])
    colours = colours_of([BASE if name == result.settings.base else name for name in models], theme)
    k = models.index(model) % len(_MARKERS)
    colour = colours[BASE if model == result.settings.base else model]
    return {"color": colour, "marker": _MARKERS[k], "linestyle": _LINES[k]}


def _names(frame: pl.DataFrame, column: str) -> list[str]:
    return frame[column].unique(maintain_order=True).to_list()


def _plain(text: str) -> str:
    """A name as matplotlib prints it: `$` would start mathematics."""
    return str(text).replace("$", r"\$").replace("_", " ")


def _effects(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    features = _names(data, "feature")
    pairs = data.select("a", "b").unique(maintain_order=True).rows()
    figure, (axis,) = _panels(1, size=(7.2, 0.7 + 0.24 * len(features) * (len(pairs) + 0.6)))
    margin = result.settings.margin
    axis.axvspan(-margin, margin, color=_FAINT[theme], alpha=0.55, lw=0)
    axis.axvline(0, color=_INK[theme], lw=0.7)
    for k, (a, b) in enumerate(pairs):
        look = _look(result, a, theme)
        arms = data.filter((pl.col("a") == a) & (pl.col("b") == b))
        for row in arms.iter_rows(named=True):
            y = -features.index(row["feature"]) * (len(pairs) + 0.6) - k
            fill = look["color"] if row["verdict"] == "changed" else "none"
            marker = {"open": "x", "saturated": "*"}.get(row["verdict"], look["marker"])
            against_base = b == result.settings.base
            axis.plot([row["low"], row["high"]], [y, y], color=look["color"], lw=1.3, ls="-" if against_base else "--")
            if row["verdict"] not in ("refused", "not decodable"):
                axis.plot(row["effect"], y, marker, color=look["color"], mfc=fill, ms=6)
        line = "-" if b == result.settings.base else "--"
        axis.plot([], [], color=look["color"], marker=look["marker"], ls=line, label=f"{_plain(a)} − {_plain(b)}")
    centres = [-f * (len(pairs) + 0.6) - (len(pairs) - 1) / 2 for f in range(len(features))]
    axis.set_yticks(centres, [_plain(f) for f in features])
    axis.tick_params(axis="y", length=0)
    axis.set_xlabel("Δ AUC")
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1))
    return figure


def _layers(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    features, models = _names(data, "feature"), _names(data, "model")
    figure, axes = _panels(len(features))
    for axis, feature in zip(axes, features):
        own = data.filter(pl.col("feature") == feature)
        null = own.group_by("layer").agg(pl.col("null_95").max()).sort("layer")
        axis.fill_between(null["layer"], 0, null["null_95"], color=_FAINT[theme], alpha=0.5, lw=0)
        for k, model in enumerate(models):
            mean = (
                own.filter(pl.col("model") == model)
                .group_by("layer")
                .agg(pl.col("auc", "low", "high").mean())
                .sort("layer")
            )
            x = mean["layer"].to_numpy() + 0.06 * (k - (len(models) - 1) / 2)
            y = mean["auc"].to_numpy()
            error = np.stack([(y - mean["low"].to_numpy()).clip(0), (mean["high"].to_numpy() - y).clip(0)])
            look = _look(result, model, theme)
            axis.errorbar(x, y, error, lw=1.3, ms=4, elinewidth=0.8, label=_plain(model), **look)
        axis.axhline(0.5, color=_INK[theme], lw=0.5, ls=":")
        band = result.about["band"]
        axis.plot(
            [min(band) - 0.25, max(band) + 0.25],
            [0.012, 0.012],
            transform=axis.get_xaxis_transform(),
            lw=4,
            color=_INK[theme],
        )
        axis.set_title(_plain(feature))
        axis.set_ylim(min(0.4, float(own["low"].to_numpy().min()) - 0.02), 1.02)
        axis.set_xticks(null["layer"].to_list())
        axis.set_xlabel("layer")
    axes[0].set_ylabel("AUC")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models))
    return figure


def _dots(data: pl.DataFrame, columns: Sequence[str], result: ProbeResult, theme: Theme, label: str) -> Any:
    """A row a feature, a dot a model."""
    features, models = _names(data, "feature"), _names(data, "model")
    figure, axes = _panels(len(columns), 4, (2.6, 0.9 + 0.3 * len(features)))
    for axis, column in zip(axes, columns):
        for k, model in enumerate(models):
            own = data.filter(pl.col("model") == model)
            y = [-features.index(f) - 0.16 * (k - (len(models) - 1) / 2) for f in own["feature"]]
            look = {**_look(result, model, theme), "linestyle": "none"}
            axis.plot(own[column].cast(pl.Float64), y, ms=5, label=_plain(model), **look)
        axis.set_yticks(range(0, -len(features), -1), [_plain(f) for f in features] if axis is axes[0] else [])
        axis.set_ylim(-len(features) + 0.4, 0.6)
        axis.grid(axis="x", color=_FAINT[theme], lw=0.5)
        axis.set_title(label or _CONTROL[column])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(models))
    return figure


def _gaps(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    figure = _dots(data, ["gap"], result, theme, "AUC(RBF) − AUC(linear)")
    figure.set_size_inches(5, figure.get_size_inches()[1])
    figure.axes[0].axvline(0, color=_INK[theme], lw=0.7)
    return figure


_CONTROL = {
    "auc": "states, linear",
    "position_alone": "place in the trace alone",
    "text_alone": "text alone",
    "surface_alone": "text and the base's log-probability",
    "random_token_labels": "random token labels",
    "shuffled_labels": "permuted labels",
}


def _controls(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    columns = [c for c in _CONTROL if data[c].drop_nans().len()]
    figure = _dots(data, columns, result, theme, "")
    for axis in figure.axes:
        axis.set_xlim(0.35, 1.03)
        axis.axvline(0.5, color=_INK[theme], lw=0.5, ls=":")
    return figure


def _matrices(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    features, models, sources = (_names(data, c) for c in ("feature", "model", "source"))
    figure, axes = _panels(len(features), 3, (1.2 + 0.75 * len(sources), 0.9 + 0.42 * len(models)))
    for axis, feature in zip(axes, features):
        table = np.full((len(models), len(sources)), np.nan)
        for row in data.filter(pl.col("feature") == feature).iter_rows(named=True):
            if row["auc"] is not None:
                table[models.index(row["model"]), sources.index(row["source"])] = row["auc"]
        _heatmap(axis, table, models, sources, theme)
        axis.set_title(_plain(feature))
    return figure


def _heatmap(axis: Any, table: np.ndarray, rows: Sequence[str], columns: Sequence[str], theme: Theme) -> None:
    """AUCs as numbers on colours from .5 to 1."""
    axis.imshow(table, vmin=0.5, vmax=1, cmap="cividis", aspect="auto")
    for (i, j), value in np.ndenumerate(table):
        text = "–" if np.isnan(value) else f"{value:.2f}"
        colour = _INK[theme] if np.isnan(value) else "white" if value < 0.78 else "black"
        axis.text(j, i, text, ha="center", va="center", color=colour)
    axis.set_xticks(range(len(columns)), [_plain(c) for c in columns])
    axis.set_yticks(range(len(rows)), [_plain(r) for r in rows])
    axis.tick_params(length=0)


def _generalisation(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    """A panel a matrix: trained down, tested across."""
    parts = list(data.group_by("feature", "across", "model", maintain_order=True))
    figure, axes = _panels(len(parts), 3, (3.1, 2.6))
    for axis, ((feature, across, model), part) in zip(axes, parts):
        names = _names(part, "trained")
        short = [str(n).removeprefix(f"{across} ") for n in names]
        _heatmap(axis, part["auc"].to_numpy().reshape(len(names), len(names)), short, short, theme)
        axis.set_title(_plain(f"{feature}: {across}s" + (f" of {model}" if model else "")), fontsize=8)
    return figure


def _by_source(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    """A panel a feature, a row a source, a dot with its interval an arm."""
    features, sources, arms = (_names(data, c) for c in ("feature", "source", "a"))
    figure, axes = _panels(len(features), 3, (2.6, 0.9 + 0.16 * len(sources) * (len(arms) + 1)))
    for axis, feature in zip(axes, features):
        axis.axvspan(-result.settings.margin, result.settings.margin, color=_FAINT[theme], alpha=0.55, lw=0)
        axis.axvline(0, color=_INK[theme], lw=0.7)
        for k, arm in enumerate(arms):
            own = data.filter((pl.col("feature") == feature) & (pl.col("a") == arm))
            y = [-sources.index(s) - 0.7 * ((k + 0.5) / len(arms) - 0.5) for s in own["source"]]
            look = {**_look(result, arm, theme), "linestyle": "none"}
            axis.hlines(y, own["low"], own["high"], color=look["color"], lw=1.2)
            axis.plot(own["effect"], y, ms=4.5, label=_plain(arm), **look)
        axis.set_yticks(range(0, -len(sources), -1), [_plain(s) for s in sources] if axis is axes[0] else [])
        axis.set_ylim(-len(sources) + 0.45, 0.55)
        axis.tick_params(axis="y", length=0)
        axis.set_title(_plain(feature))
        axis.set_xlabel("Δ AUC")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(arms))
    return figure


_SHAPES = {
    "margin": "margin, 1/‖w‖",
    "support_share": "share of support vectors",
    "effective_dimension": "effective dimension",
    "alignment": "kernel-target alignment",
    "cka": "CKA to the base",
    "transfer": "the base's probe, AUC",
    "transfer_rotated": "the same after Procrustes",
    "cosine": "cosine to the base's probe",
}


def _geometry(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    """One panel a quantity; features are averaged, as the states are the same and their curves near one another."""
    shapes = [s for s in _SHAPES if data[s].drop_nulls().len()]
    figure, axes = _panels(len(shapes), 4, (2.5, 2.0))
    for axis, shape in zip(axes, shapes):
        for model in _names(data, "model"):
            look = _look(result, model, theme)
            own = (
                data.filter(pl.col("model") == model)
                .group_by("layer")
                .agg(cs.float().fill_nan(None).mean())
                .sort("layer")
            )
            axis.plot(own["layer"], own[shape], lw=1.3, ms=4, label=_plain(model), **look)
            if shape == "cka":
                axis.vlines(own["layer"], own["cka_low"], own["cka_high"], lw=0.8, color=look["color"])
        axis.set_title(_SHAPES[shape])
        axis.set_xticks(sorted(set(data["layer"])))
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(_names(data, "model")))
    return figure


def _slices(data: pl.DataFrame, result: ProbeResult, theme: Theme) -> Any:
    features, models = _names(data, "feature"), _names(data, "model")
    figure, axes = _panels(len(features) * len(models), len(models), (2.6, 2.3))
    (low, high) = (COLOURS[place][0 if theme == "light" else 1] for place in (1, 0))
    for axis, (feature, model) in zip(axes, [(f, m) for f in features for m in models]):
        own = data.filter((pl.col("feature") == feature) & (pl.col("model") == model))
        for x, style in ((-1, "--"), (0, "-"), (1, "--")):
            axis.axvline(x, color=_INK[theme], lw=0.7, ls=style)
        for positive, colour, marker in ((False, low, "v"), (True, high, "o")):
            for held_out, alpha, size in ((False, 0.3, 2.6), (True, 0.95, 3.2)):
                side = own.filter(pl.col("positive") == positive, (pl.col("role") == "held out") == held_out)
                look = {"color": colour, "ms": size, "alpha": alpha, "mew": 0}
                axis.plot(side["decision"], side["across"], marker, rasterized=True, **look)
        ring = own.filter(pl.col("role") == "support vector")
        look = {"mfc": "none", "mec": _INK[theme], "mew": 0.3, "ms": 4.4, "alpha": 0.35}
        axis.plot(ring["decision"], ring["across"], "o", rasterized=True, **look)
        reach = np.quantile(np.abs(own["decision"].to_numpy()), 0.98) * 1.1 or 1.0
        axis.set_xlim(-reach, reach)
        axis.set_yticks([])
        axis.set_title(f"{_plain(feature)}: {_plain(model)}")
        label = own.filter(pl.col("positive"))["label"]
        axis.set_xlabel(f"→ {_plain(label[0])}" if len(label) else "decision")
    return figure
