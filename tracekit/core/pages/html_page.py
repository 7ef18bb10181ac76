"""One self-contained HTML page: sections of prose, tables sorted by a click, figures. All text is escaped."""

from __future__ import annotations

import base64
import hashlib
import html
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl

HERE = Path(__file__).parent
#: Columns whose words are conclusions, drawn as such.
VERDICT_COLUMNS = ("verdict", "conclusion", "passed")
#: Conclusion → the class of its colour; what is not here is drawn in grey.
TONES = {
    **dict.fromkeys(("passed", "supported", "yes", "gained", "changed"), "good"),
    **dict.fromkeys(("failed", "refuted", "lost", "refused", "withheld", "no: the opposite"), "bad"),
    **dict.fromkeys(("open", "inconclusive", "equivalent", "no difference"), "unknown"),
}
#: Column names that underscores alone would not make readable.
HEADERS = {
    "p_holm": "p (Holm)",
    "p_equivalent_holm": "p of equivalence (Holm)",
    "auc": "AUC",
    "auc_a": "AUC of a",
    "auc_b": "AUC of b",
    "low": "low (95 %)",
    "high": "high (95 %)",
    "kkt_gap": "KKT gap",
    "flops": "FLOPs",
}


@dataclass
class Page:
    """Sections in order, as HTML and as Markdown.

    Attributes
    ----------
    title, lead : str
        The heading and the sentence below it.
    pages : sequence of (str, str)
        Pages of the same run, as words and relative path; the path "" is this page.
    """

    title: str
    lead: str
    pages: Sequence[tuple[str, str]] = ()
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
        """Add a line of links to files beside the page: (words, relative path) each."""
        anchors = " · ".join(_anchor(words, path) for words, path in links)
        self.html.append(f"<p>{html.escape(before)} {anchors}</p>")
        self.markdown.append(f"{before} " + " · ".join(f"[{words}]({path})" for words, path in links))

    def text(self, words: str, kind: str = "") -> None:
        """Add a paragraph of plain words."""
        self.html.append(f"<p{_class(kind)}>{html.escape(words)}</p>")
        self.markdown.append(_plain_markdown(words))

    def items(self, sentences: Sequence[str]) -> None:
        """Add a list of sentences."""
        self.html.append(f"<ul>{''.join(f'<li>{html.escape(words)}</li>' for words in sentences)}</ul>")
        self.markdown.append("\n".join(f"- {_plain_markdown(words)}" for words in sentences))

    def conclusions(self, found: Sequence[tuple[str, str]]) -> None:
        """Add a list of (conclusion, sentence)."""
        rows = "".join(f"<li>{verdict(word)} {html.escape(sentence)}</li>" for word, sentence in found)
        self.html.append(f"<ul>{rows}</ul>")
        self.markdown.append("\n".join(f"- **{word}**: {_plain_markdown(sentence)}" for word, sentence in found))

    def code(self, words: str) -> None:
        """Add text as it stands."""
        self.html.append(f'<pre tabindex="0">{html.escape(words)}</pre>')
        self.markdown.append(f"```\n{words}\n```")

    def figure(self, caption: str, data: str, draw: Callable[..., str], *given: object) -> None:
        """Add the SVG that `draw` makes of what is given, where its numbers stand and which code drew it."""
        shown = f"{caption} Data: {data}. Code: {draw.__module__}.{draw.__name__}."
        self.html.append(
            f'<figure><div class="drawing" tabindex="0">{draw(*given)}</div>'
            f"<figcaption>{html.escape(shown)}</figcaption></figure>"
        )
        self.markdown.append(f"*{shown}* (figure in report.html)")

    def images(self, title: str, caption: str, svg: Mapping[str, str]) -> None:
        """Add a figure that is drawn once for each theme. svg: theme → drawing; they share no names as images."""
        drawn = "".join(
            f'<img class="for-{theme}" alt="{html.escape(title, quote=True)}" '
            f'src="data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()}">'
            for theme, drawing in svg.items()
        )
        self.html.append(
            f'<figure><div class="drawing" tabindex="0">{drawn}</div>'
            f"<figcaption>{html.escape(caption)}</figcaption></figure>"
        )
        self.markdown.append(f"*{_plain_markdown(caption)}* (figure in report.html)")

    def table(self, frame: pl.DataFrame, digits: int = 3, kind: str = "") -> None:
        """Add a frame as a table; numbers are rounded for reading and sorted by their full value. kind: a CSS class."""
        head = "".join(
            f"<th scope='col'{_class('number' if frame.schema[c].is_numeric() else '')}>"
            f"<button>{html.escape(header(c))}</button></th>"
            for c in frame.columns
        )
        rows = "".join(f"<tr>{''.join(_cells(row, frame.columns, digits))}</tr>" for row in frame.iter_rows())
        self.html.append(
            f'<div class="scroll" tabindex="0"><table class="sortable {kind}"><thead><tr>{head}</tr></thead>'
            f"<tbody>{rows}</tbody></table></div>"
        )
        lines = ["| " + " | ".join(map(header, frame.columns)) + " |", "|" + " --- |" * len(frame.columns)]
        lines += [
            "| " + " | ".join(_markdown(column, value, digits) for column, value in zip(frame.columns, row)) + " |"
            for row in frame.iter_rows()
        ]
        self.markdown.append("\n".join(lines))

    def folded(self, summary: str, frame: pl.DataFrame, digits: int = 3, kind: str = "") -> None:
        """Add a table that opens by a click on its summary; in Markdown it stands open."""
        self.html.append(f"<details><summary>{html.escape(summary)}</summary>")
        self.markdown.append(f"**{summary}**")
        self.table(frame, digits, kind)
        self.html.append("</details>")

    def render(self) -> str:
        """Return the page: no network, no script but its own."""
        script = (HERE / "report.js").read_text(encoding="utf-8")
        style = "".join((HERE / file).read_text(encoding="utf-8") for file in ("tokens.css", "report.css"))
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        policy = f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'"
        contents = "".join(f'<a href="#s{i}">{html.escape(h)}</a>' for i, h in enumerate(self.headings, 1))
        return (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
            f"<title>{html.escape(self.title)}</title>\n<style>{style}</style>\n</head>\n<body>\n"
            f'<a class="skip" href="#main">To the content</a>\n<header class="bar">{self._navigation()}'
            '<button id="theme" type="button">Theme</button></header>\n<main id="main">\n'
            f'<h1>{html.escape(self.title)}</h1>\n<p class="lead">{html.escape(self.lead)}</p>\n'
            f'<nav class="contents" aria-label="Sections">{contents}</nav>\n'
            + "\n".join(self.html)
            + f"\n</main>\n<script>{script}</script>\n</body>\n</html>\n"
        )

    def _navigation(self) -> str:
        links = "".join(
            _anchor(words, path) if path else f'<a href="#main" aria-current="page">{html.escape(words)}</a>'
            for words, path in self.pages or [("Report", "")]
        )
        return f'<nav aria-label="Pages">{links}</nav>'

    def render_markdown(self) -> str:
        """Return the same as Markdown, figures named."""
        return "\n\n".join([f"# {_plain_markdown(self.title)}", _plain_markdown(self.lead), *self.markdown]) + "\n"


