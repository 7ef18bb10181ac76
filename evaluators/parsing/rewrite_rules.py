"""Spellings of one thing brought to one, as text, before the parser sees it.

Each rule has a piece of text without which it cannot apply, so that an answer pays for the rules it may need.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

from evaluators.parsing.notations import NOTATIONS


class Rule(NamedTuple):
    """guard: what an answer must hold; pattern and replacement: as in re.sub."""

    guard: str
    pattern: re.Pattern[str]
    replacement: str | Callable[[re.Match[str]], str]


_TYPEFACE = r"\\(?:text|mathrm|mbox|hbox|rm|textrm|textup|operatorname\*?|mathbf|textbf|textit|mathit)"
_SCRIPT = r"(?:\{\s*(\w+)\s*\}|(\w))"


def derivative(match: re.Match[str]) -> str:
    """dy/dx as one symbol; where the orders above and below differ, it is none."""
    if not match[2] or (match[1] or "1") != (match[4] or "1"):
        return match[0]
    name = match[2].replace("{", "").replace("}", "")
    return rf"\dot{{{match[1] or 1}:{name}:{match[3]}}}"


def flat_exponents(match: re.Match[str]) -> str:
    """`\\mathrm{m\\,s^{-2}}` without the inner braces, which hide where the unit ends."""
    return match[1] + "{" + _BRACED_EXPONENT.sub(r"^\1", match[2]) + "}"


def chosen(match: re.Match[str]) -> str:
    """`_{10}C_3`, `^{10}C_3` and `_{10}P_3`."""
    top, bottom = match[1] or match[2], match[4] or match[5]
    if match[3] == "C":
        return rf"\binom{{{top}}}{{{bottom}}}"
    return rf"\frac{{{top}!}}{{({top}-{bottom})!}}"


def chosen_of(match: re.Match[str]) -> str:
    """`C_{10}^{3}` and `C^{3}_{10}`, which are written both ways round: the greater number is the size of the set."""
    one, two = int(match[1] or match[2]), int(match[3] or match[4])
    return rf"\binom{{{max(one, two)}}}{{{min(one, two)}}}"


_BRACED_EXPONENT = re.compile(r"\^\s*\{\s*([-+]?\d{1,2})\s*\}")

# Signs and layout, before an answer is looked at at all.
LAYOUT = (
    Rule(
        "\\",
        re.compile(
            r"\\(?:textcolor|color|colorbox|tag\*?|label|hspace\*?|vspace\*?|phantom|hphantom|vphantom) ?\{[^{}]*\}"
            r"|\\(?:underline|uline|mathstrut|displaystyle|textstyle|ensuremath|nonumber|notag)\b"
        ),
        "",
    ),
    Rule("}", re.compile(r"\{\s*([:;=+\-<>/*])\s*\}"), r"\1"),  # 3{:}45
    Rule(r"\colon", re.compile(r"\\colon\b ?"), ":"),
    Rule("\\\\[", re.compile(r"(\\\\)\s*\[\s*-?[\d.]+\s*(?:mm|cm|pt|em|ex|in)\s*\]"), r"\1"),  # the space below a row
    Rule("\\", re.compile(rf"{_TYPEFACE}\s*\{{\s*([.,;:%?!°+\-=/]|\\%|\\\$)\s*\}}"), r"\1"),
)

# Mathematics that has several notations.
NOTATION = (
    Rule(
        "frac",
        re.compile(
            r"\\[dt]?frac ?\{ ?(?:\\(?:mathrm|text) ?\{ ?d ?\}|d|\\partial) ?(?:\^ ?\{? ?(\d)"
            r" ?\}?)? ?([a-zA-Z]?(?:_\{?\w+\}?)?) ?\}"
            r" ?\{ ?(?:\\(?:mathrm|text) ?\{ ?d ?\}|d|\\partial) ?([a-zA-Z]) ?(?:\^ ?\{? ?(\d) ?\}?)? ?\}"
        ),
        derivative,
    ),
    Rule("/d", re.compile(r"(?<![A-Za-z\\])d(?:\^(\d))?([a-zA-Z]) ?/ ?d([a-zA-Z])(?:\^(\d))?(?![A-Za-z])"), derivative),
    Rule(
        "frac{\\",
        re.compile(
            r"\\[dt]?frac\s*\{\s*(\\(?:text|mathrm|mbox|rm)\s*\{[^{}]*\}[^{}]{0,8})\s*\}"
            r"\s*\{\s*(\\(?:text|mathrm|mbox|rm)\s*\{[^{}]*\}(?:\^\{?\d\}?)?)\s*\}"
        ),
        r"\1/\2",
    ),
    Rule(
        "^{",
        re.compile(rf"({_TYPEFACE})\s*\{{((?:[^{{}}^]|\^\s*\{{\s*[-+]?\d{{1,2}}\s*\}}){{1,60}})\}}"),
        flat_exponents,
    ),
    Rule(
        "'",
        re.compile(r"(\d{1,6})\s*\^\s*\{?\s*\\circ\s*\}?\s*(\d{1,2})\s*'(?!')(?:\s*(\d{1,2})\s*'')?"),
        lambda match: rf"\frac{{{3600 * int(match[1]) + 60 * int(match[2]) + int(match[3] or 0)}}}{{3600}}^\circ ",
    ),
    Rule(
        "^",  # v^2_0 as v_0^2
        re.compile(r"(?<![A-Za-z\\])([A-Za-z]|\\[a-z]+)\s*\^\s*(\{[^{}]*\}|\d|[a-z])\s*_\s*(\{[^{}]*\}|\w)(?!\s*\^)"),
        r"\1_\3^\2",
    ),
    Rule("forall", re.compile(r"^\\forall\b[^,:;=]{1,60}[,:;]\s*(?=\S)"), ""),  # \forall x > 0, f(x) = 0
    Rule("...", re.compile(r"(?<=,)\s*\.{3}"), r" \\ldots "),
    Rule(
        "all real",
        re.compile(
            r"(?:\\text\s*\{\s*)?(?:for )?all real (?:numbers|values)(?: such that| where| with| for which)?\s*\}?"
            r"\s*(?=\$?[a-z] ?(?:\\|[<>=]))"
        ),
        "",
    ),
    Rule(r"\text", re.compile(r"(\\text\s*\{[^{}]{1,30}?)\s+(and|or)\s*\}"), r"\1} \\text{ \2 }"),
    Rule(r"\mu", re.compile(rf"\\mu\s*({_TYPEFACE}\s*\{{)\s*(?=[a-zA-Z])"), r"\1u"),
    Rule(r"\mu", re.compile(rf"({_TYPEFACE}\s*\{{)\s*\\mu\s*(?=[a-zA-Z])"), r"\1u"),
    Rule("x", re.compile(r"(?<=\d) ?x ?(?=10 ?(?:\^|\*\*))|(?<=\d) x (?=\d)"), r"\\times "),
    Rule(".", re.compile(r"\b(?:np|numpy|math|sympy|sp|cmath|mpmath|mp)\.(?=[a-zA-Z])"), ""),
    Rule(
        "_",
        re.compile(rf"(?:\{{\s*\}}\s*|(?<![\w}}]))[_^]\s*{_SCRIPT}\s*(?:\\mathrm\s*\{{)?([CP])\}}?\s*_\s*{_SCRIPT}"),
        chosen,
    ),
    Rule("C_", re.compile(r"\bC_\s*(?:\{\s*(\d+)\s*\}|(\d))\s*\^\s*(?:\{\s*(\d+)\s*\}|(\d))"), chosen_of),
    Rule("C^", re.compile(r"\bC\^\s*(?:\{\s*(\d+)\s*\}|(\d))\s*_\s*(?:\{\s*(\d+)\s*\}|(\d))"), chosen_of),
    Rule(
        "mod",
        re.compile(rf"\(\s*(?:{_TYPEFACE}\s*\{{\s*mod\s*\}}|\\?[bp]?mod\b)\s*((?:[^()]){{1,40}})\)"),
        r"\\pmod{\1}",
    ),
    Rule("to", re.compile(rf"(?<=[\d}}])\s*(?:{_TYPEFACE}\s*\{{\s*to\s*\}}|(?<= )to(?= ))\s*(?=[\d\\])"), ":"),
    Rule(
        "}",
        re.compile(
            r"\\(?:mathbf|vec|hat|boldsymbol|bm|overrightarrow)\s*\{\s*(?:\\(?:hat|mathbf|vec|boldsymbol)\s*\{?)?\s*"
            r"(?:\\([ij])math|([ijk]))\s*\}?\s*\}"
        ),
        lambda match: rf"\hat{{{match[1] or match[2]}}}",
    ),
    *(Rule(*rule) for rule in NOTATIONS),
)


def respelled(text: str, rules: tuple[Rule, ...]) -> str:
    """The text with every rule applied, in their order."""
    for guard, pattern, replacement in rules:
        if guard in text:
            text = pattern.sub(replacement, text)
    return text
