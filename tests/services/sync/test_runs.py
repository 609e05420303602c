"""Runs that superusers request: written by the web, claimed once, carried out by a command; and lines of runs."""

import os
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from portal.domain.merge import Action
from portal.domain.run import RunKind
from portal.errors import (
    ForbiddenError,
    LeaseHeldError,
    ListManagerUnavailableError,
    PlanChangedError,
    SafetyLimitError,
    UnknownListError,
    UnknownRunError,
)
from portal.extensions import Portal, db
from portal.models import Preference, Run, RunLine, User
from portal.services.accounts import users
from portal.services.history import Actor
from portal.services.reports import lists as list_reports
from portal.services.reports import runs as run_reports
from portal.services.reports.lists import RunReport
from portal.services.reports.runs import RunFound
from portal.services.sync import leases, runs
from portal.services.sync.requested import carry_out
from portal.services.sync.run_steps import Request, SyncResult
from portal.services.sync.runs import RequestedRun
from portal.services.sync.sync import dry_run, sync_list
from tests.conftest import Clock
from tests.factories import NOW, make_preference, make_user
from tests.fakes.memory import Killed, MemoryList, breaking

BOB = Actor(7007, "bob")


def make_account(session: Session, actor: Actor) -> None:
    """Make a superuser of an actor's number, who holds no address."""
    columns = {"name": "", "password_hash": "!", "is_superuser": True, "created_at": NOW}
    session.add(
        User(id=actor.user_id, username=f"{actor.name} who asks", username_key=f"{actor.name} who asks", **columns)
    )
    session.commit()


class Office:
    """A list in memory, a superuser who asks, and the command that carries out."""

    def __init__(self, app: Flask, session: Session, clock: Clock) -> None:
        self.portal: Portal = app.extensions["portal"]
        self.session, self.clock = session, clock
        self.list = MemoryList(batch=50)
        self.catalogue = self.portal.catalogue()
        make_account(session, BOB)

    def ask(self, kind: RunKind = RunKind.SYNC, handle: str = "members", *, plan_id: str | None = None) -> int:
        return runs.request(self.session, handle, kind=kind, plan_id=plan_id, actor=BOB, now=self.clock())

    def due(self) -> list[RequestedRun]:
        return runs.due(self.session, now=self.clock())

    def take(self) -> RequestedRun:
        (waiting,) = self.due()
        assert runs.claim(self.session, waiting, now=self.clock())
        return waiting

    def carry_out(self) -> SyncResult:
        return self.carry_out_taken(self.take())

    def carry_out_taken(self, taken: RequestedRun) -> SyncResult:
        return carry_out(
            self.session,
            taken,
            catalogue=self.catalogue,
            open_list_manager=lambda _list: self.list,
            clock=self.clock,
        )

    def found(self, run_id: int) -> RunFound:
        return run_reports.find(self.session, run_id)

    def find(self, run_id: int) -> RunReport:
        return self.found(run_id).run

    def show(self) -> RunReport:
        """Ask to be shown a plan, and return its run."""
        run_id = self.ask(RunKind.SHOW)
        self.carry_out()
        return self.find(run_id)

    def lines(self, run_id: int) -> list[tuple[str, str, str]]:
        return [(each.address, each.action, each.result) for each in run_reports.lines(self.session, run_id)]

    def people(self, count: int) -> list[str]:
        """Make members who are on the list and whom a run has seen there."""
        addresses = [f"user{number:02}@example.org" for number in range(count)]
        for address in addresses:
            make_user(self.session, address.partition("@")[0], address)
            make_preference(self.session, "members", address, True, seen=True)
            self.list.join(address)
        return addresses

    def untick(self, count: int) -> None:
        chosen = select(Preference.address_id).order_by(Preference.address_id).limit(count)
        self.session.execute(
            update(Preference)
            .where(Preference.address_id.in_(self.session.scalars(chosen).all()))
            .values(subscribed=False, source="superuser", touched=True, version=Preference.version + 1)
        )
        self.session.commit()

    def set(self, run_id: int, **columns: object) -> None:
        self.session.execute(update(Run).where(Run.id == run_id).values(**columns))
        self.session.commit()

    def count(self, model: type) -> int:
        found = self.session.scalar(select(func.count()).select_from(model))
        self.session.rollback()
        return found or 0


@pytest.fixture
def office(app: Flask, session: Session, clock: Clock) -> Office:
    return Office(app, session, clock)


