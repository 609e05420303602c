"""Mail from end to end: a real mail server delivers it, and a real browser opens its links."""

import re
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.services.accounts.passwords import hash_password
from tests.browser import stage
from tests.browser.checks import check
from tests.browser.test_imports import Clicks
from tests.browser.test_walks import Walk
from tests.conftest import Clock, Rosters
from tests.factories import make_preference, make_user
from tests.real.postfix import Postfix, running
from tests.waiting import wait_until

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SETTINGS = """
base_url = "http://127.0.0.1:{port}"
bcrypt_rounds = 4
help_contact = "helpdesk@example.org"

[membership]
file = "members.csv"
invite = true

[membership.columns]
key = "No."
username = "Login"
email = "E-Mail"
"""
PEOPLE = "No.,Login,E-Mail\n1,ada,Ada@example.org\n2,ben,ben@example.org\n"


class Trip(Walk):
    """A walk on which mail arrives."""

    postfix: Postfix

    def flask(self, *args: str) -> Result:
        self.clock.advance(minutes=1)
        return self.app.test_cli_runner().invoke(args=args)

    def open_link(self, mailbox: str, *, number: int = 1) -> None:
        """Open the first link of a mailbox's letter of a number, and check its page."""
        text = self.postfix.wait_for(mailbox, number=number)
        found = re.search(rf"{self.url}/\S+", text)
        assert found, text
        self.page.goto(found[0])
        check(self.page)

    def fill(self, **values: str) -> None:
        for name, value in values.items():
            self.page.fill(f"#{name}", value)

    def sync(self) -> None:
        assert self.shell("sync").exit_code == 0


@pytest.fixture
def trip(
    chromium: Any, instance: Path, make_app: Callable[..., Flask], rosters: Rosters, clock: Clock
) -> Iterator[Trip]:
    """A portal that sends by a real mail server, with Bob, a superuser; nobody else has an account yet."""
    with running(["ada", "ben", "bob", "new", "zoe", "ops"]) as postfix:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        (instance / "portal.toml").write_text(
            SETTINGS.format(port=port) + postfix.toml('operators = ["ops@example.org"]')
        )
        app = make_app()
        with app.app_context(), Session(db.engine) as session:
            make_user(session, "bob", is_superuser=True, password_hash=hash_password(stage.PASSWORD, rounds=4))
        context = chromium.new_context(**stage.VIEWS["wide"])
        with stage.serve(app, port=port) as url:
            found = Trip(app, context.new_page(), url, rosters, clock)
            found.postfix = postfix
            yield found
            wait_until(lambda: app.extensions["sender"].is_idle)
            context.close()


def test_from_a_file_of_members_to_a_list_and_in_again_without_the_password(trip: Trip, instance: Path) -> None:
    (instance / "members.csv").write_text(PEOPLE)
    assert trip.flask("user", "import").output == ""
    assert trip.flask("minutely").output == ""

    trip.open_link("ada@example.org")
    trip.sees("Your username is ada.")
    trip.press("Log in")
    trip.fill(new="four words in a row", again="four words in a row")
    trip.press("Save password")
    trip.sees("Your password has been saved.")
    trip.page.check("#list-members")
    trip.press("Save")
    trip.sync()
    assert trip.rosters.get("members") == {"Ada@example.org"}

    trip.open_link("ada@example.org")
    trip.sees("This link does not work")
    trip.page.context.clear_cookies()
    trip.open("/login")
    trip.fill(email="ada@example.org")
    trip.press("Get a link by e-mail")
    trip.open_link("ada@example.org", number=2)
    trip.press("Log in")
    trip.press("Continue without a password")
    assert trip.state_of("members") == "Subscribed"
    trip.page.uncheck("#list-members")
    trip.press("Save")
    trip.sync()
    assert trip.rosters.get("members") == set()
    assert len(trip.postfix.letters("ben@example.org")) == 1


