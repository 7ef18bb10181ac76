"""Clean an answer before it is read: Unicode to LaTeX, wrappers off, separators of thousands out."""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction

MAX_ANSWER = 20_000  # characters; longer answers are compared as text alone

_VULGAR = {sign: unicodedata.normalize("NFKC", sign).split("⁄") for sign in "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"}
_SIGNS = {
    "−": "-", "–": "-", "—": "-", "‐": "-", "‑": "-", "﹣": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ",
    "∙": r"\cdot ", "•": r"\cdot ", "∗": "*", "÷": r"\div ", "∕": "/", "⁄": "/", "√": r"\sqrt ", "∛": r"\sqrt[3]",
    "∜": r"\sqrt[4]", "∞": r"\infty ", "π": r"\pi ", "ϖ": r"\pi ", "𝜋": r"\pi ", "°": r"^\circ ", "º": r"^\circ ",
    "˚": r"^\circ ", "∘": r"^\circ ", "≤": r"\le ", "≥": r"\ge ", "⩽": r"\le ", "⩾": r"\ge ", "≠": r"\ne ",
    "≈": r"\approx ", "≡": r"\equiv ", "∈": r"\in ", "∉": r"\notin ", "∪": r"\cup ", "∩": r"\cap ", "∅": r"\emptyset ",
    "⌀": r"\emptyset ", "±": r"\pm ", "∓": r"\mp ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}",
    "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}", "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ",
    "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ", "→": r"\to ", "∣": "|"
    r"", "∖": r"\setminus ",
    "∨": r"\lor ", "∧": r"\land ", "…": r"\ldots ", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "″": "''",
    "％": r"\%", "﹪": r"\%", "，": ",", "、": ", ", "；": "; ", "。": ".", "：": ":", "∶": ":", "【": "[", "】": "]",
    "∠": r"\angle ", "△": r"\triangle ", "⊥": r"\perp ", "∥": r"\parallel ", "¬": r"\neg ", "⇔": r"\iff ",
    "↔": r"\leftrightarrow ", "⊂": r"\subset ", "⊆": r"\subseteq ",
    "ℯ": "e", "ⅈ": "i", "µ": r"\mu ", "∑": r"\sum ", "∏": r"\prod ", "∫": r"\int ", "∂": r"\partial ", ""
    r"⟹": r"\implies ",
    "⇒": r"\implies ", "Ø": r"\emptyset ", "¢": r"\text{ cents}", "\x00": " ",
    "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "δ": r"\delta ", "ε": r"\epsilon ", "ζ": r"\zeta ",
    "η": r"\eta ", "θ": r"\theta ", "κ": r"\kappa ", "λ": r"\lambda ", "μ": r"\mu ", "ν": r"\nu ", "ξ": r"\xi ",
    "ρ": r"\rho ", "σ": r"\sigma ", "τ": r"\tau ", "φ": r"\phi ", "ϕ": r"\phi ", "χ": r"\chi ", "ψ": r"\psi ",
    "ω": r"\omega ", "Γ": r"\Gamma ", "Δ": r"\Delta ", "Θ": r"\Theta ", "Λ": r"\Lambda ", "Σ": r"\Sigma ",
    "Φ": r"\Phi ", "Ψ": r"\Psi ", "Ω": r"\Omega ",
}  # fmt: skip
_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni"))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()"))
_SCRIPTED = re.compile(f"([{''.join(_SUPERSCRIPTS)}]+)|([{''.join(_SUBSCRIPTS)}]+)")
_ROOT_OF_NUMBER = re.compile(r"√\s*(\d+(?:\.\d+)?|[A-Za-zπ])")
_STRUCK = re.compile("[\u0335-\u0338\u0336]")
_COMPOSED = re.compile("[=<>\u2208\u2264\u2265\u2261]\u0338")  # a stroke through a relation negates it
_ACCENTS = {"\u0304": "bar", "\u0305": "bar", "\u0302": "hat", "\u20d7": "vec"}
_ACCENTED = re.compile("([A-Za-z])([\u0302\u0304\u0305\u20d7])")  # x with a bar above it
_OVERLINED = re.compile("(?<![0-9.])([0-9.]*)((?:[0-9]\u0305)+)")


