"""Accounts from a CSV file: all of its lines or none."""

import csv
from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import database
from portal.domain import usernames
from portal.domain.address import printable
from portal.errors import BadInputError
from portal.models import User
from portal.services import security_log
from portal.services.accounts import addresses, new_accounts, passwords, users
from portal.services.accounts.addresses import Checked
from portal.services.accounts.moves import Lists
from portal.services.accounts.new_accounts import NewAccount
from portal.services.history import COMMAND_LINE, Actor
from portal.services.transaction import reading, transaction

REQUIRED = ("username", "email")
OPTIONAL = ("name", "groups", "superuser", "password_hash")
_YES_NO = {"": False, "0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}
_BLOCK = 5_000  # names or rows in one statement


class Problem(NamedTuple):
    """A line, counted from 1, that cannot be imported, and why."""

    line: int
    words: str


class Imported(NamedTuple):
    """How many accounts were made; none where there are problems, which are in the order of the lines."""

    created: int
    problems: tuple[Problem, ...]


class Preview(NamedTuple):
    """What an import would make: how many accounts, the first of them as (username, address, name), and problems."""

    total: int
    first: tuple[tuple[str, str, str], ...]
    problems: tuple[Problem, ...]


class _Row(NamedTuple):
    line: int
    username: str
    address: Checked
    name: str
    groups: tuple[str, ...]
    is_superuser: bool
    password_hash: str

    @property
    def key(self) -> str:
        return usernames.key(self.username)


def import_users(
    session: Session,
    lines: Iterable[bytes],
    *,
    now: datetime,
    lists: Lists,
    special_domains: Collection[str] = (),
    actor: Actor = COMMAND_LINE,
) -> Imported:
    """Make an account for each line of a CSV file, in one transaction, or none where a line is bad.

    The first line names the columns: ``username`` and ``email``, and in any order ``name``, ``groups`` (separated by
    semicolons), ``superuser`` (yes or no) and ``password_hash``. UTF-8; a byte-order mark, CRLF and blank lines are
    accepted. Without a hash nobody can log in until a password is set. Several accounts may have one address. Raise
    BadInputError where there is no header, and DuplicateError where a name was taken while the file was read.
    """
    rows, problems = _read(lines, special_domains)
    problems += _taken(session, rows)
    if problems:
        return Imported(0, tuple(sorted(problems)))
    made = [
        NewAccount(row.username, row.address, row.password_hash, row.name, row.groups, row.is_superuser) for row in rows
    ]
    with transaction(session):
        new_accounts.make_all(session, made, actor=actor, now=now, lists=lists)
    security_log.log("users imported", count=len(rows), superusers=sum(row.is_superuser for row in rows))
    return Imported(len(rows), ())


def preview(
    session: Session, lines: Iterable[bytes], *, special_domains: Collection[str] = (), sample: int = 20
) -> Preview:
    """Return what ``import_users`` would do with a file; nothing is written. Raise BadInputError."""
    rows, problems = _read(lines, special_domains)
    problems += _taken(session, rows)
    first = tuple((row.username, row.address.spelling, row.name) for row in rows[:sample])
    return Preview(len(rows), first, tuple(sorted(problems)))


def _read(lines: Iterable[bytes], special_domains: Collection[str]) -> tuple[list[_Row], list[Problem]]:
    rows: list[_Row] = []
    problems: list[Problem] = []
    columns: list[str] = []
    named: dict[str, int] = {}  # the line that has a username first
    for number, raw in enumerate(lines, start=1):
        try:
            cells = _cells(raw, is_first=number == 1)
            if not any(cells):
                continue
            if not columns:
                columns = _header(cells)
                continue
            row = _row(number, _named(columns, cells), special_domains)
            if named.setdefault(row.key, number) != number:
                raise BadInputError(f"line {named[row.key]} has the username {row.username} already")
            rows.append(row)
        except BadInputError as error:
            if not columns:
                raise BadInputError(f"line {number}: {error}") from None
            problems.append(Problem(number, str(error)))
    if not columns:
        raise BadInputError(
            f"the input is empty; its first line names the columns: {','.join(REQUIRED + OPTIONAL[:3])}"
        )
    return rows, problems


def _cells(raw: bytes, *, is_first: bool) -> list[str]:
    """Return the trimmed cells of one line. None may go on in the next: nothing that we read holds a line's end."""
    try:
        text = raw.decode("utf-8-sig" if is_first else "utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise BadInputError("not UTF-8") from None
    try:
        return [cell.strip() for cells in csv.reader([text], strict=True) for cell in cells]
    except csv.Error as error:
        raise BadInputError(f"not CSV: {error}") from None


def _header(cells: Sequence[str]) -> list[str]:
    columns = [cell.lower() for cell in cells]
    known = REQUIRED + OPTIONAL
    missing = [name for name in REQUIRED if name not in columns]
    if missing:
        raise BadInputError(
            f"the first line names the columns, separated by commas, but not {' and '.join(missing)}: "
            + printable(",".join(cells))
        )
    strange = [name for name in columns if name not in known or columns.count(name) > 1]
    if strange:
        raise BadInputError(
            f"a column that is unknown or there twice: {printable(strange[0])!r} (known: {', '.join(known)})"
        )
    return columns


def _named(columns: Sequence[str], cells: Sequence[str]) -> dict[str, str]:
    if len(cells) != len(columns):
        raise BadInputError(f"{len(cells)} cells, but the first line names {len(columns)} columns")
    return dict.fromkeys(OPTIONAL, "") | dict(zip(columns, cells, strict=True))


def _row(number: int, cells: dict[str, str], special_domains: Collection[str]) -> _Row:
    address = addresses.checked(cells["email"], special_domains=special_domains)
    is_superuser = _YES_NO.get(cells["superuser"].lower())
    if is_superuser is None:
        raise BadInputError(f"superuser is yes or no, not {printable(cells['superuser'])!r}")
    password_hash = cells["password_hash"] or passwords.UNUSABLE
    if cells["password_hash"] and not passwords.is_hash(password_hash):
        raise BadInputError("the password_hash is no bcrypt hash ($2a$, $2b$, $2y$) and none of the portal's (v1$)")
    return _Row(
        line=number,
        username=usernames.checked(cells["username"], own=[address.canonical]),
        address=address,
        name=users.checked_name(cells["name"]),
        groups=users.checked_groups(part for part in cells["groups"].split(";") if part.strip()),
        is_superuser=is_superuser,
        password_hash=password_hash,
    )


def _taken(session: Session, rows: Sequence[_Row]) -> list[Problem]:
    problems = []
    with reading(session):
        for block in database.chunked(rows, _BLOCK):
            of_key = {row.key: row for row in block}
            for key in session.scalars(select(User.username_key).where(User.username_key.in_(of_key))):
                problems.append(Problem(of_key[key].line, f"a user is called {of_key[key].username} already"))
    return problems