def test_an_address_is_changed_and_the_change_undone_from_the_old_mailbox(trip: Trip, instance: Path) -> None:
    trip.rosters.set("members", "bob@example.org")
    trip.sync()
    trip.log_in("bob")
    trip.open("/account/addresses")
    trip.fill(email="new@example.org")
    trip.page.check("#replaces_main")
    trip.press("Send a link")
    trip.open_link("new@example.org")
    trip.press("Confirm address")
    trip.sees("new@example.org has been confirmed.")
    trip.sync()
    assert trip.rosters.get("members") == {"new@example.org"}

    trip.page.context.clear_cookies()
    trip.open_link("bob@example.org")
    trip.press("Undo the change")
    trip.sees("bob@example.org is the main address again.")
    trip.sync()
    assert trip.rosters.get("members") == {"bob@example.org"}
    trip.press("Get a link to log in")
    trip.fill(email="bob@example.org")
    trip.press("Get a link by e-mail")
    trip.open_link("bob@example.org", number=2)
    trip.press("Log in")
    trip.sees("Choose a password")


def test_a_mailbox_without_an_account_leaves_a_list(trip: Trip) -> None:
    with trip.app.app_context(), Session(db.engine) as session:
        make_preference(session, "members", "zoe@example.net", subscribed=True, seen=True)
    trip.rosters.set("members", "zoe@example.net", "stranger@example.net")
    trip.sync()
    trip.open("/leave")
    trip.fill(email="Zoe@example.net")
    trip.press("Get a link by e-mail")
    trip.open_link("zoe@example.net")
    trip.page.uncheck("#list-members")
    trip.press("Leave the unticked lists")
    trip.sees("zoe@example.net will be taken off Members.")
    trip.sync()
    assert trip.rosters.get("members") == {"stranger@example.net"}


def test_a_run_that_needs_approval_mails_operators_a_link_to_its_plan(trip: Trip) -> None:
    board = [f"board{number}@example.org" for number in range(12)]
    with trip.app.app_context(), Session(db.engine) as session:
        for each in board:
            make_user(session, each.partition("@")[0])
            make_preference(session, "members", each, subscribed=True, seen=True)
    trip.rosters.set("members", *board)
    trip.sync()
    trip.rosters.set("members")
    assert trip.shell("sync").exit_code == 77
    assert trip.flask("minutely").output == ""
    trip.log_in("bob")

    trip.open_link("ops@example.org")
    trip.sees("needs approval")
    trip.sees("board11@example.org")
    trip.press("Apply these 12 changes")
    assert trip.flask("minutely").exit_code == 0
    assert "over: a run of Members needs approval" in trip.postfix.wait_for("ops@example.org", number=2).replace(
        "\n", " "
    )


def test_a_help_desk_onboards_three_hundred_people_in_five_clicks(trip: Trip, tmp_path: Path) -> None:
    file = tmp_path / "members.csv"
    file.write_text("No.,Login,E-Mail\n" + "".join(f"{each},m{each},m{each}@example.org\n" for each in range(300)))
    trip.log_in("bob")
    clicks = Clicks(trip)
    clicks.press("People")
    clicks.press("Import")
    clicks.choose(file)
    clicks.press("Review the import")
    assert trip.page.is_checked("#invite")
    clicks.press("Import 300 changes")
    trip.sees("300 people were imported. New people will get an invitation by e-mail.")
    assert clicks.count == 5
    trip.open("/admin/mail")
    trip.sees("300")


def test_a_visitor_of_the_demo_goes_from_an_invitation_to_being_off_a_list_in_five_clicks(
    chromium: Any, instance: Path, make_app: Callable[..., Flask]
) -> None:
    (instance / "mailinglists.toml").unlink()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    assert make_app().test_cli_runner().invoke(args=["demo"]).exit_code == 0
    app = make_app(PORTAL_BASE_URL=url)  # it has mail now
    app.extensions["portal"] = replace(app.extensions["portal"], clock=lambda: datetime.now(UTC))
    shell = app.test_cli_runner()
    assert shell.invoke(args=["minutely"]).output == ""
    with stage.serve(app, port=port), chromium.new_context(**stage.VIEWS["narrow"]) as context:
        page = context.new_page()
        page.goto(f"{url}/demo/mail")
        for role, name in (
            ("link", f"{url}/link/"),
            ("button", "Log in"),
            ("link", "Continue without a password"),
            ("checkbox", "Technical discussion"),
            ("button", "Save"),
        ):
            check(page)
            page.get_by_role(role, name=name).first.click()
            page.wait_for_load_state()
        check(page)
        assert "Being removed" in page.locator("li", has=page.locator("#list-tech")).inner_text()
    assert shell.invoke(args=["mailinglist", "sync", "tech"]).exit_code == 0
    assert "heidi" not in (instance / "rosters" / "tech.txt").read_text()
