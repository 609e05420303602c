"""Fixtures for all tests: an application with its own database, a fixed clock, a browser, a shell."""

import fcntl
import os
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from flask import Flask
from flask.cli import FlaskGroup
from flask.testing import FlaskClient, FlaskCliRunner
from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from jinja2 import BytecodeCache, FileSystemBytecodeCache
from sqlalchemy import Engine, create_engine, event, make_url, text
from sqlalchemy.orm import Session

from hatch_build import compile_catalogues
from portal import create_app
from portal.application import Application
from portal.extensions import Portal, db
from portal.services import security_log

# A PostgreSQL database that tests may empty; without it they use SQLite. Each worker of pytest-xdist has its own copy.
TEMPLATE = os.environ.get("PORTAL_TEST_DATABASE_URI")
WORKER = os.environ.get("PYTEST_XDIST_WORKER")
SERVER = f"{TEMPLATE}_{WORKER}" if TEMPLATE and WORKER else TEMPLATE

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # background jobs inherit this and would pass it on
    signal.signal(signal.SIGINT, signal.default_int_handler)

hypothesis_settings.register_profile(
    "portal", deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
hypothesis_settings.register_profile("nightly", hypothesis_settings.get_profile("portal"))
# Deterministic examples, so that planted faults are noticed every time; no shrinking is needed.
hypothesis_settings.register_profile(
    "faults",
    hypothesis_settings.get_profile("portal"),
    max_examples=30,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate],
)
# CI judges a change, so its examples are fixed; developers' and nightly runs are random.
hypothesis_settings.register_profile("ci", hypothesis_settings.get_profile("portal"), derandomize=True)
hypothesis_settings.load_profile("ci" if os.environ.get("CI") else "portal")


compile_catalogues(Path(__file__).parents[1])


def is_nightly() -> bool:
    """Return True if there is time for more examples: pytest --hypothesis-profile=nightly."""
    return hypothesis_settings.get_current_profile_name() == "nightly"


# Two lists for everybody and one for a group, on text files. Tests that need others write their own.
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
    """A clock that moves only when a test moves it."""

    def __init__(self) -> None:
        self.now = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **units: float) -> None:
        self.now += timedelta(**units)


class Rosters:
    """The list manager of the test catalogue, on text files."""

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
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The database after `flask db upgrade`, made once for all workers: a file to copy, or the template for SERVER."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if WORKER else folder) / "migrated"
    folder.mkdir(exist_ok=True)
    with _one_at_a_time(folder):
        if not (folder / "done").exists():
            _migrate(folder, TEMPLATE)
            (folder / "done").touch()
        if SERVER != TEMPLATE:
            _on_the_server(
                f"DROP DATABASE IF EXISTS {_name(SERVER)}",
                f"CREATE DATABASE {_name(SERVER)} TEMPLATE {_name(TEMPLATE)}",
            )
    yield folder / "portal.db"
    if SERVER != TEMPLATE:
        _on_the_server(f"DROP DATABASE {_name(SERVER)} WITH (FORCE)")


@pytest.fixture
def mends_the_database(tmp_path: Path) -> Iterator[None]:
    """Restore the server's shared database after a test that damages it."""
    yield
    if SERVER:
        _migrate(tmp_path, SERVER)


