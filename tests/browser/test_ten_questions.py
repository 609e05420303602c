"""The ten questions of docs/superusers.md: each is answered as that page says, in at most four clicks from Reports."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.services.accounts.passwords import hash_password
from tests.browser import checks, stage
from tests.browser.test_walks import BOARD, Walk
from tests.conftest import Clock, Rosters
from tests.factories import make_user

pytestmark = [pytest.mark.browser, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "superusers.md"
MOST = 4
SETTINGS = """bcrypt_rounds = 4
[mail]
sender = "portal@example.org"
sendmail = "true"
[membership]
columns = { key = "No.", username = "Login", email = "E-Mail" }
"""
Act = Callable[[Any], object]


def answers() -> dict[str, list[str]]:
    """What the page says to press, by question."""
    section = PAGE.read_text().partition("## Ten questions\n")[2].partition("\n## ")[0]
    found = dict(re.findall(r"^### (.+?)\n\n(.+?)(?=\n\n###|\Z)", section, re.DOTALL | re.MULTILINE))
    return {question: re.findall(r"\*\*(.+?)\*\*", " ".join(text.split())) for question, text in found.items()}


def fill(field: str, text: str) -> Act:
    return lambda page: page.fill(field, text)


def choose(**options: str) -> Act:
    return lambda page: [page.select_option(f"#{field}", value) for field, value in options.items()]


REASON = fill("#reason", "asked by phone")
# What is done before which click, and what is read at the end. The later ones find what the earlier ones did.
CASES: dict[str, tuple[dict[int, Act], str]] = {
    "Why is she not on the list?": ({1: fill("#q", "board3")}, "because they left at the list"),
    "Put her on the list": ({1: fill("#q", "board3"), 3: REASON}, "1 address will be put on the list."),
    "Take him off everything": ({1: fill("#q", "board4"), 3: REASON}, "They are being taken off 2 lists."),
    '"I never get mail"': ({1: fill("#q", "board3")}, "It is held by board3."),
    "Who changed this?": ({1: fill("#q", "board4@example.org")}, "bob took board4@example.org off Members"),
    "Take a group off a list": (
        {1: choose(group="board"), 2: choose(bulk_action="unsubscribe", of="all"), 3: REASON},
        "This run starts in about a minute.",
    ),
    "Approve a run": ({}, "This run starts in about a minute."),
    "Bring in this month's file": ({2: lambda page: page.set_input_files("#file", FILE)}, "1 person was imported."),
    "Invite the new ones": ({2: choose(change="invite", of="all")}, "people will get an invitation by e-mail."),
    "Someone's address changed": (
        {1: fill("#q", "board5"), 2: fill("#email", "board5@new.example.org")},
        "board5@new.example.org",
    ),
}
FILE = {"name": "december.csv", "mimeType": "text/csv", "buffer": b"No.;Login;E-Mail\n7;dora;dora@example.org\n"}


@pytest.fixture
def walk(
    chromium: Any, instance: Path, make_app: Callable[..., Flask], rosters: Rosters, clock: Clock
) -> Iterator[Walk]:
    """A list of Bob and a board of twelve, one of whom has left there; a run that needs approval on another list."""
    (instance / "portal.toml").write_text(SETTINGS)
    app = make_app()
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "bob", is_superuser=True, password_hash=hash_password(stage.PASSWORD, rounds=4))
        for name in BOARD:
            make_user(session, name, groups=("board",))
    addresses = [f"{name}@example.org" for name in BOARD]
    for handle in ("members", "tech"):
        rosters.set(handle, *addresses, "bob@example.org")
    context = chromium.new_context(**stage.VIEWS["wide"])
    with stage.serve(app) as url:
        found = Walk(app, context.new_page(), url, rosters, clock)
        assert found.shell("sync").exit_code == 0
        rosters.set("members", *(each for each in addresses if not each.startswith("board3")), "bob@example.org")
        assert found.shell("sync").exit_code == 0
        clock.advance(days=1)
        rosters.set("tech", "bob@example.org")
        assert found.shell("sync").exit_code == 77
        stage.log_in(found.page, url, "bob")
        yield found
        context.close()


def test_ten_questions_are_answered_in_four_clicks_each_as_the_page_for_superusers_says(walk: Walk) -> None:
    clicks = answers()
    assert set(clicks) == set(CASES)
    assert len(clicks) == 10
    for question, (before, expected) in CASES.items():
        assert len(clicks[question]) <= MOST, question
        walk.page.goto(f"{walk.url}/admin/")
        for number, words in enumerate(clicks[question]):
            before.get(number, lambda _page: None)(walk.page)
            name = re.compile(f"^{re.escape(words)}")
            # The search of a page is not the one in the menu.
            place = walk.page.get_by_role("main") if number else walk.page
            place.get_by_role("button", name=name).or_(place.get_by_role("link", name=name)).first.click()
            walk.page.wait_for_load_state()
            checks.check(walk.page)
        assert expected in " ".join(walk.page.locator("main").inner_text().split()), question
