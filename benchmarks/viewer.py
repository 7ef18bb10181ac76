"""How long the page of 100,000 traces takes to write, to open, and to draw a frame while it scrolls.

python benchmarks/viewer.py [--traces 100000] [--characters 8000] [--keep FOLDER]

Chromium runs headless on this machine with an empty profile; the page is opened from disk. "Open" is from the
start of navigation until the view is drawn: the index read, filters counted, plots or rows on the page. "Frame" is the
time between two animation frames while the list scrolls; 60 frames a second are 16.7 ms each.
"""

from __future__ import annotations

import argparse
import bisect
import json
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import polars as pl

from tracekit.core.ids import content_id
from tracekit.core.runs import versions
from tracekit.core.tables import CURATED, LEDGER, PROBLEMS, STEPS, TRACES, VERDICTS, conform, write_table
from tracekit.curation.ledger import decide
from tracekit.text.segment import segment
from tracekit.viewer import build_view

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tracekit"))
from chromium import PROGRAM, Chromium, Page, chromium  # noqa: E402

RESULT = Path(__file__).parent / "results" / "viewer.md"
SENTENCES = (
    "Let me compute $\\frac{3x^2 + 1}{2}$ at $x = 5$, which gives 38.",
    "Wait, that is not right: the second term was left out.",
    "We check by substituting back: 17 * 4 = 68, and 68 - 8 = 60.",
    "Alternatively, we could count the pairs \\(a, b\\) with $a + b = 12$.",
    "The problem says that each of the seven boxes holds at least one marble.",
    "Suppose the smallest side is $n$; then the perimeter is $3n + 3$.",
)
SAMPLES = 8  # traces a problem
TEMPLATES = 400  # different texts; each trace ends in words of its own


