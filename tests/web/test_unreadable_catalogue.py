"""Where mailinglists.toml cannot be read, accounts can still be seen and changed, and no page claims to know the lists."""

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.models import Preference
from portal.services.accounts import profiles
from tests.factories import make_preference, make_user
from tests.web.conftest import PASSWORD, Client, Page, Visitor

CSV = "username,email\nerin,erin@example.org\n"
USER = {"name": "Alice", "email": "alice@example.net", "groups": "full"}


@pytest.fixture
def misread(instance: Path, make_app: Callable[..., Flask], people: dict[str, int]) -> Flask:
    """An application whose catalogue has a misspelt key."""
    (instance / "mailinglists.toml").write_text("enabled = true\nnonsense = 1\n")
    app = make_app()
    app.test_client_class = Client
    return app


@pytest.fixture
def member(misread: Flask) -> Visitor:
    visitor = Visitor(misread.test_client())
    visitor.log_in("alice")
    return visitor


@pytest.fixture
def superuser(misread: Flask) -> Visitor:
    visitor = Visitor(misread.test_client())
    visitor.log_in("bob")
    return visitor


def admits_it(page: Page) -> bool:
    """Return True if a page says that what happens to subscriptions is not known."""
    return any(each.get("data-lists") == "unknown" for _, each in page.tags)


def test_pages_say_so_only_where_it_is_so(alice: Visitor, bob: Visitor, people: dict[str, int]) -> None:
    paths = (
        "/admin/users/new",
        "/admin/users/imports",
        f"/admin/users/{people['alice']}",
        "/admin/search?q=example.org",
    )
    assert not any(admits_it(bob.get(each)) for each in (*paths, f"/admin/users/{people['alice']}/delete"))
    assert not any(admits_it(alice.get(each)) for each in ("/account", "/account/history"))


def test_a_member_sees_the_account_and_its_history(member: Visitor) -> None:
    assert admits_it(member.get("/account"))
    history = member.get("/account/history")
    assert admits_it(history)
    assert "Nothing has happened" not in history.text


def test_a_member_changes_the_password_and_ends_log_ins(member: Visitor) -> None:
    new = "three quiet green boats"
    assert admits_it(member.follow("/account", {"current": PASSWORD, "new": new, "again": new}))
    assert admits_it(member.follow("/account/log-ins/end-others", {}, page="/account"))


@pytest.mark.parametrize("path", ["/account/list-password", "/account/list-password/replace"])
def test_no_list_password_is_offered_or_given(member: Visitor, path: str) -> None:
    member.post(path, {"address": "1"}, page="/account", status=400)


@pytest.mark.parametrize("path", ["", "/delete"])
def test_a_superuser_sees_an_account(superuser: Visitor, people: dict[str, int], path: str) -> None:
    page = superuser.get(f"/admin/users/{people['alice']}{path}")
    assert admits_it(page)
    assert "No list" not in page.text


@pytest.mark.parametrize("path", ["/admin/users/new", "/admin/users/imports", "/admin/search?q=example.org"])
def test_a_superuser_sees_the_pages_that_lead_to_accounts(superuser: Visitor, path: str) -> None:
    assert admits_it(superuser.get(path))


def test_an_account_is_made(superuser: Visitor, session: Session) -> None:
    form = {"username": "erin", "email": "erin@example.org"}
    superuser.follow("/admin/users/new", form)
    assert profiles.by_username(session, "erin").email == "erin@example.org"


def test_an_account_is_changed(superuser: Visitor, session: Session, people: dict[str, int]) -> None:
    path = f"/admin/users/{people['alice']}"
    assert admits_it(superuser.follow(path, USER))
    assert profiles.by_username(session, "alice").email == USER["email"]
    page = superuser.post(path, {**USER, "email": "none"}, status=422)
    assert isinstance(page, Page)
    assert admits_it(page)


def test_an_account_is_deactivated_and_activated(superuser: Visitor, session: Session, people: dict[str, int]) -> None:
    path = f"/admin/users/{people['alice']}"
    for act, is_active in (("deactivate", False), ("activate", True)):
        page = superuser.follow(f"{path}/{act}", {})
        assert admits_it(page)
        assert profiles.by_username(session, "alice").is_active is is_active
        note = page.html.partition('role="status">')[2].partition("<")[0]
        assert "Alice" in note
        assert "list" not in note


def test_a_role_is_given_and_taken_and_a_password_reset(
    superuser: Visitor, session: Session, people: dict[str, int]
) -> None:
    path = f"/admin/users/{people['alice']}"
    for act in ("grant", "revoke"):
        assert admits_it(superuser.follow(f"{path}/{act}", {}))
    superuser.follow(f"{path}/password", {})


def test_an_account_is_deleted_and_its_choices_are_kept_for_the_lists(
    superuser: Visitor, session: Session, people: dict[str, int]
) -> None:
    make_preference(session, "members", "alice@example.org", True, seen=True)
    make_user(session, "dora")
    superuser.follow(f"/admin/users/{people['alice']}/delete", {"erase": "y"})
    assert "alice" not in {each.username for each in profiles.list_all(session)}
    assert [each.list_handle for each in session.scalars(select(Preference))] == ["members"]


def test_accounts_are_imported(superuser: Visitor, session: Session) -> None:
    form = {"file": (io.BytesIO(CSV.encode()), "users.csv")}
    response = superuser.post("/admin/users/imports", form)
    assert isinstance(response, TestResponse)
    shown = response.headers["Location"]
    assert admits_it(superuser.get(shown))
    superuser.follow(shown, {})
    assert profiles.by_username(session, "erin").email == "erin@example.org"
