"""Logging in and out."""

import re
from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.models import LoginSession, Preference
from tests.conftest import Clock
from tests.factories import make_user
from tests.web.conftest import HASH, PASSWORD, Visitor


def test_a_member_logs_in_and_sees_the_lists(visitor: Visitor, people: dict[str, int]) -> None:
    page = visitor.follow("/login", {"username": "alice", "password": PASSWORD})
    assert page.title.startswith("Your mailing lists")
    assert "Log out" in page.text


def test_a_member_logs_in_with_an_address_that_only_they_hold(visitor: Visitor, people: dict[str, int]) -> None:
    visitor.log_in(" Alice@Example.org ")
    visitor.get("/subscriptions")


@pytest.mark.parametrize(
    ("username", "password"), [("nobody", PASSWORD), ("charlie", PASSWORD), ("alice", "wrong horse battery")]
)
def test_unknown_inactive_and_wrong_are_one_page(
    visitor: Visitor, people: dict[str, int], username: str, password: str
) -> None:
    page = visitor.post("/login", {"username": username, "password": password}, status=401)
    assert page.title.startswith("Error: Log in")
    assert "Username and password do not match." in page.text
    unnamed = page.html.replace(username, "NAME").replace(page.token, "TOKEN")
    other = visitor.post("/login", {"username": "dora", "password": "x"}, status=401)
    assert unnamed == other.html.replace("dora", "NAME").replace(other.token, "TOKEN")


def test_an_empty_form_says_what_is_missing(visitor: Visitor) -> None:
    page = visitor.post("/login", {"username": "", "password": ""}, status=422)
    assert "Enter your username or e-mail address." in page.text
    assert 'href="#password"' in page.html


def test_the_password_is_never_sent_back(visitor: Visitor, people: dict[str, int]) -> None:
    page = visitor.post("/login", {"username": "alice", "password": "canary-4711-canary"}, status=401)
    assert "canary-4711-canary" not in page.html


def test_too_many_tries_are_told_how_long_to_wait(visitor: Visitor, people: dict[str, int]) -> None:
    for _ in range(5):
        visitor.post("/login", {"username": "alice", "password": "wrong"}, status=401)
    page = visitor.post("/login", {"username": "alice", "password": PASSWORD}, status=429)
    assert page.response.headers["Retry-After"] == "60"
    assert page.title.startswith("Error: Log in")
    assert "wait 60 seconds" in page.text
    assert page.value("username") == "alice"


def test_whoever_is_logged_in_is_not_asked_again(alice: Visitor) -> None:
    assert alice.client.get("/login").headers["Location"] == "/subscriptions"


def test_logging_out_ends_the_session_in_the_database_too(alice: Visitor, session: Session) -> None:
    stolen = alice.cookie()
    page = alice.follow("/logout", {}, page="/account")
    assert "You have been logged out." in page.text
    assert session.execute(select(LoginSession)).all() == []
    alice.client.set_cookie("portal", stolen)
    assert alice.client.get("/subscriptions").status_code == 302


def test_logging_in_gives_a_new_token_and_drops_what_the_cookie_held(
    alice: Visitor, open_visitor: Callable[[], Visitor]
) -> None:
    with alice.client.session_transaction() as kept:
        first, kept["planted"] = kept["_user_id"], "by a stranger"
    alice.follow("/logout", {}, page="/account")
    alice.log_in("alice")
    with alice.client.session_transaction() as kept:
        assert kept["_user_id"] != first
        assert "planted" not in kept


def test_logging_in_again_in_a_planted_cookie_drops_its_csrf_token(visitor: Visitor, people: dict[str, int]) -> None:
    planted = visitor.get("/login").token
    visitor.client.post("/login", data={"csrf_token": planted, "username": "alice", "password": PASSWORD})
    assert visitor.client.post("/logout", data={"csrf_token": planted}).status_code == 400


def test_a_session_ends_after_twelve_hours_without_a_visit(alice: Visitor, clock: Clock) -> None:
    clock.advance(hours=11)
    alice.get("/account")
    clock.advance(hours=12)
    assert alice.client.get("/account").status_code == 302


