"""Link, unlink and merge in the browser: a page says first what becomes of everything, then one button does it."""

from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.models import User
from portal.services.accounts import profiles, users
from portal.services.history import Actor
from portal.services.membership import linking
from portal.services.transaction import transaction
from tests.conftest import Clock
from tests.factories import NOW, make_preference, make_user
from tests.services.membership.conftest import SECRET
from tests.web.conftest import Page, Visitor

DORA = Actor(None, "dora")


def key_of(session: Session, username: str) -> str | None:
    found = session.scalar(select(User.member_key).where(User.username == username))
    session.rollback()
    return found


def test_an_account_is_linked_and_unlinked_and_its_page_says_so(
    bob: Visitor, session: Session, people: dict[str, int]
) -> None:
    page = f"/admin/users/{people['alice']}"
    assert "Nothing changes now." in bob.get(f"{page}/link").text
    assert "Alice is linked to member 1027." in bob.follow(f"{page}/link", {"key": " 1027 "}).text
    assert key_of(session, "alice") == "1027"
    assert "member 1027" in bob.get(page).text
    assert "The member key 1027 becomes free" in bob.get(f"{page}/unlink").text
    assert "Alice is no longer linked to member 1027." in bob.follow(f"{page}/unlink", {}).text
    assert key_of(session, "alice") is None
    assert "The account is not linked to a member." in bob.get(f"{page}/unlink").text


@pytest.mark.parametrize(
    ("key", "status", "words"),
    [
        ("", 422, "Enter a member key."),
        ("7", 409, "Charlie already has the key 7"),
        ("a\x00b", 422, "cannot be typed"),
        ("k" * 255, 422, "254"),
    ],
)
def test_a_key_that_cannot_be_is_refused_beside_its_field(
    bob: Visitor, session: Session, people: dict[str, int], key: str, status: int, words: str
) -> None:
    linking.link(session, "charlie", "7", secret=SECRET)
    page = bob.post(f"/admin/users/{people['alice']}/link", {"key": key}, status=status)
    assert isinstance(page, Page)
    assert words in page.text
    assert key_of(session, "alice") is None


@pytest.mark.parametrize("act", ["link", "unlink"])
def test_an_account_that_was_changed_since_is_shown_again(
    bob: Visitor, session: Session, people: dict[str, int], act: str
) -> None:
    linking.link(session, "alice", "1", secret=SECRET)
    path = f"/admin/users/{people['alice']}/{act}"
    page = bob.get(path)
    users.set_groups(session, "alice", groups=["choir"], now=NOW, lists=None, actor=DORA)
    form = {"csrf_token": page.token, "shown": page.value("shown"), "key": "1"}
    again = Page(bob.client.post(path, data=form))
    assert again.status == 409
    assert "nothing was done" in again.text
    assert "dora: groups changed" in again.text
    altered = Page(bob.client.post(path, data={**form, "shown": "altered"}))
    assert altered.status == 400


def test_a_merge_into_ones_own_account_gives_the_own_log_in_another_token(
    bob: Visitor, open_visitor: Callable[[], Visitor], old: str
) -> None:
    thief = open_visitor()
    thief.client.set_cookie("portal", bob.cookie())
    assert "alice.old has been merged into bob." in confirm(bob, old, review(bob, old, into="bob")).text
    assert thief.client.get("/account").status_code == 302


@pytest.mark.parametrize("act", ["link", "unlink", "merge"])
def test_they_need_a_password_that_was_typed_a_short_time_ago(
    bob: Visitor, session: Session, people: dict[str, int], clock: Clock, act: str
) -> None:
    linking.link(session, "alice", "1", secret=SECRET)
    path = f"/admin/users/{people['alice']}/{act}"
    page = review(bob, path, into="bob") if act == "merge" else bob.get(path)
    clock.advance(minutes=20)
    fields = {"shown": page.value("shown"), "key": "1", "into": "bob"}
    asked = Page(bob.client.post(path, data={"csrf_token": page.token, **fields}))
    assert (asked.status, asked.title.startswith("Confirm your password")) == (403, True)


# Merges.


@pytest.fixture
def old(session: Session, people: dict[str, int]) -> str:
    """The page that merges alice.old, who is on two lists, into another account."""
    number = make_user(session, "alice.old", "old@example.org", groups=("board",))
    make_preference(session, "members", "alice@example.org", True, seen=True)
    make_preference(session, "members", "old@example.org", True, seen=True, source="init")
    make_preference(session, "tech", "old@example.org", True, seen=True)
    return f"/admin/users/{number}/merge"


