"""French: La réponse est 42."""

from evaluators.extraction.languages.language import Language

LANGUAGE = Language(
    name="French",
    keywords=("réponse", "reponse", "résultat", "solution est"),
    answer=r"\b(?:la |le )?(?:réponse|reponse|résultat|solution)(?: finale?| correcte?| final)?"
    r"(?: est\b| ?[:：=]| vaut\b)(?: donc\b)? ?:?",
    denied_before=r"\b(?:au moins|au plus|plus de|moins de|n'est pas|n’est pas|pas|non)[ $]{0,3}$",
    denied_after=r"[ $]{0,3}\s(?:est (?:faux|fausse|incorrecte?|erronée?)|n['’]est pas)",
    doubted_before=r"\b(?:peut-être|éventuellement|probablement)[ $]{0,3}$",
    hedge=r"\b(?:ou|peut-être|soit)\b",
    question=r"\b(?:pas|non|ou|faux|peut)\b|\?",
    percent=r"pour ?cent|pourcents?",
    multipliers={"mille": 1000, "million": 10**6, "millions": 10**6, "douzaine": 12, "douzaines": 12},
    units={"heures": "hours", "mètres": "m", "secondes": "s", "degrés": "degrees"},
    decimal_comma=True,
)
