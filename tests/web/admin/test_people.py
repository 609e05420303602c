"""The page of people: found, sorted, downloaded, and changed many at once after a look at what that does."""

import csv
import io
import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.models import Run, User
from portal.services.accounts import profiles, users
from portal.services.accounts.bulk import Change
from portal.services.accounts.directory import SORTS
from tests.conftest import Clock
from tests.factories import NOW, give_name, make_preference, make_user
from tests.web.conftest import PASSWORD, Page, Visitor

PEOPLE = "/admin/users"
CHANGE = f"{PEOPLE}/change"


def usernames_on(page: Page) -> list[str]:
    """The usernames of the table."""
    return re.findall(r'data-label="Username">([^<]*)<', page.html)


def profile(session: Session, username: str) -> profiles.Profile:
    return profiles.by_username(session, username)


def number(session: Session, username: str) -> int:
    return profile(session, username).id


def test_people_are_found_by_part_of_a_name_an_address_a_group_and_a_status(bob: Visitor, session: Session) -> None:
    make_user(session, "charlotte", "charlotte@lists.example.net", groups=("board",))
    give_name(session, "charlotte", "Charlotte 100%_")
    make_user(session, "dora", "dora@example.org", is_active=False)

    assert usernames_on(bob.get(f"{PEOPLE}?q=example.net")) == ["charlotte"]
    assert usernames_on(bob.get(f"{PEOPLE}?q=CHARLO")) == ["charlotte"]
    assert usernames_on(bob.get(f"{PEOPLE}?q=100%25_")) == ["charlotte"]
    assert usernames_on(bob.get(f"{PEOPLE}?q=%25")) == ["charlotte"]  # a per cent sign, not anything
    assert usernames_on(bob.get(f"{PEOPLE}?group=board")) == ["charlotte"]
    assert usernames_on(bob.get(f"{PEOPLE}?status=deactivated")) == ["charlie", "dora"]
    assert usernames_on(bob.get(f"{PEOPLE}?status=superuser")) == ["bob"]
    nobody = bob.get(f"{PEOPLE}?q=nobody-at-all")
    assert "No matching people" in nobody.text


def test_people_are_found_by_the_day_that_they_were_added_on_or_after(
    bob: Visitor, session: Session, people: dict[str, int]
) -> None:
    session.execute(update(User).where(User.username != "alice").values(created_at=NOW.replace(year=2020)))
    session.commit()
    assert usernames_on(bob.get(f"{PEOPLE}?since=2026-11-01")) == ["alice"]
    assert usernames_on(bob.get(f"{PEOPLE}?since=2026-11-02")) == []


def test_each_status_says_how_many_there_are(bob: Visitor, session: Session) -> None:
    text = bob.get(f"{PEOPLE}?q=example").text
    for words in ("All 3", "Active 2", "Never logged in 1", "Deactivated 1", "Superusers 1"):
        assert words in text
    assert "No address" not in text
    assert "No address 0" in bob.get(f"{PEOPLE}?status=no-address").text


@pytest.mark.parametrize("sort", SORTS)
def test_people_are_sorted_by_each_column(bob: Visitor, sort: str) -> None:
    page = bob.get(f"{PEOPLE}?sort={sort}")
    (sorted_by,) = [each for tag, each in page.tags if "aria-sort" in each]
    assert sorted_by["aria-sort"] == "ascending"
    assert f"sort=-{sort}" in page.html
    back = bob.get(f"{PEOPLE}?sort=-{sort}&q=example")
    assert len(usernames_on(back)) == 3
    assert f"sort={sort}&amp;q=example" in back.html


def test_people_come_a_page_at_a_time_with_numbers(bob: Visitor, session: Session) -> None:
    for count in range(260):
        make_user(session, f"xyz{count:03}", f"xyz{count:03}@example.org")
    page = bob.get(f"{PEOPLE}?q=xyz&status=active&sort=username&page=3")
    assert usernames_on(page) == [f"xyz{count:03}" for count in range(100, 150)]
    assert "101 to 150 of 260 people" in page.text
    assert re.sub(r"\s+", " ", page.text.partition("Page 1 ")[2]).startswith("Page 2 Page 3 Page 4 Page 5 Page 6 Next")
    links = [each["href"] or "" for tag, each in page.tags if tag == "a" and "page=" in (each["href"] or "")]
    assert all("status=active" in link and "q=xyz" in link and "sort=username" in link for link in links)
    assert usernames_on(bob.get(links[-1])) == [f"xyz{count:03}" for count in range(150, 200)]
    assert "There is no such page" in bob.get(f"{PEOPLE}?page=99").text