def review(visitor: Visitor, path: str, status: int = 200, **fields: str) -> Page:
    """Say into which account, on the page of the merge, and look at what becomes of everything."""
    token = visitor.get(path).token
    page = Page(visitor.client.post(f"{path}/review", data={"csrf_token": token, **fields}))
    assert page.status == status
    return page


def confirm(visitor: Visitor, path: str, page: Page, **changed: str) -> Page:
    """Press the button of a page that says what becomes of everything."""
    fields = {name: page.value(name) for name in ("shown", "into", "keep_key")}
    return Page(visitor.client.post(path, data={"csrf_token": page.token, **fields, **changed}, follow_redirects=True))


def test_two_accounts_are_merged_after_a_page_that_says_what_becomes_of_everything(
    bob: Visitor, session: Session, people: dict[str, int], old: str
) -> None:
    assert "Merge Alice.Old (alice.old) into another account" in bob.get(old).text
    page = review(bob, old, into="Alice")
    for words in (
        "Merge Alice.Old (alice.old) into Alice (alice)?",
        "The account alice.old (Alice.Old) will be deleted. This cannot be undone.",
        "alice gets the addresses old@example.org.",
        "alice gets the groups board.",
        "Members : old@example.org is taken off, because a list sends to only one address of a person.",
    ):
        assert words in page.text, words
    assert profiles.by_username(session, "alice.old").groups == ("board",), "nothing is done yet"
    assert "alice.old has been merged into alice." in confirm(bob, old, page).text
    assert profiles.by_username(session, "alice").addresses == ("alice@example.org", "old@example.org")
    assert session.scalar(select(User.id).where(User.username == "alice.old")) is None


def test_which_of_two_member_keys_stays_is_asked(
    bob: Visitor, session: Session, people: dict[str, int], old: str
) -> None:
    linking.link(session, "alice", "1", secret=SECRET)
    linking.link(session, "alice.old", "2", secret=SECRET)
    asked = review(bob, old, 422, into="alice")
    assert "Both accounts have a member key. Choose the one to keep." in asked.text
    assert [each["value"] for _, each in asked.tags if each.get("type") == "radio"] == ["2", "1"]
    page = review(bob, old, into="alice", keep_key="2")
    assert "alice is linked to member 2. The member key 1 is treated as that of a deleted account" in page.text
    confirm(bob, old, page)
    assert key_of(session, "alice") == "2"


@pytest.mark.parametrize(
    ("into", "status", "words"),
    [
        ("alice.old", 422, "cannot be merged with itself"),
        ("nobody", 404, "No user is called nobody."),
        ("\0", 422, "cannot be typed"),
        ("", 422, "Enter the username of the other account."),
    ],
)
def test_what_cannot_be_merged_is_said_beside_the_field(
    bob: Visitor, old: str, into: str, status: int, words: str
) -> None:
    page = review(bob, old, status, into=into)
    assert words.lower() in page.text.lower()
    assert page.title.startswith("Error:")


def test_a_superuser_who_is_merged_away_leaves_no_superuser(
    bob: Visitor, session: Session, people: dict[str, int], old: str
) -> None:
    users.grant(session, "alice.old")
    assert "alice.old is a superuser. alice does not become one." in review(bob, old, into="alice").text
    page = review(bob, f"/admin/users/{people['bob']}/merge", into="alice")
    assert "bob is a superuser." in page.text


def test_accounts_that_were_changed_since_are_shown_again_and_not_merged(
    bob: Visitor, session: Session, people: dict[str, int], old: str
) -> None:
    page = review(bob, old, into="alice")
    users.set_groups(session, "alice.old", groups=["new"], now=NOW, lists=None)
    for signed, status in ((page.value("shown"), 409), ("altered", 400)):
        again = confirm(bob, old, page, shown=signed)
        assert again.status == status
        assert "nothing was done" in again.text
        assert "alice gets the groups new." in again.text
    assert profiles.by_username(session, "alice.old").groups == ("new",)


def test_a_page_that_is_only_asked_for_takes_no_lock(bob: Visitor, session: Session, old: str) -> None:
    with transaction(session):  # somebody else is writing
        assert bob.get(old).status == 200
        for act in ("link", "unlink"):
            assert bob.get(old.replace("merge", act)).status == 200


def test_none_of_these_pages_is_for_members(alice: Visitor, people: dict[str, int]) -> None:
    for act in ("link", "unlink", "merge"):
        path = f"/admin/users/{people['bob']}/{act}"
        alice.get(path, status=403)
        assert alice.client.post(path, data={"csrf_token": alice.get("/account").token}).status_code == 403


def test_an_account_that_is_not_there_is_not_found(bob: Visitor) -> None:
    for act in ("link", "unlink", "merge"):
        bob.get(f"/admin/users/9999/{act}", status=404)
