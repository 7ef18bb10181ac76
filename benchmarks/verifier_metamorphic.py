"""Metamorphic check of the verifier: from each public gold, answers that equal it and answers that just miss it.

    python benchmarks/verifier_metamorphic.py [--data ../shared/data] [--most 60000] [--show 5]

Equal answers are rewrites: of the text (sides swapped, multiplied out, another typeface) and by sympy (expanded,
factored, over one denominator), each proved equal by sympy. Near misses change one thing that matters: a sign, a
bracket, an absolute value, an index, a unit, the order of a pair, a digit, a strict sign, a kink far away. The goal:
no near miss is accepted, and at most 1 % of the equal answers are not.
"""

from __future__ import annotations

import argparse
import json
import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from evaluators.comparison.numeric import exact
from evaluators.parsing.tree import Node, Unreadable, symbols, walk
from evaluators.verdict import Outcome, Policy
from evaluators.verify import read_gold, verify
from evaluators.workers.symbolic import to_sympy

DEFAULT_DATA = Path(__file__).resolve().parents[1] / ".." / "shared" / "data"
POLICY = Policy(symbolic=False)  # what sympy alone can tell is undecided here, and counts as refused
_SCALAR = frozenset(("num", "sym", "const", "add", "mul", "pow", "root", "fn"))


class Case(NamedTuple):
    """A gold, an answer, whether they are equal, and the kind of change."""

    kind: str
    gold: str
    answer: str
    equal: bool


def golds(data: Path) -> list[str]:
    """Return the distinct golds of the data folder, in a fixed order."""
    found: list[str] = []
    for path, field in (
        ("math500/test.jsonl", "answer"), ("golds/asdiv.jsonl", "answer"), ("golds/minerva_math.jsonl", "solution"),
        ("gsm8k/test.jsonl", "answer"), ("gsm8k/train.jsonl", "answer"),
    ):  # fmt: skip
        if (data / path).exists():
            lines = (data / path).read_text(encoding="utf-8").splitlines()
            found += [read_gold(str(json.loads(line)[field])).source for line in lines]
    parquet = data / "benchmarks" / "luffy_valid.parquet"
    if parquet.exists():
        import polars

        column = polars.read_parquet(parquet)["reward_model"].struct.field("ground_truth")
        found += [read_gold(str(gold)).source for gold in column.to_list()]
    return list(dict.fromkeys(gold.strip(" $") for gold in found if gold and len(gold) < 120))


def value_of(gold: str) -> Fraction | None:
    """Return the exact value of a gold that is a rational number, else None."""
    tree = read_gold(gold).tree
    try:
        value = None if tree is None or tree.op in ("dec", "percent") or symbols(tree) else exact(tree)
    except Unreadable:
        return None
    return None if value is None or abs(value) > 10**12 else Fraction(value)


def written(value: Fraction) -> str:
    """Return a rational number as LaTeX."""
    if value.denominator == 1:
        return str(value.numerator)
    return f"{'-' if value < 0 else ''}\\frac{{{abs(value.numerator)}}}{{{value.denominator}}}"


def of_number(gold: str, n: Fraction) -> Iterator[Case]:
    """Yield cases of a rational number, and of equations and inequalities made of it."""
    g = written(n)
    double, less, more = written(2 * n), written(n - 1), written(n + 1)
    for kind, answer in (("fraction", f"\\dfrac{{{2 * n.numerator}}}{{{2 * n.denominator}}}"), ("sum", f"{less}+1"),
                         ("power", f"({g})^1"), ("named", f"x={g}"),
                         ("percent", f"{written(100 * n)}\\%")):  # fmt: skip
        yield Case(f"number as {kind}", gold, answer, True)
    near = [("sign", f"-({g})"), ("next", more), ("reciprocal", written(1 / n)), ("hidden term", f"{g}+10^{{-50}}"),
            ("hidden tanh", f"({g})\\tanh(60)"), ("class", f"{g} \\pmod{{7}}"), ("equation", f"|x|={g}"),
            ("inequality", f"x>{g}"), ("set of two", f"\\{{{g},{more}\\}}"), ("interval", f"[{less},{more}]"),
            ("kink", f"{g}+\\max(0,x-10^{{9}})"), ("multiplier", f"{g}\\text{{ dozen}}"),
            ("part", f"{g}\\text{{ tenths}}")] if n not in (0, 1, -1) else []  # fmt: skip
    near += [("word", f"{g}\\text{{ {word}}}") for word in ("(wrong)", "more", "factorial", "percent less", "or so")]
    for kind, answer in near:
        yield Case(f"number: {kind}", gold, answer, False)
    if n.denominator == 1 and abs(n) >= 10:
        yield Case("number: cut digit", gold, g[:-1], False)
    if n.denominator not in (1, 2, 4, 5, 8, 10, 16, 20, 25, 40, 50, 100, 125):
        digits = f"{float(n):.3f}"
        changed = digits[:-1] + str((int(digits[-1]) + 3) % 10)
        yield Case("number: cut digit", gold, changed, False)
    for left, right in (("x", "y"),):
        yield from _relations(g, double, more, n, left, right)


