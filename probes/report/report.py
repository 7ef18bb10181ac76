"""The probing report: one HTML page that opens from disk and needs no network, Markdown, and Parquet tables."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from probes.protocol.result import ProbeResult
from probes.report.figures import Figure, draw_figures
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
    "sources": "Arm × source: AUC in the layer band",
    "source_effects": "Arm × source: differences, on identical traces of each source and on each model's own",
}

_STYLE = """
:root { color-scheme: light dark;
  --ink: #1f2328; --faint: #59636e; --line: #d8dce1; --paper: #ffffff; --tint: #f4f6f8; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --faint: #9aa4af; --line: #343a42; --paper: #14171b; --tint: #1c2026; }
}
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 68rem; padding: 2rem 1.25rem 5rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; } h2 { font-size: 1.15rem; margin: 2.6rem 0 .4rem; }
p.answer { font-size: 1.1rem; } .faint, figcaption { color: var(--faint); font-size: .88rem; }
figure { margin: .6rem 0 0; overflow-x: auto; } figure img { max-width: 100%; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .84rem; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .28rem .7rem .28rem 0; border-bottom: 1px solid var(--line); vertical-align: top; }
td.number { text-align: right; white-space: nowrap; }
td.long { min-width: 19rem; } th { color: var(--faint); font-weight: 600; }
ul.findings { padding-left: 1.1rem; }
b.verdict { font-weight: 650; } details { margin-top: 1.2rem; } summary { cursor: pointer; }
pre { background: var(--tint); padding: .8rem; overflow-x: auto; font-size: .82rem; }
"""


def write_report(result: ProbeResult, folder: str | Path) -> Path:
    """Write report.html, report.md and tables/*.parquet into `folder`; returns the page."""
    folder = Path(folder)
    for name, table in result.tables.items():
        write_table(table, folder / "tables" / f"{name}.parquet")
    figures = draw_figures(result)
    write_text(folder / "report.md", as_markdown(result))
    return write_text(folder / "report.html", as_html(result, figures))


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


def as_html(result: ProbeResult, figures: Sequence[Figure]) -> str:
    """The page. Every text from outside is escaped; figures are images inside the page, in both themes."""
    sentences = "".join(
        f"<li><b class='verdict'>{_escape(f['verdict'])}</b> – {_escape(f['sentence'])}</li>" for f in findings(result)
    )
    notes = "".join(f"<li>{_escape(note)}</li>" for note in result.notes)
    tables = "".join(_html_table(name, result.tables[name]) for name in _SHOWN if not result.tables[name].is_empty())
    return (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<title>{TITLE}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{TITLE}</h1><p class='answer'>{_escape(answer(result))}</p><ul class='findings'>{sentences}</ul>"
        f"<h2>Read this first</h2><ul>{notes}</ul>{''.join(_html_figure(f) for f in figures)}"
        f"<h2>Tables</h2>{tables}<h2>Protocol</h2><p class='faint'>{_escape(_what_was_read(result))}</p>"
        f"<pre>{_escape(_protocol(result))}</pre></body></html>\n"
    )


def as_markdown(result: ProbeResult) -> str:
    """The same as text: the answer, findings, notes, tables, protocol."""
    lines = [f"# {TITLE}", "", _markdown(answer(result)), ""]
    lines += [f"- **{f['verdict']}**: {_markdown(f['sentence'])}" for f in findings(result)]
    lines += ["", "## Read this first", "", *(f"- {_markdown(note)}" for note in result.notes)]
    for name, columns in _SHOWN.items():
        table = result.tables[name]
        if not table.is_empty():
            lines += ["", f"## {_EXPLAINED[name]}", "", *_markdown_table(table.select(columns.split()))]
    protocol = ["```json", _protocol(result).replace("<", "\\u003c"), "```"]
    return "\n".join([*lines, "", "## Protocol", "", _markdown(_what_was_read(result)), "", *protocol, ""])


def _html_figure(figure: Figure) -> str:
    light, dark = (
        "data:image/svg+xml;base64," + base64.b64encode(figure.svg[theme].encode()).decode()
        for theme in ("light", "dark")
    )
    return (
        f"<h2 id='{figure.name}'>{_escape(figure.title)}</h2><figure><picture>"
        f"<source media='(prefers-color-scheme: dark)' srcset='{dark}'>"
        f"<img src='{light}' alt='{_escape(figure.title)}'></picture>"
        f"<figcaption>{_escape(figure.caption)}</figcaption></figure>"
    )


def _html_table(name: str, table: pl.DataFrame) -> str:
    shown = table.select(_SHOWN[name].split())
    head = "".join(f"<th>{_escape(c.replace('_', ' '))}</th>" for c in shown.columns)
    body = "".join(
        "<tr>" + "".join(f"<td{_align(v)}>{_escape(_format(v))}</td>" for v in row) + "</tr>" for row in shown.rows()
    )
    opened = " open" if name == "effects" else ""
    return (
        f"<details{opened}><summary>{_escape(_EXPLAINED[name])} ({len(shown)} rows)</summary>"
        f"<div class='scroll'><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _markdown_table(table: pl.DataFrame) -> list[str]:
    rows = [f"| {' | '.join(table.columns)} |", f"|{'---|' * len(table.columns)}"]
    return rows + [f"| {' | '.join(_markdown_cell(v) for v in row)} |" for row in table.rows()]


def _markdown_cell(value: Any) -> str:
    return _markdown(_format(value)).replace("|", "\\|").replace("\n", " ")


def _markdown(text: str) -> str:
    """Text that no Markdown reader takes for HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")


def _align(value: Any) -> str:
    if isinstance(value, str) and len(value) > 40:
        return " class='long'"
    return " class='number'" if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def _format(value: Any) -> str:
    if value is None or value != value:  # NaN
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) >= 0.001 or value == 0 else f"{value:.1e}"
    return str(value)


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


def _escape(text: str) -> str:
    return html.escape(text, quote=True)
