"""Cells for files that people open in a spreadsheet."""

from __future__ import annotations

import re

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


def neutral(value: object) -> str:
    """Return a cell's text that no spreadsheet runs as a formula; numbers stay numbers.

    OWASP's rule for CSV injection: text that begins with = + - @, tab or return gets a leading apostrophe.
    """
    text = "" if value is None else str(value)
    if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text
