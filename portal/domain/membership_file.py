"""Reads a file of today's members into records: CSV from spreadsheets, membership databases and scripts.

Cells are text here; what is an address or a username is judged by who stores it. Source: docs/people.md, "Files".
"""

import csv
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO, TextIOWrapper
from itertools import chain
from typing import NamedTuple

from portal.domain.address import printable
from portal.errors import BadInputError

_EXCEL = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")  # .xlsx (and .ods), .xls
_DELIMITERS = ",;\t"
_FIELD = re.compile(r"\{([^{}]*)\}")
_BETWEEN_ADDRESSES = re.compile(r"[;,|\s]+")
_NAME_COLUMNS = "correct the first line, or name the columns under [membership.columns] in portal.toml"
_QUOTE_CELLS = "put cells that hold the separator into quotation marks"
_CLOSE_QUOTES = "close the quotation marks that open there, or export again if the file was cut off"
_END = "\0"  # no text of a file has it
_YES = {"yes", "y", "ja", "j", "oui", "o", "sí", "si", "sì", "x", "true", "1"}
_ENCODINGS = {"utf-8-sig": "UTF-8", "cp1252": "Windows-1252", "utf-16": "UTF-16"}  # as they are called
_NO = {"no", "n", "nein", "non", "false", "0", "-"}


@dataclass(frozen=True)
class Columns:
    """Which columns are read, by the names in the file's first line; None: nobody reads that.

    ``name`` and ``username`` may be made of several: ``{First} {Last}``. Each of ``groups`` names a column whose cells
    name groups, or say yes or no to the group that the column is called.
    """

    email: str = "email"
    username: str | None = None
    key: str | None = None
    name: str | None = None
    groups: tuple[str, ...] = ()
    group_separator: str = ";"
    password_hash: str | None = None

    @cached_property
    def all(self) -> tuple[str, ...]:
        """Return every column that is read."""
        texts = [self.key, self.username, self.email, self.name, *self.groups, self.password_hash]
        return tuple(dict.fromkeys(name for text in texts if text for name in _columns_in(text)))


class Record(NamedTuple):
    """One member, as text. ``name`` and ``groups`` are None where no column is read for them.

    ``problem``: why the line cannot be understood; its key is kept where that alone can be read.
    """

    line: int
    key: str | None
    username: str
    addresses: tuple[str, ...] = ()
    name: str | None = None
    groups: tuple[str, ...] | None = None
    problem: str = ""
    password_hash: str = ""


class MemberFile(NamedTuple):
    """A file that was read. ``ignored`` are columns that are not read; ``encoding`` is how its text was understood."""

    records: tuple[Record, ...]
    ignored: tuple[str, ...]
    encoding: str


class OpenedFile(NamedTuple):
    """A file whose records can be read once; ``ignored`` and ``encoding`` as in ``MemberFile``."""

    records: Iterator[Record]
    ignored: tuple[str, ...]
    encoding: str


def read_members(content: bytes, columns: Columns, *, encoding: str | None = None) -> MemberFile:
    """Read a file. A line that cannot be understood becomes a record with its problem.

    Raise BadInputError, and read nothing, where the file is empty, has no header, lacks a column that is to be read, or
    is no text.
    """
    opened = open_members(content, columns, encoding=encoding)
    return MemberFile(tuple(opened.records), opened.ignored, opened.encoding)


def open_members(content: bytes, columns: Columns, *, encoding: str | None = None) -> OpenedFile:
    """Start reading a file as ``read_members`` does, without holding all records in memory.

    Raise BadInputError, at once or while the records are read.
    """
    codec = _codec(content, encoding)
    lines = _lines(content, codec)
    try:
        _, header = next(lines)
    except StopIteration:
        raise BadInputError(
            "the input is empty; its first line must name the columns: %(all)s", all=", ".join(columns.all)
        ) from None
    places = _places(header, columns)
    read = set(places.values())
    ignored = tuple(name.strip() for number, name in enumerate(header) if number not in read and name.strip())
    records = _records(lines, _Reader(columns, places, len(header)))
    return OpenedFile(records, ignored, _ENCODINGS.get(codec, codec))


def _records(lines: Iterator[tuple[int, list[str]]], reader: "_Reader") -> Iterator[Record]:
    record = None
    for line, cells in lines:
        record = reader.record(line, cells)
        yield record
    if record is None:
        raise BadInputError("the input names columns but no members; check whether the export was cut off")


def standard_columns(header_of: bytes, *, key: str | None = None) -> Columns:
    """Return the columns of a file that names them as the portal does.

    They are ``username`` and ``email``, and where they are there ``name``, ``groups`` and ``password_hash``.
    """
    _, header = next(_lines(header_of, _codec(header_of, None)), (1, []))
    found = {_compared(name) for name in header}
    return Columns(
        username="username",
        key=key,
        name="name" if "name" in found else None,
        groups=("groups",) if "groups" in found else (),
        password_hash="password_hash" if "password_hash" in found else None,
    )


def _codec(content: bytes, encoding: str | None) -> str:
    """Return the encoding in which all of the content is text. Raise BadInputError."""
    if content.startswith(_EXCEL):
        raise BadInputError("this is a spreadsheet, not a CSV file: save it as CSV UTF-8")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        candidates: Sequence[str] = ("utf-16",)
    else:
        candidates = (encoding,) if encoding else ("utf-8-sig", "cp1252")
    for each in candidates:
        try:
            text = content.decode(each)
        except (UnicodeDecodeError, LookupError):
            continue
        if "\0" not in text:
            return each
    tried = " or ".join(_ENCODINGS.get(each, each) for each in candidates)
    raise BadInputError("the input is not text in %(tried)s: save it as CSV UTF-8", tried=tried)


