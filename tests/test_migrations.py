"""The migrated database is the one that the models describe, on either dialect, and every migration can be undone."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from flask import Flask
from sqlalchemy import Connection, Inspector, String, create_engine, inspect, text

from portal.extensions import db
from portal.models import Base
from tests.conftest import SERVER

TABLES = list(Base.metadata.tables.values())
MIGRATIONS = Path(__file__).parents[1] / "portal" / "migrations"


@pytest.fixture
def connection(app: Flask) -> Iterator[Connection]:
    with app.app_context(), db.engine.connect() as connection:
        yield connection


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_string_has_a_length(table: Any) -> None:
    assert [column.name for column in table.columns if isinstance(column.type, String) and not column.type.length] == []


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_every_constraint_and_index_has_a_name(table: Any) -> None:
    assert all(part.name for part in [*table.constraints, *table.indexes])


def test_there_is_one_newest_migration() -> None:
    assert len(ScriptDirectory(str(MIGRATIONS)).get_heads()) == 1


def test_alembic_finds_no_difference_between_models_and_database(connection: Connection) -> None:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})

    assert compare_metadata(context, Base.metadata) == []


def test_the_database_is_the_one_that_the_models_would_make(connection: Connection) -> None:
    migrated = schema(connection, None)

    assert made_by_models(connection) == migrated


def made_by_models(connection: Connection) -> dict[str, Any]:
    """Return the schema that the models make beside the migrated one."""
    if SERVER:
        connection.execute(text("CREATE SCHEMA of_models"))
        translated = connection.execution_options(schema_translate_map={None: "of_models"})
        Base.metadata.create_all(translated)
        made = schema(connection, "of_models")
        connection.rollback()
        return made
    with create_engine("sqlite://").connect() as empty:
        Base.metadata.create_all(empty)
        made = schema(empty, None)
    empty.engine.dispose()
    return made


def schema(connection: Connection, name: str | None) -> dict[str, Any]:
    """Return all that a dialect tells of our tables: columns, keys, constraints and indexes with their names."""
    inspector = inspect(connection)
    names = [table.name for table in TABLES]
    return {
        table: {
            "columns": [
                (
                    column["name"],
                    str(column["type"]),
                    column["nullable"],
                    str(column["default"]).replace("of_models.", ""),
                )
                for column in inspector.get_columns(table, schema=name)
            ],
            "primary key": inspector.get_pk_constraint(table, schema=name),
            "foreign keys": _sorted(inspector.get_foreign_keys(table, schema=name), "referred_schema"),
            "unique": _sorted(inspector.get_unique_constraints(table, schema=name)),
            "checks": _sorted(inspector.get_check_constraints(table, schema=name)),
            "indexes": _sorted(inspector.get_indexes(table, schema=name)),
            "without rowid": _is_without_rowid(inspector, connection, table),
            "numbers once": "AUTOINCREMENT" in _sql(inspector, connection, table),
        }
        for table in sorted(names)
    }


def _sorted(parts: list[Any], *ignored: str) -> list[str]:
    return sorted(str({key: _plain(value) for key, value in part.items() if key not in ignored}) for part in parts)


def _plain(value: object) -> object:
    return {key: str(each) for key, each in value.items()} if isinstance(value, dict) else str(value)


def _is_without_rowid(inspector: Inspector, connection: Connection, table: str) -> bool:
    """Tell what Alembic does not see."""
    return _sql(inspector, connection, table).endswith("WITHOUT ROWID")


def _sql(inspector: Inspector, connection: Connection, table: str) -> str:
    if inspector.dialect.name != "sqlite":
        return ""
    sql = connection.exec_driver_sql("SELECT sql FROM sqlite_master WHERE name = ?", (table,)).scalar_one()
    return str(sql).rstrip().upper()


def test_the_comparison_sees_without_rowid(connection: Connection) -> None:
    wanted = {table.name for table in TABLES if table.dialect_kwargs.get("sqlite_with_rowid") is False}
    found = {name for name, parts in schema(connection, None).items() if parts["without rowid"]}

    assert wanted >= {"preferences"}
    assert found == (set() if SERVER else wanted)


def test_every_migration_can_be_undone_and_done_again(app: Flask) -> None:
    def flask_db(*args: str) -> None:
        with app.app_context():
            result = app.test_cli_runner().invoke(args=["db", *args])
        assert result.exit_code == 0, result.output

    def tables() -> set[str]:
        with app.app_context(), db.engine.connect() as connection:
            return set(inspect(connection).get_table_names())

    before = tables()
    newest = ScriptDirectory(str(MIGRATIONS))
    for _ in list(newest.walk_revisions()):
        flask_db("downgrade")
    assert tables() == {"alembic_version"}

    for revision in reversed(list(newest.walk_revisions())):
        flask_db("upgrade", revision.revision)
    assert tables() == before


def test_names_from_before_they_were_searched_by_a_key_get_one(app: Flask) -> None:
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["db", "downgrade", "0009"])
        assert result.exit_code == 0, result.output
        with db.engine.begin() as connection:
            columns = "id, username, username_key, name, password_hash, is_superuser, is_active, created_at"
            for number, name in ((1, "Zoë ŠŤASTNÁ"), (2, "")):
                values = f"{number}, 'U{number}', 'u{number}', '{name}', '!', false, true, '2026-11-01 12:00:00'"
                connection.execute(text(f"INSERT INTO users ({columns}) VALUES ({values})"))
        result = app.test_cli_runner().invoke(args=["db", "upgrade"])
        assert result.exit_code == 0, result.output
        with db.engine.connect() as connection:
            found = connection.execute(text("SELECT search_key FROM users ORDER BY id")).scalars().all()
    assert found == ["zoe stastna u1", "u2"]


def test_what_account_changes_said_in_words_becomes_a_value_and_words_again(app: Flask) -> None:
    words = ["groups: board; full", "groups: none", "renamed: carol", "made"]
    read = text("SELECT what FROM account_changes ORDER BY id")
    with app.app_context():
        flask_db = app.test_cli_runner()
        assert flask_db.invoke(args=["db", "downgrade", "0014"]).exit_code == 0
        assert flask_db.invoke(args=["db", "downgrade"]).exit_code == 0
        with db.engine.begin() as connection:
            for number, what in enumerate(words, 1):
                connection.execute(
                    text(
                        "INSERT INTO account_changes (id, at, user_id, username, what, actor)"
                        " VALUES (:number, '2026-11-01 12:00:00', 1, 'alice', :what, 'bob')"
                    ),
                    {"number": number, "what": what},
                )
        upgraded = flask_db.invoke(args=["db", "upgrade", "0014"])
        assert upgraded.exit_code == 0, upgraded.output
        with db.engine.connect() as connection:
            found = connection.execute(text("SELECT what, old, new FROM account_changes ORDER BY id")).all()
        assert flask_db.invoke(args=["db", "downgrade"]).exit_code == 0
        with db.engine.connect() as connection:
            kept = connection.execute(read).scalars().all()
        assert flask_db.invoke(args=["db", "upgrade"]).exit_code == 0

    assert [tuple(each) for each in found] == [
        ("groups changed", "", "board; full"),
        ("groups changed", "", ""),
        ("renamed", "alice", "carol"),
        ("made", "", ""),
    ]
    assert kept == words


def test_an_upgrade_of_an_up_to_date_database_does_nothing(app: Flask) -> None:
    with app.app_context():
        result = app.test_cli_runner().invoke(args=["db", "upgrade"])

    assert (result.exit_code, result.output) == (0, "")


def test_requests_become_runs_that_have_not_begun(app: Flask) -> None:
    """One that led to a run says there who asked; lines of a plan that was only shown explain nothing."""
    with app.app_context():
        flask_db = app.test_cli_runner()
        assert flask_db.invoke(args=["db", "downgrade", "0005"]).exit_code == 0
        with db.engine.begin() as connection:
            for statement in OF_REQUESTS:
                connection.execute(text(statement))
        upgraded = flask_db.invoke(args=["db", "upgrade", "0006"])
        assert upgraded.exit_code == 0, upgraded.output
        with db.engine.connect() as connection:
            runs = connection.execute(
                text("SELECT id, kind, state, asked_by, asked_by_id, plan_id, slot FROM runs ORDER BY id")
            ).all()
            lines = connection.execute(
                text("SELECT run_id, address, action, settled FROM run_lines ORDER BY run_id, address_id")
            ).all()
        downgraded = flask_db.invoke(args=["db", "downgrade", "0005"])
        assert downgraded.exit_code == 0, downgraded.output
        with db.engine.connect() as connection:
            left = connection.execute(text("SELECT id, trigger, result FROM runs ORDER BY id")).all()
            kept = connection.execute(text("SELECT run_id FROM run_lines")).scalars().all()
        assert flask_db.invoke(args=["db", "upgrade"]).exit_code == 0

    assert [tuple(each) for each in runs] == [
        (1, "sync", "done", "bob", 7, None, None),
        (2, "planned", "planned", "command line", None, None, None),
        (3, "show", "shown", "bob", 7, "b" * 16, None),
        (4, "sync", "asked", "bob", 7, "c" * 16, f"sync members {'c' * 16}"),
    ]
    assert [tuple(each) for each in lines] == [
        (2, "alice@example.org", "add", False),
        (3, "alice@example.org", "remove", True),
        (3, "erased-9", "left", True),
    ]
    assert [tuple(each) for each in left] == [(1, "bob", "done"), (2, "command line", "open")]
    assert kept == [2]


_AT = "'2026-11-22 06:00:00'"
_RUN = "INSERT INTO runs (list_handle, kind, trigger, host, started_at, result, message, accepted, initialised, "
_REQUEST = (
    "INSERT INTO requests (id, list_handle, asked_by_id, asked_by, asked_at, host, message, initialised, adds, removals, "
    '"left", joined, held, doubtful, warning, kind, state, slot, plan_id, found_plan_id, run_id) '
    f"VALUES ({{}}, 'members', 7, 'bob', {_AT}, '', '', 0, 0, 0, 0, 0, 0, 0, '', {{}})"
)
OF_REQUESTS = (
    "INSERT INTO addresses (id, canonical, spelling, erase) VALUES (5, 'alice@example.org', 'Alice@example.org', false)",
    f'{_RUN} "left", joined, added, removed, held, refused) '
    f"VALUES ('members', 'sync', 'request 1 of bob', 'h', {_AT}, 'done', '', false, 0, 0, 0, 0, 0, 0, 0), "
    f"('tech', 'planned', 'command line', 'h', {_AT}, 'open', '', false, 0, 0, 0, 0, 0, 0, 0)",
    "INSERT INTO run_lines (run_id, address_id, list_handle, address, spelling, action, reason, held, version, words, "
    "settled) VALUES (2, 5, 'tech', 'alice@example.org', 'alice@example.org', 'add', 'chosen', false, 0, '', false)",
    _REQUEST.format(1, "'sync', 'done', NULL, NULL, NULL, 1"),
    _REQUEST.format(2, f"'show', 'done', NULL, NULL, '{'b' * 16}', NULL"),
    _REQUEST.format(3, f"'apply', 'waiting', 'apply members {'c' * 16}', '{'c' * 16}', NULL, NULL"),
    "INSERT INTO request_lines (request_id, position, address_id, action, reason, held) "
    "VALUES (2, 1, 5, 'remove', 'chosen', false), (2, 2, 9, 'left', 'list', false)",
)
