"""Tries that are limited: each is counted before it is looked at, in rows that all worker processes share."""

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
from portal.errors import LimitedError
from portal.models import Attempt
from portal.services import security_log
from portal.services.transaction import reading, rehearsal, transaction
from portal.translation import gettext, ngettext


class Limit(NamedTuple):
    """At most so many tries within so many seconds."""

    tries: int
    seconds: int


# What is limited, and how. A new kind of try is a line here.
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
_AHEAD = timedelta(minutes=1)  # clocks of several hosts differ; a row from further ahead was made by a wrong one

# A row that counts nothing. Who counts writes it first, and so waits until nobody else is counting: on SQLite the
# transaction does that by itself, other databases lock the row. Its time never comes, so that no purge takes it.
_TURN = {"id": 0, "key": "0" * 64, "at": datetime(9999, 1, 1, tzinfo=UTC)}


class Key(NamedTuple):
    """Whose tries are counted together, and their limits; ``digest`` is a hash from which nobody can be read."""

    kind: str
    digest: str
    limits: tuple[Limit, ...]


class Counted(NamedTuple):
    """One try, counted: its keys, and the rows that it made."""

    keys: tuple[Key, ...]
    rows: tuple[int, ...]


def key(kind: str, *parts: str) -> Key:
    """Return the key of a kind of LIMITS for what tells its subjects apart."""
    text = "\0".join((kind, *parts))
    return Key(kind, hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest(), LIMITS[kind])


def account_and_ip(account: int | str, ip: str) -> Key:
    """Return the key of one account tried from one place: its number, or a name that no account has."""
    return key("account and ip", "number" if isinstance(account, int) else "name", str(account), place(ip))


def by_ip(ip: str, *, kind: str = "ip", per_hour: int | None = None) -> Key:
    """Return the key of everything tried from one place; ``per_hour`` tries, where that is a setting."""
    found = key(kind, place(ip))
    return found if per_hour is None else found._replace(limits=(Limit(per_hour, 3600),))


def place(ip: str) -> str:
    """Return what counts as one place: an IPv4 address, or the /64 of an IPv6 one, which is one customer's."""
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
    """Return the address alone: some web servers put the port behind it, which is another one each time."""
    found = re.fullmatch(r"\[(.+)\](?::[0-9]+)?|([0-9.]+):[0-9]+", ip)
    return (found[1] or found[2]) if found else ip


def count(session: Session, keys: Sequence[Key], *, now: datetime) -> Counted:
    """Count one try under each of its keys, or refuse it without counting; in a transaction of its own.

    Call it before what is tried is looked at. No two are let through on the same count, in whatever processes they
    run. The last key is the place: of what is refused there, the security log has a line a minute. Raise LimitedError.
    """
    try:
        return _count(session, keys, now)
    except LimitedError:
        _log_refusal(session, keys[-1], now)
        raise


def _count(session: Session, keys: Sequence[Key], now: datetime) -> Counted:
    with reading(session):
        _refuse(session, keys, now)  # a flood is turned away without waiting for a turn, and without a write
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
    """Count one try as ``count`` does, and return whether it is below its limits, after the same work for both answers.

    For what is refused without a word: how long it takes must not say it either.
    """
    try:
        count(session, keys, now=now)
    except LimitedError:
        with rehearsal(session):
            _take_turn(session)
            _add(session, keys, now)
        return False
    return True


def _log_refusal(session: Session, place: Key, now: datetime) -> None:
    try:
        _count(session, [key("refusal", place.digest)], now)
    except LimitedError:
        return
    security_log.log("limited", tries=place.kind)


def forgive(session: Session, counted: Counted, *, cleared: Sequence[Key]) -> None:
    """Take back a try that succeeded, and every earlier one of the ``cleared`` keys. The caller's transaction is open.

    Clear what belongs to the account that was opened. A place is never cleared: who has one account there could
    otherwise try the others without end. Its own try is taken back, so that an office may log in as often as it likes.
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
        raise LimitedError(
            "too many tries: wait %(seconds)s, then try again", seconds=_duration(seconds), retry_after=seconds
        )


def _wait(session: Session, digest: str, limit: Limit, now: datetime) -> int:
    """Return the seconds until another try fits below a limit; 0 where one fits now."""
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