def ascii_signs(text: str) -> str:
    """The text with mathematical Unicode written in LaTeX, and every decimal digit in ASCII."""
    if text.isascii():
        return text.replace("\x00", " ") if "\x00" in text else text
    if _STRUCK.search(text):
        text = _COMPOSED.sub(lambda match: unicodedata.normalize("NFC", match[0]), text)
    text = _OVERLINED.sub(lambda match: match[1] + r"\overline{" + match[2].replace("\u0305", "") + "}", text)
    text = _ACCENTED.sub(lambda match: rf"\{_ACCENTS[match[2]]}{{{match[1]}}}", text)
    text = _ROOT_OF_NUMBER.sub(r"\\sqrt{\1}", text)
    text = _SCRIPTED.sub(_script, text)
    return "".join(char if char.isascii() else _sign(char) for char in text)


def _script(match: re.Match[str]) -> str:
    if match[1]:
        return "^{" + "".join(_SUPERSCRIPTS[char] for char in match[1]) + "}"
    return "_{" + "".join(_SUBSCRIPTS[char] for char in match[2]) + "}"


def _sign(char: str) -> str:
    if char in _SIGNS:
        return _SIGNS[char]
    if char in _VULGAR:
        top, bottom = _VULGAR[char]
        return rf"\frac{{{top}}}{{{bottom}}}"
    digit = unicodedata.decimal(char, None)
    if digit is not None:
        return str(digit)
    if _STRUCK.match(char):
        return char  # a struck-out digit is not that digit
    category = unicodedata.category(char)
    if category == "Zs":
        return " "
    if category in ("Cf", "Cc", "Mn"):  # zero-width, direction and combining marks
        return ""
    if category == "Cs":
        return "\N{REPLACEMENT CHARACTER}"
    plain = unicodedata.normalize("NFKC", char)
    return plain if plain.isascii() else _SIGNS.get(plain, char)


_DELIMITERS = (
    ("$$", "$$"),
    ("$", "$"),
    (r"\[", r"\]"),
    (r"\(", r"\)"),
    ("**", "**"),
    ("```", "```"),
    ("`", "`"),
    ('"', '"'),
)
_TRAILING = ".,;: "  # a question mark is doubt: `2?` is no answer


def strip_wrappers(text: str) -> str:
    """The text without surrounding white space, math delimiters, bold marks, quotes and a closing full stop."""
    text = text.strip()
    for _ in range(6):
        before = text
        if text[-1:] in _TRAILING:
            text = text.rstrip(_TRAILING)
            if text.endswith("\\"):
                text += before[len(text) : len(text) + 1]  # a TeX space, such as "\\,"
        for opening, closing in _DELIMITERS:
            size = len(opening)
            if len(text) >= 2 * size and text.startswith(opening) and text.endswith(closing):
                inside = text[size : len(text) - size]
                if opening not in inside and closing not in inside and not inside.endswith("\\"):
                    text = inside.strip()
                    break
        if text == before:
            break
    return text


_GROUPED_BY_TEX = re.compile(r"(?<=\d)(?: ?,? ?\\!|\{,\}|\\,|,\\!|\\ |~) ?(?=\d{3}(?!\d))")
_GROUPED_BY_SPACE = re.compile(r"(?<![\d.,_^}])(?<!\\frac )[1-9]\d{0,2}(?: \d{3})+(?![\d/])")
_GROUPED_BY_QUOTE = re.compile(r"(?<=\d)'(?=\d{3}(?!\d))")
_COMMA_RUN = re.compile(r"(?<![\d.,])\d+(?:,\d+)+")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+")


