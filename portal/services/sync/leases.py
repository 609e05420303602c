"""Leases: a list is synced by one process at a time, on whatever host."""

import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.errors import LeaseHeldError
from portal.models import Lease
from portal.services.transaction import transaction

MINUTE = 60.0
LEAST = 10 * MINUTE  # seconds


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that this process holds."""

    handle: str
    token: str


def acquire(session: Session, handle: str, *, seconds: float = LEAST, outlives_process: bool = False) -> Held:
    """Take the lease of a list, by the database's clock.

    One that has expired, or whose holder was a process of this host that is gone, is taken over. ``outlives_process``:
    for a planned run, whose steps are processes of their own. Raise LeaseHeldError, which names holder and expiry.
    """
    host, pid = socket.gethostname(), os.getpid()
    lease = Held(handle, secrets.token_hex(16))
    with transaction(session):
        now = database.clock(session)
        columns = {
            "token": lease.token,
            "holder": f"a planned run begun on {host}" if outlives_process else f"process {pid} on {host}",
            "host": host[:120],
            "pid": None if outlives_process else pid,
            "expires_at": now + timedelta(seconds=max(seconds, LEAST)),
        }
        row = session.execute(
            database.insert(session, Lease)
            .values(list_handle=handle, **columns)
            .on_conflict_do_update(index_elements=["list_handle"], set_={"list_handle": handle})  # and so locked
            .returning(Lease.token, Lease.holder, Lease.host, Lease.pid, Lease.expires_at)
        ).one()
        if row.token != lease.token:
            if row.expires_at > now and not is_gone(row, host):
                raise LeaseHeldError(
                    f"{handle} is held by {row.holder} until {row.expires_at:%Y-%m-%d %H:%M:%S} UTC; "
                    "wait for it, or try again after that"
                )
            session.execute(update(Lease).where(Lease.list_handle == handle).values(**columns))
    return lease


def is_gone(row: Any, host: str) -> bool:
    """Tell whether the process that a row names by host and pid was one of this host and has ended."""
    if row.pid is None or row.host != host[:120]:
        return False
    try:
        os.kill(row.pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, as somebody else's
    return False


def is_held(session: Session, handle: str) -> bool:
    """Tell whether a run holds a list; inside the caller's transaction."""
    until = session.scalar(select(Lease.expires_at).where(Lease.list_handle == handle))
    return until is not None and until > database.clock(session)


def renew(session: Session, lease: Held, *, seconds: float = 0) -> None:
    """Hold on for ten minutes, or for a call's time-out and a minute where that is longer.

    Raise LeaseHeldError where the lease was lost: the run must stop.
    """
    with transaction(session):
        until = database.clock(session) + timedelta(seconds=max(LEAST, seconds + MINUTE))
        is_ours = session.scalar(
            update(Lease)
            .where(Lease.list_handle == lease.handle, Lease.token == lease.token)
            .values(expires_at=until)
            .returning(Lease.token)
        )
        if not is_ours:
            raise LeaseHeldError(f"{lease.handle}: another run took the list over while this one was at work")


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
        select(Lease.token).where(Lease.list_handle == handle, Lease.pid.is_(None), Lease.expires_at > now)
    ).scalar()
    return Held(handle, token) if token else None
