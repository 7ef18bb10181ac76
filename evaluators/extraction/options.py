"""Multiple choice: the option that a response chooses, by its letter in prose or by its text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from evaluators.parsing.normalize import strip_wrappers, words

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
TAIL = 2000  # characters at the end of a response in which a choice is looked for
_LABEL = re.compile(
    r"(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\s*(?:(?:the )?(?:option|choice|answer)s? ?:? ?)?\*{0,2}"
    r"[(\[]?([A-Za-z])[)\].:]*\*{0,2}\s*\}?[.)]?(?:[.:)]?\s+(.*))?",
    re.IGNORECASE | re.DOTALL,
)  # (B), b), Option B, \text{(B)}, B. a circle
_MENTION = re.compile(
    r"(?<![A-Za-z0-9\\])(?:[(\[]([A-Za-z])[)\]]"  # (b)
    r"|\*\*([A-Za-z])[.)]?\*\*"  # **B**
    r"|(?:\b(?:option|choice|letter|answer(?: is| would be|:)?)s? )([A-Za-z])(?![A-Za-z0-9'’])"  # option c
    r"|([B-HJ-Z])(?![A-Za-z0-9'’(=+*/^_])"  # B alone; A and I are words
    r"|([AI])(?=[.,;:)!?]|\s*$|\s+(?:is|and|or|because|since|as)\b))",
    re.IGNORECASE,
)
_CUE = re.compile(
    r"\b(?:answer|option|choice|choose|chose|pick|select|go(?:ing)? with|correct|right|best|settle on|opt for|"
    r"must be|conclude|therefore|thus|hence|so)\b",
    re.IGNORECASE,
)
_DENIED = re.compile(
    r"\b(?:not|never|cannot|neither|nor|rather than|instead of|eliminate[sd]?|rule[sd]? out|wrong|incorrect|false|"
    r"exclude[sd]?|discard(?:ed)?|except|unlike|at first)\b|n['’]t\b",
    re.IGNORECASE,
)
_OPEN = re.compile(
    r"\b(?:maybe|perhaps|possibly|either|might|could be|may be|not sure|unsure|guess between)\b|\?", re.I
)
_CLAUSE = re.compile(r"[,;:—–]\s|\s-\s|\b(?:but|rather(?! than)|so|hence|thus|therefore|while|whereas|because|since)\b")
_SENTENCE = re.compile(r"(?<=[^\s.][.!?])\s+(?=[A-Z(*\\\"])|\n+")


class Options(NamedTuple):
    """The options of a question: text by letter, "" where only the letters are known."""

    texts: dict[str, str]

    def letters_of(self, answer: str) -> set[str]:
        """Return the letter that an answer is or labels its text with: `(b)`, `Option B`, `B. a circle`.

        Two letters where the text behind the label is another option's; none where the answer is no label.
        """
        match = _LABEL.fullmatch(strip_wrappers(answer))
        letter = match[1].upper() if match else ""
        if match is None or letter not in self.texts:
            return set()
        if not match[2]:
            return {letter}
        marked = match.string[match.end(1) : match.end(1) + 1] in tuple(")].:*}")  # "a circle" labels nothing
        named = self.named_by(match[2])
        return {letter, named or letter} if marked else set()

    def named_by(self, answer: str) -> str | None:
        """Return the letter of the only option whose text an answer is, word by word."""
        key = words(strip_wrappers(answer))
        named = [letter for letter, text in self.texts.items() if text and words(strip_wrappers(text)) == key]
        return named[0] if len(named) == 1 else None


def read_options(options: Sequence[str] | Mapping[str, str]) -> Options:
    """Return options by letter: texts in their order, letters alone, or a table from letters to texts.

    Raises ValueError for a letter that is none, and for fewer than two options or more than 26.
    """
    if isinstance(options, Mapping):
        texts = {str(letter).strip("().: ").upper(): str(text) for letter, text in options.items()}
    elif all(len(str(option).strip("(). ")) == 1 and str(option).strip("(). ") in LETTERS for option in options):
        texts = {str(option).strip("(). "): "" for option in options}
    else:
        texts = dict(zip(LETTERS, map(str, options)))
    if not 2 <= len(texts) <= 26 or len(texts) != len(options) or not set(texts) <= set(LETTERS):
        raise ValueError(f"found the options {options!r}; expected 2 to 26 texts, letters, or a table of both")
    return Options(texts)


def chosen_in_prose(text: str, options: Options) -> set[str]:
    """Return the letters that the last sentence with a choice chooses: one where it is clear, several where not.

    Letters that the sentence denies are left out: "not (A), rather (C)", "It is D, it can't be A or B".
    """
    sentences = [part for part in _SENTENCE.split(text[-TAIL:].strip()) if part.strip()]
    for place, sentence in enumerate(reversed(sentences)):
        alone = options.letters_of(sentence) if len(sentence) <= 12 else set()
        if alone:
            return alone
        chosen = {letter for letter, denied in mentions(sentence, options) if not denied}
        if chosen and (_CUE.search(sentence) or place == 0):
            return chosen if not _OPEN.search(sentence) else chosen | {"?"}
    return set()


def mentions(sentence: str, options: Options) -> Iterator[tuple[str, bool]]:
    """Yield the letters that a sentence names, and whether their clause denies them."""
    ends = [match.start() for match in _CLAUSE.finditer(sentence)]
    for match in _MENTION.finditer(sentence):
        written = next(group for group in match.groups() if group)
        bare = match[4] or match[5]
        if written.upper() not in options.texts or (bare and written.islower()):
            continue
        start = max((end for end in ends if end <= match.start()), default=0)
        end = min((end for end in ends if end >= match.end()), default=len(sentence))
        yield written.upper(), _DENIED.search(sentence, start, end) is not None