def test_a_run_waits_and_says_who_asked_and_when(office: Office) -> None:
    found = office.find(office.ask())
    assert (found.handle, found.kind, found.state, found.asked_by) == ("members", "sync", "asked", "bob")
    assert found.asked_at == office.clock()
    assert not found.is_overdue(office.clock() + timedelta(minutes=5))
    assert found.is_overdue(office.clock() + timedelta(minutes=6))


def test_asking_for_the_same_again_while_it_waits_is_one_run(office: Office) -> None:
    first = office.ask()
    assert office.ask() == first
    others = {office.ask(RunKind.SHOW), office.ask(handle="tech")}
    plans = {office.ask(plan_id="0" * 16), office.ask(plan_id="1" * 16)}
    assert len({first} | others | plans) == 5
    assert [each.id for each in office.due()] == sorted({first} | others | plans)


def test_asking_again_once_it_is_taken_is_a_new_run(office: Office) -> None:
    first = office.ask()
    office.take()
    assert office.ask() != first


def test_a_sync_that_was_asked_for_is_the_run_that_it_becomes(office: Office) -> None:
    office.people(3)
    office.untick(1)
    run_id = office.ask()
    asked_at = office.clock()
    office.clock.advance(minutes=1)
    assert office.carry_out().run_id == run_id
    found = office.find(run_id)
    assert (found.state, found.removed, found.asked_by, found.asked_at) == ("done", 1, "bob", asked_at)
    assert found.started_at == found.finished_at == office.clock()
    assert (office.count(Run), office.due()) == (1, [])


def test_the_last_run_of_a_list_is_the_one_that_began_last(office: Office) -> None:
    """One that waited has a lower number than others that began before it."""
    members = office.catalogue.get("members")
    office.people(40)
    run_id = office.ask()
    office.clock.advance(minutes=1)
    by_cron = sync_list(office.session, members, office.list, clock=office.clock, request=Request()).run_id
    assert by_cron is not None
    assert by_cron > run_id
    assert office.found(by_cron).is_last
    office.untick(8)
    office.clock.advance(minutes=1)
    with pytest.raises(SafetyLimitError):
        office.carry_out()
    assert (office.found(run_id).is_last, office.found(by_cron).is_last) == (True, False)
    alarm = next(
        each
        for each in list_reports.alarms(office.session, catalogue=office.catalogue, now=office.clock())
        if each.handle == "members"
    )
    assert (alarm.last_run_id, alarm.last_state) == (run_id, "held")


def test_what_was_never_begun_is_not_the_last_run(office: Office) -> None:
    office.people(3)
    office.ask()
    by_sync = office.carry_out().run_id
    office.clock.advance(minutes=1)
    shown = office.show()
    office.ask()
    (report,) = list_reports.lists(office.session, catalogue=office.catalogue, now=office.clock(), handles=["members"])
    assert report.last_run is not None
    assert (report.last_run.id, office.found(shown.id).is_last) == (by_sync, True)


def test_a_plan_is_shown_with_what_is_dangerous_first_and_nothing_is_done(office: Office) -> None:
    office.people(12)
    office.untick(2)
    make_user(office.session, "aaron")
    make_preference(office.session, "members", "aaron@example.org", True, touched=True)
    office.list.leave("user11@example.org")
    shown = office.show()
    assert (shown.state, shown.left, shown.added, shown.removed) == ("shown", 1, 0, 0)
    assert office.found(shown.id).changes() == 4
    assert office.lines(shown.id) == [
        ("user00@example.org", "remove", "not_sent"),
        ("user01@example.org", "remove", "not_sent"),
        ("user11@example.org", "left", "not_sent"),
        ("aaron@example.org", "add", "not_sent"),
    ]
    assert {name for name, _told in office.list.calls} == {"roster"}


def test_a_plan_that_is_only_shown_explains_nothing_and_approves_nothing(office: Office) -> None:
    """SEMANTICS, A crash is visible and harmless: lines that wait for approval explain nothing."""
    office.people(40)
    office.untick(8)
    office.show()
    assert office.session.scalars(select(RunLine.settled).distinct()).all() == [True]
    office.session.rollback()
    office.list.leave("user00@example.org")  # were the shown line ours, this would be our removal
    members = office.catalogue.get("members")
    plan = dry_run(office.session, members, office.list, clock=office.clock).plan
    assert (len(plan.of(Action.REMOVE)), bool(plan.warning)) == (7, True)
    office.ask()
    with pytest.raises(SafetyLimitError):
        office.carry_out()


def test_lines_are_paged(office: Office) -> None:
    office.people(40)
    office.untick(30)
    shown = office.show()
    first = run_reports.lines(office.session, shown.id, size=20)
    rest = run_reports.lines(office.session, shown.id, number=2, size=20)
    assert [each.address for each in (*first, *rest)] == [f"user{number:02}@example.org" for number in range(30)]


