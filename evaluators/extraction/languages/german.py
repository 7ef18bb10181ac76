"""German: Die Antwort ist 42."""

from evaluators.extraction.languages.language import Language

LANGUAGE = Language(
    name="German",
    keywords=("antwort", "ergebnis", "lösung"),
    answer=r"\b(?:die |das )?(?:endgültige |richtige )?(?:antwort|ergebnis|endergebnis|lösung)"
    r"(?: (?:ist|lautet|beträgt|wäre)\b| ?[:：=])(?: (?:also|daher|somit)\b)? ?:?",
    denied_before=r"\b(?:mindestens|höchstens|mehr als|weniger als|nicht|kein|keine|niemals)[ $]{0,3}$",
    denied_after=r"[ $]{0,3}\sist (?:falsch|nicht|inkorrekt|verkehrt)",
    doubted_before=r"\b(?:vielleicht|möglicherweise|eventuell|wohl)[ $]{0,3}$",
    hedge=r"\b(?:oder|vielleicht|möglicherweise)\b",
    question=r"\b(?:nicht|kein|keine|oder|falsch|vielleicht)\b|\?",
    percent=r"Prozent",
    multipliers={"tausend": 1000, "Tausend": 1000, "Million": 10**6, "Millionen": 10**6, "Dutzend": 12},
    units={"Stunden": "hours", "Meter": "m", "Sekunden": "s", "Grad": "degrees"},
    decimal_comma=True,
)
