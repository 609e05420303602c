"""The trips of the three users, end to end in a browser: a member, cron, and a superuser at the help desk."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.services.accounts.passwords import hash_password
from tests.browser import stage
from tests.browser.checks import check
from tests.conftest import Clock, Rosters
from tests.factories import make_user

pytestmark = [pytest.mark.browser, pytest.mark.slow]

BOARD = [f"board{number}" for number in range(12)]


class Walk:
    """A portal that is served, a browser before it, and a shell beside it."""

    def __init__(self, app: Flask, page: Any, url: str, rosters: Rosters, clock: Clock) -> None:
        self.app, self.page, self.url, self.rosters, self.clock = app, page, url, rosters, clock

    def log_in(self, who: str) -> None:
        self.page.context.clear_cookies()
        stage.log_in(self.page, self.url, who)
        check(self.page)

    def open(self, path: str) -> None:
        self.page.goto(self.url + path)
        check(self.page)

    def press(self, words: str) -> None:
        """Press the button, or follow the link, of these words, and check where it leads."""
        roles = [self.page.get_by_role(role, name=re.compile(f"^{re.escape(words)}")) for role in ("button", "link")]
        found = roles[0].or_(roles[1])
        found.first.click()
        self.page.wait_for_load_state()
        check(self.page)

    def sees(self, words: str) -> None:
        self.page.get_by_text(words).first.wait_for(timeout=5_000)

    def state_of(self, handle: str) -> str:
        """The word in the pill of a list's card."""
        card = self.page.locator("li", has=self.page.locator(f"#list-{handle}"))
        return str(card.locator(".state").first.inner_text())

    def shell(self, *args: str) -> Result:
        self.clock.advance(minutes=1)
        return self.app.test_cli_runner().invoke(args=["mailinglist", *args])


@pytest.fixture
def walk(chromium: Any, make_app: Callable[..., Flask], rosters: Rosters, clock: Clock) -> Iterator[Walk]:
    """A portal with Alice, a member, Bob, a superuser, and a board of twelve, who are on the list of members."""
    app = make_app()
    password_hash = hash_password(stage.PASSWORD, rounds=4)
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "alice", password_hash=password_hash)
        make_user(session, "bob", is_superuser=True, password_hash=password_hash)
        for name in BOARD:
            make_user(session, name, groups=("board",))
    rosters.set("members", *(f"{name}@example.org" for name in [*BOARD, "bob"]), "stranger@example.net")
    said: list[str] = []
    context = chromium.new_context(**stage.VIEWS["wide"])
    page = context.new_page()
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    with stage.serve(app) as url:
        found = Walk(app, page, url, rosters, clock)
        assert found.shell("sync").exit_code == 0
        yield found
        context.close()
    assert said == []


def test_a_member_ticks_a_list_and_is_on_it_after_the_next_run(walk: Walk) -> None:
    walk.log_in("alice")
    assert walk.state_of("members") == "Not subscribed"
    walk.page.check("#list-members")
    walk.press("Save")
    walk.sees("Changes are applied within 12 hours.")
    assert walk.state_of("members") == "Being added"

    assert walk.shell("sync").exit_code == 0
    walk.open("/subscriptions")

    assert walk.state_of("members") == "Subscribed"
    assert "alice@example.org" in walk.rosters.get("members")


def test_a_member_who_leaves_at_the_list_finds_that_the_portal_knows(walk: Walk) -> None:
    walk.log_in("alice")
    walk.page.check("#list-members")
    walk.press("Save")
    walk.shell("sync")
    walk.rosters.set("members", *(walk.rosters.get("members") - {"alice@example.org"}))

    walk.shell("sync")
    walk.open("/subscriptions")

    walk.sees("You left at the list itself on 22 Nov.")
    assert not walk.page.is_checked("#list-members")
    walk.shell("sync")
    assert "alice@example.org" not in walk.rosters.get("members")


def test_a_member_leaves_all_lists_in_one_step(walk: Walk) -> None:
    walk.log_in("alice")
    for handle in ("members", "tech"):
        walk.page.check(f"#list-{handle}")
    walk.press("Save")
    walk.shell("sync")
    walk.open("/subscriptions")
    walk.press("Leave all lists")
    walk.page.get_by_role("button", name="Leave").first.click()
    walk.page.wait_for_load_state()
    check(walk.page)

    walk.shell("sync")
    walk.open("/subscriptions")

    assert {walk.state_of("members"), walk.state_of("tech")} == {"Not subscribed"}
    assert "alice@example.org" not in walk.rosters.get("members") | walk.rosters.get("tech")