def verdict(word: str) -> str:
    """Return a conclusion as HTML: its word, in the colour of its kind."""
    tone = TONES.get(word) or next((tone for start, tone in TONES.items() if word.startswith(f"{start} ")), "")
    return f'<span class="verdict {tone}">{html.escape(word)}</span>'


def header(column: str) -> str:
    """Return a column's name in words."""
    return HEADERS.get(column, column.replace("_", " "))


def show(value: object, digits: int = 3, column: str = "") -> str:
    """Return a value for reading: a dash for nothing, thousands separated, p-values as journals print them."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "–"
    if isinstance(value, bool):
        return "passed" if value else "failed"
    if isinstance(value, float):
        if (column == "p" or column.startswith("p_")) and 0 <= value <= 1:
            return "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")
        if 0 < abs(value) < 10**-digits:
            return f"{value:.1e}"
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.{digits}f}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _anchor(words: str, path: str) -> str:
    return f'<a href="{html.escape(path, quote=True)}">{html.escape(words)}</a>'


def _class(kind: str) -> str:
    return f' class="{kind}"' if kind else ""


def _cells(row: Sequence[object], columns: Sequence[str], digits: int) -> list[str]:
    cells = []
    for column, value in zip(columns, row):
        shown = show(value, digits, column)
        if column in VERDICT_COLUMNS and value is not None:
            cells.append(f"<td>{verdict(shown)}</td>")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            cells.append(f'<td class="number" data-value="{value}">{html.escape(shown)}</td>')
        else:
            cells.append(f"<td{_class('long' if len(shown) > 40 else '')}>{html.escape(shown)}</td>")
    return cells


def _markdown(column: str, value: object, digits: int) -> str:
    return _plain_markdown(show(value, digits, column)).replace("|", "\\|").replace("\n", " ")


def _plain_markdown(text: str) -> str:
    """Return text that no Markdown reader takes for HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;")
