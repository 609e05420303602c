"""The sync against a list manager on text files, and the real database."""

import hashlib
from datetime import datetime, timedelta

import pytest
from flask import Flask
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.domain.address import canonical
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.roster_text import RosterText
from portal.errors import (
    LeaseHeldError,
    ListManagerUnavailableError,
    NoAddressesError,
    NoPlannedRunError,
    RosterInDoubtError,
    SafetyLimitError,
)
from portal.extensions import Portal
from portal.listmanagers.base import OddSubscriber, Result
from portal.models import Address, Lease, Preference, Run, User, UserAddress
from portal.services.accounts import address_changes
from portal.services.accounts.addresses import Checked
from portal.services.history import COMMAND_LINE
from portal.services.preferences.preferences import choose
from portal.services.sync import leases
from portal.services.sync.list_init import list_init
from portal.services.sync.planned_runs import abandon_planned_run, begin_planned_run, confirm_planned_run
from portal.services.sync.roster_input import RosterUse, carry_out
from portal.services.sync.run_steps import Request, SyncResult
from portal.services.sync.sync import dry_run, sync_list
from portal.services.sync.wanted import planned
from tests.conftest import Clock, Rosters
from tests.factories import make_preference, make_user
from tests.fakes.memory import MemoryList, WithdrawingList, breaking


@pytest.fixture
def portal(app: Flask) -> Portal:
    return app.extensions["portal"]


@pytest.fixture
def members(portal: Portal) -> MailingList:
    return portal.catalogue().get("members")


class Sync:
    def __init__(self, session: Session, portal: Portal) -> None:
        self.session, self.portal = session, portal

    def __call__(self, handle: str = "members", **request: object) -> SyncResult:
        mailing_list = self.portal.catalogue().get(handle)
        manager = self.portal.open_list_manager(mailing_list)
        return sync_list(self.session, mailing_list, manager, clock=self.portal.clock, request=Request(**request))


@pytest.fixture
def sync(session: Session, portal: Portal) -> Sync:
    return Sync(session, portal)


def preferences(session: Session, handle: str = "members") -> dict[int, tuple[bool, bool | None, str]]:
    rows = session.execute(
        select(Preference.address_id, Preference.subscribed, Preference.seen, Preference.source)
        .where(Preference.list_handle == handle)
        .order_by(Preference.address_id)
    ).all()
    session.rollback()
    return {row.address_id: (row.subscribed, row.seen, row.source) for row in rows}


def test_a_first_run_takes_over_what_the_roster_says(session: Session, sync: Sync, rosters: Rosters) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    rosters.set("members", "Alice@Example.org", "stranger@example.net")
    sync_result = sync()
    assert list(preferences(session).values()) == [(True, True, "init"), (False, False, "init")]
    assert rosters.get("members") == {"Alice@Example.org", "stranger@example.net"}
    assert sync_result.plan.without_account == 1


def test_accounts_outside_the_audience_are_not_counted_as_without_one(
    session: Session, sync: Sync, rosters: Rosters
) -> None:
    make_user(session, "alice", groups=("board",))
    make_user(session, "bob")
    make_user(session, "charlie", is_active=False)
    make_preference(session, "board", "charlie@example.org", True, seen=True, departed=True)
    make_preference(session, "board", "gone@example.org", False, seen=True, departed=True)
    rosters.set("board", *(f"{name}@example.org" for name in ("alice", "bob", "charlie", "gone", "stranger")))
    plan = sync("board").plan
    assert (plan.on_roster, plan.without_account, plan.counts["initialised"]) == (5, 2, 1)
    assert len(rosters.get("board")) == 5


def test_a_tick_is_added_and_an_untick_removed(session: Session, sync: Sync, rosters: Rosters) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    make_preference(session, "members", "alice@example.org", True, touched=True)
    make_preference(session, "members", "bob@example.org", False, touched=True, seen=True)
    rosters.set("members", "Bob@example.org", "stranger@example.net")
    sync_result = sync()
    assert rosters.get("members") == {"alice@example.org", "stranger@example.net"}
    assert sync_result.tally == {"added": 1, "removed": 1, "refused": 0, "waiting": 0, "no_effect": 0}
    again = sync()
    assert again.tally == {"added": 0, "removed": 0, "refused": 0, "waiting": 0, "no_effect": 0}
    assert not again.plan.lines


def test_whoever_leaves_at_the_list_is_not_added_again(session: Session, sync: Sync, rosters: Rosters) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    rosters.set("members", "alice@example.org", "bob@example.org")
    sync()
    rosters.set("members", "bob@example.org")
    sync()
    assert rosters.get("members") == {"bob@example.org"}
    assert next(iter(preferences(session).values())) == (False, False, "list")


def test_an_empty_roster_needs_approval(session: Session, sync: Sync, rosters: Rosters) -> None:
    make_user(session, "alice")
    rosters.set("members", "alice@example.org")
    sync()
    rosters.set("members")
    with pytest.raises(SafetyLimitError, match=r"--accept [0-9a-f]{16}$") as refusal:
        sync()
    assert list(preferences(session).values()) == [(True, True, "init")]
    sync(accept=refusal.value.plan_id)
    assert list(preferences(session).values()) == [(False, False, "list")]


