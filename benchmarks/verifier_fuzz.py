"""Fuzz the verifier: no exception may leave `verify`, no verdict may take longer than the hard cap.

    python benchmarks/verifier_fuzz.py [--strings 1000000] [--seed 0] [--hypothesis 20000]

Strings come from a LaTeX grammar, from mutations of it, from raw bytes and from hypothesis. Each is a response
against a plain gold or a gold against a plain response, or both sides at once. The share that ends in each outcome is
printed, so that one sees that the strings reach past the extraction.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable

from evaluators.verify import verify
from evaluators.workers import pool as deadline

CAP_SECONDS = 1.5  # the hard cap of 1 s and the noise of a loaded machine
GOLDS = ("72", "\\frac{1}{3}", "x^2+1", "(1,\\infty)", "\\{1,2\\}", "5\\text{ km}", "C", "x=5", "2:30 PM", "1011_2")

# fmt: off
ATOMS = [
    "0", "1", "2", "7", "10", "72", "-3", "0.5", ".25", "1,000", "1e5", "x", "y", "n", "k", "a", "b", "\\pi", "e",
    "i", "\\infty", "\\alpha", "\\theta", "½", "√2", "x²", "°", "%", "\\%", "5\\text{km}", "km", "cm", "\\$18",
    "2:30PM", "C", "A", "B", "yes", "no", "\\emptyset", "\\mathbb{R}", "\\text{or}", "and", "or", "\\ldots", "...",
    "\\cdots", "∞", "π", "≤", "≥", "∪", "×", "÷", "−", "４２", "٤٢", "1011_2", "\\%", "9999999999",
]
BINARY = [
    "+", "-", "*", "/", "^", "_", "\\cdot", "\\times", "\\div", "=", "<", ">", "\\le", "\\ge", "\\ne", "\\in",
    "\\cup", "\\cap", "\\setminus", ",", ";", ":", "\\pm", "\\mp", "\\approx", "\\equiv", "\\bmod", "\\mid", "&",
    "\\\\",
]
UNARY = [
    "\\sqrt", "\\sin", "\\cos", "\\tan", "\\ln", "\\log", "\\exp", "\\arcsin", "\\text", "\\mathrm", "\\overline",
    "\\boxed", "\\fbox", "\\vec", "\\hat", "\\left(", "\\abs", "\\operatorname",
]
# fmt: on
BRACKETS = [
    "()",
    "[]",
    "{}",
    "(]",
    "[)",
    "||",
    "\\{\\}",
    "\\left(\\right)",
    "\\langle\\rangle",
    "\\lfloor\\rfloor",
    "$$",
    "\\(\\)",
    "\\[\\]",
]
PHRASES = [
    "The answer is @.", "<think>@</think>@", "\\boxed{@}", "#### @", "A: @", "**@**", "ANSWER: @", "@ or @", "@",
    "Final answer: $@$", "$$@$$", "@\n@", "\\boxed{@} and \\boxed{@}", "so @ = @ dollars", "<answer>@</answer>",
]  # fmt: skip


def expression(generator: random.Random, depth: int) -> str:
    """A string of the grammar, at most `depth` deep."""
    if depth <= 0 or generator.random() < 0.2:
        return generator.choice(ATOMS)
    kind = generator.randrange(10)
    one = expression(generator, depth - 1)
    if kind < 4:
        return f"{one}{generator.choice(BINARY)} {expression(generator, depth - 1)}"
    if kind == 4:
        return f"{generator.choice(UNARY)}{{{one}}}"
    if kind == 5:
        bracket = generator.choice(BRACKETS)
        half = len(bracket) // 2
        return f"{bracket[:half]}{one}{bracket[half:]}"
    if kind == 6:
        return f"\\frac{{{one}}}{{{expression(generator, depth - 1)}}}"
    if kind == 7:
        return f"{{{one}}}{generator.choice('^_')}{{{expression(generator, depth - 1)}}}"
    if kind == 8:
        name = generator.choice(["pmatrix", "bmatrix", "cases", "array", "vmatrix", "matrix", "aligned"])
        cells = [expression(generator, depth - 2) for _ in range(generator.randrange(1, 5))]
        return f"\\begin{{{name}}}{generator.choice([' & ', chr(92) * 2, ' '])}".join([*cells, f"\\end{{{name}}}"])
    return one + generator.choice(["!", "\\%", "^\\circ", "'", "\\text{ cm}", " km", "_2", "!!"])


def phrase(generator: random.Random) -> str:
    """An expression within what models write around answers."""
    return generator.choice(PHRASES).replace("@", expression(generator, generator.randrange(6)))


def mutated(generator: random.Random) -> str:
    """A phrase with characters dropped, doubled, swapped or replaced."""
    characters = list(phrase(generator))
    for _ in range(generator.randrange(1, 6)):
        if not characters:
            break
        at = generator.randrange(len(characters))
        change = generator.randrange(4)
        if change == 0:
            del characters[at]
        elif change == 1:
            characters.insert(at, characters[at] * generator.choice([1, 2, 50]))
        elif change == 2:
            characters[at] = generator.choice("{}[]()\\$^_&%#,.;:=<>|!-+*/0123456789xe \n\x00\ud800\u202e")
        else:
            other = generator.randrange(len(characters))
            characters[at], characters[other] = characters[other], characters[at]
    return "".join(characters)


def respelled(generator: random.Random) -> tuple[str, str]:
    """An expression, and the same or nearly the same in another spelling: what the deeper tiers are for."""
    text = expression(generator, generator.randrange(1, 5))
    changes = (
        lambda: f"\\boxed{{{text}}}",
        lambda: f"\\boxed{{1 \\cdot ({text})}}",
        lambda: f"\\boxed{{({text}) + x - x}}",
        lambda: f"\\boxed{{\\frac{{2({text})}}{{2}}}}",
        lambda: f"\\boxed{{({text})^2 / ({text})}}",
        lambda: f"\\boxed{{\\sqrt{{({text})^2}}}}",
        lambda: f"\\boxed{{({text}) + 10^{{-30}}}}",
        lambda: text.replace("x", "y", 1),
    )
    return generator.choice(changes)(), text


def raw(generator: random.Random) -> str | bytes:
    """Raw bytes, or the same as text in one of two ways."""
    data = generator.randbytes(generator.randrange(1, 60))
    return generator.choice([data, data.decode("latin-1"), data.decode("utf-8", "surrogateescape")])


SOURCES: dict[str, tuple[Callable[[random.Random], str | bytes], float]] = {
    "grammar": (phrase, 0.4),
    "mutated grammar": (mutated, 0.3),
    "raw bytes": (raw, 0.1),
}
RESPELLED_SHARE = 0.2


class Tally:
    """What happened so far."""

    def __init__(self) -> None:
        self.outcomes: Counter[str] = Counter()
        self.methods: Counter[str] = Counter()
        self.faults: list[str] = []
        self.slow: list[tuple[float, str]] = []

    def run(self, response: str | bytes, gold: str | bytes) -> None:
        """Verify once and note the outcome."""
        started = time.perf_counter()
        try:
            verdict = verify(response, gold)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            self.faults.append(f"{response!r} against {gold!r}\n{traceback.format_exc(limit=-3)}")
            return
        seconds = time.perf_counter() - started
        self.outcomes[verdict.outcome] += 1
        self.methods[verdict.method] += 1
        if seconds > CAP_SECONDS:
            self.slow.append((seconds, f"{response!r} against {gold!r}"))


def fuzz_with_hypothesis(tally: Tally, examples: int) -> int:
    """Text and LaTeX-like lists of tokens from hypothesis, whose shrinking is not wanted here."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import strategies as st

    tokens = st.lists(st.sampled_from([*ATOMS, *BINARY, *UNARY, "{", "}", "(", ")", " "]), max_size=30).map(" ".join)
    texts = st.one_of(st.text(max_size=200), tokens, st.binary(max_size=100))
    count = 0

    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(texts, texts)
    def check(response: str | bytes, gold: str | bytes) -> None:
        nonlocal count
        count += 2
        tally.run(response, gold)

    check()
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--strings", type=int, default=1_000_000)
    parser.add_argument("--hypothesis", type=int, default=20_000, help="examples of two strings each")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    deadline.warm_up(wait=True)
    started, tally, total = time.perf_counter(), Tally(), 0
    generator = random.Random(arguments.seed)
    print("| source | strings |\n| --- | --- |")
    for name, (make, share) in SOURCES.items():
        count = int(share * (arguments.strings - 2 * arguments.hypothesis))
        for i in range(0, count, 2):  # two strings a round: one against a gold, one as gold, or both together
            first, second = make(generator), make(generator)
            if i % 4:
                tally.run(first, second)
            else:
                tally.run(first, GOLDS[i // 4 % len(GOLDS)])
                tally.run("\\boxed{72}", second)
        total += count
        print(f"| {name} | {count:,} |", flush=True)
    count = int(RESPELLED_SHARE * (arguments.strings - 2 * arguments.hypothesis))
    for _ in range(0, count, 2):
        tally.run(*respelled(generator))
    total += count
    print(f"| respelled grammar | {count:,} |", flush=True)
    count = fuzz_with_hypothesis(tally, arguments.hypothesis)
    total += count
    print(f"| hypothesis | {count:,} |\n")
    seconds, verdicts = time.perf_counter() - started, sum(tally.outcomes.values())
    print(f"{total:,} strings, {verdicts:,} verdicts in {seconds:.0f} s, seed {arguments.seed}")
    print(f"exceptions: {len(tally.faults)}; verdicts over {CAP_SECONDS} s: {len(tally.slow)}")
    print("outcomes: " + ", ".join(f"{name} {count:,}" for name, count in tally.outcomes.most_common()))
    print("decided by: " + ", ".join(f"{name} {count:,}" for name, count in tally.methods.most_common()))
    for fault in tally.faults[:20]:
        print(f"\nEXCEPTION {fault}")
    for seconds, what in sorted(tally.slow, reverse=True)[:20]:
        print(f"\nSLOW {seconds:.2f} s: {what:.500}")
    sys.exit(1 if tally.faults or tally.slow else 0)


if __name__ == "__main__":
    main()
