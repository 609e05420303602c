"""What a list knows, where it is read: on the page of the list, of the person, and of the member."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.models import MemberDelivery
from tests.conftest import Clock, Rosters
from tests.factories import make_address, make_preference
from tests.web.conftest import Visitor

ALICE = "alice@example.org"
PATH = "/admin/lists/members/without-account"


@pytest.fixture
def minutely(app: Flask) -> Callable[[], Any]:
    return lambda: app.test_cli_runner().invoke(args=["minutely"])


def test_who_has_no_account_is_asked_for_and_shown(bob: Visitor, rosters: Rosters, minutely: Callable[[], Any]) -> None:
    assert "The list has not been read in the last day." in bob.get(PATH).text
    rosters.set("members", ALICE, "stranger@example.net")
    page = bob.follow(PATH, {})
    assert page.response.headers["Refresh"] == "10"
    assert "Refresh" not in bob.get(f"{PATH}?refresh=no").response.headers
    assert minutely().exit_code == 0
    page = bob.get(PATH)
    assert "1 to 1 of 1 address" in page.text
    assert "stranger@example.net" in page.text
    rosters.set("members", ALICE, "bob@example.org")
    bob.post(PATH, {})
    minutely()
    assert "Everyone on the list has an account." in bob.get(PATH).text
    bob.get(f"{PATH}?page=0", 400)


def test_a_list_that_cannot_be_read_says_so(bob: Visitor, rosters: Rosters, minutely: Callable[[], Any]) -> None:
    (rosters.folder / "members.txt").unlink()
    bob.post(PATH, {})
    assert minutely().exit_code == 69
    assert "The list could not be read." in bob.get(PATH).text


@pytest.mark.parametrize(
    ("mail_off", "is_digest", "member", "desk"),
    [
        (
            "bounces",
            False,
            "it has not sent you any mail since 22 Nov, because too much mail to alice@example.org bounced",
            "Too many bounces since 22 Nov",
        ),
        (
            "chosen",
            False,
            "it does not send you any mail, because mail was switched off at the list",
            "Switched off at the list",
        ),
        (None, True, "You get Members as digests.", "Digests"),
    ],
)
def test_what_the_list_knows_is_told_the_member_and_the_help_desk(
    alice: Visitor,
    bob: Visitor,
    people: dict[str, int],
    session: Session,
    clock: Clock,
    mail_off: str | None,
    is_digest: bool,
    member: str,
    desk: str,
) -> None:
    make_preference(session, "members", ALICE, True, seen=True)
    values = {"mail_off": mail_off, "is_digest": is_digest, "since": clock() if mail_off else None, "read_at": clock()}
    session.add(MemberDelivery(list_handle="members", address_id=make_address(session, ALICE), **values))
    session.commit()
    assert member in " ".join(alice.get("/subscriptions").text.replace(" ,", ",").split())
    assert desk in bob.get(f"/admin/users/{people['alice']}").text
    assert "The list sends it" in bob.get(f"/admin/lists/members/why?q={ALICE}").text
    words = "Digests 1" if is_digest else "No mail: too many bounces 1" if mail_off == "bounces" else "switched off 1"
    assert words in bob.get("/admin/lists/members").text


def test_the_page_of_a_person_asks_the_lists(bob: Visitor, people: dict[str, int], session: Session) -> None:
    path = f"/admin/users/{people['bob']}"
    assert "there is nothing to ask" in bob.follow(f"{path}/ask-lists", {}, page=path).text
    make_preference(session, "members", "bob@example.org", True, seen=True)
    assert "The lists will be asked within a minute." in bob.follow(f"{path}/ask-lists", {}, page=path).text
