"""The units of measurement that are read, in terms of base units; tests compare each with an independent library.

Months and years are a base of their own: a month has no fixed number of days.
"""

from __future__ import annotations

from fractions import Fraction

Dimension = tuple[tuple[str, int], ...]  # sorted pairs of base unit and exponent

#: dimension -> rows of "factor name name ..."; the first name of a base unit has the factor 1
_ROWS: dict[Dimension, str] = {
    (("length", 1),): """1 m meter metre
        1000 km kilometer kilometre
        1/10 dm decimeter decimetre
        1/100 cm centimeter centimetre
        1/1000 mm millimeter millimetre
        1/1000000 um micrometer micrometre micron
        1/1000000000 nm nanometer nanometre
        1/10000000000 angstrom
        0.0254 in inch inche
        0.3048 ft foot feet
        0.9144 yd yard
        1609.344 mi mile
        1852 nmi
        149597870700 au
        9460730472580800 ly lightyear light-year""",
    (("length", 2),): "4046.8564224 acre\n10000 hectare ha",
    (("length", 3),): """0.001 L liter litre l
        0.000001 mL ml milliliter millilitre cc
        0.00001 cL cl
        0.0001 dL dl
        0.003785411784 gal gallon
        0.000946352946 qt quart
        0.000473176473 pt pint
        0.0002365882365 cup
        0.00001478676478125 tbsp tablespoon
        0.00000492892159375 tsp teaspoon""",
    (("mass", 1),): """1 kg kilogram kilo
        1/1000 g gram
        1/1000000 mg milligram
        1000 tonne
        0.45359237 lb pound
        0.028349523125 oz ounce
        907.18474 ton
        6.35029318 stone""",
    (("time", 1),): """1 s sec second
        60 min minute
        3600 h hr hour
        86400 day
        604800 week wk
        1/1000 ms millisecond
        1/1000000 us microsecond
        1/1000000000 ns nanosecond""",
    (("time", -1),): "1 Hz hertz\n1000 kHz\n1000000 MHz\n1000000000 GHz",
    (("month", 1),): "1 month mo\n12 year yr\n120 decade\n1200 century centurie",
    (("kelvin", 1),): "1 K kelvin",
    (("celsius", 1),): "1 degC celsius centigrade °C",
    (("fahrenheit", 1),): "1 degF fahrenheit °F",
    (("degree", 1),): "1 degree deg",
    (("radian", 1),): "1 rad radian",
    (("length", 1), ("time", -1)): "463/900 knot",
    (
        ("length", 1),
        ("mass", 1),
        ("time", -2),
    ): "1 N newton\n1000 kN kilonewton\n1/100000 dyne dyn\n4.4482216152605 lbf",
    (("length", 2), ("mass", 1), ("time", -2)): """1 J joule
        1000 kJ kilojoule
        1000000 MJ
        4.184 cal calorie
        4184 kcal kilocalorie
        1/10000000 erg
        1.602176634e-19 eV ev electronvolt
        1.602176634e-16 keV
        1.602176634e-13 MeV
        1.602176634e-10 GeV
        3600 Wh
        3600000 kWh kilowatt-hour""",
    (("length", 2), ("mass", 1), ("time", -3)): "1 W watt\n1000 kW kilowatt\n1000000 MW megawatt",
    (("length", -1), ("mass", 1), ("time", -2)): """1 Pa pascal
        1000 kPa
        1000000 MPa
        101325 atm
        100000 bar
        20265/152 torr""",
    (("ampere", 1),): "1 A amp ampere\n1/1000 mA",
    (("ampere", 1), ("time", 1)): "1 C coulomb",
    (("ampere", -1), ("length", 2), ("mass", 1), ("time", -3)): "1 V volt\n1/1000 mV\n1000 kV",
    (("ampere", -2), ("length", 2), ("mass", 1), ("time", -3)): "1 ohm\n1000 kohm",
    (("ampere", 2), ("length", -2), ("mass", -1), ("time", 4)): "1 F farad",
    (("ampere", -2), ("length", 2), ("mass", 1), ("time", -2)): "1 H henry",
    (("ampere", -1), ("mass", 1), ("time", -2)): "1 T tesla",
    (("ampere", -1), ("length", 2), ("mass", 1), ("time", -2)): "1 Wb weber",
    (("mole", 1),): "1 mol mole\n1/1000 mmol",
    (("length", -3), ("mole", 1)): "1000 M molar",
    (("bit", 1),): "1 bit\n8 byte B\n8192 KB\n8388608 MB\n8589934592 GB",
    (("dollar", 1),): "1 dollar usd buck\n1/100 cent\n1/20 nickel\n1/10 dime\n1/4 quarter\n1 $",
    (("euro", 1),): "1 euro eur €",
    (("sterling", 1),): "1 pound-sterling gbp £ quid\n1/100 pence",
    (("rupee", 1),): "1 rupee inr rs ₹",
    (("yuan", 1),): "1 yuan rmb cny",
    (("yen", 1),): "1 yen jpy ¥",
    (("unit", 1),): "1 unit u",
}

