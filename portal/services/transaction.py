"""One unit of work: the only place that commits."""

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.orm import Session

from portal.database import WRITING


@contextmanager
def transaction(session: Session) -> Iterator[Session]:
    """Begin a transaction that writes, and commit it, or roll it back where anything is raised.

    On SQLite it begins with BEGIN IMMEDIATE, so that what is read in it is still true when it writes. Raise
    RuntimeError where one is open already: a unit of work is never part of another.
    """
    if session.in_transaction():
        raise RuntimeError("a transaction is open already")
    try:
        session.connection(execution_options={WRITING: True})
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise


@contextmanager
def scratch(session: Session) -> Iterator[Session]:
    """Fill temporary tables, which keeps no other connection waiting, and keep them."""
    if session.in_transaction():
        raise RuntimeError("a transaction is open already")
    try:
        session.connection(execution_options={WRITING: False})
        yield session
        session.commit()
    except BaseException:
        session.rollback()
        raise


@contextmanager
def reading(session: Session) -> Iterator[Session]:
    """Read, and close the transaction, so that none is open while something slow goes on."""
    if session.in_transaction():
        raise RuntimeError("a transaction is open already")
    try:
        session.connection(execution_options={WRITING: False})
        yield session
    finally:
        session.rollback()
