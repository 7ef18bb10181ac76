"""The probing report: one HTML page that opens from disk and needs no network, Markdown, and Parquet tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from probes.protocol.result import ProbeResult
from probes.report.figures import Figure, draw_figures
from tracekit.core.pages.html_page import Page
from tracekit.core.runs import write_text
from tracekit.core.tables import write_table

TITLE = "Did training change what is linearly separable?"

_SHOWN = {
    "effects": (
        "feature a b effect low high verdict direction p_holm p_equivalent_holm detectable auc_a auc_b estimand seeds "
        "problems problems_needed why"
    ),
    "decodability": "feature model seed best_auc p p_holm permutations",
    "controls": (
        "feature model auc stratified bits_above_text online_bits position_alone text_alone surface_alone with_surface "
        "random_token_labels selectivity shuffled_labels"
    ),
    "known_answers": "feature control strength effect low high reads expected as_expected",
    "cells": (
        "feature model seed layer auc stratified above_null bits strength chosen_low chosen chosen_high path_low "
        "path_high at_edge kkt_gap"
    ),
    "power": "feature position task rows problems swappable_blocks intraclass design_effect",
    "geometry": (
        "feature model seed layer margin support_share effective_dimension alignment cka cka_low cka_high "
        "transfer transfer_rotated cosine cosine_rotated"
    ),
    "generalisation": "feature across model trained tested auc",
    "sources": "feature source model auc low high rows problems positive_share why_not",
    "source_effects": "feature source a b effect low high p_holm p_equivalent_holm seeds problems",
}

_EXPLAINED = {
    "effects": "Effects, intervals and verdicts",
    "decodability": "Is the feature there at all? Largest AUC over layers against whole blocks permuted",
    "controls": "What position and text give alone, and bits above them, in the layer band",
    "known_answers": "Controls whose answer is known: a direction planted, a rotation, noise, a second seed",
    "cells": "Every cell: AUC, bits, and the chosen C or ridge with the path that was followed",
    "power": "What these problems can show, from the labels alone",
    "geometry": "Geometry, by layer",
    "generalisation": "Where else a probe works: AUC of a probe fitted at one place and tested at another",
    "sources": "Arm × source: AUC in the layer band",
    "source_effects": "Arm × source: differences, on identical traces of each source and on each model's own",
}


def write_report(result: ProbeResult, folder: str | Path, pages: Sequence[tuple[str, str]] = ()) -> Path:
    """Write report.html, report.md and tables/*.parquet into `folder`; returns the page.

    Parameters
    ----------
    result : ProbeResult
        Of `run_protocol`.
    folder : str or Path
        Where the files go; made where it does not exist.
    pages : sequence of (str, str)
        (words, relative path) of the run's other pages, for the bar; the path "" is this one.

    Returns
    -------
    Path
        The page: it opens from disk and needs no network.

    Examples
    --------
    >>> write_report(result, "probe")  # doctest: +SKIP
    PosixPath('probe/report.html')
    """
    folder = Path(folder)
    for name, table in result.tables.items():
        write_table(table, folder / "tables" / f"{name}.parquet")
    page = as_page(result, draw_figures(result), pages)
    write_text(folder / "report.md", page.render_markdown())
    return write_text(folder / "report.html", page.render())


def answer(result: ProbeResult) -> str:
    """The whole result in one sentence."""
    every = result.tables["effects"].filter(pl.col("estimand") == result.settings.estimand)
    effects = every.filter(pl.col("b") == result.settings.base)
    if effects.is_empty():
        effects = every
    parts = []
    for a, b in effects.select("a", "b").unique(maintain_order=True).rows():
        rows = effects.filter(pl.col("a") == a, pl.col("b") == b).iter_rows(named=True)
        said = "; ".join(f"{row['feature']} {_short(row)}" for row in rows)
        parts.append(f"{a} against {b}: {said}")
    return f"Linear separability in {_layers(result)}, on traces from {result.about['source']} – {' · '.join(parts)}."


def _short(row: dict[str, Any]) -> str:
    """A conclusion with its number: "lost (−0.436)", "not decodable"."""
    if row["verdict"] in ("not decodable", "refused"):
        return str(row["verdict"])
    return f"{conclusion(row)} ({row['effect']:+.3f})"


def conclusion(row: dict[str, Any]) -> str:
    """The conclusion in a word: a change by its direction, the rest by their verdict."""
    return str(row["direction"] or row["verdict"])


def findings(result: ProbeResult) -> list[dict[str, Any]]:
    """One sentence a (feature, contrast): conclusion, effect with its interval, reason, and what could be detected."""
    return [
        {"verdict": conclusion(row), "sentence": _sentence(row)}
        for row in result.tables["effects"].filter(pl.col("estimand") == result.settings.estimand).iter_rows(named=True)
    ]


def _sentence(row: dict[str, Any]) -> str:
    start = f"{row['feature']}, {row['a']} against {row['b']}: "
    if row["verdict"] in ("not decodable", "refused"):
        return f"{start}{row['why']}."
    effect = f"Δ AUC {row['effect']:+.3f} [{row['low']:+.3f}, {row['high']:+.3f}]"
    return f"{start}{effect}, {row['why']}. Smallest Δ found in 80 % of cases: {row['detectable']:.3f}."


def as_page(result: ProbeResult, figures: Sequence[Figure], pages: Sequence[tuple[str, str]] = ()) -> Page:
    """The page: conclusions first, then what to mind, figures, and tables folded. pages: other pages of the run."""
    page = Page(TITLE, answer(result), pages)
    page.conclusions([(found["verdict"], found["sentence"]) for found in findings(result)])
    page.section("Read this first")
    page.items(result.notes)
    for figure in figures:
        page.section(figure.title)
        page.images(figure.title, figure.caption, {str(theme): svg for theme, svg in figure.svg.items()})
    page.section("Tables")
    for name, columns in _SHOWN.items():
        table = result.tables[name]
        if not table.is_empty():
            page.folded(f"{_EXPLAINED[name]} ({len(table)} rows)", table.select(columns.split()))
    page.section("Protocol")
    page.text(_what_was_read(result), "soft")
    page.code(_protocol(result).replace("<", "\\u003c"))  # JSON that no Markdown reader takes for HTML
    return page


def _layers(result: ProbeResult) -> str:
    band = result.about["band"]
    return f"layer{'s' if len(band) > 1 else ''} {', '.join(str(layer) for layer in band)}"


def _what_was_read(result: ProbeResult) -> str:
    about = result.about
    models = ", ".join(f"{name} ({count})" for name, count in about["models"].items())
    same = "identical token ids" if about["identical_tokens"] else "positions aligned by character"
    return (
        f"{about['problems']} problems in {about['groups']} groups, {about['traces']} traces from {about['source']}; "
        f"models (checkpoints): {models}; {same}; layer 0 is the embedding, the last is before the final norm."
    )


def _protocol(result: ProbeResult) -> str:
    record = {"settings": result.settings.model_dump(mode="json"), "versions": result.about["versions"]}
    return json.dumps(record, indent=2, ensure_ascii=False)
