"""Doubt: what takes an answer back, denies it or offers several."""

from __future__ import annotations

import re

CORRECTION = re.compile(
    r"\b(?:wait|wrong|incorrect|mistake|correction|correct(?:ed)? (?:is|answer)|actually|instead|rather|sorry|oops|hmm|"
    r"let me (?:re|check|verify)|not right|no,|should be|re-?check|recalculat)",
    re.IGNORECASE,
)
TAKEN_BACK = re.compile(
    r"\b(?:no,? wait|wait,|wait\b[^.\n]{0,20}\bno\b|oops|sorry|correction:|scratch that|on second thought|"
    r"actually,? (?:it|that|this|the)|I made an? (?:\w+ )?(?:mistake|error)|"
    r"that(?:'s| is| was) (?:wrong|incorrect|not right))",
    re.IGNORECASE,
)
_REVISED = re.compile(
    r"\b(?:it|this|that|answer|result|value|total|sum|number)(?:'s| is| was| should be| must be| equals)"
    r" (\$[^$\n]{1,200}\$|[-−]?\d[\d,./]*(?<=\d))\s*(?=[.!\n]|$)",
    re.IGNORECASE,
)
DENIED = re.compile(r"(?:\bnot|n't|\bcannot|\bnever)\b(?: be| equal)?[ $]{0,3}$")
DOUBTED = re.compile(r"\b(?:(?:may|might|could) (?:also )?be|maybe|perhaps|possibly)[ $]{0,3}$", re.IGNORECASE)
HEDGE = re.compile(r"\b(?:or|either|maybe|perhaps|possibly|could be|might be|candidates?|not)\b", re.IGNORECASE)


def revised(after: str) -> str | None:
    """The answer that takes an earlier one back: "No wait, it is 43"."""
    taken_back = TAKEN_BACK.search(after)
    found = list(_REVISED.finditer(after, taken_back.end())) if taken_back else []
    return found[-1][1].strip("$") if found else None
