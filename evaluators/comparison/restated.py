r"""Whether a prediction with the gold's value restates the question: `\sqrt{242}` answers "Simplify $\sqrt{242}$." with
nothing done, although it equals the gold `11\sqrt2`.

The gold's form and the question are a contract. A prediction breaks it where it is a part of the question in another
form than the gold's, or where a formula of the question already has the gold's value and the prediction is no further
on than that formula: operations pending that the gold has carried out, the question's outer form kept, terms not
collected, another base.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

from evaluators.comparison.compare import Comparison
from evaluators.parsing.read_answer import Answer, read_answer
from evaluators.parsing.tree import DeadlineExceeded, Node, Unreadable, symbols, walk
from evaluators.verdict import Policy

MAX_PROMPT = 20_000  # characters of a question in which formulas are looked for, from its end
MAX_FORMULAS = 40

_FORMULA = re.compile(
    r"\$\$(.+?)\$\$|(?<!\\)\$([^$]{1,2000}?)(?<!\\)\$|\\\(((?:[^\\]|\\(?!\())+?)\\\)"
    r"|\\\[((?:[^\\]|\\(?!\[))+?)\\\]",
    re.DOTALL,
)
_PLAIN = re.compile(r"[\d(][\d\s.,+*/^()×÷!−-]{1,200}[\d)!]")  # Compute 12 * (3 + 4).
_CONVERTS = re.compile(
    r"\b(?:decimal|fraction|percent|mixed|base|scientific|standard form|radian|degree|express|convert|rewrite|write|"
    r"simpl|factor)",
    re.IGNORECASE,
)
_UNREDUCED = re.compile(
    r"\\[dtc]?frac ?\{ ?(\d{1,30}) ?\} ?\{ ?(\d{1,30}) ?\}|\\[dtc]?frac ?(\d) ?(\d)"
    r"|(?<![\d./])(\d{1,30})/(\d{1,30})(?![\d./])"
)
_LOWEST_TERMS = re.compile(r"lowest terms|simplest form|simplif|reduced|common fraction", re.IGNORECASE)
_OPERATOR = re.compile(
    r"\\[dt]?frac\s*\{\s*(?:d|\\mathrm\s*\{d\}|\\partial)\s*(?:\^\{?\d\}?)?\s*(?:[(\\]|\})|Derivative\("
)
_NUMBER = re.compile(r"(?<![\w.])\d{1,30}(?![\w.]\d)")
_WRAPPING = ("quantity", "percent", "deg")
_COLLECTIONS = ("list", "tuple", "set", "interval", "union", "matrix", "row", "cases")
_ANY_ORDER = ("add", "mul", "list", "set", "union")


class Question(NamedTuple):
    """A question's formulas as trees, both sides of equations apart, and the shapes of all their parts."""

    formulas: tuple[Node, ...]
    parts: frozenset[Any]
    converts: bool


def restates(prediction: Answer, gold: Answer, prompt: str, policy: Policy) -> bool:
    """Whether a prediction that equals the gold is only the question, or a part of it, in another form.

    prediction, gold: as read, with trees. prompt: the question.
    """
    assert prediction.tree is not None
    assert gold.tree is not None
    if gold.tree.op in ("text", "choice", "clock") or prediction.tree.op in ("text", "choice"):
        return False
    target = core(gold.tree)
    unreduced = _unreduced(prediction.source) and target.op != "dec" and not _unreduced(gold.source)
    given_equation = core(prediction.tree).op == "rel" and target.op != "rel"
    if _OPERATOR.search(prediction.source.rpartition("=")[2]) and not _OPERATOR.search(gold.source):
        return True  # a derivative that was not carried out
    sides = _sides(prediction.tree, target)
    if not unreduced and not given_equation and any(shape(side) == shape(target) for side in sides):
        return False
    question = read_question(prompt[-MAX_PROMPT:])
    if given_equation and shape(prediction.tree) in question.parts:
        return True  # a + b + c = 0, given, for the gold 0
    if unreduced and _LOWEST_TERMS.search(prompt):
        return True
    return all(_restates(side, target, unreduced, question, policy) for side in sides)