def _text_lines(content: bytes, codec: str) -> TextIOWrapper:
    """Return the lines with their line ends. Neither the content nor its text is copied as a whole."""
    return TextIOWrapper(BytesIO(content), codec, newline="")


def _lines(content: bytes, codec: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of each line that holds anything, counted from 1, and its cells. Raise BadInputError."""
    header = next(filter(None, (line.strip("\r\n") for line in _text_lines(content, codec))), "")
    delimiter = max(_DELIMITERS, key=lambda each: len(next(csv.reader([header], delimiter=each), [])))
    reader = csv.reader(chain(_text_lines(content, codec), [_END]), delimiter=delimiter)
    while True:
        line = reader.line_num + 1
        try:
            cells = next(reader)
        except csv.Error as error:
            raise BadInputError(
                "line %(line)s: not CSV: %(error)s: %(close_quotes)s",
                line=line,
                error=error,
                close_quotes=_CLOSE_QUOTES,
            ) from None
        if cells == [_END]:
            return
        if cells and cells[-1].endswith(_END):
            raise BadInputError(
                "line %(line)s: the input ends inside quotation marks: %(close_quotes)s",
                line=line,
                close_quotes=_CLOSE_QUOTES,
            )
        if any(map(str.strip, cells)):
            yield line, cells


def _columns_in(text: str) -> list[str]:
    """Return the columns that a setting names: itself, or those in braces."""
    return _FIELD.findall(text) or [text]


def _compared(name: str) -> str:
    return unicodedata.normalize("NFC", name.strip()).casefold()


def _places(header: Sequence[str], columns: Columns) -> dict[str, int]:
    """Return the position of each column that is read."""
    names = [_compared(name) for name in header]
    places = {}
    for column in columns.all:
        times = names.count(_compared(column))
        if times != 1:
            what = "there is no column named" if not times else "there is more than one column named"
            there = printable(", ".join(name.strip() for name in header if name.strip()), limit=300)
            raise BadInputError(
                "line 1: %(what)s %(column)s (columns: %(there)s): %(name_columns)s",
                what=what,
                column=repr(printable(column)),
                there=there,
                name_columns=_NAME_COLUMNS,
            )
        places[column] = names.index(_compared(column))
    return places


_Cells = Sequence[str]


class _Reader:
    """Turns the lines of one file into records."""

    def __init__(self, columns: Columns, places: Mapping[str, int], width: int) -> None:
        self.columns, self.places, self.width = columns, places, width
        self.key, self.username = self._text_of(columns.key), self._text_of(columns.username)
        self.email, self.name = self._text_of(columns.email), self._text_of(columns.name)
        self.groups_of: dict[tuple[str, ...], tuple[str, ...]] = {}  # by their cells, which many rows share

    def record(self, line: int, cells: _Cells) -> Record:
        """Return one member."""
        columns = self.columns
        key = None
        if columns.key:
            key = unicodedata.normalize("NFC", self.key(cells).removeprefix("'")) or None
        if len(cells) > self.width and any(map(str.strip, cells[self.width :])):
            problem = f"{len(cells)} cells, but the first line names {self.width} columns: {_QUOTE_CELLS}"
            return Record(line, key, "", problem=problem)
        if columns.key and key is None:
            problem = f"column {printable(columns.key)!r} is empty: give the member a key in the source"
            return Record(line, None, "", problem=problem)
        return Record(
            line,
            key,
            self.username(cells) or key or "",
            tuple(filter(None, _BETWEEN_ADDRESSES.split(self.email(cells).removeprefix("'")))),
            self.name(cells) if columns.name else None,
            self._groups(cells) if columns.groups else None,
            "",
            self._cell(columns.password_hash, cells) if columns.password_hash else "",
        )

    def _text_of(self, setting: str | None) -> Callable[[_Cells], str]:
        """Return a function for the text of a cell, or of several, with single spaces between words."""
        if setting is None:
            return lambda _cells: ""
        if "{" in setting:
            return lambda cells: " ".join(_FIELD.sub(lambda found: self._cell(found[1], cells), setting).split())
        place = self.places[setting]
        return lambda cells: " ".join(cells[place].split()) if place < len(cells) else ""

    def _cell(self, column: str, cells: _Cells) -> str:
        place = self.places[column]
        return cells[place].strip() if place < len(cells) else ""  # a missing trailing cell counts as empty

    def _groups(self, cells: _Cells) -> tuple[str, ...]:
        texts = tuple([self._cell(column, cells) for column in self.columns.groups])
        found = self.groups_of.get(texts)
        if found is None:
            found = self.groups_of[texts] = self._named_groups(texts)
        return found

    def _named_groups(self, texts: Sequence[str]) -> tuple[str, ...]:
        names: list[str] = []
        for column, text in zip(self.columns.groups, texts, strict=True):
            if text.casefold() in _YES:
                names.append(column)
            elif text.casefold() not in _NO:
                names += (each.strip() for each in text.split(self.columns.group_separator))
        return tuple(dict.fromkeys(filter(None, names)))
