"""Keys to the API in the browser: made, shown once, revoked."""

import re

import pytest
from sqlalchemy.orm import Session

from portal.services.accounts import api_keys, users
from tests.conftest import Clock
from tests.factories import NOW, make_user
from tests.web.conftest import Page, Visitor


def make_key(bob: Visitor, **form: str) -> str:
    page = bob.follow("/admin/api-keys", {"label": "list host", **form})
    found = re.search(r"<code>(mp_\w{8}_[\w-]+)</code>", page.html)
    assert found
    return found[1]


def test_a_key_is_shown_once_and_opens_the_api_until_it_is_revoked(
    bob: Visitor, session: Session, clock: Clock
) -> None:
    key = make_key(bob, days="30")
    page = bob.get("/admin/api-keys")
    prefix = key[:11]

    assert key not in page.html
    assert prefix in page.text
    assert "list host" in page.text
    assert "Last used" in page.text
    assert api_keys.authenticate(session, key, ip="192.0.2.1", now=clock()).prefix == prefix
    told = bob.follow(f"/admin/api-keys/{prefix}/revoke", {}, page="/admin/api-keys")
    assert f"{prefix} has been revoked." in told.text
    assert 'class="state bad">Revoked' in told.html
    assert "had already been revoked" in bob.follow(f"/admin/api-keys/{prefix}/revoke", {}, page="/admin/api-keys").text


def test_a_key_whose_owner_is_deactivated_is_said_to_be_so(bob: Visitor, session: Session) -> None:
    dora = make_user(session, "dora", is_superuser=True)
    api_keys.create(session, "dora", label="x", expires_days=None, now=NOW)
    assert "Owner deactivated" not in bob.get("/admin/api-keys").text
    assert "Their API keys do not work until then." in bob.get(f"/admin/users/{dora}/deactivate").text
    users.deactivate(session, "dora", now=NOW)
    assert "Owner deactivated" in bob.get("/admin/api-keys").text


def test_a_key_that_has_expired_is_said_to_be_so(bob: Visitor, clock: Clock) -> None:
    make_key(bob, days="1")
    clock.advance(hours=1)
    assert "Expired" not in bob.get("/admin/api-keys").text.replace("Expires", "")
    clock.advance(days=1)
    bob.log_in("bob")  # a log-in of a superuser lasts a day at most
    assert "Expired" in bob.get("/admin/api-keys").text


@pytest.mark.parametrize(
    ("form", "field"),
    [({"label": ""}, "label"), ({"label": "x" * 81}, "label"), ({"days": "0"}, "days"), ({"days": "soon"}, "days")],
)
def test_a_form_that_cannot_be_makes_no_key(bob: Visitor, session: Session, form: dict[str, str], field: str) -> None:
    page = bob.post("/admin/api-keys", {"label": "list host", **form}, status=422)
    assert isinstance(page, Page)
    assert page.title.startswith("Error:")
    assert f'id="{field}-error1"' in page.html
    assert list(api_keys.list_keys(session)) == []


def test_no_key_yet_and_no_such_key_are_said_to_be_so(bob: Visitor) -> None:
    assert "There are no keys yet." in bob.get("/admin/api-keys").text
    for prefix in ("mp_aaaaaaaa", "x", "%00"):
        page = bob.follow(f"/admin/api-keys/{prefix}/revoke", {}, page="/admin/api-keys")
        assert "No API key has the prefix" in page.text or "Not the prefix" in page.text


def test_keys_are_for_superusers(alice: Visitor) -> None:
    alice.get("/admin/api-keys", status=403)
