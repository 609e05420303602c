"""What happened to one person's addresses on the lists, and who did it: for superusers."""

from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, select
from sqlalchemy.orm import Session, aliased

from portal.models import Address, History, Preference, UserAddress
from portal.services import paging
from portal.services.paging import Paged
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


def page(session: Session, user_id: int, *, number: int = 1) -> Paged[PersonLine]:
    """Return a page of the changes of the addresses that a user holds now, newest first."""
    return paging.page(session, _changes(user_id), PersonLine._make, number=number)


def latest(session: Session, user_id: int, *, limit: int) -> tuple[PersonLine, ...]:
    """Return the latest changes of the addresses that a user holds now, newest first."""
    with reading(session):
        return tuple(map(PersonLine._make, session.execute(_changes(user_id).limit(limit))))


def moved_from(session: Session, user_id: int) -> dict[str, str]:
    """Return the lists whose choice came along with a change of address: the earlier address as spelled, by handle.

    A later choice ends this, and so does the deletion of the earlier address.
    """
    earlier = aliased(Address)
    query = (
        select(Preference.list_handle, earlier.spelling)
        .join(UserAddress, UserAddress.address_id == Preference.address_id)
        .join(earlier, earlier.id == Preference.moved_from)
        .where(UserAddress.user_id == user_id, Preference.source == "rule")
    )
    with reading(session):
        return dict(session.execute(query).all())


def _changes(user_id: int) -> Select[Any]:
    return (
        select(History.id, History.at, History.list_handle, Address.spelling, History.subscribed)
        .add_columns(History.source, History.actor, History.reason)
        .join(Address, Address.id == History.address_id)
        .join(UserAddress, UserAddress.address_id == Address.id)
        .where(UserAddress.user_id == user_id)
        .order_by(History.id.desc())
    )
