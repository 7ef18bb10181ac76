"""Growth classes: O(n log n) and its like, compared by the ratio of what they hold at ever larger arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from evaluators.comparison.numeric import value_at
from evaluators.parsing.tree import Node, TooLarge, Unreadable, symbols

_LETTERS = frozenset(("O", "Theta", "Omega", "mathcal O"))
_LARGE = ((2**60, 2**120, 2**240), (2**6, 2**7, 2**8))  # exponentials are looked at nearer by
_STEADY = 0.03  # ratios that change less than this from one argument to its square have a limit
_MOVING = 0.3


def growth_of(node: Node) -> tuple[str, Node] | None:
    """Return the letter and the content of a growth class, None for any other tree."""
    if node.op == "mul" and len(node.args) > 1 and node.args[0].op == "sym" and node.args[0].value in _LETTERS:
        inside = node.args[1] if len(node.args) == 2 else Node("mul", node.args[1:])
        return node.args[0].value, inside
    if node.op == "fn" and len(node.args) == 1 and str(node.value).removesuffix("()") in _LETTERS:
        return str(node.value).removesuffix("()"), node.args[0]
    return None


def same_growth(
    one: tuple[str, Node], two: tuple[str, Node], equal: Callable[[Node, Node], bool | None]
) -> tuple[bool | None, str]:
    """Return whether two growth classes are one, with a witness where they differ."""
    if one[0] != two[0]:
        return None, ""
    names = symbols(one[1]) | symbols(two[1])
    if not names:
        return True, ""  # O(1) and O(5)
    if len(names) != 1:
        return (True if equal(one[1], two[1]) else None), ""
    (name,) = names
    for places in _LARGE:
        try:
            ratios = [value_at(one[1], {name: n}, 40) / value_at(two[1], {name: n}, 40) for n in places]
        except (TooLarge, ZeroDivisionError):
            continue
        except Unreadable:
            return None, ""
        return _limit(ratios, name, places)
    return None, ""


def _limit(ratios: Sequence[complex], name: str, places: Sequence[int]) -> tuple[bool | None, str]:
    changes = [abs(later / earlier - 1) if earlier else 1 for earlier, later in pairwise(ratios)]
    if all(change < _STEADY for change in changes):
        return True, ""
    if all(change > _MOVING for change in changes):
        return False, f"From {name} = {places[0]} to {places[-1]} the ratio does not settle"
    return None, ""
