"""What became of a member's own addresses on the lists, for themselves: nobody else is named."""

from collections.abc import Collection
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.models import Address, History, UserAddress
from portal.services.history import NEW_MEMBER
from portal.services.transaction import reading

PAGE = 50


class Event(NamedTuple):
    """One change.

    ``by`` is its source, "other" for a choice of another holder of the address, or "new member" where the list
    subscribed its holder, who was new.
    """

    at: datetime
    list_handle: str
    address: str  # as spelled
    subscribed: bool
    by: str


class Events(NamedTuple):
    """A page of changes, the newest first; ``before`` is where the next page begins, if there is one."""

    events: tuple[Event, ...]
    before: int | None


def events(
    session: Session, user_id: int, *, handles: Collection[str], before: int | None = None, limit: int = PAGE
) -> Events:
    """Return what became of the addresses that a user holds now, on some lists."""
    query = (
        select(History, Address.spelling)
        .join(Address, Address.id == History.address_id)
        .join(UserAddress, UserAddress.address_id == Address.id)
        .where(UserAddress.user_id == user_id, History.list_handle.in_(sorted(handles)))
        .order_by(History.id.desc())
        .limit(limit + 1)
    )
    if before is not None:
        query = query.where(History.id < before)
    with reading(session):
        found = session.execute(query).all()
        shown = tuple(_event(row, spelling, user_id) for row, spelling in found[:limit])
        next_page = found[limit - 1][0].id if len(found) > limit else None
    return Events(shown, next_page)


def _event(row: History, spelling: str, user_id: int) -> Event:
    by = NEW_MEMBER if row.source == "rule" and row.reason == NEW_MEMBER else row.source
    if row.actor_id == user_id and by == "superuser":
        by = "user"  # superusers are members too
    elif row.actor_id != user_id and by == "user":
        by = "other"
    return Event(row.at, row.list_handle, spelling, row.subscribed, by)
