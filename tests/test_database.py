"""The promises of the database module: SECURITY, 27, and PERFORMANCE, known traps."""

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import Column, MetaData, String, Table, bindparam, delete, func, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from portal import create_app, database
from portal.extensions import db
from portal.models import Address, User
from portal.services.transaction import reading, transaction
from tests.factories import NOW, make_address, make_user


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Flask]:
    """An application on SQLite, whatever the other tests run on."""
    app = create_app(environ={"PORTAL_INSTANCE": str(tmp_path / "sqlite")})
    with app.app_context():
        assert app.test_cli_runner().invoke(args=["db", "upgrade"]).exit_code == 0
    yield app
    with app.app_context():
        db.engine.dispose()


@pytest.mark.parametrize(
    ("pragma", "value"),
    [("journal_mode", "wal"), ("busy_timeout", 30_000), ("foreign_keys", 1), ("synchronous", 2), ("secure_delete", 1)],
)
def test_sqlite_is_opened_as_several_processes_need_it(sqlite: Flask, pragma: str, value: object) -> None:
    with sqlite.app_context():
        for _ in range(2):
            with db.engine.connect() as connection:
                assert connection.exec_driver_sql(f"PRAGMA {pragma}").scalar() == value
                connection.invalidate()  # the next one is opened anew


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_nobody_but_its_owner_reads_a_new_database(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        app = create_app(environ={"PORTAL_INSTANCE": str(tmp_path), "PORTAL_SQLALCHEMY_DATABASE_URI": "sqlite:///x.db"})
        with app.app_context(), Session(db.engine) as session:
            session.execute(text("CREATE TABLE a (b)"))
            session.commit()
            files = sorted(tmp_path.glob("x.db*"))
            assert [path.name for path in files] == ["x.db", "x.db-shm", "x.db-wal"]
            assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
            session.close()
            db.engine.dispose()
    finally:
        os.umask(old)


def test_a_database_that_is_there_keeps_its_mode_and_one_in_memory_is_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.db").touch(mode=0o640)
    for uri in ("sqlite:///x.db", "sqlite:///:memory:"):
        app = create_app(environ={"PORTAL_INSTANCE": str(tmp_path), "PORTAL_SQLALCHEMY_DATABASE_URI": uri})
        with app.app_context():
            with db.engine.connect():
                pass
            db.engine.dispose()
    assert stat.S_IMODE((tmp_path / "x.db").stat().st_mode) == 0o640
    assert not (tmp_path / ":memory:").exists()


def test_what_is_deleted_is_not_left_in_the_file(sqlite: Flask, tmp_path: Path) -> None:
    with sqlite.app_context(), Session(db.engine) as session:
        with transaction(session):
            for number in range(300):  # some pages are freed as a whole, some cells alone
                make_address(session, f"canary-{number}@example.org")
        with transaction(session):
            session.execute(delete(Address).where(Address.id > 10))
        with transaction(session):
            session.execute(delete(Address))
        session.close()
        db.engine.dispose()
    assert b"canary" not in (tmp_path / "sqlite" / "portal.db").read_bytes()


def test_an_error_of_the_database_quotes_no_values(session: Session) -> None:
    with pytest.raises(IntegrityError) as caught, transaction(session):
        session.execute(insert(Address), [{"canonical": "canary@example.org", "spelling": None}])
    assert "[SQL parameters hidden" in str(caught.value)


COUNT = """
import sys
from sqlalchemy import select
from sqlalchemy.orm import Session
from portal import create_app
from portal.extensions import db
from portal.models import Address
from portal.services.transaction import transaction
app = create_app(environ={"PORTAL_INSTANCE": sys.argv[1]})
print("ready", flush=True)
sys.stdin.readline()
with app.app_context(), Session(db.engine) as session:
    for _ in range(150):
        with transaction(session):
            counter = session.execute(select(Address)).scalar_one()
            counter.spelling = str(int(counter.spelling) + 1)
"""


@pytest.mark.slow
def test_four_processes_lose_none_of_600_updates(sqlite: Flask) -> None:
    with sqlite.app_context(), Session(db.engine) as session, transaction(session):
        session.add(Address(canonical="counter@example.org", spelling="0"))

    command = [sys.executable, "-c", COUNT, sqlite.instance_path]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen(command, **pipes) for _ in range(4)]
    assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
    for process in processes:
        process.stdin.write("\n")
        process.stdin.flush()
    assert [process.communicate(timeout=120) and process.returncode for process in processes] == [0] * 4

    with sqlite.app_context(), Session(db.engine) as session, reading(session):
        assert session.execute(select(Address.spelling)).scalar_one() == "600"


def test_a_transaction_that_writes_holds_the_lock_from_its_first_read(sqlite: Flask) -> None:
    with sqlite.app_context(), Session(db.engine) as one, db.engine.connect() as other:
        other.exec_driver_sql("PRAGMA busy_timeout = 0")
        other.rollback()
        with transaction(one):
            one.execute(select(Address)).all()
            with pytest.raises(Exception, match="database is locked"):
                other.execution_options(**{database.WRITING: True}).exec_driver_sql("SELECT 1")