def test_a_plan_that_was_shown_is_applied_past_the_safety_limits(office: Office) -> None:
    everybody = office.people(40)
    office.untick(8)
    office.ask()
    with pytest.raises(SafetyLimitError):
        office.carry_out()
    shown = office.show()
    assert (
        shown.message == "this plan exceeds the safety limits: it removes 8 of 40 addresses, or records that they left"
    )
    run_id = office.ask(plan_id=shown.plan_id)
    sync_result = office.carry_out()
    assert sync_result.tally["removed"] == 8
    assert set(office.list.members) == set(everybody[8:])
    run = office.find(run_id)
    assert (run.accepted, run.state) == (True, "done")


def test_a_plan_that_has_changed_is_shown_again_and_nothing_is_pushed(office: Office) -> None:
    everybody = office.people(12)
    office.untick(2)
    shown = office.show()
    office.untick(3)
    run_id = office.ask(plan_id=shown.plan_id)
    with pytest.raises(
        PlanChangedError, match=r"^members: the plan has changed, so nothing was done: it was [0-9a-f]{16} "
    ) as refusal:
        office.carry_out()
    found = office.find(run_id)
    assert (found.state, found.plan_id, found.message) == ("changed", refusal.value.plan_id, str(refusal.value))
    assert [action for _address, action, _result in office.lines(run_id)] == ["remove"] * 3
    assert set(office.list.members) == set(everybody)
    office.ask(plan_id=found.plan_id)
    office.carry_out()
    assert set(office.list.members) == set(everybody[3:])


def test_a_plan_is_applied_once(office: Office) -> None:
    office.people(12)
    office.untick(2)
    shown = office.show()
    for state in ("done", "changed"):
        run_id = office.ask(plan_id=shown.plan_id)
        if state == "changed":
            with pytest.raises(PlanChangedError):
                office.carry_out()
        else:
            office.carry_out()
        assert office.find(run_id).state == state


def test_an_empty_roster_in_doubt_is_said_to_be_so_and_believed_by_its_plan(office: Office) -> None:
    office.people(3)
    office.list.members.clear()
    shown = office.show()
    assert shown.message == "3 addresses were on the list at the last run, but the roster is empty"
    assert office.found(shown.id).how_many(action="left") == 3
    office.ask(plan_id=shown.plan_id)
    assert len(office.carry_out().plan.of(Action.LEFT)) == 3


def test_a_refusal_by_the_safety_limits_is_recorded_with_its_lines(office: Office) -> None:
    office.people(40)
    office.untick(8)
    run_id = office.ask()
    with pytest.raises(SafetyLimitError):
        office.carry_out()
    run = office.found(run_id)
    assert (run.run.state, run.is_last) == ("held", True)
    assert "this plan exceeds the safety limits" in run.run.message
    assert run.how_many(action="remove") == 8
    assert len(run_reports.lines(office.session, run.run.id)) == 8


def test_of_refused_plans_the_lines_of_the_last_are_kept_and_explain_nothing(office: Office) -> None:
    office.people(40)
    office.untick(8)
    for _time in range(3):
        office.ask()
        with pytest.raises(SafetyLimitError):
            office.carry_out()
    assert office.count(RunLine) == 8
    assert office.session.scalar(select(RunLine.settled).distinct()) is True
    office.session.rollback()
    office.list.leave("user00@example.org")  # by themselves: were the refused line ours, this would be our removal
    plan = dry_run(office.session, office.catalogue.get("members"), office.list, clock=office.clock).plan
    assert len(plan.of(Action.REMOVE)) == 7


def test_a_list_manager_that_fails_is_recorded_in_its_words(office: Office) -> None:
    office.list.watcher = breaking("before roster", 0, ListManagerUnavailableError("members: <b>gone</b>"))
    run_id = office.ask(RunKind.SHOW)
    with pytest.raises(ListManagerUnavailableError):
        office.carry_out()
    found = office.find(run_id)
    assert (found.state, found.message) == ("dropped", "members: <b>gone</b>")


def test_a_sync_that_was_asked_for_fails_as_any_other(office: Office) -> None:
    office.list.watcher = breaking("before roster", 0, ListManagerUnavailableError("members: gone"))
    run_id = office.ask()
    with pytest.raises(ListManagerUnavailableError):
        office.carry_out()
    found = office.found(run_id)
    assert (found.run.state, found.run.message, found.is_last) == ("failed", "members: gone", True)
    assert office.count(Run) == 1