@pytest.mark.parametrize("query", ["q=%00", "since=never", "since=0001-01-01", "group=%01"])
def test_a_filter_that_cannot_be_is_refused_beside_its_field(bob: Visitor, query: str) -> None:
    page = bob.get(f"{PEOPLE}?{query}", status=400)
    assert page.title.startswith("Error:")


@pytest.mark.parametrize("query", ["status=perhaps", "sort=password_hash", "sort=--name", "page=0", "page=x"])
def test_an_order_or_a_page_that_no_link_has_is_refused(bob: Visitor, query: str) -> None:
    bob.get(f"{PEOPLE}?{query}", status=400)


@pytest.mark.slow
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(max_size=80))
def test_no_text_in_the_url_breaks_a_page(bob: Visitor, text: str) -> None:
    for name in ("q", "group", "since", "status", "sort", "page", "user", "groups", "change"):
        for path in (PEOPLE, f"{PEOPLE}/export", CHANGE):
            values = {"change": "set-groups", "of": "all", name: text}
            assert bob.client.get(path, query_string=values).status_code in {200, 302, 400, 422}, (path, name)


def test_people_are_downloaded_as_the_filter_finds_them(bob: Visitor, session: Session) -> None:
    make_user(session, "erin", "erin@example.org", "=cmd|'/C'!A0@example.org", groups=("board", "tech"))
    response = bob.client.get(f"{PEOPLE}/export?group=board")
    (row,) = csv.DictReader(io.StringIO(response.data.decode("utf-8-sig")))
    assert response.headers["Content-Disposition"] == 'attachment; filename="people-2026-11-22.csv"'
    assert (row["username"], row["email"], row["groups"], row["active"], row["superuser"], row["last_log_in"]) == (
        "erin", "erin@example.org", "board; tech", "yes", "no", "",
    )  # fmt: skip
    assert row["addresses"] == "erin@example.org;' =cmd|'/C'!A0@example.org"
    everybody = json.loads(bob.client.get(f"{PEOPLE}/export?format=json").text)
    assert [each["username"] for each in everybody] == ["alice", "bob", "charlie", "erin"]
    assert everybody[3]["addresses"] == ["erin@example.org", "=cmd|'/C'!A0@example.org"]
    assert json.loads(bob.client.get(f"{PEOPLE}/export?q=nobody&format=json").text) == []
    assert bob.client.get(f"{PEOPLE}/export?format=exe").status_code == 302


# Many at once.


def confirm(visitor: Visitor, path: str, status: int = 303, **form: str) -> Page | TestResponse:
    return visitor.post(path, form, status=status)


def query(change: Change, *ids: int, **values: Any) -> str:
    picked = "".join(f"&user={each}" for each in ids)
    more = "".join(f"&{name}={value}" for name, value in values.items())
    return f"{CHANGE}?change={change}{picked}{more}"


def test_those_who_are_picked_are_deactivated_after_a_look(
    bob: Visitor, alice: Visitor, session: Session, people: dict[str, int]
) -> None:
    for count in range(3):
        make_user(session, f"m{count}")
    make_preference(session, "members", "alice@example.org", True, seen=True)
    path = query(Change.DEACTIVATE, people["alice"], people["charlie"], number(session, "m1"))
    page = bob.get(path)
    assert "Deactivate 2 people?" in page.text
    assert "1 person is already up to date" in page.text
    assert "Members : 1 address will be taken off." in page.text
    assert "approval" not in page.text
    done = bob.follow(path, {})
    assert "2 people were changed." in done.text
    assert [profile(session, name).is_active for name in ("alice", "m1", "m0", "bob")] == [False, False, True, True]
    assert alice.client.get("/subscriptions").status_code == 302


def test_a_look_says_which_lists_will_need_approval(bob: Visitor, session: Session) -> None:
    for count in range(8):
        make_user(session, f"xyz{count}")
        make_preference(session, "members", f"xyz{count}@example.org", True, seen=True)
        make_preference(session, "tech", f"xyz{count}@example.org", False, seen=False)
    page = bob.get(query(Change.DEACTIVATE, of="all", q="xyz"))
    assert "Members : 8 addresses will be taken off. The next sync will need approval." in page.text
    assert "Tech</strong>" not in page.html
    run = bob.follow(query(Change.DEACTIVATE, of="all", q="xyz"), {"approve": "yes"})
    assert "Nothing has been done yet." in run.text
    asked = session.execute(select(Run.list_handle, Run.kind, Run.plan_id.is_not(None))).one()
    session.rollback()
    assert tuple(asked) == ("members", "sync", True)


