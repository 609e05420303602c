"""The results of runs when something else happens in the meantime, or happened to an earlier run."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.merge import Action
from portal.domain.roster_text import RosterText
from portal.errors import ListManagerUnavailableError, NoPlannedRunError, SafetyLimitError
from portal.extensions import db
from portal.listmanagers.base import Outcome, Result
from portal.models import Address, Base, History, Lease, Preference, Run, RunLine, User
from portal.services.accounts import address_changes, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE
from portal.services.preferences import preferences
from portal.services.sync import plans
from portal.services.sync.planned_runs import begin_planned_run, confirm_planned_run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from portal.services.sync.wanted import planned
from portal.services.transaction import reading
from tests.factories import make_address, make_preference, make_user
from tests.fakes.memory import Killed, MemoryList, breaking

A, B, X, Y, Z = (f"{name}@example.org" for name in "abxyz")
QUIET = staticmethod(lambda _moment: None)


class World:
    """A list in memory, one user for each address, and what they and the operator do."""

    def __init__(self, app, session, clock):
        self.session, self.clock = session, clock
        self.catalogue = app.extensions["portal"].catalogue()
        self.members = self.catalogue.get("members")
        self.list = MemoryList()
        self.users = {}

    def user(self, address, **values):
        self.users[address] = make_user(self.session, address.partition("@")[0], address, **values)

    def has(self, address, subscribed=True, *, on=None, **columns):
        """Let a user hold an address with a preference; ``on``: it is on the list, and was seen there."""
        self.user(address)
        if on is not None:
            columns = {"seen": on, **columns}
            if on:
                self.list.join(address)
        make_preference(self.session, "members", address, subscribed, **columns)

    def toggle(self, address, session=None):
        own = session or self.session
        page = preferences.page(own, self.users[address], catalogue=self.catalogue, now=self.clock())
        shown = {
            offer.mailing_list.handle: offer.is_ticked
            for offer in page.offers
            if offer.mailing_list.handle == "members"
        }
        ticked = {handle for handle, was_ticked in shown.items() if not was_ticked}
        preferences.choose(
            own, self.users[address], shown=shown, ticked=ticked, catalogue=self.catalogue, now=self.clock()
        )

    def move(self, old, new):
        self.users[new] = self.users.pop(old)
        address_changes.change(
            self.session, self.users[new], checked(new),
            actor=COMMAND_LINE, now=self.clock(), lists=self.catalogue.lists,
        )  # fmt: skip

    def delete(self, address, *, erase=False):
        users.delete(self.session, address.partition("@")[0], now=self.clock(), erase=erase, lists=self.catalogue.lists)

    def sync(self, **request):
        self.list.calls.clear()
        return sync_list(self.session, self.members, self.list, clock=self.clock, request=Request(**request))

    def at(self, moment, act):
        """Do something at a moment of the next run, once, in the middle of the list manager's work."""
        left = [act]

        def watch(now):
            if now == moment and left:
                left.pop()()

        self.list.watcher = watch

    def begin(self, open_manager=None, **request):
        lines = [each.encode() for each in self.list.members.values()]
        return begin_planned_run(
            self.session,
            self.members,
            RosterText(lines),
            clock=self.clock,
            request=Request(allow_empty=True, **request),
            open_manager=open_manager,
        )

    def confirm(self):
        lines = [each.encode() for each in self.list.members.values()]
        return confirm_planned_run(
            self.session, self.members, RosterText(lines), clock=self.clock, request=Request(allow_empty=True)
        )

    def printed(self, action):
        return [each for block in planned(self.session, self.members, action) for each in block]

    def row(self, address):
        query = select(Preference).join(Address, Address.id == Preference.address_id)
        found = self.session.scalars(
            query.where(Address.canonical == address).execution_options(populate_existing=True)
        ).one_or_none()
        if found is not None:
            self.session.expunge(found)
        self.session.rollback()
        return found

    def on(self):
        return set(self.list.members)

    def pushed(self, name):
        return [address for call, told in self.list.calls if call == name for address in told]

    def told(self):
        found = self.session.execute(
            select(History.address, History.subscribed, History.source).order_by(History.id)
        ).all()
        self.session.rollback()
        return found

    def all(self, query):
        found = self.session.scalars(query.execution_options(populate_existing=True)).all()
        self.session.expunge_all()
        self.session.rollback()
        return found


