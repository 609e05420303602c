"""A list is synced by one process at a time, on whatever host: SEMANTICS, "One at a time"."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.merge import Action
from portal.domain.roster_text import RosterText
from portal.errors import LeaseHeldError, NoPlannedRunError
from portal.extensions import db
from portal.models import Lease, Preference, Run
from portal.services.sync import leases, runs
from portal.services.sync.leases import HeldLease
from portal.services.sync.planned_runs import begin_planned_run, confirm_planned_run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from portal.services.sync.wanted import planned
from tests.factories import make_preference, make_user
from tests.fakes.memory import MemoryList, breaking

GONE = 2**22 + 1  # more than Linux ever numbers a process


@pytest.fixture
def members(app):
    return app.extensions["portal"].catalogue().get("members")


@pytest.fixture
def manager():
    return MemoryList()


@pytest.fixture
def sync(session, members, manager, clock):
    def run(**request):
        return sync_list(session, members, manager, clock=clock, request=Request(**request))

    return run


@pytest.fixture
def row(session):
    def load():
        found = session.scalars(select(Lease).execution_options(populate_existing=True)).one_or_none()
        session.rollback()
        return found

    return load


def now(session):
    found = database.clock(session)
    session.rollback()
    return found


def alter(session, **columns):
    session.execute(update(Lease).values(**columns))
    session.commit()


def seconds_left(session, row):
    return (row().expires_at - now(session)).total_seconds()


def is_free(session):
    try:
        leases.release(session, leases.acquire(session, "members"))
    except LeaseHeldError:
        return False
    return True


def test_a_second_one_is_turned_away_at_once_with_the_holder_and_the_expiry(session, row):
    leases.acquire(session, "members")
    with pytest.raises(LeaseHeldError) as refusal:
        leases.acquire(session, "members")
    assert f"process {os.getpid()} on {socket.gethostname()}" in str(refusal.value)
    assert f"{row().expires_at:%Y-%m-%d %H:%M:%S} UTC" in str(refusal.value)


def test_a_list_is_held_by_itself(session):
    leases.acquire(session, "members")
    leases.acquire(session, "tech")


def test_a_lease_lasts_ten_minutes_by_the_databases_clock(session, row, clock):
    clock.advance(days=1000)  # what this host believes does not matter
    leases.acquire(session, "members")
    assert 590 < seconds_left(session, row) <= 600


def test_a_lease_that_has_expired_is_taken_over(session, row):
    first = leases.acquire(session, "members")
    alter(session, expires_at=now(session), host="elsewhere")
    second = leases.acquire(session, "members")
    assert (row().token, row().host) == (second.token, socket.gethostname())
    assert first.token != second.token


def test_a_lease_that_is_about_to_expire_holds(session):
    leases.acquire(session, "members")
    alter(session, expires_at=now(session) + timedelta(seconds=20))
    assert not is_free(session)


def test_a_holder_on_this_host_whose_process_is_gone_is_taken_over(session):
    leases.acquire(session, "members")
    alter(session, pid=GONE)
    assert is_free(session)


def test_a_holder_on_this_host_whose_process_is_somebody_elses_lives(session, monkeypatch):
    leases.acquire(session, "members")
    alter(session, pid=1)

    def refuse(_pid, _signal):
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert not is_free(session)


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_of_another_boot_or_container_is_believed_until_its_time_is_up(session, number):
    leases.acquire(session, "members")
    parts = leases.pid_space().split()
    assert len(parts) == 2
    parts[number] = "7"
    alter(session, pid=GONE, pid_space=" ".join(parts))  # of the same host name
    assert not is_free(session)
    alter(session, expires_at=now(session))
    assert is_free(session)


def test_where_the_system_does_not_say_which_boot_it_is_no_process_is_believed_to_be_gone(
    session, monkeypatch, tmp_path
):
    monkeypatch.setattr(leases, "_BOOT", tmp_path / "boot_id")
    leases.acquire(session, "members")
    alter(session, pid=GONE)
    assert not is_free(session)


@pytest.mark.parametrize(("ahead", "expected"), [({"hours": 24}, False), ({"hours": 24, "minutes": 2}, True)])
def test_a_lease_that_a_clock_years_ahead_has_left_is_void(session, ahead, expected):
    leases.acquire(session, "members", outlives_process=True)
    alter(session, expires_at=now(session) + timedelta(**ahead))
    assert (leases.of_planned_run(session, "members") is None) == expected
    session.rollback()
    assert is_free(session) == expected


def test_no_call_makes_a_lease_that_would_be_void(session, row):
    lease = leases.acquire(session, "members")
    leases.renew(session, lease, seconds=10**9)
    assert 0 < seconds_left(session, row) <= leases.MOST
    assert not is_free(session)


def test_a_planned_run_outlives_the_process_that_began_it(session, row):
    leases.acquire(session, "members", seconds=3600, outlives_process=True)
    assert row().pid is None
    assert 3590 < seconds_left(session, row) <= 3600
    with pytest.raises(LeaseHeldError, match="a planned run started on"):
        leases.acquire(session, "members")


def test_only_a_planned_run_that_has_not_expired_is_found_as_such(session):
    assert leases.of_planned_run(session, "members") is None
    session.rollback()
    lease = leases.acquire(session, "members", outlives_process=True)
    assert leases.of_planned_run(session, "members") == lease
    session.rollback()
    alter(session, expires_at=now(session))
    assert leases.of_planned_run(session, "members") is None
    session.rollback()
    leases.acquire(session, "members")
    assert leases.of_planned_run(session, "members") is None


@pytest.mark.parametrize(("seconds", "expected"), [(0, 600), (30, 600), (540, 600), (541, 601), (3600, 3660)])
def test_renewed_before_a_call_it_lasts_for_the_calls_time_out_and_a_minute(session, row, seconds, expected):
    lease = leases.acquire(session, "members")
    alter(session, expires_at=now(session))
    leases.renew(session, lease, seconds=seconds)
    assert expected - 10 < seconds_left(session, row) <= expected


def test_a_lease_that_was_lost_cannot_be_renewed(session):
    lease = leases.acquire(session, "members")
    alter(session, token="another")
    with pytest.raises(LeaseHeldError, match="took over the list"):
        leases.renew(session, lease)
    with pytest.raises(LeaseHeldError):
        leases.renew(session, HeldLease("tech", "none"))


def test_a_lease_that_was_lost_is_left_to_its_new_holder(session, row):
    lease = leases.acquire(session, "members")
    alter(session, token="another")
    leases.release(session, lease)
    assert row().token == "another"


def test_a_lease_is_given_back_whatever_happens(session, row):
    with pytest.raises(KeyboardInterrupt), leases.held(session, "members"):
        raise KeyboardInterrupt
    assert row() is None


def test_of_many_at_once_one_gets_it(app, session):
    for _round in range(10):
        barrier = Barrier(4)

        def attempt(_number, barrier=barrier):
            with app.app_context(), Session(db.engine) as own:
                own.connection()
                own.rollback()
                barrier.wait(10)
                try:
                    return leases.acquire(own, "members")
                except LeaseHeldError:
                    return None

        with ThreadPoolExecutor(4) as pool:
            found = [lease for lease in pool.map(attempt, range(4)) if lease]
        assert len(found) == 1
        leases.release(session, found[0])


def test_one_that_is_given_back_while_others_come_is_free_or_held_and_nothing_else(app, session):
    for _round in range(10):
        barrier = Barrier(3)
        first = leases.acquire(session, "members")

        def attempt(number, barrier=barrier, first=first):
            with app.app_context(), Session(db.engine) as own:
                own.connection()
                own.rollback()
                barrier.wait(10)
                if number == 0:
                    return leases.release(own, first)
                try:
                    return leases.acquire(own, "members")
                except LeaseHeldError:
                    return None

        with ThreadPoolExecutor(3) as pool:
            found = [lease for lease in pool.map(attempt, range(3)) if lease]
        assert len(found) <= 1
        for lease in found:
            leases.release(session, lease)


# In a run.


def test_no_transaction_is_open_while_the_list_manager_works(session, sync, manager):
    make_user(session, "alice")
    make_user(session, "bob")
    make_preference(session, "members", "alice@example.org", True)
    make_preference(session, "members", "bob@example.org", False, seen=True)
    manager.join("bob@example.org")
    seen = []
    manager.watcher = lambda moment: seen.append((moment, session.in_transaction()))
    sync()
    assert len(seen) == 8
    assert not any(is_open for _moment, is_open in seen)


def test_the_list_is_held_during_each_call_and_free_after_the_run(session, sync, manager):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True)
    found = []

    def look(moment):
        with Session(db.engine) as own:
            found.append(is_free(own))

    manager.watcher = look
    sync()
    assert found == [False] * 6
    assert is_free(session)


def test_a_run_that_lost_its_lease_after_the_last_call_settles_nothing(session, sync, manager):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, touched=True)

    def lose(now):
        if now == "after roster" and manager.members:
            with Session(db.engine) as own:
                alter(own, token="another")

    manager.watcher = lose
    with pytest.raises(LeaseHeldError):
        sync()
    assert session.execute(select(Preference.touched, Preference.seen)).all() == [(True, None)]
    assert session.scalars(select(Run.state)).all() == ["failed"]


def test_a_run_that_another_has_given_up_for_lost_stays_unfinished_whatever_becomes_of_it(session, sync, manager):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True)

    def lose(now):
        if now == "after roster" and manager.members:
            with Session(db.engine) as own:
                alter(own, token="another")
                runs.abandon_open(own, "members")

    manager.watcher = lose
    with pytest.raises(LeaseHeldError):
        sync()
    assert session.execute(select(Run.state, Run.finished_at)).all() == [("unfinished", None)]


@pytest.mark.parametrize(
    ("moment", "calls"),
    [("after roster", ["roster"]), ("after remove", ["roster", "remove"]), ("after add", ["roster", "remove", "add"])],
)
def test_a_run_that_lost_its_lease_stops_before_the_next_call(session, sync, manager, moment, calls):
    make_user(session, "alice")
    make_user(session, "bob")
    make_preference(session, "members", "alice@example.org", True)
    make_preference(session, "members", "bob@example.org", False, seen=True)
    manager.join("bob@example.org")

    def lose(now):
        if now == moment:
            with Session(db.engine) as own:
                alter(own, token="another")

    manager.watcher = lose
    with pytest.raises(LeaseHeldError):
        sync()
    assert [name for name, _told in manager.calls] == calls
    assert session.scalars(select(Run.state)).all() == ["failed"]
    assert session.scalars(select(Preference.touched)).all() == [False, False]
    session.rollback()
    assert not is_free(session), "it is the other's"


def test_the_lease_is_renewed_before_each_call_for_as_long_as_it_may_take(session, sync, manager, monkeypatch, row):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True)
    monkeypatch.setattr(MemoryList, "timeout", lambda _self, count: 1000.0 + count)
    left = []

    def look(moment):
        if moment.startswith("before"):
            with Session(db.engine) as own:
                expires = own.scalar(select(Lease.expires_at))
                left.append(round((expires - database.clock(own)).total_seconds(), -1))
                alter(own, expires_at=datetime(2000, 1, 1, tzinfo=UTC))  # the call takes that long

    manager.watcher = look
    sync()
    assert left == [1060, 1060, 1060]


def test_a_run_that_fails_gives_the_list_back(session, sync, manager):
    manager.watcher = breaking("before roster", 0)
    with pytest.raises(Exception, match="it broke down"):
        sync()
    assert is_free(session)


# In a planned run.


def begin(session, members, clock):
    return begin_planned_run(session, members, RosterText([b"x@example.net"]), clock=clock, request=Request())


def test_a_planned_run_holds_the_list_between_its_halves_and_gives_it_back(session, members, clock):
    begin(session, members, clock)
    with pytest.raises(LeaseHeldError):
        begin(session, members, clock)
    confirm_planned_run(session, members, RosterText([b"x@example.net"]), clock=clock, request=Request())
    assert is_free(session)


def test_a_planned_run_is_over_after_an_hour(session, members, clock):
    begin(session, members, clock)
    alter(session, expires_at=now(session))
    with pytest.raises(NoPlannedRunError):
        list(planned(session, members, Action.ADD))
    with pytest.raises(NoPlannedRunError):
        confirm_planned_run(session, members, RosterText([b"x@example.net"]), clock=clock, request=Request())
    begin(session, members, clock)
    assert session.scalars(select(Run.state).order_by(Run.id)).all() == ["unfinished", "planned"]


def test_a_planned_run_that_another_run_has_taken_over_cannot_be_confirmed(session, members, sync, clock):
    begin(session, members, clock)
    alter(session, expires_at=now(session))
    sync()
    with pytest.raises(NoPlannedRunError):
        confirm_planned_run(session, members, RosterText([b"x@example.net"]), clock=clock, request=Request())
