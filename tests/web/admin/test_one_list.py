"""One list in the browser of a superuser: its addresses, as a page and as files, and what is done for others."""

import csv
import io
import json
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.models import Base, History, Preference
from portal.services.reports import subscribers
from tests.conftest import Clock
from tests.factories import make_address, make_preference, make_user
from tests.test_query_counts import traffic
from tests.web.admin.test_lists import make_run
from tests.web.conftest import Page, Visitor

LIST = "/admin/lists/members"
CHANGE = f"{LIST}/change"


def links(page: Page) -> list[str]:
    return [each["href"] or "" for tag, each in page.tags if tag == "a"]


def wanted(session: Session) -> dict[str, bool]:
    """Whether each address is wanted on the list, by its first letters."""
    rows = session.execute(select(Preference.address_id, Preference.subscribed)).all()
    session.rollback()
    return dict(map(tuple, rows))


def do(bob: Visitor, query: str, **form: str) -> Page:
    """Look at a bulk action, say yes to it, and return the page that it leads to."""
    look = bob.get(f"{CHANGE}?{query}")
    return bob.follow(f"{CHANGE}?{query}", {"shown": look.value("shown"), "reason": "asked by phone", **form})


# --- the page


def test_a_list_is_shown_in_numbers_and_by_address(bob: Visitor, session: Session, clock: Clock) -> None:
    make_preference(session, "members", "alice@example.org", True, seen=False, changed_at=clock.now)
    make_run(session, clock, "members", on_roster=7, without_account=6)
    page = bob.get(LIST)
    assert page.title.startswith("Members")
    assert "1 to 2 of 2 addresses" in page.text  # Charlie is inactive, and nothing is stored
    assert "Being added Due by 22 Nov, 18:00 ." in page.text
    assert "On the list without an account 6" in page.text
    assert f"{LIST}/without-account" in links(page)
    assert "Pending 1" in page.text


def test_whoever_is_departed_is_shown_as_such(bob: Visitor, session: Session) -> None:
    make_preference(session, "members", "charlie@example.org", True, seen=True)
    assert "Departed No active user who may see the list holds it. It is still on the list." in bob.get(LIST).text


def test_a_refusal_is_shown_in_the_words_of_the_list_manager(bob: Visitor, session: Session, clock: Clock) -> None:
    make_preference(session, "members", "alice@example.org", True, refusal="<b>banned</b>", refused_at=clock.now)
    page = bob.get(f"{LIST}?state=refused")
    assert "The list refused it on 22 Nov : &lt;b&gt;banned&lt;/b&gt;" in page.text
    assert "1 to 1 of 1 address" in page.text


def test_what_is_asked_for_stands_in_the_url_and_in_every_link(bob: Visitor, session: Session) -> None:
    make_user(session, "dora", groups=("staff & co",))
    page = bob.get(f"{LIST}?q=dora&group=staff+%26+co&state=not_chosen&sort=-since")
    assert "1 to 1 of 1 address" in page.text
    kept = [each for each in links(page) if each.startswith(LIST) and "q=dora&" in f"{each}&"]
    assert kept
    assert all("group=staff+%26+co" in each for each in kept)
    assert all("state=not_chosen" in each for each in kept if "/export" in each)
    assert page.value("q") == "dora"


@pytest.mark.parametrize(
    ("sort", "expected"),
    [("", "ascending"), ("address", "ascending"), ("-address", "descending"), ("-since", "descending")],
)
def test_the_sorted_column_says_so(bob: Visitor, sort: str, expected: str) -> None:
    sorted_by = [each.get("aria-sort") for tag, each in bob.get(f"{LIST}?sort={sort}").tags if tag == "th"]
    assert [each for each in sorted_by if each] == [expected]


