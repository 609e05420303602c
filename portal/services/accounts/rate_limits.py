"""Rate limits: each attempt is counted before it is checked, in rows that all worker processes share."""

import hashlib
import ipaddress
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from portal import database
from portal.errors import RateLimitedError
from portal.models import Attempt
from portal.services import security_log
from portal.services.transaction import reading, rehearsal, transaction
from portal.translation import gettext, ngettext


class Limit(NamedTuple):
    """At most ``tries`` attempts within ``seconds``."""

    tries: int
    seconds: int


# The limits by kind of attempt.
LIMITS: dict[str, tuple[Limit, ...]] = {
    "account and ip": (Limit(5, 60), Limit(20, 3600)),
    "ip": (Limit(60, 3600),),
    "api key": (Limit(10, 60), Limit(60, 3600)),
    "current password": (Limit(5, 60), Limit(20, 3600)),
    "mail to mailbox from place": (Limit(3, 3600),),
    "mail to mailbox": (Limit(20, 24 * 3600),),
    "mail from place": (Limit(30, 3600),),
    "refusal": (Limit(1, 60),),  # lines of the security log about refusals past a limit
}
_KEPT = timedelta(seconds=max(limit.seconds for limits in LIMITS.values() for limit in limits))
_AHEAD = timedelta(minutes=1)  # tolerance for the clocks of several hosts; rows further ahead come from a wrong clock

# A row that serialises counting: each count writes it first and so waits for concurrent counts. On SQLite the
# transaction alone does that; other databases lock the row. Its time is so late that it is never purged.
_TURN = {"id": 0, "key": "0" * 64, "at": datetime(9999, 1, 1, tzinfo=UTC)}


class Key(NamedTuple):
    """A subject whose attempts are counted together, with its limits; ``digest`` is a hash, so it names nobody."""

    kind: str
    digest: str
    limits: tuple[Limit, ...]


class Counted(NamedTuple):
    """A counted attempt: its keys and the ids of its rows."""

    keys: tuple[Key, ...]
    rows: tuple[int, ...]


def key(kind: str, *parts: str) -> Key:
    """Return the key of a kind of LIMITS; ``parts`` identify the subject."""
    text = "\0".join((kind, *parts))
    return Key(kind, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), LIMITS[kind])


def account_and_ip(account: int | str, ip: str) -> Key:
    """Return the key for one account, by its id or a name that no account has, and one place."""
    return key("account and ip", "number" if isinstance(account, int) else "name", str(account), place(ip))


def by_ip(ip: str, *, kind: str = "ip", per_hour: int | None = None) -> Key:
    """Return the key for all attempts from one place; ``per_hour`` overrides the limit."""
    found = key(kind, place(ip))
    return found if per_hour is None else found._replace(limits=(Limit(per_hour, 3600),))


def place(ip: str) -> str:
    """Return the place of an IP address: an IPv4 address itself, or the /64 network of an IPv6 address."""
    try:
        address = ipaddress.ip_address(_without_port(ip))
    except ValueError:
        return ip  # a Unix socket, or nothing at all: one place
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((int(address), 64), strict=False))


def _without_port(ip: str) -> str:
    """Return an IP address without the port that some web servers append, which differs each time."""
    found = re.fullmatch(r"\[(.+)\](?::[0-9]+)?|([0-9.]+):[0-9]+", ip)
    return (found[1] or found[2]) if found else ip


def count(session: Session, keys: Sequence[Key], *, now: datetime) -> Counted:
    """Count an attempt under each of its keys, or raise RateLimitedError without counting; in its own transaction.

    Call it before checking the attempt. Counts are exact across processes. The last key is the place; the security log
    gets at most one line a minute about attempts refused there.
    """
    try:
        return _count(session, keys, now)
    except RateLimitedError:
        _log_refusal(session, keys[-1], now)
        raise


def _count(session: Session, keys: Sequence[Key], now: datetime) -> Counted:
    with reading(session):
        _refuse(session, keys, now)  # a flood is refused without waiting and without writing
    with transaction(session):
        _take_turn(session)
        _refuse(session, keys, now)
        return _add(session, keys, now)


def _add(session: Session, keys: Sequence[Key], now: datetime) -> Counted:
    useless = or_(Attempt.at <= now - _KEPT, Attempt.at > now + _AHEAD)
    session.execute(delete(Attempt).where(Attempt.id != _TURN["id"], useless))
    rows = [Attempt(key=each.digest, at=now) for each in keys]
    session.add_all(rows)
    session.flush()
    return Counted(tuple(keys), tuple(row.id for row in rows))


def is_within(session: Session, keys: Sequence[Key], *, now: datetime) -> bool:
    """Count an attempt like ``count``; return whether it is within its limits, after the same work either way.

    For attempts that are refused silently: the time must not show it either.
    """
    try:
        count(session, keys, now=now)
    except RateLimitedError:
        with rehearsal(session):
            _take_turn(session)
            _add(session, keys, now)
        return False
    return True


def _log_refusal(session: Session, place: Key, now: datetime) -> None:
    try:
        _count(session, [key("refusal", place.digest)], now)
    except RateLimitedError:
        return
    security_log.log("limited", tries=place.kind)


def forgive(session: Session, counted: Counted, *, cleared: Sequence[Key]) -> None:
    """Delete a successful attempt and all attempts of the ``cleared`` keys, in the caller's transaction.

    Clear the keys of the account that was opened, never that of the place: otherwise the owner of one account could
    guess the passwords of others without limit. Only the attempt itself is deleted there, so that everybody in an
    office can log in as often as they like.
    """
    session.execute(
        delete(Attempt).where(Attempt.id.in_(counted.rows) | Attempt.key.in_({each.digest for each in cleared}))
    )


def _take_turn(session: Session) -> None:
    statement = database.insert(session, Attempt.__table__).values(_TURN)
    session.execute(statement.on_conflict_do_update(index_elements=["id"], set_={"key": statement.excluded.key}))


def _refuse(session: Session, keys: Sequence[Key], now: datetime) -> None:
    waits = [_wait(session, each.digest, limit, now) for each in keys for limit in each.limits]
    seconds = max(waits, default=0)
    if seconds:
        raise RateLimitedError(
            "too many attempts: wait %(seconds)s, then try again", seconds=_duration(seconds), retry_after=seconds
        )


def _wait(session: Session, digest: str, limit: Limit, now: datetime) -> int:
    """Return the seconds until another attempt is within a limit; 0 if one is now."""
    window = timedelta(seconds=limit.seconds)
    last_that_fits = session.execute(
        select(Attempt.at)
        .where(Attempt.key == digest, Attempt.at > now - window, Attempt.at <= now + _AHEAD)
        .order_by(Attempt.at.desc())
        .offset(limit.tries - 1)
        .limit(1)
    ).scalar()
    if last_that_fits is None:
        return 0
    return min(limit.seconds, max(1, math.ceil((last_that_fits + window - now).total_seconds())))


def _duration(seconds: int) -> str:
    if seconds < 100:
        return ngettext("%(count)s second", "%(count)s seconds", seconds, count=seconds)
    return gettext("%(count)s minutes", count=math.ceil(seconds / 60))
