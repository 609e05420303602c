"""Leases, by which only one process on any host syncs a list at a time."""

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
MOST = 24 * 60 * MINUTE  # longer than any call of a list manager; a later expiry was set by a clock that was ahead

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that this process holds."""

    handle: str
    token: str


def acquire(session: Session, handle: str, *, seconds: float = LEAST, outlives_process: bool = False) -> HeldLease:
    """Acquire the lease of a list, by the database's clock.

    A lease is taken over if it has expired, or if its holder was a process of this boot that has ended.
    ``outlives_process`` is for planned runs, whose steps are separate processes. Raise LeaseHeldError, which names
    holder and expiry.
    """
    host, pid = socket.gethostname(), os.getpid()
    lease = HeldLease(handle, secrets.token_hex(16))
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
            .on_conflict_do_update(index_elements=["list_handle"], set_={"list_handle": handle})  # to lock the row
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
    """Return the latest valid expiry of a lease: its clock may have been a minute ahead."""
    return now + timedelta(seconds=MOST + MINUTE)


def is_open(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a lease is held at a time of the database's clock."""
    return (Lease.expires_at > now) & (Lease.expires_at <= _latest(now))


def pid_space() -> str:
    """Return an identifier of the boot and the pid namespace, within which a process id is unique.

    Containers on one machine may share a host name, and process ids repeat after a boot. Empty if the system does not
    report these; then no process is assumed to have ended.
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
        pass  # it runs as another user
    return False


def is_held(session: Session, handle: str) -> bool:
    """Return True if a run holds a list; inside the caller's transaction."""
    held = exists().where(Lease.list_handle == handle, is_open(database.clock(session)))
    return bool(session.scalar(select(held)))


def renew(session: Session, lease: HeldLease, *, seconds: float = 0) -> None:
    """Extend a lease to ten minutes, or to a call's timeout and a minute if that is longer.

    Raise LeaseHeldError if the lease was lost: the run must stop.
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


def release(session: Session, lease: HeldLease) -> None:
    """Release a lease; one that was lost stays with its new holder."""
    with transaction(session):
        session.execute(delete(Lease).where(Lease.list_handle == lease.handle, Lease.token == lease.token))


@contextmanager
def held(session: Session, handle: str) -> Iterator[HeldLease]:
    """Hold a list's lease within a ``with`` block."""
    lease = acquire(session, handle)
    try:
        yield lease
    finally:
        release(session, lease)


def of_planned_run(session: Session, handle: str) -> HeldLease | None:
    """Return the lease of a planned run that is still open, or None."""
    now: datetime = database.clock(session)
    token = session.execute(
        select(Lease.token).where(Lease.list_handle == handle, Lease.pid.is_(None), is_open(now))
    ).scalar()
    return HeldLease(handle, token) if token else None
