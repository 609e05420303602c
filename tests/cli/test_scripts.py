"""The generated scripts, run by three shells against fake list managers, and what becomes of a list when a step fails."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.models import Lease, Preference, Run
from portal.services import addresses, preferences, users
from portal.services.addresses import checked
from portal.services.history import COMMAND_LINE
from tests.conftest import SERVER, Clock
from tests.factories import make_user
from tests.fakes.mailman2 import FakeMailman2
from tests.fakes.plain import FakePlain

SHELLS = {"bash": ["bash"], "dash": ["dash"], "busybox": ["busybox", "sh"]}
ROOT = Path(__file__).parents[2]
STRANGER = "stranger@example.net"
HOSTILE_NAME = "a'b$(id)`id`;*&|\"<>{}~#!"
HOSTILE = [
    "`id`@example.org",
    "$HOME@example.org",
    "$(touch${IFS}pwned)@example.org",
    "/etc/passwd@example.org",
    "-rf@example.org",
    "=cmd|'/C'!A0@example.org",
    "a|b@example.org",
    "*@example.org",
    "\\n'\"&;@example.org",
    "~root@example.org",
]


def require(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")


@pytest.fixture(params=SHELLS)
def every_shell(request: pytest.FixtureRequest) -> list[str]:
    require(SHELLS[request.param][0])
    return SHELLS[request.param]


class Operated:
    """The portal on one host, and its script in a shell with hardly any environment."""

    def __init__(self, app: Flask, session: Session, instance: Path, folder: Path) -> None:
        self.app, self.session, self.instance, self.folder = app, session, instance, folder
        self.shell = SHELLS["dash"]
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.mailman = FakeMailman2(folder / "mailman")
        self.plain = FakePlain(folder / "plain")
        self.options: tuple[str, ...] = ()

    @property
    def clock(self) -> Callable[[], datetime]:
        return self.app.extensions["portal"].clock

    @property
    def script(self) -> Path:
        """The script, printed anew, as an operator keeps it."""
        done = self.app.test_cli_runner().invoke(args=["mailinglist", "sync-script", *self.options])
        assert done.exit_code == 0, done.output
        path = self.folder / "script.sh"
        path.write_text(done.stdout)
        return path

    def environ(self, **more: str) -> dict[str, str]:
        found = {"PATH": "/nowhere", "TMPDIR": str(self.temporary), "COVERAGE_PROCESS_START": "", **more}
        return {**found, "PORTAL_SQLALCHEMY_DATABASE_URI": SERVER} if SERVER else found

    def run(self, *args: str, **environ: str) -> tuple[int, str]:
        """Run the script; return its exit code and what it said on stderr. It prints nothing else, and leaves nothing."""
        require(self.shell[0])
        argv = [shutil.which(self.shell[0]) or "", *self.shell[1:], str(self.script), *args]
        done = subprocess.run(
            argv, env=self.environ(**environ), capture_output=True, text=True, timeout=120, check=False
        )
        assert done.stdout == ""
        assert "Traceback" not in done.stderr or "fake" in done.stderr
        assert list(self.temporary.iterdir()) == []
        return done.returncode, done.stderr

    def failing(self, command: str, *, exit_code: int = 69) -> str:
        """Return a program for PORTAL_FLASK, in which one command fails without having done anything."""
        path = self.folder / "flask"
        path.write_text(
            "#!/bin/sh\n"
            f'case "$*" in *"{command}"*) echo "error: told by the test" >&2; exit {exit_code} ;; esac\n'
            f'exec {sys.executable} -m flask "$@"\n'
        )
        path.chmod(0o755)
        return str(path)

    def choose(self, username: str, *, ticked: bool, handle: str = "members") -> None:
        preferences.choose(
            self.session,
            users.find(self.session, username),
            shown={handle: not ticked},
            ticked={handle} if ticked else set(),
            catalogue=self.app.extensions["portal"].catalogue(),
            now=self.clock(),
        )

    def calls(self) -> list[tuple[str, list[str]]]:
        """Return Mailman's commands called so far, with the addresses that each was given; begin anew."""
        found = [(call.command, call.stdin.split()) for call in self.mailman.calls()]
        self.mailman.forget_calls()
        return found

    def last_run(self, handle: str = "members") -> str:
        result = self.session.scalars(select(Run.result).where(Run.list_handle == handle).order_by(Run.id.desc()))
        found = result.first()
        self.session.rollback()
        return found or ""

    def is_held(self) -> bool:
        found = self.session.scalars(select(Lease.list_handle)).all()
        self.session.rollback()
        return bool(found)


