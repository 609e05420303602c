"""A leaver's day on real list managers: the file says gone, and later back; by the command line, and by the browser."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.services.accounts import password_changes, profiles
from portal.services.accounts.passwords import hash_password
from tests.browser import stage
from tests.browser.test_walks import Walk
from tests.conftest import Clock, Rosters
from tests.factories import make_user
from tests.real import programs
from tests.real.base import RealProgram
from tests.web.conftest import Client, Visitor

pytestmark = [pytest.mark.browser, pytest.mark.slow]

LIST = "leavers"
ALICE, STRANGER = "alice@example.org", "stranger@example.net"
SETTINGS = """
bcrypt_rounds = 4
[membership]
file = "members.csv"
leavers = "deactivate"
columns = { key = "no", username = "username", name = "name", groups = "groups" }
"""
HEADER = "no,username,email,name,groups\n"
OTHERS = "".join(f"{number},m{number},m{number}@example.org,Member {number},full\n" for number in range(1, 9))
WITH_ALICE = f"{HEADER}99,alice,{ALICE},Alice,board\n{OTHERS}"
WITHOUT = HEADER + OTHERS


class Day:
    """A portal whose list is kept by a real program; whoever tells the story imports files and looks at the list."""

    def __init__(self, walk: Walk, program: RealProgram, instance: Path) -> None:
        self.walk, self.program, self.instance = walk, program, instance

    def import_by_command(self, content: str) -> None:
        (self.instance / "members.csv").write_text(content)
        done = self.walk.app.test_cli_runner().invoke(args=["user", "import"])
        assert (done.exit_code, done.output) == (0, "")

    def import_by_browser(self, content: str) -> None:
        (self.instance / "upload.csv").write_text(content)
        self.walk.log_in("bob")
        self.walk.open("/admin/users/imports")
        self.walk.page.set_input_files("#file", self.instance / "upload.csv")
        self.walk.press("Review the import")
        self.walk.press("Import ")
        self.walk.sees("1 person was imported.")

    def roster_after_a_sync(self) -> set[str]:
        assert self.walk.shell("sync").exit_code == 0
        return self.program.roster(LIST)

    def visitor(self) -> Visitor:
        return Visitor(self.walk.app.test_client())


@pytest.fixture(params=programs.KEEP_OPTIONS)
def day(
    request: pytest.FixtureRequest, instance: Path, make_app: Callable[..., Flask], rosters: Rosters, clock: Clock
) -> Iterator[Day]:
    program = programs.started(request.param)
    program.make_list(LIST)
    program.set_roster(LIST, [STRANGER])
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in program.manager_table().items())
    name, email = program.list_setting(LIST), f"{LIST}@lists.example.org"
    (instance / "mailinglists.toml").write_text(
        f'enabled = true\n[lists.{LIST}]\nname = "Leavers"\nemail = "{email}"\nsyncpws = false\n'
        + ("" if name in {LIST, email} else f'list = "{name}"\n')
        + f'[managers.real]\nkind = "{program.kind}"\n{table}\n'
    )
    (instance / "portal.toml").write_text(SETTINGS)
    app = make_app()
    app.test_client_class = Client
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "bob", is_superuser=True, password_hash=hash_password(stage.PASSWORD, rounds=4))
    with stage.serve(app) as url:
        context = None
        if request.node.callspec.params["way"] == "browser":
            context = request.getfixturevalue("chromium").new_context(**stage.VIEWS["wide"])
        yield Day(Walk(app, context.new_page() if context else None, url, rosters, clock), program, instance)
        if context:
            context.close()
    assert program.queued_mails() == []
    program.make_list(LIST)


@pytest.mark.parametrize("way", ["command line", "browser"])
def test_who_has_left_is_off_the_list_and_finds_everything_again_when_they_are_back(day: Day, way: str) -> None:
    follow = day.import_by_command if way == "command line" else day.import_by_browser
    day.import_by_command(WITH_ALICE)
    with day.walk.app.app_context(), Session(db.engine) as session:
        password_changes.set_password(session, "alice", password="a password of her own", rounds=4)
    alice = day.visitor()
    alice.log_in("alice", "a password of her own")
    alice.follow("/subscriptions", {"shown": alice.get("/subscriptions").value("shown"), "lists": [LIST]})
    assert day.roster_after_a_sync() == {ALICE, STRANGER}

    follow(WITHOUT)
    assert alice.client.get("/subscriptions").status_code == 302, "she is logged out"
    refused = day.visitor().post("/login", {"username": "alice", "password": "a password of her own"}, status=401)
    assert "Username and password do not match." in refused.text
    assert day.roster_after_a_sync() == {STRANGER}

    follow(WITH_ALICE)
    assert day.roster_after_a_sync() == {ALICE, STRANGER}
    again = day.visitor()
    again.log_in("alice", "a password of her own")
    assert LIST in again.get("/subscriptions").ticked()
    with day.walk.app.app_context(), Session(db.engine) as session:
        found = profiles.by_username(session, "alice")
    assert (found.is_active, found.groups, found.addresses, found.name) == (True, ("board",), (ALICE,), "Alice")
