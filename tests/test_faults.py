"""The table of errors: each has an exit code and a status, and each renderer shows it correctly."""

import inspect
import sqlite3
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path

import click
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import create_engine, text
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from portal import create_app, errors
from portal.faults import FAULTS, UNFORESEEN, StartError, as_portal_error, exit_with, fault_of, one_line, print_error

KINDS = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, errors.PortalError)]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_every_error_stands_in_the_table_itself(kind: type[errors.PortalError]) -> None:
    fault = FAULTS[kind]

    assert fault.exit_code in {1, 65, 69, 75, 77, 78}
    assert 400 <= HTTPStatus(fault.status) < 600
    assert fault.title


def test_the_table_holds_nothing_else() -> None:
    assert set(FAULTS) == set(KINDS)


@pytest.mark.parametrize(
    ("kind", "exit_code"),
    [
        (errors.NoAddressesError, 65),
        (errors.UnknownUserError, 65),
        (errors.NotOfferedError, 65),
        (errors.DuplicateError, 65),
        (errors.ListManagerUnavailableError, 69),
        (errors.DatabaseUnavailableError, 69),
        (errors.RosterInDoubtError, 69),
        (errors.LeaseHeldError, 75),
        (errors.SafetyLimitError, 77),
        (errors.DisabledError, 78),
        (errors.UnknownListError, 78),
        (errors.NotMigratedError, 78),
        (errors.ConfigurationError, 78),
    ],
)
def test_exit_codes_are_the_promised_ones(kind: type[errors.PortalError], exit_code: int) -> None:
    assert FAULTS[kind].exit_code == exit_code


def test_an_error_of_a_new_kind_is_what_its_parent_is() -> None:
    class TornRosterError(errors.ListManagerUnavailableError):
        """Half of a roster."""

    assert fault_of(TornRosterError()) == FAULTS[errors.ListManagerUnavailableError]
    assert fault_of(ZeroDivisionError()) == UNFORESEEN


def test_an_error_is_one_line_without_control_characters() -> None:
    assert one_line(errors.PortalError("a\nb\x1b[31mc\u2028d")) == "a b [31mc d"
    assert one_line(ZeroDivisionError("by\nzero")) == "ZeroDivisionError: by zero"


def test_a_command_ends_with_one_line_on_stderr_and_the_code(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        exit_with(errors.SafetyLimitError("too much\nrun again with: --accept 0123", plan_id="0123"))

    assert left.value.code == 77
    assert capsys.readouterr() == (
        "",
        "error: too much run again with: --accept 0123 (docs/errors.md#needs-approval)\n",
    )


def test_an_unforeseen_error_ends_a_command_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        exit_with(ZeroDivisionError("by zero"))

    assert left.value.code == 1
    assert capsys.readouterr().err == "error: ZeroDivisionError: by zero (docs/errors.md#something-went-wrong)\n"


def test_an_error_at_start_is_one_line_and_78(capsys: pytest.CaptureFixture[str]) -> None:
    error = StartError("portal.toml: not valid TOML")
    error.show()

    assert error.exit_code == 78
    assert capsys.readouterr().err == "error: portal.toml: not valid TOML (docs/errors.md#configuration-error)\n"


def test_a_missing_table_is_told_with_what_to_run(session: Session) -> None:
    with pytest.raises(DBAPIError) as raised:
        session.execute(text("SELECT * FROM no_such_table"))
    session.rollback()

    known = as_portal_error(raised.value)
    assert isinstance(known, errors.NotMigratedError)
    assert str(known).startswith("the database is not migrated; run: flask db upgrade (")
    assert "\n" not in str(known)


@pytest.mark.parametrize("access", ["rw", "ro"], ids=["no file", "only to be read"])
def test_a_file_that_is_not_ours_is_told_with_what_to_do(tmp_path: Path, access: str) -> None:
    path = tmp_path / "portal.db"
    if access == "ro":
        sqlite3.connect(path).close()
    engine = create_engine(f"sqlite:///file:{path}?mode={access}&uri=true")
    with pytest.raises(DBAPIError) as raised, engine.connect() as connection:
        connection.execute(text("CREATE TABLE one (two INTEGER)"))

    known = as_portal_error(raised.value)
    assert isinstance(known, errors.DatabaseUnavailableError)
    assert str(known).endswith("; run this as the owner of the database file and its folder")


@pytest.mark.parametrize(
    ("words", "advice"),
    [
        ("database is locked", "find that program and end it"),
        ("database or disk is full", "free some space on its disk"),
        ("disk I/O error", "check whether its disk is full, and then whether the disk is faulty"),
        ("connection failed: connection to server failed: Connection refused", "check that PostgreSQL is running"),
        ("connection is bad: no such socket", "check that PostgreSQL is running"),
    ],
)
def test_a_database_that_cannot_be_used_is_reported_with_what_to_do(words: str, advice: str) -> None:
    known = as_portal_error(OperationalError("SELECT", {}, Exception(words)))
    assert isinstance(known, errors.DatabaseUnavailableError)
    assert str(known).startswith(f"the database is unavailable: {words}; ")
    assert advice in str(known)


def test_a_command_prints_the_same_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        with click.Context(click.Command("sync")):
            for words in ("down", "down", "up"):
                print_error(errors.DatabaseUnavailableError(words))
    lines = [f"error: {words} (docs/errors.md#database-unavailable)\n" for words in ("down", "up")]
    assert capsys.readouterr().err == "".join(lines * 2)


def test_a_database_that_is_damaged_is_told_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "portal.db").write_bytes(b"no database, however long it is " * 100)
    engine = create_engine(f"sqlite:///{tmp_path / 'portal.db'}")
    with pytest.raises(DBAPIError) as raised, engine.connect() as connection:
        connection.execute(text("SELECT * FROM users"))

    known = as_portal_error(raised.value)
    assert isinstance(known, errors.DatabaseUnavailableError)
    assert str(known) == "the database is damaged; restore a backup: file is not a database"


