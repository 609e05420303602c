"""The generated scripts, run by three shells against fake list managers, including steps that fail."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wrappers import Response

from portal.models import Lease, Preference, Run
from portal.services.accounts import address_changes, profiles, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE
from portal.services.preferences import preferences
from tests.conftest import SERVER, Clock
from tests.factories import make_user
from tests.fakes.mailman2 import FakeMailman2
from tests.fakes.mlmmj import FakeMlmmj
from tests.fakes.plain import FakePlain
from tests.fakes.sympa import FakeSympa
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

SHELLS = {"bash": ["bash"], "dash": ["dash"], "busybox": ["busybox", "sh"]}
ROOT = Path(__file__).parents[2]
TOOLS = ("cat", "curl", "dd", "grep", "head", "mktemp", "mv", "rm", "sed", "tr", "wc")
QUICK_CLOCK = """#!/bin/sh
seconds=0
[ ! -e {path} ] || read -r seconds <{path}
seconds=$((seconds + 25))
echo "$seconds" >{path}
echo "$seconds"
"""
STRANGER = "stranger@example.net"
HOSTILE_NAME = "a'b$(id)`id`;*&|\"<>{}~#!"
HOSTILE = [
    "`id`@example.org",
    "$HOME@example.org",
    "`touch${IFS}pwned`@example.org",
    "/etc/passwd@example.org",
    "-rf@example.org",
    "=cmd|'/C'!A0@example.org",
    "a|b@example.org",
    "*@example.org",
    "n'&|?^%@example.org",
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
    """The portal, and one of its scripts in a shell with hardly any environment.

    ``over_api``: the script's host has the list manager, curl, and a few tools that every host has; no portal.
    """

    def __init__(self, app: Flask, session: Session, instance: Path, folder: Path, *, over_api: bool = False) -> None:
        self.app, self.session, self.instance, self.folder = app, session, instance, folder
        self.over_api = over_api
        self.shell = SHELLS["dash"]
        self.temporary = folder / "temporary"
        self.temporary.mkdir()
        self.mailman = FakeMailman2(folder / "mailman")
        self.plain = FakePlain(folder / "plain")
        self.instead: dict[str, Any] = {}
        self.over = threading.Event()
        self.tools = folder / "tools"
        self.tools.mkdir()
        self.has_tools(*TOOLS)
        self.make_tool("sleep", "#!/bin/sh\n")
        self.make_tool("date", QUICK_CLOCK.format(path=folder / "seconds"))

    def make_tool(self, name: str, text: str) -> None:
        """Put a program of the test's own on the host of the script."""
        (self.tools / name).write_text(text)
        (self.tools / name).chmod(0o755)

    def has_tools(self, *names: str) -> None:
        """Put programs of this host on that of the script."""
        for name in names:
            require(name)
            (self.tools / name).unlink(missing_ok=True)
            (self.tools / name).symlink_to(shutil.which(name) or "")

    @property
    def clock(self) -> Callable[[], datetime]:
        return self.app.extensions["portal"].clock

    @property
    def script(self) -> Path:
        """The script, printed anew, as an operator keeps it."""
        options = ["--api"] if self.over_api else []
        done = self.app.test_cli_runner().invoke(args=["mailinglist", "sync-script", *options])
        assert done.exit_code == 0, done.output
        path = self.folder / "script.sh"
        path.write_text(done.stdout)
        return path

    def environ(self, **more: str) -> dict[str, str]:
        found = {"PATH": "/nowhere", "TMPDIR": str(self.temporary)}
        found["PORTAL_PATH"] = f"{self.tools}:/usr/local/bin:/usr/bin:/bin"
        if self.over_api:
            found |= {"PORTAL_PATH": str(self.tools), "PORTAL_KEY_FILE": str(self.key_file), "PORTAL_URL": self.url}
        elif SERVER:
            found |= {"PORTAL_SQLALCHEMY_DATABASE_URI": SERVER}
        return {**found, **more}

    def serve(self) -> BaseWSGIServer:
        """Answer on a port of this host, to a key in a file; whoever calls this shuts the server down."""
        server = make_server("127.0.0.1", 0, self.answer, threaded=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{server.server_port}"
        make_user(self.session, "operator", is_superuser=True)
        made = self.app.test_cli_runner().invoke(args=["apikey", "create", "operator", "--label", "list host"])
        assert made.exit_code == 0, made.output
        self.key_file = self.folder / "key"
        self.key_file.write_text(made.stdout)
        return server

    def answer(self, environ: Any, start_response: Any) -> Any:
        """Answer a request with the portal, or with what stands in its place for this call."""
        for call, instead in self.instead.items():
            if call in f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}?{environ['QUERY_STRING']}":
                return instead({**environ, "portal.over": self.over}, start_response)
        return self.app(environ, start_response)

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
            profiles.id_of(self.session, username),
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
        result = self.session.scalars(select(Run.state).where(Run.list_handle == handle).order_by(Run.id.desc()))
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
def here(app: Flask, session: Session, instance: Path, tmp_path: Path) -> Operated:
    return Operated(app, session, instance, tmp_path)


