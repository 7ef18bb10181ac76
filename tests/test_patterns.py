"""Every regular expression of the four packages reads hostile text in time proportional to its length."""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PACKAGES = ("evaluators", "tracekit", "trainer", "probes")
ROOT = Path(__file__).parents[1]
#: What a looping model writes, or somebody who means harm: each is repeated, alone and between other characters.
UNITS = (
    *(
        " ",
        "\n",
        "\n ",
        "a",
        "1",
        "x1",
        "1 ",
        "1,",
        "1.",
        ". ",
        "-",
        "1/",
        "1+",
        "a=",
        "\\",
        "\\[",
        "\\(",
        "\\,",
        "\\ ",
    ),
    *(
        "$",
        "$a$ ",
        "{",
        "}",
        "(",
        ")",
        "[",
        "]",
        "<",
        "<<1",
        "\\frac{",
        "\\boxed{",
        "\\text{a}",
        "\\begin{a}",
        "^{",
        "_",
    ),
    *(
        "*",
        "**",
        "#",
        "####",
        "`",
        ":",
        "?",
        "A: ",
        "is ",
        "the answer is ",
        "and ",
        "\\quad ",
        "<think>",
        "答案",
        "1\u0305",
    ),
)
AROUND = (("", "x"), ("1", "\n!"))
SMALL = 500  # characters; the second length is four times as great
FLOOR = 0.004  # seconds of CPU time below which growth is not looked at: most patterns need 0.0001
LINEAR = 9.0  # growth over four times the length: 4 is linear, 16 quadratic
METHODS = ("search", "match", "fullmatch", "finditer", "findall", "sub", "subn", "split")


def modules() -> Iterator[object]:
    for package in PACKAGES:
        for found in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}."):
            if not found.name.endswith(("__main__", "_worker")):
                try:
                    yield importlib.import_module(found.name)
                except ImportError:  # of an extra that is not installed
                    continue


def patterns() -> dict[str, re.Pattern[str]]:
    """Every compiled text pattern that is an attribute of a module, or stands in its tuples and tables."""
    found: dict[tuple[str, int], tuple[str, re.Pattern[str]]] = {}
    for module in modules():
        for name, value in list(vars(module).items()):
            for pattern in _within(value) if not name.startswith("__") else ():
                if isinstance(pattern.pattern, str):
                    key = (pattern.pattern, pattern.flags)
                    found.setdefault(key, (f"{module.__name__}.{name} {pattern.pattern[:40]!r}", pattern))
    return dict(found.values())


def _within(value: object, depth: int = 3) -> Iterator[re.Pattern[str]]:
    if isinstance(value, re.Pattern):
        yield value
    elif depth and isinstance(value, (tuple, list, dict)) and len(value) < 500:
        for one in value.values() if isinstance(value, dict) else value:
            yield from _within(one, depth - 1)


def uses() -> dict[str, set[str]]:
    """The methods that a module calls on each name, by "module.name"; by ".name" those of all modules together."""
    call = re.compile(rf"\b(\w+)(?:\[[^\]\n]{{1,40}}\])?\.({'|'.join(METHODS)})\(")
    found: dict[str, set[str]] = {}
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
            for name, method in call.findall(path.read_text(encoding="utf-8")):
                found.setdefault(f"{module}.{name}", set()).add(method)
                found.setdefault(f".{name}", set()).add(method)
    return found


def methods_of(name: str, called: dict[str, set[str]]) -> set[str]:
    """How a pattern is used: as its own module uses it, or where that does not, as any module does."""
    return called.get(name) or called.get("." + name.rpartition(".")[2], set())


def work_of(pattern: re.Pattern[str], methods: set[str]) -> Callable[[str], None]:
    """One pass over a text as the code makes it; every kind of pass for a pattern whose use is not seen."""
    scans = not methods or bool(methods & {"finditer", "findall", "sub", "subn", "split"})

    def run(text: str) -> None:
        if scans:
            for _ in pattern.finditer(text):
                pass
        if not methods or "search" in methods:
            pattern.search(text)
        if not methods or "match" in methods:
            pattern.match(text)
        if not methods or "fullmatch" in methods:
            pattern.fullmatch(text)

    return run


def seconds(work: Callable[[str], None], text: str, tries: int) -> float:
    best = float("inf")
    for _ in range(tries):
        start = time.thread_time()
        work(text)
        best = min(best, time.thread_time() - start)
    return best


def superlinear(work: Callable[[str], None]) -> list[str]:
    """The texts over which a pattern's time grows clearly faster than their length."""
    slow = []
    for unit in UNITS:
        for before, after in AROUND:
            short, long = (before + unit * (size // len(unit)) + after for size in (SMALL, 4 * SMALL))
            if seconds(work, long, 1) > FLOOR and seconds(work, long, 3) > FLOOR:
                growth = seconds(work, long, 3) / seconds(work, short, 5)
                if growth > LINEAR:
                    slow.append(f"{before}{unit}…{after} ×{growth:.0f}")
                    break
        if len(slow) == 2:
            break
    return slow


@pytest.mark.timeout(1200)
def test_no_pattern_takes_more_time_than_the_texts_length_asks_for():
    called = uses()
    found = patterns()
    assert len(found) > 150
    slow = {}
    for name, pattern in found.items():
        texts = superlinear(work_of(pattern, methods_of(name.split()[0], called)))
        if texts:
            slow[name] = texts
    assert slow == {}


@pytest.mark.parametrize("pattern", [r"\s+$", r"(?:a|1)*b", r"\d+(?:,\d+)*\s*;"])
def test_the_check_finds_quadratic_patterns(pattern):
    assert superlinear(work_of(re.compile(pattern), {"search"}))


def test_the_check_passes_linear_patterns():
    assert superlinear(work_of(re.compile(r"\\frac\{(\d{1,30})\}|[a-z]{2,20} is\b"), set())) == []