def test_a_list_that_left_the_catalogue_fails(office: Office) -> None:
    run_id = office.ask(handle="gone")
    with pytest.raises(UnknownListError):
        office.carry_out()
    assert office.find(run_id).state == "dropped"


def test_a_list_that_another_run_holds_is_tried_again_later(office: Office) -> None:
    lease = leases.acquire(office.session, "members", outlives_process=True)
    run_id = office.ask()
    with pytest.raises(LeaseHeldError):
        office.carry_out()
    found = office.find(run_id)
    assert (found.state, found.finished_at) == ("asked", None)
    assert "is held by a planned run" in found.message
    assert office.ask() == run_id
    office.clock.advance(minutes=30)
    (waiting,) = office.due()
    assert waiting.was_held
    leases.release(office.session, lease)
    office.carry_out()
    assert (office.find(run_id).state, office.find(run_id).message) == ("done", "")


def test_one_that_finds_the_list_held_gives_way_to_a_newer_one_for_the_same(office: Office) -> None:
    leases.acquire(office.session, "members", outlives_process=True)
    first = office.ask()
    taken = office.take()
    second = office.ask()
    with pytest.raises(LeaseHeldError):
        office.carry_out_taken(taken)
    assert (office.find(first).state, office.find(second).state) == ("dropped", "asked")


def test_a_run_that_lost_the_list_half_way_is_not_begun_again(office: Office) -> None:
    office.people(3)
    office.untick(1)
    taken_over = breaking("after remove", 0, LeaseHeldError("members: another run took the list over"))
    office.list.watcher = taken_over
    run_id = office.ask()
    with pytest.raises(LeaseHeldError):
        office.carry_out()
    assert office.find(run_id).state == "failed"
    assert office.due() == []


def test_a_run_whose_process_is_gone_before_it_began_is_dropped_by_the_next_pass(office: Office) -> None:
    run_id = office.ask()
    office.take()
    office.set(run_id, pid=2**22 + 1)  # as SIGKILL would leave it
    assert office.due() == []
    found = office.find(run_id)
    assert (found.state, found.message, found.finished_at) == ("dropped", "it was interrupted", office.clock())


def test_a_run_whose_process_is_gone_half_way_is_said_to_be_interrupted_and_repaired_by_the_next(
    office: Office,
) -> None:
    office.people(3)
    office.untick(1)
    office.list.watcher = breaking("before remove", 0, Killed())
    run_id = office.ask()
    taken = office.take()
    with pytest.raises(Killed):
        office.carry_out_taken(taken)
    office.set(run_id, state="open", finished_at=None, pid=2**22 + 1)  # as SIGKILL would leave it
    assert office.due() == []
    assert office.found(run_id).is_interrupted
    office.list.watcher = lambda _moment: None
    office.ask()
    assert office.carry_out().repaired == (run_id,)
    assert office.find(run_id).state == "unfinished"


@pytest.mark.parametrize(
    ("place", "pid", "minutes", "is_held", "state"),
    [
        ("here", "parent", 59, False, "taken"),
        ("here", "parent", 61, False, "dropped"),  # its number is another's by now
        ("here", "parent", 61, True, "taken"),
        ("here", "own", 1, False, "dropped"),  # of before the host was started anew
        ("here", 2**22 + 1, 1, True, "dropped"),
        ("here", "parent", -61, False, "dropped"),  # taken by a clock that was ahead
        ("elsewhere", 2**22 + 1, 59, False, "taken"),
        ("elsewhere", 2**22 + 1, 61, False, "dropped"),
        ("elsewhere", 2**22 + 1, 61, True, "taken"),
    ],
)
def test_a_process_that_may_be_running_is_believed(
    office: Office, place: str, pid: int | str, minutes: int, is_held: bool, state: str
) -> None:
    pid = {"parent": os.getppid(), "own": os.getpid()}.get(str(pid), pid)
    if is_held:
        leases.acquire(office.session, "members", outlives_process=True)
    run_id = office.ask()
    office.take()
    office.set(run_id, pid_space=leases.pid_space() if place == "here" else "another boot 1", pid=pid)
    office.clock.advance(minutes=minutes)
    assert office.due() == []
    assert office.find(run_id).state == state


def test_what_was_never_begun_is_forgotten_after_90_days_with_its_lines(office: Office) -> None:
    office.people(12)
    office.untick(2)
    shown = office.show()
    waiting = office.ask()
    office.clock.advance(days=89)
    assert [each.id for each in office.due()] == [waiting]
    assert office.count(RunLine) == 2
    office.clock.advance(days=2)
    assert office.due() == []
    assert (office.count(Run), office.count(RunLine)) == (0, 0)
    with pytest.raises(UnknownRunError, match="90 days"):
        office.find(shown.id)


