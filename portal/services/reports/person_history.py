"""What became of one person's addresses on the lists, with who did it: for superusers."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.models import Address, History, UserAddress
from portal.services.transaction import reading


class PersonLine(NamedTuple):
    """One change of a preference; ``address`` as spelled."""

    id: int
    at: datetime
    list_handle: str
    address: str
    subscribed: bool
    source: str
    actor: str
    reason: str


def lines(session: Session, user_id: int, *, before: int | None = None, limit: int) -> tuple[PersonLine, ...]:
    """Return the changes of the addresses that a user holds now, the newest first, or those older than one of them."""
    query = (
        select(History.id, History.at, History.list_handle, Address.spelling, History.subscribed)
        .add_columns(History.source, History.actor, History.reason)
        .join(Address, Address.id == History.address_id)
        .join(UserAddress, UserAddress.address_id == Address.id)
        .where(UserAddress.user_id == user_id)
        .order_by(History.id.desc())
        .limit(limit)
    )
    if before is not None:
        query = query.where(History.id < before)
    with reading(session):
        return tuple(map(PersonLine._make, session.execute(query)))
