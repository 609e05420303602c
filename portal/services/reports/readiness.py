"""Whether the portal can serve: the database is reachable, migrated to this version, and writable."""

from functools import cache
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal.errors import NotMigratedError
from portal.services.transaction import reading, transaction

VERSIONS = Path(__file__).parents[2] / "migrations" / "versions"


def require_ready(session: Session) -> None:
    """Raise NotMigratedError, or the database's own error, unless it is migrated to this version and can be written."""
    with reading(session):
        session.execute(text("SELECT 1"))  # raises the database's own error if it cannot be reached
    if not is_migrated(session):
        raise NotMigratedError(
            f"the tables do not match this version of the portal ({newest()}); run: flask db upgrade"
        )
    require_writable(session)


def is_migrated(session: Session) -> bool:
    """Return True if the database answers and has been migrated to this version of the portal."""
    try:
        with reading(session):
            found = session.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    except SQLAlchemyError:
        return False
    return found == [newest()]


def require_writable(session: Session) -> None:
    """Rewrite a value in the database. Raise the database's own error if it cannot be written.

    Only a write shows that a disk is full, or that PostgreSQL is a read-only standby.
    """
    with transaction(session):
        session.execute(text("UPDATE alembic_version SET version_num = version_num"))


@cache
def newest() -> str:
    """Return the number of the newest migration, from its file's name, without importing Alembic."""
    return max(path.name for path in VERSIONS.glob("[0-9]*_*.py")).partition("_")[0]
