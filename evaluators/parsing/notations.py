r"""Notations of computer algebra, quiz systems and other regions, written as the grammar reads them.

`evaluators.parsing.rewrite_rules` applies these after its own.
"""

from __future__ import annotations

import re

_D = r"(?:d|\\(?:mathrm|text|operatorname)\s*\{\s*d\s*\}|\\partial)"
_LETTER = re.compile(r"\\?[a-zA-Z]+")
_BODY = r"(?:[^{}]|\{(?:[^{}]|\{[^{}]*\}){0,80}\}){1,80}?"


def operator(match: re.Match[str]) -> str:
    r"""`\frac{d^2}{dx^2}` and `\frac{d(x^2)}{dx}` as an operator before its operand."""
    order, body, name, below = match[1] or "1", (match[2] or "").strip(), match[3], match[4] or "1"
    if order != below:
        return match[0]
    if _LETTER.fullmatch(body):
        return rf"\dot{{{order}:{body.lstrip(chr(92))}:{name}}}"  # of a function that is only named
    kind = "partial" if "partial" in match[0] else "total"
    return rf"\derivative{{{order}:{name}:{kind}}}" + (f"({body})" if body else " ")


def bars(match: re.Match[str]) -> str:
    r"""`\mid x\mid` as |x|, outside sets."""
    text = match[0]
    return text if r"\{" in text or text.count(r"\mid") % 2 else text.replace(r"\mid", "|")


def angles(match: re.Match[str]) -> str:
    """`<1, 2, 3>` as a vector."""
    return rf"{match[1]} \langle {match[2]} \rangle " if "," in match[2] else match[0]


def rows_of_text(match: re.Match[str]) -> str:
    """`[1, 2; 3, 4]` as rows in brackets, where every row has as many entries, two or more."""
    rows = [row.split(",") if "," in row else row.split() for row in match[1].split(";")]
    if len(rows[0]) < 2 or len({len(row) for row in rows}) > 1:
        return match[0]
    return "[" + ",".join("[" + ",".join(row) + "]" for row in rows) + "]"


def counted_choice(match: re.Match[str]) -> str:
    """10C3 and 10P3."""
    top, bottom = match[1], match[3]
    return rf"\binom{{{top}}}{{{bottom}}}" if match[2] == "C" else rf"\frac{{{top}!}}{{({top}-{bottom})!}}"


def definition(match: re.Match[str]) -> str:
    r"""`f: x \mapsto x^2` as f(x) = x^2; without a name as the value."""
    return f"{match[1]}({match[2]})=" if match[1] else ""


# (guard, pattern, replacement), as in rewrite_rules.Rule
NOTATIONS = (
    (
        "frac",
        re.compile(
            rf"\\[dtc]?frac\s*\{{\s*{_D}\s*(?:\^\s*\{{?\s*(\d)\s*\}}?)?\s*((?:(?=[(\\\w]){_BODY})?)\s*\}}"
            rf"\s*\{{\s*{_D}\s*([a-zA-Z])\s*(?:\^\s*\{{?\s*(\d)\s*\}}?)?\s*\}}"
        ),
        operator,
    ),
    ("m", re.compile(r"(?<![a-zA-Z\\])m\s*(?=\\angle)"), ""),  # the measure of an angle
    (r"\Delta", re.compile(r"\\Delta\s+(?=[A-Z]{3}(?![a-zA-Z]))"), r"\\triangle "),
    (
        "circ",  # the composition (f ∘ g)(x)
        re.compile(r"(?:\(\s*)?([a-zA-Z])\s*\\circ\s*([a-zA-Z])\s*\)?\s*\(\s*([a-zA-Z])\s*\)"),
        r"\1(\2(\3))",
    ),
    ("Bbb", re.compile(r"\\Bbb\s*\{?\s*([A-Z])\s*\}?"), r"\\mathbb{\1}"),
    (r"\mid", re.compile(r"^.*$", re.DOTALL), bars),
    ("<", re.compile(r"(^|=)\s*<([^<>=]*)>\s*$"), angles),
    (
        r"\mapsto",
        re.compile(r"^(?:([a-zA-Z])\s*:\s*)?(?:\\mathbb\S+\s*\\to\s*\\mathbb\S+,\s*)?([a-z])\s*\\mapsto\s*"),
        definition,
    ),
    (";", re.compile(r"^\[([^\[\]]+;[^\[\]]+)\]$"), rows_of_text),
    ("log", re.compile(r"(?<![\\a-zA-Z])log(2|10)\s*(?=\()"), r"\\log_{\1}"),
    ("C", re.compile(r"(?<![\w.\\])(\d{1,4}) ?(C) ?(\d{1,4})(?![\w.])"), counted_choice),
    ("P", re.compile(r"(?<![\w.\\])(\d{1,4}) ?(P) ?(\d{1,4})(?![\w.])"), counted_choice),
    ("(", re.compile(r"^(-?\d*\.\d*)\((\d{1,40})\)$"), r"\1\\overline{\2}"),  # 0.1(6)
    ("u", re.compile(r"(?<=[\])])\s*u\s*(?=[\[(])"), r" \\cup "),  # [0, 1] u [2, 3]
    ("Interval.", re.compile(r"\bInterval\.(open|Lopen|Ropen)(?=\()"), r"Interval\1"),
    (
        "^",  # the conjugate z^*
        re.compile(r"(?<![a-zA-Z\\])([a-zA-Z])\s*\^\s*(?:\{\s*\*\s*\}|\*(?=$|[\s+=,)}-]))"),
        r"\\overline{\1}",
    ),
    (
        "math",
        re.compile(r"\\(?:hat|vec|mathbf|bm|boldsymbol)\s*\{?\s*\\([ij])math\b\s*\}?"),
        r"\\hat{\1}",
    ),
    (r"\mathbf ", re.compile(r"\\mathbf ([ijk])(?![a-zA-Z])"), r"\\hat{\1}"),
)
