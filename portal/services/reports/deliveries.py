"""How lists deliver to members, as last read: no mail, digests, or lost by bouncing."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import and_, func, select
from sqlalchemy.orm import Session

from portal.models import Address, ListReading, MemberDelivery, Preference, UnknownSubscriber
from portal.services.sync.readings import KEPT
from portal.services.transaction import reading


class ListDelivery(NamedTuple):
    """How a list delivers to one address, as spelled; ``is_lost``: the list dropped the person's previous address."""

    handle: str
    address: str
    is_digest: bool
    mail_off: str | None
    since: datetime | None
    is_lost: bool = False


class UnknownSubscribers(NamedTuple):
    """The subscribers without an account; ``read_at`` is None if nobody requested them within a day."""

    addresses: tuple[str, ...]
    total: int
    read_at: datetime | None
    is_asked: bool
    message: str


def lost(session: Session, user_id: int, handles: Collection[str]) -> tuple[ListDelivery, ...]:
    """Return the lists that a user lost by bouncing at an address that they have since moved from."""
    query = (
        select(MemberDelivery.list_handle, Address.spelling, MemberDelivery.since)
        .join(Address, Address.id == MemberDelivery.address_id)
        .join(Preference, _of_delivery())
        .where(Preference.left_by == user_id, Preference.moved_to.is_not(None), Preference.source == "list")
        .where(~Preference.subscribed, MemberDelivery.mail_off == "bounces")
        .where(MemberDelivery.list_handle.in_(sorted(handles)))
        .order_by(MemberDelivery.list_handle)
    )
    with reading(session):
        rows = session.execute(query)
        return tuple(ListDelivery(handle, address, False, "bounces", since, True) for handle, address, since in rows)


def counts(session: Session, handle: str) -> dict[str, int]:
    """Count a list's members without mail, by reason, and those with digests."""
    kind = func.coalesce(MemberDelivery.mail_off, "digest")
    query = (
        select(kind, func.count())
        .join(Preference, _of_delivery())
        .where(MemberDelivery.list_handle == handle, Preference.seen.is_(True), MemberDelivery.read_at.is_not(None))
        .group_by(kind)
    )
    with reading(session):
        return {row[0]: row[1] for row in session.execute(query)}


def without_account(session: Session, handle: str, *, now: datetime, number: int, size: int) -> UnknownSubscribers:
    """Return a page, counted from 1, of the subscribers without an account that were read within the last day."""
    fresh = and_(UnknownSubscriber.list_handle == handle, UnknownSubscriber.read_at > now - KEPT)
    query = select(UnknownSubscriber.address).where(fresh).order_by(UnknownSubscriber.number)
    of_list = select(ListReading.asked_at, ListReading.unknown_read_at, ListReading.message)
    with reading(session):
        row: Any = session.execute(of_list.where(ListReading.list_handle == handle)).first()
        addresses = tuple(session.scalars(query.limit(size).offset((number - 1) * size)))
        total = session.scalar(select(func.count()).select_from(UnknownSubscriber).where(fresh)) or 0
    read_at = row.unknown_read_at if row and row.unknown_read_at and row.unknown_read_at > now - KEPT else None
    return UnknownSubscribers(addresses, total, read_at, bool(row and row.asked_at), row.message if row else "")


def _of_delivery() -> Any:
    return and_(
        Preference.list_handle == MemberDelivery.list_handle, Preference.address_id == MemberDelivery.address_id
    )
