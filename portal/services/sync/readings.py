"""Readings of lists outside their runs: how a list delivers to members, and its subscribers without an account.

Lists are read once a day, or when a page requests it, and never changed. A page writes a row, and the command that cron
runs every minute reads. Only this module writes these tables.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, delete, exists, insert, or_, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import printable
from portal.domain.delivery import Delivery
from portal.domain.mailinglist import MailingList
from portal.errors import PortalError
from portal.listmanagers.base import KnowsDelivery, ListManager
from portal.models import Address, ListReading, MemberDelivery, Preference, UnknownSubscriber
from portal.services.accounts.addresses import is_held
from portal.services.sync.run_steps import Roster
from portal.services.sync.sync import read_roster
from portal.services.transaction import reading, transaction

EVERY = timedelta(days=1)
KEPT = timedelta(days=1)  # for subscribers without an account
KNOWN_FOR = timedelta(days=90)  # for an address that has left the list
_TAKES = timedelta(hours=1)  # after which another process tries again

Clock = Callable[[], datetime]
KnownDelivery = tuple[str | None, datetime | None]  # why mail is off, and since when


class DueReading(NamedTuple):
    """What to read of a list: all members, some addresses, or subscribers without an account."""

    handle: str
    of_all: bool
    address_ids: tuple[int, ...]
    unknown: bool


def enrol(session: Session, handles: Collection[str], *, now: datetime) -> None:
    """Schedule daily readings of lists, the first in a day; existing schedules stay."""
    with reading(session):
        known = set(session.scalars(select(ListReading.list_handle)))
    missing = [{"list_handle": each, "due_at": now + EVERY} for each in sorted(set(handles) - known)]
    if missing:
        with transaction(session):
            session.execute(database.insert(session, ListReading).values(missing).on_conflict_do_nothing())


def request_unknown(session: Session, handle: str, *, now: datetime) -> None:
    """Request a reading of the subscribers without an account."""
    row = database.insert(session, ListReading).values(list_handle=handle, due_at=now + EVERY, asked_at=now, message="")
    values = {"asked_at": now, "message": ""}
    with transaction(session):
        session.execute(row.on_conflict_do_update(index_elements=["list_handle"], set_=values))


def request_deliveries(
    session: Session, address_ids: Collection[int], handles: Collection[str], *, now: datetime
) -> int:
    """Request how lists deliver to addresses that were seen on them; return the number of requests."""
    seen = select(Preference.list_handle, Preference.address_id).where(
        Preference.address_id.in_(sorted(address_ids)), Preference.list_handle.in_(sorted(handles))
    )
    with transaction(session):
        found = session.execute(seen.where(Preference.seen.is_(True))).all()
        rows = [{"list_handle": each.list_handle, "address_id": each.address_id, "asked_at": now} for each in found]
        if rows:
            upsert = database.insert(session, MemberDelivery).values(rows)
            key = ["list_handle", "address_id"]
            session.execute(upsert.on_conflict_do_update(index_elements=key, set_={"asked_at": now}))
    return len(rows)


def due(session: Session, handles: Collection[str], *, now: datetime) -> list[DueReading]:
    """Return the readings of lists that are due."""
    asked: dict[str, list[int]] = {}
    of_addresses = select(MemberDelivery.list_handle, MemberDelivery.address_id).where(
        MemberDelivery.asked_at.is_not(None), MemberDelivery.list_handle.in_(sorted(handles))
    )
    of_lists = select(ListReading.list_handle, ListReading.due_at, ListReading.asked_at).where(
        ListReading.list_handle.in_(sorted(handles))
    )
    with reading(session):
        for handle, address_id in session.execute(of_addresses):
            asked.setdefault(handle, []).append(address_id)
        lists = session.execute(of_lists.order_by(ListReading.list_handle)).all()
    known = {each.list_handle: each for each in lists}
    found = [
        DueReading(
            handle,
            handle in known and _is_due(known[handle].due_at, now=now),
            tuple(asked.get(handle, ())),
            handle in known and known[handle].asked_at is not None,
        )
        for handle in sorted({*known, *asked})
    ]
    return [each for each in found if each.of_all or each.address_ids or each.unknown]


def _is_due(due_at: datetime, *, now: datetime) -> bool:
    """Return True if a time has passed, or was set by a clock that was far ahead."""
    return due_at <= now or due_at > now + 2 * EVERY


def carry_out(
    session: Session,
    wanted: DueReading,
    mailing_list: MailingList,
    open_manager: Callable[[], ListManager],
    *,
    clock: Clock,
) -> None:
    """Carry out a reading unless another process does; an error is stored for the page and raised."""
    if not _claim(session, wanted, now=clock()):
        return
    try:
        manager = open_manager()
        if wanted.unknown:
            _read_unknown(session, mailing_list.handle, read_roster(manager.roster()), now=clock())
        if isinstance(manager, KnowsDelivery) and (wanted.of_all or wanted.address_ids):
            _read_deliveries(session, wanted, manager, clock=clock)
        _settle(session, wanted, due_at=clock() + EVERY, message="")
    except PortalError as error:
        _settle(session, wanted, due_at=clock() + _TAKES, message=str(error)[:200])
        raise


def thin(session: Session, handles: Collection[str], *, now: datetime) -> None:
    """Delete subscribers without an account after a day, and deliveries of addresses that left long ago."""
    old = or_(UnknownSubscriber.read_at <= now - KEPT, UnknownSubscriber.list_handle.not_in(sorted(handles)))
    gone = and_(MemberDelivery.read_at <= now - KNOWN_FOR, MemberDelivery.asked_at.is_(None))
    with reading(session):
        is_needed = session.scalar(select(or_(exists().where(old), exists().where(gone))))
    if is_needed:
        with transaction(session):
            session.execute(delete(UnknownSubscriber).where(old))
            session.execute(delete(MemberDelivery).where(gone))


def rename_list(session: Session, old: str, new: str) -> None:
    """Delete what was read under a list's old handle; it is read again."""
    session.execute(delete(ListReading).where(ListReading.list_handle.in_([old, new])))
    session.execute(delete(MemberDelivery).where(MemberDelivery.list_handle.in_([old, new])))
    session.execute(delete(UnknownSubscriber).where(UnknownSubscriber.list_handle.in_([old, new])))


