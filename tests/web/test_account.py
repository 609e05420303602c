"""A member's own account."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.models import History, LoginSession
from portal.services.sync.list_passwords import derive
from tests.conftest import Clock
from tests.factories import NOW, make_address, make_user
from tests.web.conftest import HASH, PASSWORD, Client, Page, Visitor


def test_too_many_tries_of_the_current_password_keep_the_form(alice: Visitor) -> None:
    form = {"current": "wrong horse battery", "new": "three quiet green boats", "again": "three quiet green boats"}
    for _ in range(5):
        alice.post("/account", form, status=422)
    page = alice.post("/account", form, status=429)
    assert int(page.response.headers["Retry-After"]) > 0
    assert 'id="current-error1"' in page.html


def test_the_account_page_says_which_addresses_are_held_and_shared(
    visitor: Visitor, people: dict[str, int], session: Session
) -> None:
    make_user(session, "dora", "dora@example.org", "alice@example.org", groups=("full",), password_hash=HASH)
    visitor.log_in("dora")
    text = visitor.get("/account").text
    assert "dora@example.org Main address" in text
    assert "alice@example.org Shared" in text
    assert "full" in text


def test_a_member_changes_the_password(alice: Visitor, open_visitor: Callable[[], Visitor]) -> None:
    elsewhere = open_visitor()
    elsewhere.log_in("alice")
    new = "three quiet green boats"
    page = alice.follow("/account", {"current": PASSWORD, "new": new, "again": new})
    assert "Your password has been changed." in page.text
    assert elsewhere.client.get("/account").status_code == 302
    elsewhere.log_in("alice", new)


def test_a_new_password_gives_the_own_log_in_another_token(alice: Visitor, open_visitor: Callable[[], Visitor]) -> None:
    thief = open_visitor()
    thief.client.set_cookie("portal", alice.cookie())
    assert thief.client.get("/account").status_code == 200
    alice.follow(
        "/account", {"current": PASSWORD, "new": "three quiet green boats", "again": "three quiet green boats"}
    )
    assert thief.client.get("/account").status_code == 302
    alice.get("/account")


@pytest.mark.parametrize(
    ("current", "new", "again", "words"),
    [
        ("not my password", "three quiet green boats", "three quiet green boats", "This is not your current password."),
        (PASSWORD, "short", "short", "at least 12 characters"),
        (PASSWORD, "three quiet green boats", "three quiet red boats", "are not the same"),
        ("", "", "", "Enter your current password."),
    ],
)
def test_a_password_that_is_not_accepted_says_why(
    alice: Visitor, current: str, new: str, again: str, words: str
) -> None:
    page = alice.post("/account", {"current": current, "new": new, "again": again}, status=422)
    assert page.title.startswith("Error: ")
    assert words in page.text


def test_an_account_without_an_address_is_told_so(app: Flask, visitor: Visitor, session: Session) -> None:
    from portal.models import UserAddress

    make_user(session, "dora", password_hash=HASH)
    session.query(UserAddress).delete()
    session.commit()
    visitor.log_in("dora")
    assert "You have no e-mail address yet" in visitor.get("/account").text
    assert "Your account has no e-mail address" in visitor.get("/subscriptions").text


# --- list passwords


@pytest.fixture
def passwords(instance: Path) -> None:
    """Tech takes list passwords."""
    path = instance / "mailinglists.toml"
    head, tech, tail = path.read_text().partition("[lists.tech]")
    path.write_text(head + tech + tail.replace("syncpws = false", "syncpws = true", 1))


@pytest.fixture
def key(app: Flask) -> bytes:
    found: bytes = app.extensions["portal"].list_password_key()
    return found


def test_a_list_password_is_in_the_page_only_when_it_was_asked_for(passwords: None, alice: Visitor, key: bytes) -> None:
    own = derive(key, "alice@example.org", 0)
    page = alice.get("/account")
    assert "On Tech, every subscriber has a password" in page.text
    assert own not in page.html
    answer = alice.post("/account/list-password", {"address": page.value("address")}, page="/account", status=200)
    assert isinstance(answer, Page)
    assert f"alice@example.org {own} Replace" in answer.text
    assert answer.response.headers["Cache-Control"] == "no-store"
    assert answer.title.startswith("Your account")
    assert own not in alice.get("/account").html


def test_a_list_password_is_replaced_and_shown_when_asked_for(passwords: None, alice: Visitor, key: bytes) -> None:
    form = {"address": alice.get("/account").value("address")}
    page = alice.follow("/account/list-password/replace", form, page="/account")
    assert "The list password has been replaced." in page.text
    assert derive(key, "alice@example.org", 1) not in page.html
    answer = alice.post("/account/list-password", form, page="/account", status=200)
    assert isinstance(answer, Page)
    assert derive(key, "alice@example.org", 1) in answer.text


def test_a_shared_mailbox_has_one_list_password_for_all_its_holders_and_the_page_says_so(
    passwords: None, visitor: Visitor, people: dict[str, int], session: Session, key: bytes
) -> None:
    make_user(session, "dora", "dora@example.org", "alice@example.org", password_hash=HASH)
    shared = str(make_address(session, "alice@example.org"))
    session.rollback()
    visitor.log_in("dora")
    assert "Everyone who shares an address sees the same password and can replace it." in visitor.get("/account").text
    answer = visitor.post("/account/list-password", {"address": shared}, page="/account", status=200)
    assert isinstance(answer, Page)
    assert derive(key, "alice@example.org", 0) in answer.text
    assert derive(key, "dora@example.org", 0) not in answer.text


@pytest.mark.parametrize("path", ["/account/list-password", "/account/list-password/replace"])
@pytest.mark.parametrize(("address", "status"), [("", 400), ("x", 400), ("0", 400), ("99999999999", 400), ("2", 422)])
def test_an_address_that_is_not_ones_own_has_no_list_password(
    passwords: None, alice: Visitor, path: str, address: str, status: int
) -> None:
    alice.post(path, {"address": address}, page="/account", status=status)


@pytest.mark.parametrize(
    "change",
    [
        ("syncpws = true", "syncpws = false"),
        ("enabled = true", "enabled = false"),
        ("enabled = true", "enabled = true\nsurprise = 1"),
        ("syncpws = true", 'syncpws = true\naudience = ["board"]'),
    ],
)
def test_where_no_list_that_one_may_see_takes_passwords_there_are_none(
    instance: Path, passwords: None, alice: Visitor, change: tuple[str, str], make_app: Callable[..., Flask]
) -> None:
    path = instance / "mailinglists.toml"
    path.write_text(path.read_text().replace(*change))
    app = make_app()
    app.test_client_class = Client
    there = Visitor(app.test_client())
    there.log_in("alice")
    page = there.get("/account")
    assert "list password" not in page.text.lower()
    assert "Tech" not in page.text
    there.post("/account/list-password", {"address": "1"}, page="/account", status=400)


# --- log-ins


def test_the_log_ins_are_listed_and_this_one_is_marked(
    alice: Visitor, open_visitor: Callable[[], Visitor], clock: Clock
) -> None:
    clock.advance(hours=1)
    elsewhere = open_visitor()
    elsewhere.log_in("alice")
    clock.advance(minutes=30)
    page = alice.get("/account")
    assert "Other on Other This browser Since 22 Nov, 06:00 , last used 22 Nov, 07:30 , from 127.0.0.1" in page.text
    assert "Since 22 Nov, 07:00 , last used 22 Nov, 07:00 , from 127.0.0.1 End the log-in of 22 Nov, 07:00" in page.text
    assert "Log out everywhere else" in page.text


def test_one_log_in_is_ended(alice: Visitor, open_visitor: Callable[[], Visitor]) -> None:
    elsewhere = open_visitor()
    elsewhere.log_in("alice")
    third = open_visitor()
    third.log_in("alice")
    log_in = third.get("/account").value("log_in")
    page = third.follow("/account/log-ins/end", {"log_in": log_in}, page="/account")
    assert "That log-in has been ended." in page.text
    ended = [each.client.get("/account").status_code == 302 for each in (alice, elsewhere)]
    assert sorted(ended) == [False, True]


def test_all_other_log_ins_are_ended(alice: Visitor, bob: Visitor, open_visitor: Callable[[], Visitor]) -> None:
    elsewhere = open_visitor()
    elsewhere.log_in("alice")
    page = alice.follow("/account/log-ins/end-others", {}, page="/account")
    assert "You are not logged in anywhere else." in page.text
    assert elsewhere.client.get("/account").status_code == 302
    bob.get("/account")


@pytest.mark.parametrize(("log_in", "status"), [("", 400), ("x", 400), ("-1", 400)])
def test_what_is_no_log_in_cannot_be_ended(alice: Visitor, log_in: str, status: int) -> None:
    alice.post("/account/log-ins/end", {"log_in": log_in}, page="/account", status=status)


def test_nobody_ends_the_log_in_of_somebody_else(alice: Visitor, bob: Visitor, session: Session) -> None:
    bobs = session.scalars(select(LoginSession.id).order_by(LoginSession.id.desc())).first()
    session.rollback()
    alice.follow("/account/log-ins/end", {"log_in": str(bobs)}, page="/account")
    bob.get("/account")


def test_a_log_in_that_has_ended_by_itself_is_not_listed(
    alice: Visitor, open_visitor: Callable[[], Visitor], clock: Clock
) -> None:
    elsewhere = open_visitor()
    elsewhere.log_in("alice")
    clock.advance(hours=7)
    alice.get("/account")
    clock.advance(hours=7)
    assert "You are not logged in anywhere else." in alice.get("/account").text


# --- history


def remember(session: Session, *rows: dict[str, object]) -> None:
    for number, row in enumerate(rows):
        values = {"at": NOW + timedelta(hours=number), "list_handle": "members", "subscribed": True, **row}
        address = str(values.setdefault("address", "alice@example.org"))
        session.add(History(address_id=make_address(session, address), **values))
    session.commit()


def test_the_history_says_in_words_what_happened_and_names_nobody_else(
    alice: Visitor, people: dict[str, int], session: Session
) -> None:
    own, other = people["alice"], people["bob"]
    remember(
        session,
        {"source": "init", "subscribed": False},
        {"source": "user", "actor_id": own, "actor": "alice"},
        {"source": "user", "actor_id": other, "actor": "bob", "list_handle": "tech"},
        {"source": "superuser", "actor_id": other, "actor": "bob", "reason": "a word in private", "subscribed": False},
        {"source": "list"},
        {"source": "list", "subscribed": False},
        {"source": "rule", "actor_id": other, "actor": "bob"},
        {"source": "import"},
        {"source": "user", "actor_id": other, "actor": "bob", "address": "bob@example.org", "list_handle": "tech"},
        {"source": "list", "list_handle": "board"},
        {"source": "list", "list_handle": "gone"},
    )
    text = alice.get("/account/history").text
    wanted = [
        "Members was ticked in an earlier system. 1 Nov, 19:00",
        "Members was ticked because an address was changed. 1 Nov, 18:00",
        "You left Members at the list itself. 1 Nov, 17:00",
        "You joined Members at the list itself. 1 Nov, 16:00",
        "An administrator of this portal unticked Members for you. 1 Nov, 15:00",
        "Someone else who uses this address ticked Tech. 1 Nov, 14:00",
        "You ticked Members. 1 Nov, 13:00",
        "You were not on Members when this portal first read the list. 1 Nov, 12:00",
    ]
    assert " ".join(wanted) in text
    for hidden in ("bob", "private", "Board", "board", "gone", "20:00"):
        assert hidden not in text


def test_what_a_superuser_did_to_their_own_address_they_did_themselves(
    bob: Visitor, people: dict[str, int], session: Session
) -> None:
    remember(session, {"source": "superuser", "actor_id": people["bob"], "address": "bob@example.org"})
    assert "You ticked Members." in bob.get("/account/history").text


def test_with_several_addresses_the_history_says_which(visitor: Visitor, session: Session) -> None:
    dora = make_user(session, "dora", "dora@example.org", "Dora@home.example", password_hash=HASH)
    remember(session, {"source": "user", "actor_id": dora, "address": "dora@home.example"})
    visitor.log_in("dora")
    assert "You ticked Members (Dora@home.example)." in visitor.get("/account/history").text


def test_a_long_history_has_pages(alice: Visitor, people: dict[str, int], session: Session) -> None:
    remember(session, *({"source": "list", "subscribed": number % 2 == 0} for number in range(51)))
    first = alice.get("/account/history")
    assert first.text.count("Members at the list itself") == 50
    assert "1 to 50 of 51" in first.text
    older = alice.get("/account/history?page=2")
    assert older.text.count("Members at the list itself") == 1
    assert "51 to 51 of 51" in older.text
    assert "There is no such page." in alice.get("/account/history?page=3").text
    alice.get("/account/history?page=x", status=404)


def test_an_empty_history_says_what_will_stand_there(alice: Visitor) -> None:
    assert "There is nothing here yet." in alice.get("/account/history").text