def _relations(g: str, double: str, more: str, n: Fraction, x: str, y: str) -> Iterator[Case]:
    square = written(n * n)
    equation, below, line = f"{x}={g}", f"{x}<{g}", f"{x}+{y}={g}"
    for gold, answer in ((equation, f"{g}={x}"), (equation, f"2{x}={double}"), (equation, f"{x}-({g})=0"),
                         (below, f"{g}>{x}"), (below, f"2{x}<{double}"), (below, f"-{x}>-({g})"),
                         (below, f"(-\\infty,{g})"), (line, f"{y}={g}-{x}"), (line, f"2{x}+2{y}={double}"),
                         (f"{x}={g},{y}={more}", f"{y}={more},{x}={g}"),
                         (f"{x}+{y}={written(2 * n + 1)}, {x}-{y}=-1", f"{x}={g}, {y}={more}")):  # fmt: skip
        yield Case("equation, inequality or system", gold, answer, True)
    if n:
        yield Case("equation: absolute value", equation, f"|{x}|={g}", False)
        yield Case("equation: square", equation, f"{x}^2={square}", False)
        yield Case("equation: sign", equation, f"{x}=-({g})", False)
        yield Case("line: absolute value", line, f"|{x}|+|{y}|={g}", False)
        yield Case("line: sign", line, f"{x}-{y}={g}", False)
    if n > 0:
        root = f"|{x}|<{g}"
        yield Case("equation, inequality or system", root, f"{x}^2<{square}", True)
        yield Case("equation, inequality or system", root, f"-({g})<{x}<{g}", True)
        yield Case("equation, inequality or system", f"|{x}|={g}", f"{x}=\\pm {g}", True)
        yield Case("inequality: one end", root, below, False)
        yield Case("inequality: bracket", root, f"[-({g}),{g})", False)
    for kind, answer in (("strict", f"{x}\\le {g}"), ("turned", f"{x}>{g}"), ("name", f"{y}<{g}"),
                         ("next", f"{x}<{more}"),
                         ("not equal", f"{x}\\ne {g}")):  # fmt: skip
        yield Case(f"inequality: {kind}", below, answer, False)
    yield Case("system: swapped pair", f"{x}={g},{y}={more}", f"{x}={more},{y}={g}", False)
    yield Case("system: one equation", f"{x}={g},{y}={more}", f"{x}={g}", False)
    yield Case("function: absolute value", f"f({x})={x}-({g})", f"f({x})=|{x}-({g})|", False)
    yield Case("function: kink", f"f({x})={x}-({g})", f"f({x})={x}-({g})+\\max(0,{x}-10^{{12}})", False)
    yield Case("function: point", f"f({x})={x}-({g})", f"f({x})={x}-({g})+0^{{|{x}-({g})|}}", False)


def column(*entries: str) -> str:
    """Return a column vector."""
    return "\\begin{pmatrix}" + "\\\\".join(entries) + "\\end{pmatrix}"


def of_pair(one: tuple[str, Fraction], two: tuple[str, Fraction]) -> Iterator[Case]:
    """Yield cases of tuples, intervals and sets of two different numbers."""
    (_, low), (_, high) = sorted((one, two), key=lambda item: item[1])
    a, b = written(low), written(high)
    if low == high:
        return
    yield Case("set", f"\\{{{a},{b}\\}}", f"\\{{{b},{a}\\}}", True)
    yield Case("set", f"{a}, {b}", f"x={a}\\text{{ or }}x={b}", True)
    yield Case("interval", f"[{a},{b}]", f"{a}\\le x\\le {b}", True)
    yield Case("interval", f"({a},{b})", f"(x-({a}))(x-({b}))<0", True)
    for kind, gold, answer in (
        ("pair: swapped", f"({a},{b})", f"({b},{a})"), ("interval: bracket", f"[{a},{b})", f"({a},{b})"),
        ("interval: bracket", f"[{a},{b}]", f"[{a},{b})"), ("interval: list", f"[{a},{b}]", f"{a},{b}"),
        ("interval: solution set", f"({a},{b})", f"(x-({a}))(x-({b}))\\le 0"),
        ("set: sets of one", f"\\{{{a},{b}\\}}", f"\\{{{a}\\}},\\{{{b}\\}}"), ("set: one member", f"{a},{b}", a),
        ("set: sign", f"{a},{b}", f"{a},-({b})") if high else ("set: one member", f"{a},{b}", b),
        ("vector: component", column(a, b), column(a, written(high + 1))),
    ):  # fmt: skip
        yield Case(kind, gold, answer, False)