def _restates(side: Node, target: Node, unreduced: bool, question: Question, policy: Policy) -> bool:
    if shape(side) == shape(target) and not unreduced:
        return False
    if _bases(target) and _bases(side) != _bases(target):
        return True
    leaf = not side.args or side.op == "base"
    if shape(side) in question.parts and (question.converts or not leaf) and not _same_kind(side, target):
        return True
    further = pending(side) <= pending(target) and not unreduced
    if further and (leaf or not (symbols(side) or symbols(target))):
        return False
    return any(
        not (further and _is_further_on(side, target, formula))
        for formula in question.formulas
        if _has_value(formula, target, policy)
    )


def _is_further_on(side: Node, target: Node, formula: Node) -> bool:
    """Whether an expression with variables has left the question's form, or come to the gold's."""
    if outer_form(side) == outer_form(formula) != outer_form(target):
        return False
    return not (leaves(side) > 1.5 * leaves(target) + 1 and leaves(side) >= 0.75 * leaves(formula))


def _same_kind(side: Node, target: Node) -> bool:
    """Two decimals, or two collections whose elements are finished alike."""
    if side.op == target.op == "dec":
        return True
    return side.op in _COLLECTIONS and target.op in _COLLECTIONS and pending(side) <= pending(target)


def _sides(node: Node, target: Node) -> list[Node]:
    """What a prediction offers as its value: the sides of an equation that are no bare name, else itself."""
    if node.op == "rel" and target.op != "rel" and set(node.value) <= {"=", "approx"}:
        sides = [core(side) for side in node.args]
        return [side for side in sides if side.op != "sym" or side == target] or [core(node)]
    return [core(node)]


def core(node: Node) -> Node:
    """A tree without its name, unit, percent or degree sign: `x = 5 cm` as 5."""
    while True:
        if (
            node.op == "rel"
            and node.value == ("=",)
            and node.args[0].op in ("sym", "fn")
            and node.args[0] != node.args[1]
        ):
            node = node.args[1]
        elif node.op in _WRAPPING:
            node = node.args[0]
        else:
            return node


@lru_cache(maxsize=4096)
def read_question(prompt: str) -> Question:
    """The formulas of a question, read once."""
    found: list[Node] = []
    for text in _formula_texts(prompt):
        answer = read_answer(text)
        if answer.tree is None or answer.tree.op in ("text", "choice"):
            continue
        found.append(answer.tree)
        if len(found) == MAX_FORMULAS:
            break
    sides = [core(side) for tree in found for side in (tree.args if tree.op == "rel" else (tree,))]
    parts = frozenset(shape(part) for tree in (*found, *sides) for part in walk(tree))
    converts = _CONVERTS.search(prompt) is not None
    if converts:
        parts |= {shape(Node("num", (), int(digits))) for digits in _NUMBER.findall(prompt)}
    return Question(tuple(sides), parts, converts)


def _formula_texts(prompt: str) -> Iterator[str]:
    for match in _FORMULA.finditer(prompt):
        yield next(group for group in match.groups() if group is not None).strip().rstrip(".,;:?!").strip()
    for match in _PLAIN.finditer(_FORMULA.sub(" ; ", prompt)):
        if any(sign in match[0] for sign in "+*/^×÷!−-"):
            yield match[0].strip()


def _has_value(formula: Node, target: Node, policy: Policy) -> bool:
    cheap = replace(policy, symbolic=False)  # a question must not cost a worker's time
    try:
        return Comparison(cheap).equal(target, formula) is True
    except (Unreadable, DeadlineExceeded):
        return False


def shape(node: Node) -> Any:
    """A tree as a value that is equal for trees that differ in the order of terms and factors alone."""
    args = [
        part for arg in node.args for part in (arg.args if arg.op == node.op and node.op in ("add", "mul") else (arg,))
    ]
    inner = [shape(arg) for arg in args]
    if node.op in _ANY_ORDER:
        inner.sort(key=repr)
    return (node.op, node.value, tuple(inner))


def leaves(node: Node) -> int:
    """Numbers and names in a tree, -1 and inverses left out."""
    return sum(not part.args and part.value != -1 for part in walk(node))


