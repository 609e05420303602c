"""Requests of superusers: written by the web, taken once, carried out by a command, and ended with what became of them."""

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from portal.domain.merge import Action
from portal.errors import (
    ForbiddenError,
    LeaseHeldError,
    ListManagerUnavailableError,
    PlanChangedError,
    SafetyLimitError,
    UnknownListError,
    UnknownRequestError,
)
from portal.extensions import Portal, db
from portal.models import Preference, RequestLine, Run, RunLine, RunRequest, User
from portal.services.accounts import users
from portal.services.history import Actor
from portal.services.reports import runs as run_reports
from portal.services.sync import leases, requests
from portal.services.sync.requests import Kind, Means, RequestReport, Waiting
from portal.services.sync.sync import Request, SyncResult, dry_run, sync_list
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
        self.means = Means(self.portal.catalogue(), lambda _list: self.list, clock)
        make_account(session, BOB)

    def ask(self, kind: Kind = Kind.SYNC, handle: str = "members", *, plan_id: str | None = None) -> int:
        return requests.ask(self.session, handle, kind=kind, plan_id=plan_id, actor=BOB, now=self.clock())

    def due(self) -> list[Waiting]:
        return requests.due(self.session, now=self.clock())

    def take(self) -> Waiting:
        (waiting,) = self.due()
        assert requests.take(self.session, waiting, now=self.clock())
        return waiting

    def carry_out(self) -> SyncResult:
        return requests.carry_out(self.session, self.take(), self.means)

    def find(self, request_id: int) -> RequestReport:
        return requests.find(self.session, request_id)

    def show(self) -> RequestReport:
        """Ask to be shown a plan, and return it."""
        request_id = self.ask(Kind.SHOW)
        self.carry_out()
        return self.find(request_id)

    def lines(self, request_id: int) -> list[tuple[str | None, str, bool]]:
        return [(each.address, each.action, each.held) for each in requests.lines(self.session, request_id)]

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
            .values(subscribed=False, touched=True, version=Preference.version + 1)
        )
        self.session.commit()

    def set(self, request_id: int, **columns: object) -> None:
        self.session.execute(update(RunRequest).where(RunRequest.id == request_id).values(**columns))
        self.session.commit()

    def count(self, model: type) -> int:
        found = self.session.scalar(select(func.count()).select_from(model))
        self.session.rollback()
        return found or 0


@pytest.fixture
def office(app: Flask, session: Session, clock: Clock) -> Office:
    return Office(app, session, clock)


def test_a_request_waits_and_says_who_asked_and_when(office: Office) -> None:
    found = office.find(office.ask())
    assert (found.handle, found.kind, found.state, found.asked_by) == ("members", "sync", "waiting", "bob")
    assert found.asked_at == office.clock()
    assert not found.is_overdue(office.clock() + timedelta(minutes=5))
    assert found.is_overdue(office.clock() + timedelta(minutes=6))


def test_asking_for_the_same_again_while_it_waits_is_one_request(office: Office) -> None:
    first = office.ask()
    assert office.ask() == first
    others = {office.ask(Kind.SHOW), office.ask(handle="tech")}
    plans = {office.ask(Kind.APPLY, plan_id="0" * 16), office.ask(Kind.APPLY, plan_id="1" * 16)}
    assert len({first} | others | plans) == 5
    assert [each.id for each in office.due()] == sorted({first} | others | plans)


def test_asking_again_once_it_is_taken_is_a_new_request(office: Office) -> None:
    first = office.ask()
    office.take()
    assert office.ask() != first


def test_a_sync_is_carried_out_and_leads_to_its_run(office: Office) -> None:
    office.people(3)
    office.untick(1)
    request_id = office.ask()
    sync_result = office.carry_out()
    found = office.find(request_id)
    assert (found.state, found.run_id, found.finished_at) == ("done", sync_result.run_id, office.clock())
    run = run_reports.find(office.session, found.run_id or 0)
    assert (run.run.removed, run.request_id, run.run.trigger) == (1, request_id, f"request {request_id} of bob")
    assert office.due() == []


