"""Checks the rows of an import, and turns what a file says into the form that accounts store."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from portal.domain import usernames
from portal.domain.address import canonical, printable
from portal.domain.membership import LinkedAccount, Row
from portal.domain.membership_file import Columns, Record
from portal.errors import BadInputError
from portal.services.accounts import passwords, users
from portal.services.accounts.addresses import AddressChecker

MOST_ADDRESSES = 10  # of one member
MOST_GROUPS = 30
LONGEST_KEY = 254  # characters

_NOBODY = frozenset[str]()
_CORRECT = "correct it in the source"


@dataclass
class Texts:
    """Texts that the plan does not depend on: the spellings of addresses by canonical form; the others by line.

    Spellings and usernames are here where they are not those that are compared. ``problems`` says what of a line cannot
    be read; ``deleted`` is what stands for the key of a deleted account where lines are kept.
    """

    spellings: dict[str, str] = field(default_factory=dict)
    usernames: dict[int, str] = field(default_factory=dict)
    password_hashes: dict[int, str] = field(default_factory=dict)
    problems: dict[int, str] = field(default_factory=dict)
    deleted: dict[int, str] = field(default_factory=dict)

    def username(self, row: Row) -> str:
        """Return the username of a row as spelled."""
        return self.usernames.get(row.line, row.username_key)


class Checker:
    """Checks the rows of one file.

    ``linked`` maps keys to linked accounts; the usernames in their rows are not used. ``load_stored`` returns canonical
    addresses that need no validation because accounts hold them; it is called when a row says something new.
    """

    def __init__(
        self,
        columns: Columns,
        *,
        linked: Mapping[str, LinkedAccount],
        load_stored: Callable[[], Collection[str]],
        special_domains: Collection[str],
        key_is_address: bool,
    ) -> None:
        self.columns, self.linked = columns, linked
        self.key_is_address = key_is_address
        self.texts = Texts()
        self._load_stored = load_stored
        self._address_checker = AddressChecker(special_domains)
        self._groups: dict[tuple[str, ...], frozenset[str]] = {}

    @cached_property
    def _stored(self) -> Collection[str]:
        return self._load_stored()

    def rows(self, records: Iterable[Record]) -> list[Row]:
        """Return a row for each record. One that breaks a rule is not readable, and ``texts.problems`` says why."""
        return [self._row(record) for record in records]

    def _row(self, record: Record) -> Row:
        key: str | None = None
        try:
            key = self._key(record)
            if record.problem:
                raise BadInputError(record.problem)
            return self._checked(record, key)
        except BadInputError as error:
            self.texts.problems[record.line] = str(error)
            self.texts.usernames[record.line] = printable(record.username, limit=64)
            return Row(record.line, key, _compared(record.username), is_readable=False)

    def _key(self, record: Record) -> str | None:
        if record.key is None:
            return None
        if len(record.key) > LONGEST_KEY or not record.key.isprintable():
            what = f"not a member key: {printable(record.key)!r} (at most {LONGEST_KEY} printable characters)"
            raise _refused(self.columns.key, what)
        return canonical(record.addresses[0]) if self.key_is_address and record.addresses else record.key

    def _checked(self, record: Record, key: str | None) -> Row:
        """Return the row of a valid record. Raise BadInputError, which names the column."""
        linked = None if key is None else self.linked.get(key)
        if linked is not None and (row := self._repeated(record, linked)):
            return row
        columns = self.columns
        column: str | None = columns.email
        username_key = _compared(record.username)
        try:
            held = self._addresses(record.addresses)
            if linked is None:
                column = columns.username or columns.key
                self._check_username(record, username_key, key, held)
                column = columns.password_hash
                self._check_hash(record)
            column = columns.name
            name = None if record.name is None else users.checked_name(record.name)
            column = ", ".join(columns.groups)
            groups = None if record.groups is None else self._checked_groups(record.groups)
        except BadInputError as error:
            raise _refused(column, str(error)) from None
        further = _NOBODY if len(held) < 2 else frozenset(held[1:])
        main = held[0] if held else None
        return Row(record.line, key, username_key, main, further if held else None, name, groups)

    def _repeated(self, record: Record, linked: LinkedAccount) -> Row | None:
        """Return the row if the record repeats what the source last said, with the strings of the linked account."""
        imported, held = linked.imported, record.addresses
        try:
            is_repeated = (
                record.name in (None, imported.name)
                and (record.groups is None or self._checked_groups(record.groups) == imported.groups)
                and (not held or _canonical(held) == (imported.address, imported.further))
            )
        except BadInputError:
            return None
        if not is_repeated:
            return None
        return Row(
            record.line,
            linked.key,
            _compared(record.username),
            imported.address if held else None,
            imported.further if held else None,
            None if record.name is None else imported.name,
            None if record.groups is None else imported.groups,
        )

    def _addresses(self, spelled: Collection[str]) -> list[str]:
        """Return canonical addresses, each once, the main one first. Raise BadInputError."""
        if len(spelled) > MOST_ADDRESSES:
            raise BadInputError(f"{len(spelled)} addresses: at most {MOST_ADDRESSES} are imported for one member")
        found: dict[str, None] = {}
        for text in spelled:
            compared = canonical(text)
            if compared not in self._stored:
                self._address_checker.check(text, compared)
            if text != compared:
                self.texts.spellings.setdefault(compared, text)
            found[compared] = None
        return list(found)

    def _check_username(self, record: Record, username_key: str, key: str | None, held: list[str]) -> None:
        """Check the username of a new account. Raise BadInputError."""
        try:
            username = usernames.checked(record.username, own=held)
            if username != username_key:
                self.texts.usernames[record.line] = username
        except BadInputError as error:
            if held:  # without an address no account is created
                is_key = record.username == key
                whose = "; the key is the username unless `username` under [membership.columns] names a column"
                raise BadInputError(f"{error}{whose if is_key else ''}") from None
            self.texts.usernames[record.line] = printable(record.username, limit=64)

    def _check_hash(self, record: Record) -> None:
        if record.password_hash:
            if not passwords.is_hash(record.password_hash):
                raise BadInputError("the password hash is no bcrypt hash ($2a$, $2b$, $2y$) and none of the portal's")
            self.texts.password_hashes[record.line] = record.password_hash

    def _checked_groups(self, names: tuple[str, ...]) -> frozenset[str]:
        found = self._groups.get(names)
        if found is None:
            if len(names) > MOST_GROUPS:
                raise BadInputError(f"{len(names)} groups: at most {MOST_GROUPS} are imported for one member")
            found = self._groups[names] = frozenset(users.checked_groups(names))
        return found


def _canonical(spelled: Sequence[str]) -> tuple[str, frozenset[str]]:
    """Return a main address and the further ones. Raise InvalidAddressError."""
    further = frozenset(map(canonical, spelled[1:])) if len(spelled) > 1 else _NOBODY
    return canonical(spelled[0]), further


def _compared(username: str) -> str:
    """Return the form of a username that is compared; the same object if it is the same text."""
    key = usernames.key(username)
    return username if username == key else key


def _refused(column: str | None, what: str) -> BadInputError:
    return BadInputError(f"column {printable(column or '')!r}: {what}: {_CORRECT}")