def test_the_safety_limits_stop_a_large_plan_and_its_id_lets_it_through(
    session: Session, sync: Sync, rosters: Rosters
) -> None:
    names = [f"user{number}" for number in range(40)]
    for name in names:
        make_user(session, name)
    rosters.set("members", *(f"{name}@example.org" for name in names))
    sync()
    for row in session.scalars(select(Preference).limit(8)):
        row.subscribed, row.touched, row.version, row.source = False, True, 1, "superuser"
    session.commit()
    with pytest.raises(SafetyLimitError, match=r"run again with: --accept [0-9a-f]{16}$") as refusal:
        sync()
    assert len(rosters.get("members")) == 40
    sync(accept=refusal.value.plan_id)
    assert len(rosters.get("members")) == 32


def test_list_init_twice_changes_nothing(session: Session, members: MailingList, clock: Clock) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    lines = [b"ALICE@example.org\r\n", b"x@y.org\n", b"rubbish\n"]
    counts = list_init(session, members, RosterText(lines, skip_invalid=True), now=clock())
    assert (counts.subscribed, counts.unsubscribed, counts.kept, counts.unknown, counts.invalid) == (1, 1, 0, 1, 1)
    again = list_init(session, members, RosterText([b"alice@example.org"]), now=clock())
    assert (again.subscribed, again.unsubscribed, again.kept, again.unknown, again.invalid) == (0, 0, 2, 0, 0)


# With a list manager in memory, which moderates, refuses and breaks.


class World:
    """A list, its portal, and shorthands to act and to look."""

    def __init__(self, session: Session, portal: Portal, clock: Clock) -> None:
        self.session, self.portal, self.clock = session, portal, clock
        self.list = MemoryList()
        self.mailing_list = portal.catalogue().get("members")

    def sync(self, **request: object) -> SyncResult:
        self.list.calls.clear()
        return sync_list(self.session, self.mailing_list, self.list, clock=self.clock, request=Request(**request))

    def tick(self, address: str, subscribed: bool = True, **columns: object) -> None:
        make_user(self.session, address.partition("@")[0], address)
        make_preference(self.session, "members", address, subscribed, touched=True, **columns)

    def row(self, address: str) -> Preference:
        self.session.expire_all()
        found = self.session.scalar(
            select(Preference).join(Address, Address.id == Preference.address_id).where(Address.canonical == address)
        )
        assert found is not None
        self.session.expunge(found)
        self.session.commit()
        return found

    def runs(self) -> list[Run]:
        self.session.expire_all()
        found = list(self.session.scalars(select(Run).order_by(Run.id)))
        self.session.expunge_all()
        self.session.commit()
        return found

    def update(self, address: str, **columns: object) -> None:
        row = self.row(address)
        self.session.execute(update(Preference).where(Preference.address_id == row.address_id).values(**columns))
        self.session.commit()

    def told(self, name: str) -> list[str]:
        return [address for call, addresses in self.list.calls if call == name for address in addresses]


@pytest.fixture
def world(session: Session, portal: Portal, clock: Clock) -> World:
    return World(session, portal, clock)


def test_an_address_that_makes_the_list_manager_fail_is_refused_by_name_and_the_rest_is_done(world: World) -> None:
    for name in ("alice", "bob", "charlie"):
        world.tick(f"{name}@example.org")
    world.list.join("dora@example.org")
    world.tick("dora@example.org", False, seen=True)
    world.list.poison = {"bob@example.org"}
    sync_result = world.sync()
    assert set(world.list.members) == {"alice@example.org", "charlie@example.org"}
    assert world.list.calls == [
        ("roster", ()),
        ("remove", ("dora@example.org",)),
        ("add", ("alice@example.org", "bob@example.org", "charlie@example.org")),
        ("add", ("alice@example.org",)),
        ("add", ("bob@example.org",)),
        ("add", ("charlie@example.org",)),
        ("roster", ()),
    ]
    assert [each.address for each in sync_result.new_failures] == ["bob@example.org"]
    assert world.row("bob@example.org").refusal == "500 Internal Server Error"
    assert not world.row("bob@example.org").waiting_since
    assert world.runs()[-1].state == "done"
    world.sync()
    assert world.list.calls == [("roster", ())]


@pytest.mark.parametrize("seen", [False, True], ids=["add", "remove"])
def test_one_address_alone_that_makes_the_list_manager_fail_is_refused(world: World, seen: bool) -> None:
    world.list.join("bob@example.org")
    world.tick("bob@example.org", True, seen=True)
    world.tick("alice@example.org", not seen, seen=seen)
    if seen:
        world.list.join("alice@example.org")
    world.list.poison = {"alice@example.org"}
    assert [each.address for each in world.sync().new_failures] == ["alice@example.org"]
    assert world.row("alice@example.org").seen is seen


def test_leaving_does_not_wait_behind_a_list_manager_that_fails_at_adds(world: World) -> None:
    world.list.join("charlie@example.org")
    world.tick("charlie@example.org", False, seen=True)
    world.tick("alice@example.org")
    world.tick("bob@example.org")
    world.list.poison = {"alice@example.org", "bob@example.org"}
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    assert set(world.list.members) == set()
    assert world.runs()[-1].state == "failed"