def test_a_plan_is_shown_with_what_is_dangerous_first_and_nothing_is_done(office: Office) -> None:
    office.people(12)
    office.untick(2)
    make_user(office.session, "aaron")
    make_preference(office.session, "members", "aaron@example.org", True, touched=True)
    office.list.leave("user11@example.org")
    shown = office.show()
    assert (shown.state, shown.adds, shown.removals, shown.left, shown.changes) == ("done", 1, 2, 1, 4)
    assert office.lines(shown.id) == [
        ("user00@example.org", "remove", False),
        ("user01@example.org", "remove", False),
        ("user11@example.org", "left", False),
        ("aaron@example.org", "add", False),
    ]
    assert {name for name, _told in office.list.calls} == {"roster"}
    assert office.count(Run) == 0


def test_lines_are_paged(office: Office) -> None:
    office.people(40)
    office.untick(30)
    shown = office.show()
    first = requests.lines(office.session, shown.id, limit=20)
    rest = requests.lines(office.session, shown.id, after=first[-1].position, limit=20)
    assert [each.address for each in (*first, *rest)] == [f"user{number:02}@example.org" for number in range(30)]


def test_a_plan_that_was_shown_is_applied_past_the_brake(office: Office) -> None:
    everybody = office.people(40)
    office.untick(8)
    office.ask()
    with pytest.raises(SafetyLimitError):
        office.carry_out()
    shown = office.show()
    assert shown.warning == "it takes 8 of 40 addresses off the list or as having left"
    request_id = office.ask(Kind.APPLY, plan_id=shown.found_plan_id)
    sync_result = office.carry_out()
    assert sync_result.tally["removed"] == 8
    assert set(office.list.members) == set(everybody[8:])
    run = run_reports.find(office.session, office.find(request_id).run_id or 0)
    assert (run.run.accepted, run.run.result) == (True, "done")


def test_a_plan_that_has_changed_is_shown_again_and_nothing_is_pushed(office: Office) -> None:
    everybody = office.people(12)
    office.untick(2)
    shown = office.show()
    office.untick(3)
    request_id = office.ask(Kind.APPLY, plan_id=shown.found_plan_id)
    with pytest.raises(PlanChangedError, match=r"^members: the plan is not [0-9a-f]{16} any more") as refusal:
        office.carry_out()
    found = office.find(request_id)
    assert (found.state, found.found_plan_id, found.removals) == ("changed", refusal.value.plan_id, 3)
    assert found.run_id is None
    assert len(office.lines(request_id)) == 3
    assert set(office.list.members) == set(everybody)
    assert office.count(Run) == 0
    office.ask(Kind.APPLY, plan_id=found.found_plan_id)
    office.carry_out()
    assert set(office.list.members) == set(everybody[3:])


def test_a_plan_is_applied_once(office: Office) -> None:
    office.people(12)
    office.untick(2)
    shown = office.show()
    for state in ("done", "changed"):
        request_id = office.ask(Kind.APPLY, plan_id=shown.found_plan_id)
        if state == "changed":
            with pytest.raises(PlanChangedError):
                office.carry_out()
        else:
            office.carry_out()
        assert office.find(request_id).state == state
    assert office.count(Run) == 1


def test_an_empty_roster_in_doubt_is_said_to_be_so_and_believed_by_its_plan(office: Office) -> None:
    office.people(3)
    office.list.members.clear()
    shown = office.show()
    assert (shown.doubtful, shown.left) == (3, 3)
    office.ask(Kind.APPLY, plan_id=shown.found_plan_id)
    assert len(office.carry_out().plan.of(Action.LEFT)) == 3


def test_a_refusal_by_the_brake_is_recorded_with_its_run_and_lines(office: Office) -> None:
    office.people(40)
    office.untick(8)
    request_id = office.ask()
    with pytest.raises(SafetyLimitError):
        office.carry_out()
    found = office.find(request_id)
    run = run_reports.find(office.session, found.run_id or 0)
    assert (found.state, run.run.result, run.is_last) == ("refused", "refused", True)
    assert "this plan exceeds the safety limits" in found.message
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
    plan = dry_run(office.session, office.means.catalogue.get("members"), office.list, clock=office.clock).plan
    assert len(plan.of(Action.REMOVE)) == 7


def test_a_list_manager_that_fails_is_recorded_in_its_words(office: Office) -> None:
    office.list.watcher = breaking("before roster", 0, ListManagerUnavailableError("members: <b>gone</b>"))
    request_id = office.ask(Kind.SHOW)
    with pytest.raises(ListManagerUnavailableError):
        office.carry_out()
    found = office.find(request_id)
    assert (found.state, found.message, found.run_id) == ("failed", "members: <b>gone</b>", None)


