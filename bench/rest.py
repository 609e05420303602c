"""A Mailman 3 for benchmarks, the one of the tests, with a list as long as a roster."""

import sqlite3
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from measure import print_message
from members import ROOT, Instance

sys.path.insert(0, str(ROOT))

from tests.real import mailman3

MEMBERS = 20_000  # half of them are on the list
_HANDLE = "agreed"
_MANAGER = """
[managers.mailman]
kind = "mailman3"
"""


@contextmanager
def running(folder: Path, instance: Instance) -> Iterator[bool]:
    """Start Mailman with an instance's roster and configure the instance for it; yield False without one."""
    if why := mailman3.why_missing():
        print_message(f"{why}: its bar is left out")
        yield False
        return
    program = mailman3.Program(folder)
    try:
        program.make_list(_HANDLE)
        _subscribe(folder / "var" / "data" / "mailman.db", instance.roster, f"{_HANDLE}.{mailman3.DOMAIN}")
        _use(instance, program)
        yield True
    finally:
        program.stop()


_ROWS = (
    "INSERT INTO preferences (id) VALUES (:preferences)",
    "INSERT INTO user (id, display_name, _user_id, is_server_owner, preferences_id)"
    " VALUES (:user, '', :user_uid, 0, :preferences)",
    "INSERT INTO address (id, email, display_name, verified_on, registered_on, user_id, preferences_id)"
    " VALUES (:address, :email, '', '2026-01-01 00:00:00', '2026-01-01 00:00:00', :user, :preferences)",
    "INSERT INTO member (id, _member_id, role, list_id, address_id, preferences_id, bounce_score, last_warning_sent,"
    " total_warnings_sent)"
    " VALUES (:member, :member_uid, 1, :list_id, :address, :preferences, 0, '0001-01-01 00:00:00.000000', 0)",
)


def _subscribe(database: Path, roster: Path, list_id: str) -> None:
    """Write the rows that a subscription by REST leaves; ten thousand of those would take minutes."""
    with closing(sqlite3.connect(database)) as connection, connection:
        first = {
            table: connection.execute(f"SELECT coalesce(max(id), 0) + 1 FROM {table}").fetchone()[0]
            for table in ("preferences", "user", "address", "member")
        }
        rows = [
            {table: number + offset for table, offset in first.items()}
            | {"email": spelling.lower(), "list_id": list_id, "user_uid": uuid.uuid4().hex}
            | {"member_uid": uuid.uuid4().hex}
            for number, spelling in enumerate(roster.read_text().split())
        ]
        for statement in _ROWS:
            connection.executemany(statement, rows)


def _use(instance: Instance, program: mailman3.Program) -> None:
    catalogue = instance.folder / "mailinglists.toml"
    settings = "".join(f'{key} = "{value}"\n' for key, value in program.manager_table().items())
    text = catalogue.read_text()
    for handle in ("members", "news", _HANDLE):
        manager = "mailman" if handle == _HANDLE else "files"
        text = text.replace(f"[lists.{handle}]\n", f'[lists.{handle}]\nmanager = "{manager}"\n')
    text = text.replace(f"[lists.{_HANDLE}]\n", f'[lists.{_HANDLE}]\nlist = "{program.list_setting(_HANDLE)}"\n')
    catalogue.write_text(text + _MANAGER + settings)
