"""The history of a member's own addresses on the lists, for that member: nobody else is named."""

from collections.abc import Collection
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.models import Address, History, UserAddress
from portal.services import paging
from portal.services.history import NEW_MEMBER
from portal.services.paging import Paged


class Event(NamedTuple):
    """A change.

    ``by`` is its source, "other" for a choice of another holder of the address, or "new member" if the list subscribed
    its holder as one.
    """

    at: datetime
    list_handle: str
    address: str  # as spelled
    subscribed: bool
    by: str


def page(session: Session, user_id: int, *, handles: Collection[str], number: int = 1) -> Paged[Event]:
    """Return a page of the changes of a user's current addresses on some lists, newest first."""
    query: Any = (
        select(History, Address.spelling)
        .join(Address, Address.id == History.address_id)
        .join(UserAddress, UserAddress.address_id == Address.id)
        .where(UserAddress.user_id == user_id, History.list_handle.in_(sorted(handles)))
        .order_by(History.id.desc())
    )
    return paging.page(session, query, lambda row: _event(row[0], row[1], user_id), number=number)


def _event(row: History, spelling: str, user_id: int) -> Event:
    by = NEW_MEMBER if row.source == "rule" and row.reason == NEW_MEMBER else row.source
    if row.actor_id == user_id and by == "superuser":
        by = "user"  # superusers are members too
    elif row.actor_id != user_id and by == "user":
        by = "other"
    return Event(row.at, row.list_handle, spelling, row.subscribed, by)