def make_run(folder: Path, traces: int, characters: int, seed: int = 0) -> None:
    """A curated run: texts of the given length, steps, verdicts, decisions."""
    draw = random.Random(seed)
    texts = [template(draw, characters) for _ in range(TEMPLATES)]
    steps = [[(s.start, s.end, s.kind, s.correct) for s in segment(text)] for text in texts]
    problems = pl.DataFrame(
        {
            "problem_id": [content_id(str(n)) for n in range(-(-traces // SAMPLES))],
            "problem": [
                f"Problem {n}: {draw.choice(SENTENCES)} {draw.choice(SENTENCES)} What is $n$?"
                for n in range(-(-traces // SAMPLES))
            ],
            "gold": [str(draw.randrange(1000)) for _ in range(-(-traces // SAMPLES))],
        }
    ).with_columns(source=pl.lit("synthetic"), split=pl.lit("train"))
    write_table(conform(problems, PROBLEMS, "problems"), folder / "problems.parquet")
    which = [draw.randrange(TEMPLATES) for _ in range(traces)]
    ids = [content_id("trace", str(n)) for n in range(traces)]
    rows = pl.DataFrame(
        {
            "trace_id": ids,
            "problem_id": [problems["problem_id"][n // SAMPLES] for n in range(traces)],
            "author": [("DeepSeek-R1", "QwQ-32B")[n % 2] for n in range(traces)],
            "response": [f"{texts[t]} Trace number {n}: \\boxed{{{n % 1000}}}" for n, t in enumerate(which)],
            "token_count": [len(texts[t]) // 4 + draw.randrange(-600, 900) for t in which],
        }
    )
    write_table(conform(rows, TRACES, "traces"), folder / "traces.parquet")
    by_template = pl.DataFrame(
        [(t, k, *step) for t, all_ in enumerate(steps) for k, step in enumerate(all_)],
        schema={
            "t": pl.Int32,
            "step": pl.Int32,
            "start": pl.Int32,
            "end": pl.Int32,
            "kind": pl.String,
            "correct": pl.Boolean,
        },
        orient="row",
    )
    own = pl.DataFrame({"trace_id": ids, "t": pl.Series(which, dtype=pl.Int32)}).join(
        by_template, on="t", maintain_order="left_right"
    )
    write_table(conform(own.drop("t"), STEPS, "steps"), folder / "steps.parquet")
    right = [draw.random() < 0.6 for _ in range(traces)]
    verdicts = pl.DataFrame(
        {
            "trace_id": ids,
            "outcome": ["correct" if good else "wrong" for good in right],
            "prediction": [str(n % 1000) for n in range(traces)],
            "gold": [problems["gold"][n // SAMPLES] for n in range(traces)],
        }
    ).with_columns(
        method=pl.lit("rational"),
        reason=pl.lit("The answers were compared as fractions."),
        verifier=pl.lit("evaluators"),
    )
    write_table(conform(verdicts, VERDICTS, "verdicts"), folder / "verdicts.parquet")
    outcome = verdicts.select(row_id="trace_id", outcome="outcome")
    common = {"stage": "filter", "version": "1", "measured": pl.col("outcome"), "threshold": "correct"}
    ledger = decide(
        outcome, rule="outcomes", keep=pl.col("outcome") == "correct", reason=pl.lit("outcome is wrong"), **common
    )
    write_table(conform(ledger, LEDGER, "ledger"), folder / "ledger.parquet")
    kept = rows.filter(pl.Series(right)).with_columns(correct=pl.lit(True))
    write_table(conform(kept.drop("response"), CURATED, "curated"), folder / "curated.parquet")


def template(draw: random.Random, characters: int) -> str:
    """Paragraphs of a think block, then an answer."""
    paragraphs, size = [], 0
    while size < characters - 120:
        paragraphs.append(" ".join(draw.choice(SENTENCES) for _ in range(draw.randrange(2, 9))))
        size += len(paragraphs[-1]) + 2
    return "<think>\n" + "\n\n".join(paragraphs) + "\n</think>\n\nThe answer follows."


SCROLL = """new Promise((done) => {{
  const list = document.querySelector('.list');
  const times = [], costs = [];
  let last = null, left = {frames};
  const step = (now) => {{
    if (last !== null) times.push(now - last);
    last = now;
    const began = performance.now();
    list.scrollTop += {pixels};
    list.dispatchEvent(new Event('scroll')); // our own work now, to be timed; the browser's event finds it done
    costs.push(performance.now() - began);
    if (--left) requestAnimationFrame(step); else done({{times, costs}});
  }};
  requestAnimationFrame(step);
}})"""


def measure_scroll(browser: Chromium, page: Page, pixels: int, frames: int = 300) -> dict[str, float]:
    """Milliseconds of a frame while the list moves `pixels` a frame: between frames, of our own work in it, and of the
    page's main thread by its processor clock (scripts, style, layout, paint), which other processes cannot stretch."""
    browser.call("Tracing.start", traceConfig={"includedCategories": ["toplevel", "devtools.timeline"]})
    told = page.evaluate(SCROLL.format(frames=frames, pixels=pixels))
    browser.call("Tracing.end")
    while not any(event["method"] == "Tracing.tracingComplete" for event in browser.events):
        time.sleep(0.05)
    thread = thread_of_frames(browser.events)
    browser.events[:] = [event for event in browser.events if not event["method"].startswith("Tracing.")]
    times, costs = sorted(told["times"]), sorted(told["costs"])
    late = sum(time > 25 for time in times)
    return {
        "thread": statistics.median(thread),
        "thread p99": sorted(thread)[int(0.99 * len(thread))],
        "median": statistics.median(times),
        "p99": times[int(0.99 * len(times))],
        "worst": times[-1],
        "late": 100 * late / len(times),
        "work": statistics.median(costs),
        "work p99": costs[int(0.99 * len(costs))],
    }


def thread_of_frames(events: list[dict]) -> list[float]:
    """Milliseconds of processor time that the page's main thread spent from each animation frame to the next."""
    trace = [e for told in events if told["method"] == "Tracing.dataCollected" for e in told["params"]["value"]]
    drawn = [e for e in trace if e["name"] == "FireAnimationFrame"]
    threads = [(e["pid"], e["tid"]) for e in drawn]
    main = max(set(threads), key=threads.count)
    starts = sorted(e["ts"] for e, thread in zip(drawn, threads, strict=True) if thread == main)
    spent = [0.0] * len(starts)
    for event in trace:
        if (event["pid"], event["tid"]) != main or not event["name"].endswith("RunTask") or "tdur" not in event:
            continue
        # a task that begins before its frame's callback holds the callback: its end tells which frame it belongs to
        frame = bisect.bisect_right(starts, event["ts"] + event["dur"]) - 1
        if frame >= 0:
            spent[frame] += event["tdur"] / 1000
    return spent[1:-1]


def measure(page_file: Path, repeats: int) -> dict[str, object]:
    """Open, filter, open a trace, scroll: each in a browser that is already running."""
    found: dict[str, object] = {}
    with chromium() as browser:
        for view in ("overview", "traces"):
            opened = []
            for _ in range(repeats):
                page = browser.open(f"{page_file.as_uri()}#{view}")
                page.wait("document.documentElement.dataset.ready")
                opened.append(float(page.evaluate("document.documentElement.dataset.ready")))
                page.close()
            found[f"open {view}"] = statistics.median(opened)
        page = browser.open(f"{page_file.as_uri()}#traces")
        page.wait("document.querySelector('.row')")
        found["slow scroll"] = measure_scroll(browser, page, 40)
        found["fast scroll"] = measure_scroll(browser, page, 4000)
        took = "(async () => { const t = performance.now(); %s; return performance.now() - t; })()"
        choose = "document.querySelector('[data-facet=\"outcome/1\"]').click()"
        found["filter"] = page.evaluate(took % choose)
        search = (
            "const s = document.querySelector('input[type=search]'); s.value = 'problem 777'; "
            "s.dispatchEvent(new Event('input'))"
        )
        found["search"] = page.evaluate(took % search)
        walk = []
        page.evaluate("document.querySelector('.clear').click()")
        for _ in range(20):
            page.evaluate("document.querySelector('.list').focus()")
            began = (
                "window.began = performance.now(); window.before = document.querySelector('.panel').firstElementChild"
            )
            page.evaluate(began)
            page.key("PageDown")
            page.wait("document.querySelector('.panel').firstElementChild !== window.before")
            walk.append(page.evaluate("performance.now() - window.began"))
        found["trace"] = statistics.median(walk)
        found["memory"] = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
        found["complaints"] = page.complaints()
    return found


def report(traces: int, characters: int, written: float, size: dict[str, float], found: dict[str, object]) -> str:
    browser = subprocess.run([str(PROGRAM), "--version"], capture_output=True, text=True, check=True).stdout.strip()
    slow, fast = found["slow scroll"], found["fast scroll"]
    assert isinstance(slow, dict)
    assert isinstance(fast, dict)
    frame = (
        "{median:.1f} / {p99:.1f} / {worst:.1f} ms; {late:.1f} % later than 25 ms; "
        "own work {work:.2f}, p99 {work p99:.2f} ms; "
        "main thread {thread:.2f}, p99 {thread p99:.2f} ms of processor time"
    )
    lines = [
        f"# Viewer: {traces:,} traces of {characters:,} characters",
        "",
        f"`python benchmarks/viewer.py --traces {traces} --characters {characters}`",
        "",
        "| what | measured | goal |",
        "|---|---|---|",
        f"| open, overview | {found['open overview'] / 1000:.2f} s | < 2 s |",
        f"| open, list of traces | {found['open traces'] / 1000:.2f} s | < 2 s |",
        f"| frame while scrolling 40 px a frame (median / p99 / worst) | {frame.format(**slow)} | no stutter |",
        f"| frame while scrolling 4,000 px a frame | {frame.format(**fast)} | no stutter |",
        f"| choose a filter | {found['filter']:.0f} ms | |",
        f"| search problems, answers, ids | {found['search']:.0f} ms | |",
        f"| go to another trace and draw it (median) | {found['trace']:.0f} ms | |",
        f"| heap of the page | {found['memory']:.0f} MB | |",
        f"| write the page | {written:.0f} s | |",
        f"| index / all shards | {size['index']:.1f} MB / {size['all']:.0f} MB | |",
        "",
        f"{browser}, headless, software rendering; {platform.machine()}, 2 cores, load average "
        f"{os.getloadavg()[0]:.1f}; polars {versions()['polars']}.",
        "",
        "Frames are late where other processes hold the cores. Own work is what our script adds to a frame, by the "
        "clock; main thread: scripts, style, layout and painting of a frame in processor time, which a loaded machine "
        "leaves nearly as it is. A frame has 16.7 ms.",
        "",
    ]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--traces", type=int, default=100_000)
    parser.add_argument("--characters", type=int, default=8_000)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="make the run here, or use the one that stands here")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        run = chosen.keep or Path(temporary) / "run"
        if not (run / "curated.parquet").exists():
            make_run(run, chosen.traces, chosen.characters)
        began = time.perf_counter()
        page = build_view(run)
        written = time.perf_counter() - began
        shards = list(page.parent.glob("data/*.js"))
        size = {
            "all": sum(f.stat().st_size for f in shards) / 1e6,
            "index": (page.parent / "data/index.js").stat().st_size / 1e6,
        }
        found = measure(page, chosen.repeats)
    print(json.dumps(found, indent=1))
    text = report(chosen.traces, chosen.characters, written, size, found)
    print(text)
    if chosen.traces >= 100_000 and chosen.characters >= 8_000:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
