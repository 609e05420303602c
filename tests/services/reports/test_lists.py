"""Reports for superusers."""

from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, select

from portal.config import Catalogue
from portal.domain.outlook import KnownPreference, State, outlook
from portal.extensions import db
from portal.models import Base, History, Run
from portal.services.reports import lists as list_reports
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.factories import NOW, make_preference, make_user
from tests.fakes.memory import MemoryList

COUNTED = {
    State.SUBSCRIBED: "subscribed",
    State.NOT_SUBSCRIBED: "unsubscribed",
    State.NOT_CHOSEN: "not_chosen",
    State.BEING_ADDED: "being_added",
    State.BEING_REMOVED: "being_removed",
    State.WAITING: "waiting",
    State.UNCONFIRMED: "unconfirmed",
    State.NOT_ADDED: "not_added",
    State.REFUSED: "refused",
}


@pytest.fixture
def catalogue(app):
    return app.extensions["portal"].catalogue()


@pytest.fixture
def report(session, catalogue, clock):
    def load(handle="members"):
        (found,) = list_reports.lists(session, catalogue=catalogue, now=clock(), handles=[handle])
        return found

    return load


def add_run(session, handle="members", **columns):
    values = {"kind": "sync", "asked_by": "", "host": "", "started_at": NOW, "state": "done", **columns}
    session.add(Run(list_handle=handle, **values))
    session.commit()


def test_lists_come_in_the_catalogues_order_all_or_some(session, catalogue, clock):
    found = list_reports.lists(session, catalogue=catalogue, now=clock())
    assert [(each.handle, each.name) for each in found] == [
        ("members", "Members"), ("tech", "Tech"), ("board", "Board"),
    ]  # fmt: skip
    some = list_reports.lists(session, catalogue=catalogue, now=clock(), handles=iter(["board", "members"]))
    assert [each.handle for each in some] == ["members", "board"]
    assert list_reports.lists(session, catalogue=Catalogue(True, 12, {}, {}), now=clock()) == ()


preferences = st.none() | st.fixed_dictionaries(
    {
        "subscribed": st.booleans(),
        "seen": st.sampled_from([None, True, False]),
        "waiting_since": st.sampled_from([None, NOW]),
        "push_result": st.sampled_from([None, "pending", "confirm", "undone", "rejected"]),
        "refusal": st.sampled_from([None, "banned"]),
    }
)


@given(found=st.lists(preferences, max_size=5))
@settings(max_examples=40)
def test_what_is_counted_is_what_members_are_told(session, report, found):
    session.rollback()
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(delete(table))
    session.commit()
    told = Counter()
    for number, columns in enumerate(found):
        make_user(session, f"user{number}")
        known = None
        if columns is not None:
            make_preference(session, "members", f"user{number}@example.org", **columns)
            known = KnownPreference(source="user", changed_at=NOW, **columns)
        told[COUNTED[outlook(known, now=NOW, promise=timedelta(hours=12))[0]]] += 1
    counted = report()
    assert {name: getattr(counted, name) for name in COUNTED.values()} == {
        name: told[name] for name in COUNTED.values()
    }


def test_only_managed_addresses_are_counted_and_each_once(session, report):
    make_user(session, "alice", groups=("board",))
    make_user(session, "charlie", "alice@example.org", groups=("board",))
    make_user(session, "bob", is_active=False, groups=("board",))
    make_user(session, "dora")
    for name in ("alice", "bob", "dora", "nobody"):
        make_preference(session, "board", f"{name}@example.org", True, seen=True)
    assert report("board").subscribed == 1


def test_the_last_run_and_the_last_good_one_are_told(session, report):
    assert (report().last_run, report().last_good_at, report().without_account) == (None, None, None)
    add_run(session, finished_at=NOW, without_account=4)
    add_run(session, state="failed", message="it broke down", without_account=9)
    add_run(session, "tech", finished_at=NOW + timedelta(days=1), without_account=1)
    found = report()
    assert (found.last_run.state, found.last_run.message) == ("failed", "it broke down")
    assert (found.last_good_at, found.without_account) == (NOW, 4)


def test_a_list_is_late_when_its_last_good_run_is_older_than_members_are_promised(session, report, clock):
    assert report().is_late
    add_run(session, finished_at=clock())
    clock.advance(hours=12)
    assert not report().is_late
    clock.advance(seconds=1)
    assert report().is_late
    add_run(session, state="failed", finished_at=clock())
    assert report().is_late


def test_a_run_at_a_clock_that_was_years_ahead_does_not_hide_that_a_list_is_late(session, catalogue, report, clock):
    add_run(session, finished_at=clock() + timedelta(days=3650))
    assert report().is_late
    assert list_reports.alarms(session, catalogue=catalogue, now=clock())[0].is_late
    add_run(session, finished_at=clock() + timedelta(minutes=1))
    assert not report().is_late


def test_subscribers_without_an_account_are_those_on_the_list_whom_nobody_here_holds(session, catalogue, report, clock):
    make_user(session, "alice")
    make_user(session, "bob", is_active=False)
    names = ("alice@example.org", "bob@example.org", "x@example.net", "y@example.net")
    manager = MemoryList(members={each: each for each in names})
    sync_list(session, catalogue.get("members"), manager, clock=clock, request=Request())
    assert (report().without_account, report().last_run.on_roster) == (2, 4)