def test_a_unit_of_work_is_never_part_of_another(session: Session) -> None:
    with transaction(session), pytest.raises(RuntimeError, match="open already"), transaction(session):
        pass
    session.execute(select(1))
    with pytest.raises(RuntimeError, match="open already"), reading(session):
        pass


def test_what_is_raised_rolls_back_and_leaves_no_transaction_open(session: Session) -> None:
    def fail() -> None:
        with transaction(session):
            session.add(Address(canonical="a@example.org", spelling="a@example.org"))
            session.flush()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()

    assert not session.in_transaction()
    with reading(session):
        assert session.execute(select(func.count()).select_from(Address)).scalar_one() == 0


def test_the_database_tells_the_time_in_utc(session: Session) -> None:
    now = database.clock(session)

    assert now.tzinfo is UTC
    assert abs(now - datetime.now(UTC)) < timedelta(minutes=1)


def test_chunks_are_full_but_the_last_and_lose_nothing() -> None:
    assert list(database.chunked(iter("abcde"), 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(database.chunked([], 2)) == []


def test_rows_are_streamed_in_blocks(session: Session) -> None:
    for number in range(5):
        make_address(session, f"member{number}@example.org")
    session.commit()

    blocks = database.stream(session.connection(), select(Address.canonical).order_by(Address.canonical), size=2)
    assert [len(block) for block in blocks] == [2, 2, 1]


def test_many_rows_are_inserted_with_the_defaults_of_their_table_and_what_they_have_in_common(session: Session) -> None:
    rows = [{"username": name, "username_key": name, "password_hash": "", "is_superuser": name == "a"} for name in "ab"]
    with transaction(session):
        database.BulkInsert(User).execute(session, rows, is_active=True, created_at=NOW)
        database.BulkInsert(User).execute(session, [])

    found = session.scalars(select(User).order_by(User.username)).all()
    assert [(each.name, each.is_superuser, each.created_at, each.was_unlinked) for each in found] == [
        ("", True, NOW, False),
        ("", False, NOW, False),
    ]


def test_a_row_that_is_there_is_left_alone_or_replaced_in_some_columns_or_an_error(session: Session) -> None:
    first = make_address(session, "a@example.org")
    session.commit()
    rows = [{"id": first, "canonical": "a@example.org", "spelling": "A@example.org", "erase": True}]
    with transaction(session):
        database.BulkInsert(Address, or_ignore=True).execute(session, rows)
        assert session.execute(select(Address.spelling, Address.erase)).all() == [("a@example.org", False)]
        database.BulkInsert(Address, replaces=("erase",)).execute(session, rows)
        assert session.execute(select(Address.spelling, Address.erase)).all() == [("a@example.org", True)]
    with pytest.raises(IntegrityError), transaction(session):
        database.BulkInsert(Address).execute(session, rows)


def test_a_roster_is_loaded_once_for_each_address_and_anew_each_time(session: Session) -> None:
    connection = session.connection()

    assert database.load_roster(connection, ["a@example.org", "b@example.org", "a@example.org"]) == 2
    assert database.load_roster(connection, iter(["c@example.org"])) == 1
    assert connection.execute(select(database.ROSTER)).scalars().all() == ["c@example.org"]
    assert database.load_roster(connection, []) == 0


def test_a_restart_of_the_database_costs_no_page(app: Flask, session: Session) -> None:
    """Connections that wait in the pool are dead after it; the next page gets a new one."""
    session.connection()  # one of its own, which stays
    client = app.test_client()
    assert client.get("/readyz").status_code == 200
    (waiting,) = db.engine.pool._pool.queue
    if db.engine.dialect.name == "postgresql":
        number = waiting.driver_connection.info.backend_pid
        session.execute(text(f"SELECT pg_terminate_backend({number})"))
    else:
        waiting.driver_connection.close()
    assert client.get("/readyz").status_code == 200


def test_what_every_request_asks_fails_as_any_statement_does_and_keeps_no_connection(session: Session) -> None:
    missing = Table("no_such_table", MetaData(), Column("canary", String(9)))
    query = database.CompiledQuery(select(missing.c.canary).where(missing.c.canary == bindparam("canary")))
    for _ in range(20):  # more often than the pool has connections
        with pytest.raises((OperationalError, ProgrammingError), match="no_such_table") as caught:
            query.rows(session, canary="tweet")
    assert "tweet" not in str(caught.value)


def test_what_every_request_asks_gives_values_of_python(session: Session) -> None:
    make_user(session, "alice")
    query = database.CompiledQuery(select(User.is_active, User.created_at).where(User.username == bindparam("name")))
    assert [tuple(each) for each in query.rows(session, name="alice")] == [(True, NOW)]
    assert query.rows(session, name="bob") == []