@pytest.fixture(scope="session")
def server(migrated: Path) -> Iterator[Engine | None]:
    """The connection that empties the server's database."""
    engine = create_engine(SERVER, pool_size=1) if SERVER else None
    yield engine
    if engine:
        engine.dispose()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The instance folder, with the same path in every test, so that one application can serve them all."""
    return tmp_path_factory.mktemp("home") / "instance"


@pytest.fixture
def instance(home: Path, migrated: Path, server: Engine | None) -> Path:
    """An instance folder with the catalogue and an empty, migrated database."""
    _furnish(home)
    if server:
        _empty(server)
    else:
        shutil.copy(migrated, home / "portal.db")
    return home


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rosters(instance: Path) -> Rosters:
    return Rosters(instance / "rosters")


@pytest.fixture(scope="session")
def compiled_templates(tmp_path_factory: pytest.TempPathFactory) -> BytecodeCache:
    """A cache of compiled templates, so that each application need not compile them again."""
    return FileSystemBytecodeCache(str(tmp_path_factory.mktemp("templates")))


@pytest.fixture
def make_app(instance: Path, clock: Clock, compiled_templates: BytecodeCache) -> Iterator[Callable[..., Flask]]:
    """Make an application on the instance folder; call it again after changing a file there.

    With ``for_a_command`` it is the one that the program ``flask`` makes, without pages, which take most of the time.
    """
    made: list[Application] = []

    def build(*, for_a_command: bool = False, **environ: str) -> Flask:
        with click.Context(FlaskGroup()) if for_a_command else nullcontext():
            app = create_app({"TESTING": True}, environ={**_environ(instance, SERVER), **environ})
        app.use_database()
        made_portal: Portal = app.extensions["portal"]
        app.extensions["portal"] = replace(made_portal, clock=clock)
        if app.has_pages:
            app.jinja_env.bytecode_cache = compiled_templates
        made.append(app)
        _spare_the_disk(app)
        return app

    yield build
    for app in made:
        _disconnect(app)


@pytest.fixture(scope="session")
def composed(home: Path, migrated: Path, compiled_templates: BytecodeCache) -> Flask:
    """The application that tests share. It has answered a request, so Flask refuses changes to it."""
    _furnish(home)
    app = create_app({"TESTING": True}, environ=_environ(home, SERVER))
    app.jinja_env.bytecode_cache = compiled_templates
    app.test_client().get("/static/")
    _spare_the_disk(app)
    return app


@pytest.fixture
def app(composed: Flask, instance: Path, rosters: Rosters, clock: Clock) -> Iterator[Flask]:
    """The shared application, prepared for this test; use make_app for other settings or routes."""
    config, portal = dict(composed.config), composed.extensions["portal"]
    secret = instance / "secret_key"
    secret.touch(mode=0o600)
    secret.write_text(config["SECRET_KEY"])
    portal.catalogue.cache_clear()
    security_log.write_to(portal.settings.security_log_in(instance), instance=instance)
    composed.extensions["portal"] = replace(portal, clock=clock)
    before = _shape(composed)
    yield composed
    assert _shape(composed) == before, (
        "what changes the application's routes, hooks or listeners takes one from make_app"
    )
    _disconnect(composed)
    composed.config.clear()
    composed.config.update(config)
    composed.extensions["portal"] = portal
    composed.test_client_class = None


@pytest.fixture
def session(app: Flask) -> Iterator[Session]:
    """A session for the test, with no transaction open."""
    with app.app_context(), Session(db.engine) as session:
        yield session


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


@contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _migrate(folder: Path, uri: str | None) -> None:
    app = create_app(environ=_environ(folder, uri))
    with app.app_context():
        if uri:
            with db.engine.begin() as connection:
                connection.execute(text("DROP SCHEMA public CASCADE"))
                connection.execute(text("CREATE SCHEMA public"))
        result = app.test_cli_runner().invoke(args=["db", "upgrade"])
        assert result.exit_code == 0, result.output
        db.engine.dispose()


def _environ(instance: Path, uri: str | None) -> dict[str, str]:
    found = {"PORTAL_INSTANCE": str(instance), "PORTAL_BCRYPT_ROUNDS": "4"}
    return {**found, "PORTAL_SQLALCHEMY_DATABASE_URI": uri} if uri else found


def _furnish(home: Path) -> None:
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir()
    (home / "mailinglists.toml").write_text(CATALOGUE)


def _spare_the_disk(app: Flask) -> None:
    """Do not wait for the disk at commits; test data need not survive a power cut."""

    def hurry(connection: Any, _record: object) -> None:
        connection.execute("PRAGMA synchronous = OFF").close()

    with app.app_context():
        if db.engine.dialect.name == "sqlite":
            event.listen(db.engine, "connect", hurry)


def _shape(app: Flask) -> tuple[object, ...]:
    """Return everything that a test could leave changed for later tests."""
    with app.app_context():
        listeners = [*db.engine.dispatch.before_cursor_execute], [*db.engine.dispatch.commit]
    hooks = {where: list(hooks) for where, hooks in app.before_request_funcs.items()}
    return listeners, hooks, dict(app.view_functions), len(list(app.url_map.iter_rules()))


def _disconnect(app: Flask) -> None:
    with app.app_context():
        db.engine.dispose()


def _name(uri: str) -> str:
    return f'"{make_url(uri).database}"'


def _on_the_server(*statements: str) -> None:
    """Create or drop databases, which PostgreSQL does only outside transactions and from another database."""
    engine = create_engine(make_url(TEMPLATE).set(database="postgres"), isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        for statement in statements:
            connection.execute(text(statement))
    engine.dispose()


def _empty(server: Engine) -> None:
    tables = ", ".join(table.name for table in db.metadata.sorted_tables)
    with server.begin() as connection:
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY CASCADE"))
