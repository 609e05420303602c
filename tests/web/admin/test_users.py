"""Accounts in the browser: made, changed, deleted; and who is on what, and why."""

import re
from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.models import LoginSession, Preference, User
from portal.services.accounts import address_changes, addresses, profiles, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE
from tests.factories import NOW, give_name, make_preference, make_user
from tests.web.conftest import Page, Visitor


def number(session: Session, username: str) -> int:
    found = session.scalar(select(User.id).where(User.username == username))
    session.rollback()
    assert found is not None
    return found


def held(session: Session, user_id: int) -> int:
    """The number of a user's further address."""
    found = addresses.held(session, user_id)[1].id
    session.rollback()
    return found


def profile(session: Session, username: str) -> profiles.Profile:
    return profiles.by_username(session, username)


def test_a_new_account_has_a_random_password_that_is_shown_once(bob: Visitor, app: Flask, session: Session) -> None:
    form = {"username": "erin", "email": "Erin@Example.org", "name": "Erin", "groups": "board; full", "superuser": ""}
    page = bob.follow("/admin/users/new", form)
    password = page.html.partition("<code>")[2].partition("<")[0]
    made = profile(session, "erin")

    assert (made.email, made.name, made.groups, made.is_superuser) == (
        "Erin@Example.org",
        "Erin",
        ("board", "full"),
        False,
    )
    assert password not in bob.get(f"/admin/users/{made.id}").html
    Visitor(app.test_client()).log_in("erin", password)


def test_a_new_account_with_an_address_that_somebody_holds_says_whose_before_it_is_made(
    bob: Visitor, alice: Visitor, session: Session
) -> None:
    form = {"username": "erin", "email": "Alice@example.org"}
    page = bob.post("/admin/users/new", form, status=409)
    assert isinstance(page, Page)
    assert "held by alice" in page.text
    assert 'id="email-error1"' in page.html
    assert session.scalar(select(User.id).where(User.username == "erin")) is None
    session.rollback()
    bob.post("/admin/users/new", {**form, "shared": "y"})
    assert profile(session, "erin").email == "alice@example.org"


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("username", "alice", "the username alice is already taken"),
        ("username", "two words", "Not a username"),
        ("email", "nobody", "Not an e-mail address"),
        ("groups", "a\tb", "cannot be typed"),
        ("name", "n" * 121, "120"),
    ],
)
def test_what_cannot_be_stands_beside_its_field_and_makes_nothing(
    bob: Visitor, alice: Visitor, session: Session, field: str, value: str, words: str
) -> None:
    form = {"username": "erin", "email": "erin@example.org", field: value}
    page = bob.client.post("/admin/users/new", data={"csrf_token": bob.get("/admin/users/new").token, **form})
    found = Page(page)

    assert found.status in {409, 422}
    assert found.title.startswith("Error:")
    assert words.lower() in found.text.lower()
    assert f'id="{field}-error1"' in found.html
    assert session.scalar(select(User.id).where(User.username == "erin")) is None


def test_name_address_and_groups_of_an_account_are_changed(bob: Visitor, alice: Visitor, session: Session) -> None:
    make_preference(session, "members", "alice@example.org", True, seen=True)
    found = number(session, "alice")
    page = bob.follow(f"/admin/users/{found}", {"name": "Alice A", "email": "alice@new.example.org", "groups": "board"})

    assert "Saved. 1 list will be sent to alice@new.example.org." in page.text
    assert "Moved from alice@example.org on 22 Nov" not in page.text, "it is due first"
    session.execute(update(Preference).where(Preference.moved_from.is_not(None)).values(seen=True))
    session.commit()
    assert "Moved from alice@example.org on 22 Nov" in bob.get(f"/admin/users/{found}").text
    changed = profile(session, "alice")
    assert (changed.name, changed.email, changed.groups) == ("Alice A", "alice@new.example.org", ("board",))
    moved = session.execute(select(Preference.subscribed, Preference.moved_to.is_not(None))).all()
    assert sorted(map(tuple, moved)) == [
        (True, False),
        (True, True),
    ]  # the yes moved along; the old row goes with a run
    session.rollback()


