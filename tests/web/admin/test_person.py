"""What superusers do for one person, where they stand: on the page of the person, and on the answer to why."""

import re

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.extensions import Portal
from portal.models import History, Preference, Run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import Clock, Rosters
from tests.factories import make_address, make_preference, make_user
from tests.web.conftest import Page, Visitor

ALICE = "alice@example.org"
REASON = {"reason": "asked by phone"}


@pytest.fixture
def path(alice: Visitor, people: dict[str, int]) -> str:
    return f"/admin/users/{people['alice']}"


def link(page: Page, words: str) -> str:
    """Where the link of these words leads."""
    found = re.search(rf'<a [^>]*href="([^"]*)"[^>]*>{words}', page.html)
    assert found, words
    return found[1].replace("&amp;", "&")


def chosen(session: Session, handle: str) -> set[bool]:
    found = set(session.scalars(select(Preference.subscribed).where(Preference.list_handle == handle)))
    session.rollback()
    return found


def test_a_person_is_put_on_a_list_and_taken_off_and_the_row_is_in_sight(
    bob: Visitor, path: str, session: Session
) -> None:
    for words, expected in (("Put on", True), ("Take off", False)):
        change = link(bob.get(path), words)
        response = bob.post(change, REASON)
        assert response.headers["Location"] == f"{path}#list-members"
        assert chosen(session, "members") == {expected}
        assert any(each.get("id") == "list-members" for _, each in bob.get(path).tags)


def test_the_answer_to_why_acts_and_leads_back_to_itself(bob: Visitor, path: str, session: Session) -> None:
    make_preference(session, "members", ALICE, False, seen=False, source="list")
    why = "/admin/lists/members/why?q=alice@example.org"
    page = bob.get(why)
    assert f"Why is {ALICE} not on Members?" in page.text
    assert "because they left at the list" in page.text
    assert link(page, "Open alice") == f"{path}#list-members"
    assert link(page, "History") == f"{path}/history"
    assert bob.post(link(page, "Put on"), REASON).headers["Location"].replace("%40", "@") == why
    assert "The next run adds it" in bob.get(why).text
    assert "Take off" in bob.get(why).text
    assert "is not known here" in bob.get("/admin/lists/members/why?q=nobody@example.net").text
    for query in ("", "?q=", "?q=nobody"):
        assert "There is a problem" in bob.get(f"/admin/lists/members/why{query}", 400).text


def test_what_was_just_changed_stands_above_the_list_whatever_is_filtered(bob: Visitor, session: Session) -> None:
    for name in ("dora", "erin"):
        make_user(session, name)
        make_preference(session, "members", f"{name}@example.org", False, seen=False)
    page = bob.get("/admin/lists/members?state=not_subscribed&sort=-address")
    response = bob.post(link(page, "Put on"), REASON)
    where = response.headers["Location"]
    assert where.endswith("#changed")
    assert "state=not_subscribed" in where
    changed = bob.get(where).html.partition('id="changed"')[2].partition("</table>")[0]
    assert "erin@example.org" in changed
    assert "Being added" in changed
    bob.get("/admin/lists/members?changed=0", 400)
    bob.get("/admin/lists/members?changed=987654")


def test_a_person_is_taken_off_all_lists_with_a_reason(bob: Visitor, path: str, session: Session) -> None:
    make_preference(session, "members", ALICE, True, seen=True)
    page = bob.get(f"{path}/off-all-lists")
    assert "Take off 2 lists" in page.text, "the one that is not chosen yet too"
    assert "Enter a reason" in bob.post(f"{path}/off-all-lists", {"reason": " "}, status=422).html
    done = bob.follow(f"{path}/off-all-lists", REASON)
    assert "They are being taken off 2 lists." in done.text
    assert chosen(session, "members") == chosen(session, "tech") == {False}
    assert set(session.scalars(select(History.reason))) == {"asked by phone"}
    session.rollback()
    bob.post(f"{path}/off-all-lists", {**REASON, "shown": "x"}, status=400)


def test_the_history_of_a_person_says_who_did_what(bob: Visitor, path: str, session: Session) -> None:
    assert "Nothing has happened on a mailing list yet." in bob.get(f"{path}/history").text
    bob.post(link(bob.get(path), "Put on"), REASON)
    for page in (bob.get(path), bob.get(f"{path}/history")):
        assert f"bob put {ALICE} on Members: “asked by phone”" in page.text
    assert "There is no such page." in bob.get(f"{path}/history?page=2").text
    bob.get(f"{path}/history?page=0", 400)


# --- what the next run makes of it


def test_a_bulk_action_says_that_the_next_run_needs_approval_and_approves_it(
    bob: Visitor, session: Session, app: Flask, rosters: Rosters, clock: Clock
) -> None:
    portal: Portal = app.extensions["portal"]
    names = [f"user{number:02}" for number in range(40)]
    for name in names:
        make_user(session, name, groups=("staff",) if name < "user08" else ())
        make_preference(session, "members", f"{name}@example.org", True, seen=True)
    rosters.set("members", *(f"{name}@example.org" for name in names))
    change = "/admin/lists/members/change?bulk_action=unsubscribe&group=staff"
    page = bob.get(change)
    assert "The next run will need approval : 8 removals, limit 5." in page.text
    run = bob.follow(change, {**REASON, "approve": "yes"})
    assert "Nothing has been done yet." in run.text
    (asked,) = session.execute(select(Run.id, Run.plan_id, Run.kind)).all()
    session.rollback()
    members = portal.catalogue().get("members")
    done = sync_list(
        session, members, portal.open_list_manager(members), clock=clock, request=Request(only=asked.plan_id)
    )
    assert (done.plan.id, done.counts["removed"]) == (asked.plan_id, 8)


def test_what_needs_no_approval_is_not_said_to(bob: Visitor, session: Session) -> None:
    make_user(session, "dora")
    dora = make_address(session, "dora@example.org")
    session.rollback()
    page = bob.get(f"/admin/lists/members/change?bulk_action=subscribe&address={dora}")
    assert "approval" not in page.text
    assert 'name="approve"' not in page.html
