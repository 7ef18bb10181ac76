"""The page: what is written to disk, and what a headless Chromium does with it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import polars as pl
import pytest
from chromium import PROGRAM, Chromium, Page, chromium
from hostile_traces import HOSTILE
from view_runs import curation, training

from tracekit.core.folders import FolderError
from tracekit.core.tables import TableError
from tracekit.viewer import ViewError, build_view
from tracekit.viewer.scripts import as_script


def in_chromium(test: Callable) -> Callable:
    """Marked `browser`, and skipped where there is none."""
    return pytest.mark.browser(pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")(test))


TRACE = (
    "<think>\nWe add 1 and 1: $1+1=2$.\n\nWait, that is wrong: 1 + 1 = 3.\n\nLet me check: 2 - 1 = 1.\n</think>\n\n"
    "The answer is \\boxed{2}."
)


def data(page: Path, name: str) -> object:
    """What a script hands to the page."""
    text = (page.parent / "data" / f"{name}.js").read_text(encoding="utf-8")
    found = re.fullmatch(r'tracekit\.receive\("([a-z0-9-]+)",(.*)\);\n', text, re.DOTALL)
    assert found
    assert found[1] == name
    return json.loads(found[2])


@pytest.mark.parametrize(
    "text", ["</script><script>alert(1)</script>", "<!--", "-->", "a\u2028b\u2029c", "]]>", "\\u003c", '"', "\x00"]
)
def test_a_script_holds_its_text_and_nothing_that_ends_it(text: str) -> None:
    script = as_script("index", {"text": text})
    assert not set("<>\u2028\u2029") & set(script)
    assert json.loads(script.removeprefix('tracekit.receive("index",').removesuffix(");\n")) == {"text": text}


def test_index_and_shards_tell_what_the_tables_say(tmp_path: Path) -> None:
    page = build_view(curation(tmp_path, [TRACE] * 8))
    index = data(page, "index")
    rows, names = index["rows"], index["names"]
    assert rows["id"] == [f"t{n}" for n in range(8)]
    assert [names["outcome"][code] for code in rows["outcome"]] == ["correct", "correct", "correct", "wrong"] * 2
    assert [names["status"][code] for code in rows["status"]] == ["kept", "kept", "kept", "dropped"] * 2
    assert [names["drop"][code] if code >= 0 else None for code in rows["drop"]] == (
        [None] * 3 + ["filter: outcomes"]
    ) * 2
    assert [index["problems"]["id"][place] for place in rows["problem"]] == [f"p{n // 2}" for n in range(8)]
    assert rows["tokens"] == list(range(10, 18))
    assert rows["characters"] == [len(TRACE)] * 8
    assert [flag & 1 for flag in rows["flags"]] == [1] * 8  # 1 + 1 = 3 is a wrong calculation
    assert [bool(flag & 4) for flag in rows["flags"]] == [True] + [False] * 7
    first = data(page, "traces-0")["traces"][0]
    assert first["text"] == TRACE
    assert TRACE[slice(*first["think"])].startswith("\nWe add")
    steps = [TRACE[first["steps"][at] : first["steps"][at + 1]] for at in range(0, len(first["steps"]), 4)]
    kinds = [index["stepKinds"][kind] for kind in first["steps"][2::4]]
    assert list(zip(kinds, steps, strict=True))[1] == ("backtracking", "Wait, that is wrong: 1 + 1 = 3.")
    assert [verdict[0] for verdict in first["verdicts"]] == ["evaluators", "math-verify"]
    assert [decision[:2] for decision in first["decisions"]] == [["filter", "outcomes"]]
    assert data(page, "traces-0")["problems"]["p0"][4][0][0] == "gold"


def test_shards_are_cut_by_size_and_hold_every_row_once(tmp_path: Path) -> None:
    texts = [f"{n} " + "x" * 300_000 for n in range(9)]
    page = build_view(curation(tmp_path, texts))
    starts = data(page, "index")["shards"]
    shards = [data(page, f"traces-{n}") for n in range(len(starts))]
    assert starts == [0, 4, 8]
    assert [trace["text"] for shard in shards for trace in shard["traces"]] == texts


def test_a_training_run_shows_its_rollouts_beside_the_teachers_rows(tmp_path: Path) -> None:
    index = data(build_view(training(tmp_path)), "index")
    rows = index["rows"]
    assert [index["names"]["author"][code] for code in rows["author"][:4]] == ["teacher"] + ["student-1"] * 3
    assert rows["teacher"] == [1, 0, 0, 0] * 4
    assert rows["step"] == [0] * 8 + [4] * 8
    assert rows["reward"][:4] == [1.0, 1.0, 0.0, 0.0]
    assert len(set(rows["id"])) == 16


def test_runs_are_joined_on_their_problems(tmp_path: Path) -> None:
    page = build_view(
        training(tmp_path / "student"), curation(tmp_path / "teacher", [TRACE] * 4), out=tmp_path / "page"
    )
    index = data(page, "index")
    assert index["problems"]["id"] == ["p0", "p1"]
    assert len(index["rows"]["id"]) == 20
    assert data(page, "traces-0")["traces"][16]["text"] == TRACE


def test_a_trace_without_its_problem_is_shown(tmp_path: Path) -> None:
    curation(tmp_path, [TRACE] * 4)
    pl.read_parquet(tmp_path / "problems.parquet").head(1).write_parquet(tmp_path / "problems.parquet")
    index = data(build_view(tmp_path), "index")
    assert index["problems"]["id"] == ["p0", "p1"]
    assert len(index["rows"]["id"]) == 4


def test_a_collection_that_nobody_has_judged_yet_is_shown(tmp_path: Path) -> None:
    curation(tmp_path, [TRACE] * 4)
    for file in tmp_path.iterdir():
        if file.name not in ("problems.parquet", "traces.parquet"):
            file.unlink()
    page = build_view(tmp_path)
    rows = data(page, "index")["rows"]
    assert rows["outcome"] == rows["status"] == rows["drop"] == [-1] * 4
    assert len(data(page, "traces-0")["traces"][0]["steps"]) == 4 * 4  # found while the page was written


def test_the_same_run_makes_the_same_page(tmp_path: Path) -> None:
    run = curation(tmp_path, [TRACE] * 4)
    first = {f.name: f.read_bytes() for f in build_view(run).parent.rglob("*") if f.is_file()}
    second = {f.name: f.read_bytes() for f in build_view(run).parent.rglob("*") if f.is_file()}
    assert first == second


def test_what_cannot_be_shown_is_told(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(ViewError, match=r"traces\.parquet.*completions.*notes\.txt"):
        build_view(tmp_path)
    with pytest.raises(ViewError, match="no such folder"):
        build_view(tmp_path / "absent")
    run = curation(tmp_path / "run", [TRACE] * 4)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("a thesis")
    with pytest.raises(FolderError, match=r"mine holds index\.html"):
        build_view(run, out=tmp_path / "mine")
    (run / "verdicts.parquet").write_bytes(b"PAR1 damaged")
    with pytest.raises(TableError, match=r"verdicts\.parquet"):
        build_view(run)
    assert not (run / "view").exists()
    assert not list(run.glob(".view*"))


@pytest.fixture(scope="module")
def browser() -> Iterator[Chromium]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def curated_page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    texts = [TRACE] * 20 + ["😀 Plain $x^2$ and 😀.\n\nSo 1 + 1 = 3.\n\nA needle in the text.", ""] + [TRACE] * 478
    return build_view(curation(tmp_path_factory.mktemp("run"), texts))


def opened(browser: Chromium, page: Path, view: str = "overview", **window: object) -> Page:
    tab = browser.open(f"{page.as_uri()}#{view}", **window)
    tab.wait("document.documentElement.dataset.ready")
    return tab


def text_of(tab: Page, selector: str) -> str:
    return tab.evaluate(f"document.querySelector({json.dumps(selector)}).textContent")


def ran_clean(tab: Page) -> bool:
    """No exception, no violation, nothing asked of any network."""
    assert tab.complaints() == []
    assert all(url.startswith("file://") for url in tab.requests())
    tab.close()
    return True


@in_chromium
def test_the_overview_draws_the_funnel_and_its_reasons_open_the_dropped(browser, curated_page) -> None:
    tab = opened(browser, curated_page)
    assert "375 traces" in text_of(tab, ".funnel li:last-child .funnel-count")
    assert "500" in text_of(tab, ".card strong")
    assert tab.evaluate("document.querySelectorAll('.plot').length") == 2
    tab.evaluate("document.querySelector('button.reason').click()")
    tab.wait("document.querySelector('.count')")
    assert text_of(tab, ".count") == "125 of 500 traces"
    assert ran_clean(tab)


@in_chromium
def test_filters_search_and_full_text_narrow_the_list(browser, curated_page) -> None:
    tab = opened(browser, curated_page, "traces")
    tab.evaluate("document.querySelector('[data-facet=\"status/1\"]').click()")
    assert text_of(tab, ".count") == "125 of 500 traces"
    # Within the dropped, no trace is correct: the other facet says so before it is chosen.
    assert tab.evaluate(
        "[...document.querySelectorAll('[data-name=outcome] .choice-count')].map((n) => n.textContent)"
    ) == ["0", "125"]
    tab.evaluate("document.querySelector('.clear').click()")
    tab.evaluate("document.querySelector('input[type=search]').focus()")
    tab.call("Input.insertText", text="PROBLEM 7:")
    assert text_of(tab, ".count") == "2 of 500 traces"
    tab.evaluate("document.querySelector('.clear').click()")
    tab.call("Input.insertText", text="needle in")
    assert text_of(tab, ".count") == "0 of 500 traces"
    tab.key("Enter")
    tab.wait("document.querySelector('.count').textContent === '1 of 500 traces'")
    assert ran_clean(tab)


@in_chromium
def test_a_trace_is_read_by_keyboard_alone(browser, curated_page) -> None:
    tab = opened(browser, curated_page)
    tab.key("2")
    tab.wait("document.querySelector('.row')")
    tab.key("j")
    tab.key("j")
    tab.wait("document.querySelector('.trace[data-row=\"1\"]')")
    kinds = tab.evaluate("[...document.querySelectorAll('.think .step .kind')].map((n) => n.textContent)")
    assert kinds == ["calculation", "backtracking", "verification"]
    assert "✗ arithmetic" in text_of(tab, ".step.faulty")
    assert "The answer is" in text_of(tab, ".part.answer")
    assert text_of(tab, ".answers dd") == "1"
    assert tab.evaluate("document.querySelectorAll('.verdicts tbody tr').length") == 2
    tab.wait("document.querySelector('.think .katex')")
    tab.key("m")  # the source instead of set maths
    tab.wait("document.querySelector('.trace') && !document.querySelector('.katex')")
    assert "$1+1=2$" in text_of(tab, ".think")
    tab.key("c")  # the other trace of the problem beside it
    tab.wait("document.querySelectorAll('.trace').length === 2")
    tab.key("?")
    assert tab.evaluate("document.getElementById('help').open")
    assert ran_clean(tab)


@in_chromium
def test_offsets_hold_beyond_the_basic_plane_and_an_empty_response_says_so(browser, curated_page) -> None:
    tab = opened(browser, curated_page, "trace/t20")
    tab.wait("document.querySelector('.trace')")
    steps = tab.evaluate("[...document.querySelectorAll('.step .prose')].map((n) => n.textContent)")
    assert steps[1:] == ["So 1 + 1 = 3.", "A needle in the text."]
    assert steps[0].startswith("😀 Plain")
    assert steps[0].endswith("and 😀.")
    tab.evaluate("location.hash = 'trace/t21'")
    tab.wait("document.querySelector('.trace[data-row=\"21\"]')")
    assert "The response is empty" in text_of(tab, ".response")
    tab.evaluate("location.hash = 'trace/absent'")
    tab.wait("document.querySelector('.panel').textContent.includes('No trace is called absent')")
    assert ran_clean(tab)


@in_chromium
def test_pairs_stand_side_by_side_with_their_shared_words_marked(browser, curated_page) -> None:
    tab = opened(browser, curated_page, "pair/0")
    tab.wait("document.querySelector('.columns mark')")
    marks = tab.evaluate("[...document.querySelectorAll('mark')].map((n) => n.textContent)")
    assert marks == ["the quick brown fox jumps over the lazy"] * 2
    assert "AIME" in text_of(tab, ".columns > :last-child")
    assert ran_clean(tab)


@in_chromium
def test_a_students_rollout_opens_beside_its_teacher(browser, tmp_path) -> None:
    tab = opened(browser, build_view(training(tmp_path)), "traces")
    tab.key("j")
    tab.key("j")
    tab.wait("document.querySelectorAll('.trace').length === 2")
    assert tab.evaluate("[...document.querySelectorAll('.eyebrow')].map((n) => n.textContent)") == [
        "Teacher",
        "Student",
    ]
    lines = tab.evaluate("[...document.querySelectorAll('.relatives-name')].map((n) => n.textContent)")
    assert lines == [
        f"{who} · {name} · step {step}"
        for step in (0, 4)
        for who, name in (("teacher", "teacher"), ("student", "student-1"))
    ]
    assert ran_clean(tab)


@pytest.mark.parametrize("dark", [False, True])
@in_chromium
def test_text_stands_out_from_its_ground_in_both_themes(browser, curated_page, dark) -> None:
    """WCAG AA: a contrast of 4.5 for every text colour on every ground it is set on."""
    tab = opened(browser, curated_page, "trace/t3", dark=dark)
    tab.wait("document.querySelector('.trace')")
    colours = tab.evaluate(
        "Object.fromEntries(['ground','paper','sunk','ink','quiet','accent','good','good-soft','bad','bad-soft',"
        "'unknown','unknown-soft','accent-soft','mark'].map((n) => [n, getComputedStyle(document.documentElement)"
        ".getPropertyValue('--' + n).trim()]))"
    )
    grounds = {
        "ink": ["ground", "paper", "sunk", "mark", "accent-soft"],
        "quiet": ["ground", "paper", "sunk", "accent-soft"],
    }
    grounds |= {
        "accent": ["paper", "sunk"],
        **{tone: ["paper", f"{tone}-soft"] for tone in ("good", "bad", "unknown")},
    }
    low = {
        (text, ground): round(contrast(colours[text], colours[ground]), 2)
        for text, all_ in grounds.items()
        for ground in all_
    }
    assert {pair: value for pair, value in low.items() if value < 4.5} == {}
    assert ran_clean(tab)


@in_chromium
def test_every_control_has_a_name_and_the_list_says_where_it_is(browser, curated_page) -> None:
    tab = opened(browser, curated_page, "traces")
    tab.key("j")
    tab.wait("document.querySelector('.trace')")
    tree = tab.call("Accessibility.getFullAXTree")["nodes"]
    named = [(n["role"]["value"], n.get("name", {}).get("value", "")) for n in tree if not n["ignored"]]
    controls = {"button", "checkbox", "combobox", "searchbox", "link", "listbox", "option"}
    assert [role for role, name in named if role in controls and not name.strip()] == []
    assert {"main", "navigation", "listbox", "complementary", "article"} <= {role for role, _ in named}
    row = tab.evaluate(
        "(() => { const row = document.getElementById(document.querySelector('.list').getAttribute("
        "'aria-activedescendant')); return [row.ariaSelected, row.ariaPosInSet, row.ariaSetSize]; })()"
    )
    assert row == ["true", "1", "500"]
    assert ran_clean(tab)


@in_chromium
def test_a_page_opened_on_a_trace_shows_its_row(browser, curated_page) -> None:
    tab = opened(browser, curated_page, "trace/t400")
    tab.wait("document.querySelector('.row[aria-selected=true]')")
    inside = (
        "(() => { const row = document.querySelector('.row[aria-selected=true]').getBoundingClientRect();"
        "const list = document.querySelector('.list').getBoundingClientRect();"
        "return row.height > 0 && row.top >= list.top - 1 && row.bottom <= list.bottom + 1; })()"
    )
    tab.wait(inside)
    assert ran_clean(tab)


@in_chromium
def test_prices_are_not_set_as_maths(browser, curated_page) -> None:
    tab = opened(browser, curated_page, "traces")
    cases = {
        "The house cost $80,000 and the repairs cost 50,000 so it is =$<<1>>": [],
        "It costs $5 and $10": [],
        "so $2 + 3 = 5$ and $12 mod 5$ and $3\\text{ for all }x$": ["2 + 3 = 5", "12 mod 5", "3\\text{ for all }x"],
    }
    for text, formulas in cases.items():
        found = tab.evaluate(f"maths.split({json.dumps(text)}).filter((one) => one.tex).map((one) => one.tex)")
        assert found == formulas
    assert ran_clean(tab)


@in_chromium
def test_a_window_of_a_phone_has_no_sideways_scroll(browser, curated_page) -> None:
    for view in ("overview", "traces", "trace/t3", "pair/0"):
        tab = opened(browser, curated_page, view, width=360, height=740)
        tab.evaluate("new Promise((done) => setTimeout(done, 100))")
        assert tab.evaluate("document.documentElement.scrollWidth") == 360
        assert ran_clean(tab)


@in_chromium
def test_the_watch_sees_a_script_that_runs(browser, tmp_path) -> None:
    page = tmp_path / "bare.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><body>{HOSTILE[0]}", encoding="utf-8")
    tab = browser.open(page.as_uri())
    assert tab.evaluate("window.pwned") == 1
    tab.close()


@in_chromium
def test_fifty_hostile_traces_run_no_script_and_are_shown_as_they_are(browser, tmp_path) -> None:
    assert len(HOSTILE) >= 50
    page = build_view(curation(tmp_path, HOSTILE, words=HOSTILE[0]))
    tab = opened(browser, page)
    tab.evaluate("location.hash = 'traces'")
    tab.wait("document.querySelector('.row')")
    tab.evaluate(WALK.format(rows=len(HOSTILE)))  # with maths set
    nothing_ran(tab)
    tab.key("m")  # as source: the text as it stands, but for white space between steps
    for text, shown in zip(HOSTILE, tab.evaluate(WALK.format(rows=len(HOSTILE))), strict=True):
        words = set(text.replace("<think>", " ").replace("</think>", " ").split())
        assert all(word in shown for word in words), text
    nothing_ran(tab)
    for pair in range(3):
        tab.evaluate(f"location.hash = 'pair/{pair}'")
        tab.wait("document.querySelector('.columns.two')")
    nothing_ran(tab)
    tab.evaluate("location.hash = 'overview'")
    tab.wait("document.querySelector('.funnel')")
    nothing_ran(tab)
    assert tab.complaints() == []
    assert all(url.startswith(page.parent.as_uri()) for url in tab.requests())
    assert tab.events("Page.javascriptDialogOpening") == []
    tab.close()


#: Opens each trace in turn, lets it be painted, and tells the text of its response.
WALK = """(async () => {{
  const told = [];
  for (let row = 0; row < {rows}; row++) {{
    location.hash = `trace/t${{row}}`;
    while (!document.querySelector(`.trace[data-row="${{row}}"]`)) await new Promise((next) => setTimeout(next, 1));
    await new Promise((next) => requestAnimationFrame(() => requestAnimationFrame(next)));
    told.push(document.querySelector('.response').textContent);
  }}
  return told;
}})()"""


def nothing_ran(tab: Page) -> None:
    assert tab.evaluate("typeof window.pwned") == "undefined"
    assert tab.evaluate("document.title") != "pwned"
    foreign = (
        "#view :is(script, iframe, img, object, embed, form, base, meta, link, video, audio, a, foreignObject, "
        "[style*=url], [onerror], [onload])"
    )
    assert tab.evaluate(f"document.querySelectorAll({json.dumps(foreign)}).length") == 0


@in_chromium
def test_the_policy_stops_what_gets_past_the_page(browser, tmp_path) -> None:
    """A second wall: even code of the page cannot make markup run, or reach a network."""
    tab = opened(browser, build_view(curation(tmp_path, [TRACE])))
    for attempt in (
        "document.body.innerHTML = '<img src=x onerror=window.pwned=1>'",
        "document.write('<script>window.pwned=1<\\/script>')",
        "setTimeout('window.pwned=1')",
        "document.createElement('script').src = 'data/other.js'",
    ):
        refused = f"(() => {{ try {{ {attempt}; return 'ran'; }} catch (error) {{ return error.name; }} }})()"
        assert tab.evaluate(refused) == "TypeError", attempt
    inline = "{ const b = document.createElement('b'); b.setAttribute('onclick', 'window.pwned=1'); b.click(); }"
    tab.evaluate(f"(() => {{ try {inline} catch {{ }} }})()")
    fetched = "fetch('http://127.0.0.1:9/').then(() => 'reached', (error) => error.name)"
    assert tab.evaluate(fetched) == "TypeError"
    assert any("connect" in text for text in tab.complaints())
    assert tab.evaluate("typeof window.pwned") == "undefined"
    tab.close()


def contrast(first: str, second: str) -> float:
    """WCAG 2.2, relative luminance of two hex colours."""

    def luminance(colour: str) -> float:
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return sum(weight * c for weight, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    light, dark = sorted((luminance(first), luminance(second)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
