"""Files that people open in a spreadsheet: their lines one at a time, and cells that no formula can be in."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence

_NUMBER = re.compile(r"-?\d+(\.\d+)?")


class _Echo:
    """A file that keeps nothing: who writes gets back what was written."""

    def write(self, text: str) -> str:
        return text


def csv_lines(rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Yield the text of CSV rows, each with its end of line, so that a file of any size needs no memory."""
    writer = csv.writer(_Echo(), lineterminator="\n")
    for row in rows:
        yield str(writer.writerow(row))


def neutral(value: object) -> str:
    """Return a cell's text that no spreadsheet runs as a formula; numbers stay numbers.

    OWASP's rule for CSV injection: text that begins with = + - @, tab or return gets a leading apostrophe.
    """
    text = "" if value is None else str(value)
    if text.startswith(("=", "+", "-", "@", "\t", "\r")) and not _NUMBER.fullmatch(text):
        return f"'{text}"
    return text
