"""Preferences from IXP Manager: missing ones are filled in, existing ones stay.

The file is applied as the user's own ticks would be. Source: docs/migrating-from-ixp-manager.md.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from sqlalchemy.orm import Session

from portal import database
from portal.config import Catalogue
from portal.domain import ixp_manager, usernames
from portal.domain.address import canonical, printable
from portal.domain.ixp_manager import Record
from portal.domain.mailinglist import MailingList
from portal.errors import BadInputError, InvalidAddressError
from portal.services import preference_rows
from portal.services.history import COMMAND_LINE, Change
from portal.services.preferences import preferences
from portal.services.preferences.preferences import Holder
from portal.services.transaction import transaction

_EXAMPLES = 5  # for each reason to skip a record


class ListCounts(NamedTuple):
    """The counts for one list, in distinct addresses of the file.

    ``subscribed`` and ``unsubscribed`` got their first preference. ``refused`` are unsubscribed and stay so, although
    the file says subscribed. ``kept`` are unchanged.
    """

    handle: str
    subscribed: int
    unsubscribed: int
    refused: int
    kept: int


class SkipReason(NamedTuple):
    """A reason that records were skipped, their number, and the places of a few."""

    reason: str
    times: int
    examples: tuple[str, ...]


class ImportResult(NamedTuple):
    """The result of an import, or of a dry run of it."""

    lists: tuple[ListCounts, ...]
    skipped: tuple[SkipReason, ...]


class _Key(NamedTuple):
    handle: str
    address_id: int


class _Target(NamedTuple):
    """The preference that the file wants for one address on one list, and the stored one."""

    change: Change
    stored: bool | None


@dataclass
class _KnownUsers:
    """The users in the file: by username key, and by their canonical addresses."""

    by_name: dict[str, Holder] = field(default_factory=dict)
    by_address: dict[str, list[Holder]] = field(default_factory=dict)
    ids: dict[str, int] = field(default_factory=dict)  # of addresses


@dataclass
class _Skips:
    """The skipped records, by reason."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, example: str) -> None:
        self.counts[reason] += 1
        examples = self.examples.setdefault(reason, [])
        if len(examples) < _EXAMPLES:
            examples.append(example)

    def all(self) -> tuple[SkipReason, ...]:
        return tuple(SkipReason(reason, self.counts[reason], tuple(found)) for reason, found in self.examples.items())


def import_preferences(
    session: Session, content: bytes, *, catalogue: Catalogue, now: datetime, is_dry: bool
) -> ImportResult:
    """Fill in missing preferences from a file in the format of ``ixp_manager.read``.

    If a file contains both values for one address, unsubscribed wins. ``is_dry``: return the result without writing.
    Raise BadInputError if nothing in the file can be read, or DisabledError.
    """
    catalogue.require_enabled()
    records, problems = ixp_manager.read(content)
    if problems and not records:
        raise BadInputError(f"nothing in the file can be read; {problems[0].place}: {problems[0].words}")
    skips = _Skips()
    wanted = _wanted(records, _look_up(session, records, catalogue), catalogue, skips)
    missing = [each.change for _, each in sorted(wanted.items()) if each.stored is None]
    made = missing if is_dry else _write(session, missing, now=now)
    for problem in problems:
        skips.add("cannot be read", f"{problem.place}: {problem.words}")
    return ImportResult(_counts(catalogue, wanted, made), skips.all())


def _write(session: Session, changes: Iterable[Change], *, now: datetime) -> list[Change]:
    """Write first preferences in chunks; return those written. Choices made in the meantime stay."""
    made: list[Change] = []
    for chunk in database.written_in_chunks(session, changes):
        with transaction(session):
            made += preference_rows.write_first_preferences(session, chunk, actor=COMMAND_LINE, now=now)
    return made


