"""Invitations: a link with which somebody begins to use their account, to one person or to many."""

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from portal import database
from portal.models import Address, MailRequest, User, UserAddress, UserGroup
from portal.services import outbox
from portal.services.accounts import log as account_log
from portal.services.history import Actor
from portal.services.outbox import Priority, Wanted
from portal.services.transaction import reading, transaction

_CHUNK = 1_000  # accounts in one transaction


def invite(session: Session, user_ids: Iterable[int], *, actor: Actor, now: datetime) -> int:
    """Ask for an invitation to each of some accounts at its main address; return how many there will be.

    Who is inactive or has no address is passed over, and so is who has one waiting already. A link that was sent before
    stays good.
    """
    return sum(
        _invite(session, User.id.in_(chunk), actor=actor, now=now)
        for chunk in database.chunked(sorted(user_ids), _CHUNK)
    )


def find_uninvited(session: Session, *, groups: Collection[str] = ()) -> list[int]:
    """Return the active accounts, of some groups or all, that have never logged in."""
    query = select(User.id).where(User.is_active, User.last_login_at.is_(None))
    if groups:
        query = query.where(exists().where(UserGroup.user_id == User.id, UserGroup.name.in_(groups)))
    with reading(session):
        return list(session.scalars(query.order_by(User.id)))


def _invite(session: Session, condition: ColumnElement[bool], *, actor: Actor, now: datetime) -> int:
    waits = exists().where(
        MailRequest.user_id == User.id, MailRequest.purpose == "invite", MailRequest.state.in_(outbox.OPEN)
    )
    query = (
        select(User.id, User.username, Address.canonical)
        .join(UserAddress, UserAddress.user_id == User.id)
        .join(Address, Address.id == UserAddress.address_id)
        .where(condition, User.is_active, UserAddress.is_main, ~waits)
        .order_by(User.id)
    )
    with transaction(session):
        found = session.execute(query).all()
        wanted = [Wanted(each.canonical, "invite", each.id, priority=Priority.BULK) for each in found]
        outbox.ask(session, wanted, now=now)
        account_log.record(session, [(each.id, each.username) for each in found], "invited", actor=actor)
    return len(found)
