"""One unit of work: the only place that commits."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress

from sqlalchemy import Executable
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from portal.database import WRITING


def transaction(session: Session) -> AbstractContextManager[Session]:
    """Begin a transaction that writes, and commit it, or roll it back where anything is raised.

    On SQLite it begins with BEGIN IMMEDIATE, so that what is read in it is still true when it writes. Raise
    RuntimeError where one is open already: a unit of work is never part of another.
    """
    return _unit(session, writes=True, keeps=True)


def note(session: Session, statement: Executable) -> None:
    """Write what may be lost, in a transaction of its own.

    A database that is full, or that can only be read, does not keep people from what they came to read.
    """
    with suppress(DBAPIError), transaction(session):
        session.execute(statement)


def scratch(session: Session) -> AbstractContextManager[Session]:
    """Fill temporary tables, which keeps no other connection waiting, and keep them."""
    return _unit(session, writes=False, keeps=True)


def rehearsal(session: Session) -> AbstractContextManager[Session]:
    """Do what a transaction that writes would, and keep nothing of it."""
    return _unit(session, writes=True, keeps=False)


def reading(session: Session) -> AbstractContextManager[Session]:
    """Read, and close the transaction, so that none is open while something slow goes on."""
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
