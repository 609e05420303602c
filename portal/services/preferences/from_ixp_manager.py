"""Preferences from another system: what is missing is filled in, and a no that is stored stays one.

What the file says of a user is carried out as the user's own tick would be. Source: docs/semantics.md, "A subscription
belongs to a mailbox".
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Any, NamedTuple

from sqlalchemy import bindparam, func, select, union, update
from sqlalchemy.orm import Session

from portal import database
from portal.config import Catalogue
from portal.database import ROSTER
from portal.domain.address import canonical, printable
from portal.domain.ixp_manager import PreferenceText, Wish
from portal.domain.mailinglist import MailingList
from portal.errors import BadInputError, InvalidAddressError
from portal.models import Address, Preference, User, UserAddress, UserGroup
from portal.services import history
from portal.services.accounts.sessions import name_key
from portal.services.history import COMMAND_LINE, Change
from portal.services.transaction import reading, scratch, transaction

_EXAMPLES = 5  # of each reason to pass something over


class ListCounts(NamedTuple):
    """What became of the addresses that the file speaks of, for one list; each is counted once.

    ``subscribed`` and ``unsubscribed`` got their first preference; ``overwritten`` were subscribed and are not any
    more; ``refused`` are unsubscribed and stay so, although the file says yes; ``kept`` are as they were.
    """

    handle: str
    subscribed: int
    unsubscribed: int
    overwritten: int
    refused: int
    kept: int


class Skipped(NamedTuple):
    """Why something was passed over, how often, and where for example."""

    reason: str
    times: int
    examples: tuple[str, ...]


class Imported(NamedTuple):
    """What an import did, or would do.

    ``ignored`` preferences are about other things than lists; for ``undecided`` ones neither yes nor no is stored.
    """

    lists: tuple[ListCounts, ...]
    ignored: int
    undecided: int
    skipped: tuple[Skipped, ...]


class _Weight(IntEnum):
    """What is said of one address on one list; the heavier wins."""

    OTHER = 0  # its holder wants the list at another address of theirs
    YES = 1
    NO = 2


class _Key(NamedTuple):
    handle: str
    address_id: int


class _Stored(NamedTuple):
    subscribed: bool
    version: int


@dataclass(slots=True)
class _Account:
    is_active: bool
    groups: frozenset[str] = frozenset()
    addresses: list[int] = field(default_factory=list)  # the main one first

    def is_offered(self, mailing_list: MailingList) -> bool:
        return self.is_active and mailing_list.is_offered_to(self.groups)


@dataclass
class _Known:
    """What the database knows of those whom the file names. Addresses are canonical."""

    accounts: dict[int, _Account] = field(default_factory=dict)
    by_name: dict[str, _Account] = field(default_factory=dict)
    holders: dict[int, list[_Account]] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)
    canonicals: dict[int, str] = field(default_factory=dict)
    shared: frozenset[int] = frozenset()
    stored: dict[_Key, _Stored] = field(default_factory=dict)

    def wants(self, handle: str, address_id: int) -> bool:
        found = self.stored.get(_Key(handle, address_id))
        return found is not None and found.subscribed


class _Write(NamedTuple):
    """A preference to be made, or, where it has a version, to be overwritten."""

    key: _Key
    subscribed: bool
    version: int | None

    @property
    def handle(self) -> str:
        return self.key.handle

    @property
    def address_id(self) -> int:
        return self.key.address_id


@dataclass
class _Skips:
    """What was passed over, and why."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, words: str) -> None:
        self.counts[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(words)

    def told(self) -> tuple[Skipped, ...]:
        return tuple(Skipped(reason, self.counts[reason], tuple(words)) for reason, words in self.examples.items())


def import_preferences(
    session: Session, content: bytes, *, catalogue: Catalogue, now: datetime, overwrite: bool, is_dry: bool
) -> Imported:
    """Take over preferences from a file, as ``PreferenceText`` reads it.

    Only what is missing is filled in, unless ``overwrite``; a no that is stored never becomes a yes. Where a file says
    both of one address, no wins. ``is_dry``: say what would be done, and write nothing. Raise BadInputError where
    nothing of the file can be read, or DisabledError.
    """
    catalogue.require_enabled()
    text = PreferenceText(content)
    wishes = list(text)
    if text.problems and not (wishes or text.ignored or text.undecided):
        raise BadInputError(f"nothing in the file can be read; {text.problems[0].place}: {text.problems[0].words}")
    known = _look_up(session, wishes, catalogue)
    skips = _Skips()
    wanted = _weigh(wishes, known, catalogue, skips)
    judged = (_judge(key, weight, known, overwrite=overwrite) for key, weight in sorted(wanted.items()))
    writes = [each for each in judged if each is not None]
    written = {each.key for each in writes} if is_dry else _write_all(session, writes, known, now=now)
    for problem in text.problems:
        skips.add("cannot be read", f"{problem.place}: {problem.words}")
    return Imported(_counts(catalogue, wanted, known, written), text.ignored, text.undecided, skips.told())


# --- what is known


def _look_up(session: Session, wishes: Sequence[Wish], catalogue: Catalogue) -> _Known:
    """Read everything about those whom the file names; how many they are makes no more statements."""
    names = {text for wish in wishes for text in (name_key(wish.username), _compared(wish.email)) if text}
    known = _Known()
    with database.dedicated(session) as own:
        with scratch(own):
            database.load_roster(own.connection(), (each for each in names if len(each) <= 254 and each.isprintable()))
        with reading(own):
            _look_up_accounts(own, known)
            held = select(UserAddress.address_id).where(UserAddress.user_id.in_(_named()))
            count = func.count()
            shared = select(UserAddress.address_id).where(UserAddress.address_id.in_(held))
            known.shared = frozenset(own.scalars(shared.group_by(UserAddress.address_id).having(count > 1)))
            stored = select(
                Preference.list_handle, Preference.address_id, Preference.subscribed, Preference.version
            ).where(Preference.list_handle.in_(list(catalogue.lists)), Preference.address_id.in_(held))
            known.stored = {_Key(row[0], row[1]): _Stored(row[2], row[3]) for row in own.execute(stored)}
    return known


def _compared(email: str) -> str:
    try:
        return canonical(email)
    except InvalidAddressError:
        return ""


def _named() -> Any:
    """Return the ids of the accounts that the file names, by username or by an address of theirs."""
    return union(
        select(User.id).join(ROSTER, ROSTER.c.canonical == User.username_key),
        select(UserAddress.user_id)
        .join(Address, Address.id == UserAddress.address_id)
        .join(ROSTER, ROSTER.c.canonical == Address.canonical),
    )


def _look_up_accounts(session: Session, known: _Known) -> None:
    accounts = select(User.id, User.username_key, User.is_active).where(User.id.in_(_named()))
    for user_id, key, is_active in session.execute(accounts):
        known.accounts[user_id] = known.by_name[key] = _Account(is_active)
    groups = select(UserGroup.user_id, UserGroup.name).where(UserGroup.user_id.in_(_named()))
    for user_id, name in session.execute(groups):
        known.accounts[user_id].groups |= {name}
    held = (
        select(UserAddress.user_id, Address.id, Address.canonical)
        .join(Address, Address.id == UserAddress.address_id)
        .where(UserAddress.user_id.in_(_named()))
        .order_by(UserAddress.is_main.desc(), Address.id)
    )
    for user_id, address_id, address in session.execute(held):
        account = known.accounts[user_id]
        account.addresses.append(address_id)
        known.holders.setdefault(address_id, []).append(account)
        known.ids[address], known.canonicals[address_id] = address_id, address


# --- what is wanted


def _weigh(wishes: Iterable[Wish], known: _Known, catalogue: Catalogue, skips: _Skips) -> dict[_Key, _Weight]:
    """Return what the file wants of each address on each list."""
    wanted: dict[_Key, _Weight] = {}
    for wish in wishes:
        mailing_list = catalogue.lists.get(wish.handle) or catalogue.lists.get(wish.handle.lower())
        if mailing_list is None:
            skips.add("unknown list", f"{wish.place}: {printable(wish.handle)}")
            continue
        try:
            chosen, accounts = _found(wish, known)
        except _NotFoundError as error:
            skips.add(error.reason, f"{wish.place}: {error}")
            continue
        if not any(each.is_offered(mailing_list) for each in accounts):
            words = f"{wish.place}: {printable(wish.username or wish.email)} on {mailing_list.handle}"
            skips.add("inactive, or outside the list's audience", words)
            continue
        for address_id, weight in _weights(wish, mailing_list.handle, chosen, accounts, known):
            key = _Key(mailing_list.handle, address_id)
            before = wanted.setdefault(key, weight)
            if {before, weight} == {_Weight.YES, _Weight.NO}:
                words = f"{wish.place}: {known.canonicals[address_id]} on {mailing_list.handle}"
                skips.add("both yes and no for one address, so no", words)
            wanted[key] = max(before, weight)
    return wanted


class _NotFoundError(Exception):
    def __init__(self, reason: str, words: str) -> None:
        super().__init__(words)
        self.reason = reason


def _found(wish: Wish, known: _Known) -> tuple[int, list[_Account]]:
    """Return the address that is meant, and the accounts that are: one by its name, else all that hold the address."""
    account = known.by_name.get(name_key(wish.username))
    if account is not None and account.addresses:
        return account.addresses[0], [account]
    address_id = known.ids.get(_compared(wish.email))
    if address_id is not None:
        return address_id, known.holders[address_id]
    if wish.email:
        raise _NotFoundError("no account holds the address", printable(wish.email))
    raise _NotFoundError("unknown user", printable(wish.username))


def _weights(
    wish: Wish, handle: str, chosen: int, accounts: Sequence[_Account], known: _Known
) -> Iterator[tuple[int, _Weight]]:
    """Yield what a wish means for addresses: those of one account, or a mailbox alone where several hold it.

    Yes is for the chosen address, or for one that the list is sent to already, and not for the account's others that
    nobody else holds; no is for all.
    """
    addresses = accounts[0].addresses if len(accounts) == 1 else [chosen]
    if not wish.subscribed:
        yield from ((each, _Weight.NO) for each in addresses)
        return
    if not known.wants(handle, chosen):
        chosen = next((each for each in addresses if known.wants(handle, each)), chosen)
    for each in addresses:
        if each == chosen:
            yield each, _Weight.YES
        elif each not in known.shared:
            yield each, _Weight.OTHER


def _judge(key: _Key, weight: _Weight, known: _Known, *, overwrite: bool) -> _Write | None:
    """Return what is to be written, if anything is."""
    stored = known.stored.get(key)
    if stored is None:
        return _Write(key, weight is _Weight.YES, None)
    if overwrite and stored.subscribed and weight is _Weight.NO:
        return _Write(key, False, stored.version)
    return None


def _counts(
    catalogue: Catalogue, wanted: Mapping[_Key, _Weight], known: _Known, written: set[_Key]
) -> tuple[ListCounts, ...]:
    counted: Counter[tuple[str, str]] = Counter()
    for key, weight in wanted.items():
        stored = known.stored.get(key)
        if key in written:
            first = "subscribed" if weight is _Weight.YES else "unsubscribed"
            counted[key.handle, "overwritten" if stored else first] += 1
        elif weight is not _Weight.OTHER:
            is_refused = weight is _Weight.YES and stored is not None and not stored.subscribed
            counted[key.handle, "refused" if is_refused else "kept"] += 1
    names = ListCounts._fields[1:]
    return tuple(ListCounts(handle, *(counted[handle, name] for name in names)) for handle in catalogue.lists)


# --- what is written


def _write_all(session: Session, writes: Iterable[_Write], known: _Known, *, now: datetime) -> set[_Key]:
    """Write in chunks; return what was written. A choice made meanwhile stays."""
    written: set[_Key] = set()
    for chunk in database.written_in_chunks(session, writes):
        # A transaction for each: in one they would take rows in another order than members' saves do.
        for write in (_insert, _overwrite):
            with transaction(session):
                done = write(session, chunk, now=now)
                changes = [
                    Change(each.handle, each.address_id, known.canonicals[each.address_id], each.subscribed, "import")
                    for each in chunk
                    if each.key in done
                ]
                history.record(session, changes, actor=COMMAND_LINE, now=now)
            written |= done
    return written


def _insert(session: Session, chunk: Iterable[_Write], *, now: datetime) -> set[_Key]:
    """Make first preferences, which no run has seen and no person has just chosen.

    One whose address was given up meanwhile is passed over.
    """
    firsts = [each for each in chunk if each.version is None]
    ids = {each.address_id for each in firsts}
    locked = select(Address.id).where(Address.id.in_(sorted(ids))).with_for_update(read=True, key_share=True)
    there = set(session.scalars(locked))
    rows = [
        {
            "list_handle": each.handle,
            "address_id": each.address_id,
            "subscribed": each.subscribed,
            "source": "import",
            "changed_at": now,
            "version": 1,
        }
        for each in firsts
        if each.address_id in there
    ]
    if not rows:
        return set()
    table: Any = Preference.__table__  # tables, not classes, where there are many rows
    statement = database.insert(session, table).on_conflict_do_nothing()
    made = session.execute(statement.returning(table.c.list_handle, table.c.address_id), rows)
    return {_Key(*row) for row in made}


def _overwrite(session: Session, chunk: Iterable[_Write], *, now: datetime) -> set[_Key]:
    """Unsubscribe what was subscribed, where it still is as it was read."""
    planned = {each.key: each.version for each in chunk if each.version is not None}
    if not planned:
        return set()
    current = select(Preference.list_handle, Preference.address_id, Preference.version).where(
        Preference.list_handle.in_({key.handle for key in planned}),
        Preference.address_id.in_({key.address_id for key in planned}),
    )
    rows = session.execute(current.order_by(Preference.list_handle, Preference.address_id).with_for_update())
    fresh = {key for row in rows if planned.get(key := _Key(row[0], row[1])) == row[2]}
    if fresh:
        table: Any = Preference.__table__
        session.execute(
            update(table)
            .where(table.c.list_handle == bindparam("of_list"), table.c.address_id == bindparam("of_address"))
            .values(
                subscribed=False, source="import", changed_at=now, changed_by=None, touched=False,
                version=table.c.version + 1, moved_to=None, refusal=None, refused_at=None,
            ),
            [{"of_list": key.handle, "of_address": key.address_id} for key in sorted(fresh)],
        )  # fmt: skip
    return fresh
