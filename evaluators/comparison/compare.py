"""The ladder: text, exact rational, structure, numeric, symbolic; the cheapest tier that can decide does.

Every comparison here is symmetric: `equal(a, b)` is `equal(b, a)`.
"""

from __future__ import annotations

import re
from fractions import Fraction

from evaluators.comparison.canonical import COLLECTIONS, elements, family, plain_form
from evaluators.comparison.collections_ import Collected
from evaluators.comparison.definitions import has_relations
from evaluators.comparison.expressions import Scalars
from evaluators.comparison.growth import growth_of, same_growth
from evaluators.comparison.ladder import MAX_STEPS
from evaluators.comparison.piecewise import Piecewise
from evaluators.comparison.quantities import Measures
from evaluators.comparison.relations import Relations
from evaluators.parsing.formulas import composition
from evaluators.parsing.normalize import words
from evaluators.parsing.read_answer import FORMULA
from evaluators.parsing.tree import Node, TooLarge, contains

# Words of one group exclude each other; words of none may mean the same.
_GROUPS = (
    ("convergent", "divergent"), ("even", "odd"),
    ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
     "december"),
    ("north", "south", "east", "west"), ("none of the above", "all of the above"),
)  # fmt: skip
_TRUTHS = {"true": True, "yes": True, "false": False, "no": False}
_GROUP_OF = {word: number for number, group in enumerate(_GROUPS) for word in group}
_GROWN = frozenset(("mul", "fn", "add", "pow", "sym"))
_NUMBERS = frozenset(("num", "dec", "base"))
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


def exclude(a: str, b: str) -> bool:
    """Whether two wordings cannot both hold: days, directions, or the same words with other numbers."""
    if a in _GROUP_OF and b in _GROUP_OF:
        return _GROUP_OF[a] == _GROUP_OF[b]
    numbers = [list(map(Fraction, _NUMBER.findall(words))) for words in (a, b)]
    return numbers[0] != numbers[1] and _NUMBER.sub("#", a) == _NUMBER.sub("#", b)


class Comparison(Scalars, Measures, Collected, Piecewise, Relations):
    """Compares two answers of any kind."""

    __slots__ = ()

    def equal(self, a: Node, b: Node) -> bool | None:
        """Whether two answers are the same; None where no tier can tell."""
        if a == b:
            return True
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise TooLarge("the comparison takes too many steps")
        if a.op in _NUMBERS and b.op in _NUMBERS:
            return self.scalars(a, b)
        a, b = plain_form(a), plain_form(b)
        ops = (a.op, b.op)
        if "text" in ops:
            return self.texts(a, b)
        if a.op in _GROWN and b.op in _GROWN and (growth_of(a) or growth_of(b)):
            return self.growth(a, b)
        if "choice" in ops:
            return self.choices(a, b)
        if has_relations(a) or has_relations(b):
            return self.relations(a, b)
        if "class" in ops:
            return self.classes(a, b)
        if "builder" in ops:
            a, b = (family(a), family(b)) if ops[0] != ops[1] else (a, b)
            ops = (a.op, b.op)
        if "list" in ops and "mul" in ops and all(is_letter(part) for node in (a, b) for part in node.args):
            return set(a.args) == set(b.args) or self.differ("The letters differ")  # A, B, C as ABC
        if "quantity" in ops and not (COLLECTIONS & {*ops}):
            return self.quantities(a, b)
        if "clock" in ops or "ratio" in ops:
            return self.clocks(a, b)
        if contains(a, "pm", "mp") or contains(b, "pm", "mp"):
            self.reach(2)
            return self.unordered(elements(a), elements(b), distinct=True)
        if "cases" in ops:
            return self.piecewise(a, b)
        if COLLECTIONS & {*ops} or self.is_line(a) or self.is_line(b):
            return self.collections(a, b)
        return self.scalars(a, b)

    def is_line(self, node: Node) -> bool:
        """Whether a tree names a set of numbers, such as the reals."""
        return node.op == "const" and len(node.value) == 1 and node.value.isupper()

    def growth(self, a: Node, b: Node) -> bool | None:
        """Two growth classes; one alone says less than an expression does."""
        one, two = growth_of(a), growth_of(b)
        if one is None or two is None:
            return None if "O" in ((one or two or "")[0]) else self.scalars(a, b)
        self.reach(3)
        same, witness = same_growth(one, two, self.equal)
        return self.decided(same, witness)

    def texts(self, a: Node, b: Node) -> bool | None:
        """Words against words; letters that make a word also against a product of letters."""
        if a.op == b.op:
            if a.value == b.value or (a.value in _TRUTHS and _TRUTHS[a.value] == _TRUTHS.get(b.value)):
                return True
            if a.value in _TRUTHS and b.value in _TRUTHS:
                return self.differ(f"One says {a.value}, the other {b.value}")
            if a.value.startswith(FORMULA) and b.value.startswith(FORMULA):
                one, two = (node.value.removeprefix(FORMULA) for node in (a, b))
                same_atoms = composition(one) == composition(two)  # isomers are left open
                return None if same_atoms else self.differ(f"The formulae are {one} and {two}")
            return self.differ(f"One says {a.value}, the other {b.value}") if exclude(a.value, b.value) else None
        word, other = (a, b) if a.op == "text" else (b, a)
        if other.op == "sym" and " " in other.value:
            return True if words(other.value) == word.value else None  # triangle ABC
        if word.value in _TRUTHS and other.op in ("sym", "choice") and other.value in ("T", "F"):
            return _TRUTHS[word.value] == (other.value == "T") or self.differ("One is true, the other false")
        if word.value == "undefined" and other.op in ("num", "dec"):
            return self.differ("One is a number, the other says that there is none")
        return self.equal(word.args[0], other) if word.args else None

    def choices(self, a: Node, b: Node) -> bool | None:
        """A letter against a letter, with or without what it labels; a labelled answer also against the answer."""
        self.reach(0)
        if a.op == b.op:
            if a.value != b.value:
                return self.differ(f"The choices are {a.value} and {b.value}")
            return self.equal(a.args[0], b.args[0]) if a.args and b.args else True
        letter, other = (a, b) if a.op == "choice" else (b, a)
        if letter.args:
            return self.equal(letter.args[0], other)
        if other.op == "sym" or other.op == "const":
            if str(other.value).upper() == letter.value and other.value != letter.value:
                return None  # b may be the choice B or a variable
            return other.value == letter.value or self.differ(f"The letters are {letter.value} and {other.value}")
        if other.op == "list" or (other.op == "mul" and all(map(is_letter, other.args))):
            return self.differ("One names a single choice, the other several")
        return None


def is_letter(node: Node) -> bool:
    """Whether a tree is a letter that could name a choice."""
    return node.op == "sym" and node.value in "ABCDEFGHIJ"
