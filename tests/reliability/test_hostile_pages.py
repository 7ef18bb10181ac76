"""Hostile text in every place of the pages of study and probing, in a browser: no script runs, nothing is asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from tests.tracekit.chromium import PROGRAM, Chromium, chromium
from tests.tracekit.hostile_traces import MARKUP, STRINGS
from tracekit.core.pages.html_page import Page

pytestmark = [pytest.mark.browser, pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")]
HOSTILE = [*MARKUP, *STRINGS]


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as program:
        yield program


def drawing(text: str) -> str:
    """A figure as the reports draw it, with the text as a label."""
    import io

    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(2, 1))
    axes.set_title(text.replace("$", r"\$")[:80])
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]


def page_of(text: str) -> str:
    """A page with the text in every place that takes one."""
    page = Page(text, text, [(text, ""), (text, "view/index.html")])
    page.conclusions([(text, text)])
    page.section(text)
    page.figure(text, text, lambda: drawing(text))
    page.images(text, text, {"light": drawing(text), "dark": drawing(text)})
    frame = pl.DataFrame({text or "empty": [text, "x"], "verdict": [text, "yes"], "n": [0.5, None]})
    page.table(frame, kind="claims")
    page.table(frame)
    page.folded(text, frame)
    page.code(text)
    return page.render()


def test_no_script_of_an_arm_a_model_a_file_or_a_setting_runs(browser: Chromium, tmp_path: Path) -> None:
    for number, text in enumerate(HOSTILE):
        path = tmp_path / f"page-{number}.html"
        path.write_text(page_of(text), encoding="utf-8")
        tab = browser.open(path.as_uri())
        tab.wait("document.querySelector('h1') !== null")
        assert tab.evaluate("typeof window.pwned") == "undefined", text
        assert tab.evaluate("document.scripts.length") <= 1, text
        assert tab.evaluate("document.querySelectorAll('iframe, object, form, base, link, video').length") == 0, text
        assert [url for url in tab.requests() if url.startswith("http")] == [], text
        assert not tab.events("Page.javascriptDialogOpening"), text
        tab.close()