MAILMAN = """
enabled = true
[lists.members]
name = "Members"
email = "members@lists.example.org"
syncpws = false
"""


@pytest.fixture
def app(make_app: Callable[..., Flask], instance: Path, tmp_path: Path, clock: Clock) -> Flask:
    clock.now = datetime.now(UTC)  # the script's processes have no other
    mailman = FakeMailman2(tmp_path / "mailman")
    (instance / "mailinglists.toml").write_text(MAILMAN + mailman.toml())
    mailman.set_roster("members", [])
    return make_app()


@pytest.fixture
def portal(app: Flask, session: Session, instance: Path, tmp_path: Path) -> Operated:
    return Operated(app, session, instance, tmp_path)


def with_catalogue(portal: Operated, make_app: Callable[..., Flask], text: str) -> None:
    (portal.instance / "mailinglists.toml").write_text(text)
    portal.app = make_app()


def plain_toml(portal: Operated, *, option: str = "", **settings: object) -> str:
    cmds = "".join(f"{key} = {json.dumps(value)}\n" for key, value in portal.plain.cmds(option=option).items())
    more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
    return f'[managers.plain]\nkind = "commands"\n{more}[managers.plain.cmds]\n{cmds}'


def make_cast(portal: Operated, *usernames: str) -> None:
    for username in usernames or ("alice", "bob", "charlie"):
        make_user(portal.session, username)


def act_out(portal: Operated) -> None:
    """Everything at once: ticks, unticks, a join, a leave, a departure, a change of address; a stranger watches."""
    make_cast(portal, "alice", "bob", "charlie", "dora", "erin", "frank")
    members = ["bob@example.org", "Charlie@example.org", "dora@example.org", "erin@example.org", STRANGER]
    portal.mailman.set_roster("members", members)
    assert portal.run() == (0, "")
    portal.choose("alice", ticked=True)
    portal.choose("bob", ticked=False)
    users.deactivate(portal.session, "charlie")
    addresses.change(
        portal.session,
        users.find(portal.session, "dora"),
        checked("Dora@home.example.org"),
        actor=COMMAND_LINE,
        now=portal.clock(),
        lists=portal.app.extensions["portal"].catalogue().lists,
    )
    # Erin leaves and Frank joins at the list.
    portal.mailman.set_roster("members", [*members[:3], "frank@example.org", STRANGER])
    portal.calls()


AFTERWARDS = {"alice@example.org", "Dora@home.example.org", "frank@example.org", STRANGER}


def test_a_list_is_kept_right_by_every_shell(portal, every_shell):
    portal.shell = every_shell
    act_out(portal)
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS | {"dora@example.org"}
    assert portal.calls() == [
        ("list_members", []),
        ("add_members", ["alice@example.org", "Dora@home.example.org"]),
        ("remove_members", ["bob@example.org", "charlie@example.org"]),
        ("list_members", []),
    ]
    # The old address waits until the new one was seen on the list.
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS
    portal.calls()
    assert portal.run() == (0, "")
    assert portal.calls() == [("list_members", [])] * 2
    assert not portal.is_held()


@pytest.mark.parametrize("each_alone", [False, True], ids=["on stdin", "as a word"])
def test_hostile_addresses_and_names_reach_the_commands_byte_for_byte(portal, make_app, every_shell, each_alone):
    portal.shell = every_shell
    catalogue = MAILMAN + f"list = {json.dumps(HOSTILE_NAME)}\nbrake = {{ count = 99, percent = 99 }}\n"
    option = "-a {address}" if each_alone else ""
    with_catalogue(portal, make_app, catalogue + plain_toml(portal, option=option, one_address_per_call=each_alone))
    portal.plain.set_roster(HOSTILE_NAME, [STRANGER])
    for number, address in enumerate(HOSTILE):
        make_user(portal.session, f"user{number}", address)
        portal.choose(f"user{number}", ticked=True)
    assert portal.run() == (0, "")
    assert portal.plain.roster(HOSTILE_NAME) == {STRANGER, *HOSTILE}
    for number in range(len(HOSTILE)):
        portal.choose(f"user{number}", ticked=False)
    assert portal.run() == (0, "")
    assert portal.plain.roster(HOSTILE_NAME) == {STRANGER}
    assert {call["argv"][-1] for call in portal.plain.calls()} == {HOSTILE_NAME}
    assert not list(portal.folder.rglob("pwned"))