def test_an_address_that_somebody_else_holds_is_said_before_it_is_saved(
    bob: Visitor, alice: Visitor, session: Session
) -> None:
    found = number(session, "alice")
    form = {"name": "Alice", "email": "Bob@example.org", "groups": ""}
    page = bob.post(f"/admin/users/{found}", form, status=409)
    assert isinstance(page, Page)
    assert "Bob@example.org is held by bob." in page.text
    assert profile(session, "alice").email == "alice@example.org"
    saved = bob.follow(f"/admin/users/{found}", {**form, "shared": "y"})
    assert "also held by bob" in saved.text
    bob.follow(f"/admin/users/{found}", {**form, "name": "Alice A"})  # what is shared already is not asked about again


def test_the_page_of_a_person_is_titled_by_their_name(bob: Visitor, alice: Visitor, session: Session) -> None:
    give_name(session, "alice", "Alice Anders")
    page = bob.get(f"/admin/users/{number(session, 'alice')}")
    assert page.title.startswith("Alice Anders ")
    give_name(session, "alice", "")
    assert bob.get(f"/admin/users/{number(session, 'alice')}").title.startswith("alice ")


def test_a_bad_address_changes_nothing_else_of_the_form(bob: Visitor, alice: Visitor, session: Session) -> None:
    before = profile(session, "alice")
    form = {"name": "Somebody Else", "email": "alice@", "groups": "board"}
    bob.post(f"/admin/users/{before.id}", form, status=422)
    assert profile(session, "alice") == before


def test_a_deactivated_user_is_locked_out_at_once_and_comes_back(
    bob: Visitor, alice: Visitor, session: Session
) -> None:
    found = number(session, "alice")
    page = bob.follow(f"/admin/users/{found}/deactivate", {})
    assert "Alice has been deactivated." in page.text
    assert alice.client.get("/subscriptions").status_code == 302
    make_preference(session, "members", "alice@example.org", True, seen=False)
    make_preference(session, "tech", "alice@example.org", True, seen=True)
    text = bob.get(f"/admin/users/{found}/activate").text
    assert "alice@example.org is put back on Members ." in text
    assert "alice@example.org stays on Tech ." in text
    bob.follow(f"/admin/users/{found}/activate", {})
    assert profile(session, "alice").is_active


@pytest.mark.parametrize(
    ("act", "title"),
    [
        ("deactivate", "Deactivate Alice"),
        ("grant", "Make Alice a superuser"),
        ("password", "Set a random password for Alice"),
        ("delete", "Delete Alice"),
        ("merge", "Merge Alice (alice) into another account"),
    ],
)
def test_the_title_of_an_action_has_the_persons_name(
    bob: Visitor, alice: Visitor, session: Session, act: str, title: str
) -> None:
    page = bob.get(f"/admin/users/{number(session, 'alice')}/{act}")
    assert page.title.startswith(f"{title} ")
    assert title in page.text


def test_the_last_superuser_can_neither_be_deactivated_nor_lose_the_role_nor_be_deleted(
    bob: Visitor, session: Session
) -> None:
    found = number(session, "bob")
    for act, form in (("deactivate", {}), ("revoke", {}), ("delete", {})):
        page = bob.follow(f"/admin/users/{found}/{act}", form)
        assert "the last active superuser" in page.text
    assert profile(session, "bob").is_superuser


def test_a_role_is_given_and_taken(bob: Visitor, alice: Visitor, session: Session) -> None:
    found = number(session, "alice")
    bob.follow(f"/admin/users/{found}/grant", {})
    assert alice.client.get("/admin/").status_code == 200
    bob.follow(f"/admin/users/{found}/revoke", {})
    assert alice.client.get("/admin/").status_code == 403


def test_a_password_that_a_superuser_gives_ends_every_log_in(
    bob: Visitor, alice: Visitor, app: Flask, session: Session
) -> None:
    found = number(session, "alice")
    page = bob.follow(f"/admin/users/{found}/password", {})
    password = page.html.partition("<code>")[2].partition("<")[0]

    assert session.scalar(select(LoginSession.id).where(LoginSession.user_id == found)) is None
    session.rollback()
    assert alice.client.get("/subscriptions").status_code == 302
    Visitor(app.test_client()).log_in("alice", password)


