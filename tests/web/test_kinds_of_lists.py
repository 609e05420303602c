"""Members' page where lists have sections, are not listed, cannot be left, or have settings of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.models import History, Preference, Run
from tests.conftest import CATALOGUE, Clock
from tests.factories import make_preference, make_user
from tests.web.conftest import HASH, Page, Visitor

ALICE = "alice@example.org"
Offer = Callable[..., None]


@pytest.fixture
def offer(app: Flask, instance: Path) -> Offer:
    """Offer lists in the place of those that there were: for each a handle, or a handle and what else is in its table."""

    def write(*lists: str | tuple[str, str]) -> None:
        named = [each if isinstance(each, tuple) else (each, "") for each in lists]
        tables = (
            f'[lists.{handle}]\nname = "{handle.title()}"\nemail = "{handle}@lists.example.org"\n{more}\n'
            for handle, more in named
        )
        text = "enabled = true\n" + "".join(tables) + CATALOGUE[CATALOGUE.index("[managers") :]
        (instance / "mailinglists.toml").write_text(text)
        app.extensions["portal"].catalogue.cache_clear()

    return write


def saved(session: Session) -> dict[str, bool]:
    session.rollback()
    return {row.list_handle: row.subscribed for row in session.scalars(select(Preference))}


def boxes(page: Page) -> list[str]:
    return [each["value"] or "" for tag, each in page.tags if tag == "input" and each.get("type") == "checkbox"]


def test_sections_stand_in_the_order_of_the_file_each_once(alice: Visitor, offer: Offer) -> None:
    regions, topics = 'section = "Regions"', 'section = "Topics & <more>"'
    offer("news", ("north", regions), ("routing", topics), ("south", regions))
    page = alice.get("/subscriptions")
    assert boxes(page) == ["news", "north", "south", "routing"]
    assert page.html.count('<h2 id="section-') == 2
    assert page.html.index("Regions</h2>") < page.html.index("Topics &amp; &lt;more&gt;</h2>")
    offer(("north", regions), "news")
    page = alice.get("/subscriptions")
    assert page.html.index("Regions</h2>") < page.html.index("Other lists</h2>")


def test_from_twenty_lists_on_the_page_can_be_filtered_and_a_save_changes_what_was_shown(
    alice: Visitor, offer: Offer, session: Session
) -> None:
    handles = [f"list{number}" for number in range(20)]
    offer(*handles[:19])
    assert "Filter" not in alice.get("/subscriptions").text
    offer(*handles[:19], ("zurich", 'desc = "Zürich, Genève"'))
    make_preference(session, "list3", ALICE, subscribed=True, seen=True)
    assert "Save your changes before you filter." in alice.get("/subscriptions").text
    page = alice.get("/subscriptions?q=GENEVE+zurich")
    assert boxes(page) == ["zurich"]
    assert "1 of 20 lists. Saving does not change the others." in page.text
    response = alice.post("/subscriptions?q=zurich", {"lists": ["zurich"]})
    assert isinstance(response, TestResponse)
    assert response.headers["Location"] == "/subscriptions?q=zurich"
    assert saved(session) == {"list3": True, "zurich": True}
    page = alice.get("/subscriptions?q=nothing-like-that")
    assert "No matching lists." in page.text
    assert boxes(page) == []
    assert len(boxes(alice.get("/subscriptions?q=%00"))) == 20


HIDDEN = ("secret", "listed = false\nsyncpws = true")


def test_a_list_that_is_not_listed_is_nowhere_for_whoever_is_not_on_it(
    alice: Visitor, visitor: Visitor, offer: Offer, session: Session
) -> None:
    offer(("members", "syncpws = false"), HIDDEN)
    make_preference(session, "secret", ALICE, subscribed=False, seen=False, source="init")
    for path in ("/subscriptions", "/subscriptions/leave", "/account", "/account/history", "/leave"):
        assert "secret" not in alice.get(path).html.lower(), path
    alice.follow("/subscriptions", {"lists": ["members", "secret"]})
    assert saved(session) == {"members": True, "secret": False}


def test_who_is_on_a_list_that_is_not_listed_sees_it_and_can_leave_it(
    alice: Visitor, offer: Offer, session: Session
) -> None:
    offer("members", HIDDEN)
    make_preference(session, "secret", ALICE, subscribed=True, seen=True, source="superuser")
    before = alice.get("/subscriptions")
    assert before.ticked() == {"secret"}
    alice.follow("/subscriptions", {"lists": []})
    assert saved(session) == {"secret": False}
    assert boxes(alice.get("/subscriptions")) == ["members", "secret"], "until the run has taken her off"
    session.scalars(select(Preference)).one().seen = False
    session.commit()
    assert boxes(alice.get("/subscriptions")) == ["members"]
    alice.follow("/subscriptions", {"shown": before.value("shown"), "lists": ["secret"]})
    alice.client.post(
        "/subscriptions", data={"csrf_token": before.token, "shown": before.value("shown"), "lists": ["secret"]}
    )
    assert saved(session) == {"secret": False}, "an old page does not let her in again"


LOCKED = ("official", "can_leave = false")


def test_a_list_that_cannot_be_left_is_locked_and_says_why_within_reach_of_a_keyboard(
    alice: Visitor, offer: Offer, session: Session
) -> None:
    offer("members", LOCKED)
    assert not any("disabled" in each for _, each in alice.get("/subscriptions").tags), "ticking is possible"
    alice.follow("/subscriptions", {"lists": ["official"]})
    page = alice.get("/subscriptions")
    locked = [each["value"] for tag, each in page.tags if tag == "input" and "disabled" in each]
    assert locked == ["official"]
    assert "Members stay on this list, so it cannot be unticked." in page.text
    assert "<summary>Why is it locked?" in page.html
    page = alice.follow("/subscriptions", {"lists": ["members", "official"]})
    assert "You will be added to Members." in page.text, "the page's own form is no try to leave"


@pytest.mark.parametrize("page", ["/subscriptions", "/subscriptions/leave"])
def test_a_form_that_unticks_a_list_that_cannot_be_left_is_refused(
    alice: Visitor, offer: Offer, session: Session, page: str
) -> None:
    offer("official")
    make_preference(session, "official", ALICE, subscribed=True, seen=True)
    shown = alice.get(page).value("shown")
    offer(LOCKED)
    after = alice.follow(page, {"shown": shown, "lists": []}, page="/subscriptions")
    assert "Nothing was changed. Members cannot leave Official here." in after.text
    assert saved(session).pop("official")
    assert "Official" not in alice.get("/subscriptions/leave").text


def test_a_list_that_cannot_be_left_can_still_be_sent_to_another_address(
    visitor: Visitor, offer: Offer, session: Session
) -> None:
    offer(LOCKED)
    make_user(session, "dora", "dora@example.org", "home@example.org", password_hash=HASH)
    make_preference(session, "official", "home@example.org", subscribed=True, seen=True)
    visitor.log_in("dora")
    page = visitor.follow("/subscriptions/send-to-main", {}, page="/subscriptions")
    assert "Official will be sent to dora@example.org." in page.text


def test_superusers_read_who_left_a_list_that_members_cannot_leave_here(
    bob: Visitor, offer: Offer, session: Session, clock: Clock
) -> None:
    offer("members", LOCKED)
    for number, source in enumerate(["list", "link", "superuser"]):
        name = f"person{number}@example.org"
        for handle in ("members", "official"):
            make_preference(session, handle, name, subscribed=False, seen=False, source=source, changed_at=clock())
    page = bob.get("/admin/")
    assert "Official : 2 addresses left a list that members cannot leave here." in page.text
    assert page.html.count('data-note="leaves"') == 1
    assert "members cannot leave it here" in bob.get("/admin/lists/official").text
    clock.advance(days=31)
    bob.log_in("bob")
    assert 'data-note="leaves"' not in bob.get("/admin/").html


def test_settings_at_the_list_are_shown_to_whoever_is_on_it(alice: Visitor, offer: Offer, session: Session) -> None:
    place = 'settings_url = "https://lists.example.org/options/{address}"'
    offer(("members", place), ("tech", place))
    make_preference(session, "members", ALICE, subscribed=True, seen=True)
    make_preference(session, "tech", ALICE, subscribed=True, seen=False)
    page = alice.get("/subscriptions")
    links = [each["href"] for tag, each in page.tags if tag == "a" and "/options/" in (each["href"] or "")]
    assert links == ["https://lists.example.org/options/alice%40example.org"]
    assert "Digest, pause, password: your settings at the list" in page.text


def test_superusers_put_people_on_a_list_that_is_not_listed_on_their_page(
    bob: Visitor, people: dict[str, int], offer: Offer
) -> None:
    offer("news", ("crew", "listed = false"))
    assert "Crew" not in bob.get("/subscriptions").text
    assert "Put on Crew" in bob.get(f"/admin/users/{people['alice']}").text


def test_a_new_member_is_told_that_the_list_adds_them_and_afterwards_that_it_did(
    alice: Visitor, offer: Offer, session: Session, clock: Clock
) -> None:
    offer(("members", 'new_members = "subscribed"'))
    assert alice.get("/subscriptions").ticked() == set(), "the list has had no good run yet"
    long_ago = clock().replace(year=2025)
    session.add(
        Run(list_handle="members", kind="sync", asked_by="", state="done", started_at=long_ago, finished_at=long_ago)
    )
    session.commit()
    page = alice.get("/subscriptions")
    assert page.ticked() == {"members"}
    assert "Being added New members are added to this list at its next update." in page.text
    make_preference(session, "members", ALICE, subscribed=True, seen=True, source="rule", changed_at=clock())
    address_id = session.scalars(select(Preference.address_id)).one()
    line = {"list_handle": "members", "address_id": address_id, "address": ALICE, "subscribed": True, "source": "rule"}
    session.add(History(at=clock(), reason="new member", **line))
    session.commit()
    assert "Added on 22 Nov , because you were a new member." in alice.get("/subscriptions").text
    assert "Members was ticked for you as a new member" in alice.get("/account/history").text


def test_the_page_says_within_a_few_minutes_as_the_last_runs_were(
    alice: Visitor, offer: Offer, session: Session, clock: Clock
) -> None:
    at_once = 'apply = "at once"'
    offer(("members", at_once))
    assert "Changes are applied within 12 hours." in alice.get("/subscriptions").text
    lately = clock().replace(hour=0)
    run = {"list_handle": "members", "kind": "sync", "asked_by": "a change", "state": "done"}
    session.add(Run(**run, asked_at=lately, started_at=lately, finished_at=lately.replace(second=50)))
    session.commit()
    soon = "Changes are applied within a few minutes, at the latest within 12 hours."
    assert "Usually applied within a few minutes." in alice.get("/subscriptions").text
    page = alice.follow("/subscriptions", {"lists": ["members"]})
    assert f"Saved. You will be added to Members. {soon}" in page.text
    assert "Will be added within a few minutes, by 22 Nov, 18:00 at the latest." in page.text
    offer(("members", at_once), "tech")
    page = alice.get("/subscriptions")
    assert "Applied within 12 hours, on some lists sooner." in page.text