def test_pages_lead_to_each_other(bob: Visitor, session: Session) -> None:
    for number in range(60):
        make_user(session, f"user{number:02}")
    first = bob.get(f"{LIST}?q=user")
    assert "1 to 50 of 60 addresses" in first.text
    assert [each["href"] for tag, each in first.tags if each.get("aria-current") == "page"] == [f"{LIST}?page=1&q=user"]
    second = bob.get(next(each for each in links(first) if "page=2" in each))
    assert "51 to 60 of 60 addresses" in second.text
    assert "Next" not in second.text
    assert "There is no such page" in bob.get(f"{LIST}?page=9").text


def test_a_filter_that_finds_nothing_says_so(bob: Visitor) -> None:
    assert "No matching addresses." in bob.get(f"{LIST}?q=nobody").text


def test_an_unknown_list_is_not_found(bob: Visitor) -> None:
    for path in ("", "/export", "/change?bulk_action=subscribe"):
        assert "unknown list" in bob.get(f"/admin/lists/nothing{path}", 404).text.lower()


@pytest.mark.parametrize("query", ["page=0", "page=x", "page=99999999999999999999", "sort=password_hash"])
def test_a_page_that_no_link_leads_to_is_a_400(bob: Visitor, query: str) -> None:
    bob.get(f"{LIST}?{query}", 400)


@pytest.mark.parametrize("query", ["state=nonsense", "q=%00", f"q={'x' * 255}", "group=a%0Ab"])
def test_a_query_that_means_nothing_is_told_and_not_obeyed(bob: Visitor, query: str) -> None:
    page = bob.get(f"{LIST}?{query}", 400)
    assert page.title.startswith("Error:")
    assert "There is a problem" in page.text


@given(
    query=st.dictionaries(
        st.sampled_from(["q", "state", "group", "sort", "page", "bulk_action", "address", "format"]),
        st.text(st.characters(codec="utf-8"), max_size=300) | st.integers().map(str),
    )
)
@settings(max_examples=60)
def test_no_query_is_a_fault(bob: Visitor, query: dict[str, str]) -> None:
    for path in (LIST, f"{LIST}/export", CHANGE):
        response = bob.client.get(f"{path}?{urlencode(query)}")
        response.get_data()
        assert response.status_code in {200, 302, 400}, (path, query)


@pytest.mark.slow
@pytest.mark.parametrize("blank", ["%20", "%E2%80%A8", "%0D%0A"])
@pytest.mark.parametrize("name", ["q", "state", "group", "sort", "page", "format"])
def test_a_blank_in_a_query_is_as_nothing(bob: Visitor, name: str, blank: str) -> None:
    for path in ("/admin/lists/members", "/admin/lists/members/export"):
        response = bob.client.get(f"{path}?{name}={blank}")
        assert response.status_code == 200, path
        assert "\n" not in response.headers.get("Content-Disposition", "")
        response.get_data()
    assert bob.client.get("/admin/lists/members/export?format=%20").headers["Content-Disposition"].endswith('.csv"')


@given(handle=st.text(st.characters(codec="utf-8"), min_size=1, max_size=80))
@settings(max_examples=30)
def test_no_handle_is_a_fault(bob: Visitor, handle: str) -> None:
    assert bob.client.get(f"/admin/lists/{quote(handle, safe='')}").status_code in {200, 308, 400, 404}


def test_the_number_of_statements_does_not_grow(bob: Visitor, session: Session, clock: Clock) -> None:
    def count(path: str) -> int:
        with traffic() as seen:
            bob.get(path)
        return len(seen.statements)

    paths = (LIST, f"{CHANGE}?bulk_action=subscribe", "/admin/")
    before = [count(path) for path in paths]
    for number in range(45):
        make_user(
            session, f"user{number}", f"user{number}@example.org", f"second{number}@example.org", groups=("staff",)
        )
        make_preference(session, "members", f"user{number}@example.org", bool(number % 2))
        make_run(session, clock, "members", hours=number * 24, on_roster=number)
    assert [count(path) for path in paths] == before


