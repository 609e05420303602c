"""Links that are mailed: a random token in the letter, its SHA-256 in a row, one purpose, one mailbox, one use.

Source: docs/mail.md, "Links".
"""

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import and_, exists, insert, or_, select
from sqlalchemy.orm import Session, aliased

from portal.models import Address, MailedLink, User, UserAddress
from portal.services import outbox
from portal.services.transaction import reading, transaction

GOOD_FOR: Mapping[str, timedelta] = {
    "invite": timedelta(days=14),
    "log-in": timedelta(minutes=20),
}


class Account(NamedTuple):
    """An account that a link logs in; ``spelling`` is how it writes its mailbox."""

    id: int
    username: str
    password_hash: str
    spelling: str


def make(
    session: Session, purpose: str, *, mailbox: str, account: Account | None, details: Mapping[str, str], now: datetime
) -> str:
    """Make a link and return its token, 256 random bits. The caller's transaction is open."""
    token = secrets.token_urlsafe(32)
    session.execute(
        insert(MailedLink).values(
            token_hash=hashed(token),
            purpose=purpose,
            user_id=account.id if account else None,
            mailbox=mailbox,
            bound_to=hashed(account.password_hash) if account else "",
            details=outbox.as_text(details),
            made_at=now,
            expires_at=now + GOOD_FOR[purpose],
        )
    )
    return token


def make_all(
    session: Session, purpose: str, *, mailbox: str, accounts: Sequence[Account], now: datetime
) -> Sequence[str]:
    """Make a link for each account, in a transaction of its own; return their tokens."""
    with transaction(session):
        return [make(session, purpose, mailbox=mailbox, account=each, details={}, now=now) for each in accounts]


def accounts_at(session: Session, mailbox: str, *, user_id: int | None = None) -> Sequence[Account]:
    """Return the accounts that a link to a mailbox may log in: all of its active holders, or one.

    One with a role counts only where the mailbox is its main address and no other active account holds it.
    """
    other, others_user = aliased(UserAddress), aliased(User)
    is_shared = (
        exists()
        .where(other.address_id == Address.id, other.user_id != User.id)
        .where(others_user.id == other.user_id, others_user.is_active)
        .correlate(Address, User)
    )
    query = (
        select(User.id, User.username, User.password_hash, Address.spelling)
        .join(UserAddress, UserAddress.user_id == User.id)
        .join(Address, Address.id == UserAddress.address_id)
        .where(Address.canonical == mailbox, User.is_active)
        .where(or_(User.is_superuser.is_(False), and_(UserAddress.is_main, ~is_shared)))
        .order_by(User.username_key)
    )
    if user_id is not None:
        query = query.where(User.id == user_id)
    with reading(session):
        return [Account(*row) for row in session.execute(query)]


def hashed(text: str) -> str:
    """Return the SHA-256 of a token, or of what a link is bound to."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
