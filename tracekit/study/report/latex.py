"""The table of claims in LaTeX, for a paper: packages booktabs and longtable, no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracekit.study.report.answers import conclusion_of

_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "±": r"$\pm$", "×": r"$\times$", "−": "$-$", "≤": r"$\le$",
    "≥": r"$\ge$", "→": r"$\to$", "‖": r"$\Vert$", "φ": r"$\varphi$", "–": "--", "·": r"$\cdot$", "≈": r"$\approx$",
    "`": r"\textasciigrave{}",
}  # fmt: skip


def escape(text: str) -> str:
    """Text as LaTeX sets it: every character that LaTeX or a Latin font has no glyph for is replaced."""
    return "".join(_SPECIAL.get(sign, sign) for sign in text)


def latex_table(claims: Sequence[Mapping[str, Any]], caption: str) -> str:
    """A longtable of claims: id, claim, estimate with interval, p after correction, bases, conclusion."""
    head = r"id & claim & estimate [95\,\%] & $p$ & bases & conclusion \\"
    lines = [
        r"\begin{longtable}{lp{0.34\linewidth}p{0.2\linewidth}rrp{0.16\linewidth}}",
        rf"\caption{{{escape(caption)}}}\\",
        rf"\toprule {head} \midrule \endfirsthead",
        rf"\toprule {head} \midrule \endhead",
        *(_row(claim) for claim in claims),
        r"\bottomrule",
        r"\end{longtable}",
    ]
    return "\n".join(lines) + "\n"


def _row(claim: Mapping[str, Any]) -> str:
    known = claim["estimate"] == claim["estimate"]
    shown = f"{_number(claim['estimate'])} [{_number(claim['low'])}, {_number(claim['high'])}]" if known else "--"
    p = "$<.001$" if claim["p_holm"] < 0.001 else f"{claim['p_holm']:.3f}"
    cells = [claim["id"], escape(claim["claim"]), shown, p, str(claim["bases"]), escape(conclusion_of(claim))]
    return " & ".join(cells) + r" \\"


def _number(value: float) -> str:
    """A number with three digits, in math mode where it has a sign or is infinite."""
    if abs(value) == float("inf"):
        return r"$\infty$" if value > 0 else r"$-\infty$"
    return f"${value:.3g}$" if value < 0 else f"{value:.3g}"