def test_a_list_manager_that_fails_at_everything_refuses_nobody(world: World) -> None:
    world.tick("alice@example.org")

    def go_down(moment: str) -> None:
        world.list.is_down = moment == "before add"

    world.list.watcher = go_down
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    assert world.row("alice@example.org").refusal is None


def test_of_many_addresses_that_fail_only_the_first_are_tried_again(world: World) -> None:
    world.list.batch = 50
    names = [f"user{number}@example.org" for number in range(24)]
    for name in names:
        world.tick(name)
    world.list.poison = set(names)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    assert sum(len(told) == 1 for _, told in world.list.calls) == 10


def test_only_the_difference_is_pushed_in_batches(world: World) -> None:
    for number in range(7):
        world.tick(f"new{number}@example.org")
    world.tick("there@example.org", seen=True)
    world.list.join("there@example.org")
    world.sync()
    assert [(name, len(told)) for name, told in world.list.calls] == [
        ("roster", 0), ("add", 3), ("add", 3), ("add", 1), ("roster", 0),
    ]  # fmt: skip
    world.sync()
    assert [name for name, _ in world.list.calls] == ["roster"]


def test_a_refusal_is_recorded_told_once_and_tried_again_after_a_day(world: World) -> None:
    world.tick("ada@example.org")
    world.list.banned.add("ada@example.org")
    assert world.sync().new_failures == ((Action.ADD, "ada@example.org", Result.REJECTED, "banned"),)
    assert world.row("ada@example.org").refusal == "banned"
    world.clock.advance(hours=23)
    assert world.sync().new_failures == ()
    assert world.told("add") == []
    world.clock.advance(hours=1)
    assert world.sync().new_failures == ()  # no news
    assert world.told("add") == ["ada@example.org"]
    world.list.banned.clear()
    world.clock.advance(hours=24)
    world.sync()
    row = world.row("ada@example.org")
    assert (row.seen, row.refusal, row.refused_at) == (True, None, None)


def test_a_refused_address_is_tried_again_when_the_preference_changes(world: World) -> None:
    world.tick("ada@example.org")
    world.list.banned.add("ada@example.org")
    world.sync()
    for ticked in (set(), {"members"}):
        user_id = world.session.scalar(select(User.id))
        world.session.commit()
        choose(
            world.session, user_id, shown={"members": not ticked}, ticked=ticked,
            catalogue=world.portal.catalogue(), now=world.clock(),
        )  # fmt: skip
    world.sync()
    assert world.told("add") == ["ada@example.org"]


def test_held_back_lines_stand_in_the_plan_and_count_neither_in_limits_nor_id(world: World) -> None:
    world.tick("ada@example.org", source="superuser")
    nothing = world.sync().plan.id  # the add is pushed
    world.update("ada@example.org", refusal="banned", refused_at=world.clock(), seen=False)
    world.list.leave("ada@example.org")
    plan = dry_run(world.session, world.mailing_list, world.list, clock=world.clock).plan
    assert [(line.action, line.held_back) for line in plan.lines] == [("add", True)]
    assert plan.id != nothing
    assert plan.id == hashlib.sha256(b"members").hexdigest()[:16]


def test_a_held_add_waits_and_a_leave_wins_when_the_moderator_lets_them_in(world: World) -> None:
    world.tick("ada@example.org")
    world.list.is_moderated = True
    world.sync()
    assert world.row("ada@example.org").waiting_since == world.clock()
    world.update("ada@example.org", subscribed=False, touched=True, version=9, refusal=None, refused_at=None)
    world.sync()
    assert world.row("ada@example.org").waiting_since is not None
    world.list.approve("ada@example.org")
    world.sync()
    row = world.row("ada@example.org")
    assert (row.subscribed, row.seen, row.waiting_since) == (False, False, None)


def test_who_is_let_in_just_before_the_add_is_withdrawn_is_removed_by_the_next_run(world: World) -> None:
    world.list = WithdrawingList()
    world.tick("ada@example.org")
    world.list.is_moderated = True
    world.sync()
    world.update("ada@example.org", subscribed=False, touched=True, version=9, refusal=None, refused_at=None)
    world.list.watcher = lambda moment: world.list.approve("ada@example.org") if moment == "before withdraw" else None
    world.sync()
    assert world.row("ada@example.org").waiting_since is not None
    world.list.watcher = lambda _moment: None
    world.sync()
    row = world.row("ada@example.org")
    assert (row.subscribed, row.seen, row.waiting_since) == (False, False, None)
    assert world.list.members == {}


def test_a_held_add_that_nobody_wants_any_more_is_withdrawn(world: World) -> None:
    world.list = WithdrawingList()
    world.tick("ada@example.org")
    world.tick("bob@example.org")
    world.list.is_moderated = True
    world.sync()
    world.update("ada@example.org", subscribed=False, touched=True, version=9, refusal=None, refused_at=None)
    world.sync()
    assert world.told("withdraw") == ["ada@example.org"]
    assert list(world.list.held) == ["bob@example.org"]
    row = world.row("ada@example.org")
    assert (row.subscribed, row.seen, row.waiting_since) == (False, False, None)
    world.sync()
    assert [name for name, _ in world.list.calls] == ["roster"]
    world.list.join("ada@example.org")  # by hand: that is a join like any other now
    world.sync()
    assert world.row("ada@example.org").subscribed is True


