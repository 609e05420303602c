"""Many lists in sections in a browser: hidden, locked, joined by new members, applied at once; wide, narrow and dark."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import update
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.models import Run, User
from portal.services.accounts.passwords import hash_password
from tests.browser import stage
from tests.browser.checks import check
from tests.conftest import Clock
from tests.factories import make_preference, make_user

pytestmark = [pytest.mark.browser, pytest.mark.slow]

KINDS = {
    "welcome": 'new_members = "subscribed"\napply = "at once"',
    "official": 'can_leave = false\nsettings_url = "https://lists.example.org/options/{address}"',
    "crew": "listed = false",
    "secret": "listed = false",
    **{f"north{number}": 'section = "Regions in the north"' for number in range(10)},
    **{f"topic{number}": f'section = "{"Topics " * 15}"' for number in range(8)},
}


@pytest.fixture
def url(instance: Path, make_app: Callable[..., Flask], clock: Clock) -> Iterator[str]:
    """A portal with lists of every kind, which Alice has just joined."""
    tables = (
        f'[lists.{handle}]\nname = "{handle.title()}"\nemail = "{handle}@lists.example.org"\n{more}\n'
        for handle, more in KINDS.items()
    )
    managers = '[managers.files]\nkind = "file"\ndirectory = "rosters"\n'
    (instance / "mailinglists.toml").write_text(f"enabled = true\n{''.join(tables)}{managers}")
    (instance / "rosters").mkdir()
    for handle in KINDS:
        (instance / "rosters" / f"{handle}.txt").touch()
    app = make_app()
    with app.app_context(), Session(db.engine) as session:
        for name, is_superuser in (("alice", False), ("bob", True)):
            password_hash = hash_password(stage.PASSWORD, rounds=4)
            make_user(session, name, is_superuser=is_superuser, password_hash=password_hash)
        for handle in ("official", "crew"):
            make_preference(session, handle, "alice@example.org", True, seen=True)
        make_preference(session, "official", "bob@example.org", False, seen=False, source="list", changed_at=clock())
        at = clock() - timedelta(hours=1)
        values = {"kind": "sync", "asked_by": "a change", "state": "done", "asked_at": at, "started_at": at}
        session.add(Run(list_handle="welcome", finished_at=at + timedelta(seconds=40), **values))
        session.execute(update(User).where(User.username == "alice").values(created_at=clock()))
        session.commit()
    with stage.serve(app) as found:
        yield found
    assert (instance / "rosters" / "welcome.txt").read_text() == ""


@pytest.mark.parametrize("view", ["wide", "narrow", "dark"])
def test_every_kind_of_list_can_be_used_by_everybody(open_page: Callable[..., Any], url: str, view: str) -> None:
    page = open_page(view, "alice")
    check(page)
    assert page.locator("h2", has_text="Regions in the north").is_visible()
    assert page.locator("text=Secret").count() == 0
    assert page.is_checked("#list-welcome")  # she is new
    assert page.is_checked("#list-crew")
    assert page.locator("#list-official").is_disabled()
    page.locator("summary", has_text="Why is it locked?").focus()  # by keyboard, as the box itself cannot be
    page.keyboard.press("Enter")
    page.wait_for_selector("text=decided that members stay on this list")
    assert page.get_attribute("text=your settings at the list", "href").endswith("/options/alice%40example.org")
    check(page)
    page.fill("#q", "north1")
    page.click("text=Filter")
    page.wait_for_url("**?q=north1")
    assert page.locator("main [type=checkbox]").count() == 1
    page.check("#list-north1")
    page.click("main button.primary")
    page.wait_for_selector("text=You will be added to North1.")
    check(page)
    page.click("text=Clear")
    page.uncheck("#list-welcome")
    page.uncheck("#list-crew")
    page.click("main button.primary")
    page.wait_for_selector("text=You will be taken off Welcome and Crew.")
    check(page)


def test_superusers_see_who_left_and_which_lists_are_hidden(open_page: Callable[..., Any], url: str) -> None:
    page = open_page("narrow", "bob")
    page.goto(f"{url}/admin/")
    page.wait_for_selector("text=left a list that members cannot leave here")
    check(page)
    page.click("text=See the addresses that left")
    page.wait_for_selector("text=members cannot leave it here")
    check(page)