def test_a_superuser_approves_in_the_browser_what_exceeded_the_safety_limits(walk: Walk) -> None:
    walk.rosters.set("members", "bob@example.org", "stranger@example.net")  # twelve are gone at once
    assert walk.shell("sync").exit_code == 77
    walk.log_in("bob")
    walk.open("/admin/users")  # whichever page they begin with
    banner = walk.page.get_by_label("Lists that need attention")
    assert "The last run of Members needs approval." in banner.inner_text()
    banner.get_by_role("link", name="Members").click()
    check(walk.page)
    walk.sees("board3@example.org")
    walk.press("Apply these 12 changes")
    assert walk.page.locator("[data-note]").first.get_attribute("data-note") == "asked"

    assert walk.shell("sync", "--requested").exit_code == 0
    walk.press("Stop refreshing")
    walk.sees("Done")
    walk.open("/admin/users")
    assert banner.count() == 0 or "Members" not in banner.inner_text()
    assert walk.shell("sync").exit_code == 0


def test_a_superuser_finds_out_why_somebody_is_not_on_a_list(walk: Walk) -> None:
    walk.rosters.set("members", *(walk.rosters.get("members") - {"board3@example.org"}))
    walk.shell("sync")
    walk.log_in("bob")
    walk.press("Search")
    walk.page.fill("#q", "oard3")
    walk.page.get_by_role("main").get_by_role("button", name="Search").click()
    walk.press("board3@example.org")
    walk.sees("Left at the list on 22 Nov")
    walk.press("Why")
    walk.sees("Why is board3@example.org not on Members?")
    walk.sees("because they left at the list")
    walk.press("Put on")
    walk.page.fill("#reason", "asked by phone")
    walk.press("Put this address on the list")
    walk.sees("1 address will be put on the list.")
    walk.sees("The next run adds it")
    walk.press("History")
    walk.sees("bob put board3@example.org on Members: “asked by phone”")


def test_the_page_of_a_run_under_way_shows_its_end_by_itself(walk: Walk) -> None:
    walk.log_in("bob")
    walk.open("/admin/lists/members")
    walk.page.get_by_role("button", name="Sync now").click()
    walk.sees("This page refreshes itself every ten seconds.")
    assert walk.shell("sync", "--requested").exit_code == 0
    walk.page.get_by_text("Changes", exact=True).wait_for(timeout=30_000)
    walk.sees("Done")


def test_a_superuser_takes_all_of_a_group_off_a_list_and_puts_them_back(walk: Walk) -> None:
    board = {f"{name}@example.org" for name in BOARD}
    walk.log_in("bob")
    choose_for_the_board(walk, "Take off the list", "Take off, and approve the run")  # twelve of thirteen at once
    walk.page.get_by_role("link", name="Stop refreshing").click()
    assert walk.shell("sync", "--requested").exit_code == 0
    assert walk.rosters.get("members") == {"bob@example.org", "stranger@example.net"}

    choose_for_the_board(walk, "Put on the list", "Put these 12 addresses on")
    assert walk.shell("sync").exit_code == 0
    assert walk.rosters.get("members") == {*board, "bob@example.org", "stranger@example.net"}


def choose_for_the_board(walk: Walk, bulk_action: str, approval: str) -> None:
    walk.open("/admin/lists/members?group=board")
    walk.page.get_by_label("Bulk action").select_option(bulk_action)
    walk.page.get_by_label("for", exact=True).select_option("All 12 addresses")
    walk.press("Continue")
    if "approve" in approval:
        assert "12 removals, limit 5" in walk.page.locator("[data-forecast]").inner_text()
    walk.page.fill("#reason", "asked by the board")
    walk.press(approval)


def test_a_superuser_deactivates_a_group_and_activates_it_again(walk: Walk) -> None:
    board = {f"{name}@example.org" for name in BOARD}
    walk.log_in("bob")
    change_the_board(walk, "Deactivate", status="active")
    assert walk.shell("sync").exit_code == 77, "as the page had said"
    (plan,) = json.loads(walk.shell("sync", "--dry-run", "--format", "json", "members").stdout)
    assert walk.shell("sync", "--accept", plan["plan"]).exit_code == 0
    assert walk.rosters.get("members") == {"bob@example.org", "stranger@example.net"}

    change_the_board(walk, "Activate", status="deactivated")
    assert walk.shell("sync").exit_code == 0
    assert walk.rosters.get("members") == {*board, "bob@example.org", "stranger@example.net"}


def change_the_board(walk: Walk, action: str, *, status: str) -> None:
    walk.open(f"/admin/users?group=board&status={status}")
    walk.page.select_option("#change", label=action)
    walk.page.select_option("#of", "all")
    walk.press("Continue")
    check(walk.page)
    walk.sees(f"{action} 12 people?")
    assert walk.page.get_by_text("The next sync will need approval.").count() == (action == "Deactivate")
    walk.press(f"{action} 12 people")
    walk.sees("12 people were changed.")
