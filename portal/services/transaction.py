"""Units of work: the only module that commits."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from portal.database import WRITING


def transaction(session: Session) -> AbstractContextManager[Session]:
    """Begin a transaction that writes; commit it, or roll it back if anything is raised.

    On SQLite it begins with BEGIN IMMEDIATE, so that what it reads is still true when it writes. Raise RuntimeError if
    a transaction is open: a unit of work is never part of another.
    """
    return _unit(session, writes=True, keeps=True)


def note(session: Session, statement: Executable) -> None:
    """Execute a write that may be lost, in a transaction of its own.

    A full or read-only database does not stop the request for it.
    """
    with suppress(DBAPIError), transaction(session):
        session.execute(statement)


def scratch(session: Session) -> AbstractContextManager[Session]:
    """Fill temporary tables and keep them; this blocks no other connection."""
    return _unit(session, writes=False, keeps=True)


def rehearsal(session: Session) -> AbstractContextManager[Session]:
    """Run a transaction that writes, and roll it back."""
    return _unit(session, writes=True, keeps=False)


def reading(session: Session) -> AbstractContextManager[Session]:
    """Read, then close the transaction, so that none is open during slow work."""
    return _unit(session, writes=False, keeps=False)


@contextmanager
def _unit(session: Session, *, writes: bool, keeps: bool) -> Iterator[Session]:
    if session.in_transaction():
        raise RuntimeError("a transaction is open already")
    try:
        session.connection(execution_options={WRITING: writes})
        yield session
        if keeps:
            session.commit()
    finally:
        session.rollback()  # after a commit there is nothing to roll back