def test_a_list_that_left_the_catalogue_fails(office: Office) -> None:
    request_id = office.ask(handle="gone")
    with pytest.raises(UnknownListError):
        office.carry_out()
    assert office.find(request_id).state == "failed"


def test_a_list_that_another_run_holds_is_tried_again_later(office: Office) -> None:
    lease = leases.acquire(office.session, "members", outlives_process=True)
    request_id = office.ask()
    with pytest.raises(LeaseHeldError):
        office.carry_out()
    found = office.find(request_id)
    assert (found.state, found.finished_at) == ("waiting", None)
    assert "is held by a planned run" in found.message
    assert office.ask() == request_id
    office.clock.advance(minutes=30)
    (waiting,) = office.due()
    assert waiting.was_held
    leases.release(office.session, lease)
    office.carry_out()
    assert (office.find(request_id).state, office.find(request_id).message) == ("done", "")


def test_one_that_finds_the_list_held_gives_way_to_a_newer_one_for_the_same(office: Office) -> None:
    leases.acquire(office.session, "members", outlives_process=True)
    first = office.ask()
    taken = office.take()
    second = office.ask()
    with pytest.raises(LeaseHeldError):
        requests.carry_out(office.session, taken, office.means)
    assert (office.find(first).state, office.find(second).state) == ("failed", "waiting")


def test_a_run_that_lost_the_list_half_way_is_not_begun_again(office: Office) -> None:
    office.people(3)
    office.untick(1)
    taken_over = breaking("after remove", 0, LeaseHeldError("members: another run took the list over"))
    office.list.watcher = taken_over
    request_id = office.ask()
    with pytest.raises(LeaseHeldError):
        office.carry_out()
    found = office.find(request_id)
    assert found.state == "failed"
    assert found.run_id is not None
    assert office.due() == []


def test_a_request_whose_process_is_gone_is_ended_by_the_next_pass(office: Office) -> None:
    office.people(3)
    office.untick(1)
    office.list.watcher = breaking("before remove", 0, Killed())
    request_id = office.ask()
    taken = office.take()
    with pytest.raises(Killed):
        requests.carry_out(office.session, taken, office.means)
    office.set(request_id, state="taken", finished_at=None, run_id=None, pid=2**22 + 1)  # as SIGKILL would leave it
    assert office.due() == []
    found = office.find(request_id)
    assert (found.state, found.message, found.finished_at) == ("unfinished", "it was interrupted", office.clock())
    assert found.run_id is not None


@pytest.mark.parametrize(
    ("host", "pid", "minutes", "is_held", "state"),
    [
        ("here", "parent", 59, False, "taken"),
        ("here", "parent", 61, False, "unfinished"),  # its number is another's by now
        ("here", "parent", 61, True, "taken"),
        ("here", "own", 1, False, "unfinished"),  # of before the host was started anew
        ("here", 2**22 + 1, 1, True, "unfinished"),
        ("elsewhere", 2**22 + 1, 59, False, "taken"),
        ("elsewhere", 2**22 + 1, 61, False, "unfinished"),
        ("elsewhere", 2**22 + 1, 61, True, "taken"),
    ],
)
def test_a_process_that_may_be_at_work_is_believed(
    office: Office, host: str, pid: int | str, minutes: int, is_held: bool, state: str
) -> None:
    pid = {"parent": os.getppid(), "own": os.getpid()}.get(str(pid), pid)
    if is_held:
        leases.acquire(office.session, "members", outlives_process=True)
    request_id = office.ask()
    office.take()
    office.set(request_id, host=socket.gethostname() if host == "here" else host, pid=pid)
    office.clock.advance(minutes=minutes)
    assert office.due() == []
    assert office.find(request_id).state == state


def test_requests_are_forgotten_after_90_days_with_their_lines(office: Office) -> None:
    office.people(12)
    office.untick(2)
    shown = office.show()
    waiting = office.ask()
    office.clock.advance(days=89)
    assert [each.id for each in office.due()] == [waiting]
    assert office.count(RequestLine) == 2
    office.clock.advance(days=2)
    assert office.due() == []
    assert (office.count(RunRequest), office.count(RequestLine)) == (0, 0)
    with pytest.raises(UnknownRequestError, match="90 days"):
        office.find(shown.id)


