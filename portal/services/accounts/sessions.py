"""Log-in sessions: the cookie holds a random token and a row its SHA-256, so deleting the row ends the session."""

import hashlib
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, delete, exists, func, insert, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain import usernames
from portal.domain.address import canonical
from portal.domain.user_agent import agent
from portal.errors import InvalidAddressError, LogInFailedError
from portal.models import Address, LoginSession, User, UserAddress
from portal.services import security_log
from portal.services.accounts import passwords, rate_limits
from portal.services.transaction import note, reading, transaction
from portal.translation import marked

IDLE = timedelta(hours=12)
ABSOLUTE = timedelta(hours=24)
REMEMBERED = timedelta(days=30)  # replaces both for "stay logged in"; never for superusers
BY_LINK = timedelta(minutes=20)  # how long a password can be chosen after a log-in with a mailed link
CONFIRMED = timedelta(minutes=15)  # how long a typed password allows sensitive changes
_SEEN_EVERY = timedelta(minutes=5)
_LONGEST_NAME = 254  # an address

REFUSAL = marked("the username or the password is wrong")  # the same for unknown, inactive and wrong


@dataclass(frozen=True)
class Member:
    """The logged-in user, with the attributes that flask-login needs; ``token`` is that of the session."""

    id: int
    username: str
    name: str
    is_superuser: bool
    token: str = field(repr=False)
    language: str | None = None
    is_authenticated: bool = True
    is_active: bool = True
    is_anonymous: bool = False

    def get_id(self) -> str:
        """Return the content of the cookie."""
        return self.token


class _Account(NamedTuple):
    id: int
    password_hash: str
    is_active: bool
    is_superuser: bool


class Origin(NamedTuple):
    """The origin of a log-in: IP address, User-Agent, and whether the request had X-Forwarded-For."""

    ip: str
    user_agent: str = ""
    is_forwarded: bool = False


def _compared(name: str) -> str:
    """Return the form of a log-in name under which attempts are counted: an address has many spellings."""
    try:
        return canonical(name)
    except InvalidAddressError:
        return usernames.key(name)


def log_in(
    session: Session,
    *,
    name: str,
    password: str,
    origin: Origin,
    remember: bool,
    now: datetime,
    rounds: int,
    tries_per_hour: int | None = None,
) -> str:
    """Check a password and open a session; return its token.

    ``name`` is a username, or an address that only one account holds. The attempt is counted before the password is
    checked, for the account whichever of its names was typed, and every refusal takes the same CPU time. ``rounds`` is
    the cost of bcrypt; hashes that were imported or made at another cost are replaced. ``tries_per_hour`` limits
    attempts from one place. Raise RateLimitedError, or LogInFailedError, the same for unknown, inactive and wrong.
    """
    name = name.strip()
    with reading(session):
        account = _account(session, name)
    account_and_ip = rate_limits.account_and_ip(account.id if account else _compared(name), origin.ip)
    by_ip = rate_limits.by_ip(origin.ip, per_hour=tries_per_hour)
    counted = rate_limits.count(session, [account_and_ip, by_ip], now=now)
    for _ in range(2):  # a second time if a concurrent log-in has replaced an imported hash
        account, kept_hash = _verify(session, name, password, rounds=rounds)
        if account is None or kept_hash is None:
            break
        token = secrets.token_urlsafe(32)
        with transaction(session):
            is_stamped = _stamp(session, account, password_hash=kept_hash, now=now)
            if is_stamped:
                rate_limits.forgive(session, counted, cleared=[account_and_ip])
                is_remembered = remember and not account.is_superuser
                _begin(session, account.id, token=token, origin=origin, is_remembered=is_remembered, now=now)
        if is_stamped:
            security_log.log("log-in", user=account.id)
            return token
    security_log.log("log-in failed", user=account and account.id)
    raise LogInFailedError(REFUSAL)


def open_by_link(session: Session, user_id: int, *, password_hash: str, origin: Origin, now: datetime) -> str | None:
    """Open a session for a user of a mailed link, in the caller's transaction; return its token.

    Return None if the account is no longer active or its password has changed from ``password_hash``. No password was
    typed, so sensitive changes ask for it, and a new one can be chosen for 20 minutes.
    """
    account = _Account(user_id, password_hash, True, False)
    if not _stamp(session, account, password_hash=password_hash, now=now):
        return None
    token = secrets.token_urlsafe(32)
    _begin(session, user_id, token=token, origin=origin, is_remembered=False, now=now)
    own = LoginSession.token_hash == hashed(token)
    session.execute(update(LoginSession).where(own).values(confirmed_at=None, by_link_at=now))
    return token


def may_choose_password(session: Session, token: str, *, now: datetime) -> bool:
    """Return whether a session was opened with a mailed link recently and no password has been chosen in it."""
    with reading(session):
        by_link_at = session.scalar(select(LoginSession.by_link_at).where(LoginSession.token_hash == hashed(token)))
    return by_link_at is not None and abs(now - by_link_at) < BY_LINK


