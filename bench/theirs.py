"""The work of our commands written in SQL for the ``sqlite3`` program, on the same tables."""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

AT = "2026-01-01 00:00:00.000000"

_IS_MANAGED = """EXISTS (
    SELECT * FROM user_addresses JOIN users ON users.id = user_addresses.user_id
    WHERE user_addresses.address_id = addresses.id AND users.is_active
)"""

SELECT_SUBSCRIBED = f"""
SELECT addresses.spelling
FROM addresses JOIN preferences ON preferences.list_handle = 'members' AND preferences.address_id = addresses.id
WHERE preferences.subscribed AND {_IS_MANAGED}
ORDER BY addresses.canonical COLLATE BINARY;
"""

# The same rows, the same checks of foreign keys, the same journal as ours; in one transaction.
_LIST_INIT = f"""
PRAGMA foreign_keys = ON;
PRAGMA synchronous = FULL;
CREATE TEMPORARY TABLE line (text);
.separator "\\t"
.import "{{roster}}" line
CREATE TEMPORARY TABLE roster (canonical TEXT PRIMARY KEY) WITHOUT ROWID;
INSERT OR IGNORE INTO roster SELECT lower(trim(text)) FROM line;
BEGIN IMMEDIATE;
INSERT INTO preferences (list_handle, address_id, subscribed, seen, source, changed_at, version, touched, departed)
    SELECT 'news', addresses.id, roster.canonical IS NOT NULL, roster.canonical IS NOT NULL, 'init', '{AT}', 0, 0, 0
    FROM addresses LEFT JOIN roster ON roster.canonical = addresses.canonical
    WHERE {_IS_MANAGED} AND NOT EXISTS (
        SELECT * FROM preferences WHERE list_handle = 'news' AND preferences.address_id = addresses.id
    )
    ORDER BY addresses.id;
INSERT INTO history (at, list_handle, address_id, address, subscribed, source, actor, reason)
    SELECT changed_at, list_handle, address_id, canonical, subscribed, source, '', ''
    FROM preferences JOIN addresses ON addresses.id = preferences.address_id
    WHERE list_handle = 'news' AND source = 'init' AND changed_at = '{AT}'
    ORDER BY address_id;
COMMIT;
"""

# What a list-init leaves behind, but for the time.
MADE = """
SELECT address_id, subscribed, seen, source, version, touched, departed FROM preferences WHERE list_handle = 'news';
SELECT address_id, address, subscribed, source, actor, reason FROM history WHERE list_handle = 'news';
"""


def list_init(roster: Path) -> str:
    """Return the SQL for the program."""
    return _LIST_INIT.format(roster=roster)


def connect(database: Path) -> sqlite3.Connection:
    """Open a database in autocommit mode."""
    return sqlite3.connect(database, isolation_level=None)


def counting(tables: Iterable[str]) -> str:
    """Return SQL that counts every row written in some tables, even one that stays the same."""
    triggers = (
        f"CREATE TRIGGER note_{table}_{event} AFTER {event} ON {table} "
        f"BEGIN INSERT INTO written VALUES ('{table}'); END;"
        for table in tables
        for event in ("INSERT", "UPDATE", "DELETE")
    )
    return "CREATE TABLE written (name TEXT);" + "".join(triggers)