def test_all_whom_the_filter_finds_get_a_group(bob: Visitor, session: Session) -> None:
    for count in range(3):
        make_user(session, f"xyz{count}")
    first = bob.get(query(Change.ADD_GROUPS, of="all", q="xyz"))
    assert "Add to groups" in first.title
    assert ("q", "xyz") in [(each.get("name"), each.get("value")) for tag, each in first.tags if tag == "input"]
    path = query(Change.ADD_GROUPS, of="all", q="xyz", groups="board%3B new")
    assert "Add 3 people to board, new?" in bob.get(path).text
    done = bob.follow(path, {})
    assert usernames_on(done) == ["xyz0", "xyz1", "xyz2"], "the filter is kept"
    assert profile(session, "xyz2").groups == ("board", "new")
    assert profile(session, "alice").groups == ()
    assert "There is nothing to do." in bob.get(path).text


@pytest.mark.parametrize(
    ("change", "groups", "words"),
    [
        ("add-groups", "", "Enter a group."),
        ("remove-groups", ";", "Enter a group."),
        ("set-groups", "a%00b", "cannot be typed"),
        ("set-groups", "g" * 65, "Not a valid group name"),
    ],
)
def test_groups_that_cannot_be_are_refused_beside_their_field(
    bob: Visitor, change: str, groups: str, words: str
) -> None:
    page = bob.get(f"{CHANGE}?change={change}&of=all&groups={groups}", status=422)
    assert words in page.text
    assert page.title.startswith("Error:")


def test_setting_no_groups_takes_people_out_of_all(bob: Visitor, session: Session, people: dict[str, int]) -> None:
    users.set_groups(session, "alice", groups=["board"], now=NOW, lists=None)
    path = query(Change.SET_GROUPS, people["alice"], groups="")
    assert "Remove 1 person from all groups?" in bob.get(path).text
    bob.follow(path, {})
    assert profile(session, "alice").groups == ()


@pytest.mark.parametrize(
    "path", [CHANGE, f"{CHANGE}?change=delete", f"{CHANGE}?change=activate&user=x", f"{CHANGE}?change=activate&of=x"]
)
def test_what_no_form_of_ours_asks_for_leads_back_to_the_people(bob: Visitor, path: str) -> None:
    assert bob.client.get(path).status_code == 302
    assert bob.client.post(path, data={"csrf_token": bob.get(PEOPLE).token}).status_code == 303


def test_nobody_selected_is_said(bob: Visitor) -> None:
    response = bob.client.get(f"{CHANGE}?change=deactivate&of=selected&q=alice")
    assert "No one is selected." in bob.get(response.headers["Location"]).text


def test_a_look_that_is_out_of_date_or_altered_does_nothing_and_is_shown_again(
    bob: Visitor, session: Session, people: dict[str, int]
) -> None:
    path = query(Change.DEACTIVATE, of="all", q="example")
    page = bob.get(path)
    make_user(session, "erin")
    for signed in (page.value("shown"), "altered", ""):
        response = bob.client.post(path, data={"csrf_token": page.token, "shown": signed})
        assert response.status_code in {400, 409}
        again = Page(response)
        assert "nothing was done" in again.text
        assert "Deactivate 2 people?" in again.text
    assert session.scalars(select(User.username).where(~User.is_active)).all() == ["charlie"]


def test_what_was_shown_to_one_superuser_is_not_confirmed_by_another(
    bob: Visitor, alice: Visitor, session: Session, people: dict[str, int]
) -> None:
    path = query(Change.ACTIVATE, people["charlie"])
    theirs = bob.get(path).value("shown")
    users.grant(session, "alice")
    response = alice.client.post(path, data={"csrf_token": alice.get(PEOPLE).token, "shown": theirs})
    assert response.status_code == 400
    assert not profile(session, "charlie").is_active


def test_many_are_changed_only_after_the_password_was_typed_a_short_time_ago(
    bob: Visitor, session: Session, people: dict[str, int], clock: Clock
) -> None:
    path = query(Change.ACTIVATE, people["charlie"], groups="")
    page = bob.get(path)
    clock.advance(minutes=20)
    response = bob.client.post(path, data={"csrf_token": page.token, "shown": page.value("shown")})
    asked = Page(response)
    assert (asked.status, asked.title.startswith("Confirm your password")) == (403, True)
    form = {"csrf_token": asked.token, "shown": asked.value("shown"), "own_password": PASSWORD}
    assert bob.client.post(path, data=form).status_code == 303
    assert profile(session, "charlie").is_active


def test_none_of_these_pages_is_for_members(alice: Visitor) -> None:
    for path in (PEOPLE, f"{PEOPLE}/export", f"{CHANGE}?change=activate&of=all"):
        alice.get(path, status=403)
