"""Mailed links: a random token in the letter, its SHA-256 in a row, one purpose, one mailbox, one use.

Source: docs/mail.md, "Links".
"""

import hashlib
import secrets
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, exists, insert, or_, select, update
from sqlalchemy.orm import Session, aliased

from portal import translation
from portal.domain.address import canonical
from portal.errors import LinkRefusedError
from portal.models import Address, MailedLink, User, UserAddress
from portal.services import outbox, security_log
from portal.services.accounts import rate_limits, sessions
from portal.services.accounts.sessions import Origin
from portal.services.outbox import Mail
from portal.services.transaction import reading, rehearsal, transaction
from portal.translation import marked

GOOD_FOR: Mapping[str, timedelta] = {
    "confirm": timedelta(hours=24),
    "invite": timedelta(days=14),
    "leave": timedelta(hours=24),
    "log-in": timedelta(minutes=20),
    "undo": timedelta(hours=72),
}
REFUSAL = marked("the link is not valid: it has been used, has expired, or is no longer for you")
_LOGS_IN = frozenset({"invite", "log-in"})
_AHEAD = timedelta(minutes=1)  # tolerance between hosts; a link from further ahead was made by a wrong clock
_LONGEST_TOKEN = 100  # characters


class Account(NamedTuple):
    """An account that a link logs in to; ``spelling`` is its spelling of the mailbox."""

    id: int
    username: str
    password_hash: str
    spelling: str


def make(
    session: Session,
    purpose: str,
    *,
    mailbox: str,
    now: datetime,
    user_id: int | None = None,
    password_hash: str | None = None,
    details: Mapping[str, str] | None = None,
) -> str:
    """Make a link and return its token of 256 random bits, in the caller's transaction.

    With ``password_hash`` the link is valid only as long as the account has that password.
    """
    token = secrets.token_urlsafe(32)
    session.execute(
        insert(MailedLink).values(
            token_hash=hashed(token),
            purpose=purpose,
            user_id=user_id,
            mailbox=mailbox,
            bound_to="" if password_hash is None else hashed(password_hash),
            details=outbox.as_text(details or {}),
            made_at=now,
            expires_at=now + GOOD_FOR[purpose],
        )
    )
    return token


def make_all(
    session: Session, purpose: str, *, mailbox: str, accounts: Sequence[Account], now: datetime
) -> Sequence[str]:
    """Make a link for each account, in one transaction; return their tokens."""
    with transaction(session):
        return [
            make(session, purpose, mailbox=mailbox, now=now, user_id=each.id, password_hash=each.password_hash)
            for each in accounts
        ]


def request(
    session: Session,
    purpose: str,
    typed: str,
    *,
    place: str,
    now: datetime,
    user_id: int | None = None,
    details: Mapping[str, str] | None = None,
) -> None:
    """Request a link to a mailbox; who gets it is decided when it is sent, so any typed address is accepted.

    ``user_id`` and ``details`` describe a link that a member requests.

    Past a rate limit the same work is done but nothing is requested, and only the security log shows it. Raise
    InvalidAddressError.
    """
    mailbox, ip = canonical(typed), rate_limits.place(place)
    keys = [
        rate_limits.key("mail to mailbox from place", mailbox, ip),
        rate_limits.key("mail to mailbox", mailbox),
        rate_limits.key("mail from place", ip),
    ]
    unit = transaction if rate_limits.is_within(session, keys, now=now) else rehearsal
    with unit(session):
        said = {**(details or {}), "language": translation.in_use()}
        outbox.enqueue(session, [Mail(mailbox, purpose, user_id, said, place)], now=now)


class Link(NamedTuple):
    """A valid link; ``username`` is that of its account, if it is for one."""

    purpose: str
    mailbox: str
    user_id: int | None
    username: str | None
    details: Mapping[str, str]
    made_at: datetime
    expires_at: datetime


def look_up(session: Session, token: str, *, now: datetime) -> Link:
    """Return what a token is for, without using it. Raise LinkRefusedError if it is not valid."""
    with reading(session):
        row = find(session, token, now=now)
        if row.user_id is not None and row.purpose in _LOGS_IN:
            _require_account(session, row)
        username = session.scalar(select(User.username).where(User.id == row.user_id)) if row.user_id else None
    details = outbox.as_details(row.details)
    return Link(row.purpose, row.mailbox, row.user_id, username, details, row.made_at, row.expires_at)