# --- files


def test_a_file_holds_what_the_filter_finds(bob: Visitor, session: Session, clock: Clock) -> None:
    make_preference(session, "members", "alice@example.org", True, refusal="banned", refused_at=clock.now)
    response = bob.client.get(f"{LIST}/export?state=refused")
    assert response.mimetype == "text/csv"
    assert response.headers["Content-Disposition"] == 'attachment; filename="members-2026-11-22.csv"'
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    rows = list(csv.DictReader(io.StringIO(response.data.decode("utf-8-sig"))))
    assert [(each["address"], each["holders"], each["wanted"], each["refusal"]) for each in rows] == [
        ("alice@example.org", "alice", "yes", "banned")
    ]
    response = bob.client.get(f"{LIST}/export?state=refused&format=json")
    assert response.mimetype == "application/json"
    (found,) = json.loads(response.text)
    assert (found["address"], found["holders"], found["wanted"], found["seen"]) == (
        "alice@example.org", ["alice"], True, None,
    )  # fmt: skip


def test_files_and_bulk_action_are_told_in_the_security_log_without_addresses(
    bob: Visitor, session: Session, instance: Path, people: dict[str, int]
) -> None:
    bob.client.get(f"{LIST}/export?q=alice").get_data()
    do(bob, "bulk_action=subscribe&q=alice")
    lines = (instance / "security.log").read_text().splitlines()
    told = [each for line in lines if (each := json.loads(line))["event"] in {"export", "done for others"}]
    assert [(each["event"], each["by"], each["list"]) for each in told] == [
        ("export", people["bob"], "members"), ("done for others", people["bob"], "members"),
    ]  # fmt: skip
    assert (told[1]["bulk_action"], told[1]["count"]) == ("subscribe", 1)
    assert "alice" not in str(told)


def test_an_empty_file_is_still_one(bob: Visitor) -> None:
    assert bob.client.get(f"{LIST}/export?q=nobody").text.count("\n") == 1
    assert json.loads(bob.client.get(f"{LIST}/export?q=nobody&format=json").text) == []


def test_hostile_addresses_are_no_formulas_in_a_file(bob: Visitor, session: Session) -> None:
    hostile = ["=cmd|'/C'!A0@example.org", "-rf@example.org", "+1@example.org", "@at"]
    make_user(session, "dora", *hostile[:3])
    make_preference(session, "members", "dora@example.org", True, refusal="=1+1", seen=False)
    rows = list(csv.reader(io.StringIO(bob.client.get(f"{LIST}/export").data.decode("utf-8-sig"))))
    assert {f"'{each}" for each in hostile[:3]} <= {row[0] for row in rows}
    assert "'=1+1" in {row[8] for row in rows}
    found = json.loads(bob.client.get(f"{LIST}/export?format=json").text)
    assert set(hostile[:3]) <= {each["address"] for each in found}  # JSON needs no apostrophes


def test_a_file_is_streamed_in_blocks(bob: Visitor, session: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscribers, "_AT_ONCE", 10)
    for number in range(25):
        make_user(session, f"user{number:02}")
    with traffic() as seen:
        found = json.loads(bob.client.get(f"{LIST}/export?format=json&q=user").text)
    assert [each["address"] for each in found] == [f"user{number:02}@example.org" for number in range(25)]
    assert sum("LIMIT" in each and "addresses.canonical >" in each for each in seen.statements) == 3


# --- what is done for others


def test_somebody_is_subscribed_with_a_reason(bob: Visitor, session: Session, people: dict[str, int]) -> None:
    alice = make_address(session, "alice@example.org")
    session.rollback()
    look = bob.get(f"{CHANGE}?bulk_action=subscribe&address={alice}")
    assert "Put 1 address on Members" in look.title
    assert "alice@example.org" in look.text
    assert "1 address will be put on the list." in do(bob, f"bulk_action=subscribe&address={alice}").text
    assert wanted(session) == {alice: True}
    line = session.execute(select(History.actor, History.actor_id, History.reason, History.source)).one()
    assert tuple(line) == ("bob", people["bob"], "asked by phone", "superuser")