UNITS: dict[str, tuple[Dimension, Fraction]] = {}
for _dimension, _lines in _ROWS.items():
    for _line in _lines.splitlines():
        _factor, *_names = _line.split()
        UNITS.update({_name: (_dimension, Fraction(_factor)) for _name in _names})

PREFIXES = {"k": 3, "M": 6, "G": 9, "T": 12, "c": -2, "m": -3, "u": -6, "n": -9, "p": -12}
PREFIX_WORDS = {"kilo": 3, "mega": 6, "giga": 9, "tera": 12, "centi": -2, "milli": -3, "micro": -6, "nano": -9,
                "pico": -12}  # fmt: skip
PREFIXABLE = frozenset(
    ("m", "g", "s", "L", "N", "J", "W", "V", "A", "K", "Pa", "Hz", "mol", "eV", "C", "T", "F", "H", "Wb", "ohm", "M")
)
COMPOUND = {
    "mph": "mi/h", "kph": "km/h", "kmph": "km/h", "kmh": "km/h", "mpg": "mi/gal", "fps": "ft/s",
    "rpm": "revolution/min", "sqft": "ft^2", "sqm": "m^2", "psi": "lbf/in^2",
}  # fmt: skip

#: letters that measure when written as text, `5 \text{ m}`, and are variables in `5m`
VARIABLE_LIKE = frozenset(("m", "g", "s", "h", "l", "L", "N", "J", "W", "V", "A", "K", "M", "u", "B", "C", "T", "F",
                           "H", "pt", "cl", "dl", "au", "ly"))  # fmt: skip

#: what counts instead of measuring: "5 dozen" is 60, "2 thirds" is 2/3
MULTIPLIERS: dict[str, Fraction] = {
    "dozen": Fraction(12), "score": Fraction(20), "gross": Fraction(144), "hundred": Fraction(100),
    "thousand": Fraction(1000), "million": Fraction(10**6), "billion": Fraction(10**9), "trillion": Fraction(10**12),
    "half": Fraction(1, 2), "halve": Fraction(1, 2), "third": Fraction(1, 3), "fourth": Fraction(1, 4),
    "fifth": Fraction(1, 5), "sixth": Fraction(1, 6), "seventh": Fraction(1, 7), "eighth": Fraction(1, 8),
    "ninth": Fraction(1, 9), "tenth": Fraction(1, 10), "eleventh": Fraction(1, 11), "twelfth": Fraction(1, 12),
    "sixteenth": Fraction(1, 16), "twentieth": Fraction(1, 20), "hundredth": Fraction(1, 100),
    "thousandth": Fraction(1, 1000), "millionth": Fraction(1, 10**6), "billionth": Fraction(1, 10**9),
}  # fmt: skip