def _look_up(session: Session, records: Iterable[Record], catalogue: Catalogue) -> _KnownUsers:
    names = {text for each in records for text in (usernames.key(each.username), _canonical(each.email)) if text}
    known = _KnownUsers()
    for holder in preferences.load_named(session, names, catalogue.lists):
        known.by_name[usernames.key(holder.username)] = holder
        for address_id, address in holder.canonicals.items():
            known.ids[address] = address_id
            known.by_address.setdefault(address, []).append(holder)
    return known


def _canonical(email: str) -> str:
    try:
        return canonical(email)
    except InvalidAddressError:
        return ""


def _wanted(
    records: Iterable[Record], known: _KnownUsers, catalogue: Catalogue, skips: _Skips
) -> Mapping[_Key, _Target]:
    """Return the preference that the file wants for each address on each list."""
    wanted: dict[_Key, _Target] = {}
    chosen_for: dict[tuple[str, int], int] = {}  # a list sends to one address of a user, whatever the records say
    for record in records:
        mailing_list = catalogue.lists.get(record.handle.lower())
        holders, chosen = _find(record, known)
        user = printable(record.username or record.email)
        if mailing_list is None:
            skips.add("unknown list", f"{record.place}: {printable(record.handle)}")
        elif not holders:
            skips.add("unknown user", f"{record.place}: {user}")
        elif not any(each.is_active and mailing_list.is_offered_to(each.groups) for each in holders):
            skips.add("inactive, or outside the list's audience", f"{record.place}: {user} on {mailing_list.handle}")
        elif record.subscribed and holders[0].canonicals.get(chosen) in mailing_list.never_added:
            skips.add("the address of a mailing list", f"{record.place}: {user} on {mailing_list.handle}")
        else:
            if len(holders) == 1:
                chosen = chosen_for.setdefault((mailing_list.handle, holders[0].user_id), chosen)
            for each in _by_address(record, mailing_list, holders, chosen):
                key = _Key(mailing_list.handle, each.change.address_id)
                before = wanted.setdefault(key, each)
                if before.change.subscribed != each.change.subscribed:
                    example = f"{record.place}: {each.change.address} on {mailing_list.handle}"
                    skips.add("both yes and no for one address; no was used", example)
                    wanted[key] = min(before, each, key=lambda one: one.change.subscribed)
    return wanted


def _find(record: Record, known: _KnownUsers) -> tuple[list[Holder], int]:
    """Return the user with a record's username and their main address, else all holders of its address, and that."""
    named = known.by_name.get(usernames.key(record.username))
    if named is not None and named.addresses:
        return [named], named.main
    address = _canonical(record.email)
    return known.by_address.get(address, []), known.ids.get(address, 0)


def _by_address(record: Record, mailing_list: MailingList, holders: Sequence[Holder], chosen: int) -> Iterator[_Target]:
    """Yield what a record wants for each address of a user, or only for the mailbox if several users hold it.

    *Subscribed* applies to the address that the list already sends to, else to the chosen one.
    """
    holder, handle = holders[0], mailing_list.handle
    if len(holders) > 1:
        by_address = {chosen: record.subscribed}
    else:
        subscribed = [each for each in (chosen, *holder.addresses) if holder.preference(handle, each)]
        by_address = preferences.wanted_by(
            holder, mailing_list, ticked=record.subscribed, address_id=next(iter(subscribed), chosen)
        )
    for address_id, is_wanted in by_address.items():
        change = Change(handle, address_id, holder.canonicals[address_id], is_wanted, "import")
        yield _Target(change, holder.preference(handle, address_id))


def _counts(catalogue: Catalogue, wanted: Mapping[_Key, _Target], made: Iterable[Change]) -> tuple[ListCounts, ...]:
    written = {_Key(each.list_handle, each.address_id) for each in made}
    counted: Counter[tuple[str, str]] = Counter()
    for key, each in wanted.items():
        if key in written:
            name = "subscribed" if each.change.subscribed else "unsubscribed"
        else:
            name = "refused" if each.change.subscribed and each.stored is False else "kept"
        counted[key.handle, name] += 1
    names = ListCounts._fields[1:]
    return tuple(ListCounts(handle, *(counted[handle, name] for name in names)) for handle in catalogue.lists)
