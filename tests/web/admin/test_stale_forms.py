"""A form carries, signed, what its page showed: what somebody else changed meanwhile is shown and not written over."""

import pytest
from sqlalchemy.orm import Session

from portal.services.accounts import address_changes, addresses, api_keys, profiles, users
from portal.services.history import COMMAND_LINE
from tests.conftest import Clock
from tests.factories import NOW, give_name
from tests.web.conftest import PASSWORD, Page, Visitor

FORM = {"name": "Alice", "email": "alice@example.org", "groups": ""}
ACTIONS = ("deactivate", "activate", "grant", "revoke", "password", "delete")


@pytest.fixture
def path(people: dict[str, int]) -> str:
    return f"/admin/users/{people['alice']}"


def move(session: Session, user_id: int, spelling: str) -> None:
    address = addresses.checked(spelling)
    address_changes.change(session, user_id, address, actor=COMMAND_LINE, now=NOW, lists=None)


def post(visitor: Visitor, path: str, page: Page, form: dict[str, str], status: int) -> Page:
    """Post a form of a page that was fetched some time ago."""
    response = visitor.client.post(path, data={**page.hidden(path), **form})
    assert response.status_code == status, response.get_data(as_text=True)
    return visitor.get(response.headers["Location"]) if status == 303 else Page(response)


def test_a_page_left_open_puts_no_old_address_and_no_old_groups_back(
    bob: Visitor, people: dict[str, int], path: str, session: Session
) -> None:
    page = bob.get(path)
    move(session, people["alice"], "alice@new.example.org")
    users.set_groups(session, "alice", groups=["board"], now=NOW, lists=None)
    post(bob, path, page, {**FORM, "name": "Alice A"}, 303)
    found = profiles.by_id(session, people["alice"])
    assert found.details == ("Alice A", "alice@new.example.org", ("board",))


def test_what_both_changed_is_shown_with_both_values_and_not_written(
    bob: Visitor, people: dict[str, int], path: str, session: Session
) -> None:
    page = bob.get(path)
    move(session, people["alice"], "alice@theirs.example.org")
    give_name(session, "alice", "Theirs")
    again = post(bob, path, page, {**FORM, "email": "alice@mine.example.org", "groups": "board"}, 409)
    found = profiles.by_id(session, people["alice"])
    assert found.details == ("Theirs", "alice@theirs.example.org", ("board",))
    assert again.title.startswith("Error:")
    assert again.html.count('id="email-error1"') == 1
    assert "alice@theirs.example.org" in again.html.partition('id="email-error1"')[2].partition("</p>")[0]
    assert (again.value("name"), again.value("email"), again.value("groups")) == (
        "Theirs",
        "alice@mine.example.org",
        "board",
    )

    post(bob, path, again, {name: again.value(name) for name in FORM}, 303)
    found = profiles.by_id(session, people["alice"])
    assert found.details == ("Theirs", "alice@mine.example.org", ("board",))


def test_a_form_that_is_corrected_still_knows_what_it_had_shown(
    bob: Visitor, people: dict[str, int], path: str, session: Session
) -> None:
    page = bob.get(path)
    move(session, people["alice"], "alice@new.example.org")
    again = post(bob, path, page, {**FORM, "name": "x" * 121}, 422)
    post(bob, path, again, {**FORM, "name": "Alice A"}, 303)
    assert profiles.by_id(session, people["alice"]).email == "alice@new.example.org"


def test_what_was_shown_survives_the_question_for_the_password(
    bob: Visitor, people: dict[str, int], path: str, session: Session, clock: Clock
) -> None:
    clock.advance(minutes=15)
    page = bob.get(path)
    asked = post(bob, path, page, {**FORM, "email": "alice@mine.example.org"}, 403)
    asked = post(bob, path, asked, {"own_password": "wrong"}, 422)
    give_name(session, "alice", "Theirs")
    post(bob, path, asked, {"own_password": PASSWORD}, 303)
    found = profiles.by_id(session, people["alice"])
    assert found.details == ("Theirs", "alice@mine.example.org", ())


def test_a_change_during_the_question_for_the_password_is_not_written_over(
    bob: Visitor, people: dict[str, int], path: str, session: Session, clock: Clock
) -> None:
    clock.advance(minutes=15)
    asked = post(bob, path, bob.get(path), {**FORM, "email": "alice@mine.example.org"}, 403)
    action = post(bob, f"{path}/grant", bob.get(f"{path}/grant"), {}, 403)
    move(session, people["alice"], "alice@theirs.example.org")
    post(bob, path, asked, {"own_password": PASSWORD}, 409)
    post(bob, f"{path}/grant", action, {"own_password": PASSWORD}, 409)
    found = profiles.by_id(session, people["alice"])
    assert (found.email, found.is_superuser) == ("alice@theirs.example.org", False)


