"""list-init: the first preference of every managed address is taken from the roster.

It works on sets and in chunks, so that a roster of a million lines takes little memory and keeps no member waiting. It
applies only rule 1 of the merge. Source: docs/semantics.md, "list-init".
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
    """The counts of a list-init, in distinct addresses, except ``invalid``, which counts lines.

    ``subscribed`` and ``unsubscribed`` got their first preference; ``kept`` already had one; ``unknown`` are on the
    roster but held by no account.
    """

    subscribed: int
    unsubscribed: int
    kept: int
    unknown: int
    invalid: int


def _noted(name: str, *columns: Column[Any]) -> Table:
    number = Column("address_id", Integer, primary_key=True, autoincrement=False)
    return Table(name, MetaData(), number, *columns, prefixes=["TEMPORARY"])


# Everything to write is noted first, so that it can be written in chunks.
_KNOWN = _noted("portal_known")  # addresses on the roster that the portal knows
_FIRST_PREFERENCES = _noted("portal_firsts", Column("on_roster", Boolean, nullable=False))  # first preferences
_AGREED = _noted("portal_agreed", Column("on_roster", Boolean, nullable=False))  # preferences that agree with it
_ON_ROSTER = _KNOWN.c.address_id.is_not(None)


def list_init(
    session: Session, mailing_list: MailingList, text: RosterText, *, now: datetime, allow_empty: bool = False
) -> Counts:
    """Give every managed address without a preference the one from a roster; never change an existing one.

    Raise UnreadableRosterError; NoAddressesError for input without an address, unless ``allow_empty``;
    RosterInDoubtError if a list would be empty that should not be; LeaseHeldError; PausedError. Nothing has been
    written then.
    """
    mailing_list.require_running()
    with leases.held(session, mailing_list.handle) as lease, database.dedicated(session) as own:
        with scratch(own):
            on_roster = database.load_roster(own.connection(), (line.canonical for line in text))
        leases.renew(session, lease)  # reading the input may have taken long
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
    """Give every managed address without a preference the one from a roster of canonical addresses.

    This is for a run, which has planned it and holds the list.
    """
    with database.dedicated(session) as own:
        with scratch(own):
            database.load_roster(own.connection(), roster)
            mark = preference_rows.mark_accounts(own)
            database.fill_temporary(own, _KNOWN, _known())
            database.fill_temporary(own, _FIRST_PREFERENCES, _first_preferences(mailing_list))
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
    """Raise NoAddressesError for input without an address, unless it is empty and was allowed to be."""
    if allow_empty and not text.invalid:
        return
    found = f"contains no address, only {text.invalid} lines of something else" if text.invalid else "is empty"
    raise NoAddressesError(
        f"the input {found}; check the command before the pipe. "
        "If the list really is empty, run again with: --allow-empty"
    )


def _prepare(session: Session, mailing_list: MailingList, *, on_roster: int, invalid: int) -> Counts:
    """Note what there is to write, and count it."""
    database.fill_temporary(session, _KNOWN, _known())
    database.fill_temporary(session, _FIRST_PREFERENCES, _first_preferences(mailing_list))
    database.fill_temporary(session, _AGREED, _newly_agreed(mailing_list))
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


def counts_of_plan(session: Session, mailing_list: MailingList, plan: Plan, *, invalid: int) -> Counts:
    """Return the counts of the list-init that is the first half of a planned run."""
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
    """Return the addresses of the roster that the address table has, reading both in the same order.

    The ``concat`` prevents the reverse, where each address would be looked up in the roster in random order.
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
    """Return the preferences that agree with the roster but are not stored as seen so.

    Addresses that are not managed are included: where shell pipes replace a run, get-unsubscribed judges departures by
    *seen*.
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
    """Yield ranges of the noted ids, and let other writers in after each."""
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
