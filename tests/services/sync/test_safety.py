"""The safety limits at work in a sync: SEMANTICS, "Safety"."""

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from portal.domain.merge import Action
from portal.errors import ListManagerUnavailableError, SafetyLimitError
from portal.extensions import Portal
from portal.models import Address, Preference, Restore, Run, RunLine, User
from portal.services.accounts import address_changes, addresses, profiles
from portal.services.history import COMMAND_LINE
from portal.services.preferences import preferences
from portal.services.sync.run_steps import Request, SyncResult
from portal.services.sync.sync import dry_run, sync_list
from tests.conftest import Clock
from tests.factories import make_preference, make_user
from tests.fakes.memory import MemoryList, breaking


class World:
    """A list in memory with members who were on it at the last run."""

    def __init__(self, app: Flask, session: Session, clock: Clock) -> None:
        self.portal: Portal = app.extensions["portal"]
        self.session, self.clock = session, clock
        self.list = MemoryList(batch=50)
        self.members = self.portal.catalogue().get("members")

    def has(self, count: int, *, first: int = 0, subscribed: bool = True, on: bool = True, **columns: object) -> None:
        """Let users have a preference that the last run left in agreement with the list; ``on``: they are on it."""
        for number in range(first, first + count):
            address = f"u{number:02}@example.org"
            make_user(self.session, f"u{number:02}", address)
            make_preference(self.session, "members", address, subscribed, seen=subscribed, version=1, **columns)
            if on:
                self.list.join(address)

    def choose(self, subscribed: bool, *numbers: int, source: str = "user") -> None:
        ids = [self.address_id(number) for number in numbers]
        values = {"subscribed": subscribed, "source": source, "touched": True, "version": Preference.version + 1}
        self.session.execute(update(Preference).where(Preference.address_id.in_(ids)).values(**values))
        self.session.commit()

    def switch_off(self, *numbers: int) -> None:
        names = [f"u{number:02}" for number in numbers]
        self.session.execute(update(User).where(User.username.in_(names)).values(is_active=False))
        self.session.commit()

    def leave(self, *numbers: int) -> None:
        for number in numbers:
            self.list.leave(f"u{number:02}@example.org")

    def address_id(self, number: int) -> int:
        found = self.session.scalar(select(Address.id).where(Address.canonical == f"u{number:02}@example.org"))
        self.session.rollback()
        assert found is not None
        return found

    def sync(self, **request: str) -> SyncResult:
        self.list.calls.clear()
        return sync_list(self.session, self.members, self.list, clock=self.clock, request=Request(**request))

    def held(self, **request: str) -> str:
        """Sync a list whose plan needs approval; return the plan's id."""
        with pytest.raises(SafetyLimitError) as refusal:
            self.sync(**request)
        assert self.last_run().state == "held"
        return refusal.value.plan_id

    def row(self, number: int) -> Preference:
        self.session.expire_all()
        found = self.session.scalar(select(Preference).where(Preference.address_id == self.address_id(number)))
        assert found is not None
        self.session.expunge(found)
        self.session.rollback()
        return found

    def last_run(self) -> Run:
        self.session.expire_all()
        found = self.session.scalars(select(Run).order_by(Run.id.desc())).first()
        assert found is not None
        self.session.expunge(found)
        self.session.rollback()
        return found

    def results(self) -> dict[str, str | None]:
        found = self.session.execute(
            select(RunLine.address, RunLine.result).where(RunLine.run_id == self.last_run().id)
        ).all()
        self.session.rollback()
        return {address.partition("@")[0]: result for address, result in found}

    def on(self) -> int:
        return len(self.list.members)


@pytest.fixture
def world(app: Flask, session: Session, clock: Clock) -> World:
    return World(app, session, clock)


def test_six_of_thirty_members_who_untick_are_removed_without_approval(world: World) -> None:
    world.has(30)
    world.choose(False, *range(6))
    world.sync()
    assert (world.on(), world.last_run().state) == (24, "done")


def give_second_addresses(world: World, *numbers: int) -> None:
    for number in numbers:
        values = {"actor": COMMAND_LINE, "now": world.clock(), "lists": world.portal.catalogue().lists}
        user_id = profiles.id_of(world.session, f"u{number:02}")
        address_changes.add(world.session, user_id, addresses.checked(f"home{number:02}@example.org"), **values)


def choose_second_address(world: World, number: int) -> None:
    """Send a list to another address of a member, as their page does."""
    user_id, catalogue = profiles.id_of(world.session, f"u{number:02}"), world.portal.catalogue()
    page = preferences.page(world.session, user_id, catalogue=catalogue, now=world.clock())
    main, home = (each.id for each in page.addresses)
    preferences.choose(
        world.session,
        user_id,
        shown={"members": main},
        ticked={"members"},
        addresses={"members": home},
        catalogue=catalogue,
        now=world.clock(),
    )


@pytest.mark.parametrize("count", [2, 30])
def test_members_who_send_a_list_to_another_of_their_addresses_need_no_approval(world: World, count: int) -> None:
    world.has(count)
    give_second_addresses(world, *range(count))
    world.sync()
    world.clock.advance(hours=13)
    for number in range(count):
        choose_second_address(world, number)
    world.sync()
    assert (world.on(), world.last_run().state) == (count, "done")
    assert all(name.startswith("home") for name in world.list.members)


def test_addresses_given_in_bulk_that_are_on_the_list_need_approval_to_leave_it(world: World) -> None:
    world.has(30)
    for number in range(6):
        world.list.join(f"home{number:02}@example.org")
    give_second_addresses(world, *range(6))
    plan_id = world.held()
    assert world.on() == 36
    world.sync(accept=plan_id)
    assert world.on() == 30


