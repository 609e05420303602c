"""Leases: a list is synced by one process at a time, on whatever host."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, delete, exists, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.errors import LeaseHeldError
from portal.models import Lease
from portal.services.transaction import transaction

MINUTE = 60.0
LEAST = 10 * MINUTE  # seconds
MOST = 24 * 60 * MINUTE  # no call of a list manager takes longer; what expires later was made by a clock that was ahead

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that this process holds."""

    handle: str
    token: str


def acquire(session: Session, handle: str, *, seconds: float = LEAST, outlives_process: bool = False) -> Held:
    """Take the lease of a list, by the database's clock.

    One that has expired, or whose holder was a process of this boot that is gone, is taken over. ``outlives_process``:
    for a planned run, whose steps are processes of their own. Raise LeaseHeldError, which names holder and expiry.
    """
    host, pid = socket.gethostname(), os.getpid()
    lease = Held(handle, secrets.token_hex(16))
    with transaction(session):
        now = database.clock(session)
        columns = {
            "token": lease.token,
            "holder": f"a planned run started on {host}" if outlives_process else f"process {pid} on {host}",
            "host": host[:120],
            "pid": None if outlives_process else pid,
            "pid_space": pid_space(),
            "expires_at": _until(now, seconds),
        }
        row = session.execute(
            database.insert(session, Lease)
            .values(list_handle=handle, **columns)
            .on_conflict_do_update(index_elements=["list_handle"], set_={"list_handle": handle})  # and so locked
            .returning(Lease.token, Lease.holder, Lease.pid, Lease.pid_space, Lease.expires_at)
        ).one()
        if row.token != lease.token:
            if now < row.expires_at <= _latest(now) and not is_gone(row):
                raise LeaseHeldError(
                    f"{handle} is held by {row.holder} until {row.expires_at:%Y-%m-%d %H:%M:%S} UTC; "
                    + (_FREED_BY_HAND.format(handle) if row.pid is None else _FREED_BY_ITSELF)
                )
            session.execute(update(Lease).where(Lease.list_handle == handle).values(**columns))
    return lease


_FREED_BY_ITSELF = "try again when that run has ended"
_FREED_BY_HAND = "try again when that run has ended, or end it now with: flask mailinglist list-init --abandon {}"


def _until(now: datetime, seconds: float) -> datetime:
    return now + timedelta(seconds=min(max(seconds, LEAST), MOST))


def _latest(now: datetime) -> datetime:
    """Return the latest expiry that a lease can have: its clock may have been a minute ahead."""
    return now + timedelta(seconds=MOST + MINUTE)


def is_open(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a lease is held at a time of the database's clock."""
    return (Lease.expires_at > now) & (Lease.expires_at <= _latest(now))


def pid_space() -> str:
    """Return what tells apart the places in which a process id means another process: boot and pid namespace.

    Containers on one machine may share a host name, and a machine numbers its processes anew at each boot. Empty where
    the system does not say, and then no process is believed to be gone.
    """
    try:
        return f"{_BOOT.read_text(encoding='ascii').strip()} {_NAMESPACE.stat().st_ino}"[:64]
    except OSError:
        return ""


def is_gone(row: Any) -> bool:
    """Return True if the process that a row names by pid and pid space is known to have ended."""
    if row.pid is None or not row.pid_space or row.pid_space != pid_space():
        return False
    try:
        os.kill(row.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, as somebody else's
    return False


def is_held(session: Session, handle: str) -> bool:
    """Return True if a run holds a list; inside the caller's transaction."""
    held = exists().where(Lease.list_handle == handle, is_open(database.clock(session)))
    return bool(session.scalar(select(held)))


def renew(session: Session, lease: Held, *, seconds: float = 0) -> None:
    """Hold on for ten minutes, or for a call's time-out and a minute where that is longer.

    Raise LeaseHeldError where the lease was lost: the run must stop.
    """
    with transaction(session):
        until = _until(database.clock(session), seconds + MINUTE)
        is_ours = session.scalar(
            update(Lease)
            .where(Lease.list_handle == lease.handle, Lease.token == lease.token)
            .values(expires_at=until)
            .returning(Lease.token)
        )
        if not is_ours:
            raise LeaseHeldError(
                f"{lease.handle}: another run took over the list while this one was running; run again when the other "
                "one has ended"
            )


def release(session: Session, lease: Held) -> None:
    """Give a lease back; one that was lost is left to its new holder."""
    with transaction(session):
        session.execute(delete(Lease).where(Lease.list_handle == lease.handle, Lease.token == lease.token))


@contextmanager
def held(session: Session, handle: str) -> Iterator[Held]:
    """Hold a list's lease for the length of a block."""
    lease = acquire(session, handle)
    try:
        yield lease
    finally:
        release(session, lease)


def of_planned_run(session: Session, handle: str) -> Held | None:
    """Return the lease of a planned run that is still open, if there is one."""
    now: datetime = database.clock(session)
    token = session.execute(
        select(Lease.token).where(Lease.list_handle == handle, Lease.pid.is_(None), is_open(now))
    ).scalar()
    return Held(handle, token) if token else None
