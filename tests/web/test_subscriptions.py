"""The page with a box for each list, and what happens when it is saved."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.models import Address, History, Preference
from tests.conftest import CATALOGUE, Clock
from tests.factories import make_address, make_preference, make_user
from tests.web.conftest import HASH, PASSWORD, Client, Page, Visitor


def saved(session: Session) -> dict[str, bool]:
    """Handles of the stored preferences, of whatever address, and what they are."""
    session.rollback()
    return {row.list_handle: row.subscribed for row in session.scalars(select(Preference))}


def chosen(page: Page) -> set[str]:
    """The list and the address of each select."""
    return {each["value"] or "" for tag, each in page.tags if tag == "option" and "selected" in each}


def test_every_list_stands_there_with_what_there_is_to_know_about_it(alice: Visitor) -> None:
    page = alice.get("/subscriptions")
    assert "Tick the lists that you want. They are sent to alice@example.org ." in page.text
    assert "News and decisions for all members." in page.text
    assert "members@lists.example.org" in page.text
    assert "https://lists.example.org/archives/members/" in page.html
    assert page.ticked() == set()


def test_a_ticked_box_is_saved_and_the_page_says_so(alice: Visitor, session: Session) -> None:
    page = alice.follow("/subscriptions", {"shown": alice.get("/subscriptions").value("shown"), "lists": ["members"]})
    assert "Saved. You will be added to Members. Changes are applied within 12 hours." in page.text
    assert "Being added Will be added by 22 Nov, 18:00" in page.text.replace("News and decisions for all members. ", "")
    assert page.ticked() == {"members"}
    assert saved(session) == {"members": True}


def test_an_unticked_box_is_saved_and_the_page_says_so(alice: Visitor, session: Session) -> None:
    make_preference(session, "members", "alice@example.org", subscribed=True, seen=True)
    make_preference(session, "tech", "alice@example.org", subscribed=False, seen=False)
    page = alice.follow("/subscriptions", {"shown": alice.get("/subscriptions").value("shown"), "lists": ["tech"]})
    assert "You will be added to Tech and taken off Members." in page.text
    assert saved(session) == {"members": False, "tech": True}


def test_what_is_kept_of_a_row_is_what_the_next_member_would_see(
    alice: Visitor, bob: Visitor, people: dict[str, int], session: Session, clock: Clock
) -> None:
    """A row is made once for all who see it alike: who chose otherwise, or looks in another year, sees another."""
    for name in ("alice", "bob"):
        make_preference(
            session, "members", f"{name}@example.org", True, seen=True, changed_at=clock.now, changed_by=people[name]
        )
    assert alice.get("/subscriptions").text.count("You chose this on 22 Nov .") == 1
    assert bob.get("/subscriptions").ticked() == {"members"}
    # What was saved is shown at once, and to nobody else.
    form = {"shown": bob.get("/subscriptions").value("shown"), "lists": ["tech"]}
    assert bob.follow("/subscriptions", form).ticked() == {"tech"}
    assert alice.get("/subscriptions").ticked() == {"members"}
    assert "alice@example.org" not in bob.get("/subscriptions").html
    clock.advance(days=60)
    alice.log_in("alice")
    assert alice.get("/subscriptions").text.count("You chose this on 22 Nov 2026 .") == 1


def test_a_choice_that_another_tab_has_saved_changes_nothing(alice: Visitor) -> None:
    form = {"shown": alice.get("/subscriptions").value("shown"), "lists": ["members"]}
    assert "note good" in alice.follow("/subscriptions", form).html
    page = alice.follow("/subscriptions", form)
    assert "Nothing was changed." in page.text
    assert "note good" not in page.html


def test_saving_without_a_difference_changes_nothing_and_says_so(alice: Visitor, session: Session) -> None:
    page = alice.follow("/subscriptions", {"shown": alice.get("/subscriptions").value("shown")})
    assert "Nothing was changed." in page.text
    assert saved(session) == {}


def test_a_box_that_went_stale_in_another_tab_is_left_as_it_is(alice: Visitor, session: Session) -> None:
    old = alice.get("/subscriptions").value("shown")
    alice.follow("/subscriptions", {"shown": old, "lists": ["members"]})
    alice.follow("/subscriptions", {"shown": old, "lists": ["tech"]})
    assert saved(session) == {"members": True, "tech": True}


@pytest.mark.parametrize("tampering", ["", "x", "eyJhIjoxfQ.abc", "\0", "é" * 50])
def test_an_altered_form_saves_nothing_and_shows_the_page_again(
    alice: Visitor, session: Session, tampering: str
) -> None:
    page = alice.post("/subscriptions", {"shown": tampering, "lists": ["members"]}, status=400)
    assert page.title.startswith("Error: Your mailing lists")
    assert "nothing was saved" in page.text
    assert saved(session) == {}


def test_a_form_of_somebody_else_saves_nothing(alice: Visitor, bob: Visitor, session: Session) -> None:
    foreign = bob.get("/subscriptions").value("shown")
    alice.post("/subscriptions", {"shown": foreign, "lists": ["members"]}, status=400)
    assert saved(session) == {}


def test_a_list_outside_the_audience_is_neither_shown_nor_reached(alice: Visitor, session: Session) -> None:
    page = alice.get("/subscriptions")
    assert "Board" not in page.html
    alice.follow("/subscriptions", {"shown": page.value("shown"), "lists": ["board", "nonsense", "\0", "-rf"]})
    assert saved(session) == {}


def test_an_address_of_somebody_else_is_refused(alice: Visitor, session: Session) -> None:
    other = make_address(session, "bob@example.org")
    session.rollback()
    form = {"shown": alice.get("/subscriptions").value("shown"), "lists": ["members"], "addresses": f"members:{other}"}
    response = alice.client.post("/subscriptions", data={"csrf_token": alice.get("/account").token, **form})
    assert 400 <= response.status_code < 500
    assert saved(session) == {}


@pytest.mark.parametrize("address", ["0", "-1", "9" * 30, "x", "1e3", "\0", "9" * 5000])
def test_an_address_that_is_no_number_of_one_is_refused(alice: Visitor, session: Session, address: str) -> None:
    form = {
        "shown": alice.get("/subscriptions").value("shown"),
        "lists": ["members"],
        "addresses": f"members:{address}",
    }
    alice.post("/subscriptions", form, status=400)
    assert saved(session) == {}


def test_whoever_holds_several_addresses_chooses_where_lists_send_to(visitor: Visitor, session: Session) -> None:
    make_user(session, "dora", "dora@example.org", "dora@home.example.org", password_hash=HASH)
    visitor.log_in("dora")
    page = visitor.get("/subscriptions")
    home, main = make_address(session, "dora@home.example.org"), make_address(session, "dora@example.org")
    session.rollback()
    assert chosen(page) == {f"members:{main}", f"tech:{main}"}
    form = {"lists": ["tech"], "addresses": [f"members:{home}", f"tech:{home}"]}
    page = visitor.follow("/subscriptions", form)
    assert chosen(page) == {f"members:{main}", f"tech:{home}"}
    page = visitor.follow("/subscriptions", {"lists": ["tech"], "addresses": [f"members:{main}", f"tech:{main}"]})
    assert "Saved. Tech will be sent to dora@example.org." in page.text
    assert chosen(page) == {f"members:{main}", f"tech:{main}"}


def test_a_list_that_was_left_in_another_tab_is_not_moved_by_the_old_page(visitor: Visitor, session: Session) -> None:
    make_user(session, "dora", "dora@example.org", "dora@home.example.org", password_hash=HASH)
    visitor.log_in("dora")
    home = make_address(session, "dora@home.example.org")
    session.rollback()
    visitor.follow("/subscriptions", {"lists": ["tech"]})
    old = visitor.get("/subscriptions").value("shown")
    visitor.follow("/subscriptions", {})
    page = visitor.follow("/subscriptions", {"shown": old, "lists": ["tech"], "addresses": f"tech:{home}"})
    assert "Tech was changed after you opened the page" in page.text
    assert page.ticked() == set()


def test_a_shared_mailbox_is_said_to_be_shared(visitor: Visitor, people: dict[str, int], session: Session) -> None:
    make_user(session, "dora", "alice@example.org", password_hash=HASH)
    visitor.log_in("dora")
    assert "You share this mailbox with other accounts" in visitor.get("/subscriptions").text


def test_the_page_takes_two_statements_whatever_there_is(app: Flask, alice: Visitor, session: Session) -> None:
    statements: list[str] = []

    def count(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        if not statement.startswith(("BEGIN", "PRAGMA")):
            statements.append(statement)

    alice.get("/subscriptions")
    with app.app_context():
        event.listen(db.engine, "before_cursor_execute", count)
        alice.get("/subscriptions")
        event.remove(db.engine, "before_cursor_execute", count)
    assert 1 <= len(statements) <= 2, statements


def test_where_the_facility_is_off_no_form_is_shown_and_a_post_is_refused(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int]
) -> None:
    (instance / "mailinglists.toml").unlink()
    app = make_app()
    app.test_client_class = Client
    alice = Visitor(app.test_client())
    alice.log_in("alice")
    page = alice.get("/subscriptions")
    assert "not offered" in page.text
    assert "Tick the lists" not in page.text
    alice.post("/subscriptions", {"lists": ["members"]}, page="/account", status=503)


def test_an_invalid_catalogue_stops_the_lists_alone(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int]
) -> None:
    (instance / "mailinglists.toml").write_text("enabled = true\nnonsense = 1\n")
    app = make_app()
    app.test_client_class = Client
    alice = Visitor(app.test_client())
    alice.log_in("alice")
    page = alice.get("/subscriptions", 503)
    assert "nonsense" not in page.text
    assert "toml" not in page.text
    assert "Log out" in page.text
    alice.get("/account")


def test_forty_lists_with_long_names_stand_there_and_are_saved(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int]
) -> None:
    name = "\N{GRINNING FACE}" * 119
    lists = "".join(f'[lists.l{n}]\nname = "{name}{n % 10}"\nemail = "l{n}@lists.example.org"\n' for n in range(40))
    files = CATALOGUE[CATALOGUE.index("[managers") :].replace('"rosters"', f'"{instance}/rosters"')
    (instance / "mailinglists.toml").write_text(f"enabled = true\n{lists}{files}")
    app = make_app()
    app.test_client_class = Client
    alice = Visitor(app.test_client())
    alice.log_in("alice")
    everything = [f"l{n}" for n in range(40)]
    before = alice.get("/subscriptions")
    page = alice.follow("/subscriptions", {"shown": before.value("shown"), "lists": everything})
    assert "Saved. You will be added to" in page.text
    assert page.ticked() == set(everything)


@pytest.fixture
def dora(visitor: Visitor, session: Session) -> Visitor:
    """Dora has two addresses; Members goes to the second one, which she shares with nobody."""
    make_user(session, "dora", "dora@example.org", "home@example.org", password_hash=HASH)
    make_preference(session, "members", "home@example.org", subscribed=True, seen=True)
    visitor.log_in("dora")
    return visitor


def addresses_of(session: Session) -> dict[str, set[str]]:
    """Which addresses each list sends to."""
    session.rollback()
    rows = session.execute(
        select(Preference.list_handle, Address.canonical).join(Address).where(Preference.subscribed)
    ).all()
    return {handle: {name for each, name in rows if each == handle} for handle, _ in rows}


def test_the_page_says_where_each_list_is_sent_and_sends_all_to_the_main_address(
    dora: Visitor, session: Session
) -> None:
    page = dora.get("/subscriptions")
    assert "They are sent to dora@example.org unless another address is shown." in page.text
    assert "Sent to home@example.org" in page.text
    assert "Send all your lists to dora@example.org" in page.text
    page = dora.follow("/subscriptions/send-to-main", {"shown": page.value("shown")}, page="/subscriptions")
    assert "Members will be sent to dora@example.org." in page.text
    assert "Send all your lists" not in page.text
    assert addresses_of(session) == {"members": {"dora@example.org"}}


def test_what_was_chosen_in_another_tab_is_not_sent_to_the_main_address(dora: Visitor, session: Session) -> None:
    old = dora.get("/subscriptions").value("shown")
    dora.follow("/subscriptions", {"shown": old, "lists": ["tech"]})
    page = dora.follow("/subscriptions/send-to-main", {"shown": old}, page="/subscriptions")
    assert "Members was changed after you opened the page" in page.text
    assert addresses_of(session) == {"tech": {"dora@example.org"}}
    page = dora.post("/subscriptions/send-to-main", {"shown": "x"}, page="/subscriptions", status=400)
    assert "nothing was saved" in page.text


def test_an_untick_says_where_a_list_is_still_sent(dora: Visitor, session: Session) -> None:
    make_user(session, "erin", "dora@example.org")
    make_preference(session, "members", "dora@example.org", subscribed=True, seen=True)
    page = dora.follow("/subscriptions", {"shown": dora.get("/subscriptions").value("shown")})
    assert "Members will still be sent to dora@example.org, which others use too." in page.text
    assert addresses_of(session) == {"members": {"dora@example.org"}}
    page = dora.follow("/subscriptions", {"shown": page.value("shown")})
    assert "You will be taken off Members." in page.text
    assert addresses_of(session) == {}


def test_the_account_page_shows_the_addresses_what_each_is_sent_and_whom_to_ask(dora: Visitor) -> None:
    page = dora.get("/account")
    assert "home@example.org 1 list is sent here." in page.text
    assert "To add, change or remove an address, ask the help desk." in page.text


def test_times_are_those_of_the_configured_zone(
    make_app: Callable[..., Flask], people: dict[str, int], clock: Clock, session: Session
) -> None:
    make_preference(
        session,
        "members",
        "alice@example.org",
        True,
        changed_at=clock.now - timedelta(hours=1),
        touched=True,
        seen=False,
    )
    app = make_app(PORTAL_TIMEZONE="Europe/Helsinki")
    app.test_client_class = Client
    alice = Visitor(app.test_client())
    alice.follow("/login", {"username": "alice", "password": PASSWORD})
    assert '<time datetime="2026-11-22T19:00:00+02:00">22 Nov, 19:00</time>' in alice.get("/subscriptions").html


# --- leaving all lists


def left_all(visitor: Visitor, page: Page) -> Page:
    """Press the button of the page that asks."""
    return visitor.follow("/subscriptions/leave", {"shown": page.value("shown")})


def test_all_lists_are_left_in_one_step_after_one_question(alice: Visitor, session: Session) -> None:
    make_preference(session, "members", "alice@example.org", subscribed=True, seen=True)
    make_preference(session, "tech", "alice@example.org", subscribed=True, seen=False, touched=True)
    assert "/subscriptions/leave" in alice.get("/subscriptions").html
    page = alice.get("/subscriptions/leave")
    assert "Members Subscribed Tech Being added" in page.text
    assert "You will be taken off within 12 hours." in page.text
    assert saved(session) == {"members": True, "tech": True}
    page = left_all(alice, page)
    assert "Saved. You will be taken off Members and Tech. Changes are applied within 12 hours." in page.text
    assert saved(session) == {"members": False, "tech": False}
    assert "/subscriptions/leave" not in page.html
    history = session.scalars(select(History)).all()
    assert {(each.list_handle, each.subscribed, each.source, each.actor) for each in history} == {
        ("members", False, "user", "alice"),
        ("tech", False, "user", "alice"),
    }


def test_who_leaves_all_lists_leaves_those_too_that_they_never_chose(alice: Visitor, session: Session) -> None:
    make_preference(session, "members", "alice@example.org", subscribed=True, seen=True)
    page = alice.get("/subscriptions/leave")
    assert "Tech Not chosen yet" in page.text
    left_all(alice, page)
    assert saved(session) == {"members": False, "tech": False}


def test_own_addresses_leave_and_a_shared_mailbox_where_no_other_was_subscribed(
    visitor: Visitor, people: dict[str, int], session: Session
) -> None:
    make_user(session, "dora", "dora@example.org", "alice@example.org", password_hash=HASH)
    make_preference(session, "members", "dora@example.org", subscribed=True, seen=True)
    make_preference(session, "members", "alice@example.org", subscribed=True, seen=True)
    visitor.log_in("dora")
    page = visitor.get("/subscriptions/leave")
    assert "If a list is sent only there, all of you leave it." in page.text
    page = left_all(visitor, page)
    assert "Members will still be sent to alice@example.org, which others use too." in page.text
    assert addresses_of(session) == {"members": {"alice@example.org"}}
    left_all(visitor, visitor.get("/subscriptions/leave"))
    assert addresses_of(session) == {}


def test_a_list_that_the_question_had_not_named_is_not_left(alice: Visitor, session: Session) -> None:
    make_preference(session, "members", "alice@example.org", subscribed=True, seen=True)
    make_preference(session, "tech", "alice@example.org", subscribed=False, seen=False)
    page = alice.get("/subscriptions/leave")
    assert "Tech" not in page.text
    alice.follow("/subscriptions", {"shown": alice.get("/subscriptions").value("shown"), "lists": ["members", "tech"]})
    left_all(alice, page)
    assert saved(session) == {"members": False, "tech": True}


@pytest.mark.parametrize("tampering", ["", "x", "eyJhIjoxfQ.abc"])
def test_an_altered_question_leaves_nothing(alice: Visitor, session: Session, tampering: str) -> None:
    make_preference(session, "members", "alice@example.org", subscribed=True, seen=True)
    page = alice.post("/subscriptions/leave", {"shown": tampering}, status=400)
    assert isinstance(page, Page)
    assert page.title.startswith("Error: Leave all mailing lists")
    assert "nothing was saved" in page.text
    assert saved(session) == {"members": True}


def test_who_is_on_no_list_has_none_to_leave(alice: Visitor, session: Session) -> None:
    for handle in ("members", "tech"):
        make_preference(session, handle, "alice@example.org", subscribed=False, seen=False)
    assert "so there is nothing to leave" in alice.get("/subscriptions/leave").text
    assert "Leave all lists" not in alice.get("/subscriptions").text


def test_where_the_lists_are_not_enabled_there_is_none_to_leave(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int]
) -> None:
    path = instance / "mailinglists.toml"
    path.write_text(path.read_text().replace("enabled = true", "enabled = false"))
    app = make_app()
    app.test_client_class = Client
    alice = Visitor(app.test_client())
    alice.log_in("alice")
    assert "Leave all lists" not in alice.get("/subscriptions/leave").text


# --- a save after the log-in had ended


def test_a_save_after_the_log_in_ended_is_shown_once_more_and_saved_only_then(
    alice: Visitor, clock: Clock, session: Session
) -> None:
    make_preference(session, "members", "alice@example.org", subscribed=True, seen=True)
    page = alice.get("/subscriptions")
    clock.advance(hours=13)
    form = {**page.hidden("/subscriptions"), "lists": ["tech"]}
    response = alice.client.post("/subscriptions", data=form)
    assert response.headers["Location"] == "/login?next=/subscriptions"
    assert "nothing has been saved yet" in alice.get(response.headers["Location"]).text
    alice.log_in("alice")
    page = alice.get("/subscriptions")
    assert 'data-note="unsaved"' in page.html
    assert page.ticked() == {"tech"}
    assert saved(session) == {"members": True}
    alice.follow("/subscriptions", {"lists": list(page.ticked())})
    assert saved(session) == {"members": False, "tech": True}
    assert 'data-note="unsaved"' not in alice.get("/subscriptions").html


def test_the_address_that_was_chosen_is_kept_too(visitor: Visitor, clock: Clock, session: Session) -> None:
    make_user(session, "dora", "dora@example.org", "dora@home.example.org", password_hash=HASH)
    visitor.log_in("dora")
    main, home = make_address(session, "dora@example.org"), make_address(session, "dora@home.example.org")
    session.rollback()
    form = visitor.get("/subscriptions").hidden("/subscriptions")
    clock.advance(hours=13)
    addresses = [f"members:{home}", f"tech:{home}"]
    visitor.client.post("/subscriptions", data={**form, "lists": "tech", "addresses": addresses})
    visitor.log_in("dora")
    assert chosen(visitor.get("/subscriptions")) == {f"members:{main}", f"tech:{home}"}


def test_what_one_member_did_not_save_is_not_shown_to_another(
    alice: Visitor, people: dict[str, int], clock: Clock
) -> None:
    form = alice.get("/subscriptions").hidden("/subscriptions")
    clock.advance(hours=13)
    alice.client.post("/subscriptions", data={**form, "lists": "tech"})
    alice.log_in("bob")
    page = alice.get("/subscriptions")
    assert (page.ticked(), 'data-note="unsaved"' in page.html) == (set(), False)


def test_a_page_of_an_earlier_log_in_keeps_its_choice_and_saves_nothing(
    alice: Visitor, clock: Clock, session: Session
) -> None:
    form = alice.get("/subscriptions").hidden("/subscriptions")
    clock.advance(hours=13)
    alice.log_in("alice")
    page = Page(alice.client.post("/subscriptions", data={**form, "lists": "tech"}))
    assert (page.status, page.ticked(), saved(session)) == (400, {"tech"}, {})
    assert 'data-note="unsaved"' in page.html
    alice.client.post("/subscriptions", data={**page.hidden("/subscriptions"), "lists": "tech"})
    assert saved(session) == {"tech": True}


@pytest.mark.parametrize("shown", ["", "x", None])
def test_what_no_page_had_shown_is_not_kept(alice: Visitor, bob: Visitor, clock: Clock, shown: str | None) -> None:
    form = {"shown": bob.get("/subscriptions").value("shown") if shown is None else shown, "lists": "tech"}
    clock.advance(hours=13)
    alice.client.post("/subscriptions", data=form)
    alice.log_in("alice")
    assert alice.get("/subscriptions").ticked() == set()
    assert alice.client.post("/subscriptions", data={**form, "shown": "x"}).status_code == 400


def test_a_choice_that_the_cookie_cannot_hold_is_not_kept(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int], clock: Clock
) -> None:
    lists = "".join(f'[lists.{"l" * 60}{n}]\nname = "L"\nemail = "l{n}@lists.example.org"\n' for n in range(60))
    files = CATALOGUE[CATALOGUE.index("[managers") :].replace('"rosters"', f'"{instance}/rosters"')
    (instance / "mailinglists.toml").write_text(f"enabled = true\n{lists}{files}")
    app = make_app()
    app.test_client_class = Client
    alice = Visitor(app.test_client())
    alice.log_in("alice")
    form = alice.get("/subscriptions").hidden("/subscriptions")
    clock.advance(hours=13)
    alice.client.post("/subscriptions", data={**form, "lists": [f"{'l' * 60}{n}" for n in range(60)]})
    alice.log_in("alice")
    page = alice.get("/subscriptions")
    assert page.ticked() == set()
    assert len(alice.cookie()) < 4_000