def _claim(session: Session, wanted: DueReading, *, now: datetime) -> bool:
    """Claim a reading for this process; return False if another has done it."""
    is_due = or_(ListReading.due_at <= now, ListReading.due_at > now + 2 * EVERY)
    of_list = update(ListReading).where(ListReading.list_handle == wanted.handle)
    of_addresses = update(MemberDelivery).where(
        MemberDelivery.list_handle == wanted.handle, MemberDelivery.asked_at.is_not(None)
    )
    claims = (
        (wanted.of_all, of_list.where(is_due).values(due_at=now + _TAKES).returning(ListReading.list_handle)),
        (
            wanted.unknown,
            of_list.where(ListReading.asked_at.is_not(None)).values(asked_at=None).returning(ListReading.list_handle),
        ),
        (wanted.address_ids, of_addresses.values(asked_at=None).returning(MemberDelivery.list_handle)),
    )
    with transaction(session):
        taken = [session.execute(claim).first() is not None for is_wanted, claim in claims if is_wanted]
    return any(taken)


def _settle(session: Session, wanted: DueReading, *, due_at: datetime, message: str) -> None:
    if not (wanted.of_all or wanted.unknown):
        return
    values: dict[str, Any] = {"message": message}
    if wanted.of_all:
        values["due_at"] = due_at
    with transaction(session):
        session.execute(update(ListReading).where(ListReading.list_handle == wanted.handle).values(**values))


def _read_unknown(session: Session, handle: str, roster: Roster, *, now: datetime) -> None:
    """Store the subscribers without an account, replacing those read before."""
    left = dict(roster)
    with reading(session):
        for block in database.stream(session.connection(), select(Address.canonical).where(is_held())):
            for (canonical,) in block:
                left.pop(canonical, None)
    rows = [
        {
            "list_handle": handle,
            "number": number,
            "address": printable(left[each].partition("\n")[0], limit=254),
            "read_at": now,
        }
        for number, each in enumerate(sorted(left), 1)
    ]
    with transaction(session):
        session.execute(delete(UnknownSubscriber).where(UnknownSubscriber.list_handle == handle))
        if rows:
            session.execute(insert(UnknownSubscriber), rows)
        session.execute(
            update(ListReading).where(ListReading.list_handle == handle).values(unknown_read_at=now, message="")
        )


def _read_deliveries(session: Session, wanted: DueReading, manager: KnowsDelivery, *, clock: Clock) -> None:
    """Read how a list delivers, in batches, and store each batch separately."""
    seen = (
        select(Address.id, Address.canonical)
        .join(Preference, Preference.address_id == Address.id)
        .where(Preference.list_handle == wanted.handle, Preference.seen.is_(True))
    )
    if not wanted.of_all:
        seen = seen.where(Address.id.in_(wanted.address_ids))
    with reading(session):
        ids = {canonical: address_id for address_id, canonical in session.execute(seen.order_by(Address.id))}
    for batch in database.chunked(list(ids), manager.batch):
        found = manager.deliveries(batch)
        if found is None:  # this installation cannot report it
            return
        _keep(session, wanted.handle, {ids[each]: found.get(each, Delivery()) for each in batch}, now=clock())


def _keep(session: Session, handle: str, found: Mapping[int, Delivery], *, now: datetime) -> None:
    """Store unusual deliveries; mail is off since the first reading if the list manager gives no date."""
    of_list = MemberDelivery.list_handle == handle
    with transaction(session):
        known = {
            each.address_id: (each.mail_off, each.since)
            for each in session.execute(
                select(MemberDelivery.address_id, MemberDelivery.mail_off, MemberDelivery.since).where(
                    of_list, MemberDelivery.address_id.in_(sorted(found))
                )
            )
        }
        rows = list(_rows(handle, found, known, now=now))
        session.execute(delete(MemberDelivery).where(of_list, MemberDelivery.address_id.in_(sorted(found))))
        if rows:
            session.execute(insert(MemberDelivery), rows)


def _rows(
    handle: str,
    found: Mapping[int, Delivery],
    known: Mapping[int, KnownDelivery],
    *,
    now: datetime,
) -> Iterable[dict[str, Any]]:
    for address_id, each in found.items():
        if each.is_usual:
            continue
        was_off, was_since = known.get(address_id, (None, None))
        first_seen = was_since if was_off == each.mail_off and was_since else now
        yield {
            "list_handle": handle,
            "address_id": address_id,
            "is_digest": each.is_digest,
            "mail_off": each.mail_off and each.mail_off.value,
            "since": (each.since or first_seen) if each.mail_off else None,
            "read_at": now,
        }