@pytest.mark.parametrize(("path", "where"), [("/subscriptions", "/login?next=/subscriptions"), ("/logout", "/login")])
def test_a_post_after_the_log_in_has_ended_does_nothing_and_leads_to_no_page_that_takes_only_a_post(
    alice: Visitor, session: Session, clock: Clock, path: str, where: str
) -> None:
    page = alice.get("/subscriptions")
    form = {"csrf_token": page.token, "shown": page.value("shown"), "lists": "members"}
    clock.advance(hours=12)
    asked = alice.client.post(path, data=form)
    assert (asked.status_code, asked.headers["Location"]) == (302, where)
    assert session.scalars(select(Preference)).all() == []
    session.rollback()
    response = alice.post("/login", {"username": "alice", "password": PASSWORD})
    assert response.headers["Location"] == "/subscriptions"


def test_a_name_that_cannot_be_typed_is_refused_and_not_repeated(visitor: Visitor, people: dict[str, int]) -> None:
    form = {"csrf_token": visitor.get("/login").token, "username": "ali\x07ce", "password": PASSWORD}
    answer = visitor.client.post("/login", data=form)
    assert answer.status_code == 422
    assert "\x07" not in answer.text


@pytest.mark.parametrize("path", ["/subscriptions", "/account", "/admin/users/new"])
def test_what_another_site_posts_without_the_cookie_is_answered_with_none(visitor: Visitor, path: str) -> None:
    for theirs in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}, {"Origin": "null"}):
        answer = visitor.client.post(path, headers=theirs)
        assert (answer.status_code, answer.headers.get("Set-Cookie")) == (302, None)
    for ours in ({"Sec-Fetch-Site": "same-origin", "Origin": "null"}, {"Origin": "http://localhost"}, {}):
        assert visitor.client.post(path, headers=ours).headers["Set-Cookie"]
        visitor.client.delete_cookie("portal")


def test_a_member_stays_logged_in_for_thirty_days_if_they_ask(visitor: Visitor, people: dict[str, int]) -> None:
    data = {"csrf_token": visitor.get("/login").token, "username": "alice", "password": PASSWORD, "remember": "y"}
    assert "Expires=" in visitor.client.post("/login", data=data).headers["Set-Cookie"]


@pytest.mark.parametrize(("username", "remember"), [("alice", ""), ("bob", "y")])
def test_the_cookie_ends_with_the_browser_otherwise_and_for_superusers(
    visitor: Visitor, people: dict[str, int], username: str, remember: str
) -> None:
    data = {"csrf_token": visitor.get("/login").token, "username": username, "password": PASSWORD}
    response = visitor.client.post("/login", data=data | ({"remember": remember} if remember else {}))
    assert "Expires=" not in response.headers["Set-Cookie"]


def test_a_shared_address_is_told_what_to_do_in_the_words_for_any_address(
    visitor: Visitor, people: dict[str, int], session: Session
) -> None:
    make_user(session, "dora", "dora@example.org", "alice@example.org", password_hash=HASH)
    pages = [
        visitor.post("/login", {"username": name, "password": password}, status=401)
        for name, password in (
            ("alice@example.org", PASSWORD),
            ("alice@example.org", "wrong"),
            ("bob@example.org", "wrong"),
            ("nobody@example.org", "wrong"),
        )
    ]
    unnamed = {re.sub(r"[a-z]+@example.org|value=\"[^\"]*\"", "", page.html) for page in pages}
    assert len(unnamed) == 1
    assert "use your username" in unnamed.pop()


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("/subscriptions", "/subscriptions"),
        ("/admin/users/1", "/admin/users/1"),
        ("/admin/users/1/grant", "/admin/users/1/grant"),
        ("/account/list-password", None),
        ("/account/log-ins/end", None),
        ("/admin/users/imports", "/admin/users/imports"),
        ("/logout", None),
    ],
)
def test_a_post_without_a_log_in_leads_after_it_to_a_page_and_never_to_a_405(
    visitor: Visitor, people: dict[str, int], path: str, target: str | None
) -> None:
    response = visitor.client.post(path)
    where = response.headers["Location"]
    assert where == (f"/login?next={target}" if target else "/login")
    page = visitor.follow(where, {"username": "bob", "password": PASSWORD})
    assert page.status == 200


@pytest.mark.parametrize("path", ["/account/list-password", "/logout", "/nowhere", "/admin/api-keys/1/revoke"])
def test_next_leads_to_nothing_that_only_takes_a_post(visitor: Visitor, people: dict[str, int], path: str) -> None:
    response = visitor.post(f"/login?next={path}", {"username": "bob", "password": PASSWORD})
    assert response.headers["Location"] == "/subscriptions"  # type: ignore[union-attr]