@pytest.mark.parametrize("shown", ["", "x", "é"])
def test_a_form_that_was_altered_or_is_somebody_elses_changes_nothing(
    bob: Visitor, people: dict[str, int], path: str, session: Session, shown: str
) -> None:
    before = profiles.by_id(session, people["alice"])
    page = bob.get(path)
    post(bob, path, page, {**FORM, "shown": shown, "name": "Alice A"}, 400)
    other = bob.get(f"/admin/users/{people['charlie']}").value("shown")
    post(bob, path, page, {**FORM, "shown": other, "name": "Alice A"}, 400)
    for action in ACTIONS:
        post(bob, f"{path}/{action}", page, {"csrf_token": page.token, "shown": shown}, 400)
    assert profiles.by_id(session, people["alice"]) == before


def test_every_form_that_changes_an_account_a_list_or_a_key_carries_what_it_showed(
    bob: Visitor, path: str, session: Session, clock: Clock
) -> None:
    api_keys.create(session, "bob", label="list host", expires_days=None, now=clock())
    change = "/admin/lists/members/change?bulk_action=subscribe"
    actions = [f"{path}/{action}" for action in ACTIONS]
    for page in (path, *actions, "/admin/api-keys", change, "/subscriptions", "/subscriptions/leave"):
        forms = [each for each in bob.get(page).forms if "csrf_token" in each[1] and each[0] != "/logout"]
        assert forms, page
        for action, carried in forms:
            makes_a_key = page == "/admin/api-keys" and action is None
            assert ("shown" in carried) is not makes_a_key, (page, action)


@pytest.mark.parametrize("action", ACTIONS)
def test_what_is_done_to_an_account_is_done_as_it_was_shown_or_not_at_all(
    bob: Visitor, people: dict[str, int], path: str, session: Session, action: str
) -> None:
    page = bob.get(f"{path}/{action}")
    move(session, people["alice"], "alice@theirs.example.org")
    before = profiles.by_id(session, people["alice"])
    again = post(bob, f"{path}/{action}", page, {}, 409)
    assert profiles.by_id(session, people["alice"]) == before
    assert {"data-old": "alice@example.org", "data-new": "alice@theirs.example.org"} in [each for _, each in again.tags]
    post(bob, f"{path}/{action}", again, {}, 303)


def test_a_reload_makes_no_other_password_and_shows_the_one_no_more(
    bob: Visitor, people: dict[str, int], path: str, session: Session
) -> None:
    form = bob.get(f"{path}/password").hidden(f"{path}/password")
    response = bob.client.post(f"{path}/password", data=form)
    where = response.headers["Location"]
    assert "<code>" in bob.get(where).html
    assert bob.client.get(where).headers["Location"] == path
    assert bob.client.post(f"{path}/password", data=form).status_code == 409, "the first one is the change since"


def test_a_password_is_shown_on_the_page_of_its_account_alone_and_is_not_in_the_cookie(
    bob: Visitor, people: dict[str, int], path: str
) -> None:
    response = bob.client.post(f"{path}/password", data=bob.get(f"{path}/password").hidden(f"{path}/password"))
    cookie = bob.cookie()
    other = f"/admin/users/{people['charlie']}/new-password"
    assert bob.client.get(other).status_code == 302
    password = bob.get(response.headers["Location"]).html.partition("<code>")[2].partition("<")[0]
    signer = bob.client.application.session_interface.get_signing_serializer(bob.client.application)
    assert signer is not None
    assert password
    assert password not in str(signer.loads(cookie))


def test_a_reload_makes_no_other_key(bob: Visitor, session: Session) -> None:
    response = bob.post("/admin/api-keys", {"label": "list host"})
    where = response.headers["Location"]  # type: ignore[union-attr]
    assert "<code>mp_" in bob.get(where).html
    assert bob.client.get(where).headers["Location"] == "/admin/api-keys"
    assert len(api_keys.list_keys(session)) == 1


def test_a_key_whose_owner_got_another_name_is_not_revoked_by_the_old_page(
    bob: Visitor, session: Session, clock: Clock
) -> None:
    key = api_keys.create(session, "bob", label="list host", expires_days=None, now=clock())
    path = f"/admin/api-keys/{api_keys.prefix_of(key)}/revoke"
    page = bob.get("/admin/api-keys")
    users.rename(session, "bob", to="robert")
    post(bob, path, page, {}, 303)
    assert api_keys.list_keys(session)[0].revoked_at is None
    post(bob, path, bob.get("/admin/api-keys"), {}, 303)
    assert api_keys.list_keys(session)[0].revoked_at
