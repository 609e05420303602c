"""Instance folders with any number of members, made by SQL: a million within a minute.

They have three lists: ``members``, where nine addresses in ten have a preference, half of them subscribed; ``news``,
where none has; and ``agreed``, where all have and the roster is the same.
"""

import os
import re
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
    ON CONFLICT DO NOTHING
"""
# One a run.
_RUNS = """
WITH RECURSIVE hour(n) AS (SELECT :hours UNION ALL SELECT n - 1 FROM hour WHERE n > 1)
INSERT INTO runs (list_handle, kind, asked_by, host, started_at, finished_at, state, message, accepted, on_roster,
        without_account, initialised, left, joined, added, removed, held, refused)
    SELECT :handle, 'sync', 'command line', 'lists', datetime('2026-11-25', '-' || n || ' hours') || '.000000',
        datetime('2026-11-25', '-' || n || ' hours', '5 seconds') || '.000000', 'done', '', 0, 5000, 0, 0, 0, 0, 1, 0,
        0, 0 FROM hour
"""
_LINES = """
INSERT INTO run_lines (run_id, address_id, list_handle, address, spelling, action, reason, held, version, result, words,
        settled, counts)
    SELECT runs.id, addresses.id, list_handle, canonical, spelling, 'add', 'chosen', 0, 0, 'done', '', 1, 0
    FROM runs JOIN addresses ON addresses.id = 1 + runs.id % :count
"""
_CHANGES = """
INSERT INTO history (at, list_handle, address_id, address, subscribed, source, actor, reason)
    SELECT started_at, list_handle, addresses.id, canonical, 1, 'user', 'member', ''
    FROM runs JOIN addresses ON addresses.id = 1 + runs.id % :count ORDER BY started_at
"""
_COMMITTEE = """
[lists.committee]
name = "Committee"
email = "committee@lists.example.org"
audience = ["committee"]
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
        """The roster of the list ``agreed``, and the input of list-init."""
        return self.folder / "rosters" / "agreed.txt"

    @property
    def env(self) -> Mapping[str, str]:
        """The environment in which commands find this instance, without PYTHONDONTWRITEBYTECODE as where it runs."""
        ours = {"PORTAL_INSTANCE": str(self.folder), "PORTAL_BCRYPT_ROUNDS": "4", "FLASK_APP": "portal"}
        passed_on = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
        return {**passed_on, **ours, "PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}

    def copy_to(self, folder: Path) -> "Instance":
        """Return a copy for a command that writes, flushed to disk so that writing it costs no later task."""
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        copy = Instance(folder, self.count)
        with copy.database.open("rb") as stream:
            os.fsync(stream.fileno())
        return copy


def make(folder: Path, count: int) -> Instance:
    """Make an instance folder, with tables from ``flask db upgrade`` and rows by SQL.

    This runs in a process of its own, because SQLite's cache would make this one large and its children's figures
    wrong.
    """
    print_message(f"making {count:,} members")
    instance = Instance(folder, count)
    subprocess.run([sys.executable, __file__, str(folder), str(count)], env=instance.env, cwd=ROOT, check=True)
    return instance


def make_lists(folder: Path, *, count: int = 10_000, lists: int = 5, hours: int = 200) -> Instance:
    """Make an instance folder and ``grow`` it."""
    instance = make(folder, count)
    grow(instance, lists=lists, hours=hours)
    return instance


def grow(instance: Instance, *, lists: int, hours: int) -> None:
    """Give an instance more lists, all of whose preferences are there, and one for a committee of ten.

    Each list but the committee's has had a run in each of the last ``hours``, with one line and one change.
    """
    others = [f"list{number:03}" for number in range(4, lists + 1)]
    with closing(theirs.connect(instance.database)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        for handle in ("news", *others):
            connection.execute(_ANOTHER.format(handle=handle))
        connection.execute("INSERT INTO user_groups (user_id, name) SELECT id, 'committee' FROM users WHERE id <= 10")
        for handle in ("members", "news", "agreed", *others):
            connection.execute(_RUNS, {"handle": handle, "hours": hours})
        connection.execute(_LINES, {"count": instance.count})
        connection.execute(_CHANGES, {"count": instance.count})
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    tables = (f'[lists.{each}]\nname = "{each}"\nemail = "{each}@lists.example.org"\n' for each in others)
    catalogue = instance.folder / "mailinglists.toml"
    catalogue.write_text(catalogue.read_text() + "".join(tables) + _COMMITTEE)
    (instance.folder / "rosters" / "committee.txt").touch()


def apply_at_once(instance: Instance) -> None:
    """Make each list with all preferences apply changes immediately, and write its roster."""
    catalogue = instance.folder / "mailinglists.toml"
    table = re.compile(r"\[lists\.(agreed|list[0-9]+)\]\n")
    text = catalogue.read_text()
    for handle in table.findall(text):
        if handle != "agreed":
            shutil.copy(instance.roster, instance.roster.with_name(f"{handle}.txt"))
    catalogue.write_text(table.sub(r'\g<0>apply = "at once"\n', text))


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