def _verify(session: Session, name: str, password: str, *, rounds: int) -> tuple[_Account | None, str | None]:
    """Return the account of a log-in name and, if the password is right, the hash to store."""
    with reading(session):
        account, cost = _account(session, name), _cost(session, rounds)
    stored = account.password_hash if account and account.is_active else None
    verdict = passwords.verify(password, stored, rounds=rounds, cost=cost)
    if not verdict.is_right:
        return account, None
    return account, passwords.hash_password(password, rounds=rounds) if verdict.needs_rehash else stored


# The columns that ``member_of`` needs.
LOG_IN = (
    LoginSession.id.label("log_in_id"),
    LoginSession.created_at.label("begun_at"),
    LoginSession.seen_at,
    LoginSession.remembered,
    User.name,
    User.is_superuser,
    User.language,
)
IS_OF_TOKEN = and_(User.id == LoginSession.user_id, LoginSession.token_hash == bindparam("token_hash"), User.is_active)
_OF_TOKEN = database.CompiledQuery(select(User.id.label("user_id"), User.username, *LOG_IN).where(IS_OF_TOKEN))


def member(session: Session, token: str, *, now: datetime) -> Member | None:
    """Return the user of a session's token, or None if the session has ended.

    This takes one SELECT and leaves no transaction open. The time of use is stored every five minutes at most, in a
    separate transaction, and not at all while the database is read-only.
    """
    return member_of(session, _OF_TOKEN.rows(session, token_hash=hashed(token)), token, now=now)


def member_of(session: Session, rows: Sequence[Any], token: str, *, now: datetime) -> Member | None:
    """Return the same as ``member``, from the rows of a query with ``IS_OF_TOKEN`` and the columns of ``LOG_IN``."""
    if not rows:
        return None
    row = rows[0]
    login = _LogIn(row.log_in_id, row.begun_at, row.seen_at, row.remembered)
    user = Member(row.user_id, row.username, row.name, row.is_superuser, token, row.language)
    if _is_over(login, is_superuser=user.is_superuser, now=now):
        return None
    if abs(now - login.seen_at) >= _SEEN_EVERY:
        note(session, update(LoginSession).where(LoginSession.id == login.id).values(seen_at=now))
    return user


def log_out(session: Session, token: str) -> None:
    """End the session of a token, if it has not ended yet."""
    with transaction(session):
        session.execute(delete(LoginSession).where(LoginSession.token_hash == hashed(token)))


class OpenLogIn(NamedTuple):
    """An open log-in; ``is_this`` marks the current one. ``seen_at`` lags by five minutes at most.

    ``browser`` and ``system`` are families such as "Firefox", ``place`` is an IP address; each may be empty.
    """

    id: int
    begun_at: datetime
    seen_at: datetime
    browser: str
    system: str
    place: str
    is_this: bool


def log_ins(session: Session, member: Member, *, now: datetime) -> tuple[OpenLogIn, ...]:
    """Return a member's open log-ins: first the current one, then the others by time of last use."""
    table = LoginSession
    query = (
        select(table.id, table.created_at, table.seen_at, table.remembered, table.token_hash)
        .add_columns(table.browser, table.system, table.place)
        .where(table.user_id == member.id)
        .order_by(table.seen_at.desc(), table.id.desc())
    )
    with reading(session):
        found = session.execute(query).all()
    own = hashed(member.token)
    alive = (
        OpenLogIn(
            *(row.id, row.created_at, row.seen_at, row.browser, row.system, row.place),
            is_this=row.token_hash == own,
        )
        for row in found
        if not _is_over(_LogIn(*row[:4]), is_superuser=member.is_superuser, now=now)
    )
    return tuple(sorted(alive, key=lambda each: not each.is_this))


def end_one(session: Session, user_id: int, log_in_id: int) -> None:
    """End one of a user's log-ins, if it has not ended yet and is theirs."""
    with transaction(session):
        session.execute(delete(LoginSession).where(LoginSession.id == log_in_id, LoginSession.user_id == user_id))


def end_others(session: Session, user_id: int, *, keep_token: str | None) -> None:
    """End all sessions of a user except one ("log out everywhere else")."""
    with transaction(session):
        end(session, user_id, keep_token=keep_token)


def end(session: Session, user_id: int, *, keep_token: str | None = None) -> None:
    """End a user's sessions, all or all except one, in the caller's transaction.

    The caller must have written the user's row before: a concurrent log-in then waits for that row and fails, because
    the password or the status that it checked has changed.
    """
    statement = delete(LoginSession).where(LoginSession.user_id == user_id)
    if keep_token is not None:
        statement = statement.where(LoginSession.token_hash != hashed(keep_token))
    session.execute(statement)


def end_of_all(session: Session, user_ids: Collection[int]) -> None:
    """End all sessions of several users, like ``end``."""
    session.execute(delete(LoginSession).where(LoginSession.user_id.in_(user_ids)))


