"""Lines of CSV that a spreadsheet shows and never runs."""

import csv
import io
import re
from collections.abc import Iterable

BOM = "\ufeff"  # what a file begins with: without it Excel does not read UTF-8

# What is taken for the start of a formula: = + - @, and their full-width and small forms. A program may drop white
# space and quotes in front of it.
_FORMULA = "[\\s\"']*[=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
_STARTS_FORMULA = re.compile(rf"[\t\r]|{_FORMULA}")
# A program that takes another separator, or knows no quotes, begins a cell in the middle of ours.
_SEPARATOR_BEFORE_FORMULA = re.compile(rf"([,;|\t\r\n])(?={_FORMULA})")


def line(cells: Iterable[str | None]) -> str:
    """Return a line of CSV (RFC 4180), every cell quoted; what could be taken for a formula gets an apostrophe.

    An address may be ``=cmd|'/C'!A0@example.org``. Source: OWASP, CSV injection.
    """
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow([neutral(each or "") for each in cells])
    return text.getvalue()


def neutral(cell: str) -> str:
    """Return the text of a cell, with an apostrophe wherever a spreadsheet would take what follows for a formula."""
    inside = _SEPARATOR_BEFORE_FORMULA.sub(r"\1'", cell)
    return f"'{inside}" if _STARTS_FORMULA.match(inside) else inside
