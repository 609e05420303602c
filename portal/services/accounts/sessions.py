"""Log-ins: a random token in the cookie, its SHA-256 in a row, so that ending a session is deleting a row."""

import hashlib
import secrets
from collections.abc import Collection
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, exists, func, insert, select, update
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
REMEMBERED = timedelta(days=30)  # instead of both, where the member asked for it; never for superusers
BY_LINK = timedelta(minutes=20)  # for so long a log-in by a mailed link may choose a password
CONFIRMED = timedelta(minutes=15)  # for so long a typed password is good for a superuser's changes of access
_SEEN_EVERY = timedelta(minutes=5)
_LONGEST_NAME = 254  # an address

REFUSAL = marked("the name or the password is not right")  # unknown, inactive and wrong alike


@dataclass(frozen=True)
class Member:
    """Who is logged in, with the attributes that flask-login asks for; ``token`` names the session."""

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
        """Return what the cookie holds."""
        return self.token


class _Account(NamedTuple):
    id: int
    password_hash: str
    is_active: bool
    is_superuser: bool


class Origin(NamedTuple):
    """Where a log-in comes from: its IP address, its User-Agent, and whether it came with X-Forwarded-For."""

    ip: str
    user_agent: str = ""
    is_forwarded: bool = False


def _compared(name: str) -> str:
    """Return a log-in name as its tries are counted: an address has many spellings, whoever holds it."""
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
    """Compare a password and open a session; return its token.

    ``name`` is a username, or an address that only one account holds. The try is counted before the password is looked
    at, for the account whatever name of it was typed, and each refusal takes the same CPU. ``rounds`` is the cost of
    bcrypt; a hash that was imported or made at another cost is replaced. ``tries_per_hour`` limits one place. Raise
    LimitedError, or LogInFailedError, which is the same for unknown, inactive and wrong.
    """
    name = name.strip()
    with reading(session):
        account = _account(session, name)
    account_and_ip = rate_limits.account_and_ip(account.id if account else _compared(name), origin.ip)
    by_ip = rate_limits.by_ip(origin.ip, per_hour=tries_per_hour)
    counted = rate_limits.count(session, [account_and_ip, by_ip], now=now)
    for _ in range(2):  # again where another log-in of theirs replaced an imported hash in the meantime
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
    """Open a session for somebody who has used a mailed link; return its token. The caller's transaction is open.

    None where the account is not active any more, or has another password than ``password_hash`` is of. No password was
    typed: what needs one asks for it, and one may be chosen for 20 minutes.
    """
    account = _Account(user_id, password_hash, True, False)
    if not _stamp(session, account, password_hash=password_hash, now=now):
        return None
    token = secrets.token_urlsafe(32)
    _begin(session, user_id, token=token, origin=origin, is_remembered=False, now=now)
    own = LoginSession.token_hash == _hashed(token)
    session.execute(update(LoginSession).where(own).values(confirmed_at=None, by_link_at=now))
    return token


def may_choose_password(session: Session, token: str, *, now: datetime) -> bool:
    """Tell whether a session began by a mailed link a short time ago, and no password was chosen in it yet."""
    with reading(session):
        by_link_at = session.scalar(select(LoginSession.by_link_at).where(LoginSession.token_hash == _hashed(token)))
    return by_link_at is not None and abs(now - by_link_at) < BY_LINK


def _verify(session: Session, name: str, password: str, *, rounds: int) -> tuple[_Account | None, str | None]:
    """Return the account of a log-in name and, where the password opens it, the hash to keep of it."""
    with reading(session):
        account, cost = _account(session, name), _cost(session, rounds)
    stored = account.password_hash if account and account.is_active else None
    verdict = passwords.verify(password, stored, rounds=rounds, cost=cost)
    if not verdict.is_right:
        return account, None
    return account, passwords.hash_password(password, rounds=rounds) if verdict.needs_rehash else stored


_OF_TOKEN = database.Question(
    select(LoginSession.id, LoginSession.created_at, LoginSession.seen_at)
    .add_columns(LoginSession.remembered)
    .add_columns(User.id.label("user_id"), User.username, User.name, User.is_superuser, User.language)
    .join(User, User.id == LoginSession.user_id)
    .where(LoginSession.token_hash == bindparam("token_hash"), User.is_active)
)


def member(session: Session, token: str, *, now: datetime) -> Member | None:
    """Return who a token stands for, or None where its session has ended.

    One SELECT; no transaction is left open. That the session was used is written down every five minutes at most, in a
    transaction of its own, where the database can be written.
    """
    found = next(iter(_OF_TOKEN.ask(session, token_hash=_hashed(token))), None)
    if found is None:
        return None
    login = _LogIn(*found[:4])
    user = Member(found.user_id, found.username, found.name, found.is_superuser, token, found.language)
    if _is_over(login, is_superuser=user.is_superuser, now=now):
        return None
    if abs(now - login.seen_at) >= _SEEN_EVERY:
        note(session, update(LoginSession).where(LoginSession.id == login.id).values(seen_at=now))
    return user


