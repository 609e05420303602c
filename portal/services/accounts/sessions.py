"""Log-ins: a random token in the cookie, its SHA-256 in a row, so that ending a session is deleting a row."""

import hashlib
import secrets
import unicodedata
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from portal.domain.address import canonical
from portal.errors import InvalidAddressError, LogInFailedError
from portal.models import Address, LoginSession, User, UserAddress
from portal.services import security_log
from portal.services.accounts import passwords, rate_limits
from portal.services.transaction import reading, transaction

IDLE = timedelta(hours=12)
ABSOLUTE = timedelta(hours=24)
REMEMBERED = timedelta(days=30)  # instead of both, where the member asked for it; never for superusers
_SEEN_EVERY = timedelta(minutes=5)
_LONGEST_NAME = 254  # an address

REFUSAL = "the name or the password is not right"  # unknown, inactive and wrong alike


@dataclass(frozen=True)
class Member:
    """Who is logged in, with the attributes that flask-login asks for; ``token`` names the session."""

    id: int
    username: str
    name: str
    is_superuser: bool
    token: str = field(repr=False)
    is_authenticated: bool = True
    is_active: bool = True
    is_anonymous: bool = False

    def get_id(self) -> str:
        """Return what the cookie holds."""
        return self.token


class _Account(NamedTuple):
    id: int
    password_hash: str
    is_active: bool
    is_superuser: bool


def name_key(name: str) -> str:
    """Return the form in which usernames are compared and stored: NFC, lower case."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).lower())


def _compared(name: str) -> str:
    """Return a log-in name as its tries are counted: an address has many spellings, whoever holds it."""
    try:
        return canonical(name)
    except InvalidAddressError:
        return name_key(name)


def log_in(session: Session, *, name: str, password: str, ip: str, remember: bool, now: datetime, rounds: int) -> str:
    """Compare a password and open a session; return its token.

    ``name`` is a username, or an address that only one account holds. The try is counted before anything is looked at,
    and bcrypt runs once whatever the answer is. ``rounds`` is its cost; a hash that was imported or made at another
    cost is replaced. Raise LimitedError, or LogInFailedError, which is the same for unknown, inactive and wrong.
    """
    account_and_ip = rate_limits.account_and_ip(_compared(name.strip()), ip)
    counted = rate_limits.count(session, [account_and_ip, rate_limits.by_ip(ip)], now=now)
    for _ in range(2):  # again where another log-in of theirs replaced an imported hash in the meantime
        with reading(session):
            account = _account(session, name.strip())
        verdict = passwords.verify(password, account.password_hash if account else None, rounds=rounds)
        if account is None or not account.is_active or not verdict.is_right:
            break
        replaced = passwords.hash_password(password, rounds=rounds) if verdict.needs_rehash else account.password_hash
        token = secrets.token_urlsafe(32)
        with transaction(session):
            is_stamped = _stamp(session, account, password_hash=replaced, now=now)
            if is_stamped:
                rate_limits.forgive(session, counted, cleared=[account_and_ip])
                _begin(session, account, token=token, is_remembered=remember and not account.is_superuser, now=now)
        if is_stamped:
            security_log.log("log-in", user=account.id)
            return token
    security_log.log("log-in failed", user=account and account.id)
    raise LogInFailedError(REFUSAL)


# Built once: every request runs it, and building takes longer than running.
_OF_TOKEN = (
    select(LoginSession.id, LoginSession.created_at, LoginSession.seen_at)
    .add_columns(LoginSession.expires_at, LoginSession.remembered)
    .add_columns(User.id, User.username, User.name, User.is_superuser)
    .join(User, User.id == LoginSession.user_id)
    .where(LoginSession.token_hash == bindparam("token_hash"), User.is_active)
)


def member(session: Session, token: str, *, now: datetime) -> Member | None:
    """Return who a token stands for, or None where its session has ended.

    One SELECT; no transaction is left open. That the session was used is written down every five minutes at most, in a
    transaction of its own.
    """
    with reading(session):
        found = session.execute(_OF_TOKEN, {"token_hash": _hashed(token)}).one_or_none()
    if found is None:
        return None
    login, user = _LogIn(*found[:5]), Member(found[5], found.username, found.name, found.is_superuser, token)
    if _is_over(login, is_superuser=user.is_superuser, now=now):
        return None
    if now - login.seen_at >= _SEEN_EVERY:
        with transaction(session):
            session.execute(update(LoginSession).where(LoginSession.id == login.id).values(seen_at=now))
    return user


def log_out(session: Session, token: str) -> None:
    """End the session of a token; nothing happens where it has ended already."""
    with transaction(session):
        session.execute(delete(LoginSession).where(LoginSession.token_hash == _hashed(token)))


class OpenLogIn(NamedTuple):
    """A log-in that has not ended; ``is_this``: the one that asks. ``seen_at`` is five minutes late at most."""

    id: int
    begun_at: datetime
    seen_at: datetime
    is_this: bool


def log_ins(session: Session, member: Member, *, now: datetime) -> tuple[OpenLogIn, ...]:
    """Return a member's log-ins that have not ended: the one that asks, then the ones seen last."""
    table = LoginSession
    query = (
        select(table.id, table.created_at, table.seen_at, table.expires_at, table.remembered, table.token_hash)
        .where(table.user_id == member.id)
        .order_by(table.seen_at.desc(), table.id.desc())
    )
    with reading(session):
        found = session.execute(query).all()
    own = _hashed(member.token)
    alive = (
        OpenLogIn(row.id, row.created_at, row.seen_at, is_this=row.token_hash == own)
        for row in found
        if not _is_over(_LogIn(*row[:5]), is_superuser=member.is_superuser, now=now)
    )
    return tuple(sorted(alive, key=lambda each: not each.is_this))


