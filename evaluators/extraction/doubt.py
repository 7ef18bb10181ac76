"""Doubt: what takes an answer back, denies it, strikes it out or offers several."""

from __future__ import annotations

import re

from evaluators.extraction.languages import joined

CORRECTION = re.compile(
    r"\b(?:wait|wrong|incorrect|mistake|correction|correct(?:ed)? (?:is|answer)|actually|instead|rather|sorry|oops|hmm|"
    r"let me (?:re|check|verify)|not right|no,|should be|re-?check|recalculat)",
    re.IGNORECASE,
)
_CORRECTION_PARTS = (
    "wait", "wrong", "correct", "mistake", "actually", "instead", "rather", "sorry", "oops", "hmm", "let me",
    "not right", "no,", "should be", "check", "recalculat",
)  # fmt: skip
_CLOSERS = " \n\t$.)]}*\\"
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
DENIED = joined("denied_before")
DENIED_AFTER = joined("denied_after")
_DENIAL_PARTS = (
    "moins",
    "plus",
    "mehr",
    "wenig",
    "dest",
    "chstens",
    "menos",
    "de ",
    "no",
    "n't",
    "ne",
    "than",
    "inst",
    "pas",
    "nich",
    "kein",
    "ni",
)  # a search by words is cheap
_GUESS_PARTS = (
    "may", "might", "doubt",
    "could", "perhaps", "pos", "candidate", "guess", "quiz", "tal vez", "puede", "prob", "viel",
    "event", "wohl",
)  # fmt: skip
DOUBTED = joined("doubted_before")
HEDGE = joined("hedge")

_STRUCK = re.compile(
    r"[^\W_][\u0335-\u0338\u20d2\u20d3\u20e5\u20eb]"  # 1̸2, 12̶: overlays that strike a letter or digit out
    r"|\d[\u200e\u200f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]+\d"  # marks that hide what stands between digits
    r"|\\(?:b|x)?cancel\b|\\(?:sout|st|xout)\b"
)
_ASKED = re.compile(r"[?？][\s}$)\]]*$")  # \boxed{2?}, \boxed{\text{Paris?}}
_OR_BEHIND = re.compile(  # \boxed{\text{(C)} \text{ or } 17}, \boxed{yes \text{ or } 17}
    r"\W{0,3}(?:text\s?\{\s?)?\(?(?:[A-J]|yes|no|true|false)\)?\s?\}?\s?(?:\\text\s?\{\s?)?\bor\b(?!\W{0,9}[A-J]\b)",
    re.IGNORECASE,
)
STRIKETHROUGH = re.compile(r"~~[^~\n]{1,200}~~")  # The answer is ~~12~~ 13
_TRUTH = re.compile(r"(?<![A-Za-z])(yes|true|no|false)(?![A-Za-z])", re.IGNORECASE)
_CLAIMED = re.compile(
    r"(?<![A-Za-z])(?:(Yes|True)|(No|False)|(?:(yes|true)|(no|false))(?=\s*(?:[.,;:!?)}]|$)))(?![A-Za-z])"
)
_NO_WAIT = re.compile(r"\bno,? wait\b|\bno problem\b|\bno doubt\b|\bNo \.\s?\d", re.IGNORECASE)
_NEGATIVE = ("no", "false")


def revised(after: str) -> str | None:
    """The answer that takes an earlier one back: "No wait, it is 43"."""
    taken_back = TAKEN_BACK.search(after)
    found = list(_REVISED.finditer(after, taken_back.end())) if taken_back else []
    return found[-1][1].strip("$") if found else None


def is_denied(text: str, start: int, end: int) -> bool:
    r"""Whether the value at a place is denied: "not \boxed{2}", "\boxed{2} is wrong", "\boxed{2}?"."""
    before = text[max(0, start - 40) : start]
    if (not before.isascii() or any(map(before.__contains__, _DENIAL_PARTS))) and DENIED.search(before):
        return True
    after = text[end : end + 80].lstrip(_CLOSERS)
    return bool(after) and DENIED_AFTER.match(text, end, end + 80) is not None


def corrects(text: str) -> bool:
    """Whether a text has words of a correction; the search by words spares most texts the one by pattern."""
    lowered = text.lower()
    return any(map(lowered.__contains__, _CORRECTION_PARTS)) and CORRECTION.search(text) is not None


def is_guess(text: str, start: int) -> bool:
    r"""Whether the value at a place is only offered: "maybe \boxed{2}", "one candidate is \boxed{2}"."""
    before = text[max(0, start - 40) : start]
    if before.isascii() and not any(map(before.lower().__contains__, _GUESS_PARTS)):
        return False
    return DOUBTED.search(before) is not None


def is_doubtful(answer: str) -> bool:
    """Whether an answer as written is none: struck out, asked, or both yes and no."""
    if not answer.isascii() and _STRUCK.search(answer):
        return True
    if "\\" in answer and _STRUCK.search(answer):
        return True
    if ("?" in answer or "？" in answer) and _ASKED.search(answer):
        return True
    return _OR_BEHIND.match(answer) is not None or both_truths(answer)


def both_truths(answer: str) -> bool:
    """Whether a short answer says both yes and no: "yes, No", "True; however False"."""
    if not 4 < len(answer) <= 200 or not _TRUTH.search(answer):
        return False
    said = {word.lower() in _NEGATIVE for word in _TRUTH.findall(_NO_WAIT.sub(" ", answer))}
    return len(said) > 1


def claims_both(text: str) -> bool:
    """Whether a response claims yes and no, each as a word of its own: "Yes... no wait, No", "True, then False".

    "Yes, because no prime divides it" claims yes alone.
    """
    claimed = {bool(match[2] or match[4]) for match in _CLAIMED.finditer(_NO_WAIT.sub(" ", text))}
    return len(claimed) > 1