class LinkLogIn(NamedTuple):
    """A log-in by a link: the account, the token of its session, and the purpose of the link."""

    user_id: int
    token: str
    purpose: str


def log_in(session: Session, token: str, *, origin: Origin, now: datetime) -> LinkLogIn:
    """Use a link to log in. It works once, even if it is used concurrently. Others for the same purpose end.

    The account must still be active, hold the mailbox, and have the password from when the link was made. Raise
    LinkRefusedError.
    """
    with transaction(session):
        row = find(session, token, now=now, purposes=_LOGS_IN)
        account = _require_account(session, row)
        opened = sessions.open_by_link(session, account.id, password_hash=account.password_hash, origin=origin, now=now)
        if opened is None:
            raise LinkRefusedError(REFUSAL)
        _require_account(session, row)  # now the account's row is locked, so check it again
        use_up(session, row, now=now)
    security_log.log("log-in by link", user=account.id, purpose=row.purpose)
    return LinkLogIn(account.id, opened, row.purpose)


def use_up(session: Session, row: Any, *, now: datetime) -> None:
    """Use a link and end the others for the same purpose, in the caller's transaction. Raise LinkRefusedError."""
    unused = MailedLink.used_at.is_(None)
    own = update(MailedLink).where(MailedLink.id == row.id, unused).values(used_at=now)
    if session.execute(own.returning(MailedLink.id)).scalar() is None:
        raise LinkRefusedError(REFUSAL)
    others = [unused, MailedLink.purpose == row.purpose]
    if row.user_id is not None:
        others.append(MailedLink.user_id == row.user_id)
    if row.user_id is None or row.purpose == "confirm":  # several addresses may be confirmed independently
        others.append(MailedLink.mailbox == row.mailbox)
    if row.purpose == "undo":  # a thief who undoes one step must not keep the owner from undoing all
        others.append(MailedLink.id > row.id)
    session.execute(update(MailedLink).where(*others).values(used_at=now))


def find(session: Session, token: str, *, now: datetime, purposes: Collection[str] = GOOD_FOR) -> Any:
    """Return the row of a token with one of the given purposes, if the link itself is still valid.

    This runs in the caller's transaction. Raise LinkRefusedError.
    """
    query = select(MailedLink.__table__).where(MailedLink.token_hash == hashed(token[:_LONGEST_TOKEN]))
    row = session.execute(query).one_or_none()
    if row is None or row.purpose not in purposes or row.used_at is not None:
        raise LinkRefusedError(REFUSAL)
    if not now < row.expires_at <= now + GOOD_FOR[row.purpose] + _AHEAD:
        raise LinkRefusedError(REFUSAL)
    return row


def _require_account(session: Session, row: Any) -> Account:
    """Return the account that a link logs in to, if that is still allowed. Raise LinkRefusedError."""
    found = session.execute(_accounts(row.mailbox, row.user_id)).one_or_none()
    if found is None or hashed(found.password_hash) != row.bound_to:
        raise LinkRefusedError(REFUSAL)
    return Account(*found)


def make_for_mailbox(session: Session, purpose: str, *, mailbox: str, now: datetime) -> str:
    """Make a link for a mailbox rather than an account, in a transaction of its own; return its token."""
    with transaction(session):
        return make(session, purpose, mailbox=mailbox, now=now)


def accounts_at(session: Session, mailbox: str, *, user_id: int | None = None) -> Sequence[Account]:
    """Return the accounts that a link to a mailbox may log in to: all of its active holders, or one.

    An account with a role counts only if the mailbox is its main address and no other active account holds it.
    """
    with reading(session):
        return [Account(*row) for row in session.execute(_accounts(mailbox, user_id))]


def _accounts(mailbox: str, user_id: int | None) -> Any:
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
    return query if user_id is None else query.where(User.id == user_id)


def hashed(text: str) -> str:
    """Return the SHA-256 of a token, or of the value that a link is bound to."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