@pytest.fixture
def over_api(app: Flask, session: Session, instance: Path, tmp_path: Path) -> Iterator[Operated]:
    portal = Operated(app, session, instance, tmp_path, over_api=True)
    server = portal.serve()
    yield portal
    portal.over.set()
    server.shutdown()
    server.server_close()


@pytest.fixture(params=["here", "over_api"])
def portal(request: pytest.FixtureRequest) -> Operated:
    """Either script; what a test says of one holds for both."""
    found: Operated = request.getfixturevalue(request.param)
    return found


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
    make_cast(portal, "alice", "bob", "charlie", "dora", "erin", "frank", "grace")
    stays = ["grace@example.org", STRANGER]
    members = ["bob@example.org", "Charlie@example.org", "dora@example.org", "erin@example.org", *stays]
    portal.mailman.set_roster("members", members)
    assert portal.run() == (0, "")
    portal.choose("alice", ticked=True)
    portal.choose("bob", ticked=False)
    users.deactivate(portal.session, "charlie", now=portal.clock())
    address_changes.change(
        portal.session,
        profiles.id_of(portal.session, "dora"),
        checked("Dora@home.example.org"),
        actor=COMMAND_LINE,
        now=portal.clock(),
        lists=portal.app.extensions["portal"].catalogue().lists,
    )
    # Erin leaves and Frank joins at the list.
    portal.mailman.set_roster("members", [*members[:3], "frank@example.org", *stays])
    portal.calls()


AFTERWARDS = {"alice@example.org", "Dora@home.example.org", "frank@example.org", "grace@example.org", STRANGER}


