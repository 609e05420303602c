"""A database query that uses the driver alone.

Cron runs one command every minute, which mostly finds nothing to do, and importing SQLAlchemy would take longer than
everything else that it does. The only other module that knows the dialect is ``database.py``.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

_SQLITE = "sqlite:///"
_SECONDS = 5  # to wait for the database


def has_any(uri: str, queries: Sequence[tuple[str, Sequence[datetime]]]) -> bool:
    """Return True if any of the queries finds a row; each has a ``{}`` for each of its times.

    ``uri`` is in SQLAlchemy's format. Raise whatever the driver raises.
    """
    is_sqlite = uri.startswith(_SQLITE)
    mark = "?" if is_sqlite else "%s"
    statement = " OR ".join(f"EXISTS ({query.format(*[mark] * len(times))})" for query, times in queries)
    values = [at.astimezone(UTC) for _, times in queries for at in times]
    ask = _ask_sqlite if is_sqlite else _ask_postgresql
    return bool(ask(uri, f"SELECT {statement}", values))


def _ask_sqlite(uri: str, statement: str, values: Sequence[datetime]) -> Any:
    import sqlite3

    path = unquote(uri.removeprefix(_SQLITE).partition("?")[0])
    connection = sqlite3.connect(path, timeout=_SECONDS)
    try:
        # in SQLAlchemy's format
        texts = [f"{at:%Y-%m-%d %H:%M:%S.%f}" for at in values]
        return connection.execute(statement, texts).fetchone()[0]
    finally:
        connection.close()


def _ask_postgresql(uri: str, statement: str, values: Sequence[datetime]) -> Any:
    import psycopg

    with psycopg.connect(uri.replace("+psycopg", "", 1), connect_timeout=_SECONDS) as connection:
        row = connection.execute(statement.encode(), values).fetchone()
        return row and row[0]
