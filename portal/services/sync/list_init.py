"""list-init: the first preference of every managed address is what the roster says.

Set-based and in chunks, so that a roster of a million lines takes little memory and keeps no member waiting.
Source: docs/semantics.md, "list-init". It decides by rule 1 of the merge alone.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Integer,
    MetaData,
    Table,
    and_,
    except_,
    exists,
    func,
    insert,
    or_,
    select,
)
from sqlalchemy.orm import Session

from portal import database
from portal.database import ROSTER, IdRange
from portal.domain.mailinglist import MailingList
from portal.domain.plan import Plan
from portal.domain.roster_text import RosterText
from portal.errors import NoAddressesError, RosterInDoubtError
from portal.models import Address, Preference, UserAddress
from portal.services import preference_rows
from portal.services.accounts.addresses import is_managed, managed_ids
from portal.services.preference_rows import AccountsMark
from portal.services.sync import leases, plans
from portal.services.transaction import reading, scratch, transaction


@dataclass(frozen=True)
class Counts:
    """What list-init did: distinct addresses, and ``invalid`` lines.

    ``subscribed`` and ``unsubscribed`` got their first preference; ``kept`` have one already; ``unknown`` are on the
    roster and nobody's here.
    """

    subscribed: int
    unsubscribed: int
    kept: int
    unknown: int
    invalid: int


def _noted(name: str, *columns: Column[Any]) -> Table:
    number = Column("address_id", Integer, primary_key=True, autoincrement=False)
    return Table(name, MetaData(), number, *columns, prefixes=["TEMPORARY"])


# What there is to do, noted before anything is written, so that it can be done in chunks.
_KNOWN = _noted("portal_known")  # the addresses of the roster that are ours
_FIRST_PREFERENCES = _noted("portal_firsts", Column("on_roster", Boolean, nullable=False))  # first preferences
_AGREED = _noted("portal_agreed", Column("on_roster", Boolean, nullable=False))  # preferences that the roster shares
_ON_ROSTER = _KNOWN.c.address_id.is_not(None)


def list_init(
    session: Session, mailing_list: MailingList, text: RosterText, *, now: datetime, allow_empty: bool = False
) -> Counts:
    """Give every managed address without a preference the one that a roster says; never change one that exists.

    Raise UnreadableRosterError; NoAddressesError for input without an address, unless ``allow_empty``;
    RosterInDoubtError where a list that should not be empty would be; LeaseHeldError; PausedError. Nothing has been
    written then.
    """
    mailing_list.require_running()
    with leases.held(session, mailing_list.handle) as lease, database.dedicated(session) as own:
        with scratch(own):
            on_roster = database.load_roster(own.connection(), (line.canonical for line in text))
        leases.renew(session, lease)  # the input may have taken its time
        with reading(own):
            _require_believable(own, mailing_list, on_roster, text, allow_empty=allow_empty)
        with scratch(own):
            mark = preference_rows.mark_accounts(own)
            counts = _prepare(own, mailing_list, on_roster=on_roster, invalid=text.invalid)
        _write_first_preferences(own, mailing_list, mark, now=now)
        for ids in _chunks(own, _AGREED):
            with transaction(own):
                preference_rows.write_noted_seen(own, mailing_list.handle, _AGREED, ids)
    return counts


def write_first_preferences(
    session: Session, mailing_list: MailingList, roster: Iterable[str], *, now: datetime
) -> None:
    """Give every managed address without a preference the one that a roster of canonical addresses says.

    For a run, which has planned it and holds the list.
    """
    with database.dedicated(session) as own:
        with scratch(own):
            database.load_roster(own.connection(), roster)
            mark = preference_rows.mark_accounts(own)
            _note(own, _KNOWN, _known())
            _note(own, _FIRST_PREFERENCES, _first_preferences(mailing_list))
        _write_first_preferences(own, mailing_list, mark, now=now)


def _write_first_preferences(session: Session, mailing_list: MailingList, mark: AccountsMark, *, now: datetime) -> None:
    for ids in _chunks(session, _FIRST_PREFERENCES):
        with transaction(session):
            preference_rows.write_noted_first_preferences(
                session, mailing_list.handle, _FIRST_PREFERENCES, ids, mark=mark, now=now
            )


def _require_believable(
    session: Session, mailing_list: MailingList, on_roster: int, text: RosterText, *, allow_empty: bool
) -> None:
    if on_roster:
        return
    require_announced(text, allow_empty=allow_empty)
    expected = plans.count_staying(session, mailing_list.handle, leaving=())
    if expected:
        raise RosterInDoubtError(
            f"{mailing_list.handle}: the roster is empty although {expected} subscribed addresses were on it; if the "
            "list really is empty, run a sync or a planned run",
            plan_id="",
        )


def require_announced(text: RosterText, *, allow_empty: bool) -> None:
    """Raise NoAddressesError for input without an address, unless it was announced to be empty, and is."""
    if allow_empty and not text.invalid:
        return
    found = f"contains no address, only {text.invalid} lines of something else" if text.invalid else "is empty"
    raise NoAddressesError(
        f"the input {found}; check the command before the pipe. "
        "If the list really is empty, run again with: --allow-empty"
    )


def _prepare(session: Session, mailing_list: MailingList, *, on_roster: int, invalid: int) -> Counts:
    """Note what there is to do, and count it."""
    _note(session, _KNOWN, _known())
    _note(session, _FIRST_PREFERENCES, _first_preferences(mailing_list))
    _note(session, _AGREED, _newly_agreed(mailing_list))
    by_roster = select(_FIRST_PREFERENCES.c.on_roster, func.count()).group_by(_FIRST_PREFERENCES.c.on_roster)
    first_preferences: dict[bool, int] = dict(iter(session.execute(by_roster)))
    held = exists().where(UserAddress.address_id == _KNOWN.c.address_id)
    return Counts(
        subscribed=first_preferences.get(True, 0),
        unsubscribed=first_preferences.get(False, 0),
        kept=_count_managed(session, mailing_list),
        unknown=on_roster - session.execute(select(func.count()).select_from(_KNOWN).where(held)).scalar_one(),
        invalid=invalid,
    )


def _note(session: Session, table: Table, query: Any) -> None:
    session.execute(database.drop_temporary(table))
    table.create(session.connection())
    session.execute(insert(table).from_select(table.columns.keys(), query))
    database.analyze(session, table)


def counts_of_plan(session: Session, mailing_list: MailingList, plan: Plan, *, invalid: int) -> Counts:
    """Return what the first half of a planned run, which is a list-init too, did."""
    first_preferences = plan.all_first_preferences
    with reading(session):
        kept = _count_managed(session, mailing_list) - sum(first_preferences)
    return Counts(first_preferences.on_roster, first_preferences.off_roster, kept, plan.without_account, invalid)


def _count_managed(session: Session, mailing_list: MailingList) -> int:
    """Count the managed addresses that have a preference."""
    query = select(func.count()).select_from(Address).join(Preference, _preference_of(mailing_list))
    count: int = session.execute(query.where(is_managed(mailing_list))).scalar_one()
    return count


def _preference_of(mailing_list: MailingList) -> Any:
    return and_(Preference.list_handle == mailing_list.handle, Preference.address_id == Address.id)


def _known() -> Any:
    """Return the addresses of the roster that are in the table of addresses, read in the order of both.

    The other way round, each address would be searched for in the roster, in no order. ``concat`` sees to it.
    """
    return (
        select(Address.id)
        .select_from(ROSTER)
        .join(Address, Address.canonical == ROSTER.c.canonical.concat(""))
        .order_by(Address.id)
    )


def _first_preferences(mailing_list: MailingList) -> Any:
    chosen = select(Preference.address_id).where(Preference.list_handle == mailing_list.handle)
    bare = except_(managed_ids(mailing_list), chosen).order_by("address_id").subquery()
    return (
        select(bare.c.address_id, _ON_ROSTER)
        .select_from(bare)
        .outerjoin(_KNOWN, _KNOWN.c.address_id == bare.c.address_id)
        .order_by(bare.c.address_id)
    )


def _newly_agreed(mailing_list: MailingList) -> Any:
    """Return the preferences that the roster agrees with and that are not known to be seen so.

    Managed or not: where shell pipes do the work of a run, get-unsubscribed judges departures by what was seen.
    """
    return (
        select(Preference.address_id, _ON_ROSTER)
        .outerjoin(_KNOWN, _KNOWN.c.address_id == Preference.address_id)
        .where(
            Preference.list_handle == mailing_list.handle,
            Preference.subscribed == _ON_ROSTER,
            or_(Preference.seen.is_(None), Preference.seen != Preference.subscribed),
        )
        .order_by(Preference.address_id)
    )


def _chunks(session: Session, table: Table) -> Iterator[IdRange]:
    """Yield the chunks of what is noted, and let other writers in after each."""
    number = table.c.address_id
    last = 0
    while True:
        following = select(number).where(number > last).order_by(number).limit(database.chunk_size(session)).subquery()
        with reading(session):
            first, last = last + 1, session.execute(select(func.max(following.c.address_id))).scalar_one()
        if last is None:
            return
        yield IdRange(first, last)
        database.pause(session)
