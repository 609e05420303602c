"""The examples of docs/people.md for databases and directories: their blocks are run as they stand there."""

import shlex
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.services.accounts import profiles
from tests.conftest import SERVER
from tests.test_docs import READ, ROOT, blocks, section

PAGE = section(READ[ROOT / "docs" / "people.md"], "## From a database or a directory")
TABLES = """
CREATE TABLE members (number INTEGER, login TEXT, email TEXT, first_name TEXT, last_name TEXT, left_on DATE);
CREATE TABLE member_groups (member INTEGER, name TEXT);
INSERT INTO members VALUES (7, 'ada', 'ada@example.org', 'Ada', 'Lovelace', NULL),
  (12, 'zoe', 'zoe@example.org', 'Zoë', 'Müller', NULL), (13, 'gone', 'gone@example.org', 'Has', 'Left', '2026-01-01');
INSERT INTO member_groups VALUES (7, 'board'), (7, 'full'), (12, 'associate');
"""
PEOPLE = {
    "ada": ("Ada Lovelace", ("board", "full"), ("ada@example.org",)),
    "zoe": ("Zoë Müller", ("associate",), ("zoe@example.org",)),
}


class Example:
    """The settings of a section, with places of the test, and what an import by them prints and makes."""

    def __init__(self, instance: Path, make_app: Callable[..., Flask]) -> None:
        self.instance, self.make_app = instance, make_app

    def run(self, heading: str, places: dict[str, str]) -> list[str]:
        (settings,) = (block for _, block in blocks(section(PAGE, heading), "toml"))
        for place, here in places.items():
            assert place in settings
            settings = settings.replace(place, here)
        (self.instance / "portal.toml").write_text(settings, encoding="utf-8")
        return self.make_app().test_cli_runner().invoke(args=["user", "import"]).output.splitlines()

    def people(self) -> dict[str, tuple[str, tuple[str, ...], tuple[str, ...]]]:
        with self.make_app().app_context(), Session(db.engine) as session:
            return {each.username: (each.name, each.groups, each.addresses) for each in profiles.list_all(session)}


@pytest.fixture
def example(instance: Path, make_app: Callable[..., Flask]) -> Example:
    return Example(instance, make_app)


@contextmanager
def club_of_sqlite(folder: Path) -> Iterator[dict[str, str]]:
    """Make the tables of the example; yield the places that are other ones here."""
    with closing(sqlite3.connect(folder / "members.db")) as database:
        database.executescript(TABLES)
    yield {"/srv/club/members.db": str(folder / "members.db")}


@contextmanager
def club_of_postgresql(_folder: Path) -> Iterator[dict[str, str]]:
    import psycopg

    uri = str(SERVER).replace("+psycopg", "")
    with psycopg.connect(uri, autocommit=True) as connection:
        connection.execute(f"CREATE SCHEMA club; SET search_path TO club; {TABLES}")
        try:
            yield {"service=members": f"{uri}?options=-csearch_path%3Dclub"}  # a service is found in the home folder
        finally:
            connection.execute("DROP SCHEMA club CASCADE")


CLUBS = {"### SQLite": club_of_sqlite} | ({"### PostgreSQL": club_of_postgresql} if SERVER else {})


@pytest.mark.parametrize("heading", CLUBS)
def test_members_come_from_a_database(example: Example, tmp_path: Path, heading: str) -> None:
    (sql,) = (block for _, block in blocks(section(PAGE, heading), "sql"))
    query = tmp_path / "members.sql"
    query.write_text(sql)
    with CLUBS[heading](tmp_path) as places:
        places["/srv/portal/members.sql"] = str(query)
        assert example.run(heading, places) == []
        assert example.people() == PEOPLE
        query.write_text("SELECT nonsense;")
        (error, *_) = example.run(heading, places)
    assert error.startswith("error: membership.command: ended with exit code ")
    assert "nonsense" in error


def test_members_come_from_a_directory(example: Example, tmp_path: Path) -> None:
    """What ldapsearch prints is the transcript's, with the group that the search of the example also asks for."""
    ((_, transcript),) = blocks(section(PAGE, "### LDAP"), "text")
    ldif = (
        transcript.partition("\n")[2].partition("\n$ ")[0].replace("Number: 12", "Number: 12\nemployeeType: associate")
    )
    (tmp_path / "answer.ldif").write_text(f"{ldif}\n# pagedresults: cookie=\n", encoding="utf-8")
    (script,) = (block for _, block in blocks(section(PAGE, "### LDAP"), "python"))
    programs = {
        "members-from-ldap": script.replace("/usr/bin/python3", sys.executable).replace(
            '"ldapsearch"', f'"{tmp_path / "ldapsearch"}"'
        ),
        "ldapsearch": f"#!/bin/sh\nexec cat {shlex.quote(str(tmp_path / 'answer.ldif'))}\n",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / name).chmod(0o755)
    places = {"/srv/portal/members-from-ldap": str(tmp_path / "members-from-ldap")}
    assert example.run("### LDAP", places) == []
    assert example.people() == {
        "ada": ("Ada Lovelace", (), ("ada@example.org", "ada@work.example.org")),
        "zoe": ("Zoë Müller", ("associate",), ("zoe@example.org",)),
    }
    (tmp_path / "answer.ldif").unlink()
    (error,) = example.run("### LDAP", places)
    assert error.startswith("error: membership.command: ended with exit code 1: ")