def test_a_list_is_kept_right_by_every_shell(portal, every_shell):
    portal.shell = every_shell
    act_out(portal)
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS | {"dora@example.org"}
    reads_options = not portal.over_api
    assert portal.calls() == [
        ("list_members", []),
        *([("memberoptions", ["dora@example.org"])] if reads_options else []),  # what would go along with her move
        ("remove_members", ["bob@example.org", "charlie@example.org"]),
        ("add_members", ["alice@example.org", "Dora@home.example.org"]),
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
def test_hostile_addresses_and_names_reach_the_commands_byte_for_byte(over_api, make_app, every_shell, each_alone):
    portal = over_api
    portal.shell = every_shell
    catalogue = (
        MAILMAN + f"list = {json.dumps(HOSTILE_NAME)}\nsafety_limits = {{ removals = 99, removals_percent = 99 }}\n"
    )
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


def test_the_name_of_a_list_manager_is_never_run(two, make_app):
    name = json.dumps("files\n    touch pwned #")
    text = TWO.replace('manager = "files"', f"manager = {name}").replace("[managers.files]", f"[managers.{name}]")
    with_catalogue(two, make_app, text + two.mailman.toml())
    two.mailman.set_roster("first", [])
    assert two.run() == (0, "")
    assert not list(two.folder.rglob("pwned"))
    assert "    touch pwned" not in two.script.read_text().splitlines()


def test_what_mailman_would_take_for_somebody_else_is_not_sent_to_it(portal):
    for number, address in enumerate(["a|b@example.org", "jörg@example.org", "bob@example.org"]):
        make_user(portal.session, f"user{number}", address)
        portal.choose(f"user{number}", ticked=True)
    code, told = portal.run()
    assert code == 0
    assert "did not carry out the changes of 2 addresses" in told
    assert portal.mailman.roster("members") == {"bob@example.org"}
    assert portal.run() == (0, "")


STEPS = {
    "its roster cannot be read": ("list_members", 69),
    "adding fails": ("add_members", 69),
    "removing fails": ("remove_members", 69),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_command_that_fails_ends_with_69_and_the_next_run_heals(over_api, step, every_shell):
    portal = over_api
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
def test_a_portal_that_fails_is_told_with_its_code_and_the_next_run_heals(here, command, exit_code):
    portal = here
    act_out(portal)
    code, told = portal.run(PORTAL_FLASK=portal.failing(command, exit_code=exit_code))
    assert code == (1 if exit_code == 127 else exit_code)
    assert "error: told by the test" in told
    assert not portal.is_held()
    assert portal.run() == (0, "")
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS


def test_a_roster_that_cannot_be_read_again_gives_the_run_up(here):
    portal = here
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


def test_an_emptied_roster_waits_until_its_plan_is_approved(portal):
    make_cast(portal)
    portal.mailman.set_roster("members", ["alice@example.org"])
    assert portal.run() == (0, "")
    portal.mailman.set_roster("members", [])
    code, told = portal.run()
    assert code == 77
    plan = re.search(r"--accept ([0-9a-f]{16})\b", told)
    assert plan, told
    assert portal.run("--accept", plan[1]) == (0, "")
    assert portal.mailman.roster("members") == set()


def test_a_plan_that_needs_approval_is_77_and_its_id_lets_exactly_that_plan_through(over_api, every_shell):
    portal = over_api
    portal.shell = every_shell
    names = [f"user{number:02}" for number in range(40)]
    make_cast(portal, *names)
    portal.mailman.set_roster("members", [f"{name}@example.org" for name in names])
    assert portal.run() == (0, "")
    for name in names[:8]:
        portal.app.test_cli_runner().invoke(args=["mailinglist", "unsubscribe", "members", name])
    portal.calls()
    code, told = portal.run()
    assert code == 77
    plan = re.search(r"--accept ([0-9a-f]{16})\b", told)
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
def two(here: Operated, make_app: Callable[..., Flask]) -> Operated:
    portal = here
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
    assert two.run(PORTAL_FLASK=two.failing("sync text", exit_code=65))[0] == 69, "the first list is missing"
    assert two.run(PORTAL_FLASK=two.failing("sync text", exit_code=1))[0] == 1


def test_without_lists_or_where_they_are_not_enabled_there_is_no_script(portal, make_app):
    with_catalogue(portal, make_app, "enabled = false")
    done = portal.app.test_cli_runner().invoke(args=["mailinglist", "sync-script"])
    assert (done.exit_code, done.stdout) == (78, "")


def test_a_script_that_is_ended_gives_its_run_back(over_api, every_shell):
    portal = over_api
    portal.shell = every_shell
    act_out(portal)
    portal.mailman.hold("add_members")
    argv = [shutil.which(every_shell[0]) or "", *every_shell[1:], portal.script]
    process = subprocess.Popen(argv, env=portal.environ())
    wait_until(lambda: portal.mailman.calls("add_members"))
    process.send_signal(signal.SIGTERM)
    portal.mailman.let_go()  # a shell answers a signal when the command that it waits for has ended
    assert process.wait(timeout=60) == 143
    assert list(portal.temporary.iterdir()) == []
    assert not portal.is_held()
    assert portal.last_run() == "failed"
    portal.mailman.repair()
    assert portal.run() == (0, "")
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS


def test_a_run_that_was_cut_short_is_ended_by_the_next_start(portal, every_shell):
    portal.shell = every_shell
    act_out(portal)
    portal.mailman.hold("add_members")
    argv = [shutil.which(every_shell[0]) or "", *every_shell[1:], portal.script]
    process = subprocess.Popen(argv, env=portal.environ())
    wait_until(lambda: portal.mailman.calls("add_members"))
    process.kill()
    process.wait(timeout=60)
    portal.mailman.let_go()
    wait_until(lambda: "alice@example.org" in portal.mailman.roster("members"))
    portal.mailman.repair()
    shutil.rmtree(next(portal.temporary.iterdir()))
    assert portal.is_held()
    code, told = portal.run()
    assert code == 0
    assert "members: an earlier run of this script was interrupted" in told
    assert not list(portal.folder.rglob("*.run.members"))
    runs = portal.session.execute(select(Run.state, Run.added, Run.removed).order_by(Run.id)).all()
    portal.session.rollback()
    assert [tuple(each) for each in runs[-2:]] == [("failed", 2, 2), ("done", 0, 1)]
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS


def test_a_run_of_a_script_that_still_runs_is_left_to_it(over_api):
    portal = over_api
    act_out(portal)
    portal.mailman.hold("add_members")
    process = subprocess.Popen(["/bin/sh", portal.script], env=portal.environ())
    wait_until(lambda: portal.mailman.calls("add_members"))
    path = portal.folder / "second.sh"
    path.write_text(portal.script.read_text())
    second = subprocess.run(["/bin/sh", path], env=portal.environ(), capture_output=True, text=True, check=False)
    assert second.returncode == 75
    assert "flask mailinglist list-init --abandon members" in second.stderr
    portal.mailman.let_go()
    assert process.wait(timeout=60) == 0
    assert portal.last_run() == "done"


@pytest.mark.parametrize("call", ["confirm=1", "abandon=1"])
def test_a_portal_that_goes_away_is_waited_for(over_api, every_shell, call):
    portal = over_api
    portal.shell = every_shell
    act_out(portal)
    if call == "abandon=1":
        portal.mailman.fail("remove_members")
    answers = iter([Response("bad gateway", 502)] * 3)

    def away(environ, start_response):
        return next(answers, portal.app)(environ, start_response)

    portal.instead = {call: away}
    code, told = portal.run()
    assert code == (0 if call == "confirm=1" else 69)
    assert "502" not in told
    assert not portal.is_held()
    assert portal.last_run() == ("done" if call == "confirm=1" else "failed")


def test_a_portal_that_stays_away_is_given_up_and_the_next_start_ends_the_run(over_api):
    portal = over_api
    act_out(portal)
    portal.instead = dict.fromkeys(("confirm=1", "abandon=1"), Response("bad gateway", 502))
    code, told = portal.run()
    assert code == 69
    assert told.count("502") == 2
    assert portal.is_held()
    portal.instead = {}
    assert portal.run()[0] == 0
    assert portal.run() == (0, "")
    assert portal.mailman.roster("members") == AFTERWARDS


def test_an_address_that_the_command_fails_at_is_named_and_keeps_no_other_waiting(over_api, make_app, every_shell):
    portal = over_api
    portal.shell = every_shell
    make_cast(portal)
    with_catalogue(portal, make_app, MAILMAN + plain_toml(portal))
    portal.plain.set_roster("members", [])
    portal.plain.act(refuse=["alice@example.org"])
    for name in ("alice", "bob", "charlie"):
        portal.choose(name, ticked=True)
    code, told = portal.run()
    assert code == 0
    assert "could not add alice@example.org" in told
    assert "did not carry out the changes of 1 addresses" in told
    assert portal.plain.roster("members") == {"bob@example.org", "charlie@example.org"}
    assert portal.run() == (0, "")


def test_a_command_that_hangs_is_interrupted(over_api):
    portal = over_api
    act_out(portal)
    portal.has_tools("timeout", "true")
    portal.mailman.hang("add_members", locked=True)
    code, told = portal.run(PORTAL_TIMEOUT="2")
    assert code == 69
    assert "exit code 124" in told
    assert not portal.mailman.is_locked("members")
    assert not portal.is_held()


def test_a_run_whose_script_was_killed_is_taken_over_after_an_hour(over_api):
    portal = over_api
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


def test_skipped_lines_and_tolerated_exit_codes_are_those_of_the_settings(over_api, make_app):
    portal = over_api
    make_cast(portal)
    portal.has_tools("awk")
    toml = plain_toml(portal, skip_lines=1, ok_exit_codes=[0, 4])
    with_catalogue(portal, make_app, MAILMAN + toml)
    portal.plain.set_roster("members", [])
    portal.plain.act(header="1 member(s) in a@list.example.org\n", exit_code=4)
    portal.choose("alice", ticked=True)
    assert portal.run() == (0, "")
    assert portal.plain.roster("members") == {"alice@example.org"}
    portal.plain.act()
    portal.plain.set_roster("members", [])
    assert portal.run()[0] == 69  # no line to skip
    portal.plain.act(header="1 member(s)\n", exit_code=5)
    portal.plain.set_roster("members", ["alice@example.org"])
    for username in ("bob", "charlie"):  # one alone would be an address that fails
        portal.choose(username, ticked=True)
    assert portal.run()[0] == 69
    assert not portal.is_held()


def test_one_address_that_fails_does_not_keep_the_others_waiting(over_api, make_app):
    portal = over_api
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


def other_kind(kind: str, table: dict[str, Any]) -> str:
    settings = "".join(f"{key} = {json.dumps(value)}\n" for key, value in table.items())
    return f'[managers.{kind}]\nkind = "{kind}"\n{settings}'


def tick_and_untick(portal: Operated) -> None:
    make_cast(portal)
    assert portal.run() == (0, "")
    portal.choose("alice", ticked=False)
    portal.choose("charlie", ticked=True)
    assert portal.run() == (0, "")
    assert portal.run() == (0, "")


def test_mlmmj_is_driven_and_a_list_that_cannot_be_read_is_no_empty_one(over_api, make_app):
    over_api.has_tools("tail")
    mlmmj = FakeMlmmj(over_api.folder / "mlmmj")
    with_catalogue(over_api, make_app, MAILMAN + other_kind("mlmmj", mlmmj.table()))
    mlmmj.set_roster("members", ["alice@example.org", STRANGER], digest=["bob@example.org"])
    tick_and_untick(over_api)
    assert mlmmj.roster("members") == {"charlie@example.org", STRANGER}
    assert mlmmj.roster("members", "-d") == {"bob@example.org"}
    assert len(mlmmj.calls("mlmmj-sub", "mlmmj-unsub")) == 2
    with next((mlmmj.spool / "members" / "subscribers.d").iterdir()).open("a") as stream:
        stream.write("half@exam")
    code, told = over_api.run()
    assert code == 69
    assert "its last line is cut off" in told
    shutil.rmtree(mlmmj.spool / "members" / "subscribers.d")
    assert "subscribers.d cannot be read" in over_api.run()[1]


@pytest.mark.parametrize("mode", ["stale", "torn", "closed", "down"])
def test_sympa_is_driven_and_a_dump_that_is_none_is_not_believed(over_api, make_app, mode):
    over_api.has_tools("find", "sleep", "tail")
    sympa = FakeSympa(over_api.folder / "sympa")
    with_catalogue(over_api, make_app, MAILMAN + other_kind("sympa", sympa.table()))
    sympa.set_roster("members", ["alice@example.org", STRANGER], concealed=["bob@example.org"])
    tick_and_untick(over_api)
    assert sympa.roster("members") == {"bob@example.org", "charlie@example.org", STRANGER}
    sympa.act(**{mode: True})
    assert over_api.run()[0] == 69
    sympa.act()
    assert over_api.run() == (0, "")


def test_shellcheck_has_nothing_to_say(portal, make_app):
    require("shellcheck")
    name = f"list = {json.dumps(HOSTILE_NAME)}\n"
    one_each = plain_toml(portal, option="-a {address}", one_address_per_call=True, skip_lines=2, ok_exit_codes=[0, 1])
    many = portal.mailman.toml() + one_each.replace("managers.plain", "managers.one_each") + plain_toml(portal)
    many += other_kind("mlmmj", {}) + other_kind("sympa", {"domain": "lists.example.org"})
    lists = TWO.replace("syncpws = false\n", "", 1) + "".join(
        f'[lists.{each}]\nname = "{each}"\nemail = "{each}@example.org"\nmanager = "{each}"\n'
        for each in ("mlmmj", "sympa")
    )
    lists += "".join(
        f'[lists.{each}]\nname = "{each}"\nemail = "{each}@example.org"\nmanager = "{each}"\n{name}'
        for each in ("one_each", "plain")
    )
    with_catalogue(portal, make_app, lists + many)
    done = subprocess.run(["shellcheck", portal.script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    for shell in SHELLS.values():
        if shutil.which(shell[0]):
            subprocess.run([*shell, "-n", portal.script], check=True)


# --- the script that calls the API

CALLS = ["init?plan", "subscribed", "unsubscribed", "init?confirm"]


def hang(environ, _start_response):
    environ["portal.over"].wait(60)
    return []


def cut_off(_environ, start_response):
    start_response("200 OK", [("Content-Length", "70"), ("Content-Type", "text/plain")])
    return [b"adds: 1\nremo"]


WRONG = {
    "a redirect": (Response("", 302, {"Location": "/elsewhere"}), 69),
    "an error of the server": (Response("<html>\x1b[31moops", 500, mimetype="text/html"), 69),
    "a proxy that cannot reach it": (Response("bad gateway", 502, mimetype="text/plain"), 69),
    "a page of a proxy": (Response("<html>adds: 1", 200, mimetype="text/html"), 69),
    "too many tries": (Response("slow down", 429, mimetype="text/plain"), 75),
    "no such key": (Response("who?", 401, mimetype="text/plain"), 77),
    "too large": (Response("no", 413, mimetype="text/plain"), 65),
    "a lie about the code": (Response('{"exit_code":0}', 409, mimetype="application/problem+json"), 1),
    "a hang": (hang, 69),
    "half an answer": (cut_off, 69),
    "a page that looks like an answer": (
        Response("adds: 1\nremovals: 0\nrefused: 0\ntoken: ab12\n", 200, mimetype="text/html"),
        69,
    ),
    "another text": (Response("welcome\nto the hotel", 200, mimetype="text/plain"), 69),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_portal_that_answers_wrongly_is_told_and_the_next_run_heals(over_api, wrong):
    act_out(over_api)
    answer, expected = WRONG[wrong]
    for call in CALLS:
        over_api.instead = {call: answer}
        code, told = over_api.run(PORTAL_TIMEOUT="2")
        assert code == expected, call
        assert "members/" in told
        assert "\x1b" not in told
        assert not over_api.is_held()
    over_api.instead = {}
    assert over_api.run() == (0, "")
    assert over_api.run() == (0, "")
    assert over_api.mailman.roster("members") == AFTERWARDS


@pytest.mark.parametrize("lie", ["", "alice@example.org\n", "alice@example.org\nbob@example.org\nx@example.org\n"])
def test_only_as_many_addresses_as_were_planned_are_pushed(over_api, lie):
    act_out(over_api)
    over_api.instead = {"subscribed?planned": Response(lie, mimetype="text/plain")}
    code, told = over_api.run()
    assert code == 69
    assert "another number of addresses than it had planned" in told
    assert {command for command, _ in over_api.calls()} == {"list_members"}
    assert not over_api.is_held()


def test_a_portal_that_is_down_is_69(over_api):
    act_out(over_api)
    code, told = over_api.run(PORTAL_URL="http://127.0.0.1:9")
    assert code == 69
    assert "no answer from http://127.0.0.1:9" in told


@pytest.mark.parametrize("key", ["", "a b\n", "mp_aaaaaaaa_$(id)\n", "x\r\n", None])
def test_without_a_file_that_holds_a_key_alone_it_is_78(over_api, key):
    path = over_api.folder / "other key"
    if key is not None:
        path.write_text(key)
    code, told = over_api.run(PORTAL_KEY_FILE=str(path))
    assert (code, told.count("\n")) == (78, 1)
    assert "PORTAL_KEY_FILE" in told
    assert over_api.calls() == []


def test_a_key_that_is_refused_is_told_in_the_portals_words_and_is_77(over_api):
    over_api.key_file.write_text("mp_aaaaaaaa_" + "x" * 43)
    code, told = over_api.run()
    assert code == 77
    assert "key" in told
    assert told.count("\n") == 1


def test_an_address_of_the_portal_that_is_none_is_78(over_api):
    for wrong in ("file:///etc/passwd", "example.org", "-o/etc/passwd", "http://"):
        assert over_api.run(PORTAL_URL=wrong)[0] == 78


def test_nothing_secret_is_on_a_command_line_or_in_the_environment_of_a_command(over_api, make_app, session):
    portal = over_api
    catalogue = MAILMAN.replace("syncpws = false\n", "") + portal.mailman.toml()
    with_catalogue(portal, make_app, catalogue)
    (portal.tools / "curl").unlink()
    (portal.tools / "curl").write_text(
        f'#!/bin/sh\n{{ env; printf "%s\\n" "$@"; }} >>{portal.folder}/seen\nexec {shutil.which("curl")} "$@"\n'
    )
    (portal.tools / "curl").chmod(0o755)
    portal.has_tools("env")
    make_cast(portal)
    portal.choose("alice", ticked=True)
    assert portal.run() == (0, "")
    assert portal.run() == (0, "")
    passwords = [
        line.partition("\t")[2] for call in portal.mailman.calls("changepw") for line in call.stdin.split("\n")
    ]
    assert len(passwords[0]) == 20
    seen = (portal.folder / "seen").read_text() + repr([call[1::2] for call in portal.mailman.calls()])
    assert portal.key_file.read_text().strip() not in seen
    assert passwords[0] not in seen


def test_list_passwords_are_set_once_and_a_failure_to_set_them_keeps_nobody_waiting(portal, make_app):
    with_catalogue(portal, make_app, MAILMAN.replace("syncpws = false\n", "") + portal.mailman.toml())
    make_cast(portal)
    portal.choose("alice", ticked=True)
    assert portal.run() == (0, "")
    assert portal.mailman.calls("changepw") == []  # she was not on the list yet
    portal.choose("bob", ticked=True)
    portal.mailman.fail("changepw", stderr="Traceback: fake\n")
    assert portal.run()[0] == 69
    assert portal.mailman.roster("members") == {"alice@example.org", "bob@example.org"}
    portal.mailman.repair()
    portal.calls()
    assert portal.run() == (0, "")
    assert [call.stdin.split("\t")[0] for call in portal.mailman.calls("changepw")] == ["alice@example.org"]
    assert [len(call.stdin.splitlines()) for call in portal.mailman.calls("changepw")] == [2]
    portal.calls()
    assert portal.run() == (0, "")
    assert portal.mailman.calls("changepw") == []


def test_lists_that_only_the_portal_reaches_are_named(two):
    done = two.app.test_cli_runner().invoke(args=["mailinglist", "sync-script", "--api"])
    assert done.stderr == "text: only the portal can reach files; run: flask mailinglist sync text\n"
    assert "# Only the portal itself reaches files. On its host run: flask mailinglist sync text\n" in done.stdout
