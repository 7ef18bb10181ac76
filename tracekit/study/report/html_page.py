"""One self-contained HTML page: sections of prose, tables sorted by a click, figures. Everything shown is escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
#: Columns whose words carry a colour.
VERDICT_COLUMNS = ("verdict", "passed")


@dataclass
class Page:
    """Sections in order, as HTML and as Markdown."""

    title: str
    lead: str
    html: list[str] = field(default_factory=list)
    markdown: list[str] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)

    def section(self, heading: str) -> None:
        """Begin a section."""
        anchor = f"s{len(self.headings) + 1}"
        self.headings.append(heading)
        self.html.append(f'<h2 id="{anchor}">{html.escape(heading)}</h2>')
        self.markdown.append(f"## {heading}")

    def subsection(self, heading: str) -> None:
        """Begin a part of a section."""
        self.html.append(f"<h3>{html.escape(heading)}</h3>")
        self.markdown.append(f"### {heading}")

    def links(self, before: str, links: Sequence[tuple[str, str]]) -> None:
        """A line of links to files beside the page: (words, relative path) each."""
        anchors = " · ".join(
            f'<a href="{html.escape(path, quote=True)}">{html.escape(words)}</a>' for words, path in links
        )
        self.html.append(f"<p>{html.escape(before)} {anchors}</p>")
        self.markdown.append(f"{before} " + " · ".join(f"[{words}]({path})" for words, path in links))

    def text(self, words: str, kind: str = "") -> None:
        """A paragraph of plain words."""
        self.html.append(f"<p{_class(kind)}>{html.escape(words)}</p>")
        self.markdown.append(words)

    def code(self, words: str) -> None:
        """Words as they stand."""
        self.html.append(f"<pre>{html.escape(words)}</pre>")
        self.markdown.append(f"```\n{words}\n```")

    def figure(self, caption: str, data: str, draw: Callable[..., str], *given: object) -> None:
        """The SVG that `draw` makes of what is given, where its numbers stand and which code drew it."""
        shown = f"{caption} Data: {data}. Code: {draw.__module__}.{draw.__name__}."
        self.html.append(f"<figure>{draw(*given)}<figcaption>{html.escape(shown)}</figcaption></figure>")
        self.markdown.append(f"*{shown}* (figure in report.html)")

    def table(self, frame: pl.DataFrame, digits: int = 3, kind: str = "") -> None:
        """A frame as a table; numbers are rounded for the eye and sorted by their full value. kind: a CSS class."""
        head = "".join(
            f"<th scope='col'{_class('number' if frame.schema[c].is_numeric() else '')}>"
            f"<button>{html.escape(c)}</button></th>"
            for c in frame.columns
        )
        rows = "".join(f"<tr>{''.join(_cells(row, frame.columns, digits))}</tr>" for row in frame.iter_rows())
        self.html.append(
            f'<div class="scroll"><table class="sortable {kind}"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
        lines = ["| " + " | ".join(frame.columns) + " |", "|" + " --- |" * len(frame.columns)]
        lines += ["| " + " | ".join(_markdown(v, digits) for v in row) + " |" for row in frame.iter_rows()]
        self.markdown.append("\n".join(lines))

    def folded(self, summary: str, frame: pl.DataFrame, digits: int = 3, kind: str = "") -> None:
        """A table that opens by a click on its summary; in Markdown it stands open."""
        self.html.append(f"<details><summary>{html.escape(summary)}</summary>")
        self.markdown.append(f"**{summary}**")
        self.table(frame, digits, kind)
        self.html.append("</details>")

    def render(self) -> str:
        """The page: no network, no script but its own."""
        script = (HERE / "page.js").read_text(encoding="utf-8")
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
        links = "".join(f'<a href="#s{i}">{html.escape(h)}</a>' for i, h in enumerate(self.headings, 1))
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self.title)}</title>\n"
            f"<style>{(HERE / 'page.css').read_text(encoding='utf-8')}</style>\n</head>\n<body>\n"
            '<button id="theme" type="button">light / dark</button>\n<main>\n'
            f"<h1>{html.escape(self.title)}</h1>\n<p class='lead'>{html.escape(self.lead)}</p>\n<nav>{links}</nav>\n"
            + "\n".join(self.html)
            + f"\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
        )

    def render_markdown(self) -> str:
        """The same in Markdown, figures named."""
        return "\n\n".join([f"# {self.title}", self.lead, *self.markdown]) + "\n"


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _cells(row: Sequence[object], columns: Sequence[str], digits: int) -> list[str]:
    cells = []
    for column, value in zip(columns, row):
        shown = html.escape(show(value, digits))
        if isinstance(value, int | float) and not isinstance(value, bool):
            cells.append(f'<td class="number" data-value="{value}">{shown}</td>')
        else:
            kind = shown if column in VERDICT_COLUMNS else ""
            cells.append(f'<td><span class="{kind}">{shown}</span></td>' if kind else f"<td>{shown}</td>")
    return cells


def show(value: object, digits: int = 3) -> str:
    """A value for the eye: a dash for nothing, thin numbers, yes and no."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "passed" if value else "failed"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _markdown(value: object, digits: int) -> str:
    return show(value, digits).replace("|", "\\|").replace("\n", " ")
