"""Instance folders with as many members as wanted, made by SQL: a million within a minute.

Three lists: ``members``, where nine addresses in ten have a preference, half of them subscribed; ``news``, where none
has; and ``agreed``, where all have and the list manager's roster says the same.
"""

import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import theirs
from measure import print_message

ROOT = Path(__file__).parents[1]
PASSWORD = "correct horse battery"  # of the member who opens a page

_CATALOGUE = "enabled = true\n" + "".join(
    f'[lists.{handle}]\nname = "{handle.title()}"\nemail = "{handle}@lists.example.org"\n'
    for handle in ("members", "news", "agreed")
)
_MANAGER = '[managers.files]\nkind = "file"\ndirectory = "rosters"\n'

# Addresses in no order: a member's number says nothing about where in the alphabet they stand.
_PEOPLE = """
PRAGMA synchronous = OFF;
PRAGMA cache_size = -400000;
BEGIN;
CREATE TEMPORARY TABLE person AS
    WITH RECURSIVE number(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM number WHERE n < {count})
    SELECT n, printf('Member.%08x@Example.org', n * 2654435761 % 4294967296) AS spelling FROM number;
INSERT INTO users (id, username, username_key, name, search_key, password_hash, is_superuser, is_active, created_at)
    SELECT n, 'member' || n, 'member' || n, 'Member ' || n, 'member' || n || ' member ' || n,
        '$2b$12$' || printf('%053d', n), 0, 1, {at} FROM person;
INSERT INTO addresses (id, canonical, spelling, erase)
    SELECT n, lower(spelling), spelling, 0 FROM person ORDER BY lower(spelling);
INSERT INTO user_addresses (address_id, user_id, is_main) SELECT n, n, 1 FROM person;
INSERT INTO preferences (list_handle, address_id, subscribed, seen, source, changed_at, version, touched, departed)
    SELECT 'agreed', n, n % 2, n % 2, 'init', {at}, 0, 0, 0 FROM person;
INSERT INTO preferences (list_handle, address_id, subscribed, seen, source, changed_at, version, touched, departed)
    SELECT 'members', n, n % 2, n % 2, 'init', {at}, 0, 0, 0 FROM person WHERE n % 20 NOT IN (0, 1);
COMMIT;
"""
_ANOTHER = """
INSERT INTO preferences (list_handle, address_id, subscribed, seen, source, changed_at, version, touched, departed)
    SELECT '{handle}', address_id, subscribed, seen, source, changed_at, version, touched, departed
    FROM preferences WHERE list_handle = 'agreed'
"""
_RUN = """
INSERT INTO runs (list_handle, kind, asked_by, host, started_at, finished_at, state, message, accepted, on_roster,
        without_account, initialised, left, joined, added, removed, held, refused)
    VALUES ('agreed', 'sync', 'command line', 'lists', ?, ?, 'done', '', 0, 5000, 0, 0, 1, 1, 5, 5, 0, 0)
"""
_ROSTER = "SELECT spelling FROM person WHERE n % 2 ORDER BY lower(spelling)"  # sorted, as list managers print it


@dataclass(frozen=True)
class Instance:
    """An instance folder with ``removals`` members; ``roster`` holds half of them."""

    folder: Path
    count: int

    @property
    def database(self) -> Path:
        """The SQLite file."""
        return self.folder / "portal.db"

    @property
    def roster(self) -> Path:
        """What the list manager says of the list ``agreed``, and what list-init is fed with."""
        return self.folder / "rosters" / "agreed.txt"

    @property
    def env(self) -> Mapping[str, str]:
        """The environment in which commands find this instance, without PYTHONDONTWRITEBYTECODE as where it runs."""
        ours = {"PORTAL_INSTANCE": str(self.folder), "PORTAL_BCRYPT_ROUNDS": "4", "FLASK_APP": "portal"}
        passed_on = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return {**passed_on, **ours, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}

    def copy_to(self, folder: Path) -> "Instance":
        """Return a copy, for a command that writes; what it has written is on the disk, so that it costs nobody."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        copy = Instance(folder, self.count)
        with copy.database.open("rb") as stream:
            os.fsync(stream.fileno())
        return copy


def make(folder: Path, count: int) -> Instance:
    """Make an instance folder, its tables by ``flask db upgrade``, its rows by SQL.

    In a process of its own, since SQLite's cache makes it large: what a small one measures would count that as theirs.
    """
    print_message(f"making {count:,} members")
    instance = Instance(folder, count)
    subprocess.run([sys.executable, __file__, str(folder), str(count)], env=instance.env, cwd=ROOT, check=True)
    return instance


def make_lists(folder: Path, *, count: int = 10_000) -> Instance:
    """Make an instance folder with five lists, all of whose preferences are there, and two hundred runs."""
    instance = make(folder, count)
    with closing(theirs.connect(instance.database)) as connection:
        for handle in ("news", "tech", "board"):
            connection.execute("DELETE FROM preferences WHERE list_handle = ?", [handle])
            connection.execute(_ANOTHER.format(handle=handle))
        connection.executemany(
            _RUN, [(f"2026-11-{day:02} {hour:02}:00:00.000000",) * 2 for day in range(1, 11) for hour in range(20)]
        )
    catalogue = folder / "mailinglists.toml"
    others = (f'[lists.{each}]\nname = "{each}"\nemail = "{each}@lists.example.org"\n' for each in ("tech", "board"))
    catalogue.write_text(catalogue.read_text() + "".join(others))
    return instance


def _fill(instance: Instance) -> None:
    folder, count = instance.folder, instance.count
    instance.roster.parent.mkdir(parents=True)
    (folder / "mailinglists.toml").write_text(_CATALOGUE + _MANAGER)
    upgrade = [sys.executable, "-m", "flask", "db", "upgrade"]
    subprocess.run(upgrade, env=instance.env, cwd=ROOT, check=True, capture_output=True)
    connection = sqlite3.connect(instance.database, isolation_level=None)
    connection.executescript(_PEOPLE.format(count=count, at=f"'{theirs.AT}'"))
    with instance.roster.open("w") as roster:
        roster.writelines(f"{spelling}\n" for (spelling,) in connection.execute(_ROSTER))
    connection.execute("DROP TABLE temp.person")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


if __name__ == "__main__":
    _fill(Instance(Path(sys.argv[1]), int(sys.argv[2])))
