"""Viewer and reports in a real browser: one palette, fit for a phone, no violation that axe-core knows."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from tests.tracekit import view_runs
from tests.tracekit.chromium import PROGRAM, Chromium, Page, chromium
from tracekit.core.pages import html_page
from tracekit.core.pages.palette import colours_of
from tracekit.viewer.build import build_view

pytestmark = [pytest.mark.browser, pytest.mark.skipif(PROGRAM is None, reason="needs Chromium")]

WIDTHS = {"desktop": 1280, "phone": 390}


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as program:
        yield program


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A page of each kind, with content of each kind."""
    folder = tmp_path_factory.mktemp("pages")
    run = view_runs.curation(folder / "run", ["<think>\n2 + 3 = 5\n</think>\n\\boxed{5}", "I think \\boxed{6}"])
    build_view(run)
    return {"viewer": run / "view" / "index.html", "report": _report(folder / "report.html")}


def _report(path: Path) -> Path:
    """A report with everything that the study's and the probing report's pages are made of."""
    page = html_page.Page("What changed?", "A lead sentence.", [("Study", ""), ("Traces", "view/index.html")])
    page.conclusions([("yes", "SFT solves 8 of 8."), ("open", "n = 12 would decide."), ("lost (−0.436)", "Worse.")])
    page.section("A figure")
    svg = 'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 200" role="img"'
    drawing = f'<svg {svg}><title>x</title><rect width="9" height="9"/></svg>'
    page.figure("Every run a dot.", "results.parquet", lambda: drawing)
    page.images(
        "Two themes", "A caption with a `name_that_is_long_" + "x" * 90 + "`.", {"light": drawing, "dark": drawing}
    )
    page.section("Tables")
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "claim": ["A long claim that has more than forty characters in it", "Short"],
            "verdict": ["yes", "open"],
            "p_holm": [1e-5, 0.2],
            **{f"column_{k}": rng.normal(size=2) for k in range(9)},
        }
    )
    page.table(frame, kind="claims")
    page.folded("More", frame)
    page.code("tracekit study studies/sealed.toml " + "x" * 200)
    path.write_text(page.render(), encoding="utf-8")
    return path


def axe(tab: Page) -> list[str]:
    """Rule and place of every violation."""
    spec = importlib.util.find_spec("axe_core_python")
    if spec is None or spec.origin is None:
        pytest.skip("needs axe-core-python")
    tab.evaluate((Path(spec.origin).parent / "axe.min.js").read_text(encoding="utf-8") + "; 0")
    found: list[dict[str, Any]] = json.loads(
        tab.evaluate("axe.run(document).then(result => JSON.stringify(result.violations))")
    )
    return [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("kind", ["viewer", "report"])
def test_a_page_is_accessible_and_fits(
    browser: Chromium, pages: dict[str, Path], kind: str, width: str, dark: bool
) -> None:
    tab = browser.open(pages[kind].as_uri(), width=WIDTHS[width], height=800, dark=dark)
    tab.wait("document.querySelector('h1') !== null && document.querySelector('.empty') === null")
    assert tab.evaluate("document.documentElement.scrollWidth") <= WIDTHS[width]
    assert axe(tab) == []
    assert tab.complaints() == []
    tab.close()


def test_the_theme_button_switches_colours_and_drawings(browser: Chromium, pages: dict[str, Path]) -> None:
    tab = browser.open(pages["report"].as_uri(), width=1280, height=800)
    before = tab.evaluate("getComputedStyle(document.body).backgroundColor")
    tab.evaluate("document.getElementById('theme').click()")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != before
    assert tab.evaluate("getComputedStyle(document.querySelector('.for-light')).display") == "none"
    assert tab.evaluate("getComputedStyle(document.querySelector('.for-dark')).display") == "block"
    tab.close()


def test_an_arm_keeps_its_colour_whoever_stands_beside_it() -> None:
    few, many = colours_of(["base", "luffy"]), colours_of(["base", "cpt", "sft", "grpo", "luffy", "mine"])
    assert few["luffy"] == many["luffy"]
    assert len(set(many.values())) == len(many)


def test_p_values_and_headers_are_printed_as_in_a_journal() -> None:
    assert html_page.show(0.00001, column="p_holm") == "< .001"
    assert html_page.show(0.0124, column="p") == ".012"
    assert html_page.header("p_holm") == "p (Holm)"
    assert html_page.show(0.0004) == "4.0e-04"
