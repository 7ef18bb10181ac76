r"""Whether a verdict depends on load: honest cases beside bombs, many threads, and the first case of a new process.

    python benchmarks/verifier_load.py [--threads 64] [--integrals 1000]

Honest cases are `\int_0^1 x^n dx`, which quadrature decides, and `\int_0^1 |x - 1/k| dx`, which only sympy does. A
case is lost where its verdict is not CORRECT.
"""

from __future__ import annotations

import argparse
import multiprocessing
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

from evaluators.verify import verify

BOMB = r"\int_0^1\frac{|x-1/%d|\ln(1+x^7+x^2)}{1+x^{11}+e^x}dx"


def easy(number: int) -> tuple[str, str]:
    """A response and its gold that quadrature decides."""
    return rf"\boxed{{\int_0^1 x^{{{number % 40 + 1}}} dx}}", rf"\frac{{1}}{{{number % 40 + 2}}}"


def symbolic(number: int) -> tuple[str, str]:
    """A response and its gold that only sympy decides: the integral of |x - 1/k| over [0, 1]."""
    k = number + 2
    value = (Fraction(1, k) ** 2 + (1 - Fraction(1, k)) ** 2) / 2
    return rf"\boxed{{\int_0^1 |x-\frac{{1}}{{{k}}}| dx}}", str(value)


def bomb(number: int) -> tuple[str, str]:
    """A response that uses up its budget, and a gold."""
    return rf"\boxed{{{BOMB % (number + 3)}}}", r"\frac{1}{3}"


def outcome(case: tuple[str, str]) -> str:
    """The outcome of a case."""
    return str(verify(*case).outcome)


def lost(cases: Sequence[tuple[str, str]], threads: int, beside: Sequence[tuple[str, str]] = ()) -> tuple[int, float]:
    """Return how many cases are lost on so many threads, with others among them, and the seconds that all took."""
    started = time.perf_counter()
    mixed = [item for pair in zip(cases, beside) for item in pair] or list(cases)
    with ThreadPoolExecutor(threads) as pool:
        outcomes = dict(zip(mixed, pool.map(outcome, mixed)))
    count = Counter(outcomes[case] for case in cases)
    return sum(count.values()) - count["correct"], time.perf_counter() - started


def first_in_child(method: str) -> str:
    """The outcome of the first case for sympy in a new process."""
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.apply(outcome, (symbolic(97),))


def main() -> None:
    """Print a table of cases and losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=64)
    parser.add_argument("--integrals", type=int, default=1000)
    options = parser.parse_args()
    threads, kinds = options.threads, (("quadrature", easy), ("sympy alone", symbolic))
    print("| load | cases | lost | seconds |\n|---|---|---|---|")
    for method in ("fork", "spawn"):
        print(f"| first case for sympy in a child of {method} | 1 | {int(first_in_child(method) != 'correct')} | |")
    print(row(f"{options.integrals} integrals on {threads} threads, quadrature", easy, options.integrals, threads))
    for name, kind in kinds:
        case = [kind(number) for number in range(threads)]
        bombs = [bomb(number + 1000 * kinds.index((name, kind))) for number in range(threads)]
        count, seconds = lost(case, 2 * threads, bombs)
        print(f"| {threads} honest cases ({name}) beside {threads} bombs | {threads} | {count} | {seconds:.0f} |")
    print(row(f"{4 * threads} integrals on {threads} threads, sympy alone", symbolic, 4 * threads, threads))


def row(name: str, kind: Callable[[int], tuple[str, str]], count: int, threads: int) -> str:
    """A line of the table for cases of one kind."""
    found, seconds = lost([kind(number) for number in range(count)], threads)
    return f"| {name} | {count} | {found} | {seconds:.0f} |"


if __name__ == "__main__":
    main()
