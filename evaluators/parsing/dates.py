"""Dates in words and digits, brought to one wording: `14 March`, `Mar 14th` and `the 14th of March`."""

from __future__ import annotations

import re

_MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november",
           "december")  # fmt: skip
_NAME = "|".join(month[:3] + (f"(?:{month[3:]})?" if len(month) > 3 else "") for month in _MONTHS) + "|sept"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s+(\d{4}))?"
_MONTH_FIRST = re.compile(rf"(?:on )?({_NAME})\.?\s+(?:the )?{_DAY}{_YEAR}", re.IGNORECASE)
_DAY_FIRST = re.compile(rf"(?:on )?(?:the )?{_DAY}\s+(?:of )?({_NAME})\.?{_YEAR}", re.IGNORECASE)
_ISO = re.compile(r"(\d{4})-(0\d|1[0-2])-([0-3]\d)")


def calendar_date(text: str) -> str | None:
    """Return a date as "march 14" or "march 14 2020"; None for text that is none.

    >>> calendar_date("the 14th of March")
    'march 14'
    """
    text = text.strip().rstrip(".")
    if match := _MONTH_FIRST.fullmatch(text):
        name, day, year = match.groups()
    elif match := _DAY_FIRST.fullmatch(text):
        day, name, year = match.groups()
    elif match := _ISO.fullmatch(text):
        year, number, day = match.groups()
        name = _MONTHS[int(number) - 1]
    else:
        return None
    month = next(month for month in _MONTHS if month.startswith(name[:3].lower()))
    return " ".join(filter(None, (month, str(int(day)), year))) if 1 <= int(day) <= 31 else None