def test_a_run_that_cannot_withdraw_fails_and_the_next_one_withdraws(world: World) -> None:
    world.list = WithdrawingList()
    world.tick("ada@example.org")
    world.list.is_moderated = True
    world.sync()
    world.update("ada@example.org", subscribed=False, touched=True, version=9, refusal=None, refused_at=None)
    world.list.watcher = breaking("before withdraw", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    assert world.row("ada@example.org").waiting_since is not None
    world.list.watcher = lambda _moment: None
    world.sync()
    assert world.list.held == {}
    assert world.row("ada@example.org").waiting_since is None
    assert "ada@example.org" not in world.list.members


def test_waiting_ends_after_90_days(world: World) -> None:
    world.tick("ada@example.org", subscribed=False, seen=False, waiting_since=world.clock())
    world.clock.advance(days=89)
    world.sync()
    assert world.row("ada@example.org").waiting_since is not None
    world.clock.advance(days=1)
    world.sync()
    assert world.row("ada@example.org").waiting_since is None


def test_a_clock_that_was_years_ahead_keeps_no_add_waiting_and_no_refused_one_back(world: World) -> None:
    ahead = world.clock() + timedelta(days=3650)
    world.tick("ada@example.org", subscribed=False, seen=False, waiting_since=ahead)
    world.tick("bob@example.org", seen=False, refused_at=ahead, refusal="banned", push_result="rejected")
    world.update("bob@example.org", touched=False)
    world.sync()
    assert world.row("ada@example.org").waiting_since is None
    assert world.row("bob@example.org").seen


@pytest.mark.parametrize("moment", ["before roster", "before add", "after add", "before remove", "after remove"])
def test_a_list_manager_that_breaks_down_loses_nothing_and_the_next_run_heals(world: World, moment: str) -> None:
    world.tick("ada@example.org")
    world.tick("bob@example.org", subscribed=False, seen=True)
    world.list.join("bob@example.org")
    world.list.watcher = breaking(moment, 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    assert (world.row("ada@example.org").touched, world.row("bob@example.org").touched) == (True, True)
    assert world.runs()[-1].state == "failed"
    world.list.watcher = lambda _moment: None
    world.sync()
    assert set(world.list.members) == {"ada@example.org"}
    assert world.runs()[-1].state == "done"
    assert world.row("ada@example.org").source == "user"


def test_what_a_run_had_done_before_it_broke_down_is_counted_as_its_own(world: World) -> None:
    world.tick("ada@example.org")
    world.tick("bob@example.org", subscribed=False, seen=True)
    world.list.join("bob@example.org")
    world.list.watcher = breaking("before roster", 1)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    assert (world.runs()[0].added, world.runs()[0].removed) == (0, 0)
    world.list.watcher = lambda _moment: None
    world.sync()
    first, second = world.runs()
    assert (first.state, first.added, first.removed) == ("failed", 1, 1)
    assert (second.state, second.added, second.removed) == ("done", 0, 0)
    world.sync()
    assert [(each.added, each.removed) for each in world.runs()] == [(1, 1), (0, 0), (0, 0)]


def test_an_empty_roster_after_the_push_is_in_doubt(world: World) -> None:
    world.tick("ada@example.org", seen=True)
    world.list.join("ada@example.org")
    world.tick("new@example.org")

    def forget(moment: str) -> None:
        if moment == "after add":
            world.list.members.clear()

    world.list.watcher = forget
    with pytest.raises(RosterInDoubtError, match="after the push"):
        world.sync()
    assert world.row("ada@example.org").seen is True
    assert world.row("new@example.org").touched is True


def test_an_empty_roster_after_removing_everybody_is_believed(world: World) -> None:
    world.tick("ada@example.org", subscribed=False, seen=True)
    world.list.join("ada@example.org")
    world.sync()
    assert world.row("ada@example.org").seen is False


def test_who_leaves_while_the_run_works_is_noticed_by_the_next(world: World) -> None:
    world.tick("ada@example.org", seen=True)
    world.list.join("ada@example.org")
    world.tick("new@example.org")

    def leave(moment: str) -> None:
        if moment == "after add":
            world.list.leave("ada@example.org")

    world.list.watcher = leave
    world.sync()
    assert world.row("ada@example.org").seen is True  # as the plan's roster said
    world.list.watcher = lambda _moment: None
    world.sync()
    assert "ada@example.org" not in world.list.members
    assert world.row("ada@example.org").source == "list"


def test_a_tick_during_the_removal_is_not_lost(world: World) -> None:
    world.tick("ada@example.org", subscribed=False, seen=True)
    world.tick("bob@example.org", seen=True)
    world.list.join("ada@example.org")
    world.list.join("bob@example.org")

    def tick(moment: str) -> None:
        if moment == "after remove":
            world.update("ada@example.org", subscribed=True, touched=True, version=7)

    world.list.watcher = tick
    world.sync()
    world.list.watcher = lambda _moment: None
    assert world.row("ada@example.org").subscribed is True
    world.sync()
    assert "ada@example.org" in world.list.members


def test_an_interrupted_accepted_plan_needs_no_second_yes(world: World) -> None:
    for number in range(8):
        world.tick(f"user{number}@example.org", subscribed=False, seen=True, source="superuser")
        world.list.join(f"user{number}@example.org")
    with pytest.raises(SafetyLimitError) as refusal:
        world.sync()
    world.list.watcher = breaking("after remove", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync(accept=refusal.value.plan_id)
    assert len(world.list.members) == 5
    world.list.watcher = lambda _moment: None
    world.sync()
    assert world.list.members == {}


def test_a_plan_that_changed_is_not_let_through_by_an_old_id(world: World) -> None:
    for number in range(8):
        world.tick(f"user{number}@example.org", subscribed=False, seen=True, source="superuser")
        world.list.join(f"user{number}@example.org")
    with pytest.raises(SafetyLimitError) as refusal:
        world.sync()
    world.tick("one-more@example.org", subscribed=False, seen=True, source="superuser")
    world.list.join("one-more@example.org")
    with pytest.raises(SafetyLimitError):
        world.sync(accept=refusal.value.plan_id)


def test_the_safety_limits_stop_many_adds(world: World) -> None:
    for number in range(26):
        world.tick(f"user{number}@example.org", source="superuser")
    with pytest.raises(SafetyLimitError, match="adds 26"):
        world.sync()
    assert world.runs()[-1].state == "held"


def test_the_safety_limits_stop_many_leaves(world: World) -> None:
    for number in range(8):
        world.tick(f"user{number}@example.org", seen=True)
    world.list.join("user0@example.org")
    with pytest.raises(SafetyLimitError, match="7 of 8"):
        world.sync()
    assert world.runs()[-1].left == 0  # nothing was done, so nothing is told of it


def test_a_roster_in_doubt_counts_as_having_done_nothing(world: World) -> None:
    world.tick("ada@example.org", seen=True)
    make_user(world.session, "new", "new@example.org")
    with pytest.raises(SafetyLimitError):
        world.sync()
    run = world.runs()[-1]
    assert (run.state, run.on_roster) == ("held", 0)
    assert (run.initialised, run.left, run.joined, run.held) == (0, 0, 0, 0)


@pytest.mark.parametrize("strange", ["<html>", "no such thing", "", "a\nb@example.org", 7, None, b"x@example.net"])
def test_what_any_kind_returns_is_checked_like_a_roster(world: World, strange: object) -> None:
    world.tick("ada@example.org")
    world.list.members = {"x": "x@example.net", "y": strange}  # type: ignore[dict-item]
    with pytest.raises(ListManagerUnavailableError, match="returned something that is not an address"):
        world.sync()
    assert world.runs()[-1].state == "failed"


def test_an_odd_subscriber_is_counted_and_left_alone(world: World) -> None:
    world.tick("ada@example.org")
    world.list.members = {"y": OddSubscriber("no such thing")}
    plan = world.sync().plan
    assert (plan.on_roster, plan.without_account) == (1, 1)
    assert set(world.list.members) == {"y", "ada@example.org"}


def test_all_spellings_of_an_address_on_the_roster_are_removed(world: World) -> None:
    world.tick("ada@example.org", subscribed=False, seen=True)
    world.list.members = {name: name for name in ("Ada@example.org", "ADA@example.org", "ada@example.org")}
    world.sync()
    assert sorted(world.told("remove")) == ["ADA@example.org", "Ada@example.org", "ada@example.org"]


def test_two_spellings_that_stay_on_the_roster_are_one_refusal(world: World) -> None:
    world.tick("ada@example.org", subscribed=False, seen=True)
    world.list.members = {name: name for name in ("Ada@example.org", "ada@example.org")}
    world.list.stubborn.add("ada@example.org")
    found = world.sync()
    assert [each.words for each in found.new_failures] == ["may not leave"]
    assert (found.counts["added"], found.counts["removed"], found.counts["refused"]) == (0, 0, 1)


def test_a_plan_that_fails_while_it_is_written_applies_nothing(world: World) -> None:
    world.tick("ada@example.org", seen=True)
    world.update("ada@example.org", touched=False)
    moments = iter([world.clock(), world.clock(), world.clock(), None, *[world.clock()] * 9])

    def clock() -> datetime:
        moment = next(moments)
        if moment is None:  # when what the list says is to be taken over
            raise OSError("the clock stopped")
        return moment

    with pytest.raises(OSError, match="the clock stopped"):
        begin_planned_run(
            world.session, world.mailing_list, RosterText([b"bob@example.net\n"]), clock=clock, request=Request()
        )
    assert world.row("ada@example.org").subscribed
    assert world.runs()[-1].state == "failed"
    with leases.held(world.session, "members"):
        pass


def test_in_a_planned_run_all_spellings_are_printed_and_counted(world: World) -> None:
    world.tick("ada@example.org", subscribed=False, seen=True)
    text = RosterText(["Ada@example.org", "ada@example.org"])
    taken = carry_out(world.session, world.mailing_list, text, clock=world.clock, use=RosterUse(plan=True))
    assert taken.answer["removals"] == 2
    assert printed(world, Action.REMOVE) == ["Ada@example.org", "ada@example.org"]


def test_a_domain_goes_out_in_its_ascii_form_and_the_local_part_as_typed(world: World) -> None:
    world.tick("Ada@Bücher.example")
    world.sync()
    assert world.told("add") == ["Ada@xn--bcher-kva.example"]


def test_the_address_of_a_mailing_list_is_never_added_and_reported_once(world: World) -> None:
    own = canonical(world.mailing_list.email)
    assert own in world.mailing_list.never_added
    world.tick(own)
    world.tick("ada@example.org")
    ((_, address, _, words),) = world.sync().new_failures
    assert (address, words) == (own, world.row(own).refusal)
    world.clock.advance(hours=25)
    assert world.sync().new_failures == ()
    assert set(world.list.members) == {"ada@example.org"}


def test_an_adapter_that_says_nothing_of_an_address_is_judged_by_the_roster(world: World) -> None:
    world.tick("ada@example.org")
    world.list.add = lambda addresses: {}  # type: ignore[method-assign]
    world.sync()
    assert world.row("ada@example.org").waiting_since is not None
    assert world.row("ada@example.org").refusal == "not on the list after it was added"


def test_a_second_run_is_turned_away_while_one_is_at_work(world: World) -> None:
    with leases.held(world.session, "members"), pytest.raises(LeaseHeldError, match="until"):
        world.sync()


def test_an_interruption_is_written_down_and_goes_on(world: World) -> None:
    world.tick("ada@example.org")
    world.list.watcher = breaking("before add", 0, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        world.sync()
    assert world.runs()[-1].message == "interrupted: KeyboardInterrupt"


def test_a_run_left_open_is_repaired_and_said(world: World) -> None:
    world.session.add(Run(list_handle="members", kind="sync", asked_by="", host="", started_at=world.clock()))
    world.session.commit()
    sync_result = world.sync()
    assert len(sync_result.repaired) == 1
    assert world.runs()[0].state == "unfinished"


# Planned runs.


def plan_by_pipe(world: World, **request: object) -> tuple[SyncResult, int]:
    lines = [address.encode() for address in world.list.members.values()]
    return begin_planned_run(
        world.session, world.mailing_list, RosterText(lines), clock=world.clock, request=Request(**request)
    )


def confirm_by_pipe(world: World, **request: object) -> SyncResult:
    lines = [address.encode() for address in world.list.members.values()]
    return confirm_planned_run(
        world.session, world.mailing_list, RosterText(lines), clock=world.clock, request=Request(**request)
    )


def printed(world: World, action: Action) -> list[str]:
    return [address for block in planned(world.session, world.mailing_list, action) for address in block]


def test_a_planned_run_does_in_steps_what_a_sync_does(world: World) -> None:
    world.tick("ada@example.org")
    world.tick("bob@example.org", subscribed=False, seen=True)
    world.tick("left@example.org", seen=True)
    make_user(world.session, "dora")
    for address in ("Bob@example.org", "dora@example.org", "stranger@example.net"):
        world.list.join(address)
    plan_by_pipe(world)
    assert printed(world, Action.ADD) == ["ada@example.org"]
    assert printed(world, Action.REMOVE) == ["Bob@example.org"]
    assert world.row("left@example.org").source == "list"  # rule 2 is applied before anything is pushed
    assert world.row("dora@example.org").source == "init"
    with pytest.raises(LeaseHeldError, match="planned run"):
        world.sync()
    world.list.add(printed(world, Action.ADD))
    world.list.remove(printed(world, Action.REMOVE))
    sync_result = confirm_by_pipe(world)
    assert sync_result.tally == {"added": 1, "removed": 1, "refused": 0, "waiting": 0, "no_effect": 0}
    assert (world.row("ada@example.org").seen, world.row("bob@example.org").seen) == (True, False)
    assert world.sync().plan.lines == ()


def test_what_was_not_pushed_in_a_planned_run_is_recorded(world: World) -> None:
    world.tick("ada@example.org")
    world.tick("bob@example.org", subscribed=False, seen=True)
    world.list.join("bob@example.org")
    plan_by_pipe(world)
    sync_result = confirm_by_pipe(world)
    assert sync_result.tally == {"added": 0, "removed": 0, "refused": 0, "waiting": 0, "no_effect": 2}
    assert world.row("ada@example.org").waiting_since is not None
    assert world.row("bob@example.org").refusal == "still on the list after it was removed"


@pytest.mark.parametrize("step", ["confirm", "abandon"])
def test_a_token_ends_the_planned_run_that_it_is_of_and_no_other(world: World, step: str) -> None:
    world.tick("ada@example.org")
    use = RosterUse(plan=True, allow_empty=True)
    first = carry_out(world.session, world.mailing_list, RosterText([]), clock=world.clock, use=use).answer["token"]
    abandon_planned_run(world.session, world.mailing_list, clock=world.clock, token=str(first))
    second = carry_out(world.session, world.mailing_list, RosterText([]), clock=world.clock, use=use).answer["token"]
    assert first != second

    def end(token: object) -> None:
        own = RosterUse(confirm=step == "confirm", abandon=step == "abandon", allow_empty=True, token=str(token))
        carry_out(world.session, world.mailing_list, RosterText([]), clock=world.clock, use=own)

    with pytest.raises(NoPlannedRunError):
        end(first)
    assert world.runs()[-1].state == "planned"
    end(second)
    assert world.runs()[-1].state == ("done" if step == "confirm" else "failed")


@pytest.mark.parametrize("ends", ["by hand", "by time"])
def test_an_abandoned_planned_run_takes_back_what_it_took_over_and_no_first_preference(world: World, ends: str) -> None:
    world.tick("left@example.org")
    world.tick("joined@example.org", subscribed=False)
    world.tick("chose@example.org")
    world.update("left@example.org", seen=True, touched=False, source="superuser")
    world.update("joined@example.org", seen=False, touched=False, source="user")
    world.update("chose@example.org", seen=True, touched=False, source="superuser")
    make_user(world.session, "fresh")
    world.tick("stays@example.org", seen=True)
    stays = {"stays@example.org": "stays@example.org"}
    before = {name: world.row(f"{name}@example.org") for name in ("left", "joined", "chose")}
    world.list.members = {"joined@example.org": "joined@example.org", "x@example.net": "x@example.net", **stays}
    plan_by_pipe(world)
    assert not world.row("left@example.org").subscribed
    assert world.row("joined@example.org").subscribed
    world.update(
        "chose@example.org", subscribed=True, source="user", version=world.row("chose@example.org").version + 1
    )
    world.clock.advance(minutes=5)
    if ends == "by hand":
        abandon_planned_run(world.session, world.mailing_list, clock=world.clock)
    else:
        world.clock.advance(hours=2)
        world.session.execute(update(Lease).values(expires_at=world.clock() - timedelta(hours=1)))
        world.session.commit()
        world.list.members = {"left@example.org": "left@example.org", "chose@example.org": "chose@example.org", **stays}
        world.sync()
    for name in ("left", "joined"):
        row = world.row(f"{name}@example.org")
        kept = [(each.subscribed, each.source, each.changed_at, each.seen) for each in (row, before[name])]
        assert kept[0] == kept[1]
        assert row.version > before[name].version
    assert world.row("chose@example.org").source == "user"
    assert world.row("fresh@example.org").source == "init"


def test_a_planned_run_needs_an_announcement_for_empty_input(world: World) -> None:
    world.tick("ada@example.org")
    with pytest.raises(NoAddressesError):
        plan_by_pipe(world)
    plan_by_pipe(world, allow_empty=True)
    with pytest.raises(NoAddressesError):
        confirm_by_pipe(world)
    confirm_by_pipe(world, allow_empty=True)


def test_an_emptied_roster_is_believed_in_a_planned_run_by_its_id_alone(world: World) -> None:
    world.tick("ada@example.org", seen=True)
    with pytest.raises(SafetyLimitError, match=r"--accept [0-9a-f]{16}$") as doubt:
        plan_by_pipe(world, allow_empty=True)
    plan_by_pipe(world, allow_empty=True, accept=doubt.value.plan_id)
    assert world.row("ada@example.org").source == "list"


def test_a_planned_run_that_ends_on_an_empty_roster_is_in_doubt_and_stays_open(world: World) -> None:
    world.tick("ada@example.org", seen=True)
    world.list.join("ada@example.org")
    world.tick("new@example.org")
    plan_by_pipe(world)
    world.list.members.clear()
    with pytest.raises(NoAddressesError):
        confirm_by_pipe(world)
    with pytest.raises(RosterInDoubtError):
        confirm_planned_run(
            world.session, world.mailing_list, RosterText([]), clock=world.clock, request=Request(allow_empty=True)
        )  # fmt: skip
    world.list.join("ada@example.org")
    confirm_by_pipe(world)


def test_an_end_of_a_planned_run_that_lost_the_list_meanwhile_writes_nothing(world: World) -> None:
    world.tick("ada@example.org")
    plan_by_pipe(world, allow_empty=True)
    world.list.join("ada@example.org")
    lines = [address.encode() for address in world.list.members.values()]

    def clock_while_another_ends_it() -> datetime:
        world.session.rollback()
        world.session.execute(delete(Lease))
        world.session.commit()
        return world.clock()

    with pytest.raises(LeaseHeldError, match="took over the list"):
        confirm_planned_run(
            world.session, world.mailing_list, RosterText(lines), clock=clock_while_another_ends_it, request=Request()
        )
    assert world.row("ada@example.org").seen is None
    assert world.runs()[-1].state == "planned"


def test_there_is_nothing_to_print_or_to_confirm_without_a_planned_run(world: World) -> None:
    world.list.join("x@example.org")
    with pytest.raises(NoPlannedRunError):
        confirm_by_pipe(world)
    with pytest.raises(NoPlannedRunError):
        printed(world, Action.ADD)


def test_a_planned_run_gives_the_lease_back_when_it_is_refused(world: World) -> None:
    for number in range(26):
        world.tick(f"user{number}@example.org", source="superuser")
    world.list.join("x@example.org")
    with pytest.raises(SafetyLimitError):
        plan_by_pipe(world)
    with leases.held(world.session, "members"):
        pass


# Address changes and departures.


def move(world: World, old: str, new: str) -> None:
    user_id = world.session.scalar(select(UserAddress.user_id).join(Address).where(Address.canonical == old))
    world.session.commit()
    assert user_id is not None
    address_changes.change(
        world.session, user_id, Checked(canonical(new), new), actor=COMMAND_LINE, now=world.clock(),
        lists=world.portal.catalogue().lists,
    )  # fmt: skip


def test_an_address_change_adds_the_new_one_and_then_removes_the_old(world: World) -> None:
    world.tick("x@example.org", seen=True)
    world.list.join("x@example.org")
    move(world, "x@example.org", "y@example.org")
    world.sync()
    assert [name for name, _ in world.list.calls] == ["roster", "add", "remove", "roster"]
    assert set(world.list.members) == {"y@example.org"}
    assert world.row("x@example.org").departed


def test_leaving_never_waits_behind_an_add_that_fails(world: World) -> None:
    world.tick("x@example.org", seen=True)
    world.tick("new@example.org", seen=False)
    world.list.join("x@example.org")
    world.list.join("other@example.org")
    move(world, "x@example.org", "y@example.org")
    world.tick("gone@example.org", False, seen=True)
    world.list.join("gone@example.org")
    world.sync()
    calls = [(name, list(told)) for name, told in world.list.calls if name != "roster"]
    assert calls == [
        ("remove", ["gone@example.org"]),
        ("add", ["new@example.org", "y@example.org"]),
        ("remove", ["x@example.org"]),
    ]


def test_the_old_address_stays_until_the_new_one_was_added(world: World) -> None:
    world.tick("x@example.org", seen=True)
    world.list.join("x@example.org")
    move(world, "x@example.org", "y@example.org")
    world.list.is_moderated = True
    world.sync()
    assert set(world.list.members) == {"x@example.org"}
    world.sync()  # the new one is held back now, and so is the removal
    assert set(world.list.members) == {"x@example.org"}
    world.list.approve("y@example.org")
    world.sync()
    assert set(world.list.members) == {"y@example.org"}


def test_in_a_planned_run_the_old_address_waits_for_the_next(world: World) -> None:
    world.tick("x@example.org", seen=True)
    world.list.join("x@example.org")
    move(world, "x@example.org", "y@example.org")
    plan_by_pipe(world)
    assert printed(world, Action.REMOVE) == []
    world.list.add(printed(world, Action.ADD))
    confirm_by_pipe(world)
    plan_by_pipe(world)
    assert printed(world, Action.REMOVE) == ["x@example.org"]


def test_a_leave_with_the_old_address_follows_the_person(world: World) -> None:
    world.tick("x@example.org", seen=True)
    world.tick("other@example.org", seen=True)
    world.list.join("other@example.org")
    move(world, "x@example.org", "y@example.org")  # and x has left at the list meanwhile
    world.sync()
    assert set(world.list.members) == {"other@example.org"}
    assert (world.row("y@example.org").subscribed, world.row("y@example.org").source) == (False, "list")


def test_a_leave_does_not_follow_to_an_address_that_is_on_the_list(world: World) -> None:
    world.tick("x@example.org", seen=True)
    world.tick("other@example.org", seen=True)
    world.list.join("other@example.org")
    world.list.join("x@example.org")
    world.list.stubborn.add("x@example.org")
    move(world, "x@example.org", "y@example.org")
    world.sync()
    assert {"x@example.org", "y@example.org"} < set(world.list.members)
    world.list.leave("x@example.org")
    world.sync()
    assert set(world.list.members) == {"other@example.org", "y@example.org"}


def test_whoever_joined_with_the_new_address_by_hand_stays(world: World) -> None:
    world.tick("x@example.org", seen=True)
    move(world, "x@example.org", "y@example.org")
    world.list.join("y@example.org")
    world.sync()
    assert set(world.list.members) == {"y@example.org"}
    assert world.row("y@example.org").subscribed is True


def test_going_back_undoes_a_move(world: World) -> None:
    world.tick("x@example.org", seen=True)
    world.list.join("x@example.org")
    move(world, "x@example.org", "y@example.org")
    move(world, "y@example.org", "x@example.org")
    world.sync()
    assert set(world.list.members) == {"x@example.org"}
    row = world.row("x@example.org")
    assert (row.subscribed, row.moved_to) == (True, None)


def test_a_departed_subscriber_is_removed_and_restored_on_return(world: World) -> None:
    world.tick("x@example.org", seen=True)
    world.tick("y@example.org", seen=True)
    world.list.join("x@example.org")
    world.list.join("y@example.org")
    world.session.execute(update(User).where(User.username == "x").values(is_active=False))
    world.session.commit()
    world.sync()
    assert set(world.list.members) == {"y@example.org"}
    assert world.row("x@example.org").departed is True
    world.session.execute(update(User).where(User.username == "x").values(is_active=True))
    world.session.commit()
    world.sync()
    assert set(world.list.members) == {"x@example.org", "y@example.org"}


def test_a_dry_run_writes_and_pushes_nothing(world: World) -> None:
    world.tick("ada@example.org")
    sync_result = dry_run(world.session, world.mailing_list, world.list, clock=world.clock)
    assert [line.row.canonical for line in sync_result.plan.lines] == ["ada@example.org"]
    assert world.list.members == {}
    assert world.runs() == []
