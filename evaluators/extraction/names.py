"""Golds that are a name: the last sentence may say of whom the superlative holds, without naming an answer."""

from __future__ import annotations

import re

# Thus, Evelyn's average speed is the largest.
_SUBJECT = re.compile(
    r"^\W{0,20}(?:(?:thus|so|therefore|hence|consequently|finally|in conclusion)\b,?\s+)?\W{0,20}"
    r"(?P<name>[^\W\d_]+(?:[ -][^\W\d_]+){0,2}?)"
    r"\W{0,3}(?:['’]s(?: [\w-]+){1,4}| )\W{0,2}\s*(?:is|was|has|had|runs|ran|won|wins|got|gets|finishes|finished)\s+"
    r"(?:the|won|wins)\b.{0,80}?\b(?:\w+est|most|least|best|worst|winner|first|last)\b",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"\b(?:not|never|or|either|neither|maybe|perhaps|might|may|could|if|unless|second|third)\b|n['’]t\b|\?"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n+")
_NAME = re.compile(r"[A-Z][a-z]+(?:[ -][A-Z][a-z]+){0,2}")
_WRAPPED = re.compile(r"\\(?:text|mathrm|textbf)\s*\{\s*([^{}]+?)\s*\}")


def name_of(gold: str) -> str | None:
    """Return the name that a gold is, as `\\text{Evelyn}` is Evelyn; None where it is none."""
    wrapped = _WRAPPED.fullmatch(gold.strip())
    name = wrapped[1] if wrapped else gold.strip()
    return name if _NAME.fullmatch(name) else None


def concludes_on(text: str, name: str) -> bool:
    """Return whether the last sentence of a response says something superlative of a person."""
    sentences = [sentence for sentence in _SENTENCE.split(text[-600:].strip()) if sentence.strip()]
    if not sentences or _OPEN.search(sentences[-1]):
        return False
    subject = _SUBJECT.match(sentences[-1])
    return subject is not None and subject["name"].casefold() == name.casefold()
