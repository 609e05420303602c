"""CSV in which a spreadsheet finds no formula to run."""

import csv
import io
import re
from collections.abc import Iterable

BOM = "\ufeff"  # Excel reads a file as UTF-8 only if it begins with this

# The start of a formula: = + - @, and their full-width and small forms. A program may ignore white space and quotes
# before it.
_FORMULA = "[\\s\"']*[=+\\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b]"
_STARTS_FORMULA = re.compile(rf"[\t\r]|{_FORMULA}")
# To a program that uses another separator, or ignores quotes, a cell may begin in the middle of ours.
_SEPARATOR_BEFORE_FORMULA = re.compile(rf"([,;|\t\r\n])(?={_FORMULA})")


def line(cells: Iterable[str | None]) -> str:
    """Return a line of CSV (RFC 4180) with every cell quoted and an apostrophe before anything like a formula.

    An address may be ``=cmd|'/C'!A0@example.org``. Source: OWASP, CSV injection.
    """
    text = io.StringIO()
    csv.writer(text, quoting=csv.QUOTE_ALL).writerow([neutral(each or "") for each in cells])
    return text.getvalue()


def neutral(cell: str) -> str:
    """Return the text of a cell with an apostrophe wherever a spreadsheet could find the start of a formula."""
    inside = _SEPARATOR_BEFORE_FORMULA.sub(r"\1'", cell)
    return f"'{inside}" if _STARTS_FORMULA.match(inside) else inside