def test_what_was_carried_out_is_kept(office: Office) -> None:
    office.people(12)
    office.untick(2)
    run_id = office.ask()
    office.carry_out()
    office.clock.advance(days=91)
    office.ask()
    assert [each.id for each in office.due()] != []
    assert (office.find(run_id).removed, office.count(RunLine)) == (2, 2)


def test_an_erased_address_is_in_no_plan_that_was_shown(office: Office) -> None:
    """SECURITY 26: neither in the lines of a plan nor in what a list manager said."""
    office.people(3)
    office.untick(1)
    shown = office.show()
    office.set(shown.id, message="no mailbox user00@example.org here")
    users.delete(office.session, "user00", now=NOW, erase=True, lists=office.catalogue.lists)
    office.ask()
    office.carry_out()
    ((address, action, _result),) = office.lines(shown.id)
    assert (address.partition("-")[0], action) == ("erased", "remove")
    assert "user00" not in office.find(shown.id).message


def test_processes_that_pass_at_once_take_each_run_once(app: Flask, office: Office) -> None:
    handles = [f"list{number}" for number in range(12)]
    for handle in handles:
        office.ask(handle=handle)
    barrier = Barrier(4)

    def passing(_number: int) -> list[str]:
        with app.app_context(), Session(db.engine) as own:
            asked = runs.due(own, now=office.clock())
            barrier.wait(20)
            return [each.handle for each in asked if runs.claim(own, each, now=office.clock())]

    with ThreadPoolExecutor(4) as pool:
        taken = [handle for handles_of_one in pool.map(passing, range(4)) for handle in handles_of_one]
    assert sorted(taken) == sorted(handles)


def test_two_who_ask_at_once_ask_for_one_run(app: Flask, office: Office) -> None:
    barrier = Barrier(6)

    def asking(_number: int) -> int:
        with app.app_context(), Session(db.engine) as own:
            barrier.wait(20)
            return runs.request(own, "members", kind=RunKind.SHOW, actor=BOB, now=office.clock())

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(asking, range(6)))) == 1
    assert office.count(Run) == 1


def test_the_newest_runs_come_first(office: Office) -> None:
    made = [office.ask(handle=f"list{number}") for number in range(5)]
    first = list_reports.runs(office.session, limit=2)
    assert [each.id for each in first] == made[:2:-1]
    assert [each.id for each in list_reports.runs(office.session, before=first[-1].id)] == made[2::-1]
    assert [each.handle for each in list_reports.runs(office.session, handle="list3")] == ["list3"]


def test_lines_of_a_run_are_filtered_and_paged_removals_first(office: Office) -> None:
    office.people(30)
    for name in ("zoe", "banned"):
        make_user(office.session, name)
        make_preference(office.session, "members", f"{name}@example.org", True, touched=True)
    office.list.banned.add("banned@example.org")
    office.untick(3)
    sync_result = sync_list(
        office.session, office.catalogue.get("members"), office.list, clock=office.clock, request=Request()
    )
    run_id = sync_result.run_id or 0
    found = run_reports.find(office.session, run_id)
    assert found.counts == {("add", "done"): 1, ("add", "rejected"): 1, ("remove", "done"): 3}
    assert found.how_many(result="done") == 4

    def addresses(**filters: str | int) -> list[str]:
        return [each.address for each in run_reports.lines(office.session, run_id, **filters)]  # type: ignore[arg-type]

    removed = [f"user0{number}@example.org" for number in range(3)]
    assert addresses() == [*removed, "banned@example.org", "zoe@example.org"]
    assert addresses(action="remove") == removed
    assert addresses(action="add", result="done") == ["zoe@example.org"]
    (refused,) = run_reports.lines(office.session, run_id, result="rejected")
    assert (refused.address, refused.words) == ("banned@example.org", "banned")
    assert addresses(number=2, size=2) == [removed[2], "banned@example.org"]
    assert addresses(number=2) == []


@pytest.mark.parametrize("columns", [{"is_superuser": False}, {"is_active": False}])
def test_a_run_that_was_asked_for_ends_with_the_rights_of_who_asked(office: Office, columns: dict[str, bool]) -> None:
    make_user(office.session, "alice")
    make_preference(office.session, "members", "alice@example.org", True)
    number = office.ask(RunKind.SYNC)
    office.session.execute(update(User).where(User.id == BOB.user_id).values(**columns))
    office.session.commit()
    with pytest.raises(ForbiddenError, match="no longer an active superuser"):
        office.carry_out()
    assert office.list.calls == []
    assert office.find(number).state == "dropped"
    assert office.due() == []
