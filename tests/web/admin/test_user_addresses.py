"""The addresses of an account in the browser: given, taken away, the main one among them, and where lists are sent."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.models import Address, Preference
from portal.services.accounts import profiles, users
from tests.factories import NOW, make_preference, make_user
from tests.web.conftest import Page, Visitor

MAIN, HOME = "dora@example.org", "home@example.org"


@pytest.fixture
def dora(session: Session) -> int:
    """Dora has two addresses; Members goes to the second one."""
    user_id = make_user(session, "dora", MAIN, HOME)
    make_preference(session, "members", HOME, subscribed=True, seen=True)
    return user_id


def held(session: Session, user_id: int) -> tuple[str, ...]:
    return profiles.by_id(session, user_id).addresses


def sent_to(session: Session, handle: str = "members") -> set[str]:
    """The addresses that a list sends to."""
    session.rollback()
    subscribed = select(Address.canonical).join(Preference, Preference.address_id == Address.id)
    return set(session.scalars(subscribed.where(Preference.subscribed, Preference.list_handle == handle)))


def path(session: Session, user_id: int, address: str, act: str) -> str:
    address_id = session.scalar(select(Address.id).where(Address.canonical == address))
    session.rollback()
    return f"/admin/users/{user_id}/addresses/{address_id}/{act}"


def test_a_further_address_is_added(bob: Visitor, session: Session, dora: int) -> None:
    page = bob.follow(f"/admin/users/{dora}/addresses/new", {"email": "Dora@club.example.org"})
    assert "Dora has the address Dora@club.example.org too." in page.text
    assert held(session, dora) == (MAIN, "Dora@club.example.org", HOME)
    page = bob.follow(f"/admin/users/{dora}/addresses/new", {"email": "dora@club.example.org"})
    assert "Dora has the address dora@club.example.org already." in page.text


def test_an_address_that_another_account_uses_is_added_after_a_question_that_names_it(
    bob: Visitor, session: Session, dora: int
) -> None:
    make_user(session, "erin")
    page = bob.post(f"/admin/users/{dora}/addresses/new", {"email": "erin@example.org"}, status=409)
    assert isinstance(page, Page)
    assert "erin@example.org is used by erin." in page.text
    assert "Share the mailbox: it stays on its current lists, for everyone who uses it" in page.text
    assert held(session, dora) == (MAIN, HOME)
    page = bob.follow(f"/admin/users/{dora}/addresses/new", {"email": "erin@example.org", "shared": "y"})
    assert "also held by erin" in page.text
    assert held(session, dora) == (MAIN, "erin@example.org", HOME)


def test_what_is_no_address_is_not_added(bob: Visitor, session: Session, dora: int) -> None:
    page = bob.post(f"/admin/users/{dora}/addresses/new", {"email": "nobody"}, status=422)
    assert isinstance(page, Page)
    assert "Not an e-mail address" in page.text
    assert held(session, dora) == (MAIN, HOME)


def test_another_main_address_leaves_the_lists_which_one_button_sends_there(
    bob: Visitor, session: Session, dora: int
) -> None:
    make_preference(session, "tech", MAIN, subscribed=True, seen=True)
    where = path(session, dora, HOME, "main")
    assert "The current lists will be sent to the same addresses as before." in bob.get(where).text
    page = bob.follow(where, {})
    assert f"{HOME} is the main address now." in page.text
    assert held(session, dora) == (HOME, MAIN)
    assert (sent_to(session, "members"), sent_to(session, "tech")) == ({HOME}, {MAIN})
    assert f"Send all lists to {HOME}" in page.text
    page = bob.follow(
        f"/admin/users/{dora}/addresses/send-to-main", {"shown": shown(page)}, page=f"/admin/users/{dora}"
    )
    assert "1 list will be changed." in page.text
    assert sent_to(session, "tech") == {HOME}
    assert "Send all lists" not in page.text


def shown(page: Page) -> str:
    """What the form carries that sends all lists to the main address."""
    return page.hidden(next(action for action, _ in page.forms if action and "send-to-main" in action))["shown"]


def test_a_removed_address_sends_its_lists_to_the_main_one(bob: Visitor, session: Session, dora: int) -> None:
    where = path(session, dora, HOME, "remove")
    page = bob.get(where)
    assert f"Its choices move to {MAIN}." in page.text
    assert f"These lists will be sent to {MAIN}: Members." in page.text
    page = bob.follow(where, {})
    assert f"{HOME} has been removed." in page.text
    assert held(session, dora) == (MAIN,)
    assert sent_to(session) == {HOME, MAIN}, "the old one goes at the next run, after the new one"
    bob.get(where, 404)


def test_the_main_address_stays(bob: Visitor, session: Session, dora: int) -> None:
    page = bob.follow(path(session, dora, MAIN, "remove"), {})
    assert "make another address the main one first" in page.text
    assert held(session, dora) == (MAIN, HOME)


@pytest.mark.parametrize("act", ["main", "remove"])
def test_what_somebody_else_changed_meanwhile_is_shown_and_nothing_is_done(
    bob: Visitor, session: Session, dora: int, act: str
) -> None:
    where = path(session, dora, HOME, act)
    old = bob.get(where).value("shown")
    users.set_groups(session, "dora", groups=["choir"], now=NOW, lists=None)
    page = bob.post(where, {"shown": old}, status=409)
    assert isinstance(page, Page)
    assert "nothing was done" in page.text
    assert "choir" in page.text
    page = bob.follow(f"/admin/users/{dora}/addresses/send-to-main", {"shown": old}, page=f"/admin/users/{dora}")
    assert "This page was out of date, so nothing was done." in page.text
    assert (held(session, dora), sent_to(session)) == ((MAIN, HOME), {HOME})


def test_nothing_is_sent_anywhere_else_for_somebody_who_is_deactivated(
    bob: Visitor, session: Session, dora: int
) -> None:
    page = bob.get(f"/admin/users/{dora}")
    users.deactivate(session, "dora", now=profiles.by_id(session, dora).created_at)
    form = {"shown": shown(page)}
    bob.follow(f"/admin/users/{dora}/addresses/send-to-main", form, page=f"/admin/users/{dora}")
    page = bob.get(f"/admin/users/{dora}")
    page = bob.follow(
        f"/admin/users/{dora}/addresses/send-to-main", {"shown": shown(page)}, page=f"/admin/users/{dora}"
    )
    assert "activate the account first" in page.text
    assert sent_to(session) == {HOME}
