"""Preferences from another system: what is taken over, what is not, and that a first run then waits for a yes."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from portal import database
from portal.domain import ixp_manager
from portal.errors import BadInputError, DisabledError, SafetyLimitError
from portal.extensions import db
from portal.models import Address, History, Preference, UserAddress
from portal.services.preferences.from_ixp_manager import ImportResult, ListCounts, import_preferences
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import SERVER, Clock, Rosters
from tests.factories import NOW, make_address, make_preference, make_user
from tests.listening import listening
from tests.waiting import wait_until

ROWS = "username,email,attribute,value\n"
Run = Callable[..., ImportResult]


@pytest.fixture
def run(app, session: Session, clock: Clock) -> Run:
    def run(content: str | bytes, *, is_dry: bool = False) -> ImportResult:
        raw = content.encode() if isinstance(content, str) else content
        catalogue = app.extensions["portal"].catalogue()
        return import_preferences(session, raw, catalogue=catalogue, now=clock(), is_dry=is_dry)

    return run


def row(user: str, handle: str, value: str, *, email: str = "") -> str:
    return f"{user},{email},mailinglist.{handle}.subscribed,{value}\n"


def stored(session: Session, handle: str = "members") -> dict[str, bool]:
    rows = session.execute(
        select(Address.canonical, Preference.subscribed)
        .join(Preference, Preference.address_id == Address.id)
        .where(Preference.list_handle == handle)
    ).all()
    session.rollback()
    return {address.partition("@")[0]: subscribed for address, subscribed in rows}


def counts(found: ImportResult, handle: str = "members") -> dict[str, int]:
    (of_list,) = (each for each in found.lists if each.handle == handle)
    return {name: count for name, count in of_list._asdict().items() if count and name != "handle"}


def skipped(found: ImportResult) -> dict[str, int]:
    return {each.reason: each.times for each in found.skipped}


@pytest.fixture
def cast(session: Session) -> None:
    for name in ("alice", "bob", "charlie"):
        make_user(session, name)


OLD = ROWS + row("alice", "members", "1") + row("bob", "members", "0") + row("", "tech", "1", email="ALICE@example.org")
ENTRIES = [dict(zip(ixp_manager.COLUMNS, line.split(","), strict=True)) for line in OLD.splitlines()[1:]]


@pytest.mark.parametrize("content", [OLD, json.dumps(ENTRIES)], ids=["csv", "json"])
def test_csv_and_json_fill_in_the_same_preferences(session, cast, run, content):
    found = run(content)
    assert found.skipped == ()
    assert stored(session) == {"alice": True, "bob": False}
    assert stored(session, "tech") == {"alice": True}
    assert found.lists == (
        ListCounts("members", 1, 1, 0, 0), ListCounts("tech", 1, 0, 0, 0), ListCounts("board", 0, 0, 0, 0)
    )  # fmt: skip


def test_a_preference_is_one_that_no_run_has_seen_and_nobody_has_just_chosen_and_history_tells_of_it(
    session, cast, run, clock
):
    run(OLD)
    alice = session.scalars(select(Preference).where(Preference.list_handle == "tech")).one()
    assert (alice.source, alice.changed_at, alice.changed_by) == ("import", clock(), None)
    assert (alice.seen, alice.touched, alice.departed, alice.waiting_since) == (None, False, False, None)
    lines = session.scalars(select(History).order_by(History.list_handle, History.address)).all()
    assert [(each.list_handle, each.address, each.subscribed, each.source, each.actor) for each in lines] == [
        ("members", "alice@example.org", True, "import", "command line"),
        ("members", "bob@example.org", False, "import", "command line"),
        ("tech", "alice@example.org", True, "import", "command line"),
    ]


def test_a_second_import_changes_nothing(session, cast, run):
    run(OLD)
    found = run(OLD)
    assert counts(found) == {"kept": 2}
    assert len(session.scalars(select(History)).all()) == 3


def test_what_is_stored_stays_whatever_the_file_says(session, cast, run):
    for name, subscribed in (("alice", True), ("bob", False), ("charlie", True)):
        make_preference(session, "members", f"{name}@example.org", subscribed, touched=True, refusal="banned")
    found = run(ROWS + row("alice", "members", "0") + row("bob", "members", "1") + row("charlie", "members", "1"))
    assert stored(session) == {"alice": True, "bob": False, "charlie": True}
    assert counts(found) == {"refused": 1, "kept": 2}
    rows = session.scalars(select(Preference)).all()
    assert {(each.source, each.version, each.touched, each.refusal) for each in rows} == {("user", 0, True, "banned")}
    assert session.scalars(select(History)).all() == []


@pytest.mark.slow
@given(before=st.sampled_from([None, True, False]), values=st.lists(st.sampled_from("01"), min_size=1, max_size=4))
def test_a_no_is_never_made_a_yes(app, before, values):
    with app.app_context(), Session(db.engine) as session:
        for table in (Preference, UserAddress, Address):
            session.execute(table.__table__.delete())
        name = f"u{session.connection().exec_driver_sql('SELECT count(*) FROM users').scalar_one()}"
        session.commit()
        make_user(session, name)
        if before is not None:
            make_preference(session, "members", f"{name}@example.org", before)
        file = ROWS + "".join(row(name, "members", value) for value in values)
        catalogue = app.extensions["portal"].catalogue()
        import_preferences(session, file.encode(), catalogue=catalogue, now=NOW, is_dry=False)
        assert stored(session) == {name: "0" not in values if before is None else before}


def test_of_two_who_share_a_mailbox_and_disagree_the_one_who_left_wins(session, run):
    make_user(session, "alice", "team@example.org")
    make_user(session, "bob", "team@example.org")
    found = run(ROWS + row("alice", "members", "0") + row("bob", "members", "1"))
    assert stored(session) == {"team": False}
    assert skipped(found) == {"both yes and no for one address; no was used": 1}
    assert found.skipped[0].examples == ("line 3: team@example.org on members",)


def test_a_yes_is_for_the_main_address_and_a_no_for_all(session, run):
    make_user(session, "alice", "alice@example.org", "alice@home.example.org", "team@example.org")
    make_user(session, "bob", "bob@example.org", "team@example.org")
    run(ROWS + row("alice", "members", "1") + row("alice", "tech", "0"))
    rows = session.execute(
        select(Preference.list_handle, Address.canonical, Preference.subscribed)
        .join(Address, Address.id == Preference.address_id)
        .order_by(Preference.list_handle, Address.canonical)
    ).all()
    assert rows == [
        ("members", "alice@example.org", True),
        ("members", "alice@home.example.org", False),
        ("tech", "alice@example.org", False),
        ("tech", "alice@home.example.org", False),
        ("tech", "team@example.org", False),
    ]


def test_whoever_gets_the_list_at_another_address_already_keeps_it_there(session, run):
    make_user(session, "alice", "alice@example.org", "second@example.org")
    make_preference(session, "members", "second@example.org", True)
    found = run(ROWS + row("alice", "members", "1"))
    assert stored(session) == {"alice": False, "second": True}
    assert counts(found) == {"kept": 1, "unsubscribed": 1}


def test_a_user_named_twice_gets_the_list_at_one_address(session, run):
    make_user(session, "alice", "alice@example.org", "second@example.org")
    found = run(ROWS + row("alice", "members", "1") + row("", "members", "1", email="second@example.org"))
    assert stored(session) == {"alice": True, "second": False}
    assert found.skipped == ()


def test_a_row_with_an_address_alone_is_about_the_mailbox(session, run):
    make_user(session, "alice", "alice@example.org", "team@example.org")
    make_user(session, "bob", "bob@example.org", "team@example.org")
    run(ROWS + row("", "members", "0", email="Team@Example.ORG"))
    assert stored(session) == {"team": False}


def test_an_unknown_username_gives_way_to_the_address_beside_it(session, cast, run):
    run(ROWS + row("al", "members", "1", email="alice@example.org"))
    assert stored(session) == {"alice": True}


def test_what_cannot_be_imported_is_reported_and_stops_nothing(session, cast, run):
    make_user(session, "dora", is_active=False)
    make_address(session, "nobodys@example.org")
    session.commit()
    found = run(
        ROWS
        + row("eve", "members", "1")
        + row("", "members", "1", email="nobodys@example.org")
        + row("", "members", "1", email="no address")
        + row("alice", "gone", "1")
        + row("alice", "board", "1")
        + row("dora", "members", "1")
        + row("bob", "tech", "maybe")
        + row("bob", "members", "1")
    )
    assert stored(session) == {"bob": True}
    assert {each.reason: (each.times, each.examples) for each in found.skipped} == {
        "unknown user": (3, ("line 2: eve", "line 3: nobodys@example.org", "line 4: no address")),
        "unknown list": (1, ("line 5: gone",)),
        "inactive, or outside the list's audience": (2, ("line 6: alice on board", "line 7: dora on members")),
        "cannot be read": (1, ("line 8: value must be 1 or 0, not maybe",)),
    }


def test_few_examples_are_told_however_many_there_are(session, cast, run):
    found = run(ROWS + "".join(row(f"user{number}", "members", "1") for number in range(50)))
    assert [(each.reason, each.times, len(each.examples)) for each in found.skipped] == [("unknown user", 50, 5)]


def test_a_dry_run_counts_the_same_and_writes_nothing(session, cast, run):
    make_preference(session, "members", "charlie@example.org", True)
    file = OLD + row("charlie", "members", "0")
    dry = run(file, is_dry=True)
    assert stored(session) == {"charlie": True}
    assert session.scalars(select(History)).all() == []
    session.rollback()
    assert run(file) == dry


def test_a_file_of_which_nothing_can_be_read_is_refused(session, cast, run):
    with pytest.raises(BadInputError, match=r"line 2: value must be 1 or 0, not maybe"):
        run(ROWS + row("alice", "members", "maybe"))


@pytest.mark.parametrize("content", [ROWS, "[]"])
def test_a_file_without_a_preference_is_none_of_these(session, cast, run, content):
    assert run(content).skipped == ()


def test_where_the_lists_are_not_enabled_nothing_is_taken_over(make_app, session, instance, clock):
    (instance / "mailinglists.toml").write_text("")
    catalogue = make_app().extensions["portal"].catalogue()
    with pytest.raises(DisabledError):
        import_preferences(session, OLD.encode(), catalogue=catalogue, now=NOW, is_dry=False)


def test_the_number_of_statements_does_not_grow_with_the_file(session, run):
    for number in range(60):
        make_user(session, f"user{number}")

    def size(first: int, last: int) -> int:
        statements: list[object] = []
        with listening(db.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2])):
            run(ROWS + "".join(row(f"user{number}", "members", "1") for number in range(first, last)))
        return len(statements)

    assert size(0, 5) == size(5, 55)


def test_a_first_run_after_it_shows_its_plan_and_waits_for_a_yes(app, session, run, rosters: Rosters, clock):
    names = [f"user{number:02}" for number in range(40)]
    for name in names:
        make_user(session, name)
    rosters.set("members", "stranger@example.net", *(f"{name}@example.org" for name in names[:20]))
    # Ten are on the list and want it, ten are on it and do not, ten are not on it and want it, ten are not in the file.
    wanted = dict.fromkeys(names[:10], "1") | dict.fromkeys(names[10:20], "0") | dict.fromkeys(names[20:30], "1")
    run(ROWS + "".join(row(name, "members", value) for name, value in wanted.items()))
    portal = app.extensions["portal"]
    members = portal.catalogue().get("members")

    def sync(**request: Any) -> Any:
        return sync_list(session, members, portal.open_list_manager(members), clock=clock, request=Request(**request))

    before = rosters.get("members")
    with pytest.raises(SafetyLimitError) as refused:
        sync()
    assert rosters.get("members") == before
    sync_result = sync(accept=refused.value.plan_id)
    assert (sync_result.tally["added"], sync_result.tally["removed"]) == (10, 10)
    wanted_on = {f"{name}@example.org" for name in (*names[:10], *names[20:30])}
    assert rosters.get("members") == {"stranger@example.net", *wanted_on}
    assert stored(session) == {name: name in (*names[:10], *names[20:30]) for name in names}
    assert sync().plan.lines == ()


def is_a_lock_awaited() -> bool:
    waiting = text("SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")
    with db.engine.connect() as connection:
        return connection.execute(waiting).first() is not None


def test_a_save_and_an_import_that_meet_never_wait_for_each_other(app, session: Session, run: Run) -> None:
    """The save has made one row and wants another; the import wants both."""
    make_user(session, "alice")
    alice = make_address(session, "alice@example.org")
    session.commit()
    values = {"address_id": alice, "subscribed": False, "source": "user", "changed_at": NOW}

    with app.app_context(), Session(db.engine) as save, ThreadPoolExecutor(1) as pool:
        first = database.insert(save, Preference).on_conflict_do_nothing()
        save.execute(first.values(list_handle="members", **values))

        def import_both() -> ImportResult:
            with app.app_context():
                return run(ROWS + row("alice", "tech", "1") + row("alice", "members", "1"))

        writes: list[object] = []
        with listening(db.engine, "before_cursor_execute", lambda *arguments: writes.append(arguments[2])):
            importing = pool.submit(import_both)
            wait_until(is_a_lock_awaited if SERVER else lambda: "BEGIN IMMEDIATE" in writes)
        save.execute(first.values(list_handle="tech", **values))
        save.commit()
        found = importing.result(timeout=30)
    assert set(counts(found)) <= {"kept", "refused"}
    assert (stored(session), stored(session, "tech")) == ({"alice": False}, {"alice": False})