def end_all(session: Session) -> int:
    """End the sessions of all users in the caller's transaction; return their number."""
    ended: Any = session.execute(delete(LoginSession))
    count: int = ended.rowcount
    return count


def _account(session: Session, name: str) -> _Account | None:
    """Return the account of a log-in name: the user with that username, or the only holder of that address.

    A username that is an address works only while its user holds the address; afterwards the next holder logs in with
    it.
    """
    if len(name) > _LONGEST_NAME or not name.isprintable():
        return None
    query = select(User.id, User.password_hash, User.is_active, User.is_superuser)
    is_called_so = User.username_key == usernames.key(name)
    if "@" not in name:
        rows = session.execute(query.where(is_called_so)).all()
    else:
        try:
            address = canonical(name)
        except InvalidAddressError:
            return None
        holders = (
            query.join(UserAddress, UserAddress.user_id == User.id)
            .join(Address, Address.id == UserAddress.address_id)
            .where(Address.canonical == address)
            .limit(2)
        )
        rows = session.execute(holders.where(is_called_so)).all() or session.execute(holders).all()
    return _Account(*rows[0]) if len(rows) == 1 else None


def _cost(session: Session, rounds: int) -> int:
    """Return the cost of every comparison: ``rounds``, or one more while any stored hash has a higher cost.

    Never two more: each step doubles the time of all log-ins.
    """
    bare = func.replace(User.password_hash, passwords.VERSION, "")
    is_higher = func.substr(bare, 5, 2) > f"{rounds:02}"  # $2b$12$…
    return rounds + 1 if session.scalar(select(exists().where(is_higher))) else rounds


def _stamp(session: Session, account: _Account, *, password_hash: str, now: datetime) -> bool:
    """Store a log-in in the user's row; return False if the user has changed since the password was compared.

    This happens if the user is deactivated, or gets another password, while bcrypt is running.
    """
    stamped = session.execute(
        update(User)
        .where(User.id == account.id, User.is_active, User.password_hash == account.password_hash)
        .values(last_login_at=now, password_hash=password_hash)
        .returning(User.id)
    ).scalar()
    return stamped is not None


def _begin(session: Session, user_id: int, *, token: str, origin: Origin, is_remembered: bool, now: datetime) -> None:
    browser, system = agent(origin.user_agent)
    session.execute(delete(LoginSession).where(LoginSession.expires_at <= now))
    session.execute(
        insert(LoginSession).values(
            token_hash=hashed(token),
            user_id=user_id,
            created_at=now,
            seen_at=now,
            expires_at=now + (REMEMBERED if is_remembered else ABSOLUTE),
            remembered=is_remembered,
            browser=browser,
            system=system,
            place=origin.ip[:45],
            is_forwarded=origin.is_forwarded,
            confirmed_at=now,
        )
    )


def renew(session: Session, token: str, *, now: datetime) -> str:
    """Replace a session's token after its password was typed; return the new one. The caller's transaction is open."""
    renewed = secrets.token_urlsafe(32)
    own = LoginSession.token_hash == hashed(token)
    session.execute(
        update(LoginSession).where(own).values(token_hash=hashed(renewed), confirmed_at=now, by_link_at=None)
    )
    return renewed


def renew_without_password(session: Session, token: str) -> str:
    """Replace only the token of a session; return the new one. The caller's transaction is open."""
    renewed = secrets.token_urlsafe(32)
    own = LoginSession.token_hash == hashed(token)
    session.execute(update(LoginSession).where(own).values(token_hash=hashed(renewed)))
    return renewed


def confirm(session: Session, token: str, *, now: datetime) -> bool:
    """Store that the password was just typed in a session; return False if the session has ended.

    The caller's transaction is open.
    """
    own = update(LoginSession).where(LoginSession.token_hash == hashed(token))
    return session.execute(own.values(confirmed_at=now).returning(LoginSession.id)).scalar() is not None


def is_confirmed(session: Session, token: str, *, now: datetime) -> bool:
    """Return whether the password was typed in a session within the last 15 minutes."""
    with reading(session):
        query = select(LoginSession.confirmed_at).where(LoginSession.token_hash == hashed(token))
        confirmed_at = session.execute(query).scalar()
    return confirmed_at is not None and abs(now - confirmed_at) < CONFIRMED


class _LogIn(NamedTuple):
    id: int
    created_at: datetime
    seen_at: datetime
    remembered: bool


def _is_over(login: _LogIn, *, is_superuser: bool, now: datetime) -> bool:
    is_remembered = login.remembered and not is_superuser  # the role may have been granted since
    # abs(): a clock that was years ahead must not leave sessions that last for years.
    if abs(now - login.created_at) >= (REMEMBERED if is_remembered else ABSOLUTE):
        return True
    return not is_remembered and abs(now - login.seen_at) >= IDLE


def hashed(token: str) -> str:
    """Return a token as the database stores it."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
