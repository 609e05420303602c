"""Preferences as IXP Manager stores them: rows of ``user_pref``, or a column of JSON, as CSV or as JSON."""

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from portal.domain.address import printable
from portal.errors import BadInputError

_ATTRIBUTE = re.compile(r"mailinglist\.(.+)\.subscribed")
_DECIDED = {"1": True, "true": True, "0": False, "false": False}
_NULL = {"", "null", r"\n"}  # as databases export it, in lower case
_SEPARATORS = ",;\t"
# Quotation marks in cells are doubled; MySQL, left to itself, writes a backslash before them.
_DIALECTS: tuple[dict[str, Any], ...] = ({}, {"escapechar": "\\", "doublequote": False})
_EXPECTED = "username or email, and either attribute and value or prefs"


class Wish(NamedTuple):
    """What a file says of one user and one list. ``place`` is where, ``username`` or ``email`` may be empty."""

    place: str
    username: str
    email: str
    handle: str
    subscribed: bool


class Problem(NamedTuple):
    """Something in a file that cannot be read, and where."""

    place: str
    words: str


class PreferenceText:
    """Read wishes one at a time; what cannot be read is noted and stops nothing.

    A record names a user by ``username``, ``email`` or both, and has either ``attribute``
    (``mailinglist.<handle>.subscribed``) and ``value``, or ``prefs``, such as ``{"mailinglist": {"members": "1"}}``.
    Records are lines of CSV beneath a line that names the columns, separated by commas, semicolons or tabs; or JSON,
    one object a line or an array of them. A byte-order mark, CRLF, blank lines and other columns are accepted.
    """

    def __init__(self, content: bytes) -> None:
        self._content = content.removeprefix(b"\xef\xbb\xbf")
        self.ignored = 0  # preferences about something else, so far
        self.undecided = 0  # lists for which neither yes nor no is stored
        self.problems: list[Problem] = []

    def __iter__(self) -> Iterator[Wish]:
        """Yield the wishes. Raise BadInputError where the file as a whole cannot be read."""
        for place, record in self._records():
            try:
                yield from self._wishes(place, record)
            except BadInputError as error:
                self.problems.append(Problem(place, str(error)))

    def _records(self) -> Iterator[tuple[str, Any]]:
        start = self._content.lstrip()[:1]
        if not start:
            raise BadInputError("the file is empty")
        if start == b"[":
            return self._array()
        lines = ((f"line {number}", line) for number, line in enumerate(self._content.splitlines(), start=1))
        filled = ((place, line) for place, line in lines if line.strip())
        return self._objects(filled) if start == b"{" else self._rows(filled)

    def _array(self) -> Iterator[tuple[str, Any]]:
        try:
            entries = _parsed(_decoded(self._content))
        except BadInputError as error:
            raise BadInputError(f"the file begins like a JSON array and is none: {error}") from None
        for number, entry in enumerate(entries, start=1):
            yield f"entry {number}", entry

    def _objects(self, lines: Iterable[tuple[str, bytes]]) -> Iterator[tuple[str, Any]]:
        for place, line in lines:
            try:
                yield place, _parsed(_decoded(line))
            except BadInputError as error:
                self.problems.append(Problem(place, str(error)))

    def _rows(self, lines: Iterator[tuple[str, bytes]]) -> Iterator[tuple[str, Any]]:
        place, first = next(lines)
        try:
            separator, columns = _header(_decoded(first))
        except BadInputError as error:
            raise BadInputError(f"{place}: {error}") from None
        for place, line in lines:
            try:
                cells = _cells(_decoded(line), separator)
                if len(cells) != len(columns):
                    raise BadInputError(f"{len(cells)} cells, but the first line names {len(columns)} columns")
                yield place, dict(zip(columns, cells, strict=True))
            except BadInputError as error:
                self.problems.append(Problem(place, str(error)))

    def _wishes(self, place: str, record: Any) -> Iterator[Wish]:
        if not isinstance(record, dict):
            raise BadInputError("not a JSON object")
        cells = {str(key).strip().lower(): value for key, value in record.items()}
        username, email = (_text(cells.get(key)) for key in ("username", "email"))
        if not (username or email):
            raise BadInputError("it names no user: neither username nor email")
        for handle, value in self._about_lists(cells).items():
            decided = _DECIDED.get(_text(value).lower())
            if decided is not None:
                yield Wish(place, username, email, handle, decided)
            elif _text(value).lower() in _NULL:
                self.undecided += 1
            else:
                self.problems.append(Problem(place, f"{printable(handle)}: neither 1 nor 0: {printable(_text(value))}"))

    def _about_lists(self, cells: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the values of one record by handle."""
        if "prefs" in cells:
            prefs = _object("prefs", cells["prefs"])
            self.ignored += len(prefs.keys() - {"mailinglist"})
            return _object("mailinglist", prefs.get("mailinglist"))
        if "attribute" not in cells or "value" not in cells:
            raise BadInputError("it has neither attribute and value nor prefs")
        found = _ATTRIBUTE.fullmatch(_text(cells["attribute"]))
        if found is None:
            self.ignored += 1
            return {}
        return {found[1]: cells["value"]}


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise BadInputError("not UTF-8") from None


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise BadInputError(f"not JSON: {error.msg}, at character {error.pos + 1}") from None
    except (ValueError, RecursionError):  # a number beyond Python's, or a thousand brackets
        raise BadInputError("not JSON that can be read") from None


def _object(name: str, value: Any) -> Mapping[str, Any]:
    """Return an object that may stand as JSON in a text; PHP writes an empty one as an empty array."""
    if isinstance(value, str):
        value = None if value.strip().lower() in _NULL else _parsed(value)
    if value is None or value == []:
        return {}
    if not isinstance(value, dict):
        raise BadInputError(f"{name} is no JSON object: {printable(str(value))}")
    return value


def _text(value: Any) -> str:
    """Return a cell or a JSON value as text; of true and 1 as different words."""
    return "" if value is None else str(value).strip()


def _header(text: str) -> tuple[str, Sequence[str]]:
    """Return what separates the columns, and their names."""
    for separator in _SEPARATORS:
        columns = [cell.lower() for cell in _cells(text, separator)]
        names = set(columns)
        if names & {"username", "email"} and ("prefs" in names or {"attribute", "value"} <= names):
            if len(names) < len(columns):
                raise BadInputError(f"a column is there twice: {printable(text)}")
            return separator, columns
    raise BadInputError(f"the first line must name the columns ({_EXPECTED}): {printable(text)}")


def _cells(text: str, separator: str) -> list[str]:
    """Return the trimmed cells of one line; none goes on in the next."""
    for dialect in _DIALECTS:
        try:
            return [
                cell.strip() for row in csv.reader([text], delimiter=separator, strict=True, **dialect) for cell in row
            ]
        except csv.Error as error:
            told = BadInputError(f"not CSV: {error}")
    raise told
