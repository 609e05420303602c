"""Lines of CSV that a spreadsheet shows and never runs."""

import csv
import io
from collections.abc import Iterable

_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what a cell that is taken for a formula starts with


def line(cells: Iterable[str | None]) -> str:
    """Return a line of CSV (RFC 4180); what could be taken for a formula gets an apostrophe in front.

    An address may be ``=cmd|'/C'!A0@example.org``. Source: OWASP, CSV injection.
    """
    text = io.StringIO()
    csv.writer(text).writerow([neutral(each or "") for each in cells])
    return text.getvalue()


def neutral(cell: str) -> str:
    """Return the text of a cell, with an apostrophe in front where a spreadsheet would take it for a formula."""
    return f"'{cell}" if cell.startswith(_FORMULA) else cell