@pytest.fixture
def world(app, session, clock):
    return World(app, session, clock)


@pytest.fixture
def chunks_of_one(monkeypatch):
    for name in ("sqlite", "postgresql"):
        monkeypatch.setitem(database._CHUNK, name, 1)


# Only what differs is written.


def test_a_second_run_in_a_row_writes_nothing_but_itself(world):
    world.user(A)
    world.has(B, on=True)
    world.has(X, False)
    world.list.join("stranger@example.net")
    world.sync()
    tables = [table for table in Base.metadata.sorted_tables if table.name != "runs"]

    def dump():
        found = [world.session.execute(select(table)).all() for table in tables]
        world.session.rollback()
        return found

    before = dump()
    world.clock.advance(hours=1)
    world.sync()
    assert dump() == before


def test_a_take_over_is_told_in_history_as_the_lists(world):
    world.user(A)
    world.has(B, on=True)
    world.has(X, False, on=False)
    world.list.leave(B)
    world.list.join(X)
    world.sync()
    assert world.told() == [(A, False, "init"), (B, False, "list"), (X, True, "list")]
    assert world.row(B).changed_by is None
    assert world.row(B).changed_at == world.clock()
    assert (world.row(B).version, world.row(X).version) == (1, 1)


# What happens during a run.


def test_a_choice_made_during_the_run_is_not_overwritten_by_a_first_preference(world):
    world.user(A)
    world.has(B)
    world.at("after add", lambda: world.toggle(A))
    world.sync()
    assert (world.row(A).subscribed, world.row(A).source) == (True, "user")
    assert (A, False, "init") not in world.told()
    world.sync()
    assert world.on() == {A, B}


def test_an_untick_during_the_add_is_carried_out_by_the_next_run(world):
    world.has(A)
    world.at("after add", lambda: world.toggle(A))
    world.sync()
    assert (world.row(A).subscribed, world.row(A).touched, world.row(A).seen) == (False, True, None)
    world.sync()
    assert world.on() == set()


def test_a_tick_and_an_untick_during_the_add_are_two_choices_and_none_is_lost(world):
    world.has(A)

    def twice():
        world.toggle(A)
        world.toggle(A)

    world.at("after add", twice)
    world.sync()
    assert (world.row(A).touched, world.row(A).seen) == (True, None)
    world.sync()
    assert world.on() == {A}
    assert world.row(A).touched is False


def test_an_address_without_a_preference_that_is_given_up_during_the_run_is_passed_over(world):
    world.user(A)
    world.has(B)
    world.at("after add", lambda: world.move(A, Y))
    world.sync()
    assert world.row(A) is None
    assert world.told() == []
    world.sync()
    assert world.row(Y).source == "init"


def test_when_every_address_without_a_preference_is_given_up_the_run_is_good_all_the_same(world):
    world.user(A)
    world.at("after roster", lambda: None)
    world.has(B)
    world.at("after add", lambda: world.delete(A))
    world.sync()
    assert world.all(select(Run.state)) == ["done"]


def test_a_move_during_the_add_of_the_old_address_ends_with_the_new_one(world):
    world.has(X)
    world.at("after add", lambda: world.move(X, Y))
    world.sync()
    assert world.on() == {X}
    world.sync()
    assert world.on() == {Y}


def test_a_move_during_the_removal_of_the_old_address_is_not_taken_for_a_leave(world):
    world.has(X, False, on=True)
    world.has(A, on=True)

    def tick_and_move():
        world.toggle(X)
        world.move(X, Y)

    world.at("after remove", tick_and_move)
    world.sync()
    assert world.on() == {A}
    world.sync()
    assert world.on() == {A, Y}


def test_an_account_that_is_deleted_during_its_add_is_removed_by_the_next_run(world):
    world.has(A)
    world.at("after add", lambda: world.delete(A))
    world.sync()
    assert world.on() == {A}
    world.sync()
    assert world.on() == set()
    assert world.row(A).departed


