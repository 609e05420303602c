"""Options that go along with a move, from the old address to the new one."""

import pytest

from portal.domain.subscriber_options import SubscriberOptions
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
