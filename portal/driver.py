"""A question to the database by its driver alone.

For the command that cron runs each minute and that mostly finds nothing to do: importing SQLAlchemy would cost it more
than all else together. The other place that knows the dialect is ``database.py``.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote

_SQLITE = "sqlite:///"
_SECONDS = 5  # that a database is waited for


def has_any(uri: str, queries: Sequence[tuple[str, Sequence[datetime]]]) -> bool:
    """Return True if any of some queries finds a row; each has a ``{}`` for each of its times.

    ``uri`` is as SQLAlchemy takes it. Raise whatever the driver raises.
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
        # As SQLAlchemy writes them.
        texts = [f"{at:%Y-%m-%d %H:%M:%S.%f}" for at in values]
        return connection.execute(statement, texts).fetchone()[0]
    finally:
        connection.close()


def _ask_postgresql(uri: str, statement: str, values: Sequence[datetime]) -> Any:
    import psycopg

    with psycopg.connect(uri.replace("+psycopg", "", 1), connect_timeout=_SECONDS) as connection:
        row = connection.execute(statement.encode(), values).fetchone()
        return row and row[0]
