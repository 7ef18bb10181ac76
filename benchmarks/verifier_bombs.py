"""Resource bombs: how long each verdict takes, from the main thread, another thread and asyncio.

    python benchmarks/verifier_bombs.py [--goal-milliseconds 50]

A bomb is an answer whose value cannot be computed in the time there is, or text built to make a parser slow. Each is
verified as a response against a plain gold, as a gold against a plain response, and against a bomb that differs.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import threading
import time
from collections.abc import Callable, Iterator

from evaluators.verdict import Verdict
from evaluators.verify import verify
from evaluators.workers import pool as deadline

HARD_CAP_SECONDS = 1.0

BOMBS = {
    "tower of powers": "9^{9^{9^9}}",
    "tower of powers, plain": "9**9**9**9",
    "tower of powers, bracketed": "((9^9)^{9^9})^{9^9}",
    "negative tower": "2^{-9^{9^9}}",
    "factorial": "(10^9)!",
    "factorial of a factorial": "((100!)!)!",
    "double factorials": "100!!!!!!!!",
    "binomial": "\\binom{10^{12}}{5\\cdot 10^{11}}",
    "binomial of large numbers": "\\binom{10^{40}}{10^{20}}",
    "open braces": "{" * 10_000,
    "open brackets": "(" * 10_000,
    "brackets": "(" * 5_000 + "1" + ")" * 5_000,
    "stretching brackets": "\\left(" * 3_000 + "1" + "\\right)" * 3_000,
    "nested fractions": "\\frac{1}{" * 2_000 + "2" + "}" * 2_000,
    "nested roots": "\\sqrt{" * 2_000 + "2" + "}" * 2_000,
    "nested powers": "2^{" * 2_000 + "1" + "}" * 2_000,
    "nested sines": "\\sin(" * 500 + "1" + ")" * 500,
    "nested absolute values": "|" * 2_001,
    "a megabyte of digits": "7" * 1_000_000,
    "a megabyte of decimals": "0." + "7" * 1_000_000,
    "a megabyte of minuses": "-" * 1_000_000 + "1",
    "a megabyte of pluses": "1" + "+1" * 500_000,
    "a megabyte of factors": "x" * 1_000_000,
    "a megabyte of commas": "1," * 500_000,
    "a megabyte of spaces": "1" + " " * 1_000_000 + "2",
    "a megabyte of backslashes": "\\" * 1_000_000,
    "a megabyte of exclamation": "3" + "!" * 1_000_000,
    "exponent of a decimal": "1e999999999",
    "exponent of a power of ten": "10^{999999999}",
    "percent of percent": "5" + "\\%" * 100_000,
    "large matrix": "\\begin{pmatrix}" + "\\\\".join(["&".join(["1"] * 300)] * 300) + "\\end{pmatrix}",
    "power of a matrix": "\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}^{10^9}",
    "long set": "\\{" + ",".join(str(i) for i in range(20_000)) + "\\}",
    "set of sets": "\\{" * 2_000 + "1" + "\\}" * 2_000,
    "many unions": "\\cup".join(f"({i},{i + 1})" for i in range(5_000)),
    "many plus-minus": "\\pm 1" * 40,
    "plus-minus in factors": "(1 \\pm x)" * 40,
    "expansion": "(a+b+c+d+e+f+g+h)^{500}",
    "product of sums": "".join(f"(x+{i})" for i in range(400)),
    "power of a sum": "(x+y)^{10^6}",
    "sum of roots": "+".join(f"\\sqrt{{{n}}}" for n in range(2, 400)),
    "root of a large number": "\\sqrt[1000003]{10^{10^6}}",
    "logarithm of a tower": "\\ln(9^{9^{9^9}})",
    "sine of a tower": "\\sin(9^{9^{9^9}})",
    "cancelling sines": "\\sin(10^{40}\\pi + x) - \\sin(x)",
    "high degree": "x^{10^9} - 1",
    "degree in brackets": "(x^{1000}+1)^{1000}",
    "nested exponentials": "e^{e^{e^{e^{e^{e^x}}}}}",
    "base of digits": "1" * 100_000 + "_2",
    "large base": "1011_{10^9}",
    "mixed numbers": "1 1/2 " * 10_000,
    "repeating decimal": "0.\\overline{" + "142857" * 20_000 + "}",
    "continued fraction": "1+\\cfrac{1}{" * 300 + "1" + "}" * 300,
    "nested cases": "\\begin{cases}" * 1_000 + "1" + "\\end{cases}" * 1_000,
    "text commands": "\\text{" * 3_000 + "a" + "}" * 3_000,
    "derivative of a product": "\\frac{d^6}{dx^6}(" + "".join(f"\\sin({i}x)" for i in range(1, 12)) + ")",
    "derivatives of derivatives": "\\frac{d}{dx}" * 50 + "x^{50}",
    "open derivatives": "\\frac{d(" + "{}" * 8_000,
    "determinant": "\\det\\begin{pmatrix}" + "\\\\".join(["&".join(["x^{50}+y"] * 5)] * 5) + "\\end{pmatrix}",
    "implications": "p\\to " * 3_000 + "q",
    "long vector": "<" + "1," * 9_000 + "1>",
    "open vector": "<" + "1," * 9_000 + "1",
    "differentials": "\\int " + "xdx" * 5_000,
    "sum of exponentials": "+".join(f"{i}\\cdot {i}^x" for i in range(2, 60)) + "=0",
    "subscripts": "x" + "_{x" * 2_000 + "}" * 2_000,
    "chained inequalities": "<".join(["x"] * 5_000),
    "chained equations": "=".join(["x"] * 5_000),
    "greatest common divisor": "\\gcd(10^{100000}, 10^{99999}+1)",
    "modulus": "7^{10^{10}} \\bmod 1000",
    "floor of a tower": "\\lfloor 9^{9^9} / 7 \\rfloor",
    "digits of pi": "\\pi^{10^6}",
    "trigonometric identity": "\\sin^{60} x + \\cos^{60} x",
    "long sum of measures": "1 1/2 km + " * 500 + "1",
    "repeating decimal, squared": "(0.\\overline{" + "1428573" * 1_000 + "})^2",
    "sum of cube roots": "+".join(f"\\sqrt[3]{{{n}}}" for n in range(2, 200)),
    "sum of roots of a variable": "+".join(f"x^{{1/{n}}}" for n in range(2, 150)),
    "set of exponentials": "\\{" + ",".join(f"e^{{e^{{e^{{x+{n}}}}}}}" for n in range(40)) + "\\}",
    "sum of many terms": "\\sum_{i=1}^{10^9} i^2",
    "sum of sums": "\\sum_{i=1}^{1000}\\sum_{j=1}^{1000} ij",
    "product of many factors": "\\prod_{i=1}^{10^9} i",
    "power of three terms": "(x+y+z)^{200}",
    "symbolic radicals": "\\sqrt[3]{2+\\sqrt{3+\\sqrt{5+\\sqrt{7+\\sqrt{11+x}}}}}",
}

GOLDS = ("72", "x^2+1", "\\frac{1}{3}")


def cases() -> Iterator[tuple[str, str, str]]:
    """(name, response, gold)."""
    for name, bomb in BOMBS.items():
        for gold in GOLDS:
            yield name, f"\\boxed{{{bomb}}}", gold
        yield name, bomb, "72"
        yield name, "\\boxed{72}", bomb
        yield name, f"\\boxed{{{bomb}}}", f"{bomb}+1"
        yield name, f"\\boxed{{{bomb} + x}}", f"x+{bomb}"


def on_a_thread(response: str, gold: str) -> tuple[float, Verdict]:
    """Seconds and verdict of verify on a thread of its own."""
    found: list[tuple[float, Verdict]] = []
    thread = threading.Thread(target=lambda: found.append(timed(response, gold)))
    thread.start()
    thread.join()
    return found[0]


def in_asyncio(response: str, gold: str) -> tuple[float, Verdict]:
    """Seconds and verdict of verify on a running event loop."""

    async def run() -> tuple[float, Verdict]:
        return timed(response, gold)

    return asyncio.run(run())


def timed(response: str, gold: str) -> tuple[float, Verdict]:
    """Seconds and verdict of verify here."""
    started = time.perf_counter()
    verdict = verify(response, gold)
    return time.perf_counter() - started, verdict


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goal-milliseconds", type=float, default=50.0)
    goal = parser.parse_args().goal_milliseconds / 1000
    deadline.warm_up(wait=True)
    verify("\\boxed{1}", "x")
    ways: dict[str, Callable[[str, str], tuple[float, Verdict]]] = {
        "main thread": timed,
        "another thread": on_a_thread,
        "asyncio": in_asyncio,
    }
    print(f"{len(BOMBS)} bombs, {len(list(cases()))} verdicts a way; Python {platform.python_version()}\n")
    print(f"| from | median ms | slowest ms | over {1000 * goal:g} ms | over the hard cap of {HARD_CAP_SECONDS:g} s |")
    print("| --- | --- | --- | --- | --- |")
    slow: dict[str, tuple[float, str]] = {}
    for way, run in ways.items():
        seconds = []
        for name, response, gold in cases():
            taken, verdict = run(response, gold)
            seconds.append(taken)
            if taken > goal and taken > slow.get(name, (0.0, ""))[0]:
                slow[name] = (
                    taken,
                    f"{verdict.outcome} by {verdict.method}; response {response!r:.60}, gold {gold!r:.60}",
                )
        over, beyond = sum(s > goal for s in seconds), sum(s > HARD_CAP_SECONDS for s in seconds)
        median = 1000 * sorted(seconds)[len(seconds) // 2]
        print(f"| {way} | {median:.2f} | {1000 * max(seconds):.1f} | {over} | {beyond} |")
    for name, (taken, what) in sorted(slow.items(), key=lambda item: -item[1][0]):
        print(f"\nslow: {name}: {1000 * taken:.0f} ms, {what}")


if __name__ == "__main__":
    main()