def test_an_erased_address_is_in_no_request(office: Office) -> None:
    """SECURITY 26: neither in the lines of a plan nor in what a list manager said."""
    office.people(3)
    office.untick(1)
    shown = office.show()
    office.set(shown.id, message="no mailbox user00@example.org here")
    users.delete(office.session, "user00", erase=True, lists=office.means.catalogue.lists)
    office.ask()
    office.carry_out()
    assert office.lines(shown.id) == [(None, "remove", False)]
    assert "user00" not in office.find(shown.id).message


def test_processes_that_pass_at_once_take_each_request_once(app: Flask, office: Office) -> None:
    handles = [f"list{number}" for number in range(12)]
    for handle in handles:
        office.ask(handle=handle)
    barrier = Barrier(4)

    def passing(_number: int) -> list[str]:
        with app.app_context(), Session(db.engine) as own:
            waiting = requests.due(own, now=office.clock())
            barrier.wait(20)
            return [each.handle for each in waiting if requests.take(own, each, now=office.clock())]

    with ThreadPoolExecutor(4) as pool:
        taken = [handle for handles_of_one in pool.map(passing, range(4)) for handle in handles_of_one]
    assert sorted(taken) == sorted(handles)


def test_two_who_ask_at_once_make_one_request(app: Flask, office: Office) -> None:
    barrier = Barrier(6)

    def asking(_number: int) -> int:
        with app.app_context(), Session(db.engine) as own:
            barrier.wait(20)
            return requests.ask(own, "members", kind=Kind.SHOW, actor=BOB, now=office.clock())

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(asking, range(6)))) == 1
    assert office.count(RunRequest) == 1


def test_the_newest_requests_come_first(office: Office) -> None:
    made = [office.ask(handle=f"list{number}") for number in range(5)]
    first = requests.recent(office.session, limit=2)
    assert [each.id for each in first] == made[:2:-1]
    assert [each.id for each in requests.recent(office.session, before=first[-1].id)] == made[2::-1]
    assert [each.handle for each in requests.recent(office.session, handle="list3")] == ["list3"]


def test_lines_of_a_run_are_filtered_and_paged_by_address(office: Office) -> None:
    office.people(30)
    for name in ("zoe", "banned"):
        make_user(office.session, name)
        make_preference(office.session, "members", f"{name}@example.org", True, touched=True)
    office.list.banned.add("banned@example.org")
    office.untick(3)
    sync_result = sync_list(
        office.session, office.means.catalogue.get("members"), office.list, clock=office.clock, request=Request()
    )
    run_id = sync_result.run_id or 0
    found = run_reports.find(office.session, run_id)
    assert found.counts == {("add", "done"): 1, ("add", "rejected"): 1, ("remove", "done"): 3}
    assert found.how_many(result="done") == 4

    def addresses(**filters: str | int) -> list[str]:
        return [each.address for each in run_reports.lines(office.session, run_id, **filters)]  # type: ignore[arg-type]

    removed = [f"user0{number}@example.org" for number in range(3)]
    assert addresses() == ["banned@example.org", *removed, "zoe@example.org"]
    assert addresses(action="remove") == removed
    assert addresses(action="add", result="done") == ["zoe@example.org"]
    (refused,) = run_reports.lines(office.session, run_id, result="rejected")
    assert (refused.address, refused.words) == ("banned@example.org", "banned")
    second = run_reports.lines(office.session, run_id, limit=2)[-1]
    assert addresses(after=second.address_id, limit=2) == removed[1:]
    assert addresses(after=2**31 - 1) == []


@pytest.mark.parametrize("columns", [{"is_superuser": False}, {"is_active": False}])
def test_a_request_ends_with_the_rights_of_who_asked(office: Office, columns: dict[str, bool]) -> None:
    make_user(office.session, "alice")
    make_preference(office.session, "members", "alice@example.org", True)
    number = office.ask(Kind.SYNC)
    office.session.execute(update(User).where(User.id == BOB.user_id).values(**columns))
    office.session.commit()
    with pytest.raises(ForbiddenError, match="no active superuser"):
        office.carry_out()
    assert office.list.calls == []
    assert office.find(number).state == "failed"
    assert office.due() == []
