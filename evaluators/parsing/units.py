"""Units of measurement: their names, what they measure, and how they convert."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple


class Unit(NamedTuple):
    """dimension: sorted (base, exponent) pairs; factor: how many of the base units one of these is."""

    dimension: tuple[tuple[str, int], ...]
    factor: Fraction


def _table(rows: str, base: str, exponent: int = 1) -> dict[str, tuple[str, int, Fraction]]:
    names = {}
    for row in rows.strip().splitlines():
        factor, *aliases = row.split()
        for alias in aliases:
            names[alias] = (base, exponent, Fraction(factor))
    return names


_SIMPLE: dict[str, tuple[str, int, Fraction]] = {
    **_table(
        """1 m meter metre
        1000 km kilometer kilometre
        1/10 dm decimeter decimetre
        1/100 cm centimeter centimetre
        1/1000 mm millimeter millimetre
        1/1000000 um micrometer micron
        1/1000000000 nm nanometer nanometre
        0.0254 in inch inche
        0.3048 ft foot feet
        0.9144 yd yard
        1609.344 mi mile""",
        "length",
    ),
    **_table(
        "0.001 L liter litre l\n0.000001 mL ml milliliter millilitre cc\n0.00001 cL cl\n0.0001 dL dl", "length", 3
    ),
    **_table("4046.8564224 acre\n10000 hectare ha", "length", 2),
    **_table("1 gal gallon\n1/4 qt quart\n1/8 pt pint\n1/16 cup\n1/256 tbsp tablespoon\n1/768 tsp teaspoon", "gallon"),
    **_table("1 kg kilogram kilo\n1/1000 g gram\n1/1000000 mg milligram\n1000 tonne", "mass"),
    **_table("1 lb pound\n1/16 oz ounce\n2000 ton", "pound"),
    **_table(
        """1 s sec second
        60 min minute
        3600 h hr hour
        86400 day
        604800 week wk
        1/1000 ms millisecond
        1/1000000 us microsecond
        1/1000000000 ns nanosecond""",
        "time",
    ),
    **_table("1 month mo\n12 year yr\n120 decade\n1200 century centurie", "month"),
    **_table("1 dollar usd buck\n1/100 cent\n1/20 nickel\n1/10 dime\n1/4 quarter\n1 $", "dollar"),
    **_table("1 euro eur €", "euro"),
    **_table("1 pound-sterling gbp £ quid\n1/100 pence", "sterling"),
    **_table("1 rupee inr rs ₹", "rupee"),
    **_table("1 yuan rmb cny", "yuan"),
    **_table("1 yen jpy ¥", "yen"),
    **_table("1 degree deg", "degree"),
    **_table("1 degC celsius °C", "celsius"),
    **_table("1 degF fahrenheit °F", "fahrenheit"),
    **_table("1 K kelvin", "kelvin"),
    **_table("1 rad radian", "radian"),
    **_table("1 N newton\n1000 kN kilonewton\n1/100000 dyne dyn", "newton"),
    **_table(
        "1 J joule\n1000 kJ kilojoule\n1000000 MJ\n4.184 cal calorie\n4184 kcal kilocalorie\n1/10000000 erg", "joule"
    ),
    **_table("1 eV ev electronvolt\n1000 keV\n1000000 MeV\n1000000000 GeV", "electronvolt"),
    **_table("1 W watt\n1000 kW kilowatt\n1000000 MW megawatt", "watt"),
    **_table("1 V volt\n1/1000 mV\n1000 kV", "volt"),
    **_table("1 A amp ampere\n1/1000 mA", "ampere"),
    **_table("1 ohm\n1000 kohm", "ohm"),
    **_table("1 Pa pascal\n1000 kPa\n1000000 MPa\n101325 atm\n100000 bar", "pascal"),
    **_table("1 Hz hertz\n1000 kHz\n1000000 MHz\n1000000000 GHz", "hertz"),
    **_table("1 mol mole\n1/1000 mmol", "mole"),
    **_table("1 M molar", "molar"),
    **_table("1 unit u", "unit"),
    **_table("1 bit\n8 byte B\n8192 KB\n8388608 MB\n8589934592 GB", "bit"),
    **_table("1 C coulomb", "coulomb"),
    **_table("1 T tesla", "tesla"),
    **_table("1 F farad", "farad"),
    **_table("1 H henry", "henry"),
    **_table("1 Wb weber", "weber"),
    **_table("1 dozen", "dozen"),
}
_PREFIXES = {"k": 3, "M": 6, "G": 9, "T": 12, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12}
_PREFIX_WORDS = {"kilo": 3, "mega": 6, "giga": 9, "tera": 12, "centi": -2, "milli": -3, "micro": -6, "nano": -9,
                 "pico": -12}  # fmt: skip
_PREFIXABLE = frozenset(
    ["m", "g", "s", "L", "N", "J", "W", "V", "A", "K", "Pa", "Hz", "mol", "eV", "C", "T", "F", "H", "Wb", "ohm", "M"]
)
_COMPOUND = {
    "mph": "mi/h", "kph": "km/h", "kmph": "km/h", "kmh": "km/h", "mpg": "mi/gal", "fps": "ft/s",
     "rpm": "revolution/min",
    "sqft": "ft^2", "sqm": "m^2", "psi": "lb/in^2",
}  # fmt: skip
_POWERS = {"square": 2, "sq": 2, "cubic": 3, "cu": 3}
_POWERS_AFTER = {"squared": 2, "cubed": 3}
# Letters that measure when written as text, `5 \text{ m}`, and are variables in `5m`.
VARIABLE_LIKE = frozenset(
    [
        "m",
        "g",
        "s",
        "h",
        "l",
        "L",
        "N",
        "J",
        "W",
        "V",
        "A",
        "K",
        "M",
        "u",
        "B",
        "C",
        "T",
        "F",
        "H",
        "pt",
        "mi",
        "min",
        "mo",
        "cl",
        "dl",
    ]
) - {"min", "mi", "mo"}
_PLAIN_WORDS = (
    frozenset(name for name in _SIMPLE if name not in VARIABLE_LIKE) | frozenset(_COMPOUND) | frozenset(_POWERS)
)
_WRAPPER = re.compile(
    r"\\(?:text|mathrm|mbox|hbox|textrm|textbf|mathbf|operatorname|rm|mathit|textit|textup)\b|[{}~]|\\[,;:! ]"
)
_PIECE = re.compile(r"([A-Za-z°$€£¥₹\-]+)(?:\s*\^\s*\(?([+-]?\d+)\)?|(\d)\b)?|([/*])|(\S)")
_MINUS = re.compile(r"- +(?=\d)")
_NOT_UNITS = frozenset(
    [
        "or",
        "and",
        "not",
        "if",
        "then",
        "is",
        "are",
        "was",
        "were",
        "the",
        "no",
        "yes",
        "none",
        "true",
        "false",
        "even",
        "odd",
        "only",
        "all",
        "where",
        "for",
        "with",
        "than",
        "left",
        "right",
        "when",
        "both",
        "either",
        "undefined",
        "infinity",
        "pi",
    ]
)


def is_unit_word(word: str) -> bool:
    """Whether a word of plain text names a unit, and no variable."""
    return (
        word in _PLAIN_WORDS
        or (len(word) > 3 and word.lower().rstrip("s") in _PLAIN_WORDS)
        or _singular(word) in _PLAIN_WORDS
    )


def _singular(word: str) -> str:
    if len(word) > 3 and word.endswith("ies"):
        return word[:-3] + "y"
    return word[:-1] if len(word) > 2 and word.endswith("s") and not word.endswith("ss") else word


def _named(word: str) -> tuple[str, int, Fraction] | str:
    for form in (word, word.rstrip("."), _singular(word), word.lower(), _singular(word.lower())):
        if form in _COMPOUND:
            return _COMPOUND[form]
        if form in _SIMPLE:
            return _SIMPLE[form]
    return _prefixed(word) or ("a " + _singular(word.lower()), 1, Fraction(1))


def _prefixed(word: str) -> tuple[str, int, Fraction] | None:
    """A unit with a prefix of the SI, as a symbol or a word."""
    for prefixes, units, form in ((_PREFIXES, _PREFIXABLE, word), (_PREFIX_WORDS, _SIMPLE, _singular(word.lower()))):
        for prefix, power in prefixes.items():
            rest = form[len(prefix) :]
            if form.startswith(prefix) and rest in units and (prefixes is _PREFIXES or len(rest) > 3):
                base, exponent, factor = _SIMPLE[rest]
                return base, exponent, factor * Fraction(10) ** power
    return None


@lru_cache(maxsize=4096)
def parse_unit(text: str) -> Unit | None:
    """The unit that a text names, None where it names none.

    Unknown words count as units of their own: `5 apples` are not `5 oranges`.
    """
    if len(text) > 80:
        return None
    plain = _WRAPPER.sub(" ", text).replace(r"\cdot", "*").replace(r"\times", "*").replace("·", "*")
    plain = (
        plain.replace(r"\circ", "°").replace("^ ° ", " °").replace("^ °", "°").replace("° C", "°C").replace("° F", "°F")
    )
    plain = plain.replace("\\$", "$").replace("\\", " ")
    plain = _MINUS.sub("-", plain)
    powers: dict[str, int] = {}
    factor = Fraction(1)
    sign, next_power, words = 1, 1, 0
    last: tuple[str, int, Fraction] | None = None
    for word, exponent, digit, operator, stray in _PIECE.findall(plain):
        if stray in ("(", ")", ".", ","):
            continue
        if stray:
            return None
        if operator:
            sign = -1 if operator == "/" else sign
            continue
        lowered = word.lower()
        if lowered in _NOT_UNITS:
            return None
        if lowered in ("per", "a", "an", "each") and words:
            sign = -1
            continue
        if lowered in ("of", "in", "the") and words:
            break
        if lowered in _POWERS:
            next_power = _POWERS[lowered]
            continue
        if lowered in _POWERS_AFTER and last is not None:
            base, size, unit_factor = last
            extra = _POWERS_AFTER[lowered] - 1
            powers[base] = powers.get(base, 0) + extra * size * sign
            factor *= unit_factor ** (extra * sign)
            continue
        named = _named(word)
        if isinstance(named, str):
            inner = parse_unit(named)
            assert inner is not None
            for base, size in inner.dimension:
                powers[base] = powers.get(base, 0) + size * sign
            factor *= inner.factor**sign
            words += 1
            continue
        power = int(exponent or digit or 1) * next_power * sign
        if abs(power) > 12:
            return None
        next_power = 1
        base, size, unit_factor = named
        powers[base] = powers.get(base, 0) + size * power
        factor *= unit_factor**power
        last = named
        words += 1
    if not words or words > 6:
        return None
    return Unit(tuple(sorted((base, size) for base, size in powers.items() if size)), factor)