def join_thousands(text: str) -> str:
    """Numbers without separators of thousands.

    A comma between digits separates thousands outside brackets, elements inside them: (1,000) is a pair.
    """
    if "\\" in text or "~" in text or "{,}" in text:
        text = _GROUPED_BY_TEX.sub("", text)
    if "'" in text:
        text = _GROUPED_BY_QUOTE.sub("", text)
    if " " in text:
        text = _GROUPED_BY_SPACE.sub(lambda match: match[0].replace(" ", ""), text)
    if "," in text:
        text = _COMMA_RUN.sub(_join_run, text)
    return text


def _join_run(match: re.Match[str]) -> str:
    run = match[0]
    if not _GROUPED.fullmatch(run):
        return run
    before = match.string[: match.start()]
    if before.count("(") > before.count(")") or before.count("[") > before.count("]"):
        return run
    if before.count("{") > before.count("}") and r"\{" in before:
        return run
    return run.replace(",", "")


_WORDING = re.compile(r"\\(?:text|textbf|textit|textrm|textsc|mathrm|mathbf|mathit|mbox|hbox|rm|bf|operatorname)\b\*?")
_NOT_WORD = re.compile(r"[^\w%+\-./<>=^*]+")
_NUMBERED = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")  # July 4th
_ARTICLE = re.compile(r"^(?:on )?(?:the|an?|it is|it's|there (?:is|are)|option|choice|on) ")


def words(text: str) -> str:
    """The text as compared word by word: no LaTeX wording commands, punctuation, case or leading article."""
    if "\\" in text:
        text = _WORDING.sub(" ", text).replace("\\", " ")
    text = _NOT_WORD.sub(" ", text.casefold()).strip(" .-")
    text = _ARTICLE.sub("", text)
    return _NUMBERED.sub("", text) if text[:1].isalpha() else text


_UNITS_OF_TEN = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_SMALL = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
NUMBER_WORDS = {word: value for value, word in enumerate(_SMALL)}
NUMBER_WORDS |= {word: 10 * value for value, word in enumerate(_UNITS_OF_TEN, start=2)}
_SCALES = {"hundred": 100, "thousand": 1000, "million": 10**6, "billion": 10**9}


_PARTS = ["half", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth", "eleventh", "twelfth"]
_DENOMINATORS = {form: size for size, part in enumerate(_PARTS, start=2) for form in (part, part + "s")}
_DENOMINATORS |= {"halves": 2, "quarter": 4, "quarters": 4}
for _size, _part in ((16, "sixteenth"), (20, "twentieth"), (100, "hundredth"), (1000, "thousandth")):
    _DENOMINATORS |= {_part: _size, _part + "s": _size}
_ORDINALS = {word: value for value, word in enumerate(["first", "second", *_PARTS[1:]], start=1)}


def number_word(text: str) -> int | Fraction | None:
    """The number that English words name: "twenty-one" is 21, "two thirds" 2/3, "fourth" 4; None for anything else."""
    sign, _, size = text.partition(" ")
    if sign in ("negative", "minus"):
        value = number_word(size) if not size.startswith(("negative", "minus")) else None
        return None if value is None else -value
    if text in _ORDINALS:
        return _ORDINALS[text]
    if text == "half":
        return Fraction(1, 2)
    whole, _, rest = text.partition(" and a ")
    if rest in _DENOMINATORS:
        count = _cardinal(whole)
        return None if count is None else count + Fraction(1, _DENOMINATORS[rest])
    top, _, bottom = text.replace("-", " ").rpartition(" ")
    if top and bottom in _DENOMINATORS:
        count = 1 if top in ("a", "an") else _cardinal(top)
        return None if count is None else Fraction(count, _DENOMINATORS[bottom])
    return _cardinal(text)


def _cardinal(text: str) -> int | None:
    total, group, seen = 0, 0, False
    for word in text.casefold().replace("-", " ").replace(" and ", " ").split():
        if word in NUMBER_WORDS:
            group += NUMBER_WORDS[word]
        elif word in _SCALES and seen:
            if word == "hundred":
                group *= 100
            else:
                total, group = total + group * _SCALES[word], 0
        else:
            return None
        seen = True
    return total + group if seen else None
