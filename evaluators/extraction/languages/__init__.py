"""Language packs: how answers are announced, denied and measured, one file a language.

`english` also holds the patterns that only English has. The functions here join the packs.
"""

from __future__ import annotations

import re
from fractions import Fraction

from evaluators.extraction.languages.chinese import LANGUAGE as CHINESE
from evaluators.extraction.languages.english import LANGUAGE as ENGLISH
from evaluators.extraction.languages.french import LANGUAGE as FRENCH
from evaluators.extraction.languages.german import LANGUAGE as GERMAN
from evaluators.extraction.languages.japanese import LANGUAGE as JAPANESE
from evaluators.extraction.languages.language import Language
from evaluators.extraction.languages.russian import LANGUAGE as RUSSIAN
from evaluators.extraction.languages.spanish import LANGUAGE as SPANISH

LANGUAGES = (ENGLISH, CHINESE, JAPANESE, RUSSIAN, FRENCH, SPANISH, GERMAN)
OTHERS = LANGUAGES[1:]
_OWN_SCRIPT = tuple(language for language in LANGUAGES if language.letters)


def joined(part: str, languages: tuple[Language, ...] = LANGUAGES) -> re.Pattern[str]:
    """Compile the alternatives that several languages have for one part of `Language`."""
    patterns = [getattr(language, part) for language in languages]
    return re.compile("|".join(pattern for pattern in patterns if pattern), re.IGNORECASE)


_ANSWERS = {language.name: re.compile(language.answer, re.IGNORECASE) for language in OTHERS}
_COPULA = joined("copula")
_FOREIGN = "".join(language.letters for language in LANGUAGES)
FOREIGN_LETTER = re.compile(f"[{_FOREIGN}]")
#: Words in scripts that write no mathematics: a text with them is prose.
FOREIGN_PROSE = re.compile(f"[{_FOREIGN}]{{2,}}")
_NUMBER = r"[-−+]?[$€£¥]?\d[\d,.]*(?:/\d+)?"
_MEASURED = re.compile(
    rf"({_NUMBER}|\\d?frac\{{\d+\}}\{{\d+\}})\$?\s?([^\W\d_]+(?:[ 的和与とのや、]{{1,2}}[^\W\d_]+){{0,3}})[.。!！]?$"
)
_PLAIN_NUMBER = re.compile(_NUMBER)
_DECIMAL_COMMA = re.compile(r"(?<!\d)([-−+]?\d{1,3}(?:\.\d{3})+|[-−+]?\d+),(\d{1,2}|\d{4,})(?!\d)")


def foreign_prose(text: str) -> bool:
    """Whether a text has words in a script that writes no mathematics."""
    return not text.isascii() and FOREIGN_PROSE.search(text) is not None


_ASCII_KEYWORDS = tuple(word for language in OTHERS for word in language.keywords if word.isascii())


def announcements(text: str, lowered: str) -> list[tuple[int, Language]]:
    """Return the ends of all announcements of an answer in languages other than English."""
    if text.isascii() and not any(map(lowered.__contains__, _ASCII_KEYWORDS)):
        return []
    return [
        (match.end(), language)
        for language in OTHERS
        if any(keyword in lowered for keyword in language.keywords)
        for match in _ANSWERS[language.name].finditer(text)
    ]


def stated_value(sentence: str, language: Language | None) -> str:
    """Return what a sentence of a language says without its copula, counter words and decimal comma."""
    sentence = sentence.strip().rstrip("。．.!！").strip().lstrip("→⇒➜✅✓ ").strip()
    if language is None or language.copula:
        sentence = _COPULA.sub("", sentence.strip("*_ ") if language else sentence).strip()
    if language is not None:
        sentence = sentence.strip("*_ 「」『』“”")
    if language is not None and language.decimal_comma:
        sentence = _DECIMAL_COMMA.sub(
            lambda match: f"{match[1].replace('.', '')}.{match[2]}", sentence.replace("{,}", ",")
        )
    if language is not None and language.letters:
        sentence = _only_number(sentence, language)
    return without_counter(sentence, _OWN_SCRIPT if language is None else (language,))


def _only_number(sentence: str, language: Language) -> str:
    """The only number of a sentence with what it counts: 一共有5个苹果 as 5个苹果; other sentences as they are."""
    numbers = list(_PLAIN_NUMBER.finditer(sentence))
    if len(numbers) != 1 or not re.match(f"[{language.letters}]", sentence):
        return sentence
    before = sentence[: numbers[0].start()]
    doubtful = re.search(f"{language.question}|{language.hedge}", before) is not None
    return sentence if doubtful or len(before) > 20 else sentence[numbers[0].start() :]


def without_counter(text: str, languages: tuple[Language, ...] = _OWN_SCRIPT) -> str:
    r"""Return a number with its words in another language read: 3页 as 3, 5公斤 as 5 \text{ kg}, 3万 as 30000.

    What is no unit, no counted thing and no multiplier stays, so that it cannot pass for the number.
    """
    match = _MEASURED.match(text)
    if match is None:
        return text
    number, words = match[1], match[2]
    for language in languages:
        if not re.search(f"[{language.letters or 'a-zA-Z'}]", words):
            continue
        if language.percent and re.fullmatch(language.percent, words, re.IGNORECASE):
            return number + "\\%"
        if words in language.units:
            return f"{number} \\text{{ {language.units[words]}}}"
        for word, factor in sorted(language.multipliers.items(), key=lambda item: -len(item[0])):
            if words.startswith(word) and (language.letters or words == word or words.startswith(word + " ")):
                value = _multiplied(number, factor)
                rest = words[len(word) :].strip()
                return value if value is not None and (not rest or _counts(rest, language)) else text
        if _counts(words, language):
            return number
    return text


def _counts(words: str, language: Language) -> bool:
    """Whether words behind a number count things: 3页, 42个苹果, 42 яблока."""
    if re.search(language.question, words, re.IGNORECASE) or len(words) > 24:
        return False
    return words[0] in language.counters if language.counters else bool(language.question)


def _multiplied(number: str, factor: int) -> str | None:
    try:
        value = Fraction(number.replace(",", "")) * factor
    except ValueError:
        return None
    return str(value) if value.denominator == 1 else None
