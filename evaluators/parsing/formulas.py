"""Chemical formulae and ions: H2SO4 in any typeface, with counts below the line and the charge above it."""

from __future__ import annotations

import re
from collections import Counter

_SYMBOLS = """H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se Br Kr Rb Sr
Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt
Au Hg Tl Pb Bi Po At Rn Fr Ra Ac Th Pa U Np Pu Am Cm Bk Cf Es Fm Md No Lr"""
_ELEMENTS = frozenset(_SYMBOLS.split())
_TYPEFACE = re.compile(r"\\(?:text|mathrm|rm|ce|mbox|textrm|operatorname)\s*(?=\{)")
_NOISE = re.compile(r"[{}$\s]|\\[,;!: ]|\\left|\\right")
_STATE = re.compile(r"\((?:s|l|g|aq)\)$")
_CHARGE = re.compile(r"\^(\d*)([+-])$|\^([+-])(\d*)$")
_PART = re.compile(r"([A-Z][a-z]?)_?(\d*)|\(|\)_?(\d*)")
_BODY = re.compile(r"(?:[A-Z][a-z]?(?:_?\d+)?|\(|\)(?:_?\d+)?)+")
_CAPITAL = re.compile(r"[A-Z]")
_MAX_LENGTH = 60


def chemical_formula(text: str) -> str | None:
    """Return a formula without typeface, such as `H2SO4` or `Fe^3+`; None where a text is none.

    Letters that could be variables count only where something says that they are elements: a typeface, a charge, or
    digits right behind two or more symbols.
    """
    if len(text) > _MAX_LENGTH or _CAPITAL.search(text) is None:
        return None
    bare, worded = _TYPEFACE.subn("", text)
    bare = _STATE.sub("", _NOISE.sub("", bare))
    charge = _CHARGE.search(bare)
    body = bare[: charge.start()] if charge else bare
    if not _BODY.fullmatch(body) or composition(body) is None:
        return None
    symbols = [part for part, *_ in _PART.findall(body) if part]
    counted = any(char.isdigit() for char in body)
    plain = "_" not in body and len(symbols) > 1
    if not (charge and (worded or len(symbols) > 1 or len(body) > 1)) and not (counted and (worded or plain)):
        return None
    sign = "" if charge is None else f"^{charge[1] or charge[4] or ''}{charge[2] or charge[3]}"
    return body.replace("_", "") + sign


def without_typeface(text: str) -> str:
    """Return a formula as plain mathematics: H_2O for `\\text{H}_2\\text{O}`."""
    return _NOISE.sub("", _TYPEFACE.sub("", text))


def composition(formula: str) -> Counter[str] | None:
    """Return the atoms of each element, with the charge as `charge`; None where a symbol is no element."""
    charge = _CHARGE.search(formula)
    body = formula[: charge.start()] if charge else formula
    groups: list[Counter[str]] = [Counter()]
    for match in _PART.finditer(body):
        if match[0] == "(":
            groups.append(Counter())
        elif match[0][0] == ")":
            if len(groups) < 2:
                return None
            inner = groups.pop()
            for symbol, count in inner.items():
                groups[-1][symbol] += count * int(match[3] or 1)
        elif match[1] not in _ELEMENTS or len(match[2]) > 4:
            return None
        else:
            groups[-1][match[1]] += int(match[2] or 1)
    if len(groups) != 1:
        return None
    if charge:
        size = int(charge[1] or charge[4] or 1)
        groups[0]["charge"] = size if (charge[2] or charge[3]) == "+" else -size
    return groups[0]