def log_out(session: Session, token: str) -> None:
    """End the session of a token; nothing happens where it has ended already."""
    with transaction(session):
        session.execute(delete(LoginSession).where(LoginSession.token_hash == _hashed(token)))


class OpenLogIn(NamedTuple):
    """A log-in that has not ended; ``is_this``: the one that asks. ``seen_at`` is five minutes late at most.

    ``browser`` and ``system`` are families, ``place`` is an IP address; all empty where a log-in is from before they
    were kept.
    """

    id: int
    begun_at: datetime
    seen_at: datetime
    browser: str
    system: str
    place: str
    is_this: bool


def log_ins(session: Session, member: Member, *, now: datetime) -> tuple[OpenLogIn, ...]:
    """Return a member's log-ins that have not ended: the one that asks, then the ones seen last."""
    table = LoginSession
    query = (
        select(table.id, table.created_at, table.seen_at, table.remembered, table.token_hash)
        .add_columns(table.browser, table.system, table.place)
        .where(table.user_id == member.id)
        .order_by(table.seen_at.desc(), table.id.desc())
    )
    with reading(session):
        found = session.execute(query).all()
    own = _hashed(member.token)
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


def end_of_all(session: Session, user_ids: Collection[int]) -> None:
    """End all sessions of users, as ``end`` does for one."""
    session.execute(delete(LoginSession).where(LoginSession.user_id.in_(user_ids)))


def end_all(session: Session) -> int:
    """End every log-in of everybody; inside the caller's transaction. Return how many they were."""
    ended: Any = session.execute(delete(LoginSession))
    count: int = ended.rowcount
    return count


def _account(session: Session, name: str) -> _Account | None:
    """Return the account that a log-in name stands for: the user of that name, or the only holder of that address.

    A username that is an address counts while its user holds it: the next holder logs in with it, not the last one.
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
    """Return the cost that every comparison takes: one more than ``rounds`` while a stored hash has a higher one.

    No log-in takes longer than that for the sake of being alike: each step doubles it.
    """
    bare = func.replace(User.password_hash, passwords.VERSION, "")
    is_higher = func.substr(bare, 5, 2) > f"{rounds:02}"  # $2b$12$…
    return rounds + 1 if session.scalar(select(exists().where(is_higher))) else rounds


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


def _begin(session: Session, user_id: int, *, token: str, origin: Origin, is_remembered: bool, now: datetime) -> None:
    browser, system = agent(origin.user_agent)
    session.execute(delete(LoginSession).where(LoginSession.expires_at <= now))
    session.execute(
        insert(LoginSession).values(
            token_hash=_hashed(token),
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
    """Give a session another token, as its password was just typed; return it. The caller's transaction is open."""
    renewed = secrets.token_urlsafe(32)
    own = LoginSession.token_hash == _hashed(token)
    session.execute(
        update(LoginSession).where(own).values(token_hash=_hashed(renewed), confirmed_at=now, by_link_at=None)
    )
    return renewed


def renew_without_password(session: Session, token: str) -> str:
    """Give a session another token and leave all else of it; return it. The caller's transaction is open."""
    renewed = secrets.token_urlsafe(32)
    own = LoginSession.token_hash == _hashed(token)
    session.execute(update(LoginSession).where(own).values(token_hash=_hashed(renewed)))
    return renewed


def confirm(session: Session, token: str, *, now: datetime) -> bool:
    """Write down that a session's password was just typed, and return whether it is there still.

    The caller's transaction is open.
    """
    own = update(LoginSession).where(LoginSession.token_hash == _hashed(token))
    return session.execute(own.values(confirmed_at=now).returning(LoginSession.id)).scalar() is not None


def is_confirmed(session: Session, token: str, *, now: datetime) -> bool:
    """Tell whether a session's password was typed within the last 15 minutes."""
    with reading(session):
        query = select(LoginSession.confirmed_at).where(LoginSession.token_hash == _hashed(token))
        confirmed_at = session.execute(query).scalar()
    return confirmed_at is not None and abs(now - confirmed_at) < CONFIRMED


class _LogIn(NamedTuple):
    id: int
    created_at: datetime
    seen_at: datetime
    remembered: bool


def _is_over(login: _LogIn, *, is_superuser: bool, now: datetime) -> bool:
    is_remembered = login.remembered and not is_superuser  # whoever was granted the role since is so no longer
    # Both ways: a clock that was years ahead must not leave log-ins that last for years.
    if abs(now - login.created_at) >= (REMEMBERED if is_remembered else ABSOLUTE):
        return True
    return not is_remembered and abs(now - login.seen_at) >= IDLE


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()
