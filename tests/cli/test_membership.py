"""`flask user import`, `link`, `unlink`, `forget-key`: what they print, and how they end."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy.orm import Session

from portal.services.accounts import profiles
from portal.services.mail import letter_folder
from tests.conftest import Clock

FILE = "no,username,email,name,groups\n1,ada,ada@example.org,Ada,full\n2,bob,bob@example.org,Bob,\n"
SOURCE = """
[membership]
{}

[membership.columns]
key = "no"
username = "username"
name = "name"
groups = "groups"
"""

FlaskUser = Callable[..., Result]


@pytest.fixture
def flask_user(runner: FlaskCliRunner) -> FlaskUser:
    def call(*args: str, **options: Any) -> Result:
        return runner.invoke(args=["user", *args], **options)

    return call


@pytest.fixture
def with_source(make_app: Callable[..., Flask], instance: Path) -> Callable[[str], FlaskUser]:
    """Configure a membership source."""

    def configure(setting: str) -> FlaskUser:
        (instance / "portal.toml").write_text(SOURCE.format(setting))
        runner = make_app(for_a_command=True).test_cli_runner()
        return lambda *args: runner.invoke(args=["user", *args])

    return configure


def test_import_reads_a_file_or_stdin(flask_user: FlaskUser, session: Session, tmp_path: Path) -> None:
    file = tmp_path / "members.csv"
    file.write_text("username,email\nalice,alice@example.org\n")
    result = flask_user("import", str(file))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "1 created\n")
    assert flask_user("import", "-", input="username,email\nbob,bob@example.org\n").exit_code == 0
    assert [each.username for each in profiles.list_all(session)] == ["alice", "bob"]
    assert flask_user("import", str(file)).stderr == "1 reported\n"


def test_accounts_follow_a_file_with_a_key(flask_user: FlaskUser, session: Session) -> None:
    assert flask_user("import", "--key", "no", "-", input=FILE).stderr == "2 created\n"
    assert flask_user("import", "--key", "no", "-", input=FILE).stderr == "nothing to do\n"
    changed = FILE.replace("ada@example.org,Ada", "king@example.org,Ada King").partition("2,bob")[0]
    plan = flask_user("import", "--key", "no", "--leavers", "deactivate", "--dry-run", "-", input=changed)
    assert plan.stdout.splitlines()[1:] == [
        "change      1    ada       Ada King  name: Ada -> Ada King; address: ada@example.org -> king@example.org",
        "deactivate  2    bob       Bob",
    ]
    assert profiles.by_username(session, "bob").is_active
    result = flask_user("import", "--key", "no", "--leavers", "deactivate", "-", input=changed)
    assert result.stderr == "1 changed, 1 deactivated\n"
    assert not profiles.by_username(session, "bob").is_active


def test_a_plan_is_printed_as_json(flask_user: FlaskUser) -> None:
    result = flask_user("import", "--key", "no", "--dry-run", "--format", "json", "-", input=FILE)
    plan = json.loads(result.stdout)
    assert plan["counts"]["created"] == 2
    assert {"field": "address", "removed": [], "added": ["ada@example.org"]} in plan["lines"][0]["changes"]


def test_lines_that_cannot_be_read_are_reported_and_the_others_imported(
    flask_user: FlaskUser, session: Session
) -> None:
    lines = "".join(f"k{number},user{number},\x1b[31mno address,,\n" for number in range(50))
    result = flask_user("import", "--key", "no", "-", input=FILE + lines)
    told = result.stderr.splitlines()
    assert (result.exit_code, result.stdout, len(told)) == (0, "", 22)
    assert told[0].startswith("line 4 (key k0 user0): column 'email': not an e-mail address: ")
    assert told[-2:] == ["and 30 more", "2 created, 50 problems"]
    assert "\x1b" not in result.stderr
    assert len(list(profiles.list_all(session))) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("no,username,email\n", "no member"),
        ("name\nAda\n", "no column named 'no'"),
        ("PK\x03\x04", "spreadsheet"),
    ],
)
def test_a_file_that_cannot_be_understood_changes_nothing(flask_user: FlaskUser, content: str, words: str) -> None:
    result = flask_user("import", "--key", "no", "-", input=content)
    assert (result.exit_code, words in result.stderr, result.stderr.count("\n")) == (65, True, 1)


def test_a_plan_that_exceeds_the_limits_waits_for_its_id(flask_user: FlaskUser, session: Session) -> None:
    people = [f"{n},user{n},user{n}@example.org,,\n" for n in range(20)]
    header = FILE.partition("\n")[0] + "\n"
    flask_user("import", "--key", "no", "-", input=header + "".join(people))
    options = ("import", "--key", "no", "--leavers", "deactivate")
    held = flask_user(*options, "-", input=header + "".join(people[10:]))
    assert held.exit_code == 77
    assert profiles.by_username(session, "user1").is_active
    accept = held.stderr.rpartition("--accept ")[2].split()[0]
    assert flask_user(*options, "--accept", "0" * 16, "-", input=header + "".join(people[10:])).exit_code == 77
    done = flask_user(*options, "--accept", accept, "-", input=header + "".join(people[10:]))
    assert (done.exit_code, done.stderr) == (0, "10 deactivated\n")


def test_the_source_is_followed_without_a_word(with_source: Callable[[str], FlaskUser], instance: Path) -> None:
    flask_user = with_source('file = "members.csv"')
    (instance / "members.csv").write_text(FILE)
    assert (flask_user("import").exit_code, flask_user("import").output) == (0, "")
    (instance / "members.csv").write_text(FILE.replace("2,bob,bob@", "3,carl,carl@") + "4,dora,nobody,,\n")
    result = flask_user("import")
    assert result.stderr.splitlines()[0].startswith(
        "line 4 (key 4 dora): column 'email': not an e-mail address: nobody: correct it in the source"
    )
    assert flask_user("import").output == "", "a problem is told once"
    people = json.loads(flask_user("list", "--format", "json").stdout)
    active = {each["username"]: each["is_active"] for each in people}
    assert active == {"ada": True, "bob": False, "carl": True}


def test_new_people_of_the_source_are_invited_where_it_says_so(make_app: Callable[..., Flask], instance: Path) -> None:
    mail = '[mail]\nsender = "portal@example.org"\nfolder = "letters"\n'
    (instance / "portal.toml").write_text(SOURCE.format('file = "members.csv"\ninvite = true') + mail)
    (instance / "members.csv").write_text(FILE)
    runner = make_app().test_cli_runner()
    assert runner.invoke(args=["user", "import"]).output == ""
    assert runner.invoke(args=["minutely"]).output == ""
    assert {each.to for each in letter_folder.read(instance / "letters")} == {"ada@example.org", "bob@example.org"}


@pytest.mark.parametrize(
    ("setting", "exit_code", "words"),
    [
        ('file = "missing.csv"', 69, "No such file"),
        ('command = "/bin/false"', 69, "exit code 1"),
        ('command = "/bin/sleep 30"\ntimeout = 0.2', 69, "did not finish within 0.2 seconds"),
        ("command = \"printf 'no,username,email,name,groups'\"", 69, "ends in the middle of a line"),
        ('command = "/bin/true"', 65, "empty"),
        ("", 78, "no membership source"),
    ],
)
def test_a_source_that_cannot_be_read_whole_changes_nothing(
    with_source: Callable[[str], FlaskUser], setting: str, exit_code: int, words: str
) -> None:
    result = with_source(setting)("import")
    assert (result.exit_code, words in result.stderr) == (exit_code, True), result.stderr


def test_a_command_may_be_the_source(with_source: Callable[[str], FlaskUser], instance: Path) -> None:
    (instance / "list.csv").write_text(FILE)
    flask_user = with_source(f'command = "cat {instance / "list.csv"}"')
    assert flask_user("import").output == ""
    assert [each["username"] for each in json.loads(flask_user("list", "--format", "json").stdout)] == ["ada", "bob"]


def test_who_is_who_can_be_settled_by_hand(flask_user: FlaskUser, session: Session) -> None:
    flask_user("import", "--key", "no", "-", input=FILE)
    assert flask_user("unlink", "ada").stderr == "ada is no longer linked to 1\n"
    assert flask_user("unlink", "ada").exit_code == 65
    assert flask_user("link", "ada", "2").exit_code == 65, "it is Bob's"
    assert flask_user("link", "ada", "1").stderr.startswith("ada is linked to 1")
    assert flask_user("link", "nobody", "9").exit_code == 65
    assert flask_user("forget-key", "1").exit_code == 65
    flask_user("delete", "--yes", "ada")
    assert flask_user("import", "--key", "no", "-", input=FILE).stderr.splitlines()[0].startswith("line 2 (key 1 ada)")
    assert flask_user("forget-key", "1").exit_code == 0
    assert flask_user("import", "--key", "no", "-", input=FILE).stderr == "1 created\n"


def test_two_accounts_are_merged_after_a_look_at_what_becomes_of_them(flask_user: FlaskUser, session: Session) -> None:
    flask_user("import", "--key", "no", "-", input=FILE + "3,ada3,home@example.org,Ada,board\n")
    assert flask_user("merge", "ada3", "ada").exit_code == 65
    told = ["ada gains the addresses home@example.org", "ada gains the groups board", "ada has the member key 1"]
    told.append("the member key 3 is treated as that of a deleted account")
    shown = flask_user("merge", "--dry-run", "--keep-key", "1", "ada3", "ada")
    assert shown.stderr.splitlines() == [*told, "dry run: nothing was changed"]
    done = flask_user("merge", "--keep-key", "1", "ada3", "ada")
    assert done.stderr.splitlines() == [*told, "ada3 is merged into ada"]
    assert profiles.by_username(session, "ada").addresses == ("ada@example.org", "home@example.org")


def test_leavers_of_long_ago_are_deleted_by_the_source_alone(
    with_source: Callable[[str], FlaskUser], instance: Path, clock: Clock
) -> None:
    flask_user = with_source('file = "members.csv"\ndelete_leavers_after = "24 months"')
    (instance / "members.csv").write_text(FILE)
    flask_user("import")
    (instance / "members.csv").write_text("".join(FILE.splitlines(keepends=True)[:-1]))
    flask_user("import")
    clock.now = datetime.now(UTC) + timedelta(days=740)  # the history of accounts goes by the database's clock
    assert flask_user("import", str(instance / "members.csv")).exit_code == 0
    assert "accounts of leavers from before 20" in flask_user("import", "--dry-run").stderr
    assert "deleted" not in flask_user("import", "--dry-run", str(instance / "members.csv")).stderr
    assert "bob" in flask_user("list").stdout
    assert (flask_user("import").exit_code, flask_user("import").output) == (0, "")
    assert "bob" not in flask_user("list").stdout
    assert "ada" in flask_user("list").stdout
