"""Options that go along with a move, from the old address to the new one."""

import pytest
from sqlalchemy import func, select

from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import ConfigurationError
from portal.models import KnownOptions, RunLine
from portal.services.sync.sync import dry_run
from tests.fakes.memory import CarryingList, MemoryList, OptionsList
from tests.services.sync.test_settlement import World

OLD, NEW, OTHER = "alice@example.org", "alice@home.example.org", "bob@example.org"
DIGEST, NO_MAIL = SubscriberOptions("digest"), SubscriberOptions("no mail", is_mail_off=True)


@pytest.fixture
def world(app, session, clock):
    return World(app, session, clock)


def moved(world, manager, options):
    """Let Alice, who is on the list with options, move, and somebody else join."""
    world.list = manager
    world.has(OLD, on=True)
    world.has(OTHER)
    manager.chosen = {OLD: options}
    world.move(OLD, NEW)


@pytest.mark.parametrize("options", [DIGEST, NO_MAIL])
def test_an_address_that_somebody_moved_to_gets_mail_as_the_old_one_did(world, options):
    moved(world, CarryingList(), options)
    world.sync()
    assert world.on() == {NEW, OTHER}
    assert world.list.chosen == {OLD: options, NEW: options}
    world.sync()
    assert [name for name, _ in world.list.calls] == ["roster"]


def test_somebody_who_had_switched_mail_off_is_not_added_where_that_cannot_be_carried(world):
    moved(world, OptionsList(), NO_MAIL)
    plan = world.sync().plan
    (line,) = [each for each in plan.lines if each.row.canonical == NEW]
    assert (line.held_back, line.reason) == (True, "options")
    assert world.on() == {OLD, OTHER}
    world.list.chosen.clear()
    world.sync()
    assert world.on() == {NEW, OTHER}


def test_digests_that_cannot_be_carried_keep_nobody_off_the_list(world):
    moved(world, OptionsList(), DIGEST)
    world.sync()
    assert world.on() == {NEW, OTHER}


def test_options_are_asked_for_where_somebody_moved_and_nowhere_else(world):
    world.list = CarryingList()
    world.has(OTHER)
    world.sync()
    assert "options" not in [name for name, _ in world.list.calls]


def test_a_list_manager_that_knows_no_options_adds_with_its_defaults(world):
    world.list = MemoryList()
    world.has(OLD, on=True)
    world.move(OLD, NEW)
    world.sync()
    assert world.on() == {NEW}


def line_of(world, address):
    """Return the last line that a run wrote about an address: whether it was put off, and why."""
    query = select(RunLine).where(RunLine.address == address).order_by(RunLine.run_id.desc())
    last = world.all(query)[0]
    return last.held, last.reason


def test_where_options_cannot_be_read_the_move_goes_on_and_its_line_says_so(world):
    moved(world, CarryingList(lacks_helper=True), NO_MAIL)
    world.sync()
    assert world.on() == {NEW, OTHER}
    assert line_of(world, NEW) == (False, "defaults")


def test_digests_that_cannot_be_carried_are_told_as_such(world):
    moved(world, OptionsList(), DIGEST)
    world.sync()
    assert line_of(world, NEW) == (False, "defaults")


def test_options_that_were_read_within_two_days_hold_for_an_add_that_is_tried_again(world):
    """The old address has another holder, and no run has to look at it any more."""
    moved(world, CarryingList(banned={NEW}), NO_MAIL)
    world.sync()
    world.list.leave(OLD)
    world.list.banned.clear()
    world.clock.advance(days=1)
    world.sync()
    assert (world.on(), world.list.chosen.get(NEW)) == ({OTHER}, None), "a leave follows the person"
    world.toggle(NEW)
    world.sync()
    assert (world.on(), world.list.chosen[NEW]) == ({OTHER, NEW}, NO_MAIL)


def test_what_was_read_more_than_two_days_ago_is_not_known_any_more(world):
    moved(world, CarryingList(banned={NEW}), NO_MAIL)
    world.sync()
    world.list.leave(OLD)
    world.list.banned.clear()
    world.clock.advance(days=1)
    world.sync()
    world.clock.advance(days=1, seconds=1)
    world.toggle(NEW)
    world.sync()
    assert (world.on(), NEW in world.list.chosen) == ({OTHER, NEW}, False)


def test_what_the_list_manager_says_now_counts_more_than_what_it_said_before(world):
    moved(world, OptionsList(), NO_MAIL)
    world.sync()
    world.list.chosen.clear()
    world.sync()
    assert world.on() == {NEW, OTHER}
    assert line_of(world, NEW) == (False, "chosen")


def test_a_dry_run_keeps_nothing_of_what_it_reads(world):
    moved(world, OptionsList(), NO_MAIL)
    plan = dry_run(world.session, world.members, world.list, clock=world.clock).plan
    assert plan.counts["held"] == 1
    assert world.session.scalar(select(func.count()).select_from(KnownOptions)) == 0


def test_a_planned_run_does_not_add_somebody_who_had_switched_mail_off(world):
    moved(world, CarryingList(), NO_MAIL)
    world.begin(lambda: world.list)
    assert world.printed("add") == [OTHER]
    assert line_of(world, NEW) == (True, "options")
    world.confirm()
    world.sync()
    assert NEW in world.on()
    assert world.list.chosen[NEW] == NO_MAIL


def test_a_planned_run_adds_with_the_lists_defaults_somebody_who_had_chosen_digests(world):
    moved(world, CarryingList(), DIGEST)
    world.begin(lambda: world.list)
    assert world.printed("add") == [NEW, OTHER]
    assert line_of(world, NEW) == (False, "defaults")


def misconfigured():
    raise ConfigurationError("no password")


@pytest.mark.parametrize("why", ["it is down", "it is misconfigured", "it must not be asked"])
def test_a_planned_run_whose_host_cannot_read_options_adds_with_the_lists_defaults(world, why):
    moved(world, CarryingList(is_down=True), NO_MAIL)
    ways = {"it is down": lambda: world.list, "it is misconfigured": misconfigured, "it must not be asked": None}
    world.begin(ways[why])
    assert world.printed("add") == [NEW, OTHER]
    assert line_of(world, NEW) == (False, "defaults")


def test_a_planned_run_knows_what_was_read_before(world):
    moved(world, OptionsList(), NO_MAIL)
    world.sync()
    world.begin()
    assert line_of(world, NEW) == (True, "options")


def test_a_planned_run_of_a_kind_without_options_says_nothing_of_them(world):
    moved(world, MemoryList(), None)
    world.begin(lambda: world.list)
    assert line_of(world, NEW) == (False, "chosen")


def test_a_planned_run_without_a_move_asks_for_nothing(world):
    world.list = CarryingList()
    world.has(OTHER, True)
    world.begin(lambda: pytest.fail("nobody moved"))
    assert world.printed("add") == [OTHER]
