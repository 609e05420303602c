"""Preferences exported from IXP Manager, as CSV or JSON. docs/migrating-from-ixp-manager.md describes the export."""

import csv
import json
import re
from typing import Any, NamedTuple

from portal.domain.address import printable
from portal.errors import BadInputError

COLUMNS = ("username", "email", "attribute", "value")

_ATTRIBUTE = re.compile(r"mailinglist\.(.+)\.subscribed")
_VALUES = {"1": True, "true": True, "0": False, "false": False}


class Record(NamedTuple):
    """One user's preference for one list; ``place`` is its line or entry, ``username`` or ``email`` may be empty."""

    place: str
    username: str
    email: str
    handle: str
    subscribed: bool


class Problem(NamedTuple):
    """A line or entry that cannot be read, and why."""

    place: str
    words: str


def read(content: bytes) -> tuple[list[Record], list[Problem]]:
    """Return the records of a file, and the problems found in it.

    The file is CSV with the COLUMNS as its first line, or a JSON array of objects with these names; UTF-8, with or
    without a byte-order mark. Raise BadInputError if the file as a whole cannot be read.
    """
    text = _decoded(content)
    records: list[Record] = []
    problems: list[Problem] = []
    is_json = text.lstrip().startswith(("[", "{"))
    cells_of = _of_object if is_json else _of_line
    for place, entry in _array(text) if is_json else _lines(text):
        try:
            records.append(_record(place, *cells_of(entry)))
        except BadInputError as error:
            problems.append(Problem(place, str(error)))
    return records, problems


def _decoded(content: bytes) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise BadInputError(f"line {line}: not UTF-8; save the file as UTF-8") from None


def _array(text: str) -> list[tuple[str, Any]]:
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInputError(
            f"line {error.lineno}: not JSON: {error.msg}; the file must be one array of objects"
        ) from None
    except (ValueError, RecursionError):  # an integer with too many digits, or a thousand nested brackets
        raise BadInputError("the JSON cannot be read; the file must be one array of objects") from None
    if not isinstance(entries, list):
        raise BadInputError("the JSON is not an array of objects")
    return [(f"entry {number}", entry) for number, entry in enumerate(entries, start=1)]


def _lines(text: str) -> list[tuple[str, str]]:
    lines = [(f"line {number}", line) for number, line in enumerate(text.splitlines(), start=1) if line.strip()]
    header = ",".join(COLUMNS)
    if not lines:
        raise BadInputError(f"the file is empty; its first line must be {header}")
    place, first = lines[0]
    if first.strip() != header:
        raise BadInputError(f"{place}: must be {header}, not {printable(first)}")
    return lines[1:]


def _of_line(line: str) -> list[str]:
    try:
        (cells,) = csv.reader([line], strict=True)
    except csv.Error as error:
        raise BadInputError(f"not CSV: {error}") from None
    if len(cells) != len(COLUMNS):
        raise BadInputError(f"{len(cells)} cells instead of {len(COLUMNS)}: {printable(line)}")
    return cells


def _of_object(entry: Any) -> list[str]:
    if not isinstance(entry, dict):
        raise BadInputError(f"not a JSON object: {printable(str(entry))}")
    values = [entry.get(name, "") for name in COLUMNS]
    return [each if isinstance(each, str) else json.dumps(each) for each in values]


def _record(place: str, username: str, email: str, attribute: str, value: str) -> Record:
    username, email, attribute, value = username.strip(), email.strip(), attribute.strip(), value.strip()
    if not (username or email):
        raise BadInputError("no user is named; fill in username or email")
    found = _ATTRIBUTE.fullmatch(attribute)
    if found is None:
        raise BadInputError(f"attribute must be mailinglist.HANDLE.subscribed, not {printable(attribute) or 'empty'}")
    subscribed = _VALUES.get(value.lower())
    if subscribed is None:
        raise BadInputError(f"value must be 1 or 0, not {printable(value) or 'empty'}")
    return Record(place, username, email, found[1], subscribed)