def of_unit(gold: str, tree: Node) -> Iterator[Case]:
    """Yield cases of a quantity: its words as they are, other units and other values."""
    value = exact(tree.args[0])
    if value is None or any(base.startswith("a ") for base, _ in tree.value.dimension):
        return
    g = written(Fraction(value))
    yield Case("unit left out", gold, g, True)
    if value:
        for unit in ("kg", "km", "s", "\\$", "°C", "cm^2", "A", "mol"):
            other = read_gold(f"1\\text{{ {unit}}}").tree
            if other is not None and other.op == "quantity" and other.value.dimension != tree.value.dimension:
                yield Case("unit: another", gold, f"{g}\\text{{ {unit}}}", False)
        yield Case("unit: percent", gold, f"{g}\\%", False)
        yield Case("unit: sign", gold, f"-{g}", False)


def of_expression(gold: str, tree: Node) -> Iterator[Case]:
    """Yield cases of an expression with variables, checked by sympy."""
    import sympy

    try:
        value = to_sympy(tree)
    except (Unreadable, ValueError, TypeError):
        return
    names = sorted(value.free_symbols, key=str)
    if not names or any(len(str(name)) > 1 or not str(name).isascii() for name in names):
        return
    for name, change in (
        ("expanded", sympy.expand),
        ("factored", sympy.factor),
        ("over one denominator", sympy.together),
    ):
        other = change(value)
        if sympy.simplify(other - value) == 0:
            yield Case(f"expression {name}", gold, sympy.latex(other), True)
    letter = str(names[0])
    point = {name: sympy.Rational(7 * place + 3, 11) * (-1) ** place for place, name in enumerate(names)}
    near = [("sign", -value), ("index", value.subs(names[0], names[0] + 1)), ("next", value + 1), ("double", 2 * value)]
    if len(names) > 1:
        near.append(("swapped letters", value.subs({names[0]: names[1], names[1]: names[0]}, simultaneous=True)))
    for kind, other in near:
        gap = sympy.N((other - value).subs(point))
        if gap.is_number and gap.is_finite and abs(gap) > 1e-6:
            yield Case(f"expression: {kind}", gold, sympy.latex(other), False)
    for kind, term in (("kink", f"\\max(0,{letter}-10^{{12}})"), ("kink", f"|{letter}-10^9|-(10^9-{letter})"),
                       ("point", f"0^{{|{letter}-3|}}"), ("bump", f"e^{{-1000({letter}-7)^2}}")):  # fmt: skip
        yield Case(f"expression: {kind}", gold, f"{gold}+{term}", False)


def cases(data: Path) -> Iterator[Case]:
    """Yield every case that the golds of a data folder give."""
    texts = golds(data)
    numbers = {value: gold for gold in texts if (value := value_of(gold)) is not None}
    pairs = [(gold, value) for value, gold in numbers.items()]
    for gold, value in pairs:
        if value:
            yield from of_number(gold, value)
    for one, two in pairwise(pairs):
        yield from of_pair(one, two)
    for gold in texts:
        tree = read_gold(gold).tree
        if tree is None:
            continue
        yield Case("itself", gold, gold, True)
        if tree.op == "quantity":
            yield from of_unit(gold, tree)
        elif tree.op in _SCALAR and symbols(tree) and not any(str(part.value)[-2:] == "()" for part in walk(tree)):
            yield from of_expression(gold, tree)


def report(selected: list[Case], show: int) -> int:
    """Print recall and false positives by kind; return the number of near misses accepted."""
    counts: dict[bool, Counter[str]] = {True: Counter(), False: Counter()}
    failed: dict[bool, dict[str, list[str]]] = {True: defaultdict(list), False: defaultdict(list)}
    said_wrong = 0
    for case in selected:
        verdict = verify(f"\\boxed{{{case.answer}}}", case.gold, policy=POLICY)
        counts[case.equal][case.kind] += 1
        if verdict.correct != case.equal:
            failed[case.equal][case.kind].append(f"{case.gold}  |  {case.answer}  |  {verdict.outcome}")
            said_wrong += case.equal and verdict.outcome is Outcome.WRONG
    for equal, title in ((True, "equal answers refused"), (False, "near misses accepted")):
        total, bad = counts[equal].total(), sum(map(len, failed[equal].values()))
        print(f"\n{title}: {bad:,} of {total:,} ({100 * bad / max(total, 1):.2f} %)\n")
        print("| kind | cases | failed |\n| --- | --- | --- |")
        for kind, count in sorted(counts[equal].items()):
            print(f"| {kind} | {count:,} | {len(failed[equal][kind]):,} |")
        for lines in failed[equal].values():
            for line in lines[:show]:
                print(f"    {line}")
    print(f"\nequal answers called wrong: {said_wrong}")
    return sum(map(len, failed[False].values()))


def main() -> None:
    """Print the report; fail where a near miss is accepted."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--most", type=int, default=60_000, help="cases looked at, chosen at random with a fixed seed")
    parser.add_argument("--show", type=int, default=5, help="failures printed of each kind")
    arguments = parser.parse_args()
    if not arguments.data.exists():
        print(f"{arguments.data} is not here: nothing to measure")
        return
    selected = list(cases(arguments.data))
    if len(selected) > arguments.most:
        selected = random.Random(0).sample(selected, arguments.most)
    raise SystemExit(1 if report(selected, arguments.show) else 0)


if __name__ == "__main__":
    main()