def test_six_of_thirty_whom_a_superuser_unticks_need_approval(world: World) -> None:
    world.has(30)
    world.choose(False, *range(6), source="superuser")
    plan_id = world.held()
    assert world.on() == 30
    world.sync(accept=plan_id)
    assert (world.on(), world.last_run().accepted) == (24, True)


def test_a_roster_restored_at_the_list_manager_does_not_subscribe_who_had_unsubscribed(world: World) -> None:
    world.has(40)
    world.has(30, first=40, subscribed=False)  # back on the roster
    world.held()
    assert (world.row(50).subscribed, world.row(50).seen) == (False, False)


def test_where_the_rest_waits_own_choices_are_carried_out_and_taken_in_alone(world: World) -> None:
    world.has(30)
    world.has(1, first=40, subscribed=False, on=False)
    world.has(1, first=41, on=False)  # left at the list
    make_user(world.session, "fresh")
    world.switch_off(*range(10))
    world.choose(False, 20)
    world.choose(True, 40)
    world.held()
    assert sorted(name for name, _told in world.list.calls) == ["add", "remove", "roster", "roster"]
    assert "u40@example.org" in world.list.members
    assert "u20@example.org" not in world.list.members
    assert (world.row(40).seen, world.row(40).touched, world.row(20).seen, world.row(20).touched) == (
        True, False, False, False,
    )  # fmt: skip
    run = world.last_run()
    assert (run.added, run.removed, run.left, run.initialised) == (1, 1, 0, 0)
    assert world.row(41).subscribed
    assert not world.row(0).departed
    assert world.session.scalar(select(func.count()).select_from(Preference)) == 32  # and none of the newcomer's
    world.session.rollback()
    assert {name for name, result in world.results().items() if result == "waits"} == {
        *(f"u{number:02}" for number in range(10)), "u41",
    }  # fmt: skip


def test_own_choices_made_meanwhile_do_not_change_what_is_approved(world: World) -> None:
    world.has(30)
    world.switch_off(*range(10))
    plan_id = world.held()
    world.choose(False, 20)
    assert world.held() == plan_id
    world.choose(False, 21)
    world.sync(accept=plan_id)
    assert world.on() == 18


def test_lines_that_wait_explain_nothing(world: World) -> None:
    world.has(30)
    world.switch_off(*range(10))
    world.choose(False, 20)
    world.held()
    settled = world.session.scalars(select(RunLine.settled).distinct()).all()
    world.session.rollback()
    assert settled == [True]
    world.leave(0)  # by themselves
    plan = dry_run(world.session, world.members, world.list, clock=world.clock).plan
    assert len(plan.of(Action.REMOVE)) == 9


def test_a_run_that_breaks_while_the_rest_waits_is_repaired(world: World) -> None:
    world.has(30)
    world.switch_off(*range(10))
    world.choose(False, 20)
    world.list.watcher = breaking("after remove", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    world.list.watcher = lambda _moment: None
    assert (world.last_run().state, world.row(20).touched, world.row(20).source) == ("failed", True, "user")
    world.held()
    assert (world.row(20).subscribed, world.row(20).source) == (False, "user")


def test_twelve_hours_count_together_and_what_was_approved_does_not(world: World) -> None:
    world.has(30)
    world.leave(0, 1, 2)
    world.sync()
    world.clock.advance(hours=11)
    world.leave(3, 4, 5)
    plan_id = world.held()
    world.sync(accept=plan_id)
    world.clock.advance(minutes=30)
    world.leave(6, 7)
    world.sync()  # with the first three
    world.leave(8)
    world.held()
    world.clock.advance(hours=12)
    world.sync()
    assert not world.row(8).subscribed


def test_runs_at_a_clock_that_was_years_ahead_do_not_count_for_years(world: World) -> None:
    world.has(30)
    world.clock.advance(days=3650)
    world.leave(0, 1, 2, 3)
    world.sync()
    world.clock.advance(days=-3650)
    world.leave(4, 5, 6)
    world.sync()
    assert not world.row(6).subscribed


@pytest.mark.parametrize("roster", [[], ["x@example.net"]], ids=["empty", "another list's"])
def test_where_every_address_is_gone_own_choices_wait_too(world: World, roster: list[str]) -> None:
    world.has(3)
    world.has(1, first=40, subscribed=False, on=False)
    world.choose(True, 40)
    world.list.members = {each: each for each in roster}
    plan_id = world.held()
    assert [name for name, _told in world.list.calls] == ["roster"]
    assert world.row(0).subscribed
    world.sync(accept=plan_id)
    assert (world.row(0).subscribed, world.row(40).seen) == (False, True)


def test_two_of_two_who_lose_their_list_wait_and_their_own_unticks_do_not(world: World) -> None:
    world.has(2)
    world.switch_off(0, 1)
    world.held()
    assert world.on() == 2
    world.session.execute(update(User).values(is_active=True))
    world.session.commit()
    world.choose(False, 0, 1)
    world.sync()
    assert world.on() == 0


def test_the_first_plan_of_a_list_after_a_restore_waits_as_a_whole_until_it_is_approved(world: World) -> None:
    world.has(3)
    world.sync()
    world.clock.advance(minutes=1)
    world.session.add(Restore(at=world.clock()))
    world.session.commit()
    world.clock.advance(minutes=1)
    world.choose(False, 0)
    plan_id = world.held()
    assert world.on() == 3
    world.clock.advance(minutes=1)
    world.sync(accept=plan_id)
    assert world.on() == 2
    world.choose(False, 1)
    world.sync()
    assert world.on() == 1
