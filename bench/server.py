"""A temporary PostgreSQL server on the loopback, for the bars that compare with ``psql``."""

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from measure import Cost, cost_of, print_message
from members import ROOT, Instance

_SETTINGS = "listen_addresses = '127.0.0.1'\nunix_socket_directories = ''\nshared_buffers = '512MB'\nfsync = off\n"

# The same people, preferences and roster as on SQLite.
_PEOPLE = """
SET synchronous_commit = off;
CREATE TEMPORARY TABLE person AS
    SELECT n, 'Member.' || lpad(to_hex(n * 2654435761 % 4294967296), 8, '0') || '@Example.org' AS spelling
    FROM generate_series(1, {count}::bigint) AS n;
INSERT INTO users (id, username, username_key, name, search_key, password_hash, is_superuser, is_active, created_at)
    SELECT n, 'member' || n, 'member' || n, 'Member ' || n, 'member' || n || ' member ' || n,
        'x', false, true, now() FROM person;
INSERT INTO addresses (id, canonical, spelling, erase)
    SELECT n, lower(spelling), spelling, false FROM person;
INSERT INTO user_addresses (address_id, user_id, is_main) SELECT n, n, true FROM person;
VACUUM ANALYZE;
"""

# What list-init does, as somebody would write it: one transaction.
_LIST_INIT = """
CREATE TEMPORARY TABLE line (text text);
\\copy line FROM '{roster}'
CREATE TEMPORARY TABLE roster AS SELECT DISTINCT lower(trim(text)) AS canonical FROM line;
ANALYZE roster;
BEGIN;
INSERT INTO preferences (list_handle, address_id, subscribed, seen, source, changed_at, version, touched, departed)
    SELECT 'news', addresses.id, roster.canonical IS NOT NULL, roster.canonical IS NOT NULL, 'init', now(), 0,
        false, false
    FROM addresses LEFT JOIN roster ON roster.canonical = addresses.canonical
    WHERE EXISTS (
        SELECT 1 FROM user_addresses JOIN users ON users.id = user_addresses.user_id
        WHERE user_addresses.address_id = addresses.id AND users.is_active
    ) AND NOT EXISTS (
        SELECT 1 FROM preferences WHERE list_handle = 'news' AND preferences.address_id = addresses.id
    )
    ORDER BY addresses.id;
INSERT INTO history (at, list_handle, address_id, address, subscribed, source, actor, reason)
    SELECT changed_at, list_handle, address_id, canonical, subscribed, source, '', ''
    FROM preferences JOIN addresses ON addresses.id = preferences.address_id
    WHERE list_handle = 'news' AND source = 'init';
COMMIT;
"""


def programs() -> Path | None:
    """Return the folder of the newest PostgreSQL programs, or None."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@dataclass(frozen=True)
class Server:
    """A running server. ``made`` is the database with the members, ``copy`` a copy of it to write in."""

    port: int
    bin: Path

    def psql(self, sql: str, database: str, *, folder: Path) -> Cost:
        """Run SQL with psql, which stops at the first error."""
        script = folder / "script.sql"
        script.write_text(sql)
        command = [self.bin / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script]
        return cost_of(command, env=self._env(database))

    def _env(self, database: str) -> Mapping[str, str]:
        return {"PATH": os.environ["PATH"], "PGHOST": "127.0.0.1", "PGPORT": str(self.port),
                "PGUSER": "postgres", "PGDATABASE": database}  # fmt: skip

    def env(self, instance: Instance, database: str) -> Mapping[str, str]:
        """Return the environment for commands with an instance's folder and tables on this server."""
        uri = f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"
        return {**instance.env, "PORTAL_SQLALCHEMY_DATABASE_URI": uri}

    def fill(self, instance: Instance) -> None:
        """Make the database ``made`` with an instance's members."""
        self.psql("DROP DATABASE IF EXISTS made; CREATE DATABASE made", "postgres", folder=instance.folder)
        flask = [sys.executable, "-m", "flask", "db", "upgrade"]
        subprocess.run(flask, env=self.env(instance, "made"), cwd=ROOT, check=True, capture_output=True)
        self.psql(_PEOPLE.format(count=instance.count), "made", folder=instance.folder)

    def _copy(self, instance: Instance) -> None:
        sql = "DROP DATABASE IF EXISTS copy; CREATE DATABASE copy TEMPLATE made; CHECKPOINT"
        self.psql(sql, "postgres", folder=instance.folder)

    def list_init(self, instance: Instance, command: Sequence[str | Path]) -> Cost:
        """Run list-init into a copy."""
        self._copy(instance)
        return cost_of(command, env=self.env(instance, "copy"), stdin=instance.roster)

    def copied(self, instance: Instance) -> Cost:
        """Do the same with psql."""
        self._copy(instance)
        return self.psql(_LIST_INIT.format(roster=instance.roster), "copy", folder=instance.folder)


@contextmanager
def running(folder: Path) -> Iterator[Server | None]:
    """Start a server with its data in a folder, and stop it; yield None if PostgreSQL is not installed."""
    bin_folder = programs()
    if bin_folder is None:
        print_message("no PostgreSQL here (apt-get install postgresql): its bar is left out")
        yield None
        return
    data = folder / "postgresql"
    shutil.rmtree(data, ignore_errors=True)
    data.mkdir(mode=0o700)
    user = {}
    if os.geteuid() == 0:  # it refuses to run as root
        shutil.chown(data, "postgres")
        user = {"user": "postgres"}
        folder.chmod(0o755)
    initdb = [bin_folder / "initdb", "-D", data, "--auth=trust", "-U", "postgres", "--encoding=UTF8", "--locale=C"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=data, **user)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with (data / "postgresql.conf").open("a") as settings:
        settings.write(f"{_SETTINGS}port = {port}\n")
    pg_ctl = [bin_folder / "pg_ctl", "-D", data, "-l", data / "log", "-w", "-s"]
    subprocess.run([*pg_ctl, "start"], check=True, cwd=data, **user)
    try:
        yield Server(port, bin_folder)
    finally:
        subprocess.run([*pg_ctl, "-m", "immediate", "stop"], check=True, cwd=data, **user)