def test_all_rows_of_a_filter_are_unsubscribed_and_no_others(bob: Visitor, session: Session) -> None:
    for number in range(30):
        make_user(session, f"user{number:02}", groups=("staff",) if number < 25 else ())
        make_preference(session, "members", f"user{number:02}@example.org", True, seen=True)
    look = bob.get(f"{CHANGE}?bulk_action=unsubscribe&group=staff")
    assert "The first 20 addresses" in look.text
    assert "group staff" in look.text
    assert "25 addresses will be taken off the list." in do(bob, "bulk_action=unsubscribe&group=staff").text
    assert sorted(wanted(session).values()) == [False] * 25 + [True] * 5
    assert len(session.scalars(select(History.id)).all()) == 25


def test_only_the_ticked_addresses_are_changed(bob: Visitor, session: Session) -> None:
    ids = [
        make_user(session, name) and make_address(session, f"{name}@example.org") for name in ("dora", "erin", "frank")
    ]
    session.rollback()
    page = bob.get(LIST)
    boxes = [each["value"] for tag, each in page.tags if each.get("type") == "checkbox" and each["name"] == "address"]
    assert {str(each) for each in ids} <= set(boxes)
    query = f"bulk_action=subscribe&of=selected&address={ids[0]}&address={ids[2]}"
    assert "Put 2 addresses on Members" in bob.get(f"{CHANGE}?{query}").title
    assert "2 addresses will be put on the list." in do(bob, query).text
    assert wanted(session) == {ids[0]: True, ids[2]: True}


def test_all_that_a_filter_finds_are_changed_whatever_is_ticked(bob: Visitor, session: Session) -> None:
    for name in ("dora", "erin"):
        make_user(session, name, groups=("staff",))
    ticked = make_address(session, "dora@example.org")
    session.rollback()
    query = f"bulk_action=subscribe&of=all&address={ticked}&group=staff"
    assert "2 addresses will be put on the list." in do(bob, query).text


def test_a_bulk_action_for_ticked_addresses_of_which_there_are_none_asks_to_tick_some(
    bob: Visitor, session: Session
) -> None:
    query = "bulk_action=unsubscribe&of=selected"
    answer = bob.client.get(f"{CHANGE}?{query}&q=alice")
    assert answer.headers["Location"] == f"{LIST}?q=alice"
    assert "Select at least one address first." in bob.get(f"{LIST}?q=alice").text
    form = {"csrf_token": bob.get("/account").token, "reason": "x", "shown": ""}
    assert bob.client.post(f"{CHANGE}?{query}", data=form).headers["Location"] == LIST
    assert wanted(session) == {}


def test_a_set_that_changed_is_shown_again_and_nothing_is_done(bob: Visitor, session: Session) -> None:
    look = bob.get(f"{CHANGE}?bulk_action=subscribe")
    make_user(session, "dora")
    form = {"shown": look.value("shown"), "reason": "asked by phone"}
    again = bob.post(f"{CHANGE}?bulk_action=subscribe", form, status=409)
    assert isinstance(again, Page)
    assert "The addresses have changed since they were shown" in again.text
    assert "dora@example.org" in again.text
    assert again.value("shown") != look.value("shown")
    assert wanted(session) == {}


def test_a_bulk_action_for_others_needs_a_reason(bob: Visitor, session: Session) -> None:
    look = bob.get(f"{CHANGE}?bulk_action=subscribe").value("shown")
    for reason in ("", "  ", "x" * 201, "two\nlines"):
        page = bob.post(f"{CHANGE}?bulk_action=subscribe", {"shown": look, "reason": reason}, status=422)
        assert isinstance(page, Page)
        assert page.title.startswith("Error:")
    assert wanted(session) == {}


