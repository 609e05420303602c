"""Invitations: mailed links with which people start using their accounts."""

from collections.abc import Collection, Iterable
from datetime import datetime

from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from portal import database
from portal.models import AccountChange, Address, MailRequest, User, UserAddress, UserGroup
from portal.services import outbox
from portal.services.accounts import log as account_log
from portal.services.history import Actor
from portal.services.outbox import Mail, Priority
from portal.services.transaction import reading, transaction

_CHUNK = 1_000  # accounts in one transaction


def invite(session: Session, user_ids: Iterable[int], *, actor: Actor, now: datetime) -> int:
    """Request an invitation for each account, to its main address; return how many were requested.

    Accounts that are inactive, have no address, or have an invitation waiting are skipped. Links sent earlier stay
    valid.
    """
    count = 0
    for chunk in database.chunked(sorted(user_ids), _CHUNK):
        with transaction(session):
            count += len(ask_for(session, chunk, actor=actor, now=now))
    return count


def find_uninvited(session: Session, *, groups: Collection[str] = ()) -> list[int]:
    """Return the ids of active accounts that have never logged in, of all groups or some."""
    query = select(User.id).where(User.is_active, User.last_login_at.is_(None))
    if groups:
        query = query.where(exists().where(UserGroup.user_id == User.id, UserGroup.name.in_(groups)))
    with reading(session):
        return list(session.scalars(query.order_by(User.id)))


def last_at(session: Session, user_id: int) -> datetime | None:
    """Return when an invitation or a log-in link was last requested for an account; None if never."""
    found = select(func.max(AccountChange.at)).where(AccountChange.user_id == user_id, AccountChange.what == "invited")
    with reading(session):
        return session.scalar(found)


def is_waiting() -> ColumnElement[bool]:
    """Return the condition that an invitation of a user is waiting to be sent."""
    return exists().where(
        MailRequest.user_id == User.id, MailRequest.purpose == "invite", MailRequest.state.in_(outbox.OPEN)
    )


def ask_for(session: Session, user_ids: Collection[int], *, actor: Actor, now: datetime) -> list[int]:
    """Request invitations like ``invite``, in the caller's transaction; return the ids of the accounts that get one."""
    query = (
        select(User.id, User.username, Address.canonical)
        .join(UserAddress, UserAddress.user_id == User.id)
        .join(Address, Address.id == UserAddress.address_id)
        .where(User.id.in_(user_ids), User.is_active, UserAddress.is_main, ~is_waiting())
        .order_by(User.id)
    )
    found = session.execute(query).all()
    wanted = [Mail(each.canonical, "invite", each.id, priority=Priority.BULK) for each in found]
    outbox.enqueue(session, wanted, now=now)
    account_log.record(session, [(each.id, each.username) for each in found], "invited", actor=actor)
    return [each.id for each in found]
