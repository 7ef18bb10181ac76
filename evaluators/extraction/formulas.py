"""Formulas between delimiters, alone or in a list, and the prose around them."""

from __future__ import annotations

import re

from evaluators.parsing.tokens import CONSTANTS, FUNCTIONS, GREEK

FORMULA = re.compile(
    r"\$\$((?:[^$]|\\\$){1,2000})\$\$|(?<!\\)\$([^$\n]{1,1000}?)(?<!\\)\$(?!\d)"
    r"|\\\(((?:[^\\]|\\(?![()])){1,1000})\\\)|\\\[((?:[^\\]|\\(?![\[\]])){1,2000})\\\]"
)
ONE_FORMULA = re.compile(r"\$(?!\$)[^$\n\\]*(?:\\[^$\n][^$\n\\]*)*\$", re.ASCII)
PROSE = re.compile(r"[A-Za-z]{2,}")
COMMAND = re.compile(r"\\[a-zA-Z]+ ?(?:\{[^{}]{0,200}\})?")
_MATHEMATICAL = frozenset(FUNCTIONS) | frozenset(CONSTANTS) | GREEK | {"inf", "oo", "frac", "mod", "sqrt", "cbrt"}
GLUE = re.compile(r"\s{0,3}(?:,\s{0,3}(?:and|or)\b|,|;|and\b|or\b|&)\s{0,3}", re.IGNORECASE)
_UNIT_AFTER = re.compile(r"\s{0,3}\(?(or\b[^.\n]{1,40}|[A-Za-z°%][A-Za-z/°^0-9 ]{0,24})(?=[.,;\n]|$|\*)")
_NOT_UNIT = re.compile(
    r"(?:is|are|which|as|so|where|when|for|by|in|on|at|with|the|and|if|since|that|to|because|"
    r"exactly|precisely|indeed|only|here|total|altogether|respectively|too|also)\b"
)


def prose_words(text: str) -> list[str]:
    """Words of a text that name no function or constant: cot(pi/20)+cot(pi/24) has none."""
    return [word for word in PROSE.findall(COMMAND.sub(" ", text)) if word not in _MATHEMATICAL]


def content_of(formula: re.Match[str]) -> str:
    """What stands between the delimiters of a formula."""
    return next(group for group in formula.groups() if group is not None).strip()


def first_of_run(formulas: list[re.Match[str]], text: str) -> re.Match[str]:
    """The first of the formulas that are listed together with the last one."""
    first = formulas[-1]
    for earlier in reversed(formulas[:-1]):
        link = GLUE.match(text, earlier.end())
        if link is None or link.end() != first.start():
            break
        first = earlier
    return first


def formulas_from(text: str, first: re.Match[str]) -> str:
    """A formula, with those listed behind it and a unit or second candidate in words."""
    parts = [content_of(first)]
    end = first.end()
    glue = ""
    while True:
        link = GLUE.match(text, end)
        following = FORMULA.match(text, link.end()) if link else None
        if link is None or following is None:
            break
        word = link[0].strip(" ,\n").lower()
        glue = " or " if word == "or" or glue == " or " else " and " if word == "and" else glue or ", "
        parts.append(content_of(following))
        end = following.end()
    answer = (glue if glue in (" or ", " and ") and len(parts) == 2 else ", ").join(parts)
    trailing = _UNIT_AFTER.match(text, end)
    if trailing and len(parts) == 1:
        unit = trailing[1].strip()
        if unit.lower().startswith("or "):
            return f"{answer} {unit.replace('$', '').rstrip(')')}"
        if len(unit.split()) <= 3 and not _NOT_UNIT.match(unit):
            return f"{answer} \\text{{ {unit}}}"
    return answer