def outer_form(node: Node) -> str:
    """A tree's outer form: "sum", "product" of sums, "power" of a sum, "fraction" or "term"."""
    if node.op == "add":
        return "sum"
    if node.op == "pow" and node.args[0].op == "add":
        return "power"
    factors = node.args if node.op == "mul" else ()
    if any(factor.op == "pow" and factor.args[1] == Node("num", (), -1) for factor in factors):
        return "fraction"
    return (
        "product"
        if any(factor.op in ("add", "pow") and outer_form(factor) in ("sum", "power") for factor in factors)
        else "term"
    )


def _bases(node: Node) -> frozenset[int]:
    return frozenset(part.value[1] for part in walk(node) if part.op == "base")


def _unreduced(source: str) -> bool:
    """Whether a text is one fraction that is not in lowest terms."""
    match = _UNREDUCED.search(source)
    if match is None:
        return False
    top, bottom = (int(group) for group in match.groups() if group is not None)
    return bottom != 0 and gcd(top, bottom) > 1


# Operations that are still to be carried out.


def pending(node: Node) -> int:
    """Number of operations in a tree that could be carried out exactly: sums and products of numbers, powers of
    numbers, roots that simplify, functions of numbers, terms that collect, factors that cancel."""
    own = _PENDING[node.op](node) if node.op in _PENDING else 0
    return own + sum(pending(arg) for arg in node.args)


def _is_number(node: Node) -> bool:
    return node.op in ("num", "dec")


def _is_constant(node: Node) -> bool:
    return not any(part.op in ("sym", "dummy", "oo") for part in walk(node))


def _term(node: Node) -> Any:
    """A term without its numbers: 3x and -x are like terms."""
    factors = node.args if node.op == "mul" else (node,)
    rest = [shape(factor) for factor in factors if not _is_number(factor) and not _is_inverse_number(factor)]
    return tuple(sorted(rest, key=repr))


def _is_inverse_number(node: Node) -> bool:
    return node.op == "pow" and _is_number(node.args[0]) and node.args[1] == Node("num", (), -1)


def _of_sum(node: Node) -> int:
    terms = [part for arg in node.args for part in (arg.args if arg.op == "add" else (arg,))]
    return len(terms) - len({_term(term) for term in terms})


def _of_product(node: Node) -> int:
    above = [factor for factor in node.args if _is_number(factor) and factor.value != -1]
    below = [factor.args[0] for factor in node.args if _is_inverse_number(factor)]
    based = sum(factor.op == "base" for factor in node.args)
    bases = Counter(
        shape(factor.args[0] if factor.op == "pow" else factor) for factor in node.args if not _is_constant(factor)
    )
    count = max(0, len(above) + based - 1) + max(0, len(below) - 1) + sum(bases.values()) - len(bases)
    if above and below and all(isinstance(part.value, int) for part in (above[0], below[0])):
        count += gcd(above[0].value, below[0].value) > 1
    return count


def _of_power(node: Node) -> int:
    base, exponent = node.args
    if exponent == Node("num", (), -1):
        return int(_is_constant(base) and base.op == "add" and not any(part.op == "root" for part in walk(base)))
    if not _is_constant(base) or exponent.op != "num":
        return 0
    if isinstance(exponent.value, Fraction) and base.op == "num":
        return int(_simplifies(base.value, exponent.value.denominator))
    return int(base.op != "const" and base != Node("num", (), 10))


def _of_root(node: Node) -> int:
    radicand, degree = node.args
    if radicand.op == "num" and degree.op == "num":
        return int(_simplifies(radicand.value, degree.value))
    return int(_is_constant(radicand) and (radicand.op == "dec" or radicand.op == "root"))


def _simplifies(radicand: int | Fraction, degree: Any) -> bool:
    """Whether a root can be drawn in part: 242 = 2 · 11^2."""
    if isinstance(radicand, Fraction) or not isinstance(degree, int) or not 2 <= degree <= 64:
        return True
    size = abs(radicand)
    return any(size % factor**degree == 0 for factor in range(2, min(1000, size) + 1) if factor**degree <= size)


def _of_function(node: Node) -> int:
    return int(bool(node.args) and all(_is_constant(arg) for arg in node.args))


_PENDING = {
    "add": _of_sum,
    "mul": _of_product,
    "pow": _of_power,
    "root": _of_root,
    "fn": _of_function,
    "base": lambda node: int(node.value[1] != 10),
}
