"""`flask user`: what it prints where, what it asks, and how it ends."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.services.accounts import api_keys, profiles, sessions
from tests.conftest import SERVER, Clock
from tests.factories import make_preference, make_user
from tests.waiting import wait_until

PASSWORD = "canary battery staple"


@pytest.fixture
def flask_user(runner: FlaskCliRunner):
    def call(*args: str, **values: Any) -> Result:
        return runner.invoke(args=["user", *args], **values)

    return call


def log_in(session: Session, clock: Clock, password: str, name: str = "alice") -> str:
    values = {"origin": sessions.Origin("192.0.2.1"), "remember": False, "now": clock(), "rounds": 4}
    return sessions.log_in(session, name=name, password=password, **values)


def test_create_without_a_terminal_prints_a_random_password_once(flask_user, session, clock):
    result = flask_user("create", "alice", "alice@example.org")
    assert (result.exit_code, result.stderr) == (0, "created alice\n")
    password = result.stdout.removesuffix("\n")
    assert len(password) == 20
    assert "\n" not in password
    assert log_in(session, clock, password)


def test_create_says_whose_an_address_is_already(flask_user, session):
    make_user(session, "alice")
    make_user(session, "bob", "bob@example.org", "alice@example.org")
    result = flask_user("create", "charlie", "Alice@example.org")
    first, *_rest = result.stderr.splitlines()
    assert (result.exit_code, "held by alice, bob" in first) == (0, True)


def test_rename_gives_another_username(flask_user, session):
    user_id = make_user(session, "alice")
    result = flask_user("rename", "alice", "alice.liddell")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "alice is now called alice.liddell\n")
    assert profiles.id_of(session, "alice.liddell") == user_id
    assert flask_user("rename", "alice", "bob").exit_code == 65


def test_revoke_says_how_many_keys_went_with_the_role(flask_user, session, clock):
    make_user(session, "root", is_superuser=True)
    make_user(session, "alice", is_superuser=True)
    api_keys.create(session, "alice", label="list host", expires_days=None, now=clock())
    assert flask_user("revoke", "alice").stderr == "alice is no longer a superuser; API keys revoked: 1\n"
    assert flask_user("revoke", "alice").stderr == "alice is no longer a superuser\n"


def test_create_takes_all_that_an_account_has(flask_user, session, clock):
    args = ["--password-stdin", "--superuser", "--group", "board", "--group", "tech", "--name", "Alice Liddell"]
    result = flask_user("create", *args, "--", "-alice", "-rf@example.org", input=f"{PASSWORD}\n")
    assert (result.exit_code, result.stdout) == (0, "")
    found = profiles.by_username(session, "-alice")
    assert (found.name, found.email, found.groups) == ("Alice Liddell", "-rf@example.org", ("board", "tech"))
    assert found.is_superuser
    assert log_in(session, clock, PASSWORD, "-alice")


@pytest.mark.parametrize(
    "given", ["", "\n", "two lines of\npasswords here\n", b"\xff canary battery staple", "short", "alice@example.org"]
)
def test_a_password_on_stdin_that_cannot_be_one_is_refused(flask_user, session, given):
    result = flask_user("create", "--password-stdin", "alice", "alice@example.org", input=given)
    assert result.exit_code == 65
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert "canary" not in result.stderr
    assert list(profiles.list_all(session)) == []


def test_a_password_keeps_its_spaces_and_odd_characters(flask_user, session, clock):
    password = "  a \x0b canary \N{LINE SEPARATOR} \t "
    assert (
        flask_user("create", "--password-stdin", "alice", "alice@example.org", input=f"{password}\r\n").exit_code == 0
    )
    assert log_in(session, clock, password)


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["create", "alice"], 2),
        (["create", "alice", "no address"], 65),
        (["create", "al ice", "alice@example.org"], 65),
        (["create", "ALICE", "new@example.org"], 65),
        (["show", "nobody"], 65),
        (["set-password", "nobody"], 65),
        (["set-address", "nobody", "a@example.org"], 65),
        (["set-address", "alice", "\x1b[31m@example.org"], 65),
        (["set-groups", "nobody"], 65),
        (["activate", "nobody"], 65),
        (["deactivate", "nobody"], 65),
        (["delete", "--yes", "nobody"], 65),
        (["delete", "alice"], 2),
        (["grant", "nobody"], 65),
        (["revoke", "nobody"], 65),
        (["deactivate", "root"], 65),
        (["import", "/nowhere.csv"], 2),
        (["nonsense"], 2),
    ],
)
def test_errors_say_what_is_wrong_and_change_nothing(flask_user, session, args, code):
    make_user(session, "alice")
    make_user(session, "root", is_superuser=True)
    before = list(profiles.list_all(session))
    result = flask_user(*args)
    assert result.exit_code == code
    assert result.stdout == ""
    assert "\x1b" not in result.stderr
    if code == 65:
        assert result.stderr.startswith("error: ")
        assert result.stderr.count("\n") == 1
    assert list(profiles.list_all(session)) == before


def test_list_prints_a_table_of_the_accounts(flask_user, session):
    make_user(session, "bob", is_superuser=True, is_active=False)
    make_user(session, "alice", groups=("tech", "full members"))
    assert [re.split(r"  +", line) for line in flask_user("list").stdout.splitlines()] == [
        ["USERNAME", "ADDRESS", "NAME", "SUPERUSER", "ACTIVE", "GROUPS"],
        ["alice", "alice@example.org", "Alice", "no", "yes", "full members; tech"],
        ["bob", "bob@example.org", "Bob", "yes", "no", "-"],
    ]


def test_list_as_json_is_an_array_empty_or_not(flask_user, session):
    assert json.loads(flask_user("list", "--format", "json").stdout) == []
    for username in ("alice", "bob"):
        make_user(session, username)
    found = json.loads(flask_user("list", "--format", "json").stdout)
    assert [each["username"] for each in found] == ["alice", "bob"]
    assert found[0] == json.loads(flask_user("show", "--format", "json", "alice").stdout)


def test_show_prints_one_account(flask_user, session):
    make_user(session, "alice", "alice@example.org", "a@example.net", groups=("board",))
    assert dict(line.split(maxsplit=1) for line in flask_user("show", "ALICE").stdout.splitlines()) == {
        "FIELD": "VALUE",
        "id": "1",
        "username": "alice",
        "name": "Alice",
        "email": "alice@example.org",
        "addresses": "alice@example.org; a@example.net",
        "groups": "board",
        "is_superuser": "no",
        "is_active": "yes",
        "created_at": "2026-11-01 12:00 UTC",
        "last_login_at": "-",
        "member_key": "-",
        "deactivated_by_import": "no",
    }


def test_set_password_ends_sessions(flask_user, session, clock):
    password = flask_user("create", "alice", "alice@example.org").stdout.strip()
    token = log_in(session, clock, password)
    result = flask_user("set-password", "--password-stdin", "alice", input=f"{PASSWORD}\n")
    assert (result.exit_code, result.stdout) == (0, "")
    assert sessions.member(session, token, now=clock()) is None
    assert log_in(session, clock, PASSWORD)
    assert log_in(session, clock, flask_user("set-password", "alice").stdout.strip())


def test_the_rest_of_the_account_is_changed(flask_user, session):
    make_user(session, "root", is_superuser=True)
    make_user(session, "alice")
    for args in (
        ["set-address", "alice", "new@Example.net"],
        ["set-groups", "alice", "board", "full members"],
        ["grant", "alice"],
        ["deactivate", "alice"],
    ):
        result = flask_user(*args)
        assert (result.exit_code, result.stdout) == (0, "")
    found = profiles.by_username(session, "alice")
    assert (found.email, found.groups) == ("new@Example.net", ("board", "full members"))
    assert (found.is_superuser, found.is_active) == (True, False)
    for args in (["activate", "alice"], ["revoke", "alice"], ["set-groups", "alice"]):
        assert flask_user(*args).exit_code == 0
    found = profiles.by_username(session, "alice")
    assert (found.is_superuser, found.is_active, found.groups) == (False, True, ())


def test_delete_without_a_terminal_needs_a_yes(flask_user, session):
    make_user(session, "alice")
    result = flask_user("delete", "alice", input="y\n")
    assert result.exit_code == 2
    assert "--yes" in result.stderr
    result = flask_user("delete", "--yes", "--erase", "alice")
    assert (result.exit_code, result.stderr) == (0, "deleted alice (Alice, alice@example.org)\n")
    assert list(profiles.list_all(session)) == []


@pytest.mark.parametrize("catalogue", ["this is not TOML", "enabled = 1\nnonsense = 2\n", None, "enabled = false\n"])
def test_a_catalogue_that_cannot_be_read_stops_none_of_it(make_app, instance, session, catalogue):
    path = instance / "mailinglists.toml"
    path.unlink() if catalogue is None else path.write_text(catalogue)
    make_user(session, "root", is_superuser=True)
    make_user(session, "bob")
    make_preference(session, "members", "bob@example.org", True)
    file = instance / "users.csv"
    file.write_text("username,email\ndora,dora@example.org\n")
    runner = make_app(for_a_command=True).test_cli_runner()
    for args in (
        ["create", "alice", "alice@example.org"],
        ["set-groups", "alice", "board"],
        ["set-address", "bob", "bob@example.net"],
        ["deactivate", "alice"],
        ["activate", "alice"],
        ["import", str(file)],
        ["delete", "--yes", "--erase", "bob"],
        ["list"],
    ):
        result = runner.invoke(args=["user", *args])
        assert result.exit_code == 0, result.output


def test_every_command_has_help_with_an_example(flask_user):
    commands = [line.split()[0] for line in flask_user("--help").stdout.partition("Commands:")[2].splitlines() if line]
    assert len(commands) == 21
    for command in commands:
        result = flask_user(command, "--help")
        assert result.exit_code == 0
        assert f"Example: flask user {command}" in result.stdout


# What follows needs a process of its own: a terminal, a closed pipe.


def flask(instance: Path) -> dict[str, Any]:
    environ = {
        **os.environ,
        "FLASK_APP": "portal",
        "PORTAL_INSTANCE": str(instance),
        "PORTAL_BCRYPT_ROUNDS": "4",
        **({"PORTAL_SQLALCHEMY_DATABASE_URI": SERVER} if SERVER else {}),
    }
    return {"args": [sys.executable, "-m", "flask", "user"], "env": environ}


def at_a_terminal(instance: Path, *args: str, answers: tuple[str, ...], hidden: bool = False) -> tuple[int, str, str]:
    """Run a command at a terminal; return its exit code, what it wrote to stdout, and what the terminal shows."""
    found = flask(instance)
    ours, theirs = pty.openpty()
    argv = [*found["args"], *args]
    with subprocess.Popen(
        argv, env=found["env"], stdin=theirs, stdout=subprocess.PIPE, stderr=theirs, start_new_session=True
    ) as child:
        os.close(theirs)
        try:
            shown = ""
            for answer in answers:
                shown += _until_asked(ours, hidden=hidden)
                os.write(ours, f"{answer}\n".encode())
            stdout = child.communicate(timeout=60)[0].decode()
            return child.returncode, stdout, shown + "".join(_reads(ours))
        finally:
            child.kill()
            os.close(ours)


def _until_asked(ours: int, *, hidden: bool) -> str:
    shown = ""
    for more in _reads(ours):
        shown += more
        if shown.rstrip().endswith(":"):
            break
    # What is typed before the terminal stops showing it would be thrown away.
    if hidden:
        wait_until(lambda: not termios.tcgetattr(ours)[3] & termios.ECHO)
    return shown


def _reads(ours: int) -> Iterator[str]:
    while select.select([ours], [], [], 30)[0]:
        try:
            yield os.read(ours, 1000).decode()
        except OSError:  # the other end is closed
            return


def test_at_a_terminal_a_password_is_asked_for_twice_and_never_shown(app, instance, session, clock):
    answers = (PASSWORD, "another canary", PASSWORD, PASSWORD)
    code, stdout, shown = at_a_terminal(instance, "create", "alice", "alice@example.org", answers=answers, hidden=True)
    assert (code, stdout) == (0, "")
    assert "created alice" in shown
    assert "canary" not in shown
    assert log_in(session, clock, PASSWORD)


def test_at_a_terminal_an_empty_answer_makes_a_random_password(app, instance, session, clock):
    code, stdout, shown = at_a_terminal(instance, "create", "alice", "alice@example.org", answers=("",), hidden=True)
    assert code == 0, shown
    assert log_in(session, clock, stdout.strip())


@pytest.mark.slow
def test_at_a_terminal_delete_asks(app, instance, session):
    make_user(session, "alice")
    code, _, shown = at_a_terminal(instance, "delete", "alice", answers=("n",))
    assert code == 1
    assert "Delete alice (Alice, alice@example.org)?" in shown
    assert at_a_terminal(instance, "delete", "alice", answers=("y",))[0] == 0
    assert list(profiles.list_all(session)) == []


def test_a_closed_pipe_ends_quietly(app, instance, session):
    for number in range(20):
        make_user(session, f"user{number}")
    found = flask(instance)
    reader, writer = os.pipe()
    os.close(reader)
    try:
        result = subprocess.run(
            [*found["args"], "list"], check=False, env=found["env"], stdout=writer, stderr=subprocess.PIPE, timeout=60
        )
    finally:
        os.close(writer)
    assert result.stderr == b""


def test_invite_asks_for_mails_to_those_named_or_to_all_who_never_logged_in(
    instance: Path, make_app: Callable[..., Flask]
) -> None:
    (instance / "portal.toml").write_text('[mail]\nsender = "portal@example.org"\nsendmail = "/bin/true"\n')
    app = make_app()
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "alice", groups=("full",))
        make_user(session, "bob")

    def invite(*args: str) -> tuple[int, str]:
        done = app.test_cli_runner().invoke(args=["user", "invite", *args])
        return done.exit_code, done.output

    assert invite("--group", "full") == (0, "invitations: 1\n")
    assert invite("--all") == (0, "invitations: 1\n")
    assert invite("bob") == (0, "invitations: 0\n")
    assert invite("zoe")[0] == 65
    assert invite()[0] == 2
    assert invite("--all", "bob")[0] == 2


def test_invite_says_where_mail_is_not_configured(runner: FlaskCliRunner) -> None:
    done = runner.invoke(args=["user", "invite", "--all"])
    assert (done.exit_code, "add a table [mail]" in done.stderr) == (78, True)
