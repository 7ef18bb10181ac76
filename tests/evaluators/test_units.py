"""The units that are read, each compared with pint; what is no unit; temperatures, multipliers, two units."""

from fractions import Fraction

import pytest

from evaluators.parsing.unit_table import UNITS
from evaluators.parsing.units import parse_unit
from evaluators.verdict import Outcome
from evaluators.verify import verify

# Bases that an independent library has in other terms or not at all: money, months, angles, bits, temperatures.
_OWN_BASES = {
    "month",
    "dollar",
    "euro",
    "sterling",
    "rupee",
    "yuan",
    "yen",
    "unit",
    "celsius",
    "fahrenheit",
    "degree",
    "radian",
    "bit",
}
_OTHERWISE_DEFINED = {"acre"}  # pint's is of survey feet  # fmt: skip
_PINT_NAMES = {
    "metre": "meter", "inche": "inch", "micron": "micrometer", "cc": "milliliter", "l": "liter", "kilo": "kilogram",
    "tonne": "metric_ton", "ton": "short_ton", "sec": "second", "hr": "hour", "wk": "week", "um": "micrometer",
    "us": "microsecond", "au": "astronomical_unit", "ly": "light_year", "lightyear": "light_year",
    "light-year": "light_year", "nmi": "nautical_mile", "pt": "pint", "dyn": "dyne", "kohm": "kiloohm",
    "kilowatt-hour": "kilowatt_hour", "amp": "ampere", "ev": "electron_volt", "electronvolt": "electron_volt",
    "MJ": "megajoule", "kilometre": "kilometer", "mi": "mile", "gal": "gallon", "qt": "quart", "m": "meter",
    "decimetre": "decimeter", "centimetre": "centimeter", "millimetre": "millimeter", "micrometre": "micrometer",
    "nanometre": "nanometer", "litre": "liter", "millilitre": "milliliter", "h": "hour", "molar": "molar",
    "C": "coulomb", "F": "farad", "H": "henry", "T": "tesla", "M": "molar", "knot": "knot", "Wh": "watt_hour",
}  # fmt: skip
_BASES = {"length": "meter", "mass": "kilogram", "time": "second", "ampere": "ampere", "kelvin": "kelvin",
          "mole": "mole"}  # fmt: skip
MEASURED = sorted(
    name
    for name, (dimension, _) in UNITS.items()
    if not {base for base, _ in dimension} & _OWN_BASES and name not in _OTHERWISE_DEFINED
)


@pytest.fixture(scope="module")
def registry():
    return pytest.importorskip("pint").UnitRegistry()


def test_there_are_enough_units_to_compare():
    assert len(MEASURED) > 100


@pytest.mark.parametrize("name", MEASURED)
def test_each_unit_is_what_pint_says(name, registry):
    unit = parse_unit(name)
    theirs = registry.Quantity(1, _PINT_NAMES.get(name, name))
    base = registry.Quantity(1, "dimensionless")
    for dimension, size in unit.dimension:
        base = base * registry.Quantity(1, _BASES[dimension]) ** size
    assert (theirs / base).to("dimensionless").magnitude == pytest.approx(float(unit.factor), rel=1e-9)


def correct(answer, gold):
    return verify(f"\\boxed{{{answer}}}", gold).correct


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        ("100\\text{ °C}", "373.15\\text{ K}"), ("212\\text{ °F}", "100^\\circ\\text{C}"),
        ("0\\text{ K}", "-273.15\\text{ °C}"),
        ("32^\\circ F", "0^\\circ C"), ("100^\\circ\\text{C}", "100\\text{ °C}"), ("5\\text{ mol/L}", "5\\text{ M}"),
        ("0.5\\text{ M}", "500\\text{ mM}"), ("5\\text{ N}", "5\\text{ kg m/s}^2"),
        ("1\\text{ mile}", "1609.344\\text{ m}"),
        ("1\\text{ lb}", "16\\text{ oz}"), ("2\\text{ kWh}", "7200\\text{ kJ}"), ("1\\text{ Pa}", "1\\text{ N/m}^2"),
        ("60", "5\\text{ dozen}"), ("60\\text{ eggs}", "5\\text{ dozen eggs}"), ("\\frac23", "2\\text{ thirds}"),
        ("\\frac{7}{100}", "7\\text{ hundredths}"), ("720", "5\\text{ gross}"), ("40", "2\\text{ score}"),
        ("\\frac52", "5\\text{ halves}"), ("180^\\circ", "\\pi\\text{ rad}"), ("12", "12\\text{ red marbles}"),
        ("5", "5\\text{ cm}"), ("50\\%", "50\\text{ percent}"), ("3.5", "\\$3.50\\text{ per pound}"),
    ],
)  # fmt: skip
def test_the_same_quantity(gold, answer):
    assert correct(answer, gold)
    assert correct(gold, answer)


@pytest.mark.parametrize(
    ("gold", "answer"),
    [
        *(("5", f"5\\text{{ {words}}}") for words in (
            "(wrong)", "more", "factorial", "squared", "tenths", "thirds", "halves", "gross", "dozen", "possibly six",
            "percent less", "negative", "minus one", "not", "or so", "less than that", "times ten", "zorblaxes")),
        ("30^\\circ", "30\\%"), ("30^\\circ", "30\\text{ rad}"), ("30\\%", "30\\text{ cm}"),
        ("1600\\text{ m}", "1\\text{ mile}"), ("12\\text{ oz}", "1\\text{ lb}"), ("273\\text{ K}", "0\\text{ °C}"),
        ("100\\text{ °C}", "100\\text{ °F}"), ("100\\text{ °C}", "100\\text{ K}"),
        ("5\\text{ apples}", "5\\text{ oranges}"),
    ],
)  # fmt: skip
def test_another_quantity_or_no_quantity(gold, answer):
    assert not correct(answer, gold)
    if gold != "5":  # a gold says itself what it counts
        assert not correct(gold, answer)


def test_a_word_of_the_question_may_be_counted():
    question = "How many zorblaxes does Ann have?"
    assert verify("\\boxed{5\\text{ zorblaxes}}", "5", prompt=question).correct
    verdict = verify("\\boxed{5\\text{ zorblaxes}}", "5")
    assert verdict.outcome is Outcome.UNPARSED_PREDICTION


def test_a_unit_that_differs_is_wrong_with_a_witness():
    verdict = verify("\\boxed{5\\text{ kg}}", "5\\text{ km}")
    assert verdict.outcome is Outcome.WRONG
    assert verdict.witness == "One is in length, the other in mass"


def test_factors_are_exact():
    assert parse_unit("acre").factor == 43560 * parse_unit("ft").factor ** 2
    assert parse_unit("mile").factor == Fraction("1609.344")
    assert parse_unit("oz").factor * 16 == parse_unit("lb").factor
