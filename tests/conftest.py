"""The actors of the tests: an application on a database of its own, a clock that stands still, a browser, a shell."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from hypothesis import HealthCheck
from hypothesis import settings as hypothesis_settings
from sqlalchemy import text
from sqlalchemy.orm import Session

from portal import create_app
from portal.extensions import Portal, db

SERVER = os.environ.get("PORTAL_TEST_DATABASE_URI")  # a PostgreSQL database that the tests may empty; none: SQLite

hypothesis_settings.register_profile(
    "portal", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
hypothesis_settings.load_profile("portal")

# Two lists that everybody sees and one for a group, on text files. Tests that need others write their own.
CATALOGUE = """
enabled = true

[lists.members]
name = "Members"
desc = "News and decisions for all members."
email = "members@lists.example.org"
archive = "https://lists.example.org/archives/members/"
syncpws = false

[lists.tech]
name = "Tech"
desc = "Maintenance windows and operations talk."
email = "tech@lists.example.org"
syncpws = false

[lists.board]
name = "Board"
email = "board@lists.example.org"
audience = ["board"]
syncpws = false

[managers.files]
kind = "file"
directory = "rosters"
"""


class Clock:
    """A clock that moves when it is told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **units: float) -> None:
        self.now += timedelta(**units)


class Rosters:
    """The list manager of the test catalogue: text files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        for handle in ("members", "tech", "board"):
            (folder / f"{handle}.txt").touch()

    def get(self, handle: str) -> set[str]:
        lines = (self.folder / f"{handle}.txt").read_text().splitlines()
        return {line for line in lines if line and not line.startswith("#")}

    def set(self, handle: str, *addresses: str) -> None:
        (self.folder / f"{handle}.txt").write_text("".join(f"{each}\n" for each in addresses))


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database after `flask db upgrade`: a file to copy, or the server's, to empty before each test."""
    folder = tmp_path_factory.mktemp("migrated")
    _migrate(folder)
    return folder / "portal.db"


@pytest.fixture
def mends_the_database(tmp_path: Path) -> Iterator[None]:
    """For a test that wrecks its database: the server's, which all tests share, is made anew after it."""
    yield
    if SERVER:
        _migrate(tmp_path)


@pytest.fixture
def instance(tmp_path: Path, migrated: Path) -> Path:
    """An instance folder with the catalogue and an empty, migrated database."""
    folder = tmp_path / "instance"
    folder.mkdir()
    (folder / "mailinglists.toml").write_text(CATALOGUE)
    if not SERVER:
        shutil.copy(migrated, folder / "portal.db")
    return folder


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rosters(instance: Path) -> Rosters:
    return Rosters(instance / "rosters")


@pytest.fixture
def make_app(instance: Path, clock: Clock) -> Iterator[Callable[..., Flask]]:
    """Build an application on the instance folder; call it again after changing a file there."""
    made: list[Flask] = []

    def build(**environ: str) -> Flask:
        app = create_app({"TESTING": True}, environ={**_environ(instance), **environ})
        made_portal: Portal = app.extensions["portal"]
        app.extensions["portal"] = replace(made_portal, clock=clock)
        made.append(app)
        return app

    if SERVER:
        _empty(build())
    yield build
    for app in made:
        with app.app_context():
            db.engine.dispose()


@pytest.fixture
def app(make_app: Callable[..., Flask], rosters: Rosters) -> Flask:
    return make_app()


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    """A session of the test's own, with no transaction open."""
    with app.app_context(), Session(db.engine) as session:
        yield session


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def _migrate(folder: Path) -> None:
    app = create_app(environ=_environ(folder))
    with app.app_context():
        if SERVER:
            with db.engine.begin() as connection:
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text("CREATE SCHEMA public"))
        result = app.test_cli_runner().invoke(args=["db", "upgrade"])
        assert result.exit_code == 0, result.output
        db.engine.dispose()


def _environ(instance: Path) -> dict[str, str]:
    found = {"PORTAL_INSTANCE": str(instance), "PORTAL_BCRYPT_ROUNDS": "4"}
    if SERVER:
        found["PORTAL_SQLALCHEMY_DATABASE_URI"] = SERVER
    return found


def _empty(app: Flask) -> None:
    with app.app_context(), db.engine.begin() as connection:
        tables = ", ".join(table.name for table in db.metadata.sorted_tables)
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