def test_runs_are_told_newest_first_and_in_pages(session):
    for number in range(5):
        add_run(session, "tech" if number == 2 else "members", message=str(number))
    assert [each.message for each in list_reports.runs(session)] == ["4", "3", "2", "1", "0"]
    first = list_reports.runs(session, limit=2)
    assert [each.message for each in first] == ["4", "3"]
    assert [each.message for each in list_reports.runs(session, before=first[-1].id, limit=2)] == ["2", "1"]
    assert [each.message for each in list_reports.runs(session, handle="tech")] == ["2"]
    assert [each.message for each in list_reports.runs(session, handle="members", before=first[-1].id)] == ["1", "0"]


def test_history_is_told_newest_first_by_list_and_by_address(session):
    for number, (handle, address) in enumerate(
        [("members", "alice@example.org"), ("tech", "alice@example.org"), ("members", "bob@example.org")]
    ):
        session.add(
            History(
                at=NOW, list_handle=handle, address_id=number, address=address, subscribed=True, source="user",
                actor="alice",
            )
        )  # fmt: skip
        session.commit()

    def told(**values):
        return [(each.handle, each.address) for each in list_reports.history(session, **values)]

    assert told() == [
        ("members", "bob@example.org"), ("tech", "alice@example.org"), ("members", "alice@example.org"),
    ]  # fmt: skip
    assert told(handle="members") == [("members", "bob@example.org"), ("members", "alice@example.org")]
    assert told(address="alice@example.org", handle="tech") == [("tech", "alice@example.org")]
    assert told(limit=1) == [("members", "bob@example.org")]
    assert len(told(limit=None)) == 3


def test_the_history_of_an_address_outlives_it(session):
    values = {"at": NOW, "list_handle": "members", "subscribed": True, "source": "user", "actor": "alice"}
    session.add(History(address_id=77, address="gone@example.org", **values))
    session.commit()

    (line,) = list_reports.history(session, address="gone@example.org")
    assert line.address == "gone@example.org"


def test_a_report_writes_nothing_and_leaves_no_transaction_open(session, catalogue, clock):
    make_user(session, "alice")
    sent = []

    def note(_connection, _cursor, statement, *_rest):
        sent.append(statement.split()[0])

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        list_reports.lists(session, catalogue=catalogue, now=clock())
        list_reports.runs(session)
        list_reports.history(session)
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
    assert set(sent) <= {"BEGIN", "SELECT", "WITH"}
    assert len(sent) - sent.count("BEGIN") <= 9
    assert not session.in_transaction()
    assert session.scalars(select(Run)).all() == []


def test_the_oldest_change_under_way_is_told_with_the_promise_that_was_made_for_it(session, report):
    for number, (subscribed, columns) in enumerate(
        [
            (True, {"changed_at": NOW + timedelta(hours=2)}),
            (False, {"changed_at": NOW + timedelta(hours=1), "seen": True}),
            # No promise is made for what agrees, is held for a moderator, or was refused.
            (True, {"seen": True}),
            (True, {"waiting_since": NOW}),
            (True, {"refusal": "banned"}),
            (False, {"seen": True, "refusal": "may not leave"}),
        ]
    ):
        make_user(session, f"user{number}")
        make_preference(session, "members", f"user{number}@example.org", subscribed, **columns)
    found = report()
    assert found.drift == 5
    assert (found.oldest_change_at, found.due_at) == (NOW + timedelta(hours=1), NOW + timedelta(hours=13))
    assert (report("tech").oldest_change_at, report("tech").due_at, report("tech").drift) == (None, None, 0)


def test_lists_that_are_late_or_wait_for_a_yes_are_alarms(session, catalogue, clock):
    add_run(session, "members", finished_at=clock())
    add_run(session, "tech", finished_at=clock())
    add_run(session, "tech", state="held", finished_at=clock())
    found = list_reports.alarms(session, catalogue=catalogue, now=clock())
    assert [(each.handle, each.is_late, each.last_state) for each in found] == [
        ("tech", False, "held"), ("board", True, None),
    ]  # fmt: skip
    clock.advance(hours=13)
    assert [each.handle for each in list_reports.alarms(session, catalogue=catalogue, now=clock())] == [
        "members", "tech", "board",
    ]  # fmt: skip
    assert list_reports.alarms(session, catalogue=Catalogue(True, 12, {}, {}), now=clock()) == ()


def test_subscribers_without_an_account_are_those_whom_no_account_holds_active_or_not(session):
    make_user(session, "alice")
    make_user(session, "charlie", is_active=False)
    make_preference(session, "members", "gone@example.org", False, seen=True)
    roster = {
        "alice@example.org": "Alice@example.org",
        "charlie@example.org": "charlie@example.org",
        "gone@example.org": "Gone@example.org",
        "eve@example.net": "Eve@Example.net",
    }
    assert list_reports.without_account(session, roster) == ("Eve@Example.net", "Gone@example.org")
    assert len(roster) == 4
