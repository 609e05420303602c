"""Can the portal serve: the database is reachable and has the tables of this version."""

from functools import cache
from pathlib import Path

from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from portal.services.transaction import reading

VERSIONS = Path(__file__).parents[2] / "migrations" / "versions"


def is_ready(session: Session) -> bool:
    """Tell whether the database answers and has been migrated to this version of the portal."""
    try:
        with reading(session):
            found = session.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    except SQLAlchemyError:
        return False
    return found == [newest()]


@cache
def newest() -> str:
    """Return the newest migration: the number that its file's name begins with. Alembic would cost its import."""
    return max(path.name for path in VERSIONS.glob("[0-9]*_*.py")).partition("_")[0]
