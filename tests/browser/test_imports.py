"""A month's file of members in a browser: six clicks, and each page as good as any other."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.services.accounts import profiles
from portal.services.accounts.passwords import hash_password
from tests.browser import stage
from tests.browser.checks import check
from tests.browser.test_walks import Walk
from tests.conftest import Clock, Rosters
from tests.factories import make_user

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SETTINGS = """
bcrypt_rounds = 4

[membership]
file = "members.csv"
leavers = "deactivate"

[membership.columns]
key = "No."
username = "Login"
email = "E-Mail"
name = "{First} {Last}"
groups = "Status"
"""
HEADER = "No.;Login;First;Last;E-Mail;Status\n"
NOVEMBER = HEADER + "".join(
    f"{number};m{number};Member;No {number};m{number}@example.org;\n" for number in range(1, 41)
)
DECEMBER = (  # m1 moves, m2 marries, m3 joins a group, m4 and m5 have left, two are new, one line cannot be read
    HEADER + "1;m1;Member;No 1;m1@new.example.org;\n2;m2;Member;Married 2;m2@example.org;\n"
    "3;m3;Member;No 3;m3@example.org;board\n"
    + "".join(f"{number};m{number};Member;No {number};m{number}@example.org;\n" for number in range(6, 41))
    + "41;dora;Dora;D;dora@example.org;board\n42;erin;Erin;E;erin@example.org;\n43;frank;Frank;F;frank@@example.org;\n"
)


@pytest.fixture
def walk(
    chromium: Any, instance: Path, make_app: Callable[..., Flask], rosters: Rosters, clock: Clock
) -> Iterator[Walk]:
    """A portal that has imported November, in which Bob is a superuser."""
    (instance / "portal.toml").write_text(SETTINGS)
    (instance / "members.csv").write_text(NOVEMBER)
    app = make_app()
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "bob", is_superuser=True, password_hash=hash_password(stage.PASSWORD, rounds=4))
    assert app.test_cli_runner().invoke(args=["user", "import"]).exit_code == 0
    rosters.set("members", *(f"m{number}@example.org" for number in range(1, 41)))
    context = chromium.new_context(**stage.VIEWS["wide"])
    with stage.serve(app) as url:
        found = Walk(app, context.new_page(), url, rosters, clock)
        assert found.shell("sync").exit_code == 0
        yield found
        context.close()


class Clicks:
    """Somebody at the browser who counts."""

    def __init__(self, walk: Walk) -> None:
        self.walk, self.count = walk, 0

    def press(self, words: str) -> None:
        self.count += 1
        self.walk.press(words)

    def choose(self, path: Path) -> None:
        self.count += 1
        self.walk.page.set_input_files("#file", path)


def test_a_months_file_takes_six_clicks_and_the_next_sync_does_the_rest(walk: Walk, tmp_path: Path) -> None:
    file = tmp_path / "december.csv"
    file.write_text(DECEMBER)
    walk.log_in("bob")
    walk.clock.advance(hours=1)  # so that the password is asked for again
    clicks = Clicks(walk)

    clicks.press("People")
    clicks.press("Import")
    clicks.choose(file)
    clicks.press("Review the import")
    for words in (
        "1 person cannot be imported",
        "Column 'E-Mail': not an e-mail address: frank@@example.org",
        "m1@new.example.org",
    ):
        walk.sees(words)
    walk.sees("2 people who are no longer in the file will be deactivated.")
    walk.sees("2 of their addresses will be taken off Members.")
    clicks.press("Import 7 changes")
    walk.page.fill("#own_password", stage.PASSWORD)
    clicks.press("Confirm and continue")
    walk.sees("7 people were imported.")
    assert clicks.count == 6

    assert walk.shell("sync").exit_code == 0
    expected = {f"m{number}@example.org" for number in range(2, 41) if number not in {4, 5}}
    assert walk.rosters.get("members") == expected | {"m1@new.example.org"}

    # Next month m4 is back, with everything as it was.
    file.write_text(DECEMBER.replace("43;frank;Frank;F;frank@@example.org;", "4;m4;Member;No 4;m4@example.org;"))
    walk.open("/admin/users/imports")
    walk.page.set_input_files("#file", file)
    walk.press("Review the import")
    walk.press("Import 1 change")
    assert walk.shell("sync").exit_code == 0
    assert "m4@example.org" in walk.rosters.get("members")
    with walk.app.app_context(), Session(db.engine) as session:
        assert profiles.by_username(session, "m4").is_active


def test_every_page_of_an_import_can_be_used_by_everybody(walk: Walk, tmp_path: Path, chromium: Any) -> None:
    file = tmp_path / "december.csv"
    file.write_text(
        DECEMBER.replace("\n6;", "\n6;").replace("m9@example.org", f"{'m' * 60}@{'x' * 63}.{'y' * 63}.example.org")
    )
    for view in stage.VIEWS:
        context = chromium.new_context(**stage.VIEWS[view])
        page = context.new_page()
        stage.log_in(page, walk.url, "bob")
        page.goto(f"{walk.url}/admin/users/imports")
        check(page)
        page.click("main button.primary")  # no file is chosen
        page.set_input_files("#file", file)
        page.click("main button.primary")
        page.wait_for_url("**/imports/*")
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
        check(page)
        page.goto(f"{page.url}?kind=problem&q=frank")
        check(page)
        page.goto(f"{walk.url}/admin/users/imports")
        check(page)
        context.close()
