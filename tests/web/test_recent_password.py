"""A superuser's changes of addresses, roles, passwords and keys need a password typed within the last 15 minutes."""

import io
import re
from collections.abc import Callable

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.models import ApiKey, User
from portal.services.accounts import profiles
from tests.conftest import Clock
from tests.web.conftest import PASSWORD, Page, Visitor

FORM = {"name": "Alice A", "email": "alice@new.example.org", "groups": "board; full"}


@pytest.fixture
def later(bob: Visitor, people: dict[str, int], clock: Clock) -> Visitor:
    """Bob, fifteen minutes after he logged in."""
    clock.advance(minutes=15)
    return bob


def fields(page: Page) -> dict[str, str]:
    return {
        each["name"] or "": each["value"] or ""
        for tag, each in page.tags
        if tag == "input" and each.get("type") == "hidden"
    }


def asked(visitor: Visitor, path: str, form: dict[str, str], page: str | None = None) -> Page:
    found = visitor.post(path, form, page=page, status=403)
    assert isinstance(found, Page)
    assert found.title.startswith("Confirm your password")
    return found


def test_what_was_posted_is_done_once_the_password_is_confirmed(
    later: Visitor, people: dict[str, int], session: Session
) -> None:
    path = f"/admin/users/{people['alice']}"
    kept = fields(asked(later, path, FORM))
    assert profiles.by_id(session, people["alice"]).email == "alice@example.org"
    assert {name: kept[name] for name in FORM} == FORM
    response = later.client.post(path, data={**kept, "own_password": PASSWORD})
    assert (response.status_code, response.headers["Location"]) == (303, path)
    found = profiles.by_id(session, people["alice"])
    assert (found.name, found.email, found.groups) == ("Alice A", "alice@new.example.org", ("board", "full"))
    later.post(f"{path}/grant", {})
    assert profiles.by_id(session, people["alice"]).is_superuser, "for the next 15 minutes nothing is asked"


def test_a_wrong_password_changes_nothing_and_keeps_the_form_until_there_were_too_many(
    later: Visitor, people: dict[str, int], session: Session
) -> None:
    path = f"/admin/users/{people['alice']}"
    kept = fields(asked(later, path, FORM))
    for password, status in [("", 422), *[("canary", 422)] * 5, (PASSWORD, 429)]:
        page = Page(later.client.post(path, data={**kept, "own_password": password}))
        assert (page.status, 'id="own_password-error1"' in page.html) == (status, True)
        assert {name: fields(page)[name] for name in FORM} == FORM
        assert "canary" not in page.html
    assert page.response.headers["Retry-After"]
    assert profiles.by_id(session, people["alice"]).email == "alice@example.org"


@pytest.mark.parametrize("path", ["grant", "revoke", "activate", "deactivate", "password", "delete"])
def test_roles_and_passwords_of_others_need_it(later: Visitor, people: dict[str, int], path: str) -> None:
    asked(later, f"/admin/users/{people['alice']}/{path}", {})


def test_new_accounts_and_keys_need_it(later: Visitor, session: Session) -> None:
    asked(later, "/admin/users/new", {"username": "erin", "email": "erin@example.org", "superuser": "y"})
    page = asked(later, "/admin/api-keys", {"label": "list host"})
    asked(later, "/admin/api-keys/mp_aaaaaaaa/revoke", {}, page="/admin/api-keys")
    file = {"file": (io.BytesIO(b"username,email\nerin,erin@example.org\n"), "members.csv")}
    shown = later.post("/admin/users/imports", file)
    assert isinstance(shown, TestResponse)
    asked(later, shown.headers["Location"], {})
    assert session.scalar(select(User.id).where(User.username == "erin")) is None
    assert session.scalar(select(ApiKey.id)) is None
    made = later.client.post("/admin/api-keys", data={**fields(page), "own_password": PASSWORD})
    assert re.search(r"<code>mp_", later.get(made.headers["Location"]).html)


def test_a_change_of_name_or_groups_does_not(later: Visitor, people: dict[str, int], session: Session) -> None:
    form = {**FORM, "email": "alice@example.org"}
    later.follow(f"/admin/users/{people['alice']}", form)
    assert profiles.by_id(session, people["alice"]).groups == ("board", "full")


def test_a_confirmation_is_of_one_log_in(
    later: Visitor, people: dict[str, int], open_visitor: Callable[[], Visitor]
) -> None:
    elsewhere = open_visitor()
    elsewhere.log_in("bob")
    asked(later, "/admin/api-keys", {"label": "list host"})
