"""Spanish: La respuesta es 42."""

from evaluators.extraction.languages.language import Language

LANGUAGE = Language(
    name="Spanish",
    keywords=("respuesta", "resultado", "solución"),
    answer=r"\b(?:la |el )?(?:respuesta|resultado|solución)(?: final| correcta| correcto)?"
    r"(?: es\b| ?[:：=]| será\b)(?: por (?:lo )?tanto\b)? ?:?",
    denied_before=r"\b(?:al menos|como máximo|más de|menos de|no(?: es| son| puede ser)?)[ $]{0,3}$",
    denied_after=r"[ $]{0,3}\s(?:(?:es|está) (?:incorrect[ao]|mal|fals[ao]|equivocad[ao])|no es)",
    doubted_before=r"\b(?:quizás?|tal vez|posiblemente|puede ser)[ $]{0,3}$",
    hedge=r"\b(?:quizás?|tal vez|posiblemente)\b",
    question=r"\b(?:no|o|quizás?|mal|fals[ao])\b|\?",
    percent=r"por ?ciento",
    multipliers={"mil": 1000, "millón": 10**6, "millones": 10**6, "docena": 12, "docenas": 12},
    units={"horas": "hours", "metros": "m", "segundos": "s", "grados": "degrees"},
    decimal_comma=True,
)