def test_who_cannot_be_chosen_for_is_counted(bob: Visitor, session: Session) -> None:
    make_preference(session, "members", "charlie@example.org", False, seen=False)
    text = bob.get(f"{CHANGE}?bulk_action=subscribe").text
    assert "1 address does not change: no active user who may see the list holds it." in text
    assert "There is nothing to do." in bob.get(f"{CHANGE}?bulk_action=subscribe&q=charlie").text


def test_what_was_refused_is_tried_again_without_a_reason(bob: Visitor, session: Session, clock: Clock) -> None:
    make_preference(session, "members", "alice@example.org", True, refusal="banned", refused_at=clock.now)
    page = bob.get(f"{LIST}?state=refused")
    assert any("bulk_action=retry" in each for each in links(page))
    assert "Try refused addresses again" in page.text
    look = bob.get(f"{CHANGE}?bulk_action=retry&state=refused")
    done = bob.follow(f"{CHANGE}?bulk_action=retry&state=refused", {"shown": look.value("shown")})
    assert "1 address will be tried again." in done.text
    assert "The next run will try again." in done.text


@pytest.mark.parametrize(
    "query", ["", "bulk_action=delete", "bulk_action=subscribe&address=x", "bulk_action=subscribe&state=nonsense"]
)
def test_a_bulk_action_that_is_none_leads_back_to_the_list(bob: Visitor, query: str) -> None:
    assert bob.client.get(f"{CHANGE}?{query}").headers["Location"] == LIST
    token = bob.get("/account").token
    response = bob.client.post(f"{CHANGE}?{query}", data={"csrf_token": token, "reason": "x"})
    assert (response.status_code, response.headers["Location"]) == (303, LIST)


def test_a_bulk_action_needs_the_token_of_the_page(bob: Visitor, session: Session) -> None:
    look = bob.get(f"{CHANGE}?bulk_action=subscribe").value("shown")
    response = bob.client.post(f"{CHANGE}?bulk_action=subscribe", data={"shown": look, "reason": "asked by phone"})
    assert response.status_code == 400
    assert wanted(session) == {}


def test_looking_changes_nothing(bob: Visitor, session: Session) -> None:
    make_preference(session, "members", "alice@example.org", True, refusal="banned")
    bob.get(LIST)  # seen_at of the log-in is as late as it gets

    def dump() -> dict[str, Any]:
        with db.engine.connect() as connection:
            return {
                table.name: sorted(map(repr, connection.execute(table.select())))
                for table in Base.metadata.sorted_tables
            }

    before = dump()
    for path in (LIST, f"{LIST}/export", f"{LIST}/export?format=json", "/admin/"):
        bob.client.get(path).get_data()
    for bulk_action in ("subscribe", "unsubscribe", "retry"):
        bob.get(f"{CHANGE}?bulk_action={bulk_action}")
    assert dump() == before


# --- what every page for superusers says first


def test_every_page_for_superusers_says_which_list_needs_a_look(bob: Visitor, session: Session, clock: Clock) -> None:
    for handle in ("members", "board"):
        make_run(session, clock, handle, hours=1)
    make_run(session, clock, "tech", hours=13)
    for path in ("/admin/users", LIST):
        text = bob.get(path).text
        assert "Overdue, no good run within the promised time: Tech ." in text
    make_run(session, clock, "tech", hours=1)
    assert "No good run" not in bob.get(LIST).text
    make_run(session, clock, "tech", "held", hours=0)
    assert "The last run of Tech needs approval." in bob.get(LIST).text


def test_members_and_their_pages_are_told_of_no_alarm(bob: Visitor, alice: Visitor) -> None:
    for text in (bob.get("/account").text, alice.get("/subscriptions").text, alice.get("/admin/", 403).text):
        assert "No good run" not in text
