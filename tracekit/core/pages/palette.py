"""Colours of arms and models: one for each name on every page, told apart by the colour-blind (Okabe and Ito)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

Theme = Literal["light", "dark"]

#: (light, dark) of the base and of arms.
BASE_COLOUR = ("#6b7280", "#aab2bd")
COLOURS = (
    ("#0072b2", "#56b4e9"),
    ("#d55e00", "#ff8c42"),
    ("#009e73", "#2fc79a"),
    ("#b85c93", "#e39ac4"),
    ("#b8860b", "#e6c34a"),
    ("#3b9fd8", "#8ccbf2"),
    ("#7f6bb3", "#a999e0"),
    ("#8c5a10", "#cf9b4e"),
)

#: Names that keep their colour whichever others stand beside them: place in COLOURS.
PLACES = {"sft": 0, "grpo": 1, "luffy": 2, "sft_grpo": 3, "rl_sft": 4, "luffy_plain": 5}
BASE = "base"


def places_of(names: Sequence[str]) -> dict[str, int]:
    """Return name → place in COLOURS, counted on beyond its end; the base has none.

    >>> places_of(["base", "luffy", "mine"])
    {'luffy': 2, 'mine': 0}
    """
    arms = [name for name in dict.fromkeys(names) if name != BASE]
    fixed = {name: PLACES[name] for name in arms if name in PLACES}
    free = [place for place in range(len(COLOURS)) if place not in fixed.values()]
    others = [name for name in arms if name not in fixed]
    beyond = range(len(COLOURS), len(COLOURS) + len(others))
    return fixed | dict(zip(others, [*free, *beyond]))


def colours_of(names: Sequence[str], theme: Theme = "light") -> dict[str, str]:
    """Return name → colour; beyond eight arms colours repeat, and a drawing must tell those apart by its marks."""
    side = 0 if theme == "light" else 1
    found = {name: COLOURS[place % len(COLOURS)][side] for name, place in places_of(names).items()}
    return {BASE: BASE_COLOUR[side], **found}