def end_one(session: Session, user_id: int, log_in_id: int) -> None:
    """End one of a user's log-ins; nothing happens where it has ended already, or is somebody else's."""
    with transaction(session):
        session.execute(delete(LoginSession).where(LoginSession.id == log_in_id, LoginSession.user_id == user_id))


def end_others(session: Session, user_id: int, *, keep_token: str | None) -> None:
    """End every session of a user but one: "log out everywhere else"."""
    with transaction(session):
        end(session, user_id, keep_token=keep_token)


def end(session: Session, user_id: int, *, keep_token: str | None = None) -> None:
    """End a user's sessions, all or all but one, in the caller's open transaction.

    The caller has written to the user's row before: a log-in that is under way waits for that, and then finds that it
    compared with what is no longer so.
    """
    statement = delete(LoginSession).where(LoginSession.user_id == user_id)
    if keep_token is not None:
        statement = statement.where(LoginSession.token_hash != _hashed(keep_token))
    session.execute(statement)


def _account(session: Session, name: str) -> _Account | None:
    if len(name) > _LONGEST_NAME or not name.isprintable():
        return None
    columns = select(User.id, User.password_hash, User.is_active, User.is_superuser)
    row = session.execute(columns.where(User.username_key == name_key(name))).one_or_none()
    if row is None and "@" in name:
        try:
            address = canonical(name)
        except InvalidAddressError:
            return None
        rows = session.execute(
            columns.join(UserAddress, UserAddress.user_id == User.id)
            .join(Address, Address.id == UserAddress.address_id)
            .where(Address.canonical == address)
            .limit(2)
        ).all()
        row = rows[0] if len(rows) == 1 else None
    return None if row is None else _Account(*row)


def _stamp(session: Session, account: _Account, *, password_hash: str, now: datetime) -> bool:
    """Write a log-in on the user's row, if that is still what the password was compared with; tell whether it is.

    It is not where the user was deactivated, or given another password, while bcrypt was at work.
    """
    stamped = session.execute(
        update(User)
        .where(User.id == account.id, User.is_active, User.password_hash == account.password_hash)
        .values(last_login_at=now, password_hash=password_hash)
        .returning(User.id)
    ).scalar()
    return stamped is not None


def _begin(session: Session, account: _Account, *, token: str, is_remembered: bool, now: datetime) -> None:
    session.execute(delete(LoginSession).where(LoginSession.expires_at <= now))
    session.execute(
        insert(LoginSession).values(
            token_hash=_hashed(token),
            user_id=account.id,
            created_at=now,
            seen_at=now,
            expires_at=now + (REMEMBERED if is_remembered else ABSOLUTE),
            remembered=is_remembered,
        )
    )


class _LogIn(NamedTuple):
    id: int
    created_at: datetime
    seen_at: datetime
    expires_at: datetime
    remembered: bool


def _is_over(login: _LogIn, *, is_superuser: bool, now: datetime) -> bool:
    if login.remembered and not is_superuser:  # whoever was granted the role since is remembered no longer
        return now >= login.expires_at
    return now >= login.created_at + ABSOLUTE or now >= login.seen_at + IDLE


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
