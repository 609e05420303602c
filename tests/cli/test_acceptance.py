"""The main job through the command line, with a Mailman 2 of three fake commands."""

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.extensions import Portal
from portal.models import Base, Run
from portal.services.accounts import address_changes, profiles, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE
from portal.services.preferences import preferences
from portal.services.sync import leases
from tests.conftest import SERVER, Clock
from tests.factories import make_user
from tests.fakes.mailman2 import FakeMailman2
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

CATALOGUE = """
enabled = true
[lists.members]
name = "Members"
email = "members@lists.example.org"
"""
STRANGER = "stranger@example.net"


@pytest.fixture
def mailman(tmp_path: Path) -> FakeMailman2:
    return FakeMailman2(tmp_path / "mailman")


@pytest.fixture
def app(make_app: Callable[..., Flask], instance: Path, mailman: FakeMailman2) -> Flask:
    (instance / "mailinglists.toml").write_text(CATALOGUE + mailman.toml())
    mailman.set_roster("members", [])
    return make_app()


class Operated:
    """The portal as its operator has it: a browser for members, and a command line."""

    def __init__(self, app: Flask, session: Session, clock: Clock, instance: Path, mailman: FakeMailman2) -> None:
        self.runner: FlaskCliRunner = app.test_cli_runner()
        self.session, self.clock, self.instance, self.mailman = session, clock, instance, mailman
        self.portal: Portal = app.extensions["portal"]

    def __call__(self, *args: str, stdin: str | bytes | None = None) -> tuple[int, str, str]:
        """Run `flask mailinglist …`; return exit code, stdout and stderr."""
        result = self.runner.invoke(args=["mailinglist", *args], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    def refused(self, code: int, *args: str, stdin: str | bytes | None = None) -> str:
        """Run a command that is refused: an exit code and one line on stderr, which is returned."""
        found, stdout, stderr = self(*args, stdin=stdin)
        assert (found, stdout) == (code, ""), stderr
        assert stderr.startswith("error: ")
        assert stderr.count("\n") == 1
        words, _, place = stderr.rpartition(" (docs/errors.md#")
        assert place.endswith(")\n")
        return words

    def choose(self, username: str, *, ticked: bool) -> None:
        """Save the member's form, with one box changed."""
        preferences.choose(
            self.session,
            profiles.id_of(self.session, username),
            shown={"members": not ticked},
            ticked={"members"} if ticked else set(),
            catalogue=self.portal.catalogue(),
            now=self.clock(),
        )

    def dump(self, *, but: set[str] = frozenset()) -> dict[str, list[tuple[object, ...]]]:
        """Return what is in all tables."""
        tables = [table for table in Base.metadata.sorted_tables if table.name not in but]
        found = {table.name: sorted(map(tuple, self.session.execute(select(table))), key=repr) for table in tables}
        self.session.rollback()
        return found

    def calls(self) -> list[tuple[str, list[str]]]:
        """Return the commands called so far, with the addresses that each was given; begin anew."""
        found = [(call.command, call.stdin.split()) for call in self.mailman.calls()]
        self.mailman.forget_calls()
        return found

    @property
    def environ(self) -> dict[str, str]:
        found = {**os.environ, "PORTAL_INSTANCE": str(self.instance), "PYTHONWARNINGS": "error,ignore::ResourceWarning"}
        return {**found, "PORTAL_SQLALCHEMY_DATABASE_URI": SERVER} if SERVER else found

    def shell(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script that calls `flask`, and the commands of Mailman by their names."""
        functions = {"flask": f"{shlex.quote(sys.executable)} -m flask --app portal", **self.mailman.cmds}
        prelude = "".join(f'{name}() {{ {command} "$@"; }}\n' for name, command in functions.items())
        argv = ["bash", "-euo", "pipefail", "-c", prelude + script]
        done = subprocess.run(argv, env=self.environ, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in done.stderr
        return done


@pytest.fixture
def portal(app: Flask, session: Session, clock: Clock, instance: Path, mailman: FakeMailman2) -> Operated:
    return Operated(app, session, clock, instance, mailman)


def make_cast(session: Session, *usernames: str) -> None:
    for username in usernames or ("alice", "bob", "charlie"):
        make_user(session, username)


def make_crowd(portal: Operated) -> list[str]:
    """Forty members, seen on the list, of whom the first eight were unticked for them."""
    names = [f"user{number:02}" for number in range(40)]
    make_cast(portal.session, *names)
    portal.mailman.set_roster("members", [f"{name}@example.org" for name in names])
    assert portal("sync")[0] == 0
    for name in names[:8]:
        assert portal("unsubscribe", "members", name)[0] == 0
    portal.calls()
    return [f"{name}@example.org" for name in names]


@pytest.mark.parametrize("had_a_run", [True, False])
def test_who_ticks_is_added_who_unticks_is_removed_and_a_stranger_stays(portal, mailman, session, had_a_run):
    make_cast(session)
    mailman.set_roster("members", ["Alice@example.org", STRANGER])
    if had_a_run:
        assert portal("sync") == (0, "", "")
        assert portal.calls() == [("list_members", [])]
    portal.choose("bob", ticked=True)
    portal.choose("alice", ticked=False)
    assert portal("sync") == (0, "", "")
    assert mailman.roster("members") == {"bob@example.org", STRANGER}
    assert portal.calls() == [
        ("list_members", []),
        ("remove_members", ["alice@example.org"]),
        ("add_members", ["bob@example.org"]),
        ("list_members", []),
    ]
    assert portal("sync") == (0, "", "")
    assert portal.calls() == [("list_members", [])]
    assert mailman.roster("members") == {"bob@example.org", STRANGER}


def test_a_failing_list_manager_is_69_and_changes_nothing(portal, mailman, session):
    make_cast(session)
    mailman.set_roster("members", ["alice@example.org"])
    portal("sync")
    portal.choose("bob", ticked=True)
    before, roster = portal.dump(but={"runs"}), mailman.roster("members")
    mailman.fail("list_members", stderr="cannot lock\nat all\n")
    told = portal.refused(69, "sync")
    assert told.startswith("error: members: list_members")
    assert "cannot lock" in told
    assert portal.dump(but={"runs"}) == before
    assert mailman.roster("members") == roster
    assert session.scalars(select(Run.state).order_by(Run.id.desc())).first() == "failed"
    session.rollback()
    mailman.repair()
    assert portal("sync") == (0, "", "")
    assert mailman.roster("members") == {"alice@example.org", "bob@example.org"}


def test_eight_of_forty_are_held_by_the_safety_limits_until_their_plan_is_accepted(portal, mailman):
    everybody = make_crowd(portal)
    told = portal.refused(77, "sync")
    plan = re.search(r"run again with: --accept ([0-9a-f]{16})$", told)
    assert plan, told
    assert told.startswith("error: members: ")
    assert portal.calls() == [("list_members", [])]
    assert portal.refused(77, "sync", "--accept", "0123456789abcdef") == told
    assert mailman.roster("members") == set(everybody)
    portal.calls()
    assert portal("sync", "--accept", plan[1]) == (0, "", "")
    assert portal.calls() == [("list_members", []), ("remove_members", everybody[:8]), ("list_members", [])]
    assert mailman.roster("members") == set(everybody[8:])
    assert portal("sync") == (0, "", "")


def test_an_emptied_roster_waits_until_its_plan_is_approved(portal, mailman, session):
    make_cast(session)
    mailman.set_roster("members", ["alice@example.org"])
    portal("sync")
    mailman.set_roster("members", [])
    before = portal.dump(but={"runs", "run_lines"})
    plan = portal.refused(77, "sync").rpartition(" ")[2]
    assert portal.dump(but={"runs", "run_lines"}) == before
    assert portal("sync", "--accept", plan) == (0, "", "")
    assert portal("get-subscribed", "members") == (0, "", "")


def test_a_list_that_another_run_holds_is_75_at_once(portal, session):
    leases.acquire(session, "members", outlives_process=True)
    told = portal.refused(75, "sync")
    assert re.search(r"members is held by a planned run started on \S+ until [-\d]+ [:\d]+ UTC", told)
    assert portal.refused(75, "list-init", "members", stdin="alice@example.org\n")
    assert portal.calls() == []


def test_a_list_that_mailman_does_not_know_is_69(portal, mailman):
    mailman.drop_list("members")
    assert "no list of that name" in portal.refused(69, "sync")


def test_what_mailman_refuses_is_told_once_and_recorded(portal, mailman, session):
    make_cast(session)
    mailman.ban("^bob@")
    portal.choose("bob", ticked=True)
    code, stdout, stderr = portal("sync")
    assert (code, stdout) == (0, "")
    assert stderr == ("could not add bob@example.org to members: Banned address (matched ^bob@)\n")
    assert portal("sync") == (0, "", "")
    assert "Banned address" in portal("why", "members", "bob@example.org")[1]


def act_out(portal: Operated) -> None:
    """Alice ticks, Bob unticks, Charlie's account is closed, Dora changes her address; a stranger watches."""
    make_cast(portal.session, "alice", "bob", "charlie", "dora", "erin")
    roster = ["bob@example.org", "Charlie@example.org", "dora@example.org", "erin@example.org", STRANGER]
    portal.mailman.set_roster("members", roster)
    assert portal("sync") == (0, "", "")
    portal.choose("alice", ticked=True)
    portal.choose("bob", ticked=False)
    users.deactivate(portal.session, "charlie", now=portal.clock())
    address_changes.change(
        portal.session,
        profiles.id_of(portal.session, "dora"),
        checked("Dora@home.example.org"),
        actor=COMMAND_LINE,
        now=portal.clock(),
        lists=portal.portal.catalogue().lists,
    )
    portal.calls()


AFTERWARDS = {"alice@example.org", "Dora@home.example.org", "erin@example.org", STRANGER}

BY_SYNC = "flask mailinglist sync"
BY_PIPES = """
list_members members | flask mailinglist list-init members
flask mailinglist get-subscribed members | add_members members
flask mailinglist get-unsubscribed members | remove_members members
list_members members | flask mailinglist list-init members -
"""
BY_PLANNED_RUNS = """
private=$(mktemp -d)
for round in first second; do
    list_members members > "$private/roster"
    flask mailinglist list-init --plan members "$private/roster"
    flask mailinglist get-subscribed --planned members > "$private/adds"
    flask mailinglist get-unsubscribed --planned members > "$private/removals"
    if [ -s "$private/adds" ]; then add_members members < "$private/adds"; fi
    if [ -s "$private/removals" ]; then remove_members members < "$private/removals"; fi
    list_members members | flask mailinglist list-init --confirm members
done
rm -r "$private"
"""


@pytest.mark.parametrize("way", [BY_SYNC, BY_PIPES, BY_PLANNED_RUNS], ids=["sync", "pipes", "planned runs"])
def test_every_way_from_the_shell_ends_in_the_same_roster(portal, mailman, way):
    act_out(portal)
    done = portal.shell(way)
    assert (done.returncode, done.stderr) == (0, "")
    assert mailman.roster("members") == AFTERWARDS
    portal.calls()
    assert portal("sync") == (0, "", "")
    assert portal.calls() == [("list_members", [])]
    assert mailman.roster("members") == AFTERWARDS


def test_the_pipes_print_what_the_original_commands_print(portal, mailman):
    act_out(portal)
    done = portal.shell("list_members members | flask mailinglist list-init members")
    assert done.stdout == "subscribed: 0\nunsubscribed: 0\nkept: 4\nunknown: 2\ninvalid: 0\n"
    assert portal("get-subscribed", "members") == (
        0, "alice@example.org\nDora@home.example.org\nerin@example.org\n", "",
    )  # fmt: skip
    # Charlie and Dora's old address are on it because they held a place on the list; Bob because he said no.
    assert portal("get-unsubscribed", "members") == (
        0, "bob@example.org\ncharlie@example.org\ndora@example.org\n", "",
    )  # fmt: skip


def test_a_planned_run_pushes_the_difference_and_nothing_else(portal, mailman, session):
    make_cast(session)
    mailman.set_roster("members", ["alice@example.org", STRANGER])
    portal("sync")
    portal.choose("bob", ticked=True)
    portal.choose("alice", ticked=False)
    code, stdout, stderr = portal("list-init", "--plan", "members", stdin=f"alice@example.org\n{STRANGER}\n")
    assert (code, stderr) == (0, "")
    assert re.fullmatch(
        r"subscribed: 0\nunsubscribed: 0\nkept: 3\nunknown: 1\ninvalid: 0\n"
        r"plan: [0-9a-f]{16}\nadds: 1\nremovals: 1\ntoken: [0-9a-f]{32}\n",
        stdout,
    )
    assert portal.refused(75, "sync")
    assert portal("get-subscribed", "--planned", "members") == (0, "bob@example.org\n", "")
    assert portal("get-unsubscribed", "--planned", "members") == (0, "alice@example.org\n", "")
    confirmed = portal("list-init", "--confirm", "members", stdin=f"bob@example.org\n{STRANGER}\n")
    assert confirmed == (0, "added: 1\nremoved: 1\nrefused: 0\nwaiting: 0\nno_effect: 0\n", "")
    assert "no planned run is open" in portal.refused(65, "get-subscribed", "--planned", "members")
    assert "no planned run is open" in portal.refused(
        65, "list-init", "--confirm", "members", stdin="bob@example.org\n"
    )


def test_a_planned_run_is_under_the_limits(portal):
    everybody = make_crowd(portal)
    roster = "".join(f"{each}\n" for each in everybody)
    told = portal.refused(77, "list-init", "--plan", "members", stdin=roster)
    plan = told.rpartition(" ")[2]
    assert portal.refused(65, "get-unsubscribed", "--planned", "members")
    assert portal("list-init", "--plan", "--accept", plan, "members", stdin=roster)[0] == 0
    assert portal("get-unsubscribed", "--planned", "members")[1].split() == everybody[:8]


def test_dirty_input_is_read_to_its_end(portal, session):
    make_cast(session)
    dirty = (
        b"\xef\xbb\xbfALICE@Example.org\r\n\r\n# a comment\r\nBob Builder <bob@example.org>\n"
        b"no address\n\xff\xfe\n\x00\nalice@example.org\nstranger@example.net\nSTRANGER@example.net\n@\n"
    )
    counts = "subscribed: 2\nunsubscribed: 1\nkept: 0\nunknown: 1\ninvalid: 4\n"
    before = portal.dump()
    message = portal.refused(65, "list-init", "members", stdin=dirty)
    assert all(f"line {number}:" in message for number in (5, 6, 7, 11))
    assert portal.dump() == before
    assert portal("list-init", "--skip-invalid", "members", stdin=dirty) == (0, counts, "")
    again = "subscribed: 0\nunsubscribed: 0\nkept: 3\nunknown: 1\ninvalid: 4\n"
    before = portal.dump()
    assert portal("list-init", "--skip-invalid", "members", stdin=dirty) == (0, again, "")
    assert portal.dump() == before


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing but a comment\n"])
@pytest.mark.parametrize("options", [[], ["--plan"]])
def test_input_without_an_address_is_65_unless_it_is_announced(portal, session, text, options):
    make_cast(session)
    before = portal.dump()
    assert portal.refused(65, "list-init", *options, "members", stdin=text).endswith("--allow-empty")
    assert portal.dump() == before
    code, stdout, stderr = portal("list-init", *options, "--allow-empty", "members", stdin=text)
    assert (code, stderr) == (0, "")
    assert stdout.startswith("subscribed: 0\nunsubscribed: 3\n")


def test_input_of_nothing_but_rubbish_is_65_even_when_announced(portal):
    assert portal.refused(65, "list-init", "--allow-empty", "members", stdin="<html>\nno\n")


def test_list_init_never_undoes_a_choice(portal, session):
    make_cast(session)
    portal.choose("alice", ticked=True)
    portal.choose("alice", ticked=False)
    portal("list-init", "members", stdin="alice@example.org\n")
    assert portal("get-unsubscribed", "members")[1].split()[0] == "alice@example.org"


def test_ctrl_c_is_one_line_and_the_next_run_repairs(portal, mailman, session):
    make_cast(session)
    portal.choose("bob", ticked=True)
    mailman.hang("add_members")
    argv = [sys.executable, "-m", "flask", "--app", "portal", "mailinglist", "sync"]
    with subprocess.Popen(argv, env=portal.environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            wait_until((mailman.root / "hanging").exists)
            process.send_signal(signal.SIGINT)
            _, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, stderr) == (130, "error: interrupted\n")
    mailman.repair()
    assert portal("sync")[0] == 0
    assert mailman.roster("members") == {"bob@example.org"}


def test_a_closed_pipe_ends_quietly(portal, session):
    for number in range(50):
        make_user(session, f"user{number}")
        portal.choose(f"user{number}", ticked=True)
    done = portal.shell(
        "set +o pipefail\n"
        "flask mailinglist get-subscribed members | head -1\n"
        "flask mailinglist lists | true\n"
        'echo "${PIPESTATUS[0]}"'
    )
    first, code = done.stdout.split()
    assert first == "user0@example.org"
    assert code in {"0", "141"}
    assert done.stderr == ""
