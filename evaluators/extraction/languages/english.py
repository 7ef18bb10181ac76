r"""English: "The answer is 42.", `Answer: 42`, "I would go with (B)"."""

import re

from evaluators.extraction.languages.language import Language

ANSWER = re.compile(
    r"\banswers?\"?(?: ?\([^()\n]{0,30}\))?"
    r"(?:(?: to [^.:\n]{0,60}?| here| then| therefore)? (?:is|are|will be|would be|must be|should be)\b"
    r"(?: (?:thus|therefore|then|simply|just|option|choice|as follows|given by)\b)?\s{0,3}:?"
    r"| ?[:：=]| ?\*\*\s{0,3}[:：\n]|[ \t]{0,3}\n| ?\*\* (?:is|are)\b)",
    re.IGNORECASE,
)
ROOTS = re.compile(r"\b(?:solutions|roots|zeros|values|zeroes)(?: (?:of|for|to) [^.:\n]{0,40})? are\b:?", re.IGNORECASE)
OPTION = re.compile(
    r"\b(?:option|choice) ?(?:is|:) ?:?|\b(?:choose|select|pick)(?: option)?(?= \*{0,2}\(?[A-J]\b)", re.IGNORECASE
)
CHOSEN = re.compile(
    r"\b(?:(?:option|choice|answer) ?|(?:so|thus|hence|therefore),? )"
    r"\*{0,2}\(?([A-J])\)?\*{0,2} (?:is|must be|seems) (?:the |therefore |"
    r"thus )?(?:correct|right|best|answer)\b",
    re.IGNORECASE,
)
LABEL = re.compile(
    r"^[ \t]*(?:\*\*)?(?:(?:A|Ans|Answer|ANSWER|Final Answer|Result|Solution|Output)(?:\*\*)?[ \t]?[:：]|"
    r"Ans\.)(?:\*\*)?",
    re.MULTILINE,
)
LANGUAGE = Language(
    name="English",
    denied_before=r"(?:\b(?:don't|don’t|do not) (?:think|believe) (?:that )?"
    r"(?:it's|it’s|it is|this is|the answer is)[ $]{0,3}$)|"
    r"(?:\bnot|n't|\bcannot|\bnever|\bneither|\bnor|\brather than|\binstead of)\b"
    r"(?: be| equal(?: to)?| necessarily)?[ $]{0,3}$",
    # `\boxed{2} is wrong.`, `\boxed{5} is not the answer.`, `\boxed{5}: this is incorrect`
    denied_after=r"[\s$)*\]\\.:;,—–-]{0,6}(?:(?:(?:it|this|that|which) )?(?:is|was|seems?|looks?|appears|must be)"
    r" (?:\w+ ){0,2}?(?:wrong|incorrect|false|mistaken|an? (?:mistake|error)|impossible|unlikely|doubtful|"
    r"not (?:the|an?|my|our|right|correct|it|true|valid|possible|acceptable)\b)"
    r"|(?:isn't|wasn't|can't be|cannot be|is no) (?:\w+ ){0,2}"
    r"(?:answer|right|correct|it|solution|true|valid|possible)\b"
    r"|(?:that|this)(?:'s|’s) (?:wrong|incorrect|not (?:it|right|correct))"
    r"|(?:[Nn]o|[Nn]ope|[Ww]rong|[Ii]ncorrect|[Ff]alse)[\s.!]*$)"
    r"|[.,]? (?:[Tt]his|[Ww]hich|[Tt]hat) (?:leads to|is|gives|yields) a contradiction"
    r"|[^.\n]{0,60}\bbut (?:this|that|it)(?: is|'s|’s) (?:wrong|incorrect|not)\b"  # tempting, but wrong
    r"|[\s$)*\]]{0,3}\?(?!\s*(?:[Yy]es|[Cc]orrect|[Rr]ight|[Ii]ndeed))",
    doubted_before=r"\b(?:doubt (?:that )?(?:it|this|that) is|(?:may|might|could) (?:also )?be|"
    r"(?:maybe|perhaps|possibly)(?:,? the (?:final )?answer is|,? it is|,? it['’]s)?|"
    r"(?:one|an?|another|the other) (?:candidate|guess|possibility) (?:is|would be))[ $]{0,3}$",
    hedge=r"\b(?:or|either|maybe|perhaps|possibly|could be|might be|candidates?|not)\b",
)