def test_superusers_change_their_own_password_on_their_own_page(bob: Visitor, session: Session) -> None:
    """A random one would end the log-in that is to be shown it, so that nobody ever saw it."""
    path = f"/admin/users/{number(session, 'bob')}/password"
    token = bob.get("/account").token
    for response in (bob.client.get(path), bob.client.post(path, data={"csrf_token": token})):
        assert (response.status_code // 100, response.headers["Location"]) == (3, "/account")
    assert "Change your own password here." in bob.get("/account").text


def test_whoever_gives_up_the_role_is_led_to_a_page_that_they_may_see(bob: Visitor, session: Session) -> None:
    make_user(session, "dora", is_superuser=True)
    page = bob.follow(f"/admin/users/{number(session, 'bob')}/revoke", {})
    assert "Bob is no longer a superuser." in page.text


@pytest.mark.parametrize(
    ("act", "form"),
    [
        ("{bob}", {"email": "robert@example.org"}),
        ("{bob}/addresses/new", {"email": "robert@example.org"}),
        ("{bob}/addresses/{home}/main", {}),
        ("{bob}/addresses/{home}/remove", {}),
    ],
)
def test_another_address_of_ones_own_gives_the_own_log_in_another_token(
    bob: Visitor, open_visitor: Callable[[], Visitor], session: Session, act: str, form: dict[str, str]
) -> None:
    """SECURITY 33, by whichever page of superusers it changes; an address of somebody else leaves the token alone."""
    ids = {"bob": number(session, "bob"), "dora": make_user(session, "dora", "dora@example.org", "d2@example.org")}
    address_changes.add(session, ids["bob"], checked("home@example.org"), actor=COMMAND_LINE, now=NOW, lists={})
    ids["home"] = held(session, ids["bob"])
    thief = open_visitor()
    thief.client.set_cookie("portal", bob.cookie())
    bob.follow(f"/admin/users/{ids['dora']}/addresses/new", {"email": "d3@example.org"})
    assert thief.client.get("/account").status_code == 200
    assert bob.follow(f"/admin/users/{act.format(**ids)}", form).status == 200
    assert thief.client.get("/account").status_code == 302


def test_a_page_that_is_shown_again_after_the_token_was_renewed_can_be_sent(bob: Visitor, session: Session) -> None:
    path = f"/admin/users/{number(session, 'bob')}"
    page = bob.get(path)
    users.set_groups(session, "bob", groups=["board"], now=NOW, lists={})
    form = {"csrf_token": page.token, **page.hidden(path), "name": "", "email": "robert@example.org", "groups": "club"}
    again = Page(bob.client.post(path, data=form))
    assert (again.status, profile(session, "bob").email) == (409, "robert@example.org")
    form |= {"csrf_token": again.token, **again.hidden(path)}
    assert bob.client.post(path, data=form).status_code == 303
    assert profile(session, "bob").groups == ("club",)


def test_what_a_deletion_does_to_subscriptions_is_said_before_it_is_done(
    bob: Visitor, alice: Visitor, session: Session
) -> None:
    make_preference(session, "members", "alice@example.org", True, seen=True)
    make_preference(session, "tech", "alice@example.org", False, seen=False)
    found = number(session, "alice")
    page = bob.get(f"/admin/users/{found}/delete")

    assert "alice@example.org is taken off Members" in page.text
    assert "tech" not in page.text
    assert "Alice has been deleted." in bob.follow(f"/admin/users/{found}/delete", {}).text
    bob.get(f"/admin/users/{found}", status=404)


def test_an_address_that_somebody_else_holds_is_said_to_stay(bob: Visitor, alice: Visitor, session: Session) -> None:
    make_user(session, "alfred", "alice@example.org")
    make_preference(session, "members", "alice@example.org", True, seen=True)
    page = bob.get(f"/admin/users/{number(session, 'alice')}/delete")
    assert "alice@example.org stays on Members" in page.text


def test_search_answers_why_a_shared_address_is_on_each_list(bob: Visitor, alice: Visitor, session: Session) -> None:
    make_user(session, "dora", "alice@example.org")
    make_preference(session, "members", "alice@example.org", True, seen=True)
    page = bob.get("/admin/search?q=Alice@Example.org")
    assert "Held by alice" in page.text
    assert "Held by dora" in page.text
    assert summaries(page) == [
        "alice@example.org is on Members: there is nothing to do.",
        "alice@example.org may be on Tech: the next run takes over the state at the list.",
    ]
    lists = {each["href"] for _, each in page.tags if (each.get("href") or "").startswith("/admin/lists/")}
    assert "/admin/lists/board" not in lists, "alice may not see it"
    assert {"/admin/lists/members", "/admin/lists/tech"} <= lists


@pytest.mark.parametrize("text", ["DORA", "Dóra", "dora@example.org", "Dora@Home.Example.org"])
def test_a_whole_username_name_or_address_opens_the_person(bob: Visitor, session: Session, text: str) -> None:
    dora = make_user(session, "dora", "dora@example.org", "dora@home.example.org")
    make_user(session, "doralee")
    assert bob.client.get("/admin/search", query_string={"q": text}).headers["Location"] == f"/admin/users/{dora}"
    assert "doralee@example.org" in bob.get("/admin/search?q=doral").text


def test_search_has_a_list_that_its_holders_may_not_see_where_the_address_is_on_it(
    bob: Visitor, alice: Visitor, session: Session
) -> None:
    make_user(session, "dora", "alice@example.org")
    make_preference(session, "board", "alice@example.org", True, seen=True)
    assert (
        "alice@example.org is on Board: the next run removes it." in bob.get("/admin/search?q=alice@example.org").text
    )


def test_times_in_sentences_are_written_as_those_beside_them(bob: Visitor, alice: Visitor, session: Session) -> None:
    make_preference(session, "members", "alice@example.org", True, seen=True)
    page = bob.get("/admin/lists/members/why?q=alice@example.org")
    assert "1 Nov, 12:00" in page.text
    assert not re.search(r"2026-\d\d-\d\d \d\d:\d\d", page.text)


def summaries(page: Page) -> list[str]:
    """The sentences that an answer begins with."""
    return re.findall(r"<p[^>]* data-summary>([^<]*)</p>", page.html)


def test_search_leads_from_a_part_of_a_name_to_the_address(bob: Visitor, alice: Visitor) -> None:
    page = bob.get("/admin/search?q=ali")
    assert "/admin/search?q=alice@example.org" in page.html.replace("%40", "@")


def test_search_says_where_nothing_fits_and_where_nobody_holds_an_address(bob: Visitor) -> None:
    assert "No matches." in bob.get("/admin/search?q=xyzzy").text
    assert "No account holds this address." in bob.get("/admin/search?q=nobody@example.com").text
    assert "opens the page of that person" in bob.get("/admin/search").text


def test_none_of_these_pages_is_for_members(alice: Visitor, session: Session) -> None:
    for path in ("/admin/users", "/admin/users/new", "/admin/users/1", "/admin/users/1/delete"):
        alice.get(path, status=403)
    alice.get("/admin/search", status=403)


def test_an_account_without_a_number_here_is_not_found(bob: Visitor) -> None:
    bob.get("/admin/users/999999", status=404)
    bob.get("/admin/users/99999999999999999999999", status=404)


def test_whatever_is_done_to_an_account_stands_in_its_history_with_who_did_it(
    bob: Visitor, alice: Visitor, session: Session
) -> None:
    found = number(session, "alice")
    show = f"/admin/users/{found}"
    bob.follow(show, {"name": "Alice A", "email": "alice@new.example.org", "groups": "board; full"})
    for act in ("deactivate", "activate", "grant", "revoke"):
        bob.follow(f"{show}/{act}", {})
    bob.follow(f"{show}/password", {})
    bob.follow(f"{show}/delete", {})
    page = bob.get(f"/admin/users/history?user={found}")

    cells = re.findall(r'data-label="(Change|By)">\s*([^<:\n]*)', page.html)
    assert [words for what, words in cells if what == "Change"] == [
        "deleted", "given a password", "no longer a superuser", "made a superuser", "activated", "deactivated",
        "groups changed", "name changed", "address changed",
    ]  # fmt: skip
    assert {words for what, words in cells if what == "By"} == {"bob"}
    values = [(each["data-old"], each["data-new"]) for _, each in page.tags if "data-old" in each]
    assert values == [("", "board; full"), ("Alice", "Alice A"), ("alice@example.org", "alice@new.example.org")]


def test_changes_of_accounts_come_a_page_at_a_time(bob: Visitor, session: Session) -> None:
    for count in range(60):
        give_name(session, "bob", f"Bob {count}")
    page = bob.get("/admin/users/history")
    assert page.html.count('data-label="Change"') == 50
    assert "1 to 50 of 60" in page.text
    assert bob.get("/admin/users/history?page=2").html.count('data-label="Change"') == 10
    bob.get("/admin/users/history?user=0", status=400)


def test_a_change_that_fails_leaves_no_line(bob: Visitor, session: Session) -> None:
    found = number(session, "bob")
    bob.follow(f"/admin/users/{found}/deactivate", {})
    assert "There are no changes yet." in bob.get("/admin/users/history").text