def test_what_mailman_would_take_for_somebody_else_is_not_sent_to_it(portal):
    for number, address in enumerate(["a:b@example.org", "$(c)@example.org", "jörg@example.org", "bob@example.org"]):
        make_user(portal.session, f"user{number}", address)
        portal.choose(f"user{number}", ticked=True)
    code, told = portal.run()
    assert code == 0
    assert "the list manager did not do it for a:b@example.org" in told
    assert "did not do what it was told for 3 addresses" in told
    assert portal.mailman.roster("members") == {"bob@example.org"}
    assert portal.run() == (0, "")


STEPS = {
    "its roster cannot be read": ("list_members", 69),
    "adding fails": ("add_members", 69),
    "removing fails": ("remove_members", 69),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_command_that_fails_ends_with_69_and_the_next_run_heals(portal, step, every_shell):
    portal.shell = every_shell
    command, expected = STEPS[step]
    act_out(portal)
    portal.mailman.fail(command, exit_code=3, stdout="half@exam", stderr="no space left\x1b[31m\n")
    code, told = portal.run()
    assert code == expected
    assert "ended with exit code 3, saying:" in told
    assert "no space left?[31m" in told
    assert not portal.is_held()
    assert STRANGER in portal.mailman.roster("members")
    portal.mailman.repair()
    assert portal.run() == (0, "")
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS


@pytest.mark.parametrize(
    ("command", "exit_code"),
    [("--plan", 69), ("get-subscribed", 69), ("get-unsubscribed", 1), ("--confirm", 75), ("mailinglist", 127)],
)
def test_a_portal_that_fails_is_told_with_its_code_and_the_next_run_heals(portal, command, exit_code):
    act_out(portal)
    code, told = portal.run(PORTAL_FLASK=portal.failing(command, exit_code=exit_code))
    assert code == (1 if exit_code == 127 else exit_code)
    assert "error: told by the test" in told
    assert not portal.is_held()
    assert portal.run() == (0, "")
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS


def test_a_roster_that_cannot_be_read_again_gives_the_run_up(portal):
    act_out(portal)
    path = portal.folder / "list_members"
    path.write_text(
        "#!/bin/sh\n"
        f"[ -e {portal.folder}/asked ] && exit 9\n"
        f"touch {portal.folder}/asked\n"
        f'exec {portal.mailman.cmds["list_members"]} "$@"\n'
    )
    path.chmod(0o755)
    toml = portal.mailman.toml().replace(json.dumps(portal.mailman.cmds["list_members"]), json.dumps(str(path)))
    (portal.instance / "mailinglists.toml").write_text(MAILMAN + toml)
    script = portal.script.read_text().replace(portal.mailman.cmds["list_members"].strip(), str(path))
    code, told = run_text(portal, script)
    assert code == 69
    assert "ended with exit code 9" in told
    assert portal.last_run() == "failed"
    assert not portal.is_held()
    assert portal.mailman.roster("members") == AFTERWARDS | {"dora@example.org"}
    portal.calls()
    (portal.instance / "mailinglists.toml").write_text(MAILMAN + portal.mailman.toml())
    assert portal.run() == (0, "")
    assert portal.calls()[1:] == [("remove_members", ["dora@example.org"]), ("list_members", [])]


def run_text(portal: Operated, text: str) -> tuple[int, str]:
    path = portal.folder / "altered.sh"
    path.write_text(text)
    done = subprocess.run(
        ["/bin/sh", path], env=portal.environ(), capture_output=True, text=True, timeout=120, check=False
    )
    assert list(portal.temporary.iterdir()) == []
    return done.returncode, done.stderr


def test_a_roster_that_dies_half_way_is_not_believed(portal):
    act_out(portal)
    portal.mailman.fail("list_members", exit_code=141, stdout="bob@example.org\n")
    assert portal.run()[0] == 69
    assert portal.session.scalars(select(Preference.source).where(Preference.source == "list")).all() == []
    portal.session.rollback()


def test_a_new_empty_list_is_filled(portal):
    make_cast(portal)
    portal.choose("alice", ticked=True)
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == {"alice@example.org"}


def test_nothing_is_called_without_an_address_to_send(portal):
    make_cast(portal)
    assert portal.run() == (0, "")
    assert portal.run() == (0, "")
    assert portal.calls() == [("list_members", [])] * 4


def test_an_emptied_roster_is_in_doubt_until_its_plan_is_accepted(portal, every_shell):
    portal.shell = every_shell
    make_cast(portal)
    portal.mailman.set_roster("members", ["alice@example.org"])
    assert portal.run() == (0, "")
    portal.mailman.set_roster("members", [])
    code, told = portal.run()
    assert code == 69
    plan = re.search(r"--accept ([0-9a-f]{16})$", told.strip())
    assert plan, told
    assert portal.run("--accept", plan[1]) == (0, "")
    assert portal.mailman.roster("members") == set()


def test_the_brake_is_77_and_its_id_lets_exactly_that_plan_through(portal, every_shell):
    portal.shell = every_shell
    names = [f"user{number:02}" for number in range(40)]
    make_cast(portal, *names)
    portal.mailman.set_roster("members", [f"{name}@example.org" for name in names])
    assert portal.run() == (0, "")
    for name in names[:8]:
        portal.choose(name, ticked=False)
    portal.calls()
    code, told = portal.run()
    assert code == 77
    plan = re.search(r"--accept ([0-9a-f]{16})$", told.strip())
    assert plan, told
    assert portal.run("--accept", "0123456789abcdef") == (77, told)
    assert portal.calls() == [("list_members", [])] * 2
    assert portal.run("--accept", plan[1]) == (0, "")
    assert portal.mailman.roster("members") == {f"{name}@example.org" for name in names[8:]}


@pytest.mark.parametrize(
    "args", [["members"], ["--accept"], ["--accept", ""], ["--accept", "$(id)"], ["--accept", "x&plan=1"], ["-h"]]
)
def test_anything_else_on_the_command_line_is_2(portal, args):
    code, told = portal.run(*args)
    assert (code, told.count("\n")) == (2, 1)
    assert portal.calls() == []


def test_a_list_that_another_run_holds_is_75_and_stays_that_runs(portal):
    make_cast(portal)
    invoke = portal.app.test_cli_runner().invoke
    assert invoke(args=["mailinglist", "list-init", "--plan", "members"], input="alice@example.org\n").exit_code == 0
    assert portal.run()[0] == 75
    assert portal.is_held()


TWO = """
enabled = true
[lists.first]
name = "First"
email = "first@lists.example.org"
syncpws = false
manager = "mailman"
[lists.second]
name = "Second"
email = "second@lists.example.org"
syncpws = false
manager = "mailman"
[lists.text]
name = "Text"
email = "text@lists.example.org"
manager = "files"
[managers.files]
kind = "file"
directory = "rosters"
"""


@pytest.fixture
def two(portal: Operated, make_app: Callable[..., Flask]) -> Operated:
    with_catalogue(portal, make_app, TWO + portal.mailman.toml())
    (portal.instance / "rosters").mkdir()
    (portal.instance / "rosters" / "text.txt").touch()
    portal.mailman.set_roster("second", [])
    make_cast(portal, "alice")
    for handle in ("second", "text"):
        portal.choose("alice", ticked=True, handle=handle)
    return portal


def test_one_list_failing_stops_no_other_and_what_only_the_portal_reaches_is_its_own_to_sync(two):
    code, told = two.run()
    assert code == 69
    assert "first: the command that lists its members ended with exit code 1, saying:" in told
    assert "No such list: first" in told
    assert two.mailman.roster("second") == {"alice@example.org"}
    assert (two.instance / "rosters" / "text.txt").read_text() == "alice@example.org\n"


def test_of_several_codes_the_largest_is_told_unless_one_is_1(two):
    assert two.run(PORTAL_FLASK=two.failing("sync text", exit_code=78))[0] == 78
    assert two.run(PORTAL_FLASK=two.failing("sync text", exit_code=1))[0] == 1


def test_without_lists_or_where_they_are_not_enabled_there_is_no_script(portal, make_app):
    with_catalogue(portal, make_app, "enabled = false")
    done = portal.app.test_cli_runner().invoke(args=["mailinglist", "sync-script"])
    assert (done.exit_code, done.stdout) == (78, "")


def test_a_script_that_is_ended_gives_its_run_back(portal, every_shell):
    portal.shell = every_shell
    act_out(portal)
    portal.mailman.delay("add_members", 2)
    process = subprocess.Popen([*every_shell, portal.script], env=portal.environ(PATH=os.environ["PATH"]))
    deadline = time.monotonic() + 60
    while not portal.mailman.calls("add_members"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=60) == 143
    assert list(portal.temporary.iterdir()) == []
    assert not portal.is_held()
    assert portal.last_run() == "failed"
    portal.mailman.repair()
    assert portal.run() == (0, "")
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS


def test_a_command_that_hangs_is_interrupted(portal):
    act_out(portal)
    portal.mailman.hang("add_members", locked=True)
    code, told = portal.run(PORTAL_TIMEOUT="2")
    assert code == 69
    assert "exit code 124" in told
    assert not portal.mailman.is_locked("members")
    assert not portal.is_held()


def test_a_run_whose_script_was_killed_is_taken_over_after_an_hour(portal):
    act_out(portal)
    roster = "".join(f"{each}\n" for each in portal.mailman.roster("members"))
    invoke = portal.app.test_cli_runner().invoke
    assert invoke(args=["mailinglist", "list-init", "--plan", "members"], input=roster).exit_code == 0
    assert portal.run()[0] == 75
    portal.session.execute(update(Lease).values(expires_at=datetime(2020, 1, 1, tzinfo=UTC)))
    portal.session.commit()
    assert portal.run()[0] == 0
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS


def test_skipped_lines_and_tolerated_exit_codes_are_those_of_the_settings(portal, make_app):
    make_cast(portal)
    toml = plain_toml(portal, skip_lines=1, ok_exit_codes=[0, 4])
    with_catalogue(portal, make_app, MAILMAN + toml)
    portal.plain.set_roster("members", [])
    portal.plain.act(header="1 member(s) in a@list.example.org\n", exit_code=4)
    portal.choose("alice", ticked=True)
    assert portal.run() == (0, "")
    assert portal.plain.roster("members") == {"alice@example.org"}
    portal.plain.act(exit_code=5)
    assert portal.run()[0] == 69  # no line to skip
    portal.plain.act(header="1 member(s)\n", exit_code=5)
    portal.choose("bob", ticked=True)
    assert portal.run()[0] == 69
    assert not portal.is_held()


def test_one_address_that_fails_does_not_keep_the_others_waiting(portal, make_app):
    make_cast(portal)
    with_catalogue(portal, make_app, MAILMAN + plain_toml(portal, option="-a {address}", one_address_per_call=True))
    portal.plain.set_roster("members", [])
    portal.plain.act(refuse=["alice@example.org"])
    portal.choose("alice", ticked=True)
    portal.choose("bob", ticked=True)
    code, told = portal.run()
    assert code == 0
    assert "refused by the fake" in told
    assert portal.plain.roster("members") == {"bob@example.org"}
    portal.plain.act(down=True)
    assert portal.run()[0] == 69


@pytest.mark.parametrize("options", [(), ("--api",)])
def test_shellcheck_has_nothing_to_say(portal, make_app, options):
    require("shellcheck")
    portal.options = options
    name = f"list = {json.dumps(HOSTILE_NAME)}\n"
    one_each = plain_toml(portal, option="-a {address}", one_address_per_call=True, skip_lines=2, ok_exit_codes=[0, 1])
    many = portal.mailman.toml() + one_each.replace("managers.plain", "managers.one_each") + plain_toml(portal)
    lists = TWO.replace("syncpws = false\n", "", 1) + "".join(
        f'[lists.{each}]\nname = "{each}"\nemail = "{each}@example.org"\nmanager = "{each}"\n{name}'
        for each in ("one_each", "plain")
    )
    with_catalogue(portal, make_app, lists + many)
    done = subprocess.run(["shellcheck", portal.script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    for shell in SHELLS.values():
        if shutil.which(shell[0]):
            subprocess.run([*shell, "-n", portal.script], check=True)