def test_other_mistakes_in_sql_stay_unforeseen(session: Session) -> None:
    with pytest.raises(DBAPIError) as raised:
        session.execute(text("SELECT 1 WHERE 'a' = ANY (SELEC 1)"))
    session.rollback()

    assert fault_of(as_portal_error(raised.value)).exit_code in {1, 69}  # SQLite calls a typing error operational


@pytest.fixture
def failing(make_app: Callable[..., Flask]) -> Flask:
    """An application whose pages and calls raise what the test puts into ``app.config["RAISE"]``."""

    app = make_app()

    def fail() -> str:
        raise app.config["RAISE"]

    for path in ("/fail", "/api/v1/fail"):
        app.add_url_rule(path, endpoint=path, view_func=fail)
    app.before_request_funcs.clear()  # the guard that asks for a log-in is tested elsewhere
    app.config["PROPAGATE_EXCEPTIONS"] = False
    return app


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.SafetyLimitError("too much", plan_id="0123"), 409),
        (errors.NotOfferedError("not offered"), 404),
        (errors.ForbiddenError("superusers only"), 403),
        (errors.RateLimitedError("too many tries", retry_after=42), 429),
        (errors.ListManagerUnavailableError("/usr/lib/mailman: no answer"), 503),
        (ZeroDivisionError("secret detail"), 500),
    ],
)
def test_a_request_that_fails_has_the_tables_status_in_both_forms(
    failing: Flask, error: Exception, status: int
) -> None:
    failing.config["RAISE"] = error
    client: FlaskClient = failing.test_client()

    page, problem = client.get("/fail"), client.get("/api/v1/fail")

    assert (page.status_code, page.mimetype) == (status, "text/html")
    assert (problem.status_code, problem.mimetype) == (status, "application/problem+json")
    assert problem.json["status"] == status
    assert "secret detail" not in page.text + problem.text
    assert "/usr/lib/mailman" not in page.text
    if isinstance(error, errors.RateLimitedError):
        assert page.headers["Retry-After"] == problem.headers["Retry-After"] == "42"


def test_a_missing_driver_is_reported_with_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    environ = {
        "PORTAL_INSTANCE": str(tmp_path),
        "PORTAL_SQLALCHEMY_DATABASE_URI": "postgresql+psycopg://portal@/portal",
    }
    with pytest.raises(StartError, match=r"driver cannot be imported .*\.\[server,postgresql\]"):
        create_app(environ=environ)