def test_a_row_that_is_gone_by_the_end_of_the_run_stops_nothing(world):
    world.has(A)
    world.has(B)

    def forget():
        with Session(db.engine) as own, own.begin():
            address_id = own.scalar(select(Address.id).where(Address.canonical == A))
            own.execute(delete(Preference).where(Preference.address_id == address_id))

    world.at("after add", forget)
    sync_result = world.sync()
    assert (world.row(A), world.row(B).seen) == (None, True)
    assert sync_result.tally["added"] == 2


# What an earlier run left.


def test_what_an_interrupted_accepted_plan_left_over_needs_no_second_yes_leaves_included(world):
    for number in range(8):
        world.has(f"u{number}@example.org", on=True)
    world.list.members.clear()
    world.list.join("stranger@example.net")
    world.has(A)
    with pytest.raises(SafetyLimitError) as refusal:
        world.sync()
    world.list.watcher = breaking("before add", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync(accept=refusal.value.plan_id)
    world.list.watcher = QUIET
    world.sync()
    assert A in world.on()
    assert world.row("u0@example.org").source == "list"


def test_leftovers_of_an_accepted_plan_make_no_room_for_others(world):
    for number in range(8):
        world.has(f"u{number}@example.org", False, on=True)
    with pytest.raises(SafetyLimitError) as refusal:
        world.sync()
    world.list.watcher = breaking("before remove", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync(accept=refusal.value.plan_id)
    world.list.watcher = QUIET
    for number in range(10, 16):
        world.has(f"u{number}@example.org", False, on=True)
    with pytest.raises(SafetyLimitError, match="removes 6 of 14"):
        world.sync()


def test_removals_of_killed_runs_that_nobody_approved_count_against_the_safety_limits(world):
    for number in range(4):
        world.has(f"u{number}@example.org", False, on=True)
    world.list.watcher = breaking("before remove", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    world.list.watcher = QUIET
    for number in range(4, 8):
        world.has(f"u{number}@example.org", False, on=True)
    with pytest.raises(SafetyLimitError, match="removes 8 of 8"):
        world.sync()
    assert len(world.on()) == 8


def test_an_accepted_plan_that_was_carried_out_is_no_yes_for_the_next(world):
    for number in range(8):
        world.has(f"u{number}@example.org", False, on=True, source="superuser")
        world.list.stubborn.add(f"u{number}@example.org")
    with pytest.raises(SafetyLimitError) as refusal:
        world.sync()
    world.sync(accept=refusal.value.plan_id)
    world.clock.advance(days=1)
    with pytest.raises(SafetyLimitError):
        world.sync()


def test_lines_that_were_held_by_the_safety_limits_explain_nothing(world):
    for number in range(8):
        world.has(f"u{number}@example.org", False, on=True)
    with pytest.raises(SafetyLimitError):
        world.sync()
    assert len(world.all(select(RunLine.address))) == 8  # for whoever has to say yes
    assert world.all(select(RunLine).where(~RunLine.settled)) == []
    with reading(world.session):
        assert plans.unfinished_acts(world.session, "members") == {}


def test_a_good_run_leaves_no_line_open(world):
    world.has(A)
    world.has(B, False, on=True)
    world.has(X, on=True)
    world.list.watcher = breaking("before remove", 0)
    world.list.leave(X)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    assert len(world.all(select(RunLine).where(~RunLine.settled))) == 3
    world.list.watcher = QUIET
    world.sync()
    assert world.all(select(RunLine).where(~RunLine.settled)) == []


def test_a_crash_before_a_leave_with_the_old_address_was_followed_does_not_lose_it(world, chunks_of_one, monkeypatch):
    """The old address's row was written first once; what followed from it was then never seen again."""
    world.has(A, on=True)
    world.has(X, on=True)
    world.move(X, Y)
    world.list.leave(X)

    def die(_session):
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(database, "pause", die)
        with pytest.raises(Killed):
            world.sync()
    world.session.rollback()
    world.sync()
    assert world.on() == {A}
    assert (world.row(Y).subscribed, world.row(Y).source) == (False, "list")


def test_an_add_that_a_killed_run_may_have_left_with_a_moderator_waits(world):
    world.has(A)
    world.list.is_moderated = True
    world.list.watcher = breaking("after add", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    world.list.watcher = QUIET
    world.toggle(A)
    world.sync()
    assert world.row(A).waiting_since == world.clock()
    world.list.approve(A)
    world.sync()
    assert world.on() == set()


def test_an_address_is_counted_once_though_an_unfinished_run_was_about_to_remove_it(world):
    world.has(A, on=True)
    world.session.execute(update(User).values(is_active=False))
    world.session.commit()
    world.list.watcher = breaking("before remove", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    world.list.watcher = QUIET
    users.activate(world.session, "a", now=world.clock(), lists=world.catalogue.lists)
    plan = world.sync().plan
    assert (plan.lines, plan.seen_on, plan.expected.seen_on, plan.staying) == ((), 1, 1, 1)


def test_an_unfinished_run_of_another_list_explains_nothing(world):
    world.has(A, on=True)
    run = Run(list_handle="tech", kind="sync", asked_by="", host="", started_at=world.clock(), state="failed")
    world.session.add(run)
    world.session.flush()
    world.session.add(
        RunLine(
            run_id=run.id, address_id=make_address(world.session, A), list_handle="tech",
            address=A, spelling=A, action="remove", reason="chosen", version=0,
        )
    )  # fmt: skip
    world.session.commit()
    world.list.leave(A)
    world.list.join(B)
    world.sync()
    assert world.row(A).source == "list"


# Waiting.


def test_an_add_that_is_tried_again_after_90_days_waits_anew(world):
    """The first add's time was kept once: a moderator could let in whoever had changed their mind since."""
    world.has(A)
    world.list.is_moderated = True
    world.sync()
    world.clock.advance(days=100)
    world.sync()
    assert world.pushed("add") == [A]
    assert world.row(A).waiting_since == world.clock()
    world.toggle(A)
    world.sync()
    world.list.approve(A)
    world.sync()
    assert world.on() == set()


def test_an_add_that_is_tried_again_before_keeps_the_time_since_when_it_waits(world):
    world.has(A)
    world.list.is_moderated = True
    world.sync()
    since = world.clock()
    world.clock.advance(days=30)
    world.sync()
    assert world.pushed("add") == [A]
    assert world.row(A).waiting_since == since


def test_waiting_ends_by_a_plain_refusal(world):
    world.has(A)
    world.list.is_moderated = True
    world.sync()
    world.list.is_moderated = False
    world.list.banned.add(A)
    world.clock.advance(days=1)
    world.sync()
    assert (world.row(A).waiting_since, world.row(A).refusal) == (None, "banned")


def test_waiting_ends_by_a_removal(world):
    world.has(A, False, on=False, waiting_since=world.clock())
    world.list.join(A)
    world.sync()
    assert (world.on(), world.row(A).waiting_since) == (set(), None)


# Refusals.


def test_an_add_that_is_held_or_did_not_take_says_so(world):
    world.has(A)
    world.has(B)
    world.list.add = lambda each: {A: Outcome(Result.PENDING), B: Outcome(Result.DONE)}
    sync_result = world.sync()
    assert sorted(sync_result.new_failures) == [
        (Action.ADD, A, Result.PENDING, "waiting for a moderator"),
        (Action.ADD, B, Result.UNDONE, "not on the list after it was added"),
    ]
    assert [world.row(each).push_result for each in (A, B)] == ["pending", "undone"]
    assert world.row(A).waiting_since is not None
    assert world.row(B).waiting_since is not None, "nobody said no"


def test_a_refusal_that_is_on_the_roster_all_the_same_is_none(world):
    world.has(A)

    def add(each):
        world.list.join(A)
        return {A: Outcome(Result.REJECTED, "you are a member already")}

    world.list.add = add
    world.sync()
    assert (world.row(A).refusal, world.row(A).seen) == (None, True)


def test_the_words_of_a_list_manager_are_cut_to_what_a_row_holds(world):
    world.has(A)
    world.list.add = lambda each: {A: Outcome(Result.REJECTED, "no " * 100)}
    world.sync()
    assert world.row(A).refusal == ("no " * 100)[:200]


def test_a_refusal_goes_when_nothing_is_left_to_do(world):
    world.has(A)
    world.list.banned.add(A)
    world.sync()
    world.list.join(A)
    world.sync()
    assert (world.row(A).refusal, world.row(A).refused_at, world.row(A).seen) == (None, None, True)


def test_a_refusal_stays_with_its_time_while_it_is_held_back(world):
    world.has(A)
    world.list.banned.add(A)
    world.sync()
    at = world.clock()
    world.clock.advance(hours=5)
    world.sync()
    assert (world.row(A).refusal, world.row(A).refused_at) == ("banned", at)


def test_a_refusal_that_is_held_back_outlives_the_end_of_the_waiting(world):
    world.has(A)
    world.list.is_moderated = True
    world.sync()
    world.clock.advance(days=89, hours=12)
    world.sync()
    at = world.clock()
    world.clock.advance(hours=13)
    world.sync()
    row = world.row(A)
    assert (row.waiting_since, row.refusal, row.refused_at) == (None, "waiting for a moderator", at)


def test_a_removal_of_a_departed_address_that_was_refused_is_tried_again_after_a_day(world):
    world.has(A, on=True)
    world.has(B, on=True)
    world.list.stubborn.add(A)
    world.delete(A)
    sync_result = world.sync()
    assert sync_result.new_failures == ((Action.REMOVE, A, Result.REJECTED, "may not leave"),)
    assert (world.row(A).departed, world.row(A).refusal, world.row(A).subscribed) == (False, "may not leave", True)
    world.sync()
    assert world.pushed("remove") == []
    world.list.stubborn.clear()
    world.clock.advance(days=1)
    world.sync()
    assert world.on() == {B}
    assert world.row(A).departed


def test_an_address_that_returns_before_its_refused_removal_is_tried_again_stays(world):
    world.has(A, on=True)
    world.list.stubborn.add(A)
    world.session.execute(update(User).values(is_active=False))
    world.session.commit()
    world.sync()
    users.activate(world.session, "a", now=world.clock(), lists=world.catalogue.lists)
    world.list.stubborn.clear()
    world.clock.advance(days=1)
    world.sync()
    assert (world.on(), world.row(A).refusal) == ({A}, None)


# Departures and the purge.


def test_whoever_joins_again_by_hand_after_the_departure_is_not_touched_again(world):
    world.has(A, on=True)
    world.session.execute(update(User).values(is_active=False))
    world.session.commit()
    world.sync()
    world.list.join(A)
    for _run in range(3):
        world.sync()
        assert world.on() == {A}


def test_a_row_is_purged_90_days_after_the_last_holder_let_go_where_no_roster_has_the_address(world):
    world.has(A, False, on=False)
    world.has(B, on=True)
    world.delete(A)
    world.delete(B)
    world.sync()
    world.clock.advance(days=89)
    world.sync()
    assert None not in (world.row(A), world.row(B))
    world.clock.advance(days=1)
    world.sync()
    assert (world.row(A), world.row(B)) == (None, None)
    assert world.all(select(Address.canonical)) == []
    assert world.on() == set()


def test_a_row_stays_while_an_inactive_account_holds_the_address(world):
    world.has(A, on=True)
    world.session.execute(update(User).values(is_active=False))
    world.session.commit()
    world.sync()
    assert (world.row(A).subscribed, world.row(A).seen) == (True, False)


def test_a_row_stays_while_the_roster_holds_the_address(world):
    world.has(A, on=True)
    world.list.stubborn.add(A)
    world.delete(A)
    world.clock.advance(days=91)
    world.sync()
    assert world.row(A) is not None


def test_a_row_stays_while_an_add_waits(world):
    world.has(A)
    world.list.is_moderated = True
    world.sync()
    world.delete(A, erase=True)
    world.sync()
    assert world.row(A) is not None


def test_an_address_that_is_held_again_by_the_end_of_the_run_keeps_its_row(world):
    world.has(A, on=True)
    world.delete(A)

    def give_back():
        with Session(db.engine) as own:
            make_user(own, "a2", A)

    world.at("after remove", give_back)
    world.sync()
    assert world.row(A).subscribed is True
    world.sync()
    assert world.on() == {A}


def test_an_address_with_a_preference_for_another_list_is_kept(world):
    world.has(A, False, on=False)
    make_preference(world.session, "tech", A, False, seen=False)
    world.delete(A)
    world.clock.advance(days=90)
    world.sync()
    assert world.all(select(Address.canonical)) == [A]
    assert world.all(select(Preference.list_handle)) == ["tech"]


def test_whoever_leaves_the_audience_is_removed_and_restored_with_the_group(world):
    world.members = world.catalogue.get("board")
    make_user(world.session, "a", groups=("board",))
    make_preference(world.session, "board", A, True, seen=True)
    world.list.join(A)
    users.set_groups(world.session, "a", groups=[], now=world.clock(), lists=world.catalogue.lists)
    world.sync()
    assert world.on() == set()
    assert (world.row(A).subscribed, world.row(A).changed_by) == (True, None)
    users.set_groups(world.session, "a", groups=["board"], now=world.clock(), lists=world.catalogue.lists)
    world.sync()
    assert world.on() == {A}


def test_a_mailbox_that_one_active_holder_is_left_of_is_managed(world):
    world.has(A, on=True)
    make_user(world.session, "charlie", A)
    world.delete(A)
    world.sync()
    assert world.on() == {A}


# The portal always wins.


def test_where_list_changes_are_not_honoured_the_portal_wins_and_seen_is_kept_all_the_same(world):
    world.members = replace(world.members, honour_list_changes=False)
    world.has(A, on=True)
    world.has(B, on=True)
    world.has(X, False, on=False)
    world.list.leave(A)
    world.list.join(X)
    world.sync()
    assert world.on() == {A, B}
    assert [(world.row(each).subscribed, world.row(each).seen) for each in (A, X)] == [(True, True), (False, False)]
    assert world.told() == []


def test_where_list_changes_are_not_honoured_no_leave_follows_to_the_new_address(world):
    world.members = replace(world.members, honour_list_changes=False)
    world.has(A, on=True)
    world.has(X, on=True)
    world.move(X, Y)
    world.list.leave(X)
    world.sync()
    assert world.on() == {A, Y}


# Spelling.


@pytest.mark.parametrize(
    ("typed", "on_the_list"),
    [
        ("Alice@Example.org", "aLICE@eXAMPLE.org"),
        ("alice@exämple.org", "alice@xn--exmple-cua.org"),
        ("Ä@example.org", "a\u0308@example.org"),
    ],
)
def test_two_spellings_of_one_mailbox_are_one_and_the_rosters_is_what_is_removed(world, typed, on_the_list):
    user_id = make_user(world.session, "alice", typed)
    world.list.members["key"] = on_the_list
    world.sync()
    world.users[typed] = user_id
    world.toggle(typed)
    world.list.remove = lambda told: world.list.calls.append(("remove", tuple(told))) or {}
    world.sync()
    assert world.pushed("remove") == [on_the_list]


def test_a_change_of_spelling_alone_removes_and_adds_nobody(world):
    world.has(A, on=True)
    world.users["A@Example.org"] = world.users[A]
    world.move("A@Example.org", "A@EXAMPLE.org")
    world.sync()
    assert [name for name, _told in world.list.calls] == ["roster"]


def test_a_list_that_left_the_catalogue_is_not_touched_by_the_runs_of_others(world):
    world.has(A, on=True)
    make_preference(world.session, "former", A, False, seen=True, touched=True)
    world.sync()
    (kept,) = world.all(select(Preference).where(Preference.list_handle == "former"))
    assert (kept.subscribed, kept.seen, kept.touched) == (False, True, True)


# A move over two addresses.


@pytest.mark.parametrize("result", [Result.DONE, Result.ALREADY])
def test_the_old_address_goes_where_the_add_of_the_new_one_was_done_or_already(world, result):
    world.has(X, on=True)
    world.move(X, Y)
    add = world.list.add
    world.list.add = lambda each: {address: Outcome(result) for address in add(each)}
    world.sync()
    assert world.on() == {Y}


@pytest.mark.parametrize("refuse", [{"banned": {Y}}, {"is_moderated": True}])
def test_the_old_address_stays_where_the_new_one_was_refused_or_held(world, refuse):
    world.has(X, on=True)
    world.move(X, Y)
    for name, value in refuse.items():
        setattr(world.list, name, value)
    world.sync()
    assert world.on() == {X}
    assert world.row(X).departed is False
    assert world.row(X).refusal is None


def test_where_departed_addresses_are_kept_an_old_one_is_removed_all_the_same(world):
    world.members = replace(world.members, remove_on_departure=False)
    world.has(X, on=True)
    world.has(A, on=True)
    world.move(X, Y)
    world.delete(A)
    world.sync()
    assert world.on() == {A, Y}


def test_an_emptied_roster_is_in_doubt_though_a_leave_would_follow_to_the_only_subscriber(world):
    world.has(X, on=True)
    world.list.stubborn.add(X)
    world.move(X, Y)
    world.sync()
    assert world.on() == {X, Y}
    world.list.members.clear()
    with pytest.raises(SafetyLimitError):
        world.sync()


def test_the_address_that_somebody_moved_to_is_counted_once(world):
    world.has(X, on=True)
    world.list.stubborn.add(X)
    world.move(X, Y)
    world.sync()
    plan = world.sync().plan
    assert (plan.seen_on, plan.expected.seen_on, plan.staying) == (2, 1, 1)


def test_a_leave_follows_to_the_address_that_somebody_moved_on_to_during_the_run(world):
    world.has(A)
    world.has(B, on=True)
    world.has(X, on=True)
    world.move(X, Y)
    world.list.leave(X)
    world.at("after add", lambda: world.move(Y, Z))
    world.sync()
    world.sync()
    assert world.on() == {A, B}
    assert (world.row(Z).subscribed, world.row(Z).source) == (False, "list")
    assert world.row(X).departed


# Planned runs.


def an_hour_passes(world):
    world.session.execute(update(Lease).values(expires_at=datetime(2000, 1, 1, tzinfo=UTC)))
    world.session.commit()


def test_a_planned_run_that_is_abandoned_half_way_is_ours_and_said(world):
    world.has(A)
    world.has(B, False, on=True)
    world.has(X, False, on=True)
    world.begin()
    world.list.add([A])
    world.list.remove([B])  # and then the script died
    world.toggle(A)
    world.toggle(B)
    an_hour_passes(world)
    sync_result = world.sync()
    assert len(sync_result.repaired) == 1
    assert world.on() == {B}
    assert [line for line in world.told() if line[2] == "list"] == []
    assert world.all(select(Run.state).order_by(Run.id)) == ["unfinished", "done"]


def test_a_planned_run_that_was_never_pushed_is_done_by_the_next(world):
    world.has(A)
    world.has(B, False, on=True)
    world.begin()
    an_hour_passes(world)
    world.sync()
    assert world.on() == {A}


def test_a_choice_between_the_halves_of_a_planned_run_is_not_overwritten(world):
    world.has(A)
    world.has(B, on=True)
    world.begin()
    world.list.add(world.printed(Action.ADD))
    world.toggle(A)
    world.confirm()
    assert (world.row(A).subscribed, world.row(A).touched) == (False, True)
    world.sync()
    assert world.on() == {B}


def test_a_planned_run_explains_what_an_unfinished_one_did(world):
    world.has(A)
    world.has(B, on=True)
    world.list.watcher = breaking("after add", 0)
    with pytest.raises(ListManagerUnavailableError):
        world.sync()
    world.list.watcher = QUIET
    world.toggle(A)
    world.begin()
    assert world.printed(Action.REMOVE) == [A]
    world.list.remove([A])
    world.confirm()
    assert (world.row(A).seen, world.row(A).subscribed, world.on()) == (False, False, {B})


def test_a_planned_run_can_be_confirmed_once(world):
    world.has(A, on=True)
    world.begin()
    world.confirm()
    for _again in range(2):
        with pytest.raises(NoPlannedRunError):
            world.confirm()
